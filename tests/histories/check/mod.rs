//! The checkers: each takes what was recorded and answers what must not have happened, in words.
//! None of them asks a daemon; each is shown, on a history made by hand, to find what it is there for.

mod bits;
pub(crate) mod health;
pub(crate) mod records;
pub(crate) mod rights;
pub(crate) mod scope;
pub(crate) mod status;
