//! Rows of tables that have replicas elsewhere: stored with what others need to know of them.
//! Local writes and peers' rows end here alike; which version stays was decided before.

use std::{cmp::Ordering, sync::Arc};

use cortex_core::{
    merge::Delta,
    model::{Hlc, Stamp, TableId, TableUid},
    replication::{Dot, Side, TableDigest, VersionVector},
    rule::Rule,
};
use rusqlite::{OptionalExtension, params};

use super::{
    apply::Tx,
    audit::DigestChange,
    catalog::Entry,
    checksum::StoredRow,
    error::{CommandError, StoreError},
    recent::Change,
    system,
};

/// Where a row belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'e> {
    pub(super) id: TableId,
    pub(super) uid: TableUid,
    /// None for the system table, which is nobody's.
    pub(super) entry: Option<&'e Entry>,
}

impl<'e> Place<'e> {
    pub(super) const SYSTEM: Place<'static> =
        Place { id: system::NUMBER, uid: system::UID, entry: None };

    pub(super) fn of(entry: &'e Entry) -> Self {
        Self { id: entry.table.id, uid: entry.table.uid, entry: Some(entry) }
    }
}

/// A row as it stands in the file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: i64,
    pub(super) stamp: Stamp,
    pub(super) seq: u64,
    pub(super) lsn: u64,
    pub(super) context_id: Option<i64>,
    pub(super) context: Arc<VersionVector>,
    pub(super) value: Option<Vec<u8>>,
    /// True where it is not what was stored. Nothing that it says may be believed, or passed on.
    pub(super) damaged: bool,
}

impl Found {
    pub(super) fn side(&self) -> Side<'_> {
        Side { stamp: self.stamp, seq: self.seq, context: &self.context }
    }

    pub(super) fn differs(&self, value: Option<&[u8]>) -> bool {
        self.compared_to(value) != Ordering::Equal
    }

    /// How the value of another version compares to this one's. A deletion is the least.
    pub(super) fn compared_to(&self, value: Option<&[u8]>) -> Ordering {
        value.cmp(&self.value.as_deref())
    }
}

/// A version to be stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored<'v> {
    pub(super) stamp: Stamp,
    pub(super) actor_number: i64,
    pub(super) seq: u64,
    pub(super) value: Option<&'v [u8]>,
    pub(super) context_id: Option<i64>,
}

impl Tx<'_> {
    /// The row of a key.
    pub(super) fn find_row(&self, table: TableId, key: &[u8]) -> Result<Option<Found>, StoreError> {
        let mut statement = self.cached(
            "SELECT id, hlc, actor, seq, lsn, context, value, checksum FROM records
             WHERE table_id = ?1 AND key = ?2",
        )?;
        let found = statement.query_row(params![table.0, key], |row| {
            let actor = self.state.actors.id(row.get(2)?);
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
            self.damage.found(table, key);
        }
        found.context = self.contexts.get(self.conn, &self.state.actors, found.context_id)?;
        Ok(Some(found))
    }

    /// What a writer here has seen of a row: all that its table has incorporated, and what was seen by
    /// those who wrote the row before. The write says for itself that it follows this actor's others.
    pub(super) fn context_here(
        &mut self,
        place: Place<'_>,
        found: Option<&Found>,
    ) -> Result<Option<i64>, StoreError> {
        let own = self.state.own_actor();
        let replica = self.state.replicas.get(place.uid);
        let replica = replica.filter(|_| Rule::ContextOfVector.holds());
        let mut seen = replica.map(|replica| replica.vector.without(own)).unwrap_or_default();
        if let Some(found) = found.filter(|found| !found.damaged) {
            seen.join(&found.context.without(own));
            if found.stamp.actor != own {
                seen.raise(Dot { actor: found.stamp.actor, seq: found.seq });
            }
        }
        if let Some((_, id)) = self.newest_context.as_ref().filter(|(known, _)| *known == seen) {
            return Ok(*id);
        }
        let id = self.intern(&seen)?;
        self.newest_context = Some((seen, id));
        Ok(id)
    }

    /// The number of a context. One that is used by no row in the end goes with the transaction.
    pub(super) fn intern(&mut self, context: &VersionVector) -> Result<Option<i64>, StoreError> {
        let id = self.contexts.intern(self.conn, &mut self.state.actors, context)?;
        self.count_use(id, 0);
        Ok(id)
    }

    /// Puts a version that is made here and now in the place of what is there, if anything is.
    pub(super) fn write_row(
        &mut self,
        place: Place<'_>,
        key: &[u8],
        found: Option<&Found>,
        value: Option<&[u8]>,
        context_id: Option<i64>,
    ) -> Result<(), CommandError> {
        let (stamp, seq) = self.draw();
        let new = Stored { stamp, actor_number: self.state.actor_number, seq, value, context_id };
        self.put_row(place, key, found, new)?;
        if let Some(replica) = self.state.replicas.get_mut(place.uid) {
            replica.vector.raise(Dot { actor: stamp.actor, seq });
        }
        Ok(())
    }

    /// Puts a version in the place of what is there, if anything is, and tells the change log. Answers the
    /// LSN.
    pub(super) fn put_row(
        &mut self,
        place: Place<'_>,
        key: &[u8],
        found: Option<&Found>,
        new: Stored<'_>,
    ) -> Result<u64, CommandError> {
        let delta = difference(key, found, new.value);
        if let Some(entry) = place.entry {
            self.check_quota(entry, delta)?;
            self.totals.add(entry, delta);
        }
        let lsn = self.draw_lsn();
        let Stored { stamp, actor_number, seq, value, context_id } = new;
        let hlc = stamp.hlc.to_i64();
        let stored = StoredRow { table: place.id, key, hlc, actor_number, seq, value };
        let checksum = stored.checksum();
        let record = match found {
            Some(found) => {
                self.execute(
                    "UPDATE records SET value = ?2, hlc = ?3, actor = ?4, seq = ?5, lsn = ?6,
                     context = ?7, re_announced = 0, checksum = ?8 WHERE id = ?1",
                    params![found.id, value, hlc, actor_number, seq, lsn, context_id, checksum],
                )?;
                found.id
            }
            None => {
                self.execute(
                    "INSERT INTO records
                     (table_id, key, value, hlc, actor, seq, lsn, context, checksum)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                    params![
                        place.id.0,
                        key,
                        value,
                        hlc,
                        actor_number,
                        seq,
                        lsn,
                        context_id,
                        checksum
                    ],
                )?;
                self.conn.last_insert_rowid()
            }
        };
        if self.append_change_log(place, record, lsn)? {
            self.remember(place.uid, key, lsn, new)?;
        }
        self.count_use(found.and_then(|found| found.context_id), -1);
        self.count_use(context_id, 1);
        self.account(place, key, delta, found, Some((stamp, value)));
        if found.is_some_and(|found| found.damaged) {
            self.damage.gone(place.id, key);
        }
        self.touched.push(self.cache.bucket(place.id, key));
        Ok(lsn)
    }

    /// Takes a row away without a trace.
    pub(super) fn remove_row(
        &mut self,
        place: Place<'_>,
        key: &[u8],
        found: &Found,
    ) -> Result<(), CommandError> {
        self.execute("DELETE FROM records WHERE id = ?1", [found.id])?;
        self.fresh.give_up();
        let delta = difference(key, Some(found), None);
        if let Some(entry) = place.entry {
            self.totals.add(entry, delta);
        }
        self.count_use(found.context_id, -1);
        self.account(place, key, delta, Some(found), None);
        self.damage.gone(place.id, key);
        self.touched.push(self.cache.bucket(place.id, key));
        Ok(())
    }

    /// Keeps the version that is there with what its writers have seen together.
    pub(super) fn put_context(
        &mut self,
        found: &Found,
        context: &VersionVector,
    ) -> Result<(), StoreError> {
        let id = self.intern(context)?;
        self.execute("UPDATE records SET context = ?2 WHERE id = ?1", params![found.id, id])?;
        self.fresh.give_up();
        self.count_use(found.context_id, -1);
        self.count_use(id, 1);
        Ok(())
    }

    /// Has a version told to everybody again, those too that claim to have it.
    pub(super) fn push_back(&mut self, place: Place<'_>, found: &Found) -> Result<u64, StoreError> {
        let lsn = self.draw_lsn();
        self.execute(
            "UPDATE records SET lsn = ?2, re_announced = 1 WHERE id = ?1",
            params![found.id, lsn],
        )?;
        self.execute(
            "UPDATE marks SET lsn = ?3 WHERE table_id = ?1 AND lsn = ?2",
            params![place.id.0, found.lsn, lsn],
        )?;
        self.append_change_log(place, found.id, lsn)?;
        self.fresh.give_up();
        Ok(lsn)
    }

    /// A number of the change log, never drawn again.
    pub(super) fn draw_lsn(&mut self) -> u64 {
        self.changed = true;
        self.state.lsn += 1;
        self.state.lsn
    }

    /// True where there is a change log that others follow.
    fn append_change_log(
        &mut self,
        place: Place<'_>,
        record: i64,
        lsn: u64,
    ) -> Result<bool, StoreError> {
        let Some(replica) = self.state.replicas.get_mut(place.uid) else {
            return Ok(false);
        };
        replica.last_lsn = lsn;
        if !replica.ready {
            // Nobody follows the change log of a replica that fills: whoever reads it reads it by its keys.
            replica.truncated_lsn = lsn;
            return Ok(false);
        }
        self.execute(
            "INSERT INTO change_log (table_id, lsn, record) VALUES (?1, ?2, ?3)",
            params![place.id.0, lsn, record],
        )?;
        Ok(true)
    }

    /// Keeps a change in memory for those who follow, where there is room for it.
    fn remember(
        &mut self,
        table: TableUid,
        key: &[u8],
        lsn: u64,
        new: Stored<'_>,
    ) -> Result<(), StoreError> {
        if !self.fresh.takes(key.len() + new.value.map_or(0, <[u8]>::len)) {
            self.fresh.give_up();
            return Ok(());
        }
        let context = self.contexts.get(self.conn, &self.state.actors, new.context_id)?;
        self.fresh.add(Change {
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

    pub(super) fn count_use(&mut self, context: Option<i64>, more: i64) {
        if let Some(id) = context {
            *self.state.uses.entry(id).or_default() += more;
        }
    }

    /// Keeps the digest and the number of deletions.
    fn account(
        &mut self,
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
        if let Some(replica) = self.state.replicas.get_mut(place.uid) {
            (replica.digest, replica.tombstones) =
                change.applied(replica.digest, replica.tombstones);
        }
        self.tell_audits(place.id, key, delta, change);
    }
}

/// How the totals of a table change.
pub(super) fn difference(key: &[u8], found: Option<&Found>, value: Option<&[u8]>) -> Delta {
    let totals = |value: Option<&[u8]>| {
        let bytes = value.map(|value| key.len() + value.len());
        let bytes = i64::try_from(bytes.unwrap_or(0)).unwrap_or(i64::MAX);
        Delta { records: value.is_some().into(), bytes }
    };
    let before = found.and_then(|found| found.value.as_deref());
    totals(value).plus(totals(before).negated())
}
