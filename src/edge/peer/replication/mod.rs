//! Rows on a link: does what the session of it says, with the store on one side and frames on the other.
//! What to ask for and when is `cortex_core::replication`'s; the link itself, and its signs of life, are `link`'s.
//!
//! ```text
//!   link ── frames, at most QUEUE ──> Exchange ──> position, take, serve: on threads that may block
//!   link <── a frame, or small ones ─    │  └────> what is known of the replica there ──> SyncView
//!                                     Session
//! ```
//!
//! Nothing here waits for time where a row is concerned: a commit wakes the exchange, which answers the
//! request that waits for it.

mod answers;
mod clocks;
mod known;
mod pack;
mod quarantine;
mod status_gossip;
mod troubles;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use cortex_core::{
    directory::Standing,
    model::{ActorId, NodeName, TableUid},
    replication::{
        Ack, Answer, Batch, BatchOutcome, Message, Output, Part, Position, PullRequest, Refuse,
        Session, Why,
    },
    wire::link::{Hello, Reject},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until},
};
use tracing::{debug, trace, warn};

pub(super) use clocks::{HeldOff, tells};
pub(super) use troubles::TroubleLog;

use answers::{Answered, Heard, Passed, answer_at_once, answer_to, checked};
use troubles::{REFUSED, trouble_of, trouble_with, why_failed};

use super::{Shared, blocking, link::Ended};
use crate::{
    service::sync::Trouble,
    store::{
        Applied, Checked, Command, CommandError, DirectoryCommand, Event, Outcome, ReceivedBatch,
        Replica, ReplicationCommand, ReplicationOutcome, SYSTEM_TABLE, Store, StoreError,
        UnverifiedRow, UpkeepCommand,
    },
    sys::clock,
};

/// Frames that wait to be understood. When there are as many, the link reads no further.
pub(super) const QUEUE: usize = 8;

/// Batches that are being stored, or wait for it, at a time. While there are as many, nothing else of this link
/// is looked at: each may hold a mebibyte and more.
const TAKING: usize = 8;

/// Frames that wait to be sent, from which on nothing more is looked at: answers are small, but for one.
const OUTBOX: usize = 256;

/// Bytes of small frames that are sent as one.
const TOGETHER: usize = 8 << 10;

/// Between two looks at which tables there are to ask for: many may be made at once.
const FOLLOW_PAUSE: Duration = Duration::from_millis(20);

/// A frame from this size on is understood on another thread.
const LARGE: usize = 64 << 10;

/// Between two rounds of passing on what replicas have said; and until all of it is passed on again, for
/// whoever has lost it.
const ROUND: Duration = Duration::from_secs(5);
const ROUNDS: u32 = 12;

/// A clock that is further off than this stamps rows so that they hide others, or lose against them.
/// Deletions are kept for a day, and must be kept for much longer than clocks may differ.
pub(super) const MAX_SKEW_MS: u64 = 60_000;

/// What the rows of a link are exchanged with.
pub(super) struct Ends {
    /// Frames that have come.
    pub(super) incoming: mpsc::Receiver<Bytes>,
    /// Takes one frame at a time, or several small ones.
    pub(super) outgoing: mpsc::Sender<Vec<u8>>,
    /// How far the other clock is ahead of ours.
    pub(super) clock: watch::Receiver<i64>,
}

/// Exchanges rows until the link must end; says why.
pub(super) async fn run(node: &NodeName, shared: &Shared, hello: &Hello, ends: Ends) -> Ended {
    let store = shared.context.service.store().clone();
    let view = shared.context.service.sync();
    let origin = ActorId(u128::from_be_bytes(hello.actor));
    let current = store.catalog().directory().node(node).map(|row| row.actor);
    view.update_all(node, |known| {
        known.is_now(origin, current);
        for trouble in [&mut known.taking, &mut known.giving] {
            trouble.take_if(|trouble| *trouble == Trouble::Unreachable);
        }
    });
    let exchange = Exchange {
        shared,
        node,
        hello,
        session: Session::new(SYSTEM_TABLE, shared.now()),
        jobs: JoinSet::new(),
        outbox: VecDeque::new(),
        serving: false,
        prepared: None,
        taking: 0,
        reading: false,
        seen: HashMap::new(),
        changes: store.copies_changed_since(0).0,
        passed: HashMap::new(),
        told_whole: HashMap::new(),
        catalog_changed: false,
        followed: Duration::ZERO,
        follow_at: None,
        told: status_gossip::Told::default(),
        rounds: 0,
        next_round: shared.now() + Duration::from_secs(1),
        store,
        quarantine: quarantine::Quarantine::default(),
        waiting: clocks::Waiting::default(),
    };
    match exchange.run(ends).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

/// Notes that there is no link any more.
pub(super) fn ended(node: &NodeName, shared: &Shared) {
    shared.context.service.sync().update_all(node, |known| {
        known.taking = Some(Trouble::Unreachable);
        known.giving = Some(Trouble::Unreachable);
    });
}

/// The last write of a machine that is known here, as the actor that it is known as.
pub(super) fn last_of(store: &Store, node: &NodeName) -> Option<cortex_core::replication::Dot> {
    let actor = store.catalog().directory().node(node)?.actor;
    let seq = store.copies().iter().map(|copy| copy.vector.get(actor)).max()?;
    Some(cortex_core::replication::Dot { actor, seq })
}

/// True where the database of the other side was removed from the mesh.
pub(super) fn is_evicted(store: &Store, hello: &Hello) -> bool {
    let catalog = store.catalog();
    match hello.database {
        Some(database) => catalog.directory().is_removed(&database),
        None => catalog.directory().is_put_out(&hello.node),
    }
}

struct Exchange<'a> {
    shared: &'a Shared,
    node: &'a NodeName,
    hello: &'a Hello,
    session: Session,
    store: Store,
    jobs: JoinSet<Result<Finished, StoreError>>,
    /// Frames to be sent, each with whether it is a batch: of those there is one at most.
    outbox: VecDeque<(Vec<u8>, bool)>,
    /// True while a request is being answered, or its answer waits to be sent.
    serving: bool,
    /// The frame of the batch that is the answer.
    prepared: Option<Vec<u8>>,
    /// Batches that are being stored.
    taking: usize,
    /// True while a large frame is being understood.
    reading: bool,
    /// The replicas here as they were when a request that waits was answered last.
    seen: HashMap<TableUid, Option<Arc<Replica>>>,
    /// How many changes of replicas were looked at.
    changes: u64,
    /// Where there was nothing for requests that wait.
    passed: HashMap<TableUid, Passed>,
    /// The tables of which the other side is told that the replica here is whole, and the place in the change log that
    /// this brings it to.
    told_whole: HashMap<TableUid, u64>,
    /// True from a change of the directory until the replicas that follow from it are there.
    catalog_changed: bool,
    /// When the tables to ask for were looked at last, and are to be looked at again.
    followed: Duration,
    follow_at: Option<Duration>,
    told: status_gossip::Told,
    rounds: u32,
    next_round: Duration,
    /// How far the directory of the other side was read beyond rows that cannot be verified.
    quarantine: quarantine::Quarantine,
    /// What clocks hold up.
    waiting: clocks::Waiting,
}

/// Work that was done elsewhere.
enum Finished {
    /// A frame was understood.
    Read(Result<Message, std::io::Error>),
    /// A table's request can be made.
    Located(TableUid, Option<Position>),
    /// What is durable is known.
    Durable { table: TableUid, upto: Position, drain: Option<[u8; 16]> },
    /// The good rows of a batch were stored, and others were left aside.
    Learnt { outline: Box<Batch>, keys: Vec<Vec<u8>>, unverified: Vec<UnverifiedRow> },
    /// A batch was stored, or not.
    Applied { outline: Box<Batch>, done: Result<Outcome, CommandError> },
    /// A request was answered.
    BatchRead { want: Box<PullRequest>, answered: Answered },
    /// Something that nobody waits for.
    Noted,
}

impl Exchange<'_> {
    async fn run(mut self, ends: Ends) -> Result<Infallible, Ended> {
        let Ends { mut incoming, outgoing, mut clock } = ends;
        let mut copies = self.store.copy_changes();
        let mut catalog = self.store.catalog_changes();
        self.look_for_rollback();
        self.follow();
        loop {
            self.carry_out(*clock.borrow());
            let timeouts = [
                self.session.poll_timeout(),
                self.follow_at,
                self.quarantine.check_at(),
                self.waiting.until(),
                Some(self.next_round),
            ];
            let wakes = timeouts.into_iter().flatten().min().unwrap_or(self.next_round);
            let wakes = Instant::from_std(self.shared.started + wakes);
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
                changed = copies.changed() => {
                    if changed.is_err() {
                        return Err(Ended::Stopping);
                    }
                    self.copies_changed();
                }
                changed = catalog.changed() => {
                    if changed.is_err() {
                        return Err(Ended::Stopping);
                    }
                    if is_evicted(&self.store, self.hello) {
                        return Err(Ended::Unwanted(Reject::Evicted));
                    }
                    self.follow_soon();
                }
                changed = clock.changed() => {
                    if changed.is_err() {
                        return Err(Ended::Closed);
                    }
                    self.session.reconsider();
                    self.hurry_waiting();
                }
                () = sleep_until(wakes) => {
                    let now = self.shared.now();
                    self.ask_for_what_waited();
                    self.quarantine.check(now, || self.session.hurry(SYSTEM_TABLE, now));
                    self.session.handle_timeout(self.shared.now());
                    if self.follow_at.is_some_and(|at| at <= self.shared.now()) {
                        self.follow();
                    }
                    self.pass_on();
                }
            }
        }
    }

    /// What waits to be sent, as far as it is written at once.
    fn next_frames(&mut self) -> Vec<u8> {
        let mut frames = Vec::new();
        while let Some((frame, is_batch)) = self.outbox.pop_front() {
            self.serving &= !is_batch;
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
        !self.reading && self.taking < TAKING && self.outbox.len() < OUTBOX
    }

    /// Does what the session says.
    fn carry_out(&mut self, clock_offset_ms: i64) {
        loop {
            while let Some(output) = self.session.next_output() {
                match output {
                    Output::Ask { table, from: Some(from) } => self.ask(table, from),
                    Output::Ask { table, from: None } => self.locate(table),
                    Output::Apply(batch) if self.clocks_hold_up(batch.table, clock_offset_ms) => {
                        self.wait_for_clocks(batch.table);
                        self.trouble(batch.table, |known| {
                            known.taking = Some(Trouble::Clock(clock_offset_ms));
                        });
                        let why = BatchOutcome::Failed(Why::Clock(clock_offset_ms));
                        self.session.taken(&batch, why, self.shared.now());
                    }
                    Output::Apply(batch) => self.take(*batch),
                    Output::Acknowledge { table, upto: Some(upto), drain } => {
                        self.acknowledge(table, &upto, drain);
                    }
                    Output::Acknowledge { table, upto: None, drain } => {
                        let (store, node) = (self.store.clone(), self.node.clone());
                        self.jobs.spawn(async move {
                            let upto = blocking(move || store.position(table, &node)).await;
                            Ok(match unless_closed(upto)? {
                                Some(upto) => Finished::Durable { table, upto, drain },
                                None => Finished::Noted, // it is told with the next batch
                            })
                        });
                    }
                    Output::Say(Message::Batch(_)) => {
                        if let Some(frame) = self.prepared.take() {
                            trace!(node = %self.node, bytes = frame.len(), "saying a batch");
                            self.outbox.push_back((frame, true));
                            self.serving = true;
                        }
                    }
                    Output::Say(message) => self.say(message),
                }
            }
            if self.serving {
                return;
            }
            let Some(want) = self.session.next_pull_request() else { return };
            self.seen.insert(want.table, self.store.copy(want.table));
            if self.clocks_hold_up(want.table, clock_offset_ms) {
                let why = Why::Clock(clock_offset_ms);
                self.served(&want, Answered::just(Answer::Refused(why)));
            } else {
                self.serve(want);
            }
        }
    }

    /// Understands a frame.
    fn receive(&mut self, frame: Bytes) -> Result<(), Ended> {
        if frame.len() < LARGE {
            return self.read(pack::open(&frame));
        }
        self.reading = true;
        self.jobs.spawn(async move {
            let read = spawn_blocking(move || pack::open(&frame)).await;
            Ok(Finished::Read(read.unwrap_or_else(|panic| Err(std::io::Error::other(panic)))))
        });
        Ok(())
    }

    fn read(&mut self, message: Result<Message, std::io::Error>) -> Result<(), Ended> {
        let Ok(message) = message else {
            return Err(Ended::Mistake("bytes that are no message"));
        };
        trace!(node = %self.node, table = ?message.table(), said = message.name(), "heard about a copy");
        match &message {
            Message::PullRequest(_) => {}
            // What it has is not sent back to it.
            Message::Batch(batch) => self.session.reader_has(batch.table, &batch.vector),
            Message::Ack(ack) => self.heard_ack(ack),
            Message::StatusGossip(said) => {
                for (node, status) in &said.statuses {
                    self.received_status(said.table, node, status);
                }
            }
            Message::Parked(waits) => {
                self.trouble(waits.table, |known| known.taking = None);
            }
            Message::Refuse(Refuse { table, taking, why }) => {
                let trouble = trouble_of(why.as_seen_from_here());
                if *taking {
                    self.store.was_refused(self.node, *table);
                }
                self.trouble(*table, |known| {
                    if *taking {
                        known.giving = Some(trouble);
                    } else {
                        known.taking = Some(trouble);
                    }
                });
            }
        }
        self.session.handle(message, self.shared.now());
        Ok(())
    }

    fn finish(&mut self, finished: Finished) -> Result<(), Ended> {
        match finished {
            Finished::Read(message) => {
                self.reading = false;
                self.read(message)?;
            }
            Finished::Located(table, Some(position)) => self.ask(table, position),
            Finished::Located(table, None) => {
                self.trouble(table, |known| known.taking = Some(Trouble::Storage));
                self.session.asked(table, None, self.shared.now());
            }
            Finished::Durable { table, upto, drain } => self.acknowledge(table, &upto, drain),
            Finished::Learnt { outline, keys, unverified } => {
                self.taking -= 1;
                self.learnt(&outline, &keys, unverified);
                self.session.taken(&outline, BatchOutcome::Stored, self.shared.now());
            }
            Finished::Applied { outline, done } => self.taken(&outline, done),
            Finished::BatchRead { want, answered } => self.served(&want, answered),
            Finished::Noted => {}
        }
        Ok(())
    }

    /// Says what is wanted, as this replica is now.
    fn ask(&mut self, table: TableUid, position: Position) {
        let reader = self.store.actor();
        let copy = self.store.copy(table).filter(|copy| copy.epoch > 0);
        let now = self.shared.now();
        let Some(copy) = copy else {
            return self.session.asked(table, None, now);
        };
        let (epoch, mut vector) = (copy.epoch, copy.vector.clone());
        if table == SYSTEM_TABLE
            && let Some(known) = self.quarantine.vector_at(&position)
        {
            vector.join(known);
        }
        let want = PullRequest { table, reader, epoch, position: position.clone(), vector };
        self.say(Message::PullRequest(Box::new(want)));
        self.session.asked(table, Some(position), now);
    }

    fn locate(&mut self, table: TableUid) {
        if table == SYSTEM_TABLE
            && let Some(position) = self.quarantine.next()
        {
            return self.ask(table, position);
        }
        let (store, node) = (self.store.clone(), self.node.clone());
        self.jobs.spawn(async move {
            let position = blocking(move || store.position(table, &node)).await;
            Ok(Finished::Located(table, unless_closed(position)?))
        });
    }

    fn acknowledge(&mut self, table: TableUid, upto: &Position, drain: Option<[u8; 16]>) {
        let Some(status) = status_gossip::own_status(&self.store, table) else { return };
        // During a snapshot transfer the place in the change log is where the snapshot transfer began: not everything
        // before has come.
        let is_durable =
            upto.snapshot.is_none() && !(table == SYSTEM_TABLE && self.quarantine.is_open());
        let cursor = upto.cursor.filter(|_| is_durable);
        self.say(Message::Ack(Box::new(Ack { table, cursor, drain, status })));
    }

    fn say(&mut self, message: Message) {
        trace!(node = %self.node, table = ?message.table(), said = message.name(), "saying about a copy");
        self.outbox.push_back((pack::frame(message), false));
    }

    /// Has a batch stored.
    fn take(&mut self, mut batch: Batch) {
        let (rows, contexts) =
            (std::mem::take(&mut batch.rows), std::mem::take(&mut batch.contexts));
        let outline = Box::new(batch.clone());
        (batch.rows, batch.contexts) = (rows, contexts);
        let (store, from) = (self.store.clone(), self.node.clone());
        let signer = Arc::clone(self.shared.mesh().credentials());
        let latest = self.believed(&batch);
        let is_beyond =
            batch.table == SYSTEM_TABLE && self.quarantine.vector_at(&batch.from).is_some();
        self.taking += 1;
        self.jobs.spawn(async move {
            let checked = checked(&batch, &store, signer).await?;
            if is_beyond || !checked.unverified.is_empty() {
                let Checked { verified, unverified } = checked;
                let keys = verified.iter().map(|row| row.key().to_vec()).collect();
                return Ok(
                    match store.execute(Command::Directory(DirectoryCommand::Learn(verified))).await
                    {
                        Ok(_learnt) => Finished::Learnt { outline, keys, unverified },
                        Err(failure) => Finished::Applied { outline, done: Err(failure) },
                    },
                );
            }
            let verified = checked.verified;
            let delivery = ReceivedBatch { from, batch, verified, latest };
            let done = store
                .execute(Command::Replication(ReplicationCommand::ApplyBatch(Box::new(delivery))))
                .await;
            Ok(Finished::Applied { outline, done })
        });
    }

    fn taken(&mut self, outline: &Batch, done: Result<Outcome, CommandError>) {
        self.taking -= 1;
        let table = outline.table;
        let (outcome, trouble) = match done {
            Ok(Outcome::Replication(ReplicationOutcome::Applied(Applied::Stored {
                verified,
                ..
            }))) => {
                if table == SYSTEM_TABLE {
                    self.directory_taken(outline);
                }
                self.trouble(table, |known| {
                    status_gossip::told_by_batch(known, outline);
                    if verified == Some(true) {
                        known.verified_ms = Some(clock::wall_ms());
                        known.diverged = false;
                    }
                });
                (BatchOutcome::Stored, (!outline.ready).then_some(Trouble::NotReady))
            }
            Ok(Outcome::Replication(ReplicationOutcome::Applied(Applied::Unfit(why)))) => {
                debug!(node = %self.node, ?why, "a batch is of no use");
                (BatchOutcome::Unfit(why), trouble_with(why))
            }
            Ok(_other) => (BatchOutcome::Stored, None),
            Err(failure) => {
                let why = why_failed(&failure);
                debug!(node = %self.node, %failure, "a batch was not stored");
                let trouble = match &failure {
                    CommandError::Refused(refusal) if why == Why::Other(REFUSED) => {
                        Trouble::Refused(refusal.to_string())
                    }
                    CommandError::Refused(_) | CommandError::Faulted(_) => trouble_of(why),
                };
                (BatchOutcome::Failed(why), Some(trouble))
            }
        };
        self.trouble(table, |known| known.taking = trouble);
        self.session.taken(outline, outcome, self.shared.now());
    }

    /// Reads what is wanted: at once, where it was written just now.
    fn serve(&mut self, want: PullRequest) {
        let passed = self.passed.get(&want.table).filter(|passed| passed.holds_for(&want));
        let heard = Heard {
            told_whole: self.told_whole.get(&want.table).copied(),
            passed: passed.map_or(0, |passed| passed.upto),
        };
        if let Some(answered) = answer_at_once(&self.store, self.node, &want, heard) {
            return self.served(&want, answered);
        }
        let (store, node) = (self.store.clone(), self.node.clone());
        self.serving = true;
        self.jobs.spawn(async move {
            let work = move || {
                let answered = unless_closed(answer_to(&store, &node, &want, heard))?
                    .unwrap_or(Answered::just(Answer::Refused(Why::Storage)));
                Ok(Finished::BatchRead { want: Box::new(want), answered })
            };
            blocking(work).await
        });
    }

    fn served(&mut self, want: &PullRequest, Answered { answer, frame, passed }: Answered) {
        if let Some(upto) = passed {
            self.passed.insert(want.table, Passed::new(want, upto));
        }
        if let Answer::Batch(batch) = &answer
            && let Part::Delta { to, last: true } = batch.part
        {
            if batch.ready {
                self.told_whole.entry(batch.table).or_insert(to);
            } else {
                self.told_whole.remove(&batch.table);
            }
        }
        self.trouble(want.table, |known| match &answer {
            // What the other side could not store it may fail to store again: it says so when it has.
            Answer::Batch(_) => {
                known.giving.take_if(|trouble| !trouble.is_of_the_reader());
            }
            Answer::Nothing(_) => known.giving = None,
            Answer::Refused(why) => known.giving = Some(trouble_of(*why)),
        });
        self.serving = false;
        self.prepared = frame;
        self.session.served(want, answer);
    }

    /// Looks at which tables there are to ask for: now, unless that was a moment ago.
    fn follow_soon(&mut self) {
        // The replicas that follow from a change of the directory are shown after it.
        self.catalog_changed = true;
        let next = self.followed + FOLLOW_PAUSE;
        if next <= self.shared.now() {
            self.follow();
        } else {
            self.follow_at = Some(next);
        }
    }

    /// Which tables there are to ask for, by the directory as it is now.
    fn follow(&mut self) {
        (self.followed, self.follow_at) = (self.shared.now(), None);
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        let here = self.shared.mesh().node().clone();
        let copies = self.store.copies();
        let wanted = copies.iter().filter(|copy| {
            copy.epoch > 0
                && copy.uid != SYSTEM_TABLE
                && directory.standing(copy.uid, &here) == Standing::In
                && status_gossip::concerns(directory, copy.uid, self.node)
        });
        let known = self.shared.context.service.sync().of(SYSTEM_TABLE, self.node);
        let doubtful = known.map(|known| known.doubtful).unwrap_or_default();
        let (withheld, wanted): (BTreeSet<_>, BTreeSet<_>) =
            wanted.map(|copy| copy.uid).partition(|table| doubtful.withholds(*table));
        for table in withheld {
            self.trouble(table, |known| known.taking = Some(Trouble::Directory));
        }
        self.session.follow(&wanted, self.shared.now());
        self.session.reconsider();
    }

    /// Has requests answered that wait for a replica which has changed.
    fn copies_changed(&mut self) {
        let (count, listed) = self.store.copies_changed_since(self.changes);
        self.changes = count;
        for table in listed.unwrap_or_else(|| self.session.waiting().collect()) {
            let (now, before) = (self.store.copy(table), self.seen.get(&table));
            let same = before.is_some_and(|before| match (before, &now) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            });
            if !same {
                self.session.changed(table);
            }
        }
        if std::mem::take(&mut self.catalog_changed) {
            self.follow_soon();
            self.catalog_changed = false;
        }
    }

    /// Where the other side knows of writes of this database that it does not have itself, an earlier state
    /// of it has been put in its place while the daemon ran: it must not use those numbers again.
    fn look_for_rollback(&mut self) {
        let Some(last) = self.hello.last_of_yours else { return };
        let (store, node) = (self.store.clone(), self.node.clone());
        self.jobs.spawn(async move {
            let own = {
                let store = store.clone();
                blocking(move || store.last_write()).await?
            };
            if own.actor == last.actor && own.seq < last.seq {
                warn!(%node, known = last.seq, own = own.seq, "the database was rolled back while the daemon ran, it writes as another origin from now on: {node} knows write {} of this machine, which has {}", last.seq, own.seq);
                let text = format!(
                    "{node} knows write {} of this machine, which has {}: the database was rolled back",
                    last.seq, own.seq
                );
                let event = Event { uid: None, kind: "rolled_back", text };
                for command in [Command::Replication(ReplicationCommand::RotateActor), Command::Upkeep(UpkeepCommand::Note(event))] {
                    if let Err(failure) = store.execute(command).await {
                        warn!(%failure, "no new origin of writes was made: {failure}");
                    }
                }
            }
            Ok(Finished::Noted)
        });
    }
}

/// None where the store could not be read, which concerns one table and passes, or does not.
fn unless_closed<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Closed) => Err(StoreError::Closed),
        Err(fault) => {
            debug!(%fault, "the store could not be read for another machine");
            Ok(None)
        }
    }
}
