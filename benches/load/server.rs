//! The two servers as processes: started, asked whether they are ready, ended.
//!
//! What a server is loaded with, and what that costs it, is left to `figures`;
//! here is only the reading of its CPU time.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::msgpack::Msgpack;
use super::resp::Resp;
use super::wire::{Reply, Skimmed, Stop, Wire};

/// Both start in well under a second on an empty directory.
const START_LIMIT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(20);

/// How long a server may take to end when asked, before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A server counts as idle when it used at most one clock tick in this time.
const IDLE_WINDOW: Duration = Duration::from_millis(100);
/// Longer than a checkpoint or a rewrite of the log of a default-sized table.
const IDLE_LIMIT: Duration = Duration::from_secs(20);

/// How much of a server's output an error quotes.
const LOG_TAIL_BYTES: usize = 2000;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    Cortexd,
    Redis,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cortexd => "cortexd",
            Self::Redis => "redis",
        }
    }

    fn command(self, socket: &Path, data: &Path) -> Command {
        match self {
            Self::Cortexd => cortexd(socket, data),
            Self::Redis => redis(socket, data),
        }
    }

    fn ping(self, socket: &Path) -> Result<Reply> {
        match self {
            Self::Cortexd => ask::<Msgpack>(socket, Wire::ping),
            Self::Redis => ask::<Resp>(socket, Wire::ping),
        }
    }

    /// Makes what the load needs to find.
    fn prepare(self, socket: &Path) -> Result<()> {
        match self {
            Self::Cortexd => {
                let reply = ask::<Msgpack>(socket, Msgpack::create_table)?;
                ensure!(reply == Reply::Done, "create_table answered {reply:?}");
                Ok(())
            }
            Self::Redis => Ok(()),
        }
    }
}

fn cortexd(socket: &Path, data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cortexd"));
    command.arg("--socket").arg(socket);
    command.arg("--data-dir").arg(data);
    command
}

/// Redis as it ships, but every write synced before its reply, and nothing else
/// kept on disk than that log.
fn redis(socket: &Path, data: &Path) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--daemonize", "no"]);
    command.args(["--appendonly", "yes", "--appendfsync", "always"]);
    command.arg("--unixsocket").arg(socket);
    command.arg("--dir").arg(data);
    command
}

/// A running server, ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) peer: Peer,
    pub(crate) socket: PathBuf,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a server on an empty directory below `data` and waits until it
    /// answers. Nothing is left running on an error.
    pub(crate) fn start(peer: Peer, sockets: &Path, data: &Path) -> Result<Self> {
        let socket = sockets.join(format!("{}.sock", peer.name()));
        let log = data.join(format!("{}.log", peer.name()));
        let data = data.join(peer.name());
        fs::create_dir(&data).with_context(|| format!("create {}", data.display()))?;
        let child = spawn(peer.command(&socket, &data), &log)
            .with_context(|| format!("start {}", peer.name()))?;
        let mut server = Self { peer, socket, child, log };
        let ready = server.wait_until_ready().and_then(|()| peer.prepare(&server.socket));
        server.explained(ready, || format!("start {}", peer.name()))?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().context("look after the process")? {
                bail!("it ended before it answered, with {status}");
            }
            let answer = self.peer.ping(&self.socket);
            match answer {
                Ok(Reply::Done) => return Ok(()),
                _ if Instant::now() < deadline => sleep(START_POLL),
                // Redis refuses with `LOADING` while it reads its log.
                Ok(reply) => bail!("not ready within {START_LIMIT:?}, answers {reply:?}"),
                Err(error) => {
                    return Err(error.context(format!("not ready within {START_LIMIT:?}")));
                }
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let ticks = cpu_ticks(&stat).with_context(|| format!("make sense of {path}"))?;
        Ok(tick()? * ticks)
    }

    /// Waits for work that the server put off, such as checkpoints and rewrites of
    /// its log, so that it is counted as its own and not felt by the next run.
    pub(crate) fn wait_until_idle(&self) -> Result<()> {
        let deadline = Instant::now() + IDLE_LIMIT;
        while !self.is_idle()? {
            if Instant::now() > deadline {
                let name = self.peer.name();
                eprintln!("warning: {name} is still busy {IDLE_LIMIT:?} after the load ended");
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_idle(&self) -> Result<bool> {
        let before = self.cpu()?;
        sleep(IDLE_WINDOW);
        let is_quiet = self.cpu()? - before <= tick()?;
        Ok(is_quiet && !self.has_children())
    }

    /// Redis rewrites its log in a child. Kernels without this file cannot tell.
    fn has_children(&self) -> bool {
        let pid = self.pid();
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .is_ok_and(|children| !children.trim().is_empty())
    }

    /// Adds to an error what was attempted and what the server had to say, as its
    /// log is gone when the error is read.
    pub(crate) fn explained<T>(
        &self,
        result: Result<T>,
        attempt: impl FnOnce() -> String,
    ) -> Result<T> {
        result.map_err(|error| match self.log_tail().trim_end() {
            "" => anyhow!("{}: {error:#}; it logged nothing", attempt()),
            tail => anyhow!("{}: {error:#}; its log ends with:\n{tail}", attempt()),
        })
    }

    fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let start = log.len().saturating_sub(LOG_TAIL_BYTES);
        String::from_utf8_lossy(&log[start..]).into_owned()
    }

    fn stop(&mut self) -> Result<()> {
        let pid = i32::try_from(self.pid()).context("read a process id")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).context("send SIGTERM")?;
        let deadline = Instant::now() + STOP_LIMIT;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "still there after {STOP_LIMIT:?}");
            sleep(START_POLL);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        if let Err(error) = self.stop() {
            eprintln!("warning: kill {}: {error:#}", self.peer.name());
            // What is left to report is that killing failed too; nobody can act on it.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let errors = output.try_clone().context("share the log")?;
    let program = command.get_program().to_owned();
    command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|error| explain(error, &program.to_string_lossy()))
}

fn explain(error: std::io::Error, program: &str) -> anyhow::Error {
    if error.kind() == ErrorKind::NotFound && program == "redis-server" {
        return anyhow!(
            "redis-server is not in PATH: install the Debian package `redis-server`, \
             or measure cortexd alone with --only cortexd"
        );
    }
    anyhow::Error::new(error).context(format!("run {program}"))
}

/// Sends one request on a connection of its own and waits for the reply.
fn ask<W: Wire>(socket: &Path, encode: impl FnOnce(&mut W, &mut Vec<u8>)) -> Result<Reply> {
    let mut wire = W::default();
    let mut request = Vec::new();
    encode(&mut wire, &mut request);
    let mut stream = UnixStream::connect(socket).context("connect")?;
    stream.set_read_timeout(Some(START_LIMIT)).context("set a timeout")?;
    stream.write_all(&request).context("send a request")?;
    let mut bytes = Vec::new();
    loop {
        match wire.skim(&bytes) {
            Ok(Skimmed { reply, .. }) => return Ok(reply),
            Err(Stop::Malformed(what)) => bail!("unreadable reply: {what}"),
            Err(Stop::Partial) => receive(&mut stream, &mut bytes)?,
        }
    }
}

fn receive(stream: &mut UnixStream, bytes: &mut Vec<u8>) -> Result<()> {
    let mut buffer = [0; 512];
    let n = stream.read(&mut buffer).context("read a reply")?;
    ensure!(n > 0, "the server closed the connection");
    bytes.extend_from_slice(&buffer[..n]);
    Ok(())
}

/// The sum of `utime` and `stime`, the 14th and 15th field. The second, the
/// program's name, may contain anything, so counting starts after its parenthesis.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn tick() -> Result<Duration> {
    let per_second = sysconf(SysconfVar::CLK_TCK)
        .context("ask for the clock's tick")?
        .and_then(|ticks| u32::try_from(ticks).ok())
        .filter(|ticks| *ticks > 0)
        .context("the clock has no tick")?;
    Ok(Duration::from_secs(1) / per_second)
}
