//! Comparing two replicas of a table that should be equal: digests of buckets of keys, then the keys of those
//! that differ. What is done about a difference is for the service to say.

use cortex_core::{
    api::{BUCKETS, RowMark},
    model::{Hlc, Stamp, TableId},
    replication::TableDigest,
};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{actors::Actors, checksum::StoredRow, error::StoreError, handle::Store, system};

/// The bucket of a key, the same on every machine.
#[must_use]
pub fn bucket_of(key: &[u8]) -> usize {
    let hash = Sha256::digest(key);
    (usize::from(hash[0]) << 8 | usize::from(hash[1])) % BUCKETS
}

/// A digest of the live rows of each bucket. The table's lasting id is no part of it: both sides mean the
/// same table.
pub(super) fn buckets(
    conn: &Connection,
    actors: &Actors,
    table: TableId,
) -> Result<Vec<TableDigest>, StoreError> {
    let mut sums = vec![TableDigest::default(); BUCKETS];
    visit(conn, actors, table, |key, stamp, _, value| {
        if let Some(value) = value {
            let leaf = TableDigest::of_row(system::UID, key, stamp, value);
            let bucket = bucket_of(key);
            sums[bucket] = sums[bucket].plus(leaf);
        }
    })?;
    Ok(sums)
}

/// The rows of some buckets, deletions that are remembered among them, in the order of their keys.
pub(super) fn marks(
    conn: &Connection,
    actors: &Actors,
    table: TableId,
    wanted: &[usize],
) -> Result<Vec<RowMark>, StoreError> {
    let mut is_wanted = vec![false; BUCKETS];
    wanted.iter().filter(|bucket| **bucket < BUCKETS).for_each(|bucket| is_wanted[*bucket] = true);
    let mut found = Vec::new();
    visit(conn, actors, table, |key, stamp, seq, value| {
        if is_wanted[bucket_of(key)] {
            let value = value.map(|value| Sha256::digest(value).into());
            found.push(RowMark { key: key.to_vec(), stamp, seq, value });
        }
    })?;
    Ok(found)
}

/// One row.
pub(super) fn mark(
    conn: &Connection,
    actors: &Actors,
    table: TableId,
    key: &[u8],
) -> Result<Option<RowMark>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT hlc, actor, seq, value FROM records WHERE table_id = ?1 AND key = ?2",
    )?;
    let found = statement.query_row(params![table.0, key], |row| {
        let value: Option<Vec<u8>> = row.get(3)?;
        Ok(RowMark {
            key: key.to_vec(),
            stamp: Stamp { hlc: Hlc::from_i64(row.get(0)?), actor: actors.id(row.get(1)?) },
            seq: row.get(2)?,
            value: value.map(|value| Sha256::digest(value).into()),
        })
    });
    Ok(found.optional()?)
}

fn visit(
    conn: &Connection,
    actors: &Actors,
    table: TableId,
    mut each: impl FnMut(&[u8], Stamp, u64, Option<&[u8]>),
) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT key, value, hlc, actor, seq, checksum FROM records
         WHERE table_id = ?1 ORDER BY key",
    )?;
    let mut rows = statement.query(params![table.0])?;
    while let Some(row) = rows.next()? {
        let (stored, checksum) = StoredRow::read(table, row)?;
        // To others a damaged row is one that is not there: they shall bring theirs.
        if !stored.is_sound(checksum) {
            continue;
        }
        each(stored.key, stored.stamp(actors), stored.seq, stored.value);
    }
    Ok(())
}

impl Store {
    /// The version of one row, a deletion that is remembered among them.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn mark(&self, table: TableId, key: &[u8]) -> Result<Option<RowMark>, StoreError> {
        self.read(|conn, actors| mark(conn, actors, table, key))
    }

    /// A digest of each bucket of a table's live rows. Reads all of them.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn buckets(&self, table: TableId) -> Result<Vec<TableDigest>, StoreError> {
        self.read(|conn, actors| buckets(conn, actors, table))
    }

    /// The rows of some buckets, deletions that are remembered among them.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn marks(&self, table: TableId, buckets: &[usize]) -> Result<Vec<RowMark>, StoreError> {
        self.read(|conn, actors| marks(conn, actors, table, buckets))
    }
}
