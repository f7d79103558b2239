//! Replication in a simulated world: real databases, the real driver of replication at both ends of each link, made-up
//! links and clocks, all from one printed number. `SIM_SEEDS`, `SIM_FROM` and `SIM_STEPS` say how many runs, from which, how long.

#[path = "sim/actions.rs"]
mod actions;
#[path = "sim/chance.rs"]
mod chance;
#[path = "sim/checks/mod.rs"]
mod checks;
#[path = "sim/clocks.rs"]
mod clocks;
#[path = "sim/deeds.rs"]
mod deeds;
#[path = "sim/doubts.rs"]
mod doubts;
#[path = "support/fake_signer.rs"]
mod fake_signer;
#[path = "sim/history.rs"]
mod history;
#[path = "sim/links.rs"]
mod links;
#[path = "sim/mutations.rs"]
mod mutations;
#[path = "sim/requests.rs"]
mod requests;
#[path = "sim/rest.rs"]
mod rest;
#[path = "sim/restored.rs"]
mod restored;
#[path = "sim/seeds.rs"]
mod seeds;
#[path = "sim/shrink.rs"]
mod shrink;
#[path = "sim/stories.rs"]
mod stories;
#[path = "sim/upkeep.rs"]
mod upkeep;
#[path = "sim/work.rs"]
mod work;
#[path = "sim/world.rs"]
mod world;

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use actions::{Kind, Weights};
use cortex_core::rule::Rule;
use mutations::Mutation;
use shrink::{Beginning, Script};
use world::{Broken, Tally, World};

/// Steps of one run.
const STEPS: u64 = 220;

/// A run that has found something.
struct Failure {
    what: String,
    script: Script,
}

impl Failure {
    /// What was found, what came before, and the shortest story of it that was found.
    fn told(self) -> String {
        let Self { what, script } = self;
        let Beginning::Drawn(seed, kind) = script.beginning else {
            unreachable!("every run begins with its seed")
        };
        let first = what.lines().next().unwrap_or_default();
        let name = format!("{kind:?}_seed_{seed}").to_lowercase();
        let count = script.steps.len();
        let story = shrink::shrink(script, &what, None);
        let source = story.source(&name, first);
        let shrunk = format!("a story of {} of its {count} steps:\n{source}", story.steps.len());
        format!("{kind:?} seed {seed}: {what}\n{shrunk}")
    }
}

/// One run. Answers what was found broken, and what came before.
fn run(seed: u64, kind: Kind, steps: u64, mutation: Option<Mutation>) -> Result<Tally, Failure> {
    let rules = mutation.map(Mutation::rules).unwrap_or_default();
    Rule::without(&rules, || run_as_broken(seed, kind, steps, mutation))
}

fn run_as_broken(
    seed: u64,
    kind: Kind,
    steps: u64,
    mutation: Option<Mutation>,
) -> Result<Tally, Failure> {
    let mut world = World::new(seed, mutation);
    let outcome = observed(&mut world, |world| {
        shrink::begin(world, seed, kind);
        let weights = Weights::draw(world, kind);
        for _ in 0..steps {
            actions::step(world, &weights);
        }
        shrink::end(world, seed);
    });
    match outcome {
        Ok(()) => Ok(world.tally),
        Err(what) => {
            let beginning = Beginning::Drawn(seed, kind);
            let script = Script { beginning, steps: world.happened };
            Err(Failure { what, script })
        }
    }
}

/// Answers what was found broken, and what came before.
fn observed(world: &mut World, happens: impl FnOnce(&mut World)) -> Result<(), String> {
    quiet();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| happens(world)));
    let Err(payload) = outcome else {
        return Ok(());
    };
    let what = payload
        .downcast_ref::<Broken>()
        .map(|Broken(what)| what.clone())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic".into());
    let last = world.log.len().saturating_sub(120);
    Err(format!("{what}\nthe last steps:\n{}", world.log[last..].join("\n")))
}

/// What a run finds is told by the run, not by the panic's hook.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Broken>() {
                usual(info);
            }
        }));
    });
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// As many runs as asked for, on two threads.
fn runs(kind: Kind, default: u64) {
    let (seeds, from) = (number("SIM_SEEDS", default), number("SIM_FROM", 0));
    let steps = number("SIM_STEPS", STEPS);
    let next = AtomicU64::new(from);
    let (found, sum) = (Mutex::new(Vec::new()), Mutex::new(Tally::default()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= from + seeds || found.lock().expect("a lock").len() >= 5 {
                        return;
                    }
                    match run(seed, kind, steps, None) {
                        Ok(tally) => sum.lock().expect("a lock").add(&tally),
                        Err(failure) => {
                            let told = failure.told();
                            found.lock().expect("a lock").push(told);
                        }
                    }
                }
            });
        }
    });
    let found = found.into_inner().expect("a lock");
    println!("{kind:?}: {seeds} seeds from {from}, {:?}", sum.into_inner().expect("a lock"));
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

/// holds R4, R7, K1, K2, K3, K4, K5
#[test]
fn copies_converge_although_disks_are_rolled_back_and_nodes_die_and_join() {
    runs(Kind::Disks, 30);
}

/// holds S4, R2, K8
#[test]
fn no_row_is_lost_or_reaches_the_excluded_while_scopes_change() {
    runs(Kind::Scopes, 30);
}

/// holds E3
#[test]
fn copies_converge_although_clocks_jump_and_disks_run_full() {
    runs(Kind::Clocks, 10);
}

/// holds R8
#[test]
fn copies_converge_in_a_line_whose_ends_never_meet() {
    runs(Kind::Chain, 10);
}

#[test]
fn copies_converge_whatever_happens_at_once() {
    runs(Kind::Everything, 20);
}

/// Every rule is one that the simulation misses. With `SIM_MUTANTS` those too that take it long.
#[test]
fn each_rule_that_is_broken_is_missed() {
    let all = number("SIM_MUTANTS", 0) > 0;
    let chosen: Vec<_> = mutations::TABLE.iter().filter(|(.., took)| all || *took <= 50).collect();
    let uncaught = Mutex::new(Vec::new());
    on_two_threads(&chosen, |(mutation, kind, took)| {
        let run = |seed: u64| Some(run(seed, *kind, STEPS, Some(*mutation)).err()?.what);
        // The seed that has found it before, then any.
        let mut seeds = std::iter::once(took - 1).chain(0..took * 10);
        match seeds.find_map(|seed| Some((seed, run(seed)?))) {
            Some((seed, what)) => {
                println!("{mutation:?}: seed {seed}, {}", what.lines().next().unwrap_or_default());
            }
            None => uncaught.lock().expect("a lock").push(*mutation),
        }
    });
    let uncaught = uncaught.into_inner().expect("a lock");
    assert!(uncaught.is_empty(), "nothing has come of breaking {uncaught:?}");
}

#[test]
fn each_story_ends_well_as_long_as_its_rules_hold() {
    let mut missed = Vec::new();
    for (n, story) in stories::ALL.iter().enumerate() {
        let told = |mutation: Option<Mutation>| {
            let mut world = World::new(1, mutation);
            let rules = mutation.map(Mutation::rules).unwrap_or_default();
            Rule::without(&rules, || observed(&mut world, story.tell))
        };
        if let Err(what) = told(None) {
            panic!("story {n}, of {:?}: {what}", story.rules);
        }
        for broken in story.rules {
            if let Mutation::Twice(one, other) = broken {
                for rule in [one, other] {
                    let alone = told(Some(Mutation::Rule(*rule)));
                    alone.unwrap_or_else(|what| panic!("{rule:?} alone: {what}"));
                }
            }
            match told(Some(*broken)) {
                Ok(()) => missed.push(*broken),
                Err(what) => println!("{broken:?}: {}", what.lines().next().unwrap_or_default()),
            }
        }
    }
    assert!(missed.is_empty(), "nothing has come of breaking {missed:?}");
}

#[test]
fn each_rule_is_broken_in_some_runs_or_in_a_story() {
    for rule in Rule::ALL {
        let mutation = Mutation::Rule(*rule);
        let by_chance = mutations::TABLE.iter().any(|(other, ..)| *other == mutation);
        let breaks = |mutation: &Mutation| mutation.rules().contains(rule);
        let in_a_story = stories::ALL.iter().any(|story| story.rules.iter().any(breaks));
        assert!(by_chance || in_a_story, "{rule:?}");
    }
}

/// A run with a broken rule shrinks to a story that fails as it does, and ends well where the rule holds.
#[test]
fn a_run_that_fails_is_shrunk_to_a_short_story() {
    let rules = [
        (Rule::EndIsTheEnd, Kind::Disks, 12),
        (Rule::FrozenTakesNoWrites, Kind::Scopes, 12),
        (Rule::TruncationHeeded, Kind::Disks, 12),
    ];
    on_two_threads(&rules, |(rule, kind, most)| {
        let mutation = Some(Mutation::Rule(*rule));
        let failure = (0..40).find_map(|seed| run(seed, *kind, STEPS, mutation).err());
        let Failure { what, script } = failure.unwrap_or_else(|| panic!("{rule:?} is not missed"));
        let count = script.steps.len();
        let story = shrink::shrink(script, &what, mutation);
        println!("{rule:?}: {} of {count} steps\n{}", story.steps.len(), story.source("x", &what));
        assert!(story.failure(mutation).is_some(), "{rule:?}: it is not missed any more");
        assert_eq!(story.failure(None), None, "{rule:?}: it is not the rule that is missed");
        assert!(story.steps.len() <= *most, "{rule:?}: {} steps", story.steps.len());
    });
}

/// For whoever adds a rule: in which kind of runs breaking it is missed first. `SIM_HUNT` names the rules,
/// with commas between them; it is all of them otherwise.
#[test]
#[ignore = "takes hours"]
fn hunt() {
    let seeds = number("SIM_SEEDS", 400);
    let named = std::env::var("SIM_HUNT").unwrap_or_default();
    let mut hunted = mutations::all();
    hunted.retain(|mutation| {
        let name = format!("{mutation:?}");
        named.is_empty() || named.split(',').any(|part| name.contains(part))
    });
    on_two_threads(&hunted, |mutation| {
        let kinds = [Kind::Disks, Kind::Scopes, Kind::Clocks, Kind::Chain, Kind::Everything];
        let found = (0..seeds).find_map(|seed| {
            kinds.iter().find_map(|kind| {
                let what = run(seed, *kind, STEPS, Some(*mutation)).err()?.what;
                let what = what.lines().next().unwrap_or_default().to_owned();
                Some(format!("({mutation:?}, Kind::{kind:?}, {}), // {what:.150}", seed + 1))
            })
        });
        println!("{}", found.unwrap_or_else(|| format!("{mutation:?}: not in {seeds} of each")));
    });
}

fn on_two_threads<T: Sync>(all: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Relaxed)) {
                    work(one);
                }
            });
        }
    });
}
