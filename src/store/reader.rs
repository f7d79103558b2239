//! Point reads: one per core thread, inline, over a snapshot that is held until a commit moves on.
//! Whole tables are read by `scan`, over snapshots of their own.
//!
//! Opening a read transaction costs as much as the lookup. So the snapshot stays open, and each
//! read first looks whether a commit has happened since it was taken.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering::SeqCst};

use cortex_core::model::TableId;
use rusqlite::Connection;

use super::{error::Fault, writer::Published};

/// A reader of single records. Cheap to use from the one thread it belongs to.
#[derive(Debug)]
pub struct Reader {
    /// Taken by its own thread for each read, where it is free, and by the writer when a held
    /// snapshot stands in the way of recycling the log.
    held: Mutex<Held>,
    published: Arc<Published>,
}

#[derive(Debug)]
struct Held {
    conn: Connection,
    /// The commit count before the open snapshot was taken; none where no snapshot is open.
    taken_at: Option<u64>,
}

impl Reader {
    pub(super) fn new(conn: Connection, published: Arc<Published>) -> Self {
        Self { held: Mutex::new(Held { conn, taken_at: None }), published }
    }

    /// Finds a record and hands its bytes to `found`, in place. False where there is none.
    ///
    /// Sees every commit that was answered before the call.
    ///
    /// # Errors
    /// What SQLite reports. The snapshot is then given up.
    pub fn get(
        &self,
        table: TableId,
        key: &[u8],
        found: impl FnOnce(&[u8]),
    ) -> Result<bool, Fault> {
        let found = self.try_get(table, key, found);
        if let Err(fault) = &found {
            self.published.warn_of_failed_read(table, fault);
        }
        found
    }

    fn try_get(
        &self,
        table: TableId,
        key: &[u8],
        found: impl FnOnce(&[u8]),
    ) -> Result<bool, Fault> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before the snapshot is taken: if a commit falls between, the next read takes another.
        let commits = self.published.commits.load(SeqCst);
        if held.taken_at != Some(commits) {
            held.release()?;
            held.conn.prepare_cached("BEGIN DEFERRED")?.execute([])?;
            held.taken_at = Some(commits);
        }
        let result = held.lookup(table, key, found);
        if result.is_err() {
            let _tried_again_by_the_next_read = held.release();
        }
        result
    }

    /// Gives up the held snapshot, if there is one.
    pub(super) fn release(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let _kept_until_next_read = held.release();
    }
}

impl Held {
    fn release(&mut self) -> Result<(), Fault> {
        self.taken_at = None;
        // Asked of SQLite rather than remembered: a failed COMMIT must be made up for, or no
        // later read could begin.
        if !self.conn.is_autocommit() {
            self.conn.prepare_cached("COMMIT")?.execute([])?;
        }
        Ok(())
    }

    fn lookup(&self, table: TableId, key: &[u8], found: impl FnOnce(&[u8])) -> Result<bool, Fault> {
        let mut statement = self.conn.prepare_cached(
            "SELECT value FROM records WHERE table_id = ?1 AND key = ?2 AND value IS NOT NULL",
        )?;
        let mut rows = statement.query(rusqlite::params![table.0, key])?;
        let Some(row) = rows.next()? else {
            return Ok(false);
        };
        found(row.get_ref(0)?.as_blob().map_err(|e| Fault::Corrupt(e.to_string()))?);
        Ok(true)
    }
}
