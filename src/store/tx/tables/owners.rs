//! Tables that change their owner, in the writer's transaction. Who may hand one over is the gate's; what a transfer
//! means, `cortex_core::directory`'s.
//!
//! Nothing of a table moves: rows, grants, change log and replicas belong to its lasting id. So a table of any size
//! changes its owner in one transaction, and either has wholly.

use std::collections::BTreeSet;

use cortex_core::{
    gate,
    model::{Caller, Owner, Permissions, QualifiedName, Refusal, Scope, TableName, TableUid, Uid},
};

use crate::store::{
    catalog::Entry,
    command::TableOutcome,
    error::CommandError,
    tx::{
        Tx, admission,
        directory::reconcile,
        entries::{self, HANDED_OVER},
        tables::scopes,
    },
};

/// Hands a table over.
pub(crate) fn chown(
    tx: &mut Tx<'_>,
    caller: &Caller,
    entry: &Entry,
    owner: &Owner,
    name: Option<&TableName>,
) -> Result<TableOutcome, CommandError> {
    let entry = admission::admit_anywhere(tx, caller, entry, Permissions::ADMIN)?;
    if *caller != Caller::Local(Uid::ROOT) {
        return Err(Refusal::AccessDenied.into());
    }
    let before = entry.table.name.clone();
    let to = QualifiedName {
        owner: owner.clone(),
        name: name.cloned().unwrap_or_else(|| before.name.clone()),
    };
    if to == before {
        return Ok(TableOutcome::HandedOver);
    }
    check_receiver(tx, &to)?;
    if let Owner::Identity(id) = owner
        && tx.state.catalog.directory().identity(*id).is_none()
    {
        return Err(Refusal::UnknownIdentity.into());
    }
    let shown = tx.state.catalog.show(&before);
    if entry.replicated {
        transfer(tx, entry.table.uid, &entry.table.scope, &to)?;
    } else if let Owner::Identity(_) = owner {
        let table = scopes::share(tx, &entry)?;
        scopes::decide_scope(tx, table, &Scope::Local, &BTreeSet::new())?;
        transfer(tx, table, &Scope::Local, &to)?;
    } else {
        entries::rename(tx, &entry, to.clone())?;
    }
    let now = tx.state.catalog.show(&to);
    let text = format!("table {shown} was handed over and is {now}, by {caller}");
    if !entry.is_in_file() {
        tx.note_of(&to, HANDED_OVER, text.clone())?;
    }
    tx.note_of(&before, HANDED_OVER, text)?;
    Ok(TableOutcome::HandedOver)
}

/// Refuses a name that the new owner has in use, and more tables than they may have.
fn check_receiver(tx: &Tx<'_>, to: &QualifiedName) -> Result<(), Refusal> {
    let catalog = &tx.state.catalog;
    let name = to.name.as_str();
    if catalog.find(&to.owner, name).is_some() || catalog.find_elsewhere(&to.owner, name).is_some()
    {
        return Err(Refusal::AlreadyExists);
    }
    let owned = catalog.namespace(&to.owner).map_or(0, |namespace| namespace.tables().len());
    if owned >= tx.limits.tables_per_uid {
        return Err(Refusal::TooManyTables(tx.limits.tables_per_uid));
    }
    Ok(())
}

/// Has every node know whose a table is from now on.
fn transfer(
    tx: &mut Tx<'_>,
    table: TableUid,
    scope: &Scope,
    to: &QualifiedName,
) -> Result<(), CommandError> {
    let here = tx.here()?;
    let directory = tx.state.catalog.directory();
    let qualified = match &to.owner {
        Owner::Uid(uid) => Owner::Remote(*uid, here.clone()),
        owner @ (Owner::Remote(..) | Owner::Identity(_)) => owner.clone(),
    };
    if matches!(to.owner, Owner::Uid(_)) && !directory.in_scope(table).contains(&here) {
        // The table of a uid lives on its machine.
        gate::admit_scope(&to.owner, scope, &BTreeSet::new(), directory)?;
        return Err(Refusal::ScopeWithoutHome(here.as_str().into()).into());
    }
    let named = QualifiedName { owner: qualified, name: to.name.clone() };
    let rows = directory.transfer(&here, table, &named, tx.wall_ms)?;
    reconcile::write(tx, rows)
}
