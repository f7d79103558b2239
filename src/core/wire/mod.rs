//! The bytes between clients and the daemon: MessagePack, and MessagePack-RPC in it.
//! What a request means is left to the service; how bytes travel, to the edge.

pub mod bounds;
pub mod encode;
mod fields;
pub mod frame;
pub mod link;
pub mod method;
pub mod replication;
pub mod rpc;
pub mod value;

pub(crate) use fields::Fields;

pub use bounds::{Bounds, OutOfBounds};
pub use frame::{FrameError, Scan, Scanner, Step};
pub use method::Method;
pub use rpc::Request;
pub use value::{Head, Reader, Value};
