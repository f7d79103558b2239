//! What every part of the daemon may use of the system that it runs on: it imports none of them.
//! `clock` and `random` are the two sources of nondeterminism; the core is given both as arguments.

pub mod clock;
pub mod fragments;
pub mod journal;
pub mod paths;
pub mod random;
pub(crate) mod throttle;
