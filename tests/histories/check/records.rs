//! Records: no acknowledged write is lost, nothing deleted or replaced comes back, nothing is there that nobody wrote.
//!
//! Of versions of a key the last writer wins, so which one wins depends on clocks; but some orders hold whatever
//! the clocks say. A write *replaces* every version that its node knew when it was asked for: those acknowledged
//! there, those read there, and whatever these replace. Where no clock was touched, it also replaces what was
//! acknowledged anywhere clearly before it. From that follows:
//!
//! - a read returns no version that another one replaces which its node knew before;
//! - in the end each key holds a version that no surviving acknowledged write replaces;
//! - a version that is read or held was written to that key, before.
//!
//! A deletion of a row that its node may not have had changes nothing, so it need not replace anything.

use std::collections::BTreeMap;

use super::bits::Bits;
use crate::history::{Contents, Event, Micros, NodeId, Read, TableId, Version, Write};

/// How much earlier an acknowledgement must be for a write on another node to be the later one by its clock:
/// timestamps count milliseconds, and all nodes share one clock.
const CLEARLY: Micros = 10_000;

/// What may be concluded beyond what nodes knew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// True where all clocks were right all the time.
    pub(crate) one_clock: bool,
}

/// One version of a key in the making of the check.
struct Candidate<'h> {
    value: &'h Version,
    node: Option<NodeId>,
    invoked: Micros,
    acked: Option<Micros>,
    replaces: Bits,
    /// That it took effect, and survives, is known.
    is_certain: bool,
}

/// What happens at a moment, in the order in which equal moments count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Asked(usize),
    ReadAsked(usize),
    Forgotten(usize),
    Acked(usize),
    ReadAnswered(usize),
}

/// The history of one key.
#[derive(Default)]
struct KeyHistory<'h> {
    writes: Vec<&'h Write>,
    reads: Vec<&'h Read>,
}

/// Checks the records of all tables. `finals` is what every replica holds in the end.
pub(crate) fn check(
    events: &[Event],
    base: &Contents,
    finals: &Contents,
    rules: Rules,
) -> Vec<String> {
    let mut keys: BTreeMap<(TableId, &str), KeyHistory<'_>> = BTreeMap::new();
    for event in events {
        match event {
            Event::Write(write) => {
                keys.entry((write.table, &write.key)).or_default().writes.push(write);
            }
            Event::Read(read) => {
                keys.entry((read.table, &read.key)).or_default().reads.push(read);
            }
            Event::Forgets { .. } | Event::MayLeave { .. } | Event::MayLose { .. } => {}
        }
    }
    for (table, key) in base.keys().chain(finals.keys()) {
        keys.entry((*table, key)).or_default();
    }
    let mut broken = Vec::new();
    for ((table, key), history) in keys {
        let place = (table, key.to_owned());
        let first = base.get(&place).cloned().flatten();
        let mut check = KeyCheck::new(table, &first, &history, events, rules);
        check.run();
        if let Some(last) = finals.get(&place) {
            check.check_final(last);
        }
        let named = check.broken.into_iter().map(|what| format!("table {table} key {key}: {what}"));
        broken.extend(named);
    }
    broken
}

struct KeyCheck<'h> {
    candidates: Vec<Candidate<'h>>,
    reads: &'h [&'h Read],
    /// What each node knows; by its number.
    known: BTreeMap<NodeId, Bits>,
    known_at_read: BTreeMap<usize, Bits>,
    /// When nodes forget, and whether for good.
    forgets: Vec<(NodeId, Micros)>,
    unordered: BTreeMap<NodeId, Micros>,
    rules: Rules,
    broken: Vec<String>,
}

impl<'h> KeyCheck<'h> {
    fn new(
        table: TableId,
        first: &'h Version,
        history: &'h KeyHistory<'h>,
        events: &[Event],
        rules: Rules,
    ) -> Self {
        let base = Candidate {
            value: first,
            node: None,
            invoked: 0,
            acked: Some(0),
            replaces: Bits::default(),
            is_certain: true,
        };
        let losses = Losses::of(table, events);
        let candidates = history.writes.iter().map(|write| Candidate {
            value: &write.value,
            node: Some(write.node),
            invoked: write.invoked,
            acked: write.acked,
            replaces: Bits::default(),
            is_certain: write.acked.is_some_and(|acked| !losses.concern(write.node, acked)),
        });
        let mut forgets = Vec::new();
        let mut unordered: BTreeMap<NodeId, Micros> = BTreeMap::new();
        for event in events {
            match event {
                Event::Forgets { node, at } => forgets.push((*node, *at)),
                Event::MayLeave { node, table: of, at } if *of == table => {
                    let first = unordered.entry(*node).or_insert(*at);
                    *first = (*first).min(*at);
                }
                Event::Write(_)
                | Event::Read(_)
                | Event::MayLeave { .. }
                | Event::MayLose { .. } => {}
            }
        }
        Self {
            candidates: std::iter::once(base).chain(candidates).collect(),
            reads: &history.reads,
            known: BTreeMap::new(),
            known_at_read: BTreeMap::new(),
            forgets,
            unordered,
            rules,
            broken: Vec::new(),
        }
    }

    fn run(&mut self) {
        let mut moments = Vec::new();
        for (n, candidate) in self.candidates.iter().enumerate().skip(1) {
            moments.push((candidate.invoked, Moment::Asked(n)));
            moments.extend(candidate.acked.map(|acked| (acked, Moment::Acked(n))));
        }
        for (n, read) in self.reads.iter().enumerate() {
            moments.push((read.invoked, Moment::ReadAsked(n)));
            moments.push((read.answered, Moment::ReadAnswered(n)));
        }
        let forgets = self.forgets.iter().enumerate();
        moments.extend(forgets.map(|(n, (_, at))| (*at, Moment::Forgotten(n))));
        moments.sort_unstable();
        for (at, moment) in moments {
            match moment {
                Moment::Asked(n) => self.ask(n, at),
                Moment::Acked(n) => self.learn(self.candidates[n].node, n, at),
                Moment::ReadAsked(n) => {
                    let known = self.knows(Some(self.reads[n].node), at);
                    self.known_at_read.insert(n, known);
                }
                Moment::ReadAnswered(n) => self.answer(n, at),
                Moment::Forgotten(n) => {
                    self.known.insert(self.forgets[n].0, Bits::default());
                }
            }
        }
    }

    /// What a node knows: what was there when the history began, if nothing else.
    fn knows(&self, node: Option<NodeId>, at: Micros) -> Bits {
        let Some(node) = node else { return Bits::default() };
        if self.unordered.get(&node).is_some_and(|since| *since <= at) {
            return Bits::default();
        }
        self.known.get(&node).cloned().unwrap_or_else(|| {
            let mut base = Bits::default();
            base.insert(0);
            base
        })
    }

    fn ask(&mut self, n: usize, at: Micros) {
        let mut replaces = self.knows(self.candidates[n].node, at);
        if self.candidates[n].value.is_none() && !self.had_row(&replaces, n) {
            // Nothing was there that it could delete, perhaps: then it is no version at all.
            self.candidates[n].is_certain = false;
            self.candidates[n].acked = None;
        }
        if self.rules.one_clock {
            for (other, candidate) in self.candidates.iter().enumerate() {
                if candidate.acked.is_some_and(|acked| acked + CLEARLY < at) {
                    replaces.insert(other);
                }
            }
        }
        let mut all = replaces.clone();
        replaces.iter().for_each(|other| all.extend(&self.candidates[other].replaces));
        self.candidates[n].replaces = all;
    }

    /// True where a node that knows these versions has a row of the key for certain.
    fn had_row(&self, known: &Bits, deletion: usize) -> bool {
        let ends = self.candidates[deletion].acked.unwrap_or(Micros::MAX);
        let has_row = |n: usize| {
            let candidate = &self.candidates[n];
            let is_there = |(other, deleted): (usize, &Candidate<'_>)| {
                let is_harmless = deleted.value.is_some() || deleted.invoked > ends;
                other == deletion || is_harmless || candidate.replaces.contains(other)
            };
            candidate.value.is_some()
                && candidate.is_certain
                && self.candidates.iter().enumerate().all(is_there)
        };
        known.iter().any(has_row)
    }

    fn learn(&mut self, node: Option<NodeId>, n: usize, at: Micros) {
        if self.candidates[n].acked.is_none() {
            return;
        }
        let Some(place) = node else { return };
        let mut known = self.knows(node, at);
        known.insert(n);
        known.extend(&self.candidates[n].replaces);
        self.known.insert(place, known);
    }

    fn answer(&mut self, n: usize, at: Micros) {
        let read = self.reads[n];
        let known = self.known_at_read.remove(&n).unwrap_or_default();
        let written: Vec<_> = self.written(&read.value, at).collect();
        let node = read.node;
        if written.is_empty() && read.value.is_some() {
            self.broken
                .push(format!("node {node} read {:?}, which nobody wrote there", read.value));
            return;
        }
        let replaced_by =
            |n: usize| known.iter().find(|w| self.candidates[*w].replaces.contains(n));
        let is_possible = |n: &usize| replaced_by(*n).is_none();
        if !written.iter().any(is_possible) {
            // That it was never there is possible where nothing else is known.
            let newer =
                written.first().and_then(|n| replaced_by(*n)).or_else(|| known.iter().last());
            let Some(newer) = newer.map(|newer| &self.candidates[newer]) else { return };
            self.broken.push(format!(
                "node {node} read {:?} at {} although it knew {:?} of node {:?}, asked for at {}",
                read.value, read.invoked, newer.value, newer.node, newer.invoked
            ));
            return;
        }
        if let ([only], true) = (&written[..], read.value.is_some()) {
            self.observe(*only, node, at);
        }
    }

    /// A version that was read took effect, and the node has it.
    fn observe(&mut self, n: usize, node: NodeId, at: Micros) {
        // This node keeps it, whatever becomes of the one where it was written.
        self.candidates[n].is_certain |= !self.forgets.iter().any(|(of, _)| *of == node);
        let mut known = self.knows(Some(node), at);
        known.insert(n);
        known.extend(&self.candidates[n].replaces);
        self.known.insert(node, known);
    }

    /// The writes of a version that may have taken effect by then.
    fn written(&self, value: &Version, by: Micros) -> impl Iterator<Item = usize> {
        let all = self.candidates.iter().enumerate();
        all.filter(move |(_, one)| one.value == value && one.invoked <= by).map(|(n, _)| n)
    }

    fn check_final(&mut self, last: &Version) {
        let replaced_by = |n: usize| {
            self.candidates.iter().position(|one| one.is_certain && one.replaces.contains(n))
        };
        let written: Vec<_> = self.written(last, Micros::MAX).collect();
        if written.iter().any(|n| replaced_by(*n).is_none()) {
            return;
        }
        let winners: Vec<_> = self
            .candidates
            .iter()
            .enumerate()
            .filter(|(n, one)| one.is_certain && replaced_by(*n).is_none())
            .map(|(_, one)| {
                format!("{:?} of node {:?} acknowledged at {:?}", one.value, one.node, one.acked)
            })
            .collect();
        let winners = winners.join(" or ");
        self.broken.push(match (last, written.is_empty()) {
            (Some(text), true) => format!("holds {text}, which nobody wrote there"),
            _ => format!("holds {last:?} in the end, which was replaced: {winners} must be there"),
        });
    }
}

/// What may have become of a table's writes with databases that were set back.
struct Losses {
    /// Nodes whose writes of that time may be gone, since when and until when.
    of_nodes: Vec<(NodeId, Micros, Micros)>,
    /// From when on a node may have handed over all that it had.
    leaves: Vec<(NodeId, Micros)>,
}

impl Losses {
    fn of(table: TableId, events: &[Event]) -> Self {
        let (mut of_nodes, mut leaves) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Event::MayLose { node, since, at } => of_nodes.push((*node, *since, *at)),
                Event::MayLeave { node, table: of, at } if *of == table => {
                    leaves.push((*node, *at));
                }
                Event::Write(_)
                | Event::Read(_)
                | Event::Forgets { .. }
                | Event::MayLeave { .. } => {}
            }
        }
        Self { of_nodes, leaves }
    }

    /// True where a write of a node that was acknowledged then may be gone: with its own database, or with that of the
    /// node which it was handed over to. One acknowledgement is one disk.
    fn concern(&self, node: NodeId, acked: Micros) -> bool {
        self.of_nodes.iter().any(|(lost, since, at)| {
            let handed_over = || self.leaves.iter().any(|(left, from)| *left == node && from < at);
            acked <= *at && if *lost == node { *since < acked } else { handed_over() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::by_hand::{get, perhaps, put};

    const RULES: Rules = Rules { one_clock: false };
    /// Long enough apart to be in order by the clock.
    const LATER: Micros = 1_000_000;

    fn contents(text: &str) -> Contents {
        let version = (!text.is_empty()).then(|| text.to_owned());
        [((0, "k".to_owned()), version)].into()
    }

    fn found(events: &[Event], last: &str, rules: Rules) -> Vec<String> {
        check(events, &contents("base"), &contents(last), rules)
    }

    fn assert_good(events: &[Event], last: &str, rules: Rules) {
        assert_eq!(found(events, last, rules), Vec::<String>::new());
    }

    fn assert_bad(events: &[Event], last: &str, rules: Rules, part: &str) {
        let found = found(events, last, rules);
        assert!(found.iter().any(|what| what.contains(part)), "{part:?} is not in {found:?}");
    }

    #[test]
    fn a_lost_acknowledged_write_is_found() {
        assert_good(&[put(0, "a", 1, 2)], "a", RULES);
        assert_bad(&[put(0, "a", 1, 2)], "base", RULES, "was replaced");
        assert_bad(&[put(0, "a", 1, 2), put(0, "b", 3, 4)], "a", RULES, "was replaced");
        assert_bad(&[put(0, "a", 1, 2)], "", RULES, "must be there");
    }

    #[test]
    fn either_of_two_concurrent_writes_may_win() {
        let events = [put(0, "a", 1, 3), put(1, "b", 2, 4)];
        assert_good(&events, "a", RULES);
        assert_good(&events, "b", RULES);
        assert_bad(&events, "base", RULES, "was replaced");
    }

    /// Of two nodes that did not hear of each other the later one wins, where their clocks are one.
    #[test]
    fn the_later_write_wins_where_clocks_are_right() {
        let events = [put(0, "a", 1, 2), put(1, "b", LATER, LATER + 1)];
        assert_good(&events, "a", RULES);
        assert_bad(&events, "a", Rules { one_clock: true }, "was replaced");
        assert_good(&events, "b", Rules { one_clock: true });
    }

    #[test]
    fn a_write_that_was_never_answered_may_have_happened_or_not() {
        let events = [put(0, "a", 1, 2), perhaps(0, "b", 3)];
        assert_good(&events, "a", RULES);
        assert_good(&events, "b", RULES);
        let seen = [put(0, "a", 1, 2), perhaps(0, "b", 3), get(1, "b", 5, 6)];
        assert_bad(&seen, "a", RULES, "was replaced");
    }

    #[test]
    fn a_deletion_that_comes_undone_is_found() {
        let events = [put(0, "a", 1, 2), put(0, "", 3, 4)];
        assert_good(&events, "", RULES);
        assert_bad(&events, "a", RULES, "was replaced");
        assert_bad(&events, "base", RULES, "was replaced");
        let read = [put(0, "a", 1, 2), put(0, "", 3, 4), get(0, "a", 5, 6), put(0, "c", 7, 8)];
        assert_bad(&read, "c", RULES, "although it knew None");
    }

    /// The node that deletes may not have had the row: then its deletion is none.
    #[test]
    fn a_deletion_of_what_was_not_there_replaces_nothing() {
        let clock = Rules { one_clock: true };
        let events = [put(0, "", 1, 2), put(0, "a", 3, 4), put(1, "", LATER, LATER + 1)];
        assert_good(&events, "a", clock);
        assert_good(&events, "", clock);
    }

    #[test]
    fn a_node_that_returns_to_what_it_had_before_is_found() {
        let own = [put(0, "a", 1, 2), put(0, "b", 3, 4), get(0, "a", 5, 6)];
        assert_bad(&own, "b", RULES, "although it knew");
        let read = [put(0, "a", 1, 2), put(0, "b", 3, 4), get(1, "b", 5, 6), get(1, "a", 7, 8)];
        assert_bad(&read, "b", RULES, "although it knew");
        let late = [put(0, "a", 1, 2), put(0, "b", 3, 4), get(1, "a", 5, 6), get(1, "b", 7, 8)];
        assert_good(&late, "b", RULES);
        assert_bad(&[put(0, "a", 1, 2), get(0, "", 3, 4)], "a", RULES, "although it knew");
    }

    #[test]
    fn what_nobody_wrote_is_found() {
        assert_bad(&[put(0, "a", 1, 2)], "x", RULES, "which nobody wrote");
        assert_bad(&[get(0, "x", 1, 2)], "base", RULES, "which nobody wrote");
        assert_bad(&[get(0, "a", 1, 2), put(0, "a", 3, 4)], "a", RULES, "which nobody wrote");
    }

    #[test]
    fn what_was_written_after_a_read_elsewhere_replaces_it() {
        let events = [put(0, "a", 1, 2), get(1, "a", 3, 4), put(1, "b", 5, 6)];
        assert_bad(&events, "a", RULES, "was replaced");
    }

    #[test]
    fn a_database_that_was_set_back_may_lose_what_only_it_had() {
        let lost = [Event::MayLose { node: 0, since: 0, at: 5 }, Event::Forgets { node: 0, at: 5 }];
        let with = |more: &[Event]| [&[put(0, "a", 1, 2)], &lost[..], more].concat();
        assert_good(&with(&[]), "base", RULES);
        assert_good(&with(&[get(0, "base", 6, 7)]), "base", RULES);
        assert_bad(&with(&[get(1, "a", 3, 4)]), "base", RULES, "was replaced");
        let earlier = Event::MayLose { node: 0, since: 3, at: 5 };
        assert_bad(&[put(0, "a", 1, 2), earlier], "base", RULES, "was replaced");
    }

    #[test]
    fn what_was_handed_over_to_a_database_that_was_set_back_may_be_lost() {
        let leaves = |at| Event::MayLeave { node: 1, table: 0, at };
        let lost = Event::MayLose { node: 0, since: 3, at: 5 };
        assert_good(&[put(1, "a", 1, 2), leaves(1), lost.clone()], "base", RULES);
        assert_bad(&[put(1, "a", 1, 2), lost.clone()], "base", RULES, "was replaced");
        assert_bad(&[put(1, "a", 1, 2), leaves(6), lost.clone()], "base", RULES, "was replaced");
        assert_bad(&[put(2, "a", 1, 2), leaves(1), lost], "base", RULES, "was replaced");
    }

    #[test]
    fn a_replica_that_may_have_begun_anew_is_not_held_to_what_it_knew() {
        let leaves = Event::MayLeave { node: 1, table: 0, at: 5 };
        let events =
            [put(0, "a", 1, 2), get(1, "a", 3, 4), leaves, get(1, "base", 6, 7), get(0, "a", 8, 9)];
        assert_good(&events, "a", RULES);
    }
}
