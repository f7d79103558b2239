//! What a transaction adds to the totals of tables and of their owners.

use std::{collections::HashMap, sync::Arc};

use cortex_core::model::{Owner, TableId, UsageDelta};

use crate::store::catalog::{Catalog, Entry, Usage};

/// What a transaction adds to the totals of tables and of their owners.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    tables: HashMap<TableId, (Arc<Usage>, UsageDelta)>,
    owners: HashMap<Owner, UsageDelta>,
}

impl Totals {
    /// Adds what was committed to the totals that everybody reads.
    pub(crate) fn publish(self, catalog: &Catalog) {
        for (usage, delta) in self.tables.into_values() {
            usage.add(delta);
        }
        for (owner, delta) in self.owners {
            if let Some(namespace) = catalog.namespace(&owner) {
                namespace.usage.add(delta);
            }
        }
    }

    pub(crate) fn add(&mut self, entry: &Entry, delta: UsageDelta) {
        let (_, sum) = self
            .tables
            .entry(entry.table.id)
            .or_insert_with(|| (Arc::clone(&entry.usage), UsageDelta::default()));
        *sum = sum.plus(delta);
        self.add_to_owner(entry, delta);
    }

    pub(crate) fn add_to_owner(&mut self, entry: &Entry, delta: UsageDelta) {
        let sum = self.owners.entry(entry.table.name.owner.clone()).or_default();
        *sum = sum.plus(delta);
    }

    /// How many bytes more an owner would hold.
    pub(crate) fn bytes_of(&self, owner: &Owner) -> i64 {
        self.owners.get(owner).map_or(0, |delta| delta.bytes)
    }

    /// The tables whose totals change.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (TableId, UsageDelta)> {
        let deltas = self.tables.iter().map(|(table, (_, delta))| (*table, *delta));
        deltas.filter(|(_, delta)| *delta != UsageDelta::default())
    }

    /// What a table holds with this transaction.
    pub(crate) fn held_by(&self, entry: &Entry) -> UsageDelta {
        let pending = self.tables.get(&entry.table.id).map(|(_, delta)| *delta);
        entry.usage.total().plus(pending.unwrap_or_default())
    }
}
