//! The real `cortexd` on a socket and a data directory of its own, and the real `cortex` against it.
//! Leaves daemons that misbehave to `fake_daemon`.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running daemon. Ended, and its directory removed, when dropped.
pub(crate) struct RealDaemon {
    directory: tempfile::TempDir,
    process: Child,
}

impl RealDaemon {
    /// Starts a daemon with an empty store and waits until it serves.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        let mut process = without_surroundings(env!("CARGO_BIN_EXE_cortexd"))
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

    /// Runs `cortex`, which must succeed, and answers what it printed.
    pub(crate) fn cortex(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(arguments, input);
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cortex {arguments:?}: {messages}");
        output.stdout
    }

    /// Runs `cortex` with `input` on its standard input.
    pub(crate) fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut cortex = without_surroundings(env!("CARGO_BIN_EXE_cortex"))
            .arg("--socket")
            .arg(self.socket())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start cortex");
        let mut stdin = cortex.stdin.take().expect("it is piped");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // It may end before it has read everything, and then says why.
                let _ = stdin.write_all(input);
            });
            cortex.wait_with_output().expect("cortex ends")
        })
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

/// A command in an environment in which it finds no other daemon.
fn without_surroundings(program: &str) -> Command {
    let mut command = Command::new(program);
    for variable in ["CORTEX_SOCKET", "CORTEX_DATA_DIR", "XDG_RUNTIME_DIR", "NOTIFY_SOCKET"] {
        command.env_remove(variable);
    }
    command
}
