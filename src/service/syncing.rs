//! Methods on how replicas of tables are: sync_status, sync_status_table, sync_wait.
//! How a replica is judged is `replicas`; bringing rows to it, the sync worker's.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cortex_core::{
    api::{self, Request as _, TableSync, Verified},
    directory::Standing,
    gate,
    model::{Caller, NodeName, Permissions, Refusal},
    replication::VersionVector,
};

use super::{
    Answer, Service,
    mesh::{AskError, Mesh, Peer},
    read, repair,
    replicas::is_equal,
    sync::SyncView,
};
use crate::{
    store::{CommandError, Entry, Store},
    sys::clock,
};

/// How long is waited unless the caller says so, and at most.
const WAIT_MS: u64 = 30_000;
const MOST_WAIT_MS: u64 = 24 * 60 * 60 * 1000;

/// How long a node may take to say where it is, and until it is asked again.
const ASK_TIME: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What is waited for: that the replica here is whole, and that others have confirmed to have the same.
#[derive(Debug)]
struct Wait {
    here: Box<str>,
    entry: Arc<Entry>,
    /// What this node's replica had when the call came.
    vector: VersionVector,
    nodes: Vec<NodeName>,
    since_ms: u64,
}

impl Service {
    /// `sync_status []`: how the replicas are of every table that the caller may read and that others may have.
    /// Without a mesh there is none.
    pub(super) fn sync_status(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Vec<TableSync>, CommandError> {
        let api::SyncStatus {} = read(params)?;
        let tables = self.replicated_for(caller);
        Ok(tables.iter().map(|entry| self.table_sync(&self.replicas_of(entry))).collect())
    }

    /// `sync_status_table [table]`: the same of one table.
    pub(super) fn sync_status_table(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<TableSync, CommandError> {
        let api::SyncStatusTable { table } = read(params)?;
        let entry = self.open(caller, table, Permissions::READ)?;
        Ok(self.table_sync(&self.replicas_of(&entry)))
    }

    /// The tables that the caller may read and of which others may have replicas, by name.
    pub(super) fn replicated_for(&self, caller: &Caller) -> Vec<Arc<Entry>> {
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        let readable = |entry: &&Arc<Entry>| {
            entry.replicated
                && gate::admit(caller, &entry.table, Permissions::READ, directory).is_ok()
        };
        let all = catalog.namespaces().flat_map(|(_, namespace)| namespace.tables());
        let mut tables: Vec<_> = all.filter(readable).cloned().collect();
        tables.sort_by_cached_key(|entry| catalog.show(&entry.table.name));
        tables
    }

    /// `sync_wait [table]` or `[table, {node, all, timeout_ms}]`: waits until a node, or every other node in
    /// the scope, has all that this node's replica has now, and both were found equal. A replica here that is being
    /// filled is waited for too.
    pub(super) fn sync_wait(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        self.signer()?;
        let api::SyncWait { table, options } = read(params)?;
        let api::WaitOptions { node, all, timeout_ms } = options;
        if all && node.is_some() {
            return Err(api::SyncWait::invalid().into());
        }
        let entry = self.open_anywhere(caller, table, Permissions::READ)?;
        if entry.standing == Standing::Out {
            return Err(Refusal::NotHere.into());
        }
        let nodes = self.waited_for(&entry, node.as_deref())?;
        let wait = Wait {
            here: self.node.clone(),
            vector: self
                .store
                .replica(entry.table.uid)
                .map(|replica| replica.vector.clone())
                .unwrap_or_default(),
            entry,
            nodes,
            since_ms: clock::wall_ms(),
        };
        let (store, sync) = (self.store.clone(), Arc::clone(&self.sync));
        let mesh = self.mesh().ok_or_else(|| self.without_mesh())?.clone();
        let time_limit = Duration::from_millis(timeout_ms.unwrap_or(WAIT_MS).min(MOST_WAIT_MS));
        Ok(Answer::later(
            async move { wait.until_confirmed(&store, &sync, &mesh, time_limit).await },
        ))
    }

    fn waited_for(&self, entry: &Entry, named: Option<&str>) -> Result<Vec<NodeName>, Refusal> {
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        let admitted = directory.in_scope(entry.table.uid);
        match named {
            None => {
                let others = admitted.into_iter().filter(|node| Some(node) != directory.here());
                Ok(others.collect())
            }
            Some(name) => {
                let node = NodeName::parse(name)?;
                if admitted.contains(&node) {
                    Ok(vec![node])
                } else {
                    Err(Refusal::NotInScope(node.as_str().into()))
                }
            }
        }
    }
}

impl Wait {
    async fn until_confirmed(
        self,
        store: &Store,
        sync: &SyncView,
        mesh: &Mesh,
        time_limit: Duration,
    ) -> Result<Verified, CommandError> {
        let begun = clock::monotonic();
        let deadline = begun + time_limit;
        let (mut replicas, mut statuses) = (store.replica_changes(), sync.changes());
        loop {
            // Before the look: a change that comes after it wakes up.
            replicas.borrow_and_update();
            statuses.borrow_and_update();
            let mut missing = self.missing(store, sync);
            if missing.is_empty() {
                missing = self.unconfirmed(store, mesh, deadline).await;
            }
            if missing.is_empty() {
                let waited_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                let nodes = self.nodes.iter().map(NodeName::to_string).collect();
                return Ok(Verified { verified: true, nodes, waited_ms });
            }
            let changed = async {
                tokio::select! {
                    changed = replicas.changed() => changed.is_ok(),
                    changed = statuses.changed() => changed.is_ok(),
                    () = tokio::time::sleep(ASK_AGAIN) => true,
                }
            };
            match tokio::time::timeout_at(deadline.into(), changed).await {
                Ok(true) => {}
                Ok(false) | Err(_) => {
                    return Err(Refusal::NotConfirmed(missing.join(", ").into()).into());
                }
            }
        }
    }

    /// The nodes that do not say so themselves when they are asked now: the last status of one that is gone, or that
    /// is silent, confirms nothing.
    async fn unconfirmed(&self, store: &Store, mesh: &Mesh, deadline: Instant) -> Vec<&str> {
        let mut missing = Vec::new();
        for node in &self.nodes {
            let deadline = deadline.min(clock::monotonic() + ASK_TIME);
            if !self.is_confirmed_by(node, store, mesh, deadline).await {
                missing.push(node.as_str());
            }
        }
        missing
    }

    async fn is_confirmed_by(
        &self,
        node: &NodeName,
        store: &Store,
        mesh: &Mesh,
        deadline: Instant,
    ) -> bool {
        let theirs = match repair::summary_of(mesh, node, &self.entry, deadline).await {
            Ok(theirs) => theirs,
            // It cannot be asked from here. What it has said has come through others: one of them must see it now.
            Err(AskError::UnknownNode(_)) => {
                let seen = mesh.view().now();
                let fresh = |peer: &&Peer| peer.connected && peer.silence().is_none();
                return seen.peers.iter().filter(fresh).any(|peer| peer.sees.contains(node));
            }
            Err(_) => return false,
        };
        let Some(here) = store.replica(self.entry.table.uid) else { return false };
        let differs = here.vector == theirs.vector && here.digest != theirs.digest;
        theirs.vector.dominates(&self.vector) && !differs
    }

    fn missing(&self, store: &Store, sync: &SyncView) -> Vec<&str> {
        let table = self.entry.table.uid;
        let here = store.replica(table);
        let has_confirmed = |node: &NodeName| {
            let (Some(here), Some(known)) = (&here, sync.of(table, node)) else {
                return false;
            };
            let has_all = known
                .status
                .as_ref()
                .is_some_and(|word| word.ready && word.vector.dominates(&self.vector));
            let since = known.verified_ms.is_some_and(|at| at >= self.since_ms);
            has_all && (since || is_equal(here, &known))
        };
        let is_whole = here.as_ref().is_none_or(|here| here.ready);
        let own = (!is_whole).then_some(&*self.here);
        let missing = self.nodes.iter().filter(|node| !has_confirmed(node));
        own.into_iter().chain(missing.map(NodeName::as_str)).collect()
    }
}
