//! Stories of a node whose disk is put back, and of what it has forgotten by that.

use crate::{
    rest::{heal, settle},
    stories::{decide, nodes, put, roll_back, shared},
    world::{World, broken},
};

/// A replica has left, and an older disk brings it back; it is written to before it hears that it had left.
pub(crate) fn a_disk_brings_back_what_has_left(world: &mut World) {
    nodes(world, 2);
    let table = shared(world);
    put(world, 1, 1);
    world.save(1);
    decide(world, 0, &[0], &[]);
    settle(world);
    roll_back(world, 1);
    put(world, 1, 2);
    let written = world.history.expected.keys().filter(|(of, _)| *of == table).count();
    settle(world);
    let disk = |n: usize| &world.nodes[n].disk;
    let is_held = disk(0).copies[&table].rows.len() == written;
    let replica = world.nodes[1].db.replica(table);
    if !is_held || world.tally.rescued > 0 || replica.is_some_and(|replica| replica.epoch > 0) {
        broken("what is brought back does not go to the others and leave once more".into());
    }
    heal(world);
}
