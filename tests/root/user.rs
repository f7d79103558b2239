//! A connection to a daemon by a uid of one's choice: needs root, the only one who can be several users.
//! Leaves what is said on it to `rpc`, and the daemon to `daemon`.
//!
//! A connection belongs to whoever made it. So each is made by a child of that uid, which is this very
//! binary, and which then passes bytes on:
//!
//! ```text
//!   test (root) ── pair of sockets ── relay (uid 20001) ── cortex.sock ── cortexd: uid 20001
//! ```

#![allow(dead_code, reason = "each test uses its own part")]

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::thread::scope;

use rmpv::Value;

use crate::support::daemon::{Daemon, Guarded, bare};
use crate::support::rpc::{Rpc, field, list, map};

/// Names the socket to the relay.
const RELAY: &str = "CORTEX_TEST_RELAY";

/// The test that is the relay when it finds that it was called as one.
const RELAY_TEST: &str = "user::a_connection_is_made_by_the_uid_it_is_said_to_be";

pub(crate) fn require_root() {
    let is_root = nix::unistd::geteuid().is_root();
    assert!(is_root, "these tests need root, to be several users: sudo -E cargo test --test root");
}

/// A daemon that every user can reach.
pub(crate) fn daemon_for_all(config: &str) -> Daemon {
    require_root();
    let daemon = Daemon::with_config(config);
    fs::set_permissions(daemon.directory(), PermissionsExt::from_mode(0o755)).expect("open");
    daemon
}

/// A connection of some user.
pub(crate) struct User {
    pub(crate) rpc: Rpc,
    _relay: Guarded,
}

impl User {
    pub(crate) fn connect(daemon: &Daemon, uid: u32) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        // Not by its path, which another user may have no way to.
        let mut command = bare("/proc/self/exe");
        command.args(["--exact", RELAY_TEST]).env(RELAY, daemon.socket());
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let relay = command.uid(uid).gid(uid).spawn().expect("start the relay");
        Self { rpc: Rpc::over(ours), _relay: Guarded(relay) }
    }

    pub(crate) fn call(&mut self, method: &str, params: &[Value]) -> Result<Value, String> {
        self.rpc.call(method, params)
    }

    /// Checks a result.
    pub(crate) fn may(&mut self, method: &str, params: &[Value], result: impl Into<Value>) {
        assert_eq!(self.call(method, params), Ok(result.into()), "{method} {params:?}");
    }

    /// Checks a refusal.
    pub(crate) fn may_not(&mut self, method: &str, params: &[Value]) {
        let refused = Err("access_denied".to_owned());
        assert_eq!(self.call(method, params), refused, "{method} {params:?}");
    }

    pub(crate) fn create(&mut self, table: &str) {
        self.may("create_table", &[table.into(), list(["id".into()])], "created");
    }

    pub(crate) fn put(&mut self, table: &str, id: &str) {
        self.may("put", &[table.into(), map([("id", id.into())])], "ok");
    }
}

/// Passes bytes on, both ways, until one side has no more.
fn relay(socket: &Path) {
    let link = io::stdin().as_fd().try_clone_to_owned().expect("a connection as standard input");
    let link = UnixStream::from(link);
    let daemon = UnixStream::connect(socket).expect("connect to the daemon");
    scope(|scope| {
        scope.spawn(|| pass_on(&link, &daemon));
        scope.spawn(|| pass_on(&daemon, &link));
    });
}

fn pass_on(mut from: &UnixStream, mut to: &UnixStream) {
    // A side that is gone has no more to say, and nobody to hear it.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// holds V1: who is calling is what the kernel says.
#[test]
fn a_connection_is_made_by_the_uid_it_is_said_to_be() {
    if let Some(socket) = std::env::var_os(RELAY) {
        return relay(Path::new(&socket));
    }
    let daemon = daemon_for_all("");
    for uid in [20_001, 20_002, 0] {
        let mut user = User::connect(&daemon, uid);
        user.create("t");
        let info = user.call("table_info", &["t".into()]).expect("an own table");
        assert_eq!(field(&info, "owner"), Some(&format!("uid:{uid}").into()));
        assert_eq!(field(&info, "table"), Some(&format!("{uid}:t").into()));
    }
}
