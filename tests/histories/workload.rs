//! The clients: one on each node, which asks for whatever people and programs ask for, at random, and records each
//! answer. What an answer must be is judged later, but for what nobody may ever get.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::sleep;
use std::time::Duration;

use rmpv::Value;

use crate::chance::Chance;
use crate::check::rights::{Decision, Right};
use crate::client::{Client, Reply};
use crate::history::{Event, Micros, NodeId, Read, Version, Write};
use crate::rpc::{field, list, map};
use crate::shared::{Move, Shared, Stay};
use crate::tables::{KEYS, Kind, Table, Where, read, record};

/// How long a client waits for an answer: a stopped daemon gives none.
const TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug)]
enum Act {
    Put,
    Get,
    Delete,
    All,
    Match,
    Keys,
    Conflict,
    AckConflicts,
    Status,
    Explain,
    Wait,
    Repair,
    Backup,
    Move,
    Right,
    DropOrCreate,
    CreateAgain,
    Reload,
    Checkpoint,
    Rest,
}

const ACTS: [(Act, u64); 20] = [
    (Act::Put, 400),
    (Act::Get, 180),
    (Act::Delete, 90),
    (Act::All, 50),
    (Act::Match, 20),
    (Act::Keys, 20),
    (Act::Conflict, 30),
    (Act::AckConflicts, 5),
    (Act::Status, 15),
    (Act::Explain, 10),
    (Act::Wait, 6),
    (Act::Repair, 3),
    (Act::Backup, 3),
    (Act::Move, 12),
    (Act::Right, 20),
    (Act::DropOrCreate, 10),
    (Act::CreateAgain, 6),
    (Act::Reload, 2),
    (Act::Checkpoint, 3),
    (Act::Rest, 15),
];

pub(crate) struct Worker<'s> {
    shared: &'s Shared,
    node: NodeId,
    /// Whether it decides: on the first node one client does, so that decisions have an order.
    decides: bool,
    client: Client,
    chance: Chance,
    unanswered: Option<Unanswered>,
}

/// A table was dropped or made, and whether that came to anything is not known.
struct Unanswered {
    /// Whether it was there before.
    is_there: bool,
    since: Micros,
}

impl<'s> Worker<'s> {
    pub(crate) fn new(shared: &'s Shared, node: NodeId, socket: &Path, seed: u64) -> Self {
        let client = Client::new(socket, TIMEOUT);
        Self { shared, node, decides: false, client, chance: Chance::new(seed), unanswered: None }
    }

    /// The one that decides about scopes and rights, and drops and makes tables.
    pub(crate) fn deciding(self) -> Self {
        Self { decides: self.node == 0, ..self }
    }

    /// Asks until the cycle is over.
    pub(crate) fn run(&mut self) {
        while !self.shared.is_over.load(Relaxed) || self.unanswered.is_some() {
            // Not held until an answer is known: what lets a paused node go on may wait for the gate.
            let gate = self.shared.gate.read().expect("nobody panics while holding it");
            if self.unanswered.is_some() {
                self.drop_or_create();
            } else {
                let act = self.chance.weighted(&ACTS);
                self.act(act);
            }
            drop(gate);
            if self.unanswered.is_some() {
                sleep(Duration::from_millis(200));
            }
            // Mostly at once; now and then as people do.
            let pause = if self.chance.percent(85) { 8 } else { 80 };
            sleep(Duration::from_millis(self.chance.within(0, pause)));
        }
    }

    fn act(&mut self, act: Act) {
        let tables = &self.shared.tables;
        let is_here = |table: &&Table| table.kind != Kind::Own || table.home == self.node;
        let mine: Vec<_> = tables.iter().filter(is_here).collect();
        let table = self.chance.of(&mine);
        let name = self.shared.name_on(table, self.node);
        match act {
            Act::Put => self.put(table, &name),
            Act::Get => self.get(table, &name),
            Act::Delete => self.delete(table, &name),
            Act::All => self.list("all", table, &[name.as_str().into()]),
            Act::Match => self.list("match", table, &[name.as_str().into(), map([])]),
            Act::Conflict => self.restore_conflict(table, &name),
            Act::Move => self.change_scope(),
            Act::Right => self.change_right(),
            Act::DropOrCreate => self.drop_or_create(),
            Act::CreateAgain => self.create_again(),
            Act::Keys => self.ask("keys", &[name.as_str().into()]),
            Act::AckConflicts => self.ask("conflict_ack", &[name.as_str().into()]),
            Act::Status => self.ask("sync_status", &[]),
            Act::Explain => {
                let key = self.chance.of(&KEYS);
                self.ask("explain", &[name.as_str().into(), map([("key", key.into())])]);
            }
            Act::Wait => {
                let options = map([("all", true.into()), ("timeout_ms", 300.into())]);
                self.ask("sync_wait", &[name.as_str().into(), options]);
            }
            Act::Repair => self.ask("sync_repair", &[name.as_str().into()]),
            Act::Backup => self.ask("backup", &[]),
            Act::Reload => self.ask("reload", &[]),
            Act::Checkpoint => self.ask("checkpoint", &[]),
            Act::Rest => sleep(Duration::from_millis(self.chance.within(50, 300))),
        }
    }

    /// Asks, counts and traces.
    fn call(&mut self, method: &'static str, params: &[Value]) -> (Micros, Reply, Micros) {
        let invoked = self.shared.clock.now();
        let reply = self.client.call(method, params);
        let answered = self.shared.clock.now();
        let mut book = self.shared.book();
        *book.operations.entry(method).or_default() += 1;
        book.acknowledged += u64::from(matches!(reply, Reply::Done(_)));
        drop(book);
        let shown = match &reply {
            Reply::Done(value) => short(&value.to_string(), 160),
            Reply::Refused(why) => format!("refused: {why}"),
            Reply::NotSent => "not sent".into(),
            Reply::Lost => "lost".into(),
        };
        let params = short(&Value::Array(params.to_vec()).to_string(), 160);
        let name = &self.shared.names[self.node];
        self.shared.trace(&format!("{name} {invoked} {method} {params} -> {shown}"));
        (invoked, reply, answered)
    }

    fn ask(&mut self, method: &'static str, params: &[Value]) {
        self.call(method, params);
    }

    fn put(&mut self, table: &Table, name: &str) {
        let key = self.chance.of(&KEYS);
        let version = self.shared.version(table, self.node);
        let row = record(key, &version, &mut self.chance);
        let (invoked, reply, at) = self.call("put", &[name.into(), row]);
        self.note_write(table, key, Some(version), invoked, &reply, at);
    }

    fn delete(&mut self, table: &Table, name: &str) {
        let key = self.chance.of(&KEYS);
        let (invoked, reply, at) = self.call("delete", &[name.into(), key.into()]);
        self.note_write(table, key, None, invoked, &reply, at);
    }

    fn note_write(
        &self,
        table: &Table,
        key: &str,
        value: Version,
        invoked: Micros,
        reply: &Reply,
        at: Micros,
    ) {
        let acked = match reply {
            Reply::Done(_) => Some(at),
            Reply::Lost => None,
            Reply::Refused(_) | Reply::NotSent => return,
        };
        if acked.is_some() {
            self.must_be_allowed(table);
        }
        let (table, key, node) = (table.id, key.to_owned(), self.node);
        self.shared.note(Event::Write(Write { table, key, value, node, invoked, acked }));
    }

    fn get(&mut self, table: &Table, name: &str) {
        let key = self.chance.of(&KEYS);
        let (invoked, reply, answered) = self.call("get", &[name.into(), key.into()]);
        let value = match &reply {
            Reply::Done(found) => read(found).map(|(_, version)| version),
            Reply::Refused(why) if why == "not_found" => None,
            Reply::Refused(_) | Reply::NotSent | Reply::Lost => return,
        };
        self.must_be_allowed(table);
        self.note_read(table, key, value, invoked, answered);
    }

    fn list(&mut self, method: &'static str, table: &Table, params: &[Value]) {
        let (invoked, reply, answered) = self.call(method, params);
        let Some(rows) = reply.done() else { return };
        self.must_be_allowed(table);
        let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
        let found: BTreeMap<_, _> = rows.iter().filter_map(read).collect();
        for key in KEYS {
            self.note_read(table, key, found.get(key).cloned(), invoked, answered);
        }
    }

    fn note_read(
        &self,
        table: &Table,
        key: &str,
        value: Version,
        invoked: Micros,
        answered: Micros,
    ) {
        let (table, key, node) = (table.id, key.to_owned(), self.node);
        self.shared.note(Event::Read(Read { table, key, value, node, invoked, answered }));
    }

    /// Nobody but ann was ever given a right on some tables.
    fn must_be_allowed(&self, table: &Table) {
        if !self.shared.is_ann(self.node) && matches!(table.kind, Kind::Secret | Kind::Churn) {
            let word = table.kind.word();
            self.shared.break_off(format!("rights: bob was served of {word} without any right"));
        }
    }

    /// Writes a version that has lost once more.
    fn restore_conflict(&mut self, table: &Table, name: &str) {
        let (_, reply, _) = self.call("conflicts", &[name.into()]);
        let Some(conflicts) = reply.done() else { return };
        let all = conflicts.as_array().map(Vec::as_slice).unwrap_or_default();
        if all.is_empty() {
            return;
        }
        let chosen = &all[self.chance.below(all.len())];
        let Some(id) = field(chosen, "id").cloned() else { return };
        let (_, reply, _) = self.call("conflict_show", &[name.into(), id.clone()]);
        let Some(shown) = reply.done() else { return };
        let key = field(&shown, "key").and_then(Value::as_str).unwrap_or_default().to_owned();
        let value = field(&shown, "record").and_then(read).map(|(_, version)| version);
        let (invoked, reply, at) = self.call("conflict_restore", &[name.into(), id]);
        self.note_write(table, &key, value, invoked, &reply, at);
    }

    fn change_scope(&mut self) {
        if !self.decides {
            return;
        }
        let moving: Vec<_> = self.shared.tables.iter().filter(|t| t.kind.moves()).collect();
        let table = self.chance.of(&moving);
        let home = (table.kind == Kind::Journal).then_some(table.home);
        let to = self.shared.draw_scope(&mut self.chance, home);
        let name = self.shared.name_on(table, self.node);
        let scope = self.shared.scope_text(&to);
        self.expect_scope(table, &to);
        let (_, reply, at) = self.call("set_scope", &[name.into(), scope.into()]);
        let acked = match reply {
            Reply::Done(_) => Some(at),
            Reply::Lost => None,
            Reply::Refused(_) | Reply::NotSent => return,
        };
        self.shared.book().moves.push(Move { table: table.id, to, acked });
    }

    /// Notes what a decision may lead to, before anything follows from it.
    fn expect_scope(&self, table: &Table, to: &Where) {
        let count = self.shared.names.len();
        let nodes = to.nodes(count);
        let at = self.shared.clock.now();
        let mut book = self.shared.book();
        for node in (0..count).filter(|node| !nodes.contains(node)) {
            book.events.push(Event::MayLeave { node, table: table.id, at });
        }
        book.ever.entry(table.id).or_default().extend(nodes);
    }

    fn change_right(&mut self) {
        if !self.decides {
            return;
        }
        let granted: Vec<_> = self.shared.tables.iter().filter(|t| t.kind.is_granted()).collect();
        let table = self.chance.of(&granted);
        let (right, grants) = (self.chance.of(&Right::ALL), self.chance.percent(60));
        self.decide(table, right, grants);
    }

    /// Gives bob a right, or takes it away; false where that was refused.
    pub(crate) fn decide(&mut self, table: &Table, right: Right, grants: bool) -> bool {
        let name = self.shared.name_on(table, self.node);
        let bob = format!("@{}", self.shared.people.bob);
        let method = if grants { "acl_grant" } else { "acl_revoke" };
        let params = [bob.into(), name.into(), right.word().into()];
        let (invoked, reply, at) = self.call(method, &params);
        let acked = match reply {
            Reply::Done(_) => Some(at),
            Reply::Lost => None,
            Reply::Refused(_) | Reply::NotSent => return false,
        };
        let (table, node) = (table.id, self.node);
        let decision = Decision { table, right, grants, node, invoked, acked };
        self.shared.book().decisions.push(decision);
        true
    }

    /// Drops the table that is there for it, or makes it anew; by its home alone. Where the answer is lost, it is
    /// asked again until it is known.
    fn drop_or_create(&mut self) {
        let Some(table) = self.shared.tables.iter().find(|t| t.kind == Kind::Churn) else { return };
        if !self.decides {
            return;
        }
        let name = self.shared.name_on(table, self.node);
        let unanswered = self.unanswered.take();
        let was_lost = unanswered.is_some();
        let Unanswered { is_there, since } = unanswered.unwrap_or_else(|| Unanswered {
            is_there: self.shared.book().stays.last().is_some_and(|stay| stay.until.is_none()),
            since: self.shared.clock.now(),
        });
        let (method, done, done_before, params) = if is_there {
            ("drop_table", "dropped", "access_denied", vec![name.as_str().into()])
        } else {
            let attributes = list(["id".into(), "v".into()]);
            ("create_table", "created", "already_exists", vec![name.as_str().into(), attributes])
        };
        let (_, reply, at) = self.call(method, &params);
        match reply {
            Reply::Done(value) if value.as_str() == Some(done) => {
                self.note_stay(is_there, since, at);
            }
            Reply::Refused(why) if why == done_before && was_lost => {
                self.note_stay(is_there, since, at);
            }
            Reply::Lost => self.unanswered = Some(Unanswered { is_there, since }),
            Reply::Done(_) | Reply::Refused(_) | Reply::NotSent if was_lost => {
                self.unanswered = Some(Unanswered { is_there, since });
            }
            Reply::Done(_) | Reply::Refused(_) | Reply::NotSent => {}
        }
    }

    fn note_stay(&self, was_there: bool, since: Micros, at: Micros) {
        let mut book = self.shared.book();
        match book.stays.last_mut().filter(|_| was_there) {
            Some(stay) => stay.until = Some(at),
            None => book.stays.push(Stay { since, until: None }),
        }
    }

    /// What a program does that does not know whether its table is there. It is: nothing may come of it.
    fn create_again(&mut self) {
        if !self.shared.is_ann(self.node) {
            return;
        }
        let kinds = [Kind::Notes, Kind::Pair, Kind::Secret];
        let known: Vec<_> = self.shared.tables.iter().filter(|t| kinds.contains(&t.kind)).collect();
        let table = self.chance.of(&known);
        let own = self.shared.names[self.node].as_str();
        let scope = self.chance.of(&[None, Some("local"), Some("all"), Some(own)]);
        let short = format!("@{}", table.kind.word());
        let whole = self.shared.name_on(table, self.node);
        let name = self.chance.of(&[short.as_str(), whole.as_str()]);
        let mut params = vec![name.into(), list(["id".into()])];
        params.extend(scope.map(Value::from));
        let (_, reply, _) = self.call("create_table", &params);
        if let Reply::Done(value) = reply {
            let (node, word) = (&self.shared.names[self.node], table.kind.word());
            self.shared.break_off(format!(
                "scope: create of {word} with {scope:?}, which exists, answers {value} on {node}"
            ));
        }
    }
}

/// The beginning of a text.
fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
