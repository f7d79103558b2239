//! Commands, and what came of them.
//! Where they run is decided by whoever makes them.

use std::{
    fmt,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Output, Stdio},
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
    ran(shown.to_owned(), output)
}

fn ran(command: String, output: Output) -> Ran {
    let Output { status, stdout, stderr } = output;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
    Ran { command, status: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// A command that is still running, and says little: what it complains about is read at its end.
/// Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    #[track_caller]
    pub(crate) fn begin(command: &mut Command, shown: String) -> Self {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match piped.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot run {shown}: {error}"),
        };
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { command: shown, child, stdout }
    }

    /// The next line that it says, without its end.
    ///
    /// # Panics
    /// If it ends without another one.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("hear from the command");
        if !line.ends_with('\n') {
            let mut complaint = String::new();
            let stderr = self.child.stderr.as_mut().expect("it is piped");
            stderr.read_to_string(&mut complaint).expect("hear from the command");
            panic!("{} has ended: {line}{complaint}", self.command);
        }
        line.trim_end().to_owned()
    }

    /// Waits for its end; what else it has said.
    #[must_use]
    pub fn end(mut self) -> Ran {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.stdout.read_to_end(&mut stdout).expect("hear from the command");
        let complaints = self.child.stderr.as_mut().expect("it is piped");
        complaints.read_to_end(&mut stderr).expect("hear from the command");
        let status = self.child.wait().expect("wait for the command");
        ran(self.command.clone(), Output { status, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}
