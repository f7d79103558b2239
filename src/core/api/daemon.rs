//! The daemon as a whole: how it is, what it has recorded, its settings, copies of all of it.
//! Single tables are `tables`'s.

use serde::{Deserialize, Serialize};

use super::{
    named::Named,
    param::{options, request},
};

request! {
    /// Whether the daemon answers: `pong`.
    Ping = Ping -> String {}
}

request! {
    /// Figures that everybody may know.
    Status = Status -> StatusReport {}
}

/// Figures of no user in particular. What an older daemon does not say is 0, empty or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReport {
    /// Of the daemon.
    pub version: String,
    /// `running`.
    pub status: String,
    /// What the machine is called.
    pub node: String,
    /// Tables of all users.
    pub tables: u64,
    /// Their records.
    pub records: u64,
    /// The bytes of those.
    pub bytes: u64,
    /// Bytes of the database and its log.
    pub disk_bytes: u64,
    /// Open connections, the one that asks among them.
    pub connections: u64,
    /// Seconds since the daemon's start.
    pub uptime_seconds: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Commands in them.
    pub commands: u64,
    /// How many microseconds the last commit took; 0 before the first.
    pub last_commit_us: u64,
    /// Conflicts on this machine of which nobody has taken note.
    pub conflicts: u64,
    /// Bytes of the largest message that is taken.
    pub message_bytes: u64,
    /// Levels of the most deeply nested message that is taken.
    pub nesting: u64,
    /// Why the mesh that is configured is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_down: Option<String>,
    /// How far the rows were compared with their checksums.
    pub scrub: Option<ScrubStatus>,
}

/// What comparing the rows of all tables with their checksums has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubRound {
    /// Tables that were read.
    pub tables: u64,
    /// Their records.
    pub records: u64,
    /// The bytes of those.
    pub bytes: u64,
    /// Tables of which what is kept beside the rows was put right.
    pub corrected: u64,
    /// Tables that could not be read.
    pub failed: u64,
    /// Rows that are known not to be what was stored.
    pub damaged: u64,
}

/// The scrub's round over all tables: the one under way, or else the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubStatus {
    /// True while tables are read.
    pub running: bool,
    /// When the last whole round has ended.
    pub ended_ms: Option<u64>,
    /// What it has come to.
    #[serde(flatten)]
    pub round: ScrubRound,
}

request! {
    /// Reads every row now, and the database's structure. For administrators.
    Scrub = Scrub -> ScrubReport {}
}

/// What reading every row has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubReport {
    /// What it has come to.
    #[serde(flatten)]
    pub round: ScrubRound,
    /// What is wrong with the structure of the database.
    pub structure: Option<String>,
}

request! {
    /// What each owner of tables has; for an ordinary user, what they have.
    Usage = Usage -> Vec<OwnerUsage> {}
}

/// What an owner has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnerUsage {
    /// A uid, or `@` and the name of a federated identity.
    pub owner: String,
    /// Who that is on this machine.
    pub uid: Option<u32>,
    /// Tables.
    pub tables: u64,
    /// Their records.
    pub records: u64,
    /// The bytes of those.
    pub bytes: u64,
}

options! {
    /// Which events.
    EventsOptions {
        /// The newest so many, at most 1000, which is also what is answered without it.
        limit: Option<u32>,
        /// Only those after the event with this id.
        after: i64,
    }
}

request! {
    /// The newest events, the oldest of them first; for an ordinary user, those about them.
    Events = Events -> Vec<Event> {
        /// Which.
        options: EventsOptions,
    }
}

/// Something that has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Counted up.
    pub id: u64,
    /// When.
    pub at_ms: u64,
    /// Whom it is about.
    pub uid: Option<u32>,
    /// `table_created`, `acl_granted` and others.
    pub kind: String,
    /// What, as text for people.
    pub text: String,
}

request! {
    /// Reads the settings again: `reloaded`. For administrators.
    Reload = Reload -> String {}
}

request! {
    /// The settings in force, by their dotted names. For administrators.
    Settings = Settings -> Named<Setting> {}
}

/// A setting in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As text.
    pub value: String,
    /// The file and line, option or variable that it comes from; none for a default.
    #[serde(default)]
    pub source: Option<String>,
}

request! {
    /// Moves the log into the database: `ok`. For administrators.
    Checkpoint = Checkpoint -> String {}
}

request! {
    /// Makes a checked copy of the whole database. For administrators.
    Backup<'a> = Backup -> KeptBackup {
        /// Under which name the daemon keeps it. Without one the result is not a [`KeptBackup`] but the copy
        /// itself, as a list of byte strings, which may be larger than memory.
        name: Option<&'a str>,
    }
}

/// A copy of the database that the daemon keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptBackup {
    /// Where.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Tables in it.
    pub tables: u64,
    /// Records in it.
    pub records: u64,
}
