//! What a node holds of a table, read from its database file: that works on a stopped node, and needs no right.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::check::status::Rows;
use crate::tables::read;

fn open(database: &Path) -> Option<Connection> {
    let connection =
        Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    connection.busy_timeout(Duration::from_secs(5)).ok()?;
    Some(connection)
}

/// The lasting id of the table of that name.
pub(crate) fn table_uid(database: &Path, name: &str) -> Option<Vec<u8>> {
    let query = "SELECT uid FROM tables WHERE name = ?1 AND dropped = 0";
    open(database)?.query_row(query, [name], |row| row.get(0)).optional().ok()?
}

/// The rows of a table; none where it has none of it, or cannot be read.
pub(crate) fn rows(database: &Path, uid: &[u8]) -> Option<Rows> {
    let connection = open(database)?;
    let id: i64 = connection
        .query_row("SELECT id FROM tables WHERE uid = ?1 AND dropped = 0", [uid], |row| row.get(0))
        .optional()
        .ok()??;
    let query = "SELECT key, value FROM records WHERE table_id = ?1 AND value IS NOT NULL";
    let mut statement = connection.prepare(query).ok()?;
    let each = |row: &rusqlite::Row<'_>| {
        let (key, value): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let version = rmpv::decode::read_value(&mut value.as_slice()).ok();
        let version = version.as_ref().and_then(read).map(|(_, version)| version);
        let key = String::from_utf8_lossy(&key).into_owned();
        Ok((key, Some(version.unwrap_or_else(|| format!("unreadable: {value:02x?}")))))
    };
    let rows = statement.query_map([id], each).ok()?;
    rows.collect::<Result<_, _>>().ok()
}
