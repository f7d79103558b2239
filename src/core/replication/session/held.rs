//! Requests of the other side that wait for their answer, bounded by the memory that they take.
//! Which is answered when is the session's to say.

use std::collections::BTreeMap;

use crate::{
    model::TableUid,
    replication::{Dot, PullRequest, VersionVector, Why},
};

/// Bytes that the requests of one link take at most: thousands of tables of ten actors each.
const MOST_BYTES: usize = 16 << 20;

/// Bytes of those among them that were refused. They are kept so that they are answered as soon as the reason is gone;
/// a peer that asks for what it may not have, or for what there is not, asks again by itself.
const MOST_REFUSED: usize = 256 << 10;

/// A request of the other side.
#[derive(Debug)]
pub(super) struct HeldRequest {
    pub(super) request: Box<PullRequest>,
    pub(super) state: State,
    /// True while nothing was answered.
    pub(super) owed: bool,
    /// What was said last, where that was no.
    pub(super) refused: Option<Why>,
    /// The draining that was sent last.
    pub(super) drain: Option<[u8; 16]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Queued,
    /// Being answered; and whether the replica has changed since.
    Serving {
        stale: bool,
    },
    Parked,
}

/// The requests, one for each table.
#[derive(Debug, Default)]
pub(super) struct HeldRequests {
    by_table: BTreeMap<TableUid, HeldRequest>,
    bytes: usize,
    /// Of those that were refused.
    refused_bytes: usize,
}

impl HeldRequests {
    /// Keeps a request, in the place of an earlier one for its table. False where there is no room for it.
    pub(super) fn insert(&mut self, request: Box<PullRequest>) -> bool {
        let table = request.table;
        self.remove(table);
        let size = size_of_request(&request);
        if self.bytes + size > MOST_BYTES {
            return false;
        }
        self.bytes += size;
        let held =
            HeldRequest { request, state: State::Queued, owed: true, refused: None, drain: None };
        self.by_table.insert(table, held);
        true
    }

    /// Notes that a request was refused, for this reason. False where it is not kept any longer.
    pub(super) fn refuse(&mut self, table: TableUid, why: Why) -> bool {
        let Some(held) = self.by_table.get_mut(&table) else { return false };
        if held.refused.replace(why).is_none() {
            self.refused_bytes += size_of_request(&held.request);
        }
        if self.refused_bytes > MOST_REFUSED {
            self.remove(table);
            return false;
        }
        true
    }

    /// Notes that a request is not refused any more. True where it was.
    pub(super) fn admit(&mut self, table: TableUid) -> bool {
        let Some(held) = self.by_table.get_mut(&table) else { return false };
        let was_refused = held.refused.take().is_some();
        if was_refused {
            self.refused_bytes -= size_of_request(&held.request);
        }
        was_refused
    }

    /// The other side is known to have incorporated this.
    pub(super) fn reader_has(&mut self, table: TableUid, vector: &VersionVector) {
        let Some(held) = self.by_table.get_mut(&table) else { return };
        let before = size_of_request(&held.request);
        held.request.vector.join(vector);
        let more = size_of_request(&held.request) - before;
        self.bytes += more;
        if held.refused.is_some() {
            self.refused_bytes += more;
        }
    }

    pub(super) fn remove(&mut self, table: TableUid) {
        let Some(held) = self.by_table.remove(&table) else { return };
        let size = size_of_request(&held.request);
        self.bytes -= size;
        if held.refused.is_some() {
            self.refused_bytes -= size;
        }
    }

    pub(super) fn get(&self, table: TableUid) -> Option<&HeldRequest> {
        self.by_table.get(&table)
    }

    /// What is changed of it by that is not what it takes.
    pub(super) fn get_mut(&mut self, table: TableUid) -> Option<&mut HeldRequest> {
        self.by_table.get_mut(&table)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TableUid, &HeldRequest)> {
        self.by_table.iter().map(|(table, held)| (*table, held))
    }
}

/// What a request takes in memory, about.
fn size_of_request(request: &PullRequest) -> usize {
    let snapshot = request.position.snapshot.as_ref();
    let key = snapshot.map_or(0, |snapshot| snapshot.after.len());
    size_of::<(TableUid, HeldRequest, PullRequest)>()
        + key
        + request.vector.len() * size_of::<Dot>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::ActorId, replication::Position};

    fn request(table: u32, actors: u64) -> Box<PullRequest> {
        let mut uid = [0; 16];
        uid[..4].copy_from_slice(&table.to_be_bytes());
        let dot = |n: u64| Dot { actor: ActorId(n.into()), seq: 1 };
        Box::new(PullRequest {
            table: TableUid(uid),
            reader: ActorId(1),
            epoch: 1,
            position: Position::default(),
            vector: (0..actors).map(dot).collect(),
        })
    }

    #[test]
    fn what_requests_take_is_bounded_and_given_back() {
        let mut held = HeldRequests::default();
        let kept = (0..10_000).take_while(|n| held.insert(request(*n, 4096))).count();
        assert!((100..300).contains(&kept), "{kept}");
        assert!(held.bytes <= MOST_BYTES);
        (0..10_000).for_each(|n| held.remove(request(n, 0).table));
        assert_eq!((held.bytes, held.by_table.len()), (0, 0));
        assert!((0..10_000).all(|n| held.insert(request(n, 10))), "as many as honest ones are");
    }

    #[test]
    fn of_those_that_were_refused_few_are_kept() {
        let mut held = HeldRequests::default();
        for n in 0..10_000 {
            assert!(held.insert(request(n, 10)));
            held.refuse(request(n, 0).table, Why::NoReplica);
            held.refuse(request(n, 0).table, Why::NotInScope);
        }
        assert!(held.refused_bytes <= MOST_REFUSED && held.bytes == held.refused_bytes);
        assert!(held.by_table.len() > 100);
        let vector = [Dot { actor: ActorId(77), seq: 1 }].into_iter().collect();
        held.reader_has(request(1, 0).table, &vector);
        assert!(held.admit(request(1, 0).table) && !held.admit(request(1, 0).table));
        let left: Vec<_> = held.iter().map(|(table, _)| table).collect();
        left.into_iter().for_each(|table| held.remove(table));
        assert_eq!((held.bytes, held.refused_bytes), (0, 0));
    }
}
