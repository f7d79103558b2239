//! Log throttle: a warning that could come with every request takes one line per interval.
//! What the line says is the caller's.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::sys::clock;

/// Between two lines. Often enough to see that it goes on, rare enough not to fill a journal.
const INTERVAL_MS: u64 = 10_000;

/// Lets one line of a kind through per interval, and counts those that it suppresses.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    last_ms: AtomicU64,
    suppressed: AtomicU64,
}

impl LogThrottle {
    pub(crate) const fn new() -> Self {
        Self { last_ms: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// How many lines were suppressed since the last one, where another is due; none where this
    /// one is suppressed too.
    pub(crate) fn due(&self) -> Option<u64> {
        let (now, last) = (clock::wall_ms(), self.last_ms.load(Relaxed));
        let due = now.abs_diff(last) >= INTERVAL_MS
            && self.last_ms.compare_exchange(last, now, Relaxed, Relaxed).is_ok();
        if due {
            return Some(self.suppressed.swap(0, Relaxed));
        }
        self.suppressed.fetch_add(1, Relaxed);
        None
    }
}

/// A state that is worth a line when it begins and when it ends, not while it lasts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoggedCondition(Option<(Duration, u64)>);

/// One that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndedCondition {
    pub(crate) seconds: u64,
    /// How often it was met.
    pub(crate) times: u64,
}

impl LoggedCondition {
    /// It is met; true where that is its beginning.
    pub(crate) fn begins(&mut self, now: Duration) -> bool {
        let is_new = self.0.is_none();
        self.0.get_or_insert((now, 0)).1 += 1;
        is_new
    }

    /// It is not there; how long it has lasted, where it was.
    pub(crate) fn ends(&mut self, now: Duration) -> Option<EndedCondition> {
        let (since, times) = self.0.take()?;
        Some(EndedCondition { seconds: now.saturating_sub(since).as_secs(), times })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_twice_however_long_it_lasts() {
        let at = Duration::from_secs;
        let mut state = LoggedCondition::default();
        assert_eq!(state.ends(at(0)), None);
        let told = (1..=655).filter(|second| state.begins(at(*second))).count();
        assert_eq!(told, 1);
        assert_eq!(state.ends(at(661)), Some(EndedCondition { seconds: 660, times: 655 }));
        assert_eq!(state.ends(at(662)), None);
        assert!(state.begins(at(700)));
    }
}
