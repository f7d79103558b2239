//! What nodes tell each other: an acknowledgement names no place that is not stored, a status of a table goes to nobody
//! who is excluded from it.

use cortex_core::replication::{Ack, Message, StatusGossip, driver::may_hold};

use crate::world::{World, broken};

/// A message is sent.
pub(crate) fn may_be_sent(world: &World, from: usize, to: usize, message: &Message) {
    match message {
        Message::Ack(ack) => is_stored(world, from, to, ack),
        Message::StatusGossip(gossip) => is_for_holders(world, from, to, gossip),
        Message::PullRequest(_) | Message::Batch(_) | Message::Parked(_) | Message::Refuse(_) => {}
    }
}

fn is_stored(world: &World, from: usize, to: usize, ack: &Ack) {
    let Some(cursor) = ack.cursor else { return };
    let position =
        world.nodes[from].db.position(ack.table, &world.nodes[to].name).expect("a position");
    let is_there = position.snapshot.is_none()
        && position.cursor.is_some_and(|stored| {
            stored.change_log == cursor.change_log && stored.lsn >= cursor.lsn
        });
    if !is_there {
        broken(format!(
            "R7 n{from} acknowledges {cursor:?} of {} to n{to}, and stands at {position:?}",
            ack.table
        ));
    }
}

fn is_for_holders(world: &World, from: usize, to: usize, gossip: &StatusGossip) {
    let directory = world.nodes[from].db.catalog().directory();
    if !may_hold(directory, gossip.table, &world.nodes[to].name) {
        broken(format!("R2 n{from} tells n{to} of {}, which it has no replica of", gossip.table));
    }
}
