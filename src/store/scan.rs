//! Reads of whole tables, in key order, a slice at a time over one snapshot.
//! The caller decides when to go on, so that one long read shares its thread with everybody else.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use cortex_core::model::TableId;
use rusqlite::{Connection, OptionalExtension};

use super::{checksum::StoredRow, error::StoreError, published::Published};
use crate::sys::clock;

/// How long one slice may keep its thread. Rows of a cold table are a random read each.
const SLICE: Duration = Duration::from_millis(2);

/// Bytes of rows between two looks at the clock, and what a small row counts: a look costs less than
/// a tenth of what is between two of them, and one row of a mebibyte can take a slice.
const BYTES_PER_LOOK: usize = 64 << 10;
const LEAST_ROW: usize = 2 << 10;

/// Connections kept open for the next scans.
const IDLE: usize = 4;

/// Connections for scans; how many there are at a time is bounded by who hands out scans.
#[derive(Debug)]
pub(super) struct Pool {
    /// Applied for the moment of a push or a pop.
    idle: Mutex<Vec<Connection>>,
    connect: Connect,
}

/// Opens one more connection.
pub(super) struct Connect(pub(super) Box<dyn Fn() -> Result<Connection, StoreError> + Send + Sync>);

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connect")
    }
}

impl Pool {
    pub(super) fn new(connect: Connect) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), connect })
    }

    /// Starts a read of a table from after a key, over the state of the last commit.
    pub(super) fn scan(
        self: &Arc<Self>,
        published: &Arc<Published>,
        table: TableId,
        after: &[u8],
    ) -> Result<Scan, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = idle.map_or_else(|| (self.connect.0)(), Ok)?;
        conn.prepare_cached("BEGIN DEFERRED")?.execute([])?;
        Ok(Scan {
            conn: Some(conn),
            pool: Arc::downgrade(self),
            published: Arc::clone(published),
            table,
            after: after.into(),
        })
    }

    /// Reads over one snapshot.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = idle.map_or_else(|| (self.connect.0)(), Ok)?;
        conn.prepare_cached("BEGIN DEFERRED")?.execute([])?;
        let found = read(&conn);
        conn.prepare_cached("ROLLBACK")?.execute([])?;
        self.return_connection(conn);
        found
    }

    fn return_connection(&self, conn: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(conn);
        }
    }
}

/// What a visitor of rows wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanStep {
    /// The next row.
    Continue,
    /// No more in this slice; the row counts as visited.
    Pause,
    /// No more at all.
    Stop,
}

/// A read of one table over one snapshot.
#[derive(Debug)]
pub struct Scan {
    /// Always there until the scan is dropped.
    conn: Option<Connection>,
    pool: Weak<Pool>,
    published: Arc<Published>,
    table: TableId,
    after: Vec<u8>,
}

impl Scan {
    /// Visits rows, as keys and values, until the visitor pauses, the slice's time is over, or
    /// the table's end is reached. True at the end, and where the visitor has had enough.
    ///
    /// # Errors
    /// [`StoreError::SnapshotTooOld`] once the log must be recycled; what SQLite reports.
    pub fn slice(
        &mut self,
        visit: impl FnMut(&[u8], &[u8]) -> ScanStep,
    ) -> Result<bool, StoreError> {
        if self.published.pressure.load(Relaxed) {
            return Err(StoreError::SnapshotTooOld);
        }
        let ended = self.try_slice(visit);
        if let Err(fault) = &ended {
            self.published.note_damage(fault);
            self.published.warn_of_failed_read(self.table, fault);
        }
        ended
    }

    fn try_slice(
        &mut self,
        mut visit: impl FnMut(&[u8], &[u8]) -> ScanStep,
    ) -> Result<bool, StoreError> {
        let started = clock::monotonic();
        let Some(conn) = &self.conn else {
            return Ok(true);
        };
        let mut statement = conn.prepare_cached(
            "SELECT key, value, hlc, actor, seq, checksum FROM records
             WHERE table_id = ?1 AND key > ?2 AND value IS NOT NULL ORDER BY key",
        )?;
        let mut rows = statement.query(rusqlite::params![self.table.0, self.after])?;
        let mut since_look = 0;
        while let Some(row) = rows.next()? {
            let (stored, checksum) = StoredRow::read(self.table, row)?;
            let (key, value) = (stored.key, stored.value.unwrap_or_default());
            if !stored.is_sound(checksum) {
                return Err(StoreError::Damaged { table: self.table, key: key.into() });
            }
            let flow = visit(key, value);
            since_look += value.len().max(LEAST_ROW);
            let look = since_look >= BYTES_PER_LOOK;
            if look {
                since_look = 0;
            }
            let late = look && started.elapsed() > SLICE;
            if flow != ScanStep::Continue || late {
                self.after.clear();
                self.after.extend_from_slice(key);
                return Ok(flow == ScanStep::Stop);
            }
        }
        Ok(true)
    }

    /// The key of the last row visited: where the next slice goes on.
    #[must_use]
    pub fn position(&self) -> &[u8] {
        &self.after
    }

    /// Goes on from another key, over the same snapshot.
    pub fn seek(&mut self, after: Vec<u8>) {
        self.after = after;
    }

    /// How many rows the table has in this snapshot; none where it has been dropped, and some of its
    /// rows may be there and others not.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn rows_in_table(&self) -> Result<Option<u64>, StoreError> {
        let Some(conn) = &self.conn else {
            return Ok(None);
        };
        let mut statement =
            conn.prepare_cached("SELECT records FROM tables WHERE id = ?1 AND dropped = 0")?;
        let rows: Option<i64> = statement.query_row([self.table.0], |row| row.get(0)).optional()?;
        Ok(rows.map(|rows| u64::try_from(rows).unwrap_or(0)))
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        let Some(conn) = self.conn.take() else {
            return;
        };
        let ended = conn.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([])).is_ok();
        if let (true, Some(pool)) = (ended, self.pool.upgrade()) {
            pool.return_connection(conn);
        }
    }
}
