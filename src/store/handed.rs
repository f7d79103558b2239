//! Up to which timestamp other machines have met what is here, or may have: what is on its way nobody has said
//! yet that it has, and a machine whose rows were taken here has not said since what its clock is.
//!
//! In memory alone: it is asked when a clock is right again, with what the others say of their own clocks.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cortex_core::{
    model::{Hlc, NodeName, TableUid},
    sync::{Chunk, Position, Want},
};

use super::serve::{Served, Unserved};

/// What was handed out.
#[derive(Debug, Default)]
pub(super) struct Handed(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The greatest timestamp of what others have gone on from, or have sent themselves.
    met: Hlc,
    /// Of each reader and table the last answer: from where it was asked for, and its greatest timestamp.
    under_way: HashMap<(NodeName, TableUid), (Position, Hlc)>,
    /// How often timestamps were given anew.
    changes: u64,
}

/// A moment before rows are read to be handed out.
#[derive(Clone, Copy, Debug)]
struct Before(u64);

impl Handed {
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
        want: &Want,
        answer: impl FnOnce() -> Result<Served, E>,
    ) -> Result<Served, E> {
        let before = self.asked(reader, want);
        let served = answer()?;
        Ok(match &served {
            Served::Chunk(chunk) if !self.answered(before, reader, chunk) => {
                Served::Refused(Unserved::Busy)
            }
            Served::Chunk(_) | Served::Nothing | Served::Refused(_) => served,
        })
    }

    /// A reader asks. One that asks from the same place again has not taken what it was answered.
    fn asked(&self, reader: &NodeName, want: &Want) -> Before {
        let mut state = self.state();
        if let Some((from, newest)) = state.under_way.remove(&(reader.clone(), want.table))
            && from != want.position
        {
            state.met = newest.max(state.met);
        }
        Before(state.changes)
    }

    /// Notes an answer that is about to leave. False where its rows may have other timestamps by now: it must
    /// not leave then.
    fn answered(&self, before: Before, reader: &NodeName, chunk: &Chunk) -> bool {
        let mut state = self.state();
        if state.changes != before.0 {
            return false;
        }
        // Whoever takes it observes the clock that it tells too.
        let newest = chunk.rows.iter().map(|row| row.stamp.hlc).fold(chunk.hlc, Ord::max);
        let answer = (chunk.from.clone(), newest);
        state.under_way.insert((reader.clone(), chunk.table), answer);
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

    /// Timestamps are about to be given anew. Answers up to which one others may have met what is here.
    pub(super) fn changing(&self) -> Hlc {
        let mut state = self.state();
        state.changes += 1;
        state.under_way.values().map(|(_, newest)| *newest).fold(state.met, Ord::max)
    }
}
