//! Comparing the copies of a table row by row, and mending what differs: sync_repair, and what it asks of others.
//! Digests and rows are read by the store; what an ordinary write would decide is not decided here.
//!
//! ```text
//!   here                                   each reachable node in the scope
//!   digests of buckets <── sync_buckets ── the same
//!   rows of those that differ <── sync_marks
//!   newer here ──> told to everybody again          newer there ── sync_push ──> the same there
//!   on one side, not seen by the other ──> on its way, the usual synchronisation brings it
//!   on one side, seen by the other     ──> deleted there, or lost there: reported, and kept
//!   digests once more, until they are equal or half a minute is over
//! ```
//!
//! What a side covers is always read before its rows. So a row that is missing there and covered there was
//! covered before it was looked for: it is not one that is just arriving.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cortex_core::{
    directory::Standing,
    model::{Caller, Hlc, Incarnation, Key, NodeName, Permissions, Refusal, Stamp, TableUid},
    sync::{Dot, TableDigest, Vector},
    wire::{Head, Method, Reader as Decoder, encode},
};
use tokio::sync::Semaphore;

use super::{
    Answer, Service,
    conflicts::blocking,
    mesh::{AskError, Mesh},
    params::{self, Params},
    tree::Tree,
};
use crate::{
    ambient,
    store::{BUCKETS, Command, Entry, Failure, Fault, RowMark, Store},
};

/// Whole tables that are read to be compared at a time.
pub(super) const AT_A_TIME: usize = 2;

/// How long another node may take to read a whole table.
const ASK_TIME: Duration = Duration::from_secs(60);

/// How long is waited for the copies to become equal, and how often is looked.
const SETTLE_TIME: Duration = Duration::from_secs(30);
const SETTLE_LOOK: Duration = Duration::from_millis(250);

/// Bytes of rows in one answer of `sync_marks`: a quarter of what is taken.
const MARKS_BYTES: usize = 2 << 20;

/// Rows that are compared in one go, so that memory does not grow with the table.
const ROWS_AT_ONCE: u64 = 10_000;

/// Keys of one `sync_push`, and bytes of them: half of what a request may be.
const PUSHED_KEYS: usize = 1000;
const PUSHED_BYTES: usize = 512 << 10;

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

/// One side's rows of some buckets, by key.
#[derive(Debug, Default)]
struct Rows {
    /// What that side had incorporated before its rows were read.
    vector: Vector,
    marks: BTreeMap<Vec<u8>, RowMark>,
}

/// What is found about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    NewerHere,
    NewerThere,
    OnItsWay,
    OnlyHere,
    OnlyThere,
    /// One write with two contents: one of the two was damaged on its disk.
    Unequal,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::NewerHere => "newer_here",
            Self::NewerThere => "newer_there",
            Self::OnItsWay => "on_its_way",
            Self::OnlyHere => "only_here",
            Self::OnlyThere => "only_there",
            Self::Unequal => "unequal",
        }
    }
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
        self.notary()?;
        let mut params = params.between(1, 2)?;
        let mesh = self.mesh().ok_or(Refusal::MeshNotConfigured)?.clone();
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
        let entry = self.open(caller, table, Permissions::ADMIN)?;
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
            dry_run,
            prefer,
        };
        Ok(Answer::later(async move { repair.run(name, nodes).await }))
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
            let (vector, digest) = position(&store, &entry)?;
            let sums = buckets(&store, &entry, &comparisons).await?;
            let mut out = Vec::new();
            encode::array(&mut out, 3);
            write_vector(&vector, &mut out);
            encode::bin(&mut out, &digest.to_bytes());
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
            let (vector, digest) = position(&store, &entry)?;
            let marks = marks(&store, &entry, wanted, &comparisons).await?;
            let from = after.map_or(0, |after| marks.partition_point(|mark| mark.key <= after));
            Ok(encode_marks(&vector, digest, &marks[from..]))
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
            let (vector, _) = position(&self.store, &self.entry)?;
            let rows = marks(&self.store, &self.entry, some.to_vec(), &self.comparisons).await?;
            let here = Rows { vector, marks: rows.into_iter().map(by_key).collect() };
            let there = self.rows_of(node, some).await?;
            self.mend(node, verdicts(&here, &there), &mut found).await?;
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
            let Marks { vector, rows: found, more, .. } =
                read_marks(&answer).ok_or_else(malformed)?;
            let more = more && !found.is_empty();
            // What was covered before the first answer was: later ones cover more.
            let rows = rows.get_or_insert_with(|| Rows { vector, marks: BTreeMap::new() });
            rows.marks.extend(found.into_iter().map(by_key));
            if !more {
                return Ok(std::mem::take(rows));
            }
        }
    }

    async fn mend(
        &self,
        node: &NodeName,
        verdicts: Vec<(Vec<u8>, Verdict)>,
        found: &mut Compared,
    ) -> Result<(), Trouble> {
        let of = |wanted: &[Verdict]| -> Vec<Vec<u8>> {
            let these = verdicts.iter().filter(|(_, verdict)| wanted.contains(verdict));
            these.map(|(key, _)| key.clone()).collect()
        };
        let (newer_here, newer_there) = (of(&[Verdict::NewerHere]), of(&[Verdict::NewerThere]));
        let (only_here, only_there) = (of(&[Verdict::OnlyHere]), of(&[Verdict::OnlyThere]));
        found.on_its_way += of(&[Verdict::OnItsWay]).len() as u64;
        found.kept += of(&[Verdict::Unequal]).len() as u64;
        if self.dry_run || self.prefer == Prefer::Neither {
            found.kept += (only_here.len() + only_there.len()) as u64;
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
        found.pushed += (newer_here.len() + newer_there.len()) as u64;
        self.push_here(newer_here, false).await?;
        self.push_there(node, newer_there, false).await?;
        match self.prefer {
            Prefer::Neither => {}
            Prefer::Present => {
                found.pushed += (only_here.len() + only_there.len()) as u64;
                self.push_here(only_here, true).await?;
                self.push_there(node, only_there, true).await?;
            }
            Prefer::Absent => {
                found.pushed += (only_here.len() + only_there.len()) as u64;
                for key in only_here.into_iter().chain(only_there) {
                    self.delete(&key).await?;
                }
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

    /// An ordinary deletion here, which the other side will be told of.
    async fn delete(&self, key: &[u8]) -> Result<(), Trouble> {
        let mut encoded = Vec::new();
        encode::str_bytes(&mut encoded, key);
        let key = Key::read(&encoded, &self.store.limits()).map_err(Failure::from)?;
        let (caller, entry) = (self.caller.clone(), Arc::clone(&self.entry));
        self.store.execute(Command::Delete { caller, entry, key }).await?;
        Ok(())
    }

    /// Waits until the copies are equal. What was kept as it is keeps them from it.
    async fn verify(&self, compared: &mut BTreeMap<NodeName, Compared>) -> Result<(), Failure> {
        let deadline = ambient::monotonic() + SETTLE_TIME;
        for (node, found) in compared.iter_mut().filter(|(_, found)| found.why.is_none()) {
            found.verified = loop {
                match self.is_equal(node).await {
                    Ok(true) => break true,
                    Ok(false) if self.dry_run || found.kept > 0 => break false,
                    Ok(false) => {}
                    Err(Trouble::There(error)) => {
                        found.why = Some(error.to_string());
                        break false;
                    }
                    Err(Trouble::Here(failure)) => return Err(failure),
                }
                if ambient::monotonic() >= deadline {
                    found.why = Some("the copies have not become equal in time".into());
                    break false;
                }
                tokio::time::sleep(SETTLE_LOOK).await;
            };
        }
        Ok(())
    }

    async fn is_equal(&self, node: &NodeName) -> Result<bool, Trouble> {
        let answer = self.ask(node, Method::SyncMarks, 2, |out| encode::array(out, 0)).await?;
        let theirs = read_marks(&answer).ok_or_else(malformed)?;
        let (vector, digest) = position(&self.store, &self.entry)?;
        Ok(vector == theirs.vector && digest == theirs.digest)
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
        let deadline: Instant = ambient::monotonic() + ASK_TIME;
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

/// What differs between two sides, key by key.
fn verdicts(here: &Rows, there: &Rows) -> Vec<(Vec<u8>, Verdict)> {
    let keys: BTreeSet<_> = here.marks.keys().chain(there.marks.keys()).collect();
    let judged = keys.into_iter().filter_map(|key| {
        let verdict = match (here.marks.get(key), there.marks.get(key)) {
            (Some(own), Some(theirs)) => of_both(own, theirs)?,
            (Some(own), None) => of_one(own, &there.vector, Verdict::OnlyHere)?,
            (None, Some(theirs)) => of_one(theirs, &here.vector, Verdict::OnlyThere)?,
            (None, None) => return None,
        };
        Some((key.clone(), verdict))
    });
    judged.collect()
}

fn of_both(own: &RowMark, theirs: &RowMark) -> Option<Verdict> {
    match own.stamp.cmp(&theirs.stamp) {
        // Two deletions: neither side shows a row.
        _ if own.value.is_none() && theirs.value.is_none() => None,
        std::cmp::Ordering::Greater => Some(Verdict::NewerHere),
        std::cmp::Ordering::Less => Some(Verdict::NewerThere),
        std::cmp::Ordering::Equal => (own.value != theirs.value).then_some(Verdict::Unequal),
    }
}

/// A row that only one side has; the other one covers so much.
fn of_one(row: &RowMark, other: &Vector, kept: Verdict) -> Option<Verdict> {
    row.value?; // a deletion, which the other has forgotten or not heard of: neither shows a row
    let dot = Dot { incarnation: row.stamp.incarnation, seq: row.seq };
    Some(if other.covers(dot) { kept } else { Verdict::OnItsWay })
}

fn by_key(mark: RowMark) -> (Vec<u8>, RowMark) {
    (mark.key.clone(), mark)
}

fn batches(keys: Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    let mut batches: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut bytes = 0;
    for key in keys {
        let full =
            |batch: &Vec<Vec<u8>>| batch.len() >= PUSHED_KEYS || bytes + key.len() > PUSHED_BYTES;
        if batches.last().is_none_or(full) {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += key.len() + 8;
        if let Some(batch) = batches.last_mut() {
            batch.push(key);
        }
    }
    batches
}

/// What the copy here has incorporated, and what its rows come to.
fn position(store: &Store, entry: &Entry) -> Result<(Vector, TableDigest), Failure> {
    let copy = store.copy(entry.table.uid).ok_or(Refusal::NotHere)?;
    Ok((copy.vector.clone(), copy.digest))
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

fn write_vector(vector: &Vector, out: &mut Vec<u8>) {
    encode::array(out, vector.len());
    for Dot { incarnation, seq } in vector.iter() {
        encode::array(out, 2);
        encode::bin(out, &incarnation.0.to_be_bytes());
        encode::uint(out, seq);
    }
}

/// As many rows as one answer has room for: `[vector, digest, rows, more]`.
fn encode_marks(vector: &Vector, digest: TableDigest, marks: &[RowMark]) -> Vec<u8> {
    let (mut rows, mut count) = (Vec::new(), 0);
    for mark in marks {
        if rows.len() >= MARKS_BYTES {
            break;
        }
        count += 1;
        encode::array(&mut rows, 5);
        encode::bin(&mut rows, &mark.key);
        encode::uint(&mut rows, mark.stamp.hlc.to_i64().unsigned_abs());
        encode::bin(&mut rows, &mark.stamp.incarnation.0.to_be_bytes());
        encode::uint(&mut rows, mark.seq);
        match &mark.value {
            Some(hash) => encode::bin(&mut rows, hash),
            None => encode::nil(&mut rows),
        }
    }
    let mut out = Vec::with_capacity(rows.len() + 1024);
    encode::array(&mut out, 4);
    write_vector(vector, &mut out);
    encode::bin(&mut out, &digest.to_bytes());
    encode::array(&mut out, count);
    out.append(&mut rows);
    encode::bool(&mut out, count < marks.len());
    out
}

/// An answer of `sync_marks`.
#[derive(Debug)]
struct Marks {
    vector: Vector,
    digest: TableDigest,
    rows: Vec<RowMark>,
    more: bool,
}

fn read_marks(encoded: &[u8]) -> Option<Marks> {
    let mut from = Decoder::new(encoded);
    let Head::Array(4) = from.head()? else {
        return None;
    };
    let (vector, digest) = (read_vector(&mut from)?, read_bin(&mut from)?);
    let Head::Array(count) = from.head()? else {
        return None;
    };
    let rows: Option<Vec<RowMark>> = (0..count).map(|_| read_mark(&mut from)).collect();
    let Head::Bool(more) = from.head()? else {
        return None;
    };
    Some(Marks { vector, digest: TableDigest::from_bytes(digest), rows: rows?, more })
}

fn read_mark(from: &mut Decoder<'_>) -> Option<RowMark> {
    let Head::Array(5) = from.head()? else {
        return None;
    };
    let (Head::Bin(key), Head::Int(hlc)) = (from.head()?, from.head()?) else {
        return None;
    };
    let incarnation = Incarnation(u128::from_be_bytes(read_bin(from)?));
    let (Head::Int(seq), value) = (from.head()?, from.head()?) else {
        return None;
    };
    let value = match value {
        Head::Nil => None,
        Head::Bin(hash) => Some(hash.try_into().ok()?),
        _ => return None,
    };
    let stamp = Stamp { hlc: Hlc::from_i64(i64::try_from(hlc).ok()?), incarnation };
    Some(RowMark { key: key.to_vec(), stamp, seq: u64::try_from(seq).ok()?, value })
}

fn read_digests(encoded: &[u8]) -> Option<Vec<TableDigest>> {
    let mut from = Decoder::new(encoded);
    let Head::Array(3) = from.head()? else {
        return None;
    };
    let (_vector, _digest) = (read_vector(&mut from)?, read_bin::<32>(&mut from)?);
    let Head::Bin(sums) = from.head()? else {
        return None;
    };
    let (sums, rest) = sums.as_chunks::<32>();
    let whole = rest.is_empty() && sums.len() == BUCKETS;
    whole.then(|| sums.iter().map(|sum| TableDigest::from_bytes(*sum)).collect())
}

fn read_vector(from: &mut Decoder<'_>) -> Option<Vector> {
    let Head::Array(count) = from.head()? else {
        return None;
    };
    let dot = |_| {
        let Head::Array(2) = from.head()? else {
            return None;
        };
        let incarnation = Incarnation(u128::from_be_bytes(read_bin(from)?));
        let Head::Int(seq) = from.head()? else {
            return None;
        };
        Some(Dot { incarnation, seq: u64::try_from(seq).ok()? })
    };
    (0..count).map(dot).collect()
}

fn read_bin<const N: usize>(from: &mut Decoder<'_>) -> Option<[u8; N]> {
    let Head::Bin(bytes) = from.head()? else {
        return None;
    };
    bytes.try_into().ok()
}

fn read_buckets(encoded: &[u8]) -> Option<Vec<usize>> {
    let mut from = Decoder::new(encoded);
    let Head::Array(count @ ..=BUCKETS) = from.head()? else {
        return None;
    };
    let bucket = |_| match from.head()? {
        Head::Int(bucket) => usize::try_from(bucket).ok().filter(|bucket| *bucket < BUCKETS),
        _ => None,
    };
    (0..count).map(bucket).collect()
}

fn read_keys(encoded: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut from = Decoder::new(encoded);
    let Head::Array(count @ ..=PUSHED_KEYS) = from.head()? else {
        return None;
    };
    let key = |_| match from.head()? {
        Head::Bin(key) => Some(key.to_vec()),
        _ => None,
    };
    (0..count).map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(key: &str, at: u64, by: u128, seq: u64, value: Option<u8>) -> RowMark {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(at), incarnation: Incarnation(by) };
        RowMark { key: key.into(), stamp, seq, value: value.map(|byte| [byte; 32]) }
    }

    fn rows(covers: &[(u128, u64)], marks: &[RowMark]) -> Rows {
        let dot = |(by, seq): &(u128, u64)| Dot { incarnation: Incarnation(*by), seq: *seq };
        Rows {
            vector: covers.iter().map(dot).collect(),
            marks: marks.iter().cloned().map(by_key).collect(),
        }
    }

    fn verdict(here: &Rows, there: &Rows) -> Option<Verdict> {
        let found = verdicts(here, there);
        assert!(found.len() <= 1, "{found:?}");
        found.first().map(|(_, verdict)| *verdict)
    }

    /// holds R6
    #[test]
    fn a_row_that_one_side_has_is_on_its_way_or_kept_and_never_deleted() {
        let (live, gone) = (mark("k", 5, 1, 3, Some(1)), mark("k", 5, 1, 3, None));
        let seen = rows(&[(1, 3)], &[]);
        let unseen = rows(&[(1, 2)], &[]);
        let has = |mark: &RowMark| rows(&[(1, 3)], std::slice::from_ref(mark));
        assert_eq!(verdict(&has(&live), &unseen), Some(Verdict::OnItsWay));
        assert_eq!(verdict(&has(&live), &seen), Some(Verdict::OnlyHere));
        assert_eq!(verdict(&unseen, &has(&live)), Some(Verdict::OnItsWay));
        assert_eq!(verdict(&seen, &has(&live)), Some(Verdict::OnlyThere));
        // Neither side shows the row.
        assert_eq!(verdict(&has(&gone), &seen), None);
    }

    /// holds R6
    #[test]
    fn of_two_versions_the_later_one_is_told_again() {
        let all = [(1, 9), (2, 9)];
        let old = rows(&all, &[mark("k", 5, 1, 3, Some(1))]);
        let new = rows(&all, &[mark("k", 6, 2, 4, Some(2))]);
        let deleted = rows(&all, &[mark("k", 7, 2, 5, None)]);
        assert_eq!(verdict(&old, &new), Some(Verdict::NewerThere));
        assert_eq!(verdict(&new, &old), Some(Verdict::NewerHere));
        assert_eq!(verdict(&deleted, &old), Some(Verdict::NewerHere));
        assert_eq!(verdict(&old, &old), None);
        let damaged = rows(&all, &[mark("k", 5, 1, 3, Some(8))]);
        assert_eq!(verdict(&old, &damaged), Some(Verdict::Unequal));
    }

    #[test]
    fn rows_are_read_as_they_were_written_and_in_bounds() {
        let key = "k".repeat(4096);
        let marks: Vec<_> =
            (0..1000).map(|n| mark(&format!("{n:04}{key}"), n, 1, n, Some(7))).collect();
        let vector: Vector = [Dot { incarnation: Incarnation(9), seq: 4 }].into_iter().collect();
        let digest = TableDigest::from_bytes([3; 32]);
        let (mut after, mut read) = (0, Vec::new());
        loop {
            let answer = encode_marks(&vector, digest, &marks[after..]);
            assert!(answer.len() < MARKS_BYTES + (16 << 10), "{}", answer.len());
            let found = read_marks(&answer).expect("an answer");
            assert_eq!((&found.vector, found.digest), (&vector, digest));
            after += found.rows.len();
            read.extend(found.rows);
            if !found.more {
                break;
            }
        }
        assert_eq!(read, marks);
        assert!(read_marks(b"\x94").is_none() && read_digests(b"\x93").is_none());
    }

    #[test]
    fn keys_are_told_in_batches_that_a_request_has_room_for() {
        let keys: Vec<_> = (0..2500).map(|n: u32| n.to_be_bytes().repeat(256)).collect();
        let found = batches(keys.clone());
        assert!(found.iter().all(|batch| batch.len() <= PUSHED_KEYS));
        let bytes = |batch: &Vec<Vec<u8>>| batch.iter().map(Vec::len).sum::<usize>();
        assert!(found.iter().all(|batch| bytes(batch) <= PUSHED_BYTES));
        assert_eq!(found.concat(), keys);
        assert!(batches(Vec::new()).is_empty());
    }
}
