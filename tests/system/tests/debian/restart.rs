//! The service ends, in order or not, and is there again: nobody is refused, nothing is lost.
//! Faults that do not end it are `faults`'s.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
};

use cortex_client::{
    Client,
    api::{self, Raw, encoded},
};
use system_tests::{Host, package};

/// `[0, 1, "ping", []]`
const PING: [u8; 9] = [0x94, 0, 1, 0xa4, b'p', b'i', b'n', b'g', 0x90];

/// `[1, 1, nil, "pong"]`
const PONG: [u8; 9] = [0x94, 1, 1, 0xc0, 0xa4, b'p', b'o', b'n', b'g'];

/// What became of connections.
#[derive(Debug, Default)]
struct Outcomes {
    answered: AtomicUsize,
    /// Accepted, and closed before the request was read: the client may ask again.
    unanswered: AtomicUsize,
    refused: AtomicUsize,
}

impl Outcomes {
    fn connect(&self, socket: &Path) {
        let outcome = match UnixStream::connect(socket) {
            Err(_) => &self.refused,
            Ok(stream) if is_answered(&stream) => &self.answered,
            Ok(_) => &self.unanswered,
        };
        outcome.fetch_add(1, Relaxed);
    }

    fn answered(&self) -> usize {
        self.answered.load(Relaxed)
    }

    fn total(&self) -> usize {
        [&self.answered, &self.unanswered, &self.refused].iter().map(|n| n.load(Relaxed)).sum()
    }
}

/// Sets a flag when it goes, also in a panic: whoever waits for it goes on.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn is_answered(mut stream: &UnixStream) -> bool {
    let mut reply = [0; PONG.len()];
    let answered = stream.write_all(&PING).and_then(|()| stream.read_exact(&mut reply));
    match answered {
        Ok(()) => reply == PONG,
        Err(error) => {
            let closed =
                [ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(closed.contains(&error.kind()), "{error}");
            false
        }
    }
}

/// holds D4
#[test]
fn a_thousand_connections_across_restarts_and_none_is_refused() {
    const CONNECTIONS: usize = 1000;
    const THREADS: usize = 4;
    /// With the first start as many as systemd lets through in ten seconds.
    const RESTARTS: usize = 4;
    let host = package::installed("restart");
    let socket = host.path("/run/cortex/cortex.sock");
    let (outcomes, over) = (Outcomes::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !over.load(Relaxed) || outcomes.total() < CONNECTIONS {
                    outcomes.connect(&socket);
                }
            });
        }
        scope.spawn(|| {
            let _over = Over(&over);
            for _ in 0..RESTARTS {
                let before = outcomes.answered();
                host.sh("systemctl restart cortexd.service");
                while outcomes.answered() < before + CONNECTIONS / RESTARTS {
                    thread::yield_now();
                }
            }
        });
    });
    assert_eq!(outcomes.refused.load(Relaxed), 0, "{outcomes:?}");
    assert!(outcomes.answered() >= CONNECTIONS, "{outcomes:?}");
    // Only what the daemon had accepted, and not yet read, when it ended: one of each thread.
    assert!(outcomes.unanswered.load(Relaxed) <= THREADS * RESTARTS, "{outcomes:?}");
    println!("{outcomes:?}");
}

/// Puts records `1, 2, …` until the daemon is gone, and answers how many puts were confirmed.
fn put_until_gone(mut client: Client, stored: &AtomicUsize) -> usize {
    for n in 1.. {
        let record = encoded(&BTreeMap::from([("id", n.to_string())]));
        if client.call(&api::Put { table: "survivors", record: Raw(&record) }).is_err() {
            return n - 1;
        }
        stored.store(n, Relaxed);
    }
    unreachable!("the numbers do not end")
}

fn keys(host: &Host, table: &str) -> usize {
    let keys = host.sh(&format!("cortex keys {table}"));
    keys.matches('"').count() / 2
}

/// holds D1, V6
#[test]
fn a_daemon_that_is_killed_comes_back_with_everything_it_has_confirmed() {
    let host = package::installed("killed");
    host.sh("cortex create survivors id");
    let stored = AtomicUsize::new(0);
    let client = host.client().expect("connect");
    let confirmed = thread::scope(|scope| {
        let writer = scope.spawn(|| put_until_gone(client, &stored));
        while stored.load(Relaxed) < 200 {
            thread::yield_now();
        }
        host.sh("kill -KILL $(systemctl show --value -p MainPID cortexd)");
        writer.join().expect("the writer ends")
    });
    host.wait_until(
        "test $(systemctl show --value -p NRestarts cortexd) = 1 && systemctl is-active cortexd",
    );
    let found = keys(&host, "survivors");
    // One more may have been stored whose confirmation did not arrive.
    assert!(found == confirmed || found == confirmed + 1, "{found} found, {confirmed} confirmed");
    let said = host.sh(&format!(
        "journalctl -u cortexd --output=cat MESSAGE_ID={}",
        cortexd::sys::journal::STORE_RECOVERED
    ));
    let told = "the store had not been closed in order, what was confirmed is there: ";
    assert!(said.starts_with(told), "{said}");
}

/// holds D1
#[test]
fn an_orderly_restart_leaves_a_closed_store() {
    let host = package::installed("orderly");
    host.sh("cortex create notes id && cortex put notes '{\"id\": \"1\"}'");
    host.sh("systemctl stop cortexd.service");
    assert_eq!(host.sh("ls -A /var/lib/cortex"), "cortex.db\ncortex.reserve\ncortexd.lock");
    assert_eq!(host.sh("cortex keys notes"), r#"["1"]"#);
    let said = host.sh("journalctl -u cortexd -p warning --output=cat");
    assert_eq!(said, "");
}
