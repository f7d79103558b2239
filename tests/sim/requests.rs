//! What users and operators ask of a node: tables, rows, scopes, who belongs to the mesh.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use cortex_core::{
    model::{
        AttributeName, Caller, IdentityId, Key, Limits, NodeName, Owner, Scope, TableName,
        TableUid, Uid,
    },
    wire::encode,
};
use cortexd::store::{Claim, Command, Entry, TokenId};

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
    let command =
        Command::CreateTable { caller: Caller::Local(OWNER), owner, name, attributes, scope };
    let _refused = world.run(n, &command);
}

pub(crate) fn claim(world: &mut World, n: usize) {
    let token = TokenId { id: world.ids.draw(), expires_ms: u64::MAX >> 2 };
    let claim = Claim { uid: OWNER, identity: IDENTITY, rows: Vec::new(), token };
    let _refused = world.run(n, &Command::Claim(Box::new(claim)));
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
    world.values += 1;
    let mut record = Vec::new();
    encode::uint(&mut record, world.values);
    if world.large && world.chance.percent(40) {
        record.resize(6_000, 0); // so that it needs pages of its own
    }
    let (caller, entry) = (Caller::Local(Uid::ROOT), Arc::clone(entry));
    let command = Command::Put { caller, entry, key: key(number), record: Bytes::from(record) };
    world.tally.writes += u64::from(world.run(n, &command).is_ok());
}

pub(crate) fn delete(world: &mut World, n: usize, entry: &Arc<Entry>, number: usize) {
    let (caller, entry) = (Caller::Local(Uid::ROOT), Arc::clone(entry));
    let command = Command::Delete { caller, entry, key: key(number) };
    world.tally.writes += u64::from(world.run(n, &command).is_ok());
}

pub(crate) fn remove(world: &mut World, n: usize, whom: usize) {
    let (caller, node) = (Caller::Local(Uid::ROOT), world.nodes[whom].name.clone());
    if world.run(n, &Command::RemoveNode { caller, node }).is_ok() {
        world.nodes[whom].asked_out = true;
    }
}

pub(crate) fn set_scope(
    world: &mut World,
    n: usize,
    entry: Arc<Entry>,
    scope: Scope,
    write_off: BTreeSet<NodeName>,
) {
    let caller = Caller::Local(Uid::ROOT);
    let _refused = world.run(n, &Command::SetScope { caller, entry, scope, write_off });
}
