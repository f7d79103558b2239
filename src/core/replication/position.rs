//! Where a reader stands in a source's replica of a table, and what it asks for from there.
//! What the source answers is `source`'s; what the answer does to the position, `reader`'s.

use super::VersionVector;
use crate::model::{ActorId, TableUid};

/// The epoch of one change log of one replica of a table. A position in a change log says nothing about another: a
/// change log ends with the actor, since its numbers may have been drawn by a disk that is lost, and with
/// the replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeLogId(pub [u8; 16]);

/// A place in a change log: every key whose current LSN is not above it has been incorporated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which change log.
    pub change_log: ChangeLogId,
    /// The LSN.
    pub lsn: u64,
}

/// How a replica is read as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotKind {
    /// The reader may lack deletions that the source has collected already: everything is sent, and
    /// what the source does not have although it has seen it is removed at the end.
    Full,
    /// The reader has merely no place in the change log: what it covers is left out, nothing is removed.
    Scan,
}

/// A read of the whole replica, in the order of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotTransfer {
    /// How.
    pub kind: SnapshotKind,
    /// Told apart from other snapshot transfers of the reader by this number.
    pub number: u64,
    /// The key up to which it has come.
    pub after: Vec<u8>,
}

/// All that a reader knows of where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Its place in the change log; during a snapshot transfer, the place from which it goes on afterwards.
    pub cursor: Option<Cursor>,
    /// The snapshot transfer that is under way.
    pub snapshot: Option<SnapshotTransfer>,
}

/// A request for the next batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Of which table.
    pub table: TableUid,
    /// Who asks: which actor the reader is at present.
    pub reader: ActorId,
    /// Which replica epoch of its replica it is.
    pub epoch: u64,
    /// Where it stands.
    pub position: Position,
    /// What it has incorporated.
    pub vector: VersionVector,
}
