//! Replicas that know the same and hold different rows.
//! Which rows those are, and making them equal again, is not decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Note, Upkeep, UpkeepNode, Work};
use crate::{
    model::{NodeName, TableUid},
    replication::{RemoteReplica, TableDigest, driver::ReplicaSummary},
};

/// For so long two replicas must have said that they know the same and hold these different rows, before that is
/// believed: a row is there before what its source knows is counted as known. A transfer that is under way changes
/// what they hold all the time.
const DIVERGED_AFTER: Duration = Duration::from_secs(10);

/// Replicas elsewhere that should be equal to those here and are not.
#[derive(Debug, Default)]
pub(super) struct Suspicions(BTreeMap<(TableUid, NodeName), Suspicion>);

/// Two replicas that should be equal and are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspicion {
    digests: (TableDigest, TableDigest),
    since: Duration,
}

impl Suspicions {
    /// Forgets tables that are no more.
    pub(super) fn retain(&mut self, tables: &BTreeSet<TableUid>) {
        self.0.retain(|(table, _), _| tables.contains(table));
    }

    /// Since when two replicas differ as they do now; none where they do not.
    fn since(
        &mut self,
        place: (TableUid, NodeName),
        digests: Option<(TableDigest, TableDigest)>,
        now: Duration,
    ) -> Option<Duration> {
        let Some(digests) = digests else {
            self.0.remove(&place);
            return None;
        };
        let new = Suspicion { digests, since: now };
        let suspicion = self.0.entry(place).or_insert(new);
        if suspicion.digests != digests {
            *suspicion = new;
        }
        Some(suspicion.since)
    }
}

impl Upkeep {
    /// Notes where a replica elsewhere has stayed different although both know the same.
    pub(super) fn compare(
        &mut self,
        own: &dyn ReplicaSummary,
        here: &impl UpkeepNode,
        now: Duration,
    ) {
        let table = own.table();
        for (node, known) in here.remote_replicas(table) {
            let digests = differing(own, &known);
            let Some(since) = self.suspicions.since((table, node.clone()), digests, now) else {
                continue;
            };
            if since == now {
                self.work(Work::Scrub(table));
            }
            if now < since + DIVERGED_AFTER {
                continue;
            }
            if !known.diverged {
                self.note(Note::Diverged { table, node: node.clone() });
            }
            if known.differs.is_empty() {
                self.work(Work::NameDifferences { table, node });
            }
        }
    }
}

/// The digests of two replicas that have incorporated the same and hold different rows.
fn differing(
    own: &dyn ReplicaSummary,
    known: &RemoteReplica,
) -> Option<(TableDigest, TableDigest)> {
    let status = known.status.as_ref()?;
    let differs = status.vector == *own.vector() && status.digest != own.digest();
    differs.then(|| (status.digest, own.digest()))
}
