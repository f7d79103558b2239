//! What is to happen in the simulated world, drawn at random with weights that differ from run to run (Groce et
//! al., "Swarm Testing", 2012). What each of it does is `deeds`'s.

use std::collections::BTreeSet;

use cortex_core::{
    directory::Standing,
    model::{Owner, Scope, TableUid},
};
use cortexd::store::SYSTEM_TABLE;

use crate::{
    deeds::{Deed, LOCAL, Nodes, Step, play, some},
    links::Until,
    requests::{IDENTITY, OWNER, claim, create, entry, named, register},
    world::World,
};

const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;

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
    Upkeep,
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
            (Upkeep, 80),
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
            let more = [(Save, 3), (SyncAll, 3), (RollBack, 5), (Upkeep, 2), (StaleSnapshot, 4)];
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
                        (Upkeep, 200),
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
    match draw_scope(world, kind) {
        Some(nodes) => named(world, &nodes.0),
        None => Scope::All,
    }
}

/// Some nodes; none for all of them.
fn draw_scope(world: &mut World, kind: Kind) -> Option<Nodes> {
    let all: Vec<usize> = (0..world.nodes.len()).collect();
    match kind {
        Kind::Disks | Kind::Clocks | Kind::Chain => None,
        Kind::Scopes | Kind::Everything => {
            let everywhere = world.chance.percent(30);
            (!everywhere).then(|| Nodes(world.chance.some(&all)))
        }
    }
}

/// One thing happens, of which the nodes are drawn by how they are now.
pub(crate) fn step(world: &mut World, weights: &Weights) {
    world.tally.steps += 1;
    let after_ms = world.chance.within(200, 1500);
    let deeds = draw(world, weights);
    let mut steps: Vec<Step> = Vec::new();
    for deed in deeds {
        steps.push(Step { after_ms: 0, dice: world.chance.draw() % 1000, deed });
    }
    if let Some(first) = steps.first_mut() {
        first.after_ms = after_ms;
    }
    world.happened.extend(steps.clone());
    play(world, &steps);
}

fn draw(world: &mut World, weights: &Weights) -> Vec<Deed> {
    let living = world.living();
    let n = world.chance.of(&living);
    let others: Vec<usize> = living.iter().copied().filter(|other| *other != n).collect();
    let other = if others.is_empty() { n } else { world.chance.of(&others) };
    let action = world.chance.weighted(&weights.actions);
    let table = world.chance.below(world.tables.len());
    let key = world.chance.below(world.keys);
    let deed = match action {
        Action::Write => write(world, n, weights.deletions),
        Action::Pull => {
            let has = |world: &World, n: usize| {
                let replica = world.nodes[n].db.replica(world.tables[table]);
                replica.is_some_and(|replica| replica.epoch > 0)
            };
            let (mut a, mut b) = (n, other);
            for _ in 0..4 {
                if a == b || !has(world, a) || !has(world, b) {
                    (a, b) = (world.chance.of(&living), world.chance.of(&living));
                }
            }
            Deed::Link { a, b }
        }
        Action::PullSystem if other == n => return Vec::new(),
        Action::PullSystem => {
            Deed::ReadDirectory { reader: n, source: other, most: world.chance.below(3) }
        }
        Action::Deliver => {
            let count = world.chance.within(1, 4);
            return (0..count)
                .map(|_| Deed::Deliver { oldest: world.chance.percent(50) })
                .collect();
        }
        Action::Repeat => Deed::Repeat { at: world.chance.below(world.network.len()) },
        Action::Break => {
            let pairs: Vec<_> = world.links.keys().copied().collect();
            if pairs.is_empty() {
                return Vec::new();
            }
            let (a, b) = world.chance.of(&pairs);
            Deed::Break { a, b, both: world.chance.percent(50) } // or the other end has not found out
        }
        Action::SyncAll => {
            let is_partial = living.len() > 2 && world.chance.percent(50);
            let nodes = if is_partial {
                world.chance.some(&living)
            } else {
                living.iter().copied().collect()
            };
            Deed::Calm { nodes: Nodes(nodes), rounds: world.chance.of(&[1, 1, 2]) }
        }
        Action::Upkeep => Deed::Upkeep { n },
        Action::TruncateChangeLog => {
            let replica = world.nodes[n].db.replica(world.tables[table]);
            let last_lsn = replica.map_or(0, |replica| replica.last_lsn);
            let upto =
                if world.chance.percent(30) { last_lsn } else { world.chance.within(0, last_lsn) };
            Deed::Truncate { n, table, upto }
        }
        Action::Pause => Deed::Pause,
        Action::Save => Deed::Save { n },
        Action::RollBack => Deed::RollBack { n },
        Action::Crash => Deed::Crash { n },
        Action::Die => Deed::Die { n },
        Action::Remove => {
            let dead: Vec<usize> = (0..world.nodes.len())
                .filter(|n| !world.nodes[*n].alive && !world.nodes[*n].asked_out)
                .collect();
            let whom = if dead.is_empty() { other } else { world.chance.of(&dead) };
            if dead.is_empty() && (world.nodes[n].asked_out || other == n) {
                return Vec::new();
            }
            Deed::Remove { n, whom }
        }
        Action::Join => Deed::Join,
        Action::Partition if !world.cut.is_empty() && world.chance.percent(50) => Deed::Reunite,
        Action::Partition => {
            let all: Vec<usize> = (0..world.nodes.len()).collect();
            Deed::Part { nodes: Nodes(world.chance.some(&all)) }
        }
        Action::StaleSnapshot => {
            let third: Vec<usize> =
                living.iter().copied().filter(|x| *x != n && *x != other).collect();
            if third.is_empty() {
                return Vec::new();
            }
            let third = world.chance.of(&third);
            return stale_snapshot(world, weights, (n, other, third), table);
        }
        Action::Decide => return decide(world, n, table, false).into_iter().collect(),
        Action::Abandon => return decide(world, n, table, true).into_iter().collect(),
        Action::Decline => {
            let (directory, name) = (world.nodes[n].db.catalog().directory(), &world.nodes[n].name);
            let declined = !directory.is_declined(world.tables[table], name);
            Deed::Decline { n, table, declined }
        }
        Action::Drop if world.chance.percent(80) => return Vec::new(),
        Action::Drop => Deed::Drop { n, table },
        Action::Create => Deed::Create { n, scope: draw_scope(world, weights.kind) },
        Action::Acknowledge => Deed::Acknowledge { n, table },
        Action::Repair => match world.chance.below(3) {
            0 => Deed::ReAnnounce { n, table, key },
            1 => Deed::Rewrite { n, table, key },
            _other => Deed::Erase { n, table, key },
        },
        Action::Local => local(world, n, key, weights),
        Action::Purge => Deed::Purge { n },
        Action::DiskFull => Deed::FillDisk { n, full: !world.nodes[n].full },
        Action::Jump if world.nodes[n].jump_ms != 0 => Deed::Jump { n, by_ms: 0 },
        Action::Jump => {
            let to_1970 = -world.now_ms.cast_signed();
            // 2038 is some weeks ahead.
            let by_ms = world.chance.of(&[YEAR_MS, -YEAR_MS, to_1970, 60 * 24 * 60 * 60 * 1000]);
            Deed::Jump { n, by_ms }
        }
        Action::Restamp => return wrong_clock(world, weights, n),
        Action::Doubt if world.nodes[n].signer.doubted().is_empty() && other != n => {
            Deed::Doubt { n, whom: other }
        }
        Action::Doubt => Deed::Believe { n },
    };
    vec![deed]
}

/// Mostly by a node that may write.
fn write(world: &mut World, n: usize, deletions: u64) -> Deed {
    let table = world.chance.below(world.tables.len());
    let may_write = |world: &World, n: usize| {
        let entry = entry(world, n, world.tables[table]);
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
    let key = world.chance.below(world.keys);
    let deletes = world.chance.percent(deletions);
    if deletes { Deed::Delete { n, table, key } } else { Deed::Put { n, table, key } }
}

/// A clock is ahead for a while, and right again; meanwhile there are writes, and others may be asked, or be as
/// wrong.
fn wrong_clock(world: &mut World, weights: &Weights, n: usize) -> Vec<Deed> {
    let mut deeds = Vec::new();
    if world.chance.percent(60) {
        let living = world.living();
        let other = world.chance.of(&living);
        deeds.push(Deed::Jump { n, by_ms: YEAR_MS });
        if world.chance.percent(30) {
            deeds.push(Deed::Jump { n: other, by_ms: YEAR_MS });
        }
        for _ in 0..world.chance.within(1, 4) {
            deeds.push(write(world, n, weights.deletions));
            let table = world.chance.below(world.tables.len());
            let (reader, source, most) = (other, n, world.chance.below(3));
            if world.chance.percent(40) && other != n {
                deeds.push(Deed::Read { reader, source, table, most });
            } else if world.chance.percent(20) && other != n {
                // And what is sent arrives when the clock is right again.
                deeds.push(Deed::Ask { reader, source, table });
            }
        }
        deeds.push(Deed::Jump { n, by_ms: 0 });
        if world.chance.percent(70) {
            deeds.push(Deed::Jump { n: other, by_ms: 0 });
        }
    }
    deeds.push(Deed::Mend { n });
    deeds
}

/// A table of one node alone is made, written, and shared some day.
fn local(world: &mut World, n: usize, key: usize, weights: &Weights) -> Deed {
    let found = world.nodes[n].db.catalog().find(&Owner::Uid(OWNER), LOCAL).cloned();
    match found {
        None => Deed::MakeLocal { n },
        Some(entry) if !entry.replicated && world.chance.percent(40) => {
            Deed::ShareLocal { n, scope: draw_scope(world, weights.kind) }
        }
        Some(_) if world.chance.percent(weights.deletions) => Deed::DeleteLocal { n, key },
        Some(_) => Deed::PutLocal { n, key },
    }
}

fn decide(world: &mut World, n: usize, table: usize, gives_up: bool) -> Option<Deed> {
    let uid = world.tables[table];
    let all: Vec<usize> = (0..world.nodes.len()).collect();
    let directory = world.nodes[n].db.catalog().directory();
    let mut nodes: BTreeSet<usize> = all
        .iter()
        .copied()
        .filter(|x| directory.standing(uid, &world.nodes[*x].name) == Standing::In)
        .collect();
    let other = world.chance.of(&all);
    let mut abandon = some(&[]);
    if gives_up && other != n {
        nodes.remove(&other);
        nodes.insert(n);
        abandon = some(&[other]);
    } else if world.chance.percent(70) {
        if !nodes.remove(&other) {
            nodes.insert(other);
        }
    } else {
        nodes = world.chance.some(&all);
    }
    if nodes.is_empty() {
        return None;
    }
    let is_everywhere = world.chance.percent(10) && !gives_up;
    let scope = (!is_everywhere).then_some(Nodes(nodes));
    Some(Deed::Decide { n, table, scope, abandon })
}

/// The likely way into the corners: a node confirms deletions and is rolled back; another collects while
/// that one is in a pass over its replica.
fn stale_snapshot(
    world: &mut World,
    weights: &Weights,
    (r, s, c): (usize, usize, usize),
    table: usize,
) -> Vec<Deed> {
    let living = world.living();
    let nodes = Nodes(living.iter().copied().collect());
    let spread = || Deed::Spread { nodes: nodes.clone(), table };
    let mut deeds = Vec::new();
    if world.chance.percent(90) || world.nodes[r].saved.is_none() {
        deeds.push(Deed::Save { n: r });
    }
    for _ in 0..world.chance.below(4) {
        deeds.push(write(world, c, 70));
    }
    if world.chance.percent(90) {
        deeds.extend([spread(), Deed::Pause]);
        let collecting = living.iter().filter(|_| world.chance.percent(60));
        deeds.extend(collecting.map(|n| Deed::Upkeep { n: *n }));
    }
    for _ in 0..world.chance.within(1, 3) {
        deeds.push(write(world, c, 70));
    }
    deeds.extend([spread(), Deed::Pause]);
    if world.chance.percent(30) {
        deeds.push(Deed::Upkeep { n: world.chance.of(&living) });
    }
    let most = world.chance.below(7) + 1;
    deeds.extend([Deed::RollBack { n: r }, Deed::Read { reader: r, source: s, table, most }]);
    if world.chance.percent(30) {
        let n = world.chance.of(&living);
        deeds.push(write(world, n, weights.deletions));
    }
    let most = world.chance.below(9);
    deeds.extend([
        Deed::ReadAll { reader: s, source: c, table },
        Deed::Pause,
        Deed::Upkeep { n: s },
        Deed::Read { reader: r, source: s, table, most },
    ]);
    deeds
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
