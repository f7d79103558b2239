//! I22: once faults have stopped, all copies that may be are equal, and hold the newest of what was written;
//! there is no other copy.

use std::collections::BTreeMap;

use cortex_core::{directory::Standing, model::TableUid};

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
    let inside: Vec<usize> =
        members.iter().copied().filter(|n| standing(*n) == Standing::In).collect();
    let replica = |n: usize| world.nodes[n].db.replica(table);
    let is_ready = |n: usize| replica(n).is_some_and(|replica| replica.ready);
    let any_ready = inside.iter().any(|n| is_ready(*n));
    for n in members {
        let found = live(n);
        if !inside.contains(n) {
            let life = replica(*n).map_or(0, |replica| replica.life);
            let row = world.nodes[*n].db.catalog().directory().replica(table, &world.nodes[*n].name);
            if life > 0 || !found.is_empty() || row.is_some_and(|row| row.down < row.up) {
                broken(format!("I22 n{n} is out of scope and has life {life}, {found:?}, {row:?}"));
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
            broken(format!("I22 n{n} has {found:?}, written was {expected:?}"));
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
