//! What an exchange learns of the replicas on the other machine, and of others through it: noted, and passed on.
//! What status makes of it is the service's.

use cortex_core::{
    model::{NodeName, TableUid},
    replication::{Ack, Message, ReplicaStatus},
};
use tracing::debug;

use super::{
    Exchange, Finished, OUTBOX, ROUND, ROUNDS, pack, status_gossip,
    troubles::{self, Direction, is_for_the_operator},
};
use crate::{service::sync::PeerCopy, store::ReplicationCommand, sys::clock};

impl Exchange<'_> {
    /// Notes how it goes with a table, and tells the operator what they may act on.
    pub(super) fn trouble(&self, table: TableUid, change: impl FnOnce(&mut PeerCopy)) {
        if self.store.copy(table).is_none_or(|copy| copy.epoch == 0) {
            return;
        }
        let mut now = [None, None];
        self.shared.context.service.sync().update(table, self.node, |known| {
            change(known);
            known.note_since(clock::wall_ms());
            now = [known.taking.clone(), known.giving.clone()];
        });
        let [taking, giving] = now;
        for (direction, trouble) in [(Direction::From, taking), (Direction::To, giving)] {
            let begins = self.shared.told.note(
                (table, self.node.clone(), direction),
                trouble.as_ref().filter(|trouble| is_for_the_operator(trouble)),
                self.shared.now(),
            );
            if begins && let Some(why) = trouble {
                troubles::tell_begin(&self.store, table, self.node, direction, &why);
            }
        }
    }

    pub(super) fn heard_ack(&mut self, ack: &Ack) {
        self.trouble(ack.table, |known| {
            known.giving.take_if(|trouble| trouble.is_of_the_reader());
            status_gossip::acknowledged(known, ack, self.node, &self.store);
        });
        if ack.drain.is_none() {
            return;
        }
        let (store, from, ack) = (self.store.clone(), self.node.clone(), Box::new(ack.clone()));
        self.jobs.spawn(async move {
            if let Err(failure) = store.execute(ReplicationCommand::Drained { from, ack }).await {
                debug!(%failure, "a copy that drains was not ended");
            }
            Ok(Finished::Noted)
        });
    }

    pub(super) fn received_status(&self, table: TableUid, node: &NodeName, status: &ReplicaStatus) {
        let view = self.shared.context.service.sync();
        if node == self.node {
            view.update(table, node, |known| {
                status_gossip::heard(known, status.clone(), node, table, &self.store);
                known.met = status.latest;
            });
        } else if node != self.shared.mesh().node()
            && status_gossip::concerns(self.store.catalog().directory(), table, node)
        {
            view.update(table, node, |known| {
                status_gossip::heard_by_gossip(known, status.clone(), node, table, &self.store);
            });
        }
    }

    /// Tells what replicas have said, where it is time.
    pub(super) fn pass_on(&mut self) {
        let now = self.shared.now();
        if now < self.next_round {
            return;
        }
        self.next_round = now + ROUND;
        if self.outbox.len() >= OUTBOX {
            return;
        }
        self.rounds += 1;
        if self.rounds.is_multiple_of(ROUNDS) {
            self.told.forget();
        }
        let catalog = self.store.catalog();
        let here = self.shared.mesh().node().clone();
        let view = self.shared.context.service.sync();
        for copy in self.store.copies().iter().filter(|copy| copy.epoch > 0) {
            let table = copy.uid;
            if !status_gossip::concerns(catalog.directory(), table, self.node) {
                continue;
            }
            let known = view.copies_of(table).into_iter();
            let said = known.filter_map(|(node, copy)| Some((node, copy.status?)));
            if let Some(said) = self.told.news(table, self.node, &here, said, &self.store) {
                self.outbox.push_back((pack::frame(Message::StatusGossip(said)), false));
            }
        }
    }
}
