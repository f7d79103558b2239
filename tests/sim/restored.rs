//! Stories of a node whose disk is put back, and of what it has forgotten by that.

use cortex_core::model::{Caller, Permissions, Principal, TableUid};
use cortexd::store::{Command, Granting, TableCommand};

use crate::{
    requests::{OWNER, entry},
    rest::{heal, settle},
    stories::{decide, directories, directory, nodes, put, roll_back, shared},
    world::{World, broken},
};

/// A replica has left, and an older disk brings it back; it is written to before it hears that it had left.
pub(crate) fn a_disk_brings_back_what_has_left(world: &mut World) {
    nodes(world, 2);
    let table = shared(world);
    put(world, 1, 1);
    world.save(1);
    decide(world, 0, &[0], &[]);
    settle(world);
    roll_back(world, 1);
    put(world, 1, 2);
    let written = world.history.expected.keys().filter(|(of, _)| *of == table).count();
    settle(world);
    let disk = |n: usize| &world.nodes[n].disk;
    let is_held = disk(0).copies[&table].rows.len() == written;
    let replica = world.nodes[1].db.replica(table);
    if !is_held || world.tally.rescued > 0 || replica.is_some_and(|replica| replica.epoch > 0) {
        broken("what is brought back does not go to the others and leave once more".into());
    }
    heal(world);
}

/// What everybody may on a table: whether they may read, as a node knows it.
pub(crate) fn may_read(world: &World, n: usize, table: TableUid) -> bool {
    let acl = world.nodes[n].db.catalog().directory().acl(table);
    acl.iter()
        .any(|(who, rights)| *who == Principal::Everyone && rights.contains(Permissions::READ))
}

/// Lets everybody read a table, or takes that back.
pub(crate) fn permit(world: &mut World, n: usize, table: TableUid, grants: bool) {
    let (principal, rights) = (Principal::Everyone, Permissions::READ);
    let entry = entry(world, n, table).expect("a table");
    let granting = Granting { caller: Caller::Local(OWNER), entry, principal, rights };
    let command = if grants {
        Command::Tables(TableCommand::Grant(granting))
    } else {
        Command::Tables(TableCommand::Revoke(granting))
    };
    world.must(n, &command);
    world.now_ms += 10;
}

/// A node revokes, is put back to before that, and grants anew: it is read by those who know of the revocation before
/// it reads of it.
pub(crate) fn one_is_read_before_it_hears_what_it_has_forgotten(world: &mut World) {
    nodes(world, 3);
    let table = shared(world);
    world.save(0);
    permit(world, 0, table, true);
    permit(world, 0, table, false);
    directories(world);
    roll_back(world, 0);
    permit(world, 0, table, true);
    for reader in [1, 2] {
        directory(world, reader, 0);
        if may_read(world, reader, table) {
            broken(format!("n{reader} lets everybody read, which was revoked"));
        }
    }
    settle(world);
    if (0..3).any(|n| may_read(world, n, table)) {
        broken("a revocation that was known has got lost".into());
    }
    permit(world, 0, table, true);
    settle(world);
    if !(0..3).all(|n| may_read(world, n, table)) {
        broken("who knows of the revocation again cannot grant".into());
    }
    heal(world);
}
