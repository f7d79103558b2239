//! Names that two sides of a partition have registered, and how operators resolve them.

use super::*;

/// A directory on `a` that knows of an `alice` each of `a`, `b` and `c`, with ids 1, 2 and 3.
fn with_three_alices() -> Directory {
    let mut all = Directory::new(Some(node("a")));
    for (n, text) in (1..).zip(NODES) {
        let mut alone = Directory::new(Some(node(text)));
        let rows = alone.register(&node(text), id(n), &name("alice"), Uid(1000), 0);
        take(&mut alone, rows);
        all.extend(alone.all().collect::<Vec<_>>());
    }
    all
}

fn resolve(directory: &mut Directory, here: &str, keep: u8) {
    let row = directory.resolve_name(&node(here), &name("alice"), id(keep), 0);
    directory.insert(row.expect("an alice"));
}

fn alice_of(text: &str) -> Caller {
    Caller::Peer { node: node(text), uid: Some(Uid(1000)) }
}

/// holds I5
#[test]
fn a_resolved_name_means_the_one_that_keeps_it_and_the_others_go_by_their_ids() {
    let mut directory = with_three_alices();
    assert_eq!(directory.find("alice"), Err(Refusal::IdentityContested));
    assert_eq!(directory.find_for("alice", &alice_of("b")), Ok(id(2)));
    resolve(&mut directory, "a", 2);
    assert_eq!(directory.find("alice"), Ok(id(2)));
    assert_eq!(directory.find("alice~0101"), Ok(id(1)));
    assert_eq!(directory.find("alice~0202"), Ok(id(2)));
    assert_eq!(directory.show_identity(id(2)), "alice");
    assert_eq!(directory.show_identity(id(1)), "alice~0101");
    assert_eq!(directory.find_for("alice", &alice_of("a")), Ok(id(2)), "not theirs any more");
    assert_eq!(
        directory.identity_of_caller(&alice_of("a")),
        Some(id(1)),
        "themselves all the same"
    );
}

#[test]
fn name_resolutions_that_had_not_seen_each_other_and_differ_leave_the_name_contested() {
    let mut a = with_three_alices();
    let mut b = seen_from("b", &a);
    resolve(&mut a, "a", 1);
    resolve(&mut b, "b", 2);
    b.written_by(&node("b")).for_each(|row| a.insert(row));
    assert_eq!(a.find("alice"), Err(Refusal::IdentityContested));
    assert_eq!(a.bearers(&name("alice")).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    resolve(&mut a, "a", 3);
    assert_eq!(a.find("alice"), Ok(id(3)), "decided knowing of both");
}

#[test]
fn name_resolutions_that_agree_hold_together() {
    let mut a = with_three_alices();
    let mut b = seen_from("b", &a);
    resolve(&mut a, "a", 1);
    resolve(&mut b, "b", 1);
    b.written_by(&node("b")).for_each(|row| a.insert(row));
    assert_eq!(a.find("alice"), Ok(id(1)));
}

#[test]
fn a_name_resolution_says_nothing_of_an_identity_that_was_not_known() {
    let mut directory = with_three_alices();
    resolve(&mut directory, "a", 1);
    let mut d = Directory::new(Some(node("d")));
    let rows = d.register(&node("d"), id(4), &name("alice"), Uid(1000), 0);
    take(&mut d, rows);
    d.all().for_each(|row| directory.insert(row));
    assert_eq!(directory.find("alice"), Err(Refusal::IdentityContested));
    assert_eq!(directory.find_for("alice", &alice_of("d")), Ok(id(4)));
    let lost_it = directory.find_for("alice", &alice_of("b"));
    assert_eq!(lost_it, Err(Refusal::IdentityContested), "the name is not theirs to use");
    assert_eq!(directory.show_identity(id(1)), "alice~0101");
}

#[test]
fn a_name_is_taken_as_long_as_somebody_goes_by_it() {
    let mut directory = with_three_alices();
    resolve(&mut directory, "a", 1);
    let again = |directory: &Directory| {
        directory.register(&node("a"), id(9), &name("alice"), Uid(7), 0).map(|_rows| ())
    };
    assert_eq!(again(&directory), Err(Refusal::IdentityTaken));
    let rows = directory.unbind(&node("a"), id(1), None, 0);
    take(&mut directory, rows);
    assert_eq!(directory.find("alice"), Err(Refusal::UnknownIdentity), "the others have lost it");
    assert_eq!(again(&directory), Ok(()));
    resolve(&mut directory, "a", 2);
    assert_eq!(directory.find("alice"), Ok(id(2)), "given back");
}

#[test]
fn a_name_is_resolved_on_one_who_bears_it_or_not_at_all() {
    let directory = with_three_alices();
    let resolve = |text, keep| directory.resolve_name(&node("a"), &name(text), id(keep), 0);
    assert_eq!(resolve("alice", 9), Err(Refusal::UnknownIdentity));
    assert_eq!(resolve("bob", 1), Err(Refusal::UnknownIdentity));
}

proptest! {
    /// Of a name's name_resolutions those count that no other had seen, by who had truly seen what: where
    /// they agree the name is that one's, and otherwise it is nobody's.
    #[test]
    fn a_name_is_resolved_where_all_who_had_the_last_word_agree(
        steps in prop::collection::vec((0usize..3, prop_oneof![
            (1u8..4).prop_map(Ok),
            (0usize..3).prop_map(Err),
        ]), 1..24),
    ) {
        let all = with_three_alices();
        let mut nodes: Vec<(Directory, BTreeSet<usize>)> =
            NODES.iter().map(|text| (seen_from(text, &all), BTreeSet::new())).collect();
        let mut made: Vec<(usize, u8, BTreeSet<usize>)> = Vec::new();
        for (at, step) in steps {
            match step {
                Ok(keep) => {
                    resolve(&mut nodes[at].0, NODES[at], keep);
                    made.push((at, keep, nodes[at].1.clone()));
                    nodes[at].1.insert(made.len() - 1);
                }
                Err(from) => {
                    // The last word of that node, with what it had seen.
                    let rows: Vec<Row> = nodes[from].0.written_by(&node(NODES[from])).collect();
                    nodes[at].0.extend(rows);
                    let last = (0..made.len()).rev().find(|n| made[*n].0 == from);
                    if let Some(last) = last {
                        let seen = made[last].2.clone();
                        nodes[at].1.extend(seen);
                        nodes[at].1.insert(last);
                    }
                }
            }
            let (directory, knows) = &nodes[at];
            let replaced = |n: usize| knows.iter().any(|other| made[*other].2.contains(&n));
            let kept: BTreeSet<u8> = knows.iter().filter(|n| !replaced(**n)).map(|n| made[*n].1).collect();
            let expected = match kept.first() {
                Some(keep) if kept.len() == 1 => Ok(id(*keep)),
                _ => Err(Refusal::IdentityContested),
            };
            prop_assert_eq!(directory.find("alice"), expected);
        }
    }
}
