//! Conflicts: versions of records that have lost against others although neither writer had seen the other's.
//! Which of two versions wins is `crate::replication`'s (`resolve`).

use serde::{Deserialize, Serialize};

use super::{
    Malformed, Response,
    param::{options, request},
    records::RawValue,
};
use crate::wire::{Head, Reader, encode};

options! {
    /// Which conflicts of a table.
    ConflictsOptions {
        /// At most so many, and at most 1000; 100 unless it is said.
        limit: Option<u32>,
        /// Only those with a smaller number.
        before: Option<i64>,
    }
}

request! {
    /// The conflicts of a table, the newest first; without one, how many there are of each.
    Conflicts<'a> = Conflicts -> ConflictList {
        /// The table.
        table: Option<&'a str>,
        /// Which of them.
        options: ConflictsOptions,
    }
}

/// Conflicts, as they were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ConflictList {
    /// How many there are of each table.
    Counts(Vec<ConflictCount>),
    /// Those of one table.
    Conflicts(Vec<Conflict>),
}

/// How many conflicts there are of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictCount {
    /// Its full name.
    pub table: String,
    /// On this node, of which nobody has taken note.
    pub conflicts: u64,
    /// That were forgotten for want of room.
    pub evicted: u64,
    /// On other nodes, as far as they have said.
    pub elsewhere: Vec<ConflictsElsewhere>,
}

/// How many conflicts another node keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictsElsewhere {
    /// Which.
    pub node: String,
    /// How many.
    pub conflicts: u64,
}

/// A conflict, without the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Its number on this node.
    pub id: i64,
    /// The record's key.
    pub key: String,
    /// True where the version that has lost is a deletion.
    pub deleted: bool,
    /// Bytes of the version that has lost.
    pub bytes: u64,
    /// When that was written.
    pub written_ms: u64,
    /// On which node; none where that is not known any more.
    pub by: Option<String>,
    /// The version that has won.
    pub winner: Version,
    /// When both have met here.
    pub seen_ms: u64,
    /// True where somebody has taken note of it.
    pub acknowledged: bool,
}

/// A version of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// When it was written.
    pub written_ms: u64,
    /// On which node; none where that is not known any more.
    pub by: Option<String>,
}

request! {
    /// One conflict, with the version that has lost and the record of now.
    ConflictShow<'a> = ConflictShow -> ConflictReport {
        /// The table.
        table: &'a str,
        /// The conflict's number.
        id: i64,
    }
}

/// A conflict with its records: one map, in which they are fields like the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictReport {
    /// All but the records.
    pub conflict: Conflict,
    /// The version that has lost; none where it is a deletion.
    pub record: Option<RawValue>,
    /// The record of now; none where there is none.
    pub current: Option<RawValue>,
}

impl Response for ConflictReport {
    fn read(result: &[u8]) -> Result<Self, Malformed> {
        let field = |name: &str| {
            let mut reader = Reader::new(result);
            let count = reader.map()?;
            let mut fields = (0..count).map_while(|_| Some((reader.text()?, reader.raw()?)));
            let (_, value) = fields.find(|(known, _)| *known == name)?;
            (Reader::new(value).head()? != Head::Nil).then(|| RawValue(value.to_vec()))
        };
        let conflict = Conflict::read(result)?;
        Ok(Self { conflict, record: field("record"), current: field("current") })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut fields = Vec::new();
        self.conflict.write(&mut fields);
        let mut reader = Reader::new(&fields);
        let Some(Head::Map(count)) = reader.head() else {
            unreachable!("a struct is written as a map")
        };
        encode::map(out, count + 2);
        out.extend_from_slice(reader.rest());
        for (name, value) in [("record", &self.record), ("current", &self.current)] {
            encode::str(out, name);
            match value {
                Some(value) => value.write(out),
                None => encode::nil(out),
            }
        }
    }
}

request! {
    /// Writes the version that has lost once more, on top of the record of now: `restored`.
    ConflictRestore<'a> = ConflictRestore -> String {
        /// The table.
        table: &'a str,
        /// The conflict's number.
        id: i64,
    }
}

request! {
    /// Takes note of a conflict, or of all of a table.
    ConflictAck<'a> = ConflictAck -> Acknowledged {
        /// The table.
        table: &'a str,
        /// The conflict's number; none for all.
        id: Option<i64>,
    }
}

/// Of how many conflicts note was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// So many.
    pub acknowledged: u64,
}
