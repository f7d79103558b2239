//! What users and operators ask of a node: tables, rows, scopes, who belongs to the mesh.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use cortex_core::{
    model::{
        AttributeName, Caller, IdentityId, IdentityName, Key, Limits, NodeName, Owner, Scope,
        TableName, TableUid, Uid,
    },
    wire::encode,
};
use cortexd::store::{
    Claim, Command, DirectoryCommand, Entry, RecordCommand, Registration, TableCommand, TokenId,
};

use crate::world::World;

pub(crate) const OWNER: Uid = Uid(1000);
pub(crate) const IDENTITY: IdentityId = IdentityId([9; 16]);

fn attributes(world: &mut World) -> Vec<AttributeName> {
    let names: &[&str] = if world.chance.percent(50) { &["k"] } else { &["k", "v"] };
    names.iter().map(|name| AttributeName::parse(name).expect("a name")).collect()
}

pub(crate) fn named(world: &World, nodes: &BTreeSet<usize>) -> Scope {
    Scope::Nodes(nodes.iter().map(|n| world.nodes[*n].name.clone()).collect())
}

pub(crate) fn create(world: &mut World, n: usize, owner: Owner, name: &str, scope: Scope) {
    let attributes = attributes(world);
    let name = TableName::parse(name).expect("a name");
    let command = Command::Tables(TableCommand::CreateTable {
        caller: Caller::Local(OWNER),
        owner,
        name,
        attributes,
        scope,
    });
    let _refused = world.run(n, &command);
}

/// The identity that has the tables, on the first node.
pub(crate) fn register(world: &mut World) {
    let name = IdentityName::parse("alice").expect("a name");
    let caller = Caller::Local(Uid::ROOT);
    let registration = Registration { caller, id: IDENTITY, name, uid: OWNER };
    world.must(0, &Command::Directory(DirectoryCommand::Register(registration)));
}

pub(crate) fn claim(world: &mut World, n: usize) {
    let token = TokenId { id: world.ids.draw(), expires_ms: u64::MAX >> 2 };
    let claim = Claim { uid: OWNER, identity: IDENTITY, rows: Vec::new(), token };
    let _refused = world.run(n, &Command::Directory(DirectoryCommand::Claim(Box::new(claim))));
}

pub(crate) fn entry(world: &World, n: usize, table: TableUid) -> Option<Arc<Entry>> {
    world.nodes[n].db.catalog().by_uid(table).cloned()
}

pub(crate) fn key(number: usize) -> Key {
    let mut key = Vec::new();
    encode::str(&mut key, &format!("k{number}"));
    Key::read(&key, &Limits::default()).expect("a key")
}

pub(crate) fn put(world: &mut World, n: usize, entry: &Arc<Entry>, number: usize) {
    settle_in(world, n);
    world.values += 1;
    let mut record = Vec::new();
    encode::map(&mut record, 3);
    encode::str(&mut record, "id");
    encode::str(&mut record, &format!("k{number}"));
    encode::str(&mut record, "value");
    encode::uint(&mut record, world.values);
    encode::str(&mut record, "pages");
    // So that some need pages of their own.
    let filling = if world.large && world.chance.percent(40) { 6_000 } else { 0 };
    encode::bin(&mut record, &vec![0; filling]);
    let (caller, entry) = (Caller::Local(OWNER), Arc::clone(entry));
    let command = Command::Records(RecordCommand::Put {
        caller,
        entry,
        key: key(number),
        record: Bytes::from(record),
    });
    world.tally.writes += u64::from(world.run(n, &command).is_ok());
}

pub(crate) fn delete(world: &mut World, n: usize, entry: &Arc<Entry>, number: usize) {
    settle_in(world, n);
    let (caller, entry) = (Caller::Local(OWNER), Arc::clone(entry));
    let command = Command::Records(RecordCommand::Delete { caller, entry, key: key(number) });
    world.tally.writes += u64::from(world.run(n, &command).is_ok());
}

pub(crate) fn remove(world: &mut World, n: usize, whom: usize) {
    let (caller, node) = (Caller::Local(Uid::ROOT), world.nodes[whom].name.clone());
    if world.run(n, &Command::Directory(DirectoryCommand::RemoveNode { caller, node })).is_ok() {
        world.nodes[whom].asked_out = true;
    }
}

/// Root keeps a table away from its node, or takes that back.
pub(crate) fn decline(world: &mut World, n: usize, table: TableUid, declined: bool) {
    let caller = Caller::Local(Uid::ROOT);
    let _refused =
        world.run(n, &Command::Tables(TableCommand::Decline { caller, table, declined }));
}

/// Has the owner of the tables have an account on a node that they have none on yet.
fn settle_in(world: &mut World, n: usize) {
    let directory = world.nodes[n].db.catalog().directory();
    let name = &world.nodes[n].name;
    let may = directory.identity(IDENTITY).is_some() && !directory.is_put_out(name);
    if may && directory.identity_of(name, OWNER).is_none() {
        claim(world, n);
    }
}

/// Decides where a table may be, as its owner, or else as root. False where neither may from this node.
pub(crate) fn set_scope(
    world: &mut World,
    n: usize,
    entry: &Arc<Entry>,
    mut scope: Scope,
    mut abandon: BTreeSet<NodeName>,
) -> bool {
    settle_in(world, n);
    // The table of a uid is never without its home: who decides otherwise is told so, and names it.
    let home = match &entry.table.name.owner {
        Owner::Uid(_) => Some(&world.nodes[n].name),
        Owner::Remote(_, home) => Some(home),
        Owner::Identity(_) => None,
    };
    if let Some(home) = home {
        abandon.remove(home);
        if let Scope::Nodes(nodes) = &mut scope {
            nodes.insert(home.clone());
        }
    }
    // Where the owner has no account any more, root of a machine that holds the table decides.
    [OWNER, Uid::ROOT].map(Caller::Local).into_iter().any(|caller| {
        let (entry, scope, abandon) = (Arc::clone(entry), scope.clone(), abandon.clone());
        world
            .run(n, &Command::Tables(TableCommand::SetScope { caller, entry, scope, abandon }))
            .is_ok()
    })
}
