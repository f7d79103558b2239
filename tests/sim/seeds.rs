//! Kept for good: what runs have found broken in the store, each as the shortest story that shows it.
//! A seed alone would tell another story after every change of what is drawn.

use std::collections::BTreeSet;

use cortex_core::model::{Owner, Scope, TableUid};
use cortexd::store::{Command, ReplicationCommand};

use crate::{
    requests::{OWNER, create, entry, named, remove, set_scope},
    rest::settle,
    stories::{nodes, put, shared},
    world::World,
};

fn epoch(world: &World, n: usize, table: TableUid) -> u64 {
    world.nodes[n].db.replica(table).map_or(0, |replica| replica.epoch)
}

/// holds S4, R2: its reader was told that there is nothing, and had nothing to acknowledge.
#[test]
fn a_copy_that_leaves_ends_although_the_others_have_everything_already() {
    let mut world = World::new(1, None);
    nodes(&mut world, 2);
    let table = shared(&mut world);
    let (entry, scope) = (entry(&world, 0, table), named(&world, &[0].into()));
    set_scope(&mut world, 0, &entry.expect("a table"), scope, BTreeSet::new());
    settle(&mut world);
    assert_eq!((epoch(&world, 0, table), epoch(&world, 1, table)), (1, 0));
}

/// holds R3: rows that told of a removal were refused for not knowing of it.
#[test]
fn a_removal_is_learnt_of_by_the_others() {
    let mut world = World::new(1, None);
    nodes(&mut world, 3);
    world.die(2);
    remove(&mut world, 0, 2);
    settle(&mut world);
    let directory = world.nodes[1].db.catalog().directory();
    assert!(directory.is_put_out(&world.nodes[2].name));
}

/// holds K5, E3: the savepoint's absence was reported in the place of the full disk.
#[test]
fn a_full_disk_is_told_as_one_whatever_the_command() {
    let mut world = World::new(1, None);
    nodes(&mut world, 1);
    world.set_full(0, true);
    for n in 0..200 {
        create(&mut world, 0, Owner::Uid(OWNER), &format!("u{n}"), Scope::All);
    }
    assert!(world.tally.disk_full > 0, "it has never run full");
    world.set_full(0, false);
    shared(&mut world);
}

/// holds E3: what was written before the machine was started anew kept its timestamp, and nobody took it.
#[test]
fn a_mended_clock_counts_for_what_an_earlier_origin_has_written_too() {
    let mut world = World::new(1, None);
    nodes(&mut world, 2);
    let table = shared(&mut world);
    world.nodes[1].jump_ms = 365 * 24 * 60 * 60 * 1000;
    put(&mut world, 1, 1);
    world.must(1, &Command::Replication(ReplicationCommand::RotateActor));
    world.nodes[1].jump_ms = 0;
    let rows = |world: &World| world.nodes[0].disk.copies[&table].rows.len();
    world.look_at_clock(1);
    settle(&mut world);
    assert_eq!((rows(&world), world.tally.restamped), (2, 1));
}
