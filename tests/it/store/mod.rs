//! What the store of a daemon keeps and takes: of writes when it is killed, and of the machine's memory.

mod kill9;
mod memory;
