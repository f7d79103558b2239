//! Replication over one link: decides what to ask, serve, apply, acknowledge, pass on and hold up, and when.
//! The edge moves bytes, and has what blocks done on other threads; the store does what is to be done to rows.
//!
//! ```text
//!                   Input                                        Output
//!   a message came ────────────┐                    ┌──> Send: a message to the other node
//!   work was done ─────────────┤                    ├──> Work: what the store is to do, answered by an Input
//!   a replica, the directory ──┼──> Driver ─────────┤
//!   clocks, room on the link ──┤     │  ^           ├──> Note: what status shows, what is logged
//!   time ──────────────────────┘     v  │           └──> End: the link must end
//!                                   Session
//! ```
//!
//! The driver does nothing by itself. [`Driver::handle`] and [`Driver::handle_timeout`] are given the time since any
//! fixed moment, and the node as it is ([`Node`]); afterwards the outputs are taken and carried out in their order.
//! Whatever `handle_timeout(t)` would change, [`Driver::poll_timeout`] has announced by `t`.

mod clocks;
mod gossip;
mod node;
mod quarantine;
mod serving;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use cortex_mutant::mutant;

pub use clocks::{HELD_OFF, MAX_SKEW_MS, are_apart};
pub use gossip::STATUSES;
pub(super) use node::is_same;
pub use node::{Node, ReplicaSummary, is_evicted, last_of, may_hold, own_status};
pub use serving::{Answered, ReaderKnows};

use super::{
    Ack, Answer, Batch, BatchOutcome, Change, Dot, InvalidRow, InvalidRows, Message, Position,
    PullRequest, Quarantined, REFUSED, Refuse, SYSTEM_TABLE, Session, SyncProblem, Unfit,
    UnverifiedRow, Why, session,
};
use crate::{
    directory::Standing,
    model::{ActorId, Hlc, NodeName, TableUid},
};

/// Batches that are being stored, or wait for it, at a time. While there are as many, no further message is taken:
/// each may hold a mebibyte and more.
const APPLYING: usize = 8;

/// Between two looks at which tables there are to ask for: many may be made at once.
const FOLLOW_PAUSE: Duration = Duration::from_millis(20);

/// The node at the other end of a link, as it has greeted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is called.
    pub node: NodeName,
    /// Which actor it is.
    pub actor: ActorId,
    /// Its database; none where it has not said.
    pub database: Option<[u8; 16]>,
    /// The last write of this node that it knows.
    pub last_of_ours: Option<Dot>,
}

/// What is remembered of a node from one link to the next.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// Since when its rows are ahead of this node's clock, although the two clocks agree.
    pub ahead_since: Option<Duration>,
    /// Rows of its directory that are not believed here.
    pub quarantined: Quarantined,
}

/// What happens.
#[derive(Debug)]
pub enum Input {
    /// A message of the other node. Only where [`Driver::may_read`].
    Message(Message),
    /// How far the other clock is ahead, in milliseconds, and whether there is room on the link for what can wait.
    Link {
        /// How far the other clock is ahead.
        clock_offset_ms: i64,
        /// False while more waits to be sent than the other side takes.
        has_room: bool,
    },
    /// Replicas of this node have changed: of these tables, or of any.
    ReplicasChanged(Option<Vec<TableUid>>),
    /// The directory of this node has changed.
    DirectoryChanged,
    /// The batch that was to be sent is on its way: there is room for another one.
    BatchSent,
    /// Work was done.
    Done(Done),
}

/// What work has come to.
#[derive(Debug)]
pub enum Done {
    /// Of [`Work::Locate`]; none where the store could not be read.
    Located(TableUid, Option<Position>),
    /// Of [`Work::FindDurable`]. Where the store could not be read there is no such input: the next batch is
    /// acknowledged.
    Durable {
        /// Of which table.
        table: TableUid,
        /// Up to where.
        upto: Position,
        /// The draining that is to be answered.
        drain: Option<[u8; 16]>,
    },
    /// Of [`Work::Apply`], where the batch was applied as a whole, or not at all.
    Applied {
        /// The batch. Its rows and contexts may be gone.
        outline: Box<Batch>,
        /// What has become of it.
        outcome: Outcome,
    },
    /// Of [`Work::Apply`], where rows of the directory were learnt one by one.
    Learnt {
        /// The batch. Its rows may be gone.
        outline: Box<Batch>,
        /// The keys of the good rows.
        keys: Vec<Vec<u8>>,
        /// The others.
        unverified: Vec<UnverifiedRow>,
    },
    /// Of [`Work::Read`].
    Read {
        /// The request.
        request: Box<PullRequest>,
        /// What it comes to. The rows and contexts of a batch may be gone.
        answered: Answered,
    },
    /// Of [`Work::FindLastWrite`].
    LastWrite(Dot),
}

/// What has become of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored.
    Stored {
        /// Whether both replicas hold the same; none where they are not as far.
        verified: Option<bool>,
    },
    /// It is of no use.
    Unfit(Unfit),
    /// It was refused, or could not be stored.
    Failed {
        /// Why, for the other side.
        why: Why,
        /// The text, where a rule has refused it.
        refusal: Option<String>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this. After a batch, [`Input::BatchSent`] says when there is room for another one.
    Send(Message),
    /// Have this done.
    Work(Work),
    /// Note this.
    Note(Note),
    /// End the link: the other node was removed from the mesh.
    End,
}

/// Work for the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Find where this node's replica stands in that of the other node. Answered by [`Done::Located`].
    Locate(TableUid),
    /// The same, to be acknowledged. Answered by [`Done::Durable`].
    FindDurable {
        /// Of which table.
        table: TableUid,
        /// The draining that is to be answered.
        drain: Option<[u8; 16]>,
    },
    /// Apply a batch, after its signatures were checked where it is one of the directory. With rows that cannot be
    /// verified the others are learnt instead. Answered by [`Done::Applied`] or [`Done::Learnt`].
    Apply {
        /// The batch.
        batch: Box<Batch>,
        /// The latest timestamp that is believed.
        latest: Hlc,
        /// True where its rows are learnt in any case: it stands behind rows that were quarantined.
        learn: bool,
    },
    /// Read a batch for a request. Answered by [`Done::Read`].
    Read {
        /// The request.
        request: Box<PullRequest>,
        /// What is known of its reader: what the answer is made with.
        reader: ReaderKnows,
    },
    /// Find the last write of this node. Answered by [`Done::LastWrite`].
    FindLastWrite,
    /// Write as another actor from now on, and note it: the database was rolled back while the daemon ran.
    RotateActor {
        /// The number of the write that the other node knows.
        known: u64,
        /// The number of the last one that is here.
        own: u64,
    },
    /// End a replica that drains, if this ack says that everything was drained.
    EndDrained(Box<Ack>),
    /// The other node has stored the batch of a table that it was sent first, of those that it had not stored yet.
    WasStored(TableUid),
    /// The other node has not applied a batch of a table, nor will it apply what it was sent after that.
    WasRefused(TableUid),
}

/// What is to be noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Of a table's replica on another node.
    Replica {
        /// Of which table.
        table: TableUid,
        /// On which node.
        node: NodeName,
        /// What has changed.
        change: Change,
    },
    /// A row of the directory is not believed: to be logged.
    Quarantined(UnverifiedRow),
    /// A row of a table is no record and was left out: to be told to the operator.
    Invalid {
        /// Of which table.
        table: TableUid,
        /// The row.
        row: InvalidRow,
    },
    /// For [`Remembered::ahead_since`].
    AheadSince(Option<Duration>),
    /// Rows of the other node are not ahead of this one's clock any more.
    NotAhead,
    /// Rows of the other node that are ahead of this one's clock are taken as they are.
    TakenAhead {
        /// By how many seconds.
        ahead_s: u64,
    },
}

/// Replication over one link.
#[derive(Debug)]
pub struct Driver {
    peer: Peer,
    session: Session,
    outputs: VecDeque<Output>,
    /// False while what can wait is not sent.
    has_room: bool,
    /// True while a request is being answered, or its answer waits to be sent.
    serving: bool,
    /// Batches that are being applied.
    applying: usize,
    /// The replicas here as they were when a request that waits was answered last.
    seen: HashMap<TableUid, Option<Arc<dyn ReplicaSummary>>>,
    /// What is remembered of the other side as a reader.
    readers: serving::Serving,
    /// True from a change of the directory until the replicas that follow from it are there.
    directory_changed: bool,
    /// When the tables to ask for were looked at last, and are to be looked at again.
    followed: Duration,
    follow_at: Option<Duration>,
    gossip: gossip::Gossip,
    /// How far the directory of the other side was read beyond rows that cannot be verified, and those rows.
    quarantine: quarantine::Quarantine,
    quarantined: Quarantined,
    /// Rows that were left out over this link: those are named once.
    invalid: HashMap<TableUid, InvalidRows>,
    /// What clocks hold up.
    held_up: clocks::HeldUp,
}

impl Driver {
    /// Begins with a link.
    #[must_use]
    pub fn new(
        peer: Peer,
        remembered: Remembered,
        clock_offset_ms: i64,
        here: &impl Node,
        now: Duration,
    ) -> Self {
        let looks_for_rollback = peer.last_of_ours.is_some();
        let mut driver = Self {
            peer,
            session: Session::new(SYSTEM_TABLE, now),
            outputs: VecDeque::new(),
            has_room: true,
            serving: false,
            applying: 0,
            seen: HashMap::new(),
            readers: serving::Serving::default(),
            directory_changed: false,
            followed: Duration::ZERO,
            follow_at: None,
            gossip: gossip::Gossip::new(now),
            quarantine: quarantine::Quarantine::default(),
            quarantined: remembered.quarantined,
            invalid: HashMap::new(),
            held_up: clocks::HeldUp::new(clock_offset_ms, remembered.ahead_since),
        };
        if looks_for_rollback {
            driver.outputs.push_back(Output::Work(Work::FindLastWrite));
        }
        driver.follow(here, now);
        driver.proceed(here, now);
        driver
    }

    /// Takes what has happened.
    pub fn handle(&mut self, input: Input, here: &impl Node, now: Duration) {
        match input {
            Input::Message(message) => self.message(message, here, now),
            Input::Link { clock_offset_ms, has_room } => {
                self.has_room = has_room;
                if self.held_up.offset_is(clock_offset_ms) {
                    self.session.reconsider();
                    self.hurry_held_up(now);
                }
            }
            Input::ReplicasChanged(tables) => self.replicas_changed(tables, here, now),
            Input::DirectoryChanged => {
                if is_evicted(&here.directory(), &self.peer.node, self.peer.database) {
                    return self.outputs.push_back(Output::End);
                }
                // The replicas that follow from a change of the directory are shown after it.
                self.directory_changed = true;
                self.follow_soon(here, now);
            }
            Input::BatchSent => self.serving = false,
            Input::Done(done) => self.done(done, here, now),
        }
        self.proceed(here, now);
    }

    /// What time alone brings about.
    pub fn handle_timeout(&mut self, here: &impl Node, now: Duration) {
        self.ask_for_what_was_held_off(now);
        self.quarantine.check(now, || self.session.hurry(SYSTEM_TABLE, now));
        self.session.handle_timeout(now);
        if self.follow_at.is_some_and(|at| at <= now) {
            self.follow(here, now);
        }
        let news = self.gossip.round(&self.peer.node, here, now, self.has_room);
        let news = news.into_iter().map(Message::StatusGossip).map(Output::Send);
        self.outputs.extend(news);
        self.proceed(here, now);
    }

    /// When time alone will bring something about.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        let next_round = self.gossip.next_round();
        let others = [
            self.session.poll_timeout(),
            self.follow_at,
            self.quarantine.check_at(),
            self.held_up.until(),
        ];
        others.into_iter().flatten().fold(next_round, Duration::min)
    }

    /// What is to be done next.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// True while a message may be taken: there is room for what it may lead to.
    #[must_use]
    pub fn may_read(&self) -> bool {
        self.applying < APPLYING
    }

    /// Does what the session says.
    fn proceed(&mut self, here: &impl Node, now: Duration) {
        loop {
            while let Some(output) = self.session.next_output() {
                self.carry_out(output, here, now);
            }
            if self.serving {
                return;
            }
            let Some(request) = self.session.next_pull_request() else { return };
            self.seen.insert(request.table, here.replica(request.table));
            if self.clocks_hold_up(request.table) {
                let why = Why::Clock(self.held_up.offset_ms());
                self.read(&request, Answered::refused(why), here);
            } else {
                self.serving = true;
                let reader = self.readers.reader_knows(&request);
                let request = Box::new(request);
                self.outputs.push_back(Output::Work(Work::Read { request, reader }));
            }
        }
    }

    fn carry_out(&mut self, output: session::Output, here: &impl Node, now: Duration) {
        match output {
            session::Output::Ask { table, from: Some(from) } => self.ask(table, from, here, now),
            session::Output::Ask { table, from: None } => self.locate(table, here, now),
            session::Output::Apply(batch) if self.clocks_hold_up(batch.table) => {
                self.held_up.add(batch.table);
                let offset_ms = self.held_up.offset_ms();
                self.taking(batch.table, Some(SyncProblem::Clock(offset_ms)), here);
                let why = BatchOutcome::Failed(Why::Clock(offset_ms));
                self.session.taken(&batch, why, now);
            }
            session::Output::Apply(batch) => self.apply(batch, here, now),
            session::Output::Acknowledge { table, upto: Some(upto), drain } => {
                self.acknowledge(table, &upto, drain, here);
            }
            session::Output::Acknowledge { table, upto: None, drain } => {
                self.outputs.push_back(Output::Work(Work::FindDurable { table, drain }));
            }
            session::Output::Say(message) => {
                self.serving |= matches!(message, Message::Batch(_));
                self.outputs.push_back(Output::Send(message));
            }
        }
    }

    fn message(&mut self, message: Message, here: &impl Node, now: Duration) {
        match &message {
            Message::PullRequest(_) => {}
            // What it has is not sent back to it.
            Message::Batch(batch) => self.session.reader_has(batch.table, &batch.vector),
            Message::Ack(ack) => self.acknowledged(ack, here),
            Message::StatusGossip(gossip) => {
                let directory = here.directory();
                for (node, status) in &gossip.statuses {
                    let status = Box::new(status.clone());
                    // Nothing is kept of tables that the directory does not know: there is no end of those.
                    if node == here.name() || !may_hold(&directory, gossip.table, node) {
                        continue;
                    }
                    let change = if *node == self.peer.node {
                        Change::Status(status)
                    } else {
                        Change::Gossip(status)
                    };
                    let (table, node) = (gossip.table, node.clone());
                    self.outputs.push_back(Output::Note(Note::Replica { table, node, change }));
                }
            }
            Message::Parked(parked) => {
                self.taking(parked.table, None, here);
                if parked.table == SYSTEM_TABLE {
                    self.directory_waits(here, now);
                }
            }
            Message::Refuse(Refuse { table, taking, why }) => {
                let problem = Some(SyncProblem::from(why.as_seen_from_here()));
                if *taking {
                    self.outputs.push_back(Output::Work(Work::WasRefused(*table)));
                    self.of_rows(*table, Change::Giving(problem), here);
                } else {
                    self.taking(*table, problem, here);
                }
            }
        }
        self.session.handle(message, now);
    }

    fn acknowledged(&mut self, ack: &Ack, here: &impl Node) {
        let ack = Box::new(ack.clone());
        self.outputs.push_back(Output::Work(Work::WasStored(ack.table)));
        self.of_rows(ack.table, Change::Acknowledged(ack.clone()), here);
        if ack.drain.is_some() {
            self.outputs.push_back(Output::Work(Work::EndDrained(ack)));
        }
    }

    fn done(&mut self, done: Done, here: &impl Node, now: Duration) {
        match done {
            Done::Located(table, Some(position)) => self.ask(table, position, here, now),
            Done::Located(table, None) => {
                self.taking(table, Some(SyncProblem::Storage), here);
                self.session.asked(table, None, now);
            }
            Done::Durable { table, upto, drain } => self.acknowledge(table, &upto, drain, here),
            Done::Applied { outline, outcome } => self.applied(&outline, outcome, here, now),
            Done::Learnt { outline, keys, unverified } => {
                self.applying -= 1;
                self.learnt(&outline, keys, unverified, here, now);
                self.session.taken(&outline, BatchOutcome::Stored, now);
            }
            Done::Read { request, answered } => self.read(&request, answered, here),
            Done::LastWrite(own) => self.look_for_rollback(own),
        }
    }

    /// Says what is wanted, as this replica is now.
    fn ask(&mut self, table: TableUid, position: Position, here: &impl Node, now: Duration) {
        let reader = here.actor();
        let Some(own) = here.replica(table).filter(|own| own.epoch() > 0) else {
            return self.session.asked(table, None, now);
        };
        let (epoch, mut vector) = (own.epoch(), own.vector().clone());
        if table == SYSTEM_TABLE
            && let Some(known) = self.quarantine.vector_at(&position)
        {
            vector.join(known);
        }
        let request = PullRequest { table, reader, epoch, position: position.clone(), vector };
        self.outputs.push_back(Output::Send(Message::PullRequest(Box::new(request))));
        self.session.asked(table, Some(position), now);
    }

    fn locate(&mut self, table: TableUid, here: &impl Node, now: Duration) {
        if table == SYSTEM_TABLE
            && let Some(position) = self.quarantine.next()
        {
            return self.ask(table, position, here, now);
        }
        self.outputs.push_back(Output::Work(Work::Locate(table)));
    }

    fn acknowledge(
        &mut self,
        table: TableUid,
        upto: &Position,
        drain: Option<[u8; 16]>,
        here: &impl Node,
    ) {
        let Some(status) = own_status(here, table) else { return };
        let cursor = upto.cursor.filter(|_| is_reached(upto) && !self.is_quarantining(table));
        let ack = Box::new(Ack { table, cursor, drain, status });
        self.outputs.push_back(Output::Send(Message::Ack(ack)));
    }

    /// True where only some of what comes is stored as a whole: it is read once more from before.
    #[mutant(QuarantineNotAcknowledged => false)]
    fn is_quarantining(&self, table: TableUid) -> bool {
        table == SYSTEM_TABLE && self.quarantine.is_open()
    }

    /// Of a batch that answers a request, and of no other: a peer could send any number of those, of tables that it makes
    /// up, and something is kept of each.
    fn leave_invalid_rows_out(&mut self, batch: &mut Batch) {
        let table = batch.table;
        if table == SYSTEM_TABLE {
            return;
        }
        let rows = batch.take_invalid_rows();
        if rows.is_empty() {
            return;
        }
        let news = self.invalid.entry(table).or_default().note(rows.clone());
        self.note_of_peer(table, Change::Invalid(rows));
        let notes = news.into_iter().map(|row| Output::Note(Note::Invalid { table, row }));
        self.outputs.extend(notes);
    }

    fn apply(&mut self, mut batch: Box<Batch>, here: &impl Node, now: Duration) {
        self.leave_invalid_rows_out(&mut batch);
        let latest = self.believed(&batch, here, now);
        let learn = batch.table == SYSTEM_TABLE && self.quarantine.is_behind(&batch.from);
        self.applying += 1;
        self.outputs.push_back(Output::Work(Work::Apply { batch, latest, learn }));
    }

    fn applied(&mut self, outline: &Batch, outcome: Outcome, here: &impl Node, now: Duration) {
        self.applying -= 1;
        let table = outline.table;
        let (outcome, problem) = match outcome {
            Outcome::Stored { verified } => {
                if table == SYSTEM_TABLE {
                    self.directory_applied(outline, here, now);
                }
                self.of_rows(table, Change::applied(outline, verified == Some(true)), here);
                (BatchOutcome::Stored, (!outline.ready).then_some(SyncProblem::NotReady))
            }
            Outcome::Unfit(why) => (BatchOutcome::Unfit(why), SyncProblem::of_unfit(why)),
            Outcome::Failed { why, refusal } => {
                let problem = match refusal {
                    Some(refusal) if why == Why::Other(REFUSED) => SyncProblem::Refused(refusal),
                    Some(_) | None => why.into(),
                };
                (BatchOutcome::Failed(why), Some(problem))
            }
        };
        self.taking(table, problem, here);
        self.session.taken(outline, outcome, now);
    }

    fn read(&mut self, request: &PullRequest, answered: Answered, here: &impl Node) {
        self.readers.answered(request, &answered);
        let change = match &answered.answer {
            Answer::Batch(_) => Change::BatchRead,
            Answer::Nothing(_) => Change::Giving(None),
            Answer::Refused(why) => Change::Giving(Some((*why).into())),
        };
        self.of_rows(request.table, change, here);
        self.serving = false;
        self.session.served(request, answered.answer);
    }

    /// Looks at which tables there are to ask for: now, unless that was a moment ago.
    fn follow_soon(&mut self, here: &impl Node, now: Duration) {
        let next = self.followed + FOLLOW_PAUSE;
        if next <= now {
            self.follow(here, now);
        } else {
            self.follow_at = Some(next);
        }
    }

    /// Which tables there are to ask for, by the directory as it is now.
    fn follow(&mut self, here: &impl Node, now: Duration) {
        (self.followed, self.follow_at) = (now, None);
        let replicas = here.replicas();
        let (withheld, wanted): (BTreeMap<_, _>, BTreeMap<_, _>) = {
            let directory = here.directory();
            let wanted = replicas.iter().filter(|own| {
                own.epoch() > 0
                    && own.table() != SYSTEM_TABLE
                    && directory.standing(own.table(), here.name()) == Standing::In
                    && may_hold(&directory, own.table(), &self.peer.node)
            });
            let withholds = |(table, _): &(TableUid, u64)| self.quarantined.withholds(*table);
            wanted.map(|own| (own.table(), own.epoch())).partition(withholds)
        };
        for table in withheld.into_keys() {
            self.taking(table, Some(SyncProblem::Directory), here);
        }
        self.session.follow(&wanted, now);
        self.session.reconsider();
    }

    /// Has requests answered that wait for a replica which has changed.
    fn replicas_changed(&mut self, tables: Option<Vec<TableUid>>, here: &impl Node, now: Duration) {
        for table in tables.unwrap_or_else(|| self.session.waiting().collect()) {
            let (own, before) = (here.replica(table), self.seen.get(&table));
            let same = before.is_some_and(|before| is_same(before.as_ref(), own.as_ref()));
            if !same {
                self.session.changed(table);
            }
        }
        if std::mem::take(&mut self.directory_changed) {
            self.follow_soon(here, now);
        }
    }

    /// Where the other side knows of writes of this database that it does not have itself, an earlier state
    /// of it has been put in its place while the daemon ran: it must not use those numbers again.
    fn look_for_rollback(&mut self, own: Dot) {
        if let Some(known) = self.peer.last_of_ours
            && (own.actor == known.actor && own.seq < known.seq)
        {
            let work = Work::RotateActor { known: known.seq, own: own.seq };
            self.outputs.push_back(Output::Work(work));
        }
    }

    fn taking(&mut self, table: TableUid, problem: Option<SyncProblem>, here: &impl Node) {
        self.of_rows(table, Change::Taking(problem), here);
    }

    /// Notes how it goes with a table that there is a replica of.
    fn of_rows(&mut self, table: TableUid, change: Change, here: &impl Node) {
        if here.replica(table).is_some_and(|own| own.epoch() > 0) {
            self.note_of_peer(table, change);
        }
    }

    fn note_of_peer(&mut self, table: TableUid, change: Change) {
        let node = self.peer.node.clone();
        self.outputs.push_back(Output::Note(Note::Replica { table, node, change }));
    }
}

/// True where all before a place in the change log has come. During a snapshot transfer it is where that began.
#[mutant(SnapshotNotAcknowledged => true)]
fn is_reached(upto: &Position) -> bool {
    upto.snapshot.is_none()
}

#[cfg(test)]
mod tests;
