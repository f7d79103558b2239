//! Disks that are really full or read-only, under the real daemon. Needs root, to mount them.
//! Faults at chosen calls are `disk_faults`; directories without permission are `open_errors`.
//!
//! `cargo test --test root disk::`, as root. Each test mounts within a mount namespace of its own
//! thread, which the daemon that it starts is born into; with both of them the mounts are gone.

use std::fs::{self, File};
use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, Output};

use nix::sched::{CloneFlags, unshare};
use rmpv::Value;

use daemon::{Daemon, bare, output_of, wait_until};
use mesh::{Authority, free_port, is_connected};
use rpc::{Rpc, field, map};

use crate::support::{daemon, mesh, rpc};

/// Room for the database, its log and what else there must be.
const DISK: &str = "size=8m,mode=700";

/// What is put aside to be freed later.
const BALLAST: usize = 2 << 20;

/// A record of so many bytes fills the disk within a few dozen.
const LARGE: usize = 100 << 10;

/// Gives this thread mounts of its own.
fn mount_apart() {
    assert!(nix::unistd::geteuid().is_root(), "these tests mount file systems: run them as root");
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    // Or what is mounted here would be seen everywhere.
    run(Command::new("mount").args(["--make-rprivate", "/"]));
}

fn run(command: &mut Command) {
    let status = command.status().expect("run mount");
    assert!(status.success(), "{command:?}");
}

/// A daemon whose data directory is a small disk, not started yet.
struct OnASmallDisk(Daemon);

impl OnASmallDisk {
    fn new() -> Self {
        Self::with(DISK)
    }

    fn with(options: &str) -> Self {
        mount_apart();
        let mut daemon = Daemon::start();
        assert!(daemon.stop().success());
        let data = daemon.data_dir();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&data));
        Self(daemon)
    }
}

impl Drop for OnASmallDisk {
    /// A directory with a disk on it cannot be removed.
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.0.data_dir()));
    }
}

impl Deref for OnASmallDisk {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.0
    }
}

impl DerefMut for OnASmallDisk {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.0
    }
}

fn put(rpc: &mut Rpc, key: &str, bytes: usize) -> Result<Value, String> {
    put_filled(rpc, key, bytes, 0)
}

/// SQLite writes no page that stays as it is, so a change needs other bytes.
fn put_filled(rpc: &mut Rpc, key: &str, bytes: usize, with: u8) -> Result<Value, String> {
    let padding = Value::Binary(vec![with; bytes]);
    rpc.call("put", &["things".into(), map([("id", key.into()), ("padding", padding)])])
}

/// Writes until the disk is full; the keys that were acknowledged.
fn fill(rpc: &mut Rpc) -> Vec<String> {
    let mut stored = Vec::new();
    for n in 0..1_000 {
        let key = format!("{n}");
        match put(rpc, &key, LARGE) {
            Ok(_) => stored.push(key),
            Err(error) => {
                assert_eq!(error, "storage_full");
                return stored;
            }
        }
    }
    panic!("the disk is not as small as it should be");
}

/// Writes a file until there is no room left.
fn fill_by_others(path: &Path) {
    let mut file = File::create(path).expect("make a file");
    while file.write_all(&[0; 4096]).is_ok() {}
}

fn keys(rpc: &mut Rpc) -> Vec<String> {
    let keys = rpc.call("keys", &["things".into()]).expect("a list");
    let keys = keys.as_array().expect("a list").iter();
    keys.map(|key| key.as_str().expect("text").to_owned()).collect()
}

fn start_in_vain(daemon: &Daemon) -> Output {
    let mut command = bare(env!("CARGO_BIN_EXE_cortexd"));
    command.arg("--socket").arg(daemon.socket()).arg("--data-dir").arg(daemon.data_dir());
    output_of(&mut command)
}

/// It must have refused to serve, naming the path and the way out.
fn check_refusal(output: &Output, says: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for text in says {
        assert!(told.contains(text), "{text:?} is not in {told:?}");
    }
}

/// No line of an import is to blame for a full disk.
fn check_import(daemon: &Daemon) {
    let file = daemon.directory().join("more.ndjson");
    let line = format!("{{\"id\":\"imported\",\"v\":\"{}\"}}\n", "x".repeat(LARGE));
    fs::write(&file, line).expect("write the lines");
    let imported = daemon.cortex(&["import", "things", &file.display().to_string()]);
    let told = String::from_utf8_lossy(&imported.stderr);
    assert!(told.contains("error: storage_full at line 1; 0 stored"), "{told}");
    assert!(told.contains("hint: Make room on the disk of the daemon"), "{told}");
    assert!(!told.contains("Mend the line"), "{told}");
}

/// How a daemon sees the replica on another node: its state, why, and what explain advises.
fn replica(daemon: &Daemon, table: &str, node: &str) -> [String; 3] {
    let status = daemon.connect().call("sync_status_table", &[table.into()]).expect("a state");
    let nodes = field(&status, "nodes").and_then(Value::as_array).expect("an array").iter();
    let found = nodes.into_iter().find(|replica| field(replica, "node") == Some(&node.into()));
    let options = map([("node", node.into())]);
    let advice = daemon.connect().call("explain", &[table.into(), options]).expect("an answer");
    let text = |value: &Value, name: &str| {
        field(value, name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let found = found.unwrap_or(&Value::Nil);
    [text(found, "state"), text(found, "why"), text(&advice, "do")]
}

/// Both machines say for as long as it lasts which disk is full, and neither that rows are on their way.
///
/// holds R5, E3
#[test]
fn a_node_whose_disk_is_full_is_named_on_both_sides_until_it_has_room() {
    const FULL: &str = "storage; the disk of office is full, or fails: there, cortex doctor";
    let ca = Authority::new();
    ca.issue("home");
    ca.issue("office");
    let ports = [free_port(), free_port()];
    let nodes = [("home", ports[0]), ("office", ports[1])];
    let mut office = OnASmallDisk::new();
    office.write_config(&ca.settings("office", ports[1], &nodes));
    office.restart();
    let home = Daemon::with_config(&ca.settings("home", ports[0], &nodes));
    wait_until("both see each other", || {
        is_connected(&home, "office") && is_connected(&office, "home")
    });
    let mut rpc = home.connect();
    let things = [Value::from("things"), Value::Array(vec!["id".into()]), "all".into()];
    rpc.call("create_table", &things).expect("created");
    rpc.call("acl_grant", &["*".into(), "things".into(), "read".into()]).expect("granted");
    let there = "0@home:things";
    wait_until("office has a replica", || replica(&home, "things", "office")[0] == "in_sync");
    for n in 0..120 {
        put(&mut rpc, &n.to_string(), LARGE).expect("home has room");
    }
    let said = || {
        let [_, by_home, advice] = replica(&home, "things", "office");
        let [_, by_office, advice_there] = replica(&office, there, "home");
        (by_home, by_office, [advice, advice_there])
    };
    let is_said = |(by_home, by_office, advice): &(String, String, [String; 2])| {
        *by_home == format!("it does not take rows: {FULL}")
            && *by_office == format!("its rows are not taken: {FULL}")
            && advice.iter().all(|advice| advice.contains("the disk of office is full"))
    };
    wait_until("both say so", || is_said(&said()));
    for _ in 0..20 {
        let now = said();
        assert!(is_said(&now), "as long as it lasts: {now:?}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let doctor = home.cortex(&["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("replicas-blocked") && doctor.contains(FULL), "{doctor}");

    run(Command::new("mount").args(["-o", "remount,size=64m"]).arg(office.data_dir()));
    wait_until("all of it is there", || replica(&home, "things", "office")[0] == "in_sync");
    assert_eq!(replica(&office, there, "home")[0], "in_sync");
}

/// Writes are refused, reads go on; once there is room, writes go on; and nothing that was
/// acknowledged is lost, in a crash neither.
///
/// holds E3
#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let mut daemon = OnASmallDisk::new();
    let ballast = daemon.data_dir().join("ballast.log");
    fs::write(&ballast, vec![1; BALLAST]).expect("write the ballast");
    daemon.restart();
    let mut rpc = daemon.connect();
    rpc.create("things");
    let mut stored = fill(&mut rpc);
    assert!(stored.len() > 10, "{} records", stored.len());

    for key in &stored {
        let record = rpc.call("get", &["things".into(), key.as_str().into()]).expect("a record");
        assert_eq!(field(&record, "id"), Some(&key.as_str().into()));
    }
    let count = stored.len() as u64;
    let info = rpc.call("table_info", &["things".into()]).expect("an answer");
    assert_eq!(field(&info, "records"), Some(&count.into()));
    assert_eq!(
        rpc.call("all", &["things".into()]).expect("a list").as_array().map(Vec::len),
        Some(stored.len())
    );
    assert_eq!(put(&mut rpc, "once more", LARGE), Err("storage_full".into()));
    daemon.wait_for_log("no space left");
    check_import(&daemon);

    fs::remove_file(&ballast).expect("free some space");
    put(&mut rpc, "later", LARGE).expect("there is room");
    stored.push("later".into());
    let first = stored.remove(0);
    assert_eq!(rpc.call("delete", &["things".into(), first.into()]), Ok("ok".into()));
    daemon.kill();

    daemon.restart();
    stored.sort_unstable();
    assert_eq!(keys(&mut daemon.connect()), stored);
    assert!(daemon.stop().success());
}

/// What is changed over and over needs no more room than the log has: on a full disk it starts again
/// from its beginning.
///
/// holds E3
#[test]
fn a_full_disk_still_takes_changes_in_the_room_that_the_log_has() {
    const RECORDS: usize = 10;
    let mut daemon = OnASmallDisk::new();
    daemon.restart();
    let mut rpc = daemon.connect();
    rpc.create("things");
    for n in 0..2 * RECORDS {
        // The second time, the database gets the pages that a change needs besides the old ones.
        put_filled(&mut rpc, &(n % RECORDS).to_string(), LARGE, u8::from(n >= RECORDS))
            .expect("there is room");
    }
    assert!(daemon.stop().success()); // moves everything into the database
    daemon.restart();
    let more = daemon.data_dir().join("more.log");
    fill_by_others(&more);
    let length = fs::metadata(&more).expect("it is there").len();
    let file = File::options().write(true).open(&more).expect("open it");
    file.set_len(length - 8 * LARGE as u64).expect("leave some room");

    let mut rpc = daemon.connect();
    for n in 2..50 {
        let key = (usize::from(n) % RECORDS).to_string();
        put_filled(&mut rpc, &key, LARGE, n).expect("the log starts again");
    }
    let left = nix::sys::statvfs::statvfs(&daemon.data_dir()).expect("the disk");
    let left = left.blocks_available() * left.fragment_size();
    assert!(left < LARGE as u64, "the disk was full: {left} bytes are left");
    assert!(daemon.stop().success());
}

/// holds E3
#[test]
fn a_disk_that_was_filled_by_others_is_told_at_the_start() {
    let mut daemon = OnASmallDisk::new();
    daemon.restart();
    let mut rpc = daemon.connect();
    rpc.create("things");
    put(&mut rpc, "a", LARGE).expect("there is room");
    daemon.kill();

    let ballast = daemon.data_dir().join("ballast.log");
    fill_by_others(&ballast);
    // Without what is kept back: the start would use it.
    fs::remove_file(daemon.data_dir().join("cortex.reserve")).expect("room was kept back");
    // What is shared in memory is made anew with each start, and takes room.
    let _gone = fs::remove_file(daemon.data_dir().join("cortex.db-shm"));
    fill_by_others(&daemon.data_dir().join("more.log"));
    let database = daemon.data_dir().join("cortex.db");
    check_refusal(&start_in_vain(&daemon), &[&database.display().to_string(), "space"]);

    fs::remove_file(&ballast).expect("free some space");
    daemon.restart();
    assert_eq!(keys(&mut daemon.connect()), ["a"]);
    assert!(daemon.stop().success());
}

/// Deleting, dropping and what else frees room goes on where nothing else can be written, after a restart
/// too, and then there is room again for everything.
///
/// holds E3
#[test]
fn a_full_disk_can_be_emptied_from_inside() {
    let mut daemon = OnASmallDisk::with("size=32m,mode=700");
    daemon.restart();
    let mut rpc = daemon.connect();
    rpc.create("things");
    rpc.create("others");
    let stored = fill(&mut rpc);
    let more = daemon.data_dir().join("more.log");
    fill_by_others(&more); // what a file system had left for smaller writes
    for restarted in [false, true] {
        if restarted {
            daemon.kill();
            fill_by_others(&daemon.data_dir().join("and-more.log"));
            daemon.restart();
            rpc = daemon.connect();
        }
        // Once some rows are deleted there may be room for others again.
        let full = put(&mut rpc, "another", LARGE).is_err();
        assert!(full || restarted, "the disk is full");
        for key in stored.iter().skip(usize::from(restarted)).step_by(2).take(20) {
            let deleted = rpc.call("delete", &["things".into(), key.as_str().into()]);
            assert_eq!(deleted, Ok("ok".into()), "restarted: {restarted}");
        }
    }
    assert_eq!(rpc.call("drop_table", &["others".into()]), Ok("dropped".into()));
    assert_eq!(rpc.call("checkpoint", &[]), Ok("ok".into()));
    assert_eq!(rpc.call("drop_table", &["things".into()]), Ok("dropped".into()));
    fs::remove_file(&more).expect("free what others took");
    let _gone = fs::remove_file(daemon.data_dir().join("and-more.log"));
    wait_until("there is room for new tables", || {
        let attributes = Value::Array(vec!["id".into()]);
        rpc.call("create_table", &["new".into(), attributes]).is_ok()
    });
    wait_until("there is room for new records", || {
        let record = map([("id", 1.into()), ("padding", Value::Binary(vec![1; LARGE]))]);
        rpc.call("put", &["new".into(), record]) == Ok("ok".into())
    });
    assert!(daemon.data_dir().join("cortex.reserve").exists(), "and some is kept back again");
    assert!(daemon.stop().success());
}

/// holds E3
#[test]
fn a_read_only_disk_is_told_at_the_start() {
    let mut daemon = OnASmallDisk::new();
    daemon.restart();
    daemon.connect().create("things");
    assert!(daemon.stop().success());
    let data = daemon.data_dir();
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(&data));
    let named = data.display().to_string();
    check_refusal(&start_in_vain(&daemon), &[&named, "Read-only file system"]);

    run(Command::new("mount").args(["-o", "remount,rw"]).arg(&data));
    daemon.restart();
    assert_eq!(keys(&mut daemon.connect()), Vec::<String>::new());
    assert!(daemon.stop().success());
}
