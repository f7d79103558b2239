//! Debian hosts, booted by their own systemd in containers, to try the package on.
//! What is tried on them is in `tests/debian/`.
//!
//! ```text
//!   image      a Debian, made once, kept below /var/cache          read-only
//!     │ overlay in memory, one per host
//!   Host       systemd-nspawn --boot; run commands in it, talk to its daemon
//!     │ virtual Ethernet
//!   Network    a bridge in a network namespace of its own
//! ```
//!
//! Needs root, and systemd-container, debootstrap and iproute2. Everything that a host consists of (its
//! processes, mounts, network) ends with it, also when the test process is killed.
//!
//! A test has no use for an error but to show it, so everything here panics with what went wrong.

mod command;
pub mod golden;
mod host;
mod image;
mod network;
pub mod package;

pub use command::{Ran, Running};
pub use host::{Host, User, wait_until};
pub use network::Network;
