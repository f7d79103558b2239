//! When the faults are over: everything runs again, nodes converge, and what they hold and say is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use cortexd::sys::clock;
use rmpv::Value;

use crate::check::records::{self, Rules};
use crate::check::rights::{self, Decision, Found, Right};
use crate::check::status::{Rows, difference};
use crate::check::{health, scope};
use crate::client::Reply;
use crate::history::{Contents, Event, Micros, NodeId, TableId, Write};
use crate::replica;
use crate::rpc::field;
use crate::shared::{Move, Stay};
use crate::tables::{KEYS, Kind, Table, Where, read};
use crate::workload::Worker;
use crate::world::World;

/// How long nodes may take to converge once nothing is wrong any more: a link is tried every half minute at
/// least, and silence is noticed within a quarter.
const CONVERGE: Duration = Duration::from_secs(120);

/// The same where clocks were off: what waits for timestamps may wait longer.
const CONVERGE_AFTER_CLOCKS: Duration = Duration::from_secs(180);

/// How long bytes may stay that a restored database has brought back to a node that the table had left.
const ERASED_AGAIN: Duration = Duration::from_secs(60);

/// A table that is there, with its lasting id and the nodes that may hold it.
type Live = (Table, Vec<u8>, BTreeSet<NodeId>);

impl World {
    /// Ends all faults, waits until the nodes have converged, and judges the cycle. True where all was well.
    pub(crate) fn rest(&mut self) -> bool {
        self.heal();
        self.rest_again();
        if self.cycle.set_back.contains(&0) {
            self.decide_rights_anew();
        }
        self.rights_hold();
        self.judge_records();
        self.judge_scopes();
        self.judge_health();
        self.shared.flush();
        self.shared.book().broken.is_empty()
    }

    fn heal(&mut self) {
        self.shared.trace("HEAL");
        self.wires.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].go_on();
            self.nodes[node].set_clock(self.clock_base());
            self.nodes[node].empty_disk();
            self.configure(node, "");
        }
        // What was asked of a stopped daemon is carried out now, and a failing one ends.
        sleep(Duration::from_millis(1500));
        for node in 0..self.nodes.len() {
            self.start(node);
            if !self.nodes[node].wait_until_it_answers() {
                let name = &self.shared.names[node];
                self.shared.break_off(format!("health: {name} does not answer after its start"));
            }
            self.nodes[node].ask("reload", &[]);
        }
    }

    /// Waits until the nodes are at rest; what keeps them from it at the end is broken.
    pub(crate) fn rest_again(&mut self) {
        let bound = if self.cycle.clocks_were_off { CONVERGE_AFTER_CLOCKS } else { CONVERGE };
        let deadline = clock::monotonic() + bound;
        loop {
            let found = self.unfinished();
            if found.is_empty() {
                return;
            }
            if clock::monotonic() > deadline {
                let within = bound.as_secs();
                for what in found {
                    self.shared.break_off(format!("progress: not within {within} s: {what}"));
                }
                self.explain_all();
                return;
            }
            sleep(Duration::from_millis(300));
        }
    }

    /// Waits until rights are everywhere what was decided.
    pub(crate) fn rights_hold(&mut self) {
        let deadline = clock::monotonic() + Duration::from_secs(30);
        loop {
            let found = self.judge_rights();
            if found.is_empty() {
                return;
            }
            if clock::monotonic() > deadline {
                found.into_iter().for_each(|what| self.shared.break_off(format!("rights: {what}")));
                return;
            }
            sleep(Duration::from_millis(300));
        }
    }

    /// For the trace: what the nodes say of what does not come to rest.
    fn explain_all(&self) {
        for table in self.shared.tables.iter().filter(|table| table.kind != Kind::Own) {
            for (node, place) in self.nodes.iter().enumerate() {
                let name = self.shared.name_on(table, node);
                for method in ["get_scope", "sync_status_table", "explain"] {
                    let reply = place.ask(method, &[name.as_str().into()]);
                    self.shared.trace(&format!("{} {method} {name}: {reply:?}", place.name));
                }
            }
        }
        for place in &self.nodes {
            let reply = place.ask("mesh_status", &[]);
            self.shared.trace(&format!("{} mesh_status: {reply:?}", place.name));
        }
    }

    /// The scope of a table as a node tells it; decided anew where decisions compete.
    fn scope_of(&self, table: &Table, node: NodeId) -> Result<Where, String> {
        let name = self.shared.name_on(table, node);
        let told = match self.nodes[node].ask("get_scope", &[name.as_str().into()]) {
            Reply::Done(told) => told,
            other @ (Reply::Refused(_) | Reply::NotSent | Reply::Lost) => {
                return Err(format!("the scope of {name} on node {node}: {other:?}"));
            }
        };
        if field(&told, "contested") == Some(&true.into()) {
            return Err(format!("the scope of {name} on node {node} is contested"));
        }
        match field(&told, "node_scope") {
            Some(Value::String(all)) if all.as_str() == Some("all") => Ok(Where::All),
            Some(Value::Array(names)) => {
                let number = |name: &Value| {
                    self.shared.names.iter().position(|one| Some(one.as_str()) == name.as_str())
                };
                Ok(Where::On(names.iter().filter_map(number).collect()))
            }
            other => Err(format!("the scope of {name} on node {node}: {other:?}")),
        }
    }

    /// Tables that are there, with their lasting ids and the nodes that may hold them.
    fn live(&self) -> Result<Vec<Live>, String> {
        let mut live = Vec::new();
        for table in self.shared.tables.iter().filter(|table| table.kind != Kind::Own) {
            let is_dropped =
                self.shared.book().stays.last().is_none_or(|stay| stay.until.is_some());
            if table.kind == Kind::Churn && is_dropped {
                continue;
            }
            let place = self.scope_of(table, table.home)?;
            let nodes = place.nodes(self.nodes.len());
            let holder = nodes.first().copied().ok_or("a table that may be nowhere")?;
            let uid = self.uid_of(table);
            let uid = uid.ok_or_else(|| format!("node {holder} has no {}", table.kind.word()))?;
            live.push((table.clone(), uid, nodes));
        }
        Ok(live)
    }

    /// What keeps the nodes from being at rest.
    fn unfinished(&mut self) -> Vec<String> {
        let live = match self.live() {
            Ok(live) => live,
            Err(why) => return vec![why],
        };
        let mut left = Vec::new();
        for (table, uid, nodes) in live {
            let word = table.kind.word();
            let leaving =
                self.replicas(&table).into_iter().filter(|(_, state)| state == "draining");
            left.extend(leaving.map(|(node, _)| format!("{word}: node {node} is still leaving")));
            let scope = self.scope_of(&table, table.home);
            let held: Vec<_> =
                self.nodes.iter().map(|node| replica::rows(&node.database(), &uid)).collect();
            let first = nodes.first().copied().unwrap_or_default();
            for node in 0..self.nodes.len() {
                if self.shared.is_ann(node)
                    && self.scope_of(&table, node) != scope
                    && table.kind.is_federated()
                {
                    left.push(format!(
                        "{word}: node {node} knows another scope: {:?}",
                        self.scope_of(&table, node)
                    ));
                }
                let rows = &held[node];
                if !nodes.contains(&node) {
                    if rows.as_ref().is_some_and(|rows| !rows.is_empty()) {
                        left.push(format!("{word}: node {node} holds rows outside the scope"));
                    }
                    continue;
                }
                if rows.is_none() || *rows != held[first] {
                    let both = [held[first].clone(), rows.clone()];
                    left.push(format!("{word}: {first} and {node} differ: {}", difference(&both)));
                }
                let states = self.states(&table, node);
                for other in nodes.iter().filter(|other| **other != node) {
                    let says =
                        states.iter().find(|(of, _)| of == other).map(|(_, says)| says.as_str());
                    let may_ask = self.shared.is_ann(node);
                    if may_ask && says != Some("in_sync") && self.shared.are_linked(node, *other) {
                        left.push(format!("{word}: node {node} says {says:?} of {other}"));
                    }
                }
            }
        }
        left
    }

    /// A first node that was set back may have lost what it decided: all nodes hear it once more.
    fn decide_rights_anew(&mut self) {
        self.shared.book().decisions.clear();
        let granted: Vec<_> =
            self.shared.tables.iter().filter(|table| table.kind.is_granted()).cloned().collect();
        let shared = Arc::clone(&self.shared);
        let mut worker = Worker::new(&shared, 0, &self.nodes[0].socket(), 0);
        for table in granted {
            for right in Right::ALL {
                if !worker.decide(&table, right, false) {
                    // What was decided before the database was set back may count, or may not.
                    for grants in [true, false] {
                        let (table, acked) = (table.id, None);
                        let perhaps = Decision { table, right, grants, node: 0, invoked: 0, acked };
                        shared.book().decisions.push(perhaps);
                    }
                } else if self.chance.percent(50) {
                    worker.decide(&table, right, true);
                }
            }
        }
    }

    fn judge_rights(&mut self) -> Vec<String> {
        let Ok(live) = self.live() else { return vec!["the tables are not known".into()] };
        let mut found = Vec::new();
        for (table, _, nodes) in live.iter().filter(|(table, ..)| table.kind != Kind::Churn) {
            for node in self.shared.people.of_bob.iter().filter(|node| nodes.contains(node)) {
                let name = self.shared.name_on(table, *node);
                for right in Right::ALL {
                    let reply = match right {
                        Right::Read => {
                            self.nodes[*node].ask("get", &[name.as_str().into(), "a".into()])
                        }
                        // Refused or not, it changes nothing: nobody writes this key.
                        Right::Write => self.nodes[*node]
                            .ask("delete", &[name.as_str().into(), "nobody's".into()]),
                    };
                    let allowed = match &reply {
                        Reply::Done(_) => true,
                        Reply::Refused(why) => why != "access_denied",
                        Reply::NotSent | Reply::Lost => return vec![format!("{name}: {reply:?}")],
                    };
                    found.push(Found { table: table.id, right, node: *node, allowed });
                }
            }
        }
        rights::check(&self.shared.book().decisions, &found)
    }

    fn judge_records(&mut self) {
        let Ok(live) = self.live() else { return };
        let rules = Rules { one_clock: !self.ability.can_set_clocks };
        let (events, stays) = {
            let mut book = self.shared.book();
            let stay = book.stays.pop();
            let stays = std::mem::take(&mut book.stays);
            book.stays.extend(stay);
            (std::mem::take(&mut book.events), [stays, stay.into_iter().collect()].concat())
        };
        let mut finals = Contents::new();
        let mut placed: BTreeMap<TableId, Rows> = BTreeMap::new();
        for (table, uid, nodes) in &live {
            let holder = nodes.first().copied().unwrap_or_default();
            placed
                .extend(replica::rows(&self.nodes[holder].database(), uid).map(|r| (table.id, r)));
        }
        for table in self.shared.tables.iter().filter(|table| table.kind == Kind::Own) {
            let Some(uid) = self.uid_of(table) else { continue };
            let rows = replica::rows(&self.nodes[table.home].database(), &uid);
            placed.extend(rows.map(|rows| (table.id, rows)));
        }
        for (table, rows) in &placed {
            for key in KEYS {
                finals.insert((*table, key.into()), rows.get(key).cloned().flatten());
            }
        }
        let churn = self.shared.tables.iter().find(|table| table.kind == Kind::Churn).cloned();
        let (events, base) = match &churn {
            Some(churn) => {
                of_last_stay(churn, events, &self.contents, stays.last(), self.cycle.begun)
            }
            None => (events, self.contents.clone()),
        };
        for what in records::check(&events, &base, &finals, rules) {
            self.shared.break_off(format!("records: {what}"));
        }
        self.judge_lists(&live, &placed);
        self.contents = finals;
    }

    /// What nodes answer is what they hold.
    fn judge_lists(&self, live: &[Live], placed: &BTreeMap<TableId, Rows>) {
        for (table, _, nodes) in live {
            for node in (0..self.nodes.len()).filter(|node| self.shared.is_ann(*node)) {
                let name = self.shared.name_on(table, node);
                let reply = self.nodes[node].ask("all", &[name.as_str().into()]);
                let Some(all) = reply.clone().done() else {
                    if nodes.contains(&node) {
                        self.shared.break_off(format!("progress: all {name} on {node}: {reply:?}"));
                    }
                    continue;
                };
                let all = all.as_array().map(Vec::as_slice).unwrap_or_default();
                let rows: Rows = all
                    .iter()
                    .filter_map(read)
                    .map(|(key, version)| (key, Some(version)))
                    .collect();
                if !nodes.contains(&node) {
                    self.shared
                        .break_off(format!("scope: {name} is served on {node} outside of it"));
                } else if placed.get(&table.id).is_some_and(|placed| *placed != rows) {
                    self.shared.break_off(format!("records: {name} on {node} answers other rows"));
                }
            }
        }
    }

    fn judge_scopes(&mut self) {
        let moves = std::mem::take(&mut self.shared.book().moves);
        for table in self.shared.tables.clone() {
            if table.kind != Kind::Own {
                let of_table: Vec<_> = moves.iter().filter(|one| one.table == table.id).collect();
                self.judge_scope(&table, &of_table);
            }
            let ever = self.shared.book().ever.get(&table.id).cloned().unwrap_or_default();
            for node in (0..self.nodes.len()).filter(|node| !ever.contains(node)) {
                self.find_marks(&table, node, "it was never there");
            }
            if table.kind.moves() {
                self.judge_departures(&table);
            }
        }
    }

    /// A scope is what was acknowledged last; where nobody decided, what it was.
    fn judge_scope(&mut self, table: &Table, moves: &[&Move]) {
        let Ok(scope) = self.scope_of(table, table.home) else { return };
        let before = self.scopes.insert(table.id, scope.clone());
        let decided = self.cycle.set_back.contains(&0);
        let expected = match moves.last() {
            Some(last) => (last.acked.is_some() && !decided).then(|| last.to.clone()),
            None => before.or_else(|| Some(table.first.clone())),
        };
        if let Some(expected) = expected.filter(|expected| *expected != scope) {
            let word = table.kind.word();
            self.shared.break_off(format!(
                "scope: that of {word} is {scope:?}, although {expected:?} was decided last"
            ));
        }
    }

    /// Where a replica is said to have left, no byte of it is. Bytes that an older database has brought back go soon.
    fn judge_departures(&self, table: &Table) {
        for (node, _) in self.replicas(table).iter().filter(|(_, state)| state == "left") {
            let was_set_back = self.cycle.set_back.contains(node);
            let time_limit = if was_set_back { ERASED_AGAIN } else { Duration::ZERO };
            let deadline = clock::monotonic() + time_limit;
            while scope::find_mark(&self.nodes[*node].data_dir(), &table.mark)
                .is_ok_and(|found| !found.is_empty())
                && clock::monotonic() < deadline
            {
                sleep(Duration::from_millis(300));
            }
            self.find_marks(table, *node, "it has left");
        }
    }

    /// How the replicas of a table are, as its home tells.
    fn replicas(&self, table: &Table) -> Vec<(NodeId, String)> {
        let name = self.shared.name_on(table, table.home);
        let told = self.nodes[table.home].ask("get_scope", &[name.into()]).done();
        let replicas = told.as_ref().and_then(|told| field(told, "replicas")?.as_array());
        let read = |replica: &Value| {
            let name = field(replica, "node")?.as_str()?;
            let node = self.shared.names.iter().position(|one| one == name)?;
            Some((node, field(replica, "state")?.as_str()?.to_owned()))
        };
        replicas.into_iter().flatten().filter_map(read).collect()
    }

    fn find_marks(&self, table: &Table, node: NodeId, where_from: &str) {
        self.find(table.kind.word(), &table.mark, node, where_from);
    }

    /// Breaks off where a text stands on a node's disk.
    pub(crate) fn find(&self, word: &str, mark: &str, node: NodeId, where_from: &str) {
        match scope::find_mark(&self.nodes[node].data_dir(), mark) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => found.into_iter().for_each(|what| {
                let kept = format!("{}.db", self.shared.names[node]);
                let _as_far_as_it_goes =
                    fs::copy(self.nodes[node].database(), self.frame.base.join(kept));
                self.shared.break_off(format!("scope: {word}: {where_from}: {what}"));
            }),
            Err(error) => self.shared.trace(&format!("node {node} cannot be searched: {error}")),
        }
    }

    fn judge_health(&mut self) {
        for node in 0..self.nodes.len() {
            let was_full = self.cycle.disks_were_full.contains(&node);
            let name = self.shared.names[node].clone();
            let log = self.nodes[node].new_log();
            let mut broken = health::check_log(&log, was_full);
            broken.extend(
                self.nodes[node].resources().map(health::check_resources).unwrap_or_default(),
            );
            broken
                .into_iter()
                .for_each(|what| self.shared.break_off(format!("health: {name}: {what}")));
        }
    }
}

/// The part of a history that is about the last stay of the table that is dropped and made anew. Only its home
/// knows which stay it wrote to: what others wrote in time may be in it, or may have been dropped.
fn of_last_stay(
    churn: &Table,
    events: Vec<Event>,
    base: &Contents,
    stay: Option<&Stay>,
    begun: Micros,
) -> (Vec<Event>, Contents) {
    let since = stay.map_or(0, |stay| stay.since);
    let mut base = base.clone();
    if since >= begun {
        base.retain(|(table, _), _| *table != churn.id);
    }
    let kept = events.into_iter().filter_map(|event| match event {
        Event::Write(write) if write.table == churn.id && write.node != churn.home => {
            let may_be_in_it = write.acked.is_none_or(|acked| acked > since);
            may_be_in_it.then_some(Event::Write(Write { acked: None, ..write }))
        }
        Event::Write(write) if write.table == churn.id => {
            (write.invoked >= since).then_some(Event::Write(write))
        }
        Event::Read(read) if read.table == churn.id => {
            let counts = read.node == churn.home && read.invoked >= since;
            counts.then_some(Event::Read(read))
        }
        Event::Write(_)
        | Event::Read(_)
        | Event::Forgets { .. }
        | Event::MayLeave { .. }
        | Event::MayLose { .. } => Some(event),
    });
    (kept.collect(), base)
}
