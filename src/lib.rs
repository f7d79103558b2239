//! lib

pub mod cli;
pub mod client;
pub mod paths;
