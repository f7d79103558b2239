//! Which machines of the mesh are alive, as this one sees it: by their heartbeats, damped against flapping.
//! Sending heartbeats, and deciding anything about data or quorums from this, is left to nobody here.
//!
//! ```text
//!                 heartbeat
//!   UNSEEN ─────────────────────────> ALIVE <────────────────┐
//!                                       │                    │ heartbeats without
//!                 silent for 5 s        v                    │ a gap for 5 s
//!                                    SUSPECT ────────────────┤
//!                 silent for 15 s       v                    │ heartbeats without
//!                                     DEAD ──────────────────┘ a gap for 30 s
//! ```
//!
//! An alive machine that says that it stops is dead at once: nothing is to be waited for. It is alive at once with its
//! next heartbeat, too, since a restart in good order is no flapping.
//!
//! A gap is a silence that would have made an alive machine suspect: after it the wait begins anew. A machine
//! that comes and goes therefore stays suspect or dead, and does not change its state with every packet.
//!
//! Time is monotonic and comes as an argument: the [`Duration`] since any fixed moment.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::model::NodeName;

/// What a machine looks like from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No heartbeat since this daemon has started. Never returned to.
    #[default]
    Unseen,
    /// Heard a moment ago, and steadily so.
    Alive,
    /// Silent for longer than a network takes to repeat a lost packet, or only just back from it.
    Suspect,
    /// Silent for so long that others may take over its work, or only just back from it; or stopped, as it has announced.
    Dead,
}

impl State {
    /// Its name as status and events show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How long is too long. Heartbeats come once a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A silence from which a machine is suspect; also what counts as a gap.
    pub suspect: Duration,
    /// A silence from which it is dead; longer than `suspect`.
    pub dead: Duration,
    /// How long the heartbeats of a suspect one must come without a gap for it to be alive again.
    pub back_from_suspect: Duration,
    /// The same for a dead one.
    pub back_from_dead: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            suspect: Duration::from_secs(5),
            dead: Duration::from_secs(15),
            back_from_suspect: Duration::from_secs(5),
            back_from_dead: Duration::from_secs(30),
        }
    }
}

/// A change of what a machine looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whose.
    pub node: NodeName,
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// When it was noticed.
    pub at: Duration,
}

/// The machines that are configured, and the state of each.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    timing: Timing,
    peers: BTreeMap<NodeName, Peer>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    state: State,
    since: Duration,
    /// The last heartbeat; without meaning while unseen.
    last_heartbeat: Duration,
    /// The first heartbeat after the last gap.
    steady_since: Duration,
    /// It has announced that it stops, and was alive until then.
    stopped: bool,
}

impl Membership {
    /// Nobody yet.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self { timing, peers: BTreeMap::new() }
    }

    /// Makes these the machines that are watched. New ones are unseen; those that stay keep their state, those
    /// that are gone are forgotten.
    pub fn watch<'a>(&mut self, nodes: impl IntoIterator<Item = &'a NodeName>, now: Duration) {
        let mut before = std::mem::take(&mut self.peers);
        let kept =
            |node: &NodeName| before.remove(node).unwrap_or(Peer { since: now, ..Peer::default() });
        self.peers = nodes.into_iter().cloned().map(with(kept)).collect();
    }

    /// Takes a heartbeat. One of a machine that is not watched changes nothing.
    ///
    /// At most two transitions: what its silence had led to, and what the heartbeat does.
    pub fn heartbeat(&mut self, node: &NodeName, now: Duration) -> Vec<Transition> {
        let Some(peer) = self.peers.get_mut(node) else {
            return Vec::new();
        };
        let silent = peer.check_silence(now, &self.timing);
        let heard = peer.heartbeat(now, &self.timing);
        let named = |(from, to)| Transition { node: node.clone(), from, to, at: now };
        silent.into_iter().chain(heard).map(named).collect()
    }

    /// A machine has announced that it stops. Of one that is suspect or dead it changes nothing: what it was damped
    /// for is not undone by an end in good order.
    pub fn stop(&mut self, node: &NodeName, now: Duration) -> Option<Transition> {
        let peer = self.peers.get_mut(node).filter(|peer| peer.state == State::Alive)?;
        peer.stopped = true;
        let (from, to) = peer.become_(State::Dead, now)?;
        Some(Transition { node: node.clone(), from, to, at: now })
    }

    /// Notices who has fallen silent.
    pub fn handle_timeout(&mut self, now: Duration) -> Vec<Transition> {
        let timing = &self.timing;
        let silent = |(node, peer): (&NodeName, &mut Peer)| {
            let (from, to) = peer.check_silence(now, timing)?;
            Some(Transition { node: node.clone(), from, to, at: now })
        };
        self.peers.iter_mut().filter_map(silent).collect()
    }

    /// When [`Self::handle_timeout`] will next change something, unless a heartbeat comes before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.peers.values().filter_map(|peer| peer.deadline(&self.timing)).min()
    }

    /// The state of a machine, and since when. None where it is not watched.
    #[must_use]
    pub fn state(&self, node: &NodeName) -> Option<(State, Duration)> {
        self.peers.get(node).map(|peer| (peer.state, peer.since))
    }

    /// Those that are alive: what this machine's heartbeats say that it sees.
    pub fn alive(&self) -> impl Iterator<Item = &NodeName> {
        self.peers.iter().filter(|(_, peer)| peer.state == State::Alive).map(|(node, _)| node)
    }
}

/// Pairs a key with what is made of it.
fn with<K, V>(mut make: impl FnMut(&K) -> V) -> impl FnMut(K) -> (K, V) {
    move |key| {
        let value = make(&key);
        (key, value)
    }
}

impl Peer {
    fn become_(&mut self, to: State, now: Duration) -> Option<(State, State)> {
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        Some((from, to))
    }

    /// Alive to suspect or dead, suspect to dead.
    fn check_silence(&mut self, now: Duration, timing: &Timing) -> Option<(State, State)> {
        let silence = now.saturating_sub(self.last_heartbeat);
        let to = match self.state {
            State::Alive | State::Suspect if silence >= timing.dead => State::Dead,
            State::Alive if silence >= timing.suspect => State::Suspect,
            State::Unseen | State::Alive | State::Suspect | State::Dead => return None,
        };
        self.become_(to, now)
    }

    /// Unseen to alive; suspect or dead to alive, if its heartbeats have come for long enough.
    fn heartbeat(&mut self, now: Duration, timing: &Timing) -> Option<(State, State)> {
        let gap = now.saturating_sub(self.last_heartbeat) >= timing.suspect;
        if gap || self.state == State::Unseen {
            self.steady_since = now;
        }
        // A clock that is said to go backwards must not make the silence longer.
        self.last_heartbeat = self.last_heartbeat.max(now);
        let steady = now.saturating_sub(self.steady_since);
        let back = match self.state {
            State::Unseen => true,
            State::Alive => false,
            State::Suspect => steady >= timing.back_from_suspect,
            State::Dead => self.stopped || steady >= timing.back_from_dead,
        };
        self.stopped = false;
        if back { self.become_(State::Alive, now) } else { None }
    }

    fn deadline(&self, timing: &Timing) -> Option<Duration> {
        match self.state {
            State::Alive => Some(self.last_heartbeat + timing.suspect.min(timing.dead)),
            State::Suspect => Some(self.last_heartbeat + timing.dead),
            State::Unseen | State::Dead => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).expect("a name")
    }

    fn watching(names: &[&str]) -> Membership {
        let mut members = Membership::new(Timing::default());
        members.watch(&names.iter().map(|name| node(name)).collect::<Vec<_>>(), Duration::ZERO);
        members
    }

    /// One heartbeat a second, from the one second up to the other; the transitions and when they were.
    fn beat(
        members: &mut Membership,
        name: &str,
        seconds: std::ops::RangeInclusive<u32>,
    ) -> Vec<(u32, State)> {
        let one = |second| {
            let changes = members.heartbeat(&node(name), second * SECOND);
            changes.into_iter().map(move |change| (second, change.to)).collect::<Vec<_>>()
        };
        seconds.flat_map(one).collect()
    }

    #[test]
    fn who_says_that_it_stops_is_dead_at_once_and_alive_at_once_when_it_is_back() {
        let mut members = watching(&["a"]);
        beat(&mut members, "a", 1..=3);
        let stopped = members.stop(&node("a"), 3 * SECOND).map(|change| (change.from, change.to));
        assert_eq!(stopped, Some((State::Alive, State::Dead)));
        assert_eq!(members.stop(&node("a"), 3 * SECOND), None, "once");
        assert_eq!(members.handle_timeout(20 * SECOND), []);
        assert_eq!(beat(&mut members, "a", 21..=22), [(21, State::Alive)]);
        let silent: Vec<_> = members.handle_timeout(40 * SECOND).iter().map(|c| c.to).collect();
        assert_eq!(silent, [State::Dead], "and then it is as any other");
        assert_eq!(beat(&mut members, "a", 41..=71), [(71, State::Alive)]);
    }

    #[test]
    fn an_end_in_good_order_does_not_undo_what_a_machine_is_damped_for() {
        let mut members = watching(&["a"]);
        beat(&mut members, "a", 1..=1);
        assert_eq!(beat(&mut members, "a", 10..=11), [(10, State::Suspect)]);
        assert_eq!(members.stop(&node("a"), 11 * SECOND), None);
        assert_eq!(beat(&mut members, "a", 12..=20), [(15, State::Alive)]);
    }

    #[test]
    fn the_first_heartbeat_makes_alive_at_once() {
        let mut members = watching(&["a"]);
        assert_eq!(members.state(&node("a")), Some((State::Unseen, Duration::ZERO)));
        assert_eq!(members.handle_timeout(1000 * SECOND), [], "who was never seen is not missed");
        assert_eq!(members.poll_timeout(), None);
        assert_eq!(beat(&mut members, "a", 1001..=1001), [(1001, State::Alive)]);
        assert_eq!(members.alive().collect::<Vec<_>>(), [&node("a")]);
    }

    #[test]
    fn silence_makes_suspect_and_then_dead_to_the_second() {
        let mut members = watching(&["a"]);
        beat(&mut members, "a", 0..=10);
        let to = |members: &mut Membership, second| {
            members
                .handle_timeout(second * SECOND)
                .into_iter()
                .map(|change| change.to)
                .collect::<Vec<_>>()
        };
        assert_eq!(to(&mut members, 14), []);
        assert_eq!(to(&mut members, 15), [State::Suspect]);
        assert_eq!(to(&mut members, 24), []);
        assert_eq!(to(&mut members, 25), [State::Dead]);
        assert_eq!(members.poll_timeout(), None, "nothing becomes of the dead by itself");
    }

    #[test]
    fn the_way_back_takes_steady_heartbeats() {
        let mut members = watching(&["a"]);
        beat(&mut members, "a", 0..=0);
        members.handle_timeout(6 * SECOND);
        assert_eq!(beat(&mut members, "a", 7..=20), [(12, State::Alive)], "5 s from suspect");
        members.handle_timeout(35 * SECOND);
        assert_eq!(beat(&mut members, "a", 40..=60), [], "not yet");
        assert_eq!(
            beat(&mut members, "a", 65..=100),
            [(95, State::Alive)],
            "30 s from after the gap"
        );
    }

    #[test]
    fn a_silence_that_nobody_looked_at_is_noticed_by_the_next_heartbeat() {
        let mut members = watching(&["a"]);
        beat(&mut members, "a", 0..=0);
        assert_eq!(beat(&mut members, "a", 60..=60), [(60, State::Dead)]);
    }

    #[test]
    fn who_is_no_longer_watched_is_forgotten_and_who_stays_keeps_its_state() {
        let mut members = watching(&["a", "b"]);
        beat(&mut members, "a", 0..=1);
        beat(&mut members, "b", 0..=1);
        members.watch(&[node("b"), node("c")], 2 * SECOND);
        assert_eq!(members.state(&node("a")), None);
        assert_eq!(members.state(&node("b")), Some((State::Alive, Duration::ZERO)));
        assert_eq!(members.state(&node("c")), Some((State::Unseen, 2 * SECOND)));
        assert_eq!(members.heartbeat(&node("a"), 2 * SECOND), [], "a stranger's heartbeat");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Heartbeat(usize),
        Timeout,
        /// Waits until just before, or exactly until, the announced moment.
        Announced {
            early: bool,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
        let step = prop_oneof![
            4 => (0..2usize).prop_map(Step::Heartbeat),
            1 => Just(Step::Timeout),
            1 => any::<bool>().prop_map(|early| Step::Announced { early }),
        ];
        // Mostly the pace of heartbeats, now and then a silence.
        let pause = prop_oneof![8 => 0..1_500u64, 1 => 1_500..40_000u64];
        prop::collection::vec((pause, step), 0..300)
    }

    /// What the heartbeats of one machine say, kept apart from how the membership keeps it.
    #[derive(Default)]
    struct Heartbeats(Vec<Duration>);

    impl Heartbeats {
        fn silence(&self, now: Duration) -> Duration {
            self.0.last().map_or(Duration::MAX, |last| now - *last)
        }

        /// How long heartbeats have come without a gap, up to the last heartbeat.
        fn steady(&self, gap: Duration) -> Duration {
            let broken = self.0.windows(2).rposition(|two| two[1] - two[0] >= gap);
            let first = self.0[broken.map_or(0, |at| at + 1)];
            self.0[self.0.len() - 1] - first
        }
    }

    fn check(
        change: &Transition,
        heard: &Heartbeats,
        by_heartbeat: bool,
    ) -> Result<(), TestCaseError> {
        let timing = Timing::default();
        // The heartbeat that shows a silence has ended it.
        let silence = match (by_heartbeat, heard.0.as_slice()) {
            (true, [.., before, last]) => *last - *before,
            (true, _) => Duration::ZERO,
            (false, _) => heard.silence(change.at),
        };
        match (change.from, change.to) {
            (State::Unseen, State::Alive) => prop_assert!(by_heartbeat && heard.0.len() == 1),
            (State::Suspect, State::Alive) => {
                prop_assert!(
                    by_heartbeat && heard.steady(timing.suspect) >= timing.back_from_suspect
                );
            }
            (State::Dead, State::Alive) => {
                prop_assert!(by_heartbeat && heard.steady(timing.suspect) >= timing.back_from_dead);
            }
            (State::Alive, State::Suspect) => {
                prop_assert!(silence >= timing.suspect && silence < timing.dead);
            }
            (State::Alive | State::Suspect, State::Dead) => prop_assert!(silence >= timing.dead),
            (from, to) => prop_assert!(false, "{from} to {to} is no transition"),
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Each transition has its cause in the heartbeats; the way back is never shorter than the damping;
        /// and `poll_timeout` announces whatever `handle_timeout` changes, to the millisecond.
        #[test]
        fn transitions_have_a_cause_and_deadlines_are_announced(steps in steps()) {
            let names = [node("a"), node("b")];
            let mut members = watching(&["a", "b"]);
            let mut heard = [Heartbeats::default(), Heartbeats::default()];
            let mut states = [State::Unseen; 2];
            let mut last_alive = [None::<Duration>; 2];
            let mut now = Duration::ZERO;
            for (pause, step) in steps {
                now += Duration::from_millis(pause);
                let (changes, by_heartbeat) = match step {
                    Step::Heartbeat(who) => {
                        heard[who].0.push(now);
                        (members.heartbeat(&names[who], now), true)
                    }
                    Step::Timeout => {
                        let announced = members.poll_timeout();
                        let changes = members.handle_timeout(now);
                        prop_assert_eq!(!changes.is_empty(), announced.is_some_and(|at| at <= now));
                        (changes, false)
                    }
                    Step::Announced { early } => {
                        let Some(at) = members.poll_timeout().filter(|at| *at > now) else { continue };
                        now = if early { at - Duration::from_millis(1) } else { at };
                        let changes = members.handle_timeout(now);
                        prop_assert_eq!(changes.is_empty(), early);
                        (changes, false)
                    }
                };
                for change in changes {
                    let who = usize::from(change.node == names[1]);
                    prop_assert_eq!(change.from, states[who], "a transition was left out");
                    prop_assert_eq!(change.at, now);
                    check(&change, &heard[who], by_heartbeat)?;
                    states[who] = change.to;
                    if change.to == State::Alive {
                        let before = last_alive[who].replace(now);
                        let apart = Timing::default().suspect + Timing::default().back_from_suspect;
                        prop_assert!(before.is_none_or(|before| now - before >= apart), "it flaps");
                    }
                }
                for who in 0..2 {
                    prop_assert_eq!(members.state(&names[who]).map(|(state, _)| state), Some(states[who]));
                }
            }
        }
    }
}
