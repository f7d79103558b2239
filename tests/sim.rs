//! Replication in a simulated world: real databases, a made-up network and made-up clocks, all from one
//! printed number. `SIM_SEEDS`, `SIM_FROM` and `SIM_STEPS` say how many runs, from which, how long.

#[path = "sim/actions.rs"]
mod actions;
#[path = "sim/chance.rs"]
mod chance;
#[path = "sim/checks/mod.rs"]
mod checks;
#[path = "sim/history.rs"]
mod history;
#[path = "sim/mutations.rs"]
mod mutations;
#[path = "sim/notary.rs"]
mod notary;
#[path = "sim/rest.rs"]
mod rest;
#[path = "sim/seeds.rs"]
mod seeds;
#[path = "sim/world.rs"]
mod world;

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use actions::{Kind, Weights};
use mutations::Outside;
use world::{Broken, Tally, World};

/// Steps of one run.
const STEPS: u64 = 220;

/// One run. Answers what was found broken, and what came before.
fn run(seed: u64, kind: Kind, steps: u64, mutation: Option<Outside>) -> Result<Tally, String> {
    quiet();
    let mut world = World::new(seed, mutation);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        actions::set_up(&mut world, kind);
        let weights = Weights::draw(&mut world, kind);
        for _ in 0..steps {
            actions::step(&mut world, &weights);
        }
        rest::heal(&mut world);
    }));
    let Err(payload) = outcome else {
        return Ok(world.tally);
    };
    let what = payload
        .downcast_ref::<Broken>()
        .map(|Broken(what)| what.clone())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic".into());
    let last = world.log.len().saturating_sub(120);
    Err(format!("{kind:?} seed {seed}: {what}\nthe last steps:\n{}", world.log[last..].join("\n")))
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
                        Err(what) => found.lock().expect("a lock").push(what),
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
fn each_rule_that_is_broken_from_outside_is_missed() {
    let all = number("SIM_MUTANTS", 0) > 0;
    let bound = number("SIM_SEEDS", 0);
    let anew = bound > 0;
    let chosen: Vec<_> = mutations::TABLE.iter().filter(|(.., took)| all || *took <= 50).collect();
    let next = AtomicU64::new(0);
    let uncaught = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((mutation, kind, took)) =
                    chosen.get(usize::try_from(next.fetch_add(1, Relaxed)).expect("a small number"))
                {
                    let run = |seed: u64| run(seed, *kind, STEPS, Some(*mutation)).err();
                    // The seed that has found it before, then any.
                    let seeds = std::iter::once(took - 1)
                        .filter(|_| !anew)
                        .chain(0..if anew { bound } else { took * 10 });
                    let found = seeds.into_iter().find_map(|seed| Some((seed, run(seed)?)));
                    match found {
                        Some((seed, what)) => {
                            let what = what.lines().next().unwrap_or_default().to_owned();
                            println!("{mutation:?}: seed {seed}, {what}");
                        }
                        None => uncaught.lock().expect("a lock").push(*mutation),
                    }
                }
            });
        }
    });
    let uncaught = uncaught.into_inner().expect("a lock");
    assert!(uncaught.is_empty(), "nothing has come of breaking {uncaught:?}");
}

/// No rule is in both lists, and each is in one. What is not caught is no failure, but is to be known.
#[test]
fn rules_whose_absence_is_not_missed_are_named() {
    for (mutation, kind, why) in mutations::NOT_CAUGHT {
        assert!(!mutations::TABLE.iter().any(|(other, ..)| other == mutation), "{mutation:?}");
        assert!(!why.is_empty());
        for seed in 0..number("SIM_MUTANTS", 0) {
            if let Err(what) = run(seed, *kind, STEPS, Some(*mutation)) {
                println!("{mutation:?} is caught by now, seed {seed}: {what}");
            }
        }
    }
}
