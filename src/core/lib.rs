//! The decisions of cortexd: vocabulary, codecs and rules, as pure functions.
//! Sockets, files, SQLite, clocks and randomness are left to the daemon; time comes in as an argument.
//!
//! ```text
//!   model  <-  clock, directory, membership, merge   what things are <- what may happen to them
//!   directory  <-  gate                              who is who <- who may do what
//!   sync   <-  directory                             copies of tables on several machines
//!   wire   <-  model, sync                           bytes of requests, replies, and links between machines
//!   api    <-  model, wire                           what each method is asked, and what it answers
//!   rule   <-  directory, sync                       what holds, by name, so that tests can break it
//! ```
//!
//! Nothing in here performs I/O, so every rule can be run by the million in a simulation.

#![warn(missing_docs)]

pub mod api;
pub mod clock;
pub mod directory;
pub mod gate;
pub mod membership;
pub mod merge;
pub mod model;
pub mod replication;
pub mod rule;
pub mod wire;
