//! The newest changes of replicas, kept in memory: another machine that has all others gets them without a
//! read of the file. What a batch says besides is `read_batch`'s.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use cortex_core::{
    model::{Hlc, Stamp, TableUid},
    replication::{Dot, VersionVector},
};

/// Changes that are kept, of all tables together, and bytes of their keys and values. Whoever is further
/// behind than that is read from the file, where reading pays.
const CHANGES: usize = 128;
const BYTES: usize = 64 << 10;

/// One row as one transaction has left it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) table: TableUid,
    pub(super) lsn: u64,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) stamp: Stamp,
    pub(super) seq: u64,
    pub(super) context: Arc<VersionVector>,
}

impl Change {
    pub(super) fn dot(&self) -> Dot {
        Dot { actor: self.stamp.actor, seq: self.seq }
    }

    pub(super) fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + 32
    }
}

/// What a transaction has changed so far.
#[derive(Debug, Default)]
pub(super) struct PendingChanges {
    changes: Vec<Arc<Change>>,
    bytes: usize,
    /// True once there is more than is kept, or a change that is not among these.
    broken: bool,
}

impl PendingChanges {
    /// True where another change is of use.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        !self.broken && self.changes.len() < CHANGES && self.bytes + bytes <= BYTES
    }

    pub(super) fn add(&mut self, change: Change) {
        self.bytes += change.bytes();
        self.changes.push(Arc::new(change));
    }

    /// Something has changed that is not kept here: readers that are behind it read the file.
    pub(super) fn mark_incomplete(&mut self) {
        *self = Self { broken: true, ..Self::default() };
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }
}

/// The changes of the last transactions, as of the commit of the last.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    /// All changes with a LSN above this one are here.
    after: u64,
    /// The greatest LSN, and the hybrid clock, of that commit.
    pub(super) lsn: u64,
    pub(super) hlc: Hlc,
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
}

impl Recent {
    /// Nothing, from a commit on.
    pub(super) fn from(lsn: u64, hlc: Hlc) -> Self {
        Self { after: lsn, lsn, hlc, ..Self::default() }
    }

    /// Adds what a transaction has changed, which is committed.
    pub(super) fn add(&mut self, fresh: PendingChanges, lsn: u64, hlc: Hlc) {
        if fresh.broken {
            *self = Self::from(lsn, hlc);
            return;
        }
        (self.lsn, self.hlc) = (lsn, hlc);
        self.bytes += fresh.bytes;
        self.changes.extend(fresh.changes);
        while self.changes.len() > CHANGES || self.bytes > BYTES {
            let Some(oldest) = self.changes.pop_front() else { return };
            self.bytes -= oldest.bytes();
            self.after = oldest.lsn;
        }
    }

    /// The rows of a table that have changed after a LSN, each once, in the order of their last
    /// changes; none where not all of them are kept.
    pub(super) fn since(&self, table: TableUid, after: u64) -> Option<Vec<&Change>> {
        if after < self.after {
            return None;
        }
        let mut seen = BTreeSet::new();
        let newest_first = self.changes.iter().rev().take_while(|change| change.lsn > after);
        let of_table = newest_first.filter(|change| change.table == table);
        let mut rows: Vec<&Change> =
            of_table.filter(|change| seen.insert(&change.key)).map(Arc::as_ref).collect();
        rows.reverse();
        Some(rows)
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::model::ActorId;

    use super::*;

    fn change(lsn: u64, table: u8, key: &str, bytes: usize) -> Change {
        Change {
            table: TableUid([table; 16]),
            lsn,
            key: key.into(),
            value: Some(vec![0; bytes]),
            stamp: Stamp { hlc: Hlc::default(), actor: ActorId::default() },
            seq: lsn,
            context: Arc::default(),
        }
    }

    fn add(recent: &mut Recent, change: Change) {
        let (mut fresh, lsn) = (PendingChanges::default(), change.lsn);
        if fresh.takes(change.bytes()) {
            fresh.add(change);
        } else {
            fresh.mark_incomplete();
        }
        recent.add(fresh, lsn, Hlc::default());
    }

    fn since(recent: &Recent, table: u8, after: u64) -> Option<Vec<u64>> {
        let rows = recent.since(TableUid([table; 16]), after)?;
        Some(rows.iter().map(|change| change.lsn).collect())
    }

    #[test]
    fn a_row_is_told_once_as_it_is_now() {
        let mut recent = Recent::from(10, Hlc::default());
        for (lsn, table, key) in [(11, 1, "a"), (12, 1, "b"), (13, 2, "a"), (14, 1, "a")] {
            add(&mut recent, change(lsn, table, key, 1));
        }
        assert_eq!(since(&recent, 1, 10), Some(vec![12, 14]));
        assert_eq!(since(&recent, 1, 12), Some(vec![14]));
        assert_eq!(since(&recent, 2, 10), Some(vec![13]));
        assert_eq!(since(&recent, 1, 14), Some(vec![]));
        assert_eq!(since(&recent, 1, 9), None, "something may have come before");
    }

    #[test]
    fn what_is_kept_has_a_bound_and_says_from_where_it_is_whole() {
        let mut recent = Recent::from(0, Hlc::default());
        for lsn in 1..=1000 {
            add(&mut recent, change(lsn, 1, &lsn.to_string(), 1));
        }
        assert_eq!(recent.changes.len(), CHANGES);
        let whole_after = 1000 - CHANGES as u64;
        assert_eq!(since(&recent, 1, whole_after).map(|rows| rows.len()), Some(CHANGES));
        assert_eq!(since(&recent, 1, whole_after - 1), None);
        for lsn in 1001..=1100 {
            add(&mut recent, change(lsn, 1, "k", 10_000));
            assert!(recent.bytes <= BYTES);
        }
    }

    #[test]
    fn nothing_is_told_across_what_is_not_kept() {
        let mut recent = Recent::from(0, Hlc::default());
        add(&mut recent, change(1, 1, "a", 1));
        add(&mut recent, change(2, 1, "large", BYTES));
        add(&mut recent, change(3, 1, "b", 1));
        assert_eq!(since(&recent, 1, 1), None);
        assert_eq!(since(&recent, 1, 2), Some(vec![3]));
    }
}
