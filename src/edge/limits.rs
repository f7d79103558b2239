//! The bounds of a connection.
//! The bounds of what a caller may own are `cortex_core::model::Limits`.

use std::time::Duration;

/// What one connection, one uid and all together may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnLimits {
    /// Bytes of one message. A larger one closes the connection before it is buffered whole.
    pub message_bytes: usize,
    /// Levels of containers in one message. A deeper one is answered `invalid_request`.
    pub nesting: usize,
    /// Open connections in all; those of other machines are counted apart, up to the same number.
    pub connections: usize,
    /// Open connections of one uid, or of one other machine.
    pub connections_per_uid: usize,
    /// How long a message that has begun may take to arrive.
    pub message_time: Duration,
    /// How long a connection may rest between messages.
    pub idle_time: Duration,
    /// How long a client may take to accept any of the bytes it is sent.
    pub stall_time: Duration,
    /// How long the reading of one whole table may take.
    pub scan_time: Duration,
}

impl Default for ConnLimits {
    fn default() -> Self {
        Self {
            message_bytes: 1 << 20,
            nesting: 64,
            connections: 1024,
            connections_per_uid: 256,
            message_time: Duration::from_secs(30),
            // Long: agents keep a connection for a working day between two requests.
            idle_time: Duration::from_secs(86_400),
            stall_time: Duration::from_secs(30),
            scan_time: Duration::from_secs(600),
        }
    }
}
