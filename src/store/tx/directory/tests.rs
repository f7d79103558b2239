//! What a restored machine has forgotten, as the directory of others and its own takes it.

use std::{cell::Cell, sync::Arc};

use cortex_core::{
    directory::{
        DroppedRow, GrantRow, NameRow, ReplicaRow, RevocationRow, Row, ScopeRow, SealedRow, Seen,
        UnbindingRow,
    },
    model::{
        ActorId, AttributeName, Caller, Hlc, IdentityId, NodeName, Owner, Permissions, Principal,
        Scope, Stamp, TableName, TableUid, Uid,
    },
};

use crate::store::{
    catalog::Entry,
    command::{Command, DirectoryCommand, Granting, TableCommand},
    database::Database,
    fake_signer::FakeSigner,
    system::{self, VerifiedRow},
};

const OWNER: Uid = Uid(1000);
const BOB: Principal = Principal::Uid(Uid(4242));

fn joined(name: &str) -> Database {
    let drawn = Cell::new(0_u128);
    let mut database = Database::in_memory(move || {
        drawn.set(drawn.get() + 1);
        drawn.get().to_be_bytes()
    })
    .expect("a database");
    database
        .execute(&Command::Directory(DirectoryCommand::Join(Arc::new(FakeSigner::of(name)))), 1)
        .expect("joined");
    database
}

/// Home, with a table that is everywhere.
fn home() -> (Database, Arc<Entry>) {
    let mut home = joined("home");
    let name = TableName::parse("notes").expect("a name");
    let create = Command::Tables(TableCommand::CreateTable {
        caller: Caller::Local(OWNER),
        owner: Owner::Uid(OWNER),
        name: name.clone(),
        attributes: vec![AttributeName::parse("id").expect("a name")],
        scope: Scope::All,
    });
    home.execute(&create, 2).expect("made");
    let entry = home.catalog().find(&Owner::Uid(OWNER), name.as_str()).cloned();
    (home, entry.expect("it is there"))
}

fn grant_of(home: &Database) -> GrantRow {
    let here = NodeName::parse("home").expect("a name");
    let mut rows = home.catalog().directory().written_by(&here);
    let grant = rows.find_map(|row| if let Row::Grant(grant) = row { Some(grant) } else { None });
    grant.expect("a grant")
}

/// The row of a machine's own as it had signed it before it was restored.
fn forgotten(row: Row) -> VerifiedRow {
    signed(row, 1, 99)
}

fn signed(row: Row, at_ms: u64, actor: u128) -> VerifiedRow {
    let stamp = Stamp { hlc: Hlc::from_unix_ms(at_ms), actor: ActorId(actor) };
    let key = row.key();
    let value = system::seal(&FakeSigner::of("home"), stamp, &key, &row.encode());
    VerifiedRow { sealed: SealedRow { key: key.into_bytes(), value, stamp, seq: 7 }, row }
}

/// holds K8: the grant was made after the restore, by a clock that is right, and does not know of the revocation.
#[test]
fn a_revocation_that_a_restored_machine_has_forgotten_counts_for_what_it_has_granted_since() {
    let (mut home, entry) = home();
    let rights = Permissions::READ;
    let caller = Caller::Local(OWNER);
    let granting = Granting { caller, entry, principal: BOB, rights };
    home.execute(&Command::Tables(TableCommand::Grant(granting)), 10_000).expect("granted");
    let granted = grant_of(&home);
    assert!(granted.granted.is_some());
    let revocation = Row::Grant(GrantRow { granted: None, revoked: 3, ..granted });
    home.execute(&Command::Directory(DirectoryCommand::Learn(vec![forgotten(revocation)])), 10_001)
        .expect("learnt");
    let now = grant_of(&home);
    assert_eq!(now.revoked, 3, "it counts");
    let seen = now.granted.expect("the grant was not taken back");
    assert!(seen.values().all(|count| *count < 3), "which the grant has not seen: {seen:?}");
}

/// Of each kind that counts decisions: what home had signed, and what it signs after a restore that has put it
/// back to before that.
fn forgotten_and_signed_since() -> Vec<(Row, Row)> {
    let (table, node) = (TableUid([4; 16]), NodeName::parse("home").expect("a name"));
    let (identity, by) = (IdentityId([5; 16]), node.clone());
    let grant = |granted: Option<Seen>, revoked| {
        let (principal, right, by) = (Principal::Everyone, Permissions::READ, by.clone());
        Row::Grant(GrantRow { table, principal, right, by, granted, revoked })
    };
    let unbinding = |count| {
        let (node, uid, by) = (node.clone(), OWNER, by.clone());
        Row::Unbinding(UnbindingRow { identity, node, uid, by, count })
    };
    let revocation = |count| Row::Revocation(RevocationRow { identity, by: by.clone(), count });
    let name = |generation, dropped| {
        let (name, by) = (TableName::parse("notes").expect("a name"), by.clone());
        Row::Name(NameRow { owner: identity, name, by, generation, dropped })
    };
    let scope = |count| {
        let (by, scope, seen) = (by.clone(), Scope::All, Seen::new());
        let (epochs, off) = (Seen::new(), Seen::new());
        Row::Scope(ScopeRow { table, by, scope, count, seen, epochs, off })
    };
    let replica = |up, down, declines, database| {
        let node = node.clone();
        Row::Replica(ReplicaRow { table, node, database, up, down, declines })
    };
    vec![
        (grant(None, 7), grant(Some(Seen::new()), 0)),
        (grant(Some(Seen::from([(by.clone(), 7)])), 7), grant(None, 3)),
        (unbinding(7), unbinding(3)),
        (revocation(7), revocation(3)),
        (name(2, false), name(1, false)),
        (name(1, true), name(1, false)),
        (scope(7), scope(3)),
        (replica(1, 1, 0, [1; 16]), replica(1, 0, 0, [2; 16])),
        (replica(2, 1, 0, [1; 16]), replica(1, 1, 0, [2; 16])),
        (replica(1, 0, 1, [1; 16]), replica(1, 0, 0, [2; 16])),
        (replica(1, 0, 2, [1; 16]), replica(1, 0, 1, [2; 16])),
    ]
}

/// holds K8: a third node reads of the restored one before or after it reads what that one has forgotten; the row
/// that was signed since has the later timestamp.
#[test]
fn what_a_restored_machine_has_forgotten_counts_whichever_version_arrives_first() {
    for (before, since) in forgotten_and_signed_since() {
        let arriving = [signed(before.clone(), 10, 99), signed(since.clone(), 20, 100)];
        let reversed = [arriving[1].clone(), arriving[0].clone()];
        for versions in [arriving, reversed] {
            let mut office = joined("office");
            for version in versions {
                office
                    .execute(&Command::Directory(DirectoryCommand::Learn(vec![version])), 30)
                    .expect("learnt");
            }
            let here = NodeName::parse("home").expect("a name");
            let known: Vec<Row> = office.catalog().directory().written_by(&here).collect();
            assert_eq!(known, std::slice::from_ref(&before), "not {since:?}");
        }
    }
}

/// What the log of events says of tables that were dropped.
fn drops(database: &Database) -> Vec<String> {
    let mut statement = database
        .connection()
        .prepare("SELECT text FROM events WHERE kind = 'table_dropped' ORDER BY id")
        .expect("SQL");
    let texts = statement.query_map([], |row| row.get(0)).expect("read");
    texts.collect::<Result<_, _>>().expect("texts")
}

#[test]
fn a_drop_is_one_event_that_names_who_asked_for_it_or_the_node_where_it_was() {
    let (mut home, entry) = home();
    let drop = TableCommand::DropTable { caller: Caller::Local(OWNER), entry };
    home.execute(&Command::Tables(drop), 3).expect("dropped");
    assert_eq!(drops(&home), ["table 1000:notes was dropped by uid:1000"]);

    let (mut home, entry) = self::home();
    let by = NodeName::parse("office").expect("a name");
    let row = Row::Dropped(DroppedRow { table: entry.table.uid, by });
    home.execute(&Command::Directory(DirectoryCommand::Learn(vec![forgotten(row)])), 3)
        .expect("learnt");
    assert_eq!(drops(&home), ["table 1000:notes was dropped on office"]);
    assert!(home.catalog().by_uid(entry.table.uid).is_none());
}
