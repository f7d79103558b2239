//! Copies of the database: made while the store is in use, and put in its place while it is not.
//! Who may ask for one, and where it goes from there, is the service's and the daemon's.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use cortex_core::model::TableId;
use rusqlite::Connection;

use super::{
    checksum::StoredRow,
    directory::take_directory,
    error::{OpenError, StoreError},
    options::{FILE, LOCK_FILE},
    schema,
};
use crate::sys::clock;

/// Steps of SQLite's machine between two looks at whether a copy is still wanted: a fraction of a
/// millisecond.
const STEPS_PER_LOOK: i32 = 10_000;

/// Where a copy is made that is sent to a client, and the directory of those that the daemon keeps, each with
/// a name of its own while it is made: `.NAME.db.making`.
pub(crate) const SENDING: &str = "backup.sending";
pub(crate) const KEPT: &str = "backups";

/// What a restore copies a backup to, before it takes the database's place.
const RESTORING: &str = "cortex.db.restoring";

/// A database holds everybody's records.
const MODE: u32 = 0o600;

/// What SQLite appends to the name of a database for its log, and for the log's index.
const LOG: &str = "-wal";
const LOG_INDEX: &str = "-shm";

/// What a copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Of the file.
    pub bytes: u64,
    /// Tables of all owners.
    pub tables: u64,
    /// Live records.
    pub records: u64,
}

/// Copies the state of the last commit into a new file, checks the copy and marks it as one.
///
/// VACUUM INTO reads over one snapshot: writers go on meanwhile, and what they write is not in it.
/// Ends with [`StoreError::Closed`] soon after the copy is given up.
pub(super) fn make(
    source: &mut Connection,
    into: &Path,
    given_up: impl Fn() -> bool + Clone + Send + 'static,
) -> Result<Summary, StoreError> {
    let io = |e: io::Error| StoreError::Io(format!("{}: {e}", into.display()));
    let path = into.to_str().ok_or_else(|| StoreError::Io("the path is no UTF-8".into()))?;
    source.progress_handler(STEPS_PER_LOOK, Some(given_up.clone()))?;
    source.execute("VACUUM INTO ?1", [path])?;
    let mut copy = Connection::open(into)?;
    copy.progress_handler(STEPS_PER_LOOK, Some(given_up))?;
    copy.execute("UPDATE node_state SET is_copy = 1", [])?;
    check_pages(&copy)?;
    let summary = check_rows(&copy)?;
    copy.close().map_err(|(_, error)| error)?;
    sync(into).map_err(io)?;
    let bytes = fs::metadata(into).map_err(io)?.len();
    Ok(Summary { bytes, ..summary })
}

/// Reads every page.
fn check_pages(conn: &Connection) -> Result<(), StoreError> {
    let found: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(StoreError::Corrupt(found)) }
}

/// Compares the tables' totals with their rows, and every row with its checksum.
fn check_rows(conn: &Connection) -> Result<Summary, StoreError> {
    let wrong: i64 = conn.query_row(
        // Nobody's quota counts the rows of the system table.
        "SELECT count(*) FROM tables WHERE dropped = 0 AND id <> 0 AND records <>
         (SELECT count(*) FROM records WHERE table_id = tables.id AND value IS NOT NULL)",
        [],
        |row| row.get(0),
    )?;
    if wrong > 0 {
        return Err(StoreError::Corrupt(format!("{wrong} tables hold other rows than they count")));
    }
    check_checksums(conn)?;
    let totals = conn.query_row(
        "SELECT count(*), coalesce(sum(records), 0) FROM tables WHERE dropped = 0 AND id <> 0",
        [],
        |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs())),
    )?;
    Ok(Summary { bytes: 0, tables: totals.0, records: totals.1 })
}

/// Those of an earlier schema have none.
fn check_checksums(conn: &Connection) -> Result<(), StoreError> {
    let mut statement = conn.prepare(
        "SELECT r.table_id, r.key, r.value, r.hlc, r.actor, r.seq, r.checksum, t.checksummed,
                t.owner, t.name
         FROM records r JOIN tables t ON t.id = r.table_id WHERE t.dropped = 0",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let blob = |e: rusqlite::types::FromSqlError| StoreError::Corrupt(e.to_string());
        let key = row.get_ref(1)?.as_blob().map_err(blob)?;
        let stored = StoredRow {
            table: TableId(row.get(0)?),
            key,
            hlc: row.get(3)?,
            actor_number: row.get(4)?,
            seq: row.get(5)?,
            value: row.get_ref(2)?.as_blob_or_null().map_err(blob)?,
        };
        let checksum: Option<i64> = row.get(6)?;
        let lacks = checksum.is_none() && row.get(7)?;
        if lacks || !stored.is_sound(checksum) {
            let (owner, name): (String, String) = (row.get(8)?, row.get(9)?);
            let table = format!("{owner}:{name}");
            return Err(StoreError::DamagedCopy { table, key: key.into() });
        }
    }
    Ok(())
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the directory holds now.
    pub summary: Summary,
    /// Where the database that was there before is kept, if there was one.
    pub kept: Option<PathBuf>,
}

/// Puts a copy in the place of the database of a directory. The one that was there is kept beside it.
///
/// Every step leaves either the old database or the new one in place, whole.
///
/// # Errors
/// [`OpenError`]: a daemon uses the directory, or the file is no sound copy. Nothing was changed then.
pub fn restore(from: &Path, dir: &Path) -> Result<Restored, OpenError> {
    judge_backup(from)?; // before the directory is made, or anything in it touched
    let lock = take_directory(dir)?;
    let in_dir = |cause| OpenError::Directory { path: dir.display().to_string(), cause };
    let fresh = dir.join(RESTORING);
    let summary = copy_checked(from, &fresh).inspect_err(|_| {
        let _absent = fs::remove_file(&fresh);
    })?;
    for file in [&fresh, &dir.join(LOCK_FILE)] {
        chown_to_owner_of(file, dir).map_err(in_dir)?;
    }
    let current = dir.join(FILE);
    let kept = move_aside(&current, dir).map_err(in_dir)?;
    remove_log(&current).map_err(in_dir)?;
    fs::rename(&fresh, &current).and_then(|()| sync(dir)).map_err(in_dir)?;
    drop(lock);
    Ok(Restored { summary, kept })
}

fn copy_checked(from: &Path, fresh: &Path) -> Result<Summary, OpenError> {
    let shown = || from.display().to_string();
    let failed = |fault: StoreError| match fault {
        StoreError::Corrupt(why) => OpenError::Unsound { path: shown(), why },
        StoreError::Damaged { .. } | StoreError::DamagedCopy { .. } => {
            OpenError::Unsound { path: shown(), why: fault.to_string() }
        }
        fault @ (StoreError::Full(_)
        | StoreError::Io(_)
        | StoreError::SyncFailed(_)
        | StoreError::ReadOnly(_)
        | StoreError::Unopened(_)
        | StoreError::Closed
        | StoreError::SnapshotTooOld) => {
            OpenError::StoreError { path: fresh.display().to_string(), fault }
        }
    };
    let io = |cause| OpenError::Uncopied { path: fresh.display().to_string(), cause };
    fs::copy(from, fresh).map_err(io)?;
    let mut copy = Connection::open(fresh).map_err(|e| failed(e.into()))?;
    let is_copy: Result<bool, _> =
        copy.query_row("SELECT is_copy FROM node_state WHERE id = 1", [], |row| row.get(0));
    if !is_copy.map_err(|e| failed(e.into()))? {
        // A database that was merely copied may lack what stood in its log.
        return Err(OpenError::NoBackup(from.display().to_string()));
    }
    check_pages(&copy).map_err(failed)?;
    // One of an earlier version: its rows are read by the names that the newest schema has.
    schema::migrate(&mut copy, fresh)?;
    let summary = check_rows(&copy).map_err(failed)?;
    copy.close().map_err(|(_, e)| failed(e.into()))?;
    sync(fresh).map_err(io)?;
    Ok(Summary { bytes: fs::metadata(fresh).map_err(io)?.len(), ..summary })
}

/// Refuses what cannot be a backup, by what can be seen of it without opening it.
fn judge_backup(from: &Path) -> Result<(), OpenError> {
    let path = || from.display().to_string();
    let unread = |cause| OpenError::Unread { path: path(), cause };
    let unlike = |why| Err(OpenError::Unlike { path: path(), why });
    let meta = fs::metadata(from).map_err(unread)?;
    if meta.is_dir() {
        return Err(unread(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    if !meta.is_file() {
        return unlike("is no regular file"); // reading it might never end
    }
    File::open(from).map_err(unread)?;
    if meta.len() == 0 {
        return unlike("is empty");
    }
    match schema::check_header(from) {
        Err(OpenError::Foreign(_)) => unlike("is no database of cortexd"),
        Err(OpenError::Newer { path, found, known }) => {
            Err(OpenError::NewerBackup { path, found, known })
        }
        Err(OpenError::File { cause, .. }) => Err(unread(cause)),
        checked => checked,
    }?;
    // A header that says nothing yet is that of a database in the making, or of somebody else's.
    match schema::is_unwritten(from) {
        Ok(false) => Ok(()),
        Ok(true) => unlike("is no database of cortexd"),
        Err(cause) => Err(unread(cause)),
    }
}

/// Gives a file to the owner of the directory, and to nobody else: a restore is often root's, and
/// the daemon that must open the file afterwards is not; the backup may lie where all may read it.
fn chown_to_owner_of(file: &Path, dir: &Path) -> io::Result<()> {
    let (owner, found) = (fs::metadata(dir)?, fs::metadata(file)?);
    if (owner.uid(), owner.gid()) != (found.uid(), found.gid()) {
        chown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    fs::set_permissions(file, Permissions::from_mode(MODE))
}

/// Removes what a crash has left of a copy that was being made or put in place: it holds everybody's records,
/// deleted ones among them, and nobody would ever look after it. The directory must be taken.
pub(super) fn remove_leftovers(dir: &Path) {
    let making = |name: &str| name.starts_with('.') && name.contains(".db.making");
    let beside = |name: &str| name.starts_with(SENDING) || name.starts_with(RESTORING);
    for (dir, is_left) in
        [(dir.to_owned(), &beside as &dyn Fn(&str) -> bool), (dir.join(KEPT), &making)]
    {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        let left =
            entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_left));
        for entry in left {
            match fs::remove_file(entry.path()) {
                Ok(()) => {
                    tracing::info!(file = %entry.path().display(), "removed what an interrupted backup or restore had left");
                }
                Err(error) => {
                    tracing::warn!(%error, file = %entry.path().display(), "a file that an interrupted backup or restore has left cannot be removed");
                }
            }
        }
    }
}

/// Gives the database that is there, and what is left of its log, other names too. There is no moment
/// without a database, where a daemon would make a new one, and none where it lacks its log.
fn move_aside(current: &Path, dir: &Path) -> io::Result<Option<PathBuf>> {
    if !current.exists() {
        return Ok(None);
    }
    if let Err(fault) = fold_log(current) {
        tracing::warn!(%fault, "the old database is kept together with its log: {fault}");
    }
    let kept = dir.join(format!("{}.before-restore-{}", FILE, clock::wall_ms()));
    link_all(current, &kept)?;
    sync(dir)?;
    Ok(Some(kept))
}

/// Gives a database and its log second names. If one is refused, none is left.
fn link_all(current: &Path, kept: &Path) -> io::Result<()> {
    let mut made = Vec::new();
    for suffix in ["", LOG, LOG_INDEX] {
        let name = with_suffix(kept, suffix);
        match fs::hard_link(with_suffix(current, suffix), &name) {
            Ok(()) => made.push(name),
            // The log is not there where it was folded.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => {}
            Err(error) => {
                for name in made {
                    let _left_beside = fs::remove_file(name);
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// The log must not be there when another database takes the name.
fn remove_log(database: &Path) -> io::Result<()> {
    for suffix in [LOG, LOG_INDEX] {
        match fs::remove_file(with_suffix(database, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Moves everything from the log into the database, so that one rename moves it all. Closing the
/// last connection does it.
fn fold_log(database: &Path) -> Result<(), StoreError> {
    let conn = Connection::open(database)?;
    conn.query_row("SELECT count(*) FROM node_state", [], |_| Ok(()))?;
    conn.close().map_err(|(_, error)| error.into())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_cannot_be_kept_keeps_its_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let (current, kept) = (dir.path().join("cortex.db"), dir.path().join("kept"));
        let log = with_suffix(&current, LOG);
        fs::write(&current, "database").expect("written");
        fs::write(&log, "log").expect("written");
        // Each name in turn is taken, so that its link is refused.
        for suffix in ["", LOG] {
            let taken = with_suffix(&kept, suffix);
            fs::write(&taken, "other").expect("written");
            link_all(&current, &kept).expect_err("the name is taken");
            assert_eq!(fs::read_to_string(&log).expect("the log is there"), "log");
            fs::remove_file(&taken).expect("it is there, untouched");
            assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 2, "no half of a pair");
        }
        link_all(&current, &kept).expect("both are kept");
        assert_eq!(fs::read_to_string(with_suffix(&kept, LOG)).expect("the log"), "log");
        remove_log(&current).expect("it is kept elsewhere");
        assert!(!log.exists() && current.exists());
    }
}
