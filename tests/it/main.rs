//! The integration tests that any user can run, as one program: it is linked once, and its tests wait side by side.
//! Apart are `root`, which needs root; `store`, which opens databases itself; `sim`, which simulates
//! replication; `histories`, which runs meshes under random faults; and `tidy`, which reads the sources.

mod cli;
mod mesh;
mod protocol;
mod replication;
mod service;
mod store;
#[path = "../support/mod.rs"]
mod support;
