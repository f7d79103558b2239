//! A client of a daemon that may be stopped, killed or cut off at any moment, and what is known of each request then.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rmpv::Value;

use crate::rpc::request;

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Done(Value),
    /// It was refused and has changed nothing.
    Refused(String),
    /// It was never sent.
    NotSent,
    /// It was sent, and nobody knows.
    Lost,
}

impl Reply {
    pub(crate) fn done(self) -> Option<Value> {
        match self {
            Self::Done(value) => Some(value),
            Self::Refused(_) | Self::NotSent | Self::Lost => None,
        }
    }

    pub(crate) fn is_refused(&self, part: &str) -> bool {
        matches!(self, Self::Refused(why) if why.contains(part))
    }
}

/// One connection, made anew whenever it breaks.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    stream: Option<BufReader<UnixStream>>,
    timeout: Duration,
    last_id: u64,
}

impl Client {
    pub(crate) fn new(socket: &Path, timeout: Duration) -> Self {
        Self { socket: socket.to_owned(), stream: None, timeout, last_id: 0 }
    }

    pub(crate) fn call(&mut self, method: &str, params: &[Value]) -> Reply {
        self.last_id += 1;
        if self.stream.is_none() {
            let Ok(stream) = UnixStream::connect(&self.socket) else { return Reply::NotSent };
            for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
                set(&stream, Some(self.timeout)).expect("set a timeout");
            }
            self.stream = Some(BufReader::new(stream));
        }
        let reply = self.exchange(&request(self.last_id, method, params));
        if matches!(reply, Reply::Lost) {
            self.stream = None;
        }
        reply
    }

    fn exchange(&mut self, request: &[u8]) -> Reply {
        let Some(stream) = &mut self.stream else { return Reply::NotSent };
        // A daemon that hangs up may have carried out what it had read before.
        if stream.get_mut().write_all(request).is_err() {
            return Reply::Lost;
        }
        let Ok(value) = rmpv::decode::read_value(stream) else { return Reply::Lost };
        let parts = value.as_array().map(Vec::as_slice);
        match parts {
            Some([_, id, error, result]) if id.as_u64() == Some(self.last_id) => {
                match error.as_str() {
                    None => Reply::Done(result.clone()),
                    // The one error after which the change may be there.
                    Some("storage_error") => Reply::Lost,
                    Some(why) => Reply::Refused(why.to_owned()),
                }
            }
            // The connection was refused.
            Some(_) | None => {
                self.stream = None;
                Reply::NotSent
            }
        }
    }
}
