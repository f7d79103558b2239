//! What happens in the simulated world, step by step and without chance: the same steps come to the same on every
//! run, each alone as well, so that a list of them can be shrunk. Which happen is `actions`'s to draw.

use std::{collections::BTreeSet, fmt, mem, sync::Arc};

use cortex_core::model::{Caller, Owner, Scope, TableUid};
use cortexd::store::{
    Command, Entry, RecordCommand, ReplicationCommand, SYSTEM_TABLE, TableCommand, UpkeepCommand,
};

use crate::{
    actions::pull,
    chance::Chance,
    checks,
    links::Until,
    requests::{
        IDENTITY, OWNER, create, decline, delete, entry, key, named, put, remove, set_scope,
    },
    world::{LEAST_AGE_MS, SKEW_MS, World},
};

/// The name of a table that one node alone has, at first.
pub(crate) const LOCAL: &str = "l";

/// Some nodes, by their numbers. Shown as it is written in a story.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Nodes(pub(crate) BTreeSet<usize>);

pub(crate) fn some(nodes: &[usize]) -> Nodes {
    Nodes(nodes.iter().copied().collect())
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> = self.0.iter().collect();
        write!(f, "some(&{nodes:?})")
    }
}

/// One thing that happens. Nodes and tables go by their numbers; a scope of none is all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Put {
        n: usize,
        table: usize,
        key: usize,
    },
    Delete {
        n: usize,
        table: usize,
        key: usize,
    },
    /// Two nodes talk.
    Link {
        a: usize,
        b: usize,
    },
    /// A link breaks, at one end or at both.
    Break {
        a: usize,
        b: usize,
        both: bool,
    },
    /// One reads so many batches of another.
    Read {
        reader: usize,
        source: usize,
        table: usize,
        most: usize,
    },
    ReadDirectory {
        reader: usize,
        source: usize,
        most: usize,
    },
    /// One reads all of another, and nothing disturbs it.
    ReadAll {
        reader: usize,
        source: usize,
        table: usize,
    },
    /// One asks another, and the answer is on its way.
    Ask {
        reader: usize,
        source: usize,
        table: usize,
    },
    /// Some read everything of each other, so many times.
    Calm {
        nodes: Nodes,
        rounds: usize,
    },
    /// Some read a table of each other, and the directory.
    Spread {
        nodes: Nodes,
        table: usize,
    },
    /// What has been on its way for the longest time arrives, or what was sent last.
    Deliver {
        oldest: bool,
    },
    /// What is on its way comes twice.
    Repeat {
        at: usize,
    },
    /// A round of upkeep: deletions are collected that every replica has confirmed.
    Upkeep {
        n: usize,
    },
    /// A change log is cut at any place, whatever upkeep would have kept.
    Truncate {
        n: usize,
        table: usize,
        upto: u64,
    },
    /// Deletions become old enough to be collected.
    Pause,
    Save {
        n: usize,
    },
    RollBack {
        n: usize,
    },
    Crash {
        n: usize,
    },
    Die {
        n: usize,
    },
    Remove {
        n: usize,
        whom: usize,
    },
    Join,
    /// Some reach each other alone, and so do the others.
    Part {
        nodes: Nodes,
    },
    Reunite,
    Decide {
        n: usize,
        table: usize,
        scope: Option<Nodes>,
        abandon: Nodes,
    },
    Decline {
        n: usize,
        table: usize,
        declined: bool,
    },
    Create {
        n: usize,
        scope: Option<Nodes>,
    },
    Drop {
        n: usize,
        table: usize,
    },
    Acknowledge {
        n: usize,
        table: usize,
    },
    ReAnnounce {
        n: usize,
        table: usize,
        key: usize,
    },
    Rewrite {
        n: usize,
        table: usize,
        key: usize,
    },
    Erase {
        n: usize,
        table: usize,
        key: usize,
    },
    /// A table of one node alone, and its rows.
    MakeLocal {
        n: usize,
    },
    ShareLocal {
        n: usize,
        scope: Option<Nodes>,
    },
    PutLocal {
        n: usize,
        key: usize,
    },
    DeleteLocal {
        n: usize,
        key: usize,
    },
    Purge {
        n: usize,
    },
    FillDisk {
        n: usize,
        full: bool,
    },
    /// A clock is so far off from now on.
    Jump {
        n: usize,
        by_ms: i64,
    },
    /// What nobody else has gets timestamps of the present.
    Mend {
        n: usize,
    },
    /// A node does not believe the certificate of another, or believes everybody again.
    Doubt {
        n: usize,
        whom: usize,
    },
    Believe {
        n: usize,
    },
}

/// A deed, after some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) after_ms: u64,
    /// What chance is drawn from while it happens: how large batches are, which ends of a link find out.
    pub(crate) dice: u64,
    pub(crate) deed: Deed,
}

/// A deed at once, and by the usual chance.
pub(crate) fn once(deed: Deed) -> Step {
    Step { after_ms: 0, dice: 0, deed }
}

/// What happens in a run, or in a story.
pub(crate) fn play(world: &mut World, steps: &[Step]) {
    for step in steps {
        world.now_ms += step.after_ms;
        let chance = mem::replace(&mut world.chance, Chance::new(step.dice));
        if step.after_ms > 0 {
            world.tick();
        }
        world.log.push(format!("{:?} at {}", step.deed, world.now_ms));
        if step.deed.can_be(world) {
            step.deed.happens(world);
        }
        world.chance = chance;
    }
}

fn scope_of(world: &World, scope: Option<&Nodes>) -> Scope {
    scope.map_or(Scope::All, |nodes| named(world, &nodes.0))
}

fn staying(world: &World) -> usize {
    world.living().into_iter().filter(|n| !world.nodes[*n].asked_out).count()
}

impl Deed {
    /// The nodes that do something, who must be alive.
    fn actors(&self) -> Vec<usize> {
        use Deed::*;
        match self {
            Put { n, .. }
            | Delete { n, .. }
            | Upkeep { n }
            | Truncate { n, .. }
            | Save { n }
            | RollBack { n }
            | Crash { n }
            | Die { n }
            | Remove { n, .. }
            | Decide { n, .. }
            | Decline { n, .. }
            | Create { n, .. }
            | Drop { n, .. }
            | Acknowledge { n, .. }
            | ReAnnounce { n, .. }
            | Rewrite { n, .. }
            | Erase { n, .. }
            | MakeLocal { n }
            | ShareLocal { n, .. }
            | PutLocal { n, .. }
            | DeleteLocal { n, .. }
            | Purge { n }
            | FillDisk { n, .. }
            | Jump { n, .. }
            | Mend { n }
            | Doubt { n, .. }
            | Believe { n } => {
                vec![*n]
            }
            Link { a, b } | Break { a, b, .. } => vec![*a, *b],
            Read { reader, source, .. }
            | ReadDirectory { reader, source, .. }
            | ReadAll { reader, source, .. }
            | Ask { reader, source, .. } => {
                vec![*reader, *source]
            }
            Calm { nodes, .. } | Spread { nodes, .. } => nodes.0.iter().copied().collect(),
            Deliver { .. } | Repeat { .. } | Pause | Join | Part { .. } | Reunite => Vec::new(),
        }
    }

    fn table(&self) -> Option<usize> {
        use Deed::*;
        match self {
            Put { table, .. }
            | Delete { table, .. }
            | Read { table, .. }
            | ReadAll { table, .. }
            | Ask { table, .. }
            | Spread { table, .. }
            | Truncate { table, .. }
            | Decide { table, .. }
            | Decline { table, .. }
            | Drop { table, .. }
            | Acknowledge { table, .. }
            | ReAnnounce { table, .. }
            | Rewrite { table, .. }
            | Erase { table, .. } => Some(*table),
            Link { .. }
            | Break { .. }
            | ReadDirectory { .. }
            | Calm { .. }
            | Deliver { .. }
            | Repeat { .. }
            | Upkeep { .. }
            | Pause
            | Save { .. }
            | RollBack { .. }
            | Crash { .. }
            | Die { .. }
            | Remove { .. }
            | Join
            | Part { .. }
            | Reunite
            | Create { .. }
            | MakeLocal { .. }
            | ShareLocal { .. }
            | PutLocal { .. }
            | DeleteLocal { .. }
            | Purge { .. }
            | FillDisk { .. }
            | Jump { .. }
            | Mend { .. }
            | Doubt { .. }
            | Believe { .. } => None,
        }
    }

    /// False where steps before it are missing that would have made it possible.
    fn can_be(&self, world: &World) -> bool {
        let lives = |n: &usize| world.nodes.get(*n).is_some_and(|node| node.alive);
        let mut named = BTreeSet::new();
        if let Self::Remove { whom, .. } | Self::Doubt { whom, .. } = self {
            named.insert(*whom);
        }
        if let Self::Decide { scope, .. }
        | Self::Create { scope, .. }
        | Self::ShareLocal { scope, .. } = self
        {
            named.extend(scope.iter().flat_map(|nodes| &nodes.0));
        }
        if let Self::Decide { abandon, .. } = self {
            named.extend(&abandon.0);
        }
        self.actors().iter().all(lives)
            && named.iter().all(|n| *n < world.nodes.len())
            && self.table().is_none_or(|table| table < world.tables.len())
    }

    fn happens(&self, world: &mut World) {
        let table = self.table().map_or(SYSTEM_TABLE, |table| world.tables[table]);
        match self {
            Self::Put { n, key, .. } => {
                with_entry(world, *n, table, |world, entry| put(world, *n, entry, *key));
            }
            Self::Delete { n, key, .. } => {
                with_entry(world, *n, table, |world, entry| delete(world, *n, entry, *key));
            }
            Self::Link { a, b } => {
                let _cut_or_refused = world.link_up(*a, *b);
            }
            Self::Break { a, b, both } => {
                world.end_down((*a, *b), *a);
                if *both {
                    world.link_down((*a, *b));
                }
            }
            Self::Read { reader, source, most, .. }
            | Self::ReadDirectory { reader, source, most } => {
                pull(world, *reader, *source, table, *most);
            }
            Self::ReadAll { reader, source, .. } => {
                world.calm = true;
                pull(world, *reader, *source, table, 4);
                world.calm = false;
            }
            Self::Ask { reader, source, .. } => {
                world.exchange(*reader, *source, table, Until::Sent);
            }
            Self::Calm { nodes, rounds } => be_calm(world, nodes, *rounds),
            Self::Spread { nodes, .. } => spread(world, nodes, table),
            Self::Deliver { oldest } => deliver(world, *oldest),
            Self::Repeat { at } => {
                if let Some(at) = at.checked_rem(world.network.len()) {
                    world.repeat(at);
                }
            }
            Self::Upkeep { n } => world.upkeep_round(*n),
            Self::Truncate { n, upto, .. } => {
                let command = ReplicationCommand::TruncateChangeLog { table, upto: *upto };
                let _full = world.run(*n, &command.into());
            }
            Self::Pause => world.now_ms += LEAST_AGE_MS + SKEW_MS,
            Self::Save { n } => world.save(*n),
            Self::RollBack { n } => {
                if let Some(saved) = world.saved(*n) {
                    world.restart(*n, Some(saved));
                }
            }
            Self::Crash { n } => world.restart(*n, None),
            Self::Die { n } => {
                if staying(world) > 2 {
                    world.die(*n);
                }
            }
            Self::Remove { n, whom } => {
                // Who is alive goes on for those who have not heard of it; enough must be left.
                if !world.nodes[*whom].alive || staying(world) > 3 {
                    remove(world, *n, *whom);
                }
            }
            Self::Join => {
                if world.nodes.len() < 7 {
                    let new = world.add_node(true);
                    world.log.push(format!("  is n{new}"));
                }
            }
            Self::Part { nodes } => part(world, nodes),
            Self::Reunite => world.cut.clear(),
            Self::Decide { n, scope, abandon, .. } => {
                let scope = scope_of(world, scope.as_ref());
                let off = abandon.0.iter().map(|n| world.nodes[*n].name.clone()).collect();
                with_entry(world, *n, table, |world, entry| {
                    set_scope(world, *n, entry, scope, off);
                });
            }
            Self::Decline { n, declined, .. } => decline(world, *n, table, *declined),
            Self::Create { n, scope } => {
                let scope = scope_of(world, scope.as_ref());
                create(world, *n, Owner::Identity(IDENTITY), "f", scope);
            }
            Self::Drop { n, .. } => with_entry(world, *n, table, |world, entry| {
                let (caller, entry) = (Caller::Local(OWNER), Arc::clone(entry));
                let command = Command::Tables(TableCommand::DropTable { caller, entry });
                let _refused = world.run(*n, &command);
            }),
            Self::Acknowledge { n, .. } => on_records(world, *n, table, |_, entry| {
                let caller = Caller::Local(OWNER);
                RecordCommand::Acknowledge { caller, entry, conflict: None }
            }),
            Self::ReAnnounce { n, key, .. } => on_records(world, *n, table, |_, entry| {
                RecordCommand::ReAnnounce { entry, keys: vec![bytes(*key)] }
            }),
            Self::Rewrite { n, key, .. } => on_records(world, *n, table, |_, entry| {
                RecordCommand::Rewrite { entry, keys: vec![bytes(*key)] }
            }),
            Self::Erase { n, key, .. } => on_records(world, *n, table, |world, entry| {
                let key = bytes(*key);
                let version = world.nodes[*n].disk.version(&(table, key.clone()));
                let rows = vec![(key, version.map(|version| version.dot))];
                RecordCommand::Erase { caller: Caller::Local(OWNER), entry, rows }
            }),
            Self::MakeLocal { n } => create(world, *n, Owner::Uid(OWNER), LOCAL, Scope::Local),
            Self::ShareLocal { n, scope } => {
                let scope = scope_of(world, scope.as_ref());
                with_local(world, *n, |world, entry| {
                    set_scope(world, *n, entry, scope, BTreeSet::new());
                });
            }
            Self::PutLocal { n, key } => {
                with_local(world, *n, |world, entry| put(world, *n, entry, *key));
            }
            Self::DeleteLocal { n, key } => {
                with_local(world, *n, |world, entry| delete(world, *n, entry, *key));
            }
            Self::Purge { n } => {
                let _full = world.run(*n, &Command::Upkeep(UpkeepCommand::Purge));
            }
            Self::FillDisk { n, full } => world.set_full(*n, *full),
            Self::Jump { n, by_ms } => world.nodes[*n].jump_ms = *by_ms,
            Self::Mend { n } => world.look_at_clock(*n),
            Self::Doubt { n, whom } => world.doubt(*n, *whom),
            Self::Believe { n } => world.believe(*n),
        }
        if let [n] = self.actors()[..] {
            checks::after(world, n);
        }
    }
}

fn bytes(number: usize) -> Vec<u8> {
    key(number).as_bytes().to_vec()
}

fn with_entry(
    world: &mut World,
    n: usize,
    table: TableUid,
    act: impl FnOnce(&mut World, &Arc<Entry>),
) {
    if let Some(entry) = entry(world, n, table) {
        act(world, &entry);
    }
}

fn with_local(world: &mut World, n: usize, act: impl FnOnce(&mut World, &Arc<Entry>)) {
    if let Some(entry) = world.nodes[n].db.catalog().find(&Owner::Uid(OWNER), LOCAL).cloned() {
        act(world, &entry);
    }
}

fn on_records(
    world: &mut World,
    n: usize,
    table: TableUid,
    command: impl FnOnce(&World, Arc<Entry>) -> RecordCommand,
) {
    with_entry(world, n, table, |world, entry| {
        let command = command(world, Arc::clone(entry));
        let _refused = world.run(n, &Command::Records(command));
    });
}

fn be_calm(world: &mut World, nodes: &Nodes, rounds: usize) {
    let tables: Vec<_> = std::iter::once(SYSTEM_TABLE).chain(world.tables.clone()).collect();
    for table in (0..rounds).flat_map(|_| tables.clone()) {
        between(world, nodes, |world, reader, source| pull(world, reader, source, table, 4));
    }
}

fn spread(world: &mut World, nodes: &Nodes, table: TableUid) {
    for _ in 0..2 {
        between(world, nodes, |world, reader, source| {
            pull(world, reader, source, SYSTEM_TABLE, 3);
            pull(world, reader, source, table, 4);
        });
    }
}

/// Something that is on its way arrives, or is done.
fn deliver(world: &mut World, oldest: bool) {
    if let Some(last) = world.network.len().checked_sub(1) {
        let at = world.first_like(if oldest { 0 } else { last });
        let item = world.network.remove(at);
        world.deliver(item);
    }
}

fn part(world: &mut World, nodes: &Nodes) {
    let all: Vec<usize> = (0..world.nodes.len()).collect();
    let apart = |a: &usize, b: &usize| nodes.0.contains(a) != nodes.0.contains(b);
    let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b)));
    world.cut = pairs.filter(|(a, b)| a < b && apart(a, b)).collect();
}

/// Each of some with each other, and nothing disturbs it.
fn between(world: &mut World, nodes: &Nodes, mut meet: impl FnMut(&mut World, usize, usize)) {
    world.calm = true;
    for reader in &nodes.0 {
        for source in nodes.0.iter().filter(|source| *source != reader) {
            meet(world, *reader, *source);
        }
    }
    world.calm = false;
}
