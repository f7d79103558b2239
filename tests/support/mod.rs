//! What integration tests share: daemons, meshes of them, a client's bytes.

#![allow(dead_code, reason = "each program of tests uses its part")]

pub(crate) mod cluster;
pub(crate) mod daemon;
pub(crate) mod fake_daemon;
pub(crate) mod line;
pub(crate) mod mesh;
pub(crate) mod private_bus;
pub(crate) mod rpc;
pub(crate) mod scripted;
pub(crate) mod tool;
pub(crate) mod values;
