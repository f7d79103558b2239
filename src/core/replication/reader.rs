//! The taking side: whether a batch is of use, where it brings the reader, and what it concludes.
//! How a row meets the one that is there is `resolve`'s; storing it all is the store's.

use cortex_mutant::mutant;

use super::{Batch, Cursor, Part, Position, SnapshotKind, SnapshotTransfer, VersionVector};
use crate::{
    directory::{Seen, Standing},
    model::{ActorId, Hlc},
};

/// What a reader is, in the transaction that takes a batch.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// Which actor it is.
    pub actor: ActorId,
    /// What it is by the scope; only a replica that is in it takes rows.
    pub standing: Standing,
    /// Where it stands in the source's replica.
    pub position: &'a Position,
    /// Up to where it has collected deletions itself.
    pub gc_watermark: &'a VersionVector,
    /// How far it knows the decisions about the scope.
    pub knowledge: &'a Seen,
    /// The replica epoch of the source's replica that is known to have ended; 0 for none.
    pub source_gone: u64,
    /// The latest timestamp that it believes.
    pub latest: Hlc,
}

/// Why a batch is not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It answers a request from a position, or an actor, that is past. Ask again.
    Past,
    /// Its source knows decisions about the scope that are not known here: those come first.
    ScopeUnknown,
    /// This replica may not take rows.
    NotInScope,
    /// The source's replica has ended.
    SourceGone,
    /// The source may offer rows whose deletion was collected here: it must read this replica first.
    SourceStale,
    /// A row is from the future, by so many milliseconds.
    Ahead {
        /// More than is believed.
        by_ms: u64,
    },
}

impl Reader<'_> {
    /// Judges a batch.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn admit(&self, batch: &Batch) -> Result<(), Unfit> {
        if !self.is_actor(batch.reader) || !self.is_at(&batch.from) {
            Err(Unfit::Past)
        } else if !self.knows(&batch.knowledge) {
            Err(Unfit::ScopeUnknown)
        } else if !self.may_hold_rows() {
            Err(Unfit::NotInScope)
        } else if self.has_ended(batch.epoch) {
            Err(Unfit::SourceGone)
        } else if self.may_resurrect(batch) {
            Err(Unfit::SourceStale)
        } else {
            self.ahead_of_clock(batch).map_or(Ok(()), |by_ms| Err(Unfit::Ahead { by_ms }))
        }
    }

    #[mutant(AnswersThisActor => true)]
    fn is_actor(&self, asked: ActorId) -> bool {
        asked == self.actor
    }

    #[mutant(AnswersThisPosition => true)]
    fn is_at(&self, asked_from: &Position) -> bool {
        asked_from == self.position
    }

    /// True where all decisions about the scope that the source knows are known here.
    #[mutant(ScopeBeforeRows => true)]
    fn knows(&self, decisions: &Seen) -> bool {
        decisions
            .iter()
            .all(|(node, count)| self.knowledge.get(node).is_some_and(|known| known >= count))
    }

    #[mutant(TakerInScope => true)]
    fn may_hold_rows(&self) -> bool {
        self.standing == Standing::In
    }

    #[mutant(EndedSourceRefused => false)]
    fn has_ended(&self, source_epoch: u64) -> bool {
        source_epoch <= self.source_gone
    }

    /// True for a batch that may hold rows whose deletion was collected here.
    #[mutant(StaleSourceRefused => false)]
    fn may_resurrect(&self, batch: &Batch) -> bool {
        // A source that is leaving reads nothing more: what it has is taken, or it would be lost.
        let is_leaving = batch.standing != Standing::In;
        !batch.is_whole() && !is_leaving && !batch.vector.dominates(self.gc_watermark)
    }

    /// By how many milliseconds a batch is from a future that is not believed.
    #[mutant(FutureRefused => None)]
    fn ahead_of_clock(&self, batch: &Batch) -> Option<u64> {
        let newest = batch.rows.iter().map(|row| row.stamp.hlc).fold(batch.hlc, Ord::max);
        (newest > self.latest).then(|| newest.unix_ms().saturating_sub(self.latest.unix_ms()))
    }
}

/// What a reader keeps of the beginning of a snapshot transfer: what the source knew then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStart {
    /// What it had incorporated.
    pub vector: VersionVector,
    /// Up to where it had collected.
    pub gc_watermark: VersionVector,
}

/// What follows from a batch once its rows are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchEffects {
    /// Where the reader stands now.
    pub position: Position,
    /// What is incorporated besides, since nothing that it covers can be missing.
    pub join: Option<VersionVector>,
    /// At the end of a full snapshot transfer, what becomes of rows that the source did not send.
    pub sweep: Option<Sweep>,
    /// True where the replica is whole now, if the source's is.
    pub whole: bool,
}

/// The end of a full snapshot transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Rows that the source did not send in the snapshot transfer go where this covers them: the source has seen
    /// them, and has them no more.
    pub covered: VersionVector,
    /// The source's GC watermark, which is the reader's from now on too.
    pub gc_watermark: VersionVector,
}

impl Batch {
    /// True for a part of a full snapshot transfer, which holds for whatever the reader lacks.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.part, Part::Snapshot { kind: SnapshotKind::Full, .. })
    }

    /// True for the first batch of a snapshot transfer.
    #[must_use]
    pub fn starts_snapshot(&self) -> bool {
        matches!(self.part, Part::Snapshot { starts: true, .. })
    }

    /// Where the batch brings a reader that takes it. `number` is the number of the snapshot transfer that it
    /// starts, if it does.
    #[must_use]
    pub fn leads_to(&self, number: u64) -> Position {
        let at = |lsn| Some(Cursor { change_log: self.change_log, lsn });
        match &self.part {
            Part::Delta { to, .. } => Position { cursor: at(*to), snapshot: None },
            Part::Snapshot { kind, starts, pinned, reached } => {
                let running = self.from.snapshot.as_ref().filter(|_| !starts);
                let number = running.map_or(number, |snapshot| snapshot.number);
                let snapshot = |after: &Vec<u8>| SnapshotTransfer {
                    kind: *kind,
                    number,
                    after: after.clone(),
                };
                Position { cursor: at(*pinned), snapshot: reached.as_ref().map(snapshot) }
            }
        }
    }

    /// What follows from the batch. `start` is what was kept of the beginning of its snapshot transfer, or the
    /// batch's own vector where it is the beginning.
    ///
    /// A snapshot transfer concludes with what the source knew at its *beginning*: rows have moved since, behind
    /// the place that the snapshot transfer had reached. They come by the change log, whose end concludes with what the
    /// source knows then.
    #[must_use]
    #[mutant(SnapshotConcludesWithItsStart, start = self.snapshot_start())]
    pub fn conclude(&self, number: u64, start: SnapshotStart) -> BatchEffects {
        let position = self.leads_to(number);
        match &self.part {
            Part::Delta { last, .. } => BatchEffects {
                position,
                join: self.joined_by_delta(*last),
                sweep: None,
                whole: *last,
            },
            Part::Snapshot { reached: Some(_), .. } => {
                BatchEffects { position, join: None, sweep: None, whole: false }
            }
            Part::Snapshot { kind, reached: None, .. } => {
                let sweep = match kind {
                    SnapshotKind::Full => Some(Sweep {
                        covered: start.vector.clone(),
                        gc_watermark: start.gc_watermark,
                    }),
                    SnapshotKind::Scan => None,
                };
                BatchEffects { position, join: Some(start.vector), sweep, whole: true }
            }
        }
    }

    /// What is incorporated with a part of the change log: rows before its end may come late, of an older number.
    #[mutant(VectorAtTheEnd, last = true)]
    fn joined_by_delta(&self, last: bool) -> Option<VersionVector> {
        last.then(|| self.vector.clone())
    }

    /// What is to be kept of a batch that begins a snapshot transfer.
    #[must_use]
    pub fn snapshot_start(&self) -> SnapshotStart {
        SnapshotStart { vector: self.vector.clone(), gc_watermark: self.gc_watermark.clone() }
    }
}
