//! Files that an earlier restore or an interrupted backup has left in the data directory.
//! Leaves removing them to the administrator: one of them may be the data that is wanted back.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::finding::Finding;
use crate::sys::clock;

const CHECK: &str = "leftovers";

/// A backup or a restore writes to its file all the time; one that has rested for so long is nobody's.
const RESTED_MS: u64 = 10 * 60 * 1000;

#[derive(Debug)]
pub(super) enum LeftoverFacts {
    /// This user may not look.
    Hidden(PathBuf),
    Failed(String),
    Files(PathBuf, Vec<File>),
}

#[derive(Debug)]
pub(super) struct File {
    name: String,
    bytes: u64,
    /// Since it was last written to.
    rested_ms: u64,
}

pub(super) fn gather(dir: &Path) -> LeftoverFacts {
    let now_ms = clock::wall_ms();
    let mut files = Vec::new();
    for place in [dir.to_owned(), dir.join("backups")] {
        match list(&place, now_ms) {
            Ok(found) => files.extend(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return LeftoverFacts::Hidden(dir.to_owned());
            }
            Err(error) => return LeftoverFacts::Failed(format!("{}: {error}", place.display())),
        }
    }
    LeftoverFacts::Files(dir.to_owned(), files)
}

fn list(dir: &Path, now_ms: u64) -> io::Result<Vec<File>> {
    fs::read_dir(dir)?.map(|entry| file(&entry?, now_ms)).collect()
}

fn file(entry: &DirEntry, now_ms: u64) -> io::Result<File> {
    let meta = entry.metadata()?;
    let written = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let written_ms = u64::try_from(written.as_millis()).unwrap_or(u64::MAX);
    Ok(File {
        name: entry.file_name().to_string_lossy().into_owned(),
        bytes: meta.len(),
        rested_ms: now_ms.saturating_sub(written_ms),
    })
}

pub(super) fn check(facts: &LeftoverFacts) -> Vec<Finding> {
    let (dir, files) = match facts {
        LeftoverFacts::Hidden(dir) => {
            let text = format!("this user may not list {}", dir.display());
            return vec![Finding::hidden(CHECK, text)];
        }
        LeftoverFacts::Failed(why) => return vec![Finding::unchecked(CHECK, why)],
        LeftoverFacts::Files(dir, files) => (dir, files),
    };
    let found: Vec<_> = files.iter().filter_map(|file| judge(dir, file)).collect();
    if found.is_empty() {
        return vec![Finding::ok(CHECK, "no restore or backup has left anything behind")];
    }
    found
}

fn judge(dir: &Path, file: &File) -> Option<Finding> {
    let File { name, bytes, rested_ms } = file;
    let is_log = name.ends_with("-wal") || name.ends_with("-shm");
    if name.starts_with("cortex.db.before-restore-") && !is_log {
        let path = dir.join(name);
        return Some(Finding::note(
            CHECK,
            format!(
                "the database from before a restore is kept as {} ({bytes} bytes)",
                path.display()
            ),
            format!("once the restored data is known to be right: rm {}*", path.display()),
        ));
    }
    let (place, what) = match name.as_str() {
        "backup.sending" => (dir.to_owned(), "a backup"),
        "cortex.db.restoring" => (dir.to_owned(), "a restore"),
        other if other.ends_with(".db.making") => (dir.join("backups"), "a backup"),
        _ => return None,
    };
    if *rested_ms < RESTED_MS {
        return None;
    }
    let path = place.join(name);
    Some(Finding::problem(
        CHECK,
        format!("{what} was interrupted and has left {} ({bytes} bytes)", path.display()),
        format!("rm {}", path.display()),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    fn found(files: &[(&str, u64)]) -> Vec<Finding> {
        let file = |(name, rested_ms): &(&str, u64)| File {
            name: (*name).into(),
            bytes: 1,
            rested_ms: *rested_ms,
        };
        check(&LeftoverFacts::Files("/d".into(), files.iter().map(file).collect()))
    }

    fn mends(files: &[(&str, u64)]) -> Vec<String> {
        found(files).into_iter().filter_map(|finding| finding.mend).collect()
    }

    #[test]
    fn what_belongs_there_is_no_leftover() {
        let belongs = ["cortex.db", "cortex.db-wal", "cortex.db-shm", "cortexd.lock", "nightly.db"];
        let rested = belongs.map(|name| (name, RESTED_MS));
        assert!(mends(&rested).is_empty());
    }

    #[test]
    fn the_database_from_before_a_restore_is_a_note_with_its_log() {
        let kept = [("cortex.db.before-restore-17", 0), ("cortex.db.before-restore-17-wal", 0)];
        assert_eq!(
            mends(&kept),
            ["once the restored data is known to be right: rm /d/cortex.db.before-restore-17*"]
        );
        assert_eq!(found(&kept)[0].status, Status::Note);
    }

    #[test]
    fn an_interrupted_backup_or_restore_is_a_leftover_and_one_under_way_is_not() {
        for (name, path) in [
            ("backup.sending", "/d/backup.sending"),
            ("cortex.db.restoring", "/d/cortex.db.restoring"),
            (".nightly.db.making", "/d/backups/.nightly.db.making"),
        ] {
            assert_eq!(mends(&[(name, RESTED_MS)]), [format!("rm {path}")]);
            assert_eq!(found(&[(name, RESTED_MS)])[0].status, Status::Problem);
            assert!(mends(&[(name, RESTED_MS - 1)]).is_empty(), "{name}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_listed_is_not_called_clean() {
        for facts in [LeftoverFacts::Hidden("/d".into()), LeftoverFacts::Failed("an error".into())]
        {
            assert_eq!(check(&facts)[0].status, Status::Unchecked);
        }
    }
}
