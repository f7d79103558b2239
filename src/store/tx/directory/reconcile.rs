//! Rows of the directory take effect: written here or learnt, they extend the directory, and the replicas of this
//! machine follow: begun where the directory says so, drained where it says no more, ended once somebody else has
//! everything, or where they were abandoned. What replicas do is said in rows of the directory again, so that these
//! functions call each other; what users ask for stands above them.

use std::collections::BTreeSet;

use cortex_core::{
    directory::{Directory, NodeRow, ReplicaRow, Row, Standing},
    model::{
        Acl, ActorId, NodeName, Owner, QualifiedName, Scope, Signer, TableName, TableUid, Uid,
    },
    replication::{ChangeLogId, Dot},
};
use cortex_mutant::mutant;
use rusqlite::params;

use crate::store::{
    catalog::Entry,
    error::CommandError,
    events::Event,
    replica::Replica,
    system,
    tx::{
        Tx,
        directory::{
            notices::{self, DirectoryBefore},
            signed,
        },
        entries,
    },
};

/// Which tables a change of the directory concerns.
#[derive(Clone, Debug)]
pub(crate) enum Concerned {
    These(BTreeSet<TableUid>),
    All,
}

impl Concerned {
    /// What rows may change that the directory does not have yet.
    pub(crate) fn by(rows: &[Row], directory: &Directory) -> Self {
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
                | Row::NameResolution(_) => continue,
            };
        }
        tables.remove(&system::UID);
        Self::These(tables)
    }
}

/// Signs rows and stores them.
pub(crate) fn write(tx: &mut Tx<'_>, rows: Vec<Row>) -> Result<(), CommandError> {
    let signer = tx.signer()?;
    for row in &rows {
        let (key, bytes) = (row.key(), row.encode());
        let (stamp, seq) = signed::draw_after(tx, key.as_bytes())?;
        let value = system::seal(signer.as_ref(), stamp, &key, &bytes);
        let is_newest = signed::store(tx, key.as_bytes(), stamp, seq, &value)?;
        assert_newest(is_newest, row);
        if let Some(replica) = tx.state.replicas.get_mut(system::UID) {
            replica.vector.raise(Dot { actor: stamp.actor, seq });
        }
    }
    take_effect(tx, rows)
}

/// What a node writes comes after what it has written before, which the others would keep otherwise.
#[mutant(OwnRowExceeded => ())]
fn assert_newest(is_newest: bool, row: &Row) {
    debug_assert!(is_newest, "{} goes back: {row:?}", row.key());
}

/// Has the directory know rows that were stored, and does what follows from them.
pub(crate) fn take_effect(tx: &mut Tx<'_>, rows: Vec<Row>) -> Result<(), CommandError> {
    if rows.is_empty() {
        return Ok(());
    }
    let concerned = Concerned::by(&rows, tx.directory());
    let before = DirectoryBefore::of(&rows, tx.directory());
    tx.directory_mut().extend(rows);
    notices::notice(tx, &before)?;
    reconcile(tx, concerned)
}

/// Presents this node, where it is not as it was presented before. With another certificate,
/// what the node has signed is signed again: others judge it by the one that is presented. That decides nothing
/// anew: a restored machine signs what it has forgotten to have replaced.
pub(crate) fn introduce(tx: &mut Tx<'_>, signer: &dyn Signer) -> Result<(), CommandError> {
    let (node, certificate) = (signer.node().clone(), signer.certificate().to_vec());
    let (database, actor) = (tx.state.database, tx.state.own_actor());
    let now = NodeRow { node: node.clone(), certificate, database, actor };
    let presented = tx.directory().node(&node);
    if presented == Some(&now) {
        return Ok(());
    }
    let signed_before = presented.is_some_and(|row| row.certificate == now.certificate);
    write(tx, vec![Row::Node(now)])?;
    if signed_before {
        return Ok(());
    }
    signed::sign_again(tx, &node, signer)
}

/// Brings the replicas of some tables, or of all, in line with what the directory says now.
pub(crate) fn reconcile(tx: &mut Tx<'_>, tables: Concerned) -> Result<(), CommandError> {
    let Ok(here) = tx.here() else {
        return Ok(()); // no mesh: nobody has replicas
    };
    let tables: BTreeSet<TableUid> = match tables {
        Concerned::These(tables) => tables,
        Concerned::All => tx.state.catalog.directory().tables_decided().collect(),
    };
    for table in tables {
        reconcile_table(tx, table, &here)?;
    }
    Ok(())
}

fn reconcile_table(tx: &mut Tx<'_>, table: TableUid, here: &NodeName) -> Result<(), CommandError> {
    let directory = tx.state.catalog.directory();
    let standing = directory.standing(table, here);
    let gone = directory.gone(table).get(here).copied().unwrap_or(0);
    let dropped = directory.is_dropped(table);
    if dropped {
        return forget_dropped(tx, table);
    }
    let epoch = tx.state.replicas.get(table).map_or(0, |replica| replica.epoch);
    if is_abandoned(epoch, gone) {
        if was_ended_by_this_node(tx, table, here, epoch) {
            resume(tx, table, here)?;
        } else {
            abandon(tx, table)?;
        }
    }
    let epoch = tx.state.replicas.get(table).map_or(0, |replica| replica.epoch);
    let said = tx.state.catalog.directory().replica(table, here);
    if epoch > 0 && said.is_some_and(|row| row.up == epoch && row.database != tx.state.database) {
        publish_epoch(tx, table, here, epoch)?; // restored: the replica is in another database now
    }
    match standing {
        Standing::In if epoch == 0 => begin_epoch(tx, table, here)?,
        Standing::Out if epoch > 0 => begin_drain(tx, table)?,
        Standing::Frozen if epoch > 0 => keep_frozen(tx, table)?,
        Standing::In | Standing::Frozen => stop_drain(tx, table),
        Standing::Out => end_forgotten_epoch(tx, table, here)?,
    }
    entries::rename_as_decided(tx, table)?;
    entries::refresh(tx, table);
    Ok(())
}

#[mutant(AbandonedEnds => false)]
fn is_abandoned(epoch: u64, gone: u64) -> bool {
    epoch > 0 && gone >= epoch
}

/// Where decisions compete, the one that wants the replica may win.
#[mutant(FrozenKeeps => begin_drain(tx, table))]
fn keep_frozen(tx: &mut Tx<'_>, table: TableUid) -> Result<(), CommandError> {
    stop_drain(tx, table);
    Ok(())
}

/// A replica epoch begins. Where the rows are here already, since the table was made here, it is whole.
fn begin_epoch(tx: &mut Tx<'_>, table: TableUid, here: &NodeName) -> Result<(), CommandError> {
    let directory = tx.state.catalog.directory();
    let gone = directory.gone(table).get(here).copied().unwrap_or(0);
    let known = directory.epochs(table).get(here).copied().unwrap_or(0);
    let mut epoch = known.max(gone + 1);
    if directory.replica(table, here).is_some_and(|row| row.up >= epoch) {
        // That replica epoch has begun, in a database that is not this one any more: it has ended with it.
        epoch += 1;
    }
    match tx.state.replicas.get_mut(table) {
        Some(replica) => replica.epoch = epoch,
        None => {
            let (change_log, lsn) = (ChangeLogId(tx.draw_id()), tx.draw_lsn());
            tx.state.replicas.insert(Replica::new(table, epoch, change_log, lsn));
        }
    }
    publish_epoch(tx, table, here, epoch)
}

/// True where this node itself has said that an epoch is over, in a newer database than this one.
#[mutant(EndedEpochResumes => false)]
fn was_ended_by_this_node(tx: &Tx<'_>, table: TableUid, here: &NodeName, epoch: u64) -> bool {
    let said = tx.state.catalog.directory().replica(table, here);
    said.is_some_and(|row| row.down >= epoch)
}

/// A restored database has brought a replica back that this node had ended. It goes on in the next epoch: where
/// the scope leaves it out it is drained once more, so that what only it has, written since perhaps, reaches the
/// others by the usual merge, and its bytes go before the node says again that it has left.
///
/// It is not simply thrown away as known: an epoch also counts as ended where a database that had forgotten it
/// said so, and nobody else has its rows then. Nor are they rescued as those of an epoch that somebody else has
/// given up: the table that this would make keeps the rows of a table whose status says that it has left.
fn resume(tx: &mut Tx<'_>, table: TableUid, here: &NodeName) -> Result<(), CommandError> {
    if let Some(replica) = tx.state.replicas.get_mut(table) {
        replica.drain = None; // what was acknowledged to the ended epoch says nothing of this one
    }
    begin_epoch(tx, table, here)?;
    if let Some(entry) = tx.state.catalog.by_uid(table).cloned() {
        let shown = tx.state.catalog.show(&entry.table.name);
        let text = format!(
            "{shown} had left this machine in a newer database than this one: its replica goes on from here"
        );
        tx.note_of(&entry.table.name, "table_resumed", text)?;
    }
    Ok(())
}

/// Says that a replica epoch of this replica has begun, and that those before it are over.
fn publish_epoch(
    tx: &mut Tx<'_>,
    table: TableUid,
    here: &NodeName,
    epoch: u64,
) -> Result<(), CommandError> {
    let said = tx.state.catalog.directory().replica(table, here);
    let down = said.map_or(0, |row| row.down).max(epoch - 1);
    publish_epochs(tx, table, here, epoch, down)
}

/// Says which replica epoch of this replica has begun last, and up to which they are over.
pub(crate) fn publish_epochs(
    tx: &mut Tx<'_>,
    table: TableUid,
    here: &NodeName,
    up: u64,
    down: u64,
) -> Result<(), CommandError> {
    let declines = tx.state.catalog.directory().declines(table, here);
    let (node, database) = (here.clone(), tx.state.database);
    write(tx, vec![Row::Replica(ReplicaRow { table, node, database, up, down, declines })])
}

/// A replica epoch that others know of and this database does not: it was begun in a newer one than this, or a
/// decision
/// let it begin and another ended it before this node received either. It is over, or everybody would wait for
/// this node's status for ever, and remember deletions for it.
#[mutant(ForgottenEpochEnds => Ok(()))]
fn end_forgotten_epoch(
    tx: &mut Tx<'_>,
    table: TableUid,
    here: &NodeName,
) -> Result<(), CommandError> {
    if tx.state.departures.include(table) {
        return Ok(()); // it is known, and published once its bytes are gone
    }
    match forgotten_epoch(tx, table, here) {
        Some(epoch) => publish_epochs(tx, table, here, epoch, epoch),
        None => Ok(()),
    }
}

/// The newest replica epoch that is not over by what the directory says, of a node that has none.
pub(crate) fn forgotten_epoch(tx: &Tx<'_>, table: TableUid, here: &NodeName) -> Option<u64> {
    let directory = tx.state.catalog.directory();
    let gone = directory.gone(table).get(here).copied().unwrap_or(0);
    directory.epochs(table).get(here).copied().filter(|epoch| *epoch > gone)
}

fn begin_drain(tx: &mut Tx<'_>, table: TableUid) -> Result<(), CommandError> {
    let nonce = tx.draw_id();
    let Some(replica) = tx.state.replicas.get_mut(table) else {
        return Ok(());
    };
    if replica.drain.is_some() {
        return Ok(());
    }
    replica.drain = Some(nonce);
    let empty = replica.table.is_none();
    if let Some(entry) = tx.state.catalog.by_uid(table).cloned() {
        let shown = tx.state.catalog.show(&entry.table.name);
        let text = format!(
            "{shown} drains from this machine: what only this one has is handed over first"
        );
        tx.note_of(&entry.table.name, "table_draining", text)?;
    }
    if empty {
        return end_epoch(tx, table, ""); // nothing has come yet
    }
    Ok(())
}

fn stop_drain(tx: &mut Tx<'_>, table: TableUid) {
    if tx.state.replicas.get(table).is_some_and(|replica| replica.drain.is_some())
        && let Some(replica) = tx.state.replicas.get_mut(table)
    {
        replica.drain = None;
    }
}

/// The replica epoch is over: its rows go, and nothing that it knew counts any more. It is published once no
/// byte of it is left.
pub(crate) fn end_epoch(tx: &mut Tx<'_>, table: TableUid, taker: &str) -> Result<(), CommandError> {
    let here = tx.here()?;
    let Some(replica) = tx.state.replicas.get(table).cloned() else {
        return Ok(());
    };
    match tx.state.catalog.by_uid(table).cloned() {
        Some(entry) => {
            entries::discard_rows(tx, &entry)?;
            clear_replica(tx, &replica)?;
            depart(tx, &entry, &replica, taker)?;
        }
        None => {
            clear_replica(tx, &replica)?;
            publish_epochs(tx, table, &here, replica.epoch, replica.epoch)?;
        }
    }
    leave_actor(tx)
}

/// It must not claim, as the same actor, what it has just thrown away.
#[mutant(LeavingRotatesActor => Ok(()))]
fn leave_actor(tx: &mut Tx<'_>) -> Result<(), CommandError> {
    rotate_actor(tx)
}

/// Remembers that a replica epoch is over whose rows have just gone out of sight.
fn depart(
    tx: &mut Tx<'_>,
    entry: &Entry,
    replica: &Replica,
    taker: &str,
) -> Result<(), CommandError> {
    let name = &entry.table.name;
    let (table, owner) = (entry.table.id.0, tx.state.catalog.uid_here(&name.owner));
    let shown = tx.state.catalog.show(name);
    tx.execute(
        "INSERT OR REPLACE INTO departures (table_id, uid, epoch, owner, name, taker)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![table, replica.uid.0, replica.epoch, owner.map(|uid| uid.0), shown, taker],
    )?;
    tx.state.departures.begin(table, replica.uid, replica.epoch);
    Ok(())
}

/// The replica epoch was declared lost while it was not: what it has becomes a table of this machine alone, and
/// the replica starts again.
fn abandon(tx: &mut Tx<'_>, table: TableUid) -> Result<(), CommandError> {
    let Some(replica) = tx.state.replicas.get(table).cloned() else {
        return Ok(());
    };
    if let Some(entry) = tx.state.catalog.by_uid(table).cloned() {
        rescue(tx, &entry)?;
    }
    clear_replica(tx, &replica)?;
    rotate_actor(tx)
}

/// Makes the rows of a replica a table that has no other replicas.
fn rescue(tx: &mut Tx<'_>, entry: &Entry) -> Result<(), CommandError> {
    let owner = tx.state.catalog.uid_here(&entry.table.name.owner).unwrap_or(Uid::ROOT);
    let owner = Owner::Uid(owner);
    let taken = |name: &str| tx.state.catalog.find(&owner, name).is_some();
    let base: String = entry.table.name.name.as_str().chars().take(100).collect();
    let free = (1_u32..).map(|n| format!("{base}_rescued_{n}")).find(|name| !taken(name));
    let name = TableName::parse(&free.unwrap_or_default()).map_err(CommandError::from)?;
    let uid = TableUid(tx.draw_id());
    tx.execute(
        "UPDATE tables SET uid = ?2, owner = ?3, name = ?4, scope = 'local', replicated = 0
         WHERE id = ?1",
        params![entry.table.id.0, uid.0, owner.to_string(), name.as_str()],
    )?;
    let held = tx.totals.held_by(entry);
    tx.totals.add_to_owner(entry, held.negated());
    let mut rescued = Entry::clone(entry);
    rescued.table.name = QualifiedName { owner, name };
    rescued.table.uid = uid;
    rescued.table.scope = Scope::Local;
    rescued.table.contested = false;
    rescued.table.acl = Acl::default();
    rescued.replicated = false;
    rescued.standing = Standing::In;
    rescued.ready = true;
    tx.totals.add_to_owner(&rescued, held);
    tx.catalog_mut().remove(&entry.table.name);
    let shown = tx.state.catalog.show(&entry.table.name);
    let text = format!(
        "the replica of {shown} was abandoned elsewhere; its rows are in {} now",
        rescued.table.name
    );
    tx.note_of(&rescued.table.name, "table_rescued", text)?;
    tx.catalog_mut().insert(rescued);
    Ok(())
}

/// The table is dropped for good. Where that was asked for here, `drop_table` has removed it already, and has said so.
fn forget_dropped(tx: &mut Tx<'_>, table: TableUid) -> Result<(), CommandError> {
    let entry = tx.state.catalog.by_uid(table).cloned();
    if let Some(entry) = entry {
        let shown = tx.state.catalog.show(&entry.table.name);
        let by: Vec<_> = tx.directory().dropped_by(table).map(ToString::to_string).collect();
        entries::discard_rows(tx, &entry)?;
        // This node itself is among them where it had dropped the table after the backup that it was restored from.
        let text = format!("table {shown} was dropped on {}", by.join(", "));
        tx.note_of(&entry.table.name, "table_dropped", text)?;
    }
    if let Some(replica) = tx.state.replicas.get(table).cloned()
        && (replica.table.is_some() || replica.epoch > 0)
    {
        clear_replica(tx, &replica)?;
    }
    Ok(())
}

/// Forgets what a replica knew of itself and of others. Its change log and marks go with its rows.
fn clear_replica(tx: &mut Tx<'_>, replica: &Replica) -> Result<(), CommandError> {
    if let Some(table) = replica.table {
        for statement in [
            "DELETE FROM cursors WHERE table_id = ?1",
            "DELETE FROM marks WHERE table_id = ?1",
            "DELETE FROM conflicts WHERE table_id = ?1",
        ] {
            tx.execute(statement, [table.0])?;
        }
    }
    let (change_log, lsn) = (ChangeLogId(tx.draw_id()), tx.draw_lsn());
    tx.state.replicas.insert(Replica::new(replica.uid, 0, change_log, lsn));
    Ok(())
}

/// A place in the old one may be one that a rollback has taken back.
#[mutant(ActorEndsChangeLogs => ())]
fn begin_change_log(replica: &mut Replica, id: ChangeLogId, lsn: u64) {
    (replica.change_log, replica.truncated_lsn) = (id, lsn);
}

/// Becomes another actor, with other change logs. Transfers that are under way go on: their rows and
/// marks are in this file, and an answer to a request of the old actor does not count.
pub(crate) fn rotate_actor(tx: &mut Tx<'_>) -> Result<(), CommandError> {
    let id = ActorId(u128::from_be_bytes(tx.draw_id()));
    let number = tx.state.actors.enter(tx.conn, id, tx.state.hlc())?;
    tx.execute("UPDATE node_state SET actor = ?1 WHERE id = 1", [number])?;
    (tx.state.actor_number, tx.state.seq) = (number, 0);
    tx.changed = true;
    let lsn = tx.draw_lsn();
    let replicas: Vec<_> = tx.state.replicas.iter().map(|replica| replica.uid).collect();
    for uid in replicas {
        let change_log = ChangeLogId(tx.draw_id());
        if let Some(replica) = tx.state.replicas.get_mut(uid) {
            begin_change_log(replica, change_log, lsn);
        }
    }
    if let Some(signer) = tx.state.signer.clone() {
        introduce(tx, signer.as_ref())?;
    }
    let text = "actor id rotated: later writes of this machine carry another one".to_owned();
    tx.note(&Event { uid: None, kind: "actor_rotated", text })?;
    Ok(())
}
