//! Upkeep of the nodes of the simulated world: the core's, which decides, and what it has the stores do.
//! When it comes, `deeds` say: its time stands still meanwhile, so that it may come at any moment, or not for long.

use std::time::Duration;

use cortex_core::{
    model::{Hlc, NodeName, TableUid},
    replication::{
        RemoteReplica, VersionVector,
        upkeep::{Input, Note, Output, Retention, Upkeep, UpkeepNode, Work},
    },
};
use cortexd::store::{
    Collection, DirectoryCommand, Outcome, ReplicationCommand, ReplicationOutcome, Restamp,
};

use crate::{
    checks,
    links::Here,
    world::{LEAST_AGE_MS, World},
};

/// After so long the clock was looked at once more.
const LOOK: Duration = Duration::from_secs(1);

/// After so long there was a round.
const ROUND: Duration = Duration::from_secs(6);

/// Entries of change logs that are kept: few, so that they are cut.
const LEAST_CHANGE_LOG: u64 = 8;

/// The upkeep of a node, and its time.
#[derive(Debug)]
pub(crate) struct UpkeepClock {
    upkeep: Upkeep,
    now: Duration,
}

impl Default for UpkeepClock {
    /// That of a process that starts.
    fn default() -> Self {
        let retention =
            Retention { least_age_ms: LEAST_AGE_MS, least_change_log: LEAST_CHANGE_LOG };
        Self { upkeep: Upkeep::new(retention, 0, Duration::ZERO), now: Duration::ZERO }
    }
}

impl UpkeepNode for Here<'_> {
    fn remote_replicas(&self, table: TableUid) -> Vec<(NodeName, RemoteReplica)> {
        let known = self.node.peers.of_table(table);
        known.map(|(node, known)| (node.clone(), known.clone())).collect()
    }

    fn rows(&self, table: TableUid) -> u64 {
        self.node.db.catalog().by_uid(table).map_or(0, |entry| entry.usage.records())
    }

    fn clock_offsets_ms(&self) -> Vec<i64> {
        self.clock_offsets_ms.clone()
    }
}

impl World {
    /// A node looks at its clock, and a round may come.
    pub(crate) fn look_at_clock(&mut self, n: usize) {
        self.keep_up(n, LOOK);
    }

    /// A node looks at everything.
    pub(crate) fn upkeep_round(&mut self, n: usize) {
        self.keep_up(n, ROUND);
    }

    /// Other certificates count for a node from now on.
    pub(crate) fn credentials_replaced(&mut self, n: usize) {
        self.upkeep_handle(n, Input::CredentialsReplaced);
    }

    /// So much time passes for the upkeep of a node.
    fn keep_up(&mut self, n: usize, time: Duration) {
        self.nodes[n].upkeep.now += time;
        let now = self.nodes[n].upkeep.now;
        while self.nodes[n].upkeep.upkeep.poll_timeout() <= now {
            self.with_upkeep(n, |upkeep, here| upkeep.handle_timeout(here, now));
            while let Some(output) = self.nodes[n].upkeep.upkeep.next_output() {
                match output {
                    Output::Work(work) => self.do_upkeep(n, work),
                    Output::Note(note) => self.note_upkeep(n, note),
                }
            }
        }
        checks::after(self, n);
    }

    fn upkeep_handle(&mut self, n: usize, input: Input) {
        self.with_upkeep(n, |upkeep, here| upkeep.handle(input, here));
    }

    /// Its clock is compared with those of all that it reaches.
    fn with_upkeep(&mut self, n: usize, act: impl FnOnce(&mut Upkeep, &Here<'_>)) {
        let mut clock = std::mem::take(&mut self.nodes[n].upkeep);
        let others = (0..self.nodes.len()).filter(|other| self.reaches(n, *other));
        let clock_offsets_ms = others.map(|other| self.clock_offset_ms(n, other)).collect();
        let here = Here { clock_offsets_ms, ..self.here(n) };
        act(&mut clock.upkeep, &here);
        self.nodes[n].upkeep = clock;
    }

    fn do_upkeep(&mut self, n: usize, work: Work) {
        match work {
            Work::Collect { table, confirmed, before_ms } => {
                self.collect(n, table, &confirmed, before_ms);
            }
            Work::FindUnconfirmed { table, confirmed } => {
                let deletion = self.nodes[n].db.unconfirmed_deletion(table, &confirmed);
                let deletion = deletion.expect("an answer");
                self.upkeep_handle(n, Input::Unconfirmed { table, deletion });
            }
            Work::TruncateChangeLog { table, keep } => self.truncate_change_log(n, table, keep),
            Work::Restamp { latest } => self.restamp(n, latest),
            Work::Adopt => self.adopt(n),
            // What is kept of rows is right here: that it is, is looked at after every command.
            Work::Scrub(_) | Work::NameDifferences { .. } => {}
        }
    }

    fn note_upkeep(&mut self, n: usize, note: Note) {
        match note {
            Note::Tables(tables) => self.nodes[n].peers.retain(|table| tables.contains(&table)),
            Note::Diverged { table, node } => {
                self.log.push(format!("  n{n}: {table} has diverged on {}", node.as_str()));
                self.nodes[n].peers.entry(table, &node).diverged = true;
            }
            Note::GcBlocked { .. } | Note::AheadOfClock(_) => {}
        }
    }

    fn collect(&mut self, n: usize, table: TableUid, confirmed: &VersionVector, before_ms: u64) {
        let before = checks::collected::deletions(self, n, table);
        let mut after = Some(i64::MIN);
        while let Some(from) = after {
            let confirmed = confirmed.clone();
            let collection = Collection { table, confirmed, before_ms, after: from };
            let done = self.run(n, &ReplicationCommand::Collect(collection).into());
            after = match done {
                Ok(Outcome::Replication(ReplicationOutcome::Collected { next })) => next,
                Ok(_) | Err(_) => None,
            };
        }
        self.tally.collected += checks::collected::by_all_who_are_known(self, n, table, &before);
        checks::after(self, n);
    }

    fn truncate_change_log(&mut self, n: usize, table: TableUid, keep: u64) {
        let excess = self.nodes[n].db.change_log_excess(table, keep).expect("an answer");
        let Some(upto) = excess else { return };
        let cut = ReplicationCommand::TruncateChangeLog { table, upto }.into();
        while matches!(
            self.run(n, &cut),
            Ok(Outcome::Replication(ReplicationOutcome::Truncated { more: true }))
        ) {}
        self.tally.truncated += 1;
    }

    fn restamp(&mut self, n: usize, latest: Hlc) {
        let before = self.nodes[n].db.hlc();
        let command = ReplicationCommand::Restamp(Restamp { latest }).into();
        if let Ok(Outcome::Replication(ReplicationOutcome::Restamped { rows })) =
            self.run(n, &command)
            && self.nodes[n].db.hlc() < before
        {
            self.tally.restamped += rows;
            checks::restamped::are_forgotten(self, n, latest);
        }
        checks::after(self, n);
    }

    fn adopt(&mut self, n: usize) {
        let signer = self.nodes[n].signer.clone();
        let found = self.nodes[n].db.orphans(signer.as_ref()).expect("an answer");
        if found.is_empty() {
            return;
        }
        self.tally.adopted += found.len() as u64;
        if self.run(n, &DirectoryCommand::Adopt(found).into()).is_err() {
            self.upkeep_handle(n, Input::NotAdopted);
        }
    }
}
