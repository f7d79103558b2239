//! Tables made, dropped and kept away from this machine. Their rows are `versions`', their replicas `reconcile`'s; what
//! of the dropped is left goes in `upkeep::purge`.

use std::{collections::BTreeSet, sync::Arc};

use cortex_core::{
    directory::{ReplicaRow, Row, Standing},
    gate,
    model::{
        Acl, AttributeName, Caller, IdentityId, Owner, Permissions, QualifiedName, Refusal, Scope,
        Table, TableId, TableName, TableUid, Uid,
    },
};

use crate::store::{
    catalog::Entry,
    command::TableOutcome,
    error::CommandError,
    events::Event,
    tx::{Tx, admission, directory::reconcile, entries, tables::scopes},
};

pub(crate) fn create_table(
    tx: &mut Tx<'_>,
    caller: &Caller,
    name: QualifiedName,
    attributes: &[AttributeName],
    scope: &Scope,
) -> Result<TableOutcome, CommandError> {
    if tx.state.catalog.find(&name.owner, name.name.as_str()).is_some() {
        return Err(Refusal::AlreadyExists.into());
    }
    let owned = tx.state.catalog.namespace(&name.owner).map_or(0, |n| n.tables().len());
    if owned >= tx.limits.tables_per_uid {
        return Err(Refusal::TooManyTables(tx.limits.tables_per_uid).into());
    }
    let (uid, replicated) = match &name.owner {
        Owner::Uid(_) => (TableUid(tx.draw_id()), *scope != Scope::Local),
        Owner::Identity(id) => (take_name(tx, caller, *id, &name.name)?, true),
        Owner::Remote(..) => return Err(Refusal::AccessDenied.into()),
    };
    let created = tx.draw_stamp().hlc;
    let table = Table {
        id: TableId(0), // drawn by the file
        uid,
        name,
        attributes: attributes.to_vec(),
        scope: scope.clone(),
        contested: false,
        acl: Acl::default(),
    };
    let entry = entries::insert_row_of(tx, table, created, replicated)?;
    let name = &entry.table.name;
    let shown = tx.state.catalog.show(name);
    tx.note_of(name, "table_created", format!("table {shown} was created"))?;
    if replicated {
        scopes::insert_replica(tx, &entry)?;
        scopes::decide_scope(tx, uid, scope, &BTreeSet::new())?;
    }
    Ok(TableOutcome::Created)
}

/// Takes the name of a federated table into use: answers the table's lasting id.
fn take_name(
    tx: &mut Tx<'_>,
    caller: &Caller,
    owner: IdentityId,
    name: &TableName,
) -> Result<TableUid, CommandError> {
    let signer = tx.signer()?;
    if tx.directory().identity_of_caller(caller) != Some(owner) {
        return Err(Refusal::AccessDenied.into());
    }
    let row = tx.directory().take_name(signer.node(), owner, name)?;
    let uid = TableUid::of_federated(signer.mesh(), owner, name, row.generation);
    reconcile::write(tx, vec![Row::Name(row)])?;
    Ok(uid)
}

/// Takes the table out of sight at once. Its rows are removed by and by: a transaction over
/// millions of them would hold up every other write.
pub(crate) fn drop_table(
    tx: &mut Tx<'_>,
    caller: &Caller,
    entry: &Entry,
) -> Result<TableOutcome, CommandError> {
    // There may be nothing of it here, or anywhere: the name is to be free again all the same.
    let entry = admission::admit_anywhere(tx, caller, entry, Permissions::ADMIN)?;
    let directory = tx.state.catalog.directory();
    if let Owner::Identity(owner) = entry.table.name.owner
        && directory.transferred(entry.table.uid).is_none()
    {
        give_up_name(tx, owner, &entry.table.name.name)?;
    }
    let name = &entry.table.name;
    let shown = tx.state.catalog.show(name);
    if tx.state.catalog.current(&entry).is_some() {
        entries::discard_rows(tx, &entry)?;
    }
    // After the rows: to whom finds them there, the table was dropped by another node.
    if entry.replicated {
        scopes::declare_dropped(tx, entry.table.uid)?;
    }
    tx.note_of(name, "table_dropped", format!("table {shown} was dropped by {caller}"))?;
    Ok(TableOutcome::Dropped)
}

/// Gives up the name of a federated table: the next one of that name is another table.
fn give_up_name(tx: &mut Tx<'_>, owner: IdentityId, name: &TableName) -> Result<(), CommandError> {
    let here = tx.here()?;
    let row = tx.directory().give_up_name(&here, owner, name)?;
    reconcile::write(tx, vec![row])
}

/// Keeps a table away from this machine's disk, or takes that back. What only this replica has is handed over
/// first, as where the scope leaves it out.
pub(crate) fn decline(
    tx: &mut Tx<'_>,
    caller: &Caller,
    table: TableUid,
    declined: bool,
) -> Result<TableOutcome, CommandError> {
    let here = tx.here()?;
    let directory = tx.state.catalog.directory();
    let name = directory.name_of_table(table);
    let entry = match tx.state.catalog.by_uid(table) {
        Some(entry) => Some(Arc::clone(entry)),
        None => {
            name.and_then(|name| tx.state.catalog.find_elsewhere(&name.owner, name.name.as_str()))
        }
    };
    if directory.is_declined(table, &here) == declined {
        let may = *caller == Caller::Local(Uid::ROOT);
        return if may {
            Ok(TableOutcome::Declined { declined })
        } else {
            Err(Refusal::AccessDenied.into())
        };
    }
    match (&entry, declined) {
        (Some(entry), true) => {
            gate::admit_replica(caller, &entry.table, directory)?;
            if entry.standing == Standing::Out {
                return Err(Refusal::NotHere.into());
            }
        }
        (None, true) => return Err(Refusal::AccessDenied.into()),
        (_, false) if *caller != Caller::Local(Uid::ROOT) => {
            return Err(Refusal::AccessDenied.into());
        }
        (_, false) => {}
    }
    let (up, down) = directory.replica(table, &here).map_or((0, 0), |row| (row.up, row.down));
    let (node, database) = (here.clone(), tx.state.database);
    let declines = directory.declines(table, &here).saturating_add(1);
    let row = ReplicaRow { table, node, database, up, down, declines };
    let shown = entry.as_ref().map_or_else(
        || format!("id:{table}"),
        |entry| format!("{} (id:{table})", tx.state.catalog.show(&entry.table.name)),
    );
    let (kind, text) = if declined {
        ("replica_dropped", format!("{shown} is kept away from this machine, by {caller}"))
    } else {
        ("replica_kept", format!("{shown} may come to this machine again, by {caller}"))
    };
    let uid = entry.and_then(|entry| tx.state.catalog.uid_here(&entry.table.name.owner));
    tx.note(&Event { uid, kind, text })?;
    reconcile::write(tx, vec![Row::Replica(row)])?;
    Ok(TableOutcome::Declined { declined })
}
