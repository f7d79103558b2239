//! Clocks between two machines: which rows they hold up, for how long, and what ends it.
//! How far two clocks are apart is measured by `link`; new timestamps are given by the store (`Restamp`).
//!
//! ```text
//!   the two clocks differ now     no rows of tables either way; the directory passes
//!   they agree, and a row is      refused for HELD_OFF: its machine may give it a timestamp of the present meanwhile,
//!   ahead of both                 if nobody else has met it; then, or where others have, it is taken as it is
//! ```
//!
//! Taking it as it is, is always sound: timestamps do not change by it, and the hybrid clock here goes on from it, so
//! that what is written afterwards comes later. So nobody waits for a machine that may itself be waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use cortex_core::{
    clock::latest_believable,
    model::{Hlc, NodeName, TableUid},
    replication::{Batch, ReplicaStatus},
};
use tracing::info;

use super::{Exchange, MAX_SKEW_MS};
use crate::{store::SYSTEM_TABLE, sys::clock};

/// For so long a machine whose clock is right again has to give its rows timestamps of the present. It needs a word
/// of each other machine, which comes within a second or two of their link.
pub(super) const HELD_OFF: Duration = Duration::from_secs(10);

/// How long the two clocks must be known to agree where more than one machine has met the timestamps, so that none of
/// them will give them anew: an offset is measured once a second, and one may be of before a clock was set.
const AGREEING: Duration = Duration::from_secs(3);

/// Since when rows of each machine are ahead of this one's clock, although the two clocks agree. Outlives links:
/// where they break often it must end too.
#[derive(Debug, Default)]
pub(in crate::edge::peer) struct HeldOff(Mutex<BTreeMap<NodeName, Duration>>);

impl HeldOff {
    /// When rows of a machine are taken as they are.
    fn ends(&self, node: &NodeName, now: Duration, is_spread: bool) -> Duration {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = if is_spread { AGREEING } else { HELD_OFF };
        *since.entry(node.clone()).or_insert(now) + pause
    }

    /// Its rows are of the present, or its clock is not.
    fn clear(&self, node: &NodeName) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(node).is_some()
    }
}

/// What an exchange holds off for clocks.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Tables of which rows were refused for being ahead.
    tables: BTreeSet<TableUid>,
    /// When they are asked for again.
    until: Option<Duration>,
}

impl Waiting {
    pub(super) fn until(&self) -> Option<Duration> {
        self.until
    }
}

/// True where clocks are too far apart for rows to be taken.
pub(super) fn are_apart(offset_ms: i64) -> bool {
    offset_ms.unsigned_abs() > MAX_SKEW_MS
}

/// Takes note of how far the other clock is ahead; true where rows may travel now and could not before, or the
/// other way round.
pub(in crate::edge::peer) fn tells(known: &mut i64, offset_ms: i64) -> bool {
    let before = std::mem::replace(known, offset_ms);
    are_apart(before) != are_apart(offset_ms)
}

impl Exchange<'_> {
    /// True where the two clocks hold a table up now. They never hold up the directory: its rows are not ordered by
    /// them, and each has one writer.
    pub(super) fn clocks_hold_up(&self, table: TableUid, offset_ms: i64) -> bool {
        let apart = are_apart(offset_ms);
        if apart {
            self.shared.held_off.clear(self.node);
        }
        apart && table != SYSTEM_TABLE
    }

    /// Up to which timestamp a batch is believed.
    pub(super) fn believed(&mut self, batch: &Batch) -> Hlc {
        let own = self.store.hlc();
        // What this machine has met already can be met again.
        let reached_ms = clock::wall_ms().max(own.unix_ms());
        let latest = Hlc::from_unix_ms(reached_ms.saturating_add(MAX_SKEW_MS));
        let newest = batch.rows.iter().map(|row| row.stamp.hlc).fold(batch.hlc, Ord::max);
        if batch.table == SYSTEM_TABLE {
            return latest;
        }
        if newest <= latest {
            if batch.is_last() && self.shared.held_off.clear(self.node) {
                info!(node = %self.node, "rows from {} are not ahead of this clock any more", self.node);
            }
            return latest;
        }
        let now = self.shared.now();
        let others =
            self.shared.context.service.sync().who_has_met(ReplicaStatus::not_before(latest));
        let is_spread = others.iter().any(|other| other != self.node);
        let ends = self.shared.held_off.ends(self.node, now, is_spread);
        if ends <= now {
            let ahead_s = newest.unix_ms().saturating_sub(clock::wall_ms()) / 1000;
            info!(
                node = %self.node, ahead_s,
                "rows from {} are {ahead_s} s ahead of this clock and are taken with their timestamps", self.node
            );
            return latest_believable();
        }
        self.waiting.tables.insert(batch.table);
        self.waiting.until = Some(ends);
        latest
    }

    /// Asks again for what was held off, where it is time.
    pub(super) fn ask_for_what_waited(&mut self) {
        let now = self.shared.now();
        if self.waiting.until.is_some_and(|until| until <= now) {
            self.waiting.until = None;
            self.hurry_waiting();
        }
    }

    /// Asks at once for all that clocks have held up.
    pub(super) fn hurry_waiting(&mut self) {
        let now = self.shared.now();
        for table in std::mem::take(&mut self.waiting.tables) {
            self.session.hurry(table, now);
        }
    }

    /// Notes that clocks hold a table up, to be asked for as soon as they do not.
    pub(super) fn wait_for_clocks(&mut self, table: TableUid) {
        self.waiting.tables.insert(table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_held_off_once_and_not_anew_by_each_link() {
        let held_off = HeldOff::default();
        let node = NodeName::parse("office").expect("a name");
        let at = Duration::from_secs;
        assert_eq!(held_off.ends(&node, at(5), false), at(15));
        assert_eq!(held_off.ends(&node, at(9), false), at(15));
        assert_eq!(held_off.ends(&node, at(9), true), at(8));
        assert!(held_off.clear(&node));
        assert!(!held_off.clear(&node));
        assert_eq!(held_off.ends(&node, at(20), false), at(30));
    }

    #[test]
    fn a_minute_is_borne_in_both_directions() {
        assert!(!are_apart(60_000) && !are_apart(-60_000));
        assert!(are_apart(60_001) && are_apart(-60_001) && are_apart(i64::MIN));
    }
}
