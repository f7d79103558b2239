//! What a table's rows come to, computed from the rows: its digest, its counts, its damage. What is kept beside the
//! rows, and grows with each write, is compared with that, and corrected.
//!
//! ```text
//!   Audit ──> a slice of rows in the writer's transaction ──> the next ──> ... ──> compared, corrected
//!                 writes of others, in between: a change to a row that was passed changes the sum as well
//! ```
//!
//! So no snapshot is held for longer than a slice, however large the table is, and the result is exact. When to
//! look, and how fast, is the service's.

use cortex_core::model::TableId;
use rusqlite::{Connection, params};

use super::{checksum::StoredRow, error::StoreError};

/// Rows of one slice, and bytes from which it is enough: a fraction of a millisecond of the writer's time.
pub(super) const SLICE_ROWS: u64 = 256;
pub(super) const SLICE_BYTES: u64 = 256 << 10;

/// The rows after a key.
pub(super) const SLICE: &str = "SELECT key, value, hlc, actor, seq, checksum, id FROM records
     WHERE table_id = ?1 AND key > ?2 ORDER BY key";

/// Reads what the next step of an audit will read, so that the writer finds it in memory. Answers the last key;
/// none at the end.
pub(super) fn read_ahead(
    conn: &Connection,
    table: TableId,
    after: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = conn.prepare_cached(SLICE)?;
    let mut found = statement.query(params![table.0, after])?;
    let (mut rows, mut bytes, mut last) = (0, 0, None);
    while bytes < SLICE_BYTES && rows < SLICE_ROWS {
        let Some(row) = found.next()? else { return Ok(None) };
        let (StoredRow { key, value, .. }, _checksum) = StoredRow::read(table, row)?;
        // Once through the whole value: a large one is on pages of its own.
        let read = value.unwrap_or_default().iter().fold(0_u8, |sum, byte| sum ^ byte);
        (rows, bytes) = (rows + 1, bytes + (key.len() + value.map_or(0, <[u8]>::len)) as u64);
        std::hint::black_box(read);
        last = Some(key.to_vec());
    }
    Ok(last)
}
