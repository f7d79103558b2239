//! Tables as wholes: which there are, what they are, where they may be.
//! Their records are `records`'s, how their replicas compare, `sync`'s.

use serde::{Deserialize, Serialize};

use super::{
    grants::Grant,
    param::{Attributes, TextOrList, options, request},
    replica::{NodeScope, Replica, ReplicaState},
};

options! {
    /// Which tables, and how they are listed.
    TablesOptions {
        /// Every table that the caller may read, and not only their own.
        all: bool,
        /// Each with how it is; without it, their names alone.
        details: bool,
    }
}

request! {
    /// The caller's own tables, or all that they may read.
    Tables = Tables -> TableList {
        /// Which, and how.
        options: TablesOptions,
    }
}

/// Tables, as they were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TableList {
    /// Their names: short for those of the caller's uid, unless all were asked for.
    Names(Vec<String>),
    /// With the option `details`.
    Details(Vec<TableSummary>),
}

/// How a table is, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSummary {
    /// Its name.
    pub table: String,
    /// 32 hexadecimal digits, which it keeps under any name.
    pub id: String,
    /// True where nobody is its owner any more.
    pub orphaned: bool,
    /// Where it may be.
    pub node_scope: NodeScope,
    /// How the replica here is.
    pub state: ReplicaState,
    /// Records here.
    pub records: u64,
    /// The bytes of those.
    pub bytes: u64,
    /// Conflicts here of which nobody has taken note.
    pub conflicts: u64,
}

request! {
    /// Makes a table: `created`.
    CreateTable<'a> = CreateTable -> String {
        /// Its name: `users` in the namespace of the caller's uid, `@memories` in that of their federated identity.
        name: &'a str,
        /// Its attributes; the first holds the key.
        attributes: Attributes<'a>,
        /// Where it may be; `local` for that of a uid and `all` for that of an identity unless it is said.
        scope: Option<TextOrList<'a>>,
    }
}

options! {
    /// What is dropped.
    DropOptions {
        /// The replica of this machine alone. For root.
        replica: bool,
        /// Takes that back.
        undo: bool,
    }
}

request! {
    /// Removes a table with all its records: `dropped`.
    DropTable<'a> = DropTable -> String {
        /// Its name.
        table: &'a str,
        /// What of it.
        options: DropOptions,
    }
}

options! {
    /// How a table is handed over.
    ChownOptions {
        /// What it is called from then on.
        name: Option<String>,
    }
}

request! {
    /// Hands a table over: `handed over`. For root.
    TableChown<'a> = TableChown -> String {
        /// Its name.
        table: &'a str,
        /// Whose it is from then on: `@name` or `uid:N`.
        owner: &'a str,
        /// How.
        options: ChownOptions,
    }
}

request! {
    /// What a table is.
    TableInfo<'a> = TableInfo -> TableReport {
        /// Its name.
        table: &'a str,
    }
}

/// What a table is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableReport {
    /// Its full name.
    pub table: String,
    /// 32 hexadecimal digits, which it keeps under any name.
    pub id: String,
    /// `uid:N`, or `@name`.
    pub owner: String,
    /// The attribute that holds the key.
    pub key_field: String,
    /// All of them, that one first.
    pub attributes: Vec<String>,
    /// Where it may be.
    pub node_scope: NodeScope,
    /// True where decisions about that compete.
    pub scope_contested: bool,
    /// Those that no other has replaced.
    pub decisions: Vec<Decision>,
    /// True where nobody is its owner any more.
    pub orphaned: bool,
    /// Its replicas, the one here first.
    pub replicas: Vec<Replica>,
    /// How the replica here is.
    pub state: ReplicaState,
    /// Conflicts here of which nobody has taken note.
    pub conflicts: u64,
    /// Records here.
    pub records: u64,
    /// The bytes of those.
    pub bytes: u64,
    /// What was granted on it.
    pub acl: Vec<Grant>,
}

/// A decision about a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The node on which it was made.
    pub by: String,
    /// What was decided.
    pub node_scope: NodeScope,
}

request! {
    /// Where a table may be, and is.
    GetScope<'a> = GetScope -> ScopeReport {
        /// Its name.
        table: &'a str,
    }
}

/// Where a table may be, and is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScopeReport {
    /// Its full name.
    pub table: String,
    /// Where it may be.
    pub node_scope: NodeScope,
    /// True where decisions about that compete.
    pub contested: bool,
    /// Those that no other has replaced.
    pub decisions: Vec<Decision>,
    /// Its replicas, the one here first.
    pub replicas: Vec<Replica>,
}

options! {
    /// Replicas that a change of the scope abandons.
    ScopeOptions {
        /// Nodes that will not come back: what only they have is lost.
        abandon: Vec<String>,
    }
}

request! {
    /// Decides where a table may be: `scope updated`.
    SetScope<'a> = SetScope -> String {
        /// Its name.
        table: &'a str,
        /// `local`, `all` or names of nodes.
        scope: TextOrList<'a>,
        /// Replicas that it abandons.
        options: ScopeOptions,
    }
}
