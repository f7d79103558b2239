//! The decision table, whole: every kind of caller × ownership × scope × grants × right, against the
//! rule written the other way round, as who holds what for which reason.

use super::*;
use crate::{
    directory::{Directory, NodeRow, Row},
    model::{
        Acl, ActorId, AttributeName, IdentityName, NodeName, QualifiedName, TableId, TableName,
        TableUid,
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

/// On `away` alone.
fn carol() -> IdentityId {
    IdentityId([3; 16])
}

/// Nobody any more, registered on `home`.
fn dave() -> IdentityId {
    IdentityId([4; 16])
}

/// Nobody any more, registered on `away`.
fn erin() -> IdentityId {
    IdentityId([5; 16])
}

fn present(directory: &mut Directory, text: &str, database: u8) {
    directory.insert(Row::Node(NodeRow {
        node: node(text),
        certificate: Vec::new(),
        database: [database; 16],
        actor: ActorId(1),
    }));
}

/// On `home`, where uid 1000 is alice and 2000 is bob. On `away`, 1500 is alice, 2500 is bob, 3500 is carol, and
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
    for (id, name, at, uid) in [
        (carol(), "carol", "away", 3500),
        (dave(), "dave", "home", 4000),
        (erin(), "erin", "away", 4500),
    ] {
        let name = IdentityName::parse(name).expect("a name");
        let rows = directory.register(&node(at), id, &name, Uid(uid), 0).expect("new");
        rows.into_iter().for_each(|row| directory.insert(row));
    }
    for id in [dave(), erin()] {
        let rows = directory.unbind(&node("home"), id, None, 0).expect("mapped");
        rows.into_iter().for_each(|row| directory.insert(row));
    }
    present(&mut directory, "home", 1);
    present(&mut directory, "away", 2);
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

fn owners() -> [Owner; 9] {
    [
        Owner::Uid(OWNER),
        Owner::Uid(NOBODY),
        Owner::Remote(Uid(1500), node("away")),
        Owner::Remote(Uid(1000), node("away")),
        Owner::Identity(alice()),
        Owner::Identity(bob()),
        Owner::Identity(carol()),
        Owner::Identity(dave()),
        Owner::Identity(erin()),
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
    // Whose owner has an account here, or who was registered here and is nobody any more; where nobody has
    // decided about the scope, the table of a uid elsewhere may be nowhere, and is anybody's to clear away.
    let root_decides = match &table.name.owner {
        Owner::Uid(_) | Owner::Remote(..) => true,
        Owner::Identity(id) => [alice(), bob(), dave()].contains(id),
    };
    let is_root = who.uid_here == Some(Uid::ROOT);
    if is_root {
        held = held.union(Permissions::READ);
    }
    let owns_as_uid = who.uid_here.is_some_and(|uid| table.name.owner == Owner::Uid(uid));
    if owns_as_uid || (is_root && root_decides) || (who.is.is_some() && who.is == owned_by) {
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
    assert_eq!(decided, 10 * 9 * 5 * 64 * 9, "the whole table");
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

/// Whether root of a machine decides about a table of that owner whose scope is as decided on `away`.
fn root_of(here: &str, owner: &Owner, text: &str, change: impl FnOnce(&mut Directory)) -> bool {
    let mut directory = Directory::new(Some(node(here)));
    directory.extend(all_rows(&self::directory()));
    let scope = Scope::parse(text).expect("a scope");
    let table = table(owner, &scope, &Acl::default());
    let row = directory.decide_scope(&node("away"), table.uid, scope, &BTreeSet::new(), 0);
    directory.insert(row.expect("room"));
    change(&mut directory);
    let root = Caller::Local(Uid::ROOT);
    assert_eq!(admit(&root, &table, Permissions::READ, &directory), Ok(()), "what is here is read");
    let decides = root_decides(&table, &directory);
    for right in [Permissions::WRITE, Permissions::ADMIN] {
        assert_eq!(admit(&root, &table, right, &directory).is_ok(), decides, "{right:?}");
    }
    decides
}

fn all_rows(directory: &Directory) -> Vec<Row> {
    [node("home"), node("away")]
        .iter()
        .flat_map(|node| directory.written_by(node).collect::<Vec<_>>())
        .collect()
}

fn put_out_away(directory: &mut Directory) {
    let here = directory.here().expect("a name").clone();
    let rows = directory.remove_node(&here, &node("away"), 0).expect("known");
    rows.into_iter().for_each(|row| directory.insert(row));
}

/// holds V4, S2
#[test]
fn root_decides_where_the_owner_has_an_account_and_nowhere_else() {
    let unchanged = |_: &mut Directory| {};
    for (here, owner, decides) in [
        ("home", Owner::Identity(alice()), true),
        ("away", Owner::Identity(alice()), true),
        ("home", Owner::Identity(carol()), false),
        ("away", Owner::Identity(carol()), true),
        ("third", Owner::Identity(carol()), false),
        ("home", Owner::Remote(Uid(1500), node("away")), false),
        ("home", Owner::Uid(NOBODY), true),
    ] {
        assert_eq!(root_of(here, &owner, "all", unchanged), decides, "{owner} on {here}");
    }
}

#[test]
fn a_table_that_belongs_to_nobody_has_a_custodian_wherever_its_machines_are() {
    let unchanged = |_: &mut Directory| {};
    let (dave, erin) = (Owner::Identity(dave()), Owner::Identity(erin()));
    assert!(
        root_of("home", &dave, "away", unchanged),
        "registered there, with or without a replica"
    );
    assert!(!root_of("away", &dave, "all", unchanged));
    assert!(!root_of("home", &erin, "all", unchanged));
    assert!(root_of("home", &erin, "home,away", put_out_away), "it holds the rows");
    assert!(!root_of("third", &erin, "home,away", put_out_away), "it does not");
    assert!(root_of("third", &erin, "away", put_out_away), "nobody does");
    let remote = Owner::Remote(Uid(1500), node("away"));
    assert!(root_of("home", &remote, "all", put_out_away));
    assert!(
        root_of("home", &remote, "home", unchanged),
        "its home was left out, and knows nothing of it"
    );
    assert!(!root_of("third", &remote, "home", unchanged));
}

#[test]
fn the_table_of_a_uid_keeps_its_home() {
    let directory = directory();
    let remote = Owner::Remote(Uid(1500), node("away"));
    let none = BTreeSet::new();
    let decide = |owner: &Owner, text: &str, off: &BTreeSet<NodeName>| {
        admit_scope(owner, &Scope::parse(text).expect("a scope"), off, &directory)
    };
    let at_home = Err(Refusal::ScopeWithoutHome("home".into()));
    let elsewhere = Err(Refusal::ScopeWithoutTableHome("away".into()));
    for (owner, text, expected) in [
        (Owner::Uid(OWNER), "away", at_home.clone()),
        (Owner::Uid(OWNER), "away,home", Ok(())),
        (Owner::Uid(OWNER), "local", Ok(())),
        (Owner::Uid(OWNER), "all", Ok(())),
        (remote.clone(), "home", elsewhere.clone()),
        (remote.clone(), "local", elsewhere.clone()),
        (remote.clone(), "away", Ok(())),
        (remote.clone(), "all", Ok(())),
        (Owner::Identity(alice()), "away", Ok(())),
    ] {
        assert_eq!(decide(&owner, text, &none), expected, "{owner} {text}");
    }
    let home_given_up = [node("away")].into();
    assert_eq!(decide(&remote, "all", &home_given_up), elsewhere);
    let mut directory = directory.clone();
    put_out_away(&mut directory);
    let scope = Scope::parse("home").expect("a scope");
    assert_eq!(admit_scope(&remote, &scope, &none, &directory), Ok(()), "it is gone for good");
}

#[test]
fn root_keeps_a_table_away_from_its_own_disk_alone_and_not_the_last_replica() {
    let mut directory = directory();
    let root = Caller::Local(Uid::ROOT);
    let of_carol = table(&Owner::Identity(carol()), &Scope::All, &Acl::default());
    assert_eq!(admit_replica(&root, &of_carol, &directory), Err(Refusal::OnlyReplica));
    let row = directory.decide_scope(&node("away"), of_carol.uid, Scope::All, &BTreeSet::new(), 0);
    directory.insert(row.expect("room"));
    assert_eq!(admit_replica(&root, &of_carol, &directory), Ok(()));
    let denied = Err(Refusal::AccessDenied);
    assert_eq!(admit_replica(&Caller::Local(OWNER), &of_carol, &directory), denied);
    let peer = Caller::Peer { node: node("away"), uid: None };
    assert_eq!(admit_replica(&peer, &of_carol, &directory), denied);
    let own = table(&Owner::Uid(OWNER), &Scope::All, &Acl::default());
    let home = Err(Refusal::ScopeWithoutHome("home".into()));
    assert_eq!(admit_replica(&root, &own, &directory), home);
}
