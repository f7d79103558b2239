//! Keeps a warning that could come with every request to one line per interval.
//! What the line says is the caller's.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::ambient;

/// Between two lines. Often enough to see that it goes on, rare enough not to fill a journal.
const INTERVAL_MS: u64 = 10_000;

/// Counts what is not said.
#[derive(Debug, Default)]
pub(crate) struct Sparing {
    last_ms: AtomicU64,
    kept_back: AtomicU64,
}

impl Sparing {
    pub(crate) const fn new() -> Self {
        Self { last_ms: AtomicU64::new(0), kept_back: AtomicU64::new(0) }
    }

    /// How many were kept back since the last line, where another one is due; none where this
    /// one is kept back too.
    pub(crate) fn due(&self) -> Option<u64> {
        let (now, last) = (ambient::wall_ms(), self.last_ms.load(Relaxed));
        let due = now.abs_diff(last) >= INTERVAL_MS
            && self.last_ms.compare_exchange(last, now, Relaxed, Relaxed).is_ok();
        if due {
            return Some(self.kept_back.swap(0, Relaxed));
        }
        self.kept_back.fetch_add(1, Relaxed);
        None
    }
}
