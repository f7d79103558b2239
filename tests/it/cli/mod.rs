//! The command `cortex` as people and scripts use it.

mod commands;
mod debian_packages;
mod doctor;
mod mesh;
mod records;
mod sync;
