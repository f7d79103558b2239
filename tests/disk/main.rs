//! The store on disks that fail, tear writes and lose power: a file system under SQLite that only these tests have.

mod faults;
mod origin;
mod power_loss;
#[path = "../support/mod.rs"]
mod support;
