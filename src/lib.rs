//! lib

pub mod client;
pub mod paths;
