//! Connections: makes a caller out of a socket, moves bytes, keeps the bounds.
//! What a request means is the service's; nothing in here knows a table.
//!
//! ```text
//!   listener ──> unix: uid, seat ──> shard (one thread, one runtime per core)
//!                                       └─ conn: frames ─> service ─> replies, in request order
//!   peer port ──> peer: certificate ─> one thread: conn as above, or a link to another machine
//!   D-Bus ─────> bus: uid ──────────> one thread: methods ─> service ─> values and errors
//! ```

pub mod bus;
pub mod conn;
pub mod limits;
mod patience;
pub mod peer;
pub mod seats;
pub mod shard;
pub mod unix;
