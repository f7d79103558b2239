//! The faults of a cycle: drawn from the seed alone, so that the same seed makes the same ones.
//! Doing them is `world`'s.

use std::fmt;

use crate::chance::Chance;
use crate::history::NodeId;

/// What is done, mostly for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and started again.
    Kill(NodeId),
    /// SIGTERM, and started again.
    Restart(NodeId),
    /// SIGSTOP, SIGCONT.
    Stop(NodeId),
    /// Connections are closed and refused.
    Cut(NodeId, NodeId),
    /// What the first says does not arrive at the second.
    OneWay(NodeId, NodeId),
    /// A node reaches nobody; nothing is closed.
    Isolate(NodeId),
    /// One end of the connections is gone, and the other does not know.
    Tear(NodeId, NodeId),
    /// So many bytes per second.
    Slow(NodeId, NodeId, u64),
    /// Each packet takes so many milliseconds longer.
    Delay(NodeId, NodeId, u64),
    /// The clock is so many seconds off.
    Clock(NodeId, i64),
    FullDisk(NodeId),
    /// A backup is made, and put in the database's place at the end.
    Rollback(NodeId),
    /// SIGHUP's effect by the method reload, with changed bounds.
    Reload(NodeId),
    /// A new certificate.
    Renew(NodeId),
}

impl Fault {
    /// Its kind, as it is counted.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Restart(_) => "restart",
            Self::Stop(_) => "stop",
            Self::Cut(..) => "cut",
            Self::OneWay(..) => "one-way",
            Self::Isolate(_) => "isolate",
            Self::Tear(..) => "half-open",
            Self::Slow(..) => "slow",
            Self::Delay(..) => "delay",
            Self::Clock(..) => "clock",
            Self::FullDisk(_) => "full-disk",
            Self::Rollback(_) => "rollback",
            Self::Reload(_) => "reload",
            Self::Renew(_) => "renew",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What a mesh allows.
#[derive(Clone, Debug)]
pub(crate) struct Ability {
    pub(crate) nodes: usize,
    pub(crate) links: Vec<(NodeId, NodeId)>,
    pub(crate) can_fill_disks: bool,
    pub(crate) can_set_clocks: bool,
}

/// A fault with the milliseconds of the cycle at which it begins and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
    pub(crate) fault: Fault,
}

/// When nodes are looked at, and once more: what has not changed between the two is known by then.
pub(crate) const LOOK_MS: u64 = 4_000;
pub(crate) const LOOK_AGAIN_MS: u64 = LOOK_MS + 8_000;

/// Faults of one cycle, at most.
pub(crate) const MOST_FAULTS: usize = 9;

/// The faults of one cycle. Those whose numbers stand in `without` are left out.
pub(crate) fn plan(
    chance: &mut Chance,
    ability: &Ability,
    cycle_ms: u64,
    without: &[usize],
) -> Vec<Planned> {
    let count = chance.within(3, MOST_FAULTS as u64 - 1);
    let mut planned: Vec<Planned> = Vec::new();
    let mut is_set_back = false;
    for _ in 0..count {
        let fault = draw(chance, ability);
        // Two databases that are set back at the same time may lose what each had for the other.
        if matches!(fault, Fault::Rollback(_)) && std::mem::replace(&mut is_set_back, true) {
            continue;
        }
        let from_ms = chance.within(200, cycle_ms.saturating_sub(1500).max(201));
        // Short ones, and some that outlast what a link takes for a silence.
        let length =
            if chance.percent(20) { chance.within(4000, 20_000) } else { chance.within(300, 4000) };
        planned.push(Planned {
            from_ms,
            until_ms: (from_ms + length).min(cycle_ms.max(LOOK_AGAIN_MS)),
            fault,
        });
    }
    // Nodes are looked at while news of one of them does not come through.
    let fault = draw_silence(chance, ability);
    planned.push(Planned { from_ms: LOOK_MS - 1_500, until_ms: LOOK_AGAIN_MS + 500, fault });
    planned.sort_by_key(|one| one.from_ms);
    let kept = planned.into_iter().enumerate().filter(|(n, _)| !without.contains(n));
    kept.map(|(_, one)| one).collect()
}

fn draw_silence(chance: &mut Chance, ability: &Ability) -> Fault {
    let node = chance.below(ability.nodes);
    let (a, b) = chance.of(&ability.links);
    chance.weighted(&[
        (Fault::OneWay(a, b), 30),
        (Fault::OneWay(b, a), 30),
        (Fault::Isolate(node), 10),
        (Fault::Stop(node), 10),
        (Fault::Tear(a, b), 10),
        (Fault::Cut(a, b), 10),
    ])
}

fn draw(chance: &mut Chance, ability: &Ability) -> Fault {
    let node = chance.below(ability.nodes);
    let (a, b) = chance.of(&ability.links);
    let (a, b) = if chance.percent(50) { (a, b) } else { (b, a) };
    let clock = if ability.can_set_clocks { 14 } else { 0 };
    let disk = if ability.can_fill_disks { 6 } else { 0 };
    let rate = chance.of(&[2_000, 20_000, 200_000]);
    let delay = chance.of(&[30, 150, 600]);
    let off = chance.of(&[-3600, -50, -3, 3, 50, 3600, 86_400]);
    chance.weighted(&[
        (Fault::Kill(node), 14),
        (Fault::Restart(node), 5),
        (Fault::Stop(node), 10),
        (Fault::Cut(a, b), 12),
        (Fault::OneWay(a, b), 12),
        (Fault::Isolate(node), 8),
        (Fault::Tear(a, b), 6),
        (Fault::Slow(a, b, rate), 5),
        (Fault::Delay(a, b, delay), 6),
        (Fault::Clock(node, off), clock),
        (Fault::FullDisk(node), disk),
        (Fault::Rollback(node), 6),
        (Fault::Reload(node), 4),
        (Fault::Renew(node), 4),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64, without: &[usize]) -> Vec<String> {
        let links = vec![(0, 1), (1, 2), (0, 2)];
        let ability = Ability { nodes: 3, links, can_fill_disks: true, can_set_clocks: true };
        let planned = plan(&mut Chance::new(seed), &ability, 10_000, without);
        planned.iter().map(|one| format!("{one:?}")).collect()
    }

    #[test]
    fn a_seed_makes_the_same_faults_again_and_others_can_be_left_out() {
        let all = drawn(7, &[]);
        assert_eq!(all, drawn(7, &[]));
        assert_ne!(all, drawn(8, &[]));
        assert_eq!(all[1..], drawn(7, &[0]));
    }

    #[test]
    fn no_two_databases_are_set_back_in_one_cycle() {
        for seed in 0..500 {
            let set_back = drawn(seed, &[]).iter().filter(|one| one.contains("Rollback")).count();
            assert!(set_back < 2, "seed {seed}");
        }
    }
}
