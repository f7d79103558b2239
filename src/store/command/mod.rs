//! What the writer can be asked to do, and what it answers.
//! Commands are data, so that they can be counted, bounded and ordered before they are carried out.

mod directory;
mod replication;
mod upkeep;

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use cortex_core::model::{
    AttributeName, Caller, IdentityId, IdentityName, Key, NodeName, Owner, QualifiedName, Scope,
    Signer, Stamp, TableName, TableUid,
};
use cortex_core::replication::{Ack, Dot};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{catalog::Entry, error::CommandError, events::Event, system::VerifiedRow};

pub use self::{
    directory::{Claim, Granting, Redemption, Registration, TokenId},
    replication::{Applied, Collection, ReceivedBatch, Restamp},
    upkeep::{AuditReport, AuditStep, Audited},
};

/// A change to be made in the writer's next transaction. The caller is judged once more there.
#[derive(Debug)]
pub enum Command {
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
    /// Store a record.
    Put {
        /// Needs `write`.
        caller: Caller,
        /// As it was looked up.
        entry: Arc<Entry>,
        /// The record's key.
        key: Key,
        /// The record, as the client encoded it.
        record: Bytes,
    },
    /// Remove a record, whether or not it is there.
    Delete {
        /// Needs `write`.
        caller: Caller,
        /// As it was looked up.
        entry: Arc<Entry>,
        /// The record's key.
        key: Key,
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
        /// Nodes whose replicas are given up: nobody waits for what only they have.
        abandon: BTreeSet<NodeName>,
    },
    /// Become, or be again, a node of a mesh: sign for it from now on.
    Join(Arc<dyn Signer>),
    /// Make a federated identity.
    Register(Registration),
    /// Map a uid of this node to an identity by a token.
    Claim(Box<Claim>),
    /// Sign rows of the directory in the place of writers who cannot any more: their keys, each with the
    /// stamp that it was found with.
    Adopt(Vec<(Vec<u8>, Stamp)>),
    /// Note that a token made here was used elsewhere.
    Redeem(Redemption),
    /// Take over what another node says of itself.
    Learn(Vec<VerifiedRow>),
    /// Revoke mappings of an identity.
    Unbind {
        /// Root, or mapped to the identity here.
        caller: Caller,
        /// Whose.
        identity: IdentityId,
        /// On that node alone; none for everywhere.
        node: Option<NodeName>,
    },
    /// Take rows of another replica.
    ApplyBatch(Box<ReceivedBatch>),
    /// End a replica that drains, where another one confirms to have everything.
    Drained {
        /// Which node confirms.
        from: NodeName,
        /// What.
        ack: Box<Ack>,
    },
    /// Forget deletions that every replica knows.
    Collect(Collection),
    /// Remove the beginning of a table's change log.
    TruncateChangeLog {
        /// Which table.
        table: TableUid,
        /// Up to this LSN.
        upto: u64,
    },
    /// Take note of conflicts.
    Acknowledge {
        /// Needs `write`.
        caller: Caller,
        /// As it was looked up.
        entry: Arc<Entry>,
        /// One of them; none for all of the table.
        conflict: Option<i64>,
    },
    /// Have rows told to all other replicas again, those too that claim to have them.
    Push {
        /// Of which table.
        entry: Arc<Entry>,
        /// Which rows.
        keys: Vec<Vec<u8>>,
    },
    /// Give rows of the future timestamps of the present.
    Restamp(Restamp),
    /// Write rows once more as they are: for replicas that have lost them and claim to have them.
    Rewrite {
        /// Of which table.
        entry: Arc<Entry>,
        /// Which rows; those that are not there are left out.
        keys: Vec<Vec<u8>>,
    },
    /// Delete rows as an ordinary write would, unless they have changed since they were looked at.
    Erase {
        /// Needs `write`.
        caller: Caller,
        /// Of which table.
        entry: Arc<Entry>,
        /// Which rows, each with the version that it had; none where it was not there.
        rows: Vec<(Vec<u8>, Option<Dot>)>,
    },
    /// Read some more rows of a table, and compare what they come to with what is kept beside them.
    Audit(AuditStep),
    /// Write as another actor from now on.
    RotateActor,
    /// Put a node out of the mesh with the database that it has.
    RemoveNode {
        /// Who asks. That they may is judged before.
        caller: Caller,
        /// Which.
        node: NodeName,
    },
    /// Settle a name that several federated identities have on one of them.
    SettleName {
        /// Who asks. That they may is judged before.
        caller: Caller,
        /// The name.
        name: IdentityName,
        /// Who keeps it.
        keep: IdentityId,
    },
    /// Write an event down.
    Note(Event),
    /// Remove some rows of dropped tables.
    Purge,
    /// Carry out what came before and end.
    Stop,
}

impl Command {
    /// The table that it changes, if it is one that exists.
    pub(super) fn table(&self) -> Option<&QualifiedName> {
        match self {
            Self::DropTable { entry, .. }
            | Self::Chown { entry, .. }
            | Self::Put { entry, .. }
            | Self::Delete { entry, .. }
            | Self::SetScope { entry, .. }
            | Self::Acknowledge { entry, .. }
            | Self::Push { entry, .. }
            | Self::Rewrite { entry, .. }
            | Self::Erase { entry, .. }
            | Self::Grant(Granting { entry, .. })
            | Self::Revoke(Granting { entry, .. }) => Some(&entry.table.name),
            Self::CreateTable { .. }
            | Self::Decline { .. }
            | Self::Join(_)
            | Self::Register(_)
            | Self::Claim(_)
            | Self::Adopt(_)
            | Self::Redeem(_)
            | Self::Learn(_)
            | Self::Unbind { .. }
            | Self::ApplyBatch(_)
            | Self::Drained { .. }
            | Self::Collect(_)
            | Self::TruncateChangeLog { .. }
            | Self::Restamp(_)
            | Self::Audit(_)
            | Self::RotateActor
            | Self::RemoveNode { .. }
            | Self::SettleName { .. }
            | Self::Note(_)
            | Self::Purge
            | Self::Stop => None,
        }
    }

    /// True where it may take the room that is kept back on a full disk: it frees some, or takes next to none
    /// and what else is to be freed depends on it.
    pub(super) fn may_use_reserve(&self) -> bool {
        match self {
            Self::Delete { .. }
            | Self::DropTable { .. }
            | Self::Erase { .. }
            | Self::Revoke(_)
            | Self::SetScope { .. }
            | Self::Unbind { .. }
            | Self::RemoveNode { .. }
            | Self::Decline { .. }
            | Self::Chown { .. }
            | Self::Join(_)
            | Self::Learn(_)
            | Self::Drained { .. }
            | Self::Collect(_)
            | Self::TruncateChangeLog { .. }
            | Self::Acknowledge { .. }
            | Self::RotateActor
            | Self::Note(_)
            | Self::Audit(_)
            | Self::Purge
            | Self::Stop => true,
            Self::Put { .. }
            | Self::CreateTable { .. }
            | Self::Grant(_)
            | Self::Register(_)
            | Self::Claim(_)
            | Self::Redeem(_)
            | Self::ApplyBatch(_)
            | Self::Push { .. }
            | Self::Restamp(_)
            | Self::Rewrite { .. }
            | Self::Adopt(_)
            | Self::SettleName { .. } => false,
        }
    }

    /// Bytes that it holds in the queue, for the bound on all of them together.
    pub(super) fn weight(&self) -> usize {
        /// The command itself with its key and reply channel, generously.
        const BASE: usize = 512;
        match self {
            Self::Put { key, record, .. } => BASE + key.as_bytes().len() + record.len(),
            Self::Delete { key, .. } => BASE + key.as_bytes().len(),
            Self::Adopt(rows) => BASE + rows.iter().map(|(key, _)| key.len() + 64).sum::<usize>(),
            Self::Learn(rows) => BASE + rows.iter().map(VerifiedRow::bytes).sum::<usize>(),
            Self::Claim(claim) => BASE + claim.rows.iter().map(VerifiedRow::bytes).sum::<usize>(),
            Self::ApplyBatch(delivery) => BASE + delivery.bytes(),
            Self::Erase { rows, .. } => {
                BASE + rows.iter().map(|(key, _)| key.len() + 64).sum::<usize>()
            }
            Self::Push { keys, .. } | Self::Rewrite { keys, .. } => {
                BASE + keys.iter().map(|key| key.len() + 32).sum::<usize>()
            }
            Self::CreateTable { .. }
            | Self::DropTable { .. }
            | Self::Decline { .. }
            | Self::Chown { .. }
            | Self::Grant(_)
            | Self::Revoke(_)
            | Self::SetScope { .. }
            | Self::Join(_)
            | Self::Register(_)
            | Self::Redeem(_)
            | Self::Unbind { .. }
            | Self::Drained { .. }
            | Self::Collect(_)
            | Self::TruncateChangeLog { .. }
            | Self::Acknowledge { .. }
            | Self::Restamp(_)
            | Self::Audit(_)
            | Self::RotateActor
            | Self::RemoveNode { .. }
            | Self::SettleName { .. }
            | Self::Note(_)
            | Self::Purge
            | Self::Stop => BASE,
        }
    }
}

/// What a committed command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The table exists.
    Created,
    /// The table is gone.
    Dropped,
    /// Rows are signed in their writers' place.
    Adopted,
    /// The table is kept away from this machine, or not any more.
    Declined {
        /// True where it is kept away.
        declined: bool,
    },
    /// The table has another owner.
    HandedOver,
    /// The record is stored.
    Stored,
    /// The record is not there.
    Deleted,
    /// The rights are held.
    Granted,
    /// The rights are not held.
    Revoked,
    /// The scope is decided.
    Scoped,
    /// This node signs for the mesh.
    Joined,
    /// The identity exists.
    Registered,
    /// The caller is the identity.
    Claimed,
    /// The token is used up.
    Redeemed,
    /// What was said is known here.
    Learned,
    /// The mappings do not hold any more.
    Unbound,
    /// What has become of the rows.
    Applied(Applied),
    /// Whether the replica has ended.
    Drained {
        /// True where it has.
        left: bool,
    },
    /// Deletions are forgotten.
    Collected {
        /// From after which timestamp to go on; none at the end.
        next: Option<i64>,
    },
    /// Conflicts are taken note of.
    Acknowledged {
        /// How many.
        count: u64,
    },
    /// Rows are told again.
    Pushed {
        /// How many.
        count: u64,
    },
    /// Rows have timestamps of the present.
    Restamped {
        /// How many.
        rows: u64,
    },
    /// Rows are written once more.
    Rewritten {
        /// How many.
        count: u64,
    },
    /// Rows are deleted.
    Erased {
        /// How many.
        count: u64,
    },
    /// What an audit has come to so far.
    Audited(Audited),
    /// Writes are by another actor.
    Rotated,
    /// The node is out of the mesh.
    Removed,
    /// The name means one identity.
    Settled,
    /// The event is written down.
    Noted,
    /// Rows of dropped tables were removed.
    Purged {
        /// True where there may be others left.
        more: bool,
    },
    /// Everything before is durable and the writer has ended.
    Stopped,
}

/// A command on its way, with the channel for its answer and its share of the queue's bound.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Result<Outcome, CommandError>>,
    pub(super) _share: OwnedSemaphorePermit,
}
