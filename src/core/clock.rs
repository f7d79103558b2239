//! The hybrid logical clock that stamps writes.
//! It never reads the time: the writer passes the wall clock in and stores what comes out.

use crate::model::Hlc;

/// The latest wall clock that is believed, in Unix milliseconds: a day in 4199, half way to the last
/// timestamp there is. A clock beyond it is wrong; to follow it could use the timestamps up, and then
/// no write would win against the one before it any more.
const LATEST_WALL_MS: u64 = 1 << 46;

/// The latest timestamp that a sound clock can have drawn, with room for as many writes as there will ever be after
/// `LATEST_WALL_MS`. What is later is taken from nobody: to follow it could use the timestamps up.
#[must_use]
pub fn latest_believable() -> Hlc {
    Hlc::from_unix_ms(LATEST_WALL_MS + (1 << 40))
}

/// The greatest timestamp that this node has drawn or seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HybridClock {
    last: Hlc,
}

impl HybridClock {
    /// Continues from a stored timestamp.
    #[must_use]
    pub fn resume(last: Hlc) -> Self {
        Self { last }
    }

    /// Draws a timestamp greater than every one drawn or observed before, whatever the wall
    /// clock does meanwhile: it may stand still, jump ahead or go back.
    pub fn stamp(&mut self, wall_ms: u64) -> Hlc {
        self.last = self.last.next().max(Hlc::from_unix_ms(wall_ms.min(LATEST_WALL_MS)));
        self.last
    }

    /// Takes note of a timestamp drawn elsewhere, so that the next one drawn here exceeds it.
    pub fn observe(&mut self, remote: Hlc) {
        self.last = self.last.max(remote);
    }

    /// Goes back to a timestamp, where those after it are known to be nowhere else and are drawn again.
    pub fn set_back(&mut self, to: Hlc) {
        self.last = self.last.min(to);
    }

    /// The greatest timestamp drawn or observed so far: what must be stored with a commit.
    #[must_use]
    pub fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// holds K2: a local write exceeds what it replaces, for any trajectory of the wall clock.
        #[test]
        fn timestamps_rise_whatever_the_wall_clock_does(walls in prop::collection::vec(any::<u64>(), 1..50)) {
            let mut clock = HybridClock::default();
            let mut before = clock.last();
            for wall in walls {
                let now = clock.stamp(wall);
                prop_assert!(now > before);
                prop_assert!(now.to_i64() >= 0, "a signed column would lose the order");
                before = now;
            }
        }

        #[test]
        fn a_stamp_exceeds_every_timestamp_observed(wall in 0u64..1 << 47, remote in 0i64..i64::MAX) {
            let mut clock = HybridClock::default();
            clock.observe(Hlc::from_i64(remote));
            prop_assert!(clock.stamp(wall) > Hlc::from_i64(remote));
        }
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut clock = HybridClock::default();
        let first = clock.stamp(1_000);
        for _ in 0..=u16::MAX {
            clock.stamp(1_000);
        }
        assert_eq!(first.unix_ms(), 1_000);
        assert_eq!(clock.last().unix_ms(), 1_001);
    }

    #[test]
    fn a_resumed_clock_goes_on_from_what_was_stored() {
        let stored = Hlc::from_unix_ms(5_000);
        let mut clock = HybridClock::resume(stored);
        assert!(clock.stamp(10) > stored, "the wall clock went back to 1970");
    }

    #[test]
    fn a_wall_clock_that_is_absurd_does_not_use_up_the_timestamps() {
        let mut clock = HybridClock::default();
        for _ in 0..3 * u32::from(u16::MAX) {
            let before = clock.last();
            assert!(clock.stamp(u64::MAX) > before);
        }
    }
}
