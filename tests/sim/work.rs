//! What drivers have done by the stores of the simulated world, and what must hold of it each time.
//! In the daemon this is the edge's, on threads that may block.

use cortex_core::{
    directory::SealedRow,
    model::Hlc,
    replication::{
        Ack, Answer, Batch, Part, PullRequest, SYSTEM_TABLE, SnapshotKind, Unfit, Why,
        driver::{Answered, Done, Outcome as Came, ReaderKnows, Work},
    },
};
use cortexd::store::{
    Applied, BatchBounds, BatchRead, Checked, Command, DirectoryCommand, Outcome, ReceivedBatch,
    ReplicationCommand, ReplicationOutcome, check,
};

use crate::{
    checks,
    links::Pair,
    mutations::{self, Around},
    world::{Truth, World, broken},
};

impl World {
    /// Does a piece of work of the driver of a link.
    pub(crate) fn work(
        &mut self,
        pair: Pair,
        link: u64,
        n: usize,
        work: Work,
        truth: Option<Truth>,
    ) {
        let other = if n == pair.0 { pair.1 } else { pair.0 };
        let place = |world: &Self, table| {
            let name = &world.nodes[other].name;
            world.nodes[n].db.position(table, name).expect("a position")
        };
        let done = match work {
            Work::Locate(table) => Some(Done::Located(table, Some(place(self, table)))),
            Work::FindDurable { table, drain } => {
                Some(Done::Durable { table, upto: place(self, table), drain })
            }
            Work::Apply { batch, latest, learn } => {
                let truth = truth.expect("it was read somewhere");
                Some(self.apply(other, n, *batch, (latest, learn), &truth))
            }
            Work::Read { request, reader } => {
                let (answered, truth) = self.read(other, n, &request, reader);
                self.has_read(pair, link, n, truth);
                Some(Done::Read { request, answered })
            }
            Work::FindLastWrite => Some(Done::LastWrite(self.nodes[n].db.last_write())),
            Work::RotateActor { .. } => {
                let _full = self.run(n, &ReplicationCommand::RotateActor.into());
                None
            }
            Work::EndDrained(ack) => {
                self.end_drained(other, n, ack);
                None
            }
            Work::WasStored(table) => {
                let name = self.nodes[other].name.clone();
                self.nodes[n].db.was_stored(&name, table);
                None
            }
            Work::WasRefused(table) => {
                let name = self.nodes[other].name.clone();
                self.nodes[n].db.was_refused(&name, table);
                None
            }
        };
        if let Some(done) = done {
            self.is_done(pair, link, n, done);
        }
    }

    fn bounds(&mut self, passed: u64) -> BatchBounds {
        let (rows, entries) = match (self.small, self.calm) {
            (true, _) => (1, 1),
            (false, true) => (64, 1024),
            (false, false) => (self.chance.below(3) + 1, self.chance.of(&[1, 2, 4, 1024])),
        };
        BatchBounds { rows, bytes: 1 << 20, entries, passed }
    }

    fn read(
        &mut self,
        reader: usize,
        source: usize,
        request: &PullRequest,
        knows: ReaderKnows,
    ) -> (Answered, Option<Truth>) {
        let bounds = self.bounds(knows.passed);
        let name = self.nodes[reader].name.clone();
        let db = &self.nodes[source].db;
        // Some rules are broken in the file, of which memory knows nothing.
        let from_memory =
            self.mutation.is_none().then(|| db.read_recent_batch(&name, request, bounds)).flatten();
        if let Some(read) = &from_memory {
            checks::recent::told_as_by_the_file(db, &name, request, knows.passed, read);
        }
        // Every other answer, so that both ways are gone.
        self.answers += 1;
        let read = match from_memory.filter(|_| self.answers.is_multiple_of(2)) {
            Some(read) => read,
            None => db.read_batch(&name, request, bounds).expect("an answer"),
        };
        let answered = match read {
            BatchRead::Nothing => {
                let drain = db.replica(request.table).and_then(|replica| replica.drain);
                Answered::nothing(drain)
            }
            BatchRead::Refused(why) => Answered::refused(why.into()),
            BatchRead::Batch(batch) => knows.answer(request, batch),
        };
        let truth = match &answered.answer {
            Answer::Batch(batch) => Some(self.truth_of(reader, source, request, batch)),
            Answer::Nothing(_) | Answer::Refused(_) => None,
        };
        (answered, truth)
    }

    /// What is true of a batch that was read just now; and that it may have been.
    fn truth_of(
        &mut self,
        reader: usize,
        source: usize,
        request: &PullRequest,
        batch: &Batch,
    ) -> Truth {
        if let Part::Snapshot { starts: true, kind, .. } = &batch.part {
            match kind {
                SnapshotKind::Full => self.tally.full_snapshots += 1,
                SnapshotKind::Scan => self.tally.scans += 1,
            }
        }
        if batch.table != SYSTEM_TABLE {
            checks::ended::is_not_fed(self, reader, source, request);
            for row in &batch.rows {
                checks::i12::may_hold(self, reader, row.dot());
            }
        }
        let disk = &self.nodes[source].disk;
        let known = batch.rows.iter().map(|row| {
            let version = disk.version(&(batch.table, row.key.clone()));
            version.map(|version| std::sync::Arc::clone(&version.known)).unwrap_or_default()
        });
        let whole = self.nodes[source].db.replica(batch.table).is_some_and(|copy| copy.ready);
        Truth { known: known.collect(), removals: disk.removals.clone(), whole }
    }

    fn apply(
        &mut self,
        source: usize,
        reader: usize,
        batch: Batch,
        (latest, learn): (Hlc, bool),
        truth: &Truth,
    ) -> Done {
        let outline = Box::new(batch.clone());
        let from = self.nodes[source].name.clone();
        if batch.table != SYSTEM_TABLE {
            let outcome = self.apply_whole(
                source,
                reader,
                ReceivedBatch { from, batch, verified: Vec::new(), latest },
                truth,
            );
            return Done::Applied { outline, outcome };
        }
        let rows = batch.rows.iter().map(|row| SealedRow {
            key: row.key.clone(),
            value: row.value.clone().unwrap_or_default(),
            stamp: row.stamp,
            seq: row.seq,
        });
        let node = &self.nodes[reader];
        let directory = node.db.catalog().directory();
        let Checked { verified, unverified } =
            check(node.signer.as_ref(), directory, rows.collect());
        if !learn && unverified.is_empty() {
            let outcome = self.apply_whole(
                source,
                reader,
                ReceivedBatch { from, batch, verified, latest },
                truth,
            );
            return Done::Applied { outline, outcome };
        }
        let keys = verified.iter().map(|row| row.key().to_vec()).collect();
        let learnt = self.run(reader, &DirectoryCommand::Learn(verified).into());
        checks::after(self, reader);
        match learnt {
            Ok(_learnt) => Done::Learnt { outline, keys, unverified },
            Err(_full) => {
                let outcome = Came::Failed { why: Why::Storage, refusal: None };
                Done::Applied { outline, outcome }
            }
        }
    }

    /// A batch is stored as a whole, or not at all.
    fn apply_whole(
        &mut self,
        source: usize,
        reader: usize,
        delivery: ReceivedBatch,
        truth: &Truth,
    ) -> Came {
        let (batch, latest) = (&delivery.batch, delivery.latest);
        let latest = mutations::on_believed(self, reader, latest);
        let table = batch.table;
        let full_ends =
            matches!(batch.part, Part::Snapshot { kind: SnapshotKind::Full, reached: None, .. });
        let expected = checks::ledger::expect(self, reader, batch, &truth.known);
        let held = |world: &Self| {
            world.nodes[reader].disk.copies.get(&table).map_or(0, |copy| copy.rows.len())
        };
        let rows_before = held(self);
        if self.broken_by(Around::AckBeforeCommit) && self.chance.percent(30) {
            return Came::Stored { verified: None };
        }
        let above = self.nodes[reader].disk.lsn;
        let ready = |world: &Self| world.nodes[reader].db.replica(table).is_some_and(|r| r.ready);
        let was_ready = ready(self);
        let command =
            ReplicationCommand::ApplyBatch(Box::new(ReceivedBatch { latest, ..delivery }));
        let command = Command::Replication(command);
        let done = self.run(reader, &command);
        let Command::Replication(ReplicationCommand::ApplyBatch(delivery)) = &command else {
            unreachable!("it was just made")
        };
        let batch = &delivery.batch;
        let outcome = match done {
            Ok(Outcome::Replication(ReplicationOutcome::Applied(Applied::Stored {
                conflicts,
                verified,
                ..
            }))) => {
                self.tally.taken += 1;
                self.log_batch(reader, source, batch);
                mutations::on_disk(self, reader, above);
                if ready(self) && !was_ready && !truth.whole {
                    broken(format!("n{reader} is whole by n{source}, which is not"));
                }
                checks::i12::may_take(self, reader, table);
                if table != SYSTEM_TABLE {
                    checks::e3::nothing_is_of_the_future(reader, batch, latest);
                    checks::e3::the_clock_comes_after(self, reader, batch);
                }
                checks::ended::is_not_read(self, reader, source, batch, truth);
                checks::ledger::settle(self, reader, batch, &expected, conflicts);
                if full_ends {
                    checks::i07::after_full_snapshot(self, reader, source, table);
                    self.tally.swept += rows_before.saturating_sub(held(self)) as u64;
                }
                self.tally.differed += u64::from(verified == Some(false));
                Came::Stored { verified }
            }
            Ok(Outcome::Replication(ReplicationOutcome::Applied(Applied::Unfit(why)))) => {
                self.tally.unfit += 1;
                self.tally.ahead += u64::from(matches!(why, Unfit::Ahead { .. }));
                self.log.push(format!("  n{reader} takes nothing of n{source}: {why:?}"));
                Came::Unfit(why)
            }
            Ok(_other) => Came::Stored { verified: None },
            Err(failure) => {
                self.log
                    .push(format!("  n{reader} does not take {table:?} of n{source}: {failure}"));
                Came::Failed { why: Why::Storage, refusal: None }
            }
        };
        checks::after(self, reader);
        outcome
    }

    fn log_batch(&mut self, reader: usize, source: usize, batch: &Batch) {
        if batch.table == SYSTEM_TABLE {
            return;
        }
        let rows = batch
            .rows
            .iter()
            .map(|row| (String::from_utf8_lossy(&row.key).into_owned(), row.stamp.hlc, row.seq));
        let rows: Vec<_> = rows.collect();
        self.log.push(format!("  n{reader} takes of n{source} {:?} {rows:?}", batch.part));
    }

    /// A replica that drains ends, if another one has all that it has.
    pub(crate) fn end_drained(&mut self, from: usize, n: usize, ack: Box<Ack>) {
        let name = self.nodes[from].name.clone();
        let before = checks::i13::Leaving::of(self, n, from, &ack);
        let (table, epoch, cursor) = (ack.table, ack.status.epoch, ack.cursor);
        let command = ReplicationCommand::Drained { from: name.clone(), ack };
        let left = self.run(n, &command.into());
        if matches!(left, Ok(Outcome::Replication(ReplicationOutcome::Drained { left: true }))) {
            before.is_handed_over(self);
            self.tally.drained += 1;
            self.log.push(format!("  n{n} leaves, n{from} has everything: {cursor:?}"));
            if self.history.lost.contains(&(table, name, epoch)) {
                // One acknowledgement is one disk, and that one is gone.
                self.tally.acked_lost += 1;
                checks::i13::excuse(self);
            }
        }
        checks::after(self, n);
    }
}
