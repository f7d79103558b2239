//! Rows as bytes: read back as they were written, and refused where they are no rows.

use proptest::prelude::*;

use super::*;
use crate::model::Hlc;

fn node() -> impl Strategy<Value = NodeName> {
    prop::sample::select(vec!["a", "b", "home"])
        .prop_map(|text| NodeName::parse(text).expect("a name"))
}

/// What a database can keep.
fn counts() -> impl Strategy<Value = u64> {
    0..=i64::MAX.unsigned_abs()
}

fn seen() -> impl Strategy<Value = Seen> {
    prop::collection::btree_map(node(), counts(), 0..3)
}

fn table() -> impl Strategy<Value = TableUid> {
    any::<[u8; 16]>().prop_map(TableUid)
}

fn database() -> impl Strategy<Value = Database> {
    prop_oneof![Just(UNKNOWN_DATABASE), any::<Database>()]
}

fn scope() -> impl Strategy<Value = Scope> {
    prop::sample::select(vec!["local", "all", "a", "a,home"])
        .prop_map(|text| Scope::parse(text).expect("a scope"))
}

fn principal() -> impl Strategy<Value = Principal> {
    prop_oneof![
        Just(Principal::Everyone),
        (1u32.., node()).prop_map(|(uid, node)| Principal::UidAt(Uid(uid), node)),
        any::<[u8; 16]>().prop_map(|id| Principal::Identity(IdentityId(id))),
    ]
}

fn owner() -> impl Strategy<Value = Owner> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(|id| Owner::Identity(IdentityId(id))),
        (any::<u32>(), node()).prop_map(|(uid, node)| Owner::Remote(Uid(uid), node)),
    ]
}

fn right() -> impl Strategy<Value = Permissions> {
    prop::sample::select(vec![Permissions::READ, Permissions::WRITE, Permissions::ADMIN])
}

pub(crate) fn row() -> impl Strategy<Value = Row> {
    let id = || any::<[u8; 16]>().prop_map(IdentityId);
    let name = || Just(IdentityName::parse("alice").expect("a name"));
    let uid = || (1u32..5).prop_map(Uid);
    prop_oneof![
        (node(), any::<Vec<u8>>(), database(), any::<u128>()).prop_map(
            |(node, certificate, database, actor)| {
                let actor = ActorId(actor);
                Row::Node(NodeRow { node, certificate, database, actor })
            }
        ),
        (node(), database(), node()).prop_map(|(node, database, by)| Row::Removal(RemovalRow {
            node,
            database,
            by
        })),
        (id(), name(), node(), counts()).prop_map(|(id, name, home, created_ms)| {
            Row::Identity(IdentityRow { id, name, home, created_ms })
        }),
        ((node(), uid(), id(), seen(), counts(), database()), (seen(), any::<Option<[u8; 16]>>()),)
            .prop_map(
                |((node, uid, identity, seen, bound_ms, database), (seen_revocations, token))| {
                    let row = BindingRow {
                        node,
                        uid,
                        identity,
                        seen,
                        bound_ms,
                        database,
                        seen_revocations,
                        token,
                    };
                    Row::Binding(row)
                }
            ),
        (id(), node(), counts()).prop_map(|(identity, by, count)| {
            Row::Revocation(RevocationRow { identity, by, count })
        }),
        (id(), node(), uid(), node(), counts()).prop_map(|(identity, node, uid, by, count)| {
            Row::Unbinding(UnbindingRow { identity, node, uid, by, count })
        }),
        (table(), principal(), right(), node(), prop::option::of(seen()), counts()).prop_map(
            |(table, principal, right, by, granted, revoked)| {
                Row::Grant(GrantRow { table, principal, right, by, granted, revoked })
            }
        ),
        (id(), node(), counts(), any::<bool>()).prop_map(|(owner, by, generation, dropped)| {
            let name = TableName::parse("notes").expect("a name");
            Row::Name(NameRow { owner, name, by, generation, dropped })
        }),
        (table(), node(), scope(), counts(), seen(), seen(), seen()).prop_map(
            |(table, by, scope, count, seen, epochs, off)| {
                Row::Scope(ScopeRow { table, by, scope, count, seen, epochs, off })
            }
        ),
        (name(), prop::collection::btree_set(id(), 1..4), node(), counts(), seen()).prop_map(
            |(name, among, by, count, seen)| {
                let keep = *among.last().expect("one at least");
                Row::NameResolution(NameResolutionRow { name, keep, among, by, count, seen })
            }
        ),
        (table(), owner(), node(), counts(), seen()).prop_map(|(table, owner, by, count, seen)| {
            let name = TableName::parse("notes").expect("a name");
            Row::Transfer(TransferRow { table, owner, name, by, count, seen })
        }),
        (table(), node()).prop_map(|(table, by)| Row::Dropped(DroppedRow { table, by })),
        (table(), node(), database(), counts(), counts(), counts()).prop_map(
            |(table, node, database, up, down, declines)| {
                Row::Replica(ReplicaRow { table, node, database, up, down, declines })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn a_row_reads_back_as_it_was_written(row in row()) {
        let (key, bytes) = (row.key(), row.encode());
        prop_assert_eq!(Row::decode(key.as_bytes(), &bytes), Some(row));
    }

    #[test]
    fn a_row_is_refused_under_another_key(row in row(), other in row()) {
        prop_assume!(row.key() != other.key());
        prop_assert_eq!(Row::decode(other.key().as_bytes(), &row.encode()), None);
    }

    #[test]
    fn what_is_no_row_is_refused_and_nothing_panics(
        key in any::<Vec<u8>>(), bytes in any::<Vec<u8>>(),
    ) {
        prop_assert_eq!(Row::decode(&key, &bytes), None);
    }

    #[test]
    fn a_damaged_row_never_panics(row in row(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = row.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _read_or_not = Row::decode(row.key().as_bytes(), &bytes);
    }
}

#[test]
fn nobody_may_say_that_root_is_somebody() {
    let row = Row::Binding(BindingRow {
        node: NodeName::parse("a").expect("a name"),
        uid: Uid::ROOT,
        identity: IdentityId([1; 16]),
        seen: Seen::new(),
        bound_ms: 0,
        database: UNKNOWN_DATABASE,
        seen_revocations: Seen::new(),
        token: None,
    });
    assert_eq!(Row::decode(row.key().as_bytes(), &row.encode()), None);
}

#[test]
fn a_row_of_an_older_version_says_nothing_of_its_database() {
    let node = NodeName::parse("a").expect("a name");
    let mut old = Record::new();
    old.uint(0, 0).text(1, "a").bytes(2, b"certificate");
    let read = Row::decode(b"+node/a", &old.into_bytes());
    let expected = NodeRow {
        node,
        certificate: b"certificate".to_vec(),
        database: UNKNOWN_DATABASE,
        actor: ActorId(0),
    };
    assert_eq!(read, Some(Row::Node(expected)));
}

#[test]
fn a_decision_of_an_older_version_names_no_epochs() {
    let mut old = Record::new();
    old.uint(0, 6).bytes(1, &[7; 16]).text(2, "a").text(3, "all").uint(4, 1);
    old.seen(5, &Seen::new());
    let key = format!("scope/{}/a", TableUid([7; 16]));
    let Some(Row::Scope(read)) = Row::decode(key.as_bytes(), &old.into_bytes()) else {
        panic!("it is not read");
    };
    assert_eq!((read.epochs, read.off), (Seen::new(), Seen::new()));
}

#[test]
fn nobody_may_resolve_a_name_to_an_identity_that_was_not_looked_at() {
    let row = Row::NameResolution(NameResolutionRow {
        name: IdentityName::parse("alice").expect("a name"),
        keep: IdentityId([1; 16]),
        among: BTreeSet::from([IdentityId([2; 16])]),
        by: NodeName::parse("a").expect("a name"),
        count: 1,
        seen: Seen::new(),
    });
    assert_eq!(Row::decode(row.key().as_bytes(), &row.encode()), None);
}

#[test]
fn the_signed_part_tells_every_field_apart() {
    let stamp = |ms, inc| Stamp { hlc: Hlc::from_unix_ms(ms), actor: ActorId(inc) };
    let all = [
        signed_part(MeshId([0; 16]), stamp(1, 1), b"k", b"v"),
        signed_part(MeshId([1; 16]), stamp(1, 1), b"k", b"v"),
        signed_part(MeshId([0; 16]), stamp(2, 1), b"k", b"v"),
        signed_part(MeshId([0; 16]), stamp(1, 2), b"k", b"v"),
        signed_part(MeshId([0; 16]), stamp(1, 1), b"kv", b""),
        signed_part(MeshId([0; 16]), stamp(1, 1), b"", b"kv"),
    ];
    for (n, one) in all.iter().enumerate() {
        assert!(!all[n + 1..].contains(one), "{n} is not told apart");
    }
}
