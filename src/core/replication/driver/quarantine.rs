//! Rows of another node's directory that cannot be verified: what stands behind them is read all the same.
//! Which rows are good is the store's to say; when to ask, the session's.
//!
//! A batch with such a row is not applied: on disk, the place in the change log and what is known to be incorporated
//! stay before it, so that nothing is claimed that is not there. Its other rows, each signed by its writer, are learnt,
//! and the source is asked for what follows from a place that is kept here alone. Every so often the store's own
//! place is asked from once more: the row may be good by then, or another may stand in its place.
//!
//! ```text
//!   store's place ──(all rows are good)──> applied: the store's place moves on
//!        ^   └──────(one is not)─────────> learnt: read on from behind it ──> learnt, up to the end
//!        └──(after a pause that doubles)──────────────┘
//! ```

use std::time::Duration;

use cortex_mutant::mutant;

use super::{Driver, Node, Note, Output};
use crate::{
    backoff::Backoff,
    replication::{
        Batch, Change, Position, Quarantined, SYSTEM_TABLE, UnverifiedRow, VersionVector,
    },
};

/// The pause before rows that cannot be verified are asked for again. It doubles: all that stands behind them is
/// read again too.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The pause where what follows is just being asked for, or stored.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Rows of one batch that are named to the operator.
const NAMED: usize = 64;

/// How far a source's directory was read beyond rows that cannot be verified; nothing where there are none.
#[derive(Debug, Default)]
pub(super) struct Quarantine(Option<ReadAhead>);

#[derive(Debug)]
struct ReadAhead {
    position: Position,
    /// What has come up to there, as the source says.
    vector: VersionVector,
    /// True while what follows is asked for, and not what stands at the store's own place.
    ahead: bool,
    /// True once the end was read.
    ended: bool,
    /// True once the source has said since then that there is nothing more.
    waits: bool,
    check_at: Duration,
    backoff: Backoff,
}

impl Quarantine {
    /// Where to ask from, if it is not where the store says.
    pub(super) fn next(&self) -> Option<Position> {
        let place = self.0.as_ref().filter(|place| place.ahead)?;
        Some(place.position.clone())
    }

    /// When the store's own place is to be asked from once more.
    pub(super) fn check_at(&self) -> Option<Duration> {
        // Not before the last request was answered: what comes then is the answer to the next one.
        let place = self.0.as_ref().filter(|place| place.ahead && place.ended && place.waits)?;
        Some(place.check_at)
    }

    /// Where it is time for that: it is asked from next. `ask` has it asked for, if that can be now.
    #[mutant(QuarantineRetried => ())]
    pub(super) fn check(&mut self, now: Duration, ask: impl FnOnce() -> bool) {
        let is_due = self.check_at().is_some_and(|at| at <= now);
        if let Some(place) = self.0.as_mut().filter(|_| is_due) {
            if ask() {
                place.ahead = false;
            } else {
                place.check_at = now + BUSY_PAUSE;
            }
        }
    }

    /// What the source need not send again where it is asked from there; none for the store's own place.
    pub(super) fn vector_at(&self, from: &Position) -> Option<&VersionVector> {
        self.0.as_ref().filter(|place| place.position == *from).map(|place| &place.vector)
    }

    /// True of a batch from there: what stands before it is not stored as a whole.
    #[mutant(QuarantinePassed => false)]
    pub(super) fn is_behind(&self, from: &Position) -> bool {
        self.vector_at(from).is_some()
    }

    /// True while there are rows that cannot be verified.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Goes on behind a batch that was learnt and not applied.
    fn pass(&mut self, batch: &Batch, now: Duration) {
        let mut place = match self.0.take() {
            Some(place) if place.position == batch.from => place,
            before => {
                let new = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
                let mut backoff = before.map_or(new, |place| place.backoff);
                ReadAhead {
                    position: batch.from.clone(),
                    vector: VersionVector::new(),
                    ahead: true,
                    ended: false,
                    waits: false,
                    check_at: now + backoff.next_pause(),
                    backoff,
                }
            }
        };
        // A snapshot transfer that is read here alone has a number that none in the store has.
        place.position = batch.leads_to(0);
        place.waits = false;
        if batch.is_last() {
            place.vector.join(&batch.vector);
            place.ended = true;
        }
        self.0 = Some(place);
    }

    /// The source has nothing for what it was asked last; true where that was from the store's own place: then all that
    /// it has is here, also what has come from elsewhere meanwhile.
    fn waits(&mut self) -> bool {
        if let Some(place) = self.0.as_mut().filter(|place| place.ahead) {
            place.waits = true;
            return false;
        }
        self.0 = None;
        true
    }

    /// The store has applied a batch; true where it has come to the end by that, and nothing is left behind.
    fn applied(&mut self, batch: &Batch) -> bool {
        batch.is_last() && self.0.take().is_some()
    }
}

impl Driver {
    /// Takes note of a batch of which the good rows were learnt.
    pub(super) fn learnt(
        &mut self,
        batch: &Batch,
        keys: Vec<Vec<u8>>,
        unverified: Vec<UnverifiedRow>,
        here: &impl Node,
        now: Duration,
    ) {
        self.quarantine.pass(batch, now);
        let news = self.quarantined.note(&keys, unverified.clone());
        let change = Change::Learnt { keys, unverified };
        self.note_of_peer(SYSTEM_TABLE, change);
        // Before anything else is asked for: what depends on such a row is not.
        self.follow(here, now);
        let named = news.into_iter().take(NAMED).map(Note::Quarantined).map(Output::Note);
        self.outputs.extend(named);
    }

    /// Takes note that the store has applied a batch of the directory as a whole.
    pub(super) fn directory_applied(&mut self, batch: &Batch, here: &impl Node, now: Duration) {
        let is_clear = self.quarantine.applied(batch);
        if is_clear || (batch.is_last() && !self.quarantine.is_open()) {
            self.release(here, now);
        }
    }

    /// Takes note that the source has nothing for what it was asked of the directory.
    pub(super) fn directory_waits(&mut self, here: &impl Node, now: Duration) {
        if self.quarantine.waits() {
            self.release(here, now);
        }
    }

    /// What was withheld for rows that could not be verified is asked for.
    #[mutant(QuarantineReleased => ())]
    fn release(&mut self, here: &impl Node, now: Duration) {
        let before = std::mem::take(&mut self.quarantined);
        if before != Quarantined::default() {
            self.note_of_peer(SYSTEM_TABLE, Change::NothingQuarantined);
            self.follow(here, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::ActorId,
        replication::{ChangeLogId, Cursor, Dot, Part},
    };

    fn position(lsn: u64) -> Position {
        Position { cursor: Some(Cursor { change_log: ChangeLogId([1; 16]), lsn }), snapshot: None }
    }

    fn batch(from: u64, to: u64, last: bool) -> Batch {
        let dot = Dot { actor: ActorId(1), seq: to };
        let part = Part::Delta { to, last };
        Batch {
            vector: [dot].into_iter().collect(),
            ..Batch::empty(SYSTEM_TABLE, ActorId(2), position(from), ChangeLogId([1; 16]), part)
        }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_stands_behind_is_read_to_its_end_before_the_store_s_place_is_asked_from_again() {
        let mut quarantine = Quarantine::default();
        assert_eq!((quarantine.next(), quarantine.check_at()), (None, None));
        quarantine.pass(&batch(0, 5, false), at(0));
        assert_eq!(quarantine.next(), Some(position(5)));
        quarantine.check(at(60), || panic!("the end was not read"));
        quarantine.pass(&batch(5, 9, true), at(1));
        assert_eq!(quarantine.next(), Some(position(9)));
        assert_eq!(
            quarantine.vector_at(&position(9)).map(VersionVector::len),
            Some(1),
            "it is not sent again"
        );
        assert_eq!(quarantine.vector_at(&position(0)), None, "all of it is, from there");
        quarantine.check(at(60), || panic!("the last request is not answered"));
        assert!(!quarantine.waits());
        quarantine.check(at(1), || panic!("it is too early"));
        quarantine.check(at(2), || false);
        assert_eq!(quarantine.check_at(), Some(at(2) + BUSY_PAUSE), "it was busy");
        quarantine.check(at(3), || true);
        assert_eq!(
            (quarantine.next(), quarantine.check_at()),
            (None, None),
            "the store says from where"
        );

        quarantine.pass(&batch(0, 5, false), at(2));
        quarantine.pass(&batch(5, 9, true), at(2));
        assert!(!quarantine.waits());
        quarantine.check(at(5), || panic!("the pause is twice as long"));
        quarantine.check(at(6), || true);
        assert!(!quarantine.applied(&batch(0, 5, false)));
        assert!(quarantine.is_open());
        assert!(quarantine.applied(&batch(5, 9, true)), "the store has come to the end");
        assert!(!quarantine.is_open());
    }
    #[test]
    fn what_has_come_from_elsewhere_meanwhile_is_left_behind_no_more() {
        let mut quarantine = Quarantine::default();
        assert!(quarantine.waits(), "nothing is missing where a link begins");
        quarantine.pass(&batch(0, 5, true), at(0));
        assert!(!quarantine.waits(), "it was asked from behind the row");
        quarantine.check(at(2), || true);
        assert!(quarantine.waits());
        assert!(!quarantine.is_open());
    }
}
