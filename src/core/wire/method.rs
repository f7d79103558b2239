//! The table of methods: their names on the wire and the parameters that they take.
//! What they do is the service's.

/// A method of the request protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is described by its row of the table below")]
pub enum Method {
    Ping,
    Status,
    Tables,
    CreateTable,
    DropTable,
    TableInfo,
    Put,
    Get,
    Delete,
    Match,
    All,
    Keys,
    AclGrant,
    AclRevoke,
    AclList,
    Usage,
    Events,
    Reload,
    Checkpoint,
    Backup,
    GetScope,
    SetScope,
    IdentityRegister,
    IdentityToken,
    IdentityClaim,
    IdentityRedeem,
    IdentityLearn,
    IdentityList,
    IdentityLookup,
    IdentityRevoke,
    MeshListNodes,
    MeshStatus,
}

/// A method with its wire name and what `invalid params: expected …` says of it.
const METHODS: [(Method, &str, &str); 32] = [
    (Method::Ping, "ping", "[]"),
    (Method::Status, "status", "[]"),
    (Method::Tables, "tables", "[] or [{all}]"),
    (Method::CreateTable, "create_table", "[name, [attributes]] or [name, [attributes], scope]"),
    (Method::DropTable, "drop_table", "[table]"),
    (Method::TableInfo, "table_info", "[table]"),
    (Method::Put, "put", "[table, record]"),
    (Method::Get, "get", "[table, key]"),
    (Method::Delete, "delete", "[table, key]"),
    (Method::Match, "match", "[table, pattern] or [table, pattern, {limit, after}]"),
    (Method::All, "all", "[table] or [table, {limit, after}]"),
    (Method::Keys, "keys", "[table] or [table, {limit, after}]"),
    (Method::AclGrant, "acl_grant", "[identity, table, permissions]"),
    (Method::AclRevoke, "acl_revoke", "[identity, table, permissions]"),
    (Method::AclList, "acl_list", "[]"),
    (Method::Usage, "usage", "[]"),
    (Method::Events, "events", "[] or [{limit, after}]"),
    (Method::Reload, "reload", "[]"),
    (Method::Checkpoint, "checkpoint", "[]"),
    (Method::Backup, "backup", "[] or [name]"),
    (Method::GetScope, "get_scope", "[table]"),
    (Method::SetScope, "set_scope", "[table, scope]"),
    (
        Method::IdentityRegister,
        "identity_register",
        "[name] or [name, {uid, for_node, for_uid, seconds}]",
    ),
    (Method::IdentityToken, "identity_token", "[] or [{name, for_node, for_uid, seconds}]"),
    (Method::IdentityClaim, "identity_claim", "[token]"),
    (Method::IdentityRedeem, "identity_redeem", "[token]"),
    (Method::IdentityLearn, "identity_learn", "[rows]"),
    (Method::IdentityList, "identity_list", "[]"),
    (Method::IdentityLookup, "identity_lookup", "[name] or [node, uid]"),
    (Method::IdentityRevoke, "identity_revoke", "[name] or [name, node]"),
    (Method::MeshListNodes, "mesh_list_nodes", "[]"),
    (Method::MeshStatus, "mesh_status", "[]"),
];

/// Methods that need other machines, and that this version does not have yet. They are known, so that a
/// client learns why they fail.
const MESH_METHODS: [&str; 3] = ["sync_status", "sync_status_table", "sync_repair"];

impl Method {
    /// Every method, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        METHODS.iter().map(|(method, ..)| *method)
    }

    /// The method of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        METHODS.iter().find(|(_, known, _)| *known == name).map(|(method, ..)| *method)
    }

    /// True for a method that answers only where a mesh is configured.
    #[must_use]
    pub fn needs_mesh(name: &str) -> bool {
        MESH_METHODS.contains(&name)
    }

    /// True for what another machine may ask for: reading and writing records, and redeeming the
    /// tokens that its users have. Everything else is for those whom the kernel vouches for.
    #[must_use]
    pub fn open_to_peers(self) -> bool {
        matches!(
            self,
            Self::Ping
                | Self::Get
                | Self::Match
                | Self::All
                | Self::Keys
                | Self::Put
                | Self::Delete
                | Self::IdentityRedeem
                | Self::IdentityLearn
        )
    }

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        METHODS[self as usize].1
    }

    /// The shape of its parameters, as errors and manuals show it.
    #[must_use]
    pub fn expects(self) -> &'static str {
        METHODS[self as usize].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_in_the_order_of_the_enum() {
        for (index, method) in Method::all().enumerate() {
            assert_eq!(method as usize, index);
            assert_eq!(Method::from_name(method.name()), Some(method));
        }
    }
}
