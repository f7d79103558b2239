//! What is known of a table apart from its rows.
//! The store keeps it; the gate reads it.

use sha2::{Digest, Sha256};

use super::{Acl, AttributeName, IdentityId, MeshId, QualifiedName, Scope, TableName, hex};

/// The number of a table within one database file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub i64);

/// The lasting id of a table, drawn at creation: a table dropped and created again under the
/// same name is another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableUid(pub [u8; 16]);

impl std::fmt::Display for TableUid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        hex::write(&self.0, f)
    }
}

impl TableUid {
    /// Reads 32 hexadecimal digits in lower case; none for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex::read(text).map(Self)
    }

    /// The id of a federated table. Every node of a mesh computes the same one, so that a table
    /// created on both sides of a partition is one table afterwards: the first half of
    /// SHA-256 over mesh, owner, name and generation.
    #[must_use]
    pub fn of_federated(
        mesh: MeshId,
        owner: IdentityId,
        name: &TableName,
        generation: u64,
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"cortexd table v1\0");
        hash.update(mesh.0);
        hash.update(owner.0);
        hash.update(generation.to_be_bytes());
        hash.update(name.as_str()); // the last one, so that its length needs no mark
        let hash: [u8; 32] = hash.finalize().into();
        let [id, _] = *hash.as_chunks::<16>().0 else { unreachable!("two halves") };
        Self(id)
    }
}

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
    /// True where decisions about the scope were made without knowing of each other: until a new
    /// one is made, [`Table::scope`] is what they have in common.
    pub contested: bool,
    /// Who besides the owner may do what.
    pub acl: Acl,
}

impl Table {
    /// The field that holds a record's key.
    ///
    /// # Panics
    /// If the table was built without attributes, as the store builds none but those of which it has nothing.
    #[must_use]
    pub fn key_field(&self) -> &AttributeName {
        self.attributes.first().expect("a table has a key field")
    }
}
