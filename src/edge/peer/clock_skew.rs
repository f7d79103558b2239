//! What is logged of another machine's clock: that it is off, and that it is right again.
//! What follows for rows is `sync::clocks`'.

use std::time::Duration;

use cortex_core::{
    model::NodeName,
    replication::{apart, driver::MAX_SKEW_MS},
};
use tracing::{info, warn};

use crate::sys::journal;

/// A clock that is further off than this is logged: timestamps of the two machines disagree. It is right again
/// when it is off by half of that.
const LOGGED_OFFSET_MS: u64 = 2_000;

/// How far a clock is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Skew {
    #[default]
    Right,
    Off,
    /// So much that no rows pass.
    TooFarOff,
}

/// What was logged of a machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reported {
    how: Skew,
    since: Duration,
}

impl Reported {
    /// What is to be logged of an offset: how it is now, and how it was, where that has changed.
    fn changes(&mut self, offset_ms: i64, now: Duration) -> Option<(Skew, Duration)> {
        let off = offset_ms.unsigned_abs();
        let how = match self.how {
            _ if off > MAX_SKEW_MS => Skew::TooFarOff,
            _ if off > LOGGED_OFFSET_MS => Skew::Off,
            // It comes and goes at the bound.
            Skew::Off | Skew::TooFarOff if off > LOGGED_OFFSET_MS / 2 => Skew::Off,
            Skew::Right | Skew::Off | Skew::TooFarOff => Skew::Right,
        };
        if how == self.how {
            return None;
        }
        let lasted = now.saturating_sub(self.since);
        if self.how == Skew::Right || how == Skew::Right {
            self.since = now;
        }
        self.how = how;
        Some((how, lasted))
    }

    /// Tells what has changed.
    pub(super) fn report(&mut self, node: &NodeName, offset_ms: i64, now: Duration) {
        let Some((how, lasted)) = self.changes(offset_ms, now) else { return };
        let (apart, lasted_s) = (apart(offset_ms), lasted.as_secs());
        match how {
            Skew::TooFarOff => warn!(
                MESSAGE_ID = journal::CLOCK_REFUSED, %node, offset_ms,
                "the clock of {node} is {apart} this machine's: no rows pass between the two until both agree within 60 s, but for the directory"
            ),
            Skew::Off => warn!(%node, offset_ms, "the clock of {node} is {apart} this machine's"),
            Skew::Right => info!(
                %node, offset_ms, lasted_s,
                "the clocks of {node} and of this machine agree again, after {lasted_s} s"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once_however_the_offset_moves() {
        let at = Duration::from_secs;
        let mut told = Reported::default();
        assert_eq!(told.changes(-3, at(0)), None);
        assert_eq!(told.changes(-2_500, at(10)).map(|(how, _)| how), Some(Skew::Off));
        let moving = (0..50).filter_map(|n| told.changes(-1_900 - n * 10, at(20))).count();
        assert_eq!(moving, 0);
        assert_eq!(told.changes(3_600_000, at(30)).map(|(how, _)| how), Some(Skew::TooFarOff));
        assert_eq!(told.changes(3_600_900, at(31)), None);
        assert_eq!(told.changes(1, at(70)), Some((Skew::Right, at(60))), "since it was off at all");
    }
}
