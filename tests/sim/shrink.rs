//! A run that fails shrinks by itself: delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating
//! Failure-Inducing Input", 2002) over the list of what has happened, down to a story that fails the same way. It is
//! printed as it would stand in `stories`.

use std::fmt::Write;

use cortex_core::rule::Rule;

use crate::{
    actions::{self, Kind},
    chance::Chance,
    deeds::{Deed, Step, once, play, some},
    mutations::Mutation,
    observed, rest,
    stories::{nodes, shared},
    world::World,
};

/// Runs that are made for one failure at most.
const RUNS: usize = 600;

/// How a story begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// As the run of this seed has.
    Drawn(u64, Kind),
    /// With so many nodes and a table that all have, as most stories do.
    Plain(usize),
}

/// A run without chance: how it begins, and what happens then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) beginning: Beginning,
    pub(crate) steps: Vec<Step>,
}

/// Begins as the run of a seed.
pub(crate) fn begin(world: &mut World, seed: u64, kind: Kind) {
    *world = World::new(seed, world.mutation);
    actions::set_up(world, kind);
}

/// Ends as every run does: everything must heal.
pub(crate) fn end(world: &mut World, seed: u64) {
    world.chance = Chance::new(seed);
    rest::heal(world);
}

impl Beginning {
    fn seed(self) -> u64 {
        match self {
            Self::Drawn(seed, _) => seed,
            Self::Plain(_) => 1,
        }
    }
}

impl Script {
    /// What is found broken, with some rules broken or none.
    pub(crate) fn failure(&self, mutation: Option<Mutation>) -> Option<String> {
        let rules = mutation.map(Mutation::rules).unwrap_or_default();
        let mut world = World::new(self.beginning.seed(), mutation);
        let told = || {
            observed(&mut world, |world| {
                match self.beginning {
                    Beginning::Drawn(seed, kind) => begin(world, seed, kind),
                    Beginning::Plain(count) => {
                        nodes(world, count);
                        shared(world);
                        world.calm = false;
                    }
                }
                play(world, &self.steps);
                end(world, self.beginning.seed());
            })
        };
        Rule::without(&rules, told).err()
    }

    /// The source of a story, to be pasted into `stories`.
    pub(crate) fn source(&self, name: &str, why: &str) -> String {
        let mut source = format!("/// {why}\nfn {name}(world: &mut World) {{\n");
        match self.beginning {
            Beginning::Drawn(seed, kind) => {
                let _ = writeln!(
                    source,
                    "    crate::shrink::begin(world, {seed}, crate::actions::Kind::{kind:?});"
                );
            }
            Beginning::Plain(count) => {
                let _ = writeln!(source, "    nodes(world, {count});\n    shared(world);");
                let _ = writeln!(source, "    world.calm = false;");
            }
        }
        let _ = writeln!(source, "    play(world, &[");
        for step in &self.steps {
            let Step { after_ms, dice, deed } = step;
            let _ = match (after_ms, dice) {
                (0, 0) => writeln!(source, "        once(Deed::{deed:?}),"),
                _ => writeln!(
                    source,
                    "        Step {{ after_ms: {after_ms}, dice: {dice}, deed: Deed::{deed:?} }},"
                ),
            };
        }
        let _ = writeln!(source, "    ]);\n    end(world, {});\n}}", self.beginning.seed());
        source
    }
}

/// What a failure is told by: the promise that it breaks. Another one would be another story.
fn promise(what: &str) -> &str {
    what.split(' ').next().unwrap_or_default()
}

/// The same failure by as little as can be found. What does not fail again is left as it is.
pub(crate) fn shrink(script: Script, what: &str, mutation: Option<Mutation>) -> Script {
    let mut runs = 0;
    let mut fails = |script: &Script| {
        runs += 1;
        let is_same = |found: String| promise(&found) == promise(what);
        runs <= RUNS && script.failure(mutation).is_some_and(is_same)
    };
    if !fails(&script) {
        return script;
    }
    let mut script = with_plain_beginning(script, &mut fails);
    script = with_fewer_steps(script, &mut fails);
    script = with_plain_beginning(script, &mut fails);
    script = with_plain_steps(script, &mut fails);
    with_fewer_steps(script, &mut fails)
}

fn with_plain_beginning(script: Script, fails: &mut impl FnMut(&Script) -> bool) -> Script {
    if matches!(script.beginning, Beginning::Plain(_)) {
        return script;
    }
    let plain = |count| Script { beginning: Beginning::Plain(count), ..script.clone() };
    (2..=5).map(plain).find(fails).unwrap_or(script)
}

/// Without as many of the steps as is possible one by one: `ddmin`, by complements.
fn with_fewer_steps(mut script: Script, fails: &mut impl FnMut(&Script) -> bool) -> Script {
    let mut parts = 2;
    while script.steps.len() > 1 {
        let count = script.steps.len();
        let size = count.div_ceil(parts);
        let without = |start: usize| {
            let outside = |at: &usize| !(start..start + size).contains(at);
            let steps = (0..count).filter(outside).map(|at| script.steps[at].clone());
            Script { steps: steps.collect(), ..script.clone() }
        };
        let shorter = (0..count).step_by(size).map(without).find(&mut *fails);
        match shorter {
            Some(shorter) => (script, parts) = (shorter, (parts - 1).max(2)),
            None if size == 1 => break,
            None => parts = (parts * 2).min(count),
        }
    }
    script
}

/// With no time and the usual chance for each step, as far as it needs no other.
fn with_plain_steps(mut script: Script, fails: &mut impl FnMut(&Script) -> bool) -> Script {
    for at in 0..script.steps.len() {
        let step = &script.steps[at];
        let plain = Step { after_ms: 0, dice: 0, ..step.clone() };
        for changed in [
            plain.clone(),
            Step { dice: step.dice, ..plain.clone() },
            Step { after_ms: step.after_ms, ..plain },
        ] {
            let mut simpler = script.clone();
            simpler.steps[at] = changed;
            if simpler != script && fails(&simpler) {
                script = simpler;
                break;
            }
        }
    }
    script
}

/// What is printed can be pasted: it is what stands in `stories`, whatever the lines are.
#[test]
fn a_story_is_printed_as_it_is_written() {
    let deeds = [
        Deed::Put { n: 1, table: 0, key: 2 },
        Deed::Delete { n: 1, table: 0, key: 1 },
        Deed::Delete { n: 1, table: 0, key: 2 },
        Deed::Put { n: 1, table: 0, key: 1 },
    ];
    let last = Deed::Read { reader: 0, source: 1, table: 0, most: 7 };
    let last = Step { after_ms: 0, dice: 251, deed: last };
    let steps = deeds.map(once).into_iter().chain([last]).collect();
    let with_a_step = Script { beginning: Beginning::Plain(2), steps };
    let steps = [
        Deed::Join,
        Deed::Spread { nodes: some(&[0, 1, 2]), table: 0 },
        Deed::Calm { nodes: some(&[0, 1, 2]), rounds: 1 },
        Deed::Delete { n: 2, table: 0, key: 1 },
        Deed::Truncate { n: 2, table: 0, upto: 31 },
    ];
    let with_nodes =
        Script { beginning: Beginning::Plain(2), steps: steps.map(once).into_iter().collect() };
    let tokens = |text: &str| {
        let text = text.split_whitespace().collect::<String>();
        [",]", ",)", ",}"].iter().fold(text, |text, end| text.replace(end, &end[1..]))
    };
    let stories = tokens(include_str!("stories.rs"));
    let first = "I7 n0 claims a write that it was not sent: the part that it read ends before.";
    let second = "I7 n1 claims a deletion that was cut off the change log.";
    assert!(stories.contains(&tokens(&with_a_step.source("disks_seed_0", first))));
    assert!(stories.contains(&tokens(&with_nodes.source("disks_seed_3", second))));
}
