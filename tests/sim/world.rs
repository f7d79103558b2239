//! The simulated world: nodes with real databases, a network that loses, repeats and reorders, and time.
//! What happens in it is `actions`'; what must hold of it, the invariants'.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::panic_any,
    sync::Arc,
};

use cortex_core::{
    model::{ActorId, NodeName, Signer, TableUid},
    replication::{Ack, Batch, Part, PullRequest, ReplicaStatus, ReplicaStatuses, SnapshotKind},
};
use cortexd::store::{
    Applied, BatchBounds, BatchRead, Collection, Command, CommandError, Database, DirectoryCommand,
    Outcome, ReceivedBatch, ReplicationCommand, ReplicationOutcome, SYSTEM_TABLE, SealedRow,
    StoreError, verify,
};

use crate::{
    chance::{Chance, Ids},
    checks,
    fake_signer::FakeSigner,
    history::{Disk, History, Known},
    mutations::{self, Around, Mutation},
};

/// How much clocks may differ from each other at most.
pub(crate) const SKEW_MS: u64 = 6_000;
/// How old a deletion must be before it is collected. Far more than clocks differ, as in production.
pub(crate) const LEAST_AGE_MS: u64 = 20 * SKEW_MS;
/// When the world begins: some weeks before a 32-bit clock ends.
const BEGINNING_MS: u64 = 2_145_000_000_000;

/// What was found broken.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

/// Ends a run that has found something.
pub(crate) fn broken(what: String) -> ! {
    panic_any(Broken(what))
}

/// Whose replica of which table a message is about, and who sends it to whom.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    PullRequest {
        from: usize,
        to: usize,
        want: PullRequest,
    },
    /// With what is true of it.
    Batch {
        from: usize,
        to: usize,
        batch: Box<Batch>,
        truth: Truth,
    },
    /// Belongs to a connection: it does not outlive the process at either end.
    Ack {
        from: usize,
        to: usize,
        sessions: (u64, u64),
        ack: Box<Ack>,
    },
}

/// What is true of a batch when it is read.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    /// What the writers of its rows had seen.
    known: Vec<Known>,
    /// The removals of nodes that its source knows.
    pub(crate) removals: BTreeSet<usize>,
    /// Its source is whole.
    pub(crate) whole: bool,
    /// Which process of its source has read it.
    pub(crate) session: u64,
}

impl Message {
    fn ends(&self) -> (usize, usize) {
        match self {
            Self::PullRequest { from, to, .. }
            | Self::Batch { from, to, .. }
            | Self::Ack { from, to, .. } => (*from, *to),
        }
    }
}

pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) db: Database,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) skew_ms: i64,
    /// How far the clock has jumped.
    pub(crate) jump_ms: i64,
    pub(crate) alive: bool,
    /// An operator has put it out of the mesh.
    pub(crate) asked_out: bool,
    /// And somebody who is left knows of it, in the end.
    pub(crate) removed: bool,
    /// Its disk is full.
    pub(crate) full: bool,
    pub(crate) session: u64,
    pub(crate) statuses: BTreeMap<TableUid, ReplicaStatuses>,
    /// As which actor each other node has asked last.
    pub(crate) heard: BTreeMap<usize, ActorId>,
    pub(crate) disk: Disk,
    pub(crate) saved: Option<(Database, Disk)>,
}

/// What a run has seen, to know that it has not run idle.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) steps: u64,
    pub(crate) writes: u64,
    pub(crate) taken: u64,
    pub(crate) unfit: u64,
    pub(crate) full_snapshots: u64,
    pub(crate) scans: u64,
    pub(crate) collected: u64,
    pub(crate) swept: u64,
    pub(crate) conflicts: u64,
    pub(crate) drained: u64,
    pub(crate) rescued: u64,
    pub(crate) rollbacks: u64,
    pub(crate) orphans: u64,
    pub(crate) ahead: u64,
    pub(crate) disk_full: u64,
    pub(crate) differed: u64,
    pub(crate) acked_lost: u64,
    pub(crate) restamped: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.steps, other.steps),
            (&mut self.writes, other.writes),
            (&mut self.taken, other.taken),
            (&mut self.unfit, other.unfit),
            (&mut self.full_snapshots, other.full_snapshots),
            (&mut self.scans, other.scans),
            (&mut self.collected, other.collected),
            (&mut self.swept, other.swept),
            (&mut self.conflicts, other.conflicts),
            (&mut self.drained, other.drained),
            (&mut self.rescued, other.rescued),
            (&mut self.rollbacks, other.rollbacks),
            (&mut self.orphans, other.orphans),
            (&mut self.ahead, other.ahead),
            (&mut self.disk_full, other.disk_full),
            (&mut self.differed, other.differed),
            (&mut self.acked_lost, other.acked_lost),
            (&mut self.restamped, other.restamped),
        ];
        for (sum, more) in pairs {
            *sum += more;
        }
    }
}

pub(crate) struct World {
    pub(crate) chance: Chance,
    pub(crate) ids: Ids,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) now_ms: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Vec<Message>,
    /// Pairs that cannot reach each other.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// A line in which only neighbours ever see each other.
    pub(crate) chain: bool,
    pub(crate) tables: Vec<TableUid>,
    pub(crate) keys: usize,
    pub(crate) history: History,
    /// Large batches, and nothing else happens meanwhile.
    pub(crate) calm: bool,
    /// It is so long since clocks are right that timestamps of the future are taken as they are.
    pub(crate) clocks_are_right: bool,
    /// Batches of one row.
    pub(crate) small: bool,
    /// Some records are large.
    pub(crate) large: bool,
    pub(crate) values: u64,
    /// Requests for rows so far.
    pub(crate) answers: u64,
    pub(crate) tally: Tally,
    pub(crate) log: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut chance = Chance::new(seed);
        let keys = chance.of(&[3, 3, 5]);
        Self {
            chance,
            ids: Ids::new(seed),
            mutation,
            now_ms: BEGINNING_MS,
            nodes: Vec::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            chain: false,
            tables: Vec::new(),
            keys,
            history: History::default(),
            calm: false,
            clocks_are_right: false,
            small: false,
            large: false,
            values: 0,
            answers: 0,
            tally: Tally::default(),
            log: Vec::new(),
        }
    }

    pub(crate) fn broken_by(&self, mutation: Around) -> bool {
        self.mutation == Some(Mutation::Around(mutation))
    }

    pub(crate) fn add_node(&mut self, skewed: bool) -> usize {
        let n = self.nodes.len();
        let name = NodeName::parse(&format!("n{n}")).expect("a name");
        let db = Database::in_memory(self.ids.drawer()).expect("a database");
        let half = SKEW_MS / 2;
        let skew = self.chance.within(0, 2 * half).cast_signed() - half.cast_signed();
        let node = Node {
            signer: Arc::new(FakeSigner::of(name.as_str())),
            name,
            db,
            skew_ms: if skewed { skew } else { 0 },
            jump_ms: 0,
            alive: true,
            asked_out: false,
            removed: false,
            full: false,
            session: 0,
            statuses: BTreeMap::new(),
            heard: BTreeMap::new(),
            disk: Disk::default(),
            saved: None,
        };
        self.nodes.push(node);
        self.must(
            n,
            &Command::Directory(DirectoryCommand::Join(Arc::clone(&self.nodes[n].signer))),
        );
        n
    }

    pub(crate) fn wall_ms(&self, n: usize) -> u64 {
        let node = &self.nodes[n];
        self.now_ms.saturating_add_signed(node.skew_ms).saturating_add_signed(node.jump_ms)
    }

    pub(crate) fn living(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].alive).collect()
    }

    pub(crate) fn index(&self, name: &NodeName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }

    /// Two nodes can talk: a line holds, and neither has put the other out as far as it knows.
    pub(crate) fn reaches(&self, a: usize, b: usize) -> bool {
        let put_out = |by: usize, whom: usize| {
            self.nodes[by].db.catalog().directory().is_put_out(&self.nodes[whom].name)
        };
        a != b
            && self.nodes[b].alive
            && !self.cut.contains(&(a.min(b), a.max(b)))
            && (!self.chain || a.abs_diff(b) == 1)
            && (self.broken_by(Around::RemovedHeard) || !(put_out(a, b) || put_out(b, a)))
    }

    /// Carries out a command on a node, and looks at what has come of it.
    pub(crate) fn run(&mut self, n: usize, command: &Command) -> Result<Outcome, CommandError> {
        let wall_ms = self.wall_ms(n);
        let before = self.nodes[n].full.then(|| checks::i05::fingerprint(&self.nodes[n].db));
        let outcome = self.nodes[n].db.execute(command, wall_ms);
        match &outcome {
            Err(CommandError::Faulted(StoreError::Full(_))) => {
                self.tally.disk_full += 1;
                let after = checks::i05::fingerprint(&self.nodes[n].db);
                if before.is_some_and(|before| before != after) {
                    broken(format!("I5 n{n}: a command failed and has changed something"));
                }
            }
            Err(CommandError::Faulted(fault)) => broken(format!("n{n}: {fault} by {command:?}")),
            Ok(_) | Err(CommandError::Refused(_)) => {}
        }
        checks::observe(self, n, command, &outcome);
        outcome
    }

    /// As [`World::run`], where it cannot fail.
    pub(crate) fn must(&mut self, n: usize, command: &Command) -> Outcome {
        match self.run(n, command) {
            Ok(done) => done,
            Err(failure) => broken(format!("n{n} refuses {command:?}: {failure}")),
        }
    }

    pub(crate) fn ask(&mut self, reader: usize, source: usize, table: TableUid) {
        if let Some(want) = self.want(reader, source, table) {
            self.network.push(Message::PullRequest { from: reader, to: source, want });
        }
    }

    fn want(&self, reader: usize, source: usize, table: TableUid) -> Option<PullRequest> {
        let db = &self.nodes[reader].db;
        let replica = db.replica(table).filter(|replica| replica.epoch > 0)?;
        Some(PullRequest {
            table,
            reader: db.actor(),
            epoch: replica.epoch,
            position: db.position(table, &self.nodes[source].name).expect("a position"),
            vector: replica.vector.clone(),
        })
    }

    /// Hands a message over, if it can get there.
    pub(crate) fn deliver(&mut self, message: Message) {
        let (from, to) = message.ends();
        if !self.reaches(from, to) {
            return;
        }
        match message {
            Message::PullRequest { from, to, want } => self.serve(from, to, &want),
            Message::Batch { from, to, batch, truth } => {
                self.take(from, to, *batch, &truth);
            }
            Message::Ack { from, to, sessions, ack } => {
                if sessions == (self.nodes[from].session, self.nodes[to].session)
                    || self.broken_by(Around::AckOfAnEndedSession)
                {
                    self.hear(from, to, *ack);
                }
            }
        }
    }

    fn bounds(&mut self) -> BatchBounds {
        if self.small {
            return BatchBounds { rows: 1, bytes: 1 << 20, entries: 1, passed: 0 };
        }
        if self.calm {
            return BatchBounds { rows: 64, bytes: 1 << 20, entries: 1024, passed: 0 };
        }
        let rows = self.chance.below(3) + 1;
        let entries = self.chance.of(&[1, 2, 4, 1024]);
        BatchBounds { rows, bytes: 1 << 20, entries, passed: 0 }
    }

    fn serve(&mut self, reader: usize, source: usize, want: &PullRequest) {
        if want.table != SYSTEM_TABLE && self.clocks_are_apart(reader, source) {
            return;
        }
        let bounds = self.bounds();
        let name = self.nodes[reader].name.clone();
        // A link begins with who asks.
        for statuses in self.nodes[source].statuses.values_mut() {
            statuses.void_others(&name, want.reader);
        }
        self.nodes[source].heard.insert(reader, want.reader);
        let db = &self.nodes[source].db;
        // Some rules are broken in the file, of which memory knows nothing.
        let from_memory =
            self.mutation.is_none().then(|| db.read_recent_batch(&name, want, bounds)).flatten();
        if let Some(served) = &from_memory {
            checks::recent::told_as_by_the_file(db, &name, want, served);
        }
        // Every other answer, so that both ways are gone.
        self.answers += 1;
        let served = match from_memory.filter(|_| self.answers.is_multiple_of(2)) {
            Some(served) => served,
            None => db.read_batch(&name, want, bounds).expect("an answer"),
        };
        let BatchRead::Batch(batch) = served else {
            return;
        };
        if let Part::Snapshot { starts: true, kind, .. } = &batch.part {
            match kind {
                SnapshotKind::Full => self.tally.full_snapshots += 1,
                SnapshotKind::Scan => self.tally.scans += 1,
            }
        }
        if want.table != SYSTEM_TABLE {
            checks::ended::is_not_fed(self, reader, source, want);
        }
        let disk = &self.nodes[source].disk;
        let known = batch.rows.iter().map(|row| {
            let version = disk.version(&(batch.table, row.key.clone()));
            version.map(|version| Arc::clone(&version.known)).unwrap_or_default()
        });
        let whole = self.nodes[source].db.replica(want.table).is_some_and(|copy| copy.ready);
        let (removals, session) = (disk.removals.clone(), self.nodes[source].session);
        let truth = Truth { known: known.collect(), removals, whole, session };
        if batch.table != SYSTEM_TABLE {
            for row in &batch.rows {
                checks::i12::may_hold(self, reader, row.dot());
            }
        }
        self.network.push(Message::Batch { from: source, to: reader, batch, truth });
    }

    fn take(&mut self, source: usize, reader: usize, batch: Batch, truth: &Truth) {
        let table = batch.table;
        let mut verified = Vec::new();
        if table == SYSTEM_TABLE {
            let rows = batch.rows.iter().map(|row| SealedRow {
                key: row.key.clone(),
                value: row.value.clone().unwrap_or_default(),
                stamp: row.stamp,
                seq: row.seq,
            });
            let node = &self.nodes[reader];
            let directory = node.db.catalog().directory();
            match verify(node.signer.as_ref(), directory, rows.collect()) {
                Ok(rows) => verified = rows,
                Err(refusal) => {
                    // The certificate comes with another batch, of which this one was not the first.
                    self.log.push(format!("  n{reader} cannot verify: {refusal}"));
                    return;
                }
            }
        }
        let Some(latest) = self.believed(reader, source, &batch, truth.session) else { return };
        let from = self.nodes[source].name.clone();
        let drain = batch.drain;
        let full_ends =
            matches!(batch.part, Part::Snapshot { kind: SnapshotKind::Full, reached: None, .. });
        let expected = checks::ledger::expect(self, reader, &batch, &truth.known);
        let rows_before = self.nodes[reader].disk.copies.get(&table).map_or(0, |c| c.rows.len());
        if self.broken_by(Around::AckBeforeCommit) && self.chance.percent(30) {
            self.acknowledge(reader, source, table, drain, Some(&batch));
            return;
        }
        let above = self.nodes[reader].disk.lsn;
        let ready = |world: &Self| world.nodes[reader].db.replica(table).is_some_and(|r| r.ready);
        let was_ready = ready(self);
        let delivery = ReceivedBatch { from, batch, verified, latest };
        let command = Command::Replication(ReplicationCommand::ApplyBatch(Box::new(delivery)));
        match self.run(reader, &command) {
            Ok(Outcome::Replication(ReplicationOutcome::Applied(Applied::Stored {
                conflicts,
                verified,
                ..
            }))) => {
                self.tally.taken += 1;
                if table != SYSTEM_TABLE {
                    let Command::Replication(ReplicationCommand::ApplyBatch(delivery)) = &command
                    else {
                        return;
                    };
                    let rows: Vec<_> = (delivery.batch.rows.iter())
                        .map(|row| {
                            (String::from_utf8_lossy(&row.key).into_owned(), row.stamp.hlc, row.seq)
                        })
                        .collect();
                    let part = &delivery.batch.part;
                    let note = format!("  n{reader} takes of n{source} {part:?} {rows:?}");
                    self.log.push(note);
                }
                let Command::Replication(ReplicationCommand::ApplyBatch(delivery)) = &command
                else {
                    return;
                };
                mutations::on_disk(self, reader, above);
                if ready(self) && !was_ready && !truth.whole {
                    broken(format!("n{reader} is whole by n{source}, which is not"));
                }
                checks::i12::may_take(self, reader, table);
                if table != SYSTEM_TABLE {
                    checks::e3::nothing_is_of_the_future(reader, &delivery.batch, latest);
                    checks::e3::the_clock_comes_after(self, reader, &delivery.batch);
                }
                checks::ended::is_not_read(self, reader, source, &delivery.batch, truth);
                checks::ledger::settle(self, reader, &delivery.batch, &expected, conflicts);
                if full_ends {
                    checks::i07::after_full_snapshot(self, reader, source, table);
                    let rows =
                        self.nodes[reader].disk.copies.get(&table).map_or(0, |c| c.rows.len());
                    self.tally.swept += rows_before.saturating_sub(rows) as u64;
                }
                self.tally.differed += u64::from(verified == Some(false));
                checks::after(self, reader);
                self.acknowledge(reader, source, table, drain, None);
            }
            Ok(Outcome::Replication(ReplicationOutcome::Applied(Applied::Unfit(why)))) => {
                self.tally.unfit += 1;
                self.log.push(format!("  n{reader} takes nothing of n{source}: {why:?}"));
                if matches!(why, cortex_core::replication::Unfit::Ahead { .. }) {
                    self.tally.ahead += 1;
                    self.refuse(reader, source, table);
                }
                checks::after(self, reader);
            }
            Ok(_) => checks::after(self, reader),
            Err(failure) => {
                self.log
                    .push(format!("  n{reader} does not take {table:?} of n{source}: {failure}"));
                checks::after(self, reader);
            }
        }
    }

    /// A reader refuses an answer. It is not answered twice: what the network repeats is of a link that ends.
    fn refuse(&mut self, reader: usize, source: usize, table: TableUid) {
        if self.chance.percent(30) {
            return; // lost
        }
        self.network.retain(|message| match message {
            Message::Batch { from, to, batch, .. } => {
                (*from, *to, batch.table) != (source, reader, table)
            }
            Message::PullRequest { .. } | Message::Ack { .. } => true,
        });
        let name = self.nodes[reader].name.clone();
        self.nodes[source].db.was_refused(&name, table);
    }

    /// What a reader says once a batch is on its disk.
    fn acknowledge(
        &mut self,
        reader: usize,
        source: usize,
        table: TableUid,
        drain: Option<[u8; 16]>,
        unstored: Option<&Batch>,
    ) {
        let node = &self.nodes[reader];
        let Some(replica) = node.db.replica(table) else { return };
        let position = match unstored {
            Some(batch) => batch.leads_to(0),
            None => node.db.position(table, &self.nodes[source].name).expect("a position"),
        };
        // Within a snapshot transfer the place in the change log is where the change log will be read from: nothing
        // is said of it.
        let reached = position.snapshot.is_none() || self.broken_by(Around::AckWithinASnapshot);
        let ack = Ack {
            table,
            cursor: position.cursor.filter(|_| reached),
            drain,
            status: ReplicaStatus {
                actor: node.db.actor(),
                epoch: replica.epoch,
                vector: replica.vector.clone(),
                epochs: node.db.catalog().directory().epochs(table),
                digest: replica.digest,
                ready: replica.ready,
                latest: Some(node.db.hlc()),
                conflicts: Some(replica.conflicts.open),
            },
        };
        let sessions = (self.nodes[reader].session, self.nodes[source].session);
        self.network.push(Message::Ack { from: reader, to: source, sessions, ack: Box::new(ack) });
    }

    fn hear(&mut self, from: usize, to: usize, ack: Ack) {
        let name = self.nodes[from].name.clone();
        let table = ack.table;
        if ack.drain.is_some() {
            let command = Command::Replication(ReplicationCommand::Drained {
                from: name.clone(),
                ack: Box::new(ack.clone()),
            });
            let before = checks::i13::Leaving::of(self, to, from, &ack);
            let left = self.run(to, &command);
            if matches!(left, Ok(Outcome::Replication(ReplicationOutcome::Drained { left: true })))
            {
                before.is_handed_over(self);
                self.tally.drained += 1;
                self.log.push(format!("  n{to} leaves, n{from} has everything: {:?}", ack.cursor));
                let stay = (table, name.clone(), ack.status.epoch);
                if self.history.lost.contains(&stay) {
                    // One acknowledgement is one disk, and that one is gone.
                    self.tally.acked_lost += 1;
                    checks::i13::excuse(self);
                }
            }
            checks::after(self, to);
        }
        self.nodes[to].statuses.entry(table).or_default().hear(name, ack.status);
    }

    /// Forgets the deletions of a table that every replica has confirmed.
    pub(crate) fn collect(&mut self, n: usize, table: TableUid) {
        let node = &self.nodes[n];
        let Some(replica) = node.db.replica(table).filter(|replica| replica.epoch > 0) else {
            return;
        };
        let directory = node.db.catalog().directory();
        let statuses = node.statuses.get(&table).cloned().unwrap_or_default();
        let (must, gone) = (directory.must_confirm(table), directory.gone(table));
        let confirmed = statuses.confirmed(&node.name, &replica.vector, &must, &gone);
        let Some(confirmed) = mutations::on_confirmed(self, n, table, confirmed.ok()) else {
            return;
        };
        let least_age = if self.broken_by(Around::NoLeastAge) { 0 } else { LEAST_AGE_MS };
        let before_ms = self.wall_ms(n).saturating_sub(least_age);
        let before = checks::collected::deletions(self, n, table);
        let mut after = 0;
        loop {
            let confirmed = confirmed.clone();
            let collection = Collection { table, confirmed, before_ms, after };
            match self.run(n, &Command::Replication(ReplicationCommand::Collect(collection))) {
                Ok(Outcome::Replication(ReplicationOutcome::Collected { next: Some(next) })) => {
                    after = next;
                }
                Ok(_) | Err(_) => break,
            }
        }
        self.tally.collected += checks::collected::by_all_who_are_known(self, n, table, &before);
        checks::after(self, n);
    }

    /// The process ends and starts again: what is in memory is lost.
    pub(crate) fn restart(&mut self, n: usize, from: Option<(Database, Disk)>) {
        self.set_full(n, false);
        let rolled_back = from.is_some();
        if let Some((db, disk)) = from {
            let lost: Vec<_> = (self.tables.iter())
                .filter_map(|table| Some((*table, self.nodes[n].db.replica(*table)?.epoch)))
                .collect();
            for (table, epoch) in lost {
                let name = self.nodes[n].name.clone();
                self.history.lost.insert((table, name, epoch));
            }
            (self.nodes[n].db, self.nodes[n].disk) = (db, disk);
            self.tally.rollbacks += 1;
        } else {
            mutations::on_start(self, n);
            let image = self.nodes[n].db.image(self.ids.drawer()).expect("an image");
            checks::i05::same_from_disk(self, n, &image);
            self.nodes[n].db = image;
        }
        self.nodes[n].session += 1;
        self.nodes[n].statuses.clear();
        self.nodes[n].heard.clear();
        if rolled_back {
            checks::i13::excuse(self);
        }
        self.must(
            n,
            &Command::Directory(DirectoryCommand::Join(Arc::clone(&self.nodes[n].signer))),
        );
        if rolled_back && !self.broken_by(Around::NoRotation) {
            self.must(n, &Command::Replication(ReplicationCommand::RotateActor));
        }
        checks::after(self, n);
    }

    pub(crate) fn save(&mut self, n: usize) {
        let image = self.nodes[n].db.image(self.ids.drawer()).expect("an image");
        self.nodes[n].saved = Some((image, self.nodes[n].disk.clone()));
    }

    pub(crate) fn saved(&mut self, n: usize) -> Option<(Database, Disk)> {
        let (db, disk) = self.nodes[n].saved.as_ref()?;
        Some((db.image(self.ids.drawer()).expect("an image"), disk.clone()))
    }

    /// The disk takes nothing more, or does again.
    pub(crate) fn set_full(&mut self, n: usize, full: bool) {
        if self.nodes[n].full == full {
            return;
        }
        let conn = self.nodes[n].db.connection();
        let pages: u64 =
            conn.pragma_query_value(None, "page_count", |row| row.get(0)).expect("a count");
        let most = if full { pages } else { 1 << 30 };
        conn.pragma_update_and_check(None, "max_page_count", most, |_| Ok(())).expect("a bound");
        self.nodes[n].full = full;
    }

    pub(crate) fn die(&mut self, n: usize) {
        self.nodes[n].alive = false;
        self.nodes[n].session += 1;
        for table in self.tables.clone() {
            let epoch = self.nodes[n].db.replica(table).map_or(0, |replica| replica.epoch);
            let name = self.nodes[n].name.clone();
            self.history.lost.insert((table, name, epoch));
        }
        checks::i13::excuse(self);
    }

    /// Hands over everything that is under way between two, to the end.
    pub(crate) fn drain_network(&mut self) {
        while !self.network.is_empty() {
            let message = self.network.remove(0);
            self.deliver(message);
        }
    }
}
