//! Federated identities: made, claimed, revoked, and their names.

use cortex_core::model::{Caller, IdentityId, IdentityName, NodeName, Refusal, Uid};

use crate::store::{
    command::{Claim, DirectoryOutcome, Registration},
    error::CommandError,
    events::Event,
    tx::{
        Tx,
        directory::{learn, reconcile, tokens},
    },
};

pub(crate) fn register(
    tx: &mut Tx<'_>,
    registration: &Registration,
) -> Result<DirectoryOutcome, CommandError> {
    let Registration { caller, id, name, uid } = registration;
    let here = tx.here()?;
    let rows = tx.directory().register(&here, *id, name, *uid, tx.wall_ms)?;
    reconcile::write(tx, rows)?;
    let text = format!("identity @{name} was registered for uid {uid}, by {caller}");
    tx.note(&Event { uid: Some(*uid), kind: "identity_registered", text })?;
    Ok(DirectoryOutcome::Registered)
}

pub(crate) fn claim(tx: &mut Tx<'_>, claim: &Claim) -> Result<DirectoryOutcome, CommandError> {
    let Claim { uid, identity, rows, token } = claim;
    let here = tx.here()?;
    if tokens::user_of(tx, token)?.is_some() {
        return Err(Refusal::TokenUsed.into());
    }
    learn::learn(tx, rows)?;
    let binding = tx.directory().bind(&here, *identity, *uid, token.id, tx.wall_ms)?;
    reconcile::write(tx, binding)?;
    tokens::use_up(tx, token, &here, *uid)?;
    let name = tx.directory().show_identity(*identity);
    let text = format!("uid {uid} has claimed identity @{name}");
    tx.note(&Event { uid: Some(*uid), kind: "identity_claimed", text })?;
    Ok(DirectoryOutcome::Claimed)
}

pub(crate) fn unbind(
    tx: &mut Tx<'_>,
    caller: &Caller,
    identity: IdentityId,
    node: Option<&NodeName>,
) -> Result<DirectoryOutcome, CommandError> {
    let here = tx.here()?;
    let may = matches!(caller, Caller::Local(uid)
        if *uid == Uid::ROOT || tx.directory().identity_of(&here, *uid) == Some(identity));
    if !may {
        return Err(Refusal::AccessDenied.into());
    }
    let name = tx.directory().show_identity(identity);
    let concerned = tx.directory().uid_here(identity);
    let rows = tx.directory().unbind(&here, identity, node, tx.wall_ms)?;
    reconcile::write(tx, rows)?;
    let place = node.map_or_else(|| "everywhere".to_owned(), |node| format!("on {node}"));
    let text = format!("identity @{name} was revoked {place}, by {caller}");
    tx.note(&Event { uid: concerned, kind: "identity_revoked", text })?;
    Ok(DirectoryOutcome::Unbound)
}

/// Resolves a name that several identities have to one of  them.
pub(crate) fn resolve_name(
    tx: &mut Tx<'_>,
    caller: &Caller,
    name: &IdentityName,
    keep: IdentityId,
) -> Result<DirectoryOutcome, CommandError> {
    let here = tx.here()?;
    let row = tx.directory().resolve_name(&here, name, keep, tx.wall_ms)?;
    reconcile::write(tx, vec![row])?;
    let text = format!("the name @{name} is that of identity {keep}, by {caller}");
    tx.note(&Event { uid: None, kind: "identity_resolved", text })?;
    Ok(DirectoryOutcome::NameResolved)
}
