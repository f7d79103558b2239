//! A batch of another replica in the writer's transaction: judged, its rows met with those that are here,
//! and concluded. The rules are `cortex_core::replication`; nothing of a batch that is not fit is taken.

use std::{cmp::Ordering, sync::Arc};

use cortex_core::{
    directory::{Directory, Standing},
    model::{
        Acl, AttributeName, Hlc, NodeName, Owner, QualifiedName, Refusal, Scope, Table, TableId,
        TableUid,
    },
    replication::{
        Batch, BatchEffects, Dot, Head, Part, Reader, Resolution, RowVersion, Side, SnapshotStart,
        Sweep, Unfit, VersionVector, resolve,
    },
};
use cortex_mutant::mutant;
use rusqlite::params;

use crate::store::{
    catalog::Entry,
    command::{Applied, ReceivedBatch, ReplicationOutcome},
    error::{CommandError, StoreError},
    events::Event,
    replica::Replica,
    system::{self, VerifiedRow},
    tx::{
        Tx,
        directory::learn,
        entries,
        ledger::LosingVersion,
        replication::cursors::{self, CursorState},
        row_table::RowTable,
        versions::{self, ArrivedVersion, ExistingRow, Origin},
    },
};

/// Rows of one table deleted at the end of a full snapshot transfer in one statement's reach.
const SWEEP_SLICE: u32 = 1024;

pub(crate) fn apply_batch(
    tx: &mut Tx<'_>,
    delivery: &ReceivedBatch,
) -> Result<ReplicationOutcome, CommandError> {
    let ReceivedBatch { from, batch, verified, latest } = delivery;
    let (uid, unfit) = (batch.table, |why| Ok(ReplicationOutcome::Applied(Applied::Unfit(why))));
    let Some(replica) = tx.state.replicas.get(uid).filter(|replica| replica.epoch > 0) else {
        return unfit(Unfit::NotInScope);
    };
    let (gc_watermark, numbered) = (replica.gc_watermark.clone(), replica.table);
    let here = tx.here()?;
    let cursor = match numbered {
        Some(table) => cursors::cursor(tx, table, from)?,
        None => CursorState::default(),
    };
    let directory = tx.state.catalog.directory();
    let is_system = uid == system::UID;
    let reader = Reader {
        actor: tx.state.own_actor(),
        standing: if is_system { Standing::In } else { directory.standing(uid, &here) },
        position: &cursor.position,
        gc_watermark: &gc_watermark,
        knowledge: &directory.scope_knowledge(uid),
        source_gone: directory.gone(uid).get(from).copied().unwrap_or(0),
        latest: believed(uid, *latest),
    };
    if let Err(why) = reader.admit(batch) {
        return unfit(why);
    }
    if !knows_removals(directory, batch) {
        return unfit(Unfit::ScopeUnknown);
    }
    let entry = if is_system { None } else { Some(table_of(tx, batch)?) };
    let place = entry.as_ref().map_or(RowTable::SYSTEM, |entry| RowTable::of(entry));
    if moves_clock(uid) {
        tx.exposure.came(batch.hlc);
        observe_source(tx, batch.hlc);
    }
    let mut snapshot = TransferInProgress { number: cursor.number(), start: cursor.start };
    if batch.starts_snapshot() {
        snapshot = TransferInProgress { number: tx.draw_lsn(), start: batch.snapshot_start() };
        begin_marks(tx, place.id, from)?;
    }
    let mut incorporating = BatchInProgress {
        place,
        from,
        batch,
        contexts: vec![None; batch.contexts.len()],
        vector: tx.state.replicas.get(uid).map(|r| r.vector.clone()).unwrap_or_default(),
        beyond: is_beyond_all(tx, place.id, batch)?,
        conflicts: 0,
    };
    if is_system {
        incorporate_directory(tx, &mut incorporating, verified)?;
    } else {
        for row in &batch.rows {
            incorporate(tx, &mut incorporating, row)?;
        }
    }
    let conflicts = incorporating.conflicts;
    conclude(tx, place, from, batch, &snapshot)?;
    let replica = tx.state.replicas.get(uid);
    let (mut ready, mut verified) = (false, None);
    if let Some(replica) = replica {
        ready = replica.ready;
        verified = batch
            .digest
            .filter(|_| replica.vector == batch.vector)
            .map(|digest| digest == replica.digest);
    }
    let joined =
        matches!(batch.part, Part::Delta { last: true, .. } | Part::Snapshot { reached: None, .. });
    Ok(ReplicationOutcome::Applied(Applied::Stored { joined, ready, conflicts, verified }))
}

/// Up to which timestamp a batch is believed. Decisions of the directory are not ordered by clocks, and each row has
/// one writer.
#[mutant(DirectoryPassesClocks => latest)]
fn believed(table: TableUid, latest: Hlc) -> Hlc {
    if table == system::UID { Hlc::MAX } else { latest }
}

/// Removals are learnt from the system table itself.
#[mutant(RemovalsBeforeRows => true)]
fn knows_removals(directory: &Directory, batch: &Batch) -> bool {
    let is_known = |database: &[u8; 16]| directory.is_removed(database);
    batch.table == system::UID || batch.removed.iter().all(is_known)
}

/// One node whose clock is wrong would move those of all others by the directory.
#[mutant(DirectoryMovesNoClock => true)]
fn moves_clock(table: TableUid) -> bool {
    table != system::UID
}

/// What is written here from now on comes after all that the source has written.
#[mutant(SourceClockObserved => ())]
fn observe_source(tx: &mut Tx<'_>, hlc: Hlc) {
    tx.observe(hlc);
}

/// True where the batch's rows are in the order of their keys and all of them come after every row
/// that is here: then none of them can meet another. So a replica fills twice as fast.
fn is_beyond_all(tx: &Tx<'_>, table: TableId, batch: &Batch) -> Result<bool, StoreError> {
    let Part::Snapshot { .. } = batch.part else {
        return Ok(false);
    };
    let rises = batch.rows.is_sorted_by(|one, next| one.key < next.key);
    let Some(first) = batch.rows.first().filter(|_| rises) else {
        return Ok(false);
    };
    let mut later = tx.cached("SELECT 1 FROM records WHERE table_id = ?1 AND key >= ?2 LIMIT 1")?;
    Ok(!later.exists(params![table.0, first.key])?)
}

/// Lets a row of another replica meet the one that is here.
fn incorporate(
    tx: &mut Tx<'_>,
    at: &mut BatchInProgress<'_>,
    row: &RowVersion,
) -> Result<(), CommandError> {
    let place = at.place;
    tx.observe(row.stamp.hlc);
    let nothing = VersionVector::new();
    let context = at.batch.contexts.get(row.context).unwrap_or(&nothing);
    let arriving = Side { stamp: row.stamp, seq: row.seq, context };
    let found = if at.beyond { None } else { versions::find(tx, place.id, &row.key)? };
    let value = row.value.as_deref();
    if let Some(found) = found.as_ref().filter(|found| found.damaged) {
        return replace_damaged(tx, at, row, found, context);
    }
    let compare = || found.as_ref().map_or(Ordering::Equal, |found| found.compared_to(value));
    let present = found.as_ref().map(ExistingRow::side);
    match resolve(present, arriving, &at.vector, &at.batch.vector, compare) {
        Resolution::Known => {}
        Resolution::Wins(causality) => {
            let context_id = match &causality.context {
                Some(both) => tx.intern(both)?,
                None => at.context_id(tx, row.context, context)?,
            };
            let differs = found.as_ref().is_some_and(|found| found.differs(value));
            let concurrent = causality.concurrent && differs;
            at.conflicts += u32::from(concurrent);
            let (stamp, seq) = (row.stamp, row.seq);
            let origin =
                Origin::Arrived(ArrivedVersion { stamp, seq, context_id, context, concurrent });
            let present = found.as_ref().map(ExistingRow::present);
            let lsn = versions::put_version(tx, place, &row.key, present, value, origin)?;
            mark(tx, at, lsn)?;
        }
        Resolution::Loses { causality, re_announce } => {
            let Some(found) = found else { return Ok(()) };
            let losing = (causality.concurrent && found.differs(value)).then_some(LosingVersion {
                hlc: row.stamp.hlc,
                dot: row.dot(),
                value,
            });
            at.conflicts += u32::from(losing.is_some());
            let context = causality.context.as_ref();
            versions::keep_version(tx, place, &row.key, &found, losing.as_ref(), context)?;
            let mut lsn = found.lsn;
            if re_announce {
                lsn = versions::re_announce(tx, place, &found)?;
            }
            mark(tx, at, lsn)?;
        }
    }
    Ok(())
}

/// Puts a version in the place of a damaged one, where it is as late: its source has incorporated the write that
/// the damaged one was, or its timestamp is no earlier. An older one would hide what others may still have.
fn replace_damaged(
    tx: &mut Tx<'_>,
    at: &mut BatchInProgress<'_>,
    row: &RowVersion,
    found: &ExistingRow,
    context: &VersionVector,
) -> Result<(), CommandError> {
    let is_as_late = at.batch.vector.covers(found.side().dot()) || row.stamp.hlc >= found.stamp.hlc;
    let mut lsn = found.lsn;
    if is_as_late {
        let context_id = at.context_id(tx, row.context, context)?;
        let (stamp, seq, concurrent) = (row.stamp, row.seq, false);
        let origin =
            Origin::Arrived(ArrivedVersion { stamp, seq, context_id, context, concurrent });
        let (present, value) = (Some(found.present()), row.value.as_deref());
        lsn = versions::put_version(tx, at.place, &row.key, present, value, origin)?;
    }
    mark(tx, at, lsn).map_err(CommandError::from)
}

/// A row that only an earlier snapshot transfer has delivered may have been deleted since.
#[mutant(MarksOfOneSnapshot => Ok(()))]
fn begin_marks(tx: &Tx<'_>, table: TableId, from: &NodeName) -> Result<(), StoreError> {
    clear_marks(tx, table, from)
}

/// Forgets what a snapshot transfer has delivered.
fn clear_marks(tx: &Tx<'_>, table: TableId, from: &NodeName) -> Result<(), StoreError> {
    let statement = "DELETE FROM marks WHERE table_id = ?1 AND peer = ?2";
    tx.execute(statement, params![table.0, from.as_str()])?;
    Ok(())
}

/// Notes that a full snapshot transfer has delivered a version.
fn mark(tx: &mut Tx<'_>, at: &BatchInProgress<'_>, lsn: u64) -> Result<(), StoreError> {
    if at.batch.is_whole() {
        tx.execute(
            "INSERT OR IGNORE INTO marks (table_id, peer, lsn) VALUES (?1, ?2, ?3)",
            params![at.place.id.0, at.from.as_str(), lsn],
        )?;
    }
    Ok(())
}

/// Rows of the directory: each has one writer, so that none meets another of another writer.
fn incorporate_directory(
    tx: &mut Tx<'_>,
    at: &mut BatchInProgress<'_>,
    rows: &[VerifiedRow],
) -> Result<(), CommandError> {
    learn::learn(tx, rows)?;
    for row in rows.iter().filter(|_| at.batch.is_whole()) {
        if let Some(found) = versions::find(tx, at.place.id, &row.sealed.key)? {
            mark(tx, at, found.lsn)?;
        }
    }
    Ok(())
}

/// Moves the position, and raises the vector where that is allowed.
fn conclude(
    tx: &mut Tx<'_>,
    place: RowTable<'_>,
    from: &NodeName,
    batch: &Batch,
    snapshot: &TransferInProgress,
) -> Result<(), CommandError> {
    let BatchEffects { position, join, sweep, whole } =
        batch.conclude(snapshot.number, snapshot.start.clone());
    if let Some(sweep) = &sweep {
        sweep_rows(tx, place, from, sweep)?;
    }
    let becomes_whole = makes_whole(batch, whole)
        && tx.state.replicas.get(place.uid).is_some_and(|replica| !replica.ready);
    if becomes_whole {
        tx.draw_lsn(); // so that it is passed on, even where no row has come
    }
    let lsn = tx.state.lsn;
    if let Some(replica) = tx.state.replicas.get_mut(place.uid) {
        if let Some(sweep) = &sweep {
            inherit_watermark(replica, &sweep.gc_watermark);
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
        tx.state.actors.enter(tx.conn, dot.actor, batch.hlc)?;
    }
    if position.snapshot.is_none() && matches!(batch.part, Part::Snapshot { .. }) {
        clear_marks(tx, place.id, from)?;
    }
    cursors::put_cursor(tx, place.id, from, &position, &snapshot.start)?;
    if becomes_whole && let Some(entry) = place.entry {
        entries::refresh(tx, entry.table.uid);
        let shown = tx.state.catalog.show(&entry.table.name);
        let text = format!("{shown} is whole on this machine, filled from {from}");
        tx.note_of(&entry.table.name, "table_ready", text)?;
    }
    Ok(())
}

/// True where a replica is whole by this batch, if it was not: all was read, of one that has all.
#[mutant(ReadyFromReady => whole)]
fn makes_whole(batch: &Batch, whole: bool) -> bool {
    whole && batch.ready
}

/// Whoever reads of this replica learns as little of those deletions as this one has.
#[mutant(WatermarkInherited => ())]
fn inherit_watermark(replica: &mut Replica, of_source: &VersionVector) {
    replica.gc_watermark.join(of_source);
}

/// Removes what a full snapshot transfer has not delivered although its source has seen it: it was deleted, and
/// the deletion was forgotten. Readers of this replica learn of it by the GC watermark, which covers the
/// deletions.
#[mutant(FullSnapshotSweeps => Ok(()))]
fn sweep_rows(
    tx: &mut Tx<'_>,
    place: RowTable<'_>,
    from: &NodeName,
    sweep: &Sweep,
) -> Result<(), CommandError> {
    let (mut after, mut swept) = (Vec::new(), 0_u64);
    loop {
        let keys = unmarked(tx, place.id, from, &after)?;
        let Some((last, _)) = keys.last() else { break };
        after.clone_from(last);
        for (key, dot) in keys {
            if sweep.covered.covers(dot)
                && let Some(found) = versions::find(tx, place.id, &key)?
            {
                versions::remove_version(tx, place, &key, &found)?;
                swept += 1;
            }
        }
    }
    if swept > 0
        && let Some(entry) = place.entry
    {
        let shown = tx.state.catalog.show(&entry.table.name);
        let text = format!("{swept} rows of {shown} went, {from} has forgotten their deletion");
        tx.note_of(&entry.table.name, "rows_swept", text)?;
    }
    Ok(())
}

/// Some rows that a snapshot transfer has not delivered, by their keys.
fn unmarked(
    tx: &Tx<'_>,
    table: TableId,
    from: &NodeName,
    after: &[u8],
) -> Result<Vec<(Vec<u8>, Dot)>, StoreError> {
    let mut statement = tx.cached(
        "SELECT key, actor, seq FROM records r
         WHERE table_id = ?1 AND key > ?3 AND NOT EXISTS
           (SELECT 1 FROM marks m WHERE m.table_id = ?1 AND m.peer = ?2 AND m.lsn = r.lsn)
         ORDER BY key LIMIT ?4",
    )?;
    let rows = statement.query_map(params![table.0, from.as_str(), after, SWEEP_SLICE], |row| {
        let actor = tx.state.actors.id(row.get(1)?);
        Ok((row.get(0)?, Dot { actor, seq: row.get(2)? }))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The table that a batch is of, made here where it is not known yet.
fn table_of(tx: &mut Tx<'_>, batch: &Batch) -> Result<Arc<Entry>, CommandError> {
    let missing =
        || StoreError::Corrupt("another machine has sent rows without their table".into());
    let head = batch.head.as_ref().ok_or_else(missing)?;
    if let Some(entry) = tx.state.catalog.by_uid(batch.table) {
        let entry = Arc::clone(entry);
        return earlier_head(tx, &entry, head);
    }
    let name = believe(tx, batch.table, &head.name)?;
    if tx.state.catalog.find(&name.owner, name.name.as_str()).is_some() {
        let shown = tx.state.catalog.show(&name);
        let text = format!("{shown} is another table here, that of other machines is not taken");
        tx.note(&Event { uid: None, kind: "table_name_taken", text })?;
        return Err(Refusal::AlreadyExists.into());
    }
    let held = tx.state.catalog.namespace(&name.owner).map_or(0, |n| n.tables().len());
    if held >= tx.limits.tables_per_uid {
        return Err(Refusal::TooManyTables(tx.limits.tables_per_uid).into());
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
    entries::insert_table(tx, table, head.created)
}

/// Whose a table is said to be must be so by what its owner's node has signed.
fn believe(
    tx: &Tx<'_>,
    table: TableUid,
    name: &QualifiedName,
) -> Result<QualifiedName, CommandError> {
    let directory = tx.state.catalog.directory();
    let here = tx.here()?;
    if let Some(transferred) = directory.transferred(table) {
        return entries::name_here(tx, table, transferred); // the sender may not know of it yet
    }
    let is_so = match &name.owner {
        Owner::Identity(id) => tx
            .state
            .signer
            .as_ref()
            .is_some_and(|signer| directory.is_named(signer.mesh(), table, *id, &name.name)),
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
fn earlier_head(
    tx: &mut Tx<'_>,
    entry: &Arc<Entry>,
    head: &Head,
) -> Result<Arc<Entry>, CommandError> {
    if (head.created, &head.attributes) >= (entry.created, &entry.table.attributes) {
        return Ok(Arc::clone(entry));
    }
    let listed: Vec<_> = head.attributes.iter().map(AttributeName::as_str).collect();
    tx.execute(
        "UPDATE tables SET attributes = ?2, created_hlc = ?3 WHERE id = ?1",
        params![entry.table.id.0, listed.join(","), head.created.to_i64()],
    )?;
    let lsn = tx.draw_lsn();
    if let Some(replica) = tx.state.replicas.get_mut(entry.table.uid) {
        replica.last_lsn = lsn; // so that it is passed on
    }
    if head.attributes != entry.table.attributes {
        let shown = tx.state.catalog.show(&entry.table.name);
        let text = format!(
            "{shown} was created twice, the first one's attributes count: {}",
            listed.join(", ")
        );
        tx.note_of(&entry.table.name, "table_attributes", text)?;
    }
    let mut entry = Entry::clone(entry);
    entry.table.attributes.clone_from(&head.attributes);
    entry.created = head.created;
    let uid = entry.table.uid;
    tx.catalog_mut().insert(entry);
    entries::refresh(tx, uid);
    tx.state.catalog.by_uid(uid).cloned().ok_or_else(|| StoreError::Closed.into())
}

/// The snapshot transfer that a batch belongs to.
#[derive(Clone, Debug)]
struct TransferInProgress {
    number: u64,
    start: SnapshotStart,
}

/// A batch whose rows are being taken.
struct BatchInProgress<'c> {
    place: RowTable<'c>,
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

impl BatchInProgress<'_> {
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
