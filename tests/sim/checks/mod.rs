//! What must hold, looked at from outside after every command: the rows are read by SQL, and compared with the
//! true history. A file per invariant; here the rows of a replica are read and what is new in them is noted.

pub(crate) mod collected;
pub(crate) mod e3;
pub(crate) mod ended;
pub(crate) mod i01;
pub(crate) mod i02;
pub(crate) mod i04;
pub(crate) mod i05;
pub(crate) mod i07;
pub(crate) mod i09;
pub(crate) mod i12;
pub(crate) mod i13;
pub(crate) mod i15;
pub(crate) mod i22;
pub(crate) mod i23;
pub(crate) mod ledger;
pub(crate) mod messages;
pub(crate) mod recent;
pub(crate) mod restamped;

use std::{collections::BTreeSet, sync::Arc};

use cortex_core::{
    directory::{Row, Seen},
    model::{QualifiedName, Scope, TableUid},
    replication::Dot,
};
use cortexd::store::{
    Applied, Command, CommandError, DirectoryCommand, Outcome, RecordCommand, Replica,
    ReplicationCommand, ReplicationOutcome, SYSTEM_TABLE, TableCommand,
};

use crate::{
    history::{CopyView, Known, Place, Version, Write, read_rows},
    world::{World, broken},
};

/// What a command makes that was not there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Makes {
    Nothing,
    /// Rows, by its own node.
    Rows,
    /// A replica, of rows that may have been there.
    Copy,
}

/// Notes what a command has changed.
pub(crate) fn observe(
    world: &mut World,
    n: usize,
    command: &Command,
    outcome: &Result<Outcome, CommandError>,
) {
    let Ok(done) = outcome else { return };
    if let Command::Directory(DirectoryCommand::RemoveNode { node, .. }) = command {
        let whom = world.index(node).expect("a node");
        world.nodes[n].disk.removals.insert(whom);
    }
    note_decisions(world, n, command, *done);
    let makes_rows = matches!(
        command,
        Command::Records(
            RecordCommand::Put { .. }
                | RecordCommand::Delete { .. }
                | RecordCommand::Rewrite { .. }
                | RecordCommand::Erase { .. }
        ) | Command::Replication(ReplicationCommand::Restamp(_))
    );
    let makes = if makes_rows {
        Makes::Rows
    } else if matches!(command, Command::Tables(TableCommand::SetScope { .. })) {
        Makes::Copy
    } else {
        Makes::Nothing
    };
    let handed_over =
        matches!(done, Outcome::Replication(ReplicationOutcome::Drained { left: true }));
    let tables: Vec<TableUid> =
        std::iter::once(SYSTEM_TABLE).chain(world.tables.iter().copied()).collect();
    for table in tables {
        observe_copy(world, n, table, makes, handed_over);
    }
    if makes == Makes::Rows {
        i02::is_visible(world, n, command);
        i02::may_write(world, n, command);
    }
}

fn note_decisions(world: &mut World, n: usize, command: &Command, done: Outcome) {
    let here = world.nodes[n].name.clone();
    let mut made = None;
    if let Command::Tables(TableCommand::CreateTable { owner, name, scope, .. }) = command {
        let catalog = world.nodes[n].db.catalog();
        let entry = catalog.find(owner, name.as_str()).expect("it was created");
        let table = entry.table.uid;
        if *scope != Scope::Local {
            made = Some((table, scope.clone()));
        }
    } else if let Command::Tables(TableCommand::SetScope { entry, scope, .. }) = command {
        // A table that is shared is another one for others than it was alone.
        let QualifiedName { owner, name } = &entry.table.name;
        let catalog = world.nodes[n].db.catalog();
        let entry = catalog.find(owner, name.as_str()).expect("it is there");
        if entry.replicated {
            made = Some((entry.table.uid, scope.clone()));
        }
    }
    if let Some((table, scope)) = made {
        if !world.tables.contains(&table) {
            world.tables.push(table);
        }
        let directory = world.nodes[n].db.catalog().directory();
        let count = directory.scope_knowledge(table).get(&here).copied().unwrap_or(0);
        if count == 0 || world.history.numbered.contains_key(&(table, here.clone(), count)) {
            return; // it was so already, and nothing was decided
        }
        let scope = match scope {
            Scope::Local => Some([n].into()),
            Scope::All => None,
            Scope::Nodes(nodes) => {
                Some(nodes.iter().filter_map(|name| world.index(name)).collect::<BTreeSet<_>>())
            }
        };
        let past = world.nodes[n].disk.decided(table);
        let mut off = Seen::new();
        for row in directory.written_by(&here) {
            if let Row::Scope(row) = row
                && row.table == table
            {
                off = row.off;
            }
        }
        let id = world.history.note_decision((table, here, count), scope, past, off);
        learn(world, n, table, id);
    }
    let learnt = match (command, done) {
        (
            Command::Replication(ReplicationCommand::ApplyBatch(delivery)),
            Outcome::Replication(ReplicationOutcome::Applied(Applied::Stored { .. })),
        ) => &delivery.verified[..],
        (Command::Directory(DirectoryCommand::Learn(rows)), _) => rows,
        _ => &[],
    };
    for row in learnt {
        if let Row::Scope(row) = row.row() {
            let name = (row.table, row.by.clone(), row.count);
            let Some(id) = world.history.numbered.get(&name).copied() else {
                broken(format!("I17 n{n} has learnt a decision that nobody has made: {row:?}"));
            };
            learn(world, n, row.table, id);
        }
    }
}

fn learn(world: &mut World, n: usize, table: TableUid, decision: usize) {
    let past = world.history.decisions[decision].past.clone();
    let decided = world.nodes[n].disk.decided.entry(table).or_default();
    decided.extend(past);
    decided.insert(decision);
}

fn observe_copy(world: &mut World, n: usize, table: TableUid, makes: Makes, handed_over: bool) {
    let replica = world.nodes[n].db.replica(table).cloned();
    let before = world.nodes[n].disk.copies.remove(&table).unwrap_or_default();
    let Some(replica) = replica else {
        return;
    };
    let number = replica.table.map(|table| table.0);
    // One that an older disk has brought back goes on in a later epoch, with all that it holds.
    let goes_on =
        before.number.is_some() && before.number == number && before.epoch < replica.epoch;
    let ended = (before.number.is_some() && before.number != number)
        || (before.epoch > 0 && before.epoch != replica.epoch && !goes_on);
    if ended {
        world.nodes[n].disk.forget(table);
        if !handed_over && before.epoch > 0 {
            let name = world.nodes[n].name.clone();
            world.history.lost.insert((table, name, before.epoch));
            world.tally.rescued += 1;
        }
        if !handed_over {
            i13::excuse_table(world, table);
        }
    }
    let before = if ended { CopyView::default() } else { before };
    if before.seen.as_ref() == Some(&replica) {
        world.nodes[n].disk.copies.insert(table, before);
        return;
    }
    let mut rows = number.map(|number| read_rows(&world.nodes[n].db, number)).unwrap_or_default();
    for (key, version) in &mut rows {
        let place = (table, key.clone());
        match before.rows.get(key) {
            Some(known) if known.dot == version.dot => version.known = Arc::clone(&known.known),
            Some(_) | None => note_version(world, n, &place, version, makes, &replica),
        }
    }
    let view = CopyView { number, epoch: replica.epoch, rows, seen: Some(replica) };
    world.nodes[n].disk.copies.insert(table, view);
}

/// A version that was not there before: it was made here just now, or it has come from somewhere.
fn note_version(
    world: &mut World,
    n: usize,
    place: &Place,
    version: &mut Version,
    makes: Makes,
    replica: &Replica,
) {
    i01::names_one_write(world, n, place, version);
    if !world.history.writes.contains_key(&version.dot) {
        // Rows of the directory are told by their signatures; a command may write some by the way.
        let is_own = match makes {
            Makes::Nothing => false,
            Makes::Rows => version.dot.actor == world.nodes[n].db.actor(),
            Makes::Copy => true, // the rows were there before, and nobody's concern
        };
        if !is_own && place.0 != SYSTEM_TABLE {
            broken(format!("I3 n{n} has a row that nobody has written: {place:?} {version:?}"));
        }
        version.known = true_past(world, n, place, version.dot, replica);
        let write = Write {
            place: place.clone(),
            stamp: version.stamp,
            value: version.value.clone(),
            node: n,
            at_ms: world.now_ms,
            past: world.nodes[n].disk.decided(place.0),
        };
        world.history.writes.insert(version.dot, write);
        world.history.by_place.entry(place.clone()).or_default().push(version.dot);
        world.history.stamps.insert(version.stamp, version.dot);
        let known = Arc::clone(&version.known);
        world.nodes[n].disk.know(place, &known);
    }
    if place.0 != SYSTEM_TABLE {
        i12::may_hold(world, n, version.dot);
        world.nodes[n].disk.raise(place, (version.stamp, version.dot));
        if !world.nodes[n].removed {
            let newest = (version.stamp, version.dot);
            let expected = world.history.expected.entry(place.clone()).or_insert(newest);
            *expected = newest.max(*expected);
        }
    }
}

/// What the writer of a write knows of its key: what its disk has met, and what its vector covers.
fn true_past(world: &World, n: usize, place: &Place, dot: Dot, replica: &Replica) -> Known {
    let mut known = world.nodes[n].disk.known.get(place).cloned().unwrap_or_default();
    let all = world.history.by_place.get(place);
    let covered = all.into_iter().flatten().filter(|dot| replica.vector.covers(**dot));
    let more: BTreeSet<Dot> = covered.copied().chain([dot]).collect();
    if !more.is_subset(&known) {
        known = Arc::new(known.union(&more).copied().collect());
    }
    known
}

/// Everything that must hold after a command on a node.
pub(crate) fn after(world: &mut World, n: usize) {
    i04::only_rises(world, n);
    i05::totals_are_those_of_the_rows(world, n);
    i07::nothing_is_claimed_that_is_not_there(world, n);
    i09::a_position_says_what_has_come(world, n);
    i13::nothing_is_lost(world);
    i15::the_narrower_scope_counts(world, n);
    i23::a_digest_is_that_of_the_rows(world, n);
}
