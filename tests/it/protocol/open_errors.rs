//! Data directories that cannot be served: each gets a message that names the path and what to do, and stays as it is.
//! Damage within the database costs what it touches and nothing else. Disks that fail are `disk_faults`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use rmpv::Value;
use rusqlite::Connection;
use tempfile::TempDir;

use daemon::{Daemon, Guarded, bare, copy_daemon, directory, output_of};
use rpc::{Rpc, map, packed, put_raw};

use crate::support::{daemon, rpc};

/// The user "nobody" of most systems; anybody but root will do.
const NOBODY: u32 = 65534;

/// Bytes of a page of the database.
const PAGE: usize = 4096;

/// A place for a daemon, and what runs it there: as an unprivileged user in any case, for root
/// may read and write everything.
struct Place {
    directory: TempDir,
    program: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = directory();
        let program = directory.path().join("cortexd");
        copy_daemon(&program);
        set_mode(directory.path(), 0o755);
        Self { directory, program }
    }

    /// The same with a database in its data directory, orderly left behind.
    fn with_database() -> Self {
        let mut daemon = Daemon::start();
        daemon.connect().create("things");
        assert!(daemon.stop().success());
        let place = Self::new();
        copy_dir(&daemon.data_dir(), &place.data());
        place
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn database(&self) -> PathBuf {
        self.data().join("cortex.db")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.data().join(name)
    }

    /// Starts the daemon as an unprivileged user who owns everything in the place; it must refuse
    /// to serve, and say all of that.
    fn check(&self, says: &[&str]) {
        self.check_ends_with(1, says);
    }

    fn check_ends_with(&self, status: i32, says: &[&str]) {
        let mut command = bare(&self.program);
        command.arg("--socket").arg(self.directory.path().join("cortex.sock"));
        command.arg("--data-dir").arg(self.data());
        if nix::unistd::geteuid().is_root() {
            give_away(self.directory.path());
            command.uid(NOBODY).gid(NOBODY);
        }
        let before = hashes(&self.data());
        let output = output_of(&mut command);
        let told = String::from_utf8(output.stderr).expect("messages are UTF-8");
        assert_eq!(output.status.code(), Some(status), "{told}");
        for text in says {
            assert!(told.contains(text), "{text:?} is not in {told:?}");
        }
        assert_eq!(hashes(&self.data()), before, "everything is as it was");
    }
}

/// Gives a tree to nobody, without looking into what may not be looked into.
fn give_away(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("give it away");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("list it") {
            give_away(&entry.expect("an entry").path());
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("change its mode");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).expect("make a directory");
    for entry in fs::read_dir(from).expect("list it") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copy a file");
    }
}

/// The contents of every file of a directory. What cannot be read by the test has none.
fn hashes(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let Ok(entries) = fs::read_dir(dir) else {
        return BTreeMap::new();
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.map(|path| (path.clone(), fs::read(&path).ok())).collect()
}

/// holds V1
#[test]
fn a_missing_data_directory_is_made_and_closed_to_others() {
    let place = Place::new();
    let data = place.directory.path().join("a/b/data");
    let socket = place.directory.path().join("cortex.sock");
    let mut command = bare(&place.program);
    command.arg("--socket").arg(&socket).arg("--data-dir").arg(&data);
    let _process = Guarded(command.spawn().expect("start the daemon"));
    daemon::wait_until("it answers", || Rpc::try_connect(&socket).is_ok());
    for made in [&data, data.parent().expect("a parent")] {
        let mode = fs::metadata(made).expect("it was made").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", made.display());
    }
}

#[test]
fn a_directory_that_is_somebody_elses_is_named() {
    let place = Place::new();
    fs::create_dir(place.data()).expect("make a directory");
    set_mode(&place.data(), 0o000);
    let named = place.data().display().to_string();
    place.check(&[&named, "Permission denied", "--data-dir", "give it to uid"]);
    set_mode(&place.data(), 0o700);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let place = Place::new();
    fs::write(place.data(), "in the way").expect("write a file");
    place.check(&[&place.data().display().to_string(), "File exists", "--data-dir"]);
}

#[test]
fn a_directory_that_may_not_be_written_is_named() {
    let place = Place::with_database();
    set_mode(&place.data(), 0o555);
    place.check(&[&place.database().display().to_string(), "directory", "writable"]);
    set_mode(&place.data(), 0o700);
}

#[test]
fn a_database_that_may_not_be_written_is_named() {
    let place = Place::with_database();
    set_mode(&place.database(), 0o444);
    place.check(&[&place.database().display().to_string(), "Permission denied", "read and write"]);
}

#[test]
fn a_log_that_may_not_be_written_is_named() {
    let place = Place::with_database();
    let log = place.file("cortex.db-wal");
    fs::write(&log, "something").expect("write a file");
    set_mode(&log, 0o400);
    place.check(&[&log.display().to_string(), "Permission denied", "read and write"]);
}

#[test]
fn what_is_no_database_is_left_alone() {
    for text in
        ["short", &"a longer text, as of an editor that saved to the wrong name\n".repeat(9)]
    {
        let place = Place::with_database();
        fs::write(place.database(), text).expect("write a file");
        let named = place.database().display().to_string();
        place.check(&[&named, "no database of cortexd", "move it away", "--data-dir"]);
    }
}

/// Another start would not help, which is what the unit is told by the status.
#[test]
fn a_directory_of_the_original_daemon_or_of_somebody_else_is_no_empty_store() {
    for (below, file, told) in [
        (
            "mnesia",
            "1000:users.DCD",
            &["original cortexd (v1)", "mnesia/1000:users.DCD", "cortex-migrate(7)"][..],
        ),
        ("", "schema.DAT", &["original cortexd (v1)", "schema.DAT"]),
        ("", "accounts.db", &["has no cortex.db", "accounts.db", "--data-dir"]),
    ] {
        let place = Place::new();
        let dir = place.data().join(below);
        fs::create_dir_all(&dir).expect("make it");
        fs::write(dir.join(file), "rows").expect("write a file");
        place.check_ends_with(78, told);
    }
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let place = Place::with_database();
    fs::remove_file(place.database()).expect("make room");
    let other = Connection::open(place.database()).expect("open");
    other
        .execute_batch("PRAGMA application_id = 7; CREATE TABLE bookmarks(url TEXT)")
        .expect("make a table");
    drop(other);
    let named = place.database().display().to_string();
    place.check(&[&named, "no database of cortexd", "move it away", "--data-dir"]);
}

#[test]
fn a_damaged_header_is_told_with_what_to_do() {
    let place = Place::with_database();
    let mut bytes = fs::read(place.database()).expect("read it");
    bytes[16..24].fill(0xff); // the size of a page, and what must stand behind it
    fs::write(place.database(), bytes).expect("write it back");
    place.check(&[&place.database().display().to_string(), "damaged", "restore a backup"]);
}

/// holds E4
#[test]
fn a_newer_schema_is_refused_untouched() {
    let place = Place::with_database();
    let newer = Connection::open(place.database()).expect("open");
    newer.pragma_update(None, "user_version", 4711).expect("claim another schema");
    drop(newer);
    let named = place.database().display().to_string();
    place.check(&[&named, "4711", "install the newer cortexd"]);
}

/// The newer version crashed before its migration got from the log into the database.
///
/// holds E4
#[test]
fn a_newer_schema_that_is_only_in_the_log_is_refused_untouched() {
    let place = Place::with_database();
    let newer = Connection::open(place.database()).expect("open");
    newer.pragma_update(None, "user_version", 4711).expect("claim another schema");
    let crashed = Place::new();
    fs::create_dir(crashed.data()).expect("make a directory");
    for file in ["cortexd.lock", "cortex.db", "cortex.db-wal"] {
        fs::copy(place.file(file), crashed.file(file)).expect("copy a file");
    }
    drop(newer);
    let named = crashed.database().display().to_string();
    crashed.check(&[&named, "4711", "install the newer cortexd"]);
}

/// SQLite deletes the log of a database that is empty.
#[test]
fn a_log_without_its_database_is_not_thrown_away() {
    let place = Place::with_database();
    let db = Connection::open(place.database()).expect("open");
    db.execute_batch("PRAGMA user_version = 1").expect("write something");
    let orphaned = Place::new();
    fs::create_dir(orphaned.data()).expect("make a directory");
    fs::copy(place.file("cortexd.lock"), orphaned.file("cortexd.lock")).expect("copy a file");
    let log = orphaned.file("cortex.db-wal");
    fs::copy(place.file("cortex.db-wal"), &log).expect("copy a file");
    drop(db);
    let (log, database) = (log.display().to_string(), orphaned.database().display().to_string());
    let says: [&str; 4] = [&log, &database, "missing or empty", "move the log away"];
    orphaned.check(&says);
    fs::write(orphaned.database(), "").expect("make a file");
    orphaned.check(&says);
}

#[test]
fn a_directory_in_use_is_named() {
    let daemon = Daemon::start();
    let mut second = bare(env!("CARGO_BIN_EXE_cortexd"));
    second.arg("--socket").arg(daemon.directory().join("other.sock"));
    second.arg("--data-dir").arg(daemon.data_dir());
    let output = output_of(&mut second);
    let told = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert_eq!(output.status.code(), Some(1), "{told}");
    for text in [&*daemon.data_dir().display().to_string(), "in use", "--data-dir"] {
        assert!(told.contains(text), "{text:?} is not in {told:?}");
    }
}

/// A page in the middle of the database is damaged: what it held is lost to reads and writes, and
/// everything else is served, also what is written in the same breath.
#[test]
fn a_damaged_page_costs_what_is_on_it_and_nothing_else() {
    const RECORDS: u64 = 60;
    const DAMAGED: u64 = 30;
    let mut daemon = Daemon::start();
    let mut rpc = daemon.connect();
    rpc.create("things");
    let puts: Vec<_> = (0..RECORDS).map(|n| put_raw(n, "things", &record(n, b'a'))).collect();
    assert!(rpc.pipeline(&puts).iter().all(|response| response.outcome.is_ok()));
    assert!(daemon.stop().success());
    damage_page_with(&daemon.data_dir().join("cortex.db"), &marker(DAMAGED));

    daemon.restart();
    let mut rpc = daemon.connect();
    for n in 0..RECORDS {
        let got = rpc.call("get", &["things".into(), n.into()]);
        let expected = if n == DAMAGED { Err("storage_error".to_owned()) } else { Ok(()) };
        assert_eq!(got.map(|_record| ()), expected, "record {n}");
    }
    assert_eq!(rpc.call("all", &["things".into()]), Err("storage_error".into()));
    let puts: Vec<_> = (0..RECORDS).map(|n| put_raw(n, "things", &record(n, b'b'))).collect();
    for response in rpc.pipeline(&puts) {
        let expected = if response.id == DAMAGED { Err("storage_error") } else { Ok("ok".into()) };
        assert_eq!(response.outcome, expected.map_err(str::to_owned), "record {}", response.id);
    }
    rpc.create("others");
    let table = format!("{}:things", nix::unistd::geteuid());
    for line in ["a table could not be read", "a transaction failed"] {
        let log = daemon.log();
        let told = log.lines().find(|told| told.contains(line)).unwrap_or_default();
        assert!(told.contains("damaged") && told.contains(&table), "{line} is not in {log}");
    }
}

/// A record that has a page to itself, with a text by which to find it.
fn record(n: u64, fill: u8) -> Vec<u8> {
    let padding = vec![fill; 3_000];
    packed(&map([
        ("id", n.into()),
        ("marker", marker(n).into()),
        ("padding", Value::Binary(padding)),
    ]))
}

fn marker(n: u64) -> String {
    format!("<record {n}>")
}

fn damage_page_with(database: &Path, text: &str) {
    let mut bytes = fs::read(database).expect("read it");
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes());
    let page = at.expect("the text is there") / PAGE * PAGE;
    bytes[page..page + 8].fill(0xff); // the kind of page, and where its cells are
    fs::write(database, bytes).expect("write it back");
}
