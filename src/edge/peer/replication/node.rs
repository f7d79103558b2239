//! This node, as the driver of a link and upkeep read it: from the store, and from what is known of other nodes.
//! Nothing is changed here.

use std::{collections::BTreeSet, ops::Deref, sync::Arc};

use arc_swap::Guard;
use cortex_core::{
    directory::Directory,
    model::{ActorId, Hlc, NodeName, TableUid},
    replication::{
        RemoteReplica, ReplicaStatus,
        driver::{Node, ReplicaSummary},
        upkeep::UpkeepNode,
    },
};

use crate::{
    service::{mesh::MeshView, sync::SyncView},
    store::{Catalog, Store},
    sys::clock,
};

/// This node.
#[derive(Debug)]
pub(in crate::edge::peer) struct LocalNode {
    pub(super) name: NodeName,
    pub(in crate::edge::peer) store: Store,
    pub(in crate::edge::peer) view: Arc<SyncView>,
    pub(super) mesh: Arc<MeshView>,
}

/// The directory of a catalog.
struct Shown(Guard<Arc<Catalog>>);

impl Deref for Shown {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        self.0.directory()
    }
}

impl Node for LocalNode {
    fn name(&self) -> &NodeName {
        &self.name
    }

    fn actor(&self) -> ActorId {
        self.store.actor()
    }

    fn hlc(&self) -> Hlc {
        self.store.hlc()
    }

    fn wall_ms(&self) -> u64 {
        clock::wall_ms()
    }

    fn replica(&self, table: TableUid) -> Option<Arc<dyn ReplicaSummary>> {
        Some(self.store.replica(table)?)
    }

    fn replicas(&self) -> Vec<Arc<dyn ReplicaSummary>> {
        let replicas = self.store.replicas().into_iter();
        replicas.map(|replica| -> Arc<dyn ReplicaSummary> { replica }).collect()
    }

    fn directory(&self) -> impl Deref<Target = Directory> {
        Shown(self.store.catalog())
    }

    fn statuses(&self, table: TableUid) -> Vec<(NodeName, ReplicaStatus)> {
        self.view.read(|peers| {
            let known = peers.of_table(table);
            known.filter_map(|(node, known)| Some((node.clone(), known.status.clone()?))).collect()
        })
    }

    fn who_has_met(&self, later_than: Hlc) -> BTreeSet<NodeName> {
        self.view.read(|peers| peers.who_has_met(later_than))
    }
}

impl UpkeepNode for LocalNode {
    fn remote_replicas(&self, table: TableUid) -> Vec<(NodeName, RemoteReplica)> {
        self.view.replicas_of(table)
    }

    fn rows(&self, table: TableUid) -> u64 {
        self.store.catalog().by_uid(table).map_or(0, |entry| entry.usage.records())
    }

    fn clock_offsets_ms(&self) -> Vec<i64> {
        let seen = self.mesh.now();
        let linked = seen.peers.iter().filter(|peer| peer.connected);
        linked.filter_map(|peer| peer.clock_offset_ms).collect()
    }
}
