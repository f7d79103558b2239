//! Why rows do not come through: what is sent of it to the other side, shown here, and logged.
//! What follows for the asking is the session's.

use std::{
    collections::BTreeMap,
    fmt,
    mem::{Discriminant, discriminant},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use cortex_core::{
    model::{NodeName, Refusal, TableUid},
    replication::{REFUSED, SyncProblem, Why, driver::Outcome},
};
use tracing::{info, warn};

use crate::{
    store::{CommandError, SYSTEM_TABLE, Store},
    sys::journal,
};

/// A problem is over when nothing was refused for so long: with each attempt it goes away for a moment.
const OVER_AFTER: Duration = Duration::from_secs(15);

/// What a batch that was not stored comes to: the reason for the other side, and the text where a rule refused it.
pub(super) fn failed(failure: &CommandError) -> Outcome {
    let (why, refusal) = match failure {
        CommandError::Faulted(_) => (Why::Storage, None),
        CommandError::Refused(Refusal::QuotaExceeded(_)) => (Why::Quota, None),
        CommandError::Refused(refusal) => (Why::Other(REFUSED), Some(refusal.to_string())),
    };
    Outcome::Failed { why, refusal }
}

/// Which way rows do not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    From,
    To,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::From => "from",
            Self::To => "to",
        })
    }
}

/// What was logged of each replica: a state is worth a line when it begins and when it ends, not while it lasts.
#[derive(Debug, Default)]
pub(in crate::edge::peer) struct ProblemLog(Mutex<BTreeMap<Key, OpenProblem>>);

type Key = (TableUid, NodeName, Direction);

#[derive(Clone, Copy, Debug)]
struct OpenProblem {
    kind: Discriminant<SyncProblem>,
    since: Duration,
    times: u64,
    /// Since when it is not there any more.
    gone: Option<Duration>,
}

/// One that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct EndedProblem {
    key: Key,
    lasted: Duration,
    times: u64,
}

impl ProblemLog {
    /// Takes note of how it goes now; true where a problem has begun that was not logged yet.
    pub(super) fn note(&self, key: Key, problem: Option<&SyncProblem>, now: Duration) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kind) = problem.map(discriminant) else {
            if let Some(known) = told.get_mut(&key) {
                known.gone.get_or_insert(now);
            }
            return false;
        };
        match told.get_mut(&key) {
            Some(known) if known.kind == kind => {
                (known.times, known.gone) = (known.times + 1, None);
                false
            }
            Some(_) | None => {
                told.insert(key, OpenProblem { kind, since: now, times: 1, gone: None });
                true
            }
        }
    }

    /// Removes what is over.
    fn ended(&self, now: Duration) -> Vec<EndedProblem> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |told: &OpenProblem| told.gone.is_some_and(|gone| now >= gone + OVER_AFTER);
        let over = told.iter().filter(|(_, told)| is_over(told));
        let ended = over.map(|(key, OpenProblem { since, times, gone, .. })| EndedProblem {
            key: key.clone(),
            lasted: gone.unwrap_or(now).saturating_sub(*since),
            times: *times,
        });
        let ended = ended.collect();
        told.retain(|_, told| !is_over(told));
        ended
    }

    /// Tells what is over.
    pub(in crate::edge::peer) fn log_ended(&self, store: &Store, now: Duration) {
        for EndedProblem { key: (table, node, direction), lasted, times } in self.ended(now) {
            let (table, lasted_s) = (shown(store, table), lasted.as_secs());
            info!(
                %table, %node, %direction, lasted_s, times,
                "rows of {table} come through {direction} {node} again, after {lasted_s} s"
            );
        }
    }
}

/// Tells what begins.
pub(super) fn log_begin(
    store: &Store,
    table: TableUid,
    node: &NodeName,
    direction: Direction,
    why: &SyncProblem,
) {
    let table = shown(store, table);
    if let SyncProblem::Clock(offset_ms) = why {
        warn!(
            MESSAGE_ID = journal::CLOCK_REFUSED, %table, %node, %direction, offset_ms,
            "rows of {table} do not come through {direction} {node}: {why}"
        );
    } else {
        warn!(
            %table, %node, %direction, %why,
            "rows of {table} do not come through {direction} {node}: {why}"
        );
    }
}

/// What people call a table.
fn shown(store: &Store, table: TableUid) -> String {
    let catalog = store.catalog();
    match catalog.by_uid(table) {
        Some(entry) => catalog.show(&entry.table.name),
        None if table == SYSTEM_TABLE => "the directory".into(),
        None => match catalog.directory().name_of_table(table) {
            Some(name) => catalog.show(&name),
            None => format!("id:{table}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offset that it names changes with each heartbeat, and each attempt takes it away for a moment.
    #[test]
    fn a_problem_is_logged_when_it_begins_and_when_it_ends_and_not_while_it_lasts() {
        let log = ProblemLog::default();
        let node = NodeName::parse("office").expect("a name");
        let key = || (TableUid([1; 16]), node.clone(), Direction::From);
        let at = Duration::from_secs;
        assert!(log.note(key(), Some(&SyncProblem::Clock(3_600_000)), at(0)));
        for second in 1..100 {
            assert!(!log.note(key(), None, at(second)));
            let offset_ms = 3_600_000 + i64::try_from(second).expect("small");
            assert!(!log.note(key(), Some(&SyncProblem::Clock(offset_ms)), at(second)));
            assert_eq!(log.ended(at(second)), []);
        }
        assert!(!log.note(key(), None, at(100)));
        assert!(!log.note(key(), None, at(110)));
        assert_eq!(log.ended(at(114)), []);
        let ended = EndedProblem { key: key(), lasted: at(100), times: 100 };
        assert_eq!(log.ended(at(115)), [ended]);
        assert_eq!(log.ended(at(200)), []);
        assert!(log.note(key(), Some(&SyncProblem::Quota), at(200)), "another one");
    }
}
