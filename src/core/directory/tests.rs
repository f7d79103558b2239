//! The directory's promises, over histories of several nodes that hear of each other late.

mod members;
mod name_resolutions;
mod order;
mod owners;
mod scopes;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::model::{Owner, Refusal, Scope, TableRef};

fn node(text: &str) -> NodeName {
    NodeName::parse(text).expect("a name")
}

fn name(text: &str) -> IdentityName {
    IdentityName::parse(text).expect("a name")
}

fn id(n: u8) -> IdentityId {
    IdentityId([n; 16])
}

/// A directory on `a` where uid 1000 is `alice`.
fn with_alice() -> Directory {
    let mut directory = Directory::new(Some(node("a")));
    let rows = directory.register(&node("a"), id(1), &name("alice"), Uid(1000), 5).expect("new");
    rows.into_iter().for_each(|row| directory.insert(row));
    directory
}

fn take(directory: &mut Directory, rows: Result<Vec<Row>, Refusal>) {
    rows.expect("allowed").into_iter().for_each(|row| directory.insert(row));
}

/// The same rows, seen from another node.
fn seen_from(other: &str, directory: &Directory) -> Directory {
    let mut there = Directory::new(Some(node(other)));
    directory.all().for_each(|row| there.insert(row));
    there
}

#[test]
fn a_registered_identity_is_found_by_name_and_by_account() {
    let directory = with_alice();
    assert_eq!(directory.identity_of(&node("a"), Uid(1000)), Some(id(1)));
    assert_eq!(directory.identity_of(&node("b"), Uid(1000)), None, "another machine's 1000");
    assert_eq!(directory.find("alice"), Ok(id(1)));
    assert_eq!(directory.show_identity(id(1)), "alice");
}

/// holds I2
#[test]
fn a_name_is_registered_once_and_a_uid_is_one_identity() {
    let directory = with_alice();
    let register = |who, text, uid| directory.register(&node("a"), id(who), &name(text), uid, 0);
    assert_eq!(register(2, "alice", Uid(7)), Err(Refusal::IdentityTaken));
    assert_eq!(register(2, "bob", Uid(1000)), Err(Refusal::AlreadyMapped("alice".into())));
    assert_eq!(register(2, "bob", Uid::ROOT), Err(Refusal::RootNotMapped));
    assert_eq!(
        directory.bind(&node("a"), id(1), Uid(7), [2; 16], 0),
        Err(Refusal::IdentityHasUid(1000))
    );
    assert_eq!(
        directory.bind(&node("a"), id(9), Uid(7), [3; 16], 0),
        Err(Refusal::UnknownIdentity)
    );
}

/// holds I4
#[test]
fn without_its_last_mapping_an_identity_is_nobody() {
    let mut directory = seen_from("b", &with_alice());
    let rows = directory.bind(&node("b"), id(1), Uid(2000), [4; 16], 0);
    take(&mut directory, rows);
    let rows = directory.unbind(&node("b"), id(1), Some(&node("a")), 9);
    take(&mut directory, rows);
    assert_eq!(directory.identity_of(&node("a"), Uid(1000)), None);
    assert_eq!(directory.find("alice"), Ok(id(1)), "still somebody on b");
    let rows = directory.unbind(&node("b"), id(1), None, 9);
    take(&mut directory, rows);
    assert_eq!(directory.find("alice"), Err(Refusal::UnknownIdentity));
    assert_eq!(directory.identities().count(), 0);
    let again = directory.register(&node("b"), id(2), &name("alice"), Uid(2000), 0);
    take(&mut directory, again);
    assert_eq!(directory.find("alice"), Ok(id(2)), "the name is free, and names somebody else");
    let nothing_left = directory.unbind(&node("b"), id(1), None, 9);
    assert_eq!(nothing_left, Err(Refusal::NotMappedThere));
}

#[test]
fn a_revocation_that_a_binding_had_not_seen_undoes_it_and_a_later_binding_stands() {
    let mut b = seen_from("b", &with_alice());
    let rows = b.bind(&node("b"), id(1), Uid(2000), [5; 16], 0);
    take(&mut b, rows);
    let mut a = seen_from("a", &b);
    // a revokes while b, unknowing, binds once more after having unbound itself.
    let rows = a.unbind(&node("a"), id(1), Some(&node("b")), 9);
    take(&mut a, rows);
    let own = b.unbind(&node("b"), id(1), Some(&node("b")), 9);
    take(&mut b, own);
    let again = b.bind(&node("b"), id(1), Uid(2000), [6; 16], 0);
    take(&mut b, again);
    assert_eq!(b.identity_of(&node("b"), Uid(2000)), Some(id(1)), "b knows of its own alone");
    a.all().filter(|row| row.writer() == &node("a")).for_each(|row| b.insert(row));
    assert_eq!(b.identity_of(&node("b"), Uid(2000)), None, "revoked by a");
    let again = b.bind(&node("b"), id(1), Uid(2000), [7; 16], 0);
    take(&mut b, again);
    assert_eq!(b.identity_of(&node("b"), Uid(2000)), Some(id(1)), "bound knowing of both");
}

/// What the rows mean, whoever hears of which first.
fn in_every_order(rows: &[Row], check: impl Fn(&Directory)) {
    fn permute(order: &mut Vec<usize>, at: usize, each: &mut impl FnMut(&[usize])) {
        if at == order.len() {
            return each(order);
        }
        for n in at..order.len() {
            order.swap(at, n);
            permute(order, at + 1, each);
            order.swap(at, n);
        }
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    permute(&mut order, 0, &mut |order| {
        let mut directory = Directory::new(Some(node("c")));
        order.iter().for_each(|n| directory.insert(rows[*n].clone()));
        check(&directory);
    });
}

/// holds I4: of a mapping that it had not heard of too.
#[test]
fn a_revocation_everywhere_undoes_every_binding_that_had_not_seen_it() {
    let a = with_alice();
    let mut b = seen_from("b", &a);
    let bound = b.bind(&node("b"), id(1), Uid(2000), [1; 16], 0).expect("known");
    // a has not heard of b when it revokes.
    let revoked = a.unbind(&node("a"), id(1), None, 9).expect("somebody");
    let rows: Vec<Row> = a.all().chain(bound.clone()).chain(revoked.clone()).collect();
    in_every_order(&rows, |directory| {
        assert_eq!(directory.find("alice"), Err(Refusal::UnknownIdentity));
        assert_eq!(directory.identity_of(&node("b"), Uid(2000)), None);
    });
    // What is bound knowing of it stands, and a second revocation undoes that too.
    take(&mut b, Ok(bound));
    let mut knowing = seen_from("d", &a);
    take(&mut knowing, Ok(revoked.clone()));
    knowing.by_name.entry(name("alice")).or_default().insert(id(1)); // as it is known by then
    let again = knowing.bind(&node("d"), id(1), Uid(3000), [2; 16], 10).expect("known");
    let rows: Vec<Row> = rows.into_iter().chain(again).collect();
    in_every_order(&rows, |directory| {
        assert_eq!(directory.identity_of(&node("d"), Uid(3000)), Some(id(1)));
        assert_eq!(directory.identity_of(&node("b"), Uid(2000)), None);
    });
    let mut all = Directory::new(Some(node("c")));
    all.extend(rows);
    let once_more = all.unbind(&node("c"), id(1), None, 11);
    take(&mut all, once_more);
    assert_eq!(all.find("alice"), Err(Refusal::UnknownIdentity));
}

/// holds I3: whoever has bound, and whatever became of it.
#[test]
fn a_token_by_which_somebody_was_bound_is_used() {
    let mut b = seen_from("b", &with_alice());
    let bound = b.bind(&node("b"), id(1), Uid(2000), [1; 16], 0);
    take(&mut b, bound);
    let revoked = b.unbind(&node("b"), id(1), Some(&node("b")), 9);
    take(&mut b, revoked);
    for (on, uid) in [("b", Uid(2000)), ("c", Uid(3000))] {
        let again = b.bind(&node(on), id(1), uid, [1; 16], 10);
        assert_eq!(again, Err(Refusal::TokenUsed), "{on}");
    }
    assert!(b.bind(&node("b"), id(1), Uid(2000), [2; 16], 10).is_ok(), "by another token");
}

/// holds I5, N1
#[test]
fn a_contested_name_means_each_to_themselves_and_nobody_to_others() {
    let mut directory = with_alice();
    let mut b = Directory::new(Some(node("b")));
    let rows = b.register(&node("b"), id(2), &name("alice"), Uid(2000), 0);
    take(&mut b, rows);
    b.all().for_each(|row| directory.insert(row));
    let resolve = |text, caller: &Caller| {
        let written = TableRef::parse(text).expect("a name");
        directory.resolve(written, caller).map(|(owner, _)| owner)
    };
    let (alice_a, stranger) = (Caller::Local(Uid(1000)), Caller::Local(Uid(7)));
    let alice_b = Caller::Peer { node: node("b"), uid: Some(Uid(2000)) };
    for text in ["@notes", "@alice:notes"] {
        assert_eq!(resolve(text, &alice_a), Ok(Owner::Identity(id(1))), "{text}");
        assert_eq!(resolve(text, &alice_b), Ok(Owner::Identity(id(2))), "{text}");
    }
    assert_eq!(resolve("@notes", &stranger), Err(Refusal::AccessDenied));
    assert_eq!(resolve("@alice:notes", &stranger), Err(Refusal::IdentityContested));
    assert_eq!(resolve("@alice~0202:notes", &stranger), Ok(Owner::Identity(id(2))));
    assert_eq!(directory.principal("@alice"), Err(Refusal::IdentityContested));
    assert_eq!(directory.show_identity(id(1)), "alice~0101");
}

#[test]
fn a_written_name_means_the_callers_own_namespace_or_the_one_it_names() {
    let directory = with_alice();
    let resolve =
        |text, caller: &Caller| directory.resolve(TableRef::parse(text).expect("a name"), caller);
    let (me, peer) = (Caller::Local(Uid(1000)), Caller::Peer { node: node("b"), uid: None });
    let own = Owner::Uid(Uid(1000));
    assert_eq!(resolve("users", &me), Ok((own.clone(), "users")));
    assert_eq!(resolve("users", &peer), Err(Refusal::AccessDenied), "whose?");
    assert_eq!(resolve("1000@a:users", &peer), Ok((own.clone(), "users")), "this machine's");
    assert_eq!(resolve("1000:users", &peer), Ok((own, "users")));
    let remote = Owner::Remote(Uid(1000), node("b"));
    assert_eq!(resolve("1000@b:users", &me), Ok((remote, "users")));
    assert_eq!(resolve("@nobody:notes", &me), Err(Refusal::AccessDenied), "absent is forbidden");
    assert_eq!(resolve("@notes", &peer), Err(Refusal::AccessDenied));
}

#[test]
fn a_dropped_name_comes_back_as_another_generation() {
    let mut directory = with_alice();
    let notes = TableName::parse("notes").expect("a name");
    let on_b = seen_from("b", &directory);
    let first = directory.take_name(&node("a"), id(1), &notes).expect("room");
    assert_eq!(first.generation, 1);
    // b has not heard of it: it is one table afterwards.
    directory.insert(Row::Name(first));
    let dropped = directory.give_up_name(&node("a"), id(1), &notes).expect("room");
    directory.insert(dropped);
    let stale = on_b.take_name(&node("b"), id(1), &notes).expect("room");
    directory.insert(Row::Name(stale));
    let now = directory.generation(id(1), &notes);
    assert_eq!(now, Some(Generation { number: 1, dropped: true }), "the drop wins");
    assert_eq!(directory.take_name(&node("a"), id(1), &notes).expect("room").generation, 2);
}

/// The table of a name, found by its id: with the mesh told beforehand, and without.
#[test]
fn a_federated_table_is_found_by_its_id_as_long_as_there_is_no_newer_one_of_its_name() {
    let (mesh, notes) = (MeshId([5; 16]), TableName::parse("notes").expect("a name"));
    let (mut indexed, mut searched) = (with_alice(), with_alice());
    indexed.set_mesh(mesh);
    let table = |generation| TableUid::of_federated(mesh, id(1), &notes, generation);
    let mut say = |by: &str, number, dropped| {
        let (name, by) = (notes.clone(), node(by));
        let row = NameRow { owner: id(1), name, by, generation: number, dropped };
        indexed.insert(Row::Name(row.clone()));
        searched.insert(Row::Name(row));
        [1, 2].map(|number| {
            let found = indexed.owner_of(mesh, table(number));
            assert_eq!(found, searched.owner_of(mesh, table(number)));
            assert_eq!(indexed.owner_of(MeshId([6; 16]), table(number)), None, "another mesh");
            found.map(|(owner, name, generation)| {
                assert_eq!((owner, name), (id(1), notes.clone()));
                generation
            })
        })
    };
    let generation = |number, dropped| Some(Generation { number, dropped });
    assert_eq!(say("a", 1, false), [generation(1, false), None]);
    assert_eq!(say("b", 1, false), [generation(1, false), None]);
    assert_eq!(say("a", 1, true), [generation(1, true), None]);
    assert_eq!(say("b", 2, false), [None, generation(2, false)]);
    assert_eq!(say("a", 2, false), [None, generation(2, false)]);
}

/// Else each of two thousand tables would be looked at when another one is created.
#[test]
fn a_name_concerns_the_table_that_has_it_and_the_one_that_gets_it() {
    let (mesh, notes) = (MeshId([5; 16]), TableName::parse("notes").expect("a name"));
    let row = |generation| {
        let (name, by) = (notes.clone(), node("home"));
        NameRow { owner: id(1), name, by, generation, dropped: false }
    };
    let table = |number| TableUid::of_federated(mesh, id(1), &notes, number);
    let mut directory = Directory::new(Some(node("home")));
    assert_eq!(directory.tables_concerned(&row(1)), None, "it is not known which mesh this is");
    directory.set_mesh(mesh);
    assert_eq!(directory.tables_concerned(&row(1)), Some([table(1)].into()));
    directory.insert(Row::Name(row(1)));
    assert_eq!(directory.tables_concerned(&row(3)), Some([table(1), table(3)].into()));
}

#[test]
fn what_another_node_needs_to_know_of_an_identity_leads_to_the_same_answers_there() {
    let mut directory = with_alice();
    let bob = directory.register(&node("a"), id(2), &name("bob"), Uid(7), 0);
    take(&mut directory, bob);
    let mut there = Directory::new(Some(node("b")));
    directory.about(id(1)).into_iter().for_each(|row| there.insert(row));
    assert_eq!(there.find("alice"), Ok(id(1)));
    assert_eq!(there.identity_of(&node("a"), Uid(1000)), Some(id(1)));
    assert_eq!(there.find("bob"), Err(Refusal::UnknownIdentity));
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Grant,
    Revoke,
    Scope(u8),
    /// Receive everything that a node has written.
    Receive(usize),
}

fn actions() -> impl Strategy<Value = Vec<(usize, Action)>> {
    let action = prop_oneof![
        Just(Action::Grant),
        Just(Action::Revoke),
        (0u8..4).prop_map(Action::Scope),
        (0usize..3).prop_map(Action::Receive),
    ];
    prop::collection::vec((0usize..3, action), 1..24)
}

const NODES: [&str; 3] = ["a", "b", "c"];
const TABLE: TableUid = TableUid([7; 16]);

fn scope_of(n: u8) -> Scope {
    let text = ["all", "local", "a,b", "b,c"][usize::from(n)];
    Scope::parse(text).expect("a scope")
}

/// What a node has been told, as a history: the ids of the actions it knows.
struct Player {
    directory: Directory,
    knows: BTreeSet<usize>,
}

proptest! {
    /// holds K8, S4: of decisions that had not seen each other the narrower counts, and every node that
    /// knows the same says the same.
    #[test]
    fn rights_and_scopes_follow_from_who_had_seen_what(actions in actions()) {
        let new = |text: &&str| Player { directory: Directory::new(Some(node(text))), knows: BTreeSet::new() };
        let mut players: Vec<Player> = NODES.iter().map(new).collect();
        let mut past: Vec<BTreeSet<usize>> = Vec::new();
        let principal = Principal::UidAt(Uid(7), node("a"));
        for (n, (at, action)) in actions.iter().enumerate() {
            past.push(players[*at].knows.clone());
            let here = node(NODES[*at]);
            let directory = &players[*at].directory;
            let rows = match action {
                Action::Grant => directory.grant(&here, TABLE, &principal, Permissions::READ),
                Action::Revoke => directory.revoke(&here, TABLE, &principal, Permissions::READ, 0),
                Action::Scope(scope) => directory.decide_scope(&here, TABLE, scope_of(*scope), &BTreeSet::new(), 0).map(|row| vec![row]),
                Action::Receive(from) => {
                    let heard: Vec<Row> = players[*from].directory.written_by(&node(NODES[*from])).collect();
                    // What a node has written it wrote knowing all that it knew.
                    let made: Vec<usize> = players[*from].knows.iter().copied().filter(|id| actions[*id].0 == *from).collect();
                    heard.into_iter().for_each(|row| players[*at].directory.insert(row));
                    players[*at].knows.extend(made);
                    continue;
                }
            };
            take(&mut players[*at].directory, rows);
            players[*at].knows.insert(n);
        }
        for player in &players {
            check_right(player, &actions, &past, &principal)?;
            check_scope(player, &actions, &past)?;
        }
    }

    #[test]
    fn no_order_of_arrival_makes_a_difference(actions in actions(), turn in any::<prop::sample::Index>()) {
        let mut one = Directory::new(Some(node("a")));
        for (at, action) in actions {
            let here = node(NODES[at]);
            let row = match action {
                Action::Scope(n) => one.decide_scope(&here, TABLE, scope_of(n), &BTreeSet::new(), 0).map(|row| vec![row]),
                Action::Grant => one.grant(&here, TABLE, &Principal::Everyone, Permissions::WRITE),
                Action::Revoke | Action::Receive(_) => one.revoke(&here, TABLE, &Principal::Everyone, Permissions::WRITE, 0),
            };
            take(&mut one, row);
        }
        let mut rows: Vec<Row> = one.all().collect();
        if !rows.is_empty() {
            let turn = turn.index(rows.len());
            rows.rotate_left(turn);
        }
        let mut other = Directory::new(Some(node("a")));
        rows.iter().cloned().for_each(|row| other.insert(row));
        rows.into_iter().rev().for_each(|row| other.insert(row));
        prop_assert_eq!(other.acl(TABLE), one.acl(TABLE));
        prop_assert_eq!(other.whereabouts(TABLE), one.whereabouts(TABLE));
        prop_assert_eq!(other.len(), one.len());
    }
}

/// A right is held exactly where some grant knew of every revocation, itself not replaced by a later
/// word of the same node.
fn check_right(
    player: &Player,
    actions: &[(usize, Action)],
    past: &[BTreeSet<usize>],
    principal: &Principal,
) -> Result<(), TestCaseError> {
    let known = || player.knows.iter().copied();
    let revokes = || known().filter(|id| matches!(actions[*id].1, Action::Revoke));
    // A revocation counts as known where the grant's node knew of it, or of a later one of its node.
    let knew_all = |grant: usize| {
        revokes().all(|revoke| {
            past[grant].iter().any(|known| {
                *known >= revoke
                    && actions[*known].0 == actions[revoke].0
                    && matches!(actions[*known].1, Action::Revoke)
            })
        })
    };
    let expected = known().filter(|id| matches!(actions[*id].1, Action::Grant)).any(knew_all);
    let held = player.directory.acl(TABLE).held_by(principal) == Permissions::READ;
    prop_assert_eq!(held, expected);
    Ok(())
}

/// True where `later` was decided knowing of `earlier`, or of a decision that replaces it.
fn replaces(
    later: usize,
    earlier: usize,
    actions: &[(usize, Action)],
    past: &[BTreeSet<usize>],
) -> bool {
    let known =
        || past[later].iter().copied().filter(|id| matches!(actions[*id].1, Action::Scope(_)));
    known().any(|id| id == earlier || replaces(id, earlier, actions, past))
}

/// The scope is that of the decisions that no other has replaced: one, or what they have in common.
fn check_scope(
    player: &Player,
    actions: &[(usize, Action)],
    past: &[BTreeSet<usize>],
) -> Result<(), TestCaseError> {
    let decisions: Vec<(usize, u8)> = player
        .knows
        .iter()
        .filter_map(|id| match actions[*id].1 {
            Action::Scope(scope) => Some((*id, scope)),
            Action::Grant | Action::Revoke | Action::Receive(_) => None,
        })
        .collect();
    let standing: Vec<_> = decisions
        .iter()
        .filter(|(id, _)| !decisions.iter().any(|(other, _)| replaces(*other, *id, actions, past)))
        .collect();
    let admitted = |node: &NodeName| {
        standing.iter().all(|(id, scope)| match scope_of(*scope) {
            Scope::Local => NODES[actions[*id].0] == node.as_str(),
            wider @ (Scope::All | Scope::Nodes(_)) => wider.admits(node),
        })
    };
    let found = player.directory.whereabouts(TABLE);
    prop_assert_eq!(found.is_none(), decisions.is_empty());
    let Some(found) = found else {
        return Ok(());
    };
    prop_assert_eq!(found.contested, standing.len() > 1);
    if found.contested {
        for text in NODES {
            let node = node(text);
            prop_assert_eq!(
                found.scope.admits(&node),
                admitted(&node),
                "{} in {}",
                node,
                found.scope
            );
        }
    } else {
        prop_assert_eq!(&found.scope, &scope_of(standing[0].1));
    }
    Ok(())
}

/// holds E1: who has filled the directory keeps nobody from taking away what was given.
#[test]
fn a_full_directory_takes_decisions_that_take_something_away() {
    let (here, mut directory) = (node("a"), with_alice());
    let (table, another) = (TableUid([1; 16]), TableUid([2; 16]));
    let everyone = Principal::Everyone;
    let nodes = |names: &[&str]| Scope::Nodes(names.iter().map(|name| node(name)).collect());
    let decide = |directory: &Directory, table, scope| {
        directory.decide_scope(&here, table, scope, &BTreeSet::new(), 0)
    };
    let both = decide(&directory, table, nodes(&["a", "b"])).expect("room");
    directory.insert(both);
    let rows = directory.grant(&here, table, &everyone, Permissions::READ);
    take(&mut directory, rows);

    let fill = |directory: &mut Directory, most: usize| {
        let grant = |n: usize| {
            Row::Grant(GrantRow {
                table: TableUid((n as u128).to_be_bytes()),
                principal: Principal::Everyone,
                right: Permissions::READ,
                by: node("e"),
                granted: None,
                revoked: 1,
            })
        };
        let (from, more) = (directory.len() + 1000, most - directory.len());
        directory.extend((from..from + more).map(grant));
    };
    fill(&mut directory, Directory::MOST_ROWS - Directory::RESERVED_ROWS);
    let full = |most| Refusal::DirectoryFull(most);
    let shared = Directory::MOST_ROWS - Directory::RESERVED_ROWS;
    let write = Permissions::WRITE;
    assert_eq!(directory.grant(&here, another, &everyone, write), Err(full(shared)));
    assert_eq!(decide(&directory, another, Scope::All), Err(full(shared)));
    assert!(decide(&directory, table, nodes(&["a"])).is_ok(), "it may be narrowed");
    assert!(directory.revoke(&here, table, &everyone, Permissions::READ, 0).is_ok());
    assert!(directory.unbind(&here, id(1), None, 0).is_ok());

    fill(&mut directory, Directory::MOST_ROWS);
    let revoked = directory.revoke(&here, table, &everyone, Permissions::READ, 0);
    assert_eq!(revoked, Err(full(Directory::MOST_ROWS)), "all has a bound");
}
