//! Clocks between two nodes: which rows they hold up, for how long, and what ends it.
//! How far two clocks are apart is measured by the link; new timestamps are given by the store.
//!
//! ```text
//!   the two clocks differ now     no rows of tables either way; the directory passes
//!   they agree, and a row is      refused for HELD_OFF: its node may give it a timestamp of the present meanwhile,
//!   ahead of both                 if nobody else has met it; then, or where others have, it is taken as it is
//! ```
//!
//! Taking it as it is, is always sound: timestamps do not change by it, and the hybrid clock here goes on from it, so
//! that what is written afterwards comes later. So nobody waits for a node that may itself be waiting.

use std::{collections::BTreeSet, time::Duration};

use super::{Driver, Node, Note, Output};
use crate::{
    clock::latest_believable,
    model::{Hlc, TableUid},
    replication::{Batch, ReplicaStatus, SYSTEM_TABLE},
};

/// A clock that is further off than this stamps rows so that they hide others, or lose against them.
/// Deletions are kept for a day, and must be kept for much longer than clocks may differ.
pub const MAX_SKEW_MS: u64 = 60_000;

/// For so long a node whose clock is right again has to give its rows timestamps of the present. It needs a status
/// of each other node, which comes within a second or two of their link.
pub const HELD_OFF: Duration = Duration::from_secs(10);

/// How long the two clocks must be known to agree where more than one node has met the timestamps, so that none of
/// them will give them anew: an offset is measured once a second, and one may be of before a clock was set.
const AGREEING: Duration = Duration::from_secs(3);

/// True where clocks are too far apart for rows to be taken.
#[must_use]
pub fn are_apart(offset_ms: i64) -> bool {
    offset_ms.unsigned_abs() > MAX_SKEW_MS
}

/// What clocks hold up on one link.
#[derive(Debug, Default)]
pub(super) struct HeldUp {
    /// How far the other clock is ahead.
    offset_ms: i64,
    /// Tables of which rows were refused.
    tables: BTreeSet<TableUid>,
    /// When those that are ahead of a clock that agrees are asked for again.
    until: Option<Duration>,
    /// Since when rows of the other node are ahead of this one's clock, although the two clocks agree. Outlives
    /// links: where they break often it must end too.
    ahead_since: Option<Duration>,
}

impl HeldUp {
    pub(super) fn new(offset_ms: i64, ahead_since: Option<Duration>) -> Self {
        Self { offset_ms, ahead_since, ..Self::default() }
    }

    pub(super) fn until(&self) -> Option<Duration> {
        self.until
    }

    pub(super) fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// Notes how far the other clock is ahead; true where rows may travel now and could not before, or the other way
    /// round.
    pub(super) fn offset_is(&mut self, offset_ms: i64) -> bool {
        let before = std::mem::replace(&mut self.offset_ms, offset_ms);
        are_apart(before) != are_apart(offset_ms)
    }

    /// A table is asked for as soon as clocks do not hold it up any more.
    pub(super) fn add(&mut self, table: TableUid) {
        self.tables.insert(table);
    }

    /// When rows of the other node are taken as they are.
    fn ends(&mut self, now: Duration, is_spread: bool) -> Duration {
        let pause = if is_spread { AGREEING } else { HELD_OFF };
        *self.ahead_since.get_or_insert(now) + pause
    }
}

impl Driver {
    /// True where the two clocks hold a table up now. They never hold up the directory: its rows are not ordered by
    /// them, and each has one writer.
    pub(super) fn clocks_hold_up(&mut self, table: TableUid) -> bool {
        let apart = are_apart(self.held_up.offset_ms);
        if apart && self.held_up.ahead_since.take().is_some() {
            self.note(Note::AheadSince(None));
        }
        apart && table != SYSTEM_TABLE
    }

    /// Up to which timestamp a batch is believed.
    pub(super) fn believed(&mut self, batch: &Batch, here: &impl Node, now: Duration) -> Hlc {
        let wall_ms = here.wall_ms();
        // What this node has met already can be met again.
        let reached_ms = wall_ms.max(here.hlc().unix_ms());
        let latest = Hlc::from_unix_ms(reached_ms.saturating_add(MAX_SKEW_MS));
        if batch.table == SYSTEM_TABLE {
            return latest;
        }
        let newest = batch.rows.iter().map(|row| row.stamp.hlc).fold(batch.hlc, Ord::max);
        if newest <= latest {
            if batch.is_last() && self.held_up.ahead_since.take().is_some() {
                self.note(Note::AheadSince(None));
                self.note(Note::NotAhead);
            }
            return latest;
        }
        let others = here.who_has_met(ReplicaStatus::not_before(latest));
        let is_spread = others.iter().any(|other| *other != self.peer.node);
        let was_noted = self.held_up.ahead_since.is_some();
        let ends = self.held_up.ends(now, is_spread);
        if !was_noted {
            self.note(Note::AheadSince(self.held_up.ahead_since));
        }
        if ends <= now {
            let ahead_s = newest.unix_ms().saturating_sub(wall_ms) / 1000;
            self.note(Note::TakenAhead { ahead_s });
            return latest_believable();
        }
        self.held_up.tables.insert(batch.table);
        self.held_up.until = Some(ends);
        latest
    }

    /// Asks again for what was held off, where it is time.
    pub(super) fn ask_for_what_was_held_off(&mut self, now: Duration) {
        if self.held_up.until.is_some_and(|until| until <= now) {
            self.held_up.until = None;
            self.hurry_held_up(now);
        }
    }

    /// Asks at once for all that clocks have held up.
    pub(super) fn hurry_held_up(&mut self, now: Duration) {
        for table in std::mem::take(&mut self.held_up.tables) {
            self.session.hurry(table, now);
        }
    }

    fn note(&mut self, note: Note) {
        self.outputs.push_back(Output::Note(note));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_held_off_once_and_not_anew_by_each_link() {
        let at = Duration::from_secs;
        let mut held_up = HeldUp::new(0, None);
        assert_eq!(held_up.ends(at(5), false), at(15));
        assert_eq!(held_up.ends(at(9), false), at(15));
        let mut of_the_next_link = HeldUp::new(0, held_up.ahead_since);
        assert_eq!(of_the_next_link.ends(at(9), true), at(8));
    }

    #[test]
    fn who_is_in_the_present_is_not_taken_for_one_who_has_met_the_future() {
        for ms in (0..200_000).step_by(500) {
            let (present, latest) = (Hlc::from_unix_ms(ms), Hlc::from_unix_ms(ms + MAX_SKEW_MS));
            assert!(ReplicaStatus::not_before(present) > present);
            let a_little_ahead = Hlc::from_unix_ms(ms + MAX_SKEW_MS / 3);
            assert!(ReplicaStatus::not_before(a_little_ahead) <= latest, "{ms}");
        }
    }

    #[test]
    fn a_minute_is_borne_in_both_directions() {
        assert!(!are_apart(60_000) && !are_apart(-60_000));
        assert!(are_apart(60_001) && are_apart(-60_001) && are_apart(i64::MIN));
    }

    #[test]
    fn what_requests_were_refused_for_is_looked_at_again_when_clocks_come_together_or_apart() {
        let mut held_up = HeldUp::new(0, None);
        assert!(!held_up.offset_is(50_000));
        assert!(held_up.offset_is(61_000));
        assert!(!held_up.offset_is(-70_000), "they still differ");
        assert!(held_up.offset_is(10));
    }
}
