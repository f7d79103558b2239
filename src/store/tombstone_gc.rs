//! Deletions that keep a table from forgetting others: one of the newest that not every replica knows.
//! Forgetting is `tx::replication::tombstone_gc`'s.

use cortex_core::{
    model::TableId,
    replication::{Dot, VersionVector},
};
use rusqlite::{Connection, params};

use super::{actors::Actors, error::StoreError};

/// Deletions that are looked at for one that is not confirmed: the newest are confirmed last.
const NEWEST: u32 = 512;

/// One of the newest deletions of a table that is not among those that every replica knows.
pub(super) fn unconfirmed(
    conn: &Connection,
    actors: &Actors,
    table: TableId,
    confirmed: &VersionVector,
) -> Result<Option<Dot>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT actor, seq FROM records
         WHERE table_id = ?1 AND value IS NULL ORDER BY hlc DESC LIMIT ?2",
    )?;
    let mut rows = statement.query(params![table.0, NEWEST])?;
    while let Some(row) = rows.next()? {
        let dot = Dot { actor: actors.id(row.get(0)?), seq: row.get(1)? };
        if !confirmed.covers(dot) {
            return Ok(Some(dot));
        }
    }
    Ok(None)
}
