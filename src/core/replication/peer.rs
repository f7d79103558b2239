//! The replicas on other nodes, as far as this node knows them: what they say of themselves, and what keeps rows from
//! passing. Written by the drivers of the links; garbage collection, status and waiting read it.
//!
//! In memory alone: what others have confirmed must not outlive what this node has done about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cortex_mutant::mutant;

use super::{
    Ack, Batch, Cursor, InvalidRow, InvalidRows, ReplicaStatus, ReplicaStatuses, TableDigest,
    Unfit, VersionVector, Why,
    driver::{Node, ReplicaSummary},
};
use crate::model::{ActorId, Hlc, NodeName, Refusal, Stamp, TableUid};

/// Numbers for reasons without a name: the other side shows them.
pub const REFUSED: u64 = 100;
/// A row does not fit into a frame.
pub const TOO_LARGE: u64 = 101;

/// A table's replica on another node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteReplica {
    /// Its last status.
    pub status: Option<ReplicaStatus>,
    /// When that came, in Unix milliseconds; 0 for never.
    pub heard_ms: u64,
    /// The actor that it was before, where it has said that it is another one and the directory
    /// does not know that yet: gossip about the old one does not count any more.
    pub outdated: Option<ActorId>,
    /// How far it has come in this node's change log.
    pub reached: Option<Cursor>,
    /// When both replicas were last found to hold the same, vector and digest, in Unix milliseconds.
    pub verified_ms: Option<u64>,
    /// True where both have incorporated the same and yet hold different rows.
    pub diverged: bool,
    /// The keys of rows that differ then, as far as they are named.
    pub differs: Vec<Vec<u8>>,
    /// What keeps this node from taking its rows.
    pub taking: Option<SyncProblem>,
    /// What keeps it from taking this node's rows.
    pub giving: Option<SyncProblem>,
    /// Since when that is so, in Unix milliseconds.
    pub taking_since_ms: Option<u64>,
    /// The same for `giving`.
    pub giving_since_ms: Option<u64>,
    /// Not less than any timestamp that its node has observed, by its last status on a link to this one. Gossip may
    /// be of earlier, and is not counted.
    pub met: Option<Hlc>,
    /// Rows of the directory that it passes on and that are not believed here. The others are.
    pub quarantined: Quarantined,
    /// Rows of it that were left out, since both were last found to hold the same.
    pub invalid: InvalidRows,
}

/// What is to be noted of a replica on another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has acknowledged what it has made durable.
    Acknowledged(Box<Ack>),
    /// Its own status, from its node.
    Status(Box<ReplicaStatus>),
    /// Its status by gossip, which may be older than what is known.
    Gossip(Box<ReplicaStatus>),
    /// A batch of it was stored: what the batch says of it, and whether both hold the same now.
    Applied {
        /// Which replica epoch it was read in.
        epoch: u64,
        /// What it had incorporated, and what its live rows came to, with a last batch.
        knows: Option<(VersionVector, TableDigest)>,
        /// True where it was whole.
        ready: bool,
        /// True where both replicas hold the same.
        verified: bool,
    },
    /// What keeps its rows from being taken here.
    Taking(Option<SyncProblem>),
    /// What keeps it from taking rows.
    Giving(Option<SyncProblem>),
    /// A batch was read for it.
    BatchRead,
    /// Rows of the directory were learnt, and others quarantined.
    Learnt {
        /// The keys of the good ones.
        keys: Vec<Vec<u8>>,
        /// The others.
        unverified: Vec<UnverifiedRow>,
    },
    /// Its directory was read to the end, and all of it is believed.
    NothingQuarantined,
    /// Rows of it were left out.
    Invalid(Vec<InvalidRow>),
}

impl Change {
    /// True for what is said about whether rows pass. The rest says only what a replica is.
    #[must_use]
    pub fn is_of_rows(&self) -> bool {
        match self {
            Self::Acknowledged(_)
            | Self::Applied { .. }
            | Self::Taking(_)
            | Self::Giving(_)
            | Self::BatchRead => true,
            Self::Status(_)
            | Self::Gossip(_)
            | Self::Learnt { .. }
            | Self::NothingQuarantined
            | Self::Invalid(_) => false,
        }
    }

    /// What a stored batch says of the replica that it was read from.
    #[must_use]
    pub fn applied(outline: &Batch, verified: bool) -> Self {
        let knows = outline.digest.map(|digest| (outline.vector.clone(), digest));
        Self::Applied { epoch: outline.epoch, knows, ready: outline.ready, verified }
    }
}

/// What a change is judged by.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The actor that the directory knows the node as.
    pub current: Option<ActorId>,
    /// This node's replica of the table.
    pub own: Option<Arc<dyn ReplicaSummary>>,
    /// The clock here, in Unix milliseconds.
    pub now_ms: u64,
}

impl Facts {
    /// What the node here knows now about a table, and about the node that a change is of.
    #[must_use]
    pub fn of(here: &impl Node, table: TableUid, node: &NodeName) -> Self {
        Self {
            current: here.directory().node(node).map(|row| row.actor),
            own: here.replica(table),
            now_ms: here.wall_ms(),
        }
    }
}

impl RemoteReplica {
    /// Takes note of a change.
    fn note(&mut self, change: Change, node: &NodeName, facts: &Facts) {
        match change {
            Change::Acknowledged(ack) => self.acknowledged(*ack, node, facts),
            Change::Status(status) => {
                let latest = status.latest;
                self.status_received(*status, node, facts);
                self.met = latest;
            }
            Change::Gossip(status) => {
                if self.is_news(&status, facts.current) {
                    self.status_received(*status, node, facts);
                }
            }
            Change::Applied { epoch, knows, ready, verified } => {
                if let Some((vector, digest)) = knows {
                    self.batch_says(epoch, &vector, digest, ready, facts.now_ms);
                }
                if verified {
                    (self.verified_ms, self.diverged) = (Some(facts.now_ms), false);
                    self.invalid = InvalidRows::default();
                }
            }
            Change::Taking(problem) => self.taking = problem,
            Change::Giving(problem) => self.giving = problem,
            // What the other side could not store it may fail to store again: it says so when it has.
            Change::BatchRead => {
                self.giving.take_if(|problem| !problem.is_of_the_reader());
            }
            Change::Learnt { keys, unverified } => {
                self.taking = None;
                self.quarantined.note(&keys, unverified);
            }
            Change::NothingQuarantined => self.quarantined = Quarantined::default(),
            Change::Invalid(rows) => {
                self.invalid.note(rows);
            }
        }
    }

    /// Takes note of the actor that its node says it is; `current` is the one that the
    /// directory knows it as. What another one has said may be lost by now.
    pub fn is_now(&mut self, actor: ActorId, current: Option<ActorId>) {
        self.outdated = current.filter(|current| *current != actor);
        if self.status.take_if(|status| !status.is_of_actor(actor)).is_some() {
            self.met = None;
        }
    }

    /// Takes note of when what keeps rows from coming through has begun.
    fn note_since(&mut self, now_ms: u64) {
        let sides =
            [(&self.taking, &mut self.taking_since_ms), (&self.giving, &mut self.giving_since_ms)];
        for (problem, since) in sides {
            match problem {
                Some(_) => *since = since.or(Some(now_ms)),
                None => *since = None,
            }
        }
    }

    /// Takes note that both replicas were found to hold the same, from their rows.
    pub fn found_equal(&mut self, vector: &VersionVector, digest: TableDigest, now_ms: u64) {
        (self.verified_ms, self.diverged) = (Some(now_ms), false);
        self.invalid = InvalidRows::default();
        self.differs.clear();
        if let Some(status) = &mut self.status {
            (status.vector, status.digest) = (vector.clone(), digest);
            self.heard_ms = now_ms;
        }
    }

    /// Whether a status by gossip says more than what is known. `current` is the actor that the directory knows
    /// its node as.
    fn is_news(&self, status: &ReplicaStatus, current: Option<ActorId>) -> bool {
        if current != Some(status.actor) || self.outdated == current {
            return false;
        }
        self.status.as_ref().is_none_or(|before| {
            before.actor != status.actor
                || before.epoch < status.epoch
                || (before.epoch == status.epoch
                    && (!before.vector.dominates(&status.vector)
                        || before.conflicts < status.conflicts
                        || before.latest < status.latest))
        })
    }

    fn acknowledged(&mut self, ack: Ack, node: &NodeName, facts: &Facts) {
        let (conflicts, latest) = (ack.status.conflicts, ack.status.latest);
        self.giving.take_if(|problem| problem.is_of_the_reader());
        self.reached = ack.cursor;
        self.status_received(ack.status, node, facts);
        self.met = latest;
        // Of the node itself the last status counts, also where an earlier one said more.
        if let Some(status) = &mut self.status {
            (status.conflicts, status.latest) = (conflicts, latest);
        }
    }

    fn status_received(&mut self, status: ReplicaStatus, node: &NodeName, facts: &Facts) {
        self.heard_ms = facts.now_ms;
        self.is_now(status.actor, facts.current);
        let mut statuses = ReplicaStatuses::default();
        if let Some(before) = self.status.take() {
            statuses.hear(node.clone(), before);
        }
        statuses.hear(node.clone(), status);
        self.status = statuses.get(node).cloned();
        self.compare(facts);
    }

    /// Takes note of what a batch says of the replica that it comes from, where that has said no more before.
    ///
    /// A status may have come while the batch was being stored. Its digest belongs to its vector: the batch's in its
    /// place would be that of rows which are no more, and a node that gets it from here would call replicas diverged.
    fn batch_says(
        &mut self,
        epoch: u64,
        vector: &VersionVector,
        digest: TableDigest,
        ready: bool,
        now_ms: u64,
    ) {
        if let Some(status) = &mut self.status
            && status.epoch == epoch
        {
            self.heard_ms = now_ms;
            if vector.dominates(&status.vector) {
                status.vector = vector.clone();
                (status.digest, status.ready) = (digest, ready);
            }
        }
    }

    /// Notes where both replicas hold the same.
    fn compare(&mut self, facts: &Facts) {
        let Some((status, own)) = self.status.as_ref().zip(facts.own.as_ref()) else { return };
        if status.vector == *own.vector() && status.digest == own.digest() {
            (self.verified_ms, self.diverged) = (Some(facts.now_ms), false);
        }
    }
}

/// What is known of all replicas on other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers(BTreeMap<(TableUid, NodeName), RemoteReplica>);

impl Peers {
    /// What is known of a node's replica of a table.
    #[must_use]
    pub fn of(&self, table: TableUid, node: &NodeName) -> Option<&RemoteReplica> {
        self.0.get(&(table, node.clone()))
    }

    /// What is known of all replicas of a table.
    pub fn of_table(&self, table: TableUid) -> impl Iterator<Item = (&NodeName, &RemoteReplica)> {
        let replicas = self.0.iter().filter(move |((of, _), _)| *of == table);
        replicas.map(|((_, node), replica)| (node, replica))
    }

    /// The same, to be changed.
    pub fn entry(&mut self, table: TableUid, node: &NodeName) -> &mut RemoteReplica {
        self.0.entry((table, node.clone())).or_default()
    }

    /// Takes note of a change; answers what keeps rows from passing now, from there and to there.
    pub fn note(
        &mut self,
        table: TableUid,
        node: &NodeName,
        change: Change,
        facts: &Facts,
    ) -> [Option<SyncProblem>; 2] {
        let is_of_rows = change.is_of_rows();
        let replica = self.entry(table, node);
        replica.note(change, node, facts);
        if is_of_rows {
            replica.note_since(facts.now_ms);
        }
        [replica.taking.clone(), replica.giving.clone()]
    }

    /// A link to a node is up, which is this actor by its greeting; `current` is the one that the directory knows
    /// it as.
    pub fn link_up(&mut self, node: &NodeName, actor: ActorId, current: Option<ActorId>) {
        for replica in self.of_node(node) {
            replica.is_now(actor, current);
            for problem in [&mut replica.taking, &mut replica.giving] {
                problem.take_if(|problem| *problem == SyncProblem::Unreachable);
            }
        }
    }

    /// There is no link to a node any more.
    pub fn link_down(&mut self, node: &NodeName) {
        for replica in self.of_node(node) {
            replica.taking = Some(SyncProblem::Unreachable);
            replica.giving = Some(SyncProblem::Unreachable);
        }
    }

    fn of_node(&mut self, node: &NodeName) -> impl Iterator<Item = &mut RemoteReplica> {
        self.0.iter_mut().filter(move |((_, at), _)| at == node).map(|(_, replica)| replica)
    }

    /// The nodes that have said themselves, on a link to this one, that they have observed a later timestamp.
    #[must_use]
    pub fn who_has_met(&self, later_than: Hlc) -> BTreeSet<NodeName> {
        let met = self.0.iter().filter(|(_, replica)| replica.met > Some(later_than));
        met.map(|((_, node), _)| node.clone()).collect()
    }

    /// Forgets tables that are no more.
    pub fn retain(&mut self, keep: impl Fn(TableUid) -> bool) {
        self.0.retain(|(table, _), _| keep(*table));
    }
}

/// A row of the directory that is not believed, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedRow {
    /// Its key in the system table.
    pub key: Vec<u8>,
    /// Its place in the merge order.
    pub stamp: Stamp,
    /// Who alone may write it; none where this version does not understand it.
    pub writer: Option<NodeName>,
    /// What is wrong with it, or with the certificate that it is judged by.
    pub why: Box<str>,
}

impl UnverifiedRow {
    /// What a request is answered that would have to believe the row.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let by = self.writer.as_ref().map_or("an unknown node", |writer| writer.as_str());
        Refusal::RowUnverified { by: by.into(), why: self.why.clone() }
    }
}

/// Rows of the directory that one node passes on and that cannot be verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// By their keys.
    rows: BTreeMap<Vec<u8>, UnverifiedRow>,
    /// True where there are more of them than are kept.
    more: bool,
}

impl Quarantined {
    /// Rows that are kept. Who passes on more of them is not believed in anything that depends on one.
    const MOST: usize = 4096;

    /// Adds rows that are not believed, and removes those in whose place good ones have come. Answers the new ones.
    pub fn note(&mut self, good: &[Vec<u8>], unverified: Vec<UnverifiedRow>) -> Vec<UnverifiedRow> {
        for key in good {
            self.rows.remove(key);
        }
        let mut news = Vec::new();
        for row in unverified {
            let known = self.rows.get(&row.key).is_some_and(|known| known.stamp == row.stamp);
            if known {
                continue;
            }
            if self.rows.len() >= Self::MOST && !self.rows.contains_key(&row.key) {
                self.more = true;
                continue;
            }
            self.rows.insert(row.key.clone(), row.clone());
            news.push(row);
        }
        news
    }

    /// Whether a table must not be read from there: one of the rows may take somebody's rights on it away, and who
    /// does not know of that would let them in.
    #[must_use]
    #[mutant(QuarantineWithholds => false)]
    pub fn withholds(&self, table: TableUid) -> bool {
        let grants = format!("grant/{table}/");
        let is_about =
            |key: &Vec<u8>| key.starts_with(b"unbinding/") || key.starts_with(grants.as_bytes());
        self.more || self.rows.keys().any(is_about)
    }

    /// What is to be said of them, if there are any: how many, of which kinds, by whom, and what is wrong with the
    /// first. Every node may receive it, so it names none of them.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let first = self.rows.values().next()?;
        let of = |all: BTreeSet<String>| all.into_iter().collect::<Vec<_>>().join(", ");
        let writer = |row: &UnverifiedRow| match &row.writer {
            Some(writer) => writer.as_str().to_owned(),
            None => "an unknown writer".to_owned(),
        };
        let kind = |key: &Vec<u8>| {
            let kind = key.split(|byte| *byte == b'/').next().unwrap_or_default();
            String::from_utf8_lossy(kind.strip_prefix(b"+").unwrap_or(kind)).into_owned()
        };
        let count = match (self.rows.len(), self.more) {
            (1, false) => "a row".to_owned(),
            (count, false) => format!("{count} rows"),
            (count, true) => format!("more than {count} rows"),
        };
        Some(format!(
            "{count} of the directory cannot be verified ({}; by {}): {}",
            of(self.rows.keys().map(kind).collect()),
            of(self.rows.values().map(writer).collect()),
            first.why
        ))
    }
}

/// Why rows do not come through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncProblem {
    /// There is no link.
    #[error("unreachable")]
    Unreachable,
    /// The clocks are too far apart: the other one is so many milliseconds ahead.
    #[error("clock: its clock is {} this machine's; rows pass once both agree within 60 s", apart(*.0))]
    Clock(i64),
    /// A row is from the future, by so many milliseconds.
    #[error("clock: timestamps of a clock that was ahead, {} s later than is believed; within 10 s they are given anew, or taken as they are", .0.div_ceil(1000))]
    Ahead(u64),
    /// One of the two is not in the table's scope, as the other knows it.
    #[error("scope")]
    Scope,
    /// Decisions that the other has are not known here yet.
    #[error("waiting for the directory")]
    Directory,
    /// The replica there is not whole yet.
    #[error("not ready")]
    NotReady,
    /// It must read the whole replica here first: it may lack deletions that were forgotten.
    #[error("stale")]
    Stale,
    /// The owner's rows would be over a bound.
    #[error("quota")]
    Quota,
    /// The disk is full, or fails.
    #[error("storage")]
    Storage,
    /// A row at the source is not what was stored there.
    #[error("a row at its source is damaged")]
    Damaged,
    /// What came was refused, with this text.
    #[error("refused: {0}")]
    Refused(String),
}

impl SyncProblem {
    /// True for what the reader of rows says when it has not taken them.
    #[must_use]
    pub fn is_of_the_reader(&self) -> bool {
        match self {
            Self::Ahead(_) | Self::Stale | Self::Quota | Self::Storage | Self::Refused(_) => true,
            Self::Unreachable
            | Self::Clock(_)
            | Self::Scope
            | Self::Directory
            | Self::NotReady
            | Self::Damaged => false,
        }
    }

    /// True for what does not pass by itself as soon as both nodes know the same.
    #[must_use]
    pub fn is_for_the_operator(&self) -> bool {
        match self {
            Self::Clock(_)
            | Self::Ahead(_)
            | Self::Quota
            | Self::Storage
            | Self::Damaged
            | Self::Refused(_) => true,
            Self::Unreachable | Self::Scope | Self::Directory | Self::NotReady | Self::Stale => {
                false
            }
        }
    }

    /// Why a batch is of no use, as it is shown; none where it says nothing about the rows.
    #[must_use]
    pub fn of_unfit(why: Unfit) -> Option<Self> {
        match why {
            Unfit::Past => None,
            Unfit::ScopeUnknown => Some(Self::Directory),
            Unfit::NotInScope | Unfit::SourceGone => Some(Self::Scope),
            Unfit::SourceStale => Some(Self::Stale),
            Unfit::Ahead { by_ms } => Some(Self::Ahead(by_ms)),
        }
    }
}

impl From<Why> for SyncProblem {
    fn from(why: Why) -> Self {
        match why {
            Why::NoReplica | Why::Busy => Self::NotReady,
            Why::NotInScope => Self::Scope,
            Why::UnknownEpoch | Why::Directory => Self::Directory,
            Why::Clock(offset_ms) => Self::Clock(offset_ms),
            Why::Ahead(by_ms) => Self::Ahead(by_ms),
            Why::Stale => Self::Stale,
            Why::Quota => Self::Quota,
            Why::Storage => Self::Storage,
            Why::Damaged => Self::Damaged,
            Why::Other(TOO_LARGE) => Self::Refused("a row is too large".into()),
            Why::Other(REFUSED) => Self::Refused("what was sent was refused there".into()),
            Why::Other(code) => Self::Refused(format!("reason {code} of a later version")),
        }
    }
}

/// How far a clock is ahead of another, as text: "3600 s ahead of".
#[must_use]
pub fn apart(offset_ms: i64) -> String {
    let seconds = offset_ms.unsigned_abs().div_ceil(1000);
    let side = if offset_ms < 0 { "behind" } else { "ahead of" };
    format!("{seconds} s {side}")
}

#[cfg(test)]
mod tests;
