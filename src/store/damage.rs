//! Rows that are not what was stored: noted by the reader that finds one, reported once, known until they are replaced.
//! Telling the operator, and asking other machines for sound ones, is the service's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cortex_core::model::TableId;
use tokio::sync::watch;

/// Keys that are kept of one table. A disk that has lost more is replaced, not mended key by key.
const KEPT: usize = 1000;

/// Which rows are damaged, as far as they were read. In memory alone: the checksum beside the row is the proof.
#[derive(Debug)]
pub(super) struct Damage {
    /// Locked for a look-up or a change of one entry.
    known: Mutex<KnownDamage>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct KnownDamage {
    rows: BTreeMap<TableId, BTreeSet<Vec<u8>>>,
    news: DamageNews,
}

/// What has changed since it was asked about last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DamageNews {
    /// Rows that were found to be damaged.
    pub found: Vec<(TableId, Vec<u8>)>,
    /// Rows that were damaged and were replaced or removed.
    pub gone: Vec<(TableId, Vec<u8>)>,
}

impl Damage {
    pub(super) fn new() -> Self {
        Self { known: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Notes a damaged row.
    pub(super) fn found(&self, table: TableId, key: &[u8]) {
        let mut known = self.known();
        let rows = known.rows.entry(table).or_default();
        if rows.len() >= KEPT || !rows.insert(key.to_vec()) {
            return;
        }
        known.news.found.push((table, key.to_vec()));
        drop(known);
        self.changed.send_replace(());
    }

    /// Notes that a row is sound, or is not there any more.
    pub(super) fn gone(&self, table: TableId, key: &[u8]) {
        let mut known = self.known();
        let Some(rows) = known.rows.get_mut(&table) else { return };
        if !rows.remove(key) {
            return;
        }
        if rows.is_empty() {
            known.rows.remove(&table);
        }
        known.news.gone.push((table, key.to_vec()));
        drop(known);
        self.changed.send_replace(());
    }

    /// What was found in a table.
    pub(super) fn of(&self, table: TableId) -> Vec<Vec<u8>> {
        self.known().rows.get(&table).into_iter().flatten().cloned().collect()
    }

    /// How many rows of each table.
    pub(super) fn counts(&self) -> BTreeMap<TableId, u64> {
        self.known().rows.iter().map(|(table, rows)| (*table, rows.len() as u64)).collect()
    }

    /// Forgets a table that is gone.
    pub(super) fn forget(&self, table: TableId) {
        self.known().rows.remove(&table);
    }

    pub(super) fn take_news(&self) -> DamageNews {
        std::mem::take(&mut self.known().news)
    }

    /// Changes when there is news.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn known(&self) -> MutexGuard<'_, KnownDamage> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(1);

    #[test]
    fn a_damaged_row_is_told_once_and_again_when_it_is_gone() {
        let damage = Damage::new();
        damage.found(TABLE, b"k");
        damage.found(TABLE, b"k");
        let news = damage.take_news();
        assert_eq!((news.found, news.gone), (vec![(TABLE, b"k".to_vec())], vec![]));
        assert_eq!(damage.of(TABLE), [b"k".to_vec()]);
        damage.gone(TABLE, b"other");
        damage.gone(TABLE, b"k");
        let news = damage.take_news();
        assert_eq!((news.found, news.gone), (vec![], vec![(TABLE, b"k".to_vec())]));
        assert!(damage.of(TABLE).is_empty() && damage.counts().is_empty());
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let damage = Damage::new();
        (0..2 * KEPT).for_each(|n| damage.found(TABLE, &n.to_be_bytes()));
        assert_eq!(damage.counts()[&TABLE], KEPT as u64);
        assert_eq!(damage.take_news().found.len(), KEPT);
    }
}
