//! Where a row belongs: a table by both its numbers, and its entry in the catalog.

use cortex_core::model::{TableId, TableUid};

use crate::store::{catalog::Entry, system};

/// Where a row belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowTable<'e> {
    pub(crate) id: TableId,
    pub(crate) uid: TableUid,
    /// None for the system table, which is nobody's.
    pub(crate) entry: Option<&'e Entry>,
}

impl<'e> RowTable<'e> {
    pub(crate) const SYSTEM: RowTable<'static> =
        RowTable { id: system::NUMBER, uid: system::UID, entry: None };

    pub(crate) fn of(entry: &'e Entry) -> Self {
        Self { id: entry.table.id, uid: entry.table.uid, entry: Some(entry) }
    }
}
