//! The decision table, whole: every kind of caller × ownership × scope × grants × right, against the
//! rule written the other way round, as who holds what for which reason.

use super::*;
use crate::{
    directory::Directory,
    model::{
        Acl, AttributeName, IdentityName, NodeName, QualifiedName, TableId, TableName, TableUid,
    },
};

const OWNER: Uid = Uid(1000);
const GUEST: Uid = Uid(2000);
/// A second uid of this machine, without an identity.
const NOBODY: Uid = Uid(3000);
const RIGHTS: [Permissions; 3] = [Permissions::READ, Permissions::WRITE, Permissions::ADMIN];

fn node(text: &str) -> NodeName {
    NodeName::parse(text).expect("a name")
}

fn alice() -> IdentityId {
    IdentityId([1; 16])
}

fn bob() -> IdentityId {
    IdentityId([2; 16])
}

/// On `home`, where uid 1000 is alice and 2000 is bob. On `away`, 1500 is alice, 2500 is bob, and
/// 1000 is nobody.
fn directory() -> Directory {
    let mut directory = Directory::new(Some(node("home")));
    let people = [(alice(), "alice", OWNER, Uid(1500)), (bob(), "bob", GUEST, Uid(2500))];
    for (id, name, here, away) in people {
        let name = IdentityName::parse(name).expect("a name");
        let rows = directory.register(&node("home"), id, &name, here, 0).expect("new");
        rows.into_iter().for_each(|row| directory.insert(row));
        let rows = directory.bind(&node("away"), id, away, id.0, 0).expect("known");
        rows.into_iter().for_each(|row| directory.insert(row));
    }
    directory
}

/// A caller, with what the rule says of who they are.
struct Who {
    caller: Caller,
    is: Option<IdentityId>,
    uid_here: Option<Uid>,
}

fn callers() -> Vec<Who> {
    let local = |uid, is| Who { caller: Caller::Local(uid), is, uid_here: Some(uid) };
    let peer = |at, uid: Option<u32>, is| Who {
        caller: Caller::Peer { node: node(at), uid: uid.map(Uid) },
        is,
        uid_here: None,
    };
    vec![
        local(Uid::ROOT, None),
        local(OWNER, Some(alice())),
        local(GUEST, Some(bob())),
        local(NOBODY, None),
        peer("away", None, None),
        peer("away", Some(0), None),
        peer("away", Some(1000), None),
        peer("away", Some(1500), Some(alice())),
        peer("away", Some(2500), Some(bob())),
        peer("third", Some(1500), None),
    ]
}

fn owners() -> [Owner; 6] {
    [
        Owner::Uid(OWNER),
        Owner::Uid(NOBODY),
        Owner::Remote(Uid(1500), node("away")),
        Owner::Remote(Uid(1000), node("away")),
        Owner::Identity(alice()),
        Owner::Identity(bob()),
    ]
}

fn scopes() -> [Scope; 5] {
    let parse = |text| Scope::parse(text).expect("a scope");
    [Scope::Local, Scope::All, parse("away"), parse("home"), parse("third,home")]
}

fn principals() -> [Principal; 6] {
    [
        Principal::Everyone,
        Principal::Uid(GUEST),
        Principal::UidAt(GUEST, node("home")),
        Principal::UidAt(Uid(2500), node("away")),
        Principal::Identity(alice()),
        Principal::Identity(bob()),
    ]
}

fn table(owner: &Owner, scope: &Scope, acl: &Acl) -> Table {
    Table {
        id: TableId(1),
        uid: TableUid([1; 16]),
        name: QualifiedName { owner: owner.clone(), name: TableName::parse("t").expect("a name") },
        attributes: vec![AttributeName::parse("id").expect("a name")],
        scope: scope.clone(),
        contested: false,
        acl: acl.clone(),
    }
}

/// What the rule gives a caller, as a sum of reasons.
fn expected(who: &Who, table: &Table, granted: &[(Principal, Permissions)]) -> Permissions {
    let owned_by = match &table.name.owner {
        Owner::Uid(OWNER) if table.scope != Scope::Local => Some(alice()),
        Owner::Uid(_) => None,
        Owner::Remote(uid, _) => (*uid == Uid(1500)).then(alice),
        Owner::Identity(id) => Some(*id),
    };
    let counts = |principal: &Principal| match principal {
        Principal::Everyone => true,
        Principal::Uid(uid) => who.uid_here == Some(*uid),
        Principal::UidAt(uid, at) => *at == node("home") && who.uid_here == Some(*uid),
        Principal::Identity(id) => who.is == Some(*id),
    };
    let mut held = Permissions::NONE;
    for (principal, rights) in granted {
        if counts(principal) {
            held = held.union(*rights);
        }
    }
    let owns_as_uid = who.uid_here.is_some_and(|uid| table.name.owner == Owner::Uid(uid));
    if owns_as_uid || who.uid_here == Some(Uid::ROOT) || (who.is.is_some() && who.is == owned_by) {
        held = Permissions::ALL;
    }
    match &who.caller {
        Caller::Local(_) => held,
        Caller::Peer { node, .. } if table.scope.admits(node) => held.minus(Permissions::ADMIN),
        Caller::Peer { .. } => Permissions::NONE,
    }
}

/// holds V3, V4, N4, S2, M6
#[test]
fn the_decision_table_is_exactly_scope_and_then_rights() {
    let directory = directory();
    let mut decided = 0u32;
    for who in callers() {
        for owner in owners() {
            for scope in scopes() {
                for subset in 0..64u32 {
                    for right in RIGHTS {
                        let members = principals().into_iter().enumerate();
                        let granted: Vec<_> = members
                            .filter(|(n, _)| subset >> n & 1 == 1)
                            .map(|(_, principal)| (principal, right))
                            .collect();
                        let mut acl = Acl::default();
                        for (principal, right) in &granted {
                            acl.grant(principal.clone(), *right).expect("room");
                        }
                        let table = table(&owner, &scope, &acl);
                        let expected = expected(&who, &table, &granted);
                        for needed in RIGHTS {
                            decided += 1;
                            assert_eq!(
                                admit(&who.caller, &table, needed, &directory).is_ok(),
                                expected.contains(needed),
                                "{} on {}'s table, scope {scope}, with {granted:?}, needs {needed:?}",
                                who.caller,
                                owner,
                            );
                        }
                    }
                }
            }
        }
    }
    assert_eq!(decided, 10 * 6 * 5 * 64 * 9, "the whole table");
}

/// holds M6
#[test]
fn a_uid_of_another_machine_is_not_the_same_uid_of_this_one() {
    let directory = directory();
    let mut acl = Acl::default();
    acl.grant(Principal::Uid(GUEST), Permissions::ALL).expect("room");
    let table = table(&Owner::Uid(NOBODY), &Scope::All, &acl);
    for uid in [NOBODY, GUEST, Uid::ROOT] {
        let caller = Caller::Peer { node: node("away"), uid: Some(uid) };
        let admitted = admit(&caller, &table, Permissions::READ, &directory);
        assert_eq!(admitted, Err(Refusal::AccessDenied), "{caller}");
    }
}

#[test]
fn before_there_is_a_mesh_a_uid_is_all_that_counts() {
    let directory = Directory::default();
    let table = table(&Owner::Uid(OWNER), &Scope::Local, &Acl::default());
    assert_eq!(admit(&Caller::Local(OWNER), &table, Permissions::ADMIN, &directory), Ok(()));
    let other = admit(&Caller::Local(GUEST), &table, Permissions::READ, &directory);
    assert_eq!(other, Err(Refusal::AccessDenied));
}
