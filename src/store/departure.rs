//! Replica epochs that are over here and of which bytes may still be on the disk.
//! What a replica epoch is, and when it is over, is `tx::directory::reconcile`'s; emptying the log is the writer's (`erasure`).
//!
//! ```text
//!   drained ──> rows out of sight, departure stored ──> rows removed (purge) ──> log emptied ──> published
//!                   one transaction                         many small ones          and the gaps    departure gone
//! ```
//!
//! The others take the replica epoch for over once it is published, and people take "left" for a promise. So it is published
//! last. Each arrow may be the last thing before a crash: the departure is in the file, and what follows is
//! done by the next start; of a log nothing is believed that this process has not emptied itself.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::model::TableUid;
use rusqlite::Connection;

use super::error::StoreError;

/// A replica epoch that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    pub(super) uid: TableUid,
    pub(super) epoch: u64,
    /// How often the log had been emptied when the last row was removed; none while there are rows.
    rows_gone: Option<u64>,
}

/// All of them, by the number that the table had here.
#[derive(Clone, Debug, Default)]
pub(super) struct Departures {
    waiting: Arc<BTreeMap<i64, Departure>>,
    /// How often, since the file was opened, the log was emptied with nothing left over in the file either.
    emptied: u64,
    /// True where the file says that all its pages were looked at.
    pub(super) swept: bool,
    /// True while the removal of rows is to go on at once although there are none: pages are being looked at.
    pub(super) hurry: bool,
}

impl Departures {
    pub(super) fn load(conn: &Connection) -> Result<Self, StoreError> {
        let mut statement = conn.prepare(
            "SELECT d.table_id, d.uid, d.epoch, t.id IS NULL
             FROM departures d LEFT JOIN tables t ON t.id = d.table_id",
        )?;
        let rows = statement.query_map([], |row| {
            let rows_gone = row.get::<_, bool>(3)?.then_some(0);
            Ok((
                row.get(0)?,
                Departure { uid: TableUid(row.get(1)?), epoch: row.get(2)?, rows_gone },
            ))
        })?;
        let waiting = Arc::new(rows.collect::<Result<_, _>>()?);
        let swept =
            conn.query_row("SELECT swept FROM node_state WHERE id = 1", [], |row| row.get(0))?;
        Ok(Self { waiting, emptied: 0, swept, hurry: false })
    }

    /// True where some epoch waits for nothing but an empty log.
    pub(super) fn wait_for_log(&self) -> bool {
        self.waiting.values().any(|departure| departure.rows_gone == Some(self.emptied))
    }

    /// True where the bytes of an earlier replica epoch of a table's replica may still be here.
    pub(super) fn include(&self, table: TableUid) -> bool {
        self.waiting.values().any(|departure| departure.uid == table)
    }

    /// The log holds nothing any more, and the file no bytes of what was removed.
    pub(super) fn log_emptied(&mut self) {
        self.emptied += 1;
    }

    /// The last row of a table was removed.
    pub(super) fn rows_are_gone(&mut self, table: i64) {
        if self.waiting.contains_key(&table)
            && let Some(departure) = Arc::make_mut(&mut self.waiting).get_mut(&table)
        {
            departure.rows_gone = Some(self.emptied);
        }
    }

    /// Those of which nothing is left.
    pub(super) fn over(&self) -> Vec<(i64, Departure)> {
        let is_over =
            |departure: &Departure| departure.rows_gone.is_some_and(|at| at < self.emptied);
        let over = self.waiting.iter().filter(|(_, departure)| is_over(departure));
        over.map(|(table, departure)| (*table, departure.clone())).collect()
    }

    /// A replica epoch is over whose rows have just gone out of sight.
    pub(super) fn begin(&mut self, table: i64, uid: TableUid, epoch: u64) {
        let departure = Departure { uid, epoch, rows_gone: None };
        Arc::make_mut(&mut self.waiting).insert(table, departure);
    }

    /// The others know of it.
    pub(super) fn end(&mut self, table: i64) {
        Arc::make_mut(&mut self.waiting).remove(&table);
    }

    /// Notes in memory that all pages of the file were looked at. True where that is new.
    pub(super) fn note_swept(&mut self) -> bool {
        let is_new = self.emptied > 0 && !self.swept;
        self.swept |= is_new;
        is_new
    }
}
