//! What a command may, by the table and its rights as they are in this transaction: the gate once more, and the quota.
//! What the gate says is `cortex_core::gate`'s.

use std::sync::Arc;

use cortex_core::{
    gate,
    model::{Caller, Permissions, Refusal, UsageDelta},
};

use crate::store::{catalog::Entry, tx::Tx};

/// The second run of the gate: the table and its rights as they are in this transaction.
pub(crate) fn admit(
    tx: &Tx<'_>,
    caller: &Caller,
    entry: &Entry,
    needed: Permissions,
) -> Result<Arc<Entry>, Refusal> {
    let entry = tx.state.catalog.current(entry).ok_or(Refusal::AccessDenied)?;
    gate::admit(caller, &entry.table, needed, tx.state.catalog.directory())?;
    Ok(Arc::clone(entry))
}

/// The same for a table of which there may be nothing here.
pub(crate) fn admit_anywhere(
    tx: &Tx<'_>,
    caller: &Caller,
    entry: &Entry,
    needed: Permissions,
) -> Result<Arc<Entry>, Refusal> {
    let catalog = &tx.state.catalog;
    let name = &entry.table.name;
    let elsewhere = catalog.find_elsewhere(&name.owner, name.name.as_str());
    let Some(elsewhere) = elsewhere.filter(|now| now.table.uid == entry.table.uid) else {
        return admit(tx, caller, entry, needed);
    };
    gate::admit(caller, &elsewhere.table, needed, catalog.directory())?;
    Ok(elsewhere)
}

pub(crate) fn check_quota(tx: &Tx<'_>, entry: &Entry, delta: UsageDelta) -> Result<(), Refusal> {
    let owner = &entry.table.name.owner;
    let stored = tx.state.catalog.namespace(owner).map_or(0, |n| n.usage.bytes());
    let pending = tx.totals.bytes_of(owner);
    let would_hold = stored.saturating_add_signed(pending.saturating_add(delta.bytes));
    if delta.bytes > 0 && would_hold > tx.limits.bytes_per_uid {
        return Err(Refusal::QuotaExceeded(tx.limits.bytes_per_uid));
    }
    Ok(())
}
