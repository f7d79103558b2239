//! When the log is emptied, so that what was deleted, overwritten or dropped is gone from the disk.
//! Unused bytes of the file itself are `slack`'s; who is told afterwards, `departure`'s.
//!
//! SQLite overwrites a deleted row in the page that it was in, but the log holds that page as it was before,
//! and starting the log again from its beginning leaves it there until something else is written over it.
//! So after a change that removes bytes the log is cut to nothing, soon and also where nobody writes any
//! more. Reads over an old state keep the log; those that take too long are ended, as where the log has
//! grown too long.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use rusqlite::wal::CheckpointMode;
use tracing::{debug, warn};

use super::{error::StoreError, slack::Slack, writer::Writer};
use crate::sys::clock;

/// How long removed bytes may stay in the log before it is emptied: changes that follow each other share it.
const DUE: Duration = Duration::from_secs(5);

/// How much longer reads over an old state may keep them.
const READS_MAY_KEEP: Duration = Duration::from_secs(20);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Pages in the log that the writer may move by itself. More are moved by the checkpointer first.
const NEARLY: u64 = 512;

/// What the writer knows of bytes that are to go.
#[derive(Debug)]
pub(super) struct Erasure {
    /// None where the file is not the operating system's, as under a VFS of a test.
    slack: Option<Slack>,
    /// When the log is to be emptied; none where nothing has been removed since it was.
    due: Option<Instant>,
    not_before: Option<Instant>,
}

impl Erasure {
    pub(super) fn new(slack: Option<Slack>) -> Self {
        Self { slack, due: None, not_before: None }
    }

    /// True where reads over an old state have kept removed bytes for too long.
    pub(super) fn is_overdue(&self) -> bool {
        self.due.is_some_and(|due| clock::monotonic() > due + READS_MAY_KEEP)
    }

    fn is_due(&self, now: Instant) -> bool {
        let may_try = self.not_before.is_none_or(|moment| moment <= now);
        let sweeps = self.slack.as_ref().is_some_and(Slack::is_sweeping);
        may_try && (sweeps || self.due.is_some_and(|due| due <= now))
    }
}

impl Writer {
    /// Notes what a commit has written, and whether it has removed anything.
    pub(super) fn note_removal(&mut self) {
        let pages = self.published.log_pages.load(Relaxed);
        if let Some(slack) = &mut self.erasure.slack {
            slack.note(pages);
        }
        let now = clock::monotonic();
        if self.published.removed.swap(false, Relaxed) {
            self.erasure.due.get_or_insert(now + DUE);
        }
        if self.engine.state.departures.wait_for_log() {
            let due = self.erasure.due.get_or_insert(now);
            *due = now.min(*due);
        }
    }

    /// Empties the log where that is due and nobody needs it. Only a fault after which the store must not go
    /// on is an error.
    pub(super) fn erase(&mut self) -> Result<(), StoreError> {
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
        if !self.checkpoint(CheckpointMode::TRUNCATE, super::writer::RESTART_WAIT)? {
            return Ok(false);
        }
        self.published.log_pages.store(0, Relaxed);
        if let Some(slack) = &mut self.erasure.slack {
            slack.overwrite(&self.engine.conn)?;
            self.engine.state.departures.hurry = slack.is_sweeping();
            if !slack.is_clean() {
                return Ok(false);
            }
        }
        self.erasure.due = None;
        self.published.pressure.store(false, Relaxed);
        self.engine.state.departures.log_emptied();
        Ok(true)
    }

    /// At the end: leaves nothing behind, or says in the file that the next start has to look.
    pub(super) fn erase_at_the_end(&mut self) -> Result<(), StoreError> {
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
}
