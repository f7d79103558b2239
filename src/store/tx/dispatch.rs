//! One command inside the writer's transaction: which function carries it out, and what of it stays where it is
//! refused half way.

use std::sync::Arc;

use cortex_core::model::{Permissions, QualifiedName, Refusal};

use crate::store::{
    command::{Command, Outcome},
    error::CommandError,
    tx::{
        Tx, admission,
        directory::{
            grants, identities, learn, membership, owners, reconcile, scopes, signed, tables,
            tokens,
        },
        ledger, records,
        replication::{apply_batch, drain, restamp, tombstone_gc},
        upkeep::{audit, purge},
    },
};

/// Carries out one command. A refusal has changed nothing; after a fault the transaction must be rolled back.
pub(crate) fn apply(tx: &mut Tx<'_>, command: &Command) -> Result<Outcome, CommandError> {
    // They decide before they change anything.
    let decides_first =
        matches!(command, Command::Put { .. } | Command::Delete { .. } | Command::Stop);
    if decides_first {
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
        tx.fresh.give_up();
    }
    tx.execute("RELEASE command", [])?;
    outcome
}

fn carry_out(tx: &mut Tx<'_>, command: &Command) -> Result<Outcome, CommandError> {
    match command {
        Command::CreateTable { caller, owner, name, attributes, scope } => {
            let name = QualifiedName { owner: owner.clone(), name: name.clone() };
            tables::create_table(tx, caller, name, attributes, scope)
        }
        Command::DropTable { caller, entry } => tables::drop_table(tx, caller, entry),
        Command::Decline { caller, table, declined } => {
            tables::decline(tx, caller, *table, *declined)
        }
        Command::Chown { caller, entry, owner, name } => {
            owners::chown(tx, caller, entry, owner, name.as_ref())
        }
        Command::Put { caller, entry, key, record } => {
            records::put(tx, caller, entry, key.as_bytes(), record)
        }
        Command::Delete { caller, entry, key } => {
            records::delete(tx, caller, entry, key.as_bytes())
        }
        Command::Grant(granting) => grants::grant(tx, granting),
        Command::Revoke(granting) => grants::revoke(tx, granting),
        Command::SetScope { caller, entry, scope, abandon } => {
            scopes::set_scope(tx, caller, entry, scope, abandon)
        }
        Command::Join(signer) => membership::join(tx, signer),
        Command::Register(registration) => identities::register(tx, registration),
        Command::Claim(claim) => identities::claim(tx, claim),
        Command::Adopt(rows) => signed::adopt_rows(tx, rows),
        Command::Redeem(redemption) => tokens::redeem(tx, redemption),
        Command::Learn(rows) => {
            learn::learn(tx, rows)?;
            Ok(Outcome::Learned)
        }
        Command::Unbind { caller, identity, node } => {
            identities::unbind(tx, caller, *identity, node.as_ref())
        }
        Command::ApplyBatch(delivery) => apply_batch::apply_batch(tx, delivery),
        Command::Drained { from, ack } => drain::acknowledged(tx, from, ack),
        Command::Collect(collection) => tombstone_gc::collect(tx, collection),
        Command::TruncateChangeLog { table, upto } => {
            tombstone_gc::truncate_change_log(tx, *table, *upto)
        }
        Command::Acknowledge { caller, entry, conflict } => {
            let entry = admission::admit(tx, caller, entry, Permissions::WRITE)?;
            let table = (entry.table.id, entry.table.uid);
            let count = ledger::acknowledge(tx, table, *conflict)?;
            Ok(Outcome::Acknowledged { count })
        }
        Command::Push { entry, keys } => {
            let entry = Arc::clone(tx.state.catalog.current(entry).ok_or(Refusal::AccessDenied)?);
            let count = records::re_announce(tx, &entry, keys)?;
            Ok(Outcome::Pushed { count })
        }
        Command::Restamp(restamp) => restamp::restamp(tx, restamp),
        Command::Rewrite { entry, keys } => {
            let entry = Arc::clone(tx.state.catalog.current(entry).ok_or(Refusal::AccessDenied)?);
            entry.takes_writes()?;
            let count = records::rewrite(tx, &entry, keys)?;
            Ok(Outcome::Rewritten { count })
        }
        Command::Erase { caller, entry, rows } => {
            let entry = admission::admit(tx, caller, entry, Permissions::WRITE)?;
            entry.takes_writes()?;
            let count = records::erase_unchanged(tx, &entry, rows)?;
            Ok(Outcome::Erased { count })
        }
        Command::Audit(step) => audit::audit(tx, *step),
        Command::RotateActor => {
            reconcile::rotate_actor(tx)?;
            Ok(Outcome::Rotated)
        }
        Command::RemoveNode { caller, node } => membership::remove_node(tx, caller, node),
        Command::SettleName { caller, name, keep } => {
            identities::resolve_name(tx, caller, name, *keep)
        }
        Command::Note(event) => {
            tx.note(event)?;
            Ok(Outcome::Noted)
        }
        Command::Purge => Ok(Outcome::Purged { more: purge::purge(tx)? }),
        Command::Stop => Ok(Outcome::Stopped),
    }
}
