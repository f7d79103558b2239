//! Batches for other replicas, read in one transaction each, so that the rows and what is said of them are of
//! one moment. Which rows, and who may have them, is decided by `cortex_core`.

use std::{collections::BTreeSet, sync::Arc};

use cortex_core::{
    directory::{Directory, Standing},
    model::{Hlc, NodeName, Owner, QualifiedName, Stamp, TableId},
    replication::{
        Batch, Dot, Head, Part, Plan, PullRequest, RowVersion, SnapshotKind, Source, VersionVector,
        Why,
    },
};
use cortex_mutant::mutant;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    actors::Actors,
    catalog::{Catalog, Entry},
    checksum::StoredRow,
    contexts,
    damage::Damage,
    error::StoreError,
    recent::Recent,
    replica::{self, Replica},
    system,
};

/// What goes into one batch. Each ends in a transaction of the reader, and is a place to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchBounds {
    /// Rows at most.
    pub rows: usize,
    /// Bytes of keys and values from which it is enough.
    pub bytes: usize,
    /// Entries of the change log that are looked at, stale ones included.
    pub entries: usize,
    /// The LSN up to which nothing in the change log is for the reader, as was found out before.
    pub passed: u64,
}

impl Default for BatchBounds {
    fn default() -> Self {
        Self { rows: 1024, bytes: 512 << 10, entries: 16_384, passed: 0 }
    }
}

/// What a request for rows comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchRead {
    /// Rows, or at least what the source knows.
    Batch(Box<Batch>),
    /// The reader has everything.
    Nothing,
    /// There is nothing for this reader.
    Refused(BatchRefusal),
}

/// Why a request for rows is not answered with any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchRefusal {
    /// There is no replica here.
    NoReplica,
    /// The reader may not have the rows, as far as is known here.
    NotInScope,
    /// Its replica epoch is not known here yet, or not any more.
    UnknownEpoch,
    /// A row that comes next is damaged.
    Damaged,
    /// Not just now.
    Busy,
}

impl From<BatchRefusal> for Why {
    fn from(why: BatchRefusal) -> Self {
        match why {
            BatchRefusal::NoReplica => Self::NoReplica,
            BatchRefusal::NotInScope => Self::NotInScope,
            BatchRefusal::UnknownEpoch => Self::UnknownEpoch,
            BatchRefusal::Damaged => Self::Damaged,
            BatchRefusal::Busy => Self::Busy,
        }
    }
}

impl BatchRead {
    /// With the draining that the source wants acknowledged.
    pub(super) fn draining(mut self, drain: Option<[u8; 16]>) -> Self {
        if let Self::Batch(batch) = &mut self {
            batch.drain = drain;
        }
        self
    }
}

/// The database that is read from.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) conn: &'a Connection,
    pub(super) actors: &'a Actors,
    /// Takes note of rows that are not what was stored.
    pub(super) damage: &'a Damage,
}

/// Reads what a reader wants. The transaction is open already.
pub(super) fn read_batch(
    file: File<'_>,
    catalog: &Catalog,
    reader: &NodeName,
    want: &PullRequest,
    bounds: BatchBounds,
) -> Result<BatchRead, StoreError> {
    let File { conn, actors, .. } = file;
    let directory = catalog.directory();
    let Some(here) = directory.here() else {
        return Ok(BatchRead::Refused(BatchRefusal::NoReplica));
    };
    if let Some(why) = objection(directory, reader, want) {
        return Ok(BatchRead::Refused(why));
    }
    let Some(replica) = SourceReplica::load(conn, actors, want)? else {
        return Ok(BatchRead::Refused(BatchRefusal::NoReplica));
    };
    let plan = replica.plan(want);
    let mut reading = Reading::new(file, replica.table, &plan, want, bounds);
    let part = match &plan {
        Plan::Delta { after } => {
            let stopped = reading.change_log(replica.table, *after)?;
            let (to, last) = (replica.leads_to(stopped), reading.is_end(stopped));
            // A replica that drains needs an ack that the reader has everything: only batches are acknowledged.
            if last && replica.has_all(*after, want) && replica.standing(directory) != Standing::Out
            {
                return Ok(BatchRead::Nothing);
            }
            Part::Delta { to, last }
        }
        Plan::Snapshot { kind, starts, after, pinned } => {
            let reached = reading.keys(replica.table, after)?;
            replica.snapshot_part(*kind, *starts, *pinned, reached)
        }
    };
    // The reader would count what comes after a damaged row as complete.
    if reading.stopped && reading.rows.is_empty() {
        return Ok(BatchRead::Refused(BatchRefusal::Damaged));
    }
    let is_system = want.table == system::UID;
    if is_system {
        reading.bring_signers(replica.table, directory)?;
    }
    let (rows, contexts) = (reading.rows, reading.contexts);
    let contexts: Vec<VersionVector> =
        contexts.iter().map(|id| load_context(conn, actors, *id)).collect::<Result<_, _>>()?;
    let entry = if is_system { None } else { load_entry(conn, replica.table)? };
    let head = entry.map(|entry| head_of(&entry, here));
    Ok(replica.batch(want, directory, Content { part, contexts, rows, head }))
}

/// The same from memory; none where that does not do, and the file must be read. The replica and the changes are
/// of one commit, and the catalog is none before that.
pub(super) fn read_recent_batch(
    replica: &Arc<Replica>,
    recent: &Recent,
    catalog: &Catalog,
    reader: &NodeName,
    want: &PullRequest,
    bounds: BatchBounds,
) -> Option<BatchRead> {
    let directory = catalog.directory();
    let here = directory.here()?;
    // Rows of the directory go with what their signers have said of themselves.
    if want.table == system::UID || objection(directory, reader, want).is_some() {
        return None;
    }
    let head = head_of(catalog.by_uid(want.table)?, here);
    let replica = Arc::clone(replica);
    let replica =
        SourceReplica { table: replica.table?, lsn: recent.lsn, hlc: recent.hlc, replica };
    let plan = (replica.replica.epoch > 0).then(|| replica.plan(want))?;
    let Plan::Delta { after } = plan else { return None };
    let changes = recent.since(want.table, bounds.passed.max(after))?;
    let (mut contexts, mut rows, mut bytes): (Vec<VersionVector>, _, _) =
        (Vec::new(), Vec::new(), 0);
    for change in changes.into_iter().filter(|row| plan.sends(row.dot(), false, &want.vector)) {
        bytes += change.bytes();
        let known = contexts.iter().rposition(|known| *known == *change.context);
        let context = known.unwrap_or_else(|| {
            contexts.push(VersionVector::clone(&change.context));
            contexts.len() - 1
        });
        let (key, value) = (change.key.clone(), change.value.clone());
        rows.push(RowVersion { key, value, stamp: change.stamp, seq: change.seq, context });
    }
    if rows.len() > bounds.rows || bytes > bounds.bytes {
        return None;
    }
    if replica.has_all(after, want) && replica.standing(directory) != Standing::Out {
        return Some(BatchRead::Nothing);
    }
    let part = Part::Delta { to: replica.lsn, last: true };
    Some(replica.batch(want, directory, Content { part, contexts, rows, head: Some(head) }))
}

/// Why a reader may not have a table's rows, if it may not.
fn objection(directory: &Directory, reader: &NodeName, want: &PullRequest) -> Option<BatchRefusal> {
    if want.table == system::UID {
        return None;
    }
    if !is_in_scope(directory, reader, want) {
        return Some(BatchRefusal::NotInScope);
    }
    (!is_current_epoch(directory, reader, want)).then_some(BatchRefusal::UnknownEpoch)
}

#[mutant(ReaderInScope => true)]
fn is_in_scope(directory: &Directory, reader: &NodeName, want: &PullRequest) -> bool {
    directory.standing(want.table, reader) == Standing::In
}

/// True where the reader's epoch is known to have begun here, and not to have ended.
#[mutant(ReaderStayKnown => true)]
fn is_current_epoch(directory: &Directory, reader: &NodeName, want: &PullRequest) -> bool {
    let known = directory.epochs(want.table).get(reader).copied().unwrap_or(0);
    let gone = directory.gone(want.table).get(reader).copied().unwrap_or(0);
    known == want.epoch && want.epoch > gone
}

/// A replica as it is at one moment.
struct SourceReplica {
    table: TableId,
    replica: Arc<Replica>,
    lsn: u64,
    hlc: Hlc,
}

/// What is read of it.
struct Content {
    part: Part,
    contexts: Vec<VersionVector>,
    rows: Vec<RowVersion>,
    head: Option<Head>,
}

impl SourceReplica {
    fn load(
        conn: &Connection,
        actors: &Actors,
        want: &PullRequest,
    ) -> Result<Option<Self>, StoreError> {
        let replica = replica::load_one(conn, actors, want.table)?;
        let Some((replica, table)) =
            replica.filter(|r| r.epoch > 0).and_then(|r| r.table.map(|table| (r, table)))
        else {
            return Ok(None);
        };
        let (lsn, hlc) = conn
            .prepare_cached("SELECT lsn, hlc FROM node_state WHERE id = 1")?
            .query_row([], |row| Ok((row.get(0)?, Hlc::from_i64(row.get(1)?))))?;
        Ok(Some(Self { table, replica: Arc::new(replica), lsn, hlc }))
    }

    fn plan(&self, want: &PullRequest) -> Plan {
        let Replica { change_log, truncated_lsn, gc_watermark, .. } = &*self.replica;
        Source {
            change_log: *change_log,
            lsn: self.lsn,
            truncated_lsn: *truncated_lsn,
            gc_watermark,
        }
        .plan(want)
    }

    /// True where a reader that stands there in the change log lacks nothing. A replica that drains needs an ack of
    /// it all the same: only batches are acknowledged.
    fn has_all(&self, after: u64, want: &PullRequest) -> bool {
        after >= self.replica.last_lsn && want.vector.dominates(&self.replica.vector)
    }

    /// Where a part of the change log brings its reader: also past entries that are not for it, and no further
    /// than was looked at.
    #[mutant(CursorAtLastScanned => self.lsn)]
    fn leads_to(&self, stopped: Option<u64>) -> u64 {
        stopped.unwrap_or(self.lsn)
    }

    /// A part of a snapshot transfer. What is written meanwhile to keys that it has passed comes by the change log,
    /// from where that was at the beginning.
    #[mutant(ChangeLogFromSnapshotStart, pinned = if reached.is_none() { self.lsn } else { pinned })]
    fn snapshot_part(
        &self,
        kind: SnapshotKind,
        starts: bool,
        pinned: u64,
        reached: Option<Vec<u8>>,
    ) -> Part {
        Part::Snapshot { kind, starts, pinned, reached }
    }

    fn standing(&self, directory: &Directory) -> Standing {
        match directory.here() {
            Some(here) if self.replica.uid != system::UID => {
                directory.standing(self.replica.uid, here)
            }
            Some(_) | None => Standing::In,
        }
    }

    fn batch(&self, want: &PullRequest, directory: &Directory, content: Content) -> BatchRead {
        let replica = &self.replica;
        let last = matches!(content.part, Part::Delta { last: true, .. });
        BatchRead::Batch(Box::new(Batch {
            table: want.table,
            reader: want.reader,
            from: want.position.clone(),
            change_log: replica.change_log,
            part: content.part,
            contexts: content.contexts,
            rows: content.rows,
            vector: replica.vector.clone(),
            gc_watermark: replica.gc_watermark.clone(),
            hlc: self.hlc,
            ready: replica.ready,
            epoch: replica.epoch,
            standing: self.standing(directory),
            knowledge: directory.scope_knowledge(want.table),
            removed: directory.removals().copied().collect(),
            head: content.head,
            drain: None,
            digest: last.then_some(replica.digest),
        }))
    }
}

/// Rows that are being gathered.
struct Reading<'a> {
    file: File<'a>,
    table: TableId,
    plan: &'a Plan,
    want: &'a PullRequest,
    bounds: BatchBounds,
    rows: Vec<RowVersion>,
    bytes: usize,
    /// True where a damaged row has ended it.
    stopped: bool,
    /// The numbers of the contexts that the rows refer to, in the order of their indices.
    contexts: Vec<Option<i64>>,
}

impl<'a> Reading<'a> {
    fn new(
        file: File<'a>,
        table: TableId,
        plan: &'a Plan,
        want: &'a PullRequest,
        bounds: BatchBounds,
    ) -> Self {
        let (rows, contexts) = (Vec::new(), Vec::new());
        Self { file, table, plan, want, bounds, rows, bytes: 0, stopped: false, contexts }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.bounds.rows || self.bytes >= self.bounds.bytes
    }

    /// True at the end of the change log. A part without rows for the reader is not it: entries may be stale.
    #[mutant(EndIsTheEnd => stopped.is_none() || self.rows.is_empty())]
    fn is_end(&self, stopped: Option<u64>) -> bool {
        stopped.is_none()
    }

    /// Reads the change log from after a number. Answers the last that was looked at; none at the end.
    fn change_log(&mut self, table: TableId, after: u64) -> Result<Option<u64>, StoreError> {
        let mut statement = self.file.conn.prepare_cached(
            "SELECT r.key, r.value, r.hlc, r.actor, r.seq, r.checksum, r.context, r.re_announced,
                    f.lsn, r.lsn
             FROM change_log f LEFT JOIN records r ON r.id = f.record
             WHERE f.table_id = ?1 AND f.lsn > ?2 ORDER BY f.lsn",
        )?;
        let after = self.bounds.passed.max(after);
        let mut entries = statement.query(params![table.0, after])?;
        let (mut to, mut seen) = (after, 0);
        while seen < self.bounds.entries && !self.is_full() {
            let Some(entry) = entries.next()? else {
                return Ok(None);
            };
            let lsn = entry.get(8)?;
            if entry.get::<_, Option<u64>>(9)? == Some(lsn) && !self.take(entry)? {
                break;
            }
            (to, seen) = (lsn, seen + 1);
        }
        Ok(Some(to))
    }

    /// Reads rows in the order of their keys, from after one. Answers the last; none at the end.
    fn keys(&mut self, table: TableId, after: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement = self.file.conn.prepare_cached(
            "SELECT key, value, hlc, actor, seq, checksum, context, re_announced FROM records
             WHERE table_id = ?1 AND key > ?2 ORDER BY key",
        )?;
        // No key is empty, so that all come after the empty one.
        let mut found = statement.query(params![table.0, after])?;
        let (mut reached, mut seen) = (None, 0);
        while seen < self.bounds.entries && !self.is_full() {
            let Some(row) = found.next()? else {
                return Ok(None);
            };
            if !self.take(row)? {
                break;
            }
            seen += 1;
            reached = Some(row.get(0)?);
        }
        Ok(Some(reached.unwrap_or_else(|| after.to_vec())))
    }

    /// Adds what the writers of the rows have said of themselves, where the reader may not know it yet:
    /// their signatures are judged by it, and it may come last in the order of keys or of changes.
    fn bring_signers(&mut self, table: TableId, directory: &Directory) -> Result<(), StoreError> {
        let mut keys: BTreeSet<Vec<u8>> = BTreeSet::new();
        for row in &self.rows {
            let signer = row.value.as_deref().and_then(|value| system::signer(&row.key, value));
            let presented = signer.and_then(|signer| directory.node(&signer).cloned());
            keys.extend(presented.map(|node| cortex_core::directory::Row::Node(node).key().into()));
        }
        self.rows.iter().for_each(|row| {
            keys.remove(&row.key);
        });
        let mut statement = self.file.conn.prepare_cached(
            "SELECT key, value, hlc, actor, seq, checksum, context, re_announced FROM records
             WHERE table_id = ?1 AND key = ?2",
        )?;
        for key in keys {
            let mut found = statement.query(params![table.0, key])?;
            if let Some(row) = found.next()? {
                self.take(row)?;
            }
        }
        Ok(())
    }

    /// Adds a row, where the reader needs it. False where it is damaged.
    fn take(&mut self, row: &Row<'_>) -> Result<bool, StoreError> {
        let actor = self.file.actors.id(row.get(3)?);
        let seq = row.get(4)?;
        if !self.plan.sends(Dot { actor, seq }, row.get(7)?, &self.want.vector) {
            return Ok(true);
        }
        if !self.is_sound(row)? {
            self.stopped = true;
            return Ok(false);
        }
        let id: Option<i64> = row.get(6)?;
        let known = self.contexts.iter().rposition(|known| *known == id);
        let context = known.unwrap_or_else(|| {
            self.contexts.push(id);
            self.contexts.len() - 1
        });
        let (key, value): (Vec<u8>, Option<Vec<u8>>) = (row.get(0)?, row.get(1)?);
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len) + 32;
        let stamp = Stamp { hlc: Hlc::from_i64(row.get(2)?), actor };
        self.rows.push(RowVersion { key, value, stamp, seq, context });
        Ok(true)
    }

    fn is_sound(&self, row: &Row<'_>) -> Result<bool, StoreError> {
        let (stored, checksum) = StoredRow::read(self.table, row)?;
        let sound = stored.is_sound(checksum);
        if !sound {
            self.file.damage.found(self.table, stored.key);
        }
        Ok(sound)
    }
}

fn load_context(
    conn: &Connection,
    actors: &Actors,
    id: Option<i64>,
) -> Result<VersionVector, StoreError> {
    id.map_or_else(|| Ok(VersionVector::new()), |id| contexts::load(conn, actors, id))
}

fn load_entry(conn: &Connection, table: TableId) -> Result<Option<Entry>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, uid, owner, name, attributes, scope, replicated, records, bytes, created_hlc
         FROM tables WHERE id = ?1",
    )?;
    let mut rows = statement.query([table.0])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    Ok(Some(super::catalog::entry_from(row)?))
}

/// A table as others receive it: the owner qualified with this machine, where it is a uid of it.
fn head_of(entry: &Entry, here: &NodeName) -> Head {
    let QualifiedName { owner, name } = entry.table.name.clone();
    let owner = match owner {
        Owner::Uid(uid) => Owner::Remote(uid, here.clone()),
        Owner::Remote(..) | Owner::Identity(_) => owner,
    };
    let name = QualifiedName { owner, name };
    Head { name, attributes: entry.table.attributes.clone(), created: entry.created }
}

/// True where a full snapshot transfer over a table is under way here: it collects nothing meanwhile.
pub(super) fn is_in_full_snapshot(conn: &Connection, table: TableId) -> Result<bool, StoreError> {
    let running = conn
        .prepare_cached("SELECT 1 FROM cursors WHERE table_id = ?1 AND whole = 1 LIMIT 1")?
        .query_row([table.0], |_| Ok(()))
        .optional()?;
    Ok(running.is_some())
}

/// The LSN of the last change of the directory.
pub(super) fn system_change_log(conn: &Connection) -> Result<u64, StoreError> {
    Ok(replica::last_change(conn, system::UID)?.unwrap_or(0))
}

/// The LSN of the newest entry that is one too many.
pub(super) fn change_log_excess(
    conn: &Connection,
    table: TableId,
    keep: u64,
) -> Result<Option<u64>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT lsn FROM change_log WHERE table_id = ?1 ORDER BY lsn DESC LIMIT 1 OFFSET ?2",
    )?;
    Ok(statement.query_row(params![table.0, keep], |row| row.get(0)).optional()?)
}
