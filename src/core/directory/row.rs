//! The rows of the system table: who is who, who may do what, and where tables may be.
//! What they mean together is `directory`'s; signing and storing them, the store's.
//!
//! Each row has one writer, the node that its key names, so that the newest version of a row is
//! the right one whichever node brings it, and no two nodes ever write the same row. What several nodes
//! have to say about one thing stands in several rows, and is put together when it is read.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::{Record, RowFields as _};
use crate::{
    model::{
        ActorId, IdentityId, IdentityName, MeshId, NodeName, Owner, Permissions, Principal, Scope,
        Stamp, TableName, TableUid, Uid,
    },
    wire::Fields,
};

/// What a decision had seen when it was made: of each node, the number of its last decision about
/// the same thing.
pub type Seen = BTreeMap<NodeName, u64>;

/// A row of the system table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A machine of the mesh.
    Node(NodeRow),
    /// A federated identity. Written once.
    Identity(IdentityRow),
    /// A uid of a machine is a federated identity.
    Binding(BindingRow),
    /// It is not, any more.
    Unbinding(UnbindingRow),
    /// An identity's bindings are revoked on every machine, those too that are not known yet.
    Revocation(RevocationRow),
    /// What one node has decided about one right of one principal on one table.
    Grant(GrantRow),
    /// What one node knows of a federated table's name.
    Name(NameRow),
    /// What one node has decided about where a table may be.
    Scope(ScopeRow),
    /// A machine's database has been put out of the mesh.
    Removal(RemovalRow),
    /// A machine's replica of a table: when its stay in the scope began and ended.
    Replica(ReplicaRow),
    /// Which of several identities of one name keeps it.
    NameResolution(NameResolutionRow),
    /// A table that others may have replicas of is dropped.
    Dropped(DroppedRow),
    /// A table was transferred to another owner.
    Transfer(TransferRow),
}

/// A row as it is passed from node to node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRow {
    /// Its key in the system table.
    pub key: Vec<u8>,
    /// The row and its writer's signature.
    pub value: Vec<u8>,
    /// Its place in the merge order, with the actor's id.
    pub stamp: Stamp,
    /// Its number among the writes of its actor.
    pub seq: u64,
}

/// Which database file: drawn at its birth, and again when a backup comes to epoch.
pub type Database = [u8; 16];

/// What stands for the database of a machine that has not said which one it is.
pub const UNKNOWN_DATABASE: Database = [0; 16];

/// A machine of the mesh, as it presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name; the writer.
    pub node: NodeName,
    /// Its certificate (DER), by which its signatures are judged.
    pub certificate: Vec<u8>,
    /// Which database its rows are in; [`UNKNOWN_DATABASE`] in rows of older versions.
    pub database: Database,
    /// Who its writes are by; zero in rows of older versions.
    pub actor: ActorId,
}

/// A machine's database has been put out of the mesh for good, by an operator of one node. The
/// machine may come back with another database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovalRow {
    /// The machine.
    pub node: NodeName,
    /// The database it had.
    pub database: Database,
    /// Where that was decided; the writer.
    pub by: NodeName,
}

/// A federated identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRow {
    /// Its lasting id.
    pub id: IdentityId,
    /// What people call it.
    pub name: IdentityName,
    /// Where it was registered; the writer.
    pub home: NodeName,
    /// When, in Unix milliseconds by that machine's clock.
    pub created_ms: u64,
}

/// A uid of a machine is a federated identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingRow {
    /// The machine; the writer.
    pub node: NodeName,
    /// The uid there.
    pub uid: Uid,
    /// Who it is.
    pub identity: IdentityId,
    /// The revocations known when it was made: it stands as long as there are no others.
    pub seen: Seen,
    /// When, in Unix milliseconds by that machine's clock.
    pub bound_ms: u64,
    /// The machine's database: the uid of a machine that is installed again is another person.
    pub database: Database,
    /// The revocations of the whole identity that were known when it was made.
    pub seen_revocations: Seen,
    /// The claim token that it was made with: by this row every node knows the token to be used, and
    /// goes on knowing it when the database that has used it is lost. None for a registration.
    pub token: Option<TokenId>,
}

/// The id of a claim token, drawn at random.
pub type TokenId = [u8; 16];

/// A binding is revoked, by one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnbindingRow {
    /// Whose binding.
    pub identity: IdentityId,
    /// On which machine.
    pub node: NodeName,
    /// Of which uid there.
    pub uid: Uid,
    /// Who has revoked it; the writer.
    pub by: NodeName,
    /// How often.
    pub count: u64,
}

/// All bindings of an identity are revoked, by one node: on machines too whose binding that node has
/// not known. Only a binding that was made knowing of it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationRow {
    /// Whose bindings.
    pub identity: IdentityId,
    /// Who has revoked them; the writer.
    pub by: NodeName,
    /// How often.
    pub count: u64,
}

/// One node's decisions about one right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRow {
    /// The table.
    pub table: TableUid,
    /// Whose right.
    pub principal: Principal,
    /// A single right.
    pub right: Permissions,
    /// Who decided; the writer.
    pub by: NodeName,
    /// The revocations known when it was granted; none where this node has not granted it, or
    /// has revoked it since.
    pub granted: Option<Seen>,
    /// How often this node has revoked it.
    pub revoked: u64,
}

/// One node's decision about a federated table's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRow {
    /// Whose table.
    pub owner: IdentityId,
    /// Its name.
    pub name: TableName,
    /// Who says so; the writer.
    pub by: NodeName,
    /// The generation: one more after each drop.
    pub generation: u64,
    /// True once that generation has been dropped.
    pub dropped: bool,
}

/// One node's decision about a table's scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeRow {
    /// The table.
    pub table: TableUid,
    /// Who decided; the writer. A local scope means this machine.
    pub by: NodeName,
    /// Where the rows may be.
    pub scope: Scope,
    /// How often this node has decided.
    pub count: u64,
    /// The decisions that this one replaces.
    pub seen: Seen,
    /// Of each machine, the newest epoch of its replica that this decision knows of or begins.
    pub epochs: Seen,
    /// Of each machine, the last epoch of its replica that is over or was abandoned.
    pub off: Seen,
}

/// What a machine says of its replica of a table. An epoch lasts from one admission to the table's scope to the end of the replica:
/// what was acknowledged in one says nothing of the next, which begins with nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    /// The table.
    pub table: TableUid,
    /// The machine; the writer.
    pub node: NodeName,
    /// The database that the replica is in.
    pub database: Database,
    /// The epoch that has begun.
    pub up: u64,
    /// The epoch that has ended: it was drained, or abandoned.
    pub down: u64,
    /// How often the machine's root has decided to keep the table away from it, whatever the scope says, or has taken
    /// that back: odd while it is kept away. A count, so that of two versions of which the writer has forgotten one
    /// the later is known.
    pub declines: u64,
}

impl ReplicaRow {
    /// True while the machine's root keeps the table away from it.
    #[must_use]
    pub const fn is_declined(&self) -> bool {
        self.declines % 2 == 1
    }
}

/// One node's decision about whom a table was transferred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRow {
    /// The table.
    pub table: TableUid,
    /// Who has it from then on. Never a bare uid, which is another user on each machine.
    pub owner: Owner,
    /// What it is called from then on.
    pub name: TableName,
    /// Where that was decided; the writer.
    pub by: NodeName,
    /// How often this node has decided.
    pub count: u64,
    /// The decisions that this one replaces.
    pub seen: Seen,
}

/// One node's decision which of several identities of one name keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameResolutionRow {
    /// The name.
    pub name: IdentityName,
    /// Who keeps it.
    pub keep: IdentityId,
    /// The identities of that name that were known, the kept one among them. Of others it says
    /// nothing.
    pub among: BTreeSet<IdentityId>,
    /// Where that was decided; the writer.
    pub by: NodeName,
    /// How often this node has decided.
    pub count: u64,
    /// The decisions that this one replaces.
    pub seen: Seen,
}

/// A table that others may have replicas of is dropped, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedRow {
    /// The table.
    pub table: TableUid,
    /// Who says so; the writer.
    pub by: NodeName,
}

impl Row {
    /// The machine that alone may write this row.
    #[must_use]
    pub fn writer(&self) -> &NodeName {
        match self {
            Self::Node(row) => &row.node,
            Self::Identity(row) => &row.home,
            Self::Binding(row) => &row.node,
            Self::Unbinding(row) => &row.by,
            Self::Revocation(row) => &row.by,
            Self::Grant(row) => &row.by,
            Self::Name(row) => &row.by,
            Self::Scope(row) => &row.by,
            Self::Removal(row) => &row.by,
            Self::Replica(row) => &row.node,
            Self::NameResolution(row) => &row.by,
            Self::Dropped(row) => &row.by,
            Self::Transfer(row) => &row.by,
        }
    }

    /// The row's key in the system table: parts separated by slashes, which none of them contains.
    /// Those of nodes come before all others in the order of keys, since others are judged by them.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Node(row) => format!("+node/{}", row.node),
            Self::Identity(row) => format!("identity/{}", row.id),
            Self::Binding(row) => format!("binding/{}/{}", row.node, row.uid),
            Self::Unbinding(row) => {
                format!("unbinding/{}/{}/{}/{}", row.identity, row.node, row.uid, row.by)
            }
            Self::Revocation(row) => format!("revocation/{}/{}", row.identity, row.by),
            Self::Grant(row) => {
                let right = row.right.names().next().unwrap_or_default();
                format!("grant/{}/{}/{right}/{}", row.table, row.principal, row.by)
            }
            Self::Name(row) => format!("name/{}/{}/{}", row.owner, row.name, row.by),
            Self::Scope(row) => format!("scope/{}/{}", row.table, row.by),
            Self::Removal(row) => {
                let database = u128::from_be_bytes(row.database);
                format!("removal/{}/{database:032x}/{}", row.node, row.by)
            }
            Self::Replica(row) => format!("replica/{}/{}", row.table, row.node),
            Self::NameResolution(row) => format!("settlement/{}/{}", row.name, row.by),
            Self::Dropped(row) => format!("dropped/{}/{}", row.table, row.by),
            Self::Transfer(row) => format!("transfer/{}/{}", row.table, row.by),
        }
    }

    /// The row as bytes: a MessagePack map with small integers as keys. The first says the kind.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut record = Record::new();
        match self {
            Self::Node(row) => record
                .uint(0, 0)
                .text(1, row.node.as_str())
                .bytes(2, &row.certificate)
                .bytes(3, &row.database)
                .bytes(4, &row.actor.0.to_be_bytes()),
            Self::Identity(row) => record
                .uint(0, 1)
                .bytes(1, &row.id.0)
                .text(2, row.name.as_str())
                .text(3, row.home.as_str())
                .uint(4, row.created_ms),
            Self::Binding(row) => {
                let record = record
                    .uint(0, 2)
                    .text(1, row.node.as_str())
                    .uint(2, row.uid.0.into())
                    .bytes(3, &row.identity.0)
                    .seen(4, &row.seen)
                    .uint(5, row.bound_ms)
                    .bytes(6, &row.database)
                    .seen(7, &row.seen_revocations);
                match &row.token {
                    Some(token) => record.bytes(8, token),
                    None => record,
                }
            }
            Self::Unbinding(row) => record
                .uint(0, 3)
                .bytes(1, &row.identity.0)
                .text(2, row.node.as_str())
                .uint(3, row.uid.0.into())
                .text(4, row.by.as_str())
                .uint(5, row.count),
            Self::Revocation(row) => record
                .uint(0, 11)
                .bytes(1, &row.identity.0)
                .text(2, row.by.as_str())
                .uint(3, row.count),
            Self::Grant(row) => {
                let record = record
                    .uint(0, 4)
                    .bytes(1, &row.table.0)
                    .text(2, &row.principal.to_string())
                    .uint(3, row.right.bits().into())
                    .text(4, row.by.as_str())
                    .uint(5, row.revoked);
                match &row.granted {
                    Some(seen) => record.seen(6, seen),
                    None => record,
                }
            }
            Self::Name(row) => record
                .uint(0, 5)
                .bytes(1, &row.owner.0)
                .text(2, row.name.as_str())
                .text(3, row.by.as_str())
                .uint(4, row.generation)
                .uint(5, row.dropped.into()),
            Self::Scope(row) => record
                .uint(0, 6)
                .bytes(1, &row.table.0)
                .text(2, row.by.as_str())
                .text(3, &row.scope.to_string())
                .uint(4, row.count)
                .seen(5, &row.seen)
                .seen(6, &row.epochs)
                .seen(7, &row.off),
            Self::Removal(row) => record
                .uint(0, 7)
                .text(1, row.node.as_str())
                .bytes(2, &row.database)
                .text(3, row.by.as_str()),
            Self::Replica(row) => {
                let record = record
                    .uint(0, 8)
                    .bytes(1, &row.table.0)
                    .text(2, row.node.as_str())
                    .bytes(3, &row.database)
                    .uint(4, row.up)
                    .uint(5, row.down);
                if row.declines > 0 { record.uint(6, row.declines) } else { record }
            }
            Self::Transfer(row) => record
                .uint(0, 12)
                .bytes(1, &row.table.0)
                .text(2, &row.owner.to_string())
                .text(3, row.name.as_str())
                .text(4, row.by.as_str())
                .uint(5, row.count)
                .seen(6, &row.seen),
            Self::Dropped(row) => {
                record.uint(0, 10).bytes(1, &row.table.0).text(2, row.by.as_str())
            }
            Self::NameResolution(row) => {
                let among: Vec<[u8; 16]> = row.among.iter().map(|id| id.0).collect();
                record
                    .uint(0, 9)
                    .text(1, row.name.as_str())
                    .bytes(2, &row.keep.0)
                    .bytes(3, among.as_flattened())
                    .text(4, row.by.as_str())
                    .uint(5, row.count)
                    .seen(6, &row.seen)
            }
        };
        record.into_bytes()
    }

    /// Reads a row. None where the bytes are no row that this version knows, or where it does not
    /// belong under that key.
    #[must_use]
    pub fn decode(key: &[u8], bytes: &[u8]) -> Option<Self> {
        let fields = Fields::read(bytes)?;
        let row = match fields.uint(0)? {
            0 => Self::Node(NodeRow {
                node: fields.node(1)?,
                certificate: fields.bytes(2)?.to_vec(),
                database: fields.id_or_zeros(3)?,
                actor: ActorId(u128::from_be_bytes(fields.id_or_zeros(4)?)),
            }),
            1 => Self::Identity(IdentityRow {
                id: IdentityId(fields.id(1)?),
                name: IdentityName::parse(fields.text(2)?).ok()?,
                home: fields.node(3)?,
                created_ms: fields.uint(4)?,
            }),
            2 => Self::Binding(BindingRow {
                node: fields.node(1)?,
                uid: fields.uid(2)?,
                identity: IdentityId(fields.id(3)?),
                seen: fields.seen(4)?,
                bound_ms: fields.uint(5)?,
                database: fields.id_or_zeros(6)?,
                seen_revocations: fields.seen_or_none(7)?,
                token: if fields.has(8) { Some(fields.id(8)?) } else { None },
            }),
            3 => Self::Unbinding(UnbindingRow {
                identity: IdentityId(fields.id(1)?),
                node: fields.node(2)?,
                uid: fields.uid(3)?,
                by: fields.node(4)?,
                count: fields.uint(5)?,
            }),
            4 => Self::Grant(GrantRow {
                table: TableUid(fields.id(1)?),
                principal: Principal::parse(fields.text(2)?).ok()?,
                right: single(fields.uint(3)?)?,
                by: fields.node(4)?,
                revoked: fields.uint(5)?,
                granted: if fields.has(6) { Some(fields.seen(6)?) } else { None },
            }),
            5 => Self::Name(NameRow {
                owner: IdentityId(fields.id(1)?),
                name: TableName::parse(fields.text(2)?).ok()?,
                by: fields.node(3)?,
                generation: fields.uint(4)?,
                dropped: fields.uint(5)? != 0,
            }),
            6 => Self::Scope(ScopeRow {
                table: TableUid(fields.id(1)?),
                by: fields.node(2)?,
                scope: Scope::parse(fields.text(3)?).ok()?,
                count: fields.uint(4)?,
                seen: fields.seen(5)?,
                epochs: fields.seen_or_none(6)?,
                off: fields.seen_or_none(7)?,
            }),
            7 => Self::Removal(RemovalRow {
                node: fields.node(1)?,
                database: fields.id(2)?,
                by: fields.node(3)?,
            }),
            8 => Self::Replica(ReplicaRow {
                table: TableUid(fields.id(1)?),
                node: fields.node(2)?,
                database: fields.id(3)?,
                up: fields.uint(4)?,
                down: fields.uint(5)?,
                declines: if fields.has(6) { fields.uint(6)? } else { 0 },
            }),
            11 => Self::Revocation(RevocationRow {
                identity: IdentityId(fields.id(1)?),
                by: fields.node(2)?,
                count: fields.uint(3)?,
            }),
            10 => Self::Dropped(DroppedRow { table: TableUid(fields.id(1)?), by: fields.node(2)? }),
            12 => Self::Transfer(TransferRow {
                table: TableUid(fields.id(1)?),
                owner: Owner::parse(fields.text(2)?)?,
                name: TableName::parse(fields.text(3)?).ok()?,
                by: fields.node(4)?,
                count: fields.uint(5)?,
                seen: fields.seen(6)?,
            }),
            9 => Self::NameResolution(NameResolutionRow {
                name: IdentityName::parse(fields.text(1)?).ok()?,
                keep: IdentityId(fields.id(2)?),
                among: identities(fields.bytes(3)?)?,
                by: fields.node(4)?,
                count: fields.uint(5)?,
                seen: fields.seen(6)?,
            }),
            _ => return None,
        };
        (row.key().as_bytes() == key && row.is_sound()).then_some(row)
    }

    /// False for what no node may say: that root is somebody, that a bare uid, which is another
    /// user on each machine, holds a right on what leaves it or owns it, or that a name is kept by an
    /// identity that was not looked at.
    fn is_sound(&self) -> bool {
        match self {
            Self::Binding(row) => row.uid != Uid::ROOT,
            Self::Grant(row) => !matches!(row.principal, Principal::Uid(_)),
            Self::NameResolution(row) => row.among.contains(&row.keep),
            Self::Transfer(row) => !matches!(row.owner, Owner::Uid(_)),
            Self::Node(_)
            | Self::Identity(_)
            | Self::Unbinding(_)
            | Self::Revocation(_)
            | Self::Name(_)
            | Self::Scope(_)
            | Self::Removal(_)
            | Self::Replica(_)
            | Self::Dropped(_) => true,
        }
    }
}

/// What a node signs when it writes a row: the row with its place, so that an older version cannot
/// be passed off as a newer one, nor a row of one mesh as one of another.
#[must_use]
pub fn signed_part(mesh: MeshId, stamp: Stamp, key: &[u8], row: &[u8]) -> Vec<u8> {
    /// Keeps the signature from being taken for one of something else.
    const DOMAIN: &[u8] = b"cortexd row v1\0";
    let length = (key.len() as u64).to_be_bytes();
    let hlc = stamp.hlc.to_i64().to_be_bytes();
    let actor = stamp.actor.0.to_be_bytes();
    [DOMAIN, &mesh.0, &hlc, &actor, &length, key, row].concat()
}

/// What a node signs when it signs a row in the place of its writer, who cannot any more: where the row
/// stands now, and the stamp that its writer gave it.
#[must_use]
pub fn adopted_part(
    mesh: MeshId,
    stamp: Stamp,
    authored: Stamp,
    key: &[u8],
    row: &[u8],
) -> Vec<u8> {
    /// Keeps the signature from being taken for a writer's own.
    const DOMAIN: &[u8] = b"cortexd adopted row v1\0";
    let place = |stamp: Stamp| {
        let (hlc, actor) = (stamp.hlc.to_i64().to_be_bytes(), stamp.actor.0.to_be_bytes());
        [&hlc[..], &actor].concat()
    };
    let length = (key.len() as u64).to_be_bytes();
    [DOMAIN, &mesh.0, &place(stamp), &place(authored), &length, key, row].concat()
}

/// Ids one after the other.
fn identities(bytes: &[u8]) -> Option<BTreeSet<IdentityId>> {
    let (ids, rest) = bytes.as_chunks::<16>();
    rest.is_empty().then(|| ids.iter().copied().map(IdentityId).collect())
}

fn single(bits: u64) -> Option<Permissions> {
    let right = Permissions::from_bits(u8::try_from(bits).ok()?);
    (right.names().count() == 1).then_some(right)
}

/// The owner of a federated table, as the catalog knows it.
impl From<IdentityId> for Owner {
    fn from(id: IdentityId) -> Self {
        Self::Identity(id)
    }
}

#[cfg(test)]
mod tests;
