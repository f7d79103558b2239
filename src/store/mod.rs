//! The durable store: the only module that names rusqlite. This file names what others may use; nothing in the store
//! imports from it, and its files form no circle (`tests/tidy.rs`).
//!
//! It carries out commands and reads; who may ask for what is decided before, in `service`.
//!
//! ```text
//!            Command ──> bounded queue ──> writer thread ──> SQLite (WAL, synchronous=FULL)
//!   Store ──┤                                 │ publishes: catalog, commit count, totals
//!            reads  ──> Reader, one per core <┘
//!            scans  ──> Scan, one connection each, a slice at a time
//! ```

mod actors;
mod audit;
mod backup;
mod blocking;
mod cache;
mod catalog;
mod checkpoint;
mod checksum;
mod command;
mod conflicts;
mod contexts;
mod damage;
mod database;
mod departure;
mod directory;
mod erasure;
mod error;
mod events;
mod exposure;
#[cfg(test)]
#[path = "../../tests/support/fake_signer.rs"]
pub(crate) mod fake_signer;
mod free_space;
mod full_disk;
mod handle;
mod inherited;
mod options;
mod place;
mod published;
mod read_batch;
mod reader;
mod recent;
mod repair;
mod replica;
mod replicas;
mod reserve;
mod rollback_marker;
mod scan;
mod schema;
mod seqlock;
mod system;
mod tombstone_gc;
mod tx;
mod writer;

pub(crate) use backup::{KEPT as KEPT_BACKUPS, SENDING as BACKUP_SENDING};
pub use backup::{Restored, Summary, restore};
pub use blocking::blocking;
pub use catalog::{Catalog, Entry, Namespace, Usage};
pub use command::{
    Applied, AuditReport, AuditStep, Audited, Claim, Collection, Command, DirectoryCommand,
    DirectoryOutcome, Family, Granting, Outcome, ReceivedBatch, RecordCommand, RecordOutcome,
    Redemption, Registration, ReplicationCommand, ReplicationOutcome, Restamp, TableCommand,
    TableOutcome, TokenId, UpkeepCommand, UpkeepOutcome,
};
pub use conflicts::{Conflict, ConflictCounts};
pub use damage::DamageNews;
pub use database::Database;
pub use error::{CommandError, OpenError, StoreError};
pub use events::{Event, EventFilter, EventRecord};
pub use handle::{Figures, Store};
pub use options::{LogBounds, Options};
pub use read_batch::{BatchBounds, BatchRead, BatchRefusal};
pub use reader::Reader;
pub use repair::bucket_of;
pub use replica::Replica;
pub use scan::{Scan, ScanStep};
pub use system::{Checked, UID as SYSTEM_TABLE, VerifiedRow, check, verify};
