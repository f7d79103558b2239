//! The ledger of conflicts: versions that have lost against another although neither writer had seen the
//! other's. Kept for people to look at, within bounds; what becomes of them is theirs to say. Writing it is `tx::ledger`'s.

use std::collections::BTreeMap;

use cortex_core::{
    model::{Hlc, Stamp, TableId},
    replication::OpenConflicts,
};
use rusqlite::{Connection, params};

use super::{actors::Actors, error::StoreError};

/// A version that has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its number on this machine.
    pub id: i64,
    /// The row's key.
    pub key: Vec<u8>,
    /// The record; none where the version was a deletion.
    pub value: Option<Vec<u8>>,
    /// When it was written, and by whom.
    pub stamp: Stamp,
    /// Its number among the writes of its actor.
    pub seq: u64,
    /// The version that has won.
    pub winner: Stamp,
    /// When the two met on this machine, in Unix milliseconds.
    pub seen_ms: u64,
    /// True once somebody has taken note of it.
    pub acknowledged: bool,
}

/// How many conflicts a replica keeps of which nobody has taken note.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConflictCounts {
    /// How many they are, and since when.
    pub open: OpenConflicts,
    /// How many have come since the file was opened.
    pub met: u64,
}

/// What the file says of two tallies: all but the number is of one run of the daemon.
impl PartialEq for ConflictCounts {
    fn eq(&self, other: &Self) -> bool {
        self.open.count == other.open.count
    }
}

impl Eq for ConflictCounts {}

/// Conflicts of a table, the newest first, from before a number.
pub(super) fn read(
    conn: &Connection,
    actors: &Actors,
    table: TableId,
    before: i64,
    limit: u32,
) -> Result<Vec<Conflict>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, key, value, hlc, actor, seq, winner_hlc, winner_actor, seen_ms,
         acknowledged FROM conflicts WHERE table_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3",
    )?;
    let rows = statement.query_map(params![table.0, before, limit], |row| {
        let stamp = |hlc: usize, actor_number: usize| -> rusqlite::Result<Stamp> {
            let actor = actors.id(row.get(actor_number)?);
            Ok(Stamp { hlc: Hlc::from_i64(row.get(hlc)?), actor })
        };
        Ok(Conflict {
            id: row.get(0)?,
            key: row.get(1)?,
            value: row.get(2)?,
            stamp: stamp(3, 4)?,
            seq: row.get(5)?,
            winner: stamp(6, 7)?,
            seen_ms: row.get(8)?,
            acknowledged: row.get(9)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How many conflicts there are of each table that nobody has taken note of, as the file has it.
pub(super) struct Open {
    counts: BTreeMap<TableId, u64>,
    /// No number is younger.
    since: Hlc,
}

impl Open {
    pub(super) fn of(&self, table: TableId) -> ConflictCounts {
        let count = self.counts.get(&table).copied().unwrap_or(0);
        ConflictCounts { open: OpenConflicts { since: self.since, count }, met: 0 }
    }
}

pub(super) fn open(conn: &Connection) -> Result<Open, StoreError> {
    let since = conn.query_row("SELECT hlc FROM node_state WHERE id = 1", [], |row| row.get(0))?;
    let mut statement = conn.prepare(
        "SELECT table_id, count(*) FROM conflicts WHERE acknowledged = 0 GROUP BY table_id",
    )?;
    let rows = statement.query_map([], |row| Ok((TableId(row.get(0)?), row.get(1)?)))?;
    Ok(Open { counts: rows.collect::<Result<_, _>>()?, since: Hlc::from_i64(since) })
}
