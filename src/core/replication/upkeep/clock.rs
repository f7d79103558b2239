//! Timestamps of a clock that was ahead and is right again: they would win against all that is written elsewhere.
//! What nobody else has observed is stamped anew; where somebody else may have, it stays as it is, and nobody waits:
//! see `driver::clocks`.

use std::collections::BTreeSet;

use cortex_mutant::mutant;

use super::{Note, Upkeep, UpkeepNode, Work};
use crate::{
    model::{Hlc, NodeName},
    replication::{
        SYSTEM_TABLE,
        driver::{HELD_OFF, MAX_SKEW_MS},
    },
};

/// This node's timestamps are ahead of its clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AheadOfClock {
    /// By how much.
    pub by_ms: u64,
    /// Since when that is known, in Unix milliseconds.
    pub since_ms: u64,
    /// Why they are not given anew.
    pub why: TimestampsKept,
}

/// What speaks against giving timestamps anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampsKept {
    /// Nobody says that the clock is right.
    #[error("no other machine's clock agrees with this one's yet")]
    ClockUnconfirmed,
    /// These nodes have observed them.
    #[error("{} has met them too; others take them as they are", named(.0))]
    Met(BTreeSet<NodeName>),
    /// These nodes have not said whether they have.
    #[error("{} has not said whether it has met them; others take them as they are within {} s", named(.0), HELD_OFF.as_secs())]
    Silent(BTreeSet<NodeName>),
}

fn named(nodes: &BTreeSet<NodeName>) -> String {
    nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

impl Upkeep {
    /// Has timestamps of the future given anew, where that is sound and the clock is right.
    pub(super) fn mend_clock(&mut self, here: &impl UpkeepNode) {
        let (wall_ms, hlc) = (here.wall_ms(), here.hlc());
        let latest = Hlc::from_unix_ms(wall_ms.saturating_add(MAX_SKEW_MS));
        if hlc <= latest {
            if self.ahead_since_ms.take().is_some() {
                self.note(Note::AheadOfClock(None));
            }
            return;
        }
        let since_ms = *self.ahead_since_ms.get_or_insert(wall_ms);
        if let Some(why) = keeps_timestamps(here, latest) {
            let by_ms = hlc.unix_ms().saturating_sub(wall_ms);
            return self.note(Note::AheadOfClock(Some(AheadOfClock { by_ms, since_ms, why })));
        }
        self.work(Work::Restamp { latest });
    }
}

/// What speaks against giving timestamps anew; none where nothing does.
fn keeps_timestamps(here: &impl UpkeepNode, latest: Hlc) -> Option<TimestampsKept> {
    if !clock_is_right(&here.clock_offsets_ms()) {
        return Some(TimestampsKept::ClockUnconfirmed);
    }
    let (met, silent) = who_may_have_met(here, latest);
    if !met.is_empty() {
        return Some(TimestampsKept::Met(met));
    }
    (!silent.is_empty()).then_some(TimestampsKept::Silent(silent))
}

/// True where the clocks of the others say so too: not fewer than say otherwise. Whether it *is* right is nothing that
/// anything but the usefulness of the new timestamps depends on.
fn clock_is_right(offsets_ms: &[i64]) -> bool {
    let agrees = |offset_ms: &&i64| offset_ms.unsigned_abs() <= MAX_SKEW_MS / 2;
    let agree = offsets_ms.iter().filter(agrees).count();
    agree > 0 && 2 * agree >= offsets_ms.len()
}

/// Whose nodes have met a later timestamp, and who has not said, of all other replicas of tables. Only what a node has
/// said itself since this process has begun counts: what is passed on may be older than what it was sent. The directory
/// does not count: its rows keep their timestamps, and move no clock.
#[mutant(RestampedUnobserved => (BTreeSet::new(), BTreeSet::new()))]
fn who_may_have_met(
    here: &impl UpkeepNode,
    latest: Hlc,
) -> (BTreeSet<NodeName>, BTreeSet<NodeName>) {
    let (mut met, mut silent) = (BTreeSet::new(), BTreeSet::new());
    let replicas = here.replicas();
    let own = replicas.iter().filter(|own| own.epoch() > 0 && own.table() != SYSTEM_TABLE);
    for table in own.map(|own| own.table()) {
        let remote = here.remote_replicas(table);
        let has_met = |node: &NodeName| remote.iter().find(|(of, _)| of == node)?.1.met;
        let others = here.directory().must_confirm(table).into_keys();
        for node in others.filter(|node| node != here.name()) {
            match has_met(&node) {
                Some(hlc) if hlc <= latest => {}
                Some(_later) => {
                    met.insert(node);
                }
                None => {
                    silent.insert(node);
                }
            }
        }
    }
    (met, silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_right_where_not_more_clocks_differ_than_agree() {
        let far = 2 * MAX_SKEW_MS.cast_signed();
        assert!(!clock_is_right(&[]), "nobody says so");
        assert!(clock_is_right(&[10]));
        assert!(clock_is_right(&[-10, far]));
        assert!(!clock_is_right(&[-10, far, -far]));
        assert!(!clock_is_right(&[i64::MIN]));
    }

    #[test]
    fn what_keeps_timestamps_names_the_nodes() {
        let nodes = ["a", "b"].map(|name| NodeName::parse(name).expect("a name")).into();
        let why = TimestampsKept::Met(nodes);
        assert_eq!(why.to_string(), "a, b has met them too; others take them as they are");
    }
}
