//! After this machine's clock was ahead and is right again: what was written meanwhile, and what nobody else
//! has, gets timestamps of the present, so that it does not win against all that is written elsewhere.
//!
//! Only where no other machine has met a timestamp of the future may that be, and may the clock go back: the
//! hybrid clocks of all others are in the present by their own status, and nothing from the future is on its way.
//! A vector would not say it: rows of a transfer that was broken off are in none, nor are versions that were
//! written over since.
//!
//! Nobody waits for it. Where it may not be, since two machines were ahead together, or one does not answer, the
//! timestamps stay, and the others take them as they are after a while (`edge::peer::replication::future`): their
//! hybrid clocks go on from there, so that all that is written afterwards comes later still (Lamport's clock condition).
//! Rows of the directory keep their timestamps in any case: they say which of *one* writer's rows is the newer.

use cortex_core::{
    model::{Hlc, NodeName, Stamp, TableId, TableUid},
    replication::VersionVector,
};
use cortex_mutant::mutant;
use rusqlite::params;

use crate::store::{
    command::{ReplicationOutcome, Restamp},
    error::{CommandError, StoreError},
    events::Event,
    system,
    tx::{
        Tx,
        row_table::RowTable,
        versions::{self, Origin},
    },
};

/// A row of the future.
struct FutureRow {
    table: TableUid,
    stamp: Stamp,
    key: Vec<u8>,
}

/// Stamps rows of the future again: those too that this machine has written as another actor, before it
/// was started anew.
pub(crate) fn restamp(
    tx: &mut Tx<'_>,
    restamp: &Restamp,
) -> Result<ReplicationOutcome, CommandError> {
    let nothing = Ok(ReplicationOutcome::Restamped { rows: 0 });
    if tx.state.hlc() <= restamp.latest {
        return nothing;
    }
    let directory = tx.state.catalog.directory();
    let counts = |reader: &NodeName, table: TableUid| {
        directory.node(reader).is_some()
            && !directory.is_put_out(reader)
            && tx.state.replicas.get(table).is_some()
    };
    if may_be_met(tx.exposure.begin(counts), restamp.latest) {
        return nothing; // until all nodes it was sent to have reported whether they have taken it
    }
    let tables: Vec<(TableUid, TableId)> = {
        let replicas = tx.state.replicas.iter().filter(|replica| replica.uid != system::UID);
        replicas.filter_map(|replica| Some((replica.uid, replica.table?))).collect()
    };
    let mut ahead = Vec::new();
    for (uid, table) in tables {
        for (key, stamp) in rows_after(tx, table, restamp.latest)? {
            ahead.push(FutureRow { table: uid, stamp, key });
        }
    }
    tx.state.set_clock_back(newest_before(tx, restamp.latest)?);
    tx.changed = true;
    ahead.sort_by_key(|row| row.stamp);
    let rows = ahead.len() as u64;
    for row in ahead {
        stamp_again(tx, &row)?;
    }
    let text =
        format!("the clock is right again: {rows} rows were given timestamps of the present");
    tx.note(&Event { uid: None, kind: "clock_mended", text })?;
    Ok(ReplicationOutcome::Restamped { rows })
}

/// True where others may have met, or may yet take, a timestamp that is to be given anew.
#[mutant(HandedStays => false)]
fn may_be_met(exposed: Hlc, latest: Hlc) -> bool {
    exposed > latest
}

/// Rows of a table that are of the future.
fn rows_after(
    tx: &Tx<'_>,
    table: TableId,
    latest: Hlc,
) -> Result<Vec<(Vec<u8>, Stamp)>, StoreError> {
    let mut statement =
        tx.cached("SELECT key, hlc, actor FROM records WHERE table_id = ?1 AND hlc > ?2")?;
    let rows = statement.query_map(params![table.0, latest.to_i64()], |row| {
        let actor = tx.state.actors.id(row.get(2)?);
        Ok((row.get(0)?, Stamp { hlc: Hlc::from_i64(row.get(1)?), actor }))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The greatest timestamp in any replica that is not of the future.
fn newest_before(tx: &Tx<'_>, latest: Hlc) -> Result<Hlc, StoreError> {
    let newest: Option<i64> = tx
        .cached(
            "SELECT max(hlc) FROM records
             WHERE table_id IN (SELECT table_id FROM replicas) AND hlc <= ?1",
        )?
        .query_row([latest.to_i64()], |row| row.get(0))?;
    Ok(newest.map_or_else(Hlc::default, Hlc::from_i64))
}

fn stamp_again(tx: &mut Tx<'_>, row: &FutureRow) -> Result<(), CommandError> {
    let Some(entry) = tx.state.catalog.by_uid(row.table).cloned() else {
        return Ok(());
    };
    let found = versions::find(tx, entry.table.id, &row.key)?;
    let Some(found) = found.filter(|found| !found.damaged) else {
        return Ok(());
    };
    let mut context_id = found.context_id;
    if found.stamp.actor != tx.state.own_actor() {
        let mut seen = VersionVector::clone(&found.context);
        seen.raise(found.side().dot());
        context_id = tx.intern(&seen)?;
    }
    let (present, value) = (Some(found.present()), found.value.as_deref());
    let origin = Origin::Shared { context_id };
    versions::put_version(tx, RowTable::of(&entry), &row.key, present, value, origin)?;
    Ok(())
}
