//! When a deletion may be forgotten: once every replica that there may be has said that it knows it.
//! Which replicas there may be is the directory's knowledge; removing the rows is the store's.

use std::collections::BTreeMap;

use cortex_mutant::mutant;

use super::{Dot, ReplicaStatus, VersionVector};
use crate::{
    directory::{Directory, Seen},
    model::{ActorId, NodeName},
};

/// A node that keeps deletions from being collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcBlocker {
    /// Which.
    pub node: NodeName,
    /// Why.
    pub why: GcBlocking,
}

/// Why a node keeps deletions from being collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GcBlocking {
    /// It has not said what it has.
    Silent,
    /// It has seen something that this replica has not.
    Ahead,
    /// It has not said that it knows a deletion that is remembered here.
    Behind,
}

/// What replicas have said of themselves, as far as it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaStatuses(BTreeMap<NodeName, ReplicaStatus>);

impl ReplicaStatuses {
    /// What replicas have said last, as far as it counts by the directory: what an earlier actor has confirmed may be
    /// lost by now.
    #[must_use]
    pub fn of(
        said: impl IntoIterator<Item = (NodeName, ReplicaStatus)>,
        directory: &Directory,
    ) -> Self {
        let mut statuses = Self::default();
        for (node, status) in said {
            statuses.hear(node.clone(), status);
            if let Some(row) = directory.node(&node) {
                statuses.void_others(&node, row.actor);
            }
        }
        statuses
    }

    /// Records the status of a replica. Within one epoch of one actor it only grows; a status of
    /// another actor voids what was said before: that replica may have lost it.
    pub fn hear(&mut self, node: NodeName, status: ReplicaStatus) {
        match self.0.get_mut(&node) {
            Some(known) if continues(known, &status) => {
                known.vector.join(&status.vector);
                for (node, epoch) in status.epochs {
                    let known = known.epochs.entry(node).or_default();
                    *known = epoch.max(*known);
                }
                known.digest = status.digest;
                known.ready = status.ready;
                known.conflicts = known.conflicts.max(status.conflicts);
                known.latest = known.latest.max(status.latest);
            }
            Some(_) | None => {
                self.0.insert(node, status);
            }
        }
    }

    /// Forgets what a node has said, unless it has said so as this actor.
    pub fn void_others(&mut self, node: &NodeName, actor: ActorId) {
        if self.0.get(node).is_some_and(|status| !status.is_of_actor(actor)) {
            self.0.remove(node);
        }
    }

    /// What a node has said.
    #[must_use]
    pub fn get(&self, node: &NodeName) -> Option<&ReplicaStatus> {
        self.0.get(node)
    }

    /// The first node, of those whose replicas must know a deletion before it is forgotten, that has not said so.
    #[must_use]
    pub fn lacking(
        &self,
        here: &NodeName,
        must: &BTreeMap<NodeName, u64>,
        deletion: Dot,
    ) -> Option<GcBlocker> {
        let knows = |node| self.get(node).is_some_and(|status| status.vector.covers(deletion));
        let node = must.keys().find(|node| *node != here && !knows(node))?;
        Some(GcBlocker { node: node.clone(), why: GcBlocking::Behind })
    }

    /// Everything that was said.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeName, &ReplicaStatus)> {
        self.0.iter()
    }

    /// What every replica that there may be has incorporated, by its own status: deletions that it covers
    /// may be collected.
    ///
    /// `own` is what this replica has incorporated, on the node `here`. `must` are the replicas that are
    /// known to exist, `gone` those that are known to have ended. Replicas that others know of count too:
    /// one of them may have joined unseen.
    ///
    /// # Errors
    /// The first node of which that cannot be said.
    pub fn confirmed(
        &self,
        here: &NodeName,
        own: &VersionVector,
        must: &BTreeMap<NodeName, u64>,
        gone: &Seen,
    ) -> Result<VersionVector, GcBlocker> {
        let mut expected = must.clone();
        self.join_epochs(&mut expected);
        expected.retain(|node, epoch| {
            node != here && (*epoch == 0 || *epoch > gone.get(node).copied().unwrap_or(0))
        });
        self.confirmed_by(expected, own)
    }

    /// What all of these replicas have incorporated.
    #[mutant(OthersConfirm => Ok(own.clone()))]
    #[mutant(EachReplicaConfirms, expected = expected.into_iter().rev().skip(1).collect())]
    fn confirmed_by(
        &self,
        expected: BTreeMap<NodeName, u64>,
        own: &VersionVector,
    ) -> Result<VersionVector, GcBlocker> {
        let mut confirmed = own.clone();
        for (node, epoch) in expected {
            let block = |why| GcBlocker { node: node.clone(), why };
            let status = self.0.get(&node).filter(|status| epoch != 0 && status.is_of_epoch(epoch));
            let status = status.ok_or_else(|| block(GcBlocking::Silent))?;
            if is_ahead(&status.vector, own) {
                return Err(block(GcBlocking::Ahead));
            }
            confirmed = confirmed.intersection(&status.vector);
        }
        Ok(confirmed)
    }

    /// Adds the replicas that others know of.
    #[mutant(UnheardReplicasAsked => ())]
    fn join_epochs(&self, expected: &mut BTreeMap<NodeName, u64>) {
        for (node, epoch) in self.0.values().flat_map(|status| &status.epochs) {
            let known = expected.entry(node.clone()).or_default();
            *known = (*epoch).max(*known);
        }
    }
}

/// True where a replica has seen what is not known here, and whose deletion it may have collected.
#[mutant(NobodyAhead => false)]
fn is_ahead(theirs: &VersionVector, own: &VersionVector) -> bool {
    !own.dominates(theirs)
}

/// True where a replica goes on from what it has said before.
fn continues(known: &ReplicaStatus, status: &ReplicaStatus) -> bool {
    known.is_of_actor(status.actor) && known.is_of_epoch(status.epoch)
}

impl ReplicaStatus {
    #[mutant(StatusOfOneActor => true)]
    pub(super) fn is_of_actor(&self, actor: ActorId) -> bool {
        self.actor == actor
    }

    #[mutant(StatusOfOneEpoch => true)]
    fn is_of_epoch(&self, epoch: u64) -> bool {
        self.epoch == epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).expect("a name")
    }

    fn vector(dots: &[(u128, u64)]) -> VersionVector {
        let dot = |(actor, seq): &(u128, u64)| Dot { actor: ActorId(*actor), seq: *seq };
        dots.iter().map(dot).collect()
    }

    fn status(actor: u128, dots: &[(u128, u64)]) -> ReplicaStatus {
        let actor = ActorId(actor);
        ReplicaStatus { actor, epoch: 1, vector: vector(dots), ..ReplicaStatus::default() }
    }

    fn both() -> BTreeMap<NodeName, u64> {
        [(node("a"), 1), (node("b"), 1), (node("c"), 1)].into()
    }

    #[test]
    fn what_all_replicas_have_said_they_know_is_confirmed() {
        let mut statuses = ReplicaStatuses::default();
        statuses.hear(node("b"), status(2, &[(1, 5)]));
        statuses.hear(node("c"), status(3, &[(1, 3)]));
        let own = vector(&[(1, 7)]);
        let confirmed = statuses.confirmed(&node("a"), &own, &both(), &Seen::new());
        assert_eq!(confirmed, Ok(vector(&[(1, 3)])));
    }

    #[test]
    fn a_silent_replica_blocks_until_it_is_abandoned() {
        let mut statuses = ReplicaStatuses::default();
        statuses.hear(node("b"), status(2, &[(1, 5)]));
        let own = vector(&[(1, 7)]);
        let blocked = statuses.confirmed(&node("a"), &own, &both(), &Seen::new());
        assert_eq!(blocked, Err(GcBlocker { node: node("c"), why: GcBlocking::Silent }));
        let gone = [(node("c"), 1)].into();
        let confirmed = statuses.confirmed(&node("a"), &own, &both(), &gone);
        assert_eq!(confirmed, Ok(vector(&[(1, 5)])));
    }

    #[test]
    fn a_replica_that_has_not_said_that_it_knows_a_deletion_is_named() {
        let mut statuses = ReplicaStatuses::default();
        statuses.hear(node("b"), status(2, &[(1, 5)]));
        statuses.hear(node("c"), status(3, &[(1, 3)]));
        let lacking = |seq| statuses.lacking(&node("a"), &both(), Dot { actor: ActorId(1), seq });
        assert_eq!(lacking(3), None);
        assert_eq!(lacking(4), Some(GcBlocker { node: node("c"), why: GcBlocking::Behind }));
        assert_eq!(lacking(6), Some(GcBlocker { node: node("b"), why: GcBlocking::Behind }));
    }

    #[test]
    fn a_replica_that_only_others_know_of_counts() {
        let mut statuses = ReplicaStatuses::default();
        let epochs = [(node("d"), 1)].into();
        statuses.hear(node("b"), ReplicaStatus { epochs, ..status(2, &[(1, 5)]) });
        statuses.hear(node("c"), status(3, &[(1, 5)]));
        let blocked = statuses.confirmed(&node("a"), &vector(&[(1, 7)]), &both(), &Seen::new());
        assert_eq!(blocked, Err(GcBlocker { node: node("d"), why: GcBlocking::Silent }));
    }

    #[test]
    fn a_replica_that_has_seen_more_blocks() {
        let mut statuses = ReplicaStatuses::default();
        statuses.hear(node("b"), status(2, &[(1, 5), (2, 1)]));
        statuses.hear(node("c"), status(3, &[(1, 5)]));
        let blocked = statuses.confirmed(&node("a"), &vector(&[(1, 7)]), &both(), &Seen::new());
        assert_eq!(blocked, Err(GcBlocker { node: node("b"), why: GcBlocking::Ahead }));
    }

    #[test]
    fn a_new_actor_or_a_new_epoch_voids_a_status() {
        let mut statuses = ReplicaStatuses::default();
        statuses.hear(node("b"), status(2, &[(1, 5)]));
        statuses.hear(node("b"), status(7, &[(1, 2)]));
        assert_eq!(
            statuses.get(&node("b")).map(|status| status.vector.clone()),
            Some(vector(&[(1, 2)]))
        );
        statuses.hear(node("b"), ReplicaStatus { epoch: 2, ..status(7, &[]) });
        assert_eq!(
            statuses.get(&node("b")).map(|status| status.vector.clone()),
            Some(VersionVector::new())
        );
        statuses.void_others(&node("b"), ActorId(7));
        assert!(statuses.get(&node("b")).is_some());
        statuses.void_others(&node("b"), ActorId(8));
        assert!(statuses.get(&node("b")).is_none());
    }
}
