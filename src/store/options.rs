//! How to open a store, and what its files are called.

use std::path::PathBuf;

use cortex_core::model::Limits;

use super::reserve;

/// The database within the data directory.
pub(super) const FILE: &str = "cortex.db";

/// Held locked while a daemon uses the directory.
pub(super) const LOCK_FILE: &str = "cortexd.lock";

/// How long the write-ahead log may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Pages from which the log is moved into the database, so that it starts again from its
    /// beginning.
    pub restart_pages: u64,
    /// Pages from which keeping the log short goes before everything else: reads over old states
    /// are ended, and commits wait for the checkpoint.
    pub pressure_pages: u64,
}

impl Default for LogBounds {
    /// 16 MiB: a checkpoint's cost is spread over many commits, and a start after a crash reads
    /// no more than that again. 1 GiB: only a stalled reader or a disk that cannot keep up gets
    /// there, and the disk must have that room.
    fn default() -> Self {
        Self { restart_pages: 4096, pressure_pages: 262_144 }
    }
}

impl LogBounds {
    /// The same on a disk so small that a log of that length might not find its place in the database.
    pub(super) fn within(self, reserve: Option<&reserve::Reserve>) -> Self {
        let most = reserve.map_or(u64::MAX, reserve::Reserve::log_pages);
        Self { restart_pages: self.restart_pages.min(most.max(1)), ..self }
    }
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made if absent.
    pub dir: PathBuf,
    /// How many threads read: each has a connection of its own.
    pub readers: usize,
    /// Page cache of each connection, in KiB.
    pub cache_kib: u32,
    /// Bytes of records kept in memory, over all tables.
    pub record_cache_bytes: u64,
    /// Bounds on what one owner may hold.
    pub limits: Limits,
    /// How long the write-ahead log may get.
    pub log: LogBounds,
    /// The SQLite VFS to use; none for the system's.
    pub vfs: Option<String>,
    /// A directory in memory, for the rollback marker. Without one, a database of a
    /// mesh writes as another actor after each start.
    pub rollback_marker: Option<PathBuf>,
}

impl Options {
    /// The defaults for a directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            readers: 1,
            cache_kib: 8192,
            record_cache_bytes: 32 << 20,
            limits: Limits::default(),
            log: LogBounds::default(),
            vfs: None,
            rollback_marker: None,
        }
    }
}
