//! A link between two machines: who is there, a heartbeat each second, and why it ends.
//! Rows travel on it too, which is `sync`'s. Who is alive is the keeper's to say; dialling again is the dialer's.
//!
//! ```text
//!   both   Hello ──>        <── Hello
//!          wrong mesh, name, version, or a link too many: Reject, and closed
//!   both   Status each second ──>                      the first one that comes: the link is up
//!   either Bye, and closed
//! ```
//!
//! Reading and writing go on beside each other. What is to be said waits in a bounded queue; when that is full
//! the other side takes nothing, and the writer ends the link.

use std::{
    fmt, io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cortex_core::{
    directory::UNKNOWN_DATABASE,
    model::NodeName,
    wire::link::{
        Bye, FRAME_BYTES, Features, HELLO_BYTES, Hello, Incoming, Message, NAMES, Reject, Status,
    },
};
use tokio::{
    io::AsyncRead,
    pin,
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, timeout, timeout_at},
};
use tracing::debug;

use super::{
    Shared,
    frames::{FrameError, Frames, write_all},
    handshake::AuthenticatedConnection,
    keeper::{End, HeartbeatReport, PeerEvent},
    links::{LinkClaim, Origin, Side},
    live::LiveEntry,
    refused::Refused,
    replication,
    round_trip::{RoundTrip, measured_us, offset_ms},
};
use crate::sys::clock;

/// Between two heartbeats. Three lost ones make no machine suspect.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long the other side may take to say who it is.
const GREETING: Duration = Duration::from_secs(5);

/// A link on which nothing whole has come for so long is closed; the node behind it counts as dead by then.
const SILENCE: Duration = Duration::from_secs(15);

/// How long the other side may take to accept a message, and how long the farewell may take to leave.
const STALL: Duration = Duration::from_secs(15);
const LAST_STATUS: Duration = Duration::from_secs(1);

/// Messages that wait to be written.
const QUEUE: usize = 16;

/// Signs of life that may come at once, after a pause of the network; and how many come in a second at most.
const BURST: u32 = 30;
const PER_SECOND: u32 = 4;

/// For how long what has come on a link that is lost is read: it is here already, or nothing more comes.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest round trip by which a clock is measured, in microseconds: half of it is the error. A process that stood
/// still, or a link that was full, measures a longer one, which says nothing of the clock.
const MEASURING_TRIP_US: u64 = 2_000_000;

/// Why a link has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The other side has closed it without a message.
    Closed,
    /// The network has.
    Io(io::Error),
    /// Nothing has come for too long.
    Silent,
    /// The other side does not want it.
    Rejected(Reject),
    /// The other side has ended it.
    Bye(Bye),
    /// We do not want it.
    Unwanted(Reject),
    /// The other side has said what it should not have.
    Mistake(&'static str),
    /// Another link to the same machine is kept.
    Replaced,
    /// The certificate does not do any more.
    Untrusted(Refused),
    /// The daemon ends.
    Stopping,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("it was closed from there"),
            // What TLS says to this is for programmers, with an address to read more.
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed.fmt(f),
            Self::Io(error) => write!(f, "it was lost: {error}"),
            Self::Silent => f.write_str("no heartbeat came on it"),
            Self::Rejected(reject) => write!(f, "it is not wanted there: {reject}"),
            Self::Bye(bye) => write!(f, "it was ended from there: {bye}"),
            Self::Unwanted(reject) => write!(f, "it is not wanted here: {reject}"),
            Self::Mistake(what) => write!(f, "it was followed by {what}"),
            Self::Replaced => f.write_str("another link is kept"),
            Self::Untrusted(why) => write!(f, "{why}"),
            Self::Stopping => f.write_str("this daemon stops"),
        }
    }
}

impl Ended {
    /// True where there is another link instead, so that nothing is wrong.
    pub(super) fn is_for_another(&self) -> bool {
        matches!(
            self,
            Self::Replaced
                | Self::Rejected(Reject::Duplicate)
                | Self::Unwanted(Reject::Duplicate)
                | Self::Bye(Bye::Replaced)
        )
    }

    fn end(&self) -> End {
        if self.is_for_another() {
            End::Replaced
        } else if matches!(self, Self::Bye(Bye::Stopping)) {
            End::Stopped
        } else {
            End::Lost
        }
    }

    /// The last message to the other side, if it is still there to receive it.
    fn last_status(&self) -> Option<Message> {
        match self {
            Self::Unwanted(reject) => Some(Message::Reject(*reject)),
            Self::Mistake(_) => Some(Message::Bye(Bye::Mistake)),
            Self::Replaced => Some(Message::Bye(Bye::Replaced)),
            Self::Untrusted(_) => Some(Message::Bye(Bye::Untrusted)),
            Self::Stopping => Some(Message::Bye(Bye::Stopping)),
            Self::Closed | Self::Io(_) | Self::Silent | Self::Rejected(_) | Self::Bye(_) => None,
        }
    }
}

impl From<FrameError> for Ended {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Closed => Self::Closed,
            FrameError::TooLarge => Self::Mistake("a frame over the bound"),
            FrameError::Io(error) => Self::Io(error),
        }
    }
}

/// Carries a link from the handshake to its end.
pub(super) async fn run(
    greeted: AuthenticatedConnection,
    dialled_by: Side,
    shared: &Shared,
) -> Ended {
    let AuthenticatedConnection { stream, from, peer, place, .. } = greeted;
    let (reader, writer) = tokio::io::split(stream);
    let (say, queue) = mpsc::channel(QUEUE);
    let (send_rows, rows) = mpsc::channel(1);
    let (broke, broken) = oneshot::channel();
    let node = peer.node;
    let link = Link {
        node: &node,
        dialled_by,
        certificate_expires: peer.not_after,
        shared,
        frames: Frames::new(reader),
        say,
        send_rows,
        broken,
        place,
        last_heard: None,
        round_trip: RoundTrip::default(),
        allowance: TokenBucket::new(clock::monotonic()),
    };
    let writing = async {
        if let Err(error) = write_all(writer, queue, rows, STALL).await {
            let _ends_already = broke.send(error);
        }
    };
    let talking = link.talk();
    pin!(writing, talking);
    let ended = tokio::select! {
        ended = &mut talking => {
            // The queue is closed now: the writer ends when all was said.
            let _gone_already = timeout(LAST_STATUS, writing).await;
            ended
        }
        // It has sent the reason, and the link is brought to its end.
        () = &mut writing => talking.await,
    };
    if let Ended::Unwanted(
        reject @ (Reject::Mesh
        | Reject::WrongNode
        | Reject::Version
        | Reject::Evicted
        | Reject::NameTaken),
    ) = &ended
    {
        shared.refusals.note(from, &Refused::Greeting(*reject));
        if *reject == Reject::NameTaken {
            let (node, why) = (node.clone(), ended.to_string());
            let _gone = shared.news.send(PeerEvent::Failed { node, why }).await;
        }
    }
    debug!(%node, %from, %ended, "a link has ended");
    ended
}

/// A link that is being served.
struct Link<'a, R> {
    node: &'a NodeName,
    dialled_by: Side,
    certificate_expires: u64,
    shared: &'a Shared,
    frames: Frames<R>,
    say: mpsc::Sender<Message>,
    send_rows: mpsc::Sender<Vec<u8>>,
    /// Told when nothing can be written any more.
    broken: oneshot::Receiver<io::Error>,
    place: LiveEntry,
    /// When their last status was sent, by their clock, and when it came, by ours.
    last_heard: Option<(u64, u64)>,
    round_trip: RoundTrip,
    allowance: TokenBucket,
}

impl<R: AsyncRead + Unpin> Link<'_, R> {
    /// Exchanges messages until the end, and sends the farewell.
    async fn talk(mut self) -> Ended {
        let ended = match self.greet().await {
            Ok((hello, held)) => self.live(&hello, held).await,
            Err(ended) => ended,
        };
        if let Some(status) = ended.last_status() {
            let _full_or_gone = self.say.try_send(status);
        }
        ended
    }

    /// Exchanges greetings, and takes the place of the one link to it.
    async fn greet(&mut self) -> Result<(Hello, LinkClaim), Ended> {
        let _room_for_the_first = self.say.try_send(Message::Hello(self.own_hello()));
        let first = tokio::select! {
            first = timeout(GREETING, self.frames.next(HELLO_BYTES)) => first,
            why = self.place.untrusted() => return Err(Ended::Untrusted(why)),
            Ok(error) = &mut self.broken => return Err(Ended::Io(error)),
            () = self.shared.stopped() => return Err(Ended::Stopping),
        };
        let body = first.map_err(|_| Ended::Silent)??;
        let hello = match Incoming::read(&body) {
            Ok(Incoming::Known(Message::Hello(hello))) => hello,
            Ok(Incoming::Known(Message::Reject(reject))) => return Err(Ended::Rejected(reject)),
            Ok(Incoming::Known(Message::Bye(bye))) => return Err(Ended::Bye(bye)),
            Ok(
                Incoming::Known(Message::Status(_) | Message::Sync(_) | Message::Packed(_))
                | Incoming::Unknown(_),
            ) => {
                return Err(Ended::Mistake("something else before its greeting"));
            }
            Err(_) => return Err(Ended::Mistake("no greeting")),
        };
        self.judge(&hello).map_err(Ended::Unwanted)?;
        let origin = Origin { dialled_by: self.dialled_by, boot: hello.boot };
        let mesh = self.shared.mesh();
        let held = self.shared.links.claim(mesh.node(), self.node, origin);
        Ok((hello, held.ok_or(Ended::Unwanted(Reject::Duplicate))?))
    }

    fn own_hello(&self) -> Hello {
        let (mesh, store) = (self.shared.mesh(), self.shared.context.service.store());
        Hello {
            mesh: mesh.credentials().mesh().0,
            node: mesh.node().clone(),
            actor: store.actor().0.to_be_bytes(),
            wall_ms: clock::wall_ms(),
            hlc: store.hlc(),
            features: Features::OURS,
            boot: self.shared.boot,
            database: Some(store.database()),
            last_of_yours: replication::last_of(self.shared, self.node),
        }
    }

    fn judge(&self, hello: &Hello) -> Result<(), Reject> {
        if hello.mesh != self.shared.mesh().credentials().mesh().0 {
            return Err(Reject::Mesh);
        }
        if hello.node != *self.node {
            return Err(Reject::WrongNode);
        }
        if Features::OURS.common(hello.features).is_none() {
            return Err(Reject::Version);
        }
        if replication::is_evicted(self.shared.context.service.store(), hello) {
            return Err(Reject::Evicted);
        }
        if self.is_second(hello) {
            return Err(Reject::NameTaken);
        }
        Ok(())
    }

    /// True for a second database of a name: one that does not know this machine, although that of the
    /// name which is known here has, or one whose name is linked already. A machine that was restored from a
    /// backup has another database too, which knows what it had received before.
    fn is_second(&self, hello: &Hello) -> bool {
        let store = self.shared.context.service.store();
        let catalog = store.catalog();
        let directory = catalog.directory();
        let Some(known) = directory.node(self.node) else { return false };
        let is_another = hello.database.is_some_and(|database| database != known.database);
        if !is_another || directory.is_put_out(self.node) || known.database == UNKNOWN_DATABASE {
            return false;
        }
        let has_heard_of_us = hello.last_of_yours.is_some_and(|last| last.seq > 0);
        !has_heard_of_us || self.is_linked()
    }

    /// True while another link to a machine of that name is up.
    fn is_linked(&self) -> bool {
        let seen = self.shared.view.now();
        seen.peers.iter().any(|peer| peer.node == *self.node && peer.connected)
    }

    /// From the greeting on.
    async fn live(&mut self, hello: &Hello, mut held: LinkClaim) -> Ended {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_at = clock::monotonic() + SILENCE;
        let mut up = false;
        // Until the round trip is known, that of the greeting does.
        let (clock, watched) = watch::channel(offset_ms(clock::wall_ms(), hello.wall_ms, 0));
        let (hand_over, incoming) = mpsc::channel(replication::QUEUE);
        let ends = replication::FrameChannels {
            incoming,
            outgoing: self.send_rows.clone(),
            clock: watched,
        };
        let rows = replication::run(self.node, self.shared, hello, ends);
        pin!(rows);
        // What has come about rows while there was no room for it. Until there is, nothing more is read.
        let mut kept = None;
        let mut received = 0;
        let ended = loop {
            tokio::select! {
                frame = timeout_at(silent_at.into(), self.frames.next(FRAME_BYTES)), if kept.is_none() => {
                    silent_at = clock::monotonic() + SILENCE;
                    let outcome = match frame {
                        // A large frame that is still arriving is no silence.
                        Err(_) if self.frames.received() > received => Ok(None),
                        Err(_) => Err(Ended::Silent),
                        Ok(Err(error)) => Err(error.into()),
                        Ok(Ok(body)) if Incoming::is_about_replicas(&body) => {
                            kept = Some(body);
                            Ok(None)
                        }
                        Ok(Ok(body)) => self.handle_frame(&body, hello),
                    };
                    received = self.frames.received();
                    match outcome {
                        Err(ended) => break ended,
                        Ok(None) => {}
                        Ok(Some(heartbeat)) => {
                            if let Some(offset_ms) = heartbeat.clock_offset_ms {
                                clock.send_if_modified(|known| replication::crosses_max_skew(known, offset_ms));
                            }
                            if !std::mem::replace(&mut up, true) {
                                self.report(PeerEvent::Up {
                                    node: self.node.clone(),
                                    certificate_expires: self.certificate_expires,
                                }).await;
                            }
                            self.report(PeerEvent::Heartbeat(heartbeat)).await;
                        }
                    }
                }
                Ok(room) = hand_over.reserve(), if kept.is_some() => {
                    if let Some(body) = kept.take() {
                        room.send(body);
                    }
                    silent_at = clock::monotonic() + SILENCE;
                }
                ended = &mut rows => break ended,
                _ = heartbeat.tick() => {
                    // When it is full the writer stands still, and will end the link if it goes on.
                    let _full = self.say.try_send(Message::Status(self.own_status()));
                }
                () = held.replaced() => break Ended::Replaced,
                why = self.place.untrusted() => break Ended::Untrusted(why),
                Ok(error) = &mut self.broken => break Ended::Io(error),
                () = self.shared.stopped() => break Ended::Stopping,
            }
        };
        let is_lost = matches!(ended, Ended::Closed | Ended::Io(_));
        let last = if is_lost { self.last_heard().await } else { None };
        let ended = last.map_or(ended, Ended::Bye);
        if !ended.is_for_another() {
            replication::ended(self.node, self.shared);
        }
        if up {
            let news = PeerEvent::Down {
                node: self.node.clone(),
                why: ended.to_string(),
                end: ended.end(),
            };
            self.report(news).await;
        }
        ended
    }

    /// Why the other side has ended the link, where it has said so. Writing to a link that was closed from there fails,
    /// and may do so before what has come on it is read.
    async fn last_heard(&mut self) -> Option<Bye> {
        let deadline = clock::monotonic() + FAREWELL_TIMEOUT;
        while let Ok(Ok(body)) = timeout_at(deadline.into(), self.frames.next(FRAME_BYTES)).await {
            if let Ok(Incoming::Known(Message::Bye(bye))) = Incoming::read(&body) {
                return Some(bye);
            }
        }
        None
    }

    /// Takes a message; answers what a heartbeat says.
    fn handle_frame(
        &mut self,
        body: &Bytes,
        hello: &Hello,
    ) -> Result<Option<HeartbeatReport>, Ended> {
        match Incoming::read(body) {
            Ok(Incoming::Known(Message::Status(status))) => {
                if !self.allowance.take(clock::monotonic()) {
                    return Err(Ended::Mistake("more heartbeats than anybody needs"));
                }
                Ok(Some(self.measure(status)))
            }
            Ok(Incoming::Known(Message::Reject(reject))) => Err(Ended::Rejected(reject)),
            Ok(Incoming::Known(Message::Bye(bye))) => Err(Ended::Bye(bye)),
            Ok(Incoming::Known(Message::Hello(_))) => Err(Ended::Mistake("a second greeting")),
            Ok(Incoming::Known(Message::Sync(_) | Message::Packed(_))) => {
                Err(Ended::Mistake("a message in disguise"))
            }
            Ok(Incoming::Unknown(_)) if Features::OURS.tolerates(hello.features) => Ok(None),
            Ok(Incoming::Unknown(_)) => Err(Ended::Mistake("a message that it should not know")),
            Err(_) => Err(Ended::Mistake("bytes that are no message")),
        }
    }

    fn measure(&mut self, status: Status) -> HeartbeatReport {
        let now_us = self.shared.now_us();
        self.last_heard = Some((status.sent_us, now_us));
        let measured = status.echo_us.and_then(|echo| measured_us(now_us, echo, status.held_us));
        let round_trip_us = measured.map(|measured| self.round_trip.take(measured));
        let offset = |trip| offset_ms(clock::wall_ms(), status.wall_ms, trip);
        HeartbeatReport {
            node: self.node.clone(),
            round_trip_us,
            clock_offset_ms: measured.filter(|trip| *trip <= MEASURING_TRIP_US).map(offset),
            sees: status.sees,
        }
    }

    fn own_status(&self) -> Status {
        let now_us = self.shared.now_us();
        let view = self.shared.view.now();
        Status {
            sent_us: now_us,
            echo_us: self.last_heard.map(|(theirs, _)| theirs),
            held_us: self.last_heard.map_or(0, |(_, ours)| now_us.saturating_sub(ours)),
            wall_ms: clock::wall_ms(),
            hlc: self.shared.context.service.store().hlc(),
            sees: view.alive().take(NAMES).cloned().collect(),
        }
    }

    async fn report(&self, news: PeerEvent) {
        // It is gone only where the daemon ends.
        let _gone = self.shared.news.send(news).await;
    }
}

/// How many heartbeats may come: so many at once, and so many a second.
#[derive(Debug)]
struct TokenBucket {
    left: u32,
    counted: Instant,
}

impl TokenBucket {
    fn new(now: Instant) -> Self {
        Self { left: BURST, counted: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.counted).as_secs();
        if seconds > 0 {
            let earned = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(PER_SECOND);
            self.left = self.left.saturating_add(earned).min(BURST);
            self.counted = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_hangs_up_is_told_of_in_plain_words() {
        let by_tls = io::Error::new(io::ErrorKind::UnexpectedEof, "https://docs.rs/rustls");
        assert_eq!(Ended::Io(by_tls).to_string(), "it was closed from there");
        let by_network = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(Ended::Io(by_network).to_string(), "it was lost: connection reset");
    }

    #[test]
    fn an_allowance_is_for_a_burst_and_then_for_a_few_a_second() {
        let start = clock::monotonic();
        let mut allowance = TokenBucket::new(start);
        let taken = (0..100).filter(|_| allowance.take(start)).count();
        assert_eq!(taken, 30);
        let later = start + Duration::from_secs(2);
        assert_eq!((0..100).filter(|_| allowance.take(later)).count(), 8);
        let hour = later + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| allowance.take(hour)).count(), 30);
    }
}
