//! The simulated world: nodes with real databases, links between them, and time.
//! What happens in it is `actions`'; what is on its way, `links`'; what must hold of it, the invariants'.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::panic_any,
    sync::Arc,
    time::Duration,
};

use cortex_core::{
    model::{ActorId, NodeName, TableUid},
    replication::Peers,
};
use cortexd::store::{
    Command, CommandError, Database, DirectoryCommand, Outcome, ReplicationCommand, SYSTEM_TABLE,
    StoreError,
};

use crate::{
    chance::{Chance, Ids},
    checks,
    deeds::Step,
    doubts::DoubtingSigner,
    history::{Disk, History, Known},
    links::{InFlight, Link, Pair},
    mutations::{self, Around, Mutation},
    upkeep::UpkeepClock,
};

/// How much clocks may differ from each other at most.
pub(crate) const SKEW_MS: u64 = 6_000;
/// How old a deletion must be before it is collected. Far more than clocks differ, as in production.
pub(crate) const LEAST_AGE_MS: u64 = 20 * SKEW_MS;
/// When the world begins: some weeks before a 32-bit clock ends.
pub(crate) const BEGINNING_MS: u64 = 2_145_000_000_000;

/// What was found broken.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

/// Ends a run that has found something.
pub(crate) fn broken(what: String) -> ! {
    panic_any(Broken(what))
}

/// What is true of a batch when it is read.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    /// What the writers of its rows had seen.
    pub(crate) known: Vec<Known>,
    /// The removals of nodes that its source knows.
    pub(crate) removals: BTreeSet<usize>,
    /// Its source is whole.
    pub(crate) whole: bool,
}

pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) db: Database,
    pub(crate) signer: Arc<DoubtingSigner>,
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
    /// What its drivers know of the replicas on others.
    pub(crate) peers: Peers,
    /// As which actor each other node has greeted last.
    pub(crate) heard: BTreeMap<usize, ActorId>,
    /// Since when rows of each other are ahead of its clock.
    pub(crate) ahead_since: BTreeMap<usize, Duration>,
    pub(crate) upkeep: UpkeepClock,
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
    pub(crate) gossip: u64,
    pub(crate) quarantined: u64,
    pub(crate) truncated: u64,
    pub(crate) adopted: u64,
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
            (&mut self.gossip, other.gossip),
            (&mut self.quarantined, other.quarantined),
            (&mut self.truncated, other.truncated),
            (&mut self.adopted, other.adopted),
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
    /// How much time has passed for links alone.
    pub(crate) link_ms: u64,
    pub(crate) links: BTreeMap<Pair, Link>,
    /// Links so far.
    pub(crate) link_count: u64,
    pub(crate) network: Vec<InFlight>,
    /// Pairs that cannot reach each other.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// A line in which only neighbours ever see each other.
    pub(crate) chain: bool,
    pub(crate) tables: Vec<TableUid>,
    pub(crate) keys: usize,
    pub(crate) history: History,
    /// Large batches, and nothing else happens meanwhile.
    pub(crate) calm: bool,
    /// Batches of one row.
    pub(crate) small: bool,
    /// Some records are large.
    pub(crate) large: bool,
    pub(crate) values: u64,
    /// Requests for rows so far.
    pub(crate) answers: u64,
    pub(crate) tally: Tally,
    pub(crate) log: Vec<String>,
    /// What has happened so far, of what was drawn.
    pub(crate) happened: Vec<Step>,
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
            link_ms: 0,
            links: BTreeMap::new(),
            link_count: 0,
            network: Vec::new(),
            cut: BTreeSet::new(),
            chain: false,
            tables: Vec::new(),
            keys,
            history: History::default(),
            calm: false,
            small: false,
            large: false,
            values: 0,
            answers: 0,
            tally: Tally::default(),
            log: Vec::new(),
            happened: Vec::new(),
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
            signer: Arc::new(DoubtingSigner::of(name.as_str())),
            name,
            db,
            skew_ms: if skewed { skew } else { 0 },
            jump_ms: 0,
            alive: true,
            asked_out: false,
            removed: false,
            full: false,
            session: 0,
            peers: Peers::default(),
            heard: BTreeMap::new(),
            ahead_since: BTreeMap::new(),
            upkeep: UpkeepClock::default(),
            disk: Disk::default(),
            saved: None,
        };
        self.nodes.push(node);
        self.join(n);
        n
    }

    fn join(&mut self, n: usize) {
        let signer = Arc::clone(&self.nodes[n].signer);
        self.must(n, &Command::Directory(DirectoryCommand::Join(signer)));
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

    /// A line to a node holds.
    pub(crate) fn reaches(&self, a: usize, b: usize) -> bool {
        a != b
            && self.nodes[b].alive
            && !self.cut.contains(&(a.min(b), a.max(b)))
            && (!self.chain || a.abs_diff(b) == 1)
    }

    /// Carries out a command on a node, and looks at what has come of it.
    pub(crate) fn run(&mut self, n: usize, command: &Command) -> Result<Outcome, CommandError> {
        let wall_ms = self.wall_ms(n);
        let before = self.nodes[n].full.then(|| checks::i05::fingerprint(&self.nodes[n].db));
        let directory = self.nodes[n].db.shared_replica(SYSTEM_TABLE);
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
        let now = self.nodes[n].db.shared_replica(SYSTEM_TABLE);
        let is_directory =
            directory.zip(now).is_none_or(|(before, now)| !Arc::ptr_eq(&before, &now));
        self.has_changed(n, is_directory);
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
        self.all_down(n);
        let node = &mut self.nodes[n];
        (node.peers, node.heard, node.ahead_since, node.upkeep) = Default::default();
        if rolled_back {
            checks::i13::excuse(self);
        }
        self.join(n);
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
        self.all_down(n);
        for table in self.tables.clone() {
            let epoch = self.nodes[n].db.replica(table).map_or(0, |replica| replica.epoch);
            let name = self.nodes[n].name.clone();
            self.history.lost.insert((table, name, epoch));
        }
        checks::i13::excuse(self);
    }
}
