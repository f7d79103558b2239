//! The scrub: every row read by and by, compared with its checksum, and what is kept beside the rows with the rows.
//! Reading a slice and putting things right is the store's; this says when, reports what was found, and asks other machines
//! for sound rows in the place of damaged ones.
//!
//! ```text
//!   at the start, then each interval ──┐
//!   a table that somebody suspects ────┴──> audit ──> what is corrected is an event
//!   a damaged row, from any reader ──> an event, a line in the log ──> sync_push at those who may have it
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cortex_core::{
    api::{self, Bin, PushOptions, PushedKeys, ScrubReport, ScrubRound, ScrubStatus, SyncPush},
    backoff::Backoff,
    model::{Caller, NodeName, TableId, Uid},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};

use super::{Answer, Service, read};
use crate::{
    store::{
        AuditReport, AuditStep, Audited, CommandError, Entry, Event, Store, StoreError,
        UpkeepCommand, UpkeepOutcome, blocking,
    },
    sys::{clock, random},
};

/// How often an audit begins again that was ended for others, before it is given up.
const TRIES: u32 = 5;

/// The number of the directory in every database.
const DIRECTORY: TableId = TableId(0);

/// What a slice counts at least, so that many small rows do not pass for nothing.
const SLICE_LEAST: u64 = 16 << 10;

/// Between two attempts to have damaged rows replaced by those of other machines.
const HEAL_PAUSE: Duration = Duration::from_secs(5);
const HEAL_LONGEST: Duration = Duration::from_secs(300);

/// Rows of one table that are named one by one when they are found.
const NAMED: usize = 10;

/// How long another machine may take to answer.
const ASK_TIME: Duration = Duration::from_secs(10);

/// How often, and how fast, rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPace {
    /// Between the end of one round over all tables and the next; none for only the one at the start.
    pub interval: Option<Duration>,
    /// Bytes of records that are read in a second at most.
    pub bytes_per_second: u64,
}

impl Default for ScrubPace {
    /// A day: what rots does so slowly. 8 MiB/s: a gigabyte takes two minutes, and no disk is busy with it.
    fn default() -> Self {
        Self { interval: Some(Duration::from_secs(24 * 3600)), bytes_per_second: 8 << 20 }
    }
}

/// How far the scrub has come.
#[derive(Debug, Default)]
pub struct ScrubView {
    /// Locked for a look-up or a change of one entry.
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The table that is being read.
    table: Option<String>,
    /// When the last whole round ended, in Unix milliseconds, and what it came to.
    ended_ms: Option<u64>,
    round: ScrubRound,
    last: ScrubRound,
    /// Tables that somebody suspects.
    suspected: BTreeSet<TableId>,
}

impl ScrubView {
    /// Has a table looked at soon.
    pub fn suspect(&self, table: TableId) {
        self.state().suspected.insert(table);
        self.wake.notify_one();
    }

    fn next_suspect(&self) -> Option<TableId> {
        self.state().suspected.pop_first()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `status` says of it.
    pub(super) fn status(&self, damaged: u64) -> ScrubStatus {
        let state = self.state();
        let running = state.table.is_some();
        let round = if running { state.round } else { state.last };
        ScrubStatus { running, ended_ms: state.ended_ms, round: ScrubRound { damaged, ..round } }
    }
}

/// Reads all rows of a table, and has what is kept beside them put right.
///
/// # Errors
/// A fault of the store; [`cortex_core::model::Refusal::NotHere`] where there is no such table here.
pub(super) async fn audit(
    store: &Store,
    table: TableId,
    bytes_per_second: Option<u64>,
) -> Result<AuditReport, CommandError> {
    for _ in 0..TRIES {
        match audit_once(store, table, bytes_per_second).await? {
            Audited::Ended(report) => return Ok(report),
            Audited::Gone => return Err(cortex_core::model::Refusal::NotHere.into()),
            Audited::Lost | Audited::More { .. } => {}
        }
    }
    Err(StoreError::Io("too many audits at a time".into()).into())
}

async fn audit_once(
    store: &Store,
    table: TableId,
    bytes_per_second: Option<u64>,
) -> Result<Audited, CommandError> {
    let audit = u64::from_le_bytes(random::id()[..8].try_into().unwrap_or_default());
    let (mut begins, mut ahead) = (true, Some(Vec::new()));
    loop {
        if let Some(after) = ahead.take() {
            let store = store.clone();
            let read = move || store.read_ahead(table, &after);
            ahead = blocking(read).await?;
        }
        let done = store.execute(UpkeepCommand::Audit(AuditStep { table, audit, begins })).await?;
        begins = false;
        let UpkeepOutcome::Audited(audited) = done else {
            return Ok(Audited::Lost);
        };
        let Audited::More { bytes } = audited else { return Ok(audited) };
        if let Some(rate) = bytes_per_second {
            let millis = bytes.max(SLICE_LEAST) * 1000 / rate.max(1);
            sleep(Duration::from_millis(millis)).await;
        }
    }
}

impl Service {
    /// `scrub []`: reads every row now, as fast as the disk is, and the database's structure too.
    pub(super) fn scrub_now(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::Scrub {} = read(params)?;
        self.require_admin(caller)?;
        let store = self.store.clone();
        Ok(Answer::later(async move {
            let mut round = ScrubRound::default();
            for table in tables_of(&store) {
                add(&mut round, &audit(&store, table, None).await);
            }
            let reads = store.clone();
            let structure = blocking(move || reads.integrity()).await?;
            round.damaged = store.damaged_counts().values().sum();
            Ok(ScrubReport { round, structure })
        }))
    }
}

/// Counts a table that was read, or could not be.
fn add(round: &mut ScrubRound, audited: &Result<AuditReport, CommandError>) {
    match audited {
        Ok(AuditReport { records, bytes, corrected, .. }) => {
            round.tables += 1;
            round.records += records;
            round.bytes += bytes;
            round.corrected += u64::from(*corrected);
        }
        Err(CommandError::Refused(_) | CommandError::Faulted(StoreError::Closed)) => {} // it is gone
        Err(CommandError::Faulted(_)) => round.failed += 1,
    }
}

/// Every table, the directory first.
fn tables_of(store: &Store) -> Vec<TableId> {
    let catalog = store.catalog();
    let all = catalog.namespaces().flat_map(|(_, namespace)| namespace.tables());
    let tables = all.filter(|entry| entry.is_in_file()).map(|entry| entry.table.id);
    std::iter::once(DIRECTORY).chain(tables).collect()
}

/// Looks after the rows until the daemon ends.
pub async fn run(service: &Service, pace: ScrubPace) {
    tokio::join!(rounds(service, pace), heal(service));
}

/// A round at the start, then one each interval, and tables that are suspected in between.
async fn rounds(service: &Service, pace: ScrubPace) {
    let view = service.scrub();
    loop {
        round(service, pace).await;
        let next = pace.interval.map(|interval| Instant::now() + interval);
        let due = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        let suspects = async {
            loop {
                while let Some(table) = view.next_suspect() {
                    look(service, table, pace).await;
                }
                view.wake.notified().await;
            }
        };
        tokio::select! {
            () = due => {}
            () = suspects => {}
        }
    }
}

async fn round(service: &Service, pace: ScrubPace) {
    let view = service.scrub();
    view.state().round = ScrubRound::default();
    for table in tables_of(service.store()) {
        look(service, table, pace).await;
        while let Some(table) = view.next_suspect() {
            look(service, table, pace).await;
        }
    }
    let mut state = view.state();
    state.last = state.round;
    state.ended_ms = Some(clock::wall_ms());
    info!(
        tables = state.last.tables,
        records = state.last.records,
        corrected = state.last.corrected,
        failed = state.last.failed,
        "all rows were compared with their checksums"
    );
}

/// Reads one table, at its pace.
async fn look(service: &Service, table: TableId, pace: ScrubPace) {
    let (view, store) = (service.scrub(), service.store());
    view.state().table = Some(name_of(store, table));
    let outcome = audit(store, table, Some(pace.bytes_per_second)).await;
    let mut state = view.state();
    state.table = None;
    if let Err(CommandError::Faulted(fault)) = &outcome
        && !matches!(fault, StoreError::Closed)
    {
        let table = name_of(store, table);
        warn!(%fault, table, "the rows of a table could not be compared with their checksums");
    }
    add(&mut state.round, &outcome);
}

fn name_of(store: &Store, table: TableId) -> String {
    named(store, table).0
}

/// Tells of damaged rows, and asks other machines for theirs.
async fn heal(service: &Service) {
    let mut changes = service.store().damage_changes();
    let mut backoff = Backoff::new(HEAL_PAUSE, HEAL_LONGEST);
    let mut pause = backoff.next_pause();
    loop {
        report_damage(service).await;
        let left = ask_for_sound_rows(service).await;
        let wait = async { if left { sleep(pause).await } else { std::future::pending().await } };
        tokio::select! {
            () = wait => pause = backoff.next_pause(),
            changed = changes.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
                backoff.reset();
                pause = backoff.next_pause();
            }
        }
    }
}

/// An event for each row that was found damaged, or that is sound again; and a look at its table.
async fn report_damage(service: &Service) {
    let store = service.store();
    let news = store.take_damage_news();
    for (rows, kind, what) in [
        (news.found, "row_damaged", "is damaged: its checksum does not match"),
        (news.gone, "row_replaced", "was damaged, and was replaced or removed"),
    ] {
        let mut tables: BTreeMap<TableId, Vec<Vec<u8>>> = BTreeMap::new();
        for (table, key) in rows {
            tables.entry(table).or_default().push(key);
        }
        for (table, keys) in tables {
            let (name, owner) = named(store, table);
            if kind == "row_damaged" {
                service.scrub().suspect(table);
            }
            for key in keys.iter().take(NAMED) {
                let key = String::from_utf8_lossy(key);
                if kind == "row_damaged" {
                    warn!(table = %name, %key, "a row is damaged: it is not read and not sent to others until it is replaced");
                } else {
                    info!(table = %name, %key, "a damaged row was replaced or removed");
                }
                note(store, owner, kind, format!("row {key} of {name} {what}")).await;
            }
            if let more @ 1.. = keys.len().saturating_sub(NAMED) {
                note(store, owner, kind, format!("{more} more rows of {name}: each {what}")).await;
            }
        }
    }
}

async fn note(store: &Store, uid: Option<Uid>, kind: &'static str, text: String) {
    if let Err(failure) = store.execute(UpkeepCommand::Note(Event { uid, kind, text })).await {
        warn!(%failure, "an event was not written down");
    }
}

fn named(store: &Store, table: TableId) -> (String, Option<Uid>) {
    let catalog = store.catalog();
    match catalog.by_id(table) {
        Some(entry) => {
            let name = &entry.table.name;
            (catalog.show(name), catalog.uid_here(&name.owner))
        }
        None => ("the directory".into(), None),
    }
}

/// Has the nodes that may hold them re-announce damaged rows. True where any are left to be asked for.
async fn ask_for_sound_rows(service: &Service) -> bool {
    let store = service.store();
    let mut left = false;
    for table in store.damaged_counts().into_keys() {
        let (entry, nodes) = {
            let catalog = store.catalog();
            let Some(entry) = catalog.by_id(table).filter(|entry| entry.replicated) else {
                continue;
            };
            let directory = catalog.directory();
            let nodes = directory.in_scope(entry.table.uid).into_iter();
            let others = nodes.filter(|node| Some(node) != directory.here());
            (entry.clone(), others.collect::<Vec<NodeName>>())
        };
        left |= !nodes.is_empty();
        for node in nodes {
            ask_one(service, &node, &entry, store.damaged(table)).await;
        }
    }
    left
}

/// What it has arrives the usual way.
async fn ask_one(service: &Service, node: &NodeName, entry: &Entry, keys: Vec<Vec<u8>>) {
    let Some(mesh) = service.mesh() else { return };
    for keys in PushedKeys::batches(keys) {
        let (table, options) = (Bin(&entry.table.uid.0), PushOptions::default());
        let request = SyncPush { table, keys, options };
        let deadline = clock::monotonic() + ASK_TIME;
        if let Err(error) = mesh.call(node, &request, None, deadline).await {
            tracing::debug!(%node, %error, "sound rows were not asked for");
            return;
        }
    }
}
