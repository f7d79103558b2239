//! What happens in the simulated world, drawn at random with weights that differ from run to run (Groce et
//! al., "Swarm Testing", 2012), and how it comes to rest in the end.

use std::collections::BTreeSet;

use cortex_core::{
    directory::Standing,
    model::{Caller, Owner, Scope, TableUid},
};
use cortexd::store::{
    Command, RecordCommand, ReplicationCommand, SYSTEM_TABLE, TableCommand, UpkeepCommand,
};

use crate::{
    checks,
    links::Until,
    requests::{
        IDENTITY, OWNER, claim, create, decline, delete, entry, key, named, put, register, remove,
        set_scope,
    },
    world::{LEAST_AGE_MS, SKEW_MS, World},
};

/// What kind of faults a run has. All at once would be so many that few things ever work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Disks are rolled back, nodes die and join; every node may have every table.
    Disks,
    /// Scopes change, nodes crash and die.
    Scopes,
    /// Clocks jump, disks run full.
    Clocks,
    /// Only neighbours in a line ever see each other.
    Chain,
    /// All of it.
    Everything,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Write,
    Pull,
    PullSystem,
    Deliver,
    Repeat,
    Break,
    SyncAll,
    Collect,
    TruncateChangeLog,
    Pause,
    Save,
    RollBack,
    Crash,
    Die,
    Remove,
    Join,
    Partition,
    StaleSnapshot,
    Decide,
    Abandon,
    Decline,
    Drop,
    Create,
    Acknowledge,
    Repair,
    Local,
    Purge,
    DiskFull,
    Jump,
    Restamp,
    Doubt,
}

pub(crate) struct Weights {
    kind: Kind,
    actions: Vec<(Action, u64)>,
    /// Deletions among writes, of a hundred.
    deletions: u64,
}

impl Weights {
    pub(crate) fn draw(world: &mut World, kind: Kind) -> Self {
        use Action::*;
        let chance = &mut world.chance;
        let base = [
            (Write, 160),
            (Pull, 220),
            (PullSystem, 40),
            (Deliver, 300),
            (Repeat, 60),
            (Break, 10),
            (SyncAll, 30),
            (Collect, 80),
            (TruncateChangeLog, 30),
            (Pause, 20),
            (Save, 20),
            (RollBack, 10),
            (Crash, 15),
            (Die, 5),
            (Remove, 5),
            (Join, 6),
            (Partition, 20),
            (StaleSnapshot, 10),
            (Decide, 40),
            (Abandon, 4),
            (Drop, 2),
            (Create, 3),
            (Acknowledge, 5),
            (Repair, 6),
            (Local, 4),
            (Purge, 20),
            (DiskFull, 10),
            (Jump, 10),
            (Restamp, 15),
            (Doubt, 12),
        ];
        let mut actions: Vec<(Action, u64)> = Vec::new();
        for (action, weight) in base {
            let is_common = matches!(action, Write | Pull | Deliver | PullSystem);
            let factor = match is_common {
                true => chance.of(&[5, 10, 20]),
                false => chance.of(&[0, 3, 10, 10, 20, 40]),
            };
            let only_in: &[Kind] = if matches!(action, Save | RollBack | Join | StaleSnapshot) {
                &[Kind::Disks, Kind::Everything]
            } else if matches!(action, Die | Remove) {
                &[Kind::Disks, Kind::Scopes, Kind::Everything]
            } else if matches!(action, Decide | Abandon) {
                &[Kind::Scopes, Kind::Everything]
            } else if matches!(action, Doubt) {
                &[Kind::Scopes, Kind::Chain, Kind::Everything]
            } else if matches!(action, DiskFull) {
                &[Kind::Clocks, Kind::Everything]
            } else if matches!(action, Jump | Restamp) {
                &[Kind::Clocks]
            } else if matches!(action, Partition) {
                &[Kind::Disks, Kind::Scopes, Kind::Clocks, Kind::Everything]
            } else {
                &[Kind::Disks, Kind::Scopes, Kind::Clocks, Kind::Chain, Kind::Everything]
            };
            let applies = only_in.contains(&kind);
            actions.push((action, if applies { weight * factor / 10 } else { 0 }));
        }
        // Half of the runs with rollbacks have many of them, and long calm moments between.
        if matches!(kind, Kind::Disks) && chance.percent(50) {
            let more = [(Save, 3), (SyncAll, 3), (RollBack, 5), (Collect, 2), (StaleSnapshot, 4)];
            for (action, weight) in &mut actions {
                let factor = more.iter().find(|(often, _)| often == action);
                *weight *= factor.map_or(1, |(_, factor)| *factor);
            }
        }
        if matches!(kind, Kind::Scopes) {
            let set = |actions: &mut Vec<(Action, u64)>, which: &[(Action, u64)]| {
                for (action, weight) in which {
                    actions.retain(|(other, _)| other != action);
                    actions.push((*action, *weight));
                }
            };
            match chance.below(5) {
                // Torn transfers.
                0 => set(
                    &mut actions,
                    &[(SyncAll, 0), (Die, 20), (Pull, 400), (Deliver, 600), (Decide, 30)],
                ),
                // Decisions that cross each other.
                1 => set(
                    &mut actions,
                    &[
                        (Decide, 120),
                        (PullSystem, 300),
                        (Deliver, 600),
                        (Write, 40),
                        (Pull, 80),
                        (SyncAll, 0),
                    ],
                ),
                // Replicas that come back, and collection.
                2 => set(
                    &mut actions,
                    &[
                        (Collect, 200),
                        (Decide, 40),
                        (PullSystem, 200),
                        (Deliver, 600),
                        (SyncAll, 10),
                        (Pause, 60),
                    ],
                ),
                _other => {}
            }
        }
        if matches!(kind, Kind::Scopes | Kind::Everything) {
            actions.push((Decline, 6));
        }
        let deletions = chance.of(&[20, 40, 60]);
        Self { kind, actions, deletions }
    }
}

/// Makes the nodes, an identity that is on all of them, and some tables.
pub(crate) fn set_up(world: &mut World, kind: Kind) {
    let count = match kind {
        Kind::Disks | Kind::Clocks => world.chance.of(&[2, 3, 3, 4]),
        Kind::Scopes | Kind::Everything => world.chance.of(&[3, 3, 4, 5]),
        Kind::Chain => world.chance.of(&[3, 4]),
    };
    let skewed = world.chance.percent(60);
    for _ in 0..count {
        world.add_node(skewed);
    }
    register(world);
    world.calm = true;
    sync_everybody(world, &[SYSTEM_TABLE]);
    for n in 1..count {
        claim(world, n);
    }
    sync_everybody(world, &[SYSTEM_TABLE]);
    let federated = || Owner::Identity(IDENTITY);
    let scope = scope(world, kind);
    create(world, 0, federated(), "f", scope);
    if world.chance.percent(30) {
        let scope = self::scope(world, kind);
        create(world, 1, federated(), "f", scope); // before either has heard of the other's
    }
    if world.chance.percent(40) {
        let scope = self::scope(world, kind);
        create(world, 0, Owner::Uid(OWNER), "u", scope);
    }
    if world.chance.percent(80) {
        let tables: Vec<_> = std::iter::once(SYSTEM_TABLE).chain(world.tables.clone()).collect();
        sync_everybody(world, &tables);
    }
    world.chain = kind == Kind::Chain;
    world.large = matches!(kind, Kind::Clocks | Kind::Everything);
    world.calm = false;
}

fn scope(world: &mut World, kind: Kind) -> Scope {
    let names: Vec<usize> = (0..world.nodes.len()).collect();
    match kind {
        Kind::Disks | Kind::Clocks | Kind::Chain => Scope::All,
        Kind::Scopes | Kind::Everything => {
            if world.chance.percent(30) {
                return Scope::All;
            }
            let chosen = world.chance.some(&names);
            named(world, &chosen)
        }
    }
}

pub(crate) fn write(world: &mut World, n: usize, deletions: u64) {
    let table = world.tables[world.chance.below(world.tables.len())];
    let may_write = |world: &World, n: usize| {
        let entry = entry(world, n, table);
        entry.is_some_and(|entry| entry.standing == Standing::In && entry.ready)
    };
    let living = world.living();
    let mut n = n;
    let asks_first = world.chance.percent(90);
    for _ in 0..4 {
        if asks_first && !may_write(world, n) {
            n = world.chance.of(&living);
        }
    }
    let Some(entry) = entry(world, n, table) else { return };
    let key = world.chance.below(world.keys);
    if world.chance.percent(deletions) {
        delete(world, n, &entry, key);
    } else {
        put(world, n, &entry, key);
    }
}

/// Something that is on its way arrives, or is done.
fn deliver_one(world: &mut World) {
    if world.network.is_empty() {
        return;
    }
    let last = world.network.len() - 1;
    let at = if world.chance.percent(50) { 0 } else { last };
    let item = world.network.remove(world.first_like(at));
    world.deliver(item);
}

/// One thing happens.
pub(crate) fn step(world: &mut World, weights: &Weights) {
    world.tally.steps += 1;
    world.now_ms += world.chance.within(200, 1500);
    world.tick();
    let living = world.living();
    let n = world.chance.of(&living);
    let others: Vec<usize> = living.iter().copied().filter(|other| *other != n).collect();
    let other = if others.is_empty() { n } else { world.chance.of(&others) };
    let action = world.chance.weighted(&weights.actions);
    world.log.push(format!("{action:?} n{n} n{other} at {}", world.now_ms));
    match action {
        Action::Write => write(world, n, weights.deletions),
        Action::Pull => {
            let table = world.tables[world.chance.below(world.tables.len())];
            let has = |world: &World, n: usize| {
                world.nodes[n].db.replica(table).is_some_and(|replica| replica.epoch > 0)
            };
            let (mut reader, mut source) = (n, other);
            for _ in 0..4 {
                if reader == source || !has(world, reader) || !has(world, source) {
                    (reader, source) = (world.chance.of(&living), world.chance.of(&living));
                }
            }
            let _cut_or_refused = (reader != source).then(|| world.link_up(reader, source));
        }
        Action::PullSystem => {
            let most = world.chance.below(3);
            if other != n {
                pull(world, n, other, SYSTEM_TABLE, most);
            }
        }
        Action::Deliver => {
            for _ in 0..world.chance.within(1, 4) {
                deliver_one(world);
            }
        }
        Action::Repeat => {
            if !world.network.is_empty() {
                let at = world.chance.below(world.network.len());
                world.repeat(at);
            }
        }
        Action::Break => {
            let pairs: Vec<_> = world.links.keys().copied().collect();
            if !pairs.is_empty() {
                let pair = world.chance.of(&pairs);
                world.end_down(pair, pair.0);
                if world.chance.percent(50) {
                    world.link_down(pair); // or the other end has not found out
                }
            }
        }
        Action::SyncAll => calm_moment(world),
        Action::Collect => {
            for table in world.tables.clone() {
                world.collect(n, table);
            }
        }
        Action::TruncateChangeLog => {
            let table = world.tables[world.chance.below(world.tables.len())];
            let last_lsn = world.nodes[n].db.replica(table).map_or(0, |replica| replica.last_lsn);
            let upto =
                if world.chance.percent(30) { last_lsn } else { world.chance.within(0, last_lsn) };
            let _full = world.run(
                n,
                &Command::Replication(ReplicationCommand::TruncateChangeLog { table, upto }),
            );
        }
        Action::Pause => world.now_ms += LEAST_AGE_MS + SKEW_MS,
        Action::Save => world.save(n),
        Action::RollBack => roll_back(world, n),
        Action::Crash => world.restart(n, None),
        Action::Die if living.iter().filter(|n| !world.nodes[**n].asked_out).count() > 2 => {
            world.die(n);
        }
        Action::Remove => {
            let dead: Vec<usize> = (0..world.nodes.len())
                .filter(|n| !world.nodes[*n].alive && !world.nodes[*n].asked_out)
                .collect();
            let staying = living.iter().filter(|n| !world.nodes[**n].asked_out).count();
            if !dead.is_empty() {
                let whom = world.chance.of(&dead);
                remove(world, n, whom);
            } else if staying > 3 && !world.nodes[n].asked_out && other != n {
                remove(world, n, other); // it goes on for those who have not heard of it
            }
        }
        Action::Join if world.nodes.len() < 7 => {
            let new = world.add_node(true);
            world.log.push(format!("  is n{new}"));
        }
        Action::Partition => {
            if !world.cut.is_empty() && world.chance.percent(50) {
                world.cut.clear();
            } else {
                let all: Vec<usize> = (0..world.nodes.len()).collect();
                let part = world.chance.some(&all);
                let apart = |a: &usize, b: &usize| part.contains(a) != part.contains(b);
                let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b)));
                world.cut = pairs.filter(|(a, b)| a < b && apart(a, b)).collect();
            }
        }
        Action::StaleSnapshot if living.len() > 2 => {
            let third: Vec<usize> =
                living.iter().copied().filter(|x| *x != n && *x != other).collect();
            let third = world.chance.of(&third);
            stale_snapshot(world, weights, (n, other, third));
        }
        Action::Decide => decide(world, n, false),
        Action::Abandon => decide(world, n, true),
        Action::Decline => {
            let table = world.tables[world.chance.below(world.tables.len())];
            let name = world.nodes[n].name.clone();
            let is_so = world.nodes[n].db.catalog().directory().is_declined(table, &name);
            decline(world, n, table, !is_so);
        }
        Action::Drop => {
            let table = world.tables[world.chance.below(world.tables.len())];
            if world.chance.percent(20)
                && let Some(entry) = entry(world, n, table)
            {
                let caller = Caller::Local(OWNER);
                let _refused =
                    world.run(n, &Command::Tables(TableCommand::DropTable { caller, entry }));
            }
        }
        Action::Create => {
            let scope = scope(world, weights.kind);
            create(world, n, Owner::Identity(IDENTITY), "f", scope);
        }
        Action::Acknowledge => {
            let table = world.tables[world.chance.below(world.tables.len())];
            if let Some(entry) = entry(world, n, table) {
                let caller = Caller::Local(OWNER);
                let command =
                    Command::Records(RecordCommand::Acknowledge { caller, entry, conflict: None });
                let _refused = world.run(n, &command);
            }
        }
        Action::Repair => repair(world, n),
        Action::Local => local(world, n, weights),
        Action::Purge => {
            let _full = world.run(n, &Command::Upkeep(UpkeepCommand::Purge));
        }
        Action::DiskFull => {
            let full = !world.nodes[n].full;
            world.set_full(n, full);
        }
        Action::Jump => {
            let year = 365 * 24 * 60 * 60 * 1000;
            let to_1970 = -world.now_ms.cast_signed();
            world.nodes[n].jump_ms = if world.nodes[n].jump_ms == 0 {
                // 2038 is some weeks ahead.
                world.chance.of(&[year, -year, to_1970, 60 * 24 * 60 * 60 * 1000])
            } else {
                0
            };
        }
        Action::Restamp => wrong_clock(world, weights, n),
        Action::Doubt if world.nodes[n].signer.doubted().is_empty() && other != n => {
            world.doubt(n, other);
        }
        Action::Doubt => world.believe(n),
        Action::Die | Action::Join | Action::StaleSnapshot => {}
    }
    if !matches!(action, Action::Pull | Action::PullSystem | Action::Break | Action::Pause) {
        checks::after(world, n);
    }
}

/// A clock is ahead for a while, and right again; meanwhile there are writes, and others may be asked, or be as
/// wrong.
fn wrong_clock(world: &mut World, weights: &Weights, n: usize) {
    if world.chance.percent(60) {
        let year = 365 * 24 * 60 * 60 * 1000;
        let living = world.living();
        let other = world.chance.of(&living);
        world.nodes[n].jump_ms = year;
        if world.chance.percent(30) {
            world.nodes[other].jump_ms = year;
        }
        for _ in 0..world.chance.within(1, 4) {
            write(world, n, weights.deletions);
            let table = world.tables[world.chance.below(world.tables.len())];
            if world.chance.percent(40) && other != n {
                let most = world.chance.below(3);
                pull(world, other, n, table, most);
            } else if world.chance.percent(20) && other != n {
                // And what is sent arrives when the clock is right again.
                world.exchange(other, n, table, Until::Sent);
            }
        }
        world.nodes[n].jump_ms = 0;
        if world.chance.percent(70) {
            world.nodes[other].jump_ms = 0;
        }
    }
    world.mend_clock(n);
}

/// What a repair does with a row that replicas differ in, whether they do or not.
fn repair(world: &mut World, n: usize) {
    let table = world.tables[world.chance.below(world.tables.len())];
    let Some(entry) = entry(world, n, table) else { return };
    let number = world.chance.below(world.keys);
    let key = key(number).as_bytes().to_vec();
    let command = match world.chance.below(3) {
        0 => Command::Records(RecordCommand::ReAnnounce { entry, keys: vec![key] }),
        1 => Command::Records(RecordCommand::Rewrite { entry, keys: vec![key] }),
        _other => {
            let place = (table, key.clone());
            let dot = world.nodes[n].disk.version(&place).map(|version| version.dot);
            let caller = Caller::Local(OWNER);
            Command::Records(RecordCommand::Erase { caller, entry, rows: vec![(key, dot)] })
        }
    };
    let _refused = world.run(n, &command);
}

/// A table of one node alone is made, written, and shared some day.
fn local(world: &mut World, n: usize, weights: &Weights) {
    let owner = Owner::Uid(OWNER);
    let Some(entry) = world.nodes[n].db.catalog().find(&owner, "l").cloned() else {
        create(world, n, owner, "l", Scope::Local);
        return;
    };
    let number = world.chance.below(world.keys);
    if world.chance.percent(40) && !entry.replicated {
        let scope = scope(world, weights.kind);
        set_scope(world, n, &entry, scope, BTreeSet::new());
    } else if world.chance.percent(weights.deletions) {
        delete(world, n, &entry, number);
    } else {
        put(world, n, &entry, number);
    }
}

fn roll_back(world: &mut World, n: usize) {
    if let Some(saved) = world.saved(n) {
        world.restart(n, Some(saved));
    }
}

fn decide(world: &mut World, n: usize, gives_up: bool) {
    let table = world.tables[world.chance.below(world.tables.len())];
    let Some(entry) = entry(world, n, table) else { return };
    let all: Vec<usize> = (0..world.nodes.len()).collect();
    let directory = world.nodes[n].db.catalog().directory();
    let mut nodes: BTreeSet<usize> = all
        .iter()
        .copied()
        .filter(|x| directory.standing(table, &world.nodes[*x].name) == Standing::In)
        .collect();
    let other = world.chance.of(&all);
    let mut abandon = BTreeSet::new();
    if gives_up && other != n {
        nodes.remove(&other);
        nodes.insert(n);
        abandon.insert(world.nodes[other].name.clone());
    } else if world.chance.percent(70) {
        if !nodes.remove(&other) {
            nodes.insert(other);
        }
    } else {
        nodes = world.chance.some(&all);
    }
    if nodes.is_empty() {
        return;
    }
    let scope = match world.chance.percent(10) && !gives_up {
        true => Scope::All,
        false => named(world, &nodes),
    };
    world.log.push(format!("  {scope:?}, writing off {abandon:?}"));
    set_scope(world, n, &entry, scope, abandon);
}

/// One reads of another until there is no more, or so many batches.
pub(crate) fn pull(world: &mut World, reader: usize, source: usize, table: TableUid, most: usize) {
    let before = (world.tally.taken, world.tally.unfit);
    world.exchange(reader, source, table, Until::Applied(most));
    // What was answered to a request of before may be of no use now.
    if world.calm && before.0 == world.tally.taken && before.1 < world.tally.unfit {
        world.exchange(reader, source, table, Until::Applied(most));
    }
}

pub(crate) fn sync_everybody(world: &mut World, tables: &[TableUid]) {
    let living = world.living();
    for table in tables {
        for reader in &living {
            for source in &living {
                if world.reaches(*source, *reader) && world.reaches(*reader, *source) {
                    pull(world, *reader, *source, *table, if world.calm { 6 } else { 40 });
                }
            }
        }
    }
}

/// Everything gets through for a while, between all or some.
fn calm_moment(world: &mut World) {
    world.calm = true;
    let mut living = world.living();
    if living.len() > 2 && world.chance.percent(50) {
        living = world.chance.some(&living).into_iter().collect();
    }
    let tables: Vec<_> = std::iter::once(SYSTEM_TABLE).chain(world.tables.clone()).collect();
    for _ in 0..world.chance.of(&[1, 1, 2]) {
        for table in &tables {
            for reader in &living {
                for source in &living {
                    if reader != source {
                        pull(world, *reader, *source, *table, 4);
                    }
                }
            }
        }
    }
    world.calm = false;
}

/// The likely way into the corners: a node confirms deletions and is rolled back; another collects while
/// that one is in a pass over its replica.
fn stale_snapshot(world: &mut World, weights: &Weights, (r, s, c): (usize, usize, usize)) {
    let table = world.tables[world.chance.below(world.tables.len())];
    let spread = |world: &mut World, nodes: &[usize]| {
        world.calm = true;
        for _ in 0..2 {
            for reader in nodes {
                for source in nodes {
                    if reader != source {
                        pull(world, *reader, *source, SYSTEM_TABLE, 3);
                        pull(world, *reader, *source, table, 4);
                    }
                }
            }
        }
        world.calm = false;
    };
    let living = world.living();
    if world.chance.percent(90) || world.nodes[r].saved.is_none() {
        world.save(r);
    }
    for _ in 0..world.chance.below(4) {
        write(world, c, 70);
    }
    if world.chance.percent(90) {
        spread(world, &living);
        world.now_ms += LEAST_AGE_MS + SKEW_MS;
        for n in &living {
            if world.chance.percent(60) {
                world.collect(*n, table);
            }
        }
    }
    for _ in 0..world.chance.within(1, 3) {
        write(world, c, 70);
    }
    spread(world, &living);
    world.now_ms += LEAST_AGE_MS + SKEW_MS;
    if world.chance.percent(30) {
        let n = world.chance.of(&living);
        world.collect(n, table);
    }
    roll_back(world, r);
    let some = world.chance.within(1, 7);
    pull(world, r, s, table, usize::try_from(some).expect("small"));
    if world.chance.percent(30) {
        let n = world.chance.of(&living);
        write(world, n, weights.deletions);
    }
    world.calm = true;
    pull(world, s, c, table, 4);
    world.calm = false;
    world.now_ms += LEAST_AGE_MS + SKEW_MS;
    world.collect(s, table);
    let some = world.chance.below(9);
    pull(world, r, s, table, some);
}
