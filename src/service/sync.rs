//! Replicas of tables on other machines, as far as this one knows of them.
//! The sync worker, which is the edge's, writes it down here; status, waiting and explanations read it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cortex_core::{
    model::{NodeName, TableUid},
    replication::{GcBlocker, Peers, RemoteReplica},
};
use tokio::sync::watch;

/// What is known of the replicas on other machines. In memory alone: what others have confirmed must not
/// outlive what this machine has done about it.
#[derive(Debug)]
pub struct SyncView {
    /// Locked for a look-up or a change of one entry.
    known: Mutex<Known>,
    /// Changes with each entry.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Known {
    peers: Peers,
    blockers: BTreeMap<TableUid, GcBlocker>,
    ahead: Option<AheadOfClock>,
}

/// This machine's timestamps are ahead of its clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AheadOfClock {
    /// By how much.
    pub by_ms: u64,
    /// Since when that is known, in Unix milliseconds.
    pub since_ms: u64,
    /// Why they are not given anew.
    pub why: String,
}

impl AheadOfClock {
    /// What is to be said of it.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "timestamps of this machine are {} s ahead of its clock, which was ahead: {}",
            self.by_ms / 1000,
            self.why
        )
    }
}

impl SyncView {
    /// Nothing known yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { known: Mutex::default(), changed: watch::Sender::new(()) })
    }

    /// What is known of a machine's replica of a table.
    #[must_use]
    pub fn of(&self, table: TableUid, node: &NodeName) -> Option<RemoteReplica> {
        self.known().peers.of(table, node).cloned()
    }

    /// What is known of all replicas of a table.
    #[must_use]
    pub fn replicas_of(&self, table: TableUid) -> Vec<(NodeName, RemoteReplica)> {
        let known = self.known();
        let replicas = known.peers.of_table(table);
        replicas.map(|(node, replica)| (node.clone(), replica.clone())).collect()
    }

    /// Reads what is known of all replicas. Nothing that waits, or looks in here too, belongs in there.
    pub fn read<T>(&self, read: impl FnOnce(&Peers) -> T) -> T {
        read(&self.known().peers)
    }

    /// Changes what is known of replicas; the same holds.
    pub fn change<T>(&self, change: impl FnOnce(&mut Peers) -> T) -> T {
        let changed = change(&mut self.known().peers);
        self.changed.send_replace(());
        changed
    }

    /// Changes what is known of a machine's replica of a table.
    pub fn update(
        &self,
        table: TableUid,
        node: &NodeName,
        change: impl FnOnce(&mut RemoteReplica),
    ) {
        self.change(|peers| change(peers.entry(table, node)));
    }

    /// Notes why this machine's timestamps stay ahead of its clock; none where they are not.
    pub fn set_ahead(&self, ahead: Option<AheadOfClock>) {
        self.known().ahead = ahead;
    }

    /// Why this machine's timestamps are ahead of its clock; none where they are not.
    #[must_use]
    pub fn ahead(&self) -> Option<AheadOfClock> {
        self.known().ahead.clone()
    }

    /// Who keeps deletions of a table from being forgotten; none where nobody does.
    #[must_use]
    pub fn gc_blocker(&self, table: TableUid) -> Option<GcBlocker> {
        self.known().blockers.get(&table).cloned()
    }

    /// Notes who keeps deletions of a table from being forgotten.
    pub fn block(&self, table: TableUid, gc_blocker: Option<GcBlocker>) {
        let mut known = self.known();
        match gc_blocker {
            Some(gc_blocker) => known.blockers.insert(table, gc_blocker),
            None => known.blockers.remove(&table),
        };
    }

    /// Forgets tables that are no more.
    pub fn retain(&self, keep: impl Fn(TableUid) -> bool) {
        let mut known = self.known();
        known.peers.retain(&keep);
        known.blockers.retain(|table, _| keep(*table));
    }

    /// Changes when anything here does.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
