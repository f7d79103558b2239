//! The links of the simulated world: the driver of replication at each end, and what is on its way.
//! What a driver has done by the store is `work`'s; when what happens, `actions`'.
//!
//! Messages of a link arrive in their order, but for those of different tables; a link may be slow, end at both ends or
//! at one alone, and is made anew. What the store was given outlives the link, as in the writer's queue.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    sync::Arc,
    time::Duration,
};

use cortex_core::{
    directory::Directory,
    model::{ActorId, Hlc, NodeName, TableUid},
    replication::{
        Batch, Change, Facts, Message, Part, Position, ReplicaStatus, SYSTEM_TABLE,
        driver::{
            self, Driver, Input, Note, Output, Peer, Remembered, ReplicaSummary, Work, is_evicted,
            last_of,
        },
    },
};

use crate::{
    checks,
    mutations::{self, Around},
    world::{BEGINNING_MS, Node, Truth, World, broken},
};

/// Two nodes, the lesser first.
pub(crate) type Pair = (usize, usize);

pub(crate) fn pair(a: usize, b: usize) -> Pair {
    (a.min(b), a.max(b))
}

/// A link between two nodes. An end is gone where its node has found out that the link has ended.
#[derive(Debug)]
pub(crate) struct Link {
    number: u64,
    ends: BTreeMap<usize, End>,
}

/// What a batch is told by, on a link.
type BatchId = (TableUid, Position, Part);

fn id_of(batch: &Batch) -> BatchId {
    (batch.table, batch.from.clone(), batch.part.clone())
}

#[derive(Debug)]
struct End {
    driver: Driver,
    /// What is true of the batch that was read last.
    read: Option<Truth>,
    /// What is true of batches that have arrived, until they are applied.
    arrived: Vec<(BatchId, Truth)>,
    /// The tables that were asked for.
    asked: BTreeSet<TableUid>,
    /// What has changed since the driver was told.
    replicas_changed: bool,
    directory_changed: bool,
}

/// What is on its way.
#[derive(Clone, Debug)]
pub(crate) enum InFlight {
    /// On a link, to its other end.
    Message { pair: Pair, link: u64, from: usize, message: Message, truth: Option<Truth> },
    /// To the store of a node, for a link. It does not outlive the process.
    Work { pair: Pair, link: u64, n: usize, session: u64, work: Work, truth: Option<Truth> },
}

impl InFlight {
    fn pair(&self) -> Pair {
        match self {
            Self::Message { pair, .. } | Self::Work { pair, .. } => *pair,
        }
    }

    /// True for what brings rows of a table to a reader, and its acknowledgement.
    fn brings(&self, reader: usize, table: TableUid) -> bool {
        match self {
            Self::Message { from, message, .. } => {
                let from_reader = match message {
                    Message::PullRequest(_) | Message::Ack(_) => true,
                    Message::Refuse(refuse) => refuse.taking,
                    Message::Batch(_) | Message::Parked(_) => false,
                    Message::StatusGossip(_) => return false,
                };
                message.table() == table && (*from == reader) == from_reader
            }
            Self::Work { n, work, .. } => match work {
                Work::Locate(of) | Work::FindDurable { table: of, .. } => {
                    (*n, *of) == (reader, table)
                }
                Work::Apply { batch, .. } => (*n, batch.table) == (reader, table),
                Work::Read { request, .. } => *n != reader && request.table == table,
                Work::EndDrained(ack) => *n != reader && ack.table == table,
                Work::WasStored(of) | Work::WasRefused(of) => *n != reader && *of == table,
                Work::FindLastWrite | Work::RotateActor { .. } => true,
            },
        }
    }

    fn is_read_by(&self, source: usize) -> bool {
        matches!(self, Self::Work { n, work: Work::Read { .. }, .. } if *n == source)
    }

    pub(crate) fn is_applied(&self) -> bool {
        matches!(self, Self::Work { work: Work::Apply { .. }, .. })
    }

    pub(crate) fn is_batch(&self) -> bool {
        matches!(self, Self::Message { message: Message::Batch(_), .. })
    }
}

/// A node as its drivers read it.
pub(crate) struct Here<'a> {
    pub(crate) node: &'a Node,
    pub(crate) wall_ms: u64,
    /// How far the clocks of others are ahead, as far as upkeep reads them.
    pub(crate) clock_offsets_ms: Vec<i64>,
}

impl driver::Node for Here<'_> {
    fn name(&self) -> &NodeName {
        &self.node.name
    }

    fn actor(&self) -> ActorId {
        self.node.db.actor()
    }

    fn hlc(&self) -> Hlc {
        self.node.db.hlc()
    }

    fn wall_ms(&self) -> u64 {
        self.wall_ms
    }

    fn replica(&self, table: TableUid) -> Option<Arc<dyn ReplicaSummary>> {
        Some(self.node.db.shared_replica(table)?)
    }

    fn replicas(&self) -> Vec<Arc<dyn ReplicaSummary>> {
        let all = self.node.db.replicas().into_iter();
        all.map(|replica| -> Arc<dyn ReplicaSummary> { replica }).collect()
    }

    fn directory(&self) -> impl Deref<Target = Directory> {
        self.node.db.catalog().directory()
    }

    fn statuses(&self, table: TableUid) -> Vec<(NodeName, ReplicaStatus)> {
        let known = self.node.peers.of_table(table);
        known.filter_map(|(node, known)| Some((node.clone(), known.status.clone()?))).collect()
    }

    fn who_has_met(&self, later_than: Hlc) -> BTreeSet<NodeName> {
        self.node.peers.who_has_met(later_than)
    }
}

/// How far something that one reads of another goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// A batch is on its way.
    Sent,
    /// A batch is about to be applied.
    Arrived,
    /// So many batches were given to the store, or there is no more.
    Applied(usize),
}

impl World {
    /// Time as drivers see it. More of it may pass than of the clocks': retries take no day.
    pub(crate) fn link_time(&self) -> Duration {
        Duration::from_millis(self.now_ms - BEGINNING_MS + self.link_ms)
    }

    /// Makes a link, where there is none that is whole. None where the two cannot talk, or one has put the other out.
    pub(crate) fn link_up(&mut self, a: usize, b: usize) -> Option<Pair> {
        let both = pair(a, b);
        if !self.reaches(a, b) || !self.reaches(b, a) {
            self.link_down(both);
            return None;
        }
        if self.is_linked(a, b) {
            return Some(both);
        }
        self.link_down(both);
        let is_refused = |by: usize, whom: usize| {
            let directory = self.nodes[by].db.catalog().directory();
            let database = self.nodes[whom].db.database();
            is_evicted(directory, &self.nodes[whom].name, Some(database))
        };
        if (is_refused(a, b) || is_refused(b, a)) && !self.broken_by(Around::RemovedHeard) {
            return None;
        }
        self.link_count += 1;
        self.links.insert(both, Link { number: self.link_count, ends: BTreeMap::new() });
        for (n, other) in [(a, b), (b, a)] {
            let end = self.end(n, other);
            let link = self.links.get_mut(&both).expect("it was made");
            link.ends.insert(n, end);
        }
        for n in [a, b] {
            self.drive(both, n, None);
        }
        Some(both)
    }

    /// A link between two nodes is whole.
    pub(crate) fn is_linked(&self, a: usize, b: usize) -> bool {
        self.links.get(&pair(a, b)).is_some_and(|link| link.ends.len() == 2)
    }

    fn end(&mut self, n: usize, other: usize) -> End {
        let peer = Peer {
            node: self.nodes[other].name.clone(),
            actor: self.nodes[other].db.actor(),
            database: Some(self.nodes[other].db.database()),
            last_of_ours: last_of(&self.here(other), &self.nodes[n].name),
        };
        let current = self.nodes[n].db.catalog().directory().node(&peer.node).map(|row| row.actor);
        self.nodes[n].peers.link_up(&peer.node, peer.actor, current);
        let known = self.nodes[n].peers.of(SYSTEM_TABLE, &peer.node);
        let remembered = Remembered {
            ahead_since: self.nodes[n].ahead_since.get(&other).copied(),
            quarantined: known.map(|known| known.quarantined.clone()).unwrap_or_default(),
        };
        let (offset_ms, now) = (self.clock_offset_ms(n, other), self.link_time());
        self.nodes[n].heard.insert(other, peer.actor);
        self.nodes[n].db.link_began(&peer.node);
        End {
            driver: Driver::new(peer, remembered, offset_ms, &self.here(n), now),
            read: None,
            arrived: Vec::new(),
            asked: BTreeSet::new(),
            replicas_changed: false,
            directory_changed: false,
        }
    }

    /// A link ends, and both ends know it.
    pub(crate) fn link_down(&mut self, pair: Pair) {
        for n in [pair.0, pair.1] {
            self.end_down(pair, n);
        }
    }

    /// An end of a link is gone, and the other does not know it yet.
    pub(crate) fn end_down(&mut self, pair: Pair, n: usize) {
        let Some(link) = self.links.get_mut(&pair) else { return };
        if link.ends.remove(&n).is_some() {
            let other = if n == pair.0 { pair.1 } else { pair.0 };
            let name = self.nodes[other].name.clone();
            self.nodes[n].peers.link_down(&name);
        }
        if link.ends.is_empty() {
            self.links.remove(&pair);
        }
    }

    /// All links of a node end: the others find out, or do not yet.
    pub(crate) fn all_down(&mut self, n: usize) {
        let pairs: Vec<Pair> =
            self.links.keys().filter(|(a, b)| n == *a || n == *b).copied().collect();
        for pair in pairs {
            self.end_down(pair, n);
            if self.calm || self.chance.percent(50) {
                self.link_down(pair);
            }
        }
    }

    /// Every link ends, and what was on its way is lost.
    pub(crate) fn all_links_down(&mut self) {
        self.network.clear();
        for pair in self.links.keys().copied().collect::<Vec<_>>() {
            self.link_down(pair);
        }
    }

    pub(crate) fn here(&self, n: usize) -> Here<'_> {
        Here { node: &self.nodes[n], wall_ms: self.wall_ms(n), clock_offsets_ms: Vec::new() }
    }

    /// How far the clock of another is ahead.
    pub(crate) fn clock_offset_ms(&self, n: usize, other: usize) -> i64 {
        self.wall_ms(other).cast_signed() - self.wall_ms(n).cast_signed()
    }

    /// A command has changed something on a node: its drivers are told when they are looked at next.
    pub(crate) fn has_changed(&mut self, n: usize, is_directory: bool) {
        for link in self.links.values_mut() {
            if let Some(end) = link.ends.get_mut(&n) {
                end.replicas_changed = true;
                end.directory_changed |= is_directory;
            }
        }
    }

    /// Gives the driver at an end something, or lets time pass there; and does what it says.
    pub(crate) fn drive(&mut self, pair: Pair, n: usize, input: Option<Input>) {
        let other = if n == pair.0 { pair.1 } else { pair.0 };
        let (now, clock_offset_ms) = (self.link_time(), self.clock_offset_ms(n, other));
        let wall_ms = self.wall_ms(n);
        let here = Here { node: &self.nodes[n], wall_ms, clock_offsets_ms: Vec::new() };
        let Some(link) = self.links.get_mut(&pair) else { return };
        let Some(end) = link.ends.get_mut(&n) else { return };
        let driver = &mut end.driver;
        driver.handle(Input::Link { clock_offset_ms, has_room: true }, &here, now);
        if std::mem::take(&mut end.directory_changed) {
            driver.handle(Input::DirectoryChanged, &here, now);
        }
        if std::mem::take(&mut end.replicas_changed) {
            driver.handle(Input::ReplicasChanged(None), &here, now);
        }
        match input {
            Some(input) => driver.handle(input, &here, now),
            None => driver.handle_timeout(&here, now),
        }
        let outputs: Vec<Output> = std::iter::from_fn(|| driver.next_output()).collect();
        let number = link.number;
        for output in outputs {
            self.carry_out(pair, number, n, output);
        }
    }

    fn carry_out(&mut self, pair: Pair, link: u64, n: usize, output: Output) {
        match output {
            Output::Send(message) => self.send(pair, link, n, message),
            Output::Work(work) => {
                let end = self.end_of(pair, link, n);
                let truth = match (&work, end) {
                    (Work::Apply { batch, .. }, Some(end)) => {
                        let id = id_of(batch);
                        let at = end.arrived.iter().position(|(other, _)| *other == id);
                        at.map(|at| end.arrived.remove(at).1)
                    }
                    _ => None,
                };
                // What is noted alone is noted at once. What nobody waits for has come to its end before a story goes on.
                let is_noted = matches!(work, Work::WasStored(_) | Work::WasRefused(_));
                if is_noted || (self.calm && matches!(work, Work::EndDrained(_))) {
                    return self.work(pair, link, n, work, truth);
                }
                let session = self.nodes[n].session;
                self.network.push(InFlight::Work { pair, link, n, session, work, truth });
            }
            Output::Note(Note::Replica { table, node, change }) => {
                self.note(n, table, &node, change);
            }
            Output::Note(Note::AheadSince(since)) => {
                let other = if n == pair.0 { pair.1 } else { pair.0 };
                match since {
                    Some(since) => self.nodes[n].ahead_since.insert(other, since),
                    None => self.nodes[n].ahead_since.remove(&other),
                };
            }
            Output::Note(Note::Quarantined(_)) => self.tally.quarantined += 1,
            Output::Note(Note::Invalid { row, .. }) => panic!("a record is no record: {row:?}"),
            Output::Note(Note::NotAhead | Note::TakenAhead { .. }) => {}
            Output::End if self.broken_by(Around::RemovedHeard) => {}
            Output::End => self.link_down(pair),
        }
    }

    pub(crate) fn note(&mut self, n: usize, table: TableUid, node: &NodeName, change: Change) {
        let facts = Facts::of(&self.here(n), table, node);
        let _troubles = self.nodes[n].peers.note(table, node, change, &facts);
    }

    fn send(&mut self, pair: Pair, link: u64, from: usize, message: Message) {
        checks::messages::may_be_sent(
            self,
            from,
            if from == pair.0 { pair.1 } else { pair.0 },
            &message,
        );
        let Some(end) = self.end_of(pair, link, from) else { return };
        let mut truth = None;
        let is_batch = matches!(message, Message::Batch(_));
        match &message {
            Message::PullRequest(request) => {
                end.asked.insert(request.table);
            }
            Message::Batch(_) => truth = end.read.take(),
            Message::Ack(_) | Message::Refuse(_) | Message::Parked(_) => {}
            Message::StatusGossip(_) => self.tally.gossip += 1,
        }
        self.network.push(InFlight::Message { pair, link, from, message, truth });
        if is_batch {
            self.drive(pair, from, Some(Input::BatchSent));
        }
    }

    fn end_of(&mut self, pair: Pair, link: u64, n: usize) -> Option<&mut End> {
        let link = self.links.get_mut(&pair).filter(|known| known.number == link)?;
        link.ends.get_mut(&n)
    }

    /// What was read for a request is what goes with the next batch of an end.
    pub(crate) fn has_read(&mut self, pair: Pair, link: u64, n: usize, truth: Option<Truth>) {
        if let Some(end) = self.end_of(pair, link, n) {
            end.read = truth;
        }
    }

    /// Tells the driver of a link what its work has come to, if it is still there.
    pub(crate) fn is_done(&mut self, pair: Pair, link: u64, n: usize, done: driver::Done) {
        if self.end_of(pair, link, n).is_some() {
            self.drive(pair, n, Some(Input::Done(done)));
        }
    }

    /// Hands something over, if it can get there.
    pub(crate) fn deliver(&mut self, item: InFlight) {
        match item {
            InFlight::Message { pair, link, from, message, truth } => {
                let to = if from == pair.0 { pair.1 } else { pair.0 };
                if !self.reaches(from, to) {
                    return self.link_down(pair); // it is silent for too long
                }
                let is_alive = self.end_of(pair, link, to).is_some();
                if !mutations::on_arrival(self, pair, is_alive, to, &message) {
                    return;
                }
                let Some(end) = self.end_of(pair, link, to) else { return };
                if let (Message::Batch(batch), Some(truth)) = (&message, truth) {
                    let id = id_of(batch);
                    end.arrived.retain(|(other, _)| *other != id);
                    end.arrived.push((id, truth));
                }
                match &message {
                    Message::Refuse(refuse) => {
                        self.log.push(format!("  n{from} refuses n{to}: {:?}", refuse.why));
                    }
                    Message::PullRequest(request) if request.table != SYSTEM_TABLE => {
                        let position = &request.position;
                        self.log.push(format!("  n{from} asks n{to} from {position:?}"));
                    }
                    Message::PullRequest(_)
                    | Message::Batch(_)
                    | Message::Ack(_)
                    | Message::Parked(_)
                    | Message::StatusGossip(_) => {}
                }
                self.drive(pair, to, Some(Input::Message(message)));
            }
            InFlight::Work { pair, link, n, session, work, truth } => {
                // What was given to the store before it heard of a removal was done before, too.
                let other = if n == pair.0 { pair.1 } else { pair.0 };
                let directory = self.nodes[n].db.catalog().directory();
                let is_put_out = directory.is_put_out(&self.nodes[other].name)
                    && !self.broken_by(Around::RemovedHeard);
                if self.nodes[n].alive && self.nodes[n].session == session && !is_put_out {
                    self.work(pair, link, n, work, truth);
                }
            }
        }
    }

    /// Ends a story in which what it tells of does not come.
    pub(crate) fn broken_off(&self) -> ! {
        let told = |item: &InFlight| match item {
            InFlight::Message { from, message, .. } => {
                format!("{} of {:?} by n{from}", message.name(), message.table())
            }
            InFlight::Work { n, work, .. } => format!("n{n}: {work:.80?}"),
        };
        let on_the_way: Vec<_> = self.network.iter().map(told).collect();
        broken(format!("it does not come; on the way are {on_the_way:#?}"))
    }

    /// Something comes twice: a message on its link; or a batch to the store, as by a link before, which is told nothing.
    pub(crate) fn repeat(&mut self, at: usize) {
        match self.network[at].clone() {
            InFlight::Work { pair, n, session, work: work @ Work::Apply { .. }, truth, .. } => {
                self.deliver(InFlight::Work { pair, link: 0, n, session, work, truth });
            }
            InFlight::Work { .. } => {}
            message @ InFlight::Message { .. } => self.deliver(message),
        }
    }

    /// Where on the network the next thing is that may arrive before others do: within a link, a message comes after
    /// those that were sent before it.
    pub(crate) fn first_like(&self, at: usize) -> usize {
        let InFlight::Message { link, from, .. } = &self.network[at] else { return at };
        let is_before = |item: &InFlight| {
            matches!(item,
            InFlight::Message { link: other, from: by, .. } if (other, by) == (link, from))
        };
        self.network.iter().position(is_before).unwrap_or(at)
    }

    /// One reads a table of another, and everything else on their link is slow.
    pub(crate) fn exchange(&mut self, reader: usize, source: usize, table: TableUid, until: Until) {
        let Some(both) = self.link_up(reader, source) else { return };
        // What was refused before is asked for once more.
        self.link_ms += 250;
        for n in [source, reader] {
            self.drive(both, n, Some(Input::DirectoryChanged));
            self.drive(both, n, None);
        }
        self.link_ms += 250;
        for n in [source, reader] {
            self.drive(both, n, None);
        }
        let mut applied = 0;
        loop {
            let is_next =
                |item: &InFlight, of: TableUid| item.pair() == both && item.brings(reader, of);
            let find = |world: &Self, of| world.network.iter().position(|item| is_next(item, of));
            let stops = |item: &InFlight| match until {
                Until::Sent => item.is_batch(),
                Until::Arrived => item.is_applied(),
                Until::Applied(most) => applied == most && item.is_applied(),
            };
            let mut next = find(self, table);
            if next.is_some_and(|at| stops(&self.network[at])) {
                return;
            }
            let is_asked = |end: &End| end.asked.contains(&table);
            let asked =
                self.links.get(&both).and_then(|link| link.ends.get(&reader)).is_some_and(is_asked);
            if next.is_none() && !asked {
                next = find(self, SYSTEM_TABLE); // it comes first on every link
            }
            // A source answers one request after the other: those before are read, and travel no further.
            let is_before = |item: &InFlight| item.pair() == both && item.is_read_by(source);
            let next = next.or_else(|| self.network.iter().position(is_before));
            let Some(at) = next else { return };
            let item = self.network.remove(at);
            applied += usize::from(item.is_applied() && item.brings(reader, table));
            self.deliver(item);
        }
    }

    /// Time passes for all drivers.
    pub(crate) fn tick(&mut self) {
        for pair in self.links.keys().copied().collect::<Vec<_>>() {
            for n in [pair.0, pair.1] {
                self.drive(pair, n, None);
            }
        }
    }

    /// Hands over everything that is under way, to the end.
    pub(crate) fn drain_network(&mut self) {
        while !self.network.is_empty() {
            let item = self.network.remove(0);
            self.deliver(item);
        }
    }
}
