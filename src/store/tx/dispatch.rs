//! One command inside the writer's transaction: which function carries it out, and what of it stays where it is
//! refused half way.

use std::sync::Arc;

use cortex_core::model::{Permissions, QualifiedName, Refusal};

use crate::store::{
    catalog::Entry,
    command::{
        Command, DirectoryCommand, DirectoryOutcome, Outcome, RecordCommand, RecordOutcome,
        ReplicationCommand, ReplicationOutcome, TableCommand, TableOutcome, UpkeepCommand,
        UpkeepOutcome,
    },
    error::CommandError,
    tx::{
        Tx, admission,
        directory::{identities, learn, membership, reconcile, signed, tokens},
        ledger, records,
        replication::{apply_batch, drain, restamp, tombstone_gc},
        tables::{grants, lifecycle, owners, scopes},
        upkeep::{audit, purge},
    },
};

/// Carries out one command. A refusal has changed nothing; after a fault the transaction must be rolled back.
pub(crate) fn apply(tx: &mut Tx<'_>, command: &Command) -> Result<Outcome, CommandError> {
    if command.decides_first() {
        return carry_out(tx, command);
    }
    wholly(tx, |tx| carry_out(tx, command))
}

/// Takes back what a command has changed where it is refused half way.
fn wholly(
    tx: &mut Tx<'_>,
    command: impl FnOnce(&mut Tx<'_>) -> Result<Outcome, CommandError>,
) -> Result<Outcome, CommandError> {
    let before = (tx.state.clone(), tx.totals.clone());
    tx.execute("SAVEPOINT command", [])?;
    let outcome = command(tx);
    if let Err(CommandError::Faulted(_)) = &outcome {
        return outcome; // a full disk has ended the transaction already, savepoint and all
    }
    if let Err(CommandError::Refused(_)) = &outcome {
        tx.execute("ROLLBACK TO command", [])?;
        (tx.state, tx.totals) = before;
        tx.contexts.forget();
        tx.newest_context = None;
        tx.fresh.mark_incomplete();
    }
    tx.execute("RELEASE command", [])?;
    outcome
}

fn carry_out(tx: &mut Tx<'_>, command: &Command) -> Result<Outcome, CommandError> {
    match command {
        Command::Records(command) => on_records(tx, command).map(Outcome::from),
        Command::Tables(command) => on_tables(tx, command).map(Outcome::from),
        Command::Directory(command) => on_directory(tx, command).map(Outcome::from),
        Command::Replication(command) => on_replication(tx, command).map(Outcome::from),
        Command::Upkeep(command) => on_upkeep(tx, command).map(Outcome::from),
        Command::Stop => Ok(Outcome::Stopped),
    }
}

fn on_records(tx: &mut Tx<'_>, command: &RecordCommand) -> Result<RecordOutcome, CommandError> {
    match command {
        RecordCommand::Put { caller, entry, key, record } => {
            records::put(tx, caller, entry, key.as_bytes(), record)
        }
        RecordCommand::Delete { caller, entry, key } => {
            records::delete(tx, caller, entry, key.as_bytes())
        }
        RecordCommand::Acknowledge { caller, entry, conflict } => {
            let entry = admission::admit(tx, caller, entry, Permissions::WRITE)?;
            let table = (entry.table.id, entry.table.uid);
            let count = ledger::acknowledge(tx, table, *conflict)?;
            Ok(RecordOutcome::Acknowledged { count })
        }
        RecordCommand::ReAnnounce { entry, keys } => {
            let entry = current(tx, entry)?;
            let count = records::re_announce(tx, &entry, keys)?;
            Ok(RecordOutcome::ReAnnounced { count })
        }
        RecordCommand::Rewrite { entry, keys } => {
            let entry = current(tx, entry)?;
            entry.takes_writes()?;
            let count = records::rewrite(tx, &entry, keys)?;
            Ok(RecordOutcome::Rewritten { count })
        }
        RecordCommand::Erase { caller, entry, rows } => {
            let entry = admission::admit(tx, caller, entry, Permissions::WRITE)?;
            entry.takes_writes()?;
            let count = records::erase_unchanged(tx, &entry, rows)?;
            Ok(RecordOutcome::Erased { count })
        }
    }
}

/// A table as it is in this transaction.
fn current(tx: &Tx<'_>, entry: &Entry) -> Result<Arc<Entry>, Refusal> {
    tx.state.catalog.current(entry).cloned().ok_or(Refusal::AccessDenied)
}

fn on_tables(tx: &mut Tx<'_>, command: &TableCommand) -> Result<TableOutcome, CommandError> {
    match command {
        TableCommand::CreateTable { caller, owner, name, attributes, scope } => {
            let name = QualifiedName { owner: owner.clone(), name: name.clone() };
            lifecycle::create_table(tx, caller, name, attributes, scope)
        }
        TableCommand::DropTable { caller, entry } => lifecycle::drop_table(tx, caller, entry),
        TableCommand::Decline { caller, table, declined } => {
            lifecycle::decline(tx, caller, *table, *declined)
        }
        TableCommand::Chown { caller, entry, owner, name } => {
            owners::chown(tx, caller, entry, owner, name.as_ref())
        }
        TableCommand::Grant(granting) => grants::grant(tx, granting),
        TableCommand::Revoke(granting) => grants::revoke(tx, granting),
        TableCommand::SetScope { caller, entry, scope, abandon } => {
            scopes::set_scope(tx, caller, entry, scope, abandon)
        }
    }
}

fn on_directory(
    tx: &mut Tx<'_>,
    command: &DirectoryCommand,
) -> Result<DirectoryOutcome, CommandError> {
    match command {
        DirectoryCommand::Join(signer) => {
            let outcome = membership::join(tx, signer)?;
            scopes::bring_home(tx)?;
            Ok(outcome)
        }
        DirectoryCommand::Register(registration) => identities::register(tx, registration),
        DirectoryCommand::Claim(claim) => identities::claim(tx, claim),
        DirectoryCommand::Adopt(rows) => signed::adopt_rows(tx, rows),
        DirectoryCommand::Redeem(redemption) => tokens::redeem(tx, redemption),
        DirectoryCommand::Learn(rows) => {
            learn::learn(tx, rows)?;
            Ok(DirectoryOutcome::Learned)
        }
        DirectoryCommand::Unbind { caller, identity, node } => {
            identities::unbind(tx, caller, *identity, node.as_ref())
        }
        DirectoryCommand::RemoveNode { caller, node } => membership::remove_node(tx, caller, node),
        DirectoryCommand::ResolveName { caller, name, keep } => {
            identities::resolve_name(tx, caller, name, *keep)
        }
    }
}

fn on_replication(
    tx: &mut Tx<'_>,
    command: &ReplicationCommand,
) -> Result<ReplicationOutcome, CommandError> {
    match command {
        ReplicationCommand::ApplyBatch(delivery) => apply_batch::apply_batch(tx, delivery),
        ReplicationCommand::Drained { from, ack } => drain::acknowledged(tx, from, ack),
        ReplicationCommand::Collect(collection) => tombstone_gc::collect(tx, collection),
        ReplicationCommand::TruncateChangeLog { table, upto } => {
            tombstone_gc::truncate_change_log(tx, *table, *upto)
        }
        ReplicationCommand::Restamp(restamp) => restamp::restamp(tx, restamp),
        ReplicationCommand::RotateActor => {
            reconcile::rotate_actor(tx)?;
            Ok(ReplicationOutcome::Rotated)
        }
    }
}

fn on_upkeep(tx: &mut Tx<'_>, command: &UpkeepCommand) -> Result<UpkeepOutcome, CommandError> {
    match command {
        UpkeepCommand::Audit(step) => audit::audit(tx, *step),
        UpkeepCommand::Note(event) => {
            tx.note(event)?;
            Ok(UpkeepOutcome::Noted)
        }
        UpkeepCommand::Purge => Ok(UpkeepOutcome::Purged { more: purge::purge(tx)? }),
    }
}
