//! What an echo measures of the other side: how long a round trip takes, and how far its clock is ahead.
//! When it is sent is `link`'s.

/// A smoothed round trip, as TCP smooths it: an eighth of each new measurement (RFC 6298).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    smoothed_us: Option<u64>,
}

impl RoundTrip {
    /// Takes a measurement and answers the smoothed value.
    pub(super) fn take(&mut self, measured_us: u64) -> u64 {
        let smoothed = match self.smoothed_us {
            None => measured_us,
            Some(before) => before - before / 8 + measured_us / 8,
        };
        self.smoothed_us = Some(smoothed);
        smoothed
    }
}

/// The measurement that an echo brings: what has passed since we sent, less what the other side has kept it.
/// None for an echo of something that we cannot have sent.
pub(super) fn measured_us(now_us: u64, echo_us: u64, held_us: u64) -> Option<u64> {
    now_us.checked_sub(echo_us)?.checked_sub(held_us)
}

/// How far the other side's wall clock is ahead of ours, when it stood at `theirs_ms` half a round trip ago.
pub(super) fn offset_ms(ours_ms: u64, theirs_ms: u64, round_trip_us: u64) -> i64 {
    let theirs = i128::from(theirs_ms) + i128::from(round_trip_us / 2000);
    let offset = theirs - i128::from(ours_ms);
    i64::try_from(offset).unwrap_or(if offset < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_follows_slowly() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.take(800), 800);
        assert_eq!(round_trip.take(1600), 900);
        let smoothed = (0..100).map(|_| round_trip.take(8000)).last().expect("some");
        assert!((7990..=8010).contains(&smoothed), "{smoothed}");
        assert!(round_trip.take(u64::MAX) > 8000, "nothing overflows");
    }

    #[test]
    fn an_echo_that_cannot_be_is_none() {
        assert_eq!(measured_us(1000, 400, 500), Some(100));
        assert_eq!(measured_us(1000, 400, 601), None, "kept for longer than it is ago");
        assert_eq!(measured_us(1000, 1001, 0), None, "sent in the future");
    }

    #[test]
    fn half_a_round_trip_counts_for_the_offset() {
        assert_eq!(offset_ms(10_000, 9_950, 100_000), 0);
        assert_eq!(offset_ms(10_000, 12_000, 0), 2_000);
        assert_eq!(offset_ms(10_000, 7_000, 2_000), -2_999);
        assert_eq!(offset_ms(0, u64::MAX, u64::MAX), i64::MAX);
    }
}
