//! E3: a timestamp of the future is not taken, whoever has drawn it; and what was heard of comes before what is
//! written afterwards (the clock condition: Lamport, "Time, Clocks, and the Ordering of Events", 1978).

use cortex_core::{model::Hlc, replication::Batch};

use crate::world::{World, broken};

pub(crate) fn nothing_is_of_the_future(n: usize, batch: &Batch, latest: Hlc) {
    if let Some(row) = batch.rows.iter().find(|row| row.stamp.hlc > latest) {
        broken(format!("E3 n{n} has taken {row:?}, which is later than {latest:?}"));
    }
}

pub(crate) fn the_clock_comes_after(world: &World, n: usize, batch: &Batch) {
    let hlc: i64 = world.nodes[n]
        .db
        .connection()
        .query_row("SELECT hlc FROM node_state", [], |row| row.get(0))
        .expect("a timestamp");
    if Hlc::from_i64(hlc) < batch.hlc {
        broken(format!("E3 n{n} has heard of {:?} and is at {hlc}", batch.hlc));
    }
}
