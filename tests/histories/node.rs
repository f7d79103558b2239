//! One node: the real daemon as a process on places of its own, and what may be done to it.
//! Leaves what is asked of it to `client`, and what it is configured with to `world`.
//!
//! ```text
//!   BASE/NAME/cortex.sock, cortex.toml, log
//!   BASE/NAME/run/          the rollback marker
//!   BASE/NAME/disk/         a small file system of its own, where that is possible: it can be filled
//!   BASE/NAME/disk/data/    the database
//!   BASE/NAME/clock         how far its clock is off, for libfaketime
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use cortexd::sys::clock;
use nix::sys::signal::Signal;
use rmpv::Value;

use crate::check::health::Resources;
use crate::client::{Client, Reply};
use crate::daemon::{Guarded, bare, output_of};

/// Only a failing history waits for so long.
const START: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) port: u16,
    directory: PathBuf,
    program: PathBuf,
    faketime: Option<PathBuf>,
    process: Option<Guarded>,
    is_stopped: bool,
    /// How much of the log earlier cycles have judged.
    judged: usize,
}

impl Node {
    pub(crate) fn new(
        base: &Path,
        name: &str,
        port: u16,
        program: &Path,
        faketime: Option<&Path>,
    ) -> Self {
        let directory = base.join(name);
        for part in ["run", "disk"] {
            fs::create_dir_all(directory.join(part)).expect("make a directory");
        }
        Self {
            name: name.to_owned(),
            port,
            directory,
            program: program.to_owned(),
            faketime: faketime.map(Path::to_owned),
            process: None,
            is_stopped: false,
            judged: 0,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("cortex.sock")
    }

    fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.disk().join("data")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data_dir().join("cortex.db")
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn config(&self) -> PathBuf {
        self.directory.join("cortex.toml")
    }

    /// In one step: a daemon that starts meanwhile reads the whole of one or of the other.
    pub(crate) fn write_config(&self, config: &str) {
        let new = self.directory.join("cortex.toml.new");
        fs::write(&new, format!("bus = \"off\"\n{config}")).expect("write the configuration");
        fs::rename(new, self.config()).expect("put the configuration in its place");
    }

    pub(crate) fn client(&self, timeout: Duration) -> Client {
        Client::new(&self.socket(), timeout)
    }

    pub(crate) fn ask(&self, method: &str, params: &[Value]) -> Reply {
        self.client(Duration::from_secs(20)).call(method, params)
    }

    fn command(&self) -> Command {
        let mut command = bare(&self.program);
        command.arg("--socket").arg(self.socket());
        command.arg("--data-dir").arg(self.data_dir());
        command.arg("--config").arg(self.config());
        command.env("RUNTIME_DIRECTORY", self.directory.join("run"));
        if let Some(library) = &self.faketime {
            command.env("LD_PRELOAD", library);
            command.env("FAKETIME_TIMESTAMP_FILE", self.directory.join("clock"));
            command.env("FAKETIME_CACHE_DURATION", "1");
            for monotonic in ["DONT_FAKE_MONOTONIC", "FAKETIME_DONT_FAKE_MONOTONIC"] {
                command.env(monotonic, "1");
            }
        }
        command
    }

    /// Sets its clock so many seconds ahead of the others', as it will be noticed within a second.
    pub(crate) fn set_clock(&self, seconds: i64) {
        let (new, place) = (self.directory.join("clock.new"), self.directory.join("clock"));
        fs::write(&new, format!("{seconds:+}\n")).expect("write the clock");
        fs::rename(new, place).expect("put the clock in its place");
    }

    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.log_path());
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(log.expect("open the log"));
        self.process = Some(Guarded(command.spawn().expect("start the daemon")));
        self.is_stopped = false;
    }

    /// Waits until it answers; false where it has ended instead.
    pub(crate) fn wait_until_it_answers(&mut self) -> bool {
        let deadline = clock::monotonic() + START;
        while clock::monotonic() < deadline {
            if !self.is_running() {
                return false;
            }
            if let Reply::Done(_) = self.client(Duration::from_secs(1)).call("ping", &[]) {
                return true;
            }
            sleep(Duration::from_millis(20));
        }
        false
    }

    /// Whether the process is there, stopped or not.
    pub(crate) fn is_running(&mut self) -> bool {
        let Some(process) = &mut self.process else { return false };
        if process.0.try_wait().expect("look after the daemon").is_some() {
            self.process = None;
        }
        self.process.is_some()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Ends it as a service manager does; false where that took too long.
    pub(crate) fn terminate(&mut self) -> bool {
        self.go_on();
        let Some(mut process) = self.process.take() else { return true };
        process.signal(Signal::SIGTERM);
        let deadline = clock::monotonic() + START;
        while clock::monotonic() < deadline {
            if process.0.try_wait().expect("look after the daemon").is_some() {
                return true;
            }
            sleep(Duration::from_millis(10));
        }
        false
    }

    pub(crate) fn stop(&mut self) {
        if let Some(process) = self.process.as_ref().filter(|_| !self.is_stopped) {
            process.signal(Signal::SIGSTOP);
            self.is_stopped = true;
        }
    }

    pub(crate) fn go_on(&mut self) {
        if let Some(process) = self.process.as_ref().filter(|_| self.is_stopped) {
            process.signal(Signal::SIGCONT);
        }
        self.is_stopped = false;
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Puts a backup in the place of the database. It must have ended.
    pub(crate) fn restore(&self, backup: &Path) -> Result<(), String> {
        assert!(self.process.is_none(), "{} runs", self.name);
        let output = output_of(self.command().arg("restore").arg(backup));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // What was there before is kept for the operator, who has seen that all is well.
        for entry in fs::read_dir(self.data_dir()).expect("list a directory").flatten() {
            if entry.file_name().to_string_lossy().contains(".before-restore-") {
                fs::remove_file(entry.path()).expect("remove what was there before");
            }
        }
        if output.status.success() { Ok(()) } else { Err(told) }
    }

    /// A fresh machine of the same name: nothing of the old one is left.
    pub(crate) fn wipe(&self) {
        for directory in [self.disk(), self.directory.join("run")] {
            for entry in fs::read_dir(directory).expect("list a directory") {
                let path = entry.expect("an entry").path();
                let removed =
                    if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.expect("remove what is there");
            }
        }
    }

    /// Fills its file system to the last byte.
    pub(crate) fn fill_disk(&self) {
        let mut file = File::create(self.disk().join("ballast")).expect("make a file");
        for size in [1 << 20, 64 << 10, 4 << 10, 1] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    pub(crate) fn empty_disk(&self) {
        let _was_not_full = fs::remove_file(self.disk().join("ballast"));
    }

    pub(crate) fn resources(&self) -> Option<Resources> {
        let process = format!("/proc/{}", self.process.as_ref()?.pid());
        let status = fs::read_to_string(format!("{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let memory_kib = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        let descriptors = fs::read_dir(format!("{process}/fd")).ok()?.count();
        Some(Resources { memory_kib, descriptors })
    }

    /// What it has logged since this was asked last.
    pub(crate) fn new_log(&mut self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let new = String::from_utf8_lossy(&log[self.judged.min(log.len())..]).into_owned();
        self.judged = log.len();
        new
    }
}
