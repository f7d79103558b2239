//! Commands of replication: batches of other replicas, and what replicas need not keep.
//! The rules are `cortex_core::replication`; when what is asked for is its driver's.

pub(crate) mod apply_batch;
pub(crate) mod cursors;
pub(crate) mod drain;
pub(crate) mod restamp;
pub(crate) mod tombstone_gc;
