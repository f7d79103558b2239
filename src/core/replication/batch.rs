//! What a source answers: some rows, where they bring the reader, and what the source knows.
//! Bytes are `wire::replication`'s.

use super::{ChangeLogId, Dot, Position, SnapshotKind, TableDigest, VersionVector};
use crate::{
    directory::{Seen, Standing},
    model::{ActorId, AttributeName, Hlc, QualifiedName, Stamp, TableUid},
};

/// One version of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowVersion {
    /// Its key.
    pub key: Vec<u8>,
    /// The record as its client encoded it; none for a deletion.
    pub value: Option<Vec<u8>>,
    /// Its place in the merge order.
    pub stamp: Stamp,
    /// Its number among the writes of its actor.
    pub seq: u64,
    /// What its writer had seen of the table: an index into [`Batch::contexts`].
    pub context: usize,
}

impl RowVersion {
    /// Its name.
    #[must_use]
    pub fn dot(&self) -> Dot {
        Dot { actor: self.stamp.actor, seq: self.seq }
    }
}

/// Which part of the replica a batch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Rows in the order of their keys.
    Snapshot {
        /// How the replica is read.
        kind: SnapshotKind,
        /// True for the first batch of a snapshot transfer: it is where the request did not lead to, since the
        /// reader's place in the change log is of no use.
        starts: bool,
        /// The LSN at which the snapshot transfer began, from which the change log is read afterwards.
        pinned: u64,
        /// The last key of the batch; none where the snapshot transfer is complete.
        reached: Option<Vec<u8>>,
    },
    /// Rows in the order of the change log.
    Delta {
        /// The LSN up to which they go.
        to: u64,
        /// True where the end of the change log was reached: only then the source's vector is of use.
        last: bool,
    },
}

/// A table as every replica of it knows it. Travels with the rows, and no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Whose it is and what it is called.
    pub name: QualifiedName,
    /// The declared fields, the key field first.
    pub attributes: Vec<AttributeName>,
    /// When it was created. Of two creations the first one's attributes count.
    pub created: Hlc,
}

/// An answer to a request for rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Of which table.
    pub table: TableUid,
    /// Whom it is for: the reader's [`super::PullRequest::reader`].
    pub reader: ActorId,
    /// The position that was asked from. The batch is of use only to a reader that is still there.
    pub from: Position,
    /// The change log that its numbers are of.
    pub change_log: ChangeLogId,
    /// Which part it is.
    pub part: Part,
    /// The contexts that its rows refer to.
    pub contexts: Vec<VersionVector>,
    /// The rows.
    pub rows: Vec<RowVersion>,
    /// What the source has incorporated, as of the same moment as the rows.
    pub vector: VersionVector,
    /// Up to where it has collected deletions.
    pub gc_watermark: VersionVector,
    /// Its hybrid clock.
    pub hlc: Hlc,
    /// True where the source has a whole replica.
    pub ready: bool,
    /// Which replica epoch of its replica it is.
    pub epoch: u64,
    /// What the source takes itself to be, by the scope as it knows it.
    pub standing: Standing,
    /// How far it knows the decisions about the scope.
    pub knowledge: Seen,
    /// The databases that it knows to have been removed from the mesh.
    pub removed: Vec<[u8; 16]>,
    /// The table itself; none for the system table.
    pub head: Option<Head>,
    /// Which draining it wants to be acknowledged, where it is draining.
    pub drain: Option<[u8; 16]>,
    /// What its live rows come to, with a last batch.
    pub digest: Option<TableDigest>,
}

impl Batch {
    /// One that brings no rows and no knowledge, from a whole replica in its first epoch, which is in scope. Whoever
    /// makes one sets what it has besides.
    #[must_use]
    pub fn empty(
        table: TableUid,
        reader: ActorId,
        from: Position,
        change_log: ChangeLogId,
        part: Part,
    ) -> Self {
        Self {
            table,
            reader,
            from,
            change_log,
            part,
            contexts: Vec::new(),
            rows: Vec::new(),
            vector: VersionVector::new(),
            gc_watermark: VersionVector::new(),
            hlc: Hlc::from_i64(1),
            ready: true,
            epoch: 1,
            standing: Standing::In,
            knowledge: Seen::new(),
            removed: Vec::new(),
            head: None,
            drain: None,
            digest: None,
        }
    }
}

/// What a reader has made durable of a source's replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Of which table.
    pub table: TableUid,
    /// The place that was reached in the source's change log.
    pub cursor: Option<super::Cursor>,
    /// The draining that it answers.
    pub drain: Option<[u8; 16]>,
    /// What the reader says of itself.
    pub status: ReplicaStatus,
}

/// What a replica says of itself: what it has incorporated, and who it knows of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Which actor it is; the statuses of an earlier one do not count any more.
    pub actor: ActorId,
    /// Which replica epoch it is.
    pub epoch: u64,
    /// What it has incorporated.
    pub vector: VersionVector,
    /// The replica epochs of other replicas that it knows to have begun.
    pub epochs: Seen,
    /// What its live rows come to.
    pub digest: TableDigest,
    /// True where it is whole.
    pub ready: bool,
    /// The conflicts that it keeps; none where it does not say.
    pub conflicts: Option<OpenConflicts>,
    /// Not less than any timestamp that its machine has met; none where it does not say. See
    /// [`ReplicaStatus::not_before`].
    pub latest: Option<Hlc>,
}

impl ReplicaStatus {
    /// A hybrid clock as a status has it: rounded up to 33 s, so that statuses do not change with each write. Far less
    /// than clocks may differ by: a node in the present must not seem to have met a timestamp of the future.
    #[must_use]
    pub fn not_before(hlc: Hlc) -> Hlc {
        const STEP_MS: u64 = 1 << 15;
        Hlc::from_unix_ms((hlc.unix_ms() / STEP_MS + 1).saturating_mul(STEP_MS))
    }
}

/// How many conflicts a replica keeps of which nobody has taken note.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenConflicts {
    /// When it came to that number, by the replica's own clock: of two statuses of one replica epoch the later counts.
    pub since: Hlc,
    /// How many they are.
    pub count: u64,
}
