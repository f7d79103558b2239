//! One command inside the writer's transaction: load rows, let the core decide, store what it decided.
//! Transactions, replies and the log are the writer's.

use std::{collections::HashMap, sync::Arc};

use cortex_core::{
    clock::HybridClock,
    directory::Directory,
    gate,
    merge::{self, Change, Content, Delta, Version},
    model::{
        ActorId, Caller, Hlc, Limits, Owner, Permissions, QualifiedName, Refusal, Signer, Stamp,
        TableId,
    },
    replication::VersionVector,
};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::{
    actors::Actors,
    audit::{Audit, DigestChange},
    cache::RecordCache,
    catalog::{Catalog, Entry, Usage},
    checksum::StoredRow,
    command::{Command, Granting, Outcome},
    contexts::{Contexts, Uses},
    damage::Damage,
    departure::Departures,
    error::{CommandError, StoreError},
    events::{self, Event},
    exposure::Exposure,
    recent::Fresh,
    replica::Replicas,
    rows::{self, Found, Place, Stored},
    system::Rank,
};

/// What the writer knows besides the rows. Exactly what the file says as of the last commit.
#[derive(Clone, Debug)]
pub(super) struct State {
    clock: HybridClock,
    pub(super) seq: u64,
    pub(super) lsn: u64,
    /// The origin of local writes, by its short number.
    pub(super) actor_number: i64,
    /// The ids behind the short numbers of actors.
    pub(super) actors: Actors,
    /// This file, as others know it.
    pub(super) database: [u8; 16],
    pub(super) catalog: Arc<Catalog>,
    /// This machine's copies of tables.
    pub(super) replicas: Replicas,
    /// Stays of them that are over, and of which bytes may still be on the disk.
    pub(super) departures: Departures,
    /// How often contexts are used more after the transaction, or less.
    pub(super) uses: Uses,
    /// Audits that are under way.
    pub(super) audits: Vec<Audit>,
    /// Who signs for this node; none where no mesh is configured.
    pub(super) signer: Option<Arc<dyn Signer>>,
}

impl State {
    /// The greatest timestamp drawn so far.
    pub(super) fn hlc(&self) -> Hlc {
        self.clock.last()
    }

    /// Goes on with drains that were under way in memory.
    pub(super) fn keep_drains(&mut self, before: &Self) {
        for replica in before.replicas.iter().filter(|replica| replica.drain.is_some()) {
            if let Some(kept) = self.replicas.get_mut(replica.uid) {
                kept.drain = replica.drain;
            }
        }
        self.replicas.settle();
    }

    /// Draws timestamps after this one again.
    pub(super) fn set_clock_back(&mut self, to: Hlc) {
        self.clock.set_back(to);
    }

    /// Who the writes of this database are by.
    pub(super) fn own_actor(&self) -> ActorId {
        self.actors.id(self.actor_number)
    }

    pub(super) fn load(conn: &Connection) -> Result<Self, StoreError> {
        let actors = Actors::load(conn)?;
        let catalog = Arc::new(Catalog::load(conn)?);
        let replicas = Replicas::load(conn, &actors)?;
        let departures = Departures::load(conn)?;
        let state = conn.query_row(
            "SELECT actor, seq, lsn, hlc, db_uid FROM node_state WHERE id = 1",
            [],
            |row| {
                Ok(Self {
                    clock: HybridClock::resume(Hlc::from_i64(row.get(3)?)),
                    seq: row.get(1)?,
                    lsn: row.get(2)?,
                    actor_number: row.get(0)?,
                    actors,
                    database: row.get(4)?,
                    catalog,
                    replicas,
                    departures,
                    uses: Uses::new(),
                    audits: Vec::new(),
                    signer: None,
                })
            },
        )?;
        Ok(state)
    }
}

/// A transaction in the making: the state that a commit would bring.
pub(super) struct Tx<'a> {
    pub(super) conn: &'a Connection,
    pub(super) state: State,
    pub(super) limits: Limits,
    pub(super) wall_ms: u64,
    draw_id: &'a dyn Fn() -> [u8; 16],
    /// True once something must be written besides rows.
    pub(super) changed: bool,
    pub(super) totals: Totals,
    pub(super) cache: &'a RecordCache,
    pub(super) contexts: &'a Contexts,
    pub(super) exposure: &'a Exposure,
    pub(super) damage: &'a Damage,
    /// The context that was made last: writes that follow each other have the same.
    pub(super) newest_context: Option<(VersionVector, Option<i64>)>,
    /// The cache's buckets of the keys that were written.
    pub(super) touched: Vec<usize>,
    /// The changes that others are to be told of.
    pub(super) fresh: Fresh,
}

/// What a batch works with besides the file and the state.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    pub(super) cache: &'a RecordCache,
    pub(super) contexts: &'a Contexts,
    pub(super) exposure: &'a Exposure,
    pub(super) damage: &'a Damage,
    pub(super) limits: Limits,
    /// The wall clock, in Unix milliseconds.
    pub(super) wall_ms: u64,
    /// Draws ids at random.
    pub(super) draw_id: &'a dyn Fn() -> [u8; 16],
}

/// What a transaction has brought about, to be published with its commit.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) state: State,
    pub(super) totals: Totals,
    pub(super) touched: Vec<usize>,
    pub(super) fresh: Fresh,
}

/// What a transaction adds to the totals of tables and of their owners.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    tables: HashMap<TableId, (Arc<Usage>, Delta)>,
    owners: HashMap<Owner, Delta>,
}

impl Totals {
    /// Adds what was committed to the totals that everybody reads.
    pub(super) fn publish(self, catalog: &Catalog) {
        for (usage, delta) in self.tables.into_values() {
            usage.add(delta);
        }
        for (owner, delta) in self.owners {
            if let Some(namespace) = catalog.namespace(&owner) {
                namespace.usage.add(delta);
            }
        }
    }

    pub(super) fn add(&mut self, entry: &Entry, delta: Delta) {
        let (_, sum) = self
            .tables
            .entry(entry.table.id)
            .or_insert_with(|| (Arc::clone(&entry.usage), Delta::default()));
        *sum = sum.plus(delta);
        self.add_to_owner(entry, delta);
    }

    pub(super) fn add_to_owner(&mut self, entry: &Entry, delta: Delta) {
        let sum = self.owners.entry(entry.table.name.owner.clone()).or_default();
        *sum = sum.plus(delta);
    }

    /// What a table holds with this transaction.
    pub(super) fn held_by(&self, entry: &Entry) -> Delta {
        let pending = self.tables.get(&entry.table.id).map(|(_, delta)| *delta);
        entry.usage.total().plus(pending.unwrap_or_default())
    }
}

/// A row as it stands in the file, without its value.
#[derive(Clone, Copy, Debug)]
struct Present {
    id: i64,
    version: Version,
}

/// A version of a row on its way in.
#[derive(Clone, Copy, Debug)]
struct Arriving<'v> {
    version: Version,
    /// The short number of the actor that made it.
    actor_number: i64,
    /// Its number among the writes of that actor.
    seq: u64,
    value: Option<&'v [u8]>,
}

impl<'a> Tx<'a> {
    pub(super) fn begin(conn: &'a Connection, state: &State, means: Means<'a>) -> Self {
        Self {
            conn,
            state: state.clone(),
            limits: means.limits,
            wall_ms: means.wall_ms,
            draw_id: means.draw_id,
            changed: false,
            totals: Totals::default(),
            cache: means.cache,
            contexts: means.contexts,
            exposure: means.exposure,
            damage: means.damage,
            newest_context: None,
            touched: Vec::new(),
            fresh: Fresh::default(),
        }
    }

    /// 128 random bits.
    pub(super) fn draw_id(&self) -> [u8; 16] {
        (self.draw_id)()
    }

    /// Carries out one command. A refusal has changed nothing; after a fault the transaction must be rolled back.
    pub(super) fn apply(&mut self, command: &Command) -> Result<Outcome, CommandError> {
        // They decide before they change anything.
        let decides_first =
            matches!(command, Command::Put { .. } | Command::Delete { .. } | Command::Stop);
        if decides_first {
            return self.carry_out(command);
        }
        self.wholly(|tx| tx.carry_out(command))
    }

    /// Takes back what a command has changed where it is refused half way.
    fn wholly(
        &mut self,
        command: impl FnOnce(&mut Self) -> Result<Outcome, CommandError>,
    ) -> Result<Outcome, CommandError> {
        let before = (self.state.clone(), self.totals.clone());
        self.execute("SAVEPOINT command", [])?;
        let outcome = command(self);
        if let Err(CommandError::Faulted(_)) = &outcome {
            return outcome; // a full disk has ended the transaction already, savepoint and all
        }
        if let Err(CommandError::Refused(_)) = &outcome {
            self.execute("ROLLBACK TO command", [])?;
            (self.state, self.totals) = before;
            self.contexts.forget();
            self.newest_context = None;
            self.fresh.give_up();
        }
        self.execute("RELEASE command", [])?;
        outcome
    }

    fn carry_out(&mut self, command: &Command) -> Result<Outcome, CommandError> {
        match command {
            Command::CreateTable { caller, owner, name, attributes, scope } => {
                let name = QualifiedName { owner: owner.clone(), name: name.clone() };
                self.create_table(caller, name, attributes, scope)
            }
            Command::DropTable { caller, entry } => self.drop_table(caller, entry),
            Command::Decline { caller, table, declined } => self.decline(caller, *table, *declined),
            Command::Chown { caller, entry, owner, name } => {
                self.chown(caller, entry, owner, name.as_ref())
            }
            Command::Put { caller, entry, key, record } => {
                self.put(caller, entry, key.as_bytes(), record)
            }
            Command::Delete { caller, entry, key } => self.delete(caller, entry, key.as_bytes()),
            Command::Grant(granting) => self.grant(granting),
            Command::Revoke(granting) => self.revoke(granting),
            Command::SetScope { caller, entry, scope, abandon } => {
                self.set_scope(caller, entry, scope, abandon)
            }
            Command::Join(signer) => self.join(signer),
            Command::Register(registration) => self.register(registration),
            Command::Claim(claim) => self.claim(claim),
            Command::Adopt(rows) => self.adopt_rows(rows),
            Command::Redeem(redemption) => self.redeem(redemption),
            Command::Learn(rows) => {
                self.learn(rows)?;
                Ok(Outcome::Learned)
            }
            Command::Unbind { caller, identity, node } => {
                self.unbind(caller, *identity, node.as_ref())
            }
            Command::ApplyBatch(delivery) => self.apply_batch(delivery),
            Command::Drained { from, ack } => self.drained(from, ack),
            Command::Collect(collection) => self.collect(collection),
            Command::TruncateChangeLog { table, upto } => self.truncate_change_log(*table, *upto),
            Command::Acknowledge { caller, entry, conflict } => {
                let entry = self.admit(caller, entry, Permissions::WRITE)?;
                let table = (entry.table.id, entry.table.uid);
                let count = self.acknowledge(table, *conflict)?;
                Ok(Outcome::Acknowledged { count })
            }
            Command::Push { entry, keys } => {
                let entry =
                    Arc::clone(self.state.catalog.current(entry).ok_or(Refusal::AccessDenied)?);
                let count = self.push_all(&entry, keys)?;
                Ok(Outcome::Pushed { count })
            }
            Command::Restamp(restamp) => self.restamp(restamp),
            Command::Rewrite { entry, keys } => {
                let entry =
                    Arc::clone(self.state.catalog.current(entry).ok_or(Refusal::AccessDenied)?);
                entry.takes_writes()?;
                let count = self.write_again(&entry, keys)?;
                Ok(Outcome::Rewritten { count })
            }
            Command::Erase { caller, entry, rows } => {
                let entry = self.admit(caller, entry, Permissions::WRITE)?;
                entry.takes_writes()?;
                let count = self.erase_unchanged(&entry, rows)?;
                Ok(Outcome::Erased { count })
            }
            Command::Audit(step) => self.audit(*step),
            Command::RotateActor => {
                self.rotate_actor()?;
                Ok(Outcome::Rotated)
            }
            Command::RemoveNode { caller, node } => self.remove_node(caller, node),
            Command::SettleName { caller, name, keep } => self.settle_name(caller, name, *keep),
            Command::Note(event) => {
                self.note(event)?;
                Ok(Outcome::Noted)
            }
            Command::Purge => Ok(Outcome::Purged { more: self.purge()? }),
            Command::Stop => Ok(Outcome::Stopped),
        }
    }

    /// Writes the counters and totals; answers what to publish after the commit.
    pub(super) fn finish(mut self) -> Result<Finished, StoreError> {
        let changed =
            self.totals.tables.iter().filter(|(_, (_, delta))| *delta != Delta::default());
        for (table, (_, delta)) in changed {
            self.execute(
                "UPDATE tables SET records = records + ?2, bytes = bytes + ?3 WHERE id = ?1",
                params![table.0, delta.records, delta.bytes],
            )?;
        }
        self.state.replicas.save(self.conn, &mut self.state.actors)?;
        self.contexts.save(self.conn, &self.state.uses)?;
        self.state.uses.clear();
        if self.changed {
            self.execute(
                "UPDATE node_state SET seq = ?1, lsn = ?2, hlc = ?3 WHERE id = 1",
                params![self.state.seq, self.state.lsn, self.state.clock.last().to_i64()],
            )?;
        }
        let Self { state, totals, touched, fresh, .. } = self;
        Ok(Finished { state, totals, touched, fresh })
    }

    fn put(
        &mut self,
        caller: &Caller,
        entry: &Entry,
        key: &[u8],
        record: &[u8],
    ) -> Result<Outcome, CommandError> {
        let entry = self.admit(caller, entry, Permissions::WRITE)?;
        entry.takes_writes()?;
        let bytes = (key.len() + record.len()) as u64;
        self.write_here(&entry, key, Content::Live { bytes }, Some(record))?;
        Ok(Outcome::Stored)
    }

    fn delete(
        &mut self,
        caller: &Caller,
        entry: &Entry,
        key: &[u8],
    ) -> Result<Outcome, CommandError> {
        let entry = self.admit(caller, entry, Permissions::WRITE)?;
        entry.takes_writes()?;
        self.write_here(&entry, key, Content::Deleted, None)?;
        Ok(Outcome::Deleted)
    }

    /// A version made here and now. One that comes to nothing has drawn no number, and needs no
    /// commit.
    fn write_here(
        &mut self,
        entry: &Entry,
        key: &[u8],
        content: Content,
        value: Option<&[u8]>,
    ) -> Result<(), CommandError> {
        if entry.replicated {
            return self.write_shared(entry, key, value);
        }
        let (clock, seq, changed) = (self.state.clock, self.state.seq, self.changed);
        let present = self.find(entry.table.id, key)?;
        let mut arriving = self.local(content, value);
        if let Some(present) = present {
            // A clock that was ahead may have left it there. The write still comes after it.
            let after = present.version.stamp.hlc.next();
            arriving.version.stamp.hlc = after.max(arriving.version.stamp.hlc);
        }
        let outcome = self.merge(entry, key, present, arriving);
        if !matches!(outcome, Ok(Change::Store | Change::Tombstone | Change::Erase)) {
            (self.state.clock, self.state.seq, self.changed) = (clock, seq, changed);
        }
        outcome.map(|_change| ())
    }

    /// The same in a table of which there may be other copies: they will be told.
    pub(super) fn write_shared(
        &mut self,
        entry: &Entry,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), CommandError> {
        let place = Place::of(entry);
        let found = self.find_row(place.id, key)?;
        if found.is_none() && value.is_none() && !self.may_come(entry) {
            return Ok(()); // there is nothing to delete, and nobody who could have it
        }
        self.check_quota(entry, rows::difference(key, found.as_ref(), value))?;
        let context_id = self.context_here(place, found.as_ref())?;
        if let Some(found) = &found {
            // A table that was local while the clock was ahead may hold it, after the clock was set back.
            self.state.clock.observe(found.stamp.hlc);
        }
        self.write_row(place, key, found.as_ref(), value, context_id)
    }

    /// True where another copy may have a row that is not here.
    fn may_come(&self, entry: &Entry) -> bool {
        let directory = self.state.catalog.directory();
        directory.here().is_some_and(|here| {
            let others = directory.must_confirm(entry.table.uid);
            others.keys().any(|node| node != here)
        })
    }

    /// The entry point of rows that have no copies: lets the merge rule decide, and stores what it decided.
    fn merge(
        &mut self,
        entry: &Entry,
        key: &[u8],
        present: Option<Present>,
        arriving: Arriving<'_>,
    ) -> Result<Change, CommandError> {
        let version = present.map(|present| present.version);
        let change = merge::decide(version, arriving.version, false);
        let delta = Delta::of(version, arriving.version, change);
        self.check_quota(entry, delta)?;
        self.store(entry.table.id, key, present, arriving, change)?;
        self.totals.add(entry, delta);
        self.tell_audits(entry.table.id, key, delta, DigestChange::default());
        self.touched.push(self.cache.bucket(entry.table.id, key));
        Ok(change)
    }

    fn store(
        &mut self,
        table: TableId,
        key: &[u8],
        present: Option<Present>,
        arriving: Arriving<'_>,
        change: Change,
    ) -> Result<(), StoreError> {
        let Arriving { version, actor_number, seq, value } = arriving;
        let (hlc, lsn) = (version.stamp.hlc.to_i64(), self.state.lsn + 1);
        let checksum = StoredRow { table, key, hlc, actor_number, seq, value }.checksum();
        match (change, present) {
            (Change::Keep, _) | (Change::Erase, None) => return Ok(()),
            (Change::Erase, Some(Present { id, .. })) => {
                self.execute("DELETE FROM records WHERE id = ?1", [id])?;
            }
            (Change::Store | Change::Tombstone, Some(Present { id, .. })) => self.execute(
                "UPDATE records SET value = ?2, hlc = ?3, actor = ?4, seq = ?5, lsn = ?6,
                 checksum = ?7 WHERE id = ?1",
                params![id, value, hlc, actor_number, seq, lsn, checksum],
            )?,
            (Change::Store | Change::Tombstone, None) => self.execute(
                "INSERT INTO records (table_id, key, value, hlc, actor, seq, lsn, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![table.0, key, value, hlc, actor_number, seq, lsn, checksum],
            )?,
        }
        self.damage.gone(table, key);
        self.state.lsn = lsn;
        Ok(())
    }

    fn grant(&mut self, granting: &Granting) -> Result<Outcome, CommandError> {
        let entry = self.admit_anywhere(&granting.caller, &granting.entry, Permissions::ADMIN)?;
        if entry.replicated {
            self.change_rights(&entry, granting, Directory::grant)?;
        } else {
            let mut entry = Entry::clone(&entry);
            entry.table.acl.grant(granting.principal.clone(), granting.rights)?;
            self.store_grant(entry, granting)?;
        }
        self.note_grant("granted", granting)?;
        Ok(Outcome::Granted)
    }

    fn revoke(&mut self, granting: &Granting) -> Result<Outcome, CommandError> {
        let entry = self.admit_anywhere(&granting.caller, &granting.entry, Permissions::ADMIN)?;
        if entry.replicated {
            let now_ms = self.wall_ms;
            self.change_rights(&entry, granting, |directory, here, table, principal, rights| {
                directory.revoke(here, table, principal, rights, now_ms)
            })?;
        } else {
            let mut entry = Entry::clone(&entry);
            entry.table.acl.revoke(granting.principal.clone(), granting.rights);
            self.store_grant(entry, granting)?;
        }
        self.note_grant("revoked", granting)?;
        Ok(Outcome::Revoked)
    }

    /// Stores what a principal holds now on a table whose rows stay here.
    fn store_grant(&mut self, entry: Entry, granting: &Granting) -> Result<(), CommandError> {
        let (id, principal) = (entry.table.id.0, granting.principal.to_string());
        let rights = entry.table.acl.held_by(&granting.principal);
        if rights.is_empty() {
            self.execute(
                "DELETE FROM grants WHERE table_id = ?1 AND principal = ?2",
                params![id, principal],
            )?;
        } else {
            self.execute(
                "INSERT OR REPLACE INTO grants (table_id, principal, rights) VALUES (?1, ?2, ?3)",
                params![id, principal, rights.bits()],
            )?;
        }
        self.catalog_mut().insert(entry);
        Ok(())
    }

    fn note_grant(&self, done: &'static str, granting: &Granting) -> Result<(), StoreError> {
        let Granting { caller, entry, principal, rights } = granting;
        let directory = self.state.catalog.directory();
        let words = rights.words().collect::<Vec<_>>().join(", ");
        let name = &entry.table.name;
        let (table, whom) = (directory.show(name), directory.show_principal(principal));
        self.note_of(name, done, format!("{words} on {table} {done}, for {whom}, by {caller}"))
    }

    /// Writes down what happened to a table, for its owner.
    pub(super) fn note_of(
        &self,
        name: &QualifiedName,
        kind: &'static str,
        text: String,
    ) -> Result<(), StoreError> {
        self.note(&Event { uid: self.state.catalog.uid_here(&name.owner), kind, text })
    }

    pub(super) fn note(&self, event: &Event) -> Result<(), StoreError> {
        events::record(self.conn, event, self.wall_ms)
    }

    /// The second run of the gate: the table and its rights as they are in this transaction.
    pub(super) fn admit(
        &self,
        caller: &Caller,
        entry: &Entry,
        needed: Permissions,
    ) -> Result<Arc<Entry>, Refusal> {
        let entry = self.state.catalog.current(entry).ok_or(Refusal::AccessDenied)?;
        gate::admit(caller, &entry.table, needed, self.state.catalog.directory())?;
        Ok(Arc::clone(entry))
    }

    /// The same for a table of which there may be nothing here.
    pub(super) fn admit_anywhere(
        &self,
        caller: &Caller,
        entry: &Entry,
        needed: Permissions,
    ) -> Result<Arc<Entry>, Refusal> {
        let catalog = &self.state.catalog;
        let name = &entry.table.name;
        let elsewhere = catalog.find_elsewhere(&name.owner, name.name.as_str());
        let Some(elsewhere) = elsewhere.filter(|now| now.table.uid == entry.table.uid) else {
            return self.admit(caller, entry, needed);
        };
        gate::admit(caller, &elsewhere.table, needed, catalog.directory())?;
        Ok(elsewhere)
    }

    pub(super) fn check_quota(&self, entry: &Entry, delta: Delta) -> Result<(), Refusal> {
        let owner = &entry.table.name.owner;
        let stored = self.state.catalog.namespace(owner).map_or(0, |n| n.usage.bytes());
        let pending = self.totals.owners.get(owner).map_or(0, |delta| delta.bytes);
        let would_hold = stored.saturating_add_signed(pending.saturating_add(delta.bytes));
        if delta.bytes > 0 && would_hold > self.limits.bytes_per_uid {
            return Err(Refusal::QuotaExceeded(self.limits.bytes_per_uid));
        }
        Ok(())
    }

    /// A version made here and now.
    fn local<'v>(&mut self, content: Content, value: Option<&'v [u8]>) -> Arriving<'v> {
        let stamp = self.draw_stamp();
        self.state.seq += 1;
        let version = Version { stamp, content };
        Arriving { version, actor_number: self.state.actor_number, seq: self.state.seq, value }
    }

    pub(super) fn draw_stamp(&mut self) -> Stamp {
        self.changed = true;
        let actor = self.state.own_actor();
        Stamp { hlc: self.state.clock.stamp(self.wall_ms), actor }
    }

    fn find(&self, table: TableId, key: &[u8]) -> Result<Option<Present>, StoreError> {
        let mut statement = self.cached(
            "SELECT id, hlc, actor, length(value) FROM records WHERE table_id = ?1 AND key = ?2",
        )?;
        let present = statement.query_row(params![table.0, key], |row| {
            let value_bytes: Option<u32> = row.get(3)?;
            let content = value_bytes.map_or(Content::Deleted, |bytes| Content::Live {
                bytes: key.len() as u64 + u64::from(bytes),
            });
            let actor = self.state.actors.id(row.get(2)?);
            let stamp = Stamp { hlc: Hlc::from_i64(row.get(1)?), actor };
            Ok(Present { id: row.get(0)?, version: Version { stamp, content } })
        });
        Ok(present.optional()?)
    }

    /// Stores a row of the system table, whoever wrote it. False where what is there is newer.
    pub(super) fn merge_system(
        &mut self,
        key: &[u8],
        stamp: Stamp,
        seq: u64,
        value: &[u8],
    ) -> Result<bool, CommandError> {
        let found = self.find_row(Place::SYSTEM.id, key)?;
        let rank = Rank::of(key, stamp, Some(value));
        let is_newer = |found: &Found| Rank::of(key, found.stamp, found.value.as_deref()) >= rank;
        if found.as_ref().filter(|found| !found.damaged).is_some_and(is_newer) {
            return Ok(false);
        }
        let actor_number = self.actor_number_of(stamp)?;
        let new = Stored { stamp, actor_number, seq, value: Some(value), context_id: None };
        self.put_row(Place::SYSTEM, key, found.as_ref(), new)?;
        Ok(true)
    }

    /// The stamp and number of a row that this node writes.
    pub(super) fn draw(&mut self) -> (Stamp, u64) {
        let stamp = self.draw_stamp();
        self.state.seq += 1;
        (stamp, self.state.seq)
    }

    /// The short number of an actor of rows, which gets one if it has none.
    pub(super) fn actor_number_of(&mut self, stamp: Stamp) -> Result<i64, StoreError> {
        self.state.actors.enter(self.conn, stamp.actor, stamp.hlc)
    }

    /// Has the clock exceed a timestamp that another node has drawn.
    pub(super) fn observe(&mut self, hlc: Hlc) {
        self.state.clock.observe(hlc);
        self.changed = true;
    }

    pub(super) fn catalog_mut(&mut self) -> &mut Catalog {
        Arc::make_mut(&mut self.state.catalog)
    }

    pub(super) fn cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.conn.prepare_cached(sql)
    }

    pub(super) fn execute(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<()> {
        self.cached(sql)?.execute(params).map(|_rows| ())
    }
}
