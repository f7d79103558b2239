//! Asks other machines what the service wants to know of them, over connections that are kept for a while.
//! Who may ask for what is the service's on this side, and the gate's on the other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use cortex_core::{
    model::NodeName,
    wire::{
        Scan, Scanner,
        rpc::{self, Response},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::timeout_at,
};
use tokio_rustls::TlsStream;

use super::{
    Shared, drain,
    handshake::{self, Protocol},
    live::LiveEntry,
    reap,
};
use crate::{
    service::mesh::{AskError, PeerRequest},
    sys::clock,
};

/// Requests under way. Others wait in the channel, which is bounded, and then are refused as busy.
const UNDER_WAY: usize = 32;

/// Idle connections kept for one machine.
const KEPT: usize = 4;

/// How long one is kept.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Bytes of an answer. What the service asks for is small; reading tables of others is no part of it.
const ANSWER_BYTES: usize = 8 << 20;

/// Levels of nesting in an answer: a record's, and the answer around it.
const ANSWER_NESTING: usize = 260;

const READ: usize = 16 << 10;

/// Takes up requests until the daemon ends.
pub(super) async fn run(mut asked: mpsc::Receiver<PeerRequest>, shared: &Arc<Shared>) {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            request = asked.recv(), if under_way.len() < UNDER_WAY => match request {
                Some(request) => {
                    under_way.spawn(answer(request, Arc::clone(shared)));
                }
                // The service is gone, and with it everybody who asks.
                None => break,
            },
            ended = under_way.join_next(), if !under_way.is_empty() => reap(ended),
            () = shared.stopped() => break,
        }
    }
    drain(under_way).await;
}

async fn answer(request: PeerRequest, shared: Arc<Shared>) {
    let PeerRequest { node, method, params, uid, deadline, answer } = request;
    let mut message = Vec::new();
    rpc::request(&mut message, MSGID, method.name(), &params, uid);
    let exchange = async {
        let mut line = connect(&node, &shared).await?;
        let result = line.exchange(&message).await;
        if matches!(result, Ok(_) | Err(AskError::Refused(_))) {
            shared.pool.keep(node, line);
        }
        result
    };
    let result = timeout_at(deadline.into(), exchange).await.unwrap_or(Err(AskError::Timeout));
    let _nobody_waits = answer.send(result);
}

/// One request at a time goes over a connection, so that one id is enough.
const MSGID: u64 = 1;

async fn connect(node: &NodeName, shared: &Shared) -> Result<Line, AskError> {
    if let Some(line) = shared.pool.take(node) {
        return Ok(line);
    }
    let Some(address) = shared.mesh().nodes().get(node).cloned() else {
        return Err(AskError::UnknownNode(node.clone()));
    };
    let dialled = handshake::dial(node, &address, Protocol::Rpc, shared).await;
    let greeted = dialled.map_err(|error| AskError::Unreachable(error.to_string()))?;
    Ok(Line { stream: greeted.stream, place: greeted.place, input: BytesMut::new() })
}

/// A connection on which nothing is under way.
#[derive(Debug)]
struct Line {
    stream: TlsStream<TcpStream>,
    place: LiveEntry,
    input: BytesMut,
}

impl Line {
    async fn exchange(&mut self, message: &[u8]) -> Result<Bytes, AskError> {
        let Self { stream, place, input } = self;
        let exchange = async {
            let broken = |error: std::io::Error| AskError::Broken(error.to_string());
            stream.write_all(message).await.map_err(broken)?;
            stream.flush().await.map_err(broken)?;
            let mut scanner = Scanner::new(ANSWER_BYTES, ANSWER_NESTING);
            loop {
                if !input.is_empty() {
                    match scanner.scan(input) {
                        Ok(Scan::More) => {}
                        Ok(Scan::Whole(length)) => return result(&input.split_to(length).freeze()),
                        Ok(Scan::Deep(_)) => return Err(AskError::Broken("too deep".into())),
                        Err(cortex_core::wire::FrameError::TooLarge(_)) => {
                            return Err(AskError::TooLarge(ANSWER_BYTES));
                        }
                        Err(error) => return Err(AskError::Broken(error.to_string())),
                    }
                }
                input.reserve(READ);
                if stream.read_buf(input).await.map_err(broken)? == 0 {
                    return Err(AskError::Broken("it was closed".into()));
                }
            }
        };
        tokio::select! {
            result = exchange => result,
            why = place.untrusted() => Err(AskError::Broken(why.to_string())),
        }
    }

    /// True where another request can go over it: trusted, open, and with nothing on it that nobody asked for.
    fn is_usable(&mut self) -> bool {
        if self.place.is_closed() || !self.input.is_empty() {
            return false;
        }
        // Data or the end: either way it is of no use. TLS has no message that comes unasked here.
        let (tcp, _) = self.stream.get_ref();
        let mut byte = [0];
        tcp.try_read(&mut byte).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

fn result(message: &Bytes) -> Result<Bytes, AskError> {
    let no_response = || AskError::Broken("no response".into());
    let response = Response::parse(message).ok_or_else(no_response)?;
    match response.outcome {
        // An error with id 0 is of the connection as a whole, and comes before any other.
        Err(error) => Err(AskError::Refused(error.into())),
        Ok(result) if response.msgid == MSGID => Ok(message.slice_ref(result)),
        Ok(_) => Err(no_response()),
    }
}

/// Connections that are kept for the next request.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Locked for a look-up.
    idle: Mutex<HashMap<NodeName, Vec<(Instant, Line)>>>,
}

impl Pool {
    fn take(&self, node: &NodeName) -> Option<Line> {
        let mut idle = self.idle();
        let lines = idle.get_mut(node)?;
        while let Some((since, mut line)) = lines.pop() {
            if since.elapsed() < KEPT_FOR && line.is_usable() {
                return Some(line);
            }
        }
        None
    }

    fn keep(&self, node: NodeName, mut line: Line) {
        if line.is_usable() {
            let mut idle = self.idle();
            let lines = idle.entry(node).or_default();
            if lines.len() < KEPT {
                lines.push((clock::monotonic(), line));
            }
        }
    }

    /// Closes those that nobody has needed for a while.
    pub(super) fn tidy(&self, now: Instant) {
        self.idle().retain(|_, lines| {
            lines.retain(|(since, _)| now.saturating_duration_since(*since) < KEPT_FOR);
            !lines.is_empty()
        });
    }

    /// Closes all of them: they were dialled under another configuration.
    pub(super) fn clear(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<NodeName, Vec<(Instant, Line)>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
