//! The integration tests that need root: several users, file systems of their own, other people's files.
//! `cargo test` leaves them out; `cargo test --test root` as root runs them.

mod bus;
mod disk;
mod identity;
mod scope;
#[path = "../support/mod.rs"]
mod support;
mod uids;
mod user;
