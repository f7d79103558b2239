//! Tables on several machines: what converges, what leaves, and what is said of it.

mod converge;
mod status;
