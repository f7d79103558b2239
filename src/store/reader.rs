//! Point reads: one per core thread, inline, over a snapshot that is held until a commit moves on.
//! Whole tables are read by `scan`, over snapshots of their own.
//!
//! Opening a read transaction costs as much as the look-up. So the snapshot stays open, and each
//! read first looks whether a commit has happened since it was taken. Records that are read again
//! and again come from the cache, without any transaction.

use std::sync::{Arc, Mutex, PoisonError};

use cortex_core::{directory::SealedRow, model::TableId};
use rusqlite::Connection;

use super::{
    checksum::StoredRow,
    error::StoreError,
    events::{self, EventFilter, EventRecord},
    published::Published,
    seqlock::Sequence,
    system,
};

/// A reader of single records. Cheap to use from the one thread it belongs to.
#[derive(Debug)]
pub struct Reader {
    /// Applied by its own thread for each read, where it is free, and by the writer when a held
    /// snapshot stands in the way of recycling the log.
    held: Mutex<OpenSnapshot>,
    published: Arc<Published>,
}

#[derive(Debug)]
struct OpenSnapshot {
    conn: Connection,
    /// The moment before the open snapshot was taken; none where it is good for one read only.
    taken_at: Option<Sequence>,
}

impl Reader {
    pub(super) fn new(conn: Connection, published: Arc<Published>) -> Self {
        Self { held: Mutex::new(OpenSnapshot { conn, taken_at: None }), published }
    }

    /// Reads the log of events, as of the last commit.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn events(&self, wanted: EventFilter) -> Result<Vec<EventRecord>, StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.refresh(&self.published)?;
        events::read(&held.conn, wanted)
    }

    /// Rows of the system table with their signatures, to be passed on to another node.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn sealed(&self, keys: &[String]) -> Result<Vec<SealedRow>, StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.refresh(&self.published)?;
        system::sealed(&held.conn, keys)
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
    ) -> Result<bool, StoreError> {
        let found = self.try_get(table, key, found);
        if let Err(fault) = &found {
            self.published.note_damage(fault);
            self.published.warn_of_failed_read(table, fault);
        }
        found
    }

    fn try_get(
        &self,
        table: TableId,
        key: &[u8],
        found: impl FnOnce(&[u8]),
    ) -> Result<bool, StoreError> {
        let cache = &self.published.cache;
        if let Some(record) = cache.get(table, key) {
            found(&record);
            return Ok(true);
        }
        let bucket_version = cache.bucket_version(table, key);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.refresh(&self.published)?;
        let result = held.lookup(table, key, |record| {
            if let Some(bucket_version) = bucket_version {
                cache.insert(bucket_version, table, key, record);
            }
            found(record);
        });
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

impl OpenSnapshot {
    /// Takes a new snapshot if a commit has happened since this one was taken.
    fn refresh(&mut self, published: &Published) -> Result<(), StoreError> {
        // Read before the snapshot is taken: if a commit falls between, the next read takes another.
        let now = published.seqlock.now();
        if self.taken_at != Some(now) {
            self.release()?;
            self.conn.prepare_cached("BEGIN DEFERRED")?.execute([])?;
            self.taken_at = now.is_stable().then_some(now);
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), StoreError> {
        self.taken_at = None;
        // Asked of SQLite rather than remembered: a failed COMMIT must be made up for, or no
        // later read could begin.
        if !self.conn.is_autocommit() {
            self.conn.prepare_cached("COMMIT")?.execute([])?;
        }
        Ok(())
    }

    fn lookup(
        &self,
        table: TableId,
        key: &[u8],
        found: impl FnOnce(&[u8]),
    ) -> Result<bool, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT value, hlc, actor, seq, checksum FROM records
             WHERE table_id = ?1 AND key = ?2 AND value IS NOT NULL",
        )?;
        let mut rows = statement.query(rusqlite::params![table.0, key])?;
        let Some(row) = rows.next()? else {
            return Ok(false);
        };
        let value = row.get_ref(0)?.as_blob().map_err(|e| StoreError::Corrupt(e.to_string()))?;
        let stored = StoredRow {
            table,
            key,
            hlc: row.get(1)?,
            actor_number: row.get(2)?,
            seq: row.get(3)?,
            value: Some(value),
        };
        if !stored.is_sound(row.get(4)?) {
            return Err(StoreError::Damaged { table, key: key.into() });
        }
        found(value);
        Ok(true)
    }
}
