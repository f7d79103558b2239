//! I12: a row that was written in the knowledge of an exclusion never reaches who was excluded.
//! What is on the wire counts as having arrived.

use cortex_core::{model::TableUid, replication::Dot};
use cortexd::store::SYSTEM_TABLE;

use crate::world::{World, broken};

pub(crate) fn may_hold(world: &World, n: usize, dot: Dot) {
    let Some(write) = world.history.writes.get(&dot).filter(|write| write.node != n) else {
        return;
    };
    let decisions = &world.history.decisions;
    for id in &write.past {
        let exclusion = &decisions[*id];
        let excludes = exclusion.scope.as_ref().is_some_and(|scope| !scope.contains(&n));
        let replaced = || write.past.iter().any(|other| decisions[*other].past.contains(id));
        let admitted_again = || {
            decisions.iter().any(|later| {
                later.table == exclusion.table
                    && later.past.contains(id)
                    && later.scope.as_ref().is_none_or(|scope| scope.contains(&n))
            })
        };
        if excludes && !replaced() && !admitted_again() {
            broken(format!(
                "I12 n{n} gets {dot:?}, written after it was excluded by {exclusion:?}"
            ));
        }
    }
}

/// Who takes rows knows no decision that holds and excludes it.
pub(crate) fn may_take(world: &World, n: usize, table: TableUid) {
    if table == SYSTEM_TABLE {
        return;
    }
    let known = world.nodes[n].disk.decided(table);
    let excludes = |scope: &Option<std::collections::BTreeSet<usize>>| {
        scope.as_ref().is_some_and(|scope| !scope.contains(&n))
    };
    if let Some(by) = world.history.latest(&known).iter().find(|one| excludes(&one.scope)) {
        broken(format!("I12 n{n} takes rows although it is excluded by {by:?}"));
    }
}
