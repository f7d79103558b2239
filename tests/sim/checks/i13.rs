//! I13: what was acknowledged is on some disk, until that disk is lost or an operator has given it up.

use std::collections::BTreeMap;

use cortex_core::model::TableUid;

use crate::world::{World, broken};

pub(crate) fn nothing_is_lost(world: &World) {
    for (place, expected) in &world.history.expected {
        let holding = world.nodes.iter().filter(|node| node.alive && !node.removed);
        let held = holding.filter_map(|node| node.disk.shadow.get(place)).max();
        if held < Some(expected) {
            broken(format!("I13 {place:?} is lost: {expected:?}, there is {held:?}"));
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

fn held(
    world: &World,
) -> BTreeMap<crate::history::Place, (cortex_core::model::Stamp, cortex_core::sync::Dot)> {
    let mut all = BTreeMap::new();
    for node in world.nodes.iter().filter(|node| node.alive && !node.removed) {
        for (place, version) in &node.disk.shadow {
            let newest = all.entry(place.clone()).or_insert(*version);
            *newest = (*version).max(*newest);
        }
    }
    all
}
