//! Clocks that are wrong for a while: the stories of what drivers and upkeep do about them.

use std::collections::BTreeSet;

use cortex_core::{model::Hlc, replication::driver::MAX_SKEW_MS};
use cortexd::store::SYSTEM_TABLE;

use crate::{
    actions::sync_everybody,
    requests::{entry, named, set_scope},
    rest::{heal, settle},
    restored::{may_read, permit},
    stories::{nodes, put, shared},
    world::{World, broken},
};

const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;

fn decide(world: &mut World, n: usize, inside: &[usize]) {
    let entry = entry(world, n, world.tables[0]).expect("a table");
    let scope = named(world, &inside.iter().copied().collect());
    set_scope(world, n, &entry, scope, BTreeSet::new());
    world.now_ms += 10;
}

/// Decisions pass whatever clocks show, in both directions, and move no clock.
pub(crate) fn a_decision_passes_between_clocks_that_differ(world: &mut World) {
    let to_1970 = -world.now_ms.cast_signed();
    for jump_ms in [YEAR_MS, -YEAR_MS, to_1970 / 2] {
        let mut world = World::new(1, world.mutation);
        nodes(&mut world, 3);
        let table = shared(&mut world);
        world.nodes[0].jump_ms = jump_ms;
        decide(&mut world, 0, &[0, 1]);
        sync_everybody(&mut world, &[SYSTEM_TABLE]);
        for n in [1, 2] {
            let inside = world.nodes[n].db.catalog().directory().in_scope(table);
            if inside.contains(&world.nodes[2].name) {
                broken(format!(
                    "n{n} has not heard of a narrower scope, by a clock {jump_ms} ms off"
                ));
            }
            if world.nodes[n].db.hlc() > Hlc::from_unix_ms(world.wall_ms(n) + MAX_SKEW_MS) {
                broken(format!("n{n} was moved to {:?} by a decision", world.nodes[n].db.hlc()));
            }
        }
    }
}

/// Who was ahead, and has revoked meanwhile, is right again and grants once more.
pub(crate) fn a_decision_of_the_present_follows_one_of_the_future(world: &mut World) {
    nodes(world, 3);
    let table = shared(world);
    settle(world);
    world.nodes[0].jump_ms = YEAR_MS;
    permit(world, 0, table, false);
    sync_everybody(world, &[SYSTEM_TABLE]);
    world.nodes[0].jump_ms = 0;
    world.look_at_clock(0);
    let latest = Hlc::from_unix_ms(world.wall_ms(0) + MAX_SKEW_MS);
    assert!(world.nodes[0].db.hlc() <= latest, "its clock has gone back");
    permit(world, 0, table, true);
    sync_everybody(world, &[SYSTEM_TABLE]);
    if !may_read(world, 1, table) {
        broken("n1 has not heard of the later decision".into());
    }
}

/// Two of three are ahead together, and meet each other's rows.
pub(crate) fn two_are_ahead_together(world: &mut World) {
    nodes(world, 3);
    shared(world);
    for n in [0, 1] {
        world.nodes[n].jump_ms = YEAR_MS;
    }
    put(world, 0, 1);
    put(world, 1, 2);
    settle(world);
    for n in [0, 1] {
        world.nodes[n].jump_ms = 0;
    }
    // What it has given out it has forgotten: it must ask.
    world.restart(0, None);
    world.look_at_clock(0);
    put(world, 0, 1);
    put(world, 2, 0);
    heal(world);
}
