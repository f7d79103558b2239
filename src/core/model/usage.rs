//! What tables and their owners hold, as differences: records, and bytes of keys and values.

/// How a change moves the totals of a table, or of its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageDelta {
    /// Live records more or fewer.
    pub records: i64,
    /// Bytes of live records more or fewer, keys and values together.
    pub bytes: i64,
}

impl UsageDelta {
    /// The difference that takes this one back.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { records: -self.records, bytes: -self.bytes }
    }

    /// Both differences together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { records: self.records + other.records, bytes: self.bytes + other.bytes }
    }
}
