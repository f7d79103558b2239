//! Whose a table is, and which machines its replicas are kept away from, whatever the scope says.

use super::{members::presented, *};
use crate::model::QualifiedName;

const MESH: MeshId = MeshId([5; 16]);

fn notes() -> TableName {
    TableName::parse("notes").expect("a name")
}

fn of(owner: u8, text: &str) -> QualifiedName {
    let name = TableName::parse(text).expect("a name");
    QualifiedName { owner: Owner::Identity(id(owner)), name }
}

/// On `a`: alice with her table `notes`, and bob.
fn with_a_table() -> (Directory, TableUid) {
    let mut directory = with_alice();
    directory.set_mesh(MESH);
    directory.extend((1..).zip(NODES).map(|(n, text)| presented(text, [n; 16])));
    let bob = directory.register(&node("a"), id(2), &name("bob"), Uid(7), 0);
    take(&mut directory, bob);
    let row = directory.take_name(&node("a"), id(1), &notes()).expect("room");
    let table = TableUid::of_federated(MESH, id(1), &notes(), row.generation);
    directory.insert(Row::Name(row));
    (directory, table)
}

fn with_mesh(mut directory: Directory) -> Directory {
    directory.set_mesh(MESH);
    directory
}

/// holds N2, S2
#[test]
fn a_name_that_is_known_is_not_taken_once_more_wherever_its_rows_are() {
    let (directory, table) = with_a_table();
    for here in NODES {
        let there = with_mesh(seen_from(here, &directory));
        assert_eq!(there.take_name(&node(here), id(1), &notes()), Err(Refusal::AlreadyExists));
        assert_eq!(there.federated(id(1), &notes()), Some(table));
    }
}

/// The rows that say it arrive one after the other.
#[test]
fn a_dropped_table_is_dropped_before_its_name_says_so() {
    let (mut directory, table) = with_a_table();
    directory.insert(Row::Dropped(DroppedRow { table, by: node("b") }));
    let next = directory.take_name(&node("a"), id(1), &notes()).expect("it is free");
    assert_eq!(next.generation, 2, "that of generation 1 would be dropped as it is made");
}

#[test]
fn a_scope_that_is_decided_already_is_not_decided_again() {
    let (mut directory, table) = with_a_table();
    let decide = |directory: &mut Directory, by: &str, text: &str| {
        let scope = Scope::parse(text).expect("a scope");
        let row = directory.decide_scope(&node(by), table, scope, &BTreeSet::new(), 0);
        directory.insert(row.expect("room"));
    };
    let is_decided = |directory: &Directory, by: &str, text: &str| {
        directory.is_decided(&node(by), table, &Scope::parse(text).expect("a scope"))
    };
    let other_side = directory.clone();
    decide(&mut directory, "a", "local");
    assert!(is_decided(&directory, "a", "local") && is_decided(&directory, "b", "a"));
    assert!(!is_decided(&directory, "b", "local"), "that is another machine");
    assert!(!is_decided(&directory, "a", "all"));
    let mut b = other_side;
    decide(&mut b, "b", "all");
    b.all().for_each(|row| directory.insert(row));
    assert!(!is_decided(&directory, "a", "local"), "they compete: one has to be chosen");
    let competing: Vec<_> = directory.competing(table);
    assert_eq!(competing.len(), 2);
}

#[test]
fn a_table_that_was_handed_over_keeps_its_id_and_frees_its_name() {
    let (mut directory, table) = with_a_table();
    let rows = directory.transfer(&node("a"), table, &of(2, "notes"), 0).expect("room");
    directory.extend(rows);
    assert_eq!(directory.federated(id(2), &notes()), Some(table));
    assert_eq!(directory.names_of(id(2)).collect::<Vec<_>>(), [&notes()]);
    assert_eq!(directory.federated(id(1), &notes()), None);
    assert_eq!(directory.name_of_table(table), Some(of(2, "notes")));
    assert_eq!(directory.take_name(&node("a"), id(2), &notes()), Err(Refusal::AlreadyExists));
    let again = directory.take_name(&node("a"), id(1), &notes()).expect("it is free");
    assert_eq!(again.generation, 2);
    directory.insert(Row::Name(again));
    let new = directory.federated(id(1), &notes()).expect("a new table");
    assert_ne!(new, table);
    let taken = directory.transfer(&node("a"), new, &of(2, "notes"), 0);
    assert_eq!(taken, Err(Refusal::AlreadyExists));
    assert!(directory.transfer(&node("a"), new, &of(2, "more"), 0).is_ok());
    // Back again, by a decision that knows of the first one.
    let back = directory.transfer(&node("b"), table, &of(1, "old"), 0).expect("room");
    directory.extend(back);
    assert_eq!(directory.name_of_table(table), Some(of(1, "old")));
    assert_eq!(directory.federated(id(2), &notes()), None);
}

/// Nobody gains by a clock.
#[test]
fn transfers_that_compete_hand_over_nothing_until_one_is_chosen() {
    let (mut a, table) = with_a_table();
    let mut b = with_mesh(seen_from("b", &a));
    let to_bob = a.transfer(&node("a"), table, &of(2, "notes"), 9).expect("room");
    let to_alice = b.transfer(&node("b"), table, &of(1, "mine"), 1).expect("room");
    a.extend(to_bob.clone());
    b.extend(to_alice.clone());
    a.extend(to_alice);
    b.extend(to_bob);
    for directory in [&a, &b] {
        assert_eq!(directory.transferred(table), None);
        assert_eq!(directory.federated(id(2), &notes()), None);
    }
    let chosen = b.transfer(&node("b"), table, &of(2, "notes"), 0).expect("room");
    a.extend(chosen);
    assert_eq!(a.federated(id(2), &notes()), Some(table));
}

#[test]
fn a_table_of_somebody_who_is_nobody_any_more_is_found_by_the_names_it_had() {
    let (mut directory, table) = with_a_table();
    let rows = directory.unbind(&node("a"), id(1), None, 0);
    take(&mut directory, rows);
    assert!(directory.is_departed(id(1)) && !directory.is_departed(id(2)));
    let resolve = |directory: &Directory, text: &str| {
        let written = TableRef::parse(text).expect("a name");
        directory.resolve(written, &Caller::Local(Uid(7))).map(|(owner, _)| owner)
    };
    for text in ["@alice:notes", "@alice~0101:notes"] {
        assert_eq!(resolve(&directory, text), Ok(Owner::Identity(id(1))), "{text}");
    }
    assert_eq!(resolve(&directory, "@alice:other"), Err(Refusal::AccessDenied));
    assert_eq!(resolve(&directory, "@alice~0202:notes"), Err(Refusal::AccessDenied));
    assert_eq!(directory.principal("@alice"), Err(Refusal::UnknownIdentity), "for tables alone");
    // Another alice has the bare name, and not the table.
    let rows = directory.register(&node("a"), id(3), &name("alice"), Uid(8), 0);
    take(&mut directory, rows);
    assert_eq!(resolve(&directory, "@alice:notes"), Ok(Owner::Identity(id(3))));
    assert_eq!(resolve(&directory, "@alice~0101:notes"), Ok(Owner::Identity(id(1))));
    assert_eq!(directory.name_of_table(table), Some(of(1, "notes")));
}

/// holds S4
#[test]
fn a_machine_whose_root_keeps_a_table_away_is_out_until_it_is_taken_back_or_installed_again() {
    let (mut directory, table) = with_a_table();
    let row = directory.decide_scope(&node("a"), table, Scope::All, &BTreeSet::new(), 0);
    directory.insert(row.expect("room"));
    let say = |directory: &mut Directory, declines| {
        let (node, database) = (node("b"), [2; 16]);
        let row = ReplicaRow { table, node, database, up: 1, down: 0, declines };
        directory.insert(Row::Replica(row));
    };
    let standing = |directory: &Directory| directory.standing(table, &node("b"));
    say(&mut directory, 1);
    assert_eq!(standing(&directory), Standing::Out);
    assert!(!directory.in_scope(table).contains(&node("b")));
    assert!(directory.must_confirm(table).contains_key(&node("b")), "it has rows still");
    say(&mut directory, 2);
    assert_eq!(standing(&directory), Standing::In);
    say(&mut directory, 3);
    let rows = directory.remove_node(&node("a"), &node("b"), 0);
    take(&mut directory, rows);
    directory.insert(presented("b", [9; 16]));
    assert_eq!(standing(&directory), Standing::In, "another machine, whose root has not said so");
}
