//! The ledger of conflicts as transactions write it: losing versions kept, bounded and acknowledged.
//! Reading it is `store::conflicts`'.

use cortex_core::{
    model::{Hlc, TableId, TableUid},
    replication::{Dot, OpenConflicts, VersionVector},
};
use rusqlite::{OptionalExtension, params};

use crate::store::{
    conflicts::ConflictCounts,
    error::{CommandError, StoreError},
    tx::{Tx, row_table::RowTable},
};

/// Conflicts kept of one table, and bytes of them. The oldest acknowledged ones give way, then the
/// oldest.
const KEPT: u64 = 1000;
const KEPT_BYTES: u64 = 16 << 20;

/// How long a conflict is kept.
const KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// A version that has lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LosingVersion<'v> {
    pub(crate) hlc: Hlc,
    pub(crate) dot: Dot,
    pub(crate) value: Option<&'v [u8]>,
}

/// Writes a conflict down, and makes room for it.
pub(crate) fn keep(
    tx: &mut Tx<'_>,
    place: RowTable<'_>,
    key: &[u8],
    losing: &LosingVersion<'_>,
    winner: (Hlc, Dot),
) -> Result<(), CommandError> {
    let actor_number = tx.state.actors.enter(tx.conn, losing.dot.actor, losing.hlc)?;
    let winning = tx.state.actors.enter(tx.conn, winner.1.actor, winner.0)?;
    let bytes = key.len() + losing.value.map_or(0, <[u8]>::len);
    let met = tx
        .cached(
            "INSERT OR IGNORE INTO conflicts
             (table_id, key, value, hlc, actor, seq, bytes,
              winner_hlc, winner_actor, winner_seq, seen_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            place.id.0,
            key,
            losing.value,
            losing.hlc.to_i64(),
            actor_number,
            losing.dot.seq,
            bytes,
            winner.0.to_i64(),
            winning,
            winner.1.seq,
            tx.wall_ms
        ])? as u64;
    let evicted = make_room(tx, place.id)?;
    count(tx, place.uid, met, evicted);
    if let Some(replica) = tx.state.replicas.get_mut(place.uid) {
        replica.conflicts_evicted += evicted;
    }
    Ok(())
}

/// Counts conflicts that have come, and others that nobody has to take note of any more.
fn count(tx: &mut Tx<'_>, table: TableUid, more: u64, less: u64) {
    if more == 0 && less == 0 {
        return;
    }
    let since = tx.draw_stamp().hlc;
    if let Some(replica) = tx.state.replicas.get_mut(table) {
        let ConflictCounts { open, met } = replica.conflicts;
        let count = (open.count + more).saturating_sub(less);
        replica.conflicts =
            ConflictCounts { open: OpenConflicts { since, count }, met: met + more };
    }
}

/// Removes what is over the bounds. Answers how many that nobody had taken note of.
fn make_room(tx: &Tx<'_>, table: TableId) -> Result<u64, StoreError> {
    let oldest_ms = tx.wall_ms.saturating_sub(KEPT_MS);
    let mut evicted = tx
        .cached("DELETE FROM conflicts WHERE table_id = ?1 AND seen_ms < ?2 AND acknowledged = 0")?
        .execute(params![table.0, oldest_ms])? as u64;
    tx.execute(
        "DELETE FROM conflicts WHERE table_id = ?1 AND seen_ms < ?2",
        params![table.0, oldest_ms],
    )?;
    loop {
        let (count, bytes): (u64, u64) = tx
            .cached("SELECT count(*), ifnull(sum(bytes), 0) FROM conflicts WHERE table_id = ?1")?
            .query_row([table.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if count <= KEPT && (bytes <= KEPT_BYTES || count <= 1) {
            return Ok(evicted);
        }
        let gone = tx
            .cached(
                "DELETE FROM conflicts WHERE id = (SELECT id FROM conflicts WHERE table_id = ?1
                 ORDER BY acknowledged DESC, id LIMIT 1) RETURNING acknowledged",
            )?
            .query_row([table.0], |row| row.get::<_, bool>(0))
            .optional()?;
        evicted += u64::from(gone == Some(false));
    }
}

/// Takes note of conflicts of a row whose losing version was written once more by somebody who had seen it: it was
/// restored, on whichever machine.
pub(crate) fn acknowledge_restored(
    tx: &mut Tx<'_>,
    place: RowTable<'_>,
    key: &[u8],
    value: Option<&[u8]>,
    writer: Dot,
    context: &VersionVector,
) -> Result<(), StoreError> {
    let open = tx.state.replicas.get(place.uid).map_or(0, |replica| replica.conflicts.open.count);
    if open == 0 {
        return Ok(());
    }
    let found: Vec<(i64, Dot)> = {
        let mut statement = tx.cached(
            "SELECT id, actor, seq FROM conflicts
             WHERE table_id = ?1 AND key = ?2 AND value IS ?3 AND acknowledged = 0",
        )?;
        let rows = statement.query_map(params![place.id.0, key, value], |row| {
            let actor = tx.state.actors.id(row.get(1)?);
            Ok((row.get(0)?, Dot { actor, seq: row.get(2)? }))
        })?;
        rows.collect::<Result<_, _>>()?
    };
    let had_seen =
        |dot: Dot| context.covers(dot) || (dot.actor == writer.actor && dot.seq < writer.seq);
    for (id, losing) in found {
        if had_seen(losing) {
            acknowledge(tx, (place.id, place.uid), Some(id))?;
        }
    }
    Ok(())
}

/// Takes note of conflicts of a table: of one, or of all. Answers of how many.
pub(crate) fn acknowledge(
    tx: &mut Tx<'_>,
    table: (TableId, TableUid),
    id: Option<i64>,
) -> Result<u64, StoreError> {
    let noted = tx
        .cached(
            "UPDATE conflicts SET acknowledged = 1
             WHERE table_id = ?1 AND (?2 IS NULL OR id = ?2) AND acknowledged = 0",
        )?
        .execute(params![table.0.0, id])? as u64;
    count(tx, table.1, 0, noted);
    Ok(noted)
}
