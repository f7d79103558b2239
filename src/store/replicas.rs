//! This machine's replicas as everybody but the writer sees them: as of the last commit, and never of a later
//! moment than the catalog that is shown.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use cortex_core::model::TableUid;
use tokio::sync::watch;

use super::{actors::Actors, recent::Recent, replica::Replica};

/// Changes of replicas that are listed. Whoever has missed more looks at every replica.
const LISTED: usize = 1024;

/// The replicas, shared.
#[derive(Debug)]
pub(super) struct PublishedReplicas {
    /// Locked for a look-up, and for putting those that a commit has changed in their place.
    shown: RwLock<Shown>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Shown {
    by_table: BTreeMap<TableUid, Arc<Replica>>,
    /// Of the same commit.
    recent: Arc<Recent>,
    /// Every actor that rows of that commit name.
    actors: Actors,
    /// The tables whose replicas have changed last, the newest at the end.
    changes: VecDeque<TableUid>,
    /// How many have changed so far.
    count: u64,
}

impl PublishedReplicas {
    pub(super) fn new() -> Self {
        Self { shown: RwLock::default(), changed: watch::Sender::new(()) }
    }

    fn shown(&self) -> RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, table: TableUid) -> Option<Arc<Replica>> {
        self.shown().by_table.get(&table).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Replica>> {
        self.shown().by_table.values().cloned().collect()
    }

    /// A replica, and the newest changes as of the same commit.
    pub(super) fn with_recent(&self, table: TableUid) -> Option<(Arc<Replica>, Arc<Recent>)> {
        let shown = self.shown();
        let replica = shown.by_table.get(&table)?;
        Some((Arc::clone(replica), Arc::clone(&shown.recent)))
    }

    pub(super) fn actors(&self) -> Actors {
        self.shown().actors.clone()
    }

    /// How many changes there were so far; and the tables of those after an earlier such number, none where
    /// there are too many to be listed. A table may be named more than once.
    pub(super) fn changed_since(&self, count: u64) -> (u64, Option<Vec<TableUid>>) {
        let shown = self.shown();
        let missed = usize::try_from(shown.count.saturating_sub(count)).unwrap_or(usize::MAX);
        let listed = shown.changes.len().checked_sub(missed);
        (shown.count, listed.map(|known| shown.changes.range(known..).copied().collect()))
    }

    /// Changes after a replica has.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Shows what a commit has changed, if anything. Those who wait are woken by [`PublishedReplicas::wake`].
    pub(super) fn show(&self, changed: &[Arc<Replica>], recent: &Arc<Recent>, actors: &Actors) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.by_table.extend(changed.iter().map(|replica| (replica.uid, Arc::clone(replica))));
        shown.recent = Arc::clone(recent);
        shown.actors = actors.clone();
        shown.count += changed.len() as u64;
        shown.changes.extend(changed.iter().map(|replica| replica.uid));
        let excess = shown.changes.len().saturating_sub(LISTED);
        shown.changes.drain(..excess);
    }

    pub(super) fn wake(&self) {
        self.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::replication::ChangeLogId;

    use super::*;

    fn change(replicas: &PublishedReplicas, table: u8) {
        let replica = Replica::new(TableUid([table; 16]), 1, ChangeLogId::default(), 0);
        replicas.show(&[Arc::new(replica)], &Arc::default(), &Actors::default());
    }

    #[test]
    fn a_follower_gets_what_has_changed_and_nothing_else() {
        let replicas = PublishedReplicas::new();
        for table in [1, 2, 3] {
            change(&replicas, table);
        }
        let uids = |tables: &[u8]| Some(tables.iter().map(|n| TableUid([*n; 16])).collect());
        assert_eq!(replicas.changed_since(1), (3, uids(&[2, 3])));
        assert_eq!(replicas.changed_since(3), (3, uids(&[])));
        for _ in 0..LISTED {
            change(&replicas, 4);
        }
        assert_eq!(replicas.changed_since(3).1.map(|tables| tables.len()), Some(LISTED));
        assert_eq!(replicas.changed_since(2).1, None);
    }
}
