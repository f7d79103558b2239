//! Rows of every kind, as members may send them, sound or not in what they claim: no order of arrival
//! makes a difference, nor does it that a row arrives twice.

use super::*;
use crate::model::ActorId;

fn a_node() -> impl Strategy<Value = NodeName> {
    prop::sample::select(NODES.to_vec()).prop_map(node)
}

fn an_id() -> impl Strategy<Value = IdentityId> {
    (1u8..4).prop_map(id)
}

fn a_table() -> impl Strategy<Value = TableUid> {
    prop_oneof![Just(TABLE), Just(TableUid([8; 16]))]
}

fn a_database() -> impl Strategy<Value = Database> {
    (0u8..4).prop_map(|n| [n; 16])
}

fn some_counts() -> impl Strategy<Value = Seen> {
    prop::collection::btree_map(a_node(), 0u64..4, 0..3)
}

fn a_scope() -> impl Strategy<Value = Scope> {
    let texts = vec!["all", "local", "a", "a,b", "b,c"];
    prop::sample::select(texts).prop_map(|text| Scope::parse(text).expect("a scope"))
}

fn a_row() -> impl Strategy<Value = Row> {
    let uid = || (1u32..3).prop_map(Uid);
    let called = || prop::sample::select(vec!["alice", "bob"]).prop_map(name);
    let decision =
        (a_table(), a_node(), a_scope(), 0u64..4, some_counts(), some_counts(), some_counts());
    prop_oneof![
        (a_node(), a_database()).prop_map(|(node, database)| {
            let (certificate, actor) = (Vec::new(), ActorId(0));
            Row::Node(NodeRow { node, certificate, database, actor })
        }),
        (a_node(), a_database(), a_node())
            .prop_map(|(node, database, by)| Row::Removal(RemovalRow { node, database, by })),
        (an_id(), called(), a_node()).prop_map(|(id, name, home)| {
            Row::Identity(IdentityRow { id, name, home, created_ms: 0 })
        }),
        (a_node(), uid(), an_id(), some_counts(), a_database()).prop_map(
            |(node, uid, identity, seen, database)| {
                let (seen_revocations, token) = (seen.clone(), None);
                Row::Binding(BindingRow {
                    node,
                    uid,
                    identity,
                    seen,
                    bound_ms: 0,
                    database,
                    seen_revocations,
                    token,
                })
            }
        ),
        (an_id(), a_node(), 0u64..4).prop_map(|(identity, by, count)| {
            Row::Revocation(RevocationRow { identity, by, count })
        }),
        (an_id(), a_node(), uid(), a_node(), 0u64..4).prop_map(
            |(identity, node, uid, by, count)| {
                Row::Unbinding(UnbindingRow { identity, node, uid, by, count })
            }
        ),
        (a_table(), a_node(), prop::option::of(some_counts()), 0u64..4).prop_map(
            |(table, by, granted, revoked)| {
                let (principal, right) = (Principal::Everyone, Permissions::READ);
                Row::Grant(GrantRow { table, principal, right, by, granted, revoked })
            }
        ),
        (an_id(), a_node(), 1u64..4, any::<bool>()).prop_map(|(owner, by, generation, dropped)| {
            let name = TableName::parse("notes").expect("a name");
            Row::Name(NameRow { owner, name, by, generation, dropped })
        }),
        decision.prop_map(|(table, by, scope, count, seen, epochs, off)| {
            Row::Scope(ScopeRow { table, by, scope, count, seen, epochs, off })
        }),
        (a_table(), a_node(), a_database(), 0u64..4, 0u64..4, 0u64..4).prop_map(
            |(table, node, database, up, down, declines)| {
                Row::Replica(ReplicaRow { table, node, database, up, down, declines })
            }
        ),
        (a_table(), a_node()).prop_map(|(table, by)| Row::Dropped(DroppedRow { table, by })),
        (a_table(), an_id(), a_node(), 0u64..4, some_counts()).prop_map(
            |(table, owner, by, count, seen)| {
                let (owner, name) = (owner.into(), TableName::parse("notes").expect("a name"));
                Row::Transfer(TransferRow { table, owner, name, by, count, seen })
            }
        ),
        (called(), prop::collection::btree_set(an_id(), 1..4), a_node(), 0u64..4, some_counts())
            .prop_map(|(name, among, by, count, seen)| {
                let keep = *among.first().expect("one at least");
                Row::NameResolution(NameResolutionRow { name, keep, among, by, count, seen })
            }),
    ]
}

/// Everything that a directory says.
fn views(directory: &Directory) -> Vec<String> {
    let mut said = vec![
        format!("{}", directory.len()),
        format!("{:?}", directory.members().collect::<Vec<_>>()),
        format!("{:?}", directory.removals().collect::<Vec<_>>()),
        format!("{:?}", directory.identities().collect::<Vec<_>>()),
        format!("{:?}", directory.tables_decided().collect::<Vec<_>>()),
        format!("{:?}", ["alice", "bob"].map(|text| directory.find(text))),
    ];
    for n in 1..4 {
        let accounts: Vec<_> = directory.accounts(id(n)).collect();
        said.push(format!("{n} {} {accounts:?}", directory.show_identity(id(n))));
        let notes = TableName::parse("notes").expect("a name");
        for generation in 1..4 {
            let table = TableUid::of_federated(MESH, id(n), &notes, generation);
            said.push(format!("{n} {generation} {:?}", directory.owner_of(MESH, table)));
        }
        said.push(format!(
            "{:?} {}",
            directory.federated(id(n), &notes),
            directory.is_departed(id(n))
        ));
    }
    for table in [TABLE, TableUid([8; 16])] {
        said.push(format!("{:?} {:?}", directory.whereabouts(table), directory.acl(table)));
        said.push(format!("{:?} {:?}", directory.transferred(table), directory.competing(table)));
        said.push(format!("{:?}", directory.scope_knowledge(table)));
        said.push(format!("{:?} {:?}", directory.epochs(table), directory.gone(table)));
        said.push(format!("{:?}", directory.must_confirm(table)));
        said.push(format!("{:?}", directory.in_scope(table)));
        for text in NODES {
            let node = node(text);
            let (standing, replica) =
                (directory.standing(table, &node), directory.replica(table, &node));
            said.push(format!(
                "{text} {standing:?} {replica:?} {}",
                directory.decided_by(table, &node)
            ));
        }
    }
    said
}

const MESH: MeshId = MeshId([5; 16]);

proptest! {
    /// holds K8: what a restored machine writes once more replaces both versions on every node.
    #[test]
    fn a_row_that_is_written_again_has_come_as_far_as_both(rows in prop::collection::vec(a_row(), 40)) {
        for mine in &rows {
            for before in rows.iter().filter(|before| before.key() == mine.key()) {
                let again = mine.clone().written_again(before);
                prop_assert_eq!(again.key(), mine.key());
                prop_assert!(again.progress() >= mine.progress().max(before.progress()), "{:?}", again);
            }
        }
    }

    /// What the same rows mean together is the same wherever they have arrived.
    #[test]
    fn the_same_rows_say_the_same_in_any_order(
        rows in prop::collection::vec(a_row(), 0..40),
        order in prop::collection::vec(any::<u32>(), 80),
    ) {
        // A key has one version here: which one is the newest is for the store to know.
        let rows: BTreeMap<String, Row> = rows.into_iter().map(|row| (row.key(), row)).collect();
        let rows: Vec<Row> = rows.into_values().collect();
        let mut one = Directory::new(Some(node("a")));
        one.set_mesh(MESH);
        one.extend(rows.iter().cloned());
        let twice = rows.iter().chain(&rows).zip(&order);
        let mut shuffled: Vec<(&Row, &u32)> = twice.collect();
        shuffled.sort_by_key(|(_, at)| **at);
        let mut other = Directory::new(Some(node("a")));
        for (n, (row, _)) in shuffled.iter().enumerate() {
            if n == rows.len() / 2 {
                other.set_mesh(MESH);
            }
            other.insert((*row).clone());
        }
        other.set_mesh(MESH);
        prop_assert_eq!(views(&other), views(&one));
        let all: Vec<Row> = other.all().collect();
        prop_assert_eq!(all.len(), rows.len());
        prop_assert!(all.iter().all(|row| rows.contains(row)));
    }

    /// A database that was removed is in no scope, whatever else arrives.
    #[test]
    fn a_removed_database_is_never_in_a_scope_again(rows in prop::collection::vec(a_row(), 0..40)) {
        let mut directory = Directory::new(Some(node("a")));
        let removal = RemovalRow { node: node("b"), database: [1; 16], by: node("a") };
        directory.insert(Row::Removal(removal));
        for row in rows {
            directory.insert(row);
            prop_assert!(directory.is_removed(&[1; 16]));
            for text in NODES {
                let name = node(text);
                if directory.node(&name).is_some_and(|row| row.database == [1; 16]) {
                    prop_assert_eq!(directory.standing(TABLE, &name), Standing::Out);
                    prop_assert!(!directory.in_scope(TABLE).contains(&name));
                    prop_assert!(!directory.must_confirm(TABLE).contains_key(&name));
                    prop_assert!(directory.accounts(id(1)).all(|(on, _)| *on != name));
                }
            }
        }
    }
}
