//! One thread that drives many nonblocking connections through epoll.
//!
//! It shares the machine with the server it measures, so it is kept light: one
//! read and one write per batch of a connection, reused buffers, and replies that
//! are skimmed where they arrived.
//!
//! ```text
//! load a batch → write → (epoll) → read → skim → all answered? ─no→ (epoll)
//!      ↑                                              │yes
//!      └──────────────── before the deadline ─────────┘
//! ```

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::wire::{Key, Reply, Stop, VALUE_BYTES, Wire};
use super::work::{Op, Work};

/// No reply at all for this long means a hung server, not a slow one.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// Holds the largest batch of replies several times over.
const INBOX_BYTES: usize = 16 * 1024;

/// The longest latency that is told apart, in nanoseconds.
const LATENCY_CEILING_NS: u64 = 60_000_000_000;

/// What a run of load came to.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) ops: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) elapsed: Duration,
    pub(crate) latencies_ns: Histogram<u64>,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            ops: 0,
            errors: 0,
            first_error: None,
            elapsed: Duration::ZERO,
            latencies_ns: latencies()?,
        })
    }

    fn count(&mut self, asked: Kind, reply: Reply) {
        self.ops += 1;
        if let Some(complaint) = complaint(asked, reply) {
            self.errors += 1;
            self.first_error.get_or_insert(complaint);
        }
    }
}

/// An empty histogram of nanoseconds, three digits fine.
pub(crate) fn latencies() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_CEILING_NS, 3).context("make a histogram")
}

/// What is wrong with a reply, if anything.
fn complaint(asked: Kind, reply: Reply) -> Option<String> {
    match (asked, reply) {
        (Kind::Put, Reply::Done) => None,
        (Kind::Get, Reply::Record(len)) if len >= VALUE_BYTES => None,
        (_, Reply::Refused(text)) => Some(text),
        (Kind::Get, Reply::Record(len)) => Some(format!("a record of only {len} bytes")),
        (Kind::Get, Reply::Done) => Some("a get answered without a record".to_owned()),
        (Kind::Put, Reply::Record(_)) => Some("a put answered with a record".to_owned()),
    }
}

/// The open connections of one scenario.
#[derive(Debug)]
pub(crate) struct Fleet<W> {
    epoll: Epoll,
    conns: Vec<Conn<W>>,
}

impl<W: Wire> Fleet<W> {
    pub(crate) fn connect(socket: &Path, clients: usize, pipeline: usize) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("create an epoll")?;
        let conns =
            (0..clients).map(|_| Conn::connect(socket, pipeline)).collect::<Result<Vec<_>>>()?;
        for (token, conn) in (0_u64..).zip(&conns) {
            epoll
                .add(&conn.stream, EpollEvent::new(EpollFlags::EPOLLIN, token))
                .context("register a connection")?;
        }
        Ok(Self { epoll, conns })
    }

    /// Carries `work` out until it ends or the time is up, and waits for every
    /// reply that is due. An error leaves the fleet unusable.
    pub(crate) fn drive(&mut self, work: &mut Work, limit: Option<Duration>) -> Result<Tally> {
        let start = Instant::now();
        let deadline = limit.map(|limit| start + limit);
        let mut tally = Tally::new()?;
        let mut busy = 0_usize;
        for token in 0..self.conns.len() {
            busy += usize::from(self.start_batch(token, work, Instant::now())?);
        }
        let mut events = vec![EpollEvent::empty(); self.conns.len()];
        while busy > 0 {
            let ready = self.wait(&mut events)?;
            for event in &events[..ready] {
                let token = usize::try_from(event.data()).context("read an epoll token")?;
                let now = self.progress(token, event.events(), &mut tally)?;
                if !self.conns[token].is_answered() {
                    continue;
                }
                let is_over = deadline.is_some_and(|deadline| now >= deadline);
                if is_over || !self.start_batch(token, work, now)? {
                    busy -= 1;
                }
            }
        }
        tally.elapsed = start.elapsed();
        Ok(tally)
    }

    fn wait(&self, events: &mut [EpollEvent]) -> Result<usize> {
        let timeout = EpollTimeout::try_from(SILENCE_LIMIT).context("set a timeout")?;
        loop {
            match self.epoll.wait(events, timeout) {
                Ok(0) => bail!("no reply for {SILENCE_LIMIT:?}"),
                Ok(ready) => return Ok(ready),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for replies"),
            }
        }
    }

    /// Does what `event` allows, and returns when that was.
    fn progress(&mut self, token: usize, event: EpollFlags, tally: &mut Tally) -> Result<Instant> {
        if event.contains(EpollFlags::EPOLLOUT) {
            self.flush(token)?;
        }
        if event.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return self.conns[token].receive(tally);
        }
        Ok(Instant::now())
    }

    /// Sends the next batch of a connection; `false` when there is no more work.
    fn start_batch(&mut self, token: usize, work: &mut Work, now: Instant) -> Result<bool> {
        if !self.conns[token].load(work, now) {
            return Ok(false);
        }
        self.flush(token)?;
        Ok(true)
    }

    /// Writes what the socket takes, and asks to be woken for the rest.
    fn flush(&mut self, token: usize) -> Result<()> {
        let conn = &mut self.conns[token];
        let is_stuck = !conn.write()?;
        if is_stuck == conn.is_stuck {
            return Ok(());
        }
        conn.is_stuck = is_stuck;
        let mut interest = EpollFlags::EPOLLIN;
        interest.set(EpollFlags::EPOLLOUT, is_stuck);
        self.epoll
            .modify(&conn.stream, &mut EpollEvent::new(interest, token as u64))
            .context("change what a connection waits for")
    }
}

/// Which reply is due.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Put,
    Get,
}

/// One connection and its batch in flight.
#[derive(Debug)]
struct Conn<W> {
    stream: UnixStream,
    wire: W,
    pipeline: usize,
    outbox: Vec<u8>,
    written: usize,
    /// Whether the socket was full and epoll watches for room.
    is_stuck: bool,
    inbox: Vec<u8>,
    filled: usize,
    asked: Vec<Kind>,
    answered: usize,
    sent: Instant,
}

impl<W: Wire> Conn<W> {
    fn connect(socket: &Path, pipeline: usize) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_nonblocking(true).context("make nonblocking")?;
        Ok(Self {
            stream,
            wire: W::default(),
            pipeline,
            outbox: Vec::new(),
            written: 0,
            is_stuck: false,
            inbox: vec![0; INBOX_BYTES],
            filled: 0,
            asked: Vec::with_capacity(pipeline),
            answered: 0,
            sent: Instant::now(),
        })
    }

    /// Encodes the next batch; `false` when there is no more work.
    fn load(&mut self, work: &mut Work, now: Instant) -> bool {
        self.outbox.clear();
        self.written = 0;
        self.asked.clear();
        self.answered = 0;
        self.sent = now;
        while self.asked.len() < self.pipeline
            && let Some(op) = work.next()
        {
            self.encode(&op);
        }
        !self.asked.is_empty()
    }

    fn encode(&mut self, op: &Op<'_>) {
        let kind = match op {
            Op::Put(row, value) => {
                self.wire.put(&mut self.outbox, &Key::of(*row), value);
                Kind::Put
            }
            Op::Get(row) => {
                self.wire.get(&mut self.outbox, &Key::of(*row));
                Kind::Get
            }
        };
        self.asked.push(kind);
    }

    /// Writes what the socket takes; `false` when some is left over.
    fn write(&mut self) -> Result<bool> {
        while self.written < self.outbox.len() {
            match (&self.stream).write(&self.outbox[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("send requests"),
            }
        }
        Ok(true)
    }

    /// Reads once and counts the replies that became whole.
    fn receive(&mut self, tally: &mut Tally) -> Result<Instant> {
        match (&self.stream).read(&mut self.inbox[self.filled..]) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(n) => self.filled += n,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("read replies"),
        }
        let now = Instant::now();
        self.skim(now, tally)?;
        Ok(now)
    }

    fn skim(&mut self, now: Instant, tally: &mut Tally) -> Result<()> {
        let mut start = 0;
        while start < self.filled {
            match self.wire.skim(&self.inbox[start..self.filled]) {
                Ok(skimmed) => {
                    start += skimmed.len;
                    self.accept(now, skimmed.reply, tally)?;
                }
                Err(Stop::Partial) => break,
                Err(Stop::Malformed(what)) => bail!("unreadable reply: {what}"),
            }
        }
        self.inbox.copy_within(start..self.filled, 0);
        self.filled -= start;
        if self.filled == INBOX_BYTES {
            bail!("a reply of more than {INBOX_BYTES} bytes");
        }
        Ok(())
    }

    fn accept(&mut self, now: Instant, reply: Reply, tally: &mut Tally) -> Result<()> {
        let asked = *self.asked.get(self.answered).context("a reply to nothing that was asked")?;
        self.answered += 1;
        tally.count(asked, reply);
        let nanos = u64::try_from((now - self.sent).as_nanos()).unwrap_or(u64::MAX);
        tally.latencies_ns.saturating_record(nanos);
        Ok(())
    }

    fn is_answered(&self) -> bool {
        self.answered == self.asked.len()
    }
}
