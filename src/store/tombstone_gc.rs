//! What replicas need not keep: deletions that every replica knows, the beginning of the change log, and rows of
//! tables that are gone. Removed a little at a time; a transaction over millions holds up every write.

use cortex_core::{
    model::{TableId, TableUid},
    replication::{Dot, VersionVector},
    rule::Rule,
};
use rusqlite::{Connection, params};

use super::{
    Store,
    actors::Actors,
    apply::Tx,
    command::Outcome,
    error::{CommandError, StoreError},
    read_batch,
    rows::Place,
};

/// Deletions looked at in one transaction, and entries of the change log removed.
const SLICE: u32 = 512;

/// Deletions that may be forgotten.
#[derive(Clone, Debug)]
pub struct Collection {
    /// Of which table.
    pub table: TableUid,
    /// Which every replica knows, by its own word.
    pub confirmed: VersionVector,
    /// Only those that are older than this, in Unix milliseconds: much older than clocks may differ, or a
    /// write of a machine whose clock is late would come before a deletion that nobody remembers.
    pub before_ms: u64,
    /// From after this timestamp.
    pub after: i64,
}

/// Deletions that are looked at for one that is not confirmed: the newest are confirmed last.
const NEWEST: u32 = 512;

/// One of the newest deletions of a table that is not among those that every replica knows.
pub(super) fn unconfirmed(
    conn: &Connection,
    actors: &Actors,
    table: TableId,
    confirmed: &VersionVector,
) -> Result<Option<Dot>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT actor, seq FROM records
         WHERE table_id = ?1 AND value IS NULL ORDER BY hlc DESC LIMIT ?2",
    )?;
    let mut rows = statement.query(params![table.0, NEWEST])?;
    while let Some(row) = rows.next()? {
        let dot = Dot { actor: actors.id(row.get(0)?), seq: row.get(1)? };
        if !confirmed.covers(dot) {
            return Ok(Some(dot));
        }
    }
    Ok(None)
}

impl Store {
    /// One of the newest deletions of a table that is not among those that every replica knows, if there is one.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn unconfirmed_deletion(
        &self,
        table: TableId,
        confirmed: &VersionVector,
    ) -> Result<Option<Dot>, StoreError> {
        self.read(|conn, actors| unconfirmed(conn, actors, table, confirmed))
    }
}

impl Tx<'_> {
    /// Forgets some deletions. Answers from where to go on, where there may be more.
    pub(super) fn collect(&mut self, collection: &Collection) -> Result<Outcome, CommandError> {
        let nothing = Ok(Outcome::Collected { next: None });
        let Some(replica) = self.state.replicas.get(collection.table) else {
            return nothing;
        };
        let Some(table) = replica.table.filter(|_| replica.ready) else {
            return nothing;
        };
        let Some(entry) = self.state.catalog.by_uid(collection.table).cloned() else {
            return nothing;
        };
        // A snapshot transfer that sweeps relies on deletions that were known when it began.
        if Rule::SnapshotBeforeGc.holds() && read_batch::is_in_full_snapshot(self.conn, table)? {
            return nothing;
        }
        let vector = replica.vector.clone();
        let before = cortex_core::model::Hlc::from_unix_ms(collection.before_ms).to_i64();
        let (mut last, mut seen) = (collection.after, 0);
        let found: Vec<(Vec<u8>, i64, Dot)> = {
            let mut statement = self.cached(
                "SELECT key, hlc, actor, seq FROM records
                 WHERE table_id = ?1 AND value IS NULL AND hlc > ?2 AND hlc < ?3 ORDER BY hlc LIMIT ?4",
            )?;
            let rows =
                statement.query_map(params![table.0, collection.after, before, SLICE], |row| {
                    let actor = self.state.actors.id(row.get(2)?);
                    Ok((row.get(0)?, row.get(1)?, Dot { actor, seq: row.get(3)? }))
                })?;
            rows.collect::<Result<_, _>>()?
        };
        for (key, hlc, dot) in found {
            (last, seen) = (hlc, seen + 1);
            if !collection.confirmed.covers(dot) || !vector.covers(dot) {
                continue;
            }
            if let Some(row) = self.find_row(table, &key)?.filter(|row| !row.damaged) {
                self.remove_row(Place::of(&entry), &key, &row)?;
                if let Some(replica) = self.state.replicas.get_mut(collection.table)
                    && Rule::GcRaisesWatermark.holds()
                {
                    replica.gc_watermark.raise(dot);
                }
            }
        }
        Ok(Outcome::Collected { next: (seen == SLICE).then_some(last) })
    }

    /// Cuts the change log of a table up to a number. Answers whether there is more to remove.
    pub(super) fn truncate_change_log(
        &mut self,
        table: TableUid,
        upto: u64,
    ) -> Result<Outcome, CommandError> {
        let Some(replica) = self.state.replicas.get_mut(table) else {
            return Ok(Outcome::Purged { more: false });
        };
        let Some(id) = replica.table else {
            return Ok(Outcome::Purged { more: false });
        };
        let upto = upto.min(replica.last_lsn);
        replica.truncated_lsn = upto.max(replica.truncated_lsn);
        let removed = self
            .cached(
                "DELETE FROM change_log WHERE table_id = ?1 AND lsn IN
                 (SELECT lsn FROM change_log WHERE table_id = ?1 AND lsn <= ?2 ORDER BY lsn LIMIT ?3)",
            )?
            .execute(params![id.0, upto, SLICE])?;
        Ok(Outcome::Purged { more: removed as u64 == u64::from(SLICE) })
    }

    /// Removes entries of the change log of a table that is gone. True where there were some.
    pub(super) fn purge_change_log(&self, table: i64) -> Result<bool, StoreError> {
        let removed = self
            .cached(
                "DELETE FROM change_log WHERE table_id = ?1 AND lsn IN
                 (SELECT lsn FROM change_log WHERE table_id = ?1 LIMIT ?2)",
            )?
            .execute(params![table, SLICE])?;
        Ok(removed > 0)
    }
}
