//! Machines that are put out of the mesh, and that come back as others.

use super::*;
use crate::model::ActorId;

pub(super) const OLD: Database = [1; 16];
pub(super) const NEW: Database = [2; 16];

pub(super) fn presented(text: &str, database: Database) -> Row {
    let (node, certificate) = (node(text), text.as_bytes().to_vec());
    Row::Node(NodeRow { node, certificate, database, actor: ActorId(1) })
}

/// A directory on `a`, where `alice` is uid 1000 and uid 2000 of `b`.
fn with_alice_on_b() -> Directory {
    let mut directory = with_alice();
    directory.extend([presented("a", [9; 16]), presented("b", OLD)]);
    let rows = directory.bind(&node("b"), id(1), Uid(2000), [2; 16], 0);
    take(&mut directory, rows);
    directory
}

fn members(directory: &Directory) -> Vec<&str> {
    directory.members().map(|row| row.node.as_str()).collect()
}

#[test]
fn a_machine_that_was_removed_is_no_member_and_its_users_are_nobody() {
    let mut directory = with_alice_on_b();
    assert_eq!(members(&directory), ["a", "b"]);
    let rows = directory.remove_node(&node("a"), &node("b"), 5);
    take(&mut directory, rows);
    assert_eq!(members(&directory), ["a"]);
    assert!(directory.is_removed(&OLD) && !directory.is_removed(&NEW));
    assert_eq!(directory.removals().collect::<Vec<_>>(), [&OLD]);
    assert_eq!(directory.identity_of(&node("b"), Uid(2000)), None);
    assert_eq!(directory.find("alice"), Ok(id(1)), "still somebody on a");
}

#[test]
fn a_machine_that_comes_back_with_another_database_is_a_member_of_whose_uids_nothing_is_known() {
    let mut directory = with_alice_on_b();
    let mut b = seen_from("b", &directory);
    let rows = directory.remove_node(&node("a"), &node("b"), 5);
    take(&mut directory, rows);
    // Meanwhile b, unknowing, has bound another uid, of which nobody has revoked anything.
    let bob = b.register(&node("b"), id(2), &name("bob"), Uid(3000), 0);
    take(&mut b, bob);
    b.written_by(&node("b")).for_each(|row| directory.insert(row));
    assert_eq!(directory.identity_of(&node("b"), Uid(3000)), None, "written after the removal");
    directory.insert(presented("b", NEW));
    assert_eq!(members(&directory), ["a", "b"]);
    assert_eq!(directory.identity_of(&node("b"), Uid(3000)), None, "another person's uid now");
    assert_eq!(directory.identity_of(&node("b"), Uid(2000)), None);
    let again = directory.bind(&node("b"), id(1), Uid(3000), [3; 16], 9);
    take(&mut directory, again);
    assert_eq!(directory.identity_of(&node("b"), Uid(3000)), Some(id(1)), "bound by the new one");
}

#[test]
fn a_machine_that_has_not_said_which_database_it_has_is_removed_alone() {
    let mut directory = Directory::new(Some(node("a")));
    directory.extend(["a", "b", "c"].map(|text| presented(text, UNKNOWN_DATABASE)));
    let rows = directory.remove_node(&node("a"), &node("b"), 5);
    take(&mut directory, rows);
    assert_eq!(members(&directory), ["a", "c"]);
    assert!(!directory.is_removed(&UNKNOWN_DATABASE), "it stands for many");
    assert_eq!(directory.removals().count(), 0);
}

#[test]
fn neither_a_node_itself_nor_one_that_is_unknown_can_be_removed() {
    let directory = with_alice_on_b();
    let remove = |text| directory.remove_node(&node("a"), &node(text), 0);
    assert_eq!(remove("a"), Err(Refusal::OwnNode));
    assert_eq!(remove("attic"), Err(Refusal::UnknownNode("attic".into())));
}

#[test]
fn what_another_node_is_told_of_an_identity_includes_that_its_machine_was_removed() {
    let mut directory = with_alice_on_b();
    let removal = RemovalRow { node: node("b"), database: OLD, by: node("a") };
    directory.insert(Row::Removal(removal));
    let mut there = Directory::new(Some(node("c")));
    there.extend(directory.about(id(1)));
    assert_eq!(there.identity_of(&node("b"), Uid(2000)), None);
}

#[test]
fn a_node_that_forgot_its_decisions_still_draws_new_numbers() {
    let forgotten = with_alice_on_b();
    let numbers = |now_ms| {
        let (a, alice) = (node("a"), name("alice"));
        let (principal, right) = (Principal::Everyone, Permissions::READ);
        let unbound = forgotten.unbind(&a, id(1), Some(&a), now_ms).expect("bound");
        let revoked = forgotten.revoke(&a, TABLE, &principal, right, now_ms).expect("room");
        let decided = forgotten.decide_scope(&a, TABLE, Scope::All, &BTreeSet::new(), now_ms);
        let resolved = forgotten.resolve_name(&a, &alice, id(1), now_ms);
        let single = [decided.expect("room"), resolved.expect("an alice")];
        let count = |row: Row| match row {
            Row::Unbinding(row) => row.count,
            Row::Revocation(row) => row.count,
            Row::Grant(row) => row.revoked,
            Row::Scope(row) => row.count,
            Row::NameResolution(row) => row.count,
            Row::Node(_)
            | Row::Identity(_)
            | Row::Binding(_)
            | Row::Name(_)
            | Row::Removal(_)
            | Row::Replica(_)
            | Row::Dropped(_)
            | Row::Transfer(_) => panic!("not asked for: {row:?}"),
        };
        unbound.into_iter().chain(revoked).chain(single).map(count).collect::<Vec<_>>()
    };
    assert_eq!(numbers(0), [1; 4]);
    let (before, since) = (numbers(1_000), numbers(1_001));
    assert!(before.iter().zip(&since).all(|(before, since)| before < since), "{since:?}");
}
