//! Every error that a client can get for a request that is not carried out, with its exact wire text.
//! Faults of the machine (disk full, I/O errors) are the store's; they have their own type there.

use thiserror::Error;

use super::Limits;

/// Why a request was refused. Nothing was changed by a refused request.
///
/// The text of a variant is what stands in the error slot of the reply; v1 clients compare it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A well-formed value that is not a request, or one nested too deeply.
    #[error("invalid_request")]
    InvalidRequest,
    /// No method has that name.
    #[error("unknown method: {0}")]
    UnknownMethod(Box<str>),
    /// The parameters have another shape than the method takes.
    #[error("invalid params: expected {0}")]
    InvalidParams(&'static str),
    /// The table does not exist, or the caller may not do this to it: the two look the same.
    #[error("access_denied")]
    AccessDenied,
    /// A table of that name is there.
    #[error("already_exists")]
    AlreadyExists,
    /// No record has that key.
    #[error("not_found")]
    NotFound,
    /// The record has no usable value in its key field.
    #[error("missing_key")]
    MissingKey,
    /// The key is a float so large that it stands for more than one integer.
    #[error(
        "number too large for a key: integers go to 2^64-1, floats to 2^53; write it as a string"
    )]
    KeyInexact,
    /// The message has more bytes than the daemon takes; the connection is closed after this.
    #[error("request too large: at most {0} bytes")]
    RequestTooLarge(usize),
    /// The table's name is no identifier.
    #[error("invalid table name: must be alphanumeric with underscores")]
    InvalidTableName,
    /// An attribute's name is no identifier.
    #[error("invalid attribute name: {0}")]
    InvalidAttributeName(Box<str>),
    /// An attribute is not a string.
    #[error("invalid attribute type")]
    InvalidAttributeType,
    /// An attribute is declared twice.
    #[error("duplicate attribute name: {0}")]
    DuplicateAttribute(Box<str>),
    /// A permission is none of read, write, admin.
    #[error("invalid_permissions")]
    InvalidPermissions,
    /// The identity in a grant is none of `uid:N`, `@name`, `*`.
    #[error("invalid_identity")]
    InvalidIdentity,
    /// The scope is none of `local`, `all`, a list of node names.
    #[error("invalid scope: must be local, all or a list of node names")]
    InvalidScope,
    /// The table's scope does not contain this machine.
    #[error("not_here: the table's scope does not contain this machine")]
    NotHere,
    /// The table's rows are still on their way to this machine.
    #[error("table_not_ready: its rows are still on their way to this machine")]
    TableNotReady,
    /// Decisions about the scope were made without knowing of each other.
    #[error("scope_contested: decisions compete, set the scope once more")]
    ScopeContested,
    /// A machine's name is no DNS label.
    #[error("invalid node name: {0}")]
    InvalidNodeName(Box<str>),
    /// A federated table was to be created by a caller without a federated identity.
    #[error("federated_identity_required")]
    FederatedIdentityRequired,
    /// The method needs other machines, and none is configured.
    #[error("mesh networking not configured")]
    MeshNotConfigured,
    /// The method needs other machines, and the mesh that is configured is down; why.
    #[error("mesh_down: {0}")]
    MeshDown(Box<str>),
    /// A request on the Unix socket came with the fifth element that only peers may send.
    #[error("metadata not allowed on local connections")]
    MetadataNotAllowed,
    /// A name is longer than [`Limits::NAME_BYTES`].
    #[error("name too long: at most {} bytes", Limits::NAME_BYTES)]
    NameTooLong,
    /// A table declares more than [`Limits::ATTRIBUTES`] attributes.
    #[error("too many attributes: at most {}", Limits::ATTRIBUTES)]
    TooManyAttributes,
    /// A table's list of grants holds [`Limits::GRANTS_PER_TABLE`] principals.
    #[error("too many grants: at most {} for one table", Limits::GRANTS_PER_TABLE)]
    TooManyGrants,
    /// A record's key is longer than [`Limits::key_bytes`].
    #[error("key too long: at most {0} bytes")]
    KeyTooLong(usize),
    /// The caller owns [`Limits::tables_per_uid`] tables.
    #[error("too many tables: at most {0} for one user")]
    TooManyTables(usize),
    /// The table's owner holds [`Limits::bytes_per_uid`] bytes of records.
    #[error("quota exceeded: at most {0} bytes for one user")]
    QuotaExceeded(u64),
    /// A backup is being made; there is one at a time.
    #[error("a backup is under way")]
    BackupUnderWay,
    /// The result is larger than a message of the caller's transport can be.
    #[error("result too large: at most {0} bytes here")]
    ResultTooLarge(usize),
    /// The settings were not changed, and why.
    #[error("the settings were not changed: {0}")]
    ReloadRejected(Box<str>),
    /// Another node has refused, with this text.
    #[error("refused_by_node: {0}")]
    ByAnotherNode(Box<str>),
    /// As many requests to other nodes wait as may.
    #[error("too_many_requests_to_nodes")]
    NodesBusy,
    /// The name of a federated identity is none.
    #[error("invalid identity name: {0}")]
    InvalidIdentityName(Box<str>),
    /// No federated identity has that name.
    #[error("unknown_identity")]
    UnknownIdentity,
    /// Two federated identities have that name, and the caller is neither of them.
    #[error("identity_contested")]
    IdentityContested,
    /// A federated identity has that name already.
    #[error("identity_taken")]
    IdentityTaken,
    /// An ordinary user may register their login name and names below it.
    #[error("identity_not_yours: only {0} and names below it")]
    IdentityNotYours(Box<str>),
    /// A uid that the machine knows no login name of has no name that it may register itself.
    #[error(
        "identity_not_yours: uid {0} has no login name on this machine, so root must register one for it"
    )]
    IdentityWithoutLogin(u32),
    /// The uid is mapped to a federated identity already; to which one.
    #[error("already_mapped: this uid is @{0}")]
    AlreadyMapped(Box<str>),
    /// The identity has a uid on this node already; which one.
    #[error("identity_has_a_uid_here: {0}")]
    IdentityHasUid(u32),
    /// The caller is mapped to no federated identity.
    #[error("not_mapped")]
    NotMapped,
    /// The identity is not mapped on that node.
    #[error("not_mapped_there")]
    NotMappedThere,
    /// uid 0 is never mapped to a federated identity.
    #[error("root_is_never_mapped")]
    RootNotMapped,
    /// The text is no claim token.
    #[error("token_malformed")]
    TokenMalformed,
    /// The token was not signed by the node that it names.
    #[error("token_forged")]
    TokenForged,
    /// What a node says of an identity rests on a row that this node cannot verify; of whom, and why.
    #[error("row_not_verified: what {by} has signed is not believed here: {why}")]
    RowUnverified {
        /// The writer.
        by: Box<str>,
        /// What is wrong with its signature or certificate.
        why: Box<str>,
    },
    /// The token's time is over, or has not begun by this node's clock.
    #[error("token_expired")]
    TokenExpired,
    /// The token was made in another mesh.
    #[error("token_of_another_mesh")]
    TokenForeign,
    /// The token was made for another node.
    #[error("token_for_another_node: {0}")]
    TokenForNode(Box<str>),
    /// The token was made for another uid.
    #[error("token_for_another_uid: {0}")]
    TokenForUid(u32),
    /// The token has been used.
    #[error("token_already_used")]
    TokenUsed,
    /// A token may be valid for a day at most.
    #[error("token_lifetime: at most {0} seconds")]
    TokenLifetime(u64),
    /// The database was another node of this mesh; which one.
    #[error("this database belongs to node {0}")]
    AnotherNode(Box<str>),
    /// The database belongs to another mesh.
    #[error("this database belongs to another mesh")]
    AnotherMesh,
    /// No node of that name is configured.
    #[error("unknown node: {0}")]
    UnknownNode(Box<str>),
    /// The node that was asked to put a node out of the mesh is that node.
    #[error("own_node: a node cannot remove itself, do it on another one")]
    OwnNode,
    /// The other node did not answer in time, or cannot be reached; which one.
    #[error("node_unreachable: {0}")]
    NodeUnreachable(Box<str>),
    /// A new table must be held where it is created.
    #[error("invalid scope: must include this node, {0}")]
    ScopeWithoutHome(Box<str>),
    /// A table of a uid lives on that uid's machine, whose users alone can decide about it; which one.
    #[error("invalid scope: must include the table's home, {0}")]
    ScopeWithoutTableHome(Box<str>),
    /// No other node may hold the table, so that this replica cannot be dropped alone.
    #[error("only_replica: no other node is in the table's scope")]
    OnlyReplica,
    /// Not every node has confirmed in time to have what it was waited for; which ones have not.
    #[error("timeout: not confirmed by {0}")]
    NotConfirmed(Box<str>),
    /// The table's scope does not contain that node.
    #[error("not_in_scope: {0}")]
    NotInScope(Box<str>),
    /// As many federated identities, mappings or decisions are kept as there may be.
    #[error("directory_full: at most {0} entries")]
    DirectoryFull(usize),
    /// The caller has as many connections open as one uid may have, or all are taken.
    #[error("too_many_connections")]
    TooManyConnections,
}
