//! Talks to cortexd over its Unix socket: one call after another, an answer of any size by its elements, or many
//! requests at once. It blocks; who the caller is, the kernel tells the daemon.
//! What the methods mean, and their types, is [`api`]'s.
//!
//! ```text
//!  Request ──> Client::call ────────> its Response
//!              Client::call_raw ────> the same, as the bytes that came
//!              Client::call_streamed > Elements: an array's elements, one at a time
//!              Client::pipeline ────> Pipeline: many requests under way, answers in their order
//!                     │
//!               Incoming (buffered reads) ─> raw (one MessagePack value's bytes) ─> reply (head of an answer)
//! ```
//!
//! A table of one's own, a record in it, and the same record back:
//!
//! ```no_run
//! use std::{path::Path, time::Duration};
//!
//! use cortex_client::{
//!     Client, Error,
//!     api::{self, Raw, encoded},
//! };
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct User {
//!     id: u64,
//!     name: String,
//! }
//!
//! fn main() -> Result<(), Error> {
//!     let socket = Path::new("/run/cortex/cortex.sock");
//!     let mut client = Client::connect(socket, Some(Duration::from_secs(30)))?;
//!     let attributes = ["id", "name"].into_iter().collect();
//!     match client.call(&api::CreateTable { name: "users", attributes, scope: None }) {
//!         Err(Error::Refused(why)) if why == "already_exists" => {}
//!         made => assert_eq!(made?, "created"),
//!     }
//!
//!     let ann = User { id: 7, name: "Ann".to_owned() };
//!     client.call(&api::Put { table: "users", record: Raw(&encoded(&ann)) })?;
//!     let found = client.call(&api::Get { table: "users", key: Raw(&encoded(&7)) })?;
//!     assert_eq!(found.decoded::<User>()?, ann);
//!
//!     // A table may be larger than memory, and a record may have other fields than these.
//!     let all = api::All { table: "users", page: api::Page::default() };
//!     let mut records = client.call_streamed(&all)?;
//!     while let Some(record) = records.next_element()? {
//!         println!("{} bytes", record.len());
//!     }
//!     let status = client.call(&api::Status {})?;
//!     println!("cortexd {} on {}", status.version, status.node);
//!     Ok(())
//! }
//! ```
//!
//! No runtime and no thread: a command line tool makes one call and is gone. Only [`Pipeline`] must read
//! while it writes, and does it with `poll`. Who lives in a runtime runs a client on a thread of its own, or moves
//! the bytes themselves: [`api::Request::write`] and [`api::Response::read`] are all but the frames, which are
//! [`cortex_core::wire::rpc`]'s and [`cortex_core::wire::Scanner`]'s.

#![warn(missing_docs)]

mod error;
mod incoming;
mod pipeline;
pub mod raw;
mod reply;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use cortex_core::api::{Request, Response, Status, StatusReport};
use cortex_core::wire::{Bounds, rpc};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

pub use cortex_core::api;
pub use error::Error;
pub use pipeline::{Answer, Pipeline, Window};

use incoming::Incoming;

/// The longest request that a daemon takes whose settings say nothing of it.
pub const MAX_REQUEST: usize = 1024 * 1024;

/// The longest answer that [`Client::call`] decodes into a tree; the bytes of a tree are several times its
/// encoding. Longer answers are for [`Client::call_streamed`].
const MAX_VALUE: usize = 256 * 1024 * 1024;

/// One connection to the daemon.
#[derive(Debug)]
pub struct Client {
    incoming: Incoming,
    timeout: Option<Duration>,
    last_id: u32,
    /// Elements of a streamed answer that nobody has read yet; they stand before the next answer.
    unread: usize,
    /// What the daemon takes. It closes the connection on a longer request, and with it everything else
    /// under way, so what is out of bounds is refused here, by itself.
    bounds: Bounds,
    /// Whether the bounds are the daemon's own, and not those of a daemon without settings.
    bounds_known: bool,
}

impl Client {
    /// Connects to the daemon at `path`. `timeout` bounds the connecting, and from then on every wait
    /// for the daemon to take or give a byte; `None` waits for ever.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::NoPermission`], [`Error::PathTooLong`], [`Error::Timeout`] and
    /// [`Error::Connect`].
    pub fn connect(path: &Path, timeout: Option<Duration>) -> Result<Self, Error> {
        let stream =
            connect_within(path, timeout).map_err(|errno| Error::connecting(path, errno))?;
        stream.set_read_timeout(timeout).map_err(Error::from)?;
        stream.set_write_timeout(timeout).map_err(Error::from)?;
        Ok(Self {
            incoming: Incoming::new(stream),
            timeout,
            last_id: 0,
            unread: 0,
            bounds: Bounds::default(),
            bounds_known: false,
        })
    }

    /// Asks the daemon what it takes. One that does not say takes what it always did.
    fn learn_bounds(&mut self) -> Result<(), Error> {
        self.bounds_known = true;
        let status = match self.call_raw(&Status {}) {
            Err(Error::Refused(_)) => StatusReport::default(),
            answered => StatusReport::read(&answered?).unwrap_or_default(),
        };
        let said = |figure: u64| usize::try_from(figure).ok().filter(|figure| *figure > 0);
        let Bounds { message_bytes, nesting } = self.bounds;
        self.bounds = Bounds {
            message_bytes: said(status.message_bytes).unwrap_or(message_bytes),
            nesting: said(status.nesting).unwrap_or(nesting),
        };
        Ok(())
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`Error`]; after any but `Refused` and `OutOfBounds` the connection is of no more use.
    pub fn call<'r, R: Request<'r>>(&mut self, request: &R) -> Result<R::Response, Error> {
        Ok(R::Response::read(&self.call_raw(request)?)?)
    }

    /// The same, with the result as the MessagePack bytes that came: for fields that this version does not know.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub fn call_raw<'r, R: Request<'r>>(&mut self, request: &R) -> Result<Vec<u8>, Error> {
        self.ask(request)?;
        let mut result = Vec::new();
        let size = raw::copy_value(&mut self.incoming, &mut result, MAX_VALUE)?;
        if size > result.len() as u64 {
            let method = R::METHOD.name();
            return Err(Error::Protocol(format!("the result of {method} is {size} bytes long")));
        }
        Ok(result)
    }

    /// Asks for a result that is an array, and hands out the elements as they arrive.
    /// Elements left unread are skipped by the next call.
    ///
    /// # Errors
    /// As of [`call`](Self::call); [`Error::Protocol`] where the result is no array.
    pub fn call_streamed<'r, R: Request<'r>>(
        &mut self,
        request: &R,
    ) -> Result<Elements<'_>, Error> {
        self.ask(request)?;
        let count = raw::enter_array(&mut self.incoming)?;
        self.unread =
            count.ok_or_else(|| Error::Protocol("the result is not an array".to_owned()))?;
        Ok(Elements { client: self, element: Vec::new() })
    }

    /// Begins to send requests without waiting for the answer to each. `T` is what the caller wants to get
    /// back with an answer, to know what it answers.
    pub fn pipeline<T>(&mut self, window: Window) -> Pipeline<'_, T> {
        Pipeline::new(self, window)
    }

    /// Sends one request and reads its answer up to where the result begins.
    fn ask<'r, R: Request<'r>>(&mut self, request: &R) -> Result<(), Error> {
        self.skip_unread()?;
        let mut message = Vec::new();
        let id = match self.encode(request, &mut message) {
            Err(Error::OutOfBounds(_)) if !self.bounds_known => {
                self.learn_bounds()?;
                self.encode(request, &mut message)?
            }
            encoded => encoded?,
        };
        match self.incoming.stream().write_all(&message) {
            Ok(()) => {}
            // The daemon may have said why before it hung up, and that can still be read.
            Err(e) if error::means_closed(&e) => {}
            Err(e) => return Err(e.into()),
        }
        match reply::read_head(&mut self.incoming, id)? {
            Ok(()) => Ok(()),
            Err(refusal) => {
                raw::skip_value(&mut self.incoming)?;
                Err(Error::Refused(refusal))
            }
        }
    }

    /// Appends a request to `out` and returns its id; refuses one that is out of bounds, leaving `out` as it was.
    fn encode<'r, R: Request<'r>>(&mut self, request: &R, out: &mut Vec<u8>) -> Result<u32, Error> {
        let start = out.len();
        // 0 is what the daemon answers with when it refuses the connection rather than a request.
        let id = self.last_id.checked_add(1).unwrap_or(1);
        rpc::begin_request(out, id.into(), R::METHOD.name());
        request.write(out);
        if let Err(why) = self.bounds.check(&out[start..]) {
            out.truncate(start);
            return Err(Error::OutOfBounds(why));
        }
        self.last_id = id;
        Ok(id)
    }

    fn skip_unread(&mut self) -> Result<(), Error> {
        while self.unread > 0 {
            raw::skip_value(&mut self.incoming)?;
            self.unread -= 1;
        }
        Ok(())
    }
}

/// The elements of an array that is still arriving; at most one of them is in memory.
#[derive(Debug)]
pub struct Elements<'c> {
    client: &'c mut Client,
    element: Vec<u8>,
}

impl Elements<'_> {
    /// The MessagePack bytes of the next element, or `None` after the last.
    ///
    /// # Errors
    /// [`Error`]; the connection is of no more use then.
    pub fn next_element(&mut self) -> Result<Option<&[u8]>, Error> {
        if self.client.unread == 0 {
            return Ok(None);
        }
        self.element.clear();
        let size = raw::copy_value(&mut self.client.incoming, &mut self.element, MAX_VALUE)?;
        self.client.unread -= 1;
        if size > self.element.len() as u64 {
            return Err(Error::Protocol(format!("an element of the result is {size} bytes long")));
        }
        Ok(Some(&self.element))
    }
}

/// Connects with a bound on the wait: a daemon that no longer accepts fills its backlog, and then a plain
/// `connect` on a Unix socket waits for ever.
fn connect_within(path: &Path, timeout: Option<Duration>) -> Result<UnixStream, Errno> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if let Some(timeout) = timeout {
        setsockopt(&fd, sockopt::SendTimeout, &time_val(timeout))?;
    }
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

/// Never zero, which the kernel would take for "for ever".
fn time_val(timeout: Duration) -> TimeVal {
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    TimeVal::new(seconds, i64::from(timeout.subsec_micros()).max(i64::from(seconds == 0)))
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::api::{All, Get, Page, Ping, Put, Raw};

    /// Long enough for a loaded machine, short enough to end a test that hangs.
    const TIME_LIMIT: Duration = Duration::from_secs(20);

    /// Connects to a daemon that is `behaviour`, given the accepted connection.
    fn against(
        behaviour: impl FnOnce(UnixStream) + Send + 'static,
    ) -> (Client, JoinHandle<()>, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("make a directory");
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).expect("bind");
        let daemon = thread::spawn(move || behaviour(listener.accept().expect("accept").0));
        (Client::connect(&path, Some(TIME_LIMIT)).expect("connect"), daemon, dir)
    }

    fn answer(stream: &mut UnixStream, id: u64, result: &impl Response) {
        let mut bytes = Vec::new();
        rpc::begin_result(&mut bytes, id);
        result.write(&mut bytes);
        stream.write_all(&bytes).expect("answer");
    }

    fn text(stream: &mut UnixStream, id: u64, result: &str) {
        answer(stream, id, &result.to_owned());
    }

    fn refuse(stream: &mut UnixStream, id: u64, why: &str) {
        let mut bytes = Vec::new();
        rpc::error(&mut bytes, id, why);
        stream.write_all(&bytes).expect("answer");
    }

    fn read_request(input: &mut impl Read) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        // One byte at a time: what follows is for the next call.
        raw::copy_value(&mut BufReader::with_capacity(1, input), &mut bytes, usize::MAX).ok()?;
        Some(bytes)
    }

    const KEY: Raw<'static> = Raw(b"\xa17");
    const GET: Get<'static> = Get { table: "users", key: KEY };

    #[test]
    fn a_call_sends_the_request_and_returns_the_result() {
        let (mut client, daemon, _dir) = against(|mut stream| {
            let request = read_request(&mut stream).expect("a request");
            assert_eq!(request, b"\x94\x00\x01\xa3get\x92\xa5users\xa17");
            text(&mut stream, 1, "found");
        });
        let result = client.call(&GET).expect("an answer");
        assert_eq!(result.decoded(), Ok("found"));
        daemon.join().expect("the daemon's side");
    }

    #[test]
    fn a_refusal_leaves_the_connection_usable() {
        let (mut client, daemon, _dir) = against(|mut stream| {
            read_request(&mut stream);
            refuse(&mut stream, 1, "not_found");
            read_request(&mut stream);
            text(&mut stream, 2, "pong");
        });
        let refused = client.call(&GET);
        assert!(matches!(refused, Err(Error::Refused(text)) if text == "not_found"));
        assert_eq!(client.call(&Ping {}).expect("an answer"), "pong");
        daemon.join().expect("the daemon's side");
    }

    #[test]
    fn why_the_connection_is_refused_is_heard_even_if_the_daemon_hung_up_first() {
        let (mut client, daemon, _dir) = against(|mut stream| {
            refuse(&mut stream, 0, "too_many_connections");
        });
        daemon.join().expect("the daemon's side");
        let refused = client.call(&Ping {});
        assert!(matches!(refused, Err(Error::Refused(text)) if text == "too_many_connections"));
    }

    #[test]
    fn elements_left_unread_do_not_stand_in_the_way_of_the_next_call() {
        let (mut client, daemon, _dir) = against(|mut stream| {
            read_request(&mut stream);
            answer(&mut stream, 1, &(0..100).collect::<Vec<u8>>());
            read_request(&mut stream);
            text(&mut stream, 2, "pong");
        });
        let mut elements =
            client.call_streamed(&All { table: "t", page: Page::default() }).expect("an answer");
        assert_eq!(elements.next_element().expect("an element"), Some([0].as_slice()));
        assert_eq!(client.call(&Ping {}).expect("an answer"), "pong");
        daemon.join().expect("the daemon's side");
    }

    #[test]
    fn an_answer_to_another_request_is_not_taken_for_ours() {
        let (mut client, daemon, _dir) = against(|mut stream| text(&mut stream, 9, "pong"));
        assert!(matches!(client.call(&Ping {}), Err(Error::Protocol(_))));
        daemon.join().expect("the daemon's side");
    }

    #[test]
    fn a_request_over_the_limit_is_refused_here_and_the_connection_goes_on() {
        let (mut client, daemon, _dir) = against(|mut stream| {
            read_request(&mut stream);
            text(&mut stream, 1, "of an older daemon");
            read_request(&mut stream);
            text(&mut stream, 2, "pong");
        });
        let long = api::encoded(&"x".repeat(MAX_REQUEST));
        let put = Put { table: "t", record: Raw(&long) };
        assert!(matches!(client.call(&put), Err(Error::OutOfBounds(_))));
        assert_eq!(client.call(&Ping {}).expect("an answer"), "pong");
        daemon.join().expect("the daemon's side");
    }

    #[test]
    fn nobody_at_the_path_is_another_error_than_no_permission_and_silence() {
        let dir = tempfile::tempdir().expect("make a directory");
        let absent = dir.path().join("absent");
        assert!(matches!(Client::connect(&absent, None), Err(Error::NotRunning { .. })));

        let abandoned = dir.path().join("abandoned");
        drop(UnixListener::bind(&abandoned).expect("bind"));
        assert!(matches!(Client::connect(&abandoned, None), Err(Error::NotRunning { .. })));

        let silent = dir.path().join("silent");
        let _listener = UnixListener::bind(&silent).expect("bind");
        let mut client =
            Client::connect(&silent, Some(Duration::from_millis(50))).expect("connect");
        assert!(matches!(client.call(&Ping {}), Err(Error::Timeout)));
    }

    /// The daemon answers each request at length before it reads the next: unless the client reads while it
    /// writes, both stand still with full buffers.
    #[test]
    fn a_pipeline_reads_answers_while_it_writes() {
        const REQUESTS: usize = 2_000;
        let (mut client, daemon, _dir) = against(|mut stream| {
            let mut input = BufReader::new(stream.try_clone().expect("clone"));
            for id in 1..=REQUESTS as u64 {
                read_request(&mut input).expect("a request");
                refuse(&mut stream, id, &"no".repeat(2_000));
            }
        });
        let mut pipeline = client.pipeline(Window { requests: REQUESTS, bytes: usize::MAX });
        let long = api::encoded(&"x".repeat(1_000));
        let put = Put { table: "t", record: Raw(&long) };
        for tag in 0..REQUESTS {
            assert!(pipeline.has_room());
            pipeline.send(&put, tag).expect("send");
        }
        assert!(!pipeline.has_room());
        for tag in 0..REQUESTS {
            let answer = pipeline.next_answer().expect("an answer").expect("one under way");
            assert_eq!((answer.tag, answer.outcome.is_err()), (tag, true));
        }
        assert_eq!(pipeline.next_answer().expect("nothing under way"), None);
        daemon.join().expect("the daemon's side");
    }

    #[test]
    fn after_a_hang_up_the_pipeline_tells_what_is_answered_and_what_is_in_doubt() {
        let (mut client, daemon, _dir) = against(|mut stream| {
            let mut input = BufReader::new(stream.try_clone().expect("clone"));
            for id in 1..=2 {
                read_request(&mut input).expect("a request");
                text(&mut stream, id, "ok");
            }
        });
        let mut pipeline = client.pipeline(Window { requests: 10, bytes: usize::MAX });
        for tag in 0..5 {
            pipeline.send(&GET, tag).expect("send");
        }
        let mut answered = Vec::new();
        let end = loop {
            match pipeline.next_answer() {
                Ok(Some(answer)) => answered.push(answer.tag),
                Ok(None) => panic!("three requests have no answer"),
                Err(error) => break error,
            }
        };
        assert!(matches!(end, Error::Closed), "{end:?}");
        assert_eq!(answered, [0, 1]);
        assert_eq!(pipeline.unanswered().copied().collect::<Vec<_>>(), [2, 3, 4]);
        daemon.join().expect("the daemon's side");
    }
}
