//! What two machines say to each other about their replicas, as meanings.
//! Bytes are `wire::replication`'s; when to say what is `session`'s.

use super::{Ack, Batch, PullRequest, ReplicaStatus};
use crate::model::{NodeName, TableUid};

/// A message about a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request for rows.
    PullRequest(Box<PullRequest>),
    /// Its answer.
    Batch(Box<Batch>),
    /// What was made durable.
    Ack(Box<Ack>),
    /// There are no rows, and why.
    Refuse(Refuse),
    /// There is nothing new: the request waits until there is.
    Parked(Parked),
    /// What replicas have said of themselves, passed on.
    StatusGossip(StatusGossip),
}

impl Message {
    /// Of which table.
    #[must_use]
    pub fn table(&self) -> TableUid {
        match self {
            Self::PullRequest(request) => request.table,
            Self::Batch(batch) => batch.table,
            Self::Ack(ack) => ack.table,
            Self::Refuse(refuse) => refuse.table,
            Self::Parked(parked) => parked.table,
            Self::StatusGossip(gossip) => gossip.table,
        }
    }
}

impl Message {
    /// What kind of message it is, for the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PullRequest(_) => "pull request",
            Self::Batch(_) => "batch",
            Self::Ack(_) => "ack",
            Self::Refuse(_) => "refuse",
            Self::Parked(_) => "parked",
            Self::StatusGossip(_) => "status gossip",
        }
    }
}

/// No to a request, or to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// Of which table.
    pub table: TableUid,
    /// True where a batch was not taken; false where a request is not answered with one.
    pub taking: bool,
    /// Why.
    pub why: Why,
}

/// Why no rows go from one machine to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The source has no replica.
    NoReplica,
    /// The reader may not have the rows, as far as who says so knows.
    NotInScope,
    /// The reader's replica epoch is not known to the source, or not any more.
    UnknownEpoch,
    /// Not just now.
    Busy,
    /// The clocks are so many milliseconds apart.
    Clock(i64),
    /// A row is so many milliseconds ahead.
    Ahead(u64),
    /// The source must read the reader's replica first.
    Stale,
    /// The reader does not know yet what the source knows of the scope.
    Directory,
    /// The owner of the rows has no room for them.
    Quota,
    /// The disk is full, or fails.
    Storage,
    /// A row that comes next is damaged at the source.
    Damaged,
    /// For another reason.
    Other(u64),
}

impl Why {
    /// What the other side has said, in this machine's terms: a clock that is ahead of theirs is late by them.
    #[must_use]
    pub fn as_seen_from_here(self) -> Self {
        if let Self::Clock(offset_ms) = self {
            Self::Clock(offset_ms.saturating_neg())
        } else {
            self
        }
    }
}

/// A request waits at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Of which table.
    pub table: TableUid,
    /// Which draining the source wants to be acknowledged, where it is draining.
    pub drain: Option<[u8; 16]>,
}

/// What replicas of a table have said of themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusGossip {
    /// Of which table.
    pub table: TableUid,
    /// Each with the machine that it is of.
    pub statuses: Vec<(NodeName, ReplicaStatus)>,
}
