//! Tables that change their owner, in the writer's transaction. Who may hand one over is the gate's; what a transfer
//! means, `cortex_core::directory`'s.
//!
//! Nothing of a table moves: rows, grants, change log and replicas belong to its lasting id. So a table of any size
//! changes
//! its owner in one transaction, and either has wholly.

use std::{collections::BTreeSet, sync::Arc};

use cortex_core::{
    directory::Standing,
    gate,
    model::{Caller, Owner, Permissions, QualifiedName, Refusal, Scope, TableName, TableUid, Uid},
};
use rusqlite::params;

use super::{
    apply::Tx,
    catalog::Entry,
    command::Outcome,
    error::{CommandError, StoreError},
};

/// The kind of the events.
const HANDED_OVER: &str = "table_handed_over";

impl Tx<'_> {
    /// Hands a table over.
    pub(super) fn chown(
        &mut self,
        caller: &Caller,
        entry: &Entry,
        owner: &Owner,
        name: Option<&TableName>,
    ) -> Result<Outcome, CommandError> {
        let entry = self.admit_anywhere(caller, entry, Permissions::ADMIN)?;
        if *caller != Caller::Local(Uid::ROOT) {
            return Err(Refusal::AccessDenied.into());
        }
        let before = entry.table.name.clone();
        let to = QualifiedName {
            owner: owner.clone(),
            name: name.cloned().unwrap_or_else(|| before.name.clone()),
        };
        if to == before {
            return Ok(Outcome::HandedOver);
        }
        self.check_receiver(&to)?;
        if let Owner::Identity(id) = owner
            && self.state.catalog.directory().identity(*id).is_none()
        {
            return Err(Refusal::UnknownIdentity.into());
        }
        let shown = self.state.catalog.show(&before);
        if entry.replicated {
            self.transfer(entry.table.uid, &entry.table.scope, &to)?;
        } else if let Owner::Identity(_) = owner {
            let table = self.share(&entry)?;
            self.decide_scope(table, &Scope::Local, &BTreeSet::new())?;
            self.transfer(table, &Scope::Local, &to)?;
        } else {
            self.rename(&entry, to.clone())?;
        }
        let now = self.state.catalog.show(&to);
        let text = format!("table {shown} was handed over and is {now}, by {caller}");
        if !entry.is_in_file() {
            self.note_of(&to, HANDED_OVER, text.clone())?;
        }
        self.note_of(&before, HANDED_OVER, text)?;
        Ok(Outcome::HandedOver)
    }

    /// Refuses a name that the new owner has in use, and more tables than they may have.
    fn check_receiver(&self, to: &QualifiedName) -> Result<(), Refusal> {
        let catalog = &self.state.catalog;
        let name = to.name.as_str();
        if catalog.find(&to.owner, name).is_some()
            || catalog.find_elsewhere(&to.owner, name).is_some()
        {
            return Err(Refusal::AlreadyExists);
        }
        let owned = catalog.namespace(&to.owner).map_or(0, |namespace| namespace.tables().len());
        if owned >= self.limits.tables_per_uid {
            return Err(Refusal::TooManyTables(self.limits.tables_per_uid));
        }
        Ok(())
    }

    /// Has every node know whose a table is from now on.
    fn transfer(
        &mut self,
        table: TableUid,
        scope: &Scope,
        to: &QualifiedName,
    ) -> Result<(), CommandError> {
        let here = self.here()?;
        let directory = self.state.catalog.directory();
        let qualified = match &to.owner {
            Owner::Uid(uid) => Owner::Remote(*uid, here.clone()),
            owner @ (Owner::Remote(..) | Owner::Identity(_)) => owner.clone(),
        };
        if matches!(to.owner, Owner::Uid(_)) && !directory.in_scope(table).contains(&here) {
            // The table of a uid lives on its machine.
            gate::admit_scope(&to.owner, scope, &BTreeSet::new(), directory)?;
            return Err(Refusal::ScopeWithoutHome(here.as_str().into()).into());
        }
        let named = QualifiedName { owner: qualified, name: to.name.clone() };
        let rows = directory.transfer(&here, table, &named, self.wall_ms)?;
        self.write(rows)
    }

    /// Calls the replica here what the directory says that its table is called.
    pub(super) fn rename_as_told(&mut self, table: TableUid) -> Result<(), CommandError> {
        let Some(entry) = self.state.catalog.by_uid(table).cloned() else {
            return Ok(());
        };
        let Some(told) = self.state.catalog.directory().transferred(table) else {
            return Ok(());
        };
        let to = self.name_here(table, told)?;
        if to == entry.table.name {
            return Ok(());
        }
        self.rename(&entry, to)?;
        Ok(())
    }

    /// What a table is called here that the directory calls so: a uid of this machine without its name, and another
    /// name where that one is taken, as by a table that was made meanwhile on the other side of a cut.
    pub(super) fn name_here(
        &self,
        table: TableUid,
        told: QualifiedName,
    ) -> Result<QualifiedName, CommandError> {
        let here = self.here()?;
        let owner = match told.owner {
            Owner::Remote(uid, node) if node == here => Owner::Uid(uid),
            owner @ (Owner::Uid(_) | Owner::Remote(..) | Owner::Identity(_)) => owner,
        };
        let named = QualifiedName { owner, name: told.name };
        let catalog = &self.state.catalog;
        let holder = catalog.find(&named.owner, named.name.as_str());
        let made = match &named.owner {
            Owner::Identity(id) => catalog.directory().federated(*id, &named.name),
            Owner::Uid(_) | Owner::Remote(..) => None,
        };
        let is_taken = holder.is_some_and(|entry| entry.table.uid != table)
            || made.is_some_and(|other| other != table);
        if !is_taken {
            return Ok(named);
        }
        let digits = table.to_string();
        let base: String = named.name.as_str().chars().take(100).collect();
        let name = TableName::parse(&format!("{base}_{}", &digits[..8]))?;
        Ok(QualifiedName { owner: named.owner, name })
    }

    /// Lets tables of uids elsewhere come to their homes again. Versions before 0.1.0 took a scope without the
    /// table's home, and after that nobody could decide about it: there the table was not known any more, and
    /// here its owner is nobody. Where the home has another database meanwhile, the same uid may be another person.
    pub(super) fn bring_home(&mut self) -> Result<(), CommandError> {
        let here = self.here()?;
        let catalog = Arc::clone(&self.state.catalog);
        let directory = catalog.directory();
        let entries = catalog.namespaces().flat_map(|(_, namespace)| namespace.tables());
        for entry in entries {
            let table = entry.table.uid;
            let Owner::Remote(_, home) = &entry.table.name.owner else { continue };
            let holders = directory.in_scope(table);
            let decides_here = holders.first() == Some(&here);
            let database = |node| directory.node(node).map(|row| row.database);
            let is_same = directory.replica(table, home).map(|row| row.database) == database(home);
            if directory.standing(table, home) != Standing::Out
                || directory.is_declined(table, home)
                || directory.is_put_out(home)
                || !decides_here
                || !is_same
            {
                continue;
            }
            let nodes = holders.into_iter().chain([home.clone()]).collect();
            let scope = Scope::Nodes(nodes);
            self.decide_scope(table, &scope, &BTreeSet::new())?;
            let shown = catalog.show(&entry.table.name);
            let text = format!("scope of {shown} is {scope}: its home had been left out");
            self.note_of(&entry.table.name, "scope_changed", text)?;
        }
        Ok(())
    }

    /// Gives a table that is here another name, or another owner.
    fn rename(&mut self, entry: &Arc<Entry>, to: QualifiedName) -> Result<(), StoreError> {
        self.execute(
            "UPDATE tables SET owner = ?2, name = ?3 WHERE id = ?1",
            params![entry.table.id.0, to.owner.to_string(), to.name.as_str()],
        )?;
        let held = self.totals.held_by(entry);
        self.totals.add_to_owner(entry, held.negated());
        let (shown, now) =
            (self.state.catalog.show(&entry.table.name), self.state.catalog.show(&to));
        self.note_of(&to, HANDED_OVER, format!("table {shown} was handed over and is {now}"))?;
        let mut renamed = Entry::clone(entry);
        renamed.table.name = to;
        self.totals.add_to_owner(&renamed, held);
        self.catalog_mut().remove(&entry.table.name);
        self.catalog_mut().insert(renamed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use cortex_core::{
        directory::{NodeRow, ReplicaRow, Row, ScopeRow, Seen},
        model::{ActorId, Hlc, NodeName, Stamp},
    };

    use super::super::{
        command::Command,
        database::Database,
        fake_signer::FakeSigner,
        system::{SealedRow, VerifiedRow, seal},
    };
    use super::*;

    const TABLE: TableUid = TableUid([7; 16]);

    fn node(text: &str) -> NodeName {
        NodeName::parse(text).expect("a name")
    }

    /// A row as home has signed it.
    fn of_home(row: Row, number: u64) -> VerifiedRow {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(number), actor: ActorId(5) };
        let key = row.key();
        let value = seal(&FakeSigner::of("home"), stamp, &key, &row.encode());
        VerifiedRow { sealed: SealedRow { key: key.into_bytes(), value, stamp, seq: number }, row }
    }

    fn decision(scope: &str, count: u64) -> Row {
        Row::Scope(ScopeRow {
            table: TABLE,
            by: node("home"),
            scope: Scope::parse(scope).expect("a scope"),
            count,
            seen: Seen::new(),
            epochs: Seen::new(),
            off: Seen::new(),
        })
    }

    fn copy_of_home(database: u8, up: u64, down: u64) -> Row {
        let (node, database) = (node("home"), [database; 16]);
        Row::Replica(ReplicaRow { table: TABLE, node, database, up, down, declines: 0 })
    }

    fn home(database: u8) -> Row {
        let (certificate, actor) = (b"home".to_vec(), ActorId(5));
        Row::Node(NodeRow { node: node("home"), certificate, database: [database; 16], actor })
    }

    /// Office with a table of a uid of home, as it was left by a version that took a scope without the home.
    fn left_by_an_older_version(home_now: u8) -> Database {
        let drawn = Cell::new(0_u128);
        let mut office = Database::in_memory(move || {
            drawn.set(drawn.get() + 1);
            drawn.get().to_be_bytes()
        })
        .expect("a database");
        let join = || Command::Join(Arc::new(FakeSigner::of("office")));
        office.execute(&join(), 1).expect("joined");
        let rows = [home(1), decision("home,office", 1), copy_of_home(1, 1, 0)];
        let rows = rows.into_iter().zip(1..).map(|(row, number)| of_home(row, number));
        office.execute(&Command::Learn(rows.collect()), 2).expect("learnt");
        office
            .connection()
            .execute_batch(
                "INSERT INTO tables (uid, owner, name, attributes, scope, replicated, created_hlc)
                 VALUES (x'07070707070707070707070707070707', '1000@home', 'users', 'id', 'all', 1, 0);
                 UPDATE replicas SET ready = 1, table_id = (SELECT max(id) FROM tables)
                 WHERE uid = x'07070707070707070707070707070707';",
            )
            .expect("its copy is whole");
        office.reload().expect("it is read");
        let rows = [decision("office", 2), copy_of_home(1, 1, 1), home(home_now)];
        let rows = rows.into_iter().zip(10..).map(|(row, number)| of_home(row, number));
        office.execute(&Command::Learn(rows.collect()), 3).expect("learnt");
        let standing = office.catalog().directory().standing(TABLE, &node("home"));
        assert_eq!(standing, Standing::Out, "nobody can decide");
        office.execute(&join(), 4).expect("joined");
        office
    }

    /// holds S1
    #[test]
    fn a_home_that_an_older_version_left_out_is_let_in_again() {
        let office = left_by_an_older_version(1);
        let directory = office.catalog().directory();
        assert_eq!(directory.standing(TABLE, &node("home")), Standing::In);
        assert_eq!(
            directory.standing(TABLE, &node("office")),
            Standing::In,
            "and stays where it is"
        );
    }

    /// The same uid of a machine that was installed again may be another person.
    #[test]
    fn a_home_with_another_database_is_not_let_in() {
        let office = left_by_an_older_version(2);
        let directory = office.catalog().directory();
        assert_eq!(directory.standing(TABLE, &node("home")), Standing::Out);
    }
}
