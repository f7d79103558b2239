//! The one thread that changes the database: it owns the write connection and the hybrid clock.
//! What a command means is decided in `tx`; this is the loop around it.
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
//! After a failed sync, its own or the checkpointer's, nothing more is acknowledged.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use rusqlite::{MAIN_DB, wal::CheckpointMode};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{
    checkpoint,
    command::{Command, Job},
    database::{Committed, Engine, TxInputs},
    erasure::{self, Erasure, NEARLY, PAUSE},
    error::{StoreError, is_busy},
    options::LogBounds,
    published::Published,
    reader::Reader,
    reserve::Reserve,
    rollback_marker::RollbackMarker,
};
use crate::{sys::clock, sys::journal};

/// Jobs in one transaction. Beyond some hundred the sync is amortised, and each only waits longer.
const BATCH: usize = 1024;

/// The longest that ending a checkpoint may wait for readers to let go of the log.
pub(super) const RESTART_WAIT: Duration = Duration::from_millis(5);

/// How long readers and the checkpointer are waited for where nothing goes on without a checkpoint, and how
/// long between two tries.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(2);
const CHECKPOINT_RETRY: Duration = Duration::from_millis(10);

/// How long a statement waits for a lock. Nobody else writes, so there is nothing to wait for but
/// the other connections of this process opening and closing.
const BUSY_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    pub(super) engine: Engine,
    pub(super) rollback_marker: RollbackMarker,
    pub(super) published: Arc<Published>,
    /// Their held snapshots are released before a checkpoint is ended.
    pub(super) readers: Vec<Arc<Reader>>,
    pub(super) checkpointer: checkpoint::Handle,
    pub(super) bounds: LogBounds,
    pub(super) erasure: Erasure,
    /// None where the file is not the operating system's.
    pub(super) reserve: Option<Reserve>,
}

impl Writer {
    /// Runs until stopped, until every sender is gone, or until the disk must not be trusted.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let _panics = PanicAnnounced(Arc::clone(&self.published));
        let mut jobs = Vec::new();
        while queue.blocking_recv_many(&mut jobs, BATCH) > 0 {
            if jobs.iter().any(|job| matches!(job.command, Command::Stop)) {
                queue.close(); // what was sent before is still carried out
            }
            let batch = std::mem::take(&mut jobs);
            let outcome =
                self.commit(batch).and_then(|()| self.maintain_log()).and_then(|()| self.erase());
            if let Err(fault) = outcome {
                // First of all: who is refused from here on finds the reason, and the last
                // checkpoint may be held up for ever by a dying disk.
                self.published.stop(fault.clone());
                queue.close();
                refuse_rest(&mut queue, &fault);
                self.leave_no_log();
                return;
            }
        }
        self.finish();
    }

    /// Carries out the jobs in one transaction and answers them. Only a fault after which the
    /// store must not go on is an error.
    fn commit(&mut self, jobs: Vec<Job>) -> Result<(), StoreError> {
        let jobs = self.admit_to_disk(jobs)?;
        if jobs.is_empty() {
            return Ok(());
        }
        self.commit_admitted(jobs)
    }

    pub(super) fn refuse(&self, jobs: Vec<Job>, fault: &StoreError) {
        if jobs.is_empty() {
            return;
        }
        if let Some(suppressed) = self.published.failed_writes.due() {
            let table = jobs.iter().find_map(|job| job.command.table()).map(ToString::to_string);
            let full = matches!(fault, StoreError::Full(_)).then_some(journal::STORAGE_FULL);
            let count = jobs.len();
            warn!(MESSAGE_ID = full, %fault, jobs = count, table, suppressed, "a transaction failed, nothing of it was stored: {fault}");
        }
        self.published.commands.fetch_add(jobs.len() as u64, Relaxed);
        for job in jobs {
            let _gone = job.reply.send(Err(fault.clone().into()));
        }
    }

    pub(super) fn commit_admitted(&mut self, mut jobs: Vec<Job>) -> Result<(), StoreError> {
        let started = clock::monotonic();
        let count = jobs.len() as u64;
        let fault = match self.transact(&jobs) {
            Ok(mut committed) => {
                self.publish(&mut committed, started);
                self.note_removal();
                self.published.commands.fetch_add(count, Relaxed);
                for (job, outcome) in jobs.into_iter().zip(committed.outcomes) {
                    let _gone = job.reply.send(outcome); // the caller may have hung up
                }
                return Ok(());
            }
            Err(fault) => fault,
        };
        if matches!(fault, StoreError::Corrupt(_)) && jobs.len() > 1 {
            // One job that touches a damaged page must not fail the others.
            self.reload()?;
            let second_half = jobs.split_off(jobs.len() / 2);
            self.commit_admitted(jobs)?;
            return self.commit_admitted(second_half);
        }
        if !matches!(fault, StoreError::Full(_)) {
            self.refuse(jobs, &fault);
            return if fault.is_fatal() { Err(fault) } else { self.reload() };
        }
        self.reload()?;
        self.retry_on_full_disk(jobs, &fault)
    }

    fn transact(&mut self, jobs: &[Job]) -> Result<Committed, StoreError> {
        self.published.trusted()?;
        let published = &self.published;
        let commands = jobs.iter().map(|job| &job.command);
        let committed =
            self.engine.transact(commands, around(published, clock::wall_ms()), |touched| {
                // The other way round when they are dropped: the snapshots first.
                (published.seqlock.begin(), published.cache.begin(touched))
            })?;
        // A sync that failed on another connection may have taken this commit's pages along and
        // left none for its own sync to fail on.
        self.published.trusted()?;
        let state = &self.engine.state;
        if state.catalog.directory().here().is_some() {
            self.rollback_marker.note(state.own_actor(), state.seq);
        }
        Ok(committed)
    }

    /// Lets the rest of the daemon see a commit. Comes before the replies.
    fn publish(&mut self, committed: &mut Committed, started: Instant) {
        let state = &self.engine.state;
        std::mem::take(&mut committed.totals).publish(&state.catalog);
        if !Arc::ptr_eq(&committed.before, &state.catalog) {
            self.published.show(&state.catalog);
        }
        self.published.publish_clock(state.hlc());
        self.published.publish_replicas(&committed.replicas, &self.engine.recent, state);
        self.engine.exposure.end();
        if !committed.wrote {
            return;
        }
        self.published.commits.fetch_add(1, Relaxed);
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.published.commit_us.store(took, Relaxed);
    }

    /// After a fault nothing in memory is believed: the counters and the catalog are read again.
    fn reload(&mut self) -> Result<(), StoreError> {
        self.engine.reload()?;
        self.engine.exposure.end();
        self.published.show(&self.engine.state.catalog);
        Ok(())
    }

    /// Keeps the log short: wakes the checkpointer, and when that has left little to do, does the
    /// rest here, where no commit can add to it, so that the log starts again from its beginning.
    ///
    /// Under pressure it is done here in any case: a log that grows faster than it is moved would
    /// have no bound.
    fn maintain_log(&mut self) -> Result<(), StoreError> {
        let pages = self.published.log_pages.load(Relaxed);
        let pressure = pages >= self.bounds.pressure_pages;
        self.published.pressure.store(pressure || self.erasure.is_overdue(), Relaxed);
        if pages < self.bounds.restart_pages {
            return Ok(());
        }
        if pressure || self.checkpointer.is_nearly_done() {
            return self.recycle_log();
        }
        // A thread that reads no more would hold its last snapshot, and with it the log, for ever.
        self.release_snapshots();
        self.checkpointer.wake();
        Ok(())
    }

    /// Tries to have the log start again from its beginning. Only a fault after which the store
    /// must not go on is an error.
    fn recycle_log(&mut self) -> Result<(), StoreError> {
        self.release_snapshots();
        self.checkpointer.reset();
        let restarted = self.checkpoint(CheckpointMode::RESTART, RESTART_WAIT);
        self.note_restart(restarted)
    }

    /// The same, waiting for a read over an old state, which is ended, and for the checkpointer: where the disk is
    /// full, the next commit has no other room.
    pub(super) fn recycle_log_patiently(&mut self) -> Result<(), StoreError> {
        self.checkpointer.reset();
        let restarted = self.checkpoint_patiently(CheckpointMode::RESTART);
        self.note_restart(restarted)
    }

    fn note_restart(&self, restarted: Result<bool, StoreError>) -> Result<(), StoreError> {
        match restarted {
            Ok(true) => {
                self.published.log_pages.store(0, Relaxed);
                self.published.pressure.store(false, Relaxed);
            }
            Ok(false) => debug!("somebody still needs the log, it starts again later"),
            Err(fault) if fault.is_fatal() => return Err(fault),
            Err(fault) => {
                if let Some(suppressed) = self.published.failed_checkpoints.due() {
                    warn!(%fault, suppressed, "a checkpoint failed, the log keeps growing until one succeeds: {fault}");
                }
            }
        }
        Ok(())
    }

    /// Has every reader take a new snapshot with its next read, and idle ones hold none.
    pub(super) fn release_snapshots(&self) {
        for reader in &self.readers {
            reader.release();
        }
    }

    /// True where everything was moved, false where somebody stood in the way.
    pub(super) fn checkpoint(
        &self,
        mode: CheckpointMode,
        wait: Duration,
    ) -> Result<bool, StoreError> {
        self.engine.conn.busy_timeout(wait)?;
        let result = self.engine.conn.wal_checkpoint_v2(Some(MAIN_DB), mode);
        self.engine.conn.busy_timeout(BUSY_WAIT)?;
        match result {
            Ok(_) => Ok(true),
            Err(error) if is_busy(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Empties the log after a failed sync. The frames of the commit that failed are in the file,
    /// and another process would take them for committed though they may never have reached the
    /// disk (see `inherited` for what follows, and helps where this does not succeed). This
    /// connection knows that they are not: its checkpoint leaves them out.
    fn leave_no_log(&self) {
        match self.checkpoint_patiently(CheckpointMode::TRUNCATE) {
            Ok(true) => debug!("the log is empty"),
            Ok(false) => warn!("a read keeps the log from being emptied"),
            Err(fault) => warn!(%fault, "the log could not be emptied: {fault}"),
        }
    }

    /// Ends reads over an old state, and tries until nobody stands in the way, for a while.
    fn checkpoint_patiently(&self, mode: CheckpointMode) -> Result<bool, StoreError> {
        self.published.pressure.store(true, Relaxed);
        let deadline = clock::monotonic() + CHECKPOINT_PATIENCE;
        loop {
            self.release_snapshots();
            let done = self.checkpoint(mode, RESTART_WAIT)?;
            if done || clock::monotonic() >= deadline {
                return Ok(done);
            }
            // The checkpointer's lock is not waited for by SQLite.
            std::thread::sleep(CHECKPOINT_RETRY);
        }
    }

    /// Notes what a commit has written, and whether it has removed anything.
    fn note_removal(&mut self) {
        let pages = self.published.log_pages.load(Relaxed);
        if let Some(free_space) = &mut self.erasure.free_space {
            free_space.note(pages);
        }
        let now = clock::monotonic();
        if self.published.removed.swap(false, Relaxed) {
            self.erasure.due.get_or_insert(now + erasure::DUE);
        }
        if self.engine.state.departures.wait_for_log() {
            let due = self.erasure.due.get_or_insert(now);
            *due = now.min(*due);
        }
    }

    /// Empties the log where that is due and nobody needs it. Only a fault after which the store must not go
    /// on is an error.
    fn erase(&mut self) -> Result<(), StoreError> {
        let now = clock::monotonic();
        if !self.erasure.is_due(now) {
            return Ok(());
        }
        self.release_snapshots();
        let pages = self.published.log_pages.load(Relaxed);
        if pages > NEARLY && !self.checkpointer.is_nearly_done() {
            self.checkpointer.wake();
            return Ok(());
        }
        self.erasure.not_before = Some(now + PAUSE);
        self.engine.state.departures.hurry = false;
        self.checkpointer.reset();
        match self.empty_log() {
            Ok(true) => debug!("nothing is left of what was removed"),
            Ok(false) => debug!("somebody still needs the log, or pages are to be looked at"),
            Err(fault) if fault.is_fatal() => return Err(fault),
            Err(fault) => {
                if let Some(suppressed) = self.published.failed_checkpoints.due() {
                    warn!(%fault, suppressed, "the log could not be emptied, what was deleted may still be in it");
                }
            }
        }
        Ok(())
    }

    /// True where neither the log nor the file holds anything that was removed.
    fn empty_log(&mut self) -> Result<bool, StoreError> {
        if !self.checkpoint(CheckpointMode::TRUNCATE, RESTART_WAIT)? {
            return Ok(false);
        }
        self.published.log_pages.store(0, Relaxed);
        if let Some(free_space) = &mut self.erasure.free_space {
            free_space.overwrite(&self.engine.conn)?;
            self.engine.state.departures.hurry = free_space.is_sweeping();
            if !free_space.is_clean() {
                return Ok(false);
            }
        }
        self.erasure.due = None;
        self.published.pressure.store(false, Relaxed);
        self.engine.state.departures.log_emptied();
        Ok(true)
    }

    /// At the end: leaves nothing behind, or says in the file that the next start has to look.
    fn erase_at_the_end(&mut self) -> Result<(), StoreError> {
        self.release_snapshots();
        let is_clean = match self.empty_log() {
            Ok(clean) => clean,
            Err(fault) if fault.is_fatal() => return Err(fault),
            Err(fault) => {
                warn!(%fault, "the log could not be emptied, the next start does it");
                false
            }
        };
        if !is_clean && self.engine.state.departures.swept {
            self.engine.conn.execute("UPDATE node_state SET swept = 0 WHERE id = 1", [])?;
        }
        Ok(())
    }

    /// Leaves a database without a log behind, if nobody reads any more.
    fn finish(mut self) {
        if let Err(fault) = self.recycle_log().and_then(|()| self.erase_at_the_end()) {
            warn!(%fault, "the last checkpoint failed, it is left to the next start: {fault}");
            self.published.stop(fault);
            self.leave_no_log();
        }
    }
}

/// What a transaction works with.
pub(super) fn around(published: &Published, wall_ms: u64) -> TxInputs<'_> {
    TxInputs { cache: &published.cache, limits: **published.limits.load(), wall_ms }
}

/// Tells everybody when its thread panics: nobody would answer writes any more.
struct PanicAnnounced(Arc<Published>);

impl Drop for PanicAnnounced {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(StoreError::Io("the writer's thread panicked".into()));
        }
    }
}

/// Answers everything that was queued behind a fatal fault.
fn refuse_rest(queue: &mut mpsc::Receiver<Job>, fault: &StoreError) {
    while let Ok(job) = queue.try_recv() {
        let _gone = job.reply.send(Err(fault.clone().into()));
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("engine", &self.engine).finish_non_exhaustive()
    }
}
