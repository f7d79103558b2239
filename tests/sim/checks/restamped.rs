//! A version that was given another timestamp is gone with its old one: no other disk has it. Nor has any those
//! of the future that it had replaced.

use cortex_core::{
    model::{Hlc, Stamp},
    replication::Dot,
};

use crate::{history::Place, world::World};

/// Takes the truth to be that the versions of the future that a node knew were never written. Whoever has one
/// all the same meets some day a version that knows it and is earlier: that is for `ledger` to find.
pub(crate) fn are_forgotten(world: &mut World, n: usize, latest: Hlc) {
    let copies = world.nodes[n].disk.copies.iter().filter(|(of, _)| world.tables.contains(of));
    let rows = copies.flat_map(|(table, copy)| {
        copy.rows.iter().map(|(key, row)| ((*table, key.clone()), (row.stamp, row.dot)))
    });
    let rows: Vec<(Place, (Stamp, Dot))> = rows.collect();
    for (place, now) in rows {
        let known = world.nodes[n].disk.known.get(&place).cloned().unwrap_or_default();
        let is_gone = |(stamp, dot): &(Stamp, Dot)| stamp.hlc > latest && known.contains(dot);
        let replace = |newest: &mut (Stamp, Dot)| {
            if is_gone(newest) {
                *newest = now;
            }
        };
        world.nodes[n].disk.shadow.get_mut(&place).map(replace);
        world.history.expected.get_mut(&place).map(replace);
        let writes = &world.history.writes;
        if let Some(dots) = world.history.by_place.get_mut(&place) {
            dots.retain(|dot| !is_gone(&(writes[dot].stamp, *dot)));
        }
        world.history.stamps.retain(|stamp, dot| !is_gone(&(*stamp, *dot)));
    }
}
