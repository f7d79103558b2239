//! Maps with small integers as keys: the form of rows and messages between nodes.
//! A reader takes the fields it knows and passes over others, so that a newer node may add some.

use super::row::Seen;
use crate::{
    model::{NodeName, Uid},
    wire::{Reader, encode},
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

/// A map that was read.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<(u64, &'a [u8])>);

impl<'a> Fields<'a> {
    /// More than any row has.
    const MOST: usize = 32;

    /// None where the bytes are not one such map, or where a key stands in it twice.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let count = reader.map().filter(|count| *count <= Self::MOST)?;
        let mut fields = Vec::with_capacity(count);
        for _ in 0..count {
            let key = reader.uint()?;
            if fields.iter().any(|(known, _)| *known == key) {
                return None;
            }
            fields.push((key, reader.raw()?));
        }
        reader.rest().is_empty().then_some(Self(fields))
    }

    pub(super) fn has(&self, key: u64) -> bool {
        self.0.iter().any(|(known, _)| *known == key)
    }

    fn reader(&self, key: u64) -> Option<Reader<'a>> {
        let (_, value) = self.0.iter().find(|(known, _)| *known == key)?;
        Some(Reader::new(value))
    }

    pub(super) fn uint(&self, key: u64) -> Option<u64> {
        self.reader(key)?.count()
    }

    pub(super) fn text(&self, key: u64) -> Option<&'a str> {
        self.reader(key)?.text()
    }

    pub(super) fn bytes(&self, key: u64) -> Option<&'a [u8]> {
        self.reader(key)?.bin()
    }

    pub(super) fn id(&self, key: u64) -> Option<[u8; 16]> {
        self.bytes(key)?.try_into().ok()
    }

    /// An id that rows of older versions lack; none where it stands there in another form.
    pub(super) fn id_or_zeros(&self, key: u64) -> Option<[u8; 16]> {
        if self.has(key) { self.id(key) } else { Some([0; 16]) }
    }

    pub(super) fn uid(&self, key: u64) -> Option<Uid> {
        u32::try_from(self.uint(key)?).ok().map(Uid)
    }

    pub(super) fn node(&self, key: u64) -> Option<NodeName> {
        NodeName::parse(self.text(key)?).ok()
    }

    /// Counts that rows of older versions lack; none where they stand there in another form.
    pub(super) fn seen_or_none(&self, key: u64) -> Option<Seen> {
        if self.has(key) { self.seen(key) } else { Some(Seen::new()) }
    }

    pub(super) fn seen(&self, key: u64) -> Option<Seen> {
        let mut reader = self.reader(key)?;
        let count = reader.map()?;
        let mut seen = Seen::new();
        for _ in 0..count {
            let node = NodeName::parse(reader.text()?).ok()?;
            if seen.insert(node, reader.count()?).is_some() {
                return None;
            }
        }
        Some(seen)
    }
}
