//! The bounds of a connection.
//! The bounds of what a caller may own are `cortex_core::model::Limits`.

use std::time::Duration;

use cortex_core::wire::Bounds;

/// What one connection, one uid and all together may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnLimits {
    /// Bytes of one message. A larger one is refused, and its connection closed, before it is buffered whole.
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

impl ConnLimits {
    /// The bounds of one message, as the core checks them.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds { message_bytes: self.message_bytes, nesting: self.nesting }
    }
}

impl Default for ConnLimits {
    fn default() -> Self {
        let Bounds { message_bytes, nesting } = Bounds::default();
        Self {
            message_bytes,
            nesting,
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
