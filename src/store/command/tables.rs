//! What the writer can be asked about tables: which there are, whose, where, and with which rights.

use std::{collections::BTreeSet, sync::Arc};

use cortex_core::model::{
    AttributeName, Caller, NodeName, Owner, Permissions, Principal, QualifiedName, Scope,
    TableName, TableUid,
};

use crate::store::catalog::Entry;

/// A change of tables, and of who may do what with them, and where.
#[derive(Debug)]
pub enum TableCommand {
    /// Make a table in the caller's own namespace.
    CreateTable {
        /// Must be the owner, or be mapped to it.
        caller: Caller,
        /// Becomes the owner.
        owner: Owner,
        /// Its short name.
        name: TableName,
        /// The declared fields, the key field first.
        attributes: Vec<AttributeName>,
        /// Where its rows may exist.
        scope: Scope,
    },
    /// Remove a table; its rows go in the background.
    DropTable {
        /// Needs `admin`.
        caller: Caller,
        /// As it was looked up.
        entry: Arc<Entry>,
    },
    /// Keep a table away from this machine, or take that back.
    Decline {
        /// Must be uid 0 of this machine.
        caller: Caller,
        /// Its lasting id: once it has left, nothing else of it is known here.
        table: TableUid,
        /// True to keep it away.
        declined: bool,
    },
    /// Hand a table over to another owner.
    Chown {
        /// Must be uid 0 of this machine, and decide about the table.
        caller: Caller,
        /// As it was looked up.
        entry: Arc<Entry>,
        /// Who has it from then on: an identity, or a uid of this machine.
        owner: Owner,
        /// What it is called from then on; none to keep its name.
        name: Option<TableName>,
    },
    /// Add rights of a principal on a table.
    Grant(Granting),
    /// Take rights of a principal on a table away.
    Revoke(Granting),
    /// Decide where a table's rows may be.
    SetScope {
        /// Needs `admin`.
        caller: Caller,
        /// As it was looked up.
        entry: Arc<Entry>,
        /// Where.
        scope: Scope,
        /// Nodes whose replicas are abandoned: nothing waits for what only they have.
        abandon: BTreeSet<NodeName>,
    },
}

/// What a change of tables has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableOutcome {
    /// The table exists.
    Created,
    /// The table is gone.
    Dropped,
    /// The table is kept away from this machine, or not any more.
    Declined {
        /// True where it is kept away.
        declined: bool,
    },
    /// The table has another owner.
    HandedOver,
    /// The rights are held.
    Granted,
    /// The rights are not held.
    Revoked,
    /// The scope is decided.
    Scoped,
}

/// Whose rights on which table are to change.
#[derive(Debug)]
pub struct Granting {
    /// Needs `admin`.
    pub caller: Caller,
    /// As it was looked up.
    pub entry: Arc<Entry>,
    /// Whose rights change.
    pub principal: Principal,
    /// Which of them.
    pub rights: Permissions,
}

impl TableCommand {
    pub(super) fn table(&self) -> Option<&QualifiedName> {
        match self {
            Self::DropTable { entry, .. }
            | Self::Chown { entry, .. }
            | Self::SetScope { entry, .. }
            | Self::Grant(Granting { entry, .. })
            | Self::Revoke(Granting { entry, .. }) => Some(&entry.table.name),
            Self::CreateTable { .. } | Self::Decline { .. } => None,
        }
    }

    pub(super) fn may_use_reserve(&self) -> bool {
        match self {
            Self::DropTable { .. }
            | Self::Decline { .. }
            | Self::Chown { .. }
            | Self::Revoke(_)
            | Self::SetScope { .. } => true,
            Self::CreateTable { .. } | Self::Grant(_) => false,
        }
    }
}
