//! Rights on tables: of those that stay here in the file, of others in the directory.

use cortex_core::{
    directory::{Directory, Row},
    model::{NodeName, Permissions, Principal, Refusal, TableUid},
};
use rusqlite::params;

use crate::store::{
    catalog::Entry,
    command::{Granting, TableOutcome},
    error::{CommandError, StoreError},
    tx::{Tx, admission, directory::reconcile, entries},
};

pub(crate) fn grant(tx: &mut Tx<'_>, granting: &Granting) -> Result<TableOutcome, CommandError> {
    let entry =
        admission::admit_anywhere(tx, &granting.caller, &granting.entry, Permissions::ADMIN)?;
    if entry.replicated {
        change_rights(tx, &entry, granting, Directory::grant)?;
    } else {
        let mut entry = Entry::clone(&entry);
        entry.table.acl.grant(granting.principal.clone(), granting.rights)?;
        store_grant(tx, entry, granting)?;
    }
    note_grant(tx, "granted", granting)?;
    Ok(TableOutcome::Granted)
}

pub(crate) fn revoke(tx: &mut Tx<'_>, granting: &Granting) -> Result<TableOutcome, CommandError> {
    let entry =
        admission::admit_anywhere(tx, &granting.caller, &granting.entry, Permissions::ADMIN)?;
    if entry.replicated {
        let now_ms = tx.wall_ms;
        change_rights(tx, &entry, granting, |directory, here, table, principal, rights| {
            directory.revoke(here, table, principal, rights, now_ms)
        })?;
    } else {
        let mut entry = Entry::clone(&entry);
        entry.table.acl.revoke(granting.principal.clone(), granting.rights);
        store_grant(tx, entry, granting)?;
    }
    note_grant(tx, "revoked", granting)?;
    Ok(TableOutcome::Revoked)
}

/// Changes the rights on a table that are kept in the directory.
fn change_rights(
    tx: &mut Tx<'_>,
    entry: &Entry,
    granting: &Granting,
    decide: impl FnOnce(
        &Directory,
        &NodeName,
        TableUid,
        &Principal,
        Permissions,
    ) -> Result<Vec<Row>, Refusal>,
) -> Result<(), CommandError> {
    let here = tx.here()?;
    let principal = granting.principal.clone().qualified(&here);
    let rows = decide(tx.directory(), &here, entry.table.uid, &principal, granting.rights)?;
    reconcile::write(tx, rows)?;
    entries::refresh(tx, entry.table.uid);
    Ok(())
}

/// Stores what a principal holds now on a table whose rows stay here.
fn store_grant(tx: &mut Tx<'_>, entry: Entry, granting: &Granting) -> Result<(), CommandError> {
    let (id, principal) = (entry.table.id.0, granting.principal.to_string());
    let rights = entry.table.acl.held_by(&granting.principal);
    if rights.is_empty() {
        tx.execute(
            "DELETE FROM grants WHERE table_id = ?1 AND principal = ?2",
            params![id, principal],
        )?;
    } else {
        tx.execute(
            "INSERT OR REPLACE INTO grants (table_id, principal, rights) VALUES (?1, ?2, ?3)",
            params![id, principal, rights.bits()],
        )?;
    }
    tx.catalog_mut().insert(entry);
    Ok(())
}

fn note_grant(tx: &Tx<'_>, done: &'static str, granting: &Granting) -> Result<(), StoreError> {
    let Granting { caller, entry, principal, rights } = granting;
    let directory = tx.state.catalog.directory();
    let words = rights.names().collect::<Vec<_>>().join(", ");
    let name = &entry.table.name;
    let (table, whom) = (directory.show(name), directory.show_principal(principal));
    tx.note_of(name, done, format!("{words} on {table} {done}, for {whom}, by {caller}"))
}
