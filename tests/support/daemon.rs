//! The real `cortexd` as a process: started on places of its own, asked, signalled, killed, started again.
//! Leaves what is said on a connection to `rpc`, and daemons that misbehave to `fake_daemon`.

#![allow(dead_code, reason = "each test uses its own part")]
#![expect(clippy::disallowed_methods, reason = "waiting for a process needs the clock")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::rpc::Rpc;

/// Far beyond what anything here takes on a busy machine; only a failing test waits for so long.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(5);

/// What would tell a process where things are, or that a service manager watches it.
const INHERITED: [&str; 13] = [
    "CARGO",
    "CORTEX_SOCKET",
    "CORTEX_DATA_DIR",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
    "JOURNAL_STREAM",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "NO_COLOR",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Waits until `holds`, and fails the test where it does not come true.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIME_LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {TIME_LIMIT:?}: {what}");
        sleep(POLL);
    }
}

/// How long something took.
pub(crate) fn time_of<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let result = act();
    (result, started.elapsed())
}

/// The daemon, in an environment that says nothing.
pub(crate) fn cortexd() -> Command {
    bare(env!("CARGO_BIN_EXE_cortexd"))
}

/// The command line tool, in an environment in which it finds no daemon by itself.
pub(crate) fn cortex() -> Command {
    bare(env!("CARGO_BIN_EXE_cortex"))
}

pub(crate) fn bare(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in INHERITED {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

/// A program that looks for the socket and the data in a directory laid out as a [`Daemon`]'s is.
pub(crate) fn in_dir(mut command: Command, directory: &Path) -> Command {
    command.env("CORTEX_SOCKET", socket_in(directory));
    command.env("CORTEX_DATA_DIR", data_in(directory));
    command
}

pub(crate) fn socket_in(directory: &Path) -> PathBuf {
    directory.join("cortex.sock")
}

fn data_in(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// A directory that goes away with its contents.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("make a directory")
}

/// Brings the daemon along to where any user can reach it.
pub(crate) fn copy_daemon(to: &Path) {
    copy_program(env!("CARGO_BIN_EXE_cortexd"), to);
}

/// Another process copies it: a file that some child of this one may have inherited open for
/// writing cannot be run.
pub(crate) fn copy_program(program: &str, to: &Path) {
    let copied = Command::new("cp").arg(program).arg(to).status();
    assert!(copied.expect("run cp").success());
}

/// Waits for a process that should end by itself.
pub(crate) fn wait_for_end(process: &mut Child) -> ExitStatus {
    let mut ended = None;
    wait_until("the process ends", || {
        ended = process.try_wait().expect("look after the process");
        ended.is_some()
    });
    ended.expect("it has ended")
}

/// Runs a process that should end by itself; one that does not is killed and fails the test.
pub(crate) fn output_of(command: &mut Command) -> Output {
    let mut process =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start the process");
    let deadline = Instant::now() + TIME_LIMIT;
    while process.try_wait().expect("look after the process").is_none() {
        if Instant::now() > deadline {
            process.kill().expect("kill the process");
            let output = process.wait_with_output().expect("collect the process");
            panic!("it did not end: {}", String::from_utf8_lossy(&output.stderr));
        }
        sleep(POLL);
    }
    process.wait_with_output().expect("collect the process")
}

/// A process that is killed when dropped.
#[derive(Debug)]
pub(crate) struct Guarded(pub(crate) Child);

impl Guarded {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal the process");
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a process id")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself; waiting collects it either way.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running daemon. Killed, and its directory removed, when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Option<Guarded>,
    uid: Option<u32>,
    program: PathBuf,
    // Last, so that they are removed after the process has ended.
    /// In memory, for the word on how far the database has come: that of the machine stays untouched.
    rollback_marker: tempfile::TempDir,
    directory: tempfile::TempDir,
}

impl Daemon {
    /// Starts a daemon with an empty store and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::with_config("")
    }

    /// The same with these settings.
    pub(crate) fn with_config(config: &str) -> Self {
        let daemon = Self::at(directory(), env!("CARGO_BIN_EXE_cortexd").into(), None);
        daemon.started(config)
    }

    /// The same as another user, in a directory that everybody may look into. Only root can.
    pub(crate) fn as_uid(uid: u32, config: &str) -> Self {
        let directory = directory();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))
            .expect("open the directory");
        let program = directory.path().join("cortexd");
        copy_daemon(&program);
        std::os::unix::fs::chown(directory.path(), Some(uid), Some(uid))
            .expect("give the directory away");
        Self::at(directory, program, Some(uid)).started(config)
    }

    fn at(directory: tempfile::TempDir, program: PathBuf, uid: Option<u32>) -> Self {
        let rollback_marker = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let rollback_marker = rollback_marker.expect("make a directory");
        if uid.is_some() {
            std::os::unix::fs::chown(rollback_marker.path(), uid, uid)
                .expect("give the directory away");
        }
        Self { process: None, uid, program, rollback_marker, directory }
    }

    fn started(mut self, config: &str) -> Self {
        self.write_config(config);
        self.spawn();
        self
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.directory())
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        data_in(self.directory())
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory().join("cortex.toml")
    }

    /// Changes the settings that a reload or the next start reads. Off the message bus: this
    /// machine's is not a test's.
    pub(crate) fn write_config(&self, config: &str) {
        let config = format!("bus = \"off\"\n{config}");
        fs::write(self.config(), config).expect("write the configuration");
    }

    /// What it has logged, over all its starts.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).expect("read the log")
    }

    fn log_path(&self) -> PathBuf {
        self.directory().join("log")
    }

    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_until(text, || self.log().contains(text));
    }

    pub(crate) fn connect(&self) -> Rpc {
        Rpc::connect(&self.socket())
    }

    pub(crate) fn process(&self) -> &Guarded {
        self.process.as_ref().expect("it runs")
    }

    /// A line of `/proc/PID/status` that counts in KiB: `VmRSS`, `VmHWM`.
    pub(crate) fn memory_kib(&self, line: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process().pid());
        let status = fs::read_to_string(path).expect("read the process's status");
        let value = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
        let number = value.and_then(|value| value.trim().strip_suffix(" kB"));
        number.expect("a line in kB").parse().expect("a number")
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        process.signal(Signal::SIGTERM);
        wait_for_end(&mut process.0)
    }

    /// Waits for a daemon that was told to end.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        wait_for_end(&mut self.process.take().expect("it runs").0)
    }

    /// Ends it as a crash does (SIGKILL).
    pub(crate) fn kill(&mut self) {
        drop(self.process.take().expect("it runs"));
    }

    /// Starts it again on what it left behind, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        assert!(self.process.is_none(), "it still runs");
        self.spawn();
    }

    /// Starts it where it is expected to refuse, and waits for its end.
    pub(crate) fn try_start(&self) -> Output {
        output_of(&mut self.command())
    }

    fn command(&self) -> Command {
        let mut command = bare(&self.program);
        command.arg("--socket").arg(self.socket());
        command.arg("--data-dir").arg(self.data_dir());
        command.arg("--config").arg(self.config());
        command.env("RUNTIME_DIRECTORY", self.rollback_marker.path());
        command.env("CORTEX_TEST_CLOCK", self.clock());
        command
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path());
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(log.expect("open the log"));
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        self.process = Some(Guarded(command.spawn().expect("start the daemon")));
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&mut self) {
        wait_until("the daemon answers", || {
            let process = &mut self.process.as_mut().expect("it was started").0;
            let ended = process.try_wait().expect("look after the daemon");
            assert!(ended.is_none(), "the daemon ended with {ended:?}");
            Rpc::try_connect(&self.socket()).is_ok_and(|mut rpc| rpc.call("ping", &[]).is_ok())
        });
        // The connection above has taken a place; tests that count places start with none taken.
        let mut counting = self.connect();
        wait_until("only one connection is open", || {
            let status = counting.call("status", &[]).expect("status");
            super::rpc::field(&status, "connections") == Some(&1.into())
        });
    }

    fn clock(&self) -> PathBuf {
        self.directory().join("clock")
    }

    /// Has it believe that it is by so many milliseconds later than it is, from now on.
    pub(crate) fn set_clock(&self, wrong_by_ms: i64) {
        // In one step: it may be read at any moment.
        let new = self.directory().join("clock.new");
        fs::write(&new, wrong_by_ms.to_string()).expect("write the clock");
        fs::rename(new, self.clock()).expect("set the clock");
    }

    /// Runs the command line tool against it.
    pub(crate) fn cortex(&self, arguments: &[&str]) -> Output {
        output_of(cortex().arg("--socket").arg(self.socket()).args(arguments))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log_path()).unwrap_or_default();
            eprintln!("the daemon's log:\n{log}");
        }
    }
}
