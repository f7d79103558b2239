//! What a daemon takes of the machine's memory while nobody asks anything of it.
//! Leaves what a reply costs to `streaming`.

use daemon::{Daemon, wait_until};
use rmpv::Value;
use rpc::field;

use crate::support::{daemon, rpc};

/// What an idle and empty daemon may take. Without the pages of its binary: those are shared, can be dropped, and
/// say more of how it was compiled than of what it does.
const IDLE_KIB: u64 = 8 << 10;

/// What an idle connection may take: twice what was measured, of which most is the room for one read.
const CONNECTION_KIB: u64 = 56;

/// As many threads as the daemon takes on a machine of any size.
const THREADS: &str = "threads = 8\n[limits]\nconnections_per_uid = 600\n";

#[test]
fn an_idle_and_empty_daemon_takes_less_than_8_mebibytes_besides_its_binary() {
    let daemon = Daemon::with_config(THREADS);
    let resident = daemon.memory_kib("RssAnon");
    assert!(resident < IDLE_KIB, "{resident} KiB");
}

#[test]
fn idle_connections_take_little_and_give_back_what_large_messages_took() {
    const MANY: u64 = 500;
    let daemon = Daemon::with_config(THREADS);
    let before = daemon.memory_kib("VmRSS");
    let large = Value::from("x".repeat(1 << 19));
    let idle: Vec<_> = (0..MANY)
        .map(|_| {
            let mut rpc = daemon.connect();
            let refused = rpc.call("ping", std::slice::from_ref(&large));
            assert_eq!(refused, Err("invalid params: expected []".into()));
            rpc
        })
        .collect();
    let mut rpc = daemon.connect();
    wait_until("all are open", || {
        let status = rpc.call("status", &[]).expect("status");
        field(&status, "connections").and_then(Value::as_u64) == Some(MANY + 1)
    });
    let resident = daemon.memory_kib("VmRSS");
    let bound = before + MANY * CONNECTION_KIB;
    assert!(resident < bound, "{resident} KiB, {before} KiB before, the bound is {bound} KiB");
    drop(idle);
}
