//! Disks that fail: at every call of a script, with every fault, once and from then on.
//! Power losses without a fault are `power_loss`; a disk that is really full is `root_disk`.

use cortex_core::model::Permissions;
use cortexd::store::{CommandError, LogBounds, OpenError, Options, Store};
use faultfs::{Call, FaultFs, Op as DiskOp, Repeat};
use tempfile::TempDir;

use scripted::{Contents, Op, check_file, find, inspector, options_over, scratch_dir, wait};

use crate::support::scripted;

const USERS: scripted::Name = (1000, "users");
const NOTES: scripted::Name = (1000, "notes");
const LOGS: scripted::Name = (2000, "logs");

/// What the script does, in order. A restart makes an orderly end and a new start.
enum Step {
    Do(Op),
    Read(&'static str),
    Restart,
    /// From here on the disk works again.
    Heal,
}

fn script() -> Vec<Step> {
    use Step::{Do, Heal, Read, Restart};
    let put = |table, key, len, fill| Do(Op::Put(table, key, len, fill));
    vec![
        Do(Op::Create(USERS)),
        put(USERS, "a", 10, 1),
        Do(Op::Create(NOTES)),
        put(USERS, "b", 9_000, 2),
        Read("b"),
        Restart,
        Read("b"),
        put(USERS, "a", 3_000, 3),
        Do(Op::Grant(USERS, 7, Permissions::READ)),
        Do(Op::Delete(USERS, "b")),
        Do(Op::Drop(NOTES)),
        Do(Op::Purge),
        Read("a"),
        Heal,
        put(USERS, "c", 500, 4),
        Read("a"),
        Do(Op::Create(LOGS)),
        put(LOGS, "a", 20, 5),
        Restart,
        put(USERS, "a", 7, 6),
        Read("c"),
    ]
}

/// A script on a disk that fails.
struct Run {
    fs: FaultFs,
    options: Options,
    store: Option<Store>,
    /// What was acknowledged.
    model: Contents,
    /// With the command whose sync failed: it may be there after a start, as a whole.
    perhaps: Option<Contents>,
    /// What the commands and reads that failed were told.
    wires: Vec<&'static str>,
    healed: bool,
    _dir: TempDir,
}

impl Run {
    fn new(log: LogBounds, arm: impl FnOnce(&FaultFs)) -> Self {
        let dir = scratch_dir();
        let fs = FaultFs::new(&scripted::unique_name("faults"), dir.path()).expect("a VFS");
        arm(&fs);
        let mut run = Self {
            options: Options { log, ..options_over(&fs) },
            fs,
            store: None,
            model: Contents::default(),
            perhaps: None,
            wires: Vec::new(),
            healed: false,
            _dir: dir,
        };
        run.start();
        run
    }

    /// Opens the store; where the fault strikes that, the disk is mended first.
    fn start(&mut self) {
        let store = Store::open(&self.options).or_else(|error| {
            assert!(!self.healed, "{error}");
            let OpenError::StoreError { path, fault } = error else {
                panic!("a fault, not {error}");
            };
            assert!(path.contains("cortex.db"), "{path}");
            println!("{path}: {fault}"); // shown if something fails later
            self.heal();
            Store::open(&self.options)
        });
        self.store = Some(store.expect("it opens once the disk works"));
        self.resolve_doubt();
    }

    /// After a start it shows whether a command whose sync failed was stored or not.
    fn resolve_doubt(&mut self) {
        if let Some(perhaps) = self.perhaps.take() {
            // A fault that comes again and again would strike this read.
            self.heal();
            let found = Contents::of(self.store()).expect("it is in order");
            assert!(found == perhaps || found == self.model, "{found:?}");
            self.model = found;
        }
    }

    fn heal(&mut self) {
        self.fs.heal();
        self.healed = true;
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open")
    }

    /// A command that failed may stop the store just after its answer; behind the next one that
    /// is known.
    fn has_stopped(&self) -> bool {
        let _refused_or_not = wait(self.store().execute(cortexd::store::UpkeepCommand::Purge));
        self.store().fatal().borrow().is_some()
    }

    /// An orderly end and a new start.
    fn restart(&mut self) {
        let store = self.store.take().expect("it is open");
        wait(store.close());
        drop(store);
        self.start();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Do(op) => self.execute(op),
            Step::Read(key) => self.read(key),
            Step::Restart => self.restart(),
            Step::Heal => {
                self.heal();
                // As systemd does with a daemon that has ended because of a fault.
                if self.has_stopped() {
                    self.restart();
                }
            }
        }
    }

    fn execute(&mut self, op: &Op) {
        let table = match op {
            Op::Put(table, ..) | Op::Delete(table, _) | Op::Drop(table) => Some(*table),
            Op::Grant(table, ..) | Op::Revoke(table, ..) => Some(*table),
            Op::Create(_) | Op::Purge => None,
        };
        let made = table.is_none_or(|table| find(self.store(), table).is_some());
        if !made {
            assert!(!self.wires.is_empty(), "making the table has failed before");
            return;
        }
        let stopped = self.store().fatal().borrow().is_some();
        match op.execute(self.store()) {
            Ok(()) => {
                assert!(!stopped, "{op:?} was acknowledged after the store had stopped");
                self.model.apply(op);
            }
            Err(CommandError::Faulted(fault)) => {
                assert!(!self.healed || stopped, "{op:?} on a disk that works: {fault}");
                self.wires.push(fault.wire());
                if fault.is_fatal() && !stopped {
                    let mut perhaps = self.model.clone();
                    perhaps.apply(op);
                    self.perhaps = Some(perhaps);
                    wait(self.store().fatal().wait_for(Option::is_some)).expect("it tells");
                }
            }
            Err(CommandError::Refused(refusal)) => panic!("{op:?}: {refusal}"),
        }
    }

    /// A record is found as it was acknowledged, or the read fails; it is never wrong.
    fn read(&mut self, key: &'static str) {
        let Some(entry) = find(self.store(), USERS) else {
            return;
        };
        let mut found = None;
        let result = self
            .store()
            .reader(0)
            .get(entry.table.id, key.as_bytes(), |record| found = Some(record.to_vec()));
        match result {
            Ok(_) => {
                let rows = &self.model.0[&(USERS.0, USERS.1.to_owned())].rows;
                assert_eq!(found.as_ref(), rows.get(key.as_bytes()), "{key}");
            }
            Err(fault) => {
                assert!(!self.healed, "{key} on a disk that works: {fault}");
                self.wires.push(fault.wire());
            }
        }
    }

    /// Whatever was acknowledged is there: in the running store, after the process was killed,
    /// and after the power went.
    fn judge(&mut self, seed: u64) {
        self.heal();
        if self.has_stopped() {
            self.restart();
        }
        assert_eq!(Contents::of(self.store()), Ok(self.model.clone()), "running");

        let image = scratch_dir();
        self.fs.power_loss(seed, image.path()).expect("an image");
        self.judge_again(&Options::new(image.path()), &format!("power loss {seed}"));

        let killed = scratch_dir();
        let name = scripted::unique_name("faults");
        let after = self.fs.process_crash(&name, killed.path()).expect("a process crash");
        self.judge_again(&options_over(&after), "killed");
        wait(self.store().close());
    }

    fn judge_again(&self, options: &Options, what: &str) {
        let store = Store::open(options).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(Contents::of(&store), Ok(self.model.clone()), "{what}");
        check_file(&inspector(&options.dir)).unwrap_or_else(|e| panic!("{what}: {e}"));
        wait(store.close());
    }
}

/// One run of the script for each call that the fault can strike. How many there were.
fn sweep(fault: faultfs::StoreError, repeat: Repeat) -> u64 {
    let mut nth = 1;
    let mut runs = 0;
    loop {
        let mut run = Run::new(LogBounds::default(), |fs| fs.fail(nth, fault, repeat));
        script().iter().for_each(|step| run.step(step));
        let Some(struck) = run.fs.struck().into_iter().next() else {
            return runs;
        };
        let trace = format!("{struck:?}, {repeat:?}, told {:?}", run.wires);
        if let Some(wire) = run.wires.first() {
            assert_eq!(*wire, expected_wire(&struck), "{trace}");
        }
        if repeat == Repeat::Once && struck.op != DiskOp::Sync {
            assert!(run.wires.len() <= 1, "it failed one command: {trace}");
        }
        println!("{trace}"); // shown if the judge panics
        // Every second power loss is one that keeps nothing but what was synced.
        run.judge(if runs % 2 == 0 { 0 } else { nth });
        // The next call that this fault can strike: others would repeat this run.
        nth = struck.number + 1;
        runs += 1;
    }
}

/// What a client is told when that call fails.
fn expected_wire(struck: &Call) -> &'static str {
    match (struck.fault, struck.op) {
        (Some(faultfs::StoreError::NoSpace | faultfs::StoreError::ShortNoSpace), DiskOp::Write) => {
            "storage_full"
        }
        _ => "storage_error",
    }
}

fn check(fault: faultfs::StoreError, least: u64) {
    for repeat in [Repeat::Once, Repeat::Always] {
        check_repeat(fault, repeat, least);
    }
}

fn check_repeat(fault: faultfs::StoreError, repeat: Repeat, least: u64) {
    let runs = sweep(fault, repeat);
    assert!(runs >= least, "{runs} runs");
}

/// holds K5, K6, E3
#[test]
fn no_error_on_any_call_costs_an_acknowledged_command() {
    check(faultfs::StoreError::Io, 150);
}

/// holds K5, K6, E3
#[test]
fn no_full_disk_at_any_call_costs_an_acknowledged_command() {
    check(faultfs::StoreError::NoSpace, 50);
}

/// holds K5, K6, E3
#[test]
fn no_write_cut_short_costs_an_acknowledged_command() {
    check_repeat(faultfs::StoreError::ShortIo, Repeat::Once, 50);
    check_repeat(faultfs::StoreError::ShortNoSpace, Repeat::Always, 50);
}

/// holds K5, K6, E3
#[test]
fn no_read_that_fails_with_another_error_costs_an_acknowledged_command() {
    check(faultfs::StoreError::Read, 50);
}

/// SQLite would try the checkpoint again. But what the kernel dropped is not known, and a disk
/// that fails a sync is not one to acknowledge writes on.
///
/// holds K6, E3
#[test]
fn a_failed_sync_of_a_checkpoint_stops_the_store_and_costs_nothing() {
    // Short enough for checkpoints to run all the time, by the checkpointer and by the writer.
    let mut run = Run::new(LogBounds { restart_pages: 8, pressure_pages: 60 }, |_fs| {});
    run.execute(&Op::Create(USERS));
    let database = |call: &Call| call.op == DiskOp::Sync && &*call.file == "cortex.db";
    run.fs.fail_when(database, faultfs::StoreError::Io, Repeat::Once);
    for n in 0..200u8 {
        run.execute(&Op::Put(USERS, "a", 5_000, n));
        if !run.wires.is_empty() {
            break;
        }
    }
    assert!(run.has_stopped(), "a checkpoint was due long ago");
    let refused = Op::Put(USERS, "a", 1, 1).execute(run.store());
    assert!(matches!(refused, Err(CommandError::Faulted(_))), "{refused:?}");
    run.judge(0);
}
