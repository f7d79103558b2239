//! What replicas say of themselves: noted as it is heard, and passed on to those who do not hear it.
//! What follows from it for deletions is the upkeep's.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::{
    directory::Directory,
    model::{ActorId, Hlc, NodeName, TableUid},
    replication::{Ack, Batch, ReplicaStatus, ReplicaStatuses, StatusGossip},
    wire::link::NAMES,
};

use crate::{
    service::sync::PeerCopy,
    store::{Replica, SYSTEM_TABLE, Store},
    sys::clock,
};

/// What this machine's replica of a table says of itself; none where there is none.
pub(super) fn own_status(store: &Store, table: TableUid) -> Option<ReplicaStatus> {
    // In this order: see where they are published.
    let actor = store.actor();
    let copy = store.copy(table).filter(|copy| copy.epoch > 0)?;
    Some(status_of(&copy, actor, store.hlc(), store.catalog().directory()))
}

fn status_of(
    copy: &Arc<Replica>,
    actor: ActorId,
    hlc: Hlc,
    directory: &Directory,
) -> ReplicaStatus {
    ReplicaStatus {
        actor,
        epoch: copy.epoch,
        vector: copy.vector.clone(),
        epochs: directory.epochs(copy.uid),
        digest: copy.digest,
        ready: copy.ready,
        conflicts: Some(copy.conflicts.open),
        latest: Some(ReplicaStatus::not_before(hlc)),
    }
}

/// Takes note of what a machine has said of its own replica, and of how far it has come here.
pub(super) fn acknowledged(known: &mut PeerCopy, ack: &Ack, node: &NodeName, store: &Store) {
    known.reached = ack.cursor;
    heard(known, ack.status.clone(), node, ack.table, store);
    known.met = ack.status.latest;
    // Of the machine itself the last word counts, also where it has said more before.
    if let Some(status) = &mut known.status {
        (status.conflicts, status.latest) = (ack.status.conflicts, ack.status.latest);
    }
}

/// Takes note of what a machine has said of its own replica.
pub(super) fn heard(
    known: &mut PeerCopy,
    status: ReplicaStatus,
    node: &NodeName,
    table: TableUid,
    store: &Store,
) {
    known.heard_ms = clock::wall_ms();
    let current = store.catalog().directory().node(node).map(|row| row.actor);
    known.is_now(status.actor, current);
    let mut statuses = ReplicaStatuses::default();
    if let Some(before) = known.status.take() {
        statuses.hear(node.clone(), before);
    }
    statuses.hear(node.clone(), status);
    known.status = statuses.of(node).cloned();
    compare(known, table, store);
}

/// Takes note of what another machine has passed on. It may be older than what is known already.
pub(super) fn heard_by_gossip(
    known: &mut PeerCopy,
    status: ReplicaStatus,
    node: &NodeName,
    table: TableUid,
    store: &Store,
) {
    let current = store.catalog().directory().node(node).map(|row| row.actor);
    if !known.may_overhear(&status, current) {
        return;
    }
    heard(known, status, node, table, store);
}

/// Takes note of what a batch says of the replica that it comes from, where that has said no more before.
///
/// A word may have come while the batch was being stored. Its digest belongs to its vector: the batch's in its place
/// would be that of rows which are no more, and whoever hears of it from here would call replicas diverged.
pub(super) fn told_by_batch(known: &mut PeerCopy, batch: &Batch) {
    if let (Some(status), Some(digest)) = (&mut known.status, batch.digest)
        && status.epoch == batch.epoch
    {
        known.heard_ms = clock::wall_ms();
        if batch.vector.dominates(&status.vector) {
            status.vector = batch.vector.clone();
            (status.digest, status.ready) = (digest, batch.ready);
        }
    }
}

/// Notes where both replicas hold the same.
fn compare(known: &mut PeerCopy, table: TableUid, store: &Store) {
    let Some((status, copy)) = known.status.as_ref().zip(store.copy(table)) else { return };
    if status.vector == copy.vector && status.digest == copy.digest {
        known.verified_ms = Some(clock::wall_ms());
        known.diverged = false;
    }
}

/// What was passed on to one machine.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<(TableUid, NodeName), ReplicaStatus>);

impl Told {
    /// Has everything told once more.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// What a machine is to be told of a table now: what it has not been told yet.
    pub(super) fn news(
        &mut self,
        table: TableUid,
        to: &NodeName,
        here: &NodeName,
        statuses: impl Iterator<Item = (NodeName, ReplicaStatus)>,
        store: &Store,
    ) -> Option<StatusGossip> {
        let own = own_status(store, table).map(|status| (here.clone(), status));
        let mut news = Vec::new();
        for (node, status) in own.into_iter().chain(statuses.filter(|(node, _)| node != here)) {
            let place = (table, node);
            if place.1 == *to || self.0.get(&place) == Some(&status) || news.len() == NAMES {
                continue;
            }
            news.push((place.1.clone(), status.clone()));
            self.0.insert(place, status);
        }
        (!news.is_empty()).then_some(StatusGossip { table, statuses: news })
    }
}

/// True where a machine is to hear of a table: it has a replica, or may have one.
pub(super) fn concerns(directory: &Directory, table: TableUid, node: &NodeName) -> bool {
    let up = directory.epochs(table).get(node).copied().unwrap_or(0);
    table == SYSTEM_TABLE || up > directory.gone(table).get(node).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use cortex_core::{
        directory::{Seen, Standing},
        model::Stamp,
        replication::{ChangeLogId, Dot, Part, Position, TableDigest, VersionVector},
    };

    use super::*;

    const WRITER: ActorId = ActorId(7);
    const TABLE: TableUid = TableUid([1; 16]);

    fn up_to(seq: u64) -> VersionVector {
        [Dot { actor: WRITER, seq }].into_iter().collect()
    }

    fn digest(row: &[u8]) -> TableDigest {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(1), actor: WRITER };
        TableDigest::of_row(TABLE, b"k", stamp, row)
    }

    fn knows(seq: u64, row: &[u8]) -> PeerCopy {
        let status = ReplicaStatus {
            epoch: 1,
            vector: up_to(seq),
            digest: digest(row),
            ..ReplicaStatus::default()
        };
        PeerCopy { status: Some(status), ..PeerCopy::default() }
    }

    fn last_batch(seq: u64, row: &[u8]) -> Batch {
        Batch {
            table: TABLE,
            reader: ActorId(8),
            from: Position::default(),
            change_log: ChangeLogId([0; 16]),
            part: Part::Delta { to: seq, last: true },
            contexts: Vec::new(),
            rows: Vec::new(),
            vector: up_to(seq),
            gc_watermark: VersionVector::new(),
            hlc: Hlc::from_unix_ms(1),
            ready: true,
            epoch: 1,
            standing: Standing::In,
            knowledge: Seen::new(),
            removed: Vec::new(),
            head: None,
            drain: None,
            digest: Some(digest(row)),
        }
    }

    /// holds R5
    #[test]
    fn a_chunk_does_not_take_back_what_was_said_after_it() {
        let mut known = knows(5, b"new");
        told_by_batch(&mut known, &last_batch(4, b"old"));
        let status = known.status.as_ref().expect("a status");
        assert_eq!((&status.vector, status.digest), (&up_to(5), digest(b"new")));
        told_by_batch(&mut known, &last_batch(6, b"newer"));
        let status = known.status.as_ref().expect("a status");
        assert_eq!(
            (&status.vector, status.digest, status.ready),
            (&up_to(6), digest(b"newer"), true)
        );
    }
}
