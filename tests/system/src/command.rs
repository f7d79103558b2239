//! Commands, and what came of them.
//! Where they run is decided by whoever makes them.

use std::{
    fmt,
    process::{Command, Output, Stdio},
};

/// What a command has done.
#[derive(Clone, Debug)]
pub struct Ran {
    /// As it was given.
    pub command: String,
    /// Its exit status; none if a signal ended it.
    pub status: Option<i32>,
    /// What it said, without the last newline.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Ran {
    /// Whether it succeeded.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.status == Some(0)
    }

    /// What it said.
    ///
    /// # Panics
    /// If it failed.
    #[track_caller]
    pub fn expect_ok(self) -> String {
        assert!(self.ok(), "{self}");
        self.stdout
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "{command}\n  status: {status:?}\n  stdout: {stdout}\n  stderr: {stderr}")
    }
}

/// Runs a command to its end. `shown` is how it appears in messages.
///
/// # Panics
/// If it cannot be started.
#[track_caller]
pub(crate) fn run(command: &mut Command, shown: &str) -> Ran {
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("cannot run {shown}: {error}"),
    };
    let Output { status, stdout, stderr } = output;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
    Ran {
        command: shown.to_owned(),
        status: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}
