//! Tables as the file and the catalog have them: entered, renamed, taken out of sight.
//! Who may have that done, and what others receive of it, is `directory`'s.

use std::sync::Arc;

use cortex_core::model::{
    AttributeName, Hlc, Owner, QualifiedName, Refusal, Table, TableId, TableName, TableUid,
};
use rusqlite::params;

use crate::store::{
    catalog::Entry,
    error::{CommandError, StoreError},
    tx::Tx,
};

/// The kind of the events.
pub(crate) const HANDED_OVER: &str = "table_handed_over";

/// A table that came from another node. Its replica was begun before.
pub(crate) fn insert_table(
    tx: &mut Tx<'_>,
    table: Table,
    created: Hlc,
) -> Result<Arc<Entry>, CommandError> {
    let uid = table.uid;
    let entry = insert_row_of(tx, table, created, true)?;
    if let Some(replica) = tx.state.replicas.get_mut(uid) {
        replica.table = Some(entry.table.id);
    }
    refresh(tx, uid);
    let entry = tx.state.catalog.by_uid(uid).cloned();
    Ok(entry.ok_or(Refusal::AccessDenied)?)
}

pub(crate) fn insert_row_of(
    tx: &mut Tx<'_>,
    mut table: Table,
    created: Hlc,
    replicated: bool,
) -> Result<Arc<Entry>, CommandError> {
    let listed: Vec<_> = table.attributes.iter().map(AttributeName::as_str).collect();
    tx.execute(
        "INSERT INTO tables (uid, owner, name, attributes, scope, replicated, created_hlc,
         checksummed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1)",
        params![
            table.uid.0,
            table.name.owner.to_string(),
            table.name.name.as_str(),
            listed.join(","),
            table.scope.to_string(),
            replicated,
            created.to_i64()
        ],
    )?;
    table.id = TableId(tx.conn.last_insert_rowid());
    let entry = Arc::new(Entry::new(table, created, replicated));
    tx.catalog_mut().insert(Entry::clone(&entry));
    Ok(entry)
}

/// Brings what the catalog says of a table up to what the directory and its replica say.
pub(crate) fn refresh(tx: &mut Tx<'_>, table: TableUid) {
    let Some(entry) = tx.state.catalog.by_uid(table) else {
        return;
    };
    let (entry, ready) = (Arc::clone(entry), is_ready(tx, table));
    tx.catalog_mut().refresh(&entry, ready);
}

fn is_ready(tx: &Tx<'_>, table: TableUid) -> bool {
    tx.state.replicas.get(table).is_none_or(|replica| replica.ready)
}

/// Calls the replica here what the directory says that its table is called.
pub(crate) fn rename_as_decided(tx: &mut Tx<'_>, table: TableUid) -> Result<(), CommandError> {
    let Some(entry) = tx.state.catalog.by_uid(table).cloned() else {
        return Ok(());
    };
    let Some(transferred) = tx.state.catalog.directory().transferred(table) else {
        return Ok(());
    };
    let to = name_here(tx, table, transferred)?;
    if to == entry.table.name {
        return Ok(());
    }
    rename(tx, &entry, to)?;
    Ok(())
}

/// What a table is called here that the directory calls so: a uid of this machine without its name, and another
/// name where that one is taken, as by a table that was made meanwhile on the other side of a cut.
pub(crate) fn name_here(
    tx: &Tx<'_>,
    table: TableUid,
    transferred: QualifiedName,
) -> Result<QualifiedName, CommandError> {
    let here = tx.here()?;
    let owner = match transferred.owner {
        Owner::Remote(uid, node) if node == here => Owner::Uid(uid),
        owner @ (Owner::Uid(_) | Owner::Remote(..) | Owner::Identity(_)) => owner,
    };
    let named = QualifiedName { owner, name: transferred.name };
    let catalog = &tx.state.catalog;
    let holder = catalog.find(&named.owner, named.name.as_str());
    let made = match &named.owner {
        Owner::Identity(id) => catalog.directory().federated(*id, &named.name),
        Owner::Uid(_) | Owner::Remote(..) => None,
    };
    let is_taken = holder.is_some_and(|entry| entry.table.uid != table)
        || made.is_some_and(|other| other != table);
    if !is_taken {
        return Ok(named);
    }
    let digits = table.to_string();
    let base: String = named.name.as_str().chars().take(100).collect();
    let name = TableName::parse(&format!("{base}_{}", &digits[..8]))?;
    Ok(QualifiedName { owner: named.owner, name })
}

/// Gives a table that is here another name, or another owner.
pub(crate) fn rename(
    tx: &mut Tx<'_>,
    entry: &Arc<Entry>,
    to: QualifiedName,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE tables SET owner = ?2, name = ?3 WHERE id = ?1",
        params![entry.table.id.0, to.owner.to_string(), to.name.as_str()],
    )?;
    let held = tx.totals.held_by(entry);
    tx.totals.add_to_owner(entry, held.negated());
    let (shown, now) = (tx.state.catalog.show(&entry.table.name), tx.state.catalog.show(&to));
    tx.note_of(&to, HANDED_OVER, format!("table {shown} was handed over and is {now}"))?;
    let mut renamed = Entry::clone(entry);
    renamed.table.name = to;
    tx.totals.add_to_owner(&renamed, held);
    tx.catalog_mut().remove(&entry.table.name);
    tx.catalog_mut().insert(renamed);
    Ok(())
}

/// Takes a table's rows out of sight; they are removed by and by.
pub(crate) fn discard_rows(tx: &mut Tx<'_>, entry: &Entry) -> Result<(), CommandError> {
    let id = entry.table.id.0;
    // Its lasting id is free for the replica that may come back.
    tx.execute("UPDATE tables SET dropped = 1, uid = ?2 WHERE id = ?1", params![id, tx.draw_id()])?;
    tx.execute("DELETE FROM grants WHERE table_id = ?1", [id])?;
    let held = tx.totals.held_by(entry);
    tx.totals.add_to_owner(entry, held.negated());
    tx.catalog_mut().remove(&entry.table.name);
    Ok(())
}

/// The last row of a dropped table was removed.
pub(crate) fn remove_empty(tx: &mut Tx<'_>, table: i64) -> Result<(), StoreError> {
    tx.execute("DELETE FROM tables WHERE id = ?1", [table])?;
    tx.state.departures.rows_are_gone(table);
    Ok(())
}
