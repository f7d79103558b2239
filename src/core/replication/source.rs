//! The giving side: which part of its replica a source reads for a request.
//! Reading the rows is the store's; who may ask is judged before, by the scope.

use super::{ChangeLogId, Cursor, Dot, PullRequest, SnapshotKind, VersionVector};
use crate::rule::Rule;

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
    /// one that
    /// was cut off; or where it may lack deletions that were collected.
    #[must_use]
    pub fn plan(&self, request: &PullRequest) -> Plan {
        let cursor = request.position.cursor.filter(|cursor| cursor.change_log == self.change_log);
        let snapshot = request.position.snapshot.as_ref().filter(|_| cursor.is_some());
        let stale = Rule::WatermarkHeeded.holds() && !request.vector.dominates(self.gc_watermark);
        let whole = Rule::FullSnapshotBelowWatermark.holds();
        let outgrown =
            stale && snapshot.is_none_or(|snapshot| snapshot.kind == SnapshotKind::Scan && whole);
        let is_cut =
            |cursor: &Cursor| Rule::TruncationHeeded.holds() && cursor.lsn < self.truncated_lsn;
        let Some(Cursor { lsn, .. }) = cursor.filter(|cursor| !is_cut(cursor) && !outgrown) else {
            let kind = if stale && whole { SnapshotKind::Full } else { SnapshotKind::Scan };
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
}

impl Plan {
    /// True where a row is to be sent: not where the reader has it already, except where everything
    /// is wanted, or where the row must pass by those who only think they have it.
    #[must_use]
    pub fn sends(&self, row: Dot, re_announced: bool, reader: &VersionVector) -> bool {
        let unfiltered = matches!(self, Self::Snapshot { kind: SnapshotKind::Full, .. });
        !reader.covers(row)
            || (unfiltered && Rule::FullSnapshotUnfiltered.holds())
            || (re_announced && Rule::ReAnnouncedPasses.holds())
    }
}
