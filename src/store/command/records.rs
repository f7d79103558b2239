//! What the writer can be asked about records.

use std::sync::Arc;

use bytes::Bytes;
use cortex_core::{
    model::{Caller, Key, QualifiedName},
    replication::Dot,
};

use crate::store::catalog::Entry;

/// A change of records that a client asks for, or a repair of rows.
#[derive(Debug)]
pub enum RecordCommand {
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
    /// Take note of conflicts.
    Acknowledge {
        /// Needs `write`.
        caller: Caller,
        /// As it was looked up.
        entry: Arc<Entry>,
        /// One of them; none for all of the table.
        conflict: Option<i64>,
    },
    /// Send rows to all other replicas again, those too that claim to have them.
    ReAnnounce {
        /// Of which table.
        entry: Arc<Entry>,
        /// Which rows.
        keys: Vec<Vec<u8>>,
    },
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
}

/// What a change of records has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordOutcome {
    /// The record is stored.
    Stored,
    /// The record is not there.
    Deleted,
    /// Conflicts are taken note of.
    Acknowledged {
        /// How many.
        count: u64,
    },
    /// Rows are announced again.
    ReAnnounced {
        /// How many.
        count: u64,
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
}

impl RecordCommand {
    pub(super) fn table(&self) -> &QualifiedName {
        let (Self::Put { entry, .. }
        | Self::Delete { entry, .. }
        | Self::Acknowledge { entry, .. }
        | Self::ReAnnounce { entry, .. }
        | Self::Rewrite { entry, .. }
        | Self::Erase { entry, .. }) = self;
        &entry.table.name
    }

    pub(super) fn may_use_reserve(&self) -> bool {
        match self {
            Self::Delete { .. } | Self::Erase { .. } | Self::Acknowledge { .. } => true,
            Self::Put { .. } | Self::ReAnnounce { .. } | Self::Rewrite { .. } => false,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put { key, record, .. } => key.as_bytes().len() + record.len(),
            Self::Delete { key, .. } => key.as_bytes().len(),
            Self::Erase { rows, .. } => rows.iter().map(|(key, _)| key.len() + 64).sum(),
            Self::ReAnnounce { keys, .. } | Self::Rewrite { keys, .. } => {
                keys.iter().map(|key| key.len() + 32).sum()
            }
            Self::Acknowledge { .. } => 0,
        }
    }
}
