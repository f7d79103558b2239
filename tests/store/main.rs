//! The store in the tests' own process: what it keeps, by its interface, on disks that are well, fail, tear writes
//! and lose
//! power. Nothing here starts a program: a child holds the lock of every open data directory until it is another one.

mod actor;
mod backup;
mod faults;
mod migrations;
mod model;
mod power_loss;
#[path = "../support/mod.rs"]
mod support;
mod upkeep;
