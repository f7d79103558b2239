//! I7 and I8: what a vector covers was incorporated, and nothing older than what was incorporated lives.

use cortex_core::model::TableUid;

use crate::world::{World, broken};

pub(crate) fn nothing_is_claimed_that_is_not_there(world: &World, n: usize) {
    let node = &world.nodes[n];
    for table in &world.tables {
        let Some(replica) = node.db.replica(*table).filter(|replica| replica.epoch > 0) else {
            continue;
        };
        let of_table = world.history.by_place.iter().filter(|((of, _), _)| of == table);
        for (place, dots) in of_table {
            if world.history.orphans.contains(place) {
                continue;
            }
            let shadow = node.disk.shadow.get(place);
            for dot in dots.iter().filter(|dot| replica.vector.covers(**dot)) {
                let stamp = world.history.writes[dot].stamp;
                if shadow.is_none_or(|(newest, _)| *newest < stamp) {
                    broken(format!("I7 n{n} claims {dot:?} of {place:?}, has had {shadow:?}"));
                }
            }
            if let Some(row) = node.disk.version(place)
                && row.value.is_some()
                && shadow.is_some_and(|(newest, _)| row.stamp < *newest)
            {
                broken(format!("I8 n{n}: {place:?} came back: {row:?}, has had {shadow:?}"));
            }
        }
    }
}

/// After a full snapshot transfer every write that the source covers counts as incorporated, those too that it has
/// collected.
pub(crate) fn after_full_snapshot(world: &mut World, n: usize, source: usize, table: TableUid) {
    let Some(replica) = world.nodes[n].db.replica(table).cloned() else { return };
    let theirs = world.nodes[source].db.replica(table).map(|replica| replica.vector.clone());
    let theirs = theirs.unwrap_or_default();
    let of_table = world.history.by_place.iter().filter(|((of, _), _)| *of == table);
    let given_up = !world.history.lost.is_empty() || world.nodes.iter().any(|node| node.asked_out);
    for (place, dots) in of_table {
        for dot in dots.iter().filter(|dot| replica.vector.covers(**dot)) {
            let stamp = world.history.writes[dot].stamp;
            let disk = &mut world.nodes[n].disk;
            match disk.version(place) {
                None => disk.raise(place, (stamp, *dot)),
                // The one accepted exception: a write that its source has never seen, older than a
                // deletion that was collected there, is kept rather than lost. It takes a rollback, or
                // the removal of a node, so that nobody here remembers both.
                Some(_) if world.history.orphans.contains(place) => {}
                Some(row) if row.stamp < stamp && !theirs.covers(row.dot) => {
                    let forgotten = world.history.collected.get(dot);
                    let written = world.history.writes[&row.dot].at_ms;
                    if !given_up || forgotten.is_some_and(|forgotten| *forgotten < written) {
                        broken(format!(
                            "I8 n{n}: {:?} of {place:?} stays, and {dot:?} was forgotten",
                            row.dot
                        ));
                    }
                    world.history.orphans.insert(place.clone());
                }
                Some(_) => {}
            }
        }
    }
    world.tally.orphans = world.history.orphans.len() as u64;
}
