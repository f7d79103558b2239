//! What a node does for its replicas besides its links, and when: tombstone GC, the length of change logs, timestamps
//! after a clock was mended, rows whose writers cannot sign any more, replicas that have diverged.
//! The edge lets time pass here and hands the work to the store, a little at a time; the simulation does the same.
//!
//! ```text
//!   time ────────────────┐               ┌──> Work: for the store, some of it answered by an Input
//!   the node as it is ───┼──> Upkeep ────┤
//!   what work came to ───┘               └──> Note: what status shows, what is logged
//!
//!   each LOOK: the clock       each ROUND: the directory's signatures, then one replica per timeout
//! ```
//!
//! A round looks at one replica and lets its work be done before the next: what others have confirmed is read just
//! before it is relied on, and outputs do not pile up. Whatever `handle_timeout(t)` would change,
//! [`Upkeep::poll_timeout`] has announced by `t`.

mod clock;
mod divergence;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use cortex_mutant::mutant;

pub use clock::{AheadOfClock, TimestampsKept};
use divergence::Suspicions;

use super::{
    Dot, GcBlocker, RemoteReplica, ReplicaStatuses, SYSTEM_TABLE, VersionVector,
    driver::{Node, ReplicaSummary, is_same},
};
use crate::model::{Hlc, NodeName, TableUid};

/// Between two rounds, and how much longer it may be: machines that were started together need not all be busy at
/// the same moment.
const ROUND: Duration = Duration::from_secs(5);
const JITTER_MS: u32 = 1000;

/// Between two looks at the clock: for the seconds that rows are held off a machine may give them new timestamps.
const LOOK: Duration = Duration::from_secs(1);

/// Change logs are looked at in each so many rounds: finding where one is too long reads its end.
const CHANGE_LOG_ROUNDS: u32 = 12;

/// The signatures of the directory are looked at anew after so long: certificates end.
const SIGNATURES: Duration = Duration::from_secs(3600);

/// How long things are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// A deletion is kept for as long at least, in milliseconds: much longer than clocks may differ.
    pub least_age_ms: u64,
    /// Entries that a change log may have. Whoever is further behind than that reads the whole replica in the order
    /// of its keys. For a large table twice as many as it has rows: beyond, going through the change log takes longer
    /// than that.
    pub least_change_log: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { least_age_ms: 24 * 3600 * 1000, least_change_log: 100_000 }
    }
}

/// What upkeep reads of its own node, besides what drivers do.
pub trait UpkeepNode: Node {
    /// What is known of a table's replicas on other nodes.
    fn remote_replicas(&self, table: TableUid) -> Vec<(NodeName, RemoteReplica)>;

    /// How many rows a table has here.
    fn rows(&self, table: TableUid) -> u64;

    /// How far the clocks of the nodes that are linked to this one are ahead of its own, in milliseconds.
    fn clock_offsets_ms(&self) -> Vec<i64>;
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Other certificates may count from now on.
    CredentialsReplaced,
    /// Of [`Work::FindUnconfirmed`]: a deletion that is not confirmed, if one was found.
    Unconfirmed {
        /// Of which table.
        table: TableUid,
        /// Which.
        deletion: Option<Dot>,
    },
    /// [`Work::Adopt`] has failed.
    NotAdopted,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Have this done.
    Work(Work),
    /// Note this.
    Note(Note),
}

/// Work for the store, and for what looks at rows. What fails is done in a later round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Forget deletions.
    Collect {
        /// Of which table.
        table: TableUid,
        /// Those that this covers.
        confirmed: VersionVector,
        /// Of these those that are older, in Unix milliseconds.
        before_ms: u64,
    },
    /// Find a deletion that is not covered. Answered by [`Input::Unconfirmed`].
    FindUnconfirmed {
        /// Of which table.
        table: TableUid,
        /// What every replica has incorporated.
        confirmed: VersionVector,
    },
    /// Remove the beginning of a change log.
    TruncateChangeLog {
        /// Of which table.
        table: TableUid,
        /// All but so many entries.
        keep: u64,
    },
    /// Give what has a later timestamp another one.
    Restamp {
        /// Than this.
        latest: Hlc,
    },
    /// Sign what was believed here of machines that cannot sign any more, so that those who come later can believe
    /// it. Reads all of the directory.
    Adopt,
    /// Compare a table's rows with what is kept of them: that may be wrong, and replicas be equal that seem to differ.
    Scrub(TableUid),
    /// Find out which rows of a table differ from those on another node.
    NameDifferences {
        /// Of which table.
        table: TableUid,
        /// On which node.
        node: NodeName,
    },
}

/// What is to be noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The tables that there are replicas of here: what is known of others can be forgotten.
    Tables(BTreeSet<TableUid>),
    /// Who keeps deletions of a table from being collected; none where nobody does.
    GcBlocked {
        /// Of which table.
        table: TableUid,
        /// Who.
        by: Option<GcBlocker>,
    },
    /// A replica elsewhere has stayed different although both know the same.
    Diverged {
        /// Of which table.
        table: TableUid,
        /// On which node.
        node: NodeName,
    },
    /// Timestamps here are ahead of the clock, and stay so for now; none once they are not.
    AheadOfClock(Option<AheadOfClock>),
}

/// Upkeep of one node.
#[derive(Debug)]
pub struct Upkeep {
    retention: Retention,
    /// Between two rounds.
    period: Duration,
    next_look: Duration,
    next_round: Duration,
    /// Rounds so far.
    rounds: u32,
    /// Tables that this round has not looked at yet.
    due: VecDeque<TableUid>,
    suspicions: Suspicions,
    /// Since when timestamps are ahead of the clock, in Unix milliseconds.
    ahead_since_ms: Option<u64>,
    /// When the signatures of the directory were looked at last, and what it was then.
    signatures: Option<(Duration, Option<Arc<dyn ReplicaSummary>>)>,
    outputs: VecDeque<Output>,
}

impl Upkeep {
    /// Of a node that has just started. Of `random` depends how often it looks at everything.
    #[must_use]
    pub fn new(retention: Retention, random: u32, now: Duration) -> Self {
        let period = ROUND + Duration::from_millis((random % JITTER_MS).into());
        Self {
            retention,
            period,
            next_look: now + LOOK,
            next_round: now + period,
            rounds: 0,
            due: VecDeque::new(),
            suspicions: Suspicions::default(),
            ahead_since_ms: None,
            signatures: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes note of what happens.
    pub fn handle(&mut self, input: Input, here: &impl UpkeepNode) {
        match input {
            Input::CredentialsReplaced | Input::NotAdopted => self.signatures = None,
            Input::Unconfirmed { table, deletion } => {
                let by = deletion.and_then(|deletion| who_lacks(here, table, deletion));
                self.note(Note::GcBlocked { table, by });
            }
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, here: &impl UpkeepNode, now: Duration) {
        if self.next_look <= now {
            self.next_look = now + LOOK;
            self.mend_clock(here);
        }
        if let Some(table) = self.due.pop_front() {
            self.look_after(table, here, now);
        } else if self.next_round <= now {
            self.begin_round(here, now);
        }
    }

    /// When time alone will bring something about.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        if self.due.is_empty() { self.next_look.min(self.next_round) } else { Duration::ZERO }
    }

    /// What is to be done next.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn begin_round(&mut self, here: &impl UpkeepNode, now: Duration) {
        self.next_round = now + self.period;
        self.rounds = self.rounds.wrapping_add(1);
        let replicas = here.replicas();
        let tables = replicas.iter().filter(|own| own.epoch() > 0).map(|own| own.table());
        let tables: BTreeSet<TableUid> = tables.collect();
        self.suspicions.retain(&tables);
        self.due = tables.iter().copied().collect();
        self.note(Note::Tables(tables));
        self.look_at_signatures(here, now);
    }

    /// Whose signatures count depends on the directory, on the credentials, and on time, by which certificates end.
    fn look_at_signatures(&mut self, here: &impl UpkeepNode, now: Duration) {
        let directory = here.replica(SYSTEM_TABLE);
        let are_as_before = self.signatures.as_ref().is_some_and(|(at, before)| {
            now < *at + SIGNATURES && is_same(before.as_ref(), directory.as_ref())
        });
        if !are_as_before {
            self.signatures = Some((now, directory));
            self.work(Work::Adopt);
        }
    }

    fn look_after(&mut self, table: TableUid, here: &impl UpkeepNode, now: Duration) {
        let Some(own) = here.replica(table).filter(|own| own.epoch() > 0) else { return };
        if table != SYSTEM_TABLE {
            self.collect(own.as_ref(), here);
        }
        self.compare(own.as_ref(), here, now);
        if self.rounds.is_multiple_of(CHANGE_LOG_ROUNDS) {
            let keep = self.retention.least_change_log.max(here.rows(table).saturating_mul(2));
            self.work(Work::TruncateChangeLog { table, keep });
        }
    }

    /// Has deletions forgotten that every replica knows.
    fn collect(&mut self, own: &dyn ReplicaSummary, here: &impl UpkeepNode) {
        let table = own.table();
        let confirmed = match confirmed(own, here) {
            Ok(confirmed) => confirmed,
            Err(by) => return self.note(Note::GcBlocked { table, by: Some(by) }),
        };
        if own.tombstones() == 0 || confirmed.dominates(own.vector()) {
            self.note(Note::GcBlocked { table, by: None });
        } else {
            self.work(Work::FindUnconfirmed { table, confirmed: confirmed.clone() });
        }
        if own.tombstones() > 0 && own.is_ready() {
            let before_ms = self.collected_before_ms(here.wall_ms());
            self.work(Work::Collect { table, confirmed, before_ms });
        }
    }

    #[mutant(TombstonesAge => wall_ms)]
    fn collected_before_ms(&self, wall_ms: u64) -> u64 {
        wall_ms.saturating_sub(self.retention.least_age_ms)
    }

    fn work(&mut self, work: Work) {
        self.outputs.push_back(Output::Work(work));
    }

    fn note(&mut self, note: Note) {
        self.outputs.push_back(Output::Note(note));
    }
}

/// What every replica of a table has incorporated, by its own status.
fn confirmed(own: &dyn ReplicaSummary, here: &impl Node) -> Result<VersionVector, GcBlocker> {
    let table = own.table();
    let said = here.statuses(table);
    let directory = here.directory();
    let statuses = ReplicaStatuses::of(said, &directory);
    let (must, gone) = (directory.must_confirm(table), directory.gone(table));
    statuses.confirmed(here.name(), own.vector(), &must, &gone)
}

/// Who has not said that it knows a deletion that is remembered here.
fn who_lacks(here: &impl Node, table: TableUid, deletion: Dot) -> Option<GcBlocker> {
    let said = here.statuses(table);
    let directory = here.directory();
    let statuses = ReplicaStatuses::of(said, &directory);
    statuses.lacking(here.name(), &directory.must_confirm(table), deletion)
}

#[cfg(test)]
mod tests;
