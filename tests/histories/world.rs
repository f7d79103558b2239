//! The mesh of a history: its nodes, people and tables, and everything that is done to them while clients ask.
//! What holds once the faults are over is `rest`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, RwLockWriteGuard};
use std::thread::{scope, sleep};
use std::time::Duration;

use rmpv::Value;

use crate::chance::Chance;
use crate::check::status::{self, Rows, Sample};
use crate::client::Reply;
use crate::history::{Contents, Event, Micros, NodeId, TableId};
use crate::mesh::{Authority, free_port};
use crate::node::Node;
use crate::plan::{Ability, Fault, LOOK_AGAIN_MS, LOOK_MS, Planned, plan};
use crate::replica;
use crate::rpc::{field, list, map};
use crate::shared::{People, Shared, Stay};
use crate::tables::{Kind, Table, Where};
use crate::wires::Wires;
use crate::workload::Worker;

pub(crate) const NAMES: [&str; 5] = ["ash", "birch", "cedar", "elm", "fir"];

/// Seconds by which all clocks are ahead in histories that set some back: certificates begin now.
const CLOCK_BASE: i64 = 86_400;

/// What a history is drawn from, and where it happens.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) seed: u64,
    pub(crate) base: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) faketime: Option<PathBuf>,
    pub(crate) can_fill_disks: bool,
    pub(crate) cycle_ms: u64,
    pub(crate) without: Vec<usize>,
}

pub(crate) struct World {
    pub(crate) shared: Arc<Shared>,
    pub(crate) frame: Frame,
    pub(crate) ability: Ability,
    pub(crate) ca: Authority,
    pub(crate) nodes: Vec<Node>,
    pub(crate) wires: Wires,
    pub(crate) chance: Chance,
    /// What every table holds since the last cycle.
    pub(crate) contents: Contents,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) samples: u64,
    pub(crate) cycle: Cycle,
    /// Lasting ids of tables that are made once.
    pub(crate) uids: BTreeMap<TableId, Vec<u8>>,
    /// Where each table may be since the last cycle.
    pub(crate) scopes: BTreeMap<TableId, Where>,
}

/// What must be remembered of the cycle under way.
#[derive(Default)]
pub(crate) struct Cycle {
    pub(crate) begun: Micros,
    /// Nodes that are down because they were ended.
    pub(crate) ended: BTreeSet<NodeId>,
    pub(crate) disks_were_full: BTreeSet<NodeId>,
    pub(crate) clocks_were_off: bool,
    pub(crate) set_back: BTreeSet<NodeId>,
    backups: BTreeMap<NodeId, (PathBuf, Micros)>,
    looked: BTreeMap<(TableId, NodeId), Option<Rows>>,
}

/// A moment of a cycle.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(Fault),
    End(Fault),
    Look,
    LookAgain,
}

impl World {
    /// Starts the daemons of a mesh, with people and tables.
    pub(crate) fn new(frame: Frame, people: People) -> Self {
        let mut chance = Chance::new(frame.seed);
        let count = chance.of(&[3, 3, 4, 4, 5]);
        let all: Vec<NodeId> = (0..count).collect();
        let mut links: Vec<(NodeId, NodeId)> = if chance.percent(25) {
            all.windows(2).map(|pair| (pair[0], pair[1])).collect()
        } else {
            all.iter().flat_map(|a| (a + 1..count).map(|b| (*a, b))).collect()
        };
        links.sort_unstable();
        let faketime = frame.faketime.clone().filter(|_| chance.percent(30));
        let ability = Ability {
            nodes: count,
            links: links.clone(),
            can_fill_disks: frame.can_fill_disks,
            can_set_clocks: faketime.is_some(),
        };
        let people = People { of_bob: BTreeSet::from([count - 1]), ..people };
        let names: Vec<_> = NAMES[..count].iter().map(|name| (*name).to_owned()).collect();
        let trace = frame.base.join("trace");
        let shared = Shared::new(frame.seed, names.clone(), links.clone(), people, &trace);
        let shared = Arc::new(shared);
        let ca = Authority::new();
        let ports: Vec<_> = all.iter().map(|_| free_port()).collect();
        let wires = Wires::new(&ports, &links);
        let make = |(name, port): (&String, &u16)| {
            ca.issue(name);
            Node::new(&frame.base, name, *port, &frame.program, faketime.as_deref())
        };
        let nodes = names.iter().zip(&ports).map(make).collect();
        let mut world = Self {
            shared,
            frame,
            ability,
            ca,
            nodes,
            wires,
            chance,
            contents: Contents::new(),
            faults: BTreeMap::new(),
            samples: 0,
            cycle: Cycle::default(),
            uids: BTreeMap::new(),
            scopes: BTreeMap::new(),
        };
        world.shared.trace(&format!("seed {} {:?}", world.frame.seed, world.ability));
        world.start_all();
        world.introduce_people();
        world.make_tables();
        world
    }

    pub(crate) fn configure(&self, node: NodeId, extra: &str) {
        let name = |other: &NodeId| self.shared.names[*other].as_str();
        let others = self.ability.links.iter().filter_map(|(a, b)| match node {
            _ if node == *a => Some(b),
            _ if node == *b => Some(a),
            _ => None,
        });
        let others: Vec<_> =
            others.map(|other| (name(other), self.wires.port(node, *other))).collect();
        let own = &self.nodes[node];
        let mesh = self.ca.settings(&own.name, own.port, &others);
        own.write_config(&format!("{extra}{mesh}"));
    }

    fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.configure(node, "");
            self.nodes[node].set_clock(self.clock_base());
            self.nodes[node].start();
        }
        for node in &mut self.nodes {
            assert!(node.wait_until_it_answers(), "{} does not start", node.name);
        }
        self.wait("all are linked", |world| {
            world.ability.links.iter().all(|(a, b)| world.sees(*a, *b) && world.sees(*b, *a))
        });
    }

    pub(crate) fn clock_base(&self) -> i64 {
        if self.ability.can_set_clocks { CLOCK_BASE } else { 0 }
    }

    pub(crate) fn sees(&self, a: NodeId, b: NodeId) -> bool {
        let Some(status) = self.nodes[a].ask("mesh_status", &[]).done() else { return false };
        let peers = field(&status, "peers").and_then(Value::as_array);
        let name = Value::from(self.shared.names[b].as_str());
        let found = peers.into_iter().flatten().find(|peer| field(peer, "name") == Some(&name));
        found.is_some_and(|peer| field(peer, "connected") == Some(&true.into()))
    }

    /// Waits for what must come true while nothing is wrong. Fails the history where it does not.
    pub(crate) fn wait(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        for _ in 0..600 {
            if holds(self) {
                return;
            }
            sleep(Duration::from_millis(200));
        }
        panic!("not within two minutes: {what}");
    }

    pub(crate) fn must(&self, node: NodeId, method: &str, params: &[Value]) -> Value {
        match self.nodes[node].ask(method, params) {
            Reply::Done(value) => value,
            other @ (Reply::Refused(_) | Reply::NotSent | Reply::Lost) => {
                panic!("{method} {params:?} on {node}: {other:?}")
            }
        }
    }

    fn introduce_people(&mut self) {
        let (ann, bob) = (self.shared.people.ann.clone(), self.shared.people.bob.clone());
        self.must(0, "identity_register", &[ann.into()]);
        for node in 1..self.nodes.len() {
            if self.shared.is_ann(node) {
                self.claim(node);
            }
        }
        self.must(self.nodes.len() - 1, "identity_register", &[bob.clone().into()]);
        self.wait("all know both", |world| {
            world.nodes.iter().all(|node| {
                let known = node.ask("identity_lookup", &[bob.as_str().into()]).done();
                known.is_some()
            })
        });
    }

    /// The uid of a node becomes ann, by a token of a node that both see.
    pub(crate) fn claim(&mut self, node: NodeId) {
        let name = self.shared.names[node].clone();
        let linked = |other: &NodeId| {
            let pair = (node.min(*other), node.max(*other));
            self.ability.links.contains(&pair) && self.shared.is_ann(*other)
        };
        let source = (0..self.nodes.len()).find(linked).expect("a node that is ann");
        self.wait("ann claims her identity", |world| {
            let wish = map([("for_node", name.as_str().into())]);
            let token = world.nodes[source].ask("identity_token", &[wish]).done();
            let token = token.as_ref().and_then(|token| field(token, "token")).cloned();
            let Some(token) = token else { return false };
            let claimed = world.nodes[node].ask("identity_claim", &[token]);
            world.shared.trace(&format!("{name} claims: {claimed:?}"));
            matches!(claimed, Reply::Done(_)) || claimed.is_refused("already_mapped")
        });
    }

    fn make_tables(&mut self) {
        for table in self.shared.tables.clone() {
            self.make_table(&table);
        }
        // A name that has not been heard of is free.
        self.wait("all of the owner's nodes know the tables", |world| {
            let federated = world.shared.tables.iter().filter(|table| table.kind.is_federated());
            let names: Vec<_> = federated.map(|table| world.shared.name_on(table, 0)).collect();
            let knows = |node: NodeId, name: &str| {
                matches!(world.nodes[node].ask("get_scope", &[name.into()]), Reply::Done(_))
            };
            let of_ann = (0..world.nodes.len()).filter(|node| world.shared.is_ann(*node));
            of_ann.into_iter().all(|node| names.iter().all(|name| knows(node, name)))
        });
        let since = self.shared.clock.now();
        self.shared.book().stays.push(Stay { since, until: None });
    }

    pub(crate) fn make_table(&mut self, table: &Table) {
        let name = self.shared.name_on(table, table.home);
        let scope = match table.kind {
            Kind::Own => "local".to_owned(),
            Kind::Notes | Kind::Pair | Kind::Journal | Kind::Secret | Kind::Churn => {
                self.shared.scope_text(&table.first)
            }
        };
        let attributes = list(["id".into(), "v".into()]);
        self.must(table.home, "create_table", &[name.into(), attributes, scope.into()]);
        self.uids.remove(&table.id);
        if table.kind != Kind::Churn {
            let uid = self.uid_of(table).expect("it was made");
            self.uids.insert(table.id, uid);
        }
    }

    /// One cycle of clients and faults, up to the moment when the faults are over.
    pub(crate) fn run_cycle(&mut self, number: u64) {
        self.cycle = Cycle { begun: self.shared.clock.now(), ..Cycle::default() };
        let planned =
            plan(&mut self.chance, &self.ability, self.frame.cycle_ms, &self.frame.without);
        self.shared.trace(&format!("CYCLE {number}"));
        let sockets: Vec<_> = self.nodes.iter().map(Node::socket).collect();
        let seed = self.chance.draw();
        self.shared.is_over.store(false, Relaxed);
        let shared = Arc::clone(&self.shared);
        scope(|scope| {
            for (node, socket) in sockets.iter().enumerate() {
                let (seed, shared) = (seed ^ ((node as u64) << 32), &*shared);
                scope.spawn(move || Worker::new(shared, node, socket, seed).deciding().run());
                scope.spawn(move || Worker::new(shared, node, socket, seed ^ 1).run());
            }
            self.conduct(&planned, &shared);
            shared.is_over.store(true, Relaxed);
        });
    }

    /// Does what is planned, at its time, and looks in between what nodes say of each other.
    fn conduct(&mut self, planned: &[Planned], shared: &Shared) {
        let mut steps = vec![(LOOK_MS, Step::Look), (LOOK_AGAIN_MS, Step::LookAgain)];
        for Planned { from_ms, until_ms, fault } in planned {
            steps.extend([(*from_ms, Step::Begin(*fault)), (*until_ms, Step::End(*fault))]);
        }
        steps.sort_by_key(|(at, _)| *at);
        let begun = shared.clock.now();
        let mut still: Option<RwLockWriteGuard<'_, ()>> = None;
        let until = |at: u64| {
            let left = (begun + at * 1000).saturating_sub(shared.clock.now());
            sleep(Duration::from_micros(left));
        };
        for (at, step) in steps {
            until(at);
            shared.trace(&format!("FAULT {step:?}"));
            match step {
                Step::Look => {
                    still = Some(shared.gate.write().expect("nobody panics while holding it"));
                    self.look();
                }
                Step::LookAgain => {
                    self.look_again();
                    still = None;
                }
                Step::Begin(fault) => {
                    *self.faults.entry(fault.kind()).or_default() += 1;
                    self.begin(fault, still.is_some());
                }
                Step::End(fault) => self.end(fault, still.is_some()),
            }
        }
        until(self.frame.cycle_ms);
    }

    fn begin(&mut self, fault: Fault, is_still: bool) {
        match fault {
            Fault::Kill(node) => {
                self.cycle.ended.insert(node);
                self.nodes[node].kill();
            }
            Fault::Restart(node) => {
                self.cycle.ended.insert(node);
                if !self.nodes[node].terminate() {
                    let name = &self.shared.names[node];
                    self.shared
                        .break_off(format!("health: {name} does not end when it is told to"));
                }
            }
            Fault::Stop(node) => self.nodes[node].stop(),
            Fault::Cut(a, b) => self.wires.refuse(a, b, true),
            Fault::OneWay(a, b) => self.wires.hold(a, b, true),
            Fault::Isolate(node) => self.hold_all(node, true),
            Fault::Tear(a, b) => self.wires.tear(a, b),
            Fault::Slow(a, b, rate) => self.wires.slow(a, b, rate),
            Fault::Delay(a, b, ms) => self.wires.delay(a, b, ms),
            Fault::Clock(node, off) => {
                self.cycle.clocks_were_off = true;
                self.nodes[node].set_clock(self.clock_base() + off);
            }
            Fault::FullDisk(node) => {
                self.cycle.disks_were_full.insert(node);
                self.nodes[node].fill_disk();
            }
            Fault::Rollback(node) => self.back_up(node),
            Fault::Reload(node) => {
                self.configure(node, "[limits]\nconnections = 500\n");
                self.nodes[node].client(Duration::from_secs(2)).call("reload", &[]);
            }
            Fault::Renew(node) => {
                // A client that has the node reload meanwhile would have it read a key beside another's certificate.
                let shared = Arc::clone(&self.shared);
                let gate = (!is_still)
                    .then(|| shared.gate.write().expect("nobody panics while holding it"));
                self.ca.issue(&self.shared.names[node]);
                drop(gate);
                self.nodes[node].client(Duration::from_secs(2)).call("reload", &[]);
            }
        }
    }

    fn end(&mut self, fault: Fault, is_still: bool) {
        match fault {
            Fault::Kill(node) | Fault::Restart(node) => self.start(node),
            Fault::Stop(node) => self.nodes[node].go_on(),
            Fault::Cut(a, b) => self.wires.refuse(a, b, false),
            Fault::OneWay(a, b) => self.wires.hold(a, b, false),
            Fault::Isolate(node) => self.hold_all(node, false),
            Fault::Tear(..) => self.wires.heal_torn(),
            Fault::Slow(a, b, _) => self.wires.slow(a, b, 0),
            Fault::Delay(a, b, _) => self.wires.delay(a, b, 0),
            Fault::Clock(node, _) => self.nodes[node].set_clock(self.clock_base()),
            Fault::FullDisk(node) => {
                self.nodes[node].empty_disk();
                self.start(node);
            }
            Fault::Rollback(node) => self.set_back(node, is_still),
            Fault::Reload(node) => {
                self.configure(node, "");
                self.nodes[node].client(Duration::from_secs(2)).call("reload", &[]);
            }
            Fault::Renew(_) => {}
        }
    }

    /// Starts a node that is down, whoever has ended it.
    pub(crate) fn start(&mut self, node: NodeId) {
        if self.nodes[node].is_running() {
            return;
        }
        let was_full = self.cycle.disks_were_full.contains(&node);
        if !self.cycle.ended.remove(&node) && !was_full {
            let name = &self.shared.names[node];
            self.shared.break_off(format!("health: {name} has ended by itself"));
        }
        self.nodes[node].start();
    }

    fn hold_all(&self, node: NodeId, is_held: bool) {
        for other in 0..self.nodes.len() {
            self.wires.hold(node, other, is_held);
            self.wires.hold(other, node, is_held);
        }
    }

    fn back_up(&mut self, node: NodeId) {
        let since = self.shared.clock.now();
        let reply = self.nodes[node].client(Duration::from_secs(3)).call("backup", &[]);
        let Some(parts) = reply.done() else { return };
        let parts = parts.as_array().map(Vec::as_slice).unwrap_or_default();
        let bytes: Vec<u8> = parts.iter().filter_map(Value::as_slice).flatten().copied().collect();
        let path = self.frame.base.join(format!("backup-{node}"));
        fs::write(&path, bytes).expect("write the backup");
        self.cycle.backups.insert(node, (path, since));
    }

    fn set_back(&mut self, node: NodeId, is_still: bool) {
        let Some((backup, since)) = self.cycle.backups.remove(&node) else { return };
        if self.cycle.disks_were_full.contains(&node) {
            return;
        }
        self.nodes[node].kill();
        let shared = Arc::clone(&self.shared);
        // So that all answers of the old database are noted before the new one gives any.
        let gate =
            (!is_still).then(|| shared.gate.write().expect("nobody panics while holding it"));
        let at = shared.clock.now();
        shared.note(Event::MayLose { node, since, at });
        shared.note(Event::Forgets { node, at });
        self.cycle.set_back.insert(node);
        self.cycle.ended.insert(node);
        if let Err(why) = self.nodes[node].restore(&backup) {
            shared.break_off(format!("restore: a backup is refused: {why}"));
        }
        self.start(node);
        drop(gate);
    }

    /// What every node holds of every table that is shared.
    fn look(&mut self) {
        self.cycle.looked.clear();
        for table in self.shared.tables.iter().filter(|table| table.kind != Kind::Own) {
            let Some(uid) = self.uid_of(table) else { continue };
            for (node, place) in self.nodes.iter().enumerate() {
                let rows = replica::rows(&place.database(), &uid);
                self.cycle.looked.insert((table.id, node), rows);
            }
        }
    }

    pub(crate) fn uid_of(&self, table: &Table) -> Option<Vec<u8>> {
        let known = self.uids.get(&table.id).cloned();
        known.or_else(|| replica::table_uid(&self.nodes[table.home].database(), table.kind.word()))
    }

    fn look_again(&mut self) {
        let first = std::mem::take(&mut self.cycle.looked);
        for table in self.shared.tables.iter().filter(|table| table.kind != Kind::Own) {
            let Some(uid) = self.uid_of(table) else { continue };
            for here in 0..self.nodes.len() {
                for (there, says) in self.states(table, here) {
                    let both = [here, there];
                    let second = both.map(|node| replica::rows(&self.nodes[node].database(), &uid));
                    let first = both.map(|node| first.get(&(table.id, node)).cloned().flatten());
                    self.samples += 1;
                    let table = table.id;
                    let sample = Sample { table, here, there, says, first, second };
                    if let Some(lie) = status::check(&sample) {
                        self.shared.break_off(format!("status: {lie}"));
                    }
                }
            }
        }
    }

    /// What a node says of the replicas of a table on others.
    pub(crate) fn states(&self, table: &Table, here: NodeId) -> Vec<(NodeId, String)> {
        if self.nodes[here].is_stopped() {
            return Vec::new();
        }
        let name = self.shared.name_on(table, here);
        let mut client = self.nodes[here].client(Duration::from_secs(2));
        let Some(status) = client.call("sync_status_table", &[name.into()]).done() else {
            return Vec::new();
        };
        let nodes = field(&status, "nodes").and_then(Value::as_array).cloned().unwrap_or_default();
        let said = nodes.iter().filter_map(|node| {
            let name = field(node, "node")?.as_str()?;
            let there = self.shared.names.iter().position(|one| one == name)?;
            Some((there, field(node, "state")?.as_str()?.to_owned()))
        });
        said.collect()
    }
}
