//! The power goes at any moment: what was acknowledged is there, and nothing of a transaction is there alone.
//! Failing disks are `disk_faults`; a killed process is `kill9`.

use std::sync::{Mutex, mpsc};
use std::thread;

use cortex_core::model::Permissions;
use cortexd::store::{LogBounds, Options, Store, StoreError};
use faultfs::{FaultFs, Op as Call, Repeat};
use rusqlite::Connection;
use tempfile::TempDir;

use scripted::{Contents, Counters, Op, check_file, inspector, options_over, scratch_dir, wait};

use crate::support::scripted;

const USERS: scripted::Name = (1000, "users");
const NOTES: scripted::Name = (1000, "notes");
const LOGS: scripted::Name = (2000, "logs");
const KIB_100: usize = 100 << 10;

/// A store on a watched disk.
struct Rig {
    history: History,
    store: Option<Store>,
    options: Options,
    /// Asks the file for its counters, past the watched disk.
    inspector: Connection,
    _dir: TempDir,
}

/// Everything that a store was asked, and what its disk went through.
struct History {
    fs: FaultFs,
    /// What the store holds after so many operations.
    states: Vec<Contents>,
    /// For each state the calls before it was asked for.
    asked: Vec<u64>,
    /// For each state the calls when it was acknowledged, if it was, and the counters then.
    acknowledged: Vec<Option<(u64, Counters)>>,
}

/// What the disk looks like after one power loss.
struct Image {
    point: u64,
    seed: u64,
    dir: TempDir,
}

impl Rig {
    fn new(log: LogBounds) -> Self {
        let dir = scratch_dir();
        let fs = FaultFs::new(&scripted::unique_name("power"), dir.path()).expect("a VFS");
        let history = History {
            fs,
            states: vec![Contents::default()],
            asked: vec![0],
            acknowledged: vec![None],
        };
        Self::over(history, log, dir)
    }

    /// Opens a store over a disk with a history.
    fn over(history: History, log: LogBounds, dir: TempDir) -> Self {
        let options = Options { log, ..options_over(&history.fs) };
        let store = Some(Store::open(&options).expect("open"));
        let inspector = inspector(history.fs.dir());
        Self { history, store, options, inspector, _dir: dir }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open")
    }

    /// Asks for one operation and waits for its answer.
    fn run(&mut self, op: &Op) {
        self.history.expect(op);
        op.execute(self.store()).unwrap_or_else(|failure| panic!("{op:?}: {failure}"));
        self.note_answers(1);
    }

    /// Asks for all before waiting for any, so that they share transactions.
    fn burst(&mut self, ops: &[Op]) {
        ops.iter().for_each(|op| self.history.expect(op));
        let store = self.store();
        wait(async {
            let mut answers = Vec::new();
            for op in ops {
                answers.push(store.submit(op.command(store)).await.expect("it is open"));
            }
            for answer in answers {
                answer.await.expect("an answer").expect("it succeeds");
            }
        });
        self.note_answers(ops.len());
    }

    fn note_answers(&mut self, count: usize) {
        let counters = Counters::of(&self.inspector).expect("the counters");
        let History { fs, acknowledged, .. } = &mut self.history;
        let at = acknowledged.len() - count;
        acknowledged[at..].fill(Some((fs.calls(), counters)));
    }

    /// An orderly end, which empties the log, and a new start.
    fn restart(&mut self) {
        let store = self.store.take().expect("it is open");
        wait(store.close());
        drop(store);
        self.store = Some(Store::open(&self.options).expect("open again"));
    }
}

impl History {
    fn expect(&mut self, op: &Op) {
        let mut state = self.states[self.states.len() - 1].clone();
        state.apply(op);
        self.states.push(state);
        self.asked.push(self.fs.calls());
        self.acknowledged.push(None);
    }

    /// Judges what each power loss leaves. Images are made in the order of the points, which is
    /// cheapest, and judged by others meanwhile.
    fn sweep(&self, points: &[u64], seeds: impl Fn(u64) -> Vec<u64>) {
        assert!(!points.is_empty());
        let flaws = Mutex::new(Vec::new());
        let (images, queue) = mpsc::sync_channel::<Image>(4);
        let queue = Mutex::new(queue);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Ok(image) = queue.lock().expect("no panic").recv() {
                        if let Err(flaw) = self.judge(&image) {
                            let Image { point, seed, .. } = image;
                            let flaw =
                                format!("power loss after call {point}, seed {seed}: {flaw}");
                            flaws.lock().expect("no panic").push(flaw);
                        }
                    }
                });
            }
            let images = images; // gone with the last image, which ends the judges
            let cases = points.iter().flat_map(|p| seeds(*p).into_iter().map(|seed| (*p, seed)));
            for (point, seed) in cases {
                if !flaws.lock().expect("no panic").is_empty() {
                    return;
                }
                let dir = scratch_dir();
                self.fs.power_loss_at(point, seed, dir.path()).expect("an image");
                images.send(Image { point, seed, dir }).expect("a judge waits");
            }
        });
        let flaws = flaws.into_inner().expect("no panic");
        assert!(flaws.is_empty(), "{}", flaws.join("\n"));
    }

    /// An image, opened as any store: it holds a state that was asked for by then and none older
    /// than the last acknowledged one, and its counters have not gone back.
    fn judge(&self, image: &Image) -> Result<(), String> {
        let Image { point, dir, .. } = image;
        let newest = self.asked.iter().rposition(|calls| calls <= point).unwrap_or(0);
        let by_then = |answer: &Option<(u64, _)>| answer.is_some_and(|(calls, _)| calls <= *point);
        let oldest = self.acknowledged.iter().rposition(by_then).unwrap_or(0);
        let store = Store::open(&Options::new(dir.path())).map_err(|e| e.to_string())?;
        let found = Contents::of(&store)?;
        let counters = check_file(&inspector(dir.path()))?;
        let (_, acknowledged) = self.acknowledged[oldest].unwrap_or_default();
        if !counters.reach(acknowledged) {
            return Err(format!("{counters:?} after {acknowledged:?} was acknowledged"));
        }
        if self.states[oldest..=newest].contains(&found) {
            return Ok(());
        }
        let older = self.states[..oldest].contains(&found);
        Err(if older { "an acknowledged effect is gone" } else { "part of an effect" }.into())
    }
}

/// Some fifty operations of every kind, with orderly restarts, which move the log into the
/// database, in between.
fn run_script(rig: &mut Rig) {
    let (read, write) = (Permissions::READ, Permissions::WRITE);
    for table in [USERS, NOTES, LOGS] {
        rig.run(&Op::Create(table));
    }
    for (key, len, fill) in [("a", 10, b'1'), ("b", 300, b'2'), ("c", KIB_100, b'3')] {
        rig.run(&Op::Put(USERS, key, len, fill));
    }
    rig.run(&Op::Grant(USERS, 7, read.union(write)));
    rig.run(&Op::Put(USERS, "a", 2_000, b'4'));
    rig.run(&Op::Delete(USERS, "b"));
    rig.run(&Op::Delete(USERS, "never there"));
    rig.burst(&[
        Op::Put(NOTES, "x", 5_000, b'5'),
        Op::Put(NOTES, "x", 10, b'6'),
        Op::Put(NOTES, "y", 700, b'7'),
        Op::Delete(NOTES, "x"),
        Op::Put(LOGS, "1", 4_096, b'8'),
        Op::Revoke(USERS, 7, write),
    ]);
    rig.restart();
    for n in 0..6u8 {
        rig.run(&Op::Put(LOGS, ["1", "2", "3"][usize::from(n % 3)], 900, n));
    }
    rig.run(&Op::Put(USERS, "c", KIB_100, b'9'));
    rig.run(&Op::Drop(NOTES));
    rig.run(&Op::Purge);
    rig.run(&Op::Create(NOTES));
    rig.run(&Op::Put(NOTES, "x", 50, b'a'));
    rig.run(&Op::Purge);
    rig.run(&Op::Delete(USERS, "c"));
    rig.run(&Op::Grant(LOGS, 7, read));
    rig.restart();
    for n in 0..12u8 {
        rig.run(&Op::Put(USERS, ["d", "e", "f", "g"][usize::from(n % 4)], 1_500, n));
    }
    rig.run(&Op::Drop(LOGS));
    rig.run(&Op::Purge);
    rig.run(&Op::Purge);
    rig.run(&Op::Create(LOGS));
    rig.run(&Op::Put(LOGS, "1", 30, b'b'));
    rig.run(&Op::Revoke(USERS, 7, read));
    rig.run(&Op::Delete(USERS, "e"));
}

/// Every crash point of the script, the log short enough for checkpoints to run all the time.
///
/// holds K3, K4, K5, K6, E3
#[test]
fn a_power_loss_at_any_point_leaves_what_was_acknowledged_and_nothing_by_halves() {
    let mut rig = Rig::new(LogBounds { restart_pages: 20, pressure_pages: 60 });
    run_script(&mut rig);
    assert!(rig.history.states.len() >= 50, "{} operations", rig.history.states.len());
    let checkpoints = rig.history.fs.trace().into_iter();
    let checkpoints =
        checkpoints.filter(|call| call.op == Call::Sync && &*call.file == "cortex.db");
    assert!(checkpoints.count() > 5, "checkpoints while it ran");
    rig.history.sweep(&rig.history.fs.crash_points(), |point| vec![point % 2, 2 + point]);
}

/// The same without a checkpoint but the orderly ones, and with other outcomes.
///
/// holds K3, K4, K5, K6, E3
#[test]
fn a_power_loss_while_everything_is_in_the_log_leaves_what_was_acknowledged() {
    let mut rig = Rig::new(LogBounds::default());
    run_script(&mut rig);
    // Around each answer the outcome matters most.
    let near = |point: &u64| {
        let mut answers = rig.history.acknowledged.iter().flatten();
        answers.any(|(calls, _)| calls.abs_diff(*point) <= 2)
    };
    let points: Vec<_> = rig.history.fs.crash_points().into_iter().filter(near).collect();
    rig.history.sweep(&points, |point| vec![0, 1, 3 + point, 5 + point]);
}

/// The sync of a commit fails and the process ends by itself; another takes over; then the power
/// goes. The kernel's memory still shows the failed commit's part of the log.
///
/// holds K6, E3
#[test]
fn a_store_that_ends_after_a_failed_sync_leaves_nothing_that_a_power_loss_could_break() {
    let mut rig = rig_before_a_failed_sync();
    let log = |call: &faultfs::Call| call.op == Call::Sync && call.file.ends_with("-wal");
    rig.history.fs.fail_when(log, faultfs::StoreError::Io, Repeat::Once);
    fail_a_put(&mut rig);
    wait(rig.store().close());
    let log = rig.history.fs.dir().join("cortex.db-wal");
    assert_eq!(log.metadata().expect("it is there").len(), 0, "the log was emptied");
    judge_the_next_process(&rig);
}

/// The same where every later sync fails too, so that the store cannot empty the log.
///
/// holds K6, E3
#[test]
fn a_store_makes_the_log_durable_that_another_process_failed_to_sync() {
    let mut rig = rig_before_a_failed_sync();
    let any = |call: &faultfs::Call| call.op == Call::Sync;
    rig.history.fs.fail_when(any, faultfs::StoreError::Io, Repeat::Always);
    fail_a_put(&mut rig);
    wait(rig.store().close());
    let log = rig.history.fs.dir().join("cortex.db-wal");
    assert!(log.metadata().expect("it is there").len() > 0, "there is a log to believe or not");
    judge_the_next_process(&rig);
}

/// The log holds no older versions of the pages that would hide the damage, and another page than
/// those of the commit that will fail.
fn rig_before_a_failed_sync() -> Rig {
    let mut rig = Rig::new(LogBounds::default());
    rig.run(&Op::Create(USERS));
    rig.run(&Op::Create(NOTES));
    for n in 0..10u8 {
        rig.run(&Op::Put(USERS, ["a", "b", "c", "d", "e"][usize::from(n % 5)], 3_000, n));
    }
    rig.restart();
    rig.run(&Op::Grant(NOTES, 7, Permissions::READ));
    rig
}

fn fail_a_put(rig: &mut Rig) {
    let op = Op::Put(USERS, "b", 3_500, b'!');
    rig.history.expect(&op);
    let failure = op.execute(rig.store()).expect_err("its sync fails");
    assert!(
        matches!(failure, cortexd::store::CommandError::Faulted(StoreError::SyncFailed(_))),
        "{failure}"
    );
}

/// Another process goes on where this one left off, and then the power goes, at any point.
fn judge_the_next_process(rig: &Rig) {
    let dir = scratch_dir();
    let before = &rig.history;
    let name = scripted::unique_name("power");
    let fs = before.fs.process_crash(&name, dir.path()).expect("a process crash");
    let history = History {
        fs,
        states: before.states.clone(),
        asked: vec![0; before.asked.len()],
        acknowledged: before.acknowledged.iter().map(|a| a.map(|(_, seen)| (0, seen))).collect(),
    };
    let mut next = Rig::over(history, LogBounds::default(), dir);
    let found = Contents::of(next.store()).expect("it is in order");
    let failed = next.history.states.len() - 1;
    assert!(next.history.states[failed - 1..].contains(&found), "only the failed commit is open");
    // It goes on from what it found, whether or not the failed commit is part of it.
    next.history.states.push(found);
    next.history.asked.push(0);
    next.history.acknowledged.push(None);

    next.run(&Op::Put(NOTES, "x", 100, b'x'));
    next.restart();
    next.run(&Op::Put(USERS, "c", 3_200, b'y'));
    next.history.sweep(&next.history.fs.crash_points(), |point| {
        [0, 1].into_iter().chain((0..10).map(|n| 2 + point * 10 + n)).collect()
    });
}
