//! How the simulated world comes to rest: faults stop, and everything that must come right does.
//! What must then hold is `checks::i22`'s.

use cortex_core::model::{Hlc, TableUid};
use cortexd::store::SYSTEM_TABLE;

use crate::{
    actions::sync_everybody,
    checks,
    requests::{decline, entry, named, set_scope},
    world::{LEAST_AGE_MS, SKEW_MS, World, broken},
};

/// Faults stop; what must come right without anybody comes right, and then what needs an operator.
pub(crate) fn heal(world: &mut World) {
    world.log.push("heal".into());
    world.network.clear();
    world.cut.clear();
    world.calm = world.chance.percent(30);
    for n in 0..world.nodes.len() {
        world.nodes[n].jump_ms = 0;
        world.set_full(n, false);
    }
    // Timestamps of clocks that were ahead are believed once it is that late.
    for n in world.living() {
        let hlc: i64 = world.nodes[n]
            .db
            .connection()
            .query_row("SELECT hlc FROM node_state", [], |row| row.get(0))
            .expect("a timestamp");
        let ms = Hlc::from_i64(hlc).unix_ms();
        world.now_ms = world.now_ms.max(ms + SKEW_MS);
    }
    world.now_ms += LEAST_AGE_MS;
    // Whoever was put out by a node that has told nobody before it died was not put out.
    let living = world.living();
    for n in &living {
        let name = world.nodes[*n].name.clone();
        let mut others = living.iter().filter(|other| *other != n);
        world.nodes[*n].removed =
            others.any(|other| world.nodes[*other].db.catalog().directory().is_put_out(&name));
    }
    checks::i13::excuse(world);
    let members: Vec<usize> =
        world.living().into_iter().filter(|n| !world.nodes[*n].removed).collect();
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
    let dead = world.nodes.iter().filter(|node| !node.alive).map(|node| node.name.clone());
    let (scope, dead) = (named(world, &some), dead.collect());
    world.log.push(format!("finally n{by} {scope:?}"));
    set_scope(world, by, entry, scope, dead);
}

pub(crate) fn settle(world: &mut World) {
    for _round in 0..60 {
        let before = (world.tally.taken, world.tally.drained);
        let mut tables = vec![SYSTEM_TABLE];
        tables.extend(&world.tables);
        sync_everybody(world, &tables);
        if (world.tally.taken, world.tally.drained) == before {
            return;
        }
    }
    broken("I22 it never comes to rest".into());
}
