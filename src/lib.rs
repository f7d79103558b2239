//! lib

pub mod paths;
