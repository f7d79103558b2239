//! Replication: what a replica of a table asks of another, what it is answered, and what follows.
//! Rows are kept by the store, bytes by `wire::replication`, connections by the edge; here nothing waits.
//!
//! ```text
//!   reader                                        source
//!   position, vector ── PullRequest ───────────────────> plan: the change log, or a snapshot transfer in key order
//!                    <─────────────────── Batch ── rows, and what the source knows
//!   admit, meet each row, conclude
//!   position, vector ── Ack ────────────────────> collect, drain, status
//! ```
//!
//! Who does what, and when, is decided by `driver` for each link, and by `upkeep` for the node besides its links.
//!
//! Knowledge comes in three kinds, which are never mixed up (the invariants I7 to I9):
//!
//! - a *position* in the change log of one source: what is before it has been incorporated. It is moved by
//!   every batch, so that a transfer goes on where it was broken off;
//! - a *vector*: writes of all actors that have been incorporated, or something later for their key. It is
//!   raised only by own writes, and by what a source knew at a moment whose every row has arrived;
//! - a *GC watermark*: deletions that have been forgotten. A reader that has not seen them cannot learn of them from rows
//!   alone, and reads the whole replica.

mod batch;
mod digest;
pub mod driver;
mod invalid_rows;
mod message;
mod peer;
mod position;
mod reader;
mod resolve;
mod session;
mod source;
mod tombstone_gc;
pub mod upkeep;
mod version_vector;

pub use batch::{Ack, Batch, Head, OpenConflicts, Part, ReplicaStatus, RowVersion};
pub use digest::TableDigest;
pub use invalid_rows::{InvalidRow, InvalidRows};
pub use message::{Message, Parked, Refuse, StatusGossip, Why};
pub use peer::{
    Change, Facts, Peers, Quarantined, REFUSED, RemoteReplica, SyncProblem, TOO_LARGE,
    UnverifiedRow, apart,
};
pub use position::{ChangeLogId, Cursor, Position, PullRequest, SnapshotKind, SnapshotTransfer};
pub use reader::{BatchEffects, Reader, SnapshotStart, Sweep, Unfit};
pub use resolve::{Causality, Resolution, Side, resolve};
pub use session::Answer;
use session::{BatchOutcome, Session};
pub use source::{Plan, Source};
pub use tombstone_gc::{GcBlocker, GcBlocking, ReplicaStatuses};
pub use version_vector::{Dot, VersionVector};

use crate::model::TableUid;

/// The table of the directory's rows: its lasting id, on every node of every mesh.
pub const SYSTEM_TABLE: TableUid = TableUid(*b"cortexd\0\0\0\0\0\0\0\0\0");
