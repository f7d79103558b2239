//! cortexd: a local-first store for the agents and services of one person's machines.

pub mod ambient;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod edge;
pub mod paths;
pub mod service;
mod sparing;
pub mod store;
