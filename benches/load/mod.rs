//! The load generator behind `redis_ratio`: protocols, servers, load, figures.
//!
//! `wire` names what a protocol has to provide, `msgpack` and `resp` provide it,
//! `fleet` drives any of them, `server` starts and measures the processes.

pub(crate) mod args;
pub(crate) mod figures;
pub(crate) mod fleet;
pub(crate) mod interrupt;
pub(crate) mod limits;
pub(crate) mod msgpack;
pub(crate) mod pin;
pub(crate) mod report;
pub(crate) mod resp;
pub(crate) mod server;
pub(crate) mod wire;
pub(crate) mod work;
