//! What differs between two replicas, key by key, and what may be concluded from it.
//! Doing something about it is left to the repair.

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::{
    api::{RowMark, Verdict},
    replication::{Dot, VersionVector},
};

/// One side's rows of some buckets, by key.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// What that side had incorporated before its rows were read.
    pub(super) vector: VersionVector,
    /// Up to where it had forgotten deletions by then.
    pub(super) gc_watermark: VersionVector,
    pub(super) marks: BTreeMap<Vec<u8>, RowMark>,
}

/// What differs between two sides, key by key.
pub(super) fn verdicts(here: &Rows, there: &Rows) -> Vec<(Vec<u8>, Verdict)> {
    let keys: BTreeSet<_> = here.marks.keys().chain(there.marks.keys()).collect();
    let judged = keys.into_iter().filter_map(|key| {
        let verdict = match (here.marks.get(key), there.marks.get(key)) {
            (Some(own), Some(theirs)) => of_both(own, theirs)?,
            (Some(own), None) => of_one(own, &there.vector, Verdict::OnlyHere)?,
            (None, Some(theirs)) => of_one(theirs, &here.vector, Verdict::OnlyThere)?,
            (None, None) => return None,
        };
        Some((key.clone(), verdict))
    });
    judged.collect()
}

impl Rows {
    /// True where a row that is here and has been seen by the other side was lost there, for certain. A deletion
    /// that the other side has forgotten is known to every replica: this one, having incorporated it, would not have
    /// the row. Only a side that lacks some of what was forgotten there may hold a row that was deleted.
    pub(super) fn outlives(&self, other: &Self) -> bool {
        self.vector.dominates(&other.gc_watermark)
    }
}

fn of_both(own: &RowMark, theirs: &RowMark) -> Option<Verdict> {
    match own.stamp.cmp(&theirs.stamp) {
        // Two deletions: neither side shows a row.
        _ if own.value.is_none() && theirs.value.is_none() => None,
        std::cmp::Ordering::Greater => Some(Verdict::NewerHere),
        std::cmp::Ordering::Less => Some(Verdict::NewerThere),
        std::cmp::Ordering::Equal => (own.value != theirs.value).then_some(Verdict::Unequal),
    }
}

/// A row that only one side has; the other one covers so much.
fn of_one(row: &RowMark, other: &VersionVector, kept: Verdict) -> Option<Verdict> {
    row.value?; // a deletion, which the other has forgotten or not received: neither shows a row
    let dot = Dot { actor: row.stamp.actor, seq: row.seq };
    Some(if other.covers(dot) { kept } else { Verdict::OnItsWay })
}

pub(super) fn by_key(mark: RowMark) -> (Vec<u8>, RowMark) {
    (mark.key.clone(), mark)
}

#[cfg(test)]
mod tests {
    use cortex_core::model::{ActorId, Hlc, Stamp};

    use super::*;

    fn mark(key: &str, at: u64, by: u128, seq: u64, value: Option<u8>) -> RowMark {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(at), actor: ActorId(by) };
        RowMark { key: key.into(), stamp, seq, value: value.map(|byte| [byte; 32]) }
    }

    fn rows(covers: &[(u128, u64)], marks: &[RowMark]) -> Rows {
        let dot = |(by, seq): &(u128, u64)| Dot { actor: ActorId(*by), seq: *seq };
        Rows {
            vector: covers.iter().map(dot).collect(),
            gc_watermark: VersionVector::new(),
            marks: marks.iter().cloned().map(by_key).collect(),
        }
    }

    fn verdict(here: &Rows, there: &Rows) -> Option<Verdict> {
        let found = verdicts(here, there);
        assert!(found.len() <= 1, "{found:?}");
        found.first().map(|(_, verdict)| *verdict)
    }

    /// holds R6
    #[test]
    fn a_row_that_one_side_has_is_on_its_way_or_kept_and_never_deleted() {
        let (live, gone) = (mark("k", 5, 1, 3, Some(1)), mark("k", 5, 1, 3, None));
        let seen = rows(&[(1, 3)], &[]);
        let unseen = rows(&[(1, 2)], &[]);
        let has = |mark: &RowMark| rows(&[(1, 3)], std::slice::from_ref(mark));
        assert_eq!(verdict(&has(&live), &unseen), Some(Verdict::OnItsWay));
        assert_eq!(verdict(&has(&live), &seen), Some(Verdict::OnlyHere));
        assert_eq!(verdict(&unseen, &has(&live)), Some(Verdict::OnItsWay));
        assert_eq!(verdict(&seen, &has(&live)), Some(Verdict::OnlyThere));
        // Neither side shows the row.
        assert_eq!(verdict(&has(&gone), &seen), None);
    }

    /// holds R6
    #[test]
    fn a_row_is_lost_for_certain_where_every_deletion_that_was_forgotten_is_known() {
        let here = rows(&[(1, 3)], &[mark("k", 5, 1, 3, Some(1))]);
        let mut there = rows(&[(1, 3)], &[]);
        assert!(here.outlives(&there), "nothing was forgotten");
        there.gc_watermark = rows(&[(1, 3)], &[]).vector;
        assert!(here.outlives(&there), "what was forgotten is known here");
        there.gc_watermark = rows(&[(2, 1)], &[]).vector;
        assert!(!here.outlives(&there), "the row may have been deleted by what is not known here");
    }

    /// holds R6
    #[test]
    fn of_two_versions_the_later_one_is_told_again() {
        let all = [(1, 9), (2, 9)];
        let old = rows(&all, &[mark("k", 5, 1, 3, Some(1))]);
        let new = rows(&all, &[mark("k", 6, 2, 4, Some(2))]);
        let deleted = rows(&all, &[mark("k", 7, 2, 5, None)]);
        assert_eq!(verdict(&old, &new), Some(Verdict::NewerThere));
        assert_eq!(verdict(&new, &old), Some(Verdict::NewerHere));
        assert_eq!(verdict(&deleted, &old), Some(Verdict::NewerHere));
        assert_eq!(verdict(&old, &old), None);
        let damaged = rows(&all, &[mark("k", 5, 1, 3, Some(8))]);
        assert_eq!(verdict(&old, &damaged), Some(Verdict::Unequal));
    }
}
