//! The database file: how connections to it are set up, and how it gets from one schema to the next.
//! What the columns mean stands in the migrations themselves.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    error::{OpenError, StoreError},
    replica,
};
use crate::sys::random;

/// "CXD1": marks the file as ours (PRAGMA application_id).
const APPLICATION_ID: u32 = 0x4358_4431;

/// One step per file; a file is never changed once it has been released.
const MIGRATIONS: [&str; 7] = [
    include_str!("migrations/0001_store.sql"),
    include_str!("migrations/0002_events.sql"),
    include_str!("migrations/0003_mesh.sql"),
    include_str!("migrations/0004_replication.sql"),
    include_str!("migrations/0005_checksums.sql"),
    include_str!("migrations/0006_erasure.sql"),
    include_str!("migrations/0007_vocabulary.sql"),
];

/// The first schema that has replicas, with digests that SQL cannot work out.
const REPLICATION: u32 = 4;

/// Bytes at the beginning of the database that say what it is.
pub(super) const HEADER: usize = 100;

/// SQLite 3.7.0 to 3.51.2 can lose commits when a checkpoint races with a write.
const LEAST_SQLITE: i32 = 3_051_003;

/// Statements that one connection keeps prepared. More than there are.
pub(super) const STATEMENT_CACHE: usize = 96;

/// How a connection will be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The one connection that changes rows.
    Writer,
    /// Moves committed pages from the log into the database.
    Checkpointer,
    /// Reads only.
    Reader,
}

/// The newest schema that this binary knows.
pub(super) fn newest() -> u32 {
    u32::try_from(MIGRATIONS.len()).expect("a handful of migrations")
}

/// Opens one connection and sets it up; what durability rests on is read back.
pub(super) fn connect(
    path: &Path,
    vfs: Option<&str>,
    role: Role,
    cache_kib: u32,
) -> Result<Connection, OpenError> {
    let shown = path.display().to_string();
    let fault = |e: rusqlite::Error| OpenError::StoreError { path: shown.clone(), fault: e.into() };
    let access = match role {
        Role::Writer => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Role::Checkpointer | Role::Reader => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = match vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs),
        None => Connection::open_with_flags(path, flags),
    }
    .map_err(fault)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    conn.busy_timeout(std::time::Duration::from_secs(5)).map_err(fault)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(fault)?;
    keep_plans(&conn).map_err(fault)?;
    set(&conn, "trusted_schema", "OFF", "0", &shown)?;
    set(&conn, "journal_mode", "WAL", "wal", &shown)?;
    set(&conn, "synchronous", "FULL", "2", &shown)?;
    // Checkpoints run on a thread of their own: on the commit path one stalls it for milliseconds.
    set(&conn, "wal_autocheckpoint", "0", "0", &shown)?;
    set(&conn, "cache_size", &format!("-{cache_kib}"), &format!("-{cache_kib}"), &shown)?;
    // The log file is cut back to this when it starts again from its beginning.
    set(&conn, "journal_size_limit", "67108864", "67108864", &shown)?;
    // Nothing goes to files of its own, where nobody would overwrite it.
    set(&conn, "temp_store", "MEMORY", "2", &shown)?;
    match role {
        Role::Reader => set(&conn, "query_only", "ON", "1", &shown)?,
        // With FAST, free pages would keep what they held.
        Role::Writer => set(&conn, "secure_delete", "ON", "1", &shown)?,
        Role::Checkpointer => {}
    }
    Ok(conn)
}

/// Has statements stay prepared as they were. Otherwise each whose plan might depend on a value, as beside a
/// partial index, is prepared anew whenever that value is another.
fn keep_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_on| ())
}

fn set(
    conn: &Connection,
    pragma: &'static str,
    value: &str,
    wanted: &str,
    path: &str,
) -> Result<(), OpenError> {
    let read_back = || -> rusqlite::Result<String> {
        conn.pragma_update(None, pragma, value)?;
        conn.pragma_query_value(None, pragma, |row| {
            let value = row.get_ref(0)?;
            Ok(value
                .as_i64()
                .map_or_else(|_| value.as_str().unwrap_or_default().to_owned(), |n| n.to_string()))
        })
    };
    let found = read_back()
        .map_err(|e| OpenError::StoreError { path: path.to_owned(), fault: e.into() })?;
    if found != wanted {
        let path = path.to_owned();
        return Err(OpenError::Pragma { path, pragma, wanted: wanted.to_owned(), found });
    }
    Ok(())
}

/// Refuses a file that this binary must not touch, before SQLite opens it: opening alone may
/// replay its log. Reads the header as the file format documents it (application id at byte 68,
/// user version at byte 60).
pub(super) fn check_header(path: &Path) -> Result<(), OpenError> {
    if rusqlite::version_number() < LEAST_SQLITE {
        return Err(OpenError::OldSqlite(rusqlite::version()));
    }
    // A crash has interrupted the database's making, the only thing done with a rollback journal:
    // the header may be half written until SQLite has rolled that back. It is judged then.
    if fs::metadata(beside(path, "-journal")).is_ok_and(|journal| journal.len() > 0) {
        return Ok(());
    }
    let header = read_header(path)
        .map_err(|cause| OpenError::File { path: path.display().to_string(), cause })?;
    let Some(header) = header else {
        return Ok(());
    };
    let foreign = !header.starts_with(b"SQLite format 3\0");
    judge(path, field(&header, 68), version_in(&header), foreign)
}

/// True where a database has no mark of whose it is: ours have one once anything is stored in them.
pub(super) fn is_unwritten(path: &Path) -> std::io::Result<bool> {
    Ok(read_header(path)?.is_none_or(|header| field(&header, 68) == 0))
}

/// Refuses a file that may not be read and written, with a message that names it: SQLite would
/// open it as far as it may, and fail with the first write.
pub(super) fn check_access(path: &Path) -> Result<(), OpenError> {
    match File::options().read(true).write(true).open(path) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => {
            Err(OpenError::File { path: path.display().to_string(), cause })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// None for an absent or an empty file: there will be a new database. A shorter one than a
/// header is filled up with zeros.
fn read_header(path: &Path) -> std::io::Result<Option<[u8; HEADER]>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    file.take(HEADER as u64).read_to_end(&mut found)?;
    let mut header = [0; HEADER];
    header[..found.len()].copy_from_slice(&found);
    Ok(Some(header).filter(|_| !found.is_empty()))
}

/// The schema version in a header of the database.
pub(super) fn version_in(header: &[u8]) -> u32 {
    field(header, 60)
}

/// A number as SQLite's file formats write it.
pub(super) fn field(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

/// The write-ahead log of a database.
pub(super) fn log_path(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn judge(path: &Path, application: u32, version: u32, foreign: bool) -> Result<(), OpenError> {
    let shown = path.display().to_string();
    // Both zero: a database that was created and whose first transaction is still in its log.
    let unwritten = application == 0 && version == 0;
    if foreign || (application != APPLICATION_ID && !unwritten) {
        return Err(OpenError::Foreign(shown));
    }
    refuse_newer(path, version)
}

pub(super) fn refuse_newer(path: &Path, found: u32) -> Result<(), OpenError> {
    let known = newest();
    if found > known {
        return Err(OpenError::Newer { path: path.display().to_string(), found, known });
    }
    Ok(())
}

/// Brings the database to the newest schema.
pub(super) fn migrate(conn: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let fault =
        |fault: StoreError| OpenError::StoreError { path: path.display().to_string(), fault };
    let version = version(conn).map_err(|e| fault(e.into()))?;
    let application = conn
        .pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))
        .map_err(|e| fault(e.into()))?;
    judge(path, application.cast_unsigned(), version, false)?;
    upgrade(conn, version, &random::id).map_err(fault)
}

/// Makes the newest schema in an empty database.
pub(super) fn create(
    conn: &mut Connection,
    draw_id: &dyn Fn() -> [u8; 16],
) -> Result<(), StoreError> {
    upgrade(conn, 0, draw_id)?;
    // The ids that migrations draw by themselves.
    conn.execute("UPDATE replicas SET change_log = ?1", [draw_id()])?;
    Ok(())
}

/// Makes a restored copy another actor: what it writes from now on must never be taken
/// for what the original wrote after the copy was made. And its pages are to be looked at: that they were is said of
/// those of the original.
pub(super) fn adopt_copy(conn: &mut Connection) -> rusqlite::Result<()> {
    let transaction = conn.transaction()?;
    let is_copy: bool =
        transaction
            .query_row("SELECT is_copy FROM node_state WHERE id = 1", [], |row| row.get(0))?;
    if is_copy {
        transaction.execute(
            "INSERT INTO actors (uid, born_hlc) SELECT ?1, hlc FROM node_state WHERE id = 1",
            [random::id()],
        )?;
        transaction.execute(
            "UPDATE node_state
             SET actor = ?1, db_uid = ?2, seq = 0, is_copy = 0, swept = 0 WHERE id = 1",
            rusqlite::params![transaction.last_insert_rowid(), random::id()],
        )?;
    }
    transaction.commit()
}

/// Has all pages looked at for bytes of what is gone: which ones a process had yet to look at is lost with it.
pub(super) fn note_unclean_end(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute("UPDATE node_state SET swept = 0 WHERE id = 1 AND swept <> 0", []).map(|_rows| ())
}

pub(super) fn version(conn: &Connection) -> rusqlite::Result<u32> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Applies the steps after a version, all in one transaction: what the daemon works out of the rows is worked
/// out after the last of them, since it knows the names of the newest schema alone.
fn upgrade(
    conn: &mut Connection,
    version: u32,
    draw_id: &dyn Fn() -> [u8; 16],
) -> Result<(), StoreError> {
    if version == newest() {
        return Ok(());
    }
    let transaction = conn.transaction()?;
    for (step, statements) in (1..).zip(MIGRATIONS).skip(version as usize) {
        transaction.execute_batch(statements)?;
        if step == 1 {
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            init_node_state(&transaction, draw_id)?;
        }
    }
    if version < REPLICATION {
        replica::recount_all(&transaction)?;
    }
    transaction.pragma_update(None, "user_version", newest())?;
    Ok(transaction.commit()?)
}

/// Gives a new database its id and its first actor, by the names that the first schema has.
fn init_node_state(conn: &Connection, draw_id: &dyn Fn() -> [u8; 16]) -> rusqlite::Result<()> {
    conn.execute(
        "INSERT INTO incarnations (number, uid, born_hlc) VALUES (1, ?1, 0)",
        [draw_id()],
    )?;
    conn.execute(
        "INSERT INTO node_state (id, db_uid, incarnation, seq, lsn, hlc) VALUES (1, ?1, 1, 0, 0, 0)",
        [draw_id()],
    )?;
    Ok(())
}
