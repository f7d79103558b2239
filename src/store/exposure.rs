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
    /// Of each reader and table the last answer: from where it was asked for, and its greatest timestamp. As many
    /// as there are members and replicas.
    under_way: HashMap<(NodeName, TableUid), (Position, Hlc)>,
    /// How often timestamps were given anew.
    changes: u64,
    /// True while they are being given anew: what is read meanwhile has the old ones.
    changing: bool,
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

    /// A reader asks. One that asks from the same place again has not taken what it was answered.
    fn asked(&self, reader: &NodeName, want: &PullRequest) -> ReadStart {
        let mut state = self.state();
        if let Some((from, newest)) = state.under_way.remove(&(reader.clone(), want.table))
            && from != want.position
        {
            state.met = newest.max(state.met);
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
            return true; // what the directory tells moves no clock, and its rows keep their timestamps
        }
        // Whoever takes it observes the clock that it tells too.
        let newest = batch.rows.iter().map(|row| row.stamp.hlc).fold(batch.hlc, Ord::max);
        let answer = (batch.from.clone(), newest);
        state.under_way.insert((reader.clone(), batch.table), answer);
        true
    }

    /// A reader has refused what it was answered.
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
        state.under_way.values().map(|(_, newest)| *newest).fold(state.met, Ord::max)
    }

    /// What a transaction has changed is what everybody reads, or it has changed nothing.
    pub(super) fn end(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.changing) {
            state.changes += 1;
        }
    }
}
