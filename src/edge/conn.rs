//! One connection: frames in, replies out in the order of the requests.
//! Who is on the other end was established before; any stream of bytes will do.
//!
//! ```text
//!   read ──> frames ──> Service::call ──> replies ──> write
//!                           │    a run of writes goes to the writer together;
//!                           │    anything else first waits for their commits
//!                           └──> a list: pieces are written as they come
//! ```

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use cortex_core::{
    model::{Caller, NodeName, Refusal},
    wire::{FrameError, Request, Scan, Scanner, rpc},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{oneshot, watch},
    task::yield_now,
    time::{timeout, timeout_at},
};
use tracing::{debug, info, warn};

use super::{idle_timeout::IdleTimeout, limits::ConnLimits};
use crate::{
    service::{Answer, Deferred, Listing, Pieces, Service, Step, wire_error},
    store::{CommandError, Outcome, Reader, StoreError},
    sys::clock,
    sys::throttle::LogThrottle,
};

/// The room for one read. Larger messages make the buffer grow as they arrive.
const READ: usize = 16 << 10;

/// Replies gathered before they are written, within one burst of requests.
const GATHERED: usize = 64 << 10;

/// What a buffer may keep when nothing is in it.
const KEPT: usize = 64 << 10;

/// Longer than any daemon runs, and far from overflowing a clock.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How long a connection is read from once the daemon ends: what was sent before is in the socket,
/// and the runtime may not have noticed yet.
const LAST_READS: Duration = Duration::from_millis(20);

/// What the connections of one thread share.
#[derive(Debug)]
pub struct Context {
    /// Answers.
    pub service: Arc<Service>,
    /// The thread's reader of single records.
    pub reader: Arc<Reader>,
    /// Replaced as a whole on reload.
    pub limits: Arc<ArcSwap<ConnLimits>>,
    /// Becomes true when no more requests are to be read.
    pub stop: watch::Receiver<bool>,
}

/// In what a client was too slow.
#[derive(Clone, Copy, Debug)]
enum Slow {
    /// It has accepted no byte of its replies for the stall time.
    TakingReplies(Duration),
    /// It has not accepted a list as a whole within the scan time.
    TakingList(Duration),
    SendingMessage,
    SendingAnything,
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The client has closed it, or the daemon drains.
    Closed,
    /// The client sent what cannot be followed.
    Bad(FrameError),
    /// The client was too slow in sending a message, in taking replies, or in doing anything.
    TooSlow(Slow),
    /// A list broke off after some of it was sent.
    Broken(CommandError),
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Serves a connection until it ends.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    caller: Caller,
    context: &Context,
) {
    let limits = **context.limits.load();
    let mut conn = Conn {
        stream,
        caller,
        context,
        scanner: limits.bounds().scanner(),
        limits,
        input: BytesMut::new(),
        output: Vec::new(),
        pending: Vec::new(),
        idle_timeout: IdleTimeout::new(limits.idle_time),
        begun: false,
        stopping: false,
        stop: Box::pin(stopped(context.stop.clone())),
    };
    let caller = conn.caller.clone();
    match conn.run().await {
        Ok(never) => match never {},
        Err(End::Closed) => {}
        Err(End::Bad(error)) => warn_of_bad_bytes(&caller, error),
        Err(End::TooSlow(what)) => warn_of_slow_client(&caller, what),
        Err(End::Broken(failure)) => warn!(%caller, %failure, "a reply broke off: {failure}"),
        Err(End::Io(error)) => debug!(%caller, %error, "a connection was lost"),
    }
}

/// Ends when no more requests are to be read.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _stopped_or_gone = stop.wait_for(|stop| *stop).await;
}

struct Conn<'a, S, Stop> {
    stream: S,
    caller: Caller,
    context: &'a Context,
    limits: ConnLimits,
    scanner: Scanner,
    input: BytesMut,
    output: Vec<u8>,
    /// Writes that are with the writer, in the order of their requests.
    pending: Vec<Pending>,
    idle_timeout: IdleTimeout,
    /// True while the idle timeout counts from when the message in the input began.
    begun: bool,
    /// True once the daemon ends; the idle timeout then counts for all that is still to be read.
    stopping: bool,
    stop: Pin<Box<Stop>>,
}

struct Pending {
    msgid: u64,
    answer: oneshot::Receiver<Result<Outcome, CommandError>>,
}

enum Never {}

impl<S: AsyncRead + AsyncWrite + Unpin, Stop: Future<Output = ()>> Conn<'_, S, Stop> {
    async fn run(&mut self) -> Result<Never, End> {
        loop {
            let followed = self.handle_arrived().await?;
            // What came before bytes that cannot be followed was accepted, and is answered.
            self.answer_pending().await;
            self.refuse_too_large(&followed);
            self.flush().await?;
            followed.map_err(End::Bad)?;
            self.read().await?;
        }
    }

    /// Handles the messages that have arrived whole, up to bytes that cannot be followed.
    async fn handle_arrived(&mut self) -> Result<Result<(), FrameError>, End> {
        loop {
            match self.next_message() {
                Ok(Some(message)) => self.handle(message).await?,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
            if self.output.len() >= GATHERED {
                self.flush().await?;
            }
        }
    }

    /// Takes the next whole message out of the input; none while it is incomplete.
    fn next_message(&mut self) -> Result<Option<Message>, FrameError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let scan = self.scanner.scan(&self.input)?;
        self.begun &= scan == Scan::More;
        Ok(match scan {
            Scan::More => None,
            Scan::Whole(length) => Some(Message::Usable(self.input.split_to(length).freeze())),
            Scan::Deep(length) => Some(Message::TooDeep(self.input.split_to(length).freeze())),
        })
    }

    async fn handle(&mut self, message: Message) -> Result<(), End> {
        let bytes = match &message {
            Message::Usable(bytes) => bytes,
            Message::TooDeep(bytes) => {
                self.refuse_too_deep(bytes).await;
                return Ok(());
            }
        };
        let Some(request) = Request::parse(bytes) else {
            self.answer_pending().await;
            rpc::invalid_request(&mut self.output);
            return Ok(());
        };
        match asker(&self.caller, request.metadata) {
            Ok(caller) => self.answer(&caller, &request, &bytes.slice_ref(request.params)).await,
            Err(refusal) => {
                self.refuse(request.msgid, &refusal.into()).await;
                Ok(())
            }
        }
    }

    /// Refuses what is nested over the bound: under its id if it is a request, for a client that has more
    /// under way must know which one is meant.
    async fn refuse_too_deep(&mut self, message: &[u8]) {
        self.answer_pending().await;
        match Request::parse(message) {
            Some(request) => {
                rpc::error(&mut self.output, request.msgid, &Refusal::InvalidRequest.to_string());
            }
            None => rpc::invalid_request(&mut self.output),
        }
    }

    /// Says why the connection is about to be closed, if it is for a request that is too large and whose
    /// beginning has come.
    fn refuse_too_large(&mut self, followed: &Result<(), FrameError>) {
        let Err(FrameError::TooLarge(most)) = followed else {
            return;
        };
        if let Some(msgid) = rpc::msgid_of(&self.input) {
            rpc::error(&mut self.output, msgid, &Refusal::RequestTooLarge(*most).to_string());
        }
    }

    async fn answer(
        &mut self,
        caller: &Caller,
        request: &Request<'_>,
        params: &Bytes,
    ) -> Result<(), End> {
        let msgid = request.msgid;
        if !is_record_write(request.method) {
            self.answer_pending().await;
        }
        let start = self.output.len();
        rpc::begin_result(&mut self.output, msgid);
        let context = self.context;
        let answer =
            context.service.call(caller, request.method, params, &context.reader, &mut self.output);
        match answer {
            Ok(Answer::Ready) => {}
            Ok(Answer::Commit(command)) => {
                self.output.truncate(start);
                match context.service.store().submit(command).await {
                    Ok(answer) => self.pending.push(Pending { msgid, answer }),
                    Err(fault) => self.refuse(msgid, &fault.into()).await,
                }
                if !is_record_write(request.method) {
                    // What comes next may be about the table or the right that this one changes.
                    self.answer_pending().await;
                }
            }
            Ok(Answer::List(mut listing)) => self.send_list(msgid, start, &mut listing).await?,
            Ok(Answer::Later(later)) => match later.await.unwrap_or(Err(StoreError::Closed.into()))
            {
                Ok(Deferred::Encoded(result)) => self.output.extend_from_slice(&result),
                Ok(Deferred::Pieces(mut pieces)) => {
                    let step = pieces.step(&mut self.output);
                    // A copy that was made already holds nothing up, however long it takes to send.
                    self.send_pieces(msgid, start, pieces.as_mut(), step, None).await?;
                }
                Err(failure) => {
                    self.output.truncate(start);
                    rpc::error(&mut self.output, msgid, &wire_error(&failure));
                }
            },
            Err(failure) => {
                self.output.truncate(start);
                self.refuse(msgid, &failure).await;
            }
        }
        Ok(())
    }

    /// Answers with an error, after the answers that are still owed.
    async fn refuse(&mut self, msgid: u64, failure: &CommandError) {
        self.answer_pending().await;
        rpc::error(&mut self.output, msgid, &wire_error(failure));
    }

    /// Waits for the commits of the writes under way and answers them.
    async fn answer_pending(&mut self) {
        for Pending { msgid, answer } in self.pending.drain(..) {
            match answer.await.unwrap_or(Err(CommandError::Faulted(StoreError::Closed))) {
                Ok(done) => rpc::text_result(&mut self.output, msgid, Service::done(done)),
                Err(failure) => rpc::error(&mut self.output, msgid, &wire_error(&failure)),
            }
        }
    }

    /// Sends a list of any length. A short one costs no wait; a longer one takes one of the slots
    /// for such reads.
    async fn send_list(
        &mut self,
        msgid: u64,
        start: usize,
        listing: &mut Listing,
    ) -> Result<(), End> {
        let begun = self.output.len();
        let mut step = listing.step(&mut self.output);
        let mut _slot = None;
        if matches!(step, Ok(Step::Working | Step::Send)) {
            self.output.truncate(begun);
            listing.restart();
            _slot = self.context.service.scans().take(&self.caller).await;
            step = listing.step(&mut self.output);
        }
        let time = Some(self.limits.scan_time);
        self.send_pieces(msgid, start, listing, step, time).await
    }

    /// Sends a result piece by piece, within a time if there is one, and gives the thread away
    /// after each.
    async fn send_pieces(
        &mut self,
        msgid: u64,
        start: usize,
        pieces: &mut dyn Pieces,
        first: Result<Step, CommandError>,
        time: Option<Duration>,
    ) -> Result<(), End> {
        let deadline = clock::monotonic() + time.unwrap_or(FOR_EVER);
        let (mut step, mut sent) = (first, false);
        loop {
            match step {
                Ok(Step::Finished) => return Ok(()),
                Ok(Step::Working) => yield_now().await,
                Ok(Step::Send) => {
                    sent = true;
                    // A client that takes a little now and then never stalls, and would hold the
                    // snapshot for as long as it likes.
                    timeout_at(deadline.into(), self.flush())
                        .await
                        .map_err(|_| End::TooSlow(Slow::TakingList(self.limits.scan_time)))??;
                    yield_now().await;
                }
                Err(failure) if sent => return Err(End::Broken(failure)),
                Err(failure) => {
                    self.output.truncate(start);
                    rpc::error(&mut self.output, msgid, &wire_error(&failure));
                    return Ok(());
                }
            }
            if clock::monotonic() > deadline {
                return Err(End::TooSlow(Slow::TakingList(self.limits.scan_time)));
            }
            step = pieces.step(&mut self.output);
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        let mut unsent = &self.output[..];
        while !unsent.is_empty() {
            let write = timeout(self.limits.stall_time, self.stream.write(unsent));
            match write.await {
                Ok(Ok(0)) => return Err(End::Closed),
                Ok(Ok(count)) => unsent = &unsent[count..],
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(End::TooSlow(Slow::TakingReplies(self.limits.stall_time))),
            }
        }
        // TLS may hold back the end of what it was given; a socket holds back nothing.
        match timeout(self.limits.stall_time, self.stream.flush()).await {
            Ok(flushed) => flushed?,
            Err(_) => return Err(End::TooSlow(Slow::TakingReplies(self.limits.stall_time))),
        }
        self.output.clear();
        self.output.shrink_to(KEPT);
        Ok(())
    }

    /// Waits for more bytes: for the rest of a message not as long as for the next one, and from
    /// its beginning, however often a little of it comes.
    async fn read(&mut self) -> Result<(), End> {
        let slow = if self.input.is_empty() { Slow::SendingAnything } else { Slow::SendingMessage };
        if !self.stopping {
            self.renew_idle_timeout();
        }
        if self.input.is_empty() && self.input.capacity() > KEPT {
            self.input = BytesMut::new();
        }
        self.input.reserve(READ);
        let Self { stream, input, idle_timeout, stopping, stop, .. } = self;
        let mut read = pin!(stream.read_buf(input));
        poll_fn(|context| {
            if let Poll::Ready(read) = read.as_mut().poll(context) {
                return Poll::Ready(match read? {
                    0 => Err(End::Closed),
                    _ => Ok(()),
                });
            }
            if !*stopping && stop.as_mut().poll(context).is_ready() {
                *stopping = true;
                idle_timeout.renew(LAST_READS);
            }
            let end = if *stopping { End::Closed } else { End::TooSlow(slow) };
            idle_timeout.poll_over(context).map(|()| Err(end))
        })
        .await
    }

    fn renew_idle_timeout(&mut self) {
        if self.input.is_empty() {
            self.idle_timeout.renew(self.limits.idle_time);
        } else if !self.begun {
            self.idle_timeout.renew(self.limits.message_time);
            self.begun = true;
        }
    }
}

/// One value from the stream.
enum Message {
    Usable(Bytes),
    TooDeep(Bytes),
}

/// On whose behalf a request is made. The fifth element is another machine's to send, and says for which of
/// its users it asks.
fn asker(caller: &Caller, metadata: Option<&[u8]>) -> Result<Caller, Refusal> {
    match (caller, metadata) {
        (_, None) => Ok(caller.clone()),
        (Caller::Local(_), Some(_)) => Err(Refusal::MetadataNotAllowed),
        (Caller::Peer { node, .. }, Some(metadata)) => match rpc::peer_uid(metadata) {
            Ok(uid) => Ok(Caller::Peer { node: node.clone(), uid }),
            Err(refusal) => {
                warn_of_bad_metadata(node, &refusal);
                Err(refusal)
            }
        },
    }
}

/// True for requests that may go to the writer behind each other without waiting for the commit
/// before: they answer the same whether or not the earlier ones have been committed yet.
fn is_record_write(method: &str) -> bool {
    matches!(method, "put" | "delete")
}

/// One warning at most per interval, with the number of those kept back.
fn warn_of_bad_bytes(caller: &Caller, error: FrameError) {
    static THROTTLE: LogThrottle = LogThrottle::new();
    if let Some(suppressed) = THROTTLE.due() {
        warn!(%caller, %error, suppressed, "a connection sent what cannot be followed and was closed: {error}");
    }
}

/// A client that reads too slowly finds its connection closed and no reason, so the journal has it, at most
/// once per interval; one that sends too slowly has nothing under way.
fn warn_of_slow_client(caller: &Caller, slow: Slow) {
    static THROTTLE: LogThrottle = LogThrottle::new();
    let (what, bound) = match slow {
        Slow::TakingReplies(bound) => ("accepted no byte of its replies", bound),
        Slow::TakingList(bound) => ("did not read a whole list", bound),
        Slow::SendingMessage | Slow::SendingAnything => {
            debug!(%caller, ?slow, "a connection was closed for being too slow");
            return;
        }
    };
    if let Some(suppressed) = THROTTLE.due() {
        let seconds = bound.as_secs();
        info!(
            %caller, suppressed,
            "closed a connection of {caller}: the client {what} within {seconds} s; it can ask for the rest after the last key it has"
        );
    }
}

/// The same for another machine that asks for its root, or sends what no version of this daemon does.
fn warn_of_bad_metadata(node: &NodeName, refusal: &Refusal) {
    static THROTTLE: LogThrottle = LogThrottle::new();
    if let Some(suppressed) = THROTTLE.due() {
        warn!(%node, %refusal, suppressed, "a request of another machine came with a user that it may not speak for: {refusal}");
    }
}
