//! A real daemon in a directory of its own, which ends with the test.
//! Leaves talking to it to the tests.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;

pub(crate) struct RealDaemon {
    process: Child,
    dir: TempDir,
    /// Kept open: the daemon still has more to say.
    _stdout: BufReader<ChildStdout>,
}

impl RealDaemon {
    /// Starts one with these settings and waits until it listens.
    pub(crate) fn start(settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("settings.toml");
        fs::write(&config, settings).expect("the settings are written");
        let mut process = in_dir(Command::new(env!("CARGO_BIN_EXE_cortexd")), dir.path())
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("cortexd starts");
        let mut stdout = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut greeting = String::new();
        stdout.read_line(&mut greeting).expect("it says something");
        assert!(greeting.contains("listens on"), "{greeting}");
        Self { process, dir, _stdout: stdout }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for RealDaemon {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// A program that finds the socket and the data in `dir`, and nothing elsewhere.
pub(crate) fn in_dir(mut command: Command, dir: &Path) -> Command {
    command.env("CORTEX_SOCKET", socket_in(dir)).env("CORTEX_DATA_DIR", dir.join("data"));
    command.env_remove("JOURNAL_STREAM").stdin(Stdio::null());
    command
}

pub(crate) fn socket_in(dir: &Path) -> PathBuf {
    dir.join("cortex.sock")
}
