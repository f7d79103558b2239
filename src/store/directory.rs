//! The data directory: taken for one daemon, and refused where it holds what is not this store's.
//! Leaves the files of the database to SQLite, and what was left behind by a restore to the administrator.

use std::{
    fs::{self, DirBuilder, DirEntry, File, Metadata, TryLockError},
    io,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::Path,
};

use super::{
    error::OpenError,
    options::{FILE, LOCK_FILE},
    reserve::FILE as RESERVE_FILE,
};
use crate::sys::paths;

/// Names that are this program's, or the file system's, in a directory without a database. `cortex mesh init` may
/// have been there first.
const OURS: [&str; 7] =
    [LOCK_FILE, RESERVE_FILE, "backup.sending", "backups", "ca", "lost+found", "mesh"];

/// What administrators lay beside a database: settings, certificates, sockets, logs.
const BESIDE: [&str; 13] = [
    "conf", "cred", "crl", "crt", "csr", "key", "lock", "log", "pem", "pid", "sock", "srl", "toml",
];

/// How deep directories are looked into, and how many entries are looked at. What is foreign shows early; a start
/// must not wait for a whole home directory to be read.
const DEPTH: usize = 3;
const ENTRIES: usize = 10_000;

/// Names that a message shows.
const SHOWN: usize = 3;

/// Refuses a directory in which a store would begin as an empty one beside somebody else's data: files of the
/// original daemon, or any that this program does not make. A directory with a database in it is not looked at.
pub(super) fn refuse_what_is_not_ours(dir: &Path) -> Result<(), OpenError> {
    if fs::symlink_metadata(dir.join(FILE)).is_ok() {
        return Ok(());
    }
    let mut look = Inventory { left: ENTRIES, of_mnesia: Vec::new(), others: Vec::new() };
    look.inside(dir, "", 0);
    let path = dir.display().to_string();
    if !look.of_mnesia.is_empty() {
        return Err(OpenError::OfMnesia { path, found: shown(look.of_mnesia) });
    }
    if !look.others.is_empty() {
        return Err(OpenError::NotOurs { path, found: shown(look.others) });
    }
    Ok(())
}

/// What was found, by paths below the directory.
struct Inventory {
    left: usize,
    of_mnesia: Vec<String>,
    others: Vec<String>,
}

impl Inventory {
    /// Looks at what is in a directory. One that cannot be read holds nothing that could be mistaken: using it
    /// will fail, and say why.
    fn inside(&mut self, dir: &Path, below: &str, depth: usize) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            self.at(&entry, below, depth);
        }
    }

    fn at(&mut self, entry: &DirEntry, below: &str, depth: usize) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = depth == 0 && (OURS.contains(&name.as_str()) || name.starts_with(FILE));
        // Through a link, what it names; one that names nothing is nothing.
        let (false, false, Ok(meta)) = (is_ours, name.starts_with('.'), fs::metadata(entry.path()))
        else {
            return;
        };
        let path = format!("{below}{name}");
        if meta.is_dir() && depth < DEPTH {
            self.inside(&entry.path(), &format!("{path}/"), depth + 1);
        } else if meta.is_file() && paths::is_mnesia_file(&name) {
            self.of_mnesia.push(path);
        } else if meta.is_file() && meta.len() > 0 && !is_beside(&name) && !is_written_to(&meta) {
            self.others.push(path);
        }
    }
}

fn is_beside(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| BESIDE.contains(&extension))
}

/// Whether it is the file that this process prints to.
fn is_written_to(meta: &Metadata) -> bool {
    let is_it = |open: io::Result<Metadata>| {
        open.is_ok_and(|open| (open.dev(), open.ino()) == (meta.dev(), meta.ino()))
    };
    let of = |fd: std::os::fd::BorrowedFd<'_>| File::from(fd.try_clone_to_owned()?).metadata();
    is_it(of(io::stdout().as_fd())) || is_it(of(io::stderr().as_fd()))
}

/// The first names, and how many more there are.
fn shown(mut names: Vec<String>) -> String {
    names.sort_unstable();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
}

/// Makes the data directory if it is absent, closed to others, and takes hold of it.
pub(super) fn take_directory(dir: &Path) -> Result<File, OpenError> {
    let failed = |cause| OpenError::Directory { path: dir.display().to_string(), cause };
    make_directory(dir).map_err(failed)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK_FILE))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.display().to_string())),
        Err(TryLockError::Error(cause)) => Err(failed(cause)),
    }
}

/// Makes a directory and those above it, in such a way that a power loss does not take them away
/// with all that is in them: SQLite syncs the names in the directory, but not its own name.
fn make_directory(dir: &Path) -> io::Result<()> {
    let absent: Vec<_> = dir.ancestors().take_while(|path| !path.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for made in absent {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What is refused in a directory with these files, each of some bytes.
    fn refusal(files: &[&str]) -> Option<String> {
        let dir = tempfile::tempdir().expect("a directory");
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("it is below")).expect("made");
            fs::write(path, "data").expect("written");
        }
        let refused = refuse_what_is_not_ours(dir.path()).err()?.to_string();
        Some(refused.replace(&dir.path().display().to_string(), "DIR"))
    }

    #[test]
    fn a_directory_of_the_original_daemon_is_named_as_such() {
        for (files, found) in [
            (&["schema.DAT", "LATEST.LOG"][..], "LATEST.LOG, schema.DAT"),
            (&["1000:users.DCD"], "1000:users.DCD"),
            (&["mnesia/decision_tab.LOG", "bin/bin/cortex"], "mnesia/decision_tab.LOG"),
            (&["Mnesia.cortex@home/cortex_meta.DCL"], "Mnesia.cortex@home/cortex_meta.DCL"),
        ] {
            let text = refusal(files).expect("it is refused");
            let expected = format!("DIR holds data of the original cortexd (v1): {found}: ");
            assert!(text.starts_with(&expected), "{text}");
            assert!(text.contains("cortex-migrate(7)"), "{text}");
        }
    }

    #[test]
    fn files_of_somebody_else_are_refused_by_name() {
        for (files, found) in [
            (&["notes.txt"][..], "notes.txt"),
            (&["nightly.db"], "nightly.db"),
            (&["bin/bin/cortex"], "bin/bin/cortex"),
            (&["a", "b", "c", "d", "e"], "a, b, c and 2 more"),
        ] {
            let text = refusal(files).expect("it is refused");
            assert!(
                text.starts_with(&format!("DIR has no cortex.db, and holds {found}: ")),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_ours_the_systems_or_laid_beside_a_database_is_no_obstacle() {
        for files in [
            &[][..],
            &["cortexd.lock", "backup.sending", "backups/nightly.db", "cortex.db.restoring"],
            &["cortex.db.before-restore-17", "cortex.db-wal"],
            &["lost+found/#17", ".bash_history", ".config/x"],
            &["cortex.toml", "mesh/ca.crt", "mesh/home.key", "cortexd.log", "cred/token.cred"],
            &["cortex.db", "schema.DAT", "notes.txt"],
        ] {
            assert_eq!(refusal(files), None, "{files:?}");
        }
    }

    #[test]
    fn what_holds_no_data_is_no_obstacle() {
        let dir = tempfile::tempdir().expect("a directory");
        let _socket = UnixListener::bind(dir.path().join("s")).expect("a socket");
        fs::create_dir(dir.path().join("empty")).expect("made");
        fs::write(dir.path().join("nothing"), "").expect("written");
        std::os::unix::fs::symlink("/nowhere/at/all", dir.path().join("link")).expect("made");
        refuse_what_is_not_ours(dir.path()).expect("it begins");
        refuse_what_is_not_ours(&dir.path().join("absent")).expect("it is made");
    }
}
