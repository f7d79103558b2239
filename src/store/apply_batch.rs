//! A batch of another replica in the writer's transaction: judged, its rows met with those that are here,
//! and concluded. The rules are `cortex_core::replication`; nothing of a batch that is not fit is taken.

use std::{cmp::Ordering, sync::Arc};

use cortex_core::{
    directory::Standing,
    model::{
        Acl, AttributeName, Hlc, NodeName, Owner, QualifiedName, Refusal, Scope, Table, TableId,
        TableUid,
    },
    replication::{
        Batch, ChangeLogId, Conclusion, Cursor, Dot, Head, Part, Position, Reader, Resolution,
        RowVersion, Side, SnapshotKind, SnapshotStart, SnapshotTransfer, Sweep, Unfit,
        VersionVector, resolve,
    },
    rule::Rule,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    actors::Actors,
    apply::Tx,
    catalog::Entry,
    command::Outcome,
    contexts,
    error::{CommandError, StoreError},
    events::Event,
    rows::{Found, Place, Stored},
    system::{self, VerifiedRow},
};

/// Rows of one table deleted at the end of a full snapshot transfer in one statement's reach.
const SWEEP_SLICE: u32 = 1024;

/// A batch on its way into the store.
#[derive(Debug)]
pub struct ReceivedBatch {
    /// The node that it comes from.
    pub from: NodeName,
    /// The batch.
    pub batch: Batch,
    /// For the system table its rows, with their signatures checked, in the order of the batch's.
    pub verified: Vec<VerifiedRow>,
    /// The latest timestamp that is believed, by the wall clock and the greatest skew.
    pub latest: Hlc,
}

impl ReceivedBatch {
    pub(super) fn bytes(&self) -> usize {
        let rows = self.batch.rows.iter();
        rows.map(|row| row.key.len() + row.value.as_ref().map_or(0, Vec::len) + 64).sum::<usize>()
            * 2
    }
}

/// What a batch has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is stored.
    Stored {
        /// True where the source's vector is part of this replica's now.
        joined: bool,
        /// True where the replica is whole by now.
        ready: bool,
        /// Versions that have lost without having been seen.
        conflicts: u32,
        /// Whether both replicas hold the same; none where they are not as far.
        verified: Option<bool>,
    },
    /// It is of no use, and nothing has changed.
    Unfit(Unfit),
}

impl Tx<'_> {
    pub(super) fn apply_batch(
        &mut self,
        delivery: &ReceivedBatch,
    ) -> Result<Outcome, CommandError> {
        let ReceivedBatch { from, batch, verified, latest } = delivery;
        let (uid, unfit) = (batch.table, |why| Ok(Outcome::Applied(Applied::Unfit(why))));
        let Some(replica) = self.state.replicas.get(uid).filter(|replica| replica.epoch > 0) else {
            return unfit(Unfit::NotInScope);
        };
        let (gc_watermark, numbered) = (replica.gc_watermark.clone(), replica.table);
        let here = self.here()?;
        let cursor = match numbered {
            Some(table) => self.cursor(table, from)?,
            None => Stand::default(),
        };
        let directory = self.state.catalog.directory();
        let is_system = uid == system::UID;
        let reader = Reader {
            actor: self.state.own_actor(),
            standing: if is_system { Standing::In } else { directory.standing(uid, &here) },
            position: &cursor.position,
            gc_watermark: &gc_watermark,
            knowledge: &directory.scope_knowledge(uid),
            source_gone: directory.gone(uid).get(from).copied().unwrap_or(0),
            // Decisions of the directory are not ordered by clocks, and each row has one writer.
            latest: match is_system && Rule::DirectoryPassesClocks.holds() {
                true => Hlc::MAX,
                false => *latest,
            },
        };
        if let Err(why) = reader.admit(batch) {
            return unfit(why);
        }
        // Removals are learnt from the system table itself.
        let knows_removals = || batch.removed.iter().all(|database| directory.is_removed(database));
        if Rule::RemovalsBeforeRows.holds() && !is_system && !knows_removals() {
            return unfit(Unfit::ScopeUnknown);
        }
        let entry = if is_system { None } else { Some(self.adopt(batch)?) };
        let place = entry.as_ref().map_or(Place::SYSTEM, |entry| Place::of(entry));
        if !is_system || !Rule::DirectoryMovesNoClock.holds() {
            self.exposure.came(batch.hlc);
            if Rule::SourceClockObserved.holds() {
                self.observe(batch.hlc);
            }
        }
        let mut snapshot = Running { number: cursor.number(), start: cursor.start };
        if batch.starts_snapshot() {
            snapshot = Running { number: self.draw_lsn(), start: batch.snapshot_start() };
            if Rule::MarksOfOneSnapshot.holds() {
                self.clear_marks(place.id, from)?;
            }
        }
        let mut incorporating = Incorporating {
            place,
            from,
            batch,
            contexts: vec![None; batch.contexts.len()],
            vector: self.state.replicas.get(uid).map(|r| r.vector.clone()).unwrap_or_default(),
            beyond: self.is_beyond_all(place.id, batch)?,
            conflicts: 0,
        };
        if is_system {
            self.take_system(&mut incorporating, verified)?;
        } else {
            for row in &batch.rows {
                self.incorporate(&mut incorporating, row)?;
            }
        }
        let conflicts = incorporating.conflicts;
        self.conclude(place, from, batch, &snapshot)?;
        let replica = self.state.replicas.get(uid);
        let (mut ready, mut verified) = (false, None);
        if let Some(replica) = replica {
            ready = replica.ready;
            verified = batch
                .digest
                .filter(|_| replica.vector == batch.vector)
                .map(|digest| digest == replica.digest);
        }
        let joined = matches!(
            batch.part,
            Part::Delta { last: true, .. } | Part::Snapshot { reached: None, .. }
        );
        Ok(Outcome::Applied(Applied::Stored { joined, ready, conflicts, verified }))
    }

    /// True where the batch's rows are in the order of their keys and all of them come after every row
    /// that is here: then none of them can meet another. So a replica fills twice as fast.
    fn is_beyond_all(&self, table: TableId, batch: &Batch) -> Result<bool, StoreError> {
        let Part::Snapshot { .. } = batch.part else {
            return Ok(false);
        };
        let rises = batch.rows.is_sorted_by(|one, next| one.key < next.key);
        let Some(first) = batch.rows.first().filter(|_| rises) else {
            return Ok(false);
        };
        let mut later =
            self.cached("SELECT 1 FROM records WHERE table_id = ?1 AND key >= ?2 LIMIT 1")?;
        Ok(!later.exists(params![table.0, first.key])?)
    }

    /// Lets a row of another replica meet the one that is here.
    fn incorporate(
        &mut self,
        at: &mut Incorporating<'_>,
        row: &RowVersion,
    ) -> Result<(), CommandError> {
        let place = at.place;
        self.observe(row.stamp.hlc);
        let nothing = VersionVector::new();
        let context = at.batch.contexts.get(row.context).unwrap_or(&nothing);
        let arriving = Side { stamp: row.stamp, seq: row.seq, context };
        let found = if at.beyond { None } else { self.find_row(place.id, &row.key)? };
        let value = row.value.as_deref();
        if let Some(found) = found.as_ref().filter(|found| found.damaged) {
            return self.replace_damaged(at, row, found, context);
        }
        let compare = || found.as_ref().map_or(Ordering::Equal, |found| found.compared_to(value));
        let present = found.as_ref().map(Found::side);
        match resolve(present, arriving, &at.vector, &at.batch.vector, compare) {
            Resolution::Known => {}
            Resolution::Wins(causality) => {
                let actor_number = self.actor_number_of(row.stamp)?;
                let context_id = match &causality.context {
                    Some(both) => self.intern(both)?,
                    None => at.context_id(self, row.context, context)?,
                };
                let winner = Dot { actor: row.stamp.actor, seq: row.seq };
                if let Some(found) =
                    found.as_ref().filter(|found| causality.concurrent && found.differs(value))
                {
                    at.conflicts += 1;
                    self.keep_losing_version(
                        place,
                        &row.key,
                        &LosingVersion::of(found),
                        (row.stamp.hlc, winner),
                    )?;
                }
                let stored =
                    Stored { stamp: row.stamp, actor_number, seq: row.seq, value, context_id };
                let lsn = self.put_row(place, &row.key, found.as_ref(), stored)?;
                self.acknowledge_restored(place, row, context)?;
                self.mark(at, lsn)?;
            }
            Resolution::Loses { causality, re_announce } => {
                let Some(found) = found else { return Ok(()) };
                if causality.concurrent && found.differs(value) {
                    at.conflicts += 1;
                    let winner = (found.stamp.hlc, found.side().dot());
                    let losing = LosingVersion { hlc: row.stamp.hlc, dot: row.dot(), value };
                    self.keep_losing_version(place, &row.key, &losing, winner)?;
                }
                if let Some(context) = &causality.context {
                    self.put_context(&found, context)?;
                }
                let mut lsn = found.lsn;
                if re_announce {
                    lsn = self.push_back(place, &found)?;
                }
                self.mark(at, lsn)?;
            }
        }
        Ok(())
    }

    /// Puts a version in the place of a damaged one, where it is as late: its source has incorporated the write that
    /// the damaged one was, or its timestamp is no earlier. An older one would hide what others may still have.
    fn replace_damaged(
        &mut self,
        at: &mut Incorporating<'_>,
        row: &RowVersion,
        found: &Found,
        context: &VersionVector,
    ) -> Result<(), CommandError> {
        let is_as_late =
            at.batch.vector.covers(found.side().dot()) || row.stamp.hlc >= found.stamp.hlc;
        let mut lsn = found.lsn;
        if is_as_late {
            let actor_number = self.actor_number_of(row.stamp)?;
            let context_id = at.context_id(self, row.context, context)?;
            let (stamp, seq, value) = (row.stamp, row.seq, row.value.as_deref());
            let stored = Stored { stamp, actor_number, seq, value, context_id };
            lsn = self.put_row(at.place, &row.key, Some(found), stored)?;
        }
        self.mark(at, lsn).map_err(CommandError::from)
    }

    /// Forgets what a snapshot transfer has delivered.
    fn clear_marks(&self, table: TableId, from: &NodeName) -> Result<(), StoreError> {
        let statement = "DELETE FROM marks WHERE table_id = ?1 AND peer = ?2";
        self.execute(statement, params![table.0, from.as_str()])?;
        Ok(())
    }

    /// Notes that a full snapshot transfer has delivered a version.
    fn mark(&mut self, at: &Incorporating<'_>, lsn: u64) -> Result<(), StoreError> {
        if at.batch.is_whole() {
            self.execute(
                "INSERT OR IGNORE INTO marks (table_id, peer, lsn) VALUES (?1, ?2, ?3)",
                params![at.place.id.0, at.from.as_str(), lsn],
            )?;
        }
        Ok(())
    }

    /// Rows of the directory: each has one writer, so that none meets another of another writer.
    fn take_system(
        &mut self,
        at: &mut Incorporating<'_>,
        rows: &[VerifiedRow],
    ) -> Result<(), CommandError> {
        self.learn(rows)?;
        for row in rows.iter().filter(|_| at.batch.is_whole()) {
            if let Some(found) = self.find_row(at.place.id, &row.sealed.key)? {
                self.mark(at, found.lsn)?;
            }
        }
        Ok(())
    }

    /// Moves the position, and raises the vector where that is allowed.
    fn conclude(
        &mut self,
        place: Place<'_>,
        from: &NodeName,
        batch: &Batch,
        snapshot: &Running,
    ) -> Result<(), CommandError> {
        let Conclusion { position, join, sweep, whole } =
            batch.conclude(snapshot.number, snapshot.start.clone());
        if let Some(sweep) = sweep.as_ref().filter(|_| Rule::FullSnapshotSweeps.holds()) {
            self.sweep(place, from, sweep)?;
        }
        let becomes_whole = whole
            && (batch.ready || !Rule::ReadyFromReady.holds())
            && self.state.replicas.get(place.uid).is_some_and(|replica| !replica.ready);
        if becomes_whole {
            self.draw_lsn(); // so that it is passed on, even where no row has come
        }
        let lsn = self.state.lsn;
        if let Some(replica) = self.state.replicas.get_mut(place.uid) {
            if let Some(sweep) = sweep.as_ref().filter(|_| Rule::WatermarkInherited.holds()) {
                replica.gc_watermark.join(&sweep.gc_watermark);
            }
            if let Some(vector) = &join {
                replica.vector.join(vector);
            }
            if becomes_whole {
                (replica.ready, replica.last_lsn) = (true, lsn);
            }
        }
        let learned = join.iter().chain(sweep.iter().map(|sweep| &sweep.gc_watermark));
        for dot in learned.flat_map(VersionVector::iter) {
            self.state.actors.enter(self.conn, dot.actor, batch.hlc)?;
        }
        if position.snapshot.is_none() && matches!(batch.part, Part::Snapshot { .. }) {
            self.clear_marks(place.id, from)?;
        }
        self.put_cursor(place.id, from, &position, &snapshot.start)?;
        if becomes_whole && let Some(entry) = place.entry {
            self.refresh(entry.table.uid);
            let shown = self.state.catalog.show(&entry.table.name);
            let text = format!("{shown} is whole on this machine, filled from {from}");
            self.note_of(&entry.table.name, "table_ready", text)?;
        }
        Ok(())
    }

    /// Removes what a full snapshot transfer has not delivered although its source has seen it: it was deleted, and
    /// the deletion was forgotten. Who reads of this replica hears of it by the GC watermark, which covers the
    /// deletions.
    fn sweep(
        &mut self,
        place: Place<'_>,
        from: &NodeName,
        sweep: &Sweep,
    ) -> Result<(), CommandError> {
        let (mut after, mut swept) = (Vec::new(), 0_u64);
        loop {
            let keys = self.unmarked(place.id, from, &after)?;
            let Some((last, _)) = keys.last() else { break };
            after.clone_from(last);
            for (key, dot) in keys {
                if sweep.covered.covers(dot)
                    && let Some(found) = self.find_row(place.id, &key)?
                {
                    self.remove_row(place, &key, &found)?;
                    swept += 1;
                }
            }
        }
        if swept > 0
            && let Some(entry) = place.entry
        {
            let shown = self.state.catalog.show(&entry.table.name);
            let text = format!("{swept} rows of {shown} went, {from} has forgotten their deletion");
            self.note_of(&entry.table.name, "rows_swept", text)?;
        }
        Ok(())
    }

    /// Some rows that a snapshot transfer has not delivered, by their keys.
    fn unmarked(
        &self,
        table: TableId,
        from: &NodeName,
        after: &[u8],
    ) -> Result<Vec<(Vec<u8>, Dot)>, StoreError> {
        let mut statement = self.cached(
            "SELECT key, actor, seq FROM records r
             WHERE table_id = ?1 AND key > ?3 AND NOT EXISTS
               (SELECT 1 FROM marks m WHERE m.table_id = ?1 AND m.peer = ?2 AND m.lsn = r.lsn)
             ORDER BY key LIMIT ?4",
        )?;
        let rows =
            statement.query_map(params![table.0, from.as_str(), after, SWEEP_SLICE], |row| {
                let actor = self.state.actors.id(row.get(1)?);
                Ok((row.get(0)?, Dot { actor, seq: row.get(2)? }))
            })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The table that a batch is of, made here where it is not known yet.
    fn adopt(&mut self, batch: &Batch) -> Result<Arc<Entry>, CommandError> {
        let missing =
            || StoreError::Corrupt("another machine has sent rows without their table".into());
        let head = batch.head.as_ref().ok_or_else(missing)?;
        if let Some(entry) = self.state.catalog.by_uid(batch.table) {
            let entry = Arc::clone(entry);
            return self.settle_head(&entry, head);
        }
        let name = self.believe(batch.table, &head.name)?;
        if self.state.catalog.find(&name.owner, name.name.as_str()).is_some() {
            let shown = self.state.catalog.show(&name);
            let text =
                format!("{shown} is another table here, that of other machines is not taken");
            self.note(&Event { uid: None, kind: "table_name_taken", text })?;
            return Err(Refusal::AlreadyExists.into());
        }
        let held = self.state.catalog.namespace(&name.owner).map_or(0, |n| n.tables().len());
        if held >= self.limits.tables_per_uid {
            return Err(Refusal::TooManyTables(self.limits.tables_per_uid).into());
        }
        let table = Table {
            id: TableId(0),
            uid: batch.table,
            name,
            attributes: head.attributes.clone(),
            scope: Scope::default(),
            contested: false,
            acl: Acl::default(),
        };
        self.insert_table(table, head.created)
    }

    /// Whose a table is said to be must be so by what its owner's node has signed.
    fn believe(
        &self,
        table: TableUid,
        name: &QualifiedName,
    ) -> Result<QualifiedName, CommandError> {
        let directory = self.state.catalog.directory();
        let here = self.here()?;
        if let Some(told) = directory.transferred(table) {
            return self.name_here(table, told); // the sender may not have heard of it yet
        }
        let is_so =
            match &name.owner {
                Owner::Identity(id) => self.state.signer.as_ref().is_some_and(|signer| {
                    directory.is_named(signer.mesh(), table, *id, &name.name)
                }),
                Owner::Remote(_, node) => directory.decided_by(table, node),
                Owner::Uid(_) => false,
            };
        if !is_so {
            return Err(Refusal::AccessDenied.into());
        }
        let owner = match &name.owner {
            Owner::Remote(uid, node) if *node == here => Owner::Uid(*uid),
            owner @ (Owner::Uid(_) | Owner::Remote(..) | Owner::Identity(_)) => owner.clone(),
        };
        Ok(QualifiedName { owner, name: name.name.clone() })
    }

    /// Of two creations of a table, the first one's attributes count.
    fn settle_head(&mut self, entry: &Arc<Entry>, head: &Head) -> Result<Arc<Entry>, CommandError> {
        if (head.created, &head.attributes) >= (entry.created, &entry.table.attributes) {
            return Ok(Arc::clone(entry));
        }
        let listed: Vec<_> = head.attributes.iter().map(AttributeName::as_str).collect();
        self.execute(
            "UPDATE tables SET attributes = ?2, created_hlc = ?3 WHERE id = ?1",
            params![entry.table.id.0, listed.join(","), head.created.to_i64()],
        )?;
        let lsn = self.draw_lsn();
        if let Some(replica) = self.state.replicas.get_mut(entry.table.uid) {
            replica.last_lsn = lsn; // so that it is passed on
        }
        if head.attributes != entry.table.attributes {
            let shown = self.state.catalog.show(&entry.table.name);
            let text = format!(
                "{shown} was created twice, the first one's attributes count: {}",
                listed.join(", ")
            );
            self.note_of(&entry.table.name, "table_attributes", text)?;
        }
        let mut entry = Entry::clone(entry);
        entry.table.attributes.clone_from(&head.attributes);
        entry.created = head.created;
        let uid = entry.table.uid;
        self.catalog_mut().insert(entry);
        self.refresh(uid);
        self.state.catalog.by_uid(uid).cloned().ok_or_else(|| StoreError::Closed.into())
    }

    /// Where this replica stands in another one.
    pub(super) fn cursor(&self, table: TableId, peer: &NodeName) -> Result<Stand, StoreError> {
        load_cursor(self.conn, &self.state.actors, table, peer)
    }

    fn put_cursor(
        &mut self,
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
            vector = Some(contexts::encode(self.conn, &mut self.state.actors, &start.vector)?);
            gc_watermark =
                Some(contexts::encode(self.conn, &mut self.state.actors, &start.gc_watermark)?);
        }
        let snapshot = position.snapshot.as_ref();
        self.execute(
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
}

/// The snapshot transfer that a batch belongs to.
#[derive(Clone, Debug)]
struct Running {
    number: u64,
    start: SnapshotStart,
}

/// Where a replica stands in another one, with what is kept of the snapshot transfer that is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Stand {
    pub(super) position: Position,
    start: SnapshotStart,
}

impl Stand {
    fn number(&self) -> u64 {
        self.position.snapshot.as_ref().map_or(0, |snapshot| snapshot.number)
    }
}

/// Where this replica stands in another one, as the file says.
pub(super) fn load_cursor(
    conn: &Connection,
    actors: &Actors,
    table: TableId,
    peer: &NodeName,
) -> Result<Stand, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT change_log, lsn, snapshot, whole, reached, vector, gc_watermark FROM cursors
         WHERE table_id = ?1 AND peer = ?2",
    )?;
    let stand = statement.query_row(params![table.0, peer.as_str()], |row| {
        let cursor = Some(Cursor { change_log: ChangeLogId(row.get(0)?), lsn: row.get(1)? });
        let Some(number) = row.get::<_, Option<u64>>(2)? else {
            return Ok(Stand {
                position: Position { cursor, snapshot: None },
                start: SnapshotStart::default(),
            });
        };
        let kind = if row.get(3)? { SnapshotKind::Full } else { SnapshotKind::Scan };
        let snapshot = Some(SnapshotTransfer { kind, number, after: row.get(4)? });
        let vector = |index| row.get::<_, Vec<u8>>(index).map(|b| contexts::decode(actors, &b));
        let start = SnapshotStart { vector: vector(5)?, gc_watermark: vector(6)? };
        Ok(Stand { position: Position { cursor, snapshot }, start })
    });
    Ok(stand.optional()?.unwrap_or_default())
}

/// A version that has lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct LosingVersion<'v> {
    pub(super) hlc: Hlc,
    pub(super) dot: Dot,
    pub(super) value: Option<&'v [u8]>,
}

impl<'v> LosingVersion<'v> {
    fn of(found: &'v Found) -> Self {
        Self { hlc: found.stamp.hlc, dot: found.side().dot(), value: found.value.as_deref() }
    }
}

/// A batch whose rows are being taken.
struct Incorporating<'c> {
    place: Place<'c>,
    from: &'c NodeName,
    batch: &'c Batch,
    /// The numbers here of the batch's contexts, as far as they were needed.
    contexts: Vec<Option<Option<i64>>>,
    /// What was incorporated before the batch.
    vector: VersionVector,
    /// See [`Tx::is_beyond_all`].
    beyond: bool,
    conflicts: u32,
}

impl Incorporating<'_> {
    fn context_id(
        &mut self,
        tx: &mut Tx<'_>,
        index: usize,
        context: &VersionVector,
    ) -> Result<Option<i64>, StoreError> {
        if let Some(Some(known)) = self.contexts.get(index) {
            return Ok(*known);
        }
        let id = tx.intern(context)?;
        if let Some(place) = self.contexts.get_mut(index) {
            *place = Some(id);
        }
        Ok(id)
    }
}
