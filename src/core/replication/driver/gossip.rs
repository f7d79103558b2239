//! Status gossip on one link: the status that replicas report, passed on to nodes that have no link to them.
//! A status is passed on once, and everything once more from time to time, for nodes that have lost it.

use std::{collections::BTreeMap, time::Duration};

use cortex_mutant::mutant;

use super::node::{Node, may_hold, own_status};
use crate::{
    directory::Directory,
    model::{NodeName, TableUid},
    replication::{ReplicaStatus, StatusGossip},
};

/// Between two rounds; and until all of it is passed on again.
const ROUND: Duration = Duration::from_secs(5);
const ROUNDS: u32 = 12;

/// After the beginning of a link.
const FIRST_ROUND: Duration = Duration::from_secs(1);

/// Statuses of one message at most: the wire bounds how many nodes a message may name.
pub const STATUSES: usize = 64;

/// What was passed on, and when it goes on.
#[derive(Debug)]
pub(super) struct Gossip {
    sent: BTreeMap<(TableUid, NodeName), ReplicaStatus>,
    rounds: u32,
    next_round: Duration,
}

impl Gossip {
    pub(super) fn new(now: Duration) -> Self {
        Self { sent: BTreeMap::new(), rounds: 0, next_round: now + FIRST_ROUND }
    }

    pub(super) fn next_round(&self) -> Duration {
        self.next_round
    }

    /// What is to be gossiped to a node now, where it is time. A link that is full has no room for it.
    pub(super) fn round(
        &mut self,
        to: &NodeName,
        here: &impl Node,
        now: Duration,
        has_room: bool,
    ) -> Vec<StatusGossip> {
        if now < self.next_round {
            return Vec::new();
        }
        self.next_round = now + ROUND;
        if !has_room {
            return Vec::new();
        }
        self.rounds += 1;
        if self.rounds.is_multiple_of(ROUNDS) {
            self.sent.clear();
        }
        let replicas = here.replicas();
        let tables = replicas.iter().filter(|own| own.epoch() > 0).map(|own| own.table());
        let directory = here.directory();
        tables
            .filter(|table| may_hear(&directory, *table, to))
            .filter_map(|table| self.news(table, to, here))
            .collect()
    }

    /// What is to be gossiped to a node of a table now: what was not sent to it yet.
    fn news(&mut self, table: TableUid, to: &NodeName, here: &impl Node) -> Option<StatusGossip> {
        let own = own_status(here, table).map(|status| (here.name().clone(), status));
        let others = others_say(table, here).into_iter().filter(|(node, _)| node != here.name());
        let mut statuses = Vec::new();
        for (node, status) in own.into_iter().chain(others) {
            let place = (table, node);
            let is_known = place.1 == *to || self.sent.get(&place) == Some(&status);
            if is_known || statuses.len() == STATUSES {
                continue;
            }
            statuses.push((place.1.clone(), status.clone()));
            self.sent.insert(place, status);
        }
        (!statuses.is_empty()).then_some(StatusGossip { table, statuses })
    }
}

/// Who is excluded from a table is not told how it goes on.
#[mutant(StatusesForHolders => true)]
fn may_hear(directory: &Directory, table: TableUid, node: &NodeName) -> bool {
    may_hold(directory, table, node)
}

/// Nodes that never meet wait for each other's word, too.
#[mutant(StatusesPassedOn => Vec::new())]
fn others_say(table: TableUid, here: &impl Node) -> Vec<(NodeName, ReplicaStatus)> {
    here.statuses(table)
}
