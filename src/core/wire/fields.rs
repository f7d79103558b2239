//! Maps with small integer keys, written and read: messages between machines, and rows of the directory.
//! Which keys there are is each message's, and each row's.

use crate::model::{Hlc, NodeName};

use super::{Reader, encode};

/// Keys from here on are of no message. Lower ones that are unknown belong to a later version, as do these.
const KEYS: usize = 32;

/// Machines that one message may name. A mesh has ten.
pub const NAMES: usize = 64;

/// Starts a message: so many fields must follow.
pub(super) fn begin(out: &mut Vec<u8>, kind: u64, fields: usize) {
    encode::map(out, 1 + fields);
    uint(out, 0, kind);
}

pub(super) fn uint(out: &mut Vec<u8>, key: u64, value: u64) {
    encode::uint(out, key);
    encode::uint(out, value);
}

pub(super) fn hlc(out: &mut Vec<u8>, key: u64, value: Hlc) {
    uint(out, key, value.to_i64().unsigned_abs());
}

pub(super) fn text(out: &mut Vec<u8>, key: u64, value: &str) {
    encode::uint(out, key);
    encode::str(out, value);
}

pub(super) fn bytes(out: &mut Vec<u8>, key: u64, value: &[u8]) {
    encode::uint(out, key);
    encode::bin(out, value);
}

/// The values of one map by their keys, still encoded.
#[derive(Debug)]
pub(crate) struct Fields<'a>([Option<&'a [u8]>; KEYS]);

impl<'a> Fields<'a> {
    /// None where the bytes are not one such map and no more, or where a key stands in it twice.
    pub(crate) fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let count = reader.map()?;
        let mut fields = [None; KEYS];
        for _ in 0..count {
            let key = reader.int()?;
            let value = reader.raw()?;
            if let Some(field) = usize::try_from(key).ok().and_then(|key| fields.get_mut(key))
                && field.replace(value).is_some()
            {
                return None;
            }
        }
        reader.rest().is_empty().then_some(Self(fields))
    }

    pub(crate) fn has(&self, key: usize) -> bool {
        self.0[key].is_some()
    }

    pub(crate) fn value(&self, key: usize) -> Option<Reader<'a>> {
        self.0[key].map(Reader::new)
    }

    pub(crate) fn int(&self, key: usize) -> Option<i128> {
        self.value(key)?.int()
    }

    pub(crate) fn uint(&self, key: usize) -> Option<u64> {
        self.value(key)?.count()
    }

    pub(crate) fn hlc(&self, key: usize) -> Option<Hlc> {
        i64::try_from(self.int(key)?).ok().filter(|value| *value >= 0).map(Hlc::from_i64)
    }

    pub(crate) fn text(&self, key: usize) -> Option<&'a str> {
        self.value(key)?.text()
    }

    pub(crate) fn bytes(&self, key: usize) -> Option<&'a [u8]> {
        self.value(key)?.bin()
    }

    pub(crate) fn id(&self, key: usize) -> Option<[u8; 16]> {
        self.value(key)?.bin_of()
    }

    pub(crate) fn node(&self, key: usize) -> Option<NodeName> {
        node(&mut self.value(key)?)
    }

    pub(crate) fn nodes(&self, key: usize) -> Option<Vec<NodeName>> {
        self.value(key)?.list(NAMES, node)
    }
}

/// Reads a machine's name.
pub(super) fn node(reader: &mut Reader<'_>) -> Option<NodeName> {
    NodeName::parse(reader.text()?).ok()
}
