//! Where tables may be: decided here, and what of a table is shared before its rows may leave.

use std::{collections::BTreeSet, sync::Arc};

use cortex_core::{
    directory::{DroppedRow, Row, Standing},
    gate,
    model::{Caller, NodeName, Owner, Permissions, Refusal, Scope, TableUid},
    replication::{ChangeLogId, Dot},
};
use rusqlite::params;

use crate::store::{
    catalog::Entry,
    command::TableOutcome,
    error::{CommandError, StoreError},
    replica::{self, Replica},
    tx::{Tx, admission, directory::reconcile, entries},
};

pub(crate) fn set_scope(
    tx: &mut Tx<'_>,
    caller: &Caller,
    entry: &Entry,
    scope: &Scope,
    abandon: &BTreeSet<NodeName>,
) -> Result<TableOutcome, CommandError> {
    let entry = admission::admit_anywhere(tx, caller, entry, Permissions::ADMIN)?;
    if !entry.replicated && *scope == Scope::Local {
        return Ok(TableOutcome::Scoped); // it is, and nobody else ever knew of it
    }
    let here = tx.here()?;
    let is_decided = tx.directory().is_decided(&here, entry.table.uid, scope);
    if entry.replicated && abandon.is_empty() && is_decided {
        return Ok(TableOutcome::Scoped); // nothing to decide, and nothing to compete with
    }
    gate::admit_scope(&entry.table.name.owner, scope, abandon, tx.directory())?;
    if *scope == Scope::Local {
        // Nobody else would keep it, and there may be nothing here to keep.
        entry.takes_reads()?;
        if entry.standing != Standing::In {
            return Err(Refusal::TableNotReady.into());
        }
    }
    let table = if entry.replicated { entry.table.uid } else { share(tx, &entry)? };
    decide_scope(tx, table, scope, abandon)?;
    if entry.is_in_file() {
        tx.execute(
            "UPDATE tables SET scope = ?2, replicated = 1 WHERE id = ?1",
            params![entry.table.id.0, scope.to_string()],
        )?;
    }
    entries::refresh(tx, table);
    let name = &entry.table.name;
    let shown = tx.directory().show(name);
    tx.note_of(name, "scope_changed", format!("scope of {shown} is {scope}, by {caller}"))?;
    Ok(TableOutcome::Scoped)
}

/// Makes a table that was only ever here one that others may have replicas of.
pub(crate) fn share(tx: &mut Tx<'_>, entry: &Entry) -> Result<TableUid, CommandError> {
    let mut shared = Entry::clone(entry);
    shared.replicated = true;
    // A replica of this file may have the table too, and it may be shared there: that is another one.
    shared.table.uid = TableUid(tx.draw_id());
    tx.execute(
        "UPDATE tables SET uid = ?2 WHERE id = ?1",
        params![shared.table.id.0, shared.table.uid.0],
    )?;
    share_grants(tx, &shared)?;
    tx.catalog_mut().insert(Entry::clone(&shared));
    insert_replica(tx, &shared)?;
    share_rows(tx, &shared)?;
    Ok(shared.table.uid)
}

/// Moves the grants on a table into the directory, before its rows may leave: there a bare uid
/// is qualified with this node, as others have users of the same number.
fn share_grants(tx: &mut Tx<'_>, entry: &Entry) -> Result<(), CommandError> {
    let here = tx.here()?;
    for (principal, rights) in entry.table.acl.iter() {
        let principal = principal.clone().qualified(&here);
        let rows = tx.directory().grant(&here, entry.table.uid, &principal, rights)?;
        reconcile::write(tx, rows)?;
    }
    tx.execute("DELETE FROM grants WHERE table_id = ?1", [entry.table.id.0])?;
    Ok(())
}

/// Has a replica know the rows that its table had before it was shared. They are in no change log: others read
/// them in the order of their keys.
fn share_rows(tx: &mut Tx<'_>, entry: &Entry) -> Result<(), CommandError> {
    let (table, uid) = (entry.table.id, entry.table.uid);
    let digest = replica::recount(tx.conn, &tx.state.actors, table, uid)?;
    let dots: Vec<Dot> = {
        let mut statement =
            tx.cached("SELECT actor, max(seq) FROM records WHERE table_id = ?1 GROUP BY actor")?;
        let dot = |row: &rusqlite::Row<'_>| {
            Ok(Dot { actor: tx.state.actors.id(row.get(0)?), seq: row.get(1)? })
        };
        statement.query_map([table.0], dot)?.collect::<Result<_, _>>()?
    };
    if let Some(replica) = tx.state.replicas.get_mut(uid) {
        replica.digest = digest;
        dots.into_iter().for_each(|dot| replica.vector.raise(dot));
    }
    Ok(())
}

/// Makes the replica of a table whose rows are here.
pub(crate) fn insert_replica(tx: &mut Tx<'_>, entry: &Entry) -> Result<(), StoreError> {
    let (change_log, lsn) = (ChangeLogId(tx.draw_id()), tx.draw_lsn());
    let mut replica = Replica::new(entry.table.uid, 0, change_log, lsn);
    (replica.table, replica.ready) = (Some(entry.table.id), true);
    tx.state.replicas.insert(replica);
    Ok(())
}

/// Decides where a table may be, and which replicas are not to be waited for any more.
pub(crate) fn decide_scope(
    tx: &mut Tx<'_>,
    table: TableUid,
    scope: &Scope,
    abandon: &BTreeSet<NodeName>,
) -> Result<(), CommandError> {
    let here = tx.here()?;
    let now_ms = tx.wall_ms;
    let row = tx.directory().decide_scope(&here, table, scope.clone(), abandon, now_ms)?;
    reconcile::write(tx, vec![row])
}

/// Says that a table is gone for good, to all that may have replicas.
pub(crate) fn declare_dropped(tx: &mut Tx<'_>, table: TableUid) -> Result<(), CommandError> {
    let by = tx.here()?;
    reconcile::write(tx, vec![Row::Dropped(DroppedRow { table, by })])
}

/// Lets tables of uids elsewhere come to their homes again. Versions before 0.1.0 took a scope without the
/// table's home, and after that nobody could decide about it: there the table was not known any more, and
/// here its owner is nobody. Where the home has another database meanwhile, the same uid may be another person.
pub(crate) fn bring_home(tx: &mut Tx<'_>) -> Result<(), CommandError> {
    let here = tx.here()?;
    let catalog = Arc::clone(&tx.state.catalog);
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
        decide_scope(tx, table, &scope, &BTreeSet::new())?;
        let shown = catalog.show(&entry.table.name);
        let text = format!("scope of {shown} is {scope}: its home had been left out");
        tx.note_of(&entry.table.name, "scope_changed", text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use cortex_core::{
        directory::{NodeRow, ReplicaRow, Row, ScopeRow, SealedRow, Seen},
        model::{ActorId, Hlc, NodeName, Stamp},
    };

    use crate::store::{
        command::{Command, DirectoryCommand},
        database::Database,
        fake_signer::FakeSigner,
        system::{VerifiedRow, seal},
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

    fn replica_of_home(database: u8, up: u64, down: u64) -> Row {
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
        let join =
            || Command::Directory(DirectoryCommand::Join(Arc::new(FakeSigner::of("office"))));
        office.execute(&join(), 1).expect("joined");
        let rows = [home(1), decision("home,office", 1), replica_of_home(1, 1, 0)];
        let rows = rows.into_iter().zip(1..).map(|(row, number)| of_home(row, number));
        office
            .execute(&Command::Directory(DirectoryCommand::Learn(rows.collect())), 2)
            .expect("learnt");
        office
            .connection()
            .execute_batch(
                "INSERT INTO tables (uid, owner, name, attributes, scope, replicated, created_hlc)
                 VALUES (x'07070707070707070707070707070707', '1000@home', 'users', 'id', 'all', 1, 0);
                 UPDATE replicas SET ready = 1, table_id = (SELECT max(id) FROM tables)
                 WHERE uid = x'07070707070707070707070707070707';",
            )
            .expect("its replica is whole");
        office.reload().expect("it is read");
        let rows = [decision("office", 2), replica_of_home(1, 1, 1), home(home_now)];
        let rows = rows.into_iter().zip(10..).map(|(row, number)| of_home(row, number));
        office
            .execute(&Command::Directory(DirectoryCommand::Learn(rows.collect())), 3)
            .expect("learnt");
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
