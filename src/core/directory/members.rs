//! Which machines are members of the mesh, and which databases were put out of it.
//! Whether a machine is who it says it is, is for its certificate.
//!
//! What is removed is a database, not a name: a machine that is installed again comes back under its
//! name as a new one, and what was removed never comes back. A database that has not said which one
//! it is, as those of older versions, is known by its machine's name alone.

use super::{Database, Directory, NodeRow, RemovalRow, Row, UNKNOWN_DATABASE};
use crate::model::{NodeName, Refusal};

impl Directory {
    /// What a machine has said of itself.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&NodeRow> {
        self.nodes.get(name)
    }

    /// The machines that have presented themselves, without those that were put out.
    pub fn members(&self) -> impl Iterator<Item = &NodeRow> {
        self.nodes.values().filter(|row| !self.is_put_out(&row.node))
    }

    /// The machines that have presented themselves, those that were put out among them.
    pub fn known_nodes(&self) -> impl Iterator<Item = &NodeRow> {
        self.nodes.values()
    }

    /// True where an operator of any node has removed that database.
    #[must_use]
    pub fn is_removed(&self, database: &Database) -> bool {
        *database != UNKNOWN_DATABASE && self.removals.contains_key(database)
    }

    /// The databases that were removed, in order.
    pub fn removals(&self) -> impl Iterator<Item = &Database> {
        self.removals.keys().filter(|database| **database != UNKNOWN_DATABASE)
    }

    /// True where the database that a machine has now was removed.
    #[must_use]
    pub fn is_put_out(&self, node: &NodeName) -> bool {
        let Some(row) = self.nodes.get(node) else {
            return false;
        };
        if row.database != UNKNOWN_DATABASE {
            return self.is_removed(&row.database);
        }
        let removed = self.removals.get(&UNKNOWN_DATABASE);
        removed.is_some_and(|by_node| by_node.iter().any(|(removed, _)| removed == node))
    }

    /// Puts a machine out of the mesh with the database that it has now. Its users are nobody: once
    /// it is installed again, the same uids are other people.
    ///
    /// # Errors
    /// [`Refusal::OwnNode`], [`Refusal::UnknownNode`], [`Refusal::DirectoryFull`].
    pub fn remove_node(
        &self,
        here: &NodeName,
        node: &NodeName,
        now_ms: u64,
    ) -> Result<Vec<Row>, Refusal> {
        if here == node {
            return Err(Refusal::OwnNode);
        }
        let Some(known) = self.nodes.get(node) else {
            return Err(Refusal::UnknownNode(node.as_str().into()));
        };
        let (database, by) = (known.database, here.clone());
        let removal = Row::Removal(RemovalRow { node: node.clone(), database, by });
        // Those too that do not stand just now: they might, on the machine that comes back.
        let mapped =
            self.bindings.values().filter(|row| row.node == *node && self.is_unrevoked(row));
        let unbindings =
            mapped.map(|row| self.unbinding(here, row.identity, node, row.uid, now_ms));
        let rows: Vec<Row> = std::iter::once(removal).chain(unbindings).collect();
        self.check_room_to_restrict(rows.len())?;
        Ok(rows)
    }
}
