//! What the writer can be asked by replication: batches of other replicas, and what replicas need not keep.

use cortex_core::{
    model::{Hlc, NodeName, TableUid},
    replication::{Ack, Batch, Unfit, VersionVector},
};

use crate::store::system::VerifiedRow;

/// What replication asks for: batches of other replicas, and what replicas need not keep.
#[derive(Debug)]
pub enum ReplicationCommand {
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
    /// Give rows of the future timestamps of the present.
    Restamp(Restamp),
    /// Write as another actor from now on.
    RotateActor,
}

/// What a command of replication has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationOutcome {
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
    /// Entries of a change log were removed.
    Truncated {
        /// True where there are others left.
        more: bool,
    },
    /// Rows have timestamps of the present.
    Restamped {
        /// How many.
        rows: u64,
    },
    /// Writes are by another actor.
    Rotated,
}

/// A batch on its way into the store.
#[derive(Debug)]
pub struct ReceivedBatch {
    /// The node that it comes from.
    pub from: NodeName,
    /// The batch.
    pub batch: Batch,
    /// For the system table its rows, with their signatures checked, in the order of the batch's.
    pub verified: Vec<VerifiedRow>,
    /// The latest timestamp that is believed, by the wall clock and the greatest skew.
    pub latest: Hlc,
}

impl ReceivedBatch {
    fn bytes(&self) -> usize {
        let rows = self.batch.rows.iter();
        rows.map(|row| row.key.len() + row.value.as_ref().map_or(0, Vec::len) + 64).sum::<usize>()
            * 2
    }
}

/// What a batch has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is stored.
    Stored {
        /// True where the source's vector is part of this replica's now.
        joined: bool,
        /// True where the replica is whole by now.
        ready: bool,
        /// Versions that have lost without having been seen.
        conflicts: u32,
        /// Whether both replicas hold the same; none where they are not as far.
        verified: Option<bool>,
    },
    /// It is of no use, and nothing has changed.
    Unfit(Unfit),
}

/// What is to be stamped again.
#[derive(Clone, Debug)]
pub struct Restamp {
    /// Timestamps beyond this are of the future.
    pub latest: Hlc,
}

/// Deletions that may be forgotten.
#[derive(Clone, Debug)]
pub struct Collection {
    /// Of which table.
    pub table: TableUid,
    /// Which every replica has incorporated, by its own status.
    pub confirmed: VersionVector,
    /// Only those that are older than this, in Unix milliseconds: much older than clocks may differ, or a
    /// write of a machine whose clock is late would come before a deletion that nobody remembers.
    pub before_ms: u64,
    /// From after this timestamp.
    pub after: i64,
}

impl ReplicationCommand {
    pub(super) fn may_use_reserve(&self) -> bool {
        match self {
            Self::Drained { .. }
            | Self::Collect(_)
            | Self::TruncateChangeLog { .. }
            | Self::RotateActor => true,
            Self::ApplyBatch(_) | Self::Restamp(_) => false,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::ApplyBatch(delivery) => delivery.bytes(),
            Self::Drained { .. }
            | Self::Collect(_)
            | Self::TruncateChangeLog { .. }
            | Self::Restamp(_)
            | Self::RotateActor => 0,
        }
    }
}
