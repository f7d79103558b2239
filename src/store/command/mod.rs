//! What the writer can be asked to do, and what it answers, by family.
//! Commands are data, so that they can be counted, bounded and ordered before they are carried out.

mod directory;
mod records;
mod replication;
mod tables;
mod upkeep;

use cortex_core::model::QualifiedName;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

pub use self::{
    directory::{Claim, DirectoryCommand, DirectoryOutcome, Redemption, Registration, TokenId},
    records::{RecordCommand, RecordOutcome},
    replication::{
        Applied, Collection, ReceivedBatch, ReplicationCommand, ReplicationOutcome, Restamp,
    },
    tables::{Granting, TableCommand, TableOutcome},
    upkeep::{AuditReport, AuditStep, Audited, UpkeepCommand, UpkeepOutcome},
};
use super::error::CommandError;

/// A change to be made in the writer's next transaction. The caller is judged once more there.
#[derive(Debug)]
pub enum Command {
    /// A change of records that a client asks for, or a repair of rows.
    Records(RecordCommand),
    /// A change of tables, and of who may do what with them, and where.
    Tables(TableCommand),
    /// A change of who is who: identities, tokens, members of the mesh.
    Directory(DirectoryCommand),
    /// What replication asks for: batches of other replicas, and what replicas need not keep.
    Replication(ReplicationCommand),
    /// What nobody has to ask for: audits, events, and the removal of what is left of tables.
    Upkeep(UpkeepCommand),
    /// Carry out what came before and end.
    Stop,
}

/// What a committed command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What a change of records has come to.
    Records(RecordOutcome),
    /// What a change of tables has come to.
    Tables(TableOutcome),
    /// What a change of who is who has come to.
    Directory(DirectoryOutcome),
    /// What a command of replication has come to.
    Replication(ReplicationOutcome),
    /// What upkeep has come to.
    Upkeep(UpkeepOutcome),
    /// Everything before is durable and the writer has ended.
    Stopped,
}

/// Commands of one family, which have outcomes of their own.
pub trait Family: Into<Command> {
    /// What they come to.
    type Outcome;

    /// The outcome, where it is one of this family: every outcome of its commands is.
    fn outcome(outcome: Outcome) -> Option<Self::Outcome>;
}

macro_rules! family {
    ($command:ident, $outcome:ident, $family:ident) => {
        impl From<$command> for Command {
            fn from(command: $command) -> Self {
                Self::$family(command)
            }
        }

        impl From<$outcome> for Outcome {
            fn from(outcome: $outcome) -> Self {
                Self::$family(outcome)
            }
        }

        impl Family for $command {
            type Outcome = $outcome;

            fn outcome(outcome: Outcome) -> Option<$outcome> {
                if let Outcome::$family(outcome) = outcome { Some(outcome) } else { None }
            }
        }
    };
}

family!(RecordCommand, RecordOutcome, Records);
family!(TableCommand, TableOutcome, Tables);
family!(DirectoryCommand, DirectoryOutcome, Directory);
family!(ReplicationCommand, ReplicationOutcome, Replication);
family!(UpkeepCommand, UpkeepOutcome, Upkeep);

/// Commands of any family.
impl Family for Command {
    type Outcome = Outcome;

    fn outcome(outcome: Outcome) -> Option<Outcome> {
        Some(outcome)
    }
}

impl Command {
    /// The table that it changes, if it is one that exists.
    pub(super) fn table(&self) -> Option<&QualifiedName> {
        match self {
            Self::Records(command) => Some(command.table()),
            Self::Tables(command) => command.table(),
            Self::Directory(_) | Self::Replication(_) | Self::Upkeep(_) | Self::Stop => None,
        }
    }

    /// True where it may take the room that is kept back on a full disk: it frees some, or takes next to none
    /// and what else is to be freed depends on it.
    pub(super) fn may_use_reserve(&self) -> bool {
        match self {
            Self::Records(command) => command.may_use_reserve(),
            Self::Tables(command) => command.may_use_reserve(),
            Self::Directory(command) => command.may_use_reserve(),
            Self::Replication(command) => command.may_use_reserve(),
            Self::Upkeep(_) | Self::Stop => true,
        }
    }

    /// True where it decides before it changes anything, so that a refusal leaves nothing to take back.
    pub(super) fn decides_first(&self) -> bool {
        matches!(
            self,
            Self::Records(RecordCommand::Put { .. } | RecordCommand::Delete { .. }) | Self::Stop
        )
    }

    /// Bytes that it holds in the queue, for the bound on all of them together.
    pub(super) fn weight(&self) -> usize {
        /// The command itself with its key and reply channel, generously.
        const BASE: usize = 512;
        BASE + match self {
            Self::Records(command) => command.bytes(),
            Self::Directory(command) => command.bytes(),
            Self::Replication(command) => command.bytes(),
            Self::Tables(_) | Self::Upkeep(_) | Self::Stop => 0,
        }
    }
}

/// A command on its way, with the channel for its answer and its share of the queue's bound.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Result<Outcome, CommandError>>,
    pub(super) _share: OwnedSemaphorePermit,
}
