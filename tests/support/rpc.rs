//! A MessagePack-RPC client that does as little as it can: it sends any bytes and shows those that come back.
//! Leaves sense and convenience to `cortex_client`, which it must not share a mistake with.

#![allow(dead_code, reason = "each test uses its own part")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rmpv::Value;

/// Only a failing test waits for so long.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// One response as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Response {
    pub(crate) id: u64,
    pub(crate) outcome: Result<Value, String>,
    pub(crate) bytes: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Rpc {
    incoming: Recording,
    last_id: u64,
}

impl Rpc {
    pub(crate) fn connect(socket: &Path) -> Self {
        Self::try_connect(socket).expect("connect to the daemon")
    }

    pub(crate) fn try_connect(socket: &Path) -> io::Result<Self> {
        Ok(Self::over(UnixStream::connect(socket)?))
    }

    /// Talks over a stream that somebody else has connected.
    pub(crate) fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(TIME_LIMIT)).expect("set a timeout");
        stream.set_write_timeout(Some(TIME_LIMIT)).expect("set a timeout");
        Self { incoming: Recording::new(stream), last_id: 0 }
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        self.incoming.source.get_ref()
    }

    /// Sends these bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("send to the daemon");
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream().write_all(bytes)
    }

    /// Waits for a response; none where the daemon has closed the connection.
    pub(crate) fn try_receive(&mut self) -> Option<Response> {
        self.incoming.recorded.clear();
        let value = match rmpv::decode::read_value(&mut self.incoming) {
            Ok(value) => value,
            Err(error) => {
                let kind = error.kind();
                let cut = !self.incoming.recorded.is_empty();
                assert!(!cut && is_closed(kind), "no response but {kind:?}, cut: {cut}");
                return None;
            }
        };
        let bytes = std::mem::take(&mut self.incoming.recorded);
        Some(Response { bytes, ..response(&value) })
    }

    pub(crate) fn receive(&mut self) -> Response {
        self.try_receive().expect("the daemon answers")
    }

    /// Sends a request and waits for its response, or for a refusal of the connection, whose id is 0.
    pub(crate) fn exchange(&mut self, method: &str, params: &[Value]) -> Response {
        self.last_id += 1;
        let id = self.last_id;
        // Whoever hangs up may have said why before.
        let _hung_up = self.try_send(&request(id, method, params));
        let response = self.receive();
        let turned_away = response.id == 0 && response.outcome.is_err();
        assert!(response.id == id || turned_away, "the response to {id}? {response:?}");
        response
    }

    /// The same, for its result or its error.
    pub(crate) fn call(&mut self, method: &str, params: &[Value]) -> Result<Value, String> {
        self.exchange(method, params).outcome
    }

    /// Makes a table whose key field is `id`.
    pub(crate) fn create(&mut self, table: &str) {
        let created = self.call("create_table", &[table.into(), Value::Array(vec!["id".into()])]);
        assert_eq!(created, Ok("created".into()));
    }

    /// Sends many requests without waiting and answers their responses: as many as were sent.
    pub(crate) fn pipeline(&mut self, requests: &[Vec<u8>]) -> Vec<Response> {
        let mut sending = self.stream().try_clone().expect("clone the connection");
        std::thread::scope(|scope| {
            scope.spawn(move || sending.write_all(&requests.concat()).expect("send the requests"));
            requests.iter().map(|_| self.receive()).collect()
        })
    }

    /// Begins to read a result that is an array: its length. The elements are read one at a time.
    pub(crate) fn receive_array(&mut self, id: u64) -> u64 {
        let parts = rmp::decode::read_array_len(&mut self.incoming).expect("a response");
        assert_eq!(parts, 4, "a response has four parts");
        let head = [self.element(), self.element(), self.element()];
        assert_eq!(head, [1.into(), id.into(), Value::Nil]);
        let length = rmp::decode::read_array_len(&mut self.incoming).expect("an array");
        self.incoming.recorded.clear();
        length.into()
    }

    /// One value of an array that is being read.
    pub(crate) fn element(&mut self) -> Value {
        self.incoming.recorded.clear();
        rmpv::decode::read_value(&mut self.incoming).expect("an element")
    }

    /// Takes bytes of an array that is being read without looking at them.
    pub(crate) fn skip(&mut self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let here = self.incoming.source.fill_buf().expect("more bytes").len().min(left);
            assert!(here > 0, "the connection ends {left} bytes too early");
            self.incoming.source.consume(here);
            left -= here;
        }
    }

    /// Waits until the daemon closes the connection, and answers the bytes that came before.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.incoming.source.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) => assert!(is_closed(error.kind()), "the connection is not closed: {error}"),
        }
        bytes
    }

    /// Waits until the daemon closes the connection; nothing may come before.
    pub(crate) fn assert_closed(&mut self) {
        assert!(self.rest().is_empty(), "nothing is said before the connection is closed");
    }

    /// True where the other side is still there and has said nothing.
    pub(crate) fn is_open_and_silent(&self) -> bool {
        let stream = self.stream();
        stream.set_nonblocking(true).expect("do not wait");
        let read = (&mut &*stream).read(&mut [0]);
        stream.set_nonblocking(false).expect("wait again");
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The end of a connection, by a close or by one with requests that nobody has read.
fn is_closed(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

fn response(value: &Value) -> Response {
    let parts = value.as_array().map(Vec::as_slice);
    let Some([kind, id, error, result]) = parts else {
        panic!("no response: {value}");
    };
    assert_eq!(*kind, 1.into(), "no response: {value}");
    let id = id.as_u64().expect("the id is a number");
    let outcome = if error.is_nil() {
        Ok(result.clone())
    } else {
        assert!(result.is_nil(), "an error comes without a result: {value}");
        Err(error.as_str().expect("an error is a string").to_owned())
    };
    Response { id, outcome, bytes: Vec::new() }
}

/// Keeps the bytes of what is read.
#[derive(Debug)]
struct Recording {
    source: BufReader<UnixStream>,
    recorded: Vec<u8>,
}

impl Recording {
    fn new(stream: UnixStream) -> Self {
        Self { source: BufReader::with_capacity(64 << 10, stream), recorded: Vec::new() }
    }
}

impl Read for Recording {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(out)?;
        self.recorded.extend_from_slice(&out[..count]);
        Ok(count)
    }
}

/// A request as it goes over the wire.
pub(crate) fn request(id: u64, method: &str, params: &[Value]) -> Vec<u8> {
    let params = Value::Array(params.to_vec());
    packed(&Value::Array(vec![0.into(), id.into(), method.into(), params]))
}

/// A request to store `record`, which is MessagePack already.
pub(crate) fn put_raw(id: u64, table: &str, record: &[u8]) -> Vec<u8> {
    let mut bytes = request(id, "put", &[table.into(), Value::Nil]);
    assert_eq!(bytes.pop(), Some(0xc0), "the request ends with the nil");
    bytes.extend_from_slice(record);
    bytes
}

/// A successful response as it should come.
pub(crate) fn success(id: u64, result: impl Into<Value>) -> Vec<u8> {
    packed(&Value::Array(vec![1.into(), id.into(), Value::Nil, result.into()]))
}

/// A response with an error as it should come.
pub(crate) fn failure(id: u64, error: &str) -> Vec<u8> {
    packed(&Value::Array(vec![1.into(), id.into(), error.into(), Value::Nil]))
}

pub(crate) fn packed(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).expect("a Vec takes everything");
    bytes
}

/// A map with text keys.
pub(crate) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

pub(crate) fn list<const N: usize>(elements: [Value; N]) -> Value {
    Value::Array(elements.into())
}

/// The field of a map.
pub(crate) fn field<'v>(map: &'v Value, name: &str) -> Option<&'v Value> {
    map.as_map()?.iter().find_map(|(key, value)| (key.as_str() == Some(name)).then_some(value))
}
