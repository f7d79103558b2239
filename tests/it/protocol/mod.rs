//! What clients see on the socket: bytes, bounds, order, streams, and version 1 of the protocol.

mod bad_bytes;
mod bounds;
mod greeting;
mod load_wire;
mod open_errors;
mod pipelining;
mod slow_sender;
mod streaming;
mod v1;
