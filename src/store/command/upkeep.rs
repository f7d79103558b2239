//! What the writer is asked by upkeep: steps of audits, events, the removal of what is left.

use cortex_core::{model::TableId, replication::TableDigest};

use crate::store::events::Event;

/// What nobody has to ask for: audits, events, and the removal of what is left of tables.
#[derive(Debug)]
pub enum UpkeepCommand {
    /// Read some more rows of a table, and compare what they come to with what is kept beside them.
    Audit(AuditStep),
    /// Write an event down.
    Note(Event),
    /// Remove some rows of dropped tables.
    Purge,
}

/// What upkeep has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpkeepOutcome {
    /// What an audit has come to so far.
    Audited(Audited),
    /// The event is written down.
    Noted,
    /// Rows of dropped tables were removed.
    Purged {
        /// True where there may be others left.
        more: bool,
    },
}

/// One step of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditStep {
    /// Of which table, by its number here.
    pub table: TableId,
    /// Which audit it is, drawn by the caller.
    pub audit: u64,
    /// True for its first step.
    pub begins: bool,
}

/// What a step of an audit has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audited {
    /// There are more rows.
    More {
        /// Bytes of keys and values that were read.
        bytes: u64,
    },
    /// All rows were read.
    Ended(AuditReport),
    /// It is not known any more, and must begin again.
    Lost,
    /// There is no such table here.
    Gone,
}

/// What a table's rows come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Live rows.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Of the live rows, without damaged ones.
    pub digest: TableDigest,
    /// Rows that are not what was stored.
    pub damaged: u64,
    /// True where what was kept beside the rows was another, and was corrected.
    pub corrected: bool,
}
