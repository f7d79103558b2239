//! Where two versions meet: the later one stays, and a conflict is written down where neither writer had
//! truly seen the other's write, and nowhere else (C-false, C-missed).
//!
//! The one accepted exception: that a write was seen is forgotten with a deletion that had replaced it, if no vector
//! covers the write. That takes a lost disk, and costs a line in the list of conflicts.

use std::sync::Arc;

use cortex_core::replication::{Batch, Dot};
use cortexd::store::SYSTEM_TABLE;

use crate::{
    history::{Known, Place},
    world::{World, broken},
};

/// What a row of a batch meets.
pub(crate) struct Expected {
    place: Place,
    arriving: Known,
    dot: Dot,
    met: Option<Met>,
}

struct Met {
    known: Known,
    stays: Dot,
    pair: (Dot, Dot),
    /// Neither had seen the other, and they differ.
    concurrent: bool,
    /// They are not, but that may be forgotten.
    forgotten: bool,
    /// The writer of the earlier one had seen the later one.
    backwards: bool,
}

pub(crate) fn expect(world: &World, n: usize, batch: &Batch, known: &[Known]) -> Vec<Expected> {
    if batch.table == SYSTEM_TABLE {
        return Vec::new();
    }
    let rows = batch.rows.iter().zip(known).map(|(row, arriving)| {
        let place = (batch.table, row.key.clone());
        let met = world.nodes[n].disk.version(&place).map(|present| {
            let dot = row.dot();
            let seen = arriving.contains(&present.dot) || present.known.contains(&dot);
            let backwards = match row.stamp < present.stamp {
                true => arriving.contains(&present.dot),
                false => row.stamp > present.stamp && present.known.contains(&dot),
            };
            let ours = world.nodes[n].db.replica(batch.table).map(|copy| &copy.vector);
            let is_covered = match arriving.contains(&present.dot) {
                true => batch.vector.covers(present.dot),
                false => ours.is_some_and(|vector| vector.covers(dot)),
            };
            let collected = world.history.by_place.get(&place).into_iter().flatten();
            let forgotten = !is_covered
                && !world.history.lost.is_empty()
                && collected.into_iter().any(|dot| world.history.collected.contains_key(dot));
            let differ = present.dot != dot && present.value != row.value;
            let stays = if row.stamp > present.stamp { dot } else { present.dot };
            Met {
                known: Arc::clone(&present.known),
                stays,
                pair: (present.dot.min(dot), present.dot.max(dot)),
                concurrent: differ && !seen,
                forgotten: differ && seen && forgotten,
                backwards,
            }
        });
        Expected { place, arriving: Arc::clone(arriving), dot: row.dot(), met }
    });
    rows.collect()
}

pub(crate) fn settle(
    world: &mut World,
    n: usize,
    _batch: &Batch,
    expected: &[Expected],
    conflicts: u32,
) {
    let (mut least, mut most) = (0, 0);
    for Expected { place, arriving, dot, met } in expected {
        let Some(copy) = world.nodes[n].disk.copies.get_mut(&place.0) else { continue };
        let Some(version) = copy.rows.get_mut(&place.1) else {
            if met.is_some() {
                broken(format!("n{n}: {place:?} was there and is not any more"));
            }
            continue;
        };
        let mut known = Arc::clone(arriving);
        if let Some(met) = met {
            if met.backwards {
                broken(format!("I2 n{n}: of {:?} the one whose writer knew both loses", met.pair));
            }
            if version.dot != met.stays {
                broken(format!("I1 n{n}: of {:?} {:?} has won", met.pair, version.dot));
            }
            known = Arc::new(known.union(&met.known).copied().collect());
            most += u32::from(met.forgotten);
            if met.concurrent {
                most += 1;
                least += u32::from(world.history.ledger.insert(met.pair));
            }
        } else if version.dot != *dot {
            continue;
        }
        version.known = Arc::clone(&known);
        world.nodes[n].disk.know(place, &known);
    }
    if conflicts > most {
        broken(format!("C-false n{n}: {conflicts} conflicts, there are at most {most}"));
    }
    if conflicts < least {
        broken(format!("C-missed n{n}: {conflicts} conflicts, there are at least {least}"));
    }
    world.tally.conflicts += u64::from(conflicts);
}
