//! The exchange with one machine, on one link: what to ask it for and when, and what of its requests waits.
//! What is said is `message`'s; rows, and what a batch comes to, are the store's; the driver has both done.
//!
//! ```text
//!            asked ── Parked: the request stays with the source ──┐
//!   due ──> asked <── the replica there changes ── Batch ───────────┘
//!    ^        └─ Batch ─> taking ── stored: Ack, and asked again from where it has led to
//!    └─ after a pause ──────┴────── not taken
//! ```
//!
//! A request for which there is nothing is kept by the source, so that a row travels when it is written and
//! not when somebody asks. Of a long transfer the next batch is asked for while one is being stored. The
//! system table comes first: until it was read to its end, nothing else is asked for.
//!
//! The machine does nothing by itself. The driver feeds it events, with the time since any fixed moment, and asks
//! what is to be done: [`Session::next_output`] and [`Session::next_pull_request`].

mod held;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use cortex_mutant::mutant;

use held::{HeldRequests, State};

use super::{Batch, Message, Parked, Part, Position, PullRequest, Refuse, Unfit, Why};
use crate::{backoff::Backoff, model::TableUid};

/// A request is made again after so long: whatever has become of it.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// The pause after a failure, which doubles up to a bound.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Tables that are transferred as a whole at the same time. The others of that kind wait their turn, so that
/// those with little to say are not held up.
const TRANSFERS: usize = 8;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Ask for a table's rows, from this position, or from where the store says. Followed by
    /// [`Session::asked`].
    Ask {
        /// Which table.
        table: TableUid,
        /// From where.
        from: Option<Position>,
    },
    /// Have a batch stored. Followed by [`Session::taken`].
    Apply(Box<Batch>),
    /// Say what is durable here, up to this position, or up to where the store says.
    Acknowledge {
        /// Of which table.
        table: TableUid,
        /// Up to where.
        upto: Option<Position>,
        /// The draining that it answers.
        drain: Option<[u8; 16]>,
    },
    /// Say this.
    Say(Message),
}

/// What has become of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchOutcome {
    /// It is stored.
    Stored,
    /// It is of no use.
    Unfit(Unfit),
    /// It was refused, or could not be stored.
    Failed(Why),
}

/// What a request has come to at the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Rows, or what goes with them.
    Batch(Box<Batch>),
    /// Nothing new; with the draining that is to be acknowledged.
    Nothing(Option<[u8; 16]>),
    /// There are no rows for this reader.
    Refused(Why),
}

/// What is asked, and what is to be answered, on one link.
#[derive(Debug)]
pub(super) struct Session {
    /// Asked for before all others.
    first: TableUid,
    /// True once it has been read to its end.
    first_read: bool,
    pulls: BTreeMap<TableUid, Pull>,
    /// When each of them has something to do by itself, as far as it has: of thousands of tables few do.
    wakes: BTreeSet<(Duration, TableUid)>,
    /// Tables that wait for a transfer to end.
    queued: VecDeque<TableUid>,
    held: HeldRequests,
    /// Requests to be answered, in this order.
    to_serve: VecDeque<TableUid>,
    outputs: VecDeque<Output>,
}

/// A table that is asked for.
#[derive(Debug)]
struct Pull {
    /// The replica epoch that asks.
    epoch: u64,
    phase: Phase,
    /// Its entry in [`Session::wakes`].
    listed: Option<Duration>,
    /// True while a batch is being stored.
    taking: bool,
    /// What the source has answered meanwhile.
    next: Option<Box<Batch>>,
    /// Or the draining that it has told of, where it had nothing more.
    drain: Option<[u8; 16]>,
    /// True while more is known to come: it holds one of the [`TRANSFERS`].
    transfers: bool,
    /// True while it waits for one of them.
    queued: bool,
    /// True once what this replica has was acknowledged on this link.
    acked: bool,
    /// What follows failures one after another.
    backoff: Backoff,
}

/// Where the asking stands.
#[derive(Debug)]
enum Phase {
    /// Nothing is asked: a batch is being stored, or others come first.
    Rests,
    /// To be asked for at this time.
    Due(Duration),
    /// To be asked for as soon as it is known from where.
    Located,
    /// Asked for. Once more at this time.
    Asked { from: Position, again: Duration },
}

impl Session {
    /// Begins; `first` is the system table.
    pub(super) fn new(first: TableUid, now: Duration) -> Self {
        let pull = Pull { listed: Some(now), ..Pull::new(Phase::Due(now), 0) };
        Self {
            wakes: [(now, first)].into(),
            first,
            first_read: false,
            pulls: [(first, pull)].into(),
            queued: VecDeque::new(),
            held: HeldRequests::default(),
            to_serve: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Which tables there are to ask for, besides the first, and for which replica epochs. Those that were refused are
    /// asked for once more: what has changed may be the reason.
    pub(super) fn follow(&mut self, tables: &BTreeMap<TableUid, u64>, now: Duration) {
        let first = self.first;
        self.pulls.retain(|table, _| *table == first || tables.contains_key(table));
        for (table, epoch) in tables.iter().filter(|(table, _)| **table != first) {
            let start = || if self.first_read { Phase::Due(now) } else { Phase::Rests };
            let pull = self.pulls.entry(*table).or_insert_with(|| Pull::new(start(), *epoch));
            if pull.is_of_another_epoch(*epoch) {
                // The replica has left and begun anew: the source may hold a request of before for ever.
                *pull = Pull { taking: pull.taking, ..Pull::new(start(), *epoch) };
            }
            if pull.backoff.is_failing() {
                pull.hurry(now + FIRST_PAUSE);
            }
        }
        self.free_transfers(now);
        self.list_all();
        self.proceed(now);
    }

    /// Takes a message. Acks and statuses change nothing here.
    pub(super) fn handle(&mut self, message: Message, now: Duration) {
        let table = message.table();
        match message {
            Message::PullRequest(request) => self.pull_requested(request),
            Message::Batch(batch) => self.arrived(batch),
            Message::Refuse(refuse) => self.refused(refuse, now),
            Message::Parked(parked) => self.parked(parked, now),
            Message::Ack(_) | Message::StatusGossip(_) => {}
        }
        self.list(table);
        self.proceed(now);
    }

    /// What time alone brings about.
    pub(super) fn handle_timeout(&mut self, now: Duration) {
        self.proceed(now);
    }

    /// Asks for a table at this time at the latest, although nothing is known to have changed. False where it
    /// is being asked for, or stored: then nothing has come of it.
    pub(super) fn hurry(&mut self, table: TableUid, by: Duration) -> bool {
        let hurries = self.pulls.get_mut(&table).is_some_and(|pull| pull.hurry(by) && !pull.taking);
        self.list(table);
        hurries
    }

    /// When time alone will bring something about.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// What is to be done next.
    pub(super) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The position that a table was asked for from; none where it could not be asked for.
    pub(super) fn asked(&mut self, table: TableUid, from: Option<Position>, now: Duration) {
        let Some(pull) = self.pulls.get_mut(&table) else { return };
        match from {
            Some(from) => pull.phase = Phase::Asked { from, again: now + ASK_AGAIN },
            None => pull.fail(now),
        }
        self.list(table);
        self.proceed(now);
    }

    /// What has become of a batch.
    pub(super) fn taken(&mut self, batch: &Batch, outcome: BatchOutcome, now: Duration) {
        let table = batch.table;
        let Some(pull) = self.pulls.get_mut(&table) else { return };
        pull.taking = false;
        let drain = pull.drain.take();
        match outcome {
            BatchOutcome::Stored => {
                pull.backoff.reset();
                pull.acked = true;
                let upto = batch.sure_position();
                let drain = batch.drain.or(drain);
                self.outputs.push_back(Output::Acknowledge { table, upto: upto.clone(), drain });
                let ends = batch.is_last();
                if ends {
                    pull.transfers = false;
                }
                let rests = matches!(pull.phase, Phase::Rests);
                match (pull.next.take(), upto) {
                    (Some(next), _) => self.begin(next),
                    (None, Some(from)) if rests && !pull.queued => {
                        pull.phase = Phase::Located;
                        self.outputs.push_back(Output::Ask { table, from: Some(from) });
                    }
                    (None, _) if rests => pull.phase = Phase::Due(now),
                    (None, _) => {}
                }
                if table == self.first {
                    // What was not understood without it may be now.
                    self.pulls.values_mut().filter(|pull| pull.backoff.is_failing()).for_each(
                        |pull| {
                            pull.hurry(now);
                        },
                    );
                    self.list_all();
                    if ends {
                        self.first_is_read(now);
                    }
                }
            }
            BatchOutcome::Unfit(Unfit::Past) if !pull.backoff.is_failing() => {
                let _no_pause = pull.backoff.next_pause(); // the second time in a row is a failure
                pull.next = None;
                pull.phase = Phase::Due(now);
            }
            BatchOutcome::Unfit(why) => {
                pull.next = None;
                pull.fail(now);
                let objection = match why {
                    Unfit::Past => None,
                    Unfit::ScopeUnknown => Some(Why::Directory),
                    Unfit::NotInScope | Unfit::SourceGone => Some(Why::NotInScope),
                    Unfit::SourceStale => Some(Why::Stale),
                    Unfit::Ahead { by_ms } => Some(Why::Ahead(by_ms)),
                };
                if let Some(why) = objection {
                    self.object(table, why);
                }
                if why == Unfit::ScopeUnknown
                    && let Some(first) = self.pulls.get_mut(&self.first)
                {
                    first.hurry(now);
                    self.list(self.first);
                }
            }
            BatchOutcome::Failed(why) => {
                pull.next = None;
                pull.fail(now);
                self.object(table, why);
            }
        }
        self.list(table);
        self.free_transfers(now);
        self.proceed(now);
    }

    /// A replica here has changed: a request that waits for that is answered.
    #[mutant(ParkedHearsOfChange => ())]
    pub(super) fn changed(&mut self, table: TableUid) {
        let Some(held) = self.held.get_mut(table) else { return };
        match &mut held.state {
            State::Queued => {}
            State::Serving { stale } => *stale = true,
            State::Parked => self.enqueue(table),
        }
    }

    /// What requests were refused for may not hold any more: they are answered anew.
    pub(super) fn reconsider(&mut self) {
        let refused = self.held.iter().filter(|(_, held)| held.refused.is_some());
        let tables: Vec<TableUid> = refused.map(|(table, _)| table).collect();
        tables.into_iter().for_each(|table| self.changed(table));
    }

    /// The tables whose requests wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = TableUid> {
        self.held.iter().filter(|(_, held)| held.state != State::Queued).map(|(table, _)| table)
    }

    /// The next request to answer, as soon as there is room for an answer. Followed by
    /// [`Session::served`].
    pub(super) fn next_pull_request(&mut self) -> Option<PullRequest> {
        while let Some(table) = self.to_serve.pop_front() {
            if let Some(held) = self.held.get_mut(table)
                && held.state == State::Queued
            {
                held.state = State::Serving { stale: false };
                return Some(PullRequest::clone(&held.request));
            }
        }
        None
    }

    /// What a request has come to. The answer is for that request alone: where another one has come
    /// meanwhile, it is of no use.
    pub(super) fn served(&mut self, request: &PullRequest, answer: Answer) {
        let table = request.table;
        let Some(held) = self.held.get_mut(table) else { return };
        let State::Serving { stale } = held.state else { return };
        held.state = State::Parked;
        let owed = std::mem::take(&mut held.owed);
        match answer {
            Answer::Batch(batch) => {
                self.held.remove(table);
                self.outputs.push_back(Output::Say(Message::Batch(batch)));
                return;
            }
            Answer::Nothing(drain) => {
                let is_news = drain.is_some() && drain != held.drain;
                if self.held.admit(table) || owed || is_news {
                    self.parked_here(table, drain);
                }
            }
            Answer::Refused(why) => {
                let is_news = owed || held.refused != Some(why);
                let is_kept = self.held.refuse(table, why);
                if is_news || !is_kept {
                    let refuse = Refuse { table, taking: false, why };
                    self.outputs.push_back(Output::Say(Message::Refuse(refuse)));
                }
            }
        }
        if stale {
            self.enqueue(table);
        }
    }

    /// Says that there is nothing new.
    fn parked_here(&mut self, table: TableUid, drain: Option<[u8; 16]>) {
        if let Some(held) = self.held.get_mut(table) {
            held.drain = drain;
        }
        self.outputs.push_back(Output::Say(Message::Parked(Parked { table, drain })));
    }

    /// The other side is known to have incorporated this: it need not be sent.
    pub(super) fn reader_has(&mut self, table: TableUid, vector: &super::VersionVector) {
        self.held.reader_has(table, vector);
    }

    fn pull_requested(&mut self, request: Box<PullRequest>) {
        let table = request.table;
        let queued = self.held.get(table).is_some_and(|held| held.state == State::Queued);
        if !self.held.insert(request) {
            let refuse = Refuse { table, taking: false, why: Why::Busy };
            self.outputs.push_back(Output::Say(Message::Refuse(refuse)));
        } else if !queued {
            self.enqueue(table);
        }
    }

    fn enqueue(&mut self, table: TableUid) {
        let Some(held) = self.held.get_mut(table) else { return };
        held.state = State::Queued;
        if table == self.first {
            self.to_serve.push_front(table);
        } else {
            self.to_serve.push_back(table);
        }
    }

    fn arrived(&mut self, batch: Box<Batch>) {
        let Some(pull) = self.pulls.get_mut(&batch.table) else { return };
        // Whatever was not asked for is no answer.
        if !matches!(&pull.phase, Phase::Asked { from, .. } if *from == batch.from) {
            return;
        }
        pull.phase = Phase::Rests;
        if pull.taking {
            pull.next = Some(batch);
        } else {
            self.begin(batch);
        }
    }

    /// Has a batch stored. Where more is to come it is asked for before, so that it is on its way
    /// meanwhile.
    fn begin(&mut self, batch: Box<Batch>) {
        let table = batch.table;
        let more = !batch.is_last();
        let transfers = if more { self.transfers() } else { 0 };
        let Some(pull) = self.pulls.get_mut(&table) else { return };
        pull.taking = true;
        if more {
            if pull.transfers || transfers < TRANSFERS {
                pull.transfers = true;
                if let Some(from) = batch.sure_position() {
                    pull.phase = Phase::Located;
                    self.outputs.push_back(Output::Ask { table, from: Some(from) });
                }
            } else if !std::mem::replace(&mut pull.queued, true) {
                self.queued.push_back(table);
            }
        }
        self.outputs.push_back(Output::Apply(batch));
    }

    fn refused(&mut self, refuse: Refuse, now: Duration) {
        let Some(pull) = self.pulls.get_mut(&refuse.table).filter(|_| !refuse.taking) else {
            return;
        };
        // It is kept there as one that waits, and may be answered all the same.
        if let Phase::Asked { again, .. } = &mut pull.phase {
            *again = now + pull.backoff.next_pause();
        }
        pull.transfers = false;
        self.free_transfers(now);
    }

    fn parked(&mut self, parked: Parked, now: Duration) {
        let Parked { table, drain } = parked;
        let Some(pull) = self.pulls.get_mut(&table) else { return };
        let is_storing = pull.is_storing();
        let Phase::Asked { from, again } = &mut pull.phase else { return };
        *again = now + ASK_AGAIN;
        pull.backoff.reset();
        pull.transfers = false;
        if is_storing {
            // It was asked for from behind a batch that is not stored yet: that is acknowledged then.
            pull.drain = drain;
        } else if owes_ack(std::mem::replace(&mut pull.acked, true), drain) {
            let upto = Some(from.clone());
            self.outputs.push_back(Output::Acknowledge { table, upto, drain });
        }
        if table == self.first {
            self.first_is_read(now);
        }
        self.free_transfers(now);
    }

    fn first_is_read(&mut self, now: Duration) {
        if std::mem::replace(&mut self.first_read, true) {
            return;
        }
        let first = self.first;
        for (_, pull) in self.pulls.iter_mut().filter(|(table, _)| **table != first) {
            pull.phase = Phase::Due(now);
        }
        self.list_all();
    }

    fn object(&mut self, table: TableUid, why: Why) {
        let refuse = Refuse { table, taking: true, why };
        self.outputs.push_back(Output::Say(Message::Refuse(refuse)));
    }

    /// Lets the next table go on where a transfer has ended.
    fn free_transfers(&mut self, now: Duration) {
        if self.queued.is_empty() {
            return;
        }
        let mut running = self.transfers();
        while running < TRANSFERS
            && let Some(table) = self.queued.pop_front()
        {
            if let Some(pull) = self.pulls.get_mut(&table)
                && std::mem::take(&mut pull.queued)
            {
                pull.transfers = true;
                running += 1;
                if matches!(pull.phase, Phase::Rests) && !pull.taking {
                    pull.phase = Phase::Due(now);
                }
                self.list(table);
            }
        }
    }

    /// How many tables are transferred as a whole.
    fn transfers(&self) -> usize {
        self.pulls.values().filter(|pull| pull.transfers).count()
    }

    /// Asks for whatever is due.
    fn proceed(&mut self, now: Duration) {
        while self.wakes.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, table)) = self.wakes.pop_first()
        {
            if let Some(pull) = self.pulls.get_mut(&table) {
                (pull.phase, pull.listed) = (Phase::Located, None);
                self.outputs.push_back(Output::Ask { table, from: None });
            }
        }
    }

    /// Lists a table that has changed.
    fn list(&mut self, table: TableUid) {
        let Some(pull) = self.pulls.get_mut(&table) else { return };
        let (before, now) = (pull.listed, pull.wakes());
        if before != now {
            pull.listed = now;
            before.map(|at| self.wakes.remove(&(at, table)));
            self.wakes.extend(now.map(|at| (at, table)));
        }
    }

    /// Lists every table, where many may have changed.
    fn list_all(&mut self) {
        for pull in self.pulls.values_mut() {
            pull.listed = pull.wakes();
        }
        let listed = |(table, pull): (&TableUid, &Pull)| Some((pull.listed?, *table));
        self.wakes = self.pulls.iter().filter_map(listed).collect();
    }
}

/// There is no batch that is acknowledged: who waits for this replica hears of it all the same.
#[mutant(NothingAcknowledged => false)]
fn owes_ack(acked: bool, drain: Option<[u8; 16]>) -> bool {
    !acked || drain.is_some()
}

impl Pull {
    const fn new(phase: Phase, epoch: u64) -> Self {
        Self {
            epoch,
            phase,
            listed: None,
            taking: false,
            next: None,
            drain: None,
            transfers: false,
            queued: false,
            acked: false,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
        }
    }

    fn wakes(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Due(at) if !self.taking && !self.queued => Some(*at),
            Phase::Asked { again, .. } if !self.taking => Some(*again),
            Phase::Due(_) | Phase::Asked { .. } | Phase::Rests | Phase::Located => None,
        }
    }

    #[mutant(NewEpochAsks => false)]
    fn is_of_another_epoch(&self, epoch: u64) -> bool {
        self.epoch != epoch
    }

    /// True while a place that was asked from may be ahead of what is stored.
    #[mutant(AckAfterCommit => false)]
    fn is_storing(&self) -> bool {
        self.taking
    }

    /// Asks again after a pause.
    fn fail(&mut self, now: Duration) {
        self.phase = Phase::Due(now + self.backoff.next_pause());
        (self.transfers, self.queued) = (false, false);
    }

    /// Asks at this time at the latest.
    fn hurry(&mut self, by: Duration) -> bool {
        match &mut self.phase {
            Phase::Due(at) => *at = by.min(*at),
            Phase::Asked { again, .. } => *again = by.min(*again),
            Phase::Rests | Phase::Located => return false,
        }
        true
    }
}

impl Batch {
    /// True where the source has no more at the moment.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self.part, Part::Delta { last: true, .. })
    }

    /// Where the batch leads to, where that can be said before it is stored: the number of a snapshot transfer is
    /// drawn then.
    #[must_use]
    pub fn sure_position(&self) -> Option<Position> {
        let position = self.leads_to(0);
        (!self.starts_snapshot() || position.snapshot.is_none()).then_some(position)
    }
}

#[cfg(test)]
mod tests;
