//! A sequence lock: how readers on other threads know whether what they hold is still the last committed state.
//! The writer announces each commit before and after; what readers then do is `reader` and `cache`.
//!
//! A count, odd while a commit is guard visible:
//!
//! ```text
//!   writer    begin: odd ──> COMMIT (sync, visible) ──> end: even ──> replies
//!   reader    even and as when the snapshot was taken: it is the last state, go on with it
//!             else: take a new snapshot; keep it only if the count was even before
//! ```
//!
//! So a read that begins after another read, or after a reply, never sees an older state.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The count of announcements.
#[derive(Debug, Default)]
pub(super) struct SeqLock(AtomicU64);

/// The count at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sequence(u64);

impl SeqLock {
    pub(super) fn now(&self) -> Sequence {
        Sequence(self.0.load(SeqCst))
    }

    /// Announces that a commit may become visible from now on, until the guard is dropped.
    pub(super) fn begin(&self) -> WriteGuard<'_> {
        self.0.fetch_add(1, SeqCst);
        WriteGuard(self)
    }
}

impl Sequence {
    /// True where no commit was guard visible.
    pub(super) fn is_stable(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

/// A commit that may be guard visible.
#[derive(Debug)]
pub(super) struct WriteGuard<'a>(&'a SeqLock);

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_moment_during_or_after_a_commit_equals_one_before() {
        let seqlock = SeqLock::default();
        let before = seqlock.now();
        let guard = seqlock.begin();
        let during = seqlock.now();
        drop(guard);
        let after = seqlock.now();
        assert!(before.is_stable() && !during.is_stable() && after.is_stable());
        assert!(before != during && during != after && before != after);
    }
}
