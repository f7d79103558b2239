//! Comparing the replicas of a table row by row, and mending what differs: sync_repair, and what it asks of others.
//! Digests and rows are read by the store; what an ordinary write would decide is not decided here.
//!
//! ```text
//!   here                                   each reachable node in the scope
//!   digest and counts from the rows        the same, before it answers
//!   digests of buckets <── sync_buckets ── the same
//!   rows of those that differ <── sync_marks
//!   newer here ──> re-announced                     newer there ── sync_push ──> the same there
//!   one write, two contents ──> re-announced by both sides, and `resolve` decides
//!   on one side, not seen by the other ──> on its way, the usual synchronisation brings it
//!   on one side, seen by the other     ──> lost there: written again. Where it may have been deleted: kept as it is
//!   until they are equal or half a minute is over: digests; then, from the rows on both sides, sync_digest
//! ```
//!
//! What a side covers is always read before its rows. So a row that is missing there and covered there was
//! covered before it was looked for: it is not one that is just arriving.

mod verdict;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cortex_core::{
    api::{
        self, BUCKETS, Bin, BucketDigests, Buckets, ComparedNode, DifferingKey, Prefer,
        PushOptions, PushedKeys, RepairReport, ReplicaSummary, Request, RowMark, RowMarks, Verdict,
    },
    directory::Standing,
    model::{Caller, NodeName, Permissions, Refusal, TableUid, Uid},
    replication::{Dot, TableDigest},
};
use tokio::sync::Semaphore;

use verdict::{Rows, by_key, verdicts};

use super::{
    Answer, Service,
    mesh::{Answered, AskError, Mesh},
    read, scrub,
    sync::SyncView,
};
use crate::{
    store::{
        AuditReport, Command, CommandError, Entry, RecordCommand, Store, StoreError, blocking,
    },
    sys::clock,
};

/// Whole tables that are read to be compared at a time.
pub(super) const AT_A_TIME: usize = 2;

/// How long another node may take to read a whole table.
const ASK_TIME: Duration = Duration::from_secs(60);

/// How long is waited for the replicas to become equal, and how often is looked.
const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(30);
const CONVERGENCE_POLL: Duration = Duration::from_millis(250);

/// Rows that are compared in one go, so that memory does not grow with the table.
const ROWS_AT_ONCE: u64 = 10_000;

/// Keys that a report names.
const NAMED: usize = 100;

/// A repair under way.
#[derive(Debug)]
struct Repair {
    caller: Caller,
    entry: Arc<Entry>,
    store: Store,
    mesh: Mesh,
    comparisons: Arc<Semaphore>,
    view: Arc<SyncView>,
    dry_run: bool,
    /// What to do about rows that one side has and the other has seen: a loss and a deletion look the same.
    prefer: Option<Prefer>,
}

impl Service {
    /// `sync_repair [table]` or `[table, {dry_run, prefer}]`.
    pub(super) fn sync_repair(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        self.signer()?;
        let api::SyncRepair { table, options } = read(params)?;
        let api::RepairOptions { dry_run, prefer } = options;
        let mesh = self.mesh().ok_or_else(|| self.without_mesh())?.clone();
        let needed = match prefer {
            None => Permissions::ADMIN,
            Some(Prefer::Present | Prefer::Absent) => Permissions::ADMIN.union(Permissions::WRITE),
        };
        let entry = self.open(caller, table, needed)?;
        entry.takes_reads()?;
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        let nodes = directory.in_scope(entry.table.uid);
        let nodes = nodes.into_iter().filter(|node| Some(node) != directory.here()).collect();
        let name = catalog.show(&entry.table.name);
        let repair = Repair {
            caller: caller.clone(),
            entry,
            store: self.store.clone(),
            mesh,
            comparisons: Arc::clone(&self.comparisons),
            view: Arc::clone(&self.sync),
            dry_run,
            prefer,
        };
        Ok(Answer::later(async move { repair.run(name, nodes).await }))
    }

    /// Looks for the rows in which the replica here and another differ, and names them in what is known of that
    /// replica.
    pub async fn name_differences(&self, table: TableUid, node: &NodeName) {
        let Some(mesh) = self.mesh().cloned() else { return };
        let Some(entry) = self.store.catalog().by_uid(table).cloned() else { return };
        let look = Repair {
            caller: Caller::Local(Uid(0)),
            entry,
            store: self.store.clone(),
            mesh,
            comparisons: Arc::clone(&self.comparisons),
            view: Arc::clone(&self.sync),
            dry_run: true,
            prefer: None,
        };
        let found = async {
            recompute(&look.store, &look.entry, &look.comparisons).await?;
            let own = buckets(&look.store, &look.entry, &look.comparisons).await?;
            look.compare(node, &own).await
        };
        match found.await {
            Ok(found) => {
                let keys =
                    found.keys.into_iter().map(|differing| differing.key.into_bytes()).collect();
                self.sync.update(table, node, |known| known.differs = keys);
            }
            Err(trouble) => tracing::debug!(?trouble, %node, "two replicas were not compared"),
        }
    }

    /// `sync_buckets [table_id]`: another node in the scope asks for the digests of the rows here.
    pub(super) fn sync_buckets(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::SyncBuckets { table } = read(params)?;
        let entry = self.compared_by(caller, table, api::SyncBuckets::invalid)?;
        let (store, comparisons) = (self.store.clone(), Arc::clone(&self.comparisons));
        Ok(Answer::later(async move {
            recompute(&store, &entry, &comparisons).await?;
            let summary = summary(&store, &entry)?;
            let digests = buckets(&store, &entry, &comparisons).await?;
            Ok(BucketDigests { summary, digests })
        }))
    }

    /// `sync_marks [table_id, [buckets]]` or `[table_id, [buckets], after]`: another node in the scope asks for
    /// the rows of some buckets, without their values.
    pub(super) fn sync_marks(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::SyncMarks { table, buckets: Buckets(wanted), after } = read(params)?;
        let entry = self.compared_by(caller, table, api::SyncMarks::invalid)?;
        let after = after.map(|Bin(after)| after.to_vec());
        let (store, comparisons) = (self.store.clone(), Arc::clone(&self.comparisons));
        Ok(Answer::later(async move {
            let summary = summary(&store, &entry)?;
            let mut marks = marks(&store, &entry, wanted, &comparisons).await?;
            let before = after.map_or(0, |after| marks.partition_point(|mark| mark.key <= after));
            marks.drain(..before);
            Ok(RowMarks::bounded(summary, marks))
        }))
    }

    /// `sync_digest [table_id]`: another node in the scope asks what the rows here come to, recomputed from them.
    pub(super) fn sync_digest(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::SyncDigest { table } = read(params)?;
        let entry = self.compared_by(caller, table, api::SyncDigest::invalid)?;
        let (store, comparisons) = (self.store.clone(), Arc::clone(&self.comparisons));
        Ok(Answer::later(async move {
            recompute(&store, &entry, &comparisons).await?;
            summary(&store, &entry)
        }))
    }

    /// `sync_push [table_id, [keys]]` or `[table_id, [keys], {again}]`: another node in the scope lacks rows that
    /// are here, and shall get them re-announced, or have them written once more.
    pub(super) fn sync_push(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::SyncPush { table, keys, options } = read(params)?;
        let entry = self.compared_by(caller, table, api::SyncPush::invalid)?;
        let keys = keys.into_keys();
        Ok(Answer::Commit(if options.again {
            Command::Records(RecordCommand::Rewrite { entry, keys })
        } else {
            Command::Records(RecordCommand::ReAnnounce { entry, keys })
        }))
    }

    /// The table that another node compares its replica of with the one here. Both must be in its scope.
    fn compared_by(
        &self,
        caller: &Caller,
        Bin(table): Bin<'_>,
        invalid: fn() -> Refusal,
    ) -> Result<Arc<Entry>, Refusal> {
        let Caller::Peer { node, .. } = caller else {
            return Err(Refusal::AccessDenied);
        };
        let table = table.try_into().map(TableUid).map_err(|_| invalid())?;
        let catalog = self.store.catalog();
        let entry = catalog.by_uid(table).ok_or(Refusal::AccessDenied)?;
        if catalog.directory().standing(table, node) != Standing::In {
            return Err(Refusal::AccessDenied);
        }
        entry.takes_reads()?;
        Ok(Arc::clone(entry))
    }
}

impl Repair {
    async fn run(self, table: String, nodes: Vec<NodeName>) -> Result<RepairReport, CommandError> {
        let report = recompute(&self.store, &self.entry, &self.comparisons).await?;
        let own = buckets(&self.store, &self.entry, &self.comparisons).await?;
        let mut compared = BTreeMap::new();
        for node in nodes {
            let found = match self.compare(&node, &own).await {
                Ok(found) => found,
                Err(RepairError::Remote(error)) => {
                    ComparedNode { why: Some(error.to_string()), ..beginning(&node) }
                }
                Err(RepairError::Local(failure)) => return Err(failure),
            };
            compared.insert(node, found);
        }
        self.verify(&mut compared).await?;
        Ok(RepairReport {
            table,
            dry_run: self.dry_run,
            corrected: report.corrected,
            damaged: report.damaged,
            verified: compared.values().all(|found| found.verified),
            compared: compared.into_values().collect(),
        })
    }

    async fn compare(
        &self,
        node: &NodeName,
        own: &[TableDigest],
    ) -> Result<ComparedNode, RepairError> {
        let theirs = self.call(node, &api::SyncBuckets { table: self.table() }).await?.digests;
        let differing: Vec<usize> =
            (0..BUCKETS).filter(|bucket| own.get(*bucket) != theirs.get(*bucket)).collect();
        let mut found = beginning(node);
        found.buckets_differing = differing.len() as u64;
        let per_bucket = self.entry.usage.records() / BUCKETS as u64 + 1;
        let at_once = usize::try_from(ROWS_AT_ONCE / per_bucket).unwrap_or(1).max(1);
        for some in differing.chunks(at_once) {
            let ReplicaSummary { vector, gc_watermark, .. } = summary(&self.store, &self.entry)?;
            let rows = marks(&self.store, &self.entry, some.to_vec(), &self.comparisons).await?;
            let here = Rows { vector, gc_watermark, marks: rows.into_iter().map(by_key).collect() };
            let there = self.rows_of(node, some).await?;
            self.mend(node, &here, &there, &mut found).await?;
        }
        Ok(found)
    }

    /// The rows of some buckets there, answer by answer.
    async fn rows_of(&self, node: &NodeName, wanted: &[usize]) -> Result<Rows, RepairError> {
        let mut rows: Option<Rows> = None;
        loop {
            let after = rows.as_ref().and_then(|rows| rows.marks.keys().next_back());
            let (table, after) = (self.table(), after.map(|after| Bin(after)));
            let request = api::SyncMarks { table, buckets: Buckets(wanted.to_vec()), after };
            let RowMarks { summary, rows: found, more } = self.call(node, &request).await?;
            let more = more && !found.is_empty();
            // What was covered before the first answer was: later ones cover more.
            let ReplicaSummary { vector, gc_watermark, .. } = summary;
            let rows =
                rows.get_or_insert_with(|| Rows { vector, gc_watermark, marks: BTreeMap::new() });
            rows.marks.extend(found.into_iter().map(by_key));
            if !more {
                return Ok(std::mem::take(rows));
            }
        }
    }

    async fn mend(
        &self,
        node: &NodeName,
        here: &Rows,
        there: &Rows,
        found: &mut ComparedNode,
    ) -> Result<(), RepairError> {
        let verdicts = verdicts(here, there);
        let of = |wanted: &[Verdict]| -> Vec<Vec<u8>> {
            let these = verdicts.iter().filter(|(_, verdict)| wanted.contains(verdict));
            these.map(|(key, _)| key.clone()).collect()
        };
        let newer_here = of(&[Verdict::NewerHere, Verdict::Unequal]);
        let newer_there = of(&[Verdict::NewerThere, Verdict::Unequal]);
        let (mut only_here, mut only_there) = (of(&[Verdict::OnlyHere]), of(&[Verdict::OnlyThere]));
        found.on_its_way += of(&[Verdict::OnItsWay]).len() as u64;
        if self.dry_run {
            found.kept += (only_here.len() + only_there.len()) as u64;
        } else if self.prefer.is_none() {
            // What may have been deleted is somebody's to decide.
            for (rows, lost) in
                [(&mut only_here, here.outlives(there)), (&mut only_there, there.outlives(here))]
            {
                if !lost {
                    found.kept += rows.len() as u64;
                    rows.clear();
                }
            }
        }
        for (key, verdict) in verdicts {
            *found.verdicts.entry(verdict).or_default() += 1;
            if found.keys.len() < NAMED {
                let key = String::from_utf8_lossy(&key).into_owned();
                found.keys.push(DifferingKey { key, verdict });
            }
        }
        if self.dry_run {
            return Ok(());
        }
        let told = [&newer_here, &newer_there, &only_here, &only_there];
        found.pushed += told.iter().map(|keys| keys.len() as u64).sum::<u64>();
        self.push_here(newer_here, false).await?;
        self.push_there(node, newer_there, false).await?;
        match self.prefer {
            None | Some(Prefer::Present) => {
                self.push_here(only_here, true).await?;
                self.push_there(node, only_there, true).await?;
            }
            Some(Prefer::Absent) => {
                let rows = only_here.into_iter().chain(only_there);
                self.erase(rows.collect(), here).await?;
            }
        }
        Ok(())
    }

    async fn push_here(&self, keys: Vec<Vec<u8>>, again: bool) -> Result<(), RepairError> {
        for keys in PushedKeys::batches(keys) {
            let (entry, keys) = (Arc::clone(&self.entry), keys.into_keys());
            let command = if again {
                Command::Records(RecordCommand::Rewrite { entry, keys })
            } else {
                Command::Records(RecordCommand::ReAnnounce { entry, keys })
            };
            self.store.execute(command).await?;
        }
        Ok(())
    }

    async fn push_there(
        &self,
        node: &NodeName,
        keys: Vec<Vec<u8>>,
        again: bool,
    ) -> Result<(), RepairError> {
        for keys in PushedKeys::batches(keys) {
            let (table, options) = (self.table(), PushOptions { again });
            self.call(node, &api::SyncPush { table, keys, options }).await?;
        }
        Ok(())
    }

    /// Ordinary deletions here, which travel to the other side. What was written here since the rows
    /// were compared is not what was decided about, and stays.
    async fn erase(&self, keys: Vec<Vec<u8>>, here: &Rows) -> Result<(), RepairError> {
        for keys in PushedKeys::batches(keys) {
            let version = |key: Vec<u8>| {
                let mark = here.marks.get(&key);
                let dot = mark.map(|mark| Dot { actor: mark.stamp.actor, seq: mark.seq });
                (key, dot)
            };
            let rows = keys.into_keys().into_iter().map(version).collect();
            let (caller, entry) = (self.caller.clone(), Arc::clone(&self.entry));
            self.store.execute(RecordCommand::Erase { caller, entry, rows }).await?;
        }
        Ok(())
    }

    /// Waits until the replicas are equal. What was kept as it is keeps them from it.
    async fn verify(
        &self,
        compared: &mut BTreeMap<NodeName, ComparedNode>,
    ) -> Result<(), CommandError> {
        let deadline = clock::monotonic() + CONVERGENCE_TIMEOUT;
        for (node, found) in compared.iter_mut().filter(|(_, found)| found.why.is_none()) {
            found.verified = loop {
                match self.is_equal(node).await {
                    Ok(true) => break true,
                    Ok(false) if self.dry_run => break false,
                    Ok(false) if found.kept > 0 => {
                        found.why =
                            Some("rows that only one side has were kept as they are".into());
                        break false;
                    }
                    Ok(false) => {}
                    Err(RepairError::Remote(error)) => {
                        found.why = Some(error.to_string());
                        break false;
                    }
                    Err(RepairError::Local(failure)) => return Err(failure),
                }
                if clock::monotonic() >= deadline {
                    found.why = Some("the replicas have not become equal in time".into());
                    break false;
                }
                tokio::time::sleep(CONVERGENCE_POLL).await;
            };
        }
        Ok(())
    }

    /// Whether both replicas hold the same: by what is kept of them first, which costs little, and then by their rows.
    async fn is_equal(&self, node: &NodeName) -> Result<bool, RepairError> {
        let kept = self.call(node, &no_marks(self.table())).await?.summary;
        if !summary(&self.store, &self.entry)?.is_same(&kept) {
            return Ok(false);
        }
        let report = recompute(&self.store, &self.entry, &self.comparisons).await?;
        let theirs = self.call(node, &api::SyncDigest { table: self.table() }).await?;
        let own = summary(&self.store, &self.entry)?;
        let equal = report.damaged == 0 && own.is_same(&theirs);
        if equal {
            let now_ms = clock::wall_ms();
            self.view.update(self.entry.table.uid, node, |known| {
                known.found_equal(&own.vector, own.digest, now_ms);
            });
        }
        Ok(equal)
    }

    /// Asks another node about this table.
    fn call<'r, R: Request<'r>>(&self, node: &NodeName, request: &R) -> Answered<R::Response> {
        self.mesh.call(node, request, None, clock::monotonic() + ASK_TIME)
    }

    fn table(&self) -> Bin<'_> {
        Bin(&self.entry.table.uid.0)
    }
}

/// What ends a comparison with one node: something there, or something here, which ends all.
#[derive(Debug)]
enum RepairError {
    Remote(AskError),
    Local(CommandError),
}

impl From<AskError> for RepairError {
    fn from(error: AskError) -> Self {
        Self::Remote(error)
    }
}

impl From<CommandError> for RepairError {
    fn from(failure: CommandError) -> Self {
        Self::Local(failure)
    }
}

/// A comparison of which nothing is known yet.
fn beginning(node: &NodeName) -> ComparedNode {
    ComparedNode { node: node.to_string(), ..ComparedNode::default() }
}

/// Asks for no rows, and so only where the replica is.
fn no_marks(table: Bin<'_>) -> api::SyncMarks<'_> {
    api::SyncMarks { table, buckets: Buckets::default(), after: None }
}

/// Where another node's replica is, as it says now.
pub(super) async fn summary_of(
    mesh: &Mesh,
    node: &NodeName,
    entry: &Entry,
    deadline: Instant,
) -> Result<ReplicaSummary, AskError> {
    let request = no_marks(Bin(&entry.table.uid.0));
    Ok(mesh.call(node, &request, None, deadline).await?.summary)
}

/// Where the replica here is.
fn summary(store: &Store, entry: &Entry) -> Result<ReplicaSummary, CommandError> {
    let replica = store.replica(entry.table.uid).ok_or(Refusal::NotHere)?;
    Ok(ReplicaSummary {
        vector: replica.vector.clone(),
        gc_watermark: replica.gc_watermark.clone(),
        digest: replica.digest,
    })
}

/// Has what is kept of a replica be what its rows come to.
async fn recompute(
    store: &Store,
    entry: &Entry,
    comparisons: &Arc<Semaphore>,
) -> Result<AuditReport, CommandError> {
    let _turn = comparisons.acquire().await.map_err(|_| StoreError::Closed)?;
    scrub::audit(store, entry.table.id, None).await
}

async fn buckets(
    store: &Store,
    entry: &Entry,
    comparisons: &Arc<Semaphore>,
) -> Result<Vec<TableDigest>, CommandError> {
    let (store, table) = (store.clone(), entry.table.id);
    let _turn = comparisons.acquire().await.map_err(|_| StoreError::Closed)?;
    blocking(move || Ok(store.buckets(table)?)).await
}

async fn marks(
    store: &Store,
    entry: &Entry,
    wanted: Vec<usize>,
    comparisons: &Arc<Semaphore>,
) -> Result<Vec<RowMark>, CommandError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let (store, table) = (store.clone(), entry.table.id);
    let _turn = comparisons.acquire().await.map_err(|_| StoreError::Closed)?;
    blocking(move || Ok(store.marks(table, &wanted)?)).await
}
