//! The bounds of what one caller may ask for.
//! Bounds on connections and sockets belong to the edge; these are the ones that rules depend on.

/// Upper bounds on names, keys and what one uid may own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a key's text form.
    pub key_bytes: usize,
    /// Tables that one uid may own.
    pub tables_per_uid: usize,
    /// Bytes of records (keys and values) that one uid may own.
    pub bytes_per_uid: u64,
}

impl Limits {
    /// Bytes of a table's or an attribute's name. Fixed: other nodes must agree on what is a name.
    pub const NAME_BYTES: usize = 128;
    /// Attributes of one table.
    pub const ATTRIBUTES: usize = 64;
    /// Principals in the access control list of one table.
    pub const GRANTS_PER_TABLE: usize = 256;
}

impl Default for Limits {
    fn default() -> Self {
        Self { key_bytes: 4096, tables_per_uid: 1000, bytes_per_uid: 16 << 30 }
    }
}
