//! Comparing the copies of a table row by row, and mending what differs: sync_repair, and what it asks of others.
//! Digests and rows are read by the store; what an ordinary write would decide is not decided here.
//!
//! ```text
//!   here                                   each reachable node in the scope
//!   digest and counts from the rows        the same, before it answers
//!   digests of buckets <── sync_buckets ── the same
//!   rows of those that differ <── sync_marks
//!   newer here ──> told to everybody again          newer there ── sync_push ──> the same there
//!   one write, two contents ──> told by both sides, and the merge rule decides
//!   on one side, not seen by the other ──> on its way, the usual synchronisation brings it
//!   on one side, seen by the other     ──> lost there: written again. Where it may have been deleted: kept as it is
//!   until they are equal or half a minute is over: digests; then, from the rows on both sides, sync_digest
//! ```
//!
//! What a side covers is always read before its rows. So a row that is missing there and covered there was
//! covered before it was looked for: it is not one that is just arriving.

mod exchange;
mod verdict;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cortex_core::{
    directory::Standing,
    model::{Caller, NodeName, Permissions, Refusal, TableUid, Uid},
    sync::{Dot, TableDigest},
    wire::{Head, Method, Reader as Decoder, encode},
};
use tokio::sync::Semaphore;

use exchange::{Marks, encode_marks, read_buckets, read_digests, read_keys, read_marks};
pub(super) use exchange::{Stand, batches};
use verdict::{Rows, Verdict, by_key, verdicts};

use super::{
    Answer, Service,
    conflicts::blocking,
    mesh::{AskError, Mesh},
    params::{self, Params},
    scrub,
    sync::SyncView,
    tree::Tree,
};
use crate::{
    store::{AuditReport, BUCKETS, Command, Entry, Failure, Fault, RowMark, Store},
    sys::clock,
};

/// Whole tables that are read to be compared at a time.
pub(super) const AT_A_TIME: usize = 2;

/// How long another node may take to read a whole table.
const ASK_TIME: Duration = Duration::from_secs(60);

/// How long is waited for the copies to become equal, and how often is looked.
const SETTLE_TIME: Duration = Duration::from_secs(30);
const SETTLE_LOOK: Duration = Duration::from_millis(250);

/// Rows that are compared in one go, so that memory does not grow with the table.
const ROWS_AT_ONCE: u64 = 10_000;

/// Keys that a report names.
const NAMED: usize = 100;

/// What to do about rows that one side has and the other has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefer {
    /// Nothing: a loss and a deletion look the same.
    Neither,
    /// Write them again.
    Present,
    /// Delete them.
    Absent,
}

/// What the comparison with one node has come to.
#[derive(Debug, Default)]
struct Compared {
    buckets: usize,
    keys: Vec<(Vec<u8>, Verdict)>,
    counts: BTreeMap<&'static str, u64>,
    pushed: u64,
    kept: u64,
    on_its_way: u64,
    why: Option<String>,
    verified: bool,
}

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
    prefer: Prefer,
}

impl Service {
    /// `sync_repair [table]` or `[table, {dry_run, prefer}]`.
    pub(super) fn sync_repair(
        &self,
        caller: &Caller,
        params: Params<'_>,
    ) -> Result<Answer, Failure> {
        self.signer()?;
        let mut params = params.between(1, 2)?;
        let mesh = self.mesh().ok_or_else(|| self.without_mesh())?.clone();
        let table = params.text()?;
        let (mut dry_run, mut prefer) = (false, Prefer::Neither);
        if let Some(options) = params.optional()? {
            params::each_option(options, |name, value| {
                match (name, value) {
                    ("dry_run", Head::Bool(wanted)) => dry_run = wanted,
                    ("prefer", Head::Str(b"present")) => prefer = Prefer::Present,
                    ("prefer", Head::Str(b"absent")) => prefer = Prefer::Absent,
                    ("dry_run" | "prefer", Head::Nil) => {}
                    _ => return None,
                }
                Some(())
            })
            .ok_or_else(|| params.invalid())?;
        }
        let needed = match prefer {
            Prefer::Neither => Permissions::ADMIN,
            Prefer::Present | Prefer::Absent => Permissions::ADMIN.union(Permissions::WRITE),
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

    /// Looks for the rows in which the copy here and another differ, and names them in what is known of that copy.
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
            prefer: Prefer::Neither,
        };
        let found = async {
            recompute(&look.store, &look.entry, &look.comparisons).await?;
            let own = buckets(&look.store, &look.entry, &look.comparisons).await?;
            look.compare(node, &own).await
        };
        match found.await {
            Ok(found) => {
                let keys: Vec<_> = found.keys.into_iter().map(|(key, _)| key).collect();
                self.sync.update(table, node, |known| known.differs = keys);
            }
            Err(trouble) => tracing::debug!(?trouble, %node, "two copies were not compared"),
        }
    }

    /// `sync_buckets [table_id]`: another node in the scope asks for the digests of the rows here.
    pub(super) fn sync_buckets(
        &self,
        caller: &Caller,
        params: Params<'_>,
    ) -> Result<Answer, Failure> {
        let mut params = params.count(1)?;
        let entry = self.compared_by(caller, &mut params)?;
        let (store, comparisons) = (self.store.clone(), Arc::clone(&self.comparisons));
        Ok(Answer::later(async move {
            recompute(&store, &entry, &comparisons).await?;
            let stand = position(&store, &entry)?;
            let sums = buckets(&store, &entry, &comparisons).await?;
            let mut out = Vec::new();
            encode::array(&mut out, 4);
            stand.write(&mut out);
            encode::bin(&mut out, &sums.iter().flat_map(|sum| sum.to_bytes()).collect::<Vec<_>>());
            Ok(out)
        }))
    }

    /// `sync_marks [table_id, [buckets]]` or `[table_id, [buckets], after]`: another node in the scope asks for
    /// the rows of some buckets, without their values.
    pub(super) fn sync_marks(
        &self,
        caller: &Caller,
        params: Params<'_>,
    ) -> Result<Answer, Failure> {
        let mut params = params.between(2, 3)?;
        let entry = self.compared_by(caller, &mut params)?;
        let wanted = read_buckets(params.raw()?).ok_or_else(|| params.invalid())?;
        let after = match params.optional()?.map(|after| Decoder::new(after).head()) {
            None | Some(Some(Head::Nil)) => None,
            Some(Some(Head::Bin(after))) => Some(after.to_vec()),
            Some(_) => return Err(params.invalid().into()),
        };
        let (store, comparisons) = (self.store.clone(), Arc::clone(&self.comparisons));
        Ok(Answer::later(async move {
            let stand = position(&store, &entry)?;
            let marks = marks(&store, &entry, wanted, &comparisons).await?;
            let from = after.map_or(0, |after| marks.partition_point(|mark| mark.key <= after));
            Ok(encode_marks(&stand, &marks[from..]))
        }))
    }

    /// `sync_digest [table_id]`: another node in the scope asks what the rows here come to, recomputed from them.
    pub(super) fn sync_digest(
        &self,
        caller: &Caller,
        params: Params<'_>,
    ) -> Result<Answer, Failure> {
        let mut params = params.count(1)?;
        let entry = self.compared_by(caller, &mut params)?;
        let (store, comparisons) = (self.store.clone(), Arc::clone(&self.comparisons));
        Ok(Answer::later(async move {
            recompute(&store, &entry, &comparisons).await?;
            Ok(position(&store, &entry)?.encoded())
        }))
    }

    /// `sync_push [table_id, [keys]]` or `[table_id, [keys], {again}]`: another node in the scope lacks rows that
    /// are here, and shall be told of them once more, or have them written once more.
    pub(super) fn sync_push(&self, caller: &Caller, params: Params<'_>) -> Result<Answer, Failure> {
        let mut params = params.between(2, 3)?;
        let entry = self.compared_by(caller, &mut params)?;
        let keys = read_keys(params.raw()?).ok_or_else(|| params.invalid())?;
        let mut again = false;
        if let Some(options) = params.optional()? {
            params::each_option(options, |name, value| match (name, value) {
                ("again", Head::Bool(wanted)) => {
                    again = wanted;
                    Some(())
                }
                _ => None,
            })
            .ok_or_else(|| params.invalid())?;
        }
        Ok(Answer::Commit(if again {
            Command::Rewrite { entry, keys }
        } else {
            Command::Push { entry, keys }
        }))
    }

    /// The table that another node compares its copy of with the one here. Both must be in its scope.
    fn compared_by(&self, caller: &Caller, params: &mut Params<'_>) -> Result<Arc<Entry>, Refusal> {
        let Caller::Peer { node, .. } = caller else {
            return Err(Refusal::AccessDenied);
        };
        let table = match Decoder::new(params.raw()?).head() {
            Some(Head::Bin(id)) => id.try_into().map(TableUid).map_err(|_| params.invalid())?,
            _ => return Err(params.invalid()),
        };
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
    async fn run(self, name: String, nodes: Vec<NodeName>) -> Result<Vec<u8>, Failure> {
        let report = recompute(&self.store, &self.entry, &self.comparisons).await?;
        let own = buckets(&self.store, &self.entry, &self.comparisons).await?;
        let mut compared = BTreeMap::new();
        for node in nodes {
            let found = match self.compare(&node, &own).await {
                Ok(found) => found,
                Err(Trouble::There(error)) => {
                    Compared { why: Some(error.to_string()), ..Compared::default() }
                }
                Err(Trouble::Here(failure)) => return Err(failure),
            };
            compared.insert(node, found);
        }
        self.verify(&mut compared).await?;
        let verified = compared.values().all(|found| found.verified);
        let listed = compared.iter().map(|(node, found)| found.tree(node));
        let report = Tree::map([
            ("table", name.into()),
            ("dry_run", self.dry_run.into()),
            ("corrected", report.corrected.into()),
            ("damaged", report.damaged.into()),
            ("compared", Tree::List(listed.collect())),
            ("verified", verified.into()),
        ]);
        Ok(report.encoded())
    }

    async fn compare(&self, node: &NodeName, own: &[TableDigest]) -> Result<Compared, Trouble> {
        let answer = self.ask(node, Method::SyncBuckets, 1, |_| {}).await?;
        let theirs = read_digests(&answer).ok_or_else(malformed)?;
        let differing: Vec<usize> =
            (0..BUCKETS).filter(|bucket| own.get(*bucket) != theirs.get(*bucket)).collect();
        let mut found = Compared { buckets: differing.len(), ..Compared::default() };
        let per_bucket = self.entry.usage.records() / BUCKETS as u64 + 1;
        let at_once = usize::try_from(ROWS_AT_ONCE / per_bucket).unwrap_or(1).max(1);
        for some in differing.chunks(at_once) {
            let Stand { vector, floor, .. } = position(&self.store, &self.entry)?;
            let rows = marks(&self.store, &self.entry, some.to_vec(), &self.comparisons).await?;
            let here = Rows { vector, floor, marks: rows.into_iter().map(by_key).collect() };
            let there = self.rows_of(node, some).await?;
            self.mend(node, &here, &there, &mut found).await?;
        }
        Ok(found)
    }

    /// The rows of some buckets there, answer by answer.
    async fn rows_of(&self, node: &NodeName, wanted: &[usize]) -> Result<Rows, Trouble> {
        let mut rows: Option<Rows> = None;
        loop {
            let after = rows.as_ref().and_then(|rows| rows.marks.keys().next_back().cloned());
            let answer = self
                .ask(node, Method::SyncMarks, 3, |out| {
                    encode::array(out, wanted.len());
                    wanted.iter().for_each(|bucket| encode::uint(out, *bucket as u64));
                    match &after {
                        Some(after) => encode::bin(out, after),
                        None => encode::nil(out),
                    }
                })
                .await?;
            let Marks { stand, rows: found, more } = read_marks(&answer).ok_or_else(malformed)?;
            let more = more && !found.is_empty();
            // What was covered before the first answer was: later ones cover more.
            let Stand { vector, floor, .. } = stand;
            let rows = rows.get_or_insert_with(|| Rows { vector, floor, marks: BTreeMap::new() });
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
        found: &mut Compared,
    ) -> Result<(), Trouble> {
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
        } else if self.prefer == Prefer::Neither {
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
            *found.counts.entry(verdict.word()).or_default() += 1;
            if found.keys.len() < NAMED {
                found.keys.push((key, verdict));
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
            Prefer::Neither | Prefer::Present => {
                self.push_here(only_here, true).await?;
                self.push_there(node, only_there, true).await?;
            }
            Prefer::Absent => {
                let rows = only_here.into_iter().chain(only_there);
                self.erase(rows.collect(), here).await?;
            }
        }
        Ok(())
    }

    async fn push_here(&self, keys: Vec<Vec<u8>>, again: bool) -> Result<(), Trouble> {
        for keys in batches(keys) {
            let entry = Arc::clone(&self.entry);
            let command = if again {
                Command::Rewrite { entry, keys }
            } else {
                Command::Push { entry, keys }
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
    ) -> Result<(), Trouble> {
        for keys in batches(keys) {
            self.ask(node, Method::SyncPush, 3, |out| {
                encode::array(out, keys.len());
                keys.iter().for_each(|key| encode::bin(out, key));
                encode::map(out, 1);
                encode::str(out, "again");
                encode::bool(out, again);
            })
            .await?;
        }
        Ok(())
    }

    /// Ordinary deletions here, which the other side will be told of. What was written here since the rows
    /// were compared is not what was decided about, and stays.
    async fn erase(&self, keys: Vec<Vec<u8>>, here: &Rows) -> Result<(), Trouble> {
        for keys in batches(keys) {
            let version = |key: Vec<u8>| {
                let mark = here.marks.get(&key);
                let dot = mark.map(|mark| Dot { actor: mark.stamp.actor, seq: mark.seq });
                (key, dot)
            };
            let rows = keys.into_iter().map(version).collect();
            let (caller, entry) = (self.caller.clone(), Arc::clone(&self.entry));
            self.store.execute(Command::Erase { caller, entry, rows }).await?;
        }
        Ok(())
    }

    /// Waits until the copies are equal. What was kept as it is keeps them from it.
    async fn verify(&self, compared: &mut BTreeMap<NodeName, Compared>) -> Result<(), Failure> {
        let deadline = clock::monotonic() + SETTLE_TIME;
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
                    Err(Trouble::There(error)) => {
                        found.why = Some(error.to_string());
                        break false;
                    }
                    Err(Trouble::Here(failure)) => return Err(failure),
                }
                if clock::monotonic() >= deadline {
                    found.why = Some("the copies have not become equal in time".into());
                    break false;
                }
                tokio::time::sleep(SETTLE_LOOK).await;
            };
        }
        Ok(())
    }

    /// Whether both copies hold the same: by what is kept of them first, which costs little, and then by their rows.
    async fn is_equal(&self, node: &NodeName) -> Result<bool, Trouble> {
        let answer = self.ask(node, Method::SyncMarks, 2, |out| encode::array(out, 0)).await?;
        let kept = read_marks(&answer).ok_or_else(malformed)?.stand;
        if !is_same(&position(&self.store, &self.entry)?, &kept) {
            return Ok(false);
        }
        let report = recompute(&self.store, &self.entry, &self.comparisons).await?;
        let answer = self.ask(node, Method::SyncDigest, 1, |_| {}).await?;
        let theirs = Stand::decode(&answer).ok_or_else(malformed)?;
        let own = position(&self.store, &self.entry)?;
        let equal = report.damaged == 0 && is_same(&own, &theirs);
        if equal {
            self.view.update(self.entry.table.uid, node, |known| known.found_equal(&own));
        }
        Ok(equal)
    }

    /// Asks another node about this table; `more` appends what comes after the table's id.
    async fn ask(
        &self,
        node: &NodeName,
        method: Method,
        count: usize,
        more: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Bytes, Trouble> {
        let mut params = Vec::new();
        encode::array(&mut params, count);
        encode::bin(&mut params, &self.entry.table.uid.0);
        more(&mut params);
        let deadline: Instant = clock::monotonic() + ASK_TIME;
        Ok(self.mesh.ask(node.clone(), method, params.into(), None, deadline).await?)
    }
}

/// What ends a comparison with one node: something there, or something here, which ends all.
#[derive(Debug)]
enum Trouble {
    There(AskError),
    Here(Failure),
}

impl From<AskError> for Trouble {
    fn from(error: AskError) -> Self {
        Self::There(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

fn malformed() -> Trouble {
    Trouble::There(AskError::Broken("it has another shape than expected".into()))
}

impl Compared {
    fn tree(&self, node: &NodeName) -> Tree {
        let keys = self.keys.iter().map(|(key, verdict)| {
            let key = String::from_utf8_lossy(key).into_owned();
            Tree::map([("key", key.into()), ("verdict", verdict.word().into())])
        });
        let counts = self.counts.iter().map(|(verdict, count)| (*verdict, (*count).into()));
        Tree::map([
            ("node", node.as_str().into()),
            ("buckets_differing", (self.buckets as u64).into()),
            ("verdicts", Tree::Map(counts.collect())),
            ("keys", Tree::List(keys.collect())),
            ("pushed", self.pushed.into()),
            ("on_its_way", self.on_its_way.into()),
            ("kept", self.kept.into()),
            ("verified", self.verified.into()),
            ("why", self.why.clone().into()),
        ])
    }
}

/// Where another node's copy is, by its own word now.
pub(super) async fn stand_of(
    mesh: &Mesh,
    node: &NodeName,
    entry: &Entry,
    deadline: Instant,
) -> Result<Stand, AskError> {
    let mut params = Vec::new();
    encode::array(&mut params, 2);
    encode::bin(&mut params, &entry.table.uid.0);
    encode::array(&mut params, 0);
    let asked = mesh.ask(node.clone(), Method::SyncMarks, params.into(), None, deadline).await?;
    let shape = || AskError::Broken("it has another shape than expected".into());
    Ok(read_marks(&asked).ok_or_else(shape)?.stand)
}

/// Where the copy here is.
fn position(store: &Store, entry: &Entry) -> Result<Stand, Failure> {
    let copy = store.copy(entry.table.uid).ok_or(Refusal::NotHere)?;
    Ok(Stand { vector: copy.vector.clone(), floor: copy.floor.clone(), digest: copy.digest })
}

fn is_same(one: &Stand, other: &Stand) -> bool {
    one.vector == other.vector && one.digest == other.digest
}

/// Has what is kept of a copy be what its rows come to.
async fn recompute(
    store: &Store,
    entry: &Entry,
    comparisons: &Arc<Semaphore>,
) -> Result<AuditReport, Failure> {
    let _turn = comparisons.acquire().await.map_err(|_| Fault::Closed)?;
    scrub::audit(store, entry.table.id, None).await
}

async fn buckets(
    store: &Store,
    entry: &Entry,
    comparisons: &Arc<Semaphore>,
) -> Result<Vec<TableDigest>, Failure> {
    let (store, table) = (store.clone(), entry.table.id);
    let _turn = comparisons.acquire().await.map_err(|_| Fault::Closed)?;
    blocking(move || Ok(store.buckets(table)?)).await
}

async fn marks(
    store: &Store,
    entry: &Entry,
    wanted: Vec<usize>,
    comparisons: &Arc<Semaphore>,
) -> Result<Vec<RowMark>, Failure> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let (store, table) = (store.clone(), entry.table.id);
    let _turn = comparisons.acquire().await.map_err(|_| Fault::Closed)?;
    blocking(move || Ok(store.marks(table, &wanted)?)).await
}
