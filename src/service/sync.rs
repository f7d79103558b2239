//! Copies of tables on other machines, as far as this one knows of them.
//! The sync worker, which is the edge's, writes it down here; status, waiting and explanations read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cortex_core::{
    model::{ActorId, Hlc, NodeName, TableUid},
    replication::{Cursor, GcBlocker, ReplicaStatus},
};
use tokio::sync::watch;

use super::repair::Stand;
use crate::{store::UnverifiedRow, sys::clock};

/// What is known of the replicas on other machines. In memory alone: what others have confirmed must not
/// outlive what this machine has done about it.
#[derive(Debug)]
pub struct SyncView {
    /// Locked for a look-up or a change of one entry.
    known: Mutex<Known>,
    /// Changes with each entry.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Known {
    copies: BTreeMap<(TableUid, NodeName), PeerCopy>,
    blockers: BTreeMap<TableUid, GcBlocker>,
    ahead: Option<AheadOfClock>,
}

/// This machine's timestamps are ahead of its clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AheadOfClock {
    /// By how much.
    pub by_ms: u64,
    /// Since when that is known, in Unix milliseconds.
    pub since_ms: u64,
    /// Why they are not given anew.
    pub why: String,
}

impl AheadOfClock {
    /// What is to be said of it.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "timestamps of this machine are {} s ahead of its clock, which was ahead: {}",
            self.by_ms / 1000,
            self.why
        )
    }
}

/// A table's replica on another machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCopy {
    /// What it has said of itself last.
    pub status: Option<ReplicaStatus>,
    /// When that was, in Unix milliseconds; 0 for never.
    pub heard_ms: u64,
    /// The actor that it was before, where it has said that it is another one and the directory
    /// does not know that yet: what is passed on of the old one does not count any more.
    pub outdated: Option<ActorId>,
    /// How far it has come in this machine's change log.
    pub reached: Option<Cursor>,
    /// When both replicas were last found to hold the same, vector and digest, in Unix milliseconds.
    pub verified_ms: Option<u64>,
    /// True where both have incorporated the same and yet hold different rows.
    pub diverged: bool,
    /// The keys of rows that differ then, as far as they are named.
    pub differs: Vec<Vec<u8>>,
    /// What keeps this machine from taking its rows.
    pub taking: Option<Trouble>,
    /// What keeps it from taking this machine's rows.
    pub giving: Option<Trouble>,
    /// Since when that is so, in Unix milliseconds.
    pub taking_since_ms: Option<u64>,
    /// The same for `giving`.
    pub giving_since_ms: Option<u64>,
    /// Not less than any timestamp that its machine has met, as it has said last on a link to this one. What others
    /// pass on may be of earlier, and is not counted.
    pub met: Option<Hlc>,
    /// Rows of the directory that it passes on and that are not believed here. The others are.
    pub doubtful: Doubtful,
}

impl PeerCopy {
    /// Takes note of the actor that its machine says it is; `current` is the one that the
    /// directory knows it as. What another one has said may be lost by now.
    pub fn is_now(&mut self, origin: ActorId, current: Option<ActorId>) {
        self.outdated = current.filter(|current| *current != origin);
        if self.status.take_if(|status| status.actor != origin).is_some() {
            self.met = None;
        }
    }

    /// Takes note of when what keeps rows from coming through has begun.
    pub fn note_since(&mut self, now_ms: u64) {
        let sides =
            [(&self.taking, &mut self.taking_since_ms), (&self.giving, &mut self.giving_since_ms)];
        for (trouble, since) in sides {
            match trouble {
                Some(_) => *since = since.or(Some(now_ms)),
                None => *since = None,
            }
        }
    }

    /// Takes note that both replicas were found to hold the same, from their rows.
    pub(super) fn found_equal(&mut self, stand: &Stand) {
        let now_ms = clock::wall_ms();
        (self.verified_ms, self.diverged) = (Some(now_ms), false);
        self.differs.clear();
        if let Some(status) = &mut self.status {
            (status.vector, status.digest) = (stand.vector.clone(), stand.digest);
            self.heard_ms = now_ms;
        }
    }

    /// Whether a word that somebody has passed on says more than what is known. `current` is the actor that
    /// the directory knows its machine as.
    #[must_use]
    pub fn may_overhear(&self, status: &ReplicaStatus, current: Option<ActorId>) -> bool {
        if current != Some(status.actor) || self.outdated == current {
            return false;
        }
        self.status.as_ref().is_none_or(|before| {
            before.actor != status.actor
                || before.epoch < status.epoch
                || (before.epoch == status.epoch
                    && (!before.vector.dominates(&status.vector)
                        || before.conflicts < status.conflicts
                        || before.latest < status.latest))
        })
    }
}

/// Rows of the directory that one machine passes on and that cannot be verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubtful {
    /// By their keys.
    rows: BTreeMap<Vec<u8>, UnverifiedRow>,
    /// True where there are more of them than are kept.
    more: bool,
}

impl Doubtful {
    /// Rows that are kept. Who passes on more of them is not believed in anything that depends on one.
    const MOST: usize = 4096;

    /// Adds rows that are not believed, and removes those in whose place good ones have come. Answers the new ones.
    pub fn note(&mut self, good: &[Vec<u8>], unverified: Vec<UnverifiedRow>) -> Vec<UnverifiedRow> {
        for key in good {
            self.rows.remove(key);
        }
        let mut news = Vec::new();
        for row in unverified {
            let known = self.rows.get(&row.key).is_some_and(|known| known.stamp == row.stamp);
            if known {
                continue;
            }
            if self.rows.len() >= Self::MOST && !self.rows.contains_key(&row.key) {
                self.more = true;
                continue;
            }
            self.rows.insert(row.key.clone(), row.clone());
            news.push(row);
        }
        news
    }

    /// Whether a table must not be read from there: one of the rows may take somebody's rights on it away, and who
    /// does not know of that would let them in.
    #[must_use]
    pub fn withholds(&self, table: TableUid) -> bool {
        let grants = format!("grant/{table}/");
        let is_about =
            |key: &Vec<u8>| key.starts_with(b"unbinding/") || key.starts_with(grants.as_bytes());
        self.more || self.rows.keys().any(is_about)
    }

    /// What is to be said of them, if there are any: how many, of which kinds, by whom, and what is wrong with the
    /// first. Everybody may hear it, so that it names none of them.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let first = self.rows.values().next()?;
        let of = |all: BTreeSet<String>| all.into_iter().collect::<Vec<_>>().join(", ");
        let writer = |row: &UnverifiedRow| match &row.writer {
            Some(writer) => writer.as_str().to_owned(),
            None => "an unknown writer".to_owned(),
        };
        let kind = |key: &Vec<u8>| {
            let kind = key.split(|byte| *byte == b'/').next().unwrap_or_default();
            String::from_utf8_lossy(kind.strip_prefix(b"+").unwrap_or(kind)).into_owned()
        };
        let count = match (self.rows.len(), self.more) {
            (1, false) => "a row".to_owned(),
            (count, false) => format!("{count} rows"),
            (count, true) => format!("more than {count} rows"),
        };
        Some(format!(
            "{count} of the directory cannot be verified ({}; by {}): {}",
            of(self.rows.keys().map(kind).collect()),
            of(self.rows.values().map(writer).collect()),
            first.why
        ))
    }
}

/// Why rows do not come through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// There is no link.
    #[error("unreachable")]
    Unreachable,
    /// The clocks are too far apart: the other one is so many milliseconds ahead.
    #[error("clock: its clock is {} this machine's; rows pass once both agree within 60 s", apart(*.0))]
    Clock(i64),
    /// A row is from the future, by so many milliseconds.
    #[error("clock: timestamps of a clock that was ahead, {} s later than is believed; within 10 s they are given anew, or taken as they are", .0.div_ceil(1000))]
    Ahead(u64),
    /// One of the two is not in the table's scope, as the other knows it.
    #[error("scope")]
    Scope,
    /// Decisions that the other has are not known here yet.
    #[error("waiting for the directory")]
    Directory,
    /// The replica there is not whole yet.
    #[error("not ready")]
    NotReady,
    /// It must read the whole replica here first: it may lack deletions that were forgotten.
    #[error("stale")]
    Stale,
    /// The owner's rows would be over a bound.
    #[error("quota")]
    Quota,
    /// The disk is full, or fails.
    #[error("storage")]
    Storage,
    /// A row at the source is not what was stored there.
    #[error("a row at its source is damaged")]
    Damaged,
    /// What came was refused, in these words.
    #[error("refused: {0}")]
    Refused(String),
}

impl Trouble {
    /// True for what the reader of rows says when it has not taken them.
    #[must_use]
    pub fn is_of_the_reader(&self) -> bool {
        match self {
            Self::Ahead(_) | Self::Stale | Self::Quota | Self::Storage | Self::Refused(_) => true,
            Self::Unreachable
            | Self::Clock(_)
            | Self::Scope
            | Self::Directory
            | Self::NotReady
            | Self::Damaged => false,
        }
    }
}

/// How far a clock is ahead of another, in words: "3600 s ahead of".
#[must_use]
pub fn apart(offset_ms: i64) -> String {
    let seconds = offset_ms.unsigned_abs().div_ceil(1000);
    let side = if offset_ms < 0 { "behind" } else { "ahead of" };
    format!("{seconds} s {side}")
}

impl SyncView {
    /// Nothing known yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { known: Mutex::default(), changed: watch::Sender::new(()) })
    }

    /// What is known of a machine's replica of a table.
    #[must_use]
    pub fn of(&self, table: TableUid, node: &NodeName) -> Option<PeerCopy> {
        self.known().copies.get(&(table, node.clone())).cloned()
    }

    /// What is known of all replicas of a table.
    #[must_use]
    pub fn copies_of(&self, table: TableUid) -> Vec<(NodeName, PeerCopy)> {
        let known = self.known();
        let copies = known.copies.iter().filter(|((of, _), _)| *of == table);
        copies.map(|((_, node), copy)| (node.clone(), copy.clone())).collect()
    }

    /// Changes what is known of a machine's replica of a table.
    pub fn update(&self, table: TableUid, node: &NodeName, change: impl FnOnce(&mut PeerCopy)) {
        change(self.known().copies.entry((table, node.clone())).or_default());
        self.changed.send_replace(());
    }

    /// Changes what is known of every replica of a machine.
    pub fn update_all(&self, node: &NodeName, mut change: impl FnMut(&mut PeerCopy)) {
        let mut known = self.known();
        known
            .copies
            .iter_mut()
            .filter(|((_, at), _)| at == node)
            .for_each(|(_, copy)| change(copy));
        drop(known);
        self.changed.send_replace(());
    }

    /// The machines that have said themselves, on a link to this one, that they have met a later timestamp.
    #[must_use]
    pub fn who_has_met(&self, later_than: Hlc) -> BTreeSet<NodeName> {
        let known = self.known();
        let met = known.copies.iter().filter(|(_, copy)| copy.met > Some(later_than));
        met.map(|((_, node), _)| node.clone()).collect()
    }

    /// Notes why this machine's timestamps stay ahead of its clock; none where they are not.
    pub fn set_ahead(&self, ahead: Option<AheadOfClock>) {
        self.known().ahead = ahead;
    }

    /// Why this machine's timestamps are ahead of its clock; none where they are not.
    #[must_use]
    pub fn ahead(&self) -> Option<AheadOfClock> {
        self.known().ahead.clone()
    }

    /// Who keeps deletions of a table from being forgotten; none where nobody does.
    #[must_use]
    pub fn gc_blocker(&self, table: TableUid) -> Option<GcBlocker> {
        self.known().blockers.get(&table).cloned()
    }

    /// Notes who keeps deletions of a table from being forgotten.
    pub fn block(&self, table: TableUid, gc_blocker: Option<GcBlocker>) {
        let mut known = self.known();
        match gc_blocker {
            Some(gc_blocker) => known.blockers.insert(table, gc_blocker),
            None => known.blockers.remove(&table),
        };
    }

    /// Forgets tables that are no more.
    pub fn retain(&self, keep: impl Fn(TableUid) -> bool) {
        let mut known = self.known();
        known.copies.retain(|(table, _), _| keep(*table));
        known.blockers.retain(|table, _| keep(*table));
    }

    /// Changes when anything here does.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::{
        model::Stamp,
        replication::{Dot, OpenConflicts, VersionVector},
    };

    use super::*;

    const OLD: ActorId = ActorId(1);
    const NEW: ActorId = ActorId(2);

    fn status(actor: ActorId, epoch: u64, seq: u64) -> ReplicaStatus {
        let vector: VersionVector = [Dot { actor, seq }].into_iter().collect();
        ReplicaStatus { actor, epoch, vector, ..ReplicaStatus::default() }
    }

    fn knows(status: ReplicaStatus) -> PeerCopy {
        PeerCopy { status: Some(status), ..PeerCopy::default() }
    }

    #[test]
    fn what_is_passed_on_counts_where_it_says_more() {
        let known = knows(status(OLD, 2, 5));
        assert!(known.may_overhear(&status(OLD, 2, 6), Some(OLD)));
        assert!(known.may_overhear(&status(OLD, 3, 1), Some(OLD)));
        assert!(!known.may_overhear(&status(OLD, 2, 5), Some(OLD)), "nothing new");
        assert!(!known.may_overhear(&status(OLD, 1, 9), Some(OLD)), "an earlier stay");
        assert!(PeerCopy::default().may_overhear(&status(OLD, 1, 1), Some(OLD)));
    }

    /// Where somebody takes note of conflicts, nothing else changes.
    #[test]
    fn of_two_numbers_of_conflicts_the_later_counts() {
        let counted = |at_ms, count| {
            let conflicts = Some(OpenConflicts { since: Hlc::from_unix_ms(at_ms), count });
            ReplicaStatus { conflicts, ..status(OLD, 1, 5) }
        };
        let known = knows(counted(20, 3));
        assert!(known.may_overhear(&counted(30, 0), Some(OLD)));
        assert!(!known.may_overhear(&counted(10, 7), Some(OLD)));
        assert!(!known.may_overhear(&status(OLD, 1, 5), Some(OLD)), "it does not say");
    }

    #[test]
    fn what_is_passed_on_counts_of_the_origin_that_is_known_alone() {
        assert!(!PeerCopy::default().may_overhear(&status(OLD, 1, 1), Some(NEW)));
        assert!(!PeerCopy::default().may_overhear(&status(OLD, 1, 1), None));
        assert!(knows(status(OLD, 1, 9)).may_overhear(&status(NEW, 1, 1), Some(NEW)));
    }

    #[test]
    fn what_a_machine_has_said_as_another_origin_counts_no_more() {
        let mut known = knows(status(OLD, 1, 9));
        known.is_now(OLD, Some(OLD));
        assert_eq!(known, knows(status(OLD, 1, 9)));
        known.is_now(NEW, Some(OLD));
        assert_eq!(known, PeerCopy { outdated: Some(OLD), ..PeerCopy::default() });
    }

    /// It may have lost what the old one had said, and the directory is late.
    #[test]
    fn a_machine_that_has_said_to_be_another_origin_is_not_taken_for_the_old_one_again() {
        let known = PeerCopy { outdated: Some(OLD), ..knows(status(NEW, 1, 1)) };
        assert!(!known.may_overhear(&status(OLD, 1, 9), Some(OLD)));
        assert!(known.may_overhear(&status(NEW, 1, 2), Some(NEW)), "once the directory knows it");
    }

    fn unverified(key: &str, ms: u64) -> UnverifiedRow {
        UnverifiedRow {
            key: key.as_bytes().to_vec(),
            stamp: Stamp { hlc: Hlc::from_unix_ms(ms), actor: OLD },
            writer: None,
            why: "it is not understood".into(),
        }
    }

    #[test]
    fn a_doubtful_row_is_told_once_and_not_any_more_when_a_good_one_stands_in_its_place() {
        let mut doubtful = Doubtful::default();
        assert_eq!(doubtful.summary(), None);
        let rows = vec![unverified("name/a", 1), unverified("+node/b", 1)];
        assert_eq!(doubtful.note(&[], rows).len(), 2);
        assert_eq!(
            doubtful.summary().expect("something"),
            "2 rows of the directory cannot be verified (name, node; by an unknown writer): it is not understood"
        );
        assert!(doubtful.note(&[], vec![unverified("name/a", 1)]).is_empty(), "nothing new");
        assert_eq!(doubtful.note(&[], vec![unverified("name/a", 2)]).len(), 1, "another version");
        let good = [b"name/a".to_vec(), b"+node/b".to_vec()];
        assert!(doubtful.note(&good, Vec::new()).is_empty());
        assert_eq!(doubtful, Doubtful::default());
    }

    /// holds I3, V4: who does not know of a revocation would let in whom it concerns.
    #[test]
    fn a_table_on_which_rights_may_have_been_taken_away_is_withheld() {
        let (one, other) = (TableUid([1; 16]), TableUid([2; 16]));
        let withheld = |key: &str| {
            let mut doubtful = Doubtful::default();
            doubtful.note(&[], vec![unverified(key, 1)]);
            (doubtful.withholds(one), doubtful.withholds(other))
        };
        assert_eq!(withheld(&format!("grant/{one}/*/read/cabin")), (true, false));
        assert_eq!(withheld("unbinding/00/home/1000/cabin"), (true, true));
        assert_eq!(withheld("name/00/notes/cabin"), (false, false));
        let mut doubtful = Doubtful::default();
        let many = 0..=Doubtful::MOST;
        doubtful.note(&[], many.map(|n| unverified(&format!("name/{n}"), 1)).collect());
        assert!(doubtful.withholds(one), "what else there is, is not known");
    }
}
