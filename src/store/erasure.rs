//! When the log is emptied, so that what was deleted, overwritten or dropped is gone from the disk.
//! Unused bytes of the file itself are `free_space`'s; publishing it afterwards, `departure`'s;
//! the doing is the writer's.
//!
//! SQLite overwrites a deleted row in the page that it was in, but the log holds that page as it was before,
//! and starting the log again from its beginning leaves it there until something else is written over it.
//! So after a change that removes bytes the log is cut to nothing, soon and also where nobody writes any
//! more. Reads over an old state keep the log; those that take too long are ended, as where the log has
//! grown too long.

use std::time::{Duration, Instant};

use super::free_space::FreeSpace;
use crate::sys::clock;

/// How long removed bytes may stay in the log before it is emptied: changes that follow each other share it.
pub(super) const DUE: Duration = Duration::from_secs(5);

/// How much longer reads over an old state may keep them.
const READS_MAY_KEEP: Duration = Duration::from_secs(20);

/// Between two tries.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Pages in the log that the writer may move by itself. More are moved by the checkpointer first.
pub(super) const NEARLY: u64 = 512;

/// What the writer knows of bytes that are to go.
#[derive(Debug)]
pub(super) struct Erasure {
    /// None where the file is not the operating system's, as under a VFS of a test.
    pub(super) free_space: Option<FreeSpace>,
    /// When the log is to be emptied; none where nothing has been removed since it was.
    pub(super) due: Option<Instant>,
    pub(super) not_before: Option<Instant>,
}

impl Erasure {
    pub(super) fn new(free_space: Option<FreeSpace>) -> Self {
        Self { free_space, due: None, not_before: None }
    }

    /// True where reads over an old state have kept removed bytes for too long.
    pub(super) fn is_overdue(&self) -> bool {
        self.due.is_some_and(|due| clock::monotonic() > due + READS_MAY_KEEP)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        let may_try = self.not_before.is_none_or(|moment| moment <= now);
        let sweeps = self.free_space.as_ref().is_some_and(FreeSpace::is_sweeping);
        may_try && (sweeps || self.due.is_some_and(|due| due <= now))
    }
}
