//! Rows on a link: moves bytes and has the store do what the driver of the link says.
//! Decides nothing: that is `cortex_core::replication::driver`'s. The link itself, and its heartbeats, are `link`'s.
//!
//! ```text
//!   link ── frames, at most QUEUE ──> Exchange ── messages, what has come of work ──> Driver
//!   link <── a frame, or small ones ──   │  <── messages, work, notes ───────────────── │
//!                                        ├──> work:  position, apply, read: on threads that may block
//!                                        └──> notes: what is known of replicas there ──> SyncView
//! ```
//!
//! Nothing here waits for time where a row is concerned: a commit wakes the exchange, and the driver answers the
//! request that waits for it.

mod answers;
mod held_off;
mod node;
mod notes;
mod pack;
mod problems;
mod work;

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use bytes::Bytes;
use cortex_core::{
    model::{ActorId, NodeName},
    replication::{
        Dot, Message, PullRequest,
        driver::{self, Answered, Done, Driver, Input, Output, Peer, Remembered},
    },
    wire::link::{Hello, Reject},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until},
};
use tracing::trace;

pub(super) use held_off::HeldOff;
pub(super) use node::LocalNode;
pub(super) use problems::ProblemLog;

use super::{Shared, link::Ended};
use crate::store::{SYSTEM_TABLE, Store, StoreError};

/// Frames that wait to be understood. When there are as many, the link reads no further.
pub(super) const QUEUE: usize = 8;

/// Frames that wait to be sent, from which on nothing more is looked at: answers are small, but for one.
const OUTBOX: usize = 256;

/// Bytes of small frames that are sent as one.
const TOGETHER: usize = 8 << 10;

/// A frame from this size on is understood on another thread.
const LARGE: usize = 64 << 10;

/// What the rows of a link are exchanged with.
pub(super) struct FrameChannels {
    /// Frames that have come.
    pub(super) incoming: mpsc::Receiver<Bytes>,
    /// Takes one frame at a time, or several small ones.
    pub(super) outgoing: mpsc::Sender<Vec<u8>>,
    /// How far the other clock is ahead of ours. Changes are sent where they make a difference: see [`crosses_max_skew`].
    pub(super) clock: watch::Receiver<i64>,
}

/// Takes note of how far the other clock is ahead; true where rows may travel now and could not before, or the
/// other way round.
pub(super) fn crosses_max_skew(known: &mut i64, offset_ms: i64) -> bool {
    let before = std::mem::replace(known, offset_ms);
    driver::are_apart(before) != driver::are_apart(offset_ms)
}

/// Exchanges rows until the link must end; says why.
pub(super) async fn run(
    node: &NodeName,
    shared: &Shared,
    hello: &Hello,
    ends: FrameChannels,
) -> Ended {
    let here = here(shared);
    let peer = Peer {
        node: node.clone(),
        actor: ActorId(u128::from_be_bytes(hello.actor)),
        database: hello.database,
        last_of_ours: hello.last_of_yours,
    };
    let current = here.store.catalog().directory().node(node).map(|row| row.actor);
    let quarantined = here.view.change(|peers| {
        peers.link_up(node, peer.actor, current);
        peers.of(SYSTEM_TABLE, node).map(|known| known.quarantined.clone())
    });
    let remembered = Remembered {
        ahead_since: shared.held_off.since(node),
        quarantined: quarantined.unwrap_or_default(),
    };
    here.store.link_began(node);
    // Before anything is looked at, so that no change goes unseen.
    let changes = here.store.replicas_changed_since(0).0;
    let offset_ms = *ends.clock.borrow();
    let exchange = Exchange {
        shared,
        node,
        driver: Driver::new(peer, remembered, offset_ms, &here, shared.now()),
        here,
        jobs: JoinSet::new(),
        outbox: VecDeque::new(),
        prepared: None,
        reading: false,
        changes,
    };
    match exchange.run(ends).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

/// Notes that there is no link any more.
pub(super) fn ended(node: &NodeName, shared: &Shared) {
    shared.context.service.sync().change(|peers| peers.link_down(node));
}

/// The last write of a machine that is known here, as the actor that it is known as.
pub(super) fn last_of(shared: &Shared, node: &NodeName) -> Option<Dot> {
    driver::last_of(&here(shared), node)
}

/// This node, as what is decided about it reads it.
pub(super) fn here(shared: &Shared) -> LocalNode {
    LocalNode {
        name: shared.mesh().node().clone(),
        store: shared.context.service.store().clone(),
        view: shared.context.service.sync().clone(),
        mesh: Arc::clone(&shared.view),
    }
}

/// True where the database of the other side was removed from the mesh.
pub(super) fn is_evicted(store: &Store, hello: &Hello) -> bool {
    driver::is_evicted(store.catalog().directory(), &hello.node, hello.database)
}

struct Exchange<'a> {
    shared: &'a Shared,
    /// The other node.
    node: &'a NodeName,
    here: LocalNode,
    driver: Driver,
    jobs: JoinSet<Result<Finished, StoreError>>,
    /// Frames to be sent, each with whether it is a batch.
    outbox: VecDeque<(Vec<u8>, bool)>,
    /// The frame of the batch that is the answer to the request which was read last.
    prepared: Option<Vec<u8>>,
    /// True while a large frame is being understood.
    reading: bool,
    /// How many changes of replicas were looked at.
    changes: u64,
}

/// What was done elsewhere.
enum Finished {
    /// A frame was understood.
    Understood(Result<Message, std::io::Error>),
    /// Work for the driver.
    Done(Done),
    /// A request was read, with the frame of its batch.
    Read { request: Box<PullRequest>, answered: Answered, frame: Option<Vec<u8>> },
    /// Something that nobody waits for.
    Noted,
}

impl Exchange<'_> {
    async fn run(mut self, ends: FrameChannels) -> Result<Infallible, Ended> {
        let FrameChannels { mut incoming, outgoing, mut clock } = ends;
        let mut replicas = self.here.store.replica_changes();
        let mut catalog = self.here.store.catalog_changes();
        loop {
            let clock_offset_ms = *clock.borrow_and_update();
            self.handle(Input::Link { clock_offset_ms, has_room: self.has_room() });
            self.carry_out()?;
            let wakes = Instant::from_std(self.shared.started + self.driver.poll_timeout());
            tokio::select! {
                frame = incoming.recv(), if self.may_read() => match frame {
                    Some(frame) => self.receive(frame)?,
                    None => return Err(Ended::Closed),
                },
                Some(done) = self.jobs.join_next() => match done {
                    Ok(Ok(finished)) => self.finish(finished)?,
                    // The store is closed: nothing else comes so far.
                    Ok(Err(_closed)) => return Err(Ended::Stopping),
                    Err(ended) => match ended.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_given_up) => return Err(Ended::Stopping),
                    },
                },
                permit = outgoing.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => {
                        permit.send(self.next_frames());
                    }
                    Err(_gone) => return Err(Ended::Closed),
                },
                changed = replicas.changed() => {
                    if changed.is_err() {
                        return Err(Ended::Stopping);
                    }
                    let (count, tables) = self.here.store.replicas_changed_since(self.changes);
                    self.changes = count;
                    self.handle(Input::ReplicasChanged(tables));
                }
                changed = catalog.changed() => {
                    if changed.is_err() {
                        return Err(Ended::Stopping);
                    }
                    self.handle(Input::DirectoryChanged);
                }
                changed = clock.changed() => {
                    if changed.is_err() {
                        return Err(Ended::Closed);
                    }
                }
                () = sleep_until(wakes) => {
                    self.driver.handle_timeout(&self.here, self.shared.now());
                }
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.driver.handle(input, &self.here, self.shared.now());
    }

    /// Does what the driver says.
    fn carry_out(&mut self) -> Result<(), Ended> {
        while let Some(output) = self.driver.next_output() {
            match output {
                Output::Send(Message::Batch(_)) => {
                    if let Some(frame) = self.prepared.take() {
                        trace!(node = %self.node, bytes = frame.len(), "saying a batch");
                        self.outbox.push_back((frame, true));
                    }
                }
                Output::Send(message) => {
                    trace!(node = %self.node, table = ?message.table(), said = message.name(), "sending a message about a replica");
                    self.outbox.push_back((pack::frame(message), false));
                }
                Output::Work(work) => self.work(work),
                Output::Note(note) => self.note(note),
                Output::End => return Err(Ended::Unwanted(Reject::Evicted)),
            }
        }
        Ok(())
    }

    /// What waits to be sent, as far as it is written at once.
    fn next_frames(&mut self) -> Vec<u8> {
        let mut frames = Vec::new();
        while let Some((frame, is_batch)) = self.outbox.pop_front() {
            if is_batch {
                self.handle(Input::BatchSent);
            }
            if frames.is_empty() {
                frames = frame;
            } else {
                frames.extend(frame);
            }
            let next = self.outbox.front().map_or(0, |(next, _)| next.len());
            if frames.len() + next > TOGETHER {
                break;
            }
        }
        frames
    }

    /// True while there is room for what a message may lead to.
    fn may_read(&self) -> bool {
        !self.reading && self.driver.may_read() && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.outbox.len() < OUTBOX
    }

    /// Understands a frame.
    fn receive(&mut self, frame: Bytes) -> Result<(), Ended> {
        if frame.len() < LARGE {
            return self.understood(pack::open(&frame));
        }
        self.reading = true;
        self.jobs.spawn(async move {
            let read = spawn_blocking(move || pack::open(&frame)).await;
            Ok(Finished::Understood(read.unwrap_or_else(|panic| Err(std::io::Error::other(panic)))))
        });
        Ok(())
    }

    fn understood(&mut self, message: Result<Message, std::io::Error>) -> Result<(), Ended> {
        let Ok(message) = message else {
            return Err(Ended::Mistake("bytes that are no message"));
        };
        trace!(node = %self.node, table = ?message.table(), said = message.name(), "received a message about a replica");
        self.handle(Input::Message(message));
        Ok(())
    }

    fn finish(&mut self, finished: Finished) -> Result<(), Ended> {
        match finished {
            Finished::Understood(message) => {
                self.reading = false;
                self.understood(message)?;
            }
            Finished::Done(done) => self.done(done),
            Finished::Read { request, answered, frame } => {
                self.prepared = frame;
                self.done(Done::Read { request, answered });
            }
            Finished::Noted => {}
        }
        Ok(())
    }

    fn done(&mut self, done: Done) {
        self.handle(Input::Done(done));
    }
}
