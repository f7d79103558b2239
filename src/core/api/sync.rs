//! How the replicas of a table compare, waiting for them, mending them, and why a row is or is not somewhere.
//! What replicas say to each other is `peers`'s and `crate::wire::replication`'s.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};

use super::{
    param::{options, request},
    replica::{NodeScope, ReplicaState},
};

request! {
    /// How the replicas are of every table that the caller may read and that others may have.
    SyncStatus = SyncStatus -> Vec<TableSync> {}
}

request! {
    /// How the replicas of one table are.
    SyncStatusTable<'a> = SyncStatusTable -> TableSync {
        /// The table.
        table: &'a str,
    }
}

/// How the replicas of a table are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableSync {
    /// Its full name.
    pub table: String,
    /// Where it may be.
    pub scope: NodeScope,
    /// True where decisions about that compete.
    pub contested: bool,
    /// Conflicts on all nodes, as far as they have said.
    pub conflicts: u64,
    /// The replica here.
    pub here: OwnReplica,
    /// The replicas on other nodes.
    pub nodes: Vec<PeerReplica>,
    /// Who keeps deletions of the table from being forgotten.
    pub deletions_kept_by: Option<GcBlockedBy>,
}

/// The replica here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnReplica {
    /// This node.
    pub node: String,
    /// How it is.
    pub state: ReplicaState,
    /// Why it is not whole, or not gone yet, where that does not pass by itself.
    pub why: Option<String>,
    /// Why it cannot drain until somebody acts.
    pub drain_blocked: Option<String>,
    /// Its replica epoch: how often this node has come into the scope.
    pub epoch: Option<u64>,
    /// Its records.
    pub records: u64,
    /// Deletions that it remembers.
    pub tombstones: u64,
    /// Conflicts of which nobody has taken note.
    pub conflicts: u64,
    /// Rows that are known not to be what was stored.
    pub damaged: u64,
    /// Conflicts that were forgotten for want of room.
    pub conflicts_evicted: u64,
    /// What its rows come to: 64 hexadecimal digits.
    pub digest: Option<String>,
}

/// A replica on another node, compared with the one here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerReplica {
    /// Where.
    pub node: String,
    /// How it is.
    pub state: ReplicaState,
    /// Conflicts that it keeps; none where it has not said.
    pub conflicts: Option<u64>,
    /// When it was last found to hold the same.
    pub verified_ms: Option<u64>,
    /// Writes that it lacks, at most.
    pub behind_writes: Option<u64>,
    /// Writes that the replica here lacks, at most.
    pub ahead_writes: Option<u64>,
    /// Seconds since it was found to hold the same, or its node was heard from; of a replica that is not in sync.
    pub behind_seconds: Option<u64>,
    /// What is known of why it is so.
    pub why: Option<String>,
    /// When its node was last heard from.
    pub heard_ms: Option<u64>,
    /// Keys of rows that differ where the two have diverged, as far as they are named.
    pub differs: Vec<String>,
}

/// Who keeps deletions from being forgotten, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcBlockedBy {
    /// The node.
    pub node: String,
    /// As text for people.
    pub why: String,
}

options! {
    /// What is waited for, and how long.
    WaitOptions {
        /// That this node has confirmed it.
        node: Option<String>,
        /// That every other node of the scope has, as without a node.
        all: bool,
        /// For so many milliseconds, at most a day; half a minute unless it is said.
        timeout_ms: Option<u64>,
    }
}

request! {
    /// Waits until others have all that the replica here has now.
    SyncWait<'a> = SyncWait -> Verified {
        /// The table.
        table: &'a str,
        /// What is waited for.
        options: WaitOptions,
    }
}

/// What was waited for has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// True.
    pub verified: bool,
    /// Who has confirmed it.
    pub nodes: Vec<String>,
    /// How many milliseconds that took.
    pub waited_ms: u64,
}

/// What to do about rows that one replica has and the other has seen and has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// Write them again.
    Present,
    /// Delete them.
    Absent,
}

options! {
    /// How replicas are mended.
    RepairOptions {
        /// Only says what differs.
        dry_run: bool,
        /// What to do about rows that may be lost on one side or deleted on the other; nothing unless it is said.
        prefer: Option<Prefer>,
    }
}

request! {
    /// Compares the replicas of a table row by row, and mends what differs.
    SyncRepair<'a> = SyncRepair -> RepairReport {
        /// The table.
        table: &'a str,
        /// How.
        options: RepairOptions,
    }
}

/// What a repair has found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RepairReport {
    /// The table's full name.
    pub table: String,
    /// True where nothing was mended.
    pub dry_run: bool,
    /// True where what is kept beside the rows here was put right.
    pub corrected: bool,
    /// Rows here that are not what was stored.
    pub damaged: u64,
    /// Each of the others.
    pub compared: Vec<ComparedNode>,
    /// True where all of them hold the same now.
    pub verified: bool,
}

/// What the comparison with one node has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ComparedNode {
    /// Which.
    pub node: String,
    /// Parts of the table, of 256, whose digests differ.
    pub buckets_differing: u64,
    /// How many keys of each kind.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// The first of them.
    pub keys: Vec<DifferingKey>,
    /// Rows that were sent once more.
    pub pushed: u64,
    /// Rows that the usual synchronisation brings.
    pub on_its_way: u64,
    /// Rows that only one side has, and that were left as they are.
    pub kept: u64,
    /// True where both hold the same now.
    pub verified: bool,
    /// Why not.
    pub why: Option<String>,
}

/// A key whose rows differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferingKey {
    /// The key.
    pub key: String,
    /// How.
    pub verdict: Verdict,
}

/// What is found about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The version here is later.
    NewerHere,
    /// The version there is later.
    NewerThere,
    /// One side has not seen it yet.
    OnItsWay,
    /// Here alone, though the other side has seen it.
    OnlyHere,
    /// There alone, though this side has seen it.
    OnlyThere,
    /// One write with two contents. The one that `resolve` prefers is re-announced to the other side.
    Unequal,
}

/// The text of a key. Numbers are read as their decimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyText(pub Vec<u8>);

impl Serialize for KeyText {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => to.serialize_str(text),
            Err(_) => Err(serde::ser::Error::custom("the key is no text")),
        }
    }
}

impl<'de> Deserialize<'de> for KeyText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = KeyText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or an integer")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<KeyText, E> {
        Ok(KeyText(text.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<KeyText, E> {
        Ok(KeyText(number.to_string().into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<KeyText, E> {
        Ok(KeyText(number.to_string().into()))
    }
}

options! {
    /// What of a table is explained.
    ExplainOptions {
        /// The record with this key; without it, the table as a whole.
        key: Option<KeyText>,
        /// On which node; this one unless it is said.
        node: Option<String>,
    }
}

request! {
    /// Why a table, or a record of it, is or is not on a node.
    Explain<'a> = Explain -> Explanation {
        /// The table.
        table: &'a str,
        /// What of it.
        options: ExplainOptions,
    }
}

/// Why something is or is not on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// The table, as it was asked for.
    pub table: String,
    /// On which node.
    pub node: String,
    /// Which record.
    pub key: Option<String>,
    /// What is found.
    pub finding: String,
    /// From what that follows, each resting on those before.
    pub because: Vec<String>,
    /// The command that mends it; none where nothing is to be done.
    #[serde(rename = "do")]
    pub mend: Option<String>,
}
