//! How a table's replicas are, as far as this node knows: its own, and each of the others.
//! What others say of themselves comes from `sync`; what may be concluded from it is decided here, once.
//!
//! ```text
//!   directory: who may hold it, which epochs are over ─┐
//!   SyncView: the last status of each replica ────────────┼──> judge ──> sync_status, scope, explain, sync_wait
//!   MeshView: who is linked                            │
//!   store: the replica here ──────────────────────────────┘
//! ```
//!
//! A replica is in sync only while there is a link to it, and if its last status has the same vector and the same
//! digest as the replica here has now. Whatever falls short of that is called by what is known of it.

use std::{collections::BTreeSet, sync::Arc};

use cortex_core::{
    api::{self, GcBlockedBy, NodeScope, OwnReplica, PeerReplica, ReplicaState, TableSync},
    directory::{Directory, Standing},
    model::{NodeName, TableUid},
    replication::{GcBlocker, GcBlocking, RemoteReplica, VersionVector},
};

use super::{
    Service,
    drain::{self, DrainPath, Neighbours},
    mesh::MeshSnapshot,
    obstacle,
};
use crate::{
    store::{Entry, Replica, SYSTEM_TABLE},
    sys::clock,
};

/// How the replica here is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnState {
    /// Whole, and in the scope.
    Ready,
    /// Its rows are still on their way.
    Filling,
    /// Decisions about the scope compete, and not all of them admit this node.
    Frozen,
    /// It drains: what only this node has is handed over, or its bytes are still being overwritten.
    Draining,
    /// There is none.
    None,
}

impl From<OwnState> for ReplicaState {
    fn from(here: OwnState) -> Self {
        match here {
            OwnState::Ready => Self::Ready,
            OwnState::Filling => Self::Filling,
            OwnState::Frozen => Self::Frozen,
            OwnState::Draining => Self::Draining,
            OwnState::None => Self::None,
        }
    }
}

/// How a replica on another node is, compared with the one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It holds the same, by its own status.
    InSync,
    /// One of the two has incorporated what the other has not.
    Behind,
    /// Both have incorporated the same, and hold different rows.
    Diverged,
    /// Not known.
    Unknown,
    /// It is out of the scope, and still owes what only it has.
    Draining,
    /// It is out of the scope, and has nothing any more; or it was abandoned.
    Left,
}

impl From<State> for ReplicaState {
    fn from(state: State) -> Self {
        match state {
            State::InSync => Self::InSync,
            State::Behind => Self::Behind,
            State::Diverged => Self::Diverged,
            State::Unknown => Self::Unknown,
            State::Draining => Self::Draining,
            State::Left => Self::Left,
        }
    }
}

/// Whether there is a link to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// There is one, and nothing has come on it for so many seconds: what was said last may not be so any more.
    Silent(u64),
    Down(Option<String>),
    /// The settings of this node do not name it: others may see it.
    Unknown,
}

/// All that is known of another node's replica.
#[derive(Clone, Debug)]
pub(super) struct ReplicaFacts<'a> {
    pub(super) standing: Standing,
    /// The last replica epoch that has begun, and the last that is over.
    pub(super) epoch: u64,
    pub(super) gone: u64,
    pub(super) removed: bool,
    /// True where root there keeps the table away.
    pub(super) declined: bool,
    pub(super) link: Link,
    pub(super) replica: Option<&'a RemoteReplica>,
    /// The same of the directory, ahead of which no rows travel.
    pub(super) directory: Option<&'a RemoteReplica>,
    pub(super) here: Option<&'a Replica>,
    /// What the table and this node are called.
    pub(super) table: &'a str,
    pub(super) own: &'a str,
    pub(super) now_ms: u64,
}

/// Another node's replica, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Other {
    pub(super) node: NodeName,
    pub(super) state: State,
    pub(super) epoch: u64,
    pub(super) ready: Option<bool>,
    /// Conflicts that it keeps; none where it has not said.
    pub(super) conflicts: Option<u64>,
    pub(super) verified_ms: Option<u64>,
    pub(super) heard_ms: Option<u64>,
    /// Writes that it lacks, at most.
    pub(super) behind_writes: Option<u64>,
    /// Writes that the replica here lacks, at most.
    pub(super) ahead_writes: Option<u64>,
    pub(super) behind_seconds: Option<u64>,
    pub(super) why: Option<String>,
    /// What mends that nothing passes between the two; none where nothing is to be done but to wait.
    pub(super) mend: Option<String>,
    /// Keys of rows that differ where the replicas have diverged, as far as they are named.
    pub(super) differs: Vec<Vec<u8>>,
}

/// A table with all its replicas.
#[derive(Clone, Debug)]
pub(super) struct TableReplicas {
    /// Who says that this node was removed from the mesh.
    pub(super) removed_by: Option<NodeName>,
    pub(super) entry: Arc<Entry>,
    pub(super) name: String,
    pub(super) here: OwnState,
    /// True where root of this machine keeps the table away.
    pub(super) declined: bool,
    /// Where the rows of the replica here can go; none where it does not drain.
    pub(super) drain_path: Option<DrainPath>,
    pub(super) replica: Option<Arc<Replica>>,
    pub(super) others: Vec<Other>,
    pub(super) kept_by: Option<GcBlocker>,
}

impl Service {
    /// The replicas of a table, judged now.
    pub(super) fn replicas_of(&self, entry: &Arc<Entry>) -> TableReplicas {
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        let table = entry.table.uid;
        let replica = self.store.replica(table);
        let seen = self.mesh().map(|mesh| Arc::clone(&mesh.view().now()));
        let now_ms = clock::wall_ms();
        let (epochs, gone) = (directory.epochs(table), directory.gone(table));
        let admitted = others_of(directory, table);
        let held = epochs.keys().filter(|node| Some(*node) != directory.here()).cloned();
        let declined = directory.is_declined_here(table);
        let nodes: BTreeSet<NodeName> = admitted.into_iter().chain(held).collect();
        let name = catalog.show(&entry.table.name);
        let judged = nodes.into_iter().map(|node| {
            let known = self.sync.of(table, &node);
            let ahead = self.sync.of(SYSTEM_TABLE, &node);
            let facts = ReplicaFacts {
                standing: directory.standing(table, &node),
                epoch: epochs.get(&node).copied().unwrap_or(0),
                gone: gone.get(&node).copied().unwrap_or(0),
                removed: directory.is_put_out(&node),
                declined: directory.is_declined(table, &node),
                link: link(seen.as_deref(), &node),
                replica: known.as_ref(),
                directory: ahead.as_ref(),
                here: replica.as_deref(),
                table: &name,
                own: &self.node,
                now_ms,
            };
            judge(node, &facts)
        });
        let others = if entry.replicated { judged.collect() } else { Vec::new() };
        let mut here = here(entry, replica.as_deref());
        let path = || Neighbours::new(directory, entry, seen.as_deref()).path();
        let mut drain_path = (here == OwnState::Draining).then(path);
        if here == OwnState::None && directory.owes_departure(table) {
            (here, drain_path) = (OwnState::Draining, Some(DrainPath::Drained));
        }
        TableReplicas {
            here,
            declined,
            removed_by: seen.as_deref().and_then(MeshSnapshot::removed_by).cloned(),
            drain_path,
            others,
            name,
            replica,
            kept_by: self.sync.gc_blocker(table),
            entry: Arc::clone(entry),
        }
    }

    /// Whether this node is linked to another.
    pub(super) fn link_to(&self, node: &NodeName) -> Link {
        let seen = self.mesh().map(|mesh| Arc::clone(&mesh.view().now()));
        link(seen.as_deref(), node)
    }

    /// What `sync_status` says of a table.
    pub(super) fn table_sync(&self, replicas: &TableReplicas) -> TableSync {
        let TableReplicas { entry, replica, .. } = replicas;
        let replica = replica.as_deref();
        let kept_by = replicas.kept_by.as_ref().map(|GcBlocker { node, why }| {
            let why = match why {
                GcBlocking::Silent => "silent: it has not said what it has",
                GcBlocking::Ahead => "ahead: it has seen what this node has not",
                GcBlocking::Behind => "behind: it has not said that it knows them all",
            };
            GcBlockedBy { node: node.to_string(), why: why.to_owned() }
        });
        TableSync {
            table: replicas.name.clone(),
            scope: NodeScope::from(&entry.table.scope),
            contested: entry.table.contested,
            conflicts: replicas.conflicts() + replicas.conflicts_elsewhere(),
            here: OwnReplica {
                node: self.node.to_string(),
                state: replicas.here.into(),
                why: replicas.why_here(),
                drain_blocked: replicas.drain_blocked(),
                epoch: replica.map(|replica| replica.epoch),
                records: entry.usage.records(),
                tombstones: replica.map_or(0, |replica| replica.tombstones),
                conflicts: replicas.conflicts(),
                damaged: self.store.damaged(entry.table.id).len() as u64,
                conflicts_evicted: replica.map_or(0, |replica| replica.conflicts_evicted),
                digest: replica.map(|replica| hex(&replica.digest.to_bytes())),
            },
            nodes: replicas.others.iter().map(PeerReplica::from).collect(),
            deletions_kept_by: kept_by,
        }
    }

    /// What `get_scope` and `table_info` say of a table's replicas, the one here first.
    pub(super) fn replicas(&self, replicas: &TableReplicas) -> Vec<api::Replica> {
        let own = || api::Replica {
            node: self.node.to_string(),
            state: replicas.here.into(),
            epoch: replicas.replica.as_ref().map(|replica| replica.epoch),
            ready: Some(replicas.replica.as_ref().is_none_or(|replica| replica.ready)),
            conflicts: Some(replicas.conflicts()),
            verified_ms: None,
            heard_ms: None,
            why: replicas.why_here(),
        };
        let others = replicas.others.iter().map(|other| api::Replica {
            node: other.node.to_string(),
            state: other.state.into(),
            epoch: Some(other.epoch),
            ready: other.ready,
            conflicts: other.conflicts,
            verified_ms: other.verified_ms,
            heard_ms: other.heard_ms,
            why: other.why.clone(),
        });
        let own = (replicas.here != OwnState::None || replicas.declined).then(own);
        own.into_iter().chain(others).collect()
    }
}

impl TableReplicas {
    /// Conflicts that this node keeps and of which nobody has taken note.
    pub(super) fn conflicts(&self) -> u64 {
        self.replica.as_ref().map_or(0, |replica| replica.conflicts.open.count)
    }

    /// Conflicts that the others keep, as far as they have said. Each node keeps those that it has met: two
    /// versions that have met on several nodes are a conflict on each of them.
    pub(super) fn conflicts_elsewhere(&self) -> u64 {
        self.others.iter().filter_map(|other| other.conflicts).sum()
    }
}

impl From<&Other> for PeerReplica {
    fn from(other: &Other) -> Self {
        Self {
            node: other.node.to_string(),
            state: other.state.into(),
            conflicts: other.conflicts,
            verified_ms: other.verified_ms,
            behind_writes: other.behind_writes,
            ahead_writes: other.ahead_writes,
            behind_seconds: other.behind_seconds,
            why: other.why.clone(),
            heard_ms: other.heard_ms,
            differs: other
                .differs
                .iter()
                .map(|key| String::from_utf8_lossy(key).into_owned())
                .collect(),
        }
    }
}

/// The other nodes that may hold a table, by every decision or by some of those that compete.
pub(super) fn others_of(directory: &Directory, table: TableUid) -> BTreeSet<NodeName> {
    let members = directory.members().map(|row| &row.node);
    let admitted = members.filter(|node| directory.standing(table, node) != Standing::Out);
    admitted.filter(|node| Some(*node) != directory.here()).cloned().collect()
}

pub(super) fn link(seen: Option<&MeshSnapshot>, node: &NodeName) -> Link {
    match seen.and_then(|seen| seen.peers.iter().find(|peer| peer.node == *node)) {
        Some(peer) if peer.connected => match peer.silence() {
            Some(silence) => Link::Silent(silence.as_secs()),
            None => Link::Up,
        },
        Some(peer) => Link::Down(peer.last_error.clone()),
        None => Link::Unknown,
    }
}

fn here(entry: &Entry, replica: Option<&Replica>) -> OwnState {
    if !entry.replicated {
        return OwnState::Ready;
    }
    let drains = replica.is_some_and(|replica| replica.drain.is_some());
    match (entry.standing, replica) {
        (_, None) => OwnState::None,
        (_, Some(_)) if drains => OwnState::Draining,
        (Standing::Out, Some(replica)) if replica.epoch == 0 => OwnState::None,
        (Standing::Out, Some(_)) => OwnState::Draining,
        (Standing::Frozen, Some(_)) => OwnState::Frozen,
        (Standing::In, Some(replica)) if replica.ready => OwnState::Ready,
        (Standing::In, Some(_)) => OwnState::Filling,
    }
}

/// True where the last status of a replica has the same vector and digest as the replica here has now.
pub(super) fn is_equal(here: &Replica, known: &RemoteReplica) -> bool {
    let status = known.status.as_ref();
    status.is_some_and(|status| status.vector == here.vector && status.digest == here.digest)
}

fn judge(node: NodeName, facts: &ReplicaFacts<'_>) -> Other {
    let status = facts.replica.and_then(|replica| replica.status.as_ref());
    // What was said in an earlier replica epoch says nothing of this one.
    let status = status.filter(|status| status.epoch >= facts.epoch && status.epoch > facts.gone);
    let obstacle = obstacle::between(&node, facts);
    let mend = obstacle.as_ref().and_then(|obstacle| obstacle.mend.clone());
    let (state, why) = state_of(&node, facts, status, obstacle.map(|obstacle| obstacle.why));
    let mend = mend.filter(|_| !matches!(state, State::InSync | State::Left));
    let vectors = status.zip(facts.here).map(|(status, here)| (&status.vector, &here.vector));
    let heard_ms = facts.replica.map(|replica| replica.heard_ms).filter(|heard| *heard > 0);
    let verified_ms = facts.replica.and_then(|replica| replica.verified_ms);
    let since = |at: u64| facts.now_ms.saturating_sub(at) / 1000;
    let judged = matches!(state, State::Behind | State::Diverged | State::Unknown);
    Other {
        node,
        state,
        epoch: facts.epoch,
        ready: status.map(|status| status.ready),
        conflicts: status.and_then(|status| status.conflicts).map(|conflicts| conflicts.count),
        verified_ms,
        heard_ms,
        behind_writes: vectors
            .map(|(theirs, own): (&VersionVector, &VersionVector)| theirs.lacks(own)),
        ahead_writes: vectors.map(|(theirs, own)| own.lacks(theirs)),
        behind_seconds: verified_ms.or(heard_ms).filter(|_| judged).map(since),
        why,
        mend,
        differs: match (state, facts.replica) {
            (State::Diverged, Some(replica)) => replica.differs.clone(),
            _ => Vec::new(),
        },
    }
}

fn state_of(
    node: &NodeName,
    facts: &ReplicaFacts<'_>,
    status: Option<&cortex_core::replication::ReplicaStatus>,
    problem: Option<String>,
) -> (State, Option<String>) {
    if facts.standing == Standing::Out {
        return if facts.epoch > facts.gone && !facts.removed {
            let why = if facts.declined {
                "its root keeps the table away, and it has not said that it has handed over what it held"
            } else {
                "it is out of the scope, and has not said that it has handed over what it held"
            };
            let problem = match facts.link {
                Link::Unknown => Some(drain::not_linked(facts.table, node)),
                Link::Up | Link::Silent(_) | Link::Down(_) => problem,
            };
            (
                State::Draining,
                Some(problem.map_or_else(|| why.into(), |more| format!("{why}; {more}"))),
            )
        } else {
            let why = match (facts.removed, facts.declined) {
                (true, _) => "removed from the mesh",
                (false, true) => {
                    "its root keeps the table away: cortex drop --replica --undo there"
                }
                (false, false) => "out of the scope",
            };
            (State::Left, Some(why.into()))
        };
    }
    let Some(here) = facts.here.filter(|here| here.epoch > 0) else {
        return (State::Unknown, Some("there is no replica here to compare it with".into()));
    };
    let Some(status) = status else {
        let why = problem.unwrap_or_else(|| "it has not reported its replica yet".into());
        return (State::Unknown, Some(why));
    };
    let (same, equal) = (status.vector == here.vector, status.digest == here.digest);
    let whole = status.ready && here.ready;
    // That both have seen the same and differ may be so for a moment, in the middle of a transfer from a
    // third: the upkeep of replicas reports it when it stays so.
    if facts.replica.is_some_and(|replica| replica.diverged) && !(same && equal) {
        let why = "both have seen the same writes and hold different rows";
        return (State::Diverged, Some(why.into()));
    }
    if same && equal && whole {
        return match facts.link {
            Link::Up => (State::InSync, None),
            Link::Silent(_) | Link::Down(_) | Link::Unknown => {
                let since = "it held the same at its last report";
                (State::Unknown, problem.map(|why| format!("{why}; {since}")))
            }
        };
    }
    let why = problem.unwrap_or_else(|| {
        let why = match (status.ready, here.ready) {
            (false, _) => "its replica is still being filled",
            (true, false) => "the replica here is still being filled",
            (true, true) => "rows are on their way",
        };
        why.into()
    });
    (State::Behind, Some(why))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use cortex_core::{
        model::{ActorId, Hlc, Stamp},
        replication::{ChangeLogId, Dot, OpenConflicts, ReplicaStatus, SyncProblem, TableDigest},
    };

    use super::*;
    use crate::store::ConflictCounts;

    const TABLE: TableUid = TableUid([7; 16]);

    fn digest(row: &[u8]) -> TableDigest {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(1), actor: ActorId(1) };
        TableDigest::of_row(TABLE, b"k", stamp, row)
    }

    fn vector(seq: u64) -> VersionVector {
        [Dot { actor: ActorId(1), seq }].into_iter().collect()
    }

    fn replica(seq: u64, row: &[u8]) -> Replica {
        Replica {
            uid: TABLE,
            table: None,
            epoch: 1,
            ready: true,
            change_log: ChangeLogId([0; 16]),
            truncated_lsn: 0,
            last_lsn: 0,
            vector: vector(seq),
            gc_watermark: VersionVector::new(),
            digest: digest(row),
            tombstones: 0,
            conflicts: ConflictCounts::default(),
            conflicts_evicted: 0,
            drain: None,
        }
    }

    fn reported(seq: u64, row: &[u8]) -> RemoteReplica {
        let (vector, digest) = (vector(seq), digest(row));
        let status =
            ReplicaStatus { epoch: 1, ready: true, vector, digest, ..ReplicaStatus::default() };
        RemoteReplica { status: Some(status), heard_ms: 9_000, ..RemoteReplica::default() }
    }

    fn facts<'a>(replica: Option<&'a RemoteReplica>, here: &'a Replica) -> ReplicaFacts<'a> {
        ReplicaFacts {
            standing: Standing::In,
            epoch: 1,
            gone: 0,
            removed: false,
            declined: false,
            link: Link::Up,
            replica,
            directory: None,
            here: Some(here),
            table: "@ann:notes",
            own: "home",
            now_ms: 10_000,
        }
    }

    fn of(facts: &ReplicaFacts<'_>) -> Other {
        judge(NodeName::parse("office").expect("a name"), facts)
    }

    /// holds R5
    #[test]
    fn what_keeps_rows_from_coming_is_told_with_its_place_and_what_cures_it() {
        let here = replica(3, b"v");
        let why = |replica: RemoteReplica| of(&facts(Some(&replica), &here)).why.expect("a reason");
        let full = RemoteReplica { taking: Some(SyncProblem::Storage), ..reported(4, b"w") };
        assert_eq!(
            why(full),
            "its rows are not taken: storage; the disk of home is full, or fails: there, cortex doctor"
        );
        let quota = why(RemoteReplica { giving: Some(SyncProblem::Quota), ..reported(2, b"w") });
        assert!(
            quota.starts_with(
                "it does not take rows: quota; the owner of @ann:notes may store no more on office"
            ),
            "{quota}"
        );
        assert!(
            quota.contains("cortex usage") && quota.contains("limits.bytes_per_uid"),
            "{quota}"
        );
        assert_eq!(why(reported(2, b"w")), "rows are on their way");
    }

    /// holds R5
    #[test]
    fn a_replica_that_is_not_heard_any_more_is_not_said_to_be_in_sync() {
        let (here, replica) = (replica(3, b"v"), reported(3, b"v"));
        let silent = ReplicaFacts { link: Link::Silent(4), ..facts(Some(&replica), &here) };
        let found = of(&silent);
        assert_eq!(found.state, State::Unknown);
        let why = found.why.expect("a reason");
        assert_eq!(why, "no heartbeat for 4 s; it held the same at its last report");
    }

    /// holds R5
    #[test]
    fn a_replica_is_in_sync_only_with_equal_vector_equal_digest_and_a_link() {
        let here = replica(3, b"v");
        for (seq, row, expected) in [
            (3, b"v".as_slice(), State::InSync),
            (3, b"w", State::Diverged),
            (2, b"v", State::Behind),
            (4, b"v", State::Behind),
        ] {
            let diverged = expected == State::Diverged;
            let replica = RemoteReplica { diverged, ..reported(seq, row) };
            assert_eq!(of(&facts(Some(&replica), &here)).state, expected, "{seq} {row:?}");
        }
        let replica = reported(3, b"v");
        let cut = ReplicaFacts { link: Link::Down(None), ..facts(Some(&replica), &here) };
        let found = of(&cut);
        assert_eq!(found.state, State::Unknown);
        assert!(found.why.expect("a reason").starts_with("unreachable"));
    }

    #[test]
    fn a_replica_of_which_nothing_was_heard_is_unknown_and_says_why() {
        let here = replica(3, b"v");
        let found = of(&facts(None, &here));
        assert_eq!(found.state, State::Unknown);
        assert!(found.why.is_some());
    }

    #[test]
    fn what_is_lacked_is_told_in_both_directions() {
        let (here, replica) = (replica(5, b"v"), reported(3, b"w"));
        let found = of(&facts(Some(&replica), &here));
        assert_eq!((found.behind_writes, found.ahead_writes), (Some(2), Some(0)));
        assert_eq!(found.behind_seconds, Some(1));
    }

    /// holds R4
    #[test]
    fn conflicts_are_those_of_the_last_status_of_this_epoch() {
        let here = replica(3, b"v");
        let mut replica = reported(3, b"v");
        assert_eq!(of(&facts(Some(&replica), &here)).conflicts, None, "it has not said");
        let status = replica.status.as_mut().expect("a status");
        status.conflicts = Some(OpenConflicts { since: Hlc::from_unix_ms(5), count: 2 });
        assert_eq!(of(&facts(Some(&replica), &here)).conflicts, Some(2));
        let again = ReplicaFacts { epoch: 2, gone: 1, ..facts(Some(&replica), &here) };
        assert_eq!(of(&again).conflicts, None);
    }

    #[test]
    fn the_status_of_an_earlier_epoch_does_not_count() {
        let (here, replica) = (replica(3, b"v"), reported(3, b"v"));
        let again = ReplicaFacts { epoch: 2, gone: 1, ..facts(Some(&replica), &here) };
        assert_eq!(of(&again).state, State::Unknown);
    }

    /// holds S4
    #[test]
    fn a_replica_out_of_the_scope_drains_until_its_epoch_is_over() {
        let (here, replica) = (replica(3, b"v"), reported(3, b"v"));
        let out = ReplicaFacts { standing: Standing::Out, ..facts(Some(&replica), &here) };
        assert_eq!(of(&out).state, State::Draining);
        assert_eq!(of(&ReplicaFacts { gone: 1, ..out.clone() }).state, State::Left);
        assert_eq!(of(&ReplicaFacts { removed: true, ..out }).state, State::Left);
    }
}
