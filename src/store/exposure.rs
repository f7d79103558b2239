//! Exposure watermark: the highest timestamp that a peer may have observed. What is on its way counts, since no
//! acknowledgement says yet that it arrived; so does a peer whose rows were applied here and that has not reported
//! its clock since.
//!
//! In memory alone: it is asked when a clock is right again, with what the others say of their own clocks.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cortex_core::{
    model::{Hlc, NodeName, TableUid},
    replication::{Batch, Position, PullRequest},
};

use super::{
    read_batch::{BatchRead, BatchRefusal},
    system,
};

/// What was sent to peers.
#[derive(Debug, Default)]
pub(super) struct Exposure(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The greatest timestamp of what others have gone on from, or have sent themselves.
    met: Hlc,
    /// Of each reader and table the answers that it may not have taken, in their order: two at most, since a reader
    /// asks for the part that follows while it stores one. As many as there are members and replicas.
    under_way: HashMap<(NodeName, TableUid), Vec<SentBatch>>,
    /// How often timestamps were given anew.
    changes: u64,
    /// True while they are being given anew: what is read meanwhile has the old ones.
    changing: bool,
}

/// What a reader was answered.
#[derive(Debug)]
struct SentBatch {
    /// The place that it asked from.
    from: Position,
    /// The place that it may ask from before it has stored this.
    next: Option<Position>,
    /// The greatest timestamp.
    newest: Hlc,
}

/// Taken before rows are read that are sent to a peer.
#[derive(Clone, Copy, Debug)]
struct ReadStart(u64);

impl Exposure {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a reader, and notes what.
    ///
    /// # Errors
    /// What `answer` reports.
    pub(super) fn over<E>(
        &self,
        reader: &NodeName,
        want: &PullRequest,
        answer: impl FnOnce() -> Result<BatchRead, E>,
    ) -> Result<BatchRead, E> {
        let before = self.asked(reader, want);
        let served = answer()?;
        Ok(match &served {
            BatchRead::Batch(batch) if !self.answered(before, reader, batch) => {
                BatchRead::Refused(BatchRefusal::Busy)
            }
            BatchRead::Batch(_) | BatchRead::Nothing | BatchRead::Refused(_) => served,
        })
    }

    /// A reader asks. One that asks from the same place again has not taken what it was answered, nor what follows. One
    /// that asks from another place has taken it, but for the part that it may be storing meanwhile.
    fn asked(&self, reader: &NodeName, want: &PullRequest) -> ReadStart {
        let mut state = self.state();
        let place = (reader.clone(), want.table);
        let mut sent = state.under_way.remove(&place).unwrap_or_default();
        let storing = match sent.iter().position(|sent| sent.from == want.position) {
            Some(again) => {
                sent.truncate(again);
                None
            }
            None => sent.pop_if(|last| last.next.as_ref() == Some(&want.position)),
        };
        state.met = sent.iter().map(|sent| sent.newest).fold(state.met, Ord::max);
        if let Some(storing) = storing {
            state.under_way.insert(place, vec![storing]);
        }
        ReadStart(state.changes)
    }

    /// Notes an answer that is about to leave. False where its rows may have other timestamps by now: it must
    /// not leave then.
    fn answered(&self, before: ReadStart, reader: &NodeName, batch: &Batch) -> bool {
        let mut state = self.state();
        if state.changing || state.changes != before.0 {
            return false;
        }
        if batch.table == system::UID {
            return true; // what the directory sends moves no clock, and its rows keep their timestamps
        }
        // A node that takes it observes the clock that comes with it too.
        let newest = batch.rows.iter().map(|row| row.stamp.hlc).fold(batch.hlc, Ord::max);
        let next = if batch.is_last() { None } else { batch.sure_position() };
        let sent = SentBatch { from: batch.from.clone(), next, newest };
        state.under_way.entry((reader.clone(), batch.table)).or_default().push(sent);
        true
    }

    /// A link to a reader begins. Where it asks from is where it stands: no part of before is being stored.
    pub(super) fn link_began(&self, reader: &NodeName) {
        let mut state = self.state();
        let of_reader = state.under_way.iter_mut().filter(|((node, _), _)| node == reader);
        of_reader.flat_map(|(_, sent)| sent).for_each(|sent| sent.next = None);
    }

    /// A reader has stored what it was answered first.
    pub(super) fn stored(&self, reader: &NodeName, table: TableUid) {
        let mut state = self.state();
        let sent = state.under_way.get_mut(&(reader.clone(), table));
        if let Some(sent) = sent.filter(|sent| !sent.is_empty()) {
            let newest = sent.remove(0).newest;
            state.met = newest.max(state.met);
        }
    }

    /// A reader has refused what it was answered first of what it has not stored, and drops what follows.
    pub(super) fn refused(&self, reader: &NodeName, table: TableUid) {
        self.state().under_way.remove(&(reader.clone(), table));
    }

    /// Another machine has sent a timestamp.
    pub(super) fn came(&self, hlc: Hlc) {
        let mut state = self.state();
        state.met = hlc.max(state.met);
    }

    /// Timestamps are about to be given anew. Answers up to which one others may have met what is here; what
    /// was on its way to those whom `counts` does not name does not count any more.
    pub(super) fn begin(&self, counts: impl Fn(&NodeName, TableUid) -> bool) -> Hlc {
        let mut state = self.state();
        state.changing = true;
        state.under_way.retain(|(reader, table), _| counts(reader, *table));
        let under_way = state.under_way.values().flatten().map(|sent| sent.newest);
        under_way.fold(state.met, Ord::max)
    }

    /// What a transaction has changed is what everybody reads, or it has changed nothing.
    pub(super) fn end(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.changing) {
            state.changes += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::{
        model::ActorId,
        replication::{ChangeLogId, Cursor, Part, VersionVector},
    };

    use super::*;

    const TABLE: TableUid = TableUid([1; 16]);
    const CHANGE_LOG: ChangeLogId = ChangeLogId([7; 16]);

    fn at(lsn: u64) -> Position {
        Position { cursor: Some(Cursor { change_log: CHANGE_LOG, lsn }), snapshot: None }
    }

    /// A reader that is given parts of the change log, each with a timestamp of its own.
    struct Scene(Exposure, NodeName);

    impl Scene {
        fn new() -> Self {
            Self(Exposure::default(), NodeName::parse("office").expect("a name"))
        }

        fn asks(&self, from: u64, to: u64, last: bool) {
            let reader = ActorId(1);
            let vector = VersionVector::new();
            let want = PullRequest { table: TABLE, reader, epoch: 1, position: at(from), vector };
            let part = Part::Delta { to, last };
            let hlc = Hlc::from_unix_ms(to);
            let batch = Batch { hlc, ..Batch::empty(TABLE, reader, at(from), CHANGE_LOG, part) };
            let read = || Ok::<_, ()>(BatchRead::Batch(Box::new(batch)));
            let answer = self.0.over(&self.1, &want, read);
            assert!(matches!(answer, Ok(BatchRead::Batch(_))));
        }

        /// The latest timestamp that others may have met.
        fn met(&self) -> u64 {
            let met = self.0.begin(|_, _| true);
            self.0.end();
            met.unix_ms()
        }
    }

    #[test]
    fn what_is_refused_was_not_met_although_the_next_part_was_asked_for_before() {
        let scene = Scene::new();
        scene.asks(0, 5, false);
        scene.asks(5, 9, false);
        assert_eq!(scene.met(), 9, "both are on their way");
        scene.0.refused(&scene.1, TABLE);
        assert_eq!(scene.met(), 0);
    }

    #[test]
    fn what_is_stored_before_the_next_part_is_refused_was_met() {
        let scene = Scene::new();
        scene.asks(0, 5, false);
        scene.asks(5, 9, false);
        scene.0.stored(&scene.1, TABLE);
        scene.0.refused(&scene.1, TABLE);
        assert_eq!(scene.met(), 5);
    }

    #[test]
    fn what_was_stored_before_its_acknowledgement_was_lost_was_met() {
        let scene = Scene::new();
        scene.asks(0, 5, false);
        scene.0.link_began(&scene.1);
        scene.asks(5, 9, false);
        scene.0.refused(&scene.1, TABLE);
        assert_eq!(scene.met(), 5);
    }

    #[test]
    fn who_asks_again_from_a_place_has_stored_nothing_that_it_was_answered_there() {
        let scene = Scene::new();
        scene.asks(0, 5, false);
        scene.asks(5, 9, false);
        scene.asks(0, 3, true);
        assert_eq!(scene.met(), 3);
    }

    #[test]
    fn who_asks_from_the_end_or_two_parts_on_has_stored_what_leads_there() {
        let scene = Scene::new();
        scene.asks(0, 5, true);
        scene.asks(5, 6, true);
        scene.0.refused(&scene.1, TABLE);
        assert_eq!(scene.met(), 5);
        scene.asks(5, 7, false);
        scene.asks(7, 8, false);
        scene.asks(8, 9, false);
        scene.0.refused(&scene.1, TABLE);
        assert_eq!(scene.met(), 7);
    }
}
