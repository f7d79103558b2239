//! How a daemon starts, is told where things are, reloads and ends.
//! Leaves what a service manager sees of it to `service_manager`, and crashes of the machine to the store's tests.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::scope;

use daemon::{Daemon, Guarded, cortex, cortexd, directory, output_of, wait_until};
use nix::sys::signal::Signal;
use rmpv::Value;
use rpc::{Rpc, list, map, request};

use crate::support::{daemon, rpc};

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are UTF-8")
}

/// The exit status where the settings are wrong, which the unit is told of.
const WRONG_SETTINGS: i32 = 78;

/// Runs a daemon that must refuse to start, and answers what it says.
fn refused(command: &mut Command) -> String {
    refused_with(1, command)
}

fn refused_with(status: i32, command: &mut Command) -> String {
    let output = output_of(command);
    assert_eq!(output.status.code(), Some(status), "{}", stderr(&output));
    let message = stderr(&output);
    assert_eq!(message.matches("error: ").count(), 1, "{message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

fn at(command: &mut Command, socket: &Path, data: &Path) {
    command.arg("--socket").arg(socket).arg("--data-dir").arg(data);
}

fn put(rpc: &mut Rpc, id: u64) {
    let record = map([("id", id.into())]);
    assert_eq!(rpc.call("put", &["t".into(), record]), Ok("ok".into()));
}

// The socket.

/// holds V1
#[test]
fn everybody_may_connect_and_nobody_may_look_at_the_data() {
    let daemon = Daemon::start();
    let mode =
        |path: PathBuf| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(daemon.socket()), 0o666);
    assert_eq!(mode(daemon.data_dir()), 0o700);
    for entry in fs::read_dir(daemon.data_dir()).expect("list the data") {
        let path = entry.expect("an entry").path();
        assert_eq!(mode(path.clone()), 0o600, "{}", path.display());
    }
    let beside = fs::read_dir(daemon.directory()).expect("list the directory").count();
    assert_eq!(beside, 4, "the socket, the data, and the configuration and the log of this test");
}

/// holds V1
#[test]
fn the_sockets_directory_is_made_and_is_open_to_all() {
    let directory = directory();
    let socket = directory.path().join("a/b/cortex.sock");
    let mut command = cortexd();
    at(&mut command, &socket, &directory.path().join("data"));
    let _process = spawned(&mut command, &socket);
    let mode =
        fs::metadata(directory.path().join("a/b")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

/// Starts a daemon and waits until it answers at `socket`.
fn spawned(command: &mut Command, socket: &Path) -> Guarded {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let process = Guarded(command.spawn().expect("start the daemon"));
    wait_until(&format!("a daemon answers on {}", socket.display()), || {
        Rpc::try_connect(socket).is_ok_and(|mut rpc| rpc.call("ping", &[]).is_ok())
    });
    process
}

#[test]
fn a_socket_that_a_crash_left_behind_is_replaced() {
    let mut daemon = Daemon::start();
    daemon.connect().create("t");
    put(&mut daemon.connect(), 1);
    daemon.kill();
    assert!(fs::metadata(daemon.socket()).expect("it is left").file_type().is_socket());
    daemon.restart();
    let got = daemon.connect().call("get", &["t".into(), 1.into()]);
    assert_eq!(got, Ok(map([("id", 1.into())])), "what was answered is there");
}

#[test]
fn a_socket_that_somebody_serves_is_refused_and_goes_on() {
    let daemon = Daemon::start();
    let mut command = cortexd();
    at(&mut command, &daemon.socket(), &daemon.directory().join("other"));
    let message = refused(&mut command);
    assert!(message.contains("another daemon already listens on "), "{message}");
    assert!(message.contains(&daemon.socket().display().to_string()), "{message}");
    assert_eq!(daemon.connect().call("ping", &[]), Ok("pong".into()));
    assert!(!daemon.directory().join("other").exists(), "nothing was made");
}

#[test]
fn a_data_directory_in_use_is_refused_and_its_daemon_goes_on() {
    let daemon = Daemon::start();
    let socket = daemon.directory().join("other.sock");
    let mut command = cortexd();
    at(&mut command, &socket, &daemon.data_dir());
    let message = refused(&mut command);
    assert!(message.contains("is in use by another cortexd"), "{message}");
    assert!(message.contains(&daemon.data_dir().display().to_string()), "{message}");
    assert!(fs::symlink_metadata(&socket).is_err(), "its socket does not stay behind");
    daemon.connect().create("t");
    put(&mut daemon.connect(), 1);
}

#[test]
fn what_is_no_socket_is_refused_and_left_alone() {
    let directory = directory();
    let (file, folder) = (directory.path().join("file"), directory.path().join("folder"));
    fs::write(&file, "precious").expect("write");
    fs::create_dir(&folder).expect("make a directory");
    for path in [&file, &folder] {
        let mut command = cortexd();
        at(&mut command, path, &directory.path().join("data"));
        let message = refused(&mut command);
        assert!(message.contains("is there and is no socket"), "{message}");
        assert!(message.contains(&path.display().to_string()), "{message}");
    }
    assert_eq!(fs::read_to_string(&file).expect("read"), "precious");
    assert!(folder.is_dir());
}

#[test]
fn what_cannot_be_used_is_refused_by_its_name() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "").expect("write");
    let data = directory.path().join("data");
    let long = directory.path().join("s".repeat(120));
    for (socket, data, named) in [
        (&directory.path().join("s"), &file.join("data"), &file.join("data")),
        (&file.join("s"), &data, &file),
        (&long, &data, &long),
    ] {
        let mut command = cortexd();
        at(&mut command, socket, data);
        let message = refused(&mut command);
        assert!(message.contains(&named.display().to_string()), "{message}");
    }
}

#[test]
fn a_file_that_is_no_database_of_ours_is_refused_and_left_alone() {
    let directory = directory();
    let data = directory.path().join("data");
    fs::create_dir(&data).expect("make a directory");
    let text = "not a database ".repeat(100);
    fs::write(data.join("cortex.db"), &text).expect("write");
    let mut command = cortexd();
    at(&mut command, &directory.path().join("s"), &data);
    let message = refused(&mut command);
    assert!(message.contains("cortex.db is no database of cortexd"), "{message}");
    assert_eq!(fs::read_to_string(data.join("cortex.db")).expect("read"), text);
}

// Where things are.

/// The places of one daemon, by how they are told.
struct Told {
    flag: bool,
    variable: bool,
    file: bool,
}

impl Told {
    /// Each way to tell, alone and together with others.
    fn all() -> impl Iterator<Item = Self> {
        (1..8).map(|bits| Self {
            flag: bits & 1 != 0,
            variable: bits & 2 != 0,
            file: bits & 4 != 0,
        })
    }

    /// The way that counts.
    fn nearest(&self) -> &'static str {
        match self {
            Self { flag: true, .. } => "flag",
            Self { variable: true, .. } => "variable",
            Self { .. } => "file",
        }
    }

    fn tell(&self, command: &mut Command, directory: &Path, is_daemon: bool) {
        let socket = |way: &str| directory.join(way).join("cortex.sock");
        let data = |way: &str| directory.join(way).join("data");
        if self.flag {
            command.arg("--socket").arg(socket("flag"));
        }
        if self.flag && is_daemon {
            command.arg("--data-dir").arg(data("flag"));
        }
        if self.variable {
            command.env("CORTEX_SOCKET", socket("variable"));
            command.env("CORTEX_DATA_DIR", data("variable"));
        }
        if self.file {
            let file = directory.join("cortex.toml");
            let text = format!("socket = {:?}\ndata_dir = {:?}\n", socket("file"), data("file"));
            fs::write(&file, text).expect("write");
            command.arg("--config").arg(file);
        }
    }
}

/// holds V1: daemon and client told alike meet at the same place.
#[test]
fn a_flag_beats_the_variable_and_the_variable_beats_the_file_for_daemon_and_client() {
    for told in Told::all() {
        let directory = directory();
        let place = directory.path().join(told.nearest());
        let mut command = cortexd();
        told.tell(&mut command, directory.path(), true);
        let _process = spawned(&mut command, &place.join("cortex.sock"));
        assert!(place.join("data/cortex.db").is_file());
        let made = fs::read_dir(directory.path()).expect("list the directory").count();
        assert_eq!(made, 1 + usize::from(told.file), "nothing is made at the other places");

        let mut client = cortex();
        told.tell(&mut client, directory.path(), false);
        let output = output_of(client.arg("ping"));
        assert_eq!(output.stdout, b"\"pong\"\n", "{}", stderr(&output));
    }
}

/// holds V1
#[test]
fn an_empty_variable_says_nothing() {
    let directory = directory();
    let told = Told { flag: false, variable: false, file: true };
    let mut command = cortexd();
    command.env("CORTEX_SOCKET", "").env("CORTEX_DATA_DIR", "");
    told.tell(&mut command, directory.path(), true);
    let _process = spawned(&mut command, &directory.path().join("file/cortex.sock"));
}

// The settings.

/// Runs `cortexd --check` over a file with this text.
fn check(text: &str) -> (PathBuf, Output) {
    let directory = directory();
    let file = directory.path().join("cortex.toml");
    fs::write(&file, text).expect("write");
    let mut command = cortexd();
    at(&mut command, &directory.path().join("s"), &directory.path().join("data"));
    let output = output_of(command.arg("--check").arg("--config").arg(&file));
    assert_eq!(fs::read_dir(directory.path()).expect("list").count(), 1, "it changes nothing");
    (file, output)
}

#[test]
fn check_prints_the_settings_and_starts_nothing() {
    let (_, output) = check("threads = 3\n[limits]\nkey_bytes = 100\n");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(printed.starts_with("the settings are valid:\n"), "{printed}");
    for line in ["  threads = 3", "  limits.key_bytes = 100", "  limits.message_bytes = 1048576"] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
}

/// Every kind of mistake, and what names it.
const MISTAKES: [(&str, &str); 15] = [
    ("threads =", "cortex.toml"),
    ("sockets = '/s'", "unknown field `sockets`"),
    ("[limits]\nconections = 4", "unknown field `conections`"),
    ("[limit]\nconnections = 4", "unknown field `limit`"),
    ("threads = 'two'", "threads"),
    ("threads = -1", "threads"),
    ("threads = 0", "cortex.toml:1: threads = 0 is not between 1 and 64"),
    ("log = 'info,=['", "cortex.toml:1: log = \"info,=[\""),
    ("\nlog = 'warnning'", "cortex.toml:2: log = \"warnning\": \"warnning\" is no log level"),
    (
        "[limits]\nmessage_bytes = 4095",
        "cortex.toml:2: limits.message_bytes = 4095 is not between 4096 and 67108864",
    ),
    ("[limits]\nnesting = 257", "limits.nesting = 257 is not between 4 and 256"),
    (
        "[limits]\nconnections = 5\nconnections_per_uid = 6",
        "limits.connections_per_uid = 6 is not between 1 and 5",
    ),
    ("[limits]\nscans = 2\nscans_per_uid = 3", "limits.scans_per_uid = 3 is not between 1 and 2"),
    ("[limits]\nidle_seconds = 0", "limits.idle_seconds = 0 is not between 1 and 31536000"),
    ("threads = 1\nthreads = 2", "duplicate key"),
];

#[test]
fn check_names_what_is_wrong() {
    for (text, named) in MISTAKES {
        let (file, output) = check(text);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(WRONG_SETTINGS), "{text:?}");
        assert!(output.stdout.is_empty());
        assert!(message.starts_with("error: "), "{message}");
        assert!(message.contains(named), "{text:?}: {message}");
        let is_of_the_file = named == "cortex.toml" || named.starts_with("unknown");
        assert!(!is_of_the_file || message.contains(&file.display().to_string()), "{message}");
    }
    let absent = output_of(cortexd().args(["--check", "--config", "/absent/cortex.toml"]));
    assert_eq!(absent.status.code(), Some(WRONG_SETTINGS));
    assert!(stderr(&absent).contains("/absent/cortex.toml"), "{}", stderr(&absent));
}

#[test]
fn a_daemon_with_wrong_settings_does_not_start() {
    for (text, named) in &MISTAKES[1..3] {
        let directory = directory();
        fs::write(directory.path().join("cortex.toml"), text).expect("write");
        let mut command = cortexd();
        at(&mut command, &directory.path().join("s"), &directory.path().join("data"));
        command.arg("--config").arg(directory.path().join("cortex.toml"));
        let message = refused_with(WRONG_SETTINGS, &mut command);
        assert!(message.contains(named), "{message}");
        assert_eq!(fs::read_dir(directory.path()).expect("list").count(), 1, "nothing is made");
    }
}

/// Puts a record with a key of so many bytes.
fn put_long_key(daemon: &Daemon, bytes: usize) -> Result<Value, String> {
    let record = map([("id", "k".repeat(bytes).into())]);
    daemon.connect().call("put", &["t".into(), record])
}

#[test]
fn a_hang_up_reads_the_settings_again_and_new_limits_hold() {
    let daemon = Daemon::with_config("[limits]\nkey_bytes = 100\nidle_seconds = 1000\n");
    let mut old = daemon.connect();
    old.create("t");
    assert_eq!(put_long_key(&daemon, 100), Ok("ok".into()));
    daemon.write_config("[limits]\nkey_bytes = 16\nnesting = 4\n");
    daemon.process().signal(Signal::SIGHUP);
    daemon.wait_for_log("the settings were read again");
    assert_eq!(put_long_key(&daemon, 17), Err("key too long: at most 16 bytes".into()));
    let deep = || ["t".into(), map([("id", 1.into()), ("v", list([list([])]))])];
    assert_eq!(put_long_key(&daemon, 16), Ok("ok".into()));
    assert_eq!(daemon.connect().call("put", &deep()), Ok("ok".into()), "an empty list is no level");
    let deeper = ["t".into(), map([("id", 1.into()), ("v", list([list([1.into()])]))])];
    assert_eq!(daemon.connect().call("put", &deeper), Err("invalid_request".into()));
    assert_eq!(old.call("put", &deeper), Ok("ok".into()), "an open connection keeps its bounds");
}

#[test]
fn settings_that_are_wrong_or_need_a_restart_leave_everything_as_it_was() {
    let mut daemon = Daemon::with_config("[limits]\nkey_bytes = 100\n");
    daemon.connect().create("t");
    for (text, named) in [
        ("[limits]\nkey_byte = 16\n", "unknown field `key_byte`"),
        ("[limits]\nkey_bytes = 1\n", "limits.key_bytes = 1 is not between"),
        ("threads = 7\n[limits]\nkey_bytes = 16\n", "a restart is needed to change threads"),
    ] {
        daemon.write_config(text);
        daemon.process().signal(Signal::SIGHUP);
        daemon.wait_for_log(named);
        assert_eq!(put_long_key(&daemon, 100), Ok("ok".into()), "{text}");
    }
    assert_eq!(daemon.log().matches("ERROR the settings were not changed").count(), 2);
    let waits = "WARN the settings were not changed: a restart is needed to change threads";
    assert_eq!(daemon.log().matches(waits).count(), 1, "nothing is wrong with them");
    daemon.stop();
    daemon.restart();
    assert_eq!(put_long_key(&daemon, 17), Err("key too long: at most 16 bytes".into()));
}

// The end.

#[test]
fn a_daemon_that_is_told_to_end_removes_its_socket_and_says_that_all_went_well() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::start();
        let mut idle = daemon.connect();
        assert_eq!(idle.call("ping", &[]), Ok("pong".into()));
        daemon.process().signal(signal);
        assert_eq!(daemon.wait_for_end().code(), Some(0));
        assert!(fs::symlink_metadata(daemon.socket()).is_err(), "the socket is still there");
        idle.assert_closed();
        assert!(daemon.log().contains("stopped"), "{}", daemon.log());
    }
}

/// What was sent before the end is carried out and answered, and what is answered is durable.
#[test]
fn requests_under_way_are_answered_before_the_end() {
    const PUTS: u64 = 500;
    let mut daemon = Daemon::start();
    let mut rpc = daemon.connect();
    rpc.create("t");
    let put = |id| request(id, "put", &["t".into(), map([("id", id.into())])]);
    let puts: Vec<_> = (0..PUTS).map(put).collect();
    rpc.send(&puts.concat());
    daemon.process().signal(Signal::SIGTERM);
    for id in 0..PUTS {
        let response = rpc.receive();
        assert_eq!((response.id, response.outcome), (id, Ok("ok".into())));
    }
    rpc.assert_closed();
    assert_eq!(daemon.wait_for_end().code(), Some(0));
    daemon.restart();
    let keys = daemon.connect().call("keys", &["t".into()]).expect("keys");
    assert_eq!(keys.as_array().map(Vec::len), usize::try_from(PUTS).ok());
}

#[test]
fn a_long_reply_under_way_is_sent_to_its_end() {
    let mut daemon = Daemon::start();
    let mut rpc = daemon.connect();
    rpc.create("t");
    let record = |n: u64| map([("id", n.into()), ("text", "x".repeat(500_000).into())]);
    for n in 0..9 {
        assert_eq!(rpc.call("put", &["t".into(), record(n)]), Ok("ok".into()));
    }
    rpc.send(&request(1, "all", &["t".into()]));
    assert_eq!(rpc.receive_array(1), 9);
    daemon.process().signal(Signal::SIGTERM);
    daemon.wait_for_log("ending");
    wait_until("it listens no more", || Rpc::try_connect(&daemon.socket()).is_err());
    for n in 0..9 {
        assert_eq!(rpc.element(), record(n));
    }
    rpc.assert_closed();
    assert_eq!(daemon.wait_for_end().code(), Some(0));
}

/// A crash between any two writes: what was answered is there, what was not is whole or absent.
#[test]
fn what_was_answered_survives_being_killed() {
    let mut daemon = Daemon::start();
    daemon.connect().create("t");
    let value = |id: &str| map([("id", id.into()), ("copy", id.repeat(50).into())]);
    for round in 0..3 {
        let answered: Vec<u64> = scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let mut rpc = daemon.connect();
                    scope.spawn(move || {
                        let put = |n: u64| {
                            let id = format!("{round}-{writer}-{n}");
                            request(n, "put", &["t".into(), value(&id)])
                        };
                        (0..)
                            .take_while(|n| {
                                rpc.try_send(&put(*n)).is_ok() && rpc.try_receive().is_some()
                            })
                            .count() as u64
                    })
                })
                .collect();
            let mut watch = daemon.connect();
            wait_until("a hundred are stored", || {
                let status = watch.call("status", &[]).expect("status");
                let commands = rpc::field(&status, "commands").and_then(Value::as_u64);
                commands.expect("a number") > 100
            });
            daemon.kill();
            writers.into_iter().map(|writer| writer.join().expect("it ends")).collect()
        });
        daemon.restart();
        let mut rpc = daemon.connect();
        for (writer, count) in answered.into_iter().enumerate() {
            assert!(count > 0, "nothing was answered to writer {writer}");
            for n in 0..count {
                let id = format!("{round}-{writer}-{n}");
                let got = rpc.call("get", &["t".into(), id.as_str().into()]);
                assert_eq!(got, Ok(value(&id)), "{count} were answered");
            }
        }
        let all = rpc.call("match", &["t".into(), map([])]).expect("all");
        for record in all.as_array().expect("a list") {
            let id = rpc::field(record, "id").and_then(Value::as_str).expect("a key");
            assert_eq!(*record, value(id), "half a record");
        }
    }
}

#[test]
fn a_second_signal_does_not_harm_the_end() {
    let mut daemon = Daemon::start();
    daemon.process().signal(Signal::SIGTERM);
    daemon.process().signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_for_end().code(), Some(0));
}
