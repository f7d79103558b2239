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
    TableChown,
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
    Settings,
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
    MeshRemoveNode,
    IdentityResolve,
    SyncStatus,
    SyncStatusTable,
    SyncWait,
    SyncRepair,
    SyncBuckets,
    SyncMarks,
    SyncPush,
    SyncDigest,
    Scrub,
    Conflicts,
    ConflictShow,
    ConflictRestore,
    ConflictAck,
    Explain,
}

/// A method with its wire name and what `invalid params: expected …` says of it.
const METHODS: [(Method, &str, &str); 50] = [
    (Method::Ping, "ping", "[]"),
    (Method::Status, "status", "[]"),
    (Method::Tables, "tables", "[] or [{all, details}]"),
    (Method::CreateTable, "create_table", "[name, [attributes]] or [name, [attributes], scope]"),
    (Method::DropTable, "drop_table", "[table] or [table, {replica, undo}]"),
    (Method::TableChown, "table_chown", "[table, owner] or [table, owner, {name}]"),
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
    (Method::Settings, "settings", "[]"),
    (Method::Checkpoint, "checkpoint", "[]"),
    (Method::Backup, "backup", "[] or [name]"),
    (Method::GetScope, "get_scope", "[table]"),
    (Method::SetScope, "set_scope", "[table, scope] or [table, scope, {abandon}]"),
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
    (Method::MeshRemoveNode, "mesh_remove_node", "[node]"),
    (Method::IdentityResolve, "identity_resolve", "[name, id]"),
    (Method::SyncStatus, "sync_status", "[]"),
    (Method::SyncStatusTable, "sync_status_table", "[table]"),
    (Method::SyncWait, "sync_wait", "[table] or [table, {node, all, timeout_ms}]"),
    (Method::SyncRepair, "sync_repair", "[table] or [table, {dry_run, prefer}]"),
    (Method::SyncBuckets, "sync_buckets", "[table_id]"),
    (Method::SyncMarks, "sync_marks", "[table_id, [buckets]] or [table_id, [buckets], after]"),
    (Method::SyncPush, "sync_push", "[table_id, [keys]] or [table_id, [keys], {again}]"),
    (Method::SyncDigest, "sync_digest", "[table_id]"),
    (Method::Scrub, "scrub", "[]"),
    (Method::Conflicts, "conflicts", "[] or [table] or [table, {limit, before}]"),
    (Method::ConflictShow, "conflict_show", "[table, id]"),
    (Method::ConflictRestore, "conflict_restore", "[table, id]"),
    (Method::ConflictAck, "conflict_ack", "[table] or [table, id]"),
    (Method::Explain, "explain", "[table] or [table, {key, node}]"),
];

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

    /// True for what another machine may ask for: reading and writing records, redeeming the
    /// tokens that its users have, and comparing replicas. Everything else is for those whom the kernel vouches
    /// for.
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
        ) || self.is_for_peers_alone()
    }

    /// True for what only another machine may ask for.
    #[must_use]
    pub fn is_for_peers_alone(self) -> bool {
        matches!(
            self,
            Self::IdentityRedeem
                | Self::IdentityLearn
                | Self::SyncBuckets
                | Self::SyncMarks
                | Self::SyncPush
                | Self::SyncDigest
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
