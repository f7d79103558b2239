//! The fields of a row of the directory, written and read: a map with small integers as keys.
//! A reader takes the fields it knows and passes over others, so that a newer node may add some.

use super::row::Seen;
use crate::{
    model::{NodeName, Uid},
    wire::{Fields, encode},
};

/// A map in the making.
#[derive(Debug, Default)]
pub(super) struct Record {
    pairs: usize,
    body: Vec<u8>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn key(&mut self, key: u64) -> &mut Vec<u8> {
        self.pairs += 1;
        encode::uint(&mut self.body, key);
        &mut self.body
    }

    pub(super) fn uint(&mut self, key: u64, value: u64) -> &mut Self {
        encode::uint(self.key(key), value);
        self
    }

    pub(super) fn text(&mut self, key: u64, value: &str) -> &mut Self {
        encode::str(self.key(key), value);
        self
    }

    pub(super) fn bytes(&mut self, key: u64, value: &[u8]) -> &mut Self {
        let body = self.key(key);
        encode::bin(body, value);
        self
    }

    pub(super) fn seen(&mut self, key: u64, seen: &Seen) -> &mut Self {
        let body = self.key(key);
        encode::map(body, seen.len());
        for (node, count) in seen {
            encode::str(body, node.as_str());
            encode::uint(body, *count);
        }
        self
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 5);
        encode::map(&mut out, self.pairs);
        out.extend_from_slice(&self.body);
        out
    }
}

/// What only rows of the directory have in their fields.
pub(super) trait RowFields {
    /// An id that rows of older versions lack; none where it stands there in another form.
    fn id_or_zeros(&self, key: usize) -> Option<[u8; 16]>;

    /// A uid.
    fn uid(&self, key: usize) -> Option<Uid>;

    /// Counts by nodes, each node once.
    fn seen(&self, key: usize) -> Option<Seen>;

    /// Counts that rows of older versions lack; none where they stand there in another form.
    fn seen_or_none(&self, key: usize) -> Option<Seen>;
}

impl RowFields for Fields<'_> {
    fn id_or_zeros(&self, key: usize) -> Option<[u8; 16]> {
        if self.has(key) { self.id(key) } else { Some([0; 16]) }
    }

    fn uid(&self, key: usize) -> Option<Uid> {
        u32::try_from(self.uint(key)?).ok().map(Uid)
    }

    fn seen(&self, key: usize) -> Option<Seen> {
        let mut reader = self.value(key)?;
        let mut seen = Seen::new();
        for _ in 0..reader.map()? {
            let node = NodeName::parse(reader.text()?).ok()?;
            if seen.insert(node, reader.count()?).is_some() {
                return None;
            }
        }
        Some(seen)
    }

    fn seen_or_none(&self, key: usize) -> Option<Seen> {
        if self.has(key) { self.seen(key) } else { Some(Seen::new()) }
    }
}
