//! How the simulated world comes to rest: faults stop, and everything that must come right does.
//! What must then hold is `checks::i22`'s.

use std::collections::BTreeSet;

use cortex_core::model::{NodeName, TableUid};
use cortexd::store::{Command, Outcome, SYSTEM_TABLE, UpkeepCommand, UpkeepOutcome};

use crate::{
    actions::sync_everybody,
    checks,
    requests::{decline, entry, named, remove, set_scope},
    world::{LEAST_AGE_MS, World, broken},
};

/// Faults stop; what must come right without anybody comes right, and then what needs an operator.
pub(crate) fn heal(world: &mut World) {
    world.log.push("heal".into());
    world.all_links_down();
    world.cut.clear();
    (0..world.nodes.len()).for_each(|n| world.believe(n));
    world.calm = world.chance.percent(30);
    for n in 0..world.nodes.len() {
        world.set_full(n, false);
    }
    if world.nodes.iter().any(|node| node.jump_ms != 0) {
        world.log.push("the directory, while clocks are wrong".into());
        for _round in 0..world.nodes.len() {
            sync_everybody(world, &[SYSTEM_TABLE]);
        }
        let members = members(world);
        checks::i22::directories_are_equal(world, &members);
    }
    for n in 0..world.nodes.len() {
        world.nodes[n].jump_ms = 0;
    }
    world.now_ms += LEAST_AGE_MS;
    let members = members(world);
    checks::i13::excuse(world);
    if members.is_empty() {
        return; // they have put each other out
    }
    settle(world);
    checks::i22::directories_are_equal(world, &members);
    for table in world.tables.clone() {
        decide_finally(world, &members, table);
    }
    settle(world);
    for n in &members {
        checks::i05::an_audit_corrects_nothing(world, *n);
    }
    for table in world.tables.clone() {
        if !members.iter().any(|n| entry(world, *n, table).is_some()) {
            continue; // nobody has any of it, so that nobody can say where it may be
        }
        checks::i22::copies_are_equal(world, &members, table);
    }
}

/// Who is left.
fn members(world: &mut World) -> Vec<usize> {
    // Whoever was put out by a node that has told nobody before it died was not put out. Nor was whom only a node has
    // put out that the others had put out before it could tell them: nobody listens to it any more.
    let living = world.living();
    let says = |by: usize, whom: usize| {
        let directory = world.nodes[by].db.catalog().directory();
        by != whom && directory.is_put_out(&world.nodes[whom].name)
    };
    let is_heard = |by: usize, of: usize| !living.iter().any(|n| *n != of && says(*n, by));
    let is_removed = |n: usize| living.iter().any(|by| says(*by, n) && is_heard(*by, n));
    let removed: Vec<bool> = living.iter().map(|n| is_removed(*n)).collect();
    for (n, removed) in living.iter().zip(removed) {
        world.nodes[*n].removed = removed;
    }
    living.into_iter().filter(|n| !world.nodes[*n].removed).collect()
}

/// An operator says what holds, where decisions compete or where only those are left that may not have it.
fn decide_finally(world: &mut World, members: &[usize], table: TableUid) {
    let n = members[0];
    let directory = world.nodes[n].db.catalog().directory();
    if directory.is_dropped(table) {
        return;
    }
    let contested = directory.whereabouts(table).is_none_or(|where_| where_.contested);
    let inside = directory.in_scope(table);
    if !contested && members.iter().any(|n| inside.contains(&world.nodes[*n].name)) {
        return;
    }
    for n in members {
        decline(world, *n, table, false); // nobody is left to hold it otherwise
    }
    let Some(by) = members.iter().copied().find(|n| entry(world, *n, table).is_some()) else {
        return;
    };
    let entry = entry(world, by, table).expect("it has one");
    let mut some = world.chance.some(members);
    if world.chain {
        some.extend(members);
    }
    let dead: Vec<usize> = (0..world.nodes.len()).filter(|n| !world.nodes[*n].alive).collect();
    let off: BTreeSet<NodeName> = dead.iter().map(|n| world.nodes[*n].name.clone()).collect();
    let scope = named(world, &some);
    world.log.push(format!("finally n{by} {scope:?}"));
    if set_scope(world, by, &entry, scope.clone(), off.clone()) {
        return;
    }
    // Where those who may decide are dead machines, nobody else may while these are members.
    for n in dead {
        remove(world, by, n);
    }
    if !set_scope(world, by, &entry, scope, off) {
        broken(format!("I22 n{by} has {table}, and nobody can decide about it"));
    }
}

/// For so long nothing may be stored before the world is at rest, in rounds of a second: longer than the pause after
/// any number of failures, and than what is held off for clocks.
const QUIET: u32 = 12;

/// All links are up and everything arrives, until nothing more comes of it.
pub(crate) fn settle(world: &mut World) {
    let mut quiet = 0;
    for _second in 0..400 {
        let before = (world.tally.taken, world.tally.drained);
        // Replicas have left once their rows are gone.
        for n in world.living() {
            while world
                .run(n, &Command::Upkeep(UpkeepCommand::Purge))
                .is_ok_and(|done| done == Outcome::Upkeep(UpkeepOutcome::Purged { more: true }))
            {
            }
        }
        let living = world.living();
        for (a, b) in living.iter().flat_map(|a| living.iter().map(move |b| (*a, *b))) {
            if a < b {
                let _cut_or_refused = world.link_up(a, b);
            }
        }
        world.link_ms += 1_000;
        world.tick();
        world.drain_network();
        let is_held_back = living.iter().any(|n| !world.quarantines(*n).is_empty());
        let is_quiet = (world.tally.taken, world.tally.drained) == before && !is_held_back;
        quiet = if is_quiet { quiet + 1 } else { 0 };
        if quiet == QUIET {
            return;
        }
    }
    let held_back = |n: usize| {
        let others = world.quarantines(n).into_iter();
        others.map(move |other| format!("n{n} quarantines rows of n{other}"))
    };
    let held_back: Vec<String> = world.living().into_iter().flat_map(held_back).collect();
    broken(format!("I22 it never comes to rest: {held_back:?}"));
}
