//! One history in a process of its own: a mesh from its start to its end, and the account of it.
//!
//! As root the process is nobody's, so that no daemon has more rights than a user's. Where the kernel lets users have
//! namespaces, each node's disk is a small file system of its own, and the network is that process's alone.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{getpgrp, getppid};
use serde_json::{Value, json};

use crate::daemon::{bare, copy_daemon};
use crate::shared::People;
use crate::world::{Frame, World};

/// Names the directory of the history to the process that runs it.
const BASE: &str = "HISTORY_BASE";

/// The test that is the process when it finds that it was called as one.
const WORKER: &str = "a_worker_runs_the_history_that_it_is_told";

/// The user that root becomes.
const NOBODY: u32 = 65_534;

/// Bytes of a node's disk. Its database has a few.
const DISK: &str = "48m";

/// Where Debian and its like have libfaketime.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
];

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) seed: u64,
    pub(crate) cycles: u64,
    pub(crate) cycle_ms: u64,
    pub(crate) without: Vec<usize>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) cycles: u64,
    pub(crate) operations: u64,
    pub(crate) acknowledged: u64,
    pub(crate) samples: u64,
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) broken: Vec<String>,
}

/// What this machine cannot do, in words.
pub(crate) fn left_out() -> Vec<&'static str> {
    let mut left_out = Vec::new();
    if faketime().is_none() {
        left_out.push("no clock is set wrong: libfaketime is not installed");
    }
    if !namespaces_work() {
        left_out.push("no disk is filled: this user may have no namespaces of the kernel");
    }
    left_out
}

fn faketime() -> Option<PathBuf> {
    FAKETIME.iter().map(PathBuf::from).find(|path| path.exists())
}

/// The program and its first arguments that put what follows into namespaces of its own.
const UNSHARE: [&str; 6] =
    ["unshare", "--user", "--map-current-user", "--mount", "--net", "--keep-caps"];

fn namespaces_work() -> bool {
    let probe = "ip link set lo up && mount -t tmpfs -o size=64k none /mnt";
    let mut command = bare(UNSHARE[0]);
    command.args(&UNSHARE[1..]).args(["sh", "-c", probe]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    as_nobody(&mut command);
    command.status().is_ok_and(|status| status.success())
}

fn as_nobody(command: &mut Command) {
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

/// Starts the process of a history in this directory.
pub(crate) fn start(base: &Path, wish: &Wish) -> Child {
    let program = base.join("cortexd");
    copy_daemon(&program);
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(base, Some(NOBODY), Some(NOBODY)).expect("give it away");
    }
    let output = fs::File::create(base.join("output")).expect("make a file");
    let test = env::current_exe().expect("the path of this program");
    let worker = base.join("worker");
    fs::hard_link(&test, &worker).or_else(|_| fs::copy(&test, &worker).map(|_| ())).expect("copy");
    let mut command = if namespaces_work() {
        let mut command = bare(UNSHARE[0]);
        let disks: String = crate::world::NAMES
            .iter()
            .map(|name| {
                let disk = base.join(name).join("disk");
                let disk = disk.display();
                format!("mkdir -p {disk} && mount -t tmpfs -o size={DISK} none {disk} && ")
            })
            .collect();
        let script = format!(
            "ip link set lo up && mount -t tmpfs none /dev/shm && {disks} exec \"$0\" \"$@\""
        );
        command.args(&UNSHARE[1..]).args(["sh", "-c", &script]).arg(&worker);
        command.env("HISTORY_DISKS", "1");
        command
    } else {
        bare(&worker)
    };
    command.args(["--exact", WORKER, "--nocapture", "--test-threads=1"]);
    command.env(BASE, base).env("TMPDIR", base).current_dir(base);
    command.env("HISTORY_SEED", wish.seed.to_string());
    command.env("HISTORY_CYCLES", wish.cycles.to_string());
    command.env("HISTORY_CYCLE_MS", wish.cycle_ms.to_string());
    command.env("HISTORY_WITHOUT", numbers(&wish.without));
    command.stdout(output.try_clone().expect("a second handle")).stderr(output);
    as_nobody(&mut command);
    // One group, so that nothing is left when it is ended.
    command.process_group(0).spawn().expect("start the process of a history")
}

pub(crate) fn numbers(all: &[usize]) -> String {
    all.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

pub(crate) fn without() -> Vec<usize> {
    let text = env::var("HISTORY_WITHOUT").unwrap_or_default();
    let numbers = text.split(',').filter(|one| !one.is_empty());
    numbers.map(|one| one.parse().expect("HISTORY_WITHOUT is a list of numbers")).collect()
}

/// The process of a history, if this is one.
pub(crate) fn run_if_told() {
    let Some(base) = env::var_os(BASE) else { return };
    let base = PathBuf::from(base);
    end_with_parent(base.clone());
    let frame = Frame {
        seed: number("HISTORY_SEED").expect("a seed"),
        program: base.join("cortexd"),
        faketime: faketime(),
        can_fill_disks: env::var_os("HISTORY_DISKS") == Some(OsString::from("1")),
        cycle_ms: number("HISTORY_CYCLE_MS").expect("a length"),
        without: without(),
        base: base.clone(),
    };
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let login = user.expect("identities need a user with a login name").name;
    let people = People {
        ann: format!("{login}.ann"),
        bob: format!("{login}.bob"),
        uid: uid.as_raw(),
        of_bob: std::iter::empty().collect(),
    };
    let mut world = World::new(frame, people);
    let mut cycles = 0;
    for number in 0..number("HISTORY_CYCLES").expect("how many cycles") {
        if number > 0 {
            world.between_cycles();
        }
        world.run_cycle(number);
        cycles += 1;
        let is_well = world.rest();
        fs::write(base.join("account"), account(&world, cycles).to_string()).expect("write");
        if !is_well {
            break;
        }
    }
}

/// Ends this process and its daemons, and removes their files, when the program that started it is gone: ended by a
/// terminal's Ctrl-C it cannot do so itself.
fn end_with_parent(base: PathBuf) {
    let parent = getppid();
    thread::spawn(move || {
        while getppid() == parent {
            thread::sleep(Duration::from_millis(500));
        }
        let _partly = fs::remove_dir_all(&base);
        let _ends_this = killpg(getpgrp(), Signal::SIGKILL);
    });
}

fn account(world: &World, cycles: u64) -> Value {
    let book = world.shared.book();
    json!({
        "cycles": cycles,
        "operations": book.operations.values().sum::<u64>(),
        "acknowledged": book.acknowledged,
        "samples": world.samples,
        "faults": world.faults,
        "broken": book.broken,
    })
}

/// What the process has written down; none where it failed before the end of its first cycle.
pub(crate) fn read_account(base: &Path) -> Option<Account> {
    let account: Value = serde_json::from_slice(&fs::read(base.join("account")).ok()?).ok()?;
    let number = |name: &str| account[name].as_u64().unwrap_or(0);
    let faults = account["faults"].as_object()?.iter();
    let broken = account["broken"].as_array()?.iter().filter_map(Value::as_str);
    Some(Account {
        cycles: number("cycles"),
        operations: number("operations"),
        acknowledged: number("acknowledged"),
        samples: number("samples"),
        faults: faults.map(|(kind, count)| (kind.clone(), count.as_u64().unwrap_or(0))).collect(),
        broken: broken.map(str::to_owned).collect(),
    })
}
