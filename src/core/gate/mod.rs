//! May this caller do this to that table: the scope first, then the access control list.
//! A pure function, run early by the service and once more inside the write transaction.

use crate::{
    directory::Directory,
    model::{Caller, IdentityId, Owner, Permissions, Principal, Refusal, Scope, Table, Uid},
};

/// Lets a request pass or refuses it.
///
/// A request of this machine passes the scope; a peer's needs its node in scope. The owner and
/// uid 0 of this machine hold every right; `*` counts for everybody. A peer's user counts only as
/// the federated identity that they are, and administers nothing from there.
///
/// # Errors
/// [`Refusal::AccessDenied`], whichever of the two it was: nobody can probe for what exists.
pub fn admit(
    caller: &Caller,
    table: &Table,
    needed: Permissions,
    directory: &Directory,
) -> Result<(), Refusal> {
    let in_scope = match caller {
        Caller::Local(_) => true,
        Caller::Peer { node, .. } => table.scope.admits(node),
    };
    if in_scope && rights(caller, table, directory).contains(needed) {
        Ok(())
    } else {
        Err(Refusal::AccessDenied)
    }
}

/// The rights of a caller on a table that the scope lets them reach.
fn rights(caller: &Caller, table: &Table, directory: &Directory) -> Permissions {
    match caller {
        // Most requests: decided without looking anybody up.
        Caller::Local(uid) if *uid == Uid::ROOT || table.name.owner == Owner::Uid(*uid) => {
            Permissions::ALL
        }
        Caller::Local(uid) => {
            let who = directory.identity_of_caller(caller);
            let here = directory.here().map(|here| Principal::UidAt(*uid, here.clone()));
            let account = table.acl.held_by(&Principal::Uid(*uid));
            let qualified = here.map_or(Permissions::NONE, |here| table.acl.held_by(&here));
            of_identity(who, table, directory).union(account).union(qualified)
        }
        Caller::Peer { .. } => {
            let who = directory.identity_of_caller(caller);
            of_identity(who, table, directory).minus(Permissions::ADMIN)
        }
    }
}

/// The rights of whoever it is, apart from those of their uid.
fn of_identity(who: Option<IdentityId>, table: &Table, directory: &Directory) -> Permissions {
    let everyones = table.acl.held_by(&Principal::Everyone);
    match who {
        None => everyones,
        Some(who) if owner(table, directory) == Some(who) => Permissions::ALL,
        Some(who) => everyones.union(table.acl.held_by(&Principal::Identity(who))),
    }
}

/// The identity that owns a table, if one does: a uid's table that may leave its machine belongs to
/// whoever that uid is, wherever they are. One that may not belongs to the uid alone.
fn owner(table: &Table, directory: &Directory) -> Option<IdentityId> {
    match &table.name.owner {
        Owner::Identity(id) => Some(*id),
        Owner::Remote(uid, home) => directory.identity_of(home, *uid),
        Owner::Uid(_) if table.scope == Scope::Local => None,
        Owner::Uid(uid) => directory.identity_of(directory.here()?, *uid),
    }
}

#[cfg(test)]
mod tests;
