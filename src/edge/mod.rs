//! Connections: makes a caller out of a socket, moves bytes, keeps the bounds.
//! What a request means is the service's; nothing in here knows a table.
//!
//! ```text
//!   listener ──> unix: uid, permit ──> shard (one thread, one runtime per core)
//!                                       └─ conn: frames ─> service ─> replies, in request order
//!   peer port ──> peer: certificate ─> one thread: conn as above, or a link to another machine
//!   D-Bus ─────> bus: uid ──────────> one thread: methods ─> service ─> values and errors
//! ```

pub mod bus;
pub mod conn;
pub mod connections;
mod idle_timeout;
pub mod limits;
pub mod peer;
pub mod shard;
pub mod unix;
