//! Where this machine's replicas stand in those of other nodes.

use cortex_core::{
    model::{NodeName, TableId},
    replication::{ChangeLogId, Cursor, Position, SnapshotKind, SnapshotStart, SnapshotTransfer},
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::store::{actors::Actors, contexts, error::StoreError, tx::Tx};

/// Where a replica stands in another one, with what is kept of the snapshot transfer that is under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct CursorState {
    pub(crate) position: Position,
    pub(crate) start: SnapshotStart,
}

impl CursorState {
    pub(crate) fn number(&self) -> u64 {
        self.position.snapshot.as_ref().map_or(0, |snapshot| snapshot.number)
    }
}

/// Where this replica stands in another one, as the file says.
pub(crate) fn load_cursor(
    conn: &Connection,
    actors: &Actors,
    table: TableId,
    peer: &NodeName,
) -> Result<CursorState, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT change_log, lsn, snapshot, whole, reached, vector, gc_watermark FROM cursors
         WHERE table_id = ?1 AND peer = ?2",
    )?;
    let stand = statement.query_row(params![table.0, peer.as_str()], |row| {
        let cursor = Some(Cursor { change_log: ChangeLogId(row.get(0)?), lsn: row.get(1)? });
        let Some(number) = row.get::<_, Option<u64>>(2)? else {
            return Ok(CursorState {
                position: Position { cursor, snapshot: None },
                start: SnapshotStart::default(),
            });
        };
        let kind = if row.get(3)? { SnapshotKind::Full } else { SnapshotKind::Scan };
        let snapshot = Some(SnapshotTransfer { kind, number, after: row.get(4)? });
        let vector = |index| row.get::<_, Vec<u8>>(index).map(|b| contexts::decode(actors, &b));
        let start = SnapshotStart { vector: vector(5)?, gc_watermark: vector(6)? };
        Ok(CursorState { position: Position { cursor, snapshot }, start })
    });
    Ok(stand.optional()?.unwrap_or_default())
}

/// Where this replica stands in another one.
pub(crate) fn cursor(
    tx: &Tx<'_>,
    table: TableId,
    peer: &NodeName,
) -> Result<CursorState, StoreError> {
    load_cursor(tx.conn, &tx.state.actors, table, peer)
}

pub(crate) fn put_cursor(
    tx: &mut Tx<'_>,
    table: TableId,
    peer: &NodeName,
    position: &Position,
    start: &SnapshotStart,
) -> Result<(), StoreError> {
    let Some(Cursor { change_log, lsn }) = position.cursor else {
        return Ok(());
    };
    let (mut vector, mut gc_watermark) = (None, None);
    if position.snapshot.is_some() {
        vector = Some(contexts::encode(tx.conn, &mut tx.state.actors, &start.vector)?);
        gc_watermark = Some(contexts::encode(tx.conn, &mut tx.state.actors, &start.gc_watermark)?);
    }
    let snapshot = position.snapshot.as_ref();
    tx.execute(
        "INSERT OR REPLACE INTO cursors (table_id, peer, change_log, lsn, snapshot, whole, reached, vector, gc_watermark)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            table.0,
            peer.as_str(),
            change_log.0,
            lsn,
            snapshot.map(|snapshot| snapshot.number),
            snapshot.map(|snapshot| snapshot.kind == SnapshotKind::Full),
            snapshot.map(|snapshot| &snapshot.after),
            vector,
            gc_watermark
        ],
    )?;
    Ok(())
}
