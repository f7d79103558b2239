//! The giving side: which part of its replica a source reads for a request.
//! Reading the rows is the store's; who may ask is judged before, by the scope.

use cortex_mutant::mutant;

use super::{ChangeLogId, Cursor, Dot, PullRequest, SnapshotKind, VersionVector};

/// What a source is, as of the moment at which it reads its rows.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its change log.
    pub change_log: ChangeLogId,
    /// The greatest LSN of its database.
    pub lsn: u64,
    /// Up to where the change log was cut: entries up to here are gone.
    pub truncated_lsn: u64,
    /// Up to where it has collected deletions.
    pub gc_watermark: &'a VersionVector,
}

/// What to read next for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Rows in the order of their keys.
    Snapshot {
        /// How.
        kind: SnapshotKind,
        /// True where a snapshot transfer begins.
        starts: bool,
        /// From after this key.
        after: Vec<u8>,
        /// The LSN from which the change log is read afterwards.
        pinned: u64,
    },
    /// The change log, from after this number.
    Delta {
        /// Where the reader stands.
        after: u64,
    },
}

impl Source<'_> {
    /// What to read for a request. A snapshot transfer begins where the reader has no place in this change log, or
    /// one that was cut off; or where it may lack deletions that were collected.
    #[must_use]
    pub fn plan(&self, request: &PullRequest) -> Plan {
        let cursor = request.position.cursor.filter(|cursor| cursor.change_log == self.change_log);
        let snapshot = request.position.snapshot.as_ref().filter(|_| cursor.is_some());
        let is_stale = self.may_lack_deletions(&request.vector);
        let kind = Self::kind_for(is_stale);
        let is_outgrown = is_stale && snapshot.is_none_or(|running| running.kind != kind);
        let kept = cursor.filter(|cursor| !is_outgrown && !self.is_truncated(cursor));
        let Some(Cursor { lsn, .. }) = kept else {
            return Plan::Snapshot { kind, starts: true, after: Vec::new(), pinned: self.lsn };
        };
        match snapshot {
            Some(snapshot) => Plan::Snapshot {
                kind: snapshot.kind,
                starts: false,
                after: snapshot.after.clone(),
                pinned: lsn,
            },
            None => Plan::Delta { after: lsn },
        }
    }

    /// True of a reader that has not incorporated all whose deletion was collected here.
    #[mutant(WatermarkHeeded => false)]
    fn may_lack_deletions(&self, reader: &VersionVector) -> bool {
        !reader.dominates(self.gc_watermark)
    }

    /// A reader that may lack deletions learns of them only by what is not there any more.
    #[mutant(FullSnapshotBelowWatermark => SnapshotKind::Scan)]
    fn kind_for(is_stale: bool) -> SnapshotKind {
        if is_stale { SnapshotKind::Full } else { SnapshotKind::Scan }
    }

    #[mutant(TruncationHeeded => false)]
    fn is_truncated(&self, cursor: &Cursor) -> bool {
        cursor.lsn < self.truncated_lsn
    }
}

impl Plan {
    /// True where a row is to be sent: not where the reader has it already, except where everything
    /// is wanted, or where the row must pass by those who only think they have it.
    #[must_use]
    #[mutant(ReAnnouncedPasses, re_announced = false)]
    pub fn sends(&self, row: Dot, re_announced: bool, reader: &VersionVector) -> bool {
        !reader.covers(row) || self.is_unfiltered() || re_announced
    }

    #[mutant(FullSnapshotUnfiltered => false)]
    fn is_unfiltered(&self) -> bool {
        matches!(self, Self::Snapshot { kind: SnapshotKind::Full, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{ActorId, TableUid},
        replication::{Position, SnapshotTransfer},
    };

    const CHANGE_LOG: ChangeLogId = ChangeLogId([1; 16]);

    fn request(lsn: u64, kind: Option<SnapshotKind>, vector: VersionVector) -> PullRequest {
        let snapshot = kind.map(|kind| SnapshotTransfer { kind, number: 3, after: vec![7] });
        let position = Position { cursor: Some(Cursor { change_log: CHANGE_LOG, lsn }), snapshot };
        PullRequest { table: TableUid([1; 16]), reader: ActorId(1), epoch: 1, position, vector }
    }

    #[test]
    fn a_reader_goes_on_where_it_is_unless_entries_or_deletions_are_gone_that_it_needs() {
        let collected: VersionVector = [Dot { actor: ActorId(2), seq: 5 }].into_iter().collect();
        let source =
            Source { change_log: CHANGE_LOG, lsn: 90, truncated_lsn: 40, gc_watermark: &collected };
        let starts = |kind| Plan::Snapshot { kind, starts: true, after: vec![], pinned: 90 };
        let goes_on = |kind| Plan::Snapshot { kind, starts: false, after: vec![7], pinned: 50 };
        let (scan, full) = (SnapshotKind::Scan, SnapshotKind::Full);
        let knows = || collected.clone();
        assert_eq!(source.plan(&request(40, None, knows())), Plan::Delta { after: 40 });
        assert_eq!(source.plan(&request(39, None, knows())), starts(scan), "truncated");
        assert_eq!(source.plan(&request(50, Some(scan), knows())), goes_on(scan));
        assert_eq!(source.plan(&request(39, Some(scan), knows())), starts(scan), "truncated since");

        let lacks = VersionVector::new;
        assert_eq!(source.plan(&request(50, None, lacks())), starts(full));
        assert_eq!(source.plan(&request(50, Some(scan), lacks())), starts(full), "collected since");
        assert_eq!(source.plan(&request(50, Some(full), lacks())), goes_on(full));

        let of_another = Source { change_log: ChangeLogId([2; 16]), ..source };
        assert_eq!(of_another.plan(&request(50, Some(scan), knows())), starts(scan));
    }
}
