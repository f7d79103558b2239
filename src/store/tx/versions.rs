//! Versions of rows: found, put in the place of others, removed. Writes of clients, here or elsewhere, and rows of the
//! directory end in [`put_version`] alike, with their origin; which version stays was decided before.
//!
//! ```text
//!   records  ── Local, Shared ──┐
//!   restamp  ── Shared ─────────┤
//!   apply_batch ── ArrivedVersion ─────┼──> put_version ──> records, change log, contexts
//!   directory::signed ─ ArrivedVersion ┘                    totals, digest, ledger, audits, cache
//! ```

use std::{cmp::Ordering, sync::Arc};

use cortex_core::{
    model::{ActorId, Hlc, Stamp, TableId, TableUid, UsageDelta},
    replication::{Dot, Side, TableDigest, VersionVector},
};
use cortex_mutant::mutant;
use rusqlite::{OptionalExtension, params};

use crate::store::{
    checksum::StoredRow,
    error::{CommandError, StoreError},
    recent::Change,
    tx::{
        Tx, admission,
        audits::{self, DigestChange},
        ledger::{self, LosingVersion},
        row_table::RowTable,
    },
};

/// A row as it stands in the file.
#[derive(Debug)]
pub(crate) struct ExistingRow {
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

impl ExistingRow {
    pub(crate) fn side(&self) -> Side<'_> {
        Side { stamp: self.stamp, seq: self.seq, context: &self.context }
    }

    /// What its replacement has to know.
    pub(crate) fn present(&self) -> ExistingVersion<'_> {
        let (id, stamp, seq, context_id) = (self.id, self.stamp, self.seq, self.context_id);
        let (value, damaged) = (self.value.as_deref(), self.damaged);
        ExistingVersion {
            id,
            stamp,
            seq,
            context_id,
            length: value.map(<[u8]>::len),
            value,
            damaged,
        }
    }

    pub(crate) fn differs(&self, value: Option<&[u8]>) -> bool {
        self.compared_to(value) != Ordering::Equal
    }

    /// How the value of another version compares to this one's. A deletion is the least.
    pub(crate) fn compared_to(&self, value: Option<&[u8]>) -> Ordering {
        value.cmp(&self.value.as_deref())
    }
}

/// A row as it stands in the file, as far as its replacement has to know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExistingVersion<'v> {
    id: i64,
    stamp: Stamp,
    seq: u64,
    context_id: Option<i64>,
    /// Bytes of its value; none for a tombstone.
    length: Option<usize>,
    /// Its value. None as well where the table has no replica, whose digest it would be part of: a large value is on
    /// pages of its own, which need not be read to be overwritten.
    value: Option<&'v [u8]>,
    damaged: bool,
}

impl<'v> ExistingVersion<'v> {
    fn losing(&self) -> LosingVersion<'v> {
        let dot = Dot { actor: self.stamp.actor, seq: self.seq };
        LosingVersion { hlc: self.stamp.hlc, dot, value: self.value }
    }
}

/// Where a version comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'v> {
    /// Made here and now, in a table that is nowhere else. Its deletion leaves no tombstone.
    Local,
    /// Made here and now, in a table of which there may be other replicas. Its stamp is drawn, and the replica here has
    /// incorporated it.
    Shared {
        /// What its writer had seen.
        context_id: Option<i64>,
    },
    /// Made before, and mostly elsewhere: it comes with its stamp, and it is decided that it wins.
    Arrived(ArrivedVersion<'v>),
}

/// A version that comes with its stamp.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArrivedVersion<'v> {
    pub(crate) stamp: Stamp,
    pub(crate) seq: u64,
    /// What is to be kept as its context.
    pub(crate) context_id: Option<i64>,
    /// What its writer had seen.
    pub(crate) context: &'v VersionVector,
    /// True where neither writer had seen the other's version: the one that loses goes to the ledger of conflicts.
    pub(crate) concurrent: bool,
}

/// A version to be stored.
#[derive(Clone, Copy, Debug)]
struct Version<'v> {
    stamp: Stamp,
    actor_number: i64,
    seq: u64,
    value: Option<&'v [u8]>,
    context_id: Option<i64>,
}

impl Version<'_> {
    fn dot(&self) -> Dot {
        Dot { actor: self.stamp.actor, seq: self.seq }
    }
}

/// The row of a key in a table that is nowhere else, as far as its replacement has to know it.
pub(crate) fn find_present(
    tx: &Tx<'_>,
    table: TableId,
    key: &[u8],
) -> Result<Option<ExistingVersion<'static>>, StoreError> {
    let mut statement = tx.cached(
        "SELECT id, hlc, actor, seq, context, length(value) FROM records
         WHERE table_id = ?1 AND key = ?2",
    )?;
    let present = statement.query_row(params![table.0, key], |row| {
        let actor = tx.state.actors.id(row.get(2)?);
        Ok(ExistingVersion {
            id: row.get(0)?,
            stamp: Stamp { hlc: Hlc::from_i64(row.get(1)?), actor },
            seq: row.get(3)?,
            context_id: row.get(4)?,
            length: row.get(5)?,
            value: None,
            damaged: false,
        })
    });
    Ok(present.optional()?)
}

/// The row of a key.
pub(crate) fn find(
    tx: &Tx<'_>,
    table: TableId,
    key: &[u8],
) -> Result<Option<ExistingRow>, StoreError> {
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
        Ok(ExistingRow {
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
    place: RowTable<'_>,
    found: Option<&ExistingRow>,
) -> Result<Option<i64>, StoreError> {
    let own = tx.state.own_actor();
    let mut seen = incorporated(tx, place.uid, own);
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

#[mutant(ContextOfVector => VersionVector::new())]
fn incorporated(tx: &Tx<'_>, table: TableUid, but_of: ActorId) -> VersionVector {
    tx.state.replicas.get(table).map(|replica| replica.vector.without(but_of)).unwrap_or_default()
}

/// Puts a version in the place of what is there, if anything is: the one way to write a row. Keeps what is kept beside
/// the rows with it: totals and digest, the change log, how often contexts are used, the ledger of conflicts, audits
/// that are under way, and which of the cached records are stale. Answers the LSN.
///
/// A refusal has changed nothing.
pub(crate) fn put_version(
    tx: &mut Tx<'_>,
    place: RowTable<'_>,
    key: &[u8],
    present: Option<ExistingVersion<'_>>,
    value: Option<&[u8]>,
    origin: Origin<'_>,
) -> Result<u64, CommandError> {
    let delta = difference(key, present, value);
    if let Some(entry) = place.entry {
        admission::check_quota(tx, entry, delta)?;
        tx.totals.add(entry, delta);
    }
    let version = version_of(tx, present, value, origin)?;
    if let (Origin::Arrived(ArrivedVersion { concurrent: true, .. }), Some(present)) =
        (origin, present)
    {
        ledger::keep(tx, place, key, &present.losing(), (version.stamp.hlc, version.dot()))?;
    }
    let lsn = tx.draw_lsn();
    let leaves_nothing = matches!(origin, Origin::Local) && value.is_none();
    match (leaves_nothing, present) {
        // Nobody else could have the row, so that nobody needs to know of its deletion.
        (true, Some(present)) => erase_row(tx, present.id)?,
        (true, None) => {}
        (false, _) => {
            let record = write_row(tx, place, key, present, version, lsn)?;
            if append_change_log(tx, place, record, lsn)? {
                remember(tx, place.uid, key, lsn, version)?;
            }
        }
    }
    tx.count_use(present.and_then(|present| present.context_id), -1);
    tx.count_use(version.context_id, 1);
    account(tx, place, key, delta, present, Some((version.stamp, value)));
    match origin {
        Origin::Local => {}
        Origin::Shared { .. } => {
            if let Some(replica) = tx.state.replicas.get_mut(place.uid) {
                replica.vector.raise(version.dot());
            }
        }
        Origin::Arrived(ArrivedVersion { context, .. }) => {
            ledger::acknowledge_restored(tx, place, key, value, version.dot(), context)?;
        }
    }
    Ok(lsn)
}

/// The version with its stamp: drawn where it is made here and now, as it came where it was made before.
fn version_of<'v>(
    tx: &mut Tx<'_>,
    present: Option<ExistingVersion<'_>>,
    value: Option<&'v [u8]>,
    origin: Origin<'_>,
) -> Result<Version<'v>, StoreError> {
    let (stamp, seq, actor_number, context_id) = match origin {
        Origin::Local => {
            let (mut stamp, seq) = tx.draw();
            if let Some(present) = present {
                // A clock that was ahead may have left it there. The write still comes after it.
                stamp.hlc = stamp.hlc.max(present.stamp.hlc.next());
            }
            (stamp, seq, tx.state.actor_number, None)
        }
        Origin::Shared { context_id } => {
            let (stamp, seq) = tx.draw();
            (stamp, seq, tx.state.actor_number, context_id)
        }
        Origin::Arrived(ArrivedVersion { stamp, seq, context_id, .. }) => {
            (stamp, seq, tx.actor_number_of(stamp)?, context_id)
        }
    };
    Ok(Version { stamp, actor_number, seq, value, context_id })
}

/// Writes a version over the row that is there, or as a new one. Answers the row's number.
fn write_row(
    tx: &Tx<'_>,
    place: RowTable<'_>,
    key: &[u8],
    present: Option<ExistingVersion<'_>>,
    version: Version<'_>,
    lsn: u64,
) -> Result<i64, StoreError> {
    let Version { stamp, actor_number, seq, value, context_id } = version;
    let hlc = stamp.hlc.to_i64();
    let checksum = StoredRow { table: place.id, key, hlc, actor_number, seq, value }.checksum();
    if let Some(present) = present {
        tx.execute(
            "UPDATE records SET value = ?2, hlc = ?3, actor = ?4, seq = ?5, lsn = ?6,
             context = ?7, re_announced = 0, checksum = ?8 WHERE id = ?1",
            params![present.id, value, hlc, actor_number, seq, lsn, context_id, checksum],
        )?;
        return Ok(present.id);
    }
    tx.execute(
        "INSERT INTO records
         (table_id, key, value, hlc, actor, seq, lsn, context, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![place.id.0, key, value, hlc, actor_number, seq, lsn, context_id, checksum],
    )?;
    Ok(tx.conn.last_insert_rowid())
}

fn erase_row(tx: &Tx<'_>, id: i64) -> Result<(), StoreError> {
    Ok(tx.execute("DELETE FROM records WHERE id = ?1", [id])?)
}

/// Keeps the version that is there, against which another has lost. The ledger takes the other where neither writer had
/// seen the other's; the context takes what both had seen, where that is more than it has.
pub(crate) fn keep_version(
    tx: &mut Tx<'_>,
    place: RowTable<'_>,
    key: &[u8],
    found: &ExistingRow,
    losing: Option<&LosingVersion<'_>>,
    context: Option<&VersionVector>,
) -> Result<(), CommandError> {
    if let Some(losing) = losing {
        ledger::keep(tx, place, key, losing, (found.stamp.hlc, found.side().dot()))?;
    }
    if let Some(context) = context {
        put_context(tx, found, context)?;
    }
    Ok(())
}

/// Takes a row away without a trace.
pub(crate) fn remove_version(
    tx: &mut Tx<'_>,
    place: RowTable<'_>,
    key: &[u8],
    found: &ExistingRow,
) -> Result<(), CommandError> {
    erase_row(tx, found.id)?;
    tx.fresh.mark_incomplete();
    let present = Some(found.present());
    let delta = difference(key, present, None);
    if let Some(entry) = place.entry {
        tx.totals.add(entry, delta);
    }
    tx.count_use(found.context_id, -1);
    account(tx, place, key, delta, present, None);
    Ok(())
}

/// Keeps the version that is there with what its writers have seen together.
fn put_context(
    tx: &mut Tx<'_>,
    found: &ExistingRow,
    context: &VersionVector,
) -> Result<(), StoreError> {
    let id = tx.intern(context)?;
    tx.execute("UPDATE records SET context = ?2 WHERE id = ?1", params![found.id, id])?;
    tx.fresh.mark_incomplete();
    tx.count_use(found.context_id, -1);
    tx.count_use(id, 1);
    Ok(())
}

/// Re-announces a version to all nodes, those too that claim to have it.
pub(crate) fn re_announce(
    tx: &mut Tx<'_>,
    place: RowTable<'_>,
    found: &ExistingRow,
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
    tx.fresh.mark_incomplete();
    Ok(lsn)
}

/// True where there is a change log that others follow.
fn append_change_log(
    tx: &mut Tx<'_>,
    place: RowTable<'_>,
    record: i64,
    lsn: u64,
) -> Result<bool, StoreError> {
    let Some(replica) = tx.state.replicas.get_mut(place.uid) else {
        return Ok(false);
    };
    replica.last_lsn = lsn;
    if !replica.ready {
        // Nobody follows the change log of a replica that fills: readers get it in key order.
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
    new: Version<'_>,
) -> Result<(), StoreError> {
    if !tx.fresh.takes(key.len() + new.value.map_or(0, <[u8]>::len)) {
        tx.fresh.mark_incomplete();
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

/// Keeps what goes with each change of a row: digest and number of deletions, audits, damage, the cache.
fn account(
    tx: &mut Tx<'_>,
    place: RowTable<'_>,
    key: &[u8],
    delta: UsageDelta,
    before: Option<ExistingVersion<'_>>,
    after: Option<(Stamp, Option<&[u8]>)>,
) {
    let mut change = DigestChange::default();
    if let Some(replica) = tx.state.replicas.get_mut(place.uid) {
        change = digest_change(place, key, before, after);
        (replica.digest, replica.tombstones) = change.applied(replica.digest, replica.tombstones);
    }
    audits::note_change(&mut tx.state.audits, place.id, key, delta, change);
    tx.damage.gone(place.id, key);
    tx.touched.push(tx.cache.bucket(place.id, key));
}

fn digest_change(
    place: RowTable<'_>,
    key: &[u8],
    before: Option<ExistingVersion<'_>>,
    after: Option<(Stamp, Option<&[u8]>)>,
) -> DigestChange {
    let leaf = |(stamp, value): (Stamp, Option<&[u8]>)| {
        value.map(|value| TableDigest::of_row(place.uid, key, stamp, value))
    };
    let tombstones = |version: Option<(Stamp, Option<&[u8]>)>| {
        i64::from(version.is_some_and(|(_, value)| value.is_none()))
    };
    // A damaged row is no part of the digest: what it was before is not known.
    let before = before.filter(|present| !present.damaged);
    let before = before.map(|present| (present.stamp, present.value));
    DigestChange {
        minus: before.and_then(leaf),
        plus: after.and_then(leaf),
        tombstones: tombstones(after) - tombstones(before),
    }
}

/// How the totals of a table change.
pub(crate) fn difference(
    key: &[u8],
    present: Option<ExistingVersion<'_>>,
    value: Option<&[u8]>,
) -> UsageDelta {
    let totals = |length: Option<usize>| {
        let bytes = length.map_or(0, |length| key.len() + length);
        UsageDelta {
            records: length.is_some().into(),
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        }
    };
    let before = present.and_then(|present| present.length);
    totals(value.map(<[u8]>::len)).plus(totals(before).negated())
}
