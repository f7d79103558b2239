//! What a test may ask to fail, and the result code SQLite's `unix` VFS would give for it.
//! When a fault strikes is kept in `recorder.rs`.

use std::fmt;
use std::sync::Arc;

use rusqlite::ffi;

/// One call of SQLite to the VFS, on a tracked file.
#[derive(Clone, Debug)]
pub struct Call {
    /// Counts from 1, over all connections.
    pub number: u64,
    /// What was asked.
    pub op: Op,
    /// The path below the tracked directory: `a.db`, `a.db-wal`.
    pub file: Arc<str>,
    /// Where a read or write begins, or the new length for a truncation.
    pub offset: u64,
    /// The length of a read or write.
    pub len: usize,
    /// What it was failed with.
    pub fault: Option<StoreError>,
}

/// The kinds of calls that count and may fail.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// `xOpen` of a file that was there, or that it was not to create.
    Open,
    /// `xOpen` that creates the file.
    Create,
    /// `xRead`
    Read,
    /// `xWrite`
    Write,
    /// `xSync`
    Sync,
    /// `xTruncate`
    Truncate,
    /// `xDelete`
    Delete,
}

/// What a failed call reports, in the terms of Linux.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StoreError {
    /// `ENOSPC` on a write (`SQLITE_FULL`) or creation; nothing is written. Overwriting
    /// fails too, as on file systems that copy on write.
    NoSpace,
    /// `EIO`, on any call. On a sync it also makes what was unsynced losable for ever. SQLite
    /// turns it into `SQLITE_CORRUPT` (via `SQLITE_IOERR_CORRUPTFS`) on a read, into
    /// `SQLITE_CANTOPEN` on an open, into its own `SQLITE_IOERR_…` elsewhere.
    Io,
    /// An error other than `EIO` on a read, as `ESTALE` on a network file system:
    /// `SQLITE_IOERR_READ`.
    Read,
    /// Half of a write happens, then `ENOSPC`: `SQLITE_FULL`.
    ShortNoSpace,
    /// Half of a write happens, then `EIO`: `SQLITE_IOERR_WRITE`.
    ShortIo,
}

/// How often a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Repeat {
    /// The first call it can strike.
    Once,
    /// That and every later one, until [`heal`](crate::FaultFs::heal).
    Always,
}

impl StoreError {
    /// The result code for a call of this kind; `None` if this fault cannot strike it.
    pub(crate) fn code(self, op: Op) -> Option<i32> {
        match (self, op) {
            (StoreError::Io, Op::Read) => Some(ffi::SQLITE_IOERR_CORRUPTFS),
            (StoreError::Read, Op::Read) => Some(ffi::SQLITE_IOERR_READ),
            (StoreError::Io | StoreError::ShortIo, Op::Write) => Some(ffi::SQLITE_IOERR_WRITE),
            (StoreError::NoSpace | StoreError::ShortNoSpace, Op::Write) => Some(ffi::SQLITE_FULL),
            (StoreError::Io, Op::Sync) => Some(ffi::SQLITE_IOERR_FSYNC),
            (StoreError::Io, Op::Truncate) => Some(ffi::SQLITE_IOERR_TRUNCATE),
            (StoreError::Io, Op::Delete) => Some(ffi::SQLITE_IOERR_DELETE),
            (StoreError::Io, Op::Open | Op::Create) | (StoreError::NoSpace, Op::Create) => {
                Some(ffi::SQLITE_CANTOPEN)
            }
            (StoreError::NoSpace, Op::Open | Op::Read | Op::Sync | Op::Truncate | Op::Delete)
            | (
                StoreError::Read,
                Op::Open | Op::Create | Op::Write | Op::Sync | Op::Truncate | Op::Delete,
            )
            | (
                StoreError::ShortNoSpace | StoreError::ShortIo,
                Op::Open | Op::Create | Op::Read | Op::Sync | Op::Truncate | Op::Delete,
            ) => None,
        }
    }

    /// How much of a write of `len` bytes happens before it fails.
    pub(crate) fn written(self, len: usize) -> usize {
        match self {
            StoreError::NoSpace | StoreError::Io | StoreError::Read => 0,
            StoreError::ShortNoSpace | StoreError::ShortIo => len / 2,
        }
    }
}

/// A fault that waits for its call.
pub(crate) struct Trap {
    pub(crate) when: Box<dyn Fn(&Call) -> bool + Send>,
    pub(crate) fault: StoreError,
    pub(crate) repeat: Repeat,
}

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trap")
            .field("fault", &self.fault)
            .field("repeat", &self.repeat)
            .finish_non_exhaustive()
    }
}
