//! R7: a deletion is forgotten only once every replica has it of which the node that forgets it can know.

use std::collections::BTreeMap;

use cortex_core::{
    model::TableUid,
    replication::{Dot, ReplicaStatuses, driver::Node as _},
};

use crate::world::{World, broken};

/// The deletions that a replica keeps.
pub(crate) fn deletions(world: &World, n: usize, table: TableUid) -> BTreeMap<Vec<u8>, Dot> {
    let copy = world.nodes[n].disk.copies.get(&table);
    let rows = copy.into_iter().flat_map(|copy| &copy.rows);
    rows.filter(|(_, row)| row.value.is_none()).map(|(key, row)| (key.clone(), row.dot)).collect()
}

/// Answers how many are gone.
pub(crate) fn by_all_who_are_known(
    world: &mut World,
    n: usize,
    table: TableUid,
    before: &BTreeMap<Vec<u8>, Dot>,
) -> u64 {
    let node = &world.nodes[n];
    let directory = node.db.catalog().directory();
    let after = deletions(world, n, table);
    let gone = directory.gone(table);
    let mut known = directory.epochs(table);
    for (_, status) in ReplicaStatuses::of(world.here(n).statuses(table), directory).iter() {
        for (name, epoch) in &status.epochs {
            let newest = known.entry(name.clone()).or_default();
            *newest = (*epoch).max(*newest);
        }
    }
    let collected: Vec<_> = before.iter().filter(|(key, _)| !after.contains_key(*key)).collect();
    let now_ms = world.now_ms;
    for (p, other) in world.nodes.iter().enumerate().filter(|(p, _)| *p != n) {
        let Some(copy) = other.db.replica(table).filter(|copy| copy.epoch > 0) else { continue };
        let of = |epochs: &BTreeMap<_, u64>| epochs.get(&other.name).copied().unwrap_or(0);
        let is_known = of(&known) >= copy.epoch && of(&gone) < copy.epoch;
        // That a disk has lost what it had confirmed cannot be known before it has spoken again.
        let lost = world.history.lost.contains(&(table, other.name.clone(), copy.epoch));
        let has_spoken = node.heard.get(&p) == Some(&other.db.actor());
        for (key, dot) in &collected {
            let place = (table, (*key).clone());
            let stamp = world.history.writes[dot].stamp;
            let has = other.disk.shadow.get(&place).is_some_and(|(newest, _)| *newest >= stamp);
            if is_known && (has_spoken || !lost) && !has {
                let newest = other.disk.shadow.get(&place);
                broken(format!(
                    "R7 n{n} forgets {dot:?} ({stamp:?}) of {place:?}, n{p} has not got it: {newest:?}"
                ));
            }
        }
    }
    for (_, dot) in &collected {
        world.history.collected.entry(**dot).or_insert(now_ms);
    }
    collected.len() as u64
}
