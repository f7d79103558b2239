//! What replicas need not keep: deletions that every replica knows, the beginning of the change log, and rows of
//! tables that are gone. Removed a little at a time; a transaction over millions holds up every write.

use cortex_core::{
    model::{TableId, TableUid},
    replication::Dot,
};
use cortex_mutant::mutant;
use rusqlite::params;

use crate::store::{
    command::{Collection, ReplicationOutcome},
    error::{CommandError, StoreError},
    read_batch,
    replica::Replica,
    tx::{Tx, row_table::RowTable, versions},
};

/// Deletions looked at in one transaction, and entries of the change log removed.
const SLICE: u32 = 512;

/// Forgets some deletions. Answers from where to go on, where there may be more.
pub(crate) fn collect(
    tx: &mut Tx<'_>,
    collection: &Collection,
) -> Result<ReplicationOutcome, CommandError> {
    let nothing = Ok(ReplicationOutcome::Collected { next: None });
    let Some(replica) = tx.state.replicas.get(collection.table) else {
        return nothing;
    };
    let Some(table) = replica.table.filter(|_| replica.ready) else {
        return nothing;
    };
    let Some(entry) = tx.state.catalog.by_uid(collection.table).cloned() else {
        return nothing;
    };
    if must_wait(tx, table)? {
        return nothing;
    }
    let vector = replica.vector.clone();
    let before = cortex_core::model::Hlc::from_unix_ms(collection.before_ms).to_i64();
    let (mut last, mut seen) = (collection.after, 0);
    let found: Vec<(Vec<u8>, i64, Dot)> = {
        let mut statement = tx.cached(
            "SELECT key, hlc, actor, seq FROM records
             WHERE table_id = ?1 AND value IS NULL AND hlc > ?2 AND hlc < ?3 ORDER BY hlc LIMIT ?4",
        )?;
        let rows =
            statement.query_map(params![table.0, collection.after, before, SLICE], |row| {
                let actor = tx.state.actors.id(row.get(2)?);
                Ok((row.get(0)?, row.get(1)?, Dot { actor, seq: row.get(3)? }))
            })?;
        rows.collect::<Result<_, _>>()?
    };
    for (key, hlc, dot) in found {
        (last, seen) = (hlc, seen + 1);
        if !collection.confirmed.covers(dot) || !vector.covers(dot) {
            continue;
        }
        if let Some(row) = versions::find(tx, table, &key)?.filter(|row| !row.damaged) {
            versions::remove_version(tx, RowTable::of(&entry), &key, &row)?;
            if let Some(replica) = tx.state.replicas.get_mut(collection.table) {
                raise_watermark(replica, dot);
            }
        }
    }
    Ok(ReplicationOutcome::Collected { next: (seen == SLICE).then_some(last) })
}

/// A snapshot transfer that sweeps relies on deletions that were known when it began.
#[mutant(SnapshotBeforeGc => Ok(false))]
fn must_wait(tx: &Tx<'_>, table: TableId) -> Result<bool, StoreError> {
    read_batch::is_in_full_snapshot(tx.conn, table)
}

/// Whoever has not incorporated the deletion cannot learn of it by the change log any more.
#[mutant(GcRaisesWatermark => ())]
fn raise_watermark(replica: &mut Replica, collected: Dot) {
    replica.gc_watermark.raise(collected);
}

/// Cuts the change log of a table up to a number. Answers whether there is more to remove.
pub(crate) fn truncate_change_log(
    tx: &mut Tx<'_>,
    table: TableUid,
    upto: u64,
) -> Result<ReplicationOutcome, CommandError> {
    let Some(replica) = tx.state.replicas.get_mut(table) else {
        return Ok(ReplicationOutcome::Truncated { more: false });
    };
    let Some(id) = replica.table else {
        return Ok(ReplicationOutcome::Truncated { more: false });
    };
    let upto = upto.min(replica.last_lsn);
    replica.truncated_lsn = upto.max(replica.truncated_lsn);
    let removed = tx
        .cached(
            "DELETE FROM change_log WHERE table_id = ?1 AND lsn IN
             (SELECT lsn FROM change_log WHERE table_id = ?1 AND lsn <= ?2 ORDER BY lsn LIMIT ?3)",
        )?
        .execute(params![id.0, upto, SLICE])?;
    Ok(ReplicationOutcome::Truncated { more: removed as u64 == u64::from(SLICE) })
}

/// Removes entries of the change log of a table that is gone. True where there were some.
pub(crate) fn purge_change_log(tx: &Tx<'_>, table: i64) -> Result<bool, StoreError> {
    let removed = tx
        .cached(
            "DELETE FROM change_log WHERE table_id = ?1 AND lsn IN
             (SELECT lsn FROM change_log WHERE table_id = ?1 LIMIT ?2)",
        )?
        .execute(params![table, SLICE])?;
    Ok(removed > 0)
}
