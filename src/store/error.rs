//! What can go wrong in the store, and the texts for the client and for the log.
//! Refusals of the rules are another type, `cortex_core::model::Refusal`.

use cortex_core::model::{Refusal, TableId};
use rusqlite::ErrorCode;
use thiserror::Error;

/// A fault of the machine under the store. `Display` is the text for the log;
/// [`StoreError::wire`] is the one for clients.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The disk is full. Nothing of the batch was stored; reads go on, writes may be tried again.
    #[error("no space left for the database: {0}")]
    Full(String),
    /// Reading or writing failed. Nothing of the batch was stored.
    #[error("the database cannot be read or written: {0}")]
    Io(String),
    /// A sync failed: what the disk holds is unknown, so the store has stopped taking writes. The
    /// batch may turn out to have been stored, as a whole, by the next start.
    #[error("a sync of the database failed, the store has stopped: {0}")]
    SyncFailed(String),
    /// What was read contradicts itself. SQLite says the same where the disk answers a read with
    /// EIO, so this need not last.
    #[error("the database is damaged, or the disk fails to read it: {0}")]
    Corrupt(String),
    /// A row is not what was stored: its checksum is another.
    #[error(
        "the row {} is damaged: its checksum does not match",
        String::from_utf8_lossy(key).escape_debug()
    )]
    Damaged {
        /// Of which table.
        table: TableId,
        /// The row's key.
        key: Box<[u8]>,
    },
    /// The same, in a copy of the database that is read as a whole.
    #[error(
        "the row {} of {table} is damaged: its checksum does not match",
        String::from_utf8_lossy(key).escape_debug()
    )]
    DamagedCopy {
        /// Of which table, by its owner and name in the file.
        table: String,
        /// The row's key.
        key: Box<[u8]>,
    },
    /// The file or its directory may not be written.
    #[error("the database is read-only: {0}")]
    ReadOnly(String),
    /// The database, its log or its directory could not be opened, or a file not made.
    #[error("a file of the database cannot be opened or made: {0}")]
    Unopened(String),
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
    /// A long read held back the log for too long and was given up.
    #[error("a read over an old state of the database was ended to let its log be recycled")]
    SnapshotTooOld,
}

impl StoreError {
    /// What the error slot of a reply says.
    #[must_use]
    pub fn wire(&self) -> &'static str {
        match self {
            Self::Full(_) => "storage_full",
            Self::Io(_) | Self::SyncFailed(_) | Self::Corrupt(_) | Self::Unopened(_) => {
                "storage_error"
            }
            Self::Damaged { .. } | Self::DamagedCopy { .. } => "row_damaged",
            Self::ReadOnly(_) => "storage_read_only",
            Self::Closed => "shutting_down",
            Self::SnapshotTooOld => "snapshot_too_old",
        }
    }

    /// What the operator can do about one that keeps a store from being opened.
    fn advice(&self) -> &'static str {
        match self {
            Self::Full(_) => "free some space, then start again",
            Self::Io(_) | Self::SyncFailed(_) => {
                "see the kernel's log (dmesg) for the disk's errors, then start again"
            }
            Self::Damaged { .. } | Self::DamagedCopy { .. } => {
                "restore another backup, or start the daemon and delete the row or store it again"
            }
            Self::Corrupt(_) => {
                "see the kernel's log (dmesg) for the disk's errors; if there are none, keep a \
                 copy of the directory and restore a backup"
            }
            Self::Unopened(_) => {
                "see that there is space, and that the file and its directory are writable"
            }
            Self::ReadOnly(_) => "make the file, its directory and its file system writable",
            Self::Closed | Self::SnapshotTooOld => "start again",
        }
    }

    /// True where the store must not go on: after a failed sync the kernel may have dropped the
    /// very pages that a later sync would report as safe (Rebello et al., "Can Applications
    /// Recover from fsync Failures?", ATC 2020).
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::SyncFailed(_))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        let Some(sqlite) = error.sqlite_error() else {
            return Self::Io(text);
        };
        let text = format!("{text} (SQLite {})", sqlite.extended_code);
        if sqlite.extended_code == rusqlite::ffi::SQLITE_IOERR_FSYNC
            || sqlite.extended_code == rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC
        {
            return Self::SyncFailed(text);
        }
        // Making the file of shared memory larger: with an open file only a full disk refuses that.
        if sqlite.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE {
            return Self::Full(text);
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "SQLite's list, not ours, and it grows")]
        match sqlite.code {
            ErrorCode::DiskFull => Self::Full(text),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt(text),
            ErrorCode::CannotOpen => Self::Unopened(text),
            ErrorCode::ReadOnly => Self::ReadOnly(text),
            // Only what the end of the store would have to wait for is ever interrupted.
            ErrorCode::OperationInterrupted => Self::Closed,
            _ => Self::Io(text),
        }
    }
}

/// True where another connection stood in the way.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Why a request to the store brought no result.
#[derive(Clone, Debug, Error)]
pub enum CommandError {
    /// A rule refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The machine failed it.
    #[error(transparent)]
    Faulted(#[from] StoreError),
}

impl From<rusqlite::Error> for CommandError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Faulted(error.into())
    }
}

/// Why a store could not be opened. Nothing was changed in an existing database. Each names the
/// path and what to do next.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another daemon holds the directory.
    #[error("{0} is in use by another cortexd: stop that one, or name another with --data-dir")]
    InUse(String),
    /// The database was written by a later version.
    #[error(
        "{path} has schema {found}, this version knows up to {known}: install the newer cortexd again, or restore a backup"
    )]
    Newer {
        /// The database file.
        path: String,
        /// Its schema.
        found: u32,
        /// The newest schema of this binary.
        known: u32,
    },
    /// The file is a SQLite database of some other program.
    #[error(
        "{0} is no database of cortexd: move it away, or name another directory with --data-dir"
    )]
    Foreign(String),
    /// The directory holds tables of the daemon from which this one takes its protocol.
    #[error(
        "{path} holds data of the original cortexd (v1): {found}: it is left as it is; bring it over as cortex-migrate(7) says, or name another directory with --data-dir"
    )]
    OfMnesia {
        /// The directory.
        path: String,
        /// Some of the files.
        found: String,
    },
    /// The directory holds no database, and files of somebody else.
    #[error(
        "{path} has no cortex.db, and holds {found}: a store begins in a directory of its own; move them away, restore a backup with `cortexd restore`, or name another directory with --data-dir"
    )]
    NotOurs {
        /// The directory.
        path: String,
        /// Some of the files.
        found: String,
    },
    /// The file is a database of ours, and not one that was made as a backup.
    #[error("{0} was not made by `cortex backup`: a plain copy may lack what stood in its log")]
    NoBackup(String),
    /// A file to be restored that cannot be read.
    #[error("cannot read {path}: {cause}: {advice}", advice = unread_advice(.cause))]
    Unread {
        /// The file.
        path: String,
        /// The cause.
        cause: std::io::Error,
    },
    /// A file to be restored that is not even a database of ours.
    #[error("{path} {why}, so it was not made by `cortex backup`: name a file that was")]
    Unlike {
        /// The file.
        path: String,
        /// What it is.
        why: &'static str,
    },
    /// A backup of a later version.
    #[error(
        "the backup {path} has schema {found}, this version knows up to {known}: install the cortexd that made it, or restore an older one"
    )]
    NewerBackup {
        /// The file.
        path: String,
        /// Its schema.
        found: u32,
        /// The newest schema of this binary.
        known: u32,
    },
    /// A backup that does not pass its check.
    #[error(
        "the backup {path} is damaged, or a part of it is missing ({why}): copy it here once more, or restore another one"
    )]
    Unsound {
        /// The file.
        path: String,
        /// What was found.
        why: String,
    },
    /// A backup that could not be copied into the data directory.
    #[error("cannot copy the backup to {path}: {cause}: {advice}", advice = copy_advice(.cause))]
    Uncopied {
        /// The file in the directory.
        path: String,
        /// The cause.
        cause: std::io::Error,
    },
    /// A setting that durability rests on did not take.
    #[error(
        "cannot open {path}: SQLite answers {found:?} to PRAGMA {pragma}, {wanted:?} is needed: keep the data on a local file system"
    )]
    Pragma {
        /// The database file.
        path: String,
        /// Its name.
        pragma: &'static str,
        /// What was set.
        wanted: String,
        /// What was read back.
        found: String,
    },
    /// The linked SQLite has a known defect that loses data.
    #[error("SQLite {0} is linked, 3.51.3 or later is needed: build with the bundled one")]
    OldSqlite(&'static str),
    /// The directory or its lock file.
    #[error(
        "cannot use the data directory {path}: {cause}: give it to uid {uid}, or name another with --data-dir",
        uid = nix::unistd::geteuid()
    )]
    Directory {
        /// The directory.
        path: String,
        /// The cause.
        cause: std::io::Error,
    },
    /// A file in the directory.
    #[error(
        "cannot use {path}: {cause}: let uid {uid} read and write it",
        uid = nix::unistd::geteuid()
    )]
    File {
        /// The file.
        path: String,
        /// The cause.
        cause: std::io::Error,
    },
    /// There is a log without the database that it belongs to.
    #[error(
        "{path} is missing or empty, but its log {log} is not: put the database back or restore a backup; to start empty, move the log away"
    )]
    Orphaned {
        /// The database file.
        path: String,
        /// Its log.
        log: String,
    },
    /// Anything that SQLite reports.
    #[error("cannot open {path}: {fault}: {advice}", advice = fault.advice())]
    StoreError {
        /// The database file.
        path: String,
        /// The cause.
        fault: StoreError,
    },
}

/// What helps where a file that was named cannot be read.
fn unread_advice(cause: &std::io::Error) -> String {
    use std::io::ErrorKind;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of the standard library grow")]
    match cause.kind() {
        ErrorKind::NotFound => "name a file that `cortex backup` has made".into(),
        ErrorKind::IsADirectory => "name a file in it that `cortex backup` has made".into(),
        ErrorKind::PermissionDenied => {
            format!("let uid {} read it", nix::unistd::geteuid())
        }
        _ => "see the kernel's log (dmesg) for the disk's errors, or restore another backup".into(),
    }
}

/// What helps where a file cannot be written.
fn copy_advice(cause: &std::io::Error) -> String {
    use std::io::ErrorKind;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of the standard library grow")]
    match cause.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room there; it needs as much as the backup is long".into()
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!("let uid {} write to the directory", nix::unistd::geteuid())
        }
        _ => "see the kernel's log (dmesg) for the disk's errors".into(),
    }
}

impl OpenError {
    /// Whether somebody must choose another directory, or clear this one: another start will not help.
    #[must_use]
    pub fn is_for_the_administrator(&self) -> bool {
        matches!(self, Self::OfMnesia { .. } | Self::NotOurs { .. })
    }

    /// The same for a connection that is opened while the store is in use.
    pub(super) fn into_fault(self) -> StoreError {
        match self {
            Self::StoreError { fault, .. } => fault,
            other @ (Self::InUse(_)
            | Self::Newer { .. }
            | Self::Foreign(_)
            | Self::OfMnesia { .. }
            | Self::NotOurs { .. }
            | Self::NoBackup(_)
            | Self::Unread { .. }
            | Self::Unlike { .. }
            | Self::NewerBackup { .. }
            | Self::Unsound { .. }
            | Self::Uncopied { .. }
            | Self::Pragma { .. }
            | Self::OldSqlite(_)
            | Self::Directory { .. }
            | Self::File { .. }
            | Self::Orphaned { .. }) => StoreError::Io(other.to_string()),
        }
    }
}
