//! What others decide about a table, as events here: its owner must not have to look for it.
//! What the decisions mean is the directory's; where replicas go for them, `reconcile`'s.

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::{
    directory::{Directory, Row, Whereabouts},
    model::{Acl, IdentityId, NodeName, Permissions, Principal, QualifiedName, TableUid},
};

use crate::store::{
    error::{CommandError, StoreError},
    events::Event,
    tx::Tx,
};

/// What was so before some rows came.
#[derive(Debug, Default)]
pub(crate) struct DirectoryBefore {
    scopes: BTreeMap<TableUid, Whereabouts>,
    rights: BTreeMap<TableUid, Acl>,
    /// By table and machine: whether its root keeps the table away.
    declined: BTreeMap<(TableUid, NodeName), bool>,
    /// Who was somebody; none where the rows do not bear on it.
    departed: Option<BTreeSet<IdentityId>>,
    /// Of each change of a right that another node has decided: whose, which, and where.
    changes: Vec<(TableUid, Principal, Permissions, NodeName)>,
}

impl DirectoryBefore {
    /// Looks at what the rows bear on. What this node writes itself was noted when it was asked for.
    pub(crate) fn of(rows: &[Row], directory: &Directory) -> Self {
        let mut before = Self::default();
        for row in rows {
            match row {
                Row::Unbinding(_) | Row::Revocation(_) | Row::Removal(_) | Row::Node(_)
                    if before.departed.is_none() =>
                {
                    before.departed = Some(directory.departed().collect());
                }
                _own if Some(row.writer()) == directory.here() => {}
                Row::Scope(row) => {
                    if let Some(known) = directory.whereabouts(row.table) {
                        before.scopes.entry(row.table).or_insert(known);
                    }
                }
                Row::Grant(row) if directory.whereabouts(row.table).is_some() => {
                    let held = || directory.acl(row.table);
                    before.rights.entry(row.table).or_insert_with(held);
                    let (whose, right) = (row.principal.clone(), row.right);
                    before.changes.push((row.table, whose, right, row.by.clone()));
                }
                Row::Replica(row) => {
                    let known = directory.is_declined(row.table, &row.node);
                    before.declined.insert((row.table, row.node.clone()), known);
                }
                Row::Grant(_)
                | Row::Node(_)
                | Row::Identity(_)
                | Row::Binding(_)
                | Row::Unbinding(_)
                | Row::Revocation(_)
                | Row::Name(_)
                | Row::Removal(_)
                | Row::NameResolution(_)
                | Row::Dropped(_)
                | Row::Transfer(_) => {}
            }
        }
        before
    }
}

/// Writes down what has changed since.
pub(crate) fn notice(tx: &Tx<'_>, before: &DirectoryBefore) -> Result<(), CommandError> {
    for (table, known) in &before.scopes {
        notice_scope(tx, *table, known)?;
    }
    for (table, whose, right, by) in &before.changes {
        if let Some(held) = before.rights.get(table) {
            notice_right(tx, *table, held, (whose, *right), by)?;
        }
    }
    for ((table, node), known) in &before.declined {
        let now = tx.state.catalog.directory().is_declined(*table, node);
        if now != *known
            && let Some((name, shown)) = concerned_with(tx, *table)
        {
            let (kind, text) = if now {
                ("replica_dropped", format!("root of {node} keeps {shown} away from it"))
            } else {
                ("replica_kept", format!("root of {node} lets {shown} come to it again"))
            };
            tx.note_of(&name, kind, text)?;
        }
    }
    if let Some(departed) = &before.departed {
        notice_departed(tx, departed)?;
    }
    Ok(())
}

fn notice_scope(tx: &Tx<'_>, table: TableUid, known: &Whereabouts) -> Result<(), StoreError> {
    let directory = tx.state.catalog.directory();
    let Some(now) = directory.whereabouts(table).filter(|now| now != known) else {
        return Ok(());
    };
    let Some((name, shown)) = concerned_with(tx, table) else {
        return Ok(());
    };
    let decisions = directory.competing(table);
    if now.contested {
        let decided = decisions.iter().map(|(by, scope)| format!("{by}: {scope}"));
        let decided: Vec<_> = decided.collect();
        let text = format!(
            "scope of {shown} was decided on nodes that did not know of each other's decision ({}): {} holds until it \
             is decided again: cortex scope {shown} SCOPE",
            decided.join("; "),
            now.scope
        );
        return tx.note_of(&name, "scope_contested", text);
    }
    match decisions.first() {
        Some((by, scope)) => {
            let text = format!("scope of {shown} is {scope}, decided on {by}");
            tx.note_of(&name, "scope_changed", text)
        }
        None => Ok(()),
    }
}

fn notice_right(
    tx: &Tx<'_>,
    table: TableUid,
    held: &Acl,
    (whose, right): (&Principal, Permissions),
    by: &NodeName,
) -> Result<(), StoreError> {
    let directory = tx.state.catalog.directory();
    let had = held.held_by(whose).contains(right);
    let has = directory.acl(table).held_by(whose).contains(right);
    if had == has {
        return Ok(());
    }
    let Some((name, shown)) = concerned_with(tx, table) else {
        return Ok(());
    };
    let done = if has { "granted" } else { "revoked" };
    let words = right.names().collect::<Vec<_>>().join(", ");
    let whom = directory.show_principal(whose);
    tx.note_of(&name, done, format!("{words} on {shown} {done}, for {whom}, on {by}"))
}

/// Tables of whom nobody is any more are for root to look after.
fn notice_departed(tx: &Tx<'_>, known: &BTreeSet<IdentityId>) -> Result<(), StoreError> {
    let directory = tx.state.catalog.directory();
    for id in directory.departed().filter(|id| !known.contains(id)) {
        let count = directory.names_of(id).count();
        if count > 0 {
            let who = directory.show_identity(id);
            let text = format!(
                "nobody is @{who} any more, and {count} tables belong to nobody: see cortex tables, and \
                 cortex table chown"
            );
            tx.note(&Event { uid: None, kind: "tables_orphaned", text })?;
        }
    }
    Ok(())
}

/// The name of a table, and how it is shown, where it is here or its owner is.
fn concerned_with(tx: &Tx<'_>, table: TableUid) -> Option<(QualifiedName, String)> {
    let catalog = &tx.state.catalog;
    let name = match catalog.by_uid(table) {
        Some(entry) => entry.table.name.clone(),
        None => {
            let named = catalog.directory().name_of_table(table);
            named.filter(|name| catalog.uid_here(&name.owner).is_some())?
        }
    };
    let shown = catalog.show(&name);
    Some((name, shown))
}
