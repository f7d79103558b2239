//! I22: once faults have stopped, all replicas that may be are equal, and hold the newest of what was written;
//! there is no other replica.

use std::collections::BTreeMap;

use cortex_core::{
    directory::{Seen, Standing},
    model::{Owner, Stamp, TableUid},
};

use cortexd::store::SYSTEM_TABLE;

use crate::world::{World, broken};

pub(crate) fn copies_are_equal(world: &World, members: &[usize], table: TableUid) {
    let live = |n: &usize| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let copy = world.nodes[*n].disk.copies.get(&table);
        let rows = copy.into_iter().flat_map(|copy| &copy.rows);
        rows.filter_map(|(key, row)| Some((key.clone(), row.value.clone()?))).collect()
    };
    let expected: BTreeMap<Vec<u8>, Vec<u8>> = (world.history.expected.iter())
        .filter(|((of, _), _)| *of == table)
        .filter_map(|((_, key), (_, dot))| {
            Some((key.clone(), world.history.writes[dot].value.clone()?))
        })
        .collect();
    let is_orphan = |key: &Vec<u8>| world.history.orphans.contains(&(table, key.clone()));
    let standing = |n: usize| {
        let node = &world.nodes[n];
        node.db.catalog().directory().standing(table, &node.name)
    };
    let inside: Vec<usize> = (members.iter().copied())
        .filter(|n| standing(*n) == Standing::In && !is_name_taken(world, *n, table))
        .collect();
    let replica = |n: usize| world.nodes[n].db.replica(table);
    let is_ready = |n: usize| replica(n).is_some_and(|replica| replica.ready);
    let any_ready = inside.iter().any(|n| is_ready(*n));
    let dropped = |n: &usize| world.nodes[*n].db.catalog().directory().is_dropped(table);
    for n in members {
        let found = live(n);
        if dropped(&members[0]) {
            let entry = world.nodes[*n].db.catalog().by_uid(table);
            if !dropped(n) || !found.is_empty() || entry.is_some() {
                broken(format!("I22 n{n} has what is dropped: {found:?}, {entry:?}"));
            }
            continue;
        }
        if is_name_taken(world, *n, table) {
            continue; // it says so, and an operator has to decide which of both it is to be
        }
        if !inside.contains(n) {
            let epoch = replica(*n).map_or(0, |replica| replica.epoch);
            let node = &world.nodes[*n];
            let directory = node.db.catalog().directory();
            let of = |epochs: Seen| epochs.get(&node.name).copied().unwrap_or(0);
            let (up, gone) = (of(directory.epochs(table)), of(directory.gone(table)));
            // A decision may have let an epoch begin that was never begun.
            let is_up = directory.replica(table, &node.name).is_some_and(|row| row.up > gone);
            if epoch > 0 || !found.is_empty() || (is_up && !directory.is_dropped(table)) {
                broken(format!(
                    "I22 n{n} is out of scope and has epoch {epoch}, {up} is up, {gone} is over: {found:?} {:?} {:?}",
                    replica(*n),
                    inside,
                ));
            }
            continue;
        }
        let plain = |rows: &BTreeMap<Vec<u8>, Vec<u8>>| -> BTreeMap<Vec<u8>, Vec<u8>> {
            rows.iter()
                .filter(|(key, _)| !is_orphan(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        if plain(&found) != plain(&expected) {
            let replica = replica(*n);
            broken(format!("I22 n{n} has {found:?}, written was {expected:?}: {replica:?}"));
        }
        if found != live(&inside[0]) {
            broken(format!("I22 n{n} has {found:?}, n{} {:?}", inside[0], live(&inside[0])));
        }
        if any_ready && !is_ready(*n) {
            broken(format!("I22 n{n} never becomes ready"));
        }
        let of = |n: usize| replica(n).map(|replica| (replica.digest, replica.vector.clone()));
        if of(*n) != of(inside[0]) {
            broken(format!("I22 n{n} says {:?}, n{} {:?}", of(*n), inside[0], of(inside[0])));
        }
    }
}

/// True where a node has another table of this name: one of the two was shared by a disk that was rolled back.
fn is_name_taken(world: &World, n: usize, table: TableUid) -> bool {
    // By the machine whose uid's it is, whatever the owner is called where the table is found.
    let known = world.nodes.iter().find_map(|node| {
        let name = node.db.catalog().by_uid(table)?.table.name.clone();
        match name.owner {
            Owner::Uid(uid) => Some((uid, node.name.clone(), name.name)),
            Owner::Remote(uid, home) => Some((uid, home, name.name)),
            Owner::Identity(_) => None,
        }
    });
    let Some((uid, home, name)) = known else { return false };
    let node = &world.nodes[n];
    let owner = if home == node.name { Owner::Uid(uid) } else { Owner::Remote(uid, home) };
    let catalog = node.db.catalog();
    catalog.by_uid(table).is_none() && catalog.find(&owner, name.as_str()).is_some()
}

/// What all nodes know of each other is the same.
pub(crate) fn directories_are_equal(world: &World, members: &[usize]) {
    let rows = |n: usize| {
        let copy = world.nodes[n].disk.copies.get(&SYSTEM_TABLE);
        let rows = copy.into_iter().flat_map(|copy| &copy.rows);
        rows.map(|(key, row)| (String::from_utf8_lossy(key).into_owned(), row.stamp))
            .collect::<BTreeMap<_, _>>()
    };
    for n in members {
        let (these, others) = (rows(*n), rows(members[0]));
        if these != others {
            let differ = |one: &BTreeMap<String, Stamp>, other: &BTreeMap<String, Stamp>| {
                let differing = one.iter().filter(|(key, stamp)| other.get(*key) != Some(stamp));
                differing.map(|(key, stamp)| format!("{key} {stamp:?}")).collect::<Vec<_>>()
            };
            broken(format!(
                "I22 n{n} and n{} differ in the directory: {:?}, {:?}; {:?} {:?}",
                members[0],
                differ(&these, &others),
                differ(&others, &these),
                world.nodes[*n].db.replica(SYSTEM_TABLE),
                world.nodes[members[0]].db.replica(SYSTEM_TABLE),
            ));
        }
    }
}
