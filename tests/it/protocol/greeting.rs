//! What `cortexd` says to whoever started it, and what becomes of it when nobody can hear that.
//! Leaves the log to the journal, and everything after the greeting to other tests.
#![expect(clippy::disallowed_methods, reason = "a test's time limit is measured by the real clock")]

use std::fs::OpenOptions;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far longer than a start takes.
const TIME_LIMIT: Duration = Duration::from_secs(30);

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself, which is then what the test is about.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A full disk under the output refuses every write, as a reader that is gone does.
#[test]
fn a_daemon_that_can_print_nothing_serves_all_the_same() {
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("open /dev/full");
    let directory = tempfile::tempdir().expect("make a directory");
    let socket = directory.path().join("cortex.sock");
    let mut daemon = Ended(
        Command::new(env!("CARGO_BIN_EXE_cortexd"))
            .arg("--socket")
            .arg(&socket)
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .stdout(full())
            .stderr(full())
            .spawn()
            .expect("start the daemon"),
    );
    let begun = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        assert!(begun.elapsed() < TIME_LIMIT, "it does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pong = Command::new(env!("CARGO_BIN_EXE_cortex"))
        .arg("--socket")
        .arg(&socket)
        .arg("ping")
        .output()
        .expect("run cortex");
    assert_eq!(String::from_utf8_lossy(&pong.stdout), "\"pong\"\n", "{pong:?}");
    assert!(daemon.0.try_wait().expect("ask for its end").is_none(), "it has ended");
}

#[test]
fn settings_that_cannot_be_printed_are_an_error_and_no_panic() {
    let directory = tempfile::tempdir().expect("make a directory");
    let full = OpenOptions::new().write(true).open("/dev/full").expect("open /dev/full");
    let output = Command::new(env!("CARGO_BIN_EXE_cortexd"))
        .arg("--check")
        .arg("--data-dir")
        .arg(directory.path())
        .stdout(Stdio::from(full))
        .output()
        .expect("run the daemon");
    let messages = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{messages}");
    assert!(messages.starts_with("error: cannot print the settings: "), "{messages}");
}
