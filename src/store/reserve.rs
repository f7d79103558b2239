//! Room on the disk that is kept back, so that a full disk can be emptied from inside.
//! What may use it is the command's to say, and when it is let go, the writer's.
//!
//! To delete a row takes room: the log must hold the changed pages before the old ones can go. So a file of
//! zeros lies beside the database. When the disk is full it is removed, what frees room is carried out in its
//! place, and everything else is refused until the file could be made again: else the next write would take
//! the room that the next deletion needs.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::{fcntl::posix_fallocate, sys::statvfs::statvfs};

/// Its name in the data directory.
pub(super) const FILE: &str = "cortex.reserve";

/// Its length: as much as the log usually has, which may have to be moved into the database first, and half
/// of that again for what then is to be carried out.
const BYTES: u64 = 24 << 20;

/// The share of a small file system that it takes.
const SHARE: u64 = 8;

/// Besides the reserve there must be as much room as this part of it, before it is made again.
const BESIDES: u64 = 4;

/// A page of the database, in bytes: SQLite's default, which no version has changed.
pub(super) const PAGE: u64 = 4096;

/// The room that is kept back.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    /// How much of it is kept; none where the disk was full.
    held: u64,
}

impl Reserve {
    /// The reserve of a data directory, as it is. Where the disk is so full that a database cannot even be
    /// opened, it is let go.
    pub(super) fn of(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let total = statvfs(dir).map_or(0, |disk| disk.blocks() * disk.fragment_size());
        let bytes = BYTES.min(total / SHARE);
        let held = fs::metadata(&path).map_or(0, |file| file.len().min(bytes));
        let mut reserve = Self { path, bytes, held };
        if free(dir) < bytes / BESIDES {
            reserve.release();
        }
        reserve
    }

    /// Pages that the log may have, so that it can be moved into the database within the reserve.
    pub(super) fn log_pages(&self) -> u64 {
        self.bytes / PAGE / 3 * 2
    }

    /// Keeps the room back, or half of it, where there is enough. False where there is not.
    pub(super) fn keep(&mut self) -> bool {
        if self.held == self.bytes {
            return true;
        }
        let room = free(self.dir()).saturating_add(self.held);
        let fits = |bytes: &u64| room >= bytes + bytes / BESIDES;
        let Some(bytes) = [self.bytes, self.bytes / 2].into_iter().find(fits) else {
            return self.held > 0;
        };
        if bytes <= self.held {
            return true;
        }
        let Err(error) = self.make(bytes) else {
            self.held = bytes;
            return true;
        };
        self.release(); // a part of it is of no use
        // Whatever else keeps it from being made is no reason to refuse what there is room for.
        !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// True where the file system has little room besides a log of that many bytes. Far from it, nothing else needs
    /// to be looked at.
    pub(super) fn is_scarce(&self, log: u64) -> bool {
        free(self.dir()) < log.saturating_add(self.bytes)
    }

    /// What must be left when a transaction begins.
    pub(super) fn margin(&self) -> u64 {
        self.bytes / 4
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn make(&self, bytes: u64) -> io::Result<()> {
        let file = File::options().create(true).truncate(false).write(true).open(&self.path)?;
        posix_fallocate(&file, 0, i64::try_from(bytes).unwrap_or(i64::MAX))?;
        Ok(())
    }

    /// Gives the room to the next write. True where it was kept back.
    pub(super) fn release(&mut self) -> bool {
        let removed = fs::remove_file(&self.path).is_ok();
        std::mem::take(&mut self.held) > 0 && removed
    }
}

/// Bytes that an unprivileged user may still write; all there could be where it is unknown.
fn free(dir: &Path) -> u64 {
    statvfs(dir).map_or(u64::MAX, |disk| disk.blocks_available() * disk.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_kept_once_and_given_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut reserve = Reserve::of(dir.path());
        assert!(!reserve.release() && reserve.keep() && reserve.keep());
        let length = |dir: &Path| fs::metadata(dir.join(FILE)).map(|file| file.len()).ok();
        assert_eq!(length(dir.path()), Some(reserve.bytes));
        let mut again = Reserve::of(dir.path());
        assert!(again.release() && !again.release(), "after a restart it is there");
        assert_eq!(length(dir.path()), None);
    }
}
