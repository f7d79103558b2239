//! What is known of a table apart from its rows.
//! The store keeps it; the gate reads it.

use super::{Acl, AttributeName, QualifiedName, Scope};

/// The number of a table within one database file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub i64);

/// The lasting id of a table, drawn at creation: a table dropped and created again under the
/// same name is another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableUid(pub [u8; 16]);

/// A table's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its number in this database.
    pub id: TableId,
    /// Its lasting id.
    pub uid: TableUid,
    /// Whose it is and what it is called.
    pub name: QualifiedName,
    /// The declared fields; the first holds the key. Never empty.
    pub attributes: Vec<AttributeName>,
    /// Where its rows may exist.
    pub scope: Scope,
    /// Who besides the owner may do what.
    pub acl: Acl,
}

impl Table {
    /// The field that holds a record's key.
    ///
    /// # Panics
    /// If the table was built without attributes, which no constructor of the store does.
    #[must_use]
    pub fn key_field(&self) -> &AttributeName {
        self.attributes.first().expect("a table has a key field")
    }
}
