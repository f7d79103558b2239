//! What replicas need not keep for ever: deletions that every replica knows, and the beginning of their change logs.
//! Which those are is decided by `cortex_core::replication`; removing them is the store's, a little at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cortex_core::{
    directory::Directory,
    model::{Hlc, NodeName, TableUid},
    replication::{GcBlocker, ReplicaStatuses, TableDigest, VersionVector, driver::MAX_SKEW_MS},
};
use tokio::time::sleep;
use tracing::{info, warn};

use super::Shared;
use crate::{
    pki::Credentials,
    service::sync::{AheadOfClock, SyncView},
    store::{
        Catalog, Collection, CommandError, DirectoryCommand, Replica, ReplicationCommand,
        ReplicationOutcome, Restamp, SYSTEM_TABLE, Store, blocking,
    },
    sys::clock,
    sys::throttle::{EndedCondition, LoggedCondition},
};

/// Between two rounds, and how much later one may come: machines that were started together need not all be
/// busy at the same moment.
const ROUND: Duration = Duration::from_secs(5);
const JITTER_MS: u32 = 1000;

/// Between two looks at what is worth it more often: the clock, and problems that are over.
const LOOK: Duration = Duration::from_secs(1);

/// Between two steps of removing something: leaves most of the disk to clients.
const PAUSE: Duration = Duration::from_millis(2);

/// A deletion is kept for as long at least: much longer than clocks may differ.
const LEAST_AGE_MS: u64 = 24 * 3600 * 1000;

/// Feeds are looked at in each so many rounds: finding where one is too long reads its end.
const CHANGE_LOG_ROUNDS: u32 = 12;

/// The signatures of the directory are looked at anew in each so many rounds, for certificates that have ended.
const SIGNER_ROUNDS: u32 = 720;

/// Rows that are signed in their writers' place in one transaction.
const ADOPTED_AT_ONCE: usize = 128;

/// Entries that a change log may have. Whoever is further behind than that reads the whole replica in the order of its
/// keys. For a large table twice as many as it has rows: beyond, going through the change log takes longer than that.
const LEAST_CHANGE_LOG: u64 = 100_000;

/// For so long two replicas must have said that they know the same and hold these different rows, before that is
/// believed: a row is there before what its source knows is counted as known. A transfer that is under way changes
/// what they hold all the time.
const DIVERGED_AFTER_MS: u64 = 10_000;

/// Looks after all replicas until the daemon ends.
pub(super) async fn run(shared: &Shared) {
    let work = async {
        let mut upkeep = Upkeep {
            shared,
            round: 0,
            suspected: BTreeMap::new(),
            ahead_since_ms: None,
            signers: None,
        };
        let mut failing = LoggedCondition::default();
        loop {
            let pause = ROUND + Duration::from_millis((super::random() % JITTER_MS).into());
            let next = shared.now() + pause;
            while shared.now() < next {
                sleep(LOOK).await;
                upkeep.look(&mut failing).await;
            }
            let outcome = upkeep.round().await;
            log_outcome(&mut failing, &outcome, shared.now());
        }
    };
    tokio::select! {
        () = work => {}
        () = shared.stopped() => {}
    }
}

/// Tells that replicas are not looked after, and that they are again.
fn log_outcome(failing: &mut LoggedCondition, outcome: &Result<(), CommandError>, now: Duration) {
    match outcome {
        Err(failure) if failing.begins(now) => {
            warn!(%failure, "the replicas of tables were not looked after, trying again until it is done: {failure}");
        }
        Ok(()) => {
            if let Some(EndedCondition { seconds, times }) = failing.ends(now) {
                info!(
                    seconds,
                    times, "the replicas of tables are looked after again, after {seconds} s"
                );
            }
        }
        Err(_told) => {}
    }
}

struct Upkeep<'a> {
    shared: &'a Shared,
    round: u32,
    /// Since when timestamps are ahead of the clock.
    ahead_since_ms: Option<u64>,
    suspected: BTreeMap<(TableUid, NodeName), Suspicion>,
    /// When the signatures of the directory were looked at last, and what they were then.
    signers: Option<Signers>,
}

/// What it depends on whose signatures count: besides the time, by which certificates end.
struct Signers {
    credentials: Arc<Credentials>,
    directory: Option<Arc<Replica>>,
    round: u32,
}

impl Signers {
    fn are_as_before(&self, now: &Self) -> bool {
        let directory = match (&self.directory, &now.directory) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        directory
            && Arc::ptr_eq(&self.credentials, &now.credentials)
            && now.round.wrapping_sub(self.round) < SIGNER_ROUNDS
    }
}

/// Two replicas that should be equal and are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspicion {
    digests: (TableDigest, TableDigest),
    since_ms: u64,
}

impl Upkeep<'_> {
    async fn round(&mut self) -> Result<(), CommandError> {
        self.round = self.round.wrapping_add(1);
        let store = self.shared.context.service.store().clone();
        let view = self.shared.context.service.sync();
        let replicas = store.replicas();
        view.retain(|table| {
            replicas.iter().any(|replica| replica.uid == table && replica.epoch > 0)
        });
        for replica in replicas.iter().filter(|replica| replica.epoch > 0) {
            if replica.uid != SYSTEM_TABLE {
                self.collect(&store, view, replica).await?;
            }
            for node in self.compare(view, replica) {
                self.shared.context.service.name_differences(replica.uid, &node).await;
            }
            if self.round.is_multiple_of(CHANGE_LOG_ROUNDS) {
                truncate_change_log(&store, replica).await?;
            }
        }
        self.suspected.retain(|(table, _), _| replicas.iter().any(|replica| replica.uid == *table));
        self.adopt(&store).await
    }

    /// Signs what was believed here of machines that cannot sign any more, so that those who come later can
    /// believe it.
    async fn adopt(&mut self, store: &Store) -> Result<(), CommandError> {
        let credentials = Arc::clone(self.shared.mesh().credentials());
        let directory = store.replica(SYSTEM_TABLE);
        let now = Signers { credentials, directory, round: self.round };
        if self.signers.as_ref().is_some_and(|before| before.are_as_before(&now)) {
            return Ok(());
        }
        let (reading, credentials) = (store.clone(), Arc::clone(&now.credentials));
        let found = blocking(move || reading.orphans(credentials.as_ref())).await?;
        self.signers = Some(now);
        for rows in found.chunks(ADOPTED_AT_ONCE) {
            store.execute(DirectoryCommand::Adopt(rows.to_vec())).await?;
        }
        Ok(())
    }

    /// Where this machine's clock was ahead and is right again, has what nobody else has met stamped anew: its
    /// timestamps would win against all that is written elsewhere. Where somebody else may have met it, it stays as
    /// it is, and nobody waits: see `sync::clocks`.
    async fn mend_clock(&mut self) -> Result<(), CommandError> {
        let store = self.shared.context.service.store().clone();
        let view = self.shared.context.service.sync();
        let now_ms = clock::wall_ms();
        let latest = Hlc::from_unix_ms(now_ms.saturating_add(MAX_SKEW_MS));
        let ahead_ms = store.hlc().unix_ms().saturating_sub(now_ms);
        if store.hlc() <= latest {
            if self.ahead_since_ms.take().is_some() {
                view.set_ahead(None);
            }
            return Ok(());
        }
        let since_ms = *self.ahead_since_ms.get_or_insert(now_ms);
        if let Some(why) = self.keeps_timestamps(&store, view, latest) {
            let before = view.ahead();
            if before.as_ref().is_none_or(|before| before.why != why) {
                info!(
                    ahead_s = ahead_ms / 1000,
                    why,
                    "timestamps of this machine stay {} s ahead of its clock: {why}",
                    ahead_ms / 1000
                );
            }
            view.set_ahead(Some(AheadOfClock { by_ms: ahead_ms, since_ms, why }));
            return Ok(());
        }
        store.execute(ReplicationCommand::Restamp(Restamp { latest })).await?;
        Ok(())
    }

    /// What speaks against giving timestamps anew; none where nothing does.
    fn keeps_timestamps(&self, store: &Store, view: &SyncView, latest: Hlc) -> Option<String> {
        if !self.clock_is_right() {
            return Some("no other machine's clock agrees with this one's yet".into());
        }
        let here = self.shared.mesh().node().clone();
        let catalog = store.catalog();
        let (met, silent) = who_may_have_met(&catalog, view, &here, latest, &store.replicas());
        let named = |nodes: BTreeSet<NodeName>| {
            nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
        };
        if !met.is_empty() {
            return Some(format!("{} has met them too; others take them as they are", named(met)));
        }
        if !silent.is_empty() {
            let silent = named(silent);
            return Some(format!(
                "{silent} has not said whether it has met them; others take them as they are within 10 s"
            ));
        }
        None
    }

    /// True where the clocks of the others say so too: not fewer than say otherwise. Whether it *is* right is
    /// nothing that anything but the usefulness of the new timestamps depends on.
    fn clock_is_right(&self) -> bool {
        let seen = self.shared.view.now();
        let offsets = seen.peers.iter().filter(|peer| peer.connected);
        let (agree, differ): (Vec<_>, Vec<_>) = offsets
            .filter_map(|peer| peer.clock_offset_ms)
            .partition(|offset_ms| offset_ms.unsigned_abs() <= MAX_SKEW_MS / 2);
        !agree.is_empty() && agree.len() >= differ.len()
    }

    /// What a look is worth.
    async fn look(&mut self, failing: &mut LoggedCondition) {
        let store = self.shared.context.service.store().clone();
        self.shared.problems.log_ended(&store, self.shared.now());
        if let Err(failure) = self.mend_clock().await {
            log_outcome(failing, &Err(failure), self.shared.now());
        }
    }

    /// Forgets deletions that every replica knows.
    async fn collect(
        &self,
        store: &Store,
        view: &SyncView,
        replica: &Replica,
    ) -> Result<(), CommandError> {
        let here = self.shared.mesh().node().clone();
        let confirmed = {
            let catalog = store.catalog();
            confirmed(catalog.directory(), view, &here, replica)
        };
        let confirmed = match confirmed {
            Ok(confirmed) => confirmed,
            Err(gc_blocker) => {
                view.block(replica.uid, Some(gc_blocker));
                return Ok(());
            }
        };
        view.block(replica.uid, self.lagging(store, view, replica, &confirmed).await?);
        if replica.tombstones == 0 || !replica.ready {
            return Ok(());
        }
        let before_ms = clock::wall_ms().saturating_sub(LEAST_AGE_MS);
        let mut after = Some(i64::MIN);
        while let Some(from) = after {
            let collection = Collection {
                table: replica.uid,
                confirmed: confirmed.clone(),
                before_ms,
                after: from,
            };
            let done = store.execute(ReplicationCommand::Collect(collection)).await?;
            after = if let ReplicationOutcome::Collected { next } = done { next } else { None };
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Who has not said that it knows a deletion that is remembered here.
    async fn lagging(
        &self,
        store: &Store,
        view: &SyncView,
        replica: &Replica,
        confirmed: &VersionVector,
    ) -> Result<Option<GcBlocker>, CommandError> {
        let Some(table) = replica.table.filter(|_| replica.tombstones > 0) else { return Ok(None) };
        if confirmed.dominates(&replica.vector) {
            return Ok(None);
        }
        let (reads, known) = (store.clone(), confirmed.clone());
        let found = blocking(move || reads.unconfirmed_deletion(table, &known)).await?;
        let Some(deletion) = found else { return Ok(None) };
        let catalog = store.catalog();
        let directory = catalog.directory();
        let statuses = statuses_of(directory, view, replica);
        let here = self.shared.mesh().node().clone();
        Ok(statuses.lacking(&here, &directory.must_confirm(replica.uid), deletion))
    }

    /// Notes where a replica elsewhere has stayed different although both know the same. Answers with whose replicas
    /// it is
    /// not known yet which rows differ.
    fn compare(&mut self, view: &SyncView, replica: &Replica) -> Vec<NodeName> {
        let mut unnamed = Vec::new();
        let now_ms = clock::wall_ms();
        for (node, known) in view.replicas_of(replica.uid) {
            let place = (replica.uid, node);
            let differs = known
                .status
                .filter(|status| status.vector == replica.vector && status.digest != replica.digest)
                .map(|status| (status.digest, replica.digest));
            let Some(digests) = differs else {
                self.suspected.remove(&place);
                continue;
            };
            let new = Suspicion { digests, since_ms: now_ms };
            let since = self.suspected.entry(place.clone()).or_insert(new);
            if since.digests != digests {
                *since = new;
            }
            if since.since_ms == now_ms
                && let Some(table) = replica.table
            {
                // What is kept of the rows may be wrong, and the rows equal.
                self.shared.context.service.scrub().suspect(table);
            }
            if now_ms.saturating_sub(since.since_ms) >= DIVERGED_AFTER_MS && !known.diverged {
                warn!(node = %place.1, table = ?replica.uid, "the replicas of a table here and on {} know the same writes and hold different rows", place.1);
                view.update(replica.uid, &place.1, |known| known.diverged = true);
            }
            let diverged = now_ms.saturating_sub(since.since_ms) >= DIVERGED_AFTER_MS;
            if diverged && known.differs.is_empty() {
                unnamed.push(place.1);
            }
        }
        unnamed
    }
}

/// What every replica of a table has incorporated, by its own status.
fn confirmed(
    directory: &Directory,
    view: &SyncView,
    here: &NodeName,
    replica: &Replica,
) -> Result<VersionVector, GcBlocker> {
    let statuses = statuses_of(directory, view, replica);
    let (must, gone) = (directory.must_confirm(replica.uid), directory.gone(replica.uid));
    statuses.confirmed(here, &replica.vector, &must, &gone)
}

/// What the replicas of a table have said of themselves, as far as it counts.
fn statuses_of(directory: &Directory, view: &SyncView, replica: &Replica) -> ReplicaStatuses {
    view.read(|peers| peers.statuses(replica.uid, directory))
}

/// Whose machines have met a later timestamp, and who has not said, of all other replicas of tables. Only what a
/// machine
/// has said itself since this process has begun counts: what is passed on may be older than what it was sent.
/// The directory does not count: its rows keep their timestamps, and move no clock.
fn who_may_have_met(
    catalog: &Catalog,
    view: &SyncView,
    here: &NodeName,
    latest: Hlc,
    replicas: &[Arc<Replica>],
) -> (BTreeSet<NodeName>, BTreeSet<NodeName>) {
    let directory = catalog.directory();
    let (mut met, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for replica in
        replicas.iter().filter(|replica| replica.epoch > 0 && replica.uid != SYSTEM_TABLE)
    {
        for node in directory.must_confirm(replica.uid).into_keys().filter(|node| node != here) {
            match view.of(replica.uid, &node).and_then(|known| known.met) {
                Some(hlc) if hlc <= latest => {}
                Some(_later) => {
                    met.insert(node);
                }
                None => {
                    silent.insert(node);
                }
            }
        }
    }
    (met, silent)
}

/// Removes the beginning of a change log that is too long.
async fn truncate_change_log(store: &Store, replica: &Replica) -> Result<(), CommandError> {
    let Some(table) = replica.table else { return Ok(()) };
    let rows = store.catalog().by_uid(replica.uid).map_or(0, |entry| entry.usage.records());
    let keep = LEAST_CHANGE_LOG.max(rows.saturating_mul(2));
    let excess = {
        let store = store.clone();
        blocking(move || store.change_log_excess(table, keep)).await?
    };
    let Some(upto) = excess else { return Ok(()) };
    let cut = || ReplicationCommand::TruncateChangeLog { table: replica.uid, upto };
    while matches!(store.execute(cut()).await?, ReplicationOutcome::Truncated { more: true }) {
        sleep(PAUSE).await;
    }
    Ok(())
}
