//! The true history of a run, kept apart from what the databases believe: every write, every decision,
//! and of each disk what it has ever incorporated. What must hold of it is the invariants' (`i01_…`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use cortex_core::{
    directory::Seen,
    model::{ActorId, Hlc, NodeName, Stamp, TableUid},
    replication::{ChangeLogId, Dot},
};
use cortexd::store::{Database, Replica};

/// A key of a table.
pub(crate) type Place = (TableUid, Vec<u8>);

/// Writes of one key that somebody knew of.
pub(crate) type Known = Arc<BTreeSet<Dot>>;

/// A write as it was made.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) place: Place,
    pub(crate) stamp: Stamp,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) node: usize,
    /// When.
    pub(crate) at_ms: u64,
    /// The decisions about the table's scope that its writer knew.
    pub(crate) past: BTreeSet<usize>,
}

/// A decision about a scope.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    pub(crate) table: TableUid,
    by: NodeName,
    /// None for all.
    pub(crate) scope: Option<BTreeSet<usize>>,
    /// The decisions that it knew.
    pub(crate) past: BTreeSet<usize>,
    /// The replica epochs that were over by it.
    pub(crate) off: Seen,
}

/// All that has happened.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) writes: BTreeMap<Dot, Write>,
    pub(crate) by_place: HashMap<Place, Vec<Dot>>,
    pub(crate) stamps: HashMap<Stamp, Dot>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) numbered: HashMap<(TableUid, NodeName, u64), usize>,
    /// What stood at a LSN.
    pub(crate) change_logs: HashMap<(ChangeLogId, u64), (Vec<u8>, Dot)>,
    /// Pairs of writes whose conflict somebody has written down.
    pub(crate) ledger: BTreeSet<(Dot, Dot)>,
    /// Of each key, the newest version that a disk in the mesh has incorporated.
    pub(crate) expected: BTreeMap<Place, (Stamp, Dot)>,
    /// Keys that a write holds which nobody's vector covers, and which is older than a collected
    /// deletion: kept rather than lost, the same everywhere.
    pub(crate) orphans: BTreeSet<Place>,
    /// When each deletion was first forgotten.
    pub(crate) collected: BTreeMap<Dot, u64>,
    /// Stays of replicas that were lost without being handed over.
    pub(crate) lost: BTreeSet<(TableUid, NodeName, u64)>,
}

/// A row as it stands in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) dot: Dot,
    pub(crate) stamp: Stamp,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) lsn: u64,
    /// What the writers of the versions that this one has met had seen.
    pub(crate) known: Known,
}

/// A replica as it was after the last command.
#[derive(Clone, Debug, Default)]
pub(crate) struct CopyView {
    /// As it was when its rows were read.
    pub(crate) seen: Option<Replica>,
    pub(crate) number: Option<i64>,
    pub(crate) epoch: u64,
    pub(crate) rows: BTreeMap<Vec<u8>, Version>,
}

/// What the truth is of one disk. It is rolled back with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) copies: BTreeMap<TableUid, CopyView>,
    /// The newest version of a key that was ever incorporated.
    pub(crate) shadow: BTreeMap<Place, (Stamp, Dot)>,
    /// The writes of a key that are known.
    pub(crate) known: BTreeMap<Place, Known>,
    /// The decisions that are known.
    pub(crate) decided: BTreeMap<TableUid, BTreeSet<usize>>,
    pub(crate) lsn: u64,
    /// The removals of nodes that it knows, or has rows from somebody who knew.
    pub(crate) removals: BTreeSet<usize>,
}

impl Disk {
    pub(crate) fn raise(&mut self, place: &Place, version: (Stamp, Dot)) {
        let newest = self.shadow.entry(place.clone()).or_insert(version);
        *newest = version.max(*newest);
    }

    pub(crate) fn know(&mut self, place: &Place, more: &BTreeSet<Dot>) {
        let known = self.known.entry(place.clone()).or_default();
        if !more.is_subset(known) {
            *known = Arc::new(known.union(more).copied().collect());
        }
    }

    pub(crate) fn forget(&mut self, table: TableUid) {
        self.shadow.retain(|(of, _), _| *of != table);
        self.known.retain(|(of, _), _| *of != table);
    }

    pub(crate) fn decided(&self, table: TableUid) -> BTreeSet<usize> {
        self.decided.get(&table).cloned().unwrap_or_default()
    }

    pub(crate) fn version(&self, place: &Place) -> Option<&Version> {
        self.copies.get(&place.0)?.rows.get(&place.1)
    }
}

impl History {
    /// The decisions that no other known one had seen. Of each node the newest alone counts: one that
    /// was rolled back has forgotten with its older one what that one had seen, and decides narrower.
    pub(crate) fn latest(&self, known: &BTreeSet<usize>) -> Vec<&Decision> {
        let known = self.newest_of_each(known);
        let replaced =
            |one: &usize| known.iter().any(|other| self.decisions[*other].past.contains(one));
        known.iter().filter(|one| !replaced(one)).map(|one| &self.decisions[*one]).collect()
    }

    /// The decisions that each node has made last.
    pub(crate) fn newest(&self, known: &BTreeSet<usize>) -> impl Iterator<Item = &Decision> {
        self.newest_of_each(known).into_iter().map(|id| &self.decisions[id])
    }

    fn newest_of_each(&self, known: &BTreeSet<usize>) -> BTreeSet<usize> {
        let newest: BTreeMap<&NodeName, usize> =
            known.iter().map(|id| (&self.decisions[*id].by, *id)).collect();
        newest.into_values().collect()
    }

    pub(crate) fn note_decision(
        &mut self,
        name: (TableUid, NodeName, u64),
        scope: Option<BTreeSet<usize>>,
        mut past: BTreeSet<usize>,
        off: Seen,
    ) -> usize {
        let id = self.decisions.len();
        // A node's own newer decision takes the place of its older one, even if it was forgotten.
        past.extend(
            self.numbered
                .iter()
                .filter(|((table, by, _), _)| *table == name.0 && *by == name.1)
                .map(|(_, id)| *id),
        );
        self.decisions.push(Decision { table: name.0, by: name.1.clone(), scope, past, off });
        self.numbered.insert(name, id);
        id
    }
}

/// The rows of a table as the file has them.
pub(crate) fn read_rows(db: &Database, number: i64) -> BTreeMap<Vec<u8>, Version> {
    let mut statement = db
        .connection()
        .prepare_cached(
            "SELECT r.key, r.value, r.hlc, i.uid, r.seq, r.lsn FROM records r
             JOIN actors i ON i.number = r.actor WHERE r.table_id = ?1",
        )
        .expect("a statement");
    let rows = statement
        .query_map([number], |row| {
            let actor = ActorId(u128::from_be_bytes(row.get(3)?));
            let version = Version {
                dot: Dot { actor, seq: row.get(4)? },
                stamp: Stamp { hlc: Hlc::from_i64(row.get(2)?), actor },
                value: row.get(1)?,
                lsn: row.get(5)?,
                known: Known::default(),
            };
            Ok((row.get(0)?, version))
        })
        .expect("rows");
    rows.collect::<Result<_, _>>().expect("rows")
}
