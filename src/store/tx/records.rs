//! Records that clients store and delete, and repairs of rows.

use cortex_core::{
    merge::{self, Change, Content, Delta, Version},
    model::{Caller, Hlc, Permissions, Stamp, TableId},
    replication::Dot,
};
use rusqlite::{OptionalExtension, params};

use crate::store::{
    catalog::Entry,
    checksum::StoredRow,
    command::Outcome,
    error::{CommandError, StoreError},
    tx::{
        Tx, admission,
        audits::{self, DigestChange},
        place::Place,
        versions,
    },
};

/// A row as it stands in the file, without its value.
#[derive(Clone, Copy, Debug)]
struct Present {
    id: i64,
    version: Version,
}

/// A version of a row on its way in.
#[derive(Clone, Copy, Debug)]
struct Arriving<'v> {
    version: Version,
    /// The short number of the actor that made it.
    actor_number: i64,
    /// Its number among the writes of that actor.
    seq: u64,
    value: Option<&'v [u8]>,
}

pub(crate) fn put(
    tx: &mut Tx<'_>,
    caller: &Caller,
    entry: &Entry,
    key: &[u8],
    record: &[u8],
) -> Result<Outcome, CommandError> {
    let entry = admission::admit(tx, caller, entry, Permissions::WRITE)?;
    entry.takes_writes()?;
    let bytes = (key.len() + record.len()) as u64;
    write_here(tx, &entry, key, Content::Live { bytes }, Some(record))?;
    Ok(Outcome::Stored)
}

pub(crate) fn delete(
    tx: &mut Tx<'_>,
    caller: &Caller,
    entry: &Entry,
    key: &[u8],
) -> Result<Outcome, CommandError> {
    let entry = admission::admit(tx, caller, entry, Permissions::WRITE)?;
    entry.takes_writes()?;
    write_here(tx, &entry, key, Content::Deleted, None)?;
    Ok(Outcome::Deleted)
}

/// A version made here and now. One that comes to nothing has drawn no number, and needs no
/// commit.
fn write_here(
    tx: &mut Tx<'_>,
    entry: &Entry,
    key: &[u8],
    content: Content,
    value: Option<&[u8]>,
) -> Result<(), CommandError> {
    if entry.replicated {
        return write_shared(tx, entry, key, value);
    }
    let (clock, seq, changed) = (tx.state.clock, tx.state.seq, tx.changed);
    let present = find(tx, entry.table.id, key)?;
    let mut arriving = local(tx, content, value);
    if let Some(present) = present {
        // A clock that was ahead may have left it there. The write still comes after it.
        let after = present.version.stamp.hlc.next();
        arriving.version.stamp.hlc = after.max(arriving.version.stamp.hlc);
    }
    let outcome = merge(tx, entry, key, present, arriving);
    if !matches!(outcome, Ok(Change::Store | Change::Tombstone | Change::Erase)) {
        (tx.state.clock, tx.state.seq, tx.changed) = (clock, seq, changed);
    }
    outcome.map(|_change| ())
}

/// The same in a table of which there may be other copies: they will be told.
fn write_shared(
    tx: &mut Tx<'_>,
    entry: &Entry,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), CommandError> {
    let place = Place::of(entry);
    let found = versions::find(tx, place.id, key)?;
    if found.is_none() && value.is_none() && !may_come(tx, entry) {
        return Ok(()); // there is nothing to delete, and nobody who could have it
    }
    admission::check_quota(tx, entry, versions::difference(key, found.as_ref(), value))?;
    let context_id = versions::context_here(tx, place, found.as_ref())?;
    if let Some(found) = &found {
        // A table that was local while the clock was ahead may hold it, after the clock was set back.
        tx.state.clock.observe(found.stamp.hlc);
    }
    versions::put_here(tx, place, key, found.as_ref(), value, context_id)
}

/// True where another copy may have a row that is not here.
fn may_come(tx: &Tx<'_>, entry: &Entry) -> bool {
    let directory = tx.state.catalog.directory();
    directory.here().is_some_and(|here| {
        let others = directory.must_confirm(entry.table.uid);
        others.keys().any(|node| node != here)
    })
}

/// The entry point of rows that have no copies: lets the merge rule decide, and stores what it decided.
fn merge(
    tx: &mut Tx<'_>,
    entry: &Entry,
    key: &[u8],
    present: Option<Present>,
    arriving: Arriving<'_>,
) -> Result<Change, CommandError> {
    let version = present.map(|present| present.version);
    let change = merge::decide(version, arriving.version, false);
    let delta = Delta::of(version, arriving.version, change);
    admission::check_quota(tx, entry, delta)?;
    store(tx, entry.table.id, key, present, arriving, change)?;
    tx.totals.add(entry, delta);
    audits::note_change(tx, entry.table.id, key, delta, DigestChange::default());
    tx.touched.push(tx.cache.bucket(entry.table.id, key));
    Ok(change)
}

fn store(
    tx: &mut Tx<'_>,
    table: TableId,
    key: &[u8],
    present: Option<Present>,
    arriving: Arriving<'_>,
    change: Change,
) -> Result<(), StoreError> {
    let Arriving { version, actor_number, seq, value } = arriving;
    let (hlc, lsn) = (version.stamp.hlc.to_i64(), tx.state.lsn + 1);
    let checksum = StoredRow { table, key, hlc, actor_number, seq, value }.checksum();
    match (change, present) {
        (Change::Keep, _) | (Change::Erase, None) => return Ok(()),
        (Change::Erase, Some(Present { id, .. })) => {
            tx.execute("DELETE FROM records WHERE id = ?1", [id])?;
        }
        (Change::Store | Change::Tombstone, Some(Present { id, .. })) => tx.execute(
            "UPDATE records SET value = ?2, hlc = ?3, actor = ?4, seq = ?5, lsn = ?6,
             checksum = ?7 WHERE id = ?1",
            params![id, value, hlc, actor_number, seq, lsn, checksum],
        )?,
        (Change::Store | Change::Tombstone, None) => tx.execute(
            "INSERT INTO records (table_id, key, value, hlc, actor, seq, lsn, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![table.0, key, value, hlc, actor_number, seq, lsn, checksum],
        )?,
    }
    tx.damage.gone(table, key);
    tx.state.lsn = lsn;
    Ok(())
}

/// A version made here and now.
fn local<'v>(tx: &mut Tx<'_>, content: Content, value: Option<&'v [u8]>) -> Arriving<'v> {
    let stamp = tx.draw_stamp();
    tx.state.seq += 1;
    let version = Version { stamp, content };
    Arriving { version, actor_number: tx.state.actor_number, seq: tx.state.seq, value }
}

fn find(tx: &Tx<'_>, table: TableId, key: &[u8]) -> Result<Option<Present>, StoreError> {
    let mut statement = tx.cached(
        "SELECT id, hlc, actor, length(value) FROM records WHERE table_id = ?1 AND key = ?2",
    )?;
    let present = statement.query_row(params![table.0, key], |row| {
        let value_bytes: Option<u32> = row.get(3)?;
        let content = value_bytes.map_or(Content::Deleted, |bytes| Content::Live {
            bytes: key.len() as u64 + u64::from(bytes),
        });
        let actor = tx.state.actors.id(row.get(2)?);
        let stamp = Stamp { hlc: Hlc::from_i64(row.get(1)?), actor };
        Ok(Present { id: row.get(0)?, version: Version { stamp, content } })
    });
    Ok(present.optional()?)
}

/// Has versions told to everybody again, those too that claim to have them. Answers how many there
/// were.
pub(crate) fn re_announce(
    tx: &mut Tx<'_>,
    entry: &Entry,
    keys: &[Vec<u8>],
) -> Result<u64, StoreError> {
    let place = Place::of(entry);
    let mut pushed = 0;
    for key in keys {
        if let Some(found) = versions::find(tx, place.id, key)?.filter(|found| !found.damaged) {
            versions::re_announce(tx, place, &found)?;
            pushed += 1;
        }
    }
    Ok(pushed)
}

/// Writes versions once more, each as a new one: a replica that claims to have the old one must take it.
/// Answers how many there were.
pub(crate) fn rewrite(
    tx: &mut Tx<'_>,
    entry: &Entry,
    keys: &[Vec<u8>],
) -> Result<u64, CommandError> {
    let mut written = 0;
    for key in keys {
        let found = versions::find(tx, entry.table.id, key)?;
        let found = found.filter(|found| !found.damaged);
        if let Some(value) = found.and_then(|found| found.value) {
            write_shared(tx, entry, key, Some(&value))?;
            written += 1;
        }
    }
    Ok(written)
}

/// Deletes rows that are as they were when somebody decided about them. Answers how many there were.
pub(crate) fn erase_unchanged(
    tx: &mut Tx<'_>,
    entry: &Entry,
    rows: &[(Vec<u8>, Option<Dot>)],
) -> Result<u64, CommandError> {
    let mut erased = 0;
    for (key, seen) in rows {
        let found = versions::find(tx, entry.table.id, key)?;
        let found = found.filter(|found| !found.damaged);
        let now = found.map(|row| Dot { actor: row.stamp.actor, seq: row.seq });
        if now == *seen {
            write_shared(tx, entry, key, None)?;
            erased += 1;
        }
    }
    Ok(erased)
}
