//! How long to wait before something that has failed is tried again: exponential back-off.
//! Randomness comes in as an argument; when to wait, and when something counts as having worked, is the caller's.

use std::time::Duration;

/// Pauses that double with each failure, from a first one up to a longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Counts a failure, and answers the pause after it.
    pub fn next_pause(&mut self) -> Duration {
        // 2^20 times the shortest pause that anybody would choose is longer than the longest.
        let pause = self.first.saturating_mul(1 << self.failures.min(20)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// The same with full jitter, between half of the first pause and what [`Self::next_pause`] answers: those that
    /// failed at the same moment do not try again at the same moment. `random` is uniform over all of its values.
    pub fn next_pause_with_jitter(&mut self, random: u32) -> Duration {
        let least = self.first / 2;
        let part = f64::from(random) / f64::from(u32::MAX);
        least + self.next_pause().saturating_sub(least).mul_f64(part)
    }

    /// True since a failure that no success has followed.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Counts a success: the next pause is the first one.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_longest_until_something_works() {
        let mut backoff = Backoff::new(FIRST, Duration::from_secs(30));
        let seconds: Vec<_> = (0..8).map(|_| backoff.next_pause().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert!(backoff.is_failing());
        backoff.reset();
        assert!(!backoff.is_failing());
        assert_eq!(backoff.next_pause(), FIRST);
    }

    #[test]
    fn jitter_spreads_pauses_over_all_of_the_time_that_they_may_take() {
        let (mut short, mut long) =
            (Backoff::new(FIRST, FIRST * 30), Backoff::new(FIRST, FIRST * 30));
        assert!((0..100).all(|_| short.next_pause_with_jitter(0) == FIRST / 2));
        let longest: Vec<_> =
            (0..6).map(|_| long.next_pause_with_jitter(u32::MAX).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 30]);
    }

    #[test]
    fn any_number_of_failures_is_counted() {
        let mut backoff = Backoff { failures: u32::MAX, ..Backoff::new(FIRST, Duration::MAX) };
        assert_eq!(backoff.next_pause(), FIRST * (1 << 20));
        assert!(backoff.is_failing());
    }
}
