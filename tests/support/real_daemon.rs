//! The real `cortexd` on a socket and a data directory of its own, and the real `cortex` against it.
//! Leaves daemons that misbehave to `fake_daemon`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::tool::{check_exit, cortex_at, run_with_input};

/// A running daemon. Ended, and its directory removed, when dropped.
pub(crate) struct RealDaemon {
    directory: tempfile::TempDir,
    process: Child,
}

impl RealDaemon {
    /// Starts a daemon with an empty store and waits until it serves.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        let mut process = Command::new(env!("CARGO_BIN_EXE_cortexd"))
            .env_remove("NOTIFY_SOCKET")
            .arg("--socket")
            .arg(directory.path().join("cortex.sock"))
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args(["--log", "warn"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the daemon");
        // It says where it listens once it does.
        let mut first_line = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut first_line).expect("read what the daemon says");
        let daemon = Self { directory, process };
        assert!(first_line.contains("listens on"), "the daemon said {first_line:?}");
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("cortex.sock")
    }

    /// Runs `cortex` with `input` on its standard input; it must succeed, and answers what it printed.
    pub(crate) fn cortex(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = run_with_input(cortex_at(&self.socket()).args(arguments), input);
        check_exit(&output, 0);
        output.stdout
    }
}

impl Drop for RealDaemon {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            // It may have ended by itself; waiting collects it either way.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.process.wait();
    }
}
