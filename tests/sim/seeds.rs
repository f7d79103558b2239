//! Kept for good: what runs have found broken in the store, each as the shortest story that shows it.
//! A seed alone would tell another story after every change of what is drawn.

use std::collections::BTreeSet;

use cortex_core::model::{Owner, Scope, TableUid};
use cortexd::store::{Command, SYSTEM_TABLE};

use crate::{
    actions::{OWNER, create, entry, named, remove, set_scope, sync_everybody, write},
    rest::settle,
    world::World,
};

/// Some nodes that know each other, in a world without faults.
fn nodes(count: usize) -> World {
    let mut world = World::new(1, None);
    world.calm = true;
    for _ in 0..count {
        world.add_node(false);
    }
    sync_everybody(&mut world, &[SYSTEM_TABLE]);
    world
}

/// A table of node 0 that all have.
fn shared(world: &mut World) -> TableUid {
    create(world, 0, Owner::Uid(OWNER), "u", Scope::All);
    write(world, 0, 0);
    settle(world);
    world.tables[0]
}

fn life(world: &World, n: usize, table: TableUid) -> u64 {
    world.nodes[n].db.replica(table).map_or(0, |replica| replica.life)
}

/// holds S4, R2: its reader was told that there is nothing, and had nothing to acknowledge.
#[test]
fn a_copy_that_leaves_ends_although_the_others_have_everything_already() {
    let mut world = nodes(2);
    let table = shared(&mut world);
    let (entry, scope) = (entry(&world, 0, table), named(&world, &[0].into()));
    set_scope(&mut world, 0, entry.expect("a table"), scope, BTreeSet::new());
    settle(&mut world);
    assert_eq!((life(&world, 0, table), life(&world, 1, table)), (1, 0));
}

/// holds R3: rows that told of a removal were refused for not knowing of it.
#[test]
fn a_removal_is_learnt_of_by_the_others() {
    let mut world = nodes(3);
    world.die(2);
    remove(&mut world, 0, 2);
    settle(&mut world);
    let directory = world.nodes[1].db.catalog().directory();
    assert!(directory.is_put_out(&world.nodes[2].name));
}

/// holds K5, E3: the savepoint's absence was reported in the place of the full disk.
#[test]
fn a_full_disk_is_told_as_one_whatever_the_command() {
    let mut world = nodes(1);
    world.set_full(0, true);
    for n in 0..200 {
        create(&mut world, 0, Owner::Uid(OWNER), &format!("u{n}"), Scope::All);
    }
    assert!(world.tally.disk_full > 0, "it has never run full");
    world.set_full(0, false);
    shared(&mut world);
}

/// holds R7: the stay was up for ever, and every deletion waited for its word.
#[test]
fn a_stay_that_a_rollback_has_wiped_out_is_over() {
    let mut world = nodes(2);
    world.save(1);
    let table = shared(&mut world);
    assert_eq!(life(&world, 1, table), 1);
    let (entry, scope) = (entry(&world, 0, table), named(&world, &[0].into()));
    set_scope(&mut world, 0, entry.expect("a table"), scope, BTreeSet::new());
    let saved = world.saved(1);
    world.restart(1, saved);
    settle(&mut world);
    let directory = world.nodes[0].db.catalog().directory();
    assert!(!directory.must_confirm(table).contains_key(&world.nodes[1].name));
    world.must(1, &Command::Purge);
}
