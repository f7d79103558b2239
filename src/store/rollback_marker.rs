//! Rollback marker: the last committed sequence number, outside the database, on a tmpfs that a restart of the
//! machine clears. A database that is older than its marker was put back; one that has none may have been.
//!
//! ```text
//!   start   marker found, of this file, not ahead of it: the same actor goes on
//!           else: another actor, since numbers of the old one may be in the world already
//!   commit  marker written, then replies
//! ```
//!
//! So a restart of the daemon and kill -9 keep the actor; a restart of the machine, a copy of the disk, an
//! image of a virtual machine and a restored backup get a new one (I3, I11).

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use cortex_core::model::ActorId;
use nix::{
    libc::O_NOFOLLOW,
    sys::statfs::{TMPFS_MAGIC, fstatfs},
};
use sha2::{Digest, Sha256};
use tracing::warn;

/// What the marker begins with: its format.
const FORM: &[u8; 8] = b"cxanchr1";

/// Bytes of the marker.
const MARK: usize = 80;

/// The marker of one database.
#[derive(Debug)]
pub(super) struct RollbackMarker {
    /// Made with the first marker: a database that belongs to no mesh needs none.
    place: MarkerFile,
    database: [u8; 16],
    /// Device and inode: a copy of the database is another file.
    of: (u64, u64),
}

#[derive(Debug)]
enum MarkerFile {
    /// Not looked for yet.
    Directory(PathBuf),
    /// Open.
    File(File),
    /// There is none.
    Nowhere,
}

impl RollbackMarker {
    /// Opens the marker of a database. Answers what it says: the actor, and how far that had come.
    ///
    /// Without a directory, or in one that outlives the machine's memory, there is none.
    pub(super) fn open(
        dir: Option<&Path>,
        database: [u8; 16],
        path: &Path,
    ) -> (Self, Option<(ActorId, u64)>) {
        let of = fs::metadata(path).map_or((0, 0), |meta| (meta.dev(), meta.ino()));
        let place =
            dir.map_or(MarkerFile::Nowhere, |dir| MarkerFile::Directory(dir.join(name(database))));
        let mut rollback_marker = Self { place, database, of };
        let MarkerFile::Directory(path) = &rollback_marker.place else {
            return (rollback_marker, None);
        };
        let found = File::options().read(true).write(true).custom_flags(O_NOFOLLOW).open(path);
        let Ok(file) = found else {
            return (rollback_marker, None);
        };
        let mark = if is_in_memory(&file) { rollback_marker.read(&file) } else { None };
        rollback_marker.place = MarkerFile::File(file);
        (rollback_marker, mark)
    }

    /// Writes down how far an actor has come. Where that fails there must be no older marker.
    pub(super) fn note(&mut self, actor: ActorId, seq: u64) {
        if let MarkerFile::Directory(path) = &self.place {
            self.place = match make(path) {
                Ok(file) => MarkerFile::File(file),
                Err(error) => {
                    warn!(%error, path = %path.display(), "how far the store has come cannot be noted: after each start the actor id is rotated: {error}");
                    MarkerFile::Nowhere
                }
            };
        }
        let MarkerFile::File(file) = &self.place else { return };
        if let Err(error) = file.write_all_at(&self.mark(actor, seq), 0) {
            warn!(%error, "how far the store has come could not be noted: {error}");
            let _no_marker_at_all = file.set_len(0);
            self.place = MarkerFile::Nowhere;
        }
    }

    fn mark(&self, actor: ActorId, seq: u64) -> [u8; MARK] {
        let (device, inode) = self.of;
        let mut mark = [0; MARK];
        mark[..8].copy_from_slice(FORM);
        mark[8..24].copy_from_slice(&self.database);
        mark[24..40].copy_from_slice(&actor.0.to_be_bytes());
        mark[40..48].copy_from_slice(&seq.to_be_bytes());
        mark[48..56].copy_from_slice(&device.to_be_bytes());
        mark[56..64].copy_from_slice(&inode.to_be_bytes());
        let sum = Sha256::digest(&mark[..64]);
        mark[64..].copy_from_slice(&sum[..16]);
        mark
    }

    fn read(&self, file: &File) -> Option<(ActorId, u64)> {
        let mut mark = [0; MARK];
        file.read_exact_at(&mut mark, 0).ok()?;
        let actor = ActorId(u128::from_be_bytes(*mark[24..].first_chunk()?));
        let seq = u64::from_be_bytes(*mark[40..].first_chunk()?);
        // Of another file, or half written, it is not what would be written for this one.
        (mark == self.mark(actor, seq)).then_some((actor, seq))
    }
}

fn name(database: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(database))
}

fn make(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(O_NOFOLLOW).open(path)
}

fn is_in_memory(file: &File) -> bool {
    fstatfs(file).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: [u8; 16] = [7; 16];

    /// A directory in memory, and a file elsewhere that stands for the database.
    fn places() -> (tempfile::TempDir, tempfile::NamedTempFile) {
        let dir = tempfile::tempdir_in("/dev/shm").expect("memory");
        (dir, tempfile::NamedTempFile::new().expect("a file"))
    }

    #[test]
    fn a_marker_is_found_again_by_the_same_file_alone() {
        let (dir, database) = places();
        let (mut rollback_marker, none) =
            RollbackMarker::open(Some(dir.path()), DATABASE, database.path());
        assert_eq!(none, None);
        rollback_marker.note(ActorId(3), 41);
        rollback_marker.note(ActorId(3), 42);
        let again = RollbackMarker::open(Some(dir.path()), DATABASE, database.path()).1;
        assert_eq!(again, Some((ActorId(3), 42)));

        let copy = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(RollbackMarker::open(Some(dir.path()), DATABASE, copy.path()).1, None, "a copy");
        assert_eq!(
            RollbackMarker::open(Some(dir.path()), [8; 16], database.path()).1,
            None,
            "another"
        );
    }

    #[test]
    fn a_damaged_marker_is_none() {
        let (dir, database) = places();
        let (mut rollback_marker, _) =
            RollbackMarker::open(Some(dir.path()), DATABASE, database.path());
        rollback_marker.note(ActorId(3), 41);
        let name = dir.path().join(format!("{:032x}", u128::from_be_bytes(DATABASE)));
        let file = File::options().write(true).open(name).expect("the mark");
        file.write_all_at(&[1], 45).expect("a byte");
        assert_eq!(RollbackMarker::open(Some(dir.path()), DATABASE, database.path()).1, None);
    }

    #[test]
    fn a_marker_on_a_disk_does_not_count() {
        let (_, database) = places();
        let disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a disk");
        for _ in 0..2 {
            let (mut rollback_marker, mark) =
                RollbackMarker::open(Some(disk.path()), DATABASE, database.path());
            assert_eq!(mark, None);
            rollback_marker.note(ActorId(3), 41);
        }
    }
}
