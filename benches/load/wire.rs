//! What the load generator needs of a protocol: requests appended, replies skimmed.
//!
//! Sockets, counting and the choice of keys are left to the callers.

/// Long enough for the rows that [`Key::of`] can number.
pub(crate) const KEY_BYTES: usize = 12;

/// The payload of every record; the peers in our tables were measured with the same.
pub(crate) const VALUE_BYTES: usize = 100;

/// One side of one connection's conversation, in request order.
pub(crate) trait Wire: Default {
    /// Appends a request that any ready server answers.
    fn ping(&mut self, out: &mut Vec<u8>);

    /// Appends a durable write of one record.
    fn put(&mut self, out: &mut Vec<u8>, key: &Key, value: &[u8; VALUE_BYTES]);

    /// Appends a read of one record.
    fn get(&mut self, out: &mut Vec<u8>, key: &Key);

    /// Reads the reply that `bytes` begin with. A [`Stop`] leaves the state as it
    /// was, so the call can be repeated with more bytes.
    fn skim(&mut self, bytes: &[u8]) -> Result<Skimmed, Stop>;
}

/// One whole reply and how many bytes it took.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skimmed {
    pub(crate) len: usize,
    pub(crate) reply: Reply,
}

/// What a reply says, as far as a benchmark cares.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The request was carried out and returned no record.
    Done,
    /// A record came back, in this many bytes.
    Record(usize),
    /// The server said no, or had nothing under the key.
    Refused(String),
}

/// Why no reply could be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The reply goes on in bytes that are not here yet.
    Partial,
    /// These bytes are no reply to what was asked; the connection is lost.
    Malformed(&'static str),
}

/// The key of a row, in the fixed width that keeps requests cheap to encode.
#[derive(Debug)]
pub(crate) struct Key([u8; KEY_BYTES]);

impl Key {
    /// The key of row `row`: its last eight decimal digits behind `key:`.
    pub(crate) fn of(row: u32) -> Self {
        let mut key = *b"key:00000000";
        let mut rest = row;
        for digit in key[4..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Self(key)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}
