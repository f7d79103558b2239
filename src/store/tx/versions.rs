//! Versions of rows: found, put in the place of others, removed. Local writes and peers' rows end here alike; which
//! version stays was decided before.

use std::{cmp::Ordering, sync::Arc};

use cortex_core::{
    merge::Delta,
    model::{Hlc, Stamp, TableId, TableUid},
    replication::{Dot, Side, TableDigest, VersionVector},
    rule::Rule,
};
use rusqlite::{OptionalExtension, params};

use crate::store::{
    checksum::StoredRow,
    error::{CommandError, StoreError},
    recent::Change,
    tx::{
        Tx, admission,
        audits::{self, DigestChange},
        place::Place,
    },
};

/// A row as it stands in the file.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: i64,
    pub(crate) stamp: Stamp,
    pub(crate) seq: u64,
    pub(crate) lsn: u64,
    pub(crate) context_id: Option<i64>,
    pub(crate) context: Arc<VersionVector>,
    pub(crate) value: Option<Vec<u8>>,
    /// True where it is not what was stored. Nothing that it says may be believed, or passed on.
    pub(crate) damaged: bool,
}

impl Found {
    pub(crate) fn side(&self) -> Side<'_> {
        Side { stamp: self.stamp, seq: self.seq, context: &self.context }
    }

    pub(crate) fn differs(&self, value: Option<&[u8]>) -> bool {
        self.compared_to(value) != Ordering::Equal
    }

    /// How the value of another version compares to this one's. A deletion is the least.
    pub(crate) fn compared_to(&self, value: Option<&[u8]>) -> Ordering {
        value.cmp(&self.value.as_deref())
    }
}

/// A version to be stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'v> {
    pub(crate) stamp: Stamp,
    pub(crate) actor_number: i64,
    pub(crate) seq: u64,
    pub(crate) value: Option<&'v [u8]>,
    pub(crate) context_id: Option<i64>,
}

/// The row of a key.
pub(crate) fn find(tx: &Tx<'_>, table: TableId, key: &[u8]) -> Result<Option<Found>, StoreError> {
    let mut statement = tx.cached(
        "SELECT id, hlc, actor, seq, lsn, context, value, checksum FROM records
         WHERE table_id = ?1 AND key = ?2",
    )?;
    let found = statement.query_row(params![table.0, key], |row| {
        let actor = tx.state.actors.id(row.get(2)?);
        let stored = StoredRow {
            table,
            key,
            hlc: row.get(1)?,
            actor_number: row.get(2)?,
            seq: row.get(3)?,
            value: row.get_ref(6)?.as_blob_or_null()?,
        };
        Ok(Found {
            damaged: !stored.is_sound(row.get(7)?),
            id: row.get(0)?,
            stamp: Stamp { hlc: Hlc::from_i64(row.get(1)?), actor },
            seq: row.get(3)?,
            lsn: row.get(4)?,
            context_id: row.get(5)?,
            context: Arc::default(),
            value: row.get(6)?,
        })
    });
    let Some(mut found) = found.optional()? else {
        return Ok(None);
    };
    if found.damaged {
        tx.damage.found(table, key);
    }
    found.context = tx.contexts.get(tx.conn, &tx.state.actors, found.context_id)?;
    Ok(Some(found))
}

/// What a writer here has seen of a row: all that its table has incorporated, and what was seen by
/// those who wrote the row before. The write says for itself that it follows this actor's others.
pub(crate) fn context_here(
    tx: &mut Tx<'_>,
    place: Place<'_>,
    found: Option<&Found>,
) -> Result<Option<i64>, StoreError> {
    let own = tx.state.own_actor();
    let replica = tx.state.replicas.get(place.uid);
    let replica = replica.filter(|_| Rule::ContextOfVector.holds());
    let mut seen = replica.map(|replica| replica.vector.without(own)).unwrap_or_default();
    if let Some(found) = found.filter(|found| !found.damaged) {
        seen.join(&found.context.without(own));
        if found.stamp.actor != own {
            seen.raise(Dot { actor: found.stamp.actor, seq: found.seq });
        }
    }
    if let Some((_, id)) = tx.newest_context.as_ref().filter(|(known, _)| *known == seen) {
        return Ok(*id);
    }
    let id = tx.intern(&seen)?;
    tx.newest_context = Some((seen, id));
    Ok(id)
}

/// Puts a version that is made here and now in the place of what is there, if anything is.
pub(crate) fn put_here(
    tx: &mut Tx<'_>,
    place: Place<'_>,
    key: &[u8],
    found: Option<&Found>,
    value: Option<&[u8]>,
    context_id: Option<i64>,
) -> Result<(), CommandError> {
    let (stamp, seq) = tx.draw();
    let new = Stored { stamp, actor_number: tx.state.actor_number, seq, value, context_id };
    put(tx, place, key, found, new)?;
    if let Some(replica) = tx.state.replicas.get_mut(place.uid) {
        replica.vector.raise(Dot { actor: stamp.actor, seq });
    }
    Ok(())
}

/// Puts a version in the place of what is there, if anything is, and tells the change log. Answers the
/// LSN.
pub(crate) fn put(
    tx: &mut Tx<'_>,
    place: Place<'_>,
    key: &[u8],
    found: Option<&Found>,
    new: Stored<'_>,
) -> Result<u64, CommandError> {
    let delta = difference(key, found, new.value);
    if let Some(entry) = place.entry {
        admission::check_quota(tx, entry, delta)?;
        tx.totals.add(entry, delta);
    }
    let lsn = tx.draw_lsn();
    let Stored { stamp, actor_number, seq, value, context_id } = new;
    let hlc = stamp.hlc.to_i64();
    let stored = StoredRow { table: place.id, key, hlc, actor_number, seq, value };
    let checksum = stored.checksum();
    let record = match found {
        Some(found) => {
            tx.execute(
                "UPDATE records SET value = ?2, hlc = ?3, actor = ?4, seq = ?5, lsn = ?6,
                 context = ?7, re_announced = 0, checksum = ?8 WHERE id = ?1",
                params![found.id, value, hlc, actor_number, seq, lsn, context_id, checksum],
            )?;
            found.id
        }
        None => {
            tx.execute(
                "INSERT INTO records
                 (table_id, key, value, hlc, actor, seq, lsn, context, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![place.id.0, key, value, hlc, actor_number, seq, lsn, context_id, checksum],
            )?;
            tx.conn.last_insert_rowid()
        }
    };
    if append_change_log(tx, place, record, lsn)? {
        remember(tx, place.uid, key, lsn, new)?;
    }
    tx.count_use(found.and_then(|found| found.context_id), -1);
    tx.count_use(context_id, 1);
    account(tx, place, key, delta, found, Some((stamp, value)));
    if found.is_some_and(|found| found.damaged) {
        tx.damage.gone(place.id, key);
    }
    tx.touched.push(tx.cache.bucket(place.id, key));
    Ok(lsn)
}

/// Takes a row away without a trace.
pub(crate) fn remove(
    tx: &mut Tx<'_>,
    place: Place<'_>,
    key: &[u8],
    found: &Found,
) -> Result<(), CommandError> {
    tx.execute("DELETE FROM records WHERE id = ?1", [found.id])?;
    tx.fresh.give_up();
    let delta = difference(key, Some(found), None);
    if let Some(entry) = place.entry {
        tx.totals.add(entry, delta);
    }
    tx.count_use(found.context_id, -1);
    account(tx, place, key, delta, Some(found), None);
    tx.damage.gone(place.id, key);
    tx.touched.push(tx.cache.bucket(place.id, key));
    Ok(())
}

/// Keeps the version that is there with what its writers have seen together.
pub(crate) fn put_context(
    tx: &mut Tx<'_>,
    found: &Found,
    context: &VersionVector,
) -> Result<(), StoreError> {
    let id = tx.intern(context)?;
    tx.execute("UPDATE records SET context = ?2 WHERE id = ?1", params![found.id, id])?;
    tx.fresh.give_up();
    tx.count_use(found.context_id, -1);
    tx.count_use(id, 1);
    Ok(())
}

/// Has a version told to everybody again, those too that claim to have it.
pub(crate) fn re_announce(
    tx: &mut Tx<'_>,
    place: Place<'_>,
    found: &Found,
) -> Result<u64, StoreError> {
    let lsn = tx.draw_lsn();
    tx.execute(
        "UPDATE records SET lsn = ?2, re_announced = 1 WHERE id = ?1",
        params![found.id, lsn],
    )?;
    tx.execute(
        "UPDATE marks SET lsn = ?3 WHERE table_id = ?1 AND lsn = ?2",
        params![place.id.0, found.lsn, lsn],
    )?;
    append_change_log(tx, place, found.id, lsn)?;
    tx.fresh.give_up();
    Ok(lsn)
}

/// True where there is a change log that others follow.
fn append_change_log(
    tx: &mut Tx<'_>,
    place: Place<'_>,
    record: i64,
    lsn: u64,
) -> Result<bool, StoreError> {
    let Some(replica) = tx.state.replicas.get_mut(place.uid) else {
        return Ok(false);
    };
    replica.last_lsn = lsn;
    if !replica.ready {
        // Nobody follows the change log of a replica that fills: whoever reads it reads it by its keys.
        replica.truncated_lsn = lsn;
        return Ok(false);
    }
    tx.execute(
        "INSERT INTO change_log (table_id, lsn, record) VALUES (?1, ?2, ?3)",
        params![place.id.0, lsn, record],
    )?;
    Ok(true)
}

/// Keeps a change in memory for those who follow, where there is room for it.
fn remember(
    tx: &mut Tx<'_>,
    table: TableUid,
    key: &[u8],
    lsn: u64,
    new: Stored<'_>,
) -> Result<(), StoreError> {
    if !tx.fresh.takes(key.len() + new.value.map_or(0, <[u8]>::len)) {
        tx.fresh.give_up();
        return Ok(());
    }
    let context = tx.contexts.get(tx.conn, &tx.state.actors, new.context_id)?;
    tx.fresh.add(Change {
        table,
        lsn,
        key: key.to_vec(),
        value: new.value.map(<[u8]>::to_vec),
        stamp: new.stamp,
        seq: new.seq,
        context,
    });
    Ok(())
}

/// Keeps the digest and the number of deletions.
fn account(
    tx: &mut Tx<'_>,
    place: Place<'_>,
    key: &[u8],
    delta: Delta,
    before: Option<&Found>,
    after: Option<(Stamp, Option<&[u8]>)>,
) {
    let leaf = |(stamp, value): (Stamp, Option<&[u8]>)| {
        value.map(|value| TableDigest::of_row(place.uid, key, stamp, value))
    };
    // A damaged row is no part of the digest: what it was before is not known.
    let before = before.filter(|found| !found.damaged);
    let before = before.map(|found| (found.stamp, found.value.as_deref()));
    let tombstones = |version: Option<(Stamp, Option<&[u8]>)>| {
        i64::from(version.is_some_and(|(_, value)| value.is_none()))
    };
    let change = DigestChange {
        minus: before.and_then(leaf),
        plus: after.and_then(leaf),
        tombstones: tombstones(after) - tombstones(before),
    };
    if let Some(replica) = tx.state.replicas.get_mut(place.uid) {
        (replica.digest, replica.tombstones) = change.applied(replica.digest, replica.tombstones);
    }
    audits::note_change(tx, place.id, key, delta, change);
}

/// How the totals of a table change.
pub(crate) fn difference(key: &[u8], found: Option<&Found>, value: Option<&[u8]>) -> Delta {
    let totals = |value: Option<&[u8]>| {
        let bytes = value.map(|value| key.len() + value.len());
        let bytes = i64::try_from(bytes.unwrap_or(0)).unwrap_or(i64::MAX);
        Delta { records: value.is_some().into(), bytes }
    };
    let before = found.and_then(|found| found.value.as_deref());
    totals(value).plus(totals(before).negated())
}
