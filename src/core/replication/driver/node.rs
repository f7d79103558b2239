//! What a driver reads of its own node: its replicas, its directory, and what is known of the other replicas.
//! Nothing is changed through it: what a driver brings about are its outputs.

use std::{collections::BTreeSet, fmt, ops::Deref, sync::Arc};

use crate::{
    directory::Directory,
    model::{ActorId, Hlc, NodeName, TableUid},
    replication::{Dot, OpenConflicts, ReplicaStatus, TableDigest, VersionVector},
};

/// One of the node's replicas, as of the last commit.
pub trait ReplicaSummary: fmt::Debug + Send + Sync {
    /// Of which table.
    fn table(&self) -> TableUid;
    /// Which replica epoch it is; 0 where there is none.
    fn epoch(&self) -> u64;
    /// True once it is whole.
    fn is_ready(&self) -> bool;
    /// What it has incorporated.
    fn vector(&self) -> &VersionVector;
    /// What its live rows come to.
    fn digest(&self) -> TableDigest;
    /// Conflicts of which nobody has taken note.
    fn open_conflicts(&self) -> OpenConflicts;
    /// The draining that is under way.
    fn drain(&self) -> Option<[u8; 16]>;
    /// Deletions that it keeps.
    fn tombstones(&self) -> u64;
}

/// True where nothing of a replica has changed between two looks at it.
pub(in crate::replication) fn is_same(
    before: Option<&Arc<dyn ReplicaSummary>>,
    now: Option<&Arc<dyn ReplicaSummary>>,
) -> bool {
    match (before, now) {
        // Of a trait object only the address says which it is.
        (Some(before), Some(now)) => std::ptr::addr_eq(Arc::as_ptr(before), Arc::as_ptr(now)),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// A driver's own node, as it is at the moment.
pub trait Node {
    /// What it is called.
    fn name(&self) -> &NodeName;

    /// Which actor it is. A replica that is read afterwards is one of this actor, or of a later one.
    fn actor(&self) -> ActorId;

    /// Its hybrid clock.
    fn hlc(&self) -> Hlc;

    /// Its clock, in Unix milliseconds.
    fn wall_ms(&self) -> u64;

    /// Its replica of a table. The same value as long as nothing of the replica has changed.
    fn replica(&self, table: TableUid) -> Option<Arc<dyn ReplicaSummary>>;

    /// All of its replicas.
    fn replicas(&self) -> Vec<Arc<dyn ReplicaSummary>>;

    /// The directory.
    fn directory(&self) -> impl Deref<Target = Directory>;

    /// The last statuses of a table's replicas on other nodes.
    fn statuses(&self, table: TableUid) -> Vec<(NodeName, ReplicaStatus)>;

    /// The nodes that have said themselves that they have observed a later timestamp.
    fn who_has_met(&self, later_than: Hlc) -> BTreeSet<NodeName>;
}

/// What this node's replica of a table says of itself; none where there is none.
#[must_use]
pub fn own_status(here: &impl Node, table: TableUid) -> Option<ReplicaStatus> {
    // The actor first: what an actor has written is shown before the next one is.
    let actor = here.actor();
    let replica = here.replica(table).filter(|replica| replica.epoch() > 0)?;
    Some(ReplicaStatus {
        actor,
        epoch: replica.epoch(),
        vector: replica.vector().clone(),
        epochs: here.directory().epochs(table),
        digest: replica.digest(),
        ready: replica.is_ready(),
        conflicts: Some(replica.open_conflicts()),
        latest: Some(ReplicaStatus::not_before(here.hlc())),
    })
}

/// The last write of a node that is known here, as the actor that it is known as.
#[must_use]
pub fn last_of(here: &impl Node, node: &NodeName) -> Option<Dot> {
    let actor = here.directory().node(node)?.actor;
    let seq = here.replicas().iter().map(|own| own.vector().get(actor)).max()?;
    Some(Dot { actor, seq })
}

/// True where a node has a replica of a table, or may have one: the directory is on every node.
#[must_use]
pub fn may_hold(directory: &Directory, table: TableUid, node: &NodeName) -> bool {
    let begun = directory.epochs(table).get(node).copied().unwrap_or(0);
    table == crate::replication::SYSTEM_TABLE
        || begun > directory.gone(table).get(node).copied().unwrap_or(0)
}

/// True where the database of a node was removed from the mesh, which says that it is this one.
#[must_use]
pub fn is_evicted(directory: &Directory, node: &NodeName, database: Option<[u8; 16]>) -> bool {
    match database {
        Some(database) => directory.is_removed(&database),
        None => directory.is_put_out(node),
    }
}
