//! I4: a LSN only rises, and says of one change log one thing for ever.

use cortexd::store::SYSTEM_TABLE;

use crate::world::{World, broken};

pub(crate) fn only_rises(world: &mut World, n: usize) {
    let node = &mut world.nodes[n];
    let lsn: u64 = node
        .db
        .connection()
        .query_row("SELECT lsn FROM node_state", [], |row| row.get(0))
        .expect("a number");
    if lsn < node.disk.lsn {
        broken(format!("I4 n{n}: from {} to {lsn}", node.disk.lsn));
    }
    node.disk.lsn = lsn;
    for (table, copy) in node.disk.copies.iter().filter(|(table, _)| **table != SYSTEM_TABLE) {
        let Some(change_log) = node.db.replica(*table).map(|replica| replica.change_log) else {
            continue;
        };
        for (key, version) in &copy.rows {
            let now = (key.clone(), version.dot);
            let known =
                world.history.change_logs.entry((change_log, version.lsn)).or_insert(now.clone());
            if *known != now {
                broken(format!(
                    "I4 n{n}: {} of a change_log is {known:?} and {now:?}",
                    version.lsn
                ));
            }
        }
    }
}
