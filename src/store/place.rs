//! The database file before and beside SQLite: whether it was left in order, and a handle of our own on it.
//! The directory is `directory`'s.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use super::error::StoreError;
use crate::sys::journal;

/// Tells the operator that the daemon before was killed, or lost its power: an orderly end leaves no
/// log behind. SQLite recovers what was committed by itself. True where it was so.
pub(super) fn report_unclean_end(path: &Path) -> bool {
    let log = fs::metadata(path.with_extension("db-wal"));
    if let Ok(log) = &log {
        tracing::warn!(
            MESSAGE_ID = journal::STORE_RECOVERED,
            log_bytes = log.len(),
            "the store had not been closed in order, what was confirmed is there: {} bytes of its log are taken over",
            log.len()
        );
    }
    log.is_ok()
}

/// The database file besides SQLite's connections; none where another VFS keeps it.
pub(super) fn open_beside(path: &Path, vfs: Option<&str>) -> Result<Option<Arc<File>>, StoreError> {
    if vfs.is_some() {
        return Ok(None);
    }
    let file = File::options().read(true).write(true).open(path);
    file.map(|file| Some(Arc::new(file))).map_err(|e| StoreError::Unopened(e.to_string()))
}
