//! What is left of dropped tables and of ended replica epochs: removed a little at a time.

use cortex_core::{
    directory::Standing,
    model::{TableId, Uid},
};
use rusqlite::{OptionalExtension, params};

use crate::store::{
    departure::Departure,
    error::{CommandError, StoreError},
    events::Event,
    tx::{Tx, directory::reconcile, entries, replication::tombstone_gc},
};

/// Rows of dropped tables removed in one transaction, and bytes of them from which it is enough: a
/// fraction of a millisecond, so that clients' writes in the same batch do not wait.
const PURGE_ROWS: u32 = 256;
const PURGE_BYTES: u64 = 256 << 10;

/// Removes some rows of a dropped table, and the table once it has none; publishes the end of the replicas of which
/// nothing is left. True where there is more to do.
pub(crate) fn purge(tx: &mut Tx<'_>) -> Result<bool, CommandError> {
    let published = publish_departures(tx)?;
    let dropped = tx
        .cached("SELECT id FROM tables WHERE dropped = 1 LIMIT 1")?
        .query_row([], |row| row.get::<_, i64>(0))
        .optional()?;
    let Some(table) = dropped else {
        return Ok(published || tx.state.departures.hurry);
    };
    let rows = some_rows_of(tx, table)?;
    for (row, context) in &rows {
        tx.execute("DELETE FROM records WHERE id = ?1", [row])?;
        tx.count_use(*context, -1);
    }
    if rows.is_empty() && !tombstone_gc::purge_change_log(tx, table)? {
        entries::remove_empty(tx, table)?;
        tx.damage.forget(TableId(table));
    }
    Ok(true)
}

/// As many rows of a table as are removed at once, with their contexts; none where it has none.
fn some_rows_of(tx: &Tx<'_>, table: i64) -> Result<Vec<(i64, Option<i64>)>, StoreError> {
    let mut statement =
        tx.cached("SELECT id, length(value), context FROM records WHERE table_id = ?1 LIMIT ?2")?;
    let mut found = statement.query(params![table, PURGE_ROWS])?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while bytes < PURGE_BYTES
        && let Some(row) = found.next()?
    {
        rows.push((row.get(0)?, row.get(2)?));
        bytes += u64::from(row.get::<_, Option<u32>>(1)?.unwrap_or(0));
    }
    Ok(rows)
}

/// Tells of the replica epochs of which no byte is left. True where there were some.
fn publish_departures(tx: &mut Tx<'_>) -> Result<bool, CommandError> {
    if tx.state.departures.note_swept() {
        tx.execute("UPDATE node_state SET swept = 1 WHERE id = 1", [])?;
    }
    let over = tx.state.departures.over();
    if over.is_empty() || tx.here().is_err() {
        return Ok(false); // without a mesh no node waits for it; once there is one again, it is published
    }
    for (table, departure) in &over {
        publish_departure(tx, *table, departure)?;
    }
    Ok(true)
}

fn publish_departure(
    tx: &mut Tx<'_>,
    table: i64,
    departure: &Departure,
) -> Result<(), CommandError> {
    let Departure { uid, epoch, .. } = departure;
    let (owner, name, taker): (Option<u32>, String, String) = tx
        .cached("SELECT owner, name, taker FROM departures WHERE table_id = ?1")?
        .query_row([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    tx.execute("DELETE FROM departures WHERE table_id = ?1", [table])?;
    tx.state.departures.end(table);
    let directory = tx.state.catalog.directory();
    if !directory.is_dropped(*uid) {
        let here = tx.here()?;
        let said = directory.replica(*uid, &here);
        let (up, down) = said.map_or((*epoch, *epoch), |row| (row.up, row.down.max(*epoch)));
        // One that was decided and taken back meanwhile is over with it.
        let is_here = tx.state.replicas.get(*uid).is_some_and(|replica| replica.epoch > 0);
        let is_out = directory.standing(*uid, &here) == Standing::Out;
        let forgotten = reconcile::forgotten_epoch(tx, *uid, &here).filter(|_| is_out && !is_here);
        let (up, down) = forgotten.map_or((up, down), |epoch| (up.max(epoch), down.max(epoch)));
        reconcile::publish_epochs(tx, *uid, &here, up.max(*epoch), down)?;
    }
    let has_it = if taker.is_empty() {
        "nothing of it had come".to_owned()
    } else {
        format!("{taker} has everything")
    };
    let text = format!("{name} has left this machine: {has_it}, and its bytes are overwritten");
    tx.note(&Event { uid: owner.map(Uid), kind: "table_left", text })?;
    Ok(())
}
