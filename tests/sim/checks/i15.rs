//! I15: of decisions that had not seen each other the narrower counts. Worked out anew from the true history.

use cortex_core::directory::{Row, Standing};

use crate::world::{World, broken};

pub(crate) fn the_narrower_scope_counts(world: &World, n: usize) {
    let node = &world.nodes[n];
    let directory = node.db.catalog().directory();
    for table in &world.tables {
        let latest = world.history.latest(&node.disk.decided(*table));
        for (x, other) in world.nodes.iter().enumerate() {
            let is_member = directory.node(&other.name).is_some() || x == n;
            let admitting = latest.iter().filter(|decision| {
                decision.scope.as_ref().map_or(is_member, |scope| scope.contains(&x))
            });
            let expected = match admitting.count() {
                0 => Standing::Out,
                _ if directory.is_put_out(&other.name) => Standing::Out,
                _ if directory.is_declined(*table, &other.name) => Standing::Out,
                all if all == latest.len() => Standing::In,
                _some => Standing::Frozen,
            };
            let found = directory.standing(*table, &other.name);
            if found != expected {
                let mut held = Vec::new();
                for by in &world.nodes {
                    let rows = directory.written_by(&by.name);
                    held.extend(
                        rows.filter(|row| matches!(row, Row::Scope(row) if row.table == *table)),
                    );
                }
                broken(format!(
                    "I15 n{n} takes n{x} to be {found:?}, it is {expected:?}: {latest:?} of {:?}; held are {held:?}",
                    world.history.numbered,
                ));
            }
        }
    }
}
