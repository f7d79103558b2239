//! I23: a digest is that of the rows, so that equal digests mean equal rows.

use cortex_core::replication::TableDigest;

use crate::world::{World, broken};

pub(crate) fn a_digest_is_that_of_the_rows(world: &World, n: usize) {
    let node = &world.nodes[n];
    for (table, copy) in &node.disk.copies {
        let Some(replica) = node.db.replica(*table) else { continue };
        let mut sum = TableDigest::default();
        let mut tombstones = 0;
        for (key, row) in &copy.rows {
            match &row.value {
                Some(value) => sum = sum.plus(TableDigest::of_row(*table, key, row.stamp, value)),
                None => tombstones += 1,
            }
        }
        if (sum, tombstones) != (replica.digest, replica.tombstones) {
            broken(format!("I23 n{n}: {:?} is not that of {:?}", replica, copy.rows));
        }
    }
}
