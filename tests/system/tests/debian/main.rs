//! What the Debian package does on a Debian that has booted.
//! Building the package is `make system`'s.
//!
//! A test boots the hosts it needs, two or three seconds each, and shares nothing with the others.

mod activation;
mod bus;
mod faults;
mod journal;
mod mesh;
mod package;
mod peers;
mod reload;
mod replication;
mod restart;
mod sandbox;
