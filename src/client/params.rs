//! The parameters of a request, encoded as they are added.
//! Leaves the request around them to the client, and their meaning to the daemon.

use rmpv::Value;

use super::pack;

/// A list of parameters, in the order in which they are added.
#[derive(Debug, Clone, Default)]
pub struct Params {
    count: usize,
    bytes: Vec<u8>,
}

impl Params {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a string.
    #[must_use]
    pub fn str(mut self, text: &str) -> Self {
        self.push_str(text);
        self
    }

    /// Adds any value.
    #[must_use]
    pub fn value(mut self, value: &Value) -> Self {
        self.count += 1;
        pack::value(&mut self.bytes, value);
        self
    }

    /// Adds one value that is MessagePack already.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.push_raw(bytes);
        self
    }

    /// Empties the list and keeps its memory, for callers that send many requests.
    pub fn clear(&mut self) {
        self.count = 0;
        self.bytes.clear();
    }

    /// Adds a string.
    pub fn push_str(&mut self, text: &str) {
        self.count += 1;
        pack::string(&mut self.bytes, text);
    }

    /// Adds one value that is MessagePack already.
    pub fn push_raw(&mut self, bytes: &[u8]) {
        self.count += 1;
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        pack::array_header(out, self.count);
        out.extend_from_slice(&self.bytes);
    }
}
