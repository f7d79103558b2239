//! Histories: random operations of concurrent clients on meshes of real daemons under real faults, judged against
//! what was acknowledged. Leaves rules in all their cases to the simulation, and single stories to `replication`.
//!
//! ```text
//!   plan (seed) ──> world ──> node: kill, stop, restore, clock, disk      one process per history
//!                     │       wires: cut, one-way, half-open, slow
//!                     │
//!   workload ×nodes ──┴──> shared: what was asked, answered, done ──> check ──> violations, trace, seed
//! ```
//!
//! A *history* is a mesh of three to five daemons, in full or as a chain, on loopback, without root. It has
//! *cycles*: clients ask and faults happen; then everything runs again, the nodes must converge, and what they hold,
//! say and allow is judged:
//!
//! | checker | finds |
//! |---|---|
//! | `check::records` | a lost acknowledged write, a deletion undone, what nobody wrote, replicas that differ |
//! | `check::status` | in_sync between nodes that hold different rows, while faults last too |
//! | `check::scope` | a byte of a table on a node that was never in its scope, or has left it |
//! | `check::rights` | access after a revocation, none after a grant, nodes that disagree |
//! | `check::health` | panics, errors, floods of warnings, memory and descriptors that grow, a daemon that ends |
//! | `quiet` | a machine that cannot be replaced, two creations of a table that do not keep the narrower scope |
//! | progress | nodes that do not converge within minutes once nothing is wrong |
//!
//! `cargo test` runs a few fixed seeds; `make histories` goes on for HISTORY_SECONDS, from HISTORY_SEED. The same
//! seed makes the same operations and faults again, though not the same interleaving. A history that fails leaves
//! its trace and logs in the build's directory for temporary files, and prints the command that runs it again. With
//! HISTORY_SHORTEN=1 faults are left out for as long as it still fails.

#[path = "sim/chance.rs"]
#[expect(dead_code, reason = "the simulation's own draws")]
mod chance;
#[path = "histories/check/mod.rs"]
mod check;
#[path = "histories/client.rs"]
mod client;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "histories/history.rs"]
mod history;
#[path = "support/mesh.rs"]
mod mesh;
#[path = "histories/node.rs"]
mod node;
#[path = "histories/plan.rs"]
mod plan;
#[path = "histories/quiet.rs"]
mod quiet;
#[path = "histories/replica.rs"]
mod replica;
#[path = "histories/rest.rs"]
mod rest;
#[path = "support/rpc.rs"]
mod rpc;
#[path = "histories/run.rs"]
mod run;
#[path = "histories/shared.rs"]
mod shared;
#[path = "histories/stopwatch.rs"]
mod stopwatch;
#[path = "histories/tables.rs"]
mod tables;
#[path = "histories/wires.rs"]
mod wires;
#[path = "histories/workload.rs"]
mod workload;
#[path = "histories/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use cortexd::sys::clock;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use run::{Account, Wish};

/// What `cargo test` runs: seeds, and how many cycles of each.
const FIXED_SEEDS: [(u64, u64); 6] = [
    (1, 2),  // a machine is replaced
    (2, 1),  // the node that decides is set back
    (6, 1),  // full disks
    (18, 1), // a clock an hour ahead
    (21, 1), // a chain
    (43, 2), // a chain whose middle is replaced
];
const FIXED_CYCLE_MS: u64 = 9_000;

/// What `make histories` runs of each seed.
const CYCLES: u64 = 4;
const CYCLE_MS: u64 = 20_000;

/// How long one history may take: what hangs is ended.
const LONGEST: Duration = Duration::from_secs(1800);

/// A history under way.
struct Running {
    wish: Wish,
    base: tempfile::TempDir,
    process: Child,
    until: std::time::Instant,
}

impl Running {
    fn start(wish: Wish) -> Self {
        let base = tempfile::tempdir().expect("make a directory");
        let process = run::start(base.path(), &wish);
        Self { wish, base, process, until: clock::monotonic() + LONGEST }
    }

    /// What came of it, once it has ended.
    fn ended(&mut self) -> Option<Account> {
        let ended = self.process.try_wait().expect("look after the process");
        let is_late = ended.is_none() && clock::monotonic() > self.until;
        if ended.is_none() && !is_late {
            return None;
        }
        self.end();
        let mut account = run::read_account(self.base.path()).unwrap_or_default();
        if is_late {
            account.broken.push("harness: the history did not end in time".into());
        } else if !ended.is_some_and(|status| status.success()) {
            let output = fs::read_to_string(self.base.path().join("output")).unwrap_or_default();
            account.broken.push(format!("harness: the history failed: {output}"));
        }
        Some(account)
    }

    /// Ends whatever is left of it.
    fn end(&mut self) {
        let group = i32::try_from(self.process.id()).expect("a process id");
        let _gone_already = killpg(Pid::from_raw(group), Signal::SIGKILL);
        let _gone_already = self.process.wait();
    }

    /// Keeps what tells of a failure, and says where it is and how to see it again.
    fn report(&self, account: &Account) {
        let Wish { seed, cycles, cycle_ms, without } = &self.wish;
        let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("history-{seed}"));
        let _none_of_before = fs::remove_dir_all(&kept);
        keep(self.base.path(), &kept);
        println!("seed {seed}: {} violations", account.broken.len());
        account.broken.iter().take(20).for_each(|what| println!("  {what}"));
        println!("  what happened is in {}", kept.display());
        println!(
            "  again: HISTORY_SEED={seed} HISTORY_SEEDS=1 HISTORY_CYCLES={cycles} HISTORY_CYCLE_MS={cycle_ms} \
             HISTORY_WITHOUT={} make histories",
            run::numbers(without)
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Leaves faults out one after the other for as long as the history fails without them: the story that is left is
/// the short one. Answers the numbers of those that it does not need.
fn shorten(wish: &Wish) -> Vec<usize> {
    let mut without = wish.without.clone();
    for fault in (0..plan::MOST_FAULTS).filter(|fault| !wish.without.contains(fault)) {
        let fewer = Wish { without: [&without[..], &[fault]].concat(), ..wish.clone() };
        let mut one = Running::start(fewer);
        let account = loop {
            if let Some(account) = one.ended() {
                break account;
            }
            sleep(Duration::from_millis(100));
        };
        if !account.broken.is_empty() {
            without.push(fault);
        }
    }
    without
}

/// Copies traces and logs.
fn keep(base: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a directory");
    for entry in fs::read_dir(base).expect("list a directory").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.join("log").exists() {
            let _as_far_as_it_goes = fs::copy(path.join("log"), to.join(format!("{name}.log")));
        }
        if ["trace", "output", "account"].contains(&&*name) || name.ends_with(".db") {
            let _as_far_as_it_goes = fs::copy(&path, to.join(&*name));
        }
    }
}

/// All histories together.
#[derive(Default)]
struct Total {
    histories: u64,
    account: Account,
    failed: Vec<u64>,
}

impl Total {
    fn add(&mut self, seed: u64, one: &Account) {
        let sum = &mut self.account;
        self.histories += 1;
        sum.cycles += one.cycles;
        sum.operations += one.operations;
        sum.acknowledged += one.acknowledged;
        sum.samples += one.samples;
        for (kind, count) in &one.faults {
            *sum.faults.entry(kind.clone()).or_default() += count;
        }
        sum.broken.extend(one.broken.iter().cloned());
        self.failed.extend((!one.broken.is_empty()).then_some(seed));
    }

    fn print(&self) {
        let Account { cycles, operations, acknowledged, samples, faults, broken } = &self.account;
        let injected: u64 = faults.values().sum();
        println!(
            "{} histories, {cycles} cycles, {operations} operations ({acknowledged} acknowledged), \
             {injected} faults, {samples} looks at status, {} violations in {} histories",
            self.histories,
            broken.len(),
            self.failed.len()
        );
        let faults: Vec<_> = faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        println!("faults: {}", faults.join(", "));
        let mut areas: BTreeMap<&str, usize> = BTreeMap::new();
        for what in broken {
            *areas.entry(what.split(':').next().unwrap_or(what)).or_default() += 1;
        }
        println!("violations: {areas:?}");
    }
}

/// The seeds to run, each with its cycles: fixed ones, or as many as there is time for.
fn seeds() -> Box<dyn Iterator<Item = (u64, u64)>> {
    let first = run::number("HISTORY_SEED");
    let with_cycles = |seed| (seed, CYCLES);
    match (run::number("HISTORY_SEEDS"), run::number("HISTORY_SECONDS")) {
        (Some(count), _) => {
            let first = first.unwrap_or(1);
            Box::new((first..first + count).map(with_cycles))
        }
        (None, Some(seconds)) => {
            let until = clock::monotonic() + Duration::from_secs(seconds);
            let seeds = first.unwrap_or_else(|| clock::wall_ms() / 1000)..;
            Box::new(seeds.take_while(move |_| clock::monotonic() < until).map(with_cycles))
        }
        (None, None) => Box::new(FIXED_SEEDS.into_iter()),
    }
}

/// holds R3, R4, R5, R6, R7, R8, S1, S2, S4, K2, K6, E3
#[test]
fn what_was_acknowledged_holds_whatever_fails() {
    let is_fixed = ["HISTORY_SEEDS", "HISTORY_SECONDS"].iter().all(|n| run::number(n).is_none());
    let cycle_ms = if is_fixed { FIXED_CYCLE_MS } else { CYCLE_MS };
    let cycle_ms = run::number("HISTORY_CYCLE_MS").unwrap_or(cycle_ms);
    let cycles_of = |fixed| run::number("HISTORY_CYCLES").unwrap_or(fixed);
    let jobs = run::number("HISTORY_JOBS").unwrap_or(if is_fixed { 3 } else { 2 });
    run::left_out().iter().for_each(|what| println!("left out: {what}"));
    let mut wishes = seeds().map(|(seed, cycles)| Wish {
        seed,
        cycles: cycles_of(cycles),
        cycle_ms,
        without: run::without(),
    });
    let (mut running, mut total): (Vec<Running>, _) = (Vec::new(), Total::default());
    loop {
        while (running.len() as u64) < jobs {
            let Some(wish) = wishes.next() else { break };
            running.push(Running::start(wish));
        }
        if running.is_empty() {
            break;
        }
        running.retain_mut(|one| {
            let Some(account) = one.ended() else { return true };
            total.add(one.wish.seed, &account);
            if account.broken.is_empty() {
                println!("seed {}: {} operations, well", one.wish.seed, account.operations);
            } else {
                one.report(&account);
                if run::number("HISTORY_SHORTEN").is_some() {
                    let without = run::numbers(&shorten(&one.wish));
                    println!("  it fails without these too: HISTORY_WITHOUT={without}");
                }
            }
            false
        });
        sleep(Duration::from_millis(100));
    }
    total.print();
    assert!(total.account.acknowledged > total.account.cycles * 100, "that is no load");
    assert!(total.failed.is_empty(), "violations with the seeds {:?}", total.failed);
}

/// Nothing by itself: the process of a history is this test of this program.
#[test]
fn a_worker_runs_the_history_that_it_is_told() {
    run::run_if_told();
}
