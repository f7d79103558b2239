//! The one thread that changes the database: it owns the write connection and the hybrid clock.
//! What a command means is decided in `apply`; this is the loop around it.
//!
//! ```text
//!   queue ──> up to 1,024 jobs ──> BEGIN ── apply each ── counters ── COMMIT ──> replies
//!     ^            (group commit)              │                        │
//!     └── bounded in jobs and in bytes         └ a refusal changes      └ a fault answers all of
//!                                                nothing                  them, and state is read
//!                                                                         again from the file
//! ```
//!
//! A reply leaves after the commit, never before, and readers see the commit before the reply.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use cortex_core::model::Limits;
use rusqlite::{Connection, MAIN_DB, wal::CheckpointMode};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, warn};

use super::{
    apply::{Batch, Finished, State, Totals},
    cache::RecordCache,
    catalog::Catalog,
    checkpoint,
    command::{Command, Done, Job},
    epoch::Epoch,
    error::{Failure, Fault},
    reader::Reader,
};
use crate::{ambient, journal};

/// Jobs in one transaction. Beyond some hundred the sync is amortised, and each only waits longer.
const BATCH: usize = 1024;

/// Pages of log from which the writer ends a checkpoint that the background thread has nearly
/// finished, so that the log starts again from its beginning: 16 MiB.
const RESTART_PAGES: u64 = 4096;

/// The longest that ending a checkpoint may wait for readers to let go of the log.
const RESTART_WAIT: Duration = Duration::from_millis(5);

/// Pages of log at which long reads over old states are ended: 1 GiB.
const PRESSURE_PAGES: u64 = 262_144;

/// What the writer publishes for everybody else.
#[derive(Debug)]
pub(super) struct Published {
    /// The tables, as of the last commit.
    pub(super) catalog: ArcSwap<Catalog>,
    /// Changes after the catalog has.
    pub(super) catalog_changed: watch::Sender<()>,
    /// Bounds on what one owner may hold.
    pub(super) limits: ArcSwap<Limits>,
    /// Announces commits to readers that hold a snapshot.
    pub(super) epoch: Epoch,
    /// Announces commits to readers that hold records.
    pub(super) cache: RecordCache,
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
    /// The fault that stopped the store, once there is one.
    pub(super) fatal: watch::Sender<Option<Fault>>,
}

pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) state: State,
    pub(super) published: Arc<Published>,
    /// Their held snapshots are released before a checkpoint is ended.
    pub(super) readers: Vec<Arc<Reader>>,
    pub(super) checkpointer: checkpoint::Handle,
}

impl Writer {
    /// Runs until told to stop, until every sender is gone, or until the disk must not be trusted.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut jobs, BATCH) > 0 {
            if jobs.iter().any(|job| matches!(job.command, Command::Stop)) {
                queue.close(); // what was sent before is still carried out
            }
            if let Err(fault) = self.commit(&mut jobs) {
                error!(MESSAGE_ID = journal::STORE_STOPPED, %fault, "the store stops");
                queue.close();
                refuse_rest(&mut queue, &fault);
                self.published.fatal.send_replace(Some(fault));
                return;
            }
            self.tend_log();
        }
        self.finish();
    }

    /// Carries out the jobs in one transaction and answers them. Only a fault after which the
    /// store must not go on is an error.
    fn commit(&mut self, jobs: &mut Vec<Job>) -> Result<(), Fault> {
        let started = ambient::monotonic();
        let count = jobs.len() as u64;
        match self.transact(jobs) {
            Ok(committed) => {
                self.publish(committed.state, committed.totals, started);
                for (job, outcome) in jobs.drain(..).zip(committed.outcomes) {
                    let _gone = job.reply.send(outcome); // the caller may have hung up
                }
            }
            Err(fault) => {
                report_failed(&fault, count);
                for job in jobs.drain(..) {
                    let _gone = job.reply.send(Err(fault.clone().into()));
                }
                if fault.is_fatal() {
                    return Err(fault);
                }
                self.reload()?;
            }
        }
        self.published.commands.fetch_add(count, Relaxed);
        Ok(())
    }

    fn transact(&mut self, jobs: &[Job]) -> Result<Committed, Fault> {
        let limits = **self.published.limits.load();
        let transaction =
            self.conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut batch = Batch::begin(
            &transaction,
            &self.published.cache,
            &self.state,
            limits,
            ambient::wall_ms(),
        );
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            match batch.apply(&job.command) {
                Err(Failure::Faulted(fault)) => return Err(fault), // dropping rolls back
                outcome => outcomes.push(outcome),
            }
        }
        let Finished { state, totals, touched } = batch.finish()?;
        let records = self.published.cache.begin(touched);
        let snapshots = self.published.epoch.begin();
        transaction.commit()?;
        drop((snapshots, records));
        Ok(Committed { state, totals, outcomes })
    }

    /// Lets the rest of the daemon see a commit. Comes before the replies.
    fn publish(&mut self, state: State, totals: Totals, started: Instant) {
        totals.publish(&state.catalog);
        if !Arc::ptr_eq(&self.state.catalog, &state.catalog) {
            self.published.show(&state.catalog);
        }
        self.state = state;
        self.published.commits.fetch_add(1, Relaxed);
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.published.commit_us.store(took, Relaxed);
    }

    /// After a fault nothing in memory is believed: the counters and the catalog are read again.
    fn reload(&mut self) -> Result<(), Fault> {
        self.state = State::load(&self.conn)?;
        self.published.show(&self.state.catalog);
        Ok(())
    }

    /// Keeps the log short: wakes the checkpointer, and when that has left little to do, does the
    /// rest here, where no commit can add to it, so that the log starts again from its beginning.
    fn tend_log(&mut self) {
        let pages = self.published.log_pages.load(Relaxed);
        self.published.pressure.store(pages >= PRESSURE_PAGES, Relaxed);
        if pages < RESTART_PAGES {
            return;
        }
        if !self.checkpointer.is_nearly_done() {
            self.checkpointer.wake();
            return;
        }
        for reader in &self.readers {
            reader.release();
        }
        if let Err(fault) = self.restart_log() {
            warn!(%fault, "a checkpoint failed, the log keeps growing until one succeeds");
        }
    }

    fn restart_log(&mut self) -> Result<(), Fault> {
        self.checkpointer.reset();
        self.conn.busy_timeout(RESTART_WAIT)?;
        let result = self.conn.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::RESTART);
        self.conn.busy_timeout(Duration::from_secs(5))?;
        match result {
            Ok(_) => self.published.log_pages.store(0, Relaxed),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                debug!("a reader still needs the log, it starts again later");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Leaves a database without a log behind, if nobody reads any more.
    fn finish(mut self) {
        for reader in &self.readers {
            reader.release();
        }
        if let Err(fault) = self.restart_log() {
            debug!(%fault, "the last checkpoint was left to the next start");
        }
    }
}

/// What a transaction brought.
struct Committed {
    state: State,
    totals: Totals,
    outcomes: Vec<Result<Done, Failure>>,
}

/// Tells the operator of a transaction that failed.
fn report_failed(fault: &Fault, jobs: u64) {
    const WHAT: &str = "a transaction failed, nothing of it was stored";
    if matches!(fault, Fault::Full(_)) {
        warn!(MESSAGE_ID = journal::STORAGE_FULL, %fault, jobs, "{WHAT}");
    } else {
        warn!(%fault, jobs, "{WHAT}");
    }
}

/// Answers everything that was queued behind a fatal fault.
fn refuse_rest(queue: &mut mpsc::Receiver<Job>, fault: &Fault) {
    while let Ok(job) = queue.try_recv() {
        let _gone = job.reply.send(Err(fault.clone().into()));
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("state", &self.state).finish_non_exhaustive()
    }
}
