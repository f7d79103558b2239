//! What a service manager sees and does: sockets handed over by name, notifications, the watchdog.
//! Leaves units and a real systemd to the tests of the system.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use daemon::{Guarded, bare, directory, output_of, wait_for_end, wait_until};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use rpc::Rpc;
use tempfile::TempDir;

use crate::support::{daemon, mesh, rpc};

/// Only a failing test waits for so long.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Becomes the daemon with descriptors 3 and on as sd_listen_fds(3) describes them. They come as the
/// standard input and output, since these are what a process can be given without further ado. Only
/// the process itself can name its id.
const HAND_OVER: &str = r#"
    exec 3<&0 </dev/null
    if [ "$LISTEN_FDS" = 2 ]; then exec 4<&1; fi
    exec >/dev/null
    LISTEN_PID=$$ exec "$0" "$@"
"#;

/// A directory with a place for a socket and one for the data.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(directory())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("rpc.sock")
    }

    fn elsewhere(&self) -> PathBuf {
        self.0.path().join("elsewhere.sock")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.0.path().join("log")).unwrap_or_default()
    }

    /// Puts the arguments and the log of a daemon on a command.
    fn prepare(&self, command: &mut Command, socket: &Path) {
        let log = fs::File::create(self.0.path().join("log")).expect("make the log");
        command.arg("--socket").arg(socket).arg("--data-dir").arg(self.0.path().join("data"));
        command.stdout(Stdio::null()).stderr(log);
    }

    /// A daemon to which these sockets are handed over under these names.
    fn activated(&self, names: &str, sockets: Vec<OwnedFd>) -> Command {
        let mut command = bare("/bin/sh");
        command.args(["-c", HAND_OVER]).arg(env!("CARGO_BIN_EXE_cortexd"));
        self.prepare(&mut command, &self.elsewhere());
        command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names);
        let mut sockets = sockets.into_iter();
        command.stdin(sockets.next().map_or_else(Stdio::null, Stdio::from));
        command.stdout(sockets.next().map_or_else(Stdio::null, Stdio::from));
        command
    }
}

fn listener(path: &Path) -> OwnedFd {
    UnixListener::bind(path).expect("bind").into()
}

fn spawn(mut command: Command) -> Guarded {
    Guarded(command.spawn().expect("start the daemon"))
}

fn answers(socket: &Path) -> bool {
    Rpc::try_connect(socket).is_ok_and(|mut rpc| rpc.call("ping", &[]).is_ok())
}

// Sockets.

/// holds D1: a client that connects before the daemon runs is answered once it does, and the socket
/// outlives it.
#[test]
fn a_socket_handed_over_by_its_name_is_served_and_left_behind() {
    let place = Place::new();
    let socket = UnixListener::bind(place.socket()).expect("bind");
    let mut early = Rpc::connect(&place.socket());
    early.send(&rpc::request(7, "ping", &[]));

    let handed_over = socket.try_clone().expect("share the socket").into();
    let mut process = spawn(place.activated("rpc", vec![handed_over]));
    assert_eq!(early.receive().bytes, rpc::success(7, "pong"));
    assert!(fs::symlink_metadata(place.elsewhere()).is_err(), "--socket counts for nothing then");

    process.signal(Signal::SIGTERM);
    assert_eq!(wait_for_end(&mut process.0).code(), Some(0), "{}", place.log());
    assert!(fs::metadata(place.socket()).expect("it is there").file_type().is_socket());

    // Who connects between two starts waits for the second.
    let mut between = Rpc::connect(&place.socket());
    between.send(&rpc::request(8, "ping", &[]));
    let _process = spawn(place.activated("rpc", vec![socket.into()]));
    assert_eq!(between.receive().bytes, rpc::success(8, "pong"));
}

/// holds D1: systemd starts the daemon again for the next client, and takes the socket down after five starts
/// within ten seconds.
#[test]
fn with_wrong_settings_clients_are_turned_away_and_the_end_is_not_hurried() {
    let place = Place::new();
    let socket = UnixListener::bind(place.socket()).expect("bind");
    let config = place.0.path().join("cortex.toml");
    fs::write(&config, "[limits]\nconnections = 0\n").expect("write");
    let begun = monotonic_us();
    let mut command = place.activated("rpc", vec![socket.try_clone().expect("share it").into()]);
    command.arg("--config").arg(&config);
    let mut process = spawn(command);

    let mut client = UnixStream::connect(place.socket()).expect("connect");
    client.set_read_timeout(Some(TIME_LIMIT)).expect("a timeout");
    assert_eq!(client.read(&mut [0; 8]).expect("closed"), 0, "nobody is kept waiting");
    assert_eq!(wait_for_end(&mut process.0).code(), Some(78), "{}", place.log());
    let lived = Duration::from_micros(monotonic_us() - begun);
    assert!(lived * 4 >= Duration::from_secs(10), "five starts fit into 10 s: {lived:?}");
    let named = format!("{}:2: limits.connections = 0 is not between", config.display());
    assert!(place.log().contains(&named), "{}", place.log());
}

/// holds D1: the order of the sockets is not the same at every start.
#[test]
fn a_socket_is_taken_by_its_name_and_not_by_its_place() {
    for (names, is_first) in [("rpc:other", true), ("other:rpc", false)] {
        let place = Place::new();
        let other = place.0.path().join("other.sock");
        let mut sockets = vec![listener(&place.socket()), listener(&other)];
        if !is_first {
            sockets.reverse();
        }
        let _process = spawn(place.activated(names, sockets));
        assert!(answers(&place.socket()), "{names}");
        let log = place.log();
        assert!(log.contains("WARN") && log.contains("name=\"other\""), "{log}");
        let refused = Rpc::try_connect(&other).expect_err("it is closed");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn without_a_socket_of_its_name_the_daemon_binds_its_own() {
    let place = Place::new();
    let _process = spawn(place.activated("other", vec![listener(&place.socket())]));
    wait_until("its own socket is served", || answers(&place.elsewhere()));
}

/// holds D1, M1
#[test]
fn the_socket_for_other_machines_is_taken_by_its_name_too() {
    let ca = mesh::Authority::new();
    ca.issue("home");
    ca.issue("office");
    let place = Place::new();
    let passed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = passed.local_addr().expect("it is bound").port();
    let settings = ca.settings("home", mesh::free_port(), &[("office", mesh::free_port())]);
    let config = place.0.path().join("cortex.toml");
    fs::write(&config, format!("bus = 'off'\n{settings}")).expect("write the settings");
    let sockets = vec![passed.into(), listener(&place.socket())];
    let mut command = place.activated("peer:rpc", sockets);
    command.arg("--config").arg(&config);
    let _process = spawn(command);
    wait_until("clients are served", || answers(&place.socket()));
    let mut peer = mesh::Tls::rpc(&ca.credentials("office", "office"), "home", port);
    assert_eq!(peer.call("ping", &[], None), Ok("pong".into()), "not on the port of the settings");
}

/// A node that runs alone has no listener for others.
/// holds M1
#[test]
fn a_socket_for_other_machines_is_closed_where_there_is_no_mesh() {
    let place = Place::new();
    let passed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = passed.local_addr().expect("it is bound").port();
    let _process =
        spawn(place.activated("rpc:peer", vec![listener(&place.socket()), passed.into()]));
    assert!(answers(&place.socket()));
    let refused = std::net::TcpStream::connect(("127.0.0.1", port)).expect_err("it is closed");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(place.log().contains("no mesh is configured"), "{}", place.log());
}

#[test]
fn sockets_that_cannot_be_served_are_refused() {
    let tcp = || std::net::TcpListener::bind("127.0.0.1:0").expect("bind").into();
    let unix = |place: &Place, name: &str| listener(&place.0.path().join(name));
    let place = Place::new();
    for (names, sockets, expected) in [
        ("rpc", vec![tcp()], "the socket that systemd passed is no Unix socket"),
        (
            "rpc:rpc",
            vec![unix(&place, "a"), unix(&place, "b")],
            "systemd passed 2 sockets named rpc",
        ),
        ("peer:peer", vec![tcp(), tcp()], "systemd passed 2 sockets named peer"),
        (
            "peer",
            vec![unix(&place, "c")],
            "the socket that systemd passed for the mesh is no TCP socket",
        ),
    ] {
        let mut process = spawn(place.activated(names, sockets));
        assert_eq!(wait_for_end(&mut process.0).code(), Some(1), "{names}: {}", place.log());
        assert!(place.log().contains(expected), "{}", place.log());
    }
}

/// Variables that were meant for another process, as a shell under a service inherits them.
#[test]
fn sockets_that_were_handed_to_another_process_are_let_be() {
    let place = Place::new();
    let mut command = daemon::cortexd();
    place.prepare(&mut command, &place.elsewhere());
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "rpc");
    let _process = spawn(command);
    wait_until("its own socket is served", || answers(&place.elsewhere()));
}

// Notifications.

/// Where notifications arrive.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(place: &Place) -> Self {
        let path = place.0.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bind");
        socket.set_read_timeout(Some(TIME_LIMIT)).expect("set a timeout");
        Self { socket, path }
    }

    /// The next notification that is not about the watchdog, as its lines.
    fn next(&self) -> Vec<String> {
        loop {
            let message = self.next_of_any_kind();
            if message != ["WATCHDOG=1"] {
                return message;
            }
        }
    }

    fn next_of_any_kind(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a notification");
        let text = std::str::from_utf8(&bytes[..length]).expect("text");
        text.lines().map(str::to_owned).collect()
    }
}

fn notifying(place: &Place, manager: &Manager) -> Command {
    let mut command = daemon::cortexd();
    place.prepare(&mut command, &place.socket());
    command.env("NOTIFY_SOCKET", &manager.path);
    command
}

fn monotonic_us() -> u64 {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock"));
    u64::try_from(now.as_micros()).expect("not that long ago")
}

/// holds D1
#[test]
fn a_service_manager_is_told_of_readiness_of_reloads_and_of_the_end() {
    let place = Place::new();
    let manager = Manager::new(&place);
    let mut process = spawn(notifying(&place, &manager));
    let (version, socket) = (env!("CARGO_PKG_VERSION"), place.socket());
    let listening = format!("STATUS={version}, listening on {}", socket.display());
    let ready = vec!["READY=1".to_owned(), listening];
    assert_eq!(manager.next(), ready);
    assert!(answers(&place.socket()), "ready means that it answers");

    let before = monotonic_us();
    process.signal(Signal::SIGHUP);
    let reloading = manager.next();
    assert_eq!(reloading[0], "RELOADING=1", "{reloading:?}");
    let at = reloading[1].strip_prefix("MONOTONIC_USEC=").expect("the time of the reload");
    let at: u64 = at.parse().expect("a number");
    assert!((before..=monotonic_us()).contains(&at), "{at} is not between now and then");
    assert_eq!(manager.next(), ready);

    process.signal(Signal::SIGTERM);
    let stopping = manager.next();
    assert_eq!(stopping[0], "STOPPING=1", "{stopping:?}");
    assert!(stopping[1].starts_with("STATUS="), "{stopping:?}");
    assert_eq!(wait_for_end(&mut process.0).code(), Some(0));
}

/// holds D1: well within the time that the watchdog allows, and only by a daemon that answers.
#[test]
fn the_watchdog_is_told_of_life_as_long_as_there_is_any() {
    let place = Place::new();
    let manager = Manager::new(&place);
    let mut command = notifying(&place, &manager);
    let process = spawn({
        command.env("WATCHDOG_USEC", "400000");
        command
    });
    assert_eq!(manager.next()[0], "READY=1");
    for _ in 0..4 {
        assert_eq!(manager.next_of_any_kind(), ["WATCHDOG=1"]);
    }
    process.signal(Signal::SIGSTOP);
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).expect("set a timeout");
    // One may have been on its way.
    let silent = (0..2).any(|_| manager.socket.recv(&mut [0; 64]).is_err());
    assert!(silent, "a daemon that stands still is not alive");
    process.signal(Signal::SIGCONT);
    manager.socket.set_read_timeout(Some(TIME_LIMIT)).expect("set a timeout");
    assert_eq!(manager.next_of_any_kind(), ["WATCHDOG=1"]);
}

/// A daemon whose places are all taken is alive: its own probe is answered too.
#[test]
fn the_watchdog_is_told_of_life_when_all_connections_are_taken() {
    let place = Place::new();
    let manager = Manager::new(&place);
    let config = place.0.path().join("cortex.toml");
    fs::write(&config, "[limits]\nconnections = 1\n").expect("write");
    let mut command = notifying(&place, &manager);
    command.env("WATCHDOG_USEC", "200000").arg("--config").arg(config);
    let _process = spawn(command);
    assert_eq!(manager.next()[0], "READY=1");
    let mut only = Rpc::connect(&place.socket());
    wait_until("the place is taken", || {
        only.call("ping", &[]).is_ok() || {
            only = Rpc::connect(&place.socket());
            false
        }
    });
    for _ in 0..4 {
        assert_eq!(manager.next_of_any_kind(), ["WATCHDOG=1"]);
    }
    assert!(only.call("ping", &[]).is_ok());
}

/// A start that fails is over before anybody is told that it has succeeded.
#[test]
fn a_start_that_fails_is_not_announced() {
    let place = Place::new();
    let manager = Manager::new(&place);
    fs::write(place.socket(), "in the way").expect("write");
    let mut command = notifying(&place, &manager);
    assert_eq!(output_of(&mut command).status.code(), Some(1));
    manager.socket.set_nonblocking(true).expect("do not wait");
    let error = manager.socket.recv(&mut [0; 64]).expect_err("nothing is announced");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}
