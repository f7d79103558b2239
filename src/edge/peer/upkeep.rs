//! Upkeep of this node's replicas: lets time pass for `cortex_core::replication::upkeep`, which decides what is done
//! and when, and has the store do it, a little at a time.
//!
//! ```text
//!   time ──> Upkeep ──┬──> work:  store commands, looks at rows ── what they came to ──> Upkeep
//!                     └──> notes: SyncView, journal
//! ```

use std::{sync::Arc, time::Duration};

use cortex_core::{
    model::{NodeName, TableUid},
    replication::{
        VersionVector,
        upkeep::{AheadOfClock, Input, Note, Output, Retention, Upkeep, Work},
    },
};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::{Shared, replication};
use crate::{
    pki::Credentials,
    service::sync::{self, SyncView},
    store::{
        Collection, CommandError, DirectoryCommand, ReplicationCommand, ReplicationOutcome,
        Restamp, Store, blocking,
    },
    sys::throttle::{EndedCondition, LoggedCondition},
};

/// Between two steps of removing something: leaves most of the disk to clients.
const PAUSE: Duration = Duration::from_millis(2);

/// Rows that are signed in their writers' place in one transaction.
const ADOPTED_AT_ONCE: usize = 128;

/// Looks after all replicas until the daemon ends.
pub(super) async fn run(shared: &Shared) {
    let keeper = Keeper {
        shared,
        here: replication::here(shared),
        upkeep: Upkeep::new(Retention::default(), super::random(), shared.now()),
        credentials: Arc::clone(shared.mesh().credentials()),
        failing: LoggedCondition::default(),
        has_failed: false,
    };
    tokio::select! {
        () = keeper.run() => {}
        () = shared.stopped() => {}
    }
}

struct Keeper<'a> {
    shared: &'a Shared,
    here: replication::LocalNode,
    upkeep: Upkeep,
    /// As upkeep knows them.
    credentials: Arc<Credentials>,
    failing: LoggedCondition,
    /// Something has failed since the last round began.
    has_failed: bool,
}

impl Keeper<'_> {
    async fn run(mut self) {
        loop {
            sleep_until(Instant::from_std(self.shared.started + self.upkeep.poll_timeout())).await;
            self.shared.problems.log_ended(&self.here.store, self.shared.now());
            self.look_at_credentials();
            self.upkeep.handle_timeout(&self.here, self.shared.now());
            while let Some(output) = self.upkeep.next_output() {
                match output {
                    Output::Note(note) => self.note(note),
                    Output::Work(work) => {
                        if let Err(failure) = self.work(work).await {
                            self.log_failure(&failure);
                        }
                    }
                }
            }
        }
    }

    fn look_at_credentials(&mut self) {
        let mesh = self.shared.mesh();
        if !Arc::ptr_eq(mesh.credentials(), &self.credentials) {
            self.credentials = Arc::clone(mesh.credentials());
            self.handle(Input::CredentialsReplaced);
        }
    }

    fn handle(&mut self, input: Input) {
        self.upkeep.handle(input, &self.here);
    }

    async fn work(&mut self, work: Work) -> Result<(), CommandError> {
        let store = &self.here.store;
        match work {
            Work::Collect { table, confirmed, before_ms } => {
                collect(store, table, &confirmed, before_ms).await
            }
            Work::FindUnconfirmed { table, confirmed } => {
                let store = store.clone();
                let find = move || match store.replica(table).and_then(|replica| replica.table) {
                    Some(table) => store.unconfirmed_deletion(table, &confirmed),
                    None => Ok(None),
                };
                let deletion = blocking(find).await?;
                self.handle(Input::Unconfirmed { table, deletion });
                Ok(())
            }
            Work::TruncateChangeLog { table, keep } => {
                truncate_change_log(store, table, keep).await
            }
            Work::Restamp { latest } => {
                store.execute(ReplicationCommand::Restamp(Restamp { latest })).await?;
                Ok(())
            }
            Work::Adopt => {
                let adopted = adopt(store, Arc::clone(&self.credentials)).await;
                if adopted.is_err() {
                    self.handle(Input::NotAdopted);
                }
                adopted
            }
            Work::Scrub(table) => {
                if let Some(table) = store.replica(table).and_then(|replica| replica.table) {
                    self.shared.context.service.scrub().suspect(table);
                }
                Ok(())
            }
            Work::NameDifferences { table, node } => {
                self.shared.context.service.name_differences(table, &node).await;
                Ok(())
            }
        }
    }

    fn note(&mut self, note: Note) {
        let view = &self.here.view;
        match note {
            Note::Tables(tables) => {
                view.retain(|table| tables.contains(&table));
                self.log_recovery();
            }
            Note::GcBlocked { table, by } => view.block(table, by),
            Note::Diverged { table, node } => note_diverged(view, table, &node),
            Note::AheadOfClock(ahead) => note_ahead(view, ahead),
        }
    }

    /// Tells that replicas are not looked after.
    fn log_failure(&mut self, failure: &CommandError) {
        self.has_failed = true;
        if self.failing.begins(self.shared.now()) {
            warn!(%failure, "the replicas of tables were not looked after, trying again until it is done: {failure}");
        }
    }

    /// Tells that they are again, once a whole round has been done.
    fn log_recovery(&mut self) {
        if std::mem::take(&mut self.has_failed) {
            return;
        }
        if let Some(EndedCondition { seconds, times }) = self.failing.ends(self.shared.now()) {
            info!(
                seconds,
                times, "the replicas of tables are looked after again, after {seconds} s"
            );
        }
    }
}

async fn collect(
    store: &Store,
    table: TableUid,
    confirmed: &VersionVector,
    before_ms: u64,
) -> Result<(), CommandError> {
    let mut after = Some(i64::MIN);
    while let Some(from) = after {
        let confirmed = confirmed.clone();
        let collection = Collection { table, confirmed, before_ms, after: from };
        let done = store.execute(ReplicationCommand::Collect(collection)).await?;
        after = if let ReplicationOutcome::Collected { next } = done { next } else { None };
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Removes the beginning of a change log that is longer than what is kept.
async fn truncate_change_log(
    store: &Store,
    table: TableUid,
    keep: u64,
) -> Result<(), CommandError> {
    let Some(number) = store.replica(table).and_then(|replica| replica.table) else {
        return Ok(());
    };
    let excess = {
        let store = store.clone();
        blocking(move || store.change_log_excess(number, keep)).await?
    };
    let Some(upto) = excess else { return Ok(()) };
    let cut = || ReplicationCommand::TruncateChangeLog { table, upto };
    while matches!(store.execute(cut()).await?, ReplicationOutcome::Truncated { more: true }) {
        sleep(PAUSE).await;
    }
    Ok(())
}

async fn adopt(store: &Store, credentials: Arc<Credentials>) -> Result<(), CommandError> {
    let reading = store.clone();
    let found = blocking(move || reading.orphans(credentials.as_ref())).await?;
    for rows in found.chunks(ADOPTED_AT_ONCE) {
        store.execute(DirectoryCommand::Adopt(rows.to_vec())).await?;
    }
    Ok(())
}

fn note_diverged(view: &SyncView, table: TableUid, node: &NodeName) {
    warn!(%node, ?table, "the replicas of a table here and on {node} know the same writes and hold different rows");
    view.update(table, node, |known| known.diverged = true);
}

fn note_ahead(view: &SyncView, ahead: Option<AheadOfClock>) {
    let ahead = ahead.map(|AheadOfClock { by_ms, since_ms, why }| {
        let why = why.to_string();
        if view.ahead().is_none_or(|before| before.why != why) {
            let ahead_s = by_ms / 1000;
            info!(
                ahead_s,
                why, "timestamps of this machine stay {ahead_s} s ahead of its clock: {why}"
            );
        }
        sync::AheadOfClock { by_ms, since_ms, why }
    });
    view.set_ahead(ahead);
}
