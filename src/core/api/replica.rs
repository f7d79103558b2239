//! A replica of a table on a node, and on which nodes it may be, as answers show it.
//! How replicas compare is `sync`'s.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{NodeName, Scope};

/// The state of a replica of a table: the first five are states of the replica here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Whole, and in the scope.
    Ready,
    /// Its rows are still on their way.
    Filling,
    /// Decisions about the scope compete, and not all of them admit its node.
    Frozen,
    /// It is out of the scope, and still owes what only it has.
    Draining,
    /// There is none here.
    None,
    /// It holds the same as the one here, by its own status.
    InSync,
    /// One of the two has incorporated what the other has not.
    Behind,
    /// Both have incorporated the same, and hold different rows.
    Diverged,
    /// It is out of the scope, and has nothing any more; or it was abandoned.
    Left,
    /// Unknown. Also a state of a later version that this one does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl ReplicaState {
    /// Its name in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Filling => "filling",
            Self::Frozen => "frozen",
            Self::Draining => "draining",
            Self::None => "none",
            Self::InSync => "in_sync",
            Self::Behind => "behind",
            Self::Diverged => "diverged",
            Self::Left => "left",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a table may be, as answers show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NodeScope {
    /// `local` or `all`.
    Keyword(String),
    /// The nodes that it names.
    Nodes(Vec<String>),
}

impl Default for NodeScope {
    fn default() -> Self {
        Self::from(&Scope::Local)
    }
}

impl From<&Scope> for NodeScope {
    fn from(scope: &Scope) -> Self {
        match scope {
            Scope::Local | Scope::All => Self::Keyword(scope.to_string()),
            Scope::Nodes(nodes) => Self::Nodes(nodes.iter().map(NodeName::to_string).collect()),
        }
    }
}

/// As it is written: `home,office`.
impl fmt::Display for NodeScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyword(word) => f.write_str(word),
            Self::Nodes(nodes) => f.write_str(&nodes.join(",")),
        }
    }
}

/// A replica of a table on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Where.
    pub node: String,
    /// How it is.
    pub state: ReplicaState,
    /// Its replica epoch: how often the node has come into the scope; none where there never was a replica.
    pub epoch: Option<u64>,
    /// True where all its rows have come; none where it has not said.
    pub ready: Option<bool>,
    /// Conflicts that it keeps; none where it has not said.
    pub conflicts: Option<u64>,
    /// When it was last found to hold the same as the one here.
    pub verified_ms: Option<u64>,
    /// When its node was last heard from.
    pub heard_ms: Option<u64>,
    /// What is known of why it is so.
    pub why: Option<String>,
}
