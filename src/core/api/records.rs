//! Single records, and lists of them: their bytes stay as they came.
//! What a record and a key are is `crate::model`'s.

use serde::Deserialize;

use super::{
    Malformed, Response,
    param::{Param, Raw, WriteParam, request},
};
use crate::wire::{Head, Reader, encode};

/// One MessagePack value, with the bytes that it came with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawValue(pub Vec<u8>);

impl RawValue {
    /// What it says.
    ///
    /// # Errors
    /// [`Malformed`] where it says something else.
    pub fn decoded<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Malformed> {
        rmp_serde::from_slice(&self.0).map_err(|error| Malformed(error.to_string().into()))
    }
}

impl Response for RawValue {
    fn read(result: &[u8]) -> Result<Self, Malformed> {
        Ok(Self(result.to_vec()))
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

/// A list of values, each with the bytes that it came with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawValues(pub Vec<RawValue>);

impl Response for RawValues {
    fn read(result: &[u8]) -> Result<Self, Malformed> {
        let malformed = || Malformed("a list of values is expected".into());
        let mut reader = Reader::new(result);
        let Some(Head::Array(count)) = reader.head() else {
            return Err(malformed());
        };
        let values = (0..count).map(|_| Some(RawValue(reader.raw()?.to_vec())));
        values.collect::<Option<_>>().map(Self).ok_or_else(malformed)
    }

    fn write(&self, out: &mut Vec<u8>) {
        encode::array(out, self.0.len());
        self.0.iter().for_each(|value| value.write(out));
    }
}

request! {
    /// Stores a record, in the place of the one with its key: `ok`.
    Put<'a> = Put -> String {
        /// The table.
        table: &'a str,
        /// A map; the table's key field must be in it.
        record: Raw<'a>,
    }
}

request! {
    /// One record.
    Get<'a> = Get -> RawValue {
        /// The table.
        table: &'a str,
        /// Its key: a text, or a number or boolean, which are compared as texts.
        key: Raw<'a>,
    }
}

request! {
    /// Deletes a record: `ok`, whether or not it was there.
    Delete<'a> = Delete -> String {
        /// The table.
        table: &'a str,
        /// Its key.
        key: Raw<'a>,
    }
}

request! {
    /// The records that match a pattern, by their keys.
    Match<'a> = Match -> RawValues {
        /// The table.
        table: &'a str,
        /// A map; every field of it must be in the record and equal.
        pattern: Raw<'a>,
        /// Which of them.
        page: Page<'a>,
    }
}

request! {
    /// The records of a table, by their keys.
    All<'a> = All -> RawValues {
        /// The table.
        table: &'a str,
        /// Which of them.
        page: Page<'a>,
    }
}

request! {
    /// The keys of a table, as texts.
    Keys<'a> = Keys -> Vec<String> {
        /// The table.
        table: &'a str,
        /// Which of them.
        page: Page<'a>,
    }
}

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page<'a> {
    /// At most so many.
    pub limit: Option<u64>,
    /// Only those after this key, which need not be there.
    pub after: Option<Raw<'a>>,
}

impl WriteParam for Page<'_> {
    fn is_absent(&self) -> bool {
        *self == Self::default()
    }

    fn write(&self, out: &mut Vec<u8>) {
        encode::map(out, usize::from(self.limit.is_some()) + usize::from(self.after.is_some()));
        if let Some(limit) = self.limit {
            encode::str(out, "limit");
            encode::uint(out, limit);
        }
        if let Some(after) = self.after {
            encode::str(out, "after");
            after.write(out);
        }
    }
}

impl<'a> Param<'a> for Page<'a> {
    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn read(encoded: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(encoded);
        let count = reader.map()?;
        let mut page = Self::default();
        for _ in 0..count {
            let (name, value) = (reader.text()?, reader.raw()?);
            match (name, Reader::new(value).head()?) {
                ("limit", Head::Int(limit)) => page.limit = Some(u64::try_from(limit).ok()?),
                ("limit" | "after", Head::Nil) => {}
                ("after", _) => page.after = Some(Raw(value)),
                _ => return None,
            }
        }
        Some(page)
    }
}
