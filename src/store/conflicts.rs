//! The ledger of conflicts: versions that have lost against another although neither writer had seen the
//! other's. Kept for people to look at, within bounds; what becomes of them is theirs to say.

use std::collections::BTreeMap;

use cortex_core::{
    model::{Hlc, Stamp, TableId, TableUid},
    replication::{Dot, OpenConflicts, RowVersion, VersionVector},
};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    actors::Actors,
    apply::Tx,
    apply_batch::LosingVersion,
    error::{CommandError, StoreError},
    rows::Place,
};

/// Conflicts kept of one table, and bytes of them. The oldest acknowledged ones give way, then the
/// oldest.
const KEPT: u64 = 1000;
const KEPT_BYTES: u64 = 16 << 20;

/// How long a conflict is kept.
const KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

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
pub struct Tally {
    /// How many they are, and since when.
    pub open: OpenConflicts,
    /// How many have come since the file was opened.
    pub met: u64,
}

/// What the file says of two tallies: all but the number is of one run of the daemon.
impl PartialEq for Tally {
    fn eq(&self, other: &Self) -> bool {
        self.open.count == other.open.count
    }
}

impl Eq for Tally {}

impl Tx<'_> {
    /// Writes a conflict down, and makes room for it.
    pub(super) fn keep_losing_version(
        &mut self,
        place: Place<'_>,
        key: &[u8],
        losing: &LosingVersion<'_>,
        winner: (Hlc, Dot),
    ) -> Result<(), CommandError> {
        let actor_number = self.state.actors.enter(self.conn, losing.dot.actor, losing.hlc)?;
        let winning = self.state.actors.enter(self.conn, winner.1.actor, winner.0)?;
        let bytes = key.len() + losing.value.map_or(0, <[u8]>::len);
        let met = self
            .cached(
                "INSERT OR IGNORE INTO conflicts
                 (table_id, key, value, hlc, actor, seq, bytes,
                  winner_hlc, winner_actor, winner_seq, seen_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                place.id.0,
                key,
                losing.value,
                losing.hlc.to_i64(),
                actor_number,
                losing.dot.seq,
                bytes,
                winner.0.to_i64(),
                winning,
                winner.1.seq,
                self.wall_ms
            ])? as u64;
        let evicted = self.make_room(place.id)?;
        self.count_conflicts(place.uid, met, evicted);
        if let Some(replica) = self.state.replicas.get_mut(place.uid) {
            replica.conflicts_evicted += evicted;
        }
        Ok(())
    }

    /// Counts conflicts that have come, and others that nobody has to take note of any more.
    fn count_conflicts(&mut self, table: TableUid, more: u64, less: u64) {
        if more == 0 && less == 0 {
            return;
        }
        let since = self.draw_stamp().hlc;
        if let Some(replica) = self.state.replicas.get_mut(table) {
            let Tally { open, met } = replica.conflicts;
            let count = (open.count + more).saturating_sub(less);
            replica.conflicts = Tally { open: OpenConflicts { since, count }, met: met + more };
        }
    }

    /// Removes what is over the bounds. Answers how many that nobody had taken note of.
    fn make_room(&self, table: TableId) -> Result<u64, StoreError> {
        let oldest_ms = self.wall_ms.saturating_sub(KEPT_MS);
        let mut evicted = self
            .cached(
                "DELETE FROM conflicts WHERE table_id = ?1 AND seen_ms < ?2 AND acknowledged = 0",
            )?
            .execute(params![table.0, oldest_ms])? as u64;
        self.execute(
            "DELETE FROM conflicts WHERE table_id = ?1 AND seen_ms < ?2",
            params![table.0, oldest_ms],
        )?;
        loop {
            let (count, bytes): (u64, u64) = self
                .cached(
                    "SELECT count(*), ifnull(sum(bytes), 0) FROM conflicts WHERE table_id = ?1",
                )?
                .query_row([table.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if count <= KEPT && (bytes <= KEPT_BYTES || count <= 1) {
                return Ok(evicted);
            }
            let gone = self
                .cached(
                    "DELETE FROM conflicts WHERE id = (SELECT id FROM conflicts WHERE table_id = ?1
                     ORDER BY acknowledged DESC, id LIMIT 1) RETURNING acknowledged",
                )?
                .query_row([table.0], |row| row.get::<_, bool>(0))
                .optional()?;
            evicted += u64::from(gone == Some(false));
        }
    }

    /// Takes note of conflicts of a row whose losing version was written once more by somebody who had seen it: it was
    /// restored, on whichever machine.
    pub(super) fn acknowledge_restored(
        &mut self,
        place: Place<'_>,
        row: &RowVersion,
        context: &VersionVector,
    ) -> Result<(), StoreError> {
        let open = self.state.replicas.get(place.uid).map_or(0, |copy| copy.conflicts.open.count);
        if open == 0 {
            return Ok(());
        }
        let found: Vec<(i64, Dot)> = {
            let mut statement = self.cached(
                "SELECT id, actor, seq FROM conflicts
                 WHERE table_id = ?1 AND key = ?2 AND value IS ?3 AND acknowledged = 0",
            )?;
            let rows = statement.query_map(params![place.id.0, row.key, row.value], |row| {
                let actor = self.state.actors.id(row.get(1)?);
                Ok((row.get(0)?, Dot { actor, seq: row.get(2)? }))
            })?;
            rows.collect::<Result<_, _>>()?
        };
        let writer = row.dot();
        let had_seen =
            |dot: Dot| context.covers(dot) || (dot.actor == writer.actor && dot.seq < writer.seq);
        for (id, losing) in found {
            if had_seen(losing) {
                self.acknowledge((place.id, place.uid), Some(id))?;
            }
        }
        Ok(())
    }

    /// Takes note of conflicts of a table: of one, or of all. Answers of how many.
    pub(super) fn acknowledge(
        &mut self,
        table: (TableId, TableUid),
        id: Option<i64>,
    ) -> Result<u64, StoreError> {
        let noted = self
            .cached(
                "UPDATE conflicts SET acknowledged = 1
                 WHERE table_id = ?1 AND (?2 IS NULL OR id = ?2) AND acknowledged = 0",
            )?
            .execute(params![table.0.0, id])? as u64;
        self.count_conflicts(table.1, 0, noted);
        Ok(noted)
    }
}

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
    pub(super) fn of(&self, table: TableId) -> Tally {
        let count = self.counts.get(&table).copied().unwrap_or(0);
        Tally { open: OpenConflicts { since: self.since, count }, met: 0 }
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
