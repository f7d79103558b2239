//! Who has rows from somebody who knew that a node was removed, or that a replica was abandoned, takes nothing
//! more from there.

use cortex_core::{
    model::{NodeName, TableUid},
    replication::{Batch, PullRequest},
};

use cortexd::store::SYSTEM_TABLE;

use crate::{
    history::Decision,
    world::{Truth, World, broken},
};

pub(crate) fn is_not_read(
    world: &mut World,
    reader: usize,
    source: usize,
    batch: &Batch,
    truth: &Truth,
) {
    let name = world.nodes[source].name.clone();
    let removals = &mut world.nodes[reader].disk.removals;
    // Before its last batch a directory has not said yet what it knows.
    if batch.table != SYSTEM_TABLE || batch.is_last() {
        removals.extend(&truth.removals);
    }
    if removals.contains(&source) {
        broken(format!("ended n{reader} reads of n{source}, which was removed"));
    }
    let over = over_by(world, reader, &name, batch.table);
    if batch.epoch > 0 && over >= batch.epoch {
        broken(format!("ended n{reader} reads of n{source}, whose copy was abandoned"));
    }
}

/// Nor does who knows that a replica was abandoned give it anything.
pub(crate) fn is_not_fed(world: &World, reader: usize, source: usize, want: &PullRequest) {
    let over = over_by(world, source, &world.nodes[reader].name, want.table);
    if want.epoch > 0 && over >= want.epoch {
        broken(format!("ended n{source} serves n{reader}, whose copy was abandoned"));
    }
}

/// The last replica epoch of a node that is over by the decisions that another one knows.
fn over_by(world: &World, by: usize, name: &NodeName, table: TableUid) -> u64 {
    let decided = world.nodes[by].disk.decided(table);
    let over = |decision: &Decision| decision.off.get(name).copied().unwrap_or(0);
    world.history.newest(&decided).map(over).max().unwrap_or(0)
}
