//! I13: what was acknowledged is on some disk, until that disk is lost or an operator has given it up.

use std::collections::BTreeMap;

use cortex_core::{
    directory::Standing,
    model::{Stamp, TableUid},
    replication::{Ack, Dot},
};

use crate::{
    history::Place,
    world::{World, broken},
};

pub(crate) fn nothing_is_lost(world: &World) {
    for (place, expected) in &world.history.expected {
        let holding = world.nodes.iter().filter(|node| node.alive && !node.removed);
        let held = holding.filter_map(|node| node.disk.shadow.get(place)).max();
        if held < Some(expected) {
            broken(format!("I13 {place:?} is lost: {expected:?}, there is {held:?}"));
        }
    }
}

/// A replica before it hears that another one has everything.
pub(crate) struct Leaving {
    leaver: usize,
    heir: usize,
    table: TableUid,
    counts: bool,
    held: BTreeMap<Place, (Stamp, Dot)>,
}

impl Leaving {
    pub(crate) fn of(world: &World, leaver: usize, heir: usize, ack: &Ack) -> Self {
        let table = ack.table;
        let directory = world.nodes[leaver].db.catalog().directory();
        let name = &world.nodes[heir].name;
        let over = directory.gone(table).get(name).copied().unwrap_or(0);
        let counts = directory.standing(table, name) == Standing::In && ack.status.epoch > over;
        let shadow = world.nodes[leaver].disk.shadow.iter();
        let held = shadow.filter(|((of, _), _)| *of == table);
        let held = held.map(|(place, version)| (place.clone(), *version)).collect();
        Self { leaver, heir, table, counts, held }
    }

    /// It has left: a replica in scope, as far as it knows, has all that it had. Or had it, on a disk that was
    /// lost since.
    pub(crate) fn is_handed_over(&self, world: &World) {
        let Self { leaver, heir, table, counts, held } = self;
        let directory = world.nodes[*leaver].db.catalog().directory();
        let standing = directory.standing(*table, &world.nodes[*leaver].name);
        if !counts || standing != Standing::Out {
            broken(format!("I13 n{leaver}, {standing:?}, leaves by what n{heir} says"));
        }
        let node = &world.nodes[*heir];
        let lost = world.history.lost.iter().any(|(of, name, _)| of == table && *name == node.name);
        for (place, version) in held {
            let has = node.disk.shadow.get(place).is_some_and(|newest| newest >= version);
            if !has && !lost && !world.history.orphans.contains(place) {
                broken(format!(
                    "I13 n{leaver} leaves, n{heir} has not got {version:?} of {place:?}"
                ));
            }
        }
    }
}

/// A disk is lost: what counts is what all that are left hold.
pub(crate) fn excuse(world: &mut World) {
    world.history.expected = held(world);
}

/// The same of one table.
pub(crate) fn excuse_table(world: &mut World, table: TableUid) {
    let held = held(world);
    let expected = &mut world.history.expected;
    expected.retain(|(of, _), _| *of != table);
    expected.extend(held.into_iter().filter(|((of, _), _)| *of == table));
}

fn held(world: &World) -> BTreeMap<Place, (Stamp, Dot)> {
    let mut all = BTreeMap::new();
    for node in world.nodes.iter().filter(|node| node.alive && !node.removed) {
        for (place, version) in &node.disk.shadow {
            let newest = all.entry(place.clone()).or_insert(*version);
            *newest = (*version).max(*newest);
        }
    }
    all
}
