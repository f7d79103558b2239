//! A blocking client of the daemon: connect, call, stream a huge answer, pipeline many requests.
//! Leaves to its callers what the methods mean, and everything about JSON and printing.
//!
//! ```text
//!  Params ──> Client::call ────────> one answer, as a value
//!             Client::call_raw ────> one answer, as the bytes that came
//!             Client::call_streamed > Elements: an array's elements, one at a time
//!             Client::pipeline ────> Pipeline: many requests under way, answers in their order
//!                    │
//!              Incoming (buffered reads) ─> raw (one MessagePack value's bytes) ─> reply (head of an answer)
//! ```
//!
//! No runtime and no thread: a command line tool makes one call and is gone. Only [`Pipeline`] must read
//! while it writes, and does it with `poll`.

#[cfg(test)]
pub(crate) mod arbitrary;
mod error;
mod incoming;
pub(crate) mod pack;
mod params;
mod pipeline;
pub(crate) mod raw;
mod reply;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use cortex_core::wire::Bounds;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use rmpv::Value;

pub use error::Error;
pub use params::Params;
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
    unread: u32,
    /// What the daemon takes. It closes the connection on a longer request, and with it everything else
    /// under way, so what is out of bounds is refused here, by itself.
    bounds: Bounds,
    /// Whether the bounds are the daemon's own, and not those of a daemon without settings.
    bounds_known: bool,
}

impl Client {
    /// Connects to the daemon at `path`. `timeout` bounds the connecting, and from then on every wait
    /// for the daemon to take or give a byte; `None` waits for ever.
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
        let status = match self.call("status", &Params::new()) {
            Err(Error::Refused(_)) => Value::Nil,
            answered => answered?,
        };
        let said = |name: &str| {
            let fields = status.as_map()?;
            let (_, value) = fields.iter().find(|(key, _)| key.as_str() == Some(name))?;
            usize::try_from(value.as_u64()?).ok()
        };
        let Bounds { message_bytes, nesting } = self.bounds;
        self.bounds = Bounds {
            message_bytes: said("message_bytes").unwrap_or(message_bytes),
            nesting: said("nesting").unwrap_or(nesting),
        };
        Ok(())
    }

    /// Calls `method` and decodes its result.
    pub fn call(&mut self, method: &str, params: &Params) -> Result<Value, Error> {
        let bytes = self.call_raw(method, params)?;
        rmpv::decode::read_value(&mut bytes.as_slice())
            .map_err(|e| Error::Protocol(format!("the result of {method} cannot be decoded: {e}")))
    }

    /// Calls `method` and returns its result as the MessagePack bytes that came.
    pub fn call_raw(&mut self, method: &str, params: &Params) -> Result<Vec<u8>, Error> {
        self.ask(method, params)?;
        let mut result = Vec::new();
        let size = raw::copy_value(&mut self.incoming, &mut result, MAX_VALUE)?;
        if size > result.len() as u64 {
            return Err(Error::Protocol(format!("the result of {method} is {size} bytes long")));
        }
        Ok(result)
    }

    /// Calls `method`, whose result is an array, and hands out the elements as they arrive.
    /// Elements left unread are skipped by the next call.
    pub fn call_streamed(&mut self, method: &str, params: &Params) -> Result<Elements<'_>, Error> {
        self.ask(method, params)?;
        self.unread = rmp::decode::read_array_len(&mut self.incoming)
            .map_err(|e| Error::decoding(e, "the result is not an array"))?;
        Ok(Elements { client: self, element: Vec::new() })
    }

    /// Begins to send requests without waiting for the answer to each. `T` is what the caller wants to get
    /// back with an answer, to know what it answers.
    pub fn pipeline<T>(&mut self, window: Window) -> Pipeline<'_, T> {
        Pipeline::new(self, window)
    }

    /// Sends one request and reads its answer up to where the result begins.
    fn ask(&mut self, method: &str, params: &Params) -> Result<(), Error> {
        self.skip_unread()?;
        let mut request = Vec::new();
        let id = match self.encode(method, params, &mut request) {
            Err(Error::OutOfBounds(_)) if !self.bounds_known => {
                self.learn_bounds()?;
                self.encode(method, params, &mut request)?
            }
            encoded => encoded?,
        };
        match self.incoming.stream().write_all(&request) {
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
    fn encode(&mut self, method: &str, params: &Params, out: &mut Vec<u8>) -> Result<u32, Error> {
        let start = out.len();
        // 0 is what the daemon answers with when it refuses the connection rather than a request.
        let id = self.last_id.checked_add(1).unwrap_or(1);
        pack::array_header(out, 4);
        pack::unsigned(out, 0);
        pack::unsigned(out, u64::from(id));
        pack::string(out, method);
        params.append_to(out);
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

    fn answer(stream: &mut UnixStream, id: u64, error: &Value, result: &Value) {
        let mut bytes = Vec::new();
        pack::value(
            &mut bytes,
            &Value::Array(vec![1.into(), id.into(), error.clone(), result.clone()]),
        );
        stream.write_all(&bytes).expect("answer");
    }

    fn read_request(input: &mut impl Read) -> Option<Value> {
        rmpv::decode::read_value(input).ok()
    }

    #[test]
    fn a_call_sends_the_request_and_returns_the_result() {
        let (mut client, daemon, _dir) = against(|mut stream| {
            let request = read_request(&mut stream).expect("a request");
            let expected = vec![
                0.into(),
                1.into(),
                "get".into(),
                Value::Array(vec!["users".into(), "7".into()]),
            ];
            assert_eq!(request, Value::Array(expected));
            answer(&mut stream, 1, &Value::Nil, &"found".into());
        });
        let result = client.call("get", &Params::new().str("users").str("7")).expect("an answer");
        assert_eq!(result, "found".into());
        daemon.join().expect("the daemon's side");
    }

    #[test]
    fn a_refusal_leaves_the_connection_usable() {
        let (mut client, daemon, _dir) = against(|mut stream| {
            read_request(&mut stream);
            answer(&mut stream, 1, &"not_found".into(), &Value::Nil);
            read_request(&mut stream);
            answer(&mut stream, 2, &Value::Nil, &"pong".into());
        });
        let refused = client.call("get", &Params::new());
        assert!(matches!(refused, Err(Error::Refused(text)) if text == "not_found"));
        assert_eq!(client.call("ping", &Params::new()).expect("an answer"), "pong".into());
        daemon.join().expect("the daemon's side");
    }

    #[test]
    fn why_the_connection_is_refused_is_heard_even_if_the_daemon_hung_up_first() {
        let (mut client, daemon, _dir) = against(|mut stream| {
            answer(&mut stream, 0, &"too_many_connections".into(), &Value::Nil);
        });
        daemon.join().expect("the daemon's side");
        let refused = client.call("ping", &Params::new());
        assert!(matches!(refused, Err(Error::Refused(text)) if text == "too_many_connections"));
    }

    #[test]
    fn elements_left_unread_do_not_stand_in_the_way_of_the_next_call() {
        let (mut client, daemon, _dir) = against(|mut stream| {
            read_request(&mut stream);
            answer(&mut stream, 1, &Value::Nil, &Value::Array((0..100).map(Value::from).collect()));
            read_request(&mut stream);
            answer(&mut stream, 2, &Value::Nil, &"pong".into());
        });
        let mut elements = client.call_streamed("all", &Params::new()).expect("an answer");
        assert_eq!(elements.next_element().expect("an element"), Some([0].as_slice()));
        assert_eq!(client.call("ping", &Params::new()).expect("an answer"), "pong".into());
        daemon.join().expect("the daemon's side");
    }

    #[test]
    fn an_answer_to_another_request_is_not_taken_for_ours() {
        let (mut client, daemon, _dir) =
            against(|mut stream| answer(&mut stream, 9, &Value::Nil, &"pong".into()));
        assert!(matches!(client.call("ping", &Params::new()), Err(Error::Protocol(_))));
        daemon.join().expect("the daemon's side");
    }

    #[test]
    fn a_request_over_the_limit_is_refused_here_and_the_connection_goes_on() {
        let (mut client, daemon, _dir) = against(|mut stream| {
            read_request(&mut stream);
            answer(&mut stream, 1, &Value::Nil, &"of an older daemon".into());
            read_request(&mut stream);
            answer(&mut stream, 2, &Value::Nil, &"pong".into());
        });
        let long = "x".repeat(MAX_REQUEST);
        assert!(matches!(
            client.call("put", &Params::new().str(&long)),
            Err(Error::OutOfBounds(_))
        ));
        assert_eq!(client.call("ping", &Params::new()).expect("an answer"), "pong".into());
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
        assert!(matches!(client.call("ping", &Params::new()), Err(Error::Timeout)));
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
                answer(&mut stream, id, &"no".repeat(2_000).into(), &Value::Nil);
            }
        });
        let mut pipeline = client.pipeline(Window { requests: REQUESTS, bytes: usize::MAX });
        let params = Params::new().str(&"x".repeat(1_000));
        for tag in 0..REQUESTS {
            assert!(pipeline.has_room());
            pipeline.send("put", &params, tag).expect("send");
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
                answer(&mut stream, id, &Value::Nil, &"ok".into());
            }
        });
        let mut pipeline = client.pipeline(Window { requests: 10, bytes: usize::MAX });
        for tag in 0..5 {
            pipeline.send("put", &Params::new(), tag).expect("send");
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
