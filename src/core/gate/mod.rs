//! May this caller do this to that table: the scope first, then the access control list.
//! A pure function, run early by the service and once more inside the write transaction.
//!
//! Root of a machine is not the owner of what others keep there. It reads what is physically here; it decides,
//! and writes, only where the owner has an account, and could be asked. On other machines root may keep a table
//! away from its own disk ([`admit_replica`]), which decides for that machine and for no other.

use std::collections::BTreeSet;

use crate::{
    directory::{Directory, Standing},
    model::{
        Caller, IdentityId, NodeName, Owner, Permissions, Principal, Refusal, Scope, Table,
        TableUid, Uid,
    },
};

/// Lets a request pass or refuses it.
///
/// A request of this machine passes the scope; a peer's needs its node in scope. The owner holds every
/// right, and so does uid 0 where [`root_decides`]; elsewhere uid 0 reads. `*` counts for everybody. A peer's user
/// counts only as
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
        Caller::Local(uid) if table.name.owner == Owner::Uid(*uid) => Permissions::ALL,
        Caller::Local(Uid::ROOT) if root_decides(table, directory) => Permissions::ALL,
        Caller::Local(uid) => {
            let who = directory.identity_of_caller(caller);
            let here = directory.here().map(|here| Principal::UidAt(*uid, here.clone()));
            let account = table.acl.held_by(&Principal::Uid(*uid));
            let qualified = here.map_or(Permissions::NONE, |here| table.acl.held_by(&here));
            let bypass = if *uid == Uid::ROOT { Permissions::READ } else { Permissions::NONE };
            of_identity(who, table, directory).union(account).union(qualified).union(bypass)
        }
        Caller::Peer { .. } => {
            let who = directory.identity_of_caller(caller);
            of_identity(who, table, directory).minus(Permissions::ADMIN)
        }
    }
}

/// Whether uid 0 of this machine decides about a table as its owner would.
///
/// It does where the owner has an account: a uid on its own machine, an identity on each machine where it is
/// mapped. A table that belongs to nobody has one custodian, so that it is never out of everybody's reach, and
/// decisions about it do not compete:
///
/// - of an identity that nobody is any more, root of the machine where it was registered, which knew the person;
/// - where that machine was put out of the mesh, or is the home of a uid and not in the scope, root of each
///   machine in the scope: it holds the rows already, so that it gains nothing by deciding;
/// - where there is no such machine, as when the only replica is lost, root of any: there is nothing to gain.
#[must_use]
pub fn root_decides(table: &Table, directory: &Directory) -> bool {
    match &table.name.owner {
        Owner::Uid(_) => true,
        Owner::Remote(_, home) => {
            let is_reached =
                directory.is_member(home) && directory.standing(table.uid, home) != Standing::Out;
            !is_reached && is_keeper(table.uid, directory)
        }
        Owner::Identity(id) if !directory.is_departed(*id) => directory.uid_here(*id).is_some(),
        Owner::Identity(id) => match (directory.home_of(*id), directory.here()) {
            (Some(home), Some(here)) if home == here => true,
            (Some(home), _) if directory.is_member(home) => false,
            (Some(_) | None, _) => is_keeper(table.uid, directory),
        },
    }
}

/// True where this machine may hold a table, or none may.
fn is_keeper(table: TableUid, directory: &Directory) -> bool {
    let may_hold = directory.here().map(|here| directory.standing(table, here));
    may_hold.is_some_and(|standing| standing != Standing::Out)
        || directory.in_scope(table).is_empty()
}

/// True where a table belongs to nobody: its owner is an identity that nobody is any more, or a uid of a machine
/// that was put out of the mesh.
#[must_use]
pub fn is_orphaned(table: &Table, directory: &Directory) -> bool {
    match &table.name.owner {
        Owner::Uid(_) => false,
        Owner::Remote(_, home) => directory.is_put_out(home),
        Owner::Identity(id) => directory.is_departed(*id),
    }
}

/// Lets a decision about a scope pass or refuses it: the table of a uid lives on that uid's machine. Elsewhere that
/// uid is nobody, so that without its home nobody could decide about it again.
///
/// # Errors
/// [`Refusal::ScopeWithoutHome`] on that machine, [`Refusal::ScopeWithoutTableHome`] on another.
pub fn admit_scope(
    owner: &Owner,
    scope: &Scope,
    abandon: &BTreeSet<NodeName>,
    directory: &Directory,
) -> Result<(), Refusal> {
    let Some(here) = directory.here() else {
        return Ok(()); // no mesh: nothing leaves this machine
    };
    let home = match owner {
        Owner::Uid(_) => here,
        Owner::Remote(_, home) if directory.is_put_out(home) => return Ok(()),
        Owner::Remote(_, home) => home,
        Owner::Identity(_) => return Ok(()), // decides wherever it has an account
    };
    let contains_home = match scope {
        Scope::All => true,
        Scope::Local => home == here,
        Scope::Nodes(nodes) => nodes.contains(home),
    };
    if contains_home && !abandon.contains(home) {
        return Ok(());
    }
    let home_name = home.as_str().into();
    Err(if home == here {
        Refusal::ScopeWithoutHome(home_name)
    } else {
        Refusal::ScopeWithoutTableHome(home_name)
    })
}

/// Lets uid 0 of this machine keep a table away from its own disk, or refuses it.
///
/// # Errors
/// [`Refusal::AccessDenied`] for anybody else, [`Refusal::ScopeWithoutHome`] on the table's home,
/// [`Refusal::OnlyReplica`] where no other machine may hold it.
pub fn admit_replica(caller: &Caller, table: &Table, directory: &Directory) -> Result<(), Refusal> {
    if *caller != Caller::Local(Uid::ROOT) {
        return Err(Refusal::AccessDenied);
    }
    let Some(here) = directory.here() else {
        return Err(Refusal::OnlyReplica);
    };
    if matches!(table.name.owner, Owner::Uid(_)) {
        return Err(Refusal::ScopeWithoutHome(here.as_str().into()));
    }
    if directory.in_scope(table.uid).iter().any(|node| node != here) {
        return Ok(());
    }
    Err(Refusal::OnlyReplica)
}

/// The rights of the caller's identity, apart from those of their uid.
fn of_identity(who: Option<IdentityId>, table: &Table, directory: &Directory) -> Permissions {
    let everyones = table.acl.held_by(&Principal::Everyone);
    match who {
        None => everyones,
        Some(who) if owner(table, directory) == Some(who) => Permissions::ALL,
        Some(who) => everyones.union(table.acl.held_by(&Principal::Identity(who))),
    }
}

/// The identity that owns a table, if one does: a uid's table that may leave its machine belongs to
/// the identity of that uid, wherever it is. One that may not belongs to the uid alone.
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
