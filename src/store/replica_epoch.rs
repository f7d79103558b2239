//! The lives of this machine's replicas: begun where the directory says so, drained where it says no more,
//! ended once somebody else has everything, or where they were abandoned.

use std::{collections::BTreeSet, sync::Arc};

use cortex_core::{
    directory::{Directory, ReplicaRow, Row, Standing},
    gate,
    model::{
        Acl, ActorId, Caller, NodeName, Owner, QualifiedName, Refusal, Scope, TableName, TableUid,
        Uid,
    },
    replication::{Ack, ChangeLogId, Cursor, Dot},
    rule::Rule,
};
use rusqlite::params;

use super::{
    apply::Tx,
    catalog::Entry,
    command::Outcome,
    error::{CommandError, StoreError},
    events::Event,
    replica::{self, Replica},
    system,
};

impl Tx<'_> {
    /// Brings the replicas of some tables, or of all, in line with what the directory says now.
    pub(super) fn reconcile(&mut self, tables: Concerned) -> Result<(), CommandError> {
        let Ok(here) = self.here() else {
            return Ok(()); // no mesh: nobody has replicas
        };
        let tables: BTreeSet<TableUid> = match tables {
            Concerned::These(tables) => tables,
            Concerned::All => self.state.catalog.directory().tables_decided().collect(),
        };
        for table in tables {
            self.reconcile_table(table, &here)?;
        }
        Ok(())
    }

    fn reconcile_table(&mut self, table: TableUid, here: &NodeName) -> Result<(), CommandError> {
        let directory = self.state.catalog.directory();
        let standing = directory.standing(table, here);
        let gone = directory.gone(table).get(here).copied().unwrap_or(0);
        let dropped = directory.is_dropped(table);
        if dropped {
            return self.forget(table);
        }
        let epoch = self.state.replicas.get(table).map_or(0, |replica| replica.epoch);
        if epoch > 0 && gone >= epoch && Rule::AbandonedEnds.holds() {
            if self.ended_by_own_word(table, here, epoch) {
                self.resume(table, here)?;
            } else {
                self.abandon(table)?;
            }
        }
        let epoch = self.state.replicas.get(table).map_or(0, |replica| replica.epoch);
        let said = self.state.catalog.directory().replica(table, here);
        if epoch > 0
            && said.is_some_and(|row| row.up == epoch && row.database != self.state.database)
        {
            self.publish_epoch(table, here, epoch)?; // restored: the replica is in another database now
        }
        match standing {
            Standing::In if epoch == 0 => self.begin_epoch(table, here)?,
            Standing::Out if epoch > 0 => self.begin_drain(table)?,
            Standing::Frozen if epoch > 0 && !Rule::FrozenKeeps.holds() => {
                self.begin_drain(table)?;
            }
            Standing::In | Standing::Frozen => self.stop_drain(table),
            Standing::Out if Rule::ForgottenEpochEnds.holds() => {
                self.end_forgotten_epoch(table, here)?;
            }
            Standing::Out => {}
        }
        self.rename_as_told(table)?;
        self.refresh(table);
        Ok(())
    }

    /// A replica epoch begins. Where the rows are here already, since the table was made here, it is whole.
    fn begin_epoch(&mut self, table: TableUid, here: &NodeName) -> Result<(), CommandError> {
        let directory = self.state.catalog.directory();
        let gone = directory.gone(table).get(here).copied().unwrap_or(0);
        let known = directory.epochs(table).get(here).copied().unwrap_or(0);
        let mut epoch = known.max(gone + 1);
        if directory.replica(table, here).is_some_and(|row| row.up >= epoch) {
            // That replica epoch has begun, in a database that is not this one any more: it has ended with it.
            epoch += 1;
        }
        match self.state.replicas.get_mut(table) {
            Some(replica) => replica.epoch = epoch,
            None => {
                let (change_log, lsn) = (ChangeLogId(self.draw_id()), self.draw_lsn());
                self.state.replicas.insert(Replica::new(table, epoch, change_log, lsn));
            }
        }
        self.publish_epoch(table, here, epoch)
    }

    /// True where this node itself has said that an epoch is over, in a newer database than this one.
    fn ended_by_own_word(&self, table: TableUid, here: &NodeName, epoch: u64) -> bool {
        let said = self.state.catalog.directory().replica(table, here);
        Rule::EndedEpochResumes.holds() && said.is_some_and(|row| row.down >= epoch)
    }

    /// A restored database has brought a replica back that this node had ended. It goes on in the next epoch: where
    /// the scope leaves it out it is drained once more, so that what only it has, written since perhaps, reaches the
    /// others by the usual merge, and its bytes go before the node says again that it has left.
    ///
    /// It is not simply thrown away as known: an epoch also counts as ended where a database that had forgotten it
    /// said so, and nobody else has its rows then. Nor are they rescued as those of an epoch that somebody else has
    /// given up: the table that this would make keeps the rows of a table whose status says that it has left.
    fn resume(&mut self, table: TableUid, here: &NodeName) -> Result<(), CommandError> {
        if let Some(replica) = self.state.replicas.get_mut(table) {
            replica.drain = None; // what was acknowledged to the ended epoch says nothing of this one
        }
        self.begin_epoch(table, here)?;
        if let Some(entry) = self.state.catalog.by_uid(table).cloned() {
            let shown = self.state.catalog.show(&entry.table.name);
            let text = format!(
                "{shown} had left this machine in a newer database than this one: its replica goes on from here"
            );
            self.note_of(&entry.table.name, "table_resumed", text)?;
        }
        Ok(())
    }

    /// Says that a replica epoch of this replica has begun, and that those before it are over.
    fn publish_epoch(
        &mut self,
        table: TableUid,
        here: &NodeName,
        epoch: u64,
    ) -> Result<(), CommandError> {
        let said = self.state.catalog.directory().replica(table, here);
        let down = said.map_or(0, |row| row.down).max(epoch - 1);
        self.publish_epochs(table, here, epoch, down)
    }

    /// Says which replica epoch of this replica has begun last, and up to which they are over.
    pub(super) fn publish_epochs(
        &mut self,
        table: TableUid,
        here: &NodeName,
        up: u64,
        down: u64,
    ) -> Result<(), CommandError> {
        let declines = self.state.catalog.directory().declines(table, here);
        let (node, database) = (here.clone(), self.state.database);
        self.write(vec![Row::Replica(ReplicaRow { table, node, database, up, down, declines })])
    }

    /// Keeps a table away from this machine's disk, or takes that back. What only this replica has is handed over
    /// first, as where the scope leaves it out.
    pub(super) fn decline(
        &mut self,
        caller: &Caller,
        table: TableUid,
        declined: bool,
    ) -> Result<Outcome, CommandError> {
        let here = self.here()?;
        let directory = self.state.catalog.directory();
        let name = directory.name_of_table(table);
        let entry = match self.state.catalog.by_uid(table) {
            Some(entry) => Some(Arc::clone(entry)),
            None => name.and_then(|name| {
                self.state.catalog.find_elsewhere(&name.owner, name.name.as_str())
            }),
        };
        if directory.is_declined(table, &here) == declined {
            let may = *caller == Caller::Local(Uid::ROOT);
            return if may {
                Ok(Outcome::Declined { declined })
            } else {
                Err(Refusal::AccessDenied.into())
            };
        }
        match (&entry, declined) {
            (Some(entry), true) => {
                gate::admit_replica(caller, &entry.table, directory)?;
                if entry.standing == Standing::Out {
                    return Err(Refusal::NotHere.into());
                }
            }
            (None, true) => return Err(Refusal::AccessDenied.into()),
            (_, false) if *caller != Caller::Local(Uid::ROOT) => {
                return Err(Refusal::AccessDenied.into());
            }
            (_, false) => {}
        }
        let (up, down) = directory.replica(table, &here).map_or((0, 0), |row| (row.up, row.down));
        let (node, database) = (here.clone(), self.state.database);
        let declines = directory.declines(table, &here).saturating_add(1);
        let row = ReplicaRow { table, node, database, up, down, declines };
        let shown = entry.as_ref().map_or_else(
            || format!("id:{table}"),
            |entry| format!("{} (id:{table})", self.state.catalog.show(&entry.table.name)),
        );
        let (kind, text) = if declined {
            ("replica_dropped", format!("{shown} is kept away from this machine, by {caller}"))
        } else {
            ("replica_kept", format!("{shown} may come to this machine again, by {caller}"))
        };
        let uid = entry.and_then(|entry| self.state.catalog.uid_here(&entry.table.name.owner));
        self.note(&Event { uid, kind, text })?;
        self.write(vec![Row::Replica(row)])?;
        Ok(Outcome::Declined { declined })
    }

    /// A replica epoch that others know of and this database does not: it was begun in a newer one than this, or a
    /// decision
    /// let it begin and another ended it before this node heard of either. It is over, or everybody would wait for
    /// this node's word for ever, and remember deletions for it.
    fn end_forgotten_epoch(
        &mut self,
        table: TableUid,
        here: &NodeName,
    ) -> Result<(), CommandError> {
        if self.state.departures.include(table) {
            return Ok(()); // it is known, and told once its bytes are gone
        }
        match self.forgotten_epoch(table, here) {
            Some(epoch) => self.publish_epochs(table, here, epoch, epoch),
            None => Ok(()),
        }
    }

    /// The newest replica epoch that is not over by what the directory says, of a node that has none.
    pub(super) fn forgotten_epoch(&self, table: TableUid, here: &NodeName) -> Option<u64> {
        let directory = self.state.catalog.directory();
        let gone = directory.gone(table).get(here).copied().unwrap_or(0);
        directory.epochs(table).get(here).copied().filter(|epoch| *epoch > gone)
    }

    fn begin_drain(&mut self, table: TableUid) -> Result<(), CommandError> {
        let nonce = self.draw_id();
        let Some(replica) = self.state.replicas.get_mut(table) else {
            return Ok(());
        };
        if replica.drain.is_some() {
            return Ok(());
        }
        replica.drain = Some(nonce);
        let empty = replica.table.is_none();
        if let Some(entry) = self.state.catalog.by_uid(table).cloned() {
            let shown = self.state.catalog.show(&entry.table.name);
            let text =
                format!("{shown} leaves this machine: what only this one has is handed over first");
            self.note_of(&entry.table.name, "table_draining", text)?;
        }
        if empty {
            return self.end_epoch(table, ""); // nothing has come yet
        }
        Ok(())
    }

    fn stop_drain(&mut self, table: TableUid) {
        if self.state.replicas.get(table).is_some_and(|replica| replica.drain.is_some())
            && let Some(replica) = self.state.replicas.get_mut(table)
        {
            replica.drain = None;
        }
    }

    /// Another replica confirms that it has everything of one that drains. What was written meanwhile, by
    /// whatever came, keeps it from ending.
    pub(super) fn drained(&mut self, from: &NodeName, ack: &Ack) -> Result<Outcome, CommandError> {
        let here = self.here()?;
        let directory = self.state.catalog.directory();
        let (table, standing) = (ack.table, directory.standing(ack.table, &here));
        let gone = directory.gone(table).get(from).copied().unwrap_or(0);
        let epochs = directory.epochs(table).get(from).copied().unwrap_or(0);
        let is_current = ack.status.epoch > gone && ack.status.epoch == epochs;
        let counts = (standing == Standing::Out || !Rule::FrozenKeeps.holds())
            && (directory.standing(table, from) == Standing::In || !Rule::DrainedIntoScope.holds())
            && (is_current || !Rule::DrainedIntoLivingEpoch.holds())
            && self.state.replicas.get(table).is_some_and(|replica| {
                let has_all = |cursor: &Cursor| {
                    let read_up_to =
                        cursor.change_log == replica.change_log && cursor.lsn >= replica.last_lsn;
                    read_up_to || !Rule::DrainedWholly.holds()
                };
                replica.epoch > 0
                    && replica.drain.is_some()
                    && replica.drain == ack.drain
                    && ack.cursor.as_ref().is_some_and(has_all)
            });
        if counts {
            self.end_epoch(table, from.as_str())?;
        }
        Ok(Outcome::Drained { left: counts })
    }

    /// The replica epoch is over: its rows go, and nothing that it knew counts any more. The others are told once no
    /// byte of it is left.
    fn end_epoch(&mut self, table: TableUid, taker: &str) -> Result<(), CommandError> {
        let here = self.here()?;
        let Some(replica) = self.state.replicas.get(table).cloned() else {
            return Ok(());
        };
        match self.state.catalog.by_uid(table).cloned() {
            Some(entry) => {
                self.discard_rows(&entry)?;
                self.clear_copy(&replica)?;
                self.depart(&entry, &replica, taker)?;
            }
            None => {
                self.clear_copy(&replica)?;
                self.publish_epochs(table, &here, replica.epoch, replica.epoch)?;
            }
        }
        if !Rule::LeavingRotatesActor.holds() {
            return Ok(());
        }
        // It must not claim, as the same actor, what it has just thrown away.
        self.rotate_actor()
    }

    /// The replica epoch was declared lost while it was not: what it has becomes a table of this machine alone, and
    /// the replica starts again.
    fn abandon(&mut self, table: TableUid) -> Result<(), CommandError> {
        let Some(replica) = self.state.replicas.get(table).cloned() else {
            return Ok(());
        };
        if let Some(entry) = self.state.catalog.by_uid(table).cloned() {
            self.rescue(&entry)?;
        }
        self.clear_copy(&replica)?;
        self.rotate_actor()
    }

    /// Makes the rows of a replica a table that has no other replicas.
    fn rescue(&mut self, entry: &Entry) -> Result<(), CommandError> {
        let owner = self.state.catalog.uid_here(&entry.table.name.owner).unwrap_or(Uid::ROOT);
        let owner = Owner::Uid(owner);
        let taken = |name: &str| self.state.catalog.find(&owner, name).is_some();
        let base: String = entry.table.name.name.as_str().chars().take(100).collect();
        let free = (1_u32..).map(|n| format!("{base}_rescued_{n}")).find(|name| !taken(name));
        let name = TableName::parse(&free.unwrap_or_default()).map_err(CommandError::from)?;
        let uid = TableUid(self.draw_id());
        self.execute(
            "UPDATE tables SET uid = ?2, owner = ?3, name = ?4, scope = 'local', replicated = 0
             WHERE id = ?1",
            params![entry.table.id.0, uid.0, owner.to_string(), name.as_str()],
        )?;
        let held = self.totals.held_by(entry);
        self.totals.add_to_owner(entry, held.negated());
        let mut rescued = Entry::clone(entry);
        rescued.table.name = QualifiedName { owner, name };
        rescued.table.uid = uid;
        rescued.table.scope = Scope::Local;
        rescued.table.contested = false;
        rescued.table.acl = Acl::default();
        rescued.replicated = false;
        rescued.standing = Standing::In;
        rescued.ready = true;
        self.totals.add_to_owner(&rescued, held);
        self.catalog_mut().remove(&entry.table.name);
        let shown = self.state.catalog.show(&entry.table.name);
        let text = format!(
            "the copy of {shown} was abandoned elsewhere; its rows are in {} now",
            rescued.table.name
        );
        self.note_of(&rescued.table.name, "table_rescued", text)?;
        self.catalog_mut().insert(rescued);
        Ok(())
    }

    /// The table is dropped for good, here or elsewhere.
    fn forget(&mut self, table: TableUid) -> Result<(), CommandError> {
        let entry = self.state.catalog.by_uid(table).cloned();
        if let Some(entry) = entry {
            let shown = self.state.catalog.show(&entry.table.name);
            self.discard_rows(&entry)?;
            let text = format!("table {shown} was dropped on another machine");
            self.note_of(&entry.table.name, "table_dropped", text)?;
        }
        if let Some(replica) = self.state.replicas.get(table).cloned()
            && (replica.table.is_some() || replica.epoch > 0)
        {
            self.clear_copy(&replica)?;
        }
        Ok(())
    }

    /// Takes a table's rows out of sight; they are removed by and by.
    pub(super) fn discard_rows(&mut self, entry: &Entry) -> Result<(), CommandError> {
        let id = entry.table.id.0;
        // Its lasting id is free for the replica that may come back.
        self.execute(
            "UPDATE tables SET dropped = 1, uid = ?2 WHERE id = ?1",
            params![id, self.draw_id()],
        )?;
        self.execute("DELETE FROM grants WHERE table_id = ?1", [id])?;
        let held = self.totals.held_by(entry);
        self.totals.add_to_owner(entry, held.negated());
        self.catalog_mut().remove(&entry.table.name);
        Ok(())
    }

    /// Forgets what a replica knew of itself and of others. Its change log and marks go with its rows.
    pub(super) fn clear_copy(&mut self, replica: &Replica) -> Result<(), CommandError> {
        if let Some(table) = replica.table {
            for statement in [
                "DELETE FROM cursors WHERE table_id = ?1",
                "DELETE FROM marks WHERE table_id = ?1",
                "DELETE FROM conflicts WHERE table_id = ?1",
            ] {
                self.execute(statement, [table.0])?;
            }
        }
        let (change_log, lsn) = (ChangeLogId(self.draw_id()), self.draw_lsn());
        self.state.replicas.insert(Replica::new(replica.uid, 0, change_log, lsn));
        Ok(())
    }

    /// Becomes another actor, with other change logs. Passes that are under way go on: their rows and
    /// marks are in this file, and an answer to a request of the old origin does not count.
    pub(super) fn rotate_actor(&mut self) -> Result<(), CommandError> {
        let id = ActorId(u128::from_be_bytes(self.draw_id()));
        let number = self.state.actors.enter(self.conn, id, self.state.hlc())?;
        self.execute("UPDATE node_state SET actor = ?1 WHERE id = 1", [number])?;
        (self.state.actor_number, self.state.seq) = (number, 0);
        self.changed = true;
        let lsn = self.draw_lsn();
        let copies: Vec<_> = self.state.replicas.iter().map(|replica| replica.uid).collect();
        for uid in copies {
            let change_log = ChangeLogId(self.draw_id());
            if let Some(replica) = self.state.replicas.get_mut(uid)
                && Rule::ActorEndsChangeLogs.holds()
            {
                (replica.change_log, replica.truncated_lsn) = (change_log, lsn);
            }
        }
        if let Some(signer) = self.state.signer.clone() {
            self.introduce(signer.as_ref())?;
        }
        let text = "actor id rotated: later writes of this machine carry another one".to_owned();
        self.note(&Event { uid: None, kind: "actor_rotated", text })?;
        Ok(())
    }

    /// Has a replica know the rows that its table had before it was shared. They are in no change log: others read
    /// them in the order of their keys.
    pub(super) fn share_rows(&mut self, entry: &Entry) -> Result<(), CommandError> {
        let (table, uid) = (entry.table.id, entry.table.uid);
        let digest = replica::recount(self.conn, &self.state.actors, table, uid)?;
        let dots: Vec<Dot> = {
            let mut statement = self
                .cached("SELECT actor, max(seq) FROM records WHERE table_id = ?1 GROUP BY actor")?;
            let dot = |row: &rusqlite::Row<'_>| {
                Ok(Dot { actor: self.state.actors.id(row.get(0)?), seq: row.get(1)? })
            };
            statement.query_map([table.0], dot)?.collect::<Result<_, _>>()?
        };
        if let Some(replica) = self.state.replicas.get_mut(uid) {
            replica.digest = digest;
            dots.into_iter().for_each(|dot| replica.vector.raise(dot));
        }
        Ok(())
    }

    /// Makes the replica of a table whose rows are here.
    pub(super) fn found_copy(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let (change_log, lsn) = (ChangeLogId(self.draw_id()), self.draw_lsn());
        let mut replica = Replica::new(entry.table.uid, 0, change_log, lsn);
        (replica.table, replica.ready) = (Some(entry.table.id), true);
        self.state.replicas.insert(replica);
        Ok(())
    }
}

/// Which tables a change of the directory concerns.
#[derive(Clone, Debug)]
pub(super) enum Concerned {
    These(BTreeSet<TableUid>),
    All,
}

impl Concerned {
    /// What rows may change that the directory does not have yet.
    pub(super) fn by(rows: &[Row], directory: &Directory) -> Self {
        let mut tables = BTreeSet::new();
        for row in rows {
            match row {
                Row::Scope(row) => tables.insert(row.table),
                Row::Replica(row) => tables.insert(row.table),
                Row::Grant(row) => tables.insert(row.table),
                Row::Dropped(row) => tables.insert(row.table),
                Row::Transfer(row) => tables.insert(row.table),
                // Not all tables: creating the thousandth would look at the 999 others.
                Row::Name(row) => match directory.tables_concerned(row) {
                    Some(concerned) => {
                        tables.extend(concerned);
                        continue;
                    }
                    None => return Self::All,
                },
                Row::Node(_) | Row::Removal(_) => return Self::All,
                Row::Identity(_)
                | Row::Binding(_)
                | Row::Unbinding(_)
                | Row::Revocation(_)
                | Row::Settlement(_) => continue,
            };
        }
        tables.remove(&system::UID);
        Self::These(tables)
    }
}
