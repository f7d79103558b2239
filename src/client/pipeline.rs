//! Many requests under way on one connection, within a window, answered in the order in which they were sent.
//! Leaves to the caller which requests those are, and what to do about a refusal.
//!
//! ```text
//!   send ──> out ──(64 KiB, or before waiting)──> socket ──> daemon
//!             └── under_way: id, size, tag                      │
//!   next_answer <── head of under_way <── Incoming <── socket <─┘
//! ```
//!
//! A client that only writes and a daemon that only answers can block each other for good, each with a full
//! socket buffer. So a write never waits alone: whenever the socket takes no more, `poll` waits for room *or*
//! for answers, and answers are taken in. They fit in memory because the window bounds them.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};

use cortex_core::api::Request;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use super::{Client, Error, MAX_VALUE, error, raw, reply};

/// Requests are handed to the socket in pieces of about this size: a system call per request would cost more
/// than encoding it.
const WRITE_SIZE: usize = 64 * 1024;

/// How much may be under way at once. The last request may exceed `bytes`, so that one of any size fits.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Requests without an answer.
    pub requests: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// The daemon's answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// What the caller gave along with the request.
    pub tag: T,
    /// `Err` is the daemon's refusal of this request; the others are not affected.
    pub outcome: Result<(), String>,
}

/// A connection in use for many requests. Ask [`has_room`](Self::has_room) before each
/// [`send`](Self::send), take answers with [`next_answer`](Self::next_answer) while it says no, and at the
/// end until there are none.
#[derive(Debug)]
pub struct Pipeline<'c, T> {
    client: &'c mut Client,
    window: Window,
    under_way: VecDeque<InFlight<T>>,
    bytes_under_way: usize,
    out: Vec<u8>,
    /// The daemon takes no more; its answers so far, and its reason if it gave one, can still be read.
    hung_up: bool,
}

#[derive(Debug)]
struct InFlight<T> {
    id: u32,
    bytes: usize,
    tag: T,
}

impl<'c, T> Pipeline<'c, T> {
    pub(super) fn new(client: &'c mut Client, window: Window) -> Self {
        Self {
            client,
            window,
            under_way: VecDeque::new(),
            bytes_under_way: 0,
            out: Vec::new(),
            hung_up: false,
        }
    }

    /// Whether another request may be sent before an answer is taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.hung_up
            && self.under_way.len() < self.window.requests
            && self.bytes_under_way < self.window.bytes
    }

    /// Queues a request, and sends what is queued if it is enough. Whether a request is out of bounds that the
    /// daemon may have set wider is asked of it if nothing is under way. After `OutOfBounds` the pipeline goes on as if
    /// nothing had been asked of it.
    ///
    /// # Errors
    /// [`Error`]; after any but `OutOfBounds` the connection is of no more use.
    pub fn send<'r, R: Request<'r>>(&mut self, request: &R, tag: T) -> Result<(), Error> {
        self.client.skip_unread()?;
        let start = self.out.len();
        let id = match self.client.encode(request, &mut self.out) {
            Err(Error::OutOfBounds(_))
                if self.under_way.is_empty() && !self.client.bounds_known =>
            {
                self.client.learn_bounds()?;
                self.client.encode(request, &mut self.out)?
            }
            encoded => encoded?,
        };
        let bytes = self.out.len() - start;
        self.under_way.push_back(InFlight { id, bytes, tag });
        self.bytes_under_way += bytes;
        if self.out.len() >= WRITE_SIZE { self.flush() } else { Ok(()) }
    }

    /// Waits for the answer to the oldest request; `None` if none is under way.
    ///
    /// # Errors
    /// [`Error`]; the connection is of no more use then.
    pub fn next_answer(&mut self) -> Result<Option<Answer<T>>, Error> {
        self.answer(&mut Vec::new(), 0)
    }

    /// The same, and puts the MessagePack bytes of the result in the place of what is in `result`.
    ///
    /// # Errors
    /// [`Error`]; the connection is of no more use then.
    pub fn next_result(&mut self, result: &mut Vec<u8>) -> Result<Option<Answer<T>>, Error> {
        result.clear();
        self.answer(result, MAX_VALUE)
    }

    /// Takes the next answer, and keeps its result where it has no more than so many bytes.
    fn answer(&mut self, result: &mut Vec<u8>, keep: usize) -> Result<Option<Answer<T>>, Error> {
        // What has arrived is answered to requests that are sent already; only before waiting must the rest go.
        if self.client.incoming.is_empty() {
            self.flush()?;
        }
        let Some(oldest) = self.under_way.front() else {
            return Ok(None);
        };
        let outcome = reply::read_head(&mut self.client.incoming, oldest.id)?;
        let size = raw::copy_value(&mut self.client.incoming, result, keep)?;
        if keep > 0 && size > result.len() as u64 {
            return Err(Error::Protocol(format!("a result is {size} bytes long")));
        }
        let answered = self.under_way.pop_front().map(|request| {
            self.bytes_under_way -= request.bytes;
            Answer { tag: request.tag, outcome }
        });
        Ok(answered)
    }

    /// The tags of the requests that have no answer yet, oldest first: after an error, what is in doubt.
    pub fn unanswered(&self) -> impl ExactSizeIterator<Item = &T> {
        self.under_way.iter().map(|request| &request.tag)
    }

    /// Sends everything that is queued, taking in answers meanwhile.
    ///
    /// # Errors
    /// [`Error`]; the connection is of no more use then.
    pub fn flush(&mut self) -> Result<(), Error> {
        let mut sent = 0;
        while sent < self.out.len() && !self.hung_up {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.client.incoming.stream().as_raw_fd(), &self.out[sent..], flags) {
                Ok(amount) => sent += amount,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.wait_for_room()?,
                Err(errno) => {
                    let error = errno.into();
                    if !error::means_closed(&error) {
                        return Err(error.into());
                    }
                    self.hung_up = true;
                }
            }
        }
        self.out.clear();
        Ok(())
    }

    fn wait_for_room(&mut self) -> Result<(), Error> {
        let timeout = match self.client.timeout {
            Some(timeout) => PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let readable = {
            let mut fds = [PollFd::new(
                self.client.incoming.stream().as_fd(),
                PollFlags::POLLIN | PollFlags::POLLOUT,
            )];
            match poll(&mut fds, timeout) {
                Ok(0) => return Err(Error::Timeout),
                Ok(_) => fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)),
                Err(Errno::EINTR) => false,
                Err(errno) => return Err(Error::Io(errno.into())),
            }
        };
        if readable {
            self.client.incoming.fill()?;
        }
        Ok(())
    }
}
