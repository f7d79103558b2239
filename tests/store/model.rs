//! The store against a model of it: random commands of several callers, and readers beside a busy writer.
//! Crashes and faults are `kill9`, `power_loss` and `disk_faults`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use cortex_core::model::{
    AttributeName, Caller, Limits, Owner, Permissions, Principal, Refusal, Scope, TableName, Uid,
};
use cortexd::store::{
    Command, CommandError, Entry, Granting, LogBounds, Options, Outcome, RecordCommand,
    RecordOutcome, ScanStep, Store, StoreError, TableCommand, TableOutcome, UpkeepCommand,
    UpkeepOutcome,
};
use proptest::prelude::*;
use rusqlite::Connection;

use scripted::{Contents, Op, Table, check_file, find, inspector, key, owner, scratch_dir, wait};

use crate::support::scripted;

/// Small enough to be reached all the time.
const LIMITS: Limits = Limits { key_bytes: 64, tables_per_uid: 2, bytes_per_uid: 1_500 };

const OWNERS: [u32; 2] = [1000, 1001];
/// Two more than an owner may have.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// The owners, root and somebody else.
const CALLERS: [u32; 4] = [1000, 1001, 0, 7];
const KEYS: [&str; 4] = ["k", "l", "m", "n"];

/// A command by the names of what it is about.
#[derive(Clone, Debug)]
enum Ask {
    Create(u32, &'static str),
    Drop(Target),
    Put(Target, &'static str, usize),
    Delete(Target, &'static str),
    Grant(Target, Principal, Permissions),
    Revoke(Target, Principal, Permissions),
    Purge,
}

/// Whose command, on whose table.
#[derive(Clone, Copy, Debug)]
struct Target {
    caller: u32,
    owner: u32,
    name: &'static str,
}

fn target() -> impl Strategy<Value = Target> {
    let any = (
        prop::sample::select(&CALLERS),
        prop::sample::select(&OWNERS),
        prop::sample::select(&NAMES),
    );
    any.prop_map(|(caller, owner, name)| Target { caller, owner, name })
}

fn principal() -> impl Strategy<Value = Principal> {
    prop_oneof![
        Just(Principal::Everyone),
        prop::sample::select(&CALLERS).prop_map(|uid| Principal::Uid(Uid(uid))),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let rights = || (1..8u8).prop_map(Permissions::from_bits);
    prop_oneof![
        3 => (prop::sample::select(&OWNERS), prop::sample::select(&NAMES)).prop_map(|(o, n)| Ask::Create(o, n)),
        1 => target().prop_map(Ask::Drop),
        10 => (target(), prop::sample::select(&KEYS), 0..700usize).prop_map(|(t, k, n)| Ask::Put(t, k, n)),
        4 => (target(), prop::sample::select(&KEYS)).prop_map(|(t, k)| Ask::Delete(t, k)),
        3 => (target(), principal(), rights()).prop_map(|(t, p, r)| Ask::Grant(t, p, r)),
        2 => (target(), principal(), rights()).prop_map(|(t, p, r)| Ask::Revoke(t, p, r)),
        1 => Just(Ask::Purge),
    ]
}

/// What the store should be: its tables, each with the number of its birth, for a table that is
/// made again under an old name is another one.
#[derive(Clone, Debug, Default)]
struct Model {
    tables: BTreeMap<(u32, &'static str), (u64, Table)>,
    births: u64,
}

impl Model {
    fn birth(&self, target: Target) -> Option<u64> {
        self.tables.get(&(target.owner, target.name)).map(|(birth, _)| *birth)
    }

    /// What an answer should be. `seen` is the table that the command was given, which may be gone.
    fn carry_out(&mut self, ask: &Ask, seen: Option<u64>) -> Result<Outcome, Refusal> {
        match ask {
            Ask::Create(owner, name) => self.create(*owner, name),
            Ask::Drop(target) => {
                self.admit(*target, seen, Permissions::ADMIN)?;
                self.tables.remove(&(target.owner, target.name));
                Ok(Outcome::Tables(TableOutcome::Dropped))
            }
            Ask::Put(target, key, len) => {
                let stored = self.stored(target.owner);
                let table = self.admit(*target, seen, Permissions::WRITE)?;
                let before = table.rows.get(key.as_bytes()).map_or(0, |row| key.len() + row.len());
                let after = stored - before + key.len() + len;
                if after > stored && after as u64 > LIMITS.bytes_per_uid {
                    return Err(Refusal::QuotaExceeded(LIMITS.bytes_per_uid));
                }
                table.rows.insert(key.as_bytes().to_vec(), record(*len));
                Ok(Outcome::Records(RecordOutcome::Stored))
            }
            Ask::Delete(target, key) => {
                let table = self.admit(*target, seen, Permissions::WRITE)?;
                table.rows.remove(key.as_bytes());
                Ok(Outcome::Records(RecordOutcome::Deleted))
            }
            Ask::Grant(target, principal, rights) => {
                let table = self.admit(*target, seen, Permissions::ADMIN)?;
                *table.grants.entry(principal.clone()).or_default() |= rights.bits();
                Ok(Outcome::Tables(TableOutcome::Granted))
            }
            Ask::Revoke(target, principal, rights) => {
                let table = self.admit(*target, seen, Permissions::ADMIN)?;
                let left = table.grants.remove(principal).unwrap_or_default() & !rights.bits();
                if left != 0 {
                    table.grants.insert(principal.clone(), left);
                }
                Ok(Outcome::Tables(TableOutcome::Revoked))
            }
            Ask::Purge => Ok(Outcome::Upkeep(UpkeepOutcome::Purged { more: false })),
        }
    }

    fn create(&mut self, owner: u32, name: &'static str) -> Result<Outcome, Refusal> {
        if self.tables.contains_key(&(owner, name)) {
            return Err(Refusal::AlreadyExists);
        }
        let owned = self.tables.keys().filter(|(uid, _)| *uid == owner).count();
        if owned >= LIMITS.tables_per_uid {
            return Err(Refusal::TooManyTables(LIMITS.tables_per_uid));
        }
        self.births += 1;
        self.tables.insert((owner, name), (self.births, Table::default()));
        Ok(Outcome::Tables(TableOutcome::Created))
    }

    fn admit(
        &mut self,
        target: Target,
        seen: Option<u64>,
        needed: Permissions,
    ) -> Result<&mut Table, Refusal> {
        let same = self.birth(target).is_some() && self.birth(target) == seen;
        let table = self.tables.get_mut(&(target.owner, target.name)).filter(|_| same);
        let (_, table) = table.ok_or(Refusal::AccessDenied)?;
        let held = |principal| table.grants.get(&principal).copied().unwrap_or_default();
        let rights = held(Principal::Everyone) | held(Principal::Uid(Uid(target.caller)));
        let all = target.caller == 0 || target.caller == target.owner;
        if all || Permissions::from_bits(rights).contains(needed) {
            Ok(table)
        } else {
            Err(Refusal::AccessDenied)
        }
    }

    /// Bytes of an owner's records.
    fn stored(&self, owner: u32) -> usize {
        let tables = self.tables.iter().filter(|((uid, _), _)| *uid == owner);
        let rows = tables.flat_map(|(_, (_, table))| &table.rows);
        rows.map(|(key, row)| key.len() + row.len()).sum()
    }

    fn contents(&self) -> Contents {
        let tables = self.tables.iter();
        Contents(
            tables
                .map(|((owner, name), (_, table))| ((*owner, (*name).to_owned()), table.clone()))
                .collect(),
        )
    }
}

fn record(len: usize) -> Vec<u8> {
    vec![u8::try_from(len % 251).expect("a byte"); len]
}

/// The command with its table as it is now; none where there is no such table.
fn command(store: &Store, ask: &Ask) -> Option<Command> {
    let entry = |target: &Target| find(store, (target.owner, target.name));
    let caller = |target: &Target| Caller::Local(Uid(target.caller));
    let granting = |target: &Target, principal: &Principal, rights: &Permissions| {
        let entry = entry(target)?;
        Some(Granting {
            caller: caller(target),
            entry,
            principal: principal.clone(),
            rights: *rights,
        })
    };
    Some(match ask {
        Ask::Create(owner, name) => Command::Tables(TableCommand::CreateTable {
            caller: Caller::Local(Uid(*owner)),
            owner: Owner::Uid(Uid(*owner)),
            name: TableName::parse(name).expect("a name"),
            attributes: vec![AttributeName::parse("id").expect("a name")],
            scope: Scope::Local,
        }),
        Ask::Drop(target) => Command::Tables(TableCommand::DropTable {
            caller: caller(target),
            entry: entry(target)?,
        }),
        Ask::Put(target, name, len) => Command::Records(RecordCommand::Put {
            caller: caller(target),
            entry: entry(target)?,
            key: key(name),
            record: Bytes::from(record(*len)),
        }),
        Ask::Delete(target, name) => Command::Records(RecordCommand::Delete {
            caller: caller(target),
            entry: entry(target)?,
            key: key(name),
        }),
        Ask::Grant(target, principal, rights) => {
            Command::Tables(TableCommand::Grant(granting(target, principal, rights)?))
        }
        Ask::Revoke(target, principal, rights) => {
            Command::Tables(TableCommand::Revoke(granting(target, principal, rights)?))
        }
        Ask::Purge => Command::Upkeep(UpkeepCommand::Purge),
    })
}

/// Sends all commands before any is answered, as several callers do, and compares each answer.
fn carry_out(store: &Store, model: &mut Model, asks: &[Ask]) -> Result<(), TestCaseError> {
    let before = model.clone();
    let commands: Vec<_> = asks.iter().map(|ask| command(store, ask)).collect();
    wait(async {
        let mut sent = Vec::new();
        for (ask, command) in asks.iter().zip(commands) {
            // The service refuses what has no table before it comes to the writer.
            if let Some(command) = command {
                sent.push((ask, store.submit(command).await.expect("it is open")));
            }
        }
        for (ask, answer) in sent {
            let answer = answer.await.expect("an answer");
            let seen = match ask {
                Ask::Drop(t) | Ask::Put(t, ..) | Ask::Delete(t, _) => before.birth(*t),
                Ask::Grant(t, ..) | Ask::Revoke(t, ..) => before.birth(*t),
                Ask::Create(..) | Ask::Purge => None,
            };
            let answer = match answer {
                Ok(Outcome::Upkeep(UpkeepOutcome::Purged { .. })) => {
                    Ok(Outcome::Upkeep(UpkeepOutcome::Purged { more: false }))
                }
                Ok(done) => Ok(done),
                Err(CommandError::Refused(refusal)) => Err(refusal),
                Err(CommandError::Faulted(fault)) => panic!("{ask:?}: {fault}"),
            };
            prop_assert_eq!(answer, model.carry_out(ask, seen), "{:?}", ask);
        }
        Ok(())
    })
}

/// Every record by point reads, which come from memory where they were read before.
fn check_point_reads(store: &Store, model: &Model) -> Result<(), TestCaseError> {
    let reader = store.reader(0);
    for ((owner, name), (_, table)) in &model.tables {
        let entry = find(store, (*owner, name)).expect("it is in the catalog");
        for key in KEYS {
            let mut found = None;
            let keep = |record: &[u8]| found = Some(record.to_vec());
            reader.get(entry.table.id, key.as_bytes(), keep).expect("a read");
            prop_assert_eq!(found.as_ref(), table.rows.get(key.as_bytes()));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Answers, contents, rights, totals and quotas, while it runs and after a new start.
    ///
    /// holds V2, V3, V4
    #[test]
    fn the_store_does_what_its_model_does(
        bursts in prop::collection::vec(prop::collection::vec(ask(), 1..20), 1..25),
    ) {
        let dir = scratch_dir();
        let log = SHORT;
        let options = Options { limits: LIMITS, log, ..Options::new(dir.path()) };
        let store = Store::open(&options).expect("open");
        let mut model = Model::default();
        for burst in &bursts {
            carry_out(&store, &mut model, burst)?;
            prop_assert_eq!(Contents::of(&store), Ok(model.contents()));
            check_point_reads(&store, &model)?;
        }
        wait(store.close());
        drop(store);

        let store = Store::open(&options).expect("open again");
        prop_assert_eq!(Contents::of(&store), Ok(model.contents()));
        prop_assert!(check_file(&inspector(dir.path())).is_ok());
        wait(store.close());
    }
}

const TABLE: scripted::Name = (1000, "things");

/// A log that starts again all the time.
const SHORT: LogBounds = LogBounds { restart_pages: 16, pressure_pages: 1 << 20 };

fn open(dir: &tempfile::TempDir, log: LogBounds, readers: usize) -> Store {
    let options = Options { log, readers, ..Options::new(dir.path()) };
    let store = Store::open(&options).expect("open");
    Op::Create(TABLE).execute(&store).expect("it succeeds");
    store
}

fn put(store: &Store, name: &str, record: Vec<u8>) {
    let entry = find(store, TABLE).expect("it is there");
    let record = Bytes::from(record);
    let command = Command::Records(RecordCommand::Put {
        caller: owner(TABLE),
        entry,
        key: key(name),
        record,
    });
    wait(store.execute(command)).expect("it is stored");
}

fn table(store: &Store) -> std::sync::Arc<Entry> {
    find(store, TABLE).expect("it is there")
}

/// How often the log has started again, as its header counts; none where there is none yet.
fn restarts(dir: &tempfile::TempDir) -> Option<u32> {
    let log = std::fs::read(dir.path().join("cortex.db-wal")).ok()?;
    Some(u32::from_be_bytes(log.get(12..16)?.try_into().expect("four bytes")))
}

/// Writes until the log has started again, which it must do soon.
fn write_until_the_log_starts_again(dir: &tempfile::TempDir, store: &Store) {
    let before = restarts(dir);
    for n in 0..20_000u32 {
        put(store, "busy", vec![0; 3_000]);
        if n.is_multiple_of(64) {
            if restarts(dir) != before {
                return;
            }
            thread::sleep(Duration::from_millis(10)); // for the checkpointer
        }
    }
    panic!("the log has not started again");
}

#[test]
fn a_scan_sees_one_state_whatever_is_written_meanwhile() {
    const ROWS: u32 = 300;
    let dir = scratch_dir();
    let store = open(&dir, SHORT, 1);
    for n in 0..ROWS {
        put(&store, &format!("{n:03}"), b"before".to_vec());
    }
    let mut scan = store.scan(table(&store).table.id, &[]).expect("a scan");
    let mut seen = Vec::new();
    let ended = scan.slice(|key, record| {
        seen.push((key.to_vec(), record.to_vec()));
        if seen.len() == 10 { ScanStep::Pause } else { ScanStep::Continue }
    });
    assert!(!ended.expect("rows"));

    for n in (0..ROWS).step_by(2) {
        put(&store, &format!("{n:03}"), b"after".to_vec());
    }
    for n in 0..200 {
        put(&store, &format!("{n:03}+"), vec![1; 2_000]);
    }
    let gone =
        Command::Tables(TableCommand::DropTable { caller: owner(TABLE), entry: table(&store) });
    wait(store.execute(gone)).expect("it is dropped");
    while wait(store.execute(UpkeepCommand::Purge)).expect("a step")
        == (UpkeepOutcome::Purged { more: true })
    {}

    assert_eq!(scan.rows_in_table().expect("a number"), Some(u64::from(ROWS)));
    let mut visit = |key: &[u8], record: &[u8]| {
        seen.push((key.to_vec(), record.to_vec()));
        ScanStep::Continue
    };
    while !scan.slice(&mut visit).expect("rows") {}
    let expected = (0..ROWS).map(|n| (format!("{n:03}").into_bytes(), b"before".to_vec()));
    assert!(seen.into_iter().eq(expected));

    drop(scan);
    Op::Create(TABLE).execute(&store).expect("it succeeds");
    write_until_the_log_starts_again(&dir, &store);
    wait(store.close());
}

/// The thread that holds it may never read again.
#[test]
fn an_idle_reader_does_not_keep_the_log_from_starting_again() {
    let dir = scratch_dir();
    // More than what the writer would move in one go, which ends all snapshots.
    let store = open(&dir, LogBounds { restart_pages: 2_000, ..SHORT }, 2);
    put(&store, "a", b"1".to_vec());
    let found = store.reader(1).get(table(&store).table.id, b"a", |_| {});
    assert!(found.expect("a read"));
    write_until_the_log_starts_again(&dir, &store);
    write_until_the_log_starts_again(&dir, &store);
    wait(store.close());
}

#[test]
fn under_pressure_scans_end_and_the_log_has_a_bound() {
    const PRESSURE: u64 = 300;
    /// A page and its header in the log.
    const FRAME: u64 = 4096 + 24;
    let dir = scratch_dir();
    let store = open(&dir, LogBounds { restart_pages: 16, pressure_pages: PRESSURE }, 1);
    put(&store, "a", b"1".to_vec());
    put(&store, "b", b"1".to_vec());
    let id = table(&store).table.id;
    let mut scan = store.scan(id, &[]).expect("a scan");
    assert!(!scan.slice(|_, _| ScanStep::Pause).expect("a row"));

    let log = || dir.path().join("cortex.db-wal").metadata().expect("there is a log").len();
    // Well beyond: how long the log is gets looked at after the reply to a write. The next write is
    // answered after that.
    while log() < (PRESSURE + 8) * FRAME {
        put(&store, "busy", vec![0; 3_000]);
    }
    put(&store, "busy", vec![0; 3_000]);
    let old = scan.slice(|_, _| ScanStep::Continue);
    assert!(matches!(old, Err(StoreError::SnapshotTooOld)), "{old:?}");
    drop(scan);

    let grown = log();
    for _ in 0..2_000 {
        put(&store, "busy", vec![0; 3_000]);
    }
    assert!(log() <= grown + PRESSURE * FRAME, "from {grown} to {}", log());
    let mut rows = 0;
    let mut scan = store.scan(id, &[]).expect("a scan");
    let ended = scan.slice(|_, _| {
        rows += 1;
        ScanStep::Continue
    });
    assert!(ended.expect("scans are possible again"));
    assert_eq!(rows, 3);
    drop(scan);
    wait(store.close());
}

/// One writer, two readers of single records and one of the whole table, on a log that starts
/// again all the time: nobody sees less than what was acknowledged before, nor less than before,
/// and a scan sees the state after one write.
#[test]
fn readers_never_go_back_while_the_log_starts_again() {
    const WRITES: u64 = 4_000;
    const KEYS: u64 = 8;
    let dir = scratch_dir();
    let store = open(&dir, LogBounds { restart_pages: 16, pressure_pages: 2_000 }, 2);
    let write = |n: u64| put(&store, &format!("{}", n % KEYS), n.to_be_bytes().to_vec());
    let number = |record: &[u8]| u64::from_be_bytes(record.try_into().expect("eight bytes"));
    (0..KEYS).for_each(write);
    let id = table(&store).table.id;
    let (acknowledged, done) = (AtomicU64::new(KEYS - 1), AtomicBool::new(false));
    let scans = AtomicU64::new(0);
    let before = restarts(&dir);
    thread::scope(|scope| {
        for thread in 0..2 {
            let reader = store.reader(thread);
            let (acknowledged, done) = (&acknowledged, &done);
            scope.spawn(move || {
                let mut newest = 0;
                while !done.load(SeqCst) {
                    let least = acknowledged.load(SeqCst).max(newest);
                    let key = (least % KEYS).to_string();
                    let mut found = 0;
                    let keep = |record: &[u8]| found = number(record);
                    assert!(reader.get(id, key.as_bytes(), keep).expect("a read"));
                    assert!(found >= least, "{found} after {least}");
                    newest = found;
                }
            });
        }
        scope.spawn(|| {
            while !done.load(SeqCst) {
                let least = acknowledged.load(SeqCst);
                let mut scan = store.scan(id, &[]).expect("a scan");
                let mut seen = Vec::new();
                let visit = |_: &[u8], record: &[u8]| {
                    seen.push(number(record));
                    ScanStep::Continue
                };
                match scan.slice(visit) {
                    Ok(true) => {}
                    Ok(false) | Err(StoreError::SnapshotTooOld) => continue,
                    Err(fault) => panic!("{fault}"),
                }
                seen.sort_unstable();
                let last = seen[seen.len() - 1];
                assert!(last >= least, "{last} after {least}");
                assert!(seen.iter().copied().eq(last + 1 - KEYS..=last), "{seen:?} is no state");
                scans.fetch_add(1, SeqCst);
            }
        });
        for n in KEYS..WRITES {
            write(n);
            acknowledged.store(n, SeqCst);
        }
        done.store(true, SeqCst);
    });
    assert!(scans.load(SeqCst) > 20, "{scans:?} scans");
    assert!(restarts(&dir) > before, "the log has started again meanwhile");
    wait(store.close());
}

#[test]
fn a_slice_of_large_rows_ends_when_its_time_is_over() {
    const SLICE: Duration = Duration::from_millis(2);
    let dir = scratch_dir();
    let store = Store::open(&Options::new(dir.path())).expect("it opens");
    Op::Create(TABLE).execute(&store).expect("it succeeds");
    for key in KEYS {
        Op::Put(TABLE, key, 64 << 10, 1).execute(&store).expect("it succeeds");
    }
    let mut scan = store.scan(table(&store).table.id, &[]).expect("a scan");
    let mut visited = 0;
    let ended = scan.slice(|_, _| {
        visited += 1;
        thread::sleep(SLICE);
        ScanStep::Continue
    });
    assert!(!ended.expect("a slice"), "it has read on to the end");
    assert_eq!(visited, 1, "each of these rows takes a slice");
    drop(scan);
    wait(store.close());
}

/// Where messages may be as large as the queue, a record is larger with what is counted besides.
///
/// holds V6
#[test]
fn a_record_as_large_as_the_queue_is_stored_and_holds_up_nobody() {
    const QUEUE_BYTES: usize = 64 << 20;
    let dir = scratch_dir();
    let store = Store::open(&Options::new(dir.path())).expect("it opens");
    Op::Create(TABLE).execute(&store).expect("it succeeds");
    let (done, waited) = std::sync::mpsc::channel();
    let theirs = store.clone();
    thread::spawn(move || {
        Op::Put(TABLE, "large", QUEUE_BYTES, 1).execute(&theirs).expect("there is room");
        Op::Put(TABLE, "small", 1, 1).execute(&theirs).expect("there is room");
        done.send(()).expect("it is waited for");
    });
    waited.recv_timeout(Duration::from_secs(30)).expect("both are stored");
    wait(store.close());
}

#[test]
fn a_checkpoint_that_is_asked_for_during_another_succeeds() {
    let dir = scratch_dir();
    let store = Store::open(&Options::new(dir.path())).expect("it opens");
    Op::Create(TABLE).execute(&store).expect("it succeeds");
    put(&store, "first", vec![1]);
    let mut scan = store.scan(table(&store).table.id, &[]).expect("a scan");
    scan.slice(|_, _| ScanStep::Pause).expect("a row");
    put(&store, "second", vec![2]);

    let other = Connection::open(dir.path().join("cortex.db")).expect("it opens");
    other.busy_timeout(Duration::from_secs(30)).expect("a setting");
    thread::scope(|scope| {
        // Holds the lock on checkpoints until the scan lets go of its snapshot. SQLite does not wait
        // for that lock, so it is asked for again where the store's own checkpoint has it.
        let waiting = scope.spawn(move || {
            let restart = "PRAGMA wal_checkpoint(RESTART)";
            let mut busy = true;
            while busy {
                busy = other.query_row(restart, [], |row| row.get(0)).expect("it succeeds");
            }
        });
        for _ in 0..100 {
            store.checkpoint().expect("it succeeds");
            thread::sleep(Duration::from_millis(2));
        }
        assert!(!waiting.is_finished(), "there was another one all the time");
        drop(scan);
        waiting.join().expect("no panic");
    });
    wait(store.close());
}

/// A large one takes minutes, and whoever stops the daemon waits for it.
#[test]
fn a_backup_is_given_up_where_the_daemon_ends() {
    let dir = scratch_dir();
    let store = Store::open(&Options::new(dir.path())).expect("it opens");
    Op::Create(TABLE).execute(&store).expect("it succeeds");
    for n in 0..5_000 {
        put(&store, &n.to_string(), vec![1]);
    }
    store.backup(&dir.path().join("whole.db")).expect("it is made");
    store.give_up_backups();
    let given_up = store.backup(&dir.path().join("part.db"));
    assert!(matches!(given_up, Err(StoreError::Closed)), "{given_up:?}");
    wait(store.close());
}
