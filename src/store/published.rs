//! What the writer publishes for everybody else: the state of the last commit, and the first fault that stopped the
//! store. Publishing comes after the commit and before the replies.

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use cortex_core::model::{ActorId, Hlc, Limits, TableId};
use rusqlite::hooks::Action;
use tokio::sync::watch;
use tracing::{error, warn};

use super::{
    cache::RecordCache, catalog::Catalog, damage::Damage, error::StoreError, options::Options,
    recent::Recent, replica::Replica, replicas::PublishedReplicas, seqlock::SeqLock,
    tx::state::State,
};
use crate::{sys::journal, sys::throttle::LogThrottle};

/// What the writer publishes for everybody else.
#[derive(Debug)]
pub(super) struct Published {
    /// Rows that are not what was stored.
    pub(super) damage: Arc<Damage>,
    /// The tables, as of the last commit.
    pub(super) catalog: ArcSwap<Catalog>,
    /// Changes after the catalog has.
    pub(super) catalog_changed: watch::Sender<()>,
    /// Bounds on what one owner may hold.
    pub(super) limits: ArcSwap<Limits>,
    /// Announces commits to readers that hold a snapshot.
    pub(super) seqlock: SeqLock,
    /// Announces commits to readers that hold records.
    pub(super) cache: RecordCache,
    /// The writer's hybrid clock, as of the last commit.
    pub(super) hlc: AtomicU64,
    /// This machine's replicas, as of the last commit.
    pub(super) replicas: PublishedReplicas,
    /// Who the writes of this database are by.
    pub(super) actor: ArcSwap<ActorId>,
    /// Commits since the start.
    pub(super) commits: AtomicU64,
    /// How long the last commit took, in microseconds.
    pub(super) commit_us: AtomicU64,
    /// Commands carried out or refused.
    pub(super) commands: AtomicU64,
    /// Pages in the log.
    pub(super) log_pages: AtomicU64,
    /// True while long reads must end, so that the log can be recycled.
    pub(super) pressure: AtomicBool,
    /// True once a change has removed bytes that are to be gone from the disk.
    pub(super) removed: AtomicBool,
    /// Held open for as long as any connection is: closing it would take SQLite's locks on the file away.
    pub(super) _file: Option<Arc<File>>,
    /// True once backups are to be given up, so that the end need not wait for them.
    pub(super) ending: AtomicBool,
    pub(super) failed_writes: LogThrottle,
    pub(super) failed_reads: LogThrottle,
    pub(super) failed_checkpoints: LogThrottle,
    /// The fault that stopped the store, once there is one.
    pub(super) fatal: watch::Sender<Option<StoreError>>,
}

impl Published {
    pub(super) fn new(
        catalog: Arc<Catalog>,
        damage: Arc<Damage>,
        options: &Options,
        file: Option<Arc<File>>,
    ) -> Self {
        Self {
            damage,
            catalog: ArcSwap::new(catalog),
            catalog_changed: watch::Sender::new(()),
            limits: ArcSwap::from_pointee(options.limits),
            seqlock: SeqLock::default(),
            cache: RecordCache::new(options.record_cache_bytes),
            hlc: AtomicU64::new(0),
            replicas: PublishedReplicas::new(),
            actor: ArcSwap::from_pointee(ActorId::default()),
            commits: AtomicU64::new(0),
            commit_us: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            log_pages: AtomicU64::new(0),
            pressure: false.into(),
            removed: false.into(),
            _file: file,
            ending: false.into(),
            failed_writes: LogThrottle::new(),
            failed_reads: LogThrottle::new(),
            failed_checkpoints: LogThrottle::new(),
            fatal: watch::Sender::new(None),
        }
    }

    /// Lets everybody see replicas that have changed.
    pub(super) fn publish_replicas(
        &self,
        changed: &[Arc<Replica>],
        recent: &Arc<Recent>,
        state: &State,
    ) {
        // Even where none has: what is recent may not be sent any more.
        self.replicas.show(changed, recent, &state.actors);
        // After the replicas: who reads first the actor id, and then what the replicas hold, never reports as
        // a new actor what only an earlier one had.
        let actor = state.own_actor();
        if **self.actor.load() != actor {
            self.actor.store(Arc::new(actor));
        }
        if !changed.is_empty() {
            self.replicas.wake();
        }
    }

    /// An error once a fault has been found after which the store must not go on.
    pub(super) fn trusted(&self) -> Result<(), StoreError> {
        self.fatal.borrow().clone().map_or(Ok(()), Err)
    }

    /// Keeps in mind which row it was, where one is damaged.
    pub(super) fn note_damage(&self, fault: &StoreError) {
        if let StoreError::Damaged { table, key } = fault {
            self.damage.found(*table, key);
        }
    }

    /// Names a table that could not be read in the log; the client's error says less.
    pub(super) fn warn_of_failed_read(&self, table: TableId, fault: &StoreError) {
        if let Some(suppressed) = self.failed_reads.due() {
            let table = self.catalog.load().name_of(table).map(ToString::to_string);
            warn!(%fault, table, suppressed, "a table could not be read: {fault}");
        }
    }

    /// Stops the store where something failed that it must not outlive.
    pub(super) fn report_outcome<T>(&self, outcome: &Result<T, StoreError>) {
        if let Err(fault) = outcome
            && fault.is_fatal()
        {
            self.stop(fault.clone());
        }
    }

    /// Tells everybody, and once the operator, that the store must not go on. The first fault stays
    /// the reason.
    pub(super) fn stop(&self, fault: StoreError) {
        self.fatal.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                error!(MESSAGE_ID = journal::STORE_STOPPED, %fault, "the store stops: {fault}");
            }
            reason.get_or_insert(fault);
            first
        });
    }

    /// Lets everybody see how far the hybrid clock has come.
    pub(super) fn publish_clock(&self, hlc: Hlc) {
        self.hlc.store(hlc.to_i64().unsigned_abs(), Relaxed);
    }

    /// Lets everybody see another catalog, and wakes those that follow it.
    pub(super) fn show(&self, catalog: &Arc<Catalog>) {
        self.catalog.store(Arc::clone(catalog));
        self.catalog_changed.send_replace(());
    }

    /// Has SQLite report the length of the log after each commit, and each change that removes bytes.
    pub(super) fn follow_log(
        self: &Arc<Self>,
        conn: &mut rusqlite::Connection,
    ) -> rusqlite::Result<()> {
        let published = Arc::clone(self);
        conn.update_hook(Some(move |action: Action, _: &str, table: &str, _: i64| {
            if action != Action::SQLITE_INSERT && matches!(table, "records" | "conflicts") {
                published.removed.store(true, Relaxed);
            }
        }))?;
        let published = Arc::clone(self);
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            published.log_pages.store(u64::try_from(pages).unwrap_or(0), Relaxed);
            Ok(())
        }))
    }
}
