//! What an exchange learns of the copies on the other machine, and of others through it: noted, and passed on.
//! What status makes of it is the service's.

use cortex_core::{
    model::{NodeName, TableUid},
    sync::{Ack, Message, Word},
};
use tracing::{debug, warn};

use super::{
    Exchange, Finished, OUTBOX, ROUND, ROUNDS, pack, troubles::is_for_the_operator, words,
};
use crate::{service::sync::PeerCopy, store::Command};

impl Exchange<'_> {
    /// Notes how it goes with a table, and tells the operator what they may act on.
    pub(super) fn trouble(&self, table: TableUid, change: impl FnOnce(&mut PeerCopy)) {
        if self.store.copy(table).is_none_or(|copy| copy.life == 0) {
            return;
        }
        let mut told = [None, None];
        self.shared.context.service.sync().update(table, self.node, |known| {
            let before = [known.taking.clone(), known.giving.clone()];
            change(known);
            let now = [known.taking.clone(), known.giving.clone()];
            for ((before, now), told) in before.iter().zip(now).zip(&mut told) {
                *told = now.filter(|now| {
                    before.as_ref().map(std::mem::discriminant) != Some(std::mem::discriminant(now))
                });
            }
        });
        let [taking, giving] = told.map(|told| told.filter(is_for_the_operator));
        if taking.is_some() || giving.is_some() {
            let catalog = self.store.catalog();
            let table = catalog.by_uid(table).map(|entry| catalog.show(&entry.table.name));
            for (why, direction) in [(taking, "from"), (giving, "to")] {
                if let Some(why) = why {
                    warn!(table, node = %self.node, direction, %why, "rows of a table do not come through");
                }
            }
        }
    }

    pub(super) fn heard_ack(&mut self, ack: &Ack) {
        self.trouble(ack.table, |known| {
            known.giving.take_if(|trouble| trouble.is_of_the_reader());
            words::acknowledged(known, ack, self.node, &self.store);
        });
        if ack.drain.is_none() {
            return;
        }
        let (store, from, ack) = (self.store.clone(), self.node.clone(), Box::new(ack.clone()));
        self.jobs.spawn(async move {
            if let Err(failure) = store.execute(Command::Drained { from, ack }).await {
                debug!(%failure, "a copy that drains was not ended");
            }
            Ok(Finished::Noted)
        });
    }

    pub(super) fn heard_word(&self, table: TableUid, node: &NodeName, word: &Word) {
        let view = self.shared.context.service.sync();
        if node == self.node {
            view.update(table, node, |known| {
                words::heard(known, word.clone(), node, table, &self.store);
            });
        } else if node != self.shared.mesh().node()
            && words::concerns(self.store.catalog().directory(), table, node)
        {
            view.update(table, node, |known| {
                words::overheard(known, word.clone(), node, table, &self.store);
            });
        }
    }

    /// Tells what copies have said, where it is time.
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
        for copy in self.store.copies().iter().filter(|copy| copy.life > 0) {
            let table = copy.uid;
            if !words::concerns(catalog.directory(), table, self.node) {
                continue;
            }
            let known = view.copies_of(table).into_iter();
            let said = known.filter_map(|(node, copy)| Some((node, copy.word?)));
            if let Some(said) = self.told.news(table, self.node, &here, said, &self.store) {
                self.outbox.push_back((pack::frame(Message::Words(said)), false));
            }
        }
    }
}
