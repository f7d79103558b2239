//! May this caller do this to that table: the scope first, then the access control list.
//! A pure function, run early by the service and once more inside the write transaction.

use crate::model::{Caller, Permissions, Principal, Refusal, Table, Uid};

/// Lets a request pass or refuses it.
///
/// A request of this machine passes the scope; a peer's needs its node in scope. The owner and
/// uid 0 of this machine hold every right; `*` counts for everybody.
///
/// # Errors
/// [`Refusal::AccessDenied`], whichever of the two it was: nobody can probe for what exists.
pub fn admit(caller: &Caller, table: &Table, needed: Permissions) -> Result<(), Refusal> {
    let in_scope = match caller {
        Caller::Local(_) => true,
        Caller::Peer { node, .. } => table.scope.admits(node),
    };
    if in_scope && rights(caller, table).contains(needed) {
        Ok(())
    } else {
        Err(Refusal::AccessDenied)
    }
}

/// The rights of a caller on a table that the scope lets them reach.
fn rights(caller: &Caller, table: &Table) -> Permissions {
    let everyones = table.acl.held_by(Principal::Everyone);
    match caller {
        Caller::Local(uid) if *uid == Uid::ROOT || *uid == table.name.owner => {
            Permissions::READ.union(Permissions::WRITE).union(Permissions::ADMIN)
        }
        Caller::Local(uid) => everyones.union(table.acl.held_by(Principal::Uid(*uid))),
        Caller::Peer { .. } => everyones,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Acl, AttributeName, NodeName, QualifiedName, Scope, TableId, TableName, TableUid,
    };

    const OWNER: Uid = Uid(1000);
    const GUEST: Uid = Uid(2000);
    const RIGHTS: [Permissions; 3] = [Permissions::READ, Permissions::WRITE, Permissions::ADMIN];

    fn table(scope: Scope, acl: Acl) -> Table {
        Table {
            id: TableId(1),
            uid: TableUid([1; 16]),
            name: QualifiedName { owner: OWNER, name: TableName::parse("t").expect("a name") },
            attributes: vec![AttributeName::parse("id").expect("a name")],
            scope,
            acl,
        }
    }

    fn home() -> NodeName {
        NodeName::parse("home").expect("a name")
    }

    /// Every caller kind × scope × grant × right, against the rule written the other way round.
    /// holds V3, V4, S2
    #[test]
    fn the_decision_table_is_exactly_scope_and_then_rights() {
        let callers = [
            Caller::Local(Uid::ROOT),
            Caller::Local(OWNER),
            Caller::Local(GUEST),
            Caller::Peer { node: home(), uid: None },
        ];
        let scopes = [
            Scope::Local,
            Scope::All,
            Scope::Nodes([home()].into()),
            Scope::parse("x").expect("a scope"),
        ];
        for caller in &callers {
            for scope in &scopes {
                for bits in 0..64u8 {
                    let (to_guest, to_all) =
                        (Permissions::from_bits(bits & 7), Permissions::from_bits(bits >> 3));
                    let mut acl = Acl::default();
                    acl.grant(Principal::Uid(GUEST), to_guest).expect("room");
                    acl.grant(Principal::Everyone, to_all).expect("room");
                    let table = table(scope.clone(), acl);
                    for needed in RIGHTS {
                        let expected = match caller {
                            Caller::Local(Uid(0) | OWNER) => true,
                            Caller::Local(_) => {
                                to_guest.contains(needed) || to_all.contains(needed)
                            }
                            Caller::Peer { node, .. } => scope.admits(node) && to_all.contains(needed),
                        };
                        assert_eq!(
                            admit(caller, &table, needed).is_ok(),
                            expected,
                            "{caller} {scope} guest={to_guest:?} all={to_all:?} needs {needed:?}"
                        );
                    }
                }
            }
        }
    }
}
