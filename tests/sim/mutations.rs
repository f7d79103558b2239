//! Rules broken one at a time: each must be missed by the simulation. Most are broken in the line that keeps
//! them (`cortex_core::rule`); here besides those that are kept around store, driver and upkeep, whose part the
//! world plays.

use cortex_core::{
    model::Hlc,
    replication::{Change, Message, driver::MAX_SKEW_MS},
    rule::Rule,
};

use crate::{actions::Kind, links::Pair, world::World};

/// What is broken in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A rule of the core or of the store.
    Rule(Rule),
    /// One that is kept twice: nothing comes of breaking either of both alone.
    Twice(Rule, Rule),
    /// One that is kept around them.
    Around(Around),
}

/// A rule that is kept around the store: by the links between machines, at the start, or by SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Around {
    /// A batch is acknowledged before it is stored.
    AckBeforeCommit,
    /// An acknowledgement outlives its connection.
    AckOfAnEndedSession,
    /// Who was removed is spoken with all the same.
    RemovedHeard,
    /// Writes go on as the same actor after a rollback.
    NoRotation,
    /// After a start, LSNs are drawn from after the greatest one of a row.
    NumbersReused,
    /// What has come from another replica is in no change log.
    MergesUntold,
    /// Timestamps of the future are never taken as they are.
    FutureNeverTaken,
}

impl Mutation {
    /// The rules of the core that do not hold.
    pub(crate) fn rules(self) -> Vec<Rule> {
        match self {
            Self::Rule(rule) => vec![rule],
            Self::Twice(one, other) => vec![one, other],
            Self::Around(_) => Vec::new(),
        }
    }
}

/// All that can be broken.
pub(crate) fn all() -> Vec<Mutation> {
    use Around::*;
    let around = [
        AckBeforeCommit,
        AckOfAnEndedSession,
        RemovedHeard,
        NoRotation,
        NumbersReused,
        MergesUntold,
        FutureNeverTaken,
    ];
    let rules = Rule::ALL.iter().copied().map(Mutation::Rule);
    rules.chain(around.map(Mutation::Around)).collect()
}

/// What is broken on the disk, after a command that may have changed rows above a LSN.
pub(crate) fn on_disk(world: &World, n: usize, above: u64) {
    if world.broken_by(Around::MergesUntold) {
        let statement = "DELETE FROM change_log WHERE lsn > ?1 AND table_id <> 0";
        world.nodes[n].db.connection().execute(statement, [above]).expect("a statement");
    }
}

/// What is broken on the disk, before it is read again.
pub(crate) fn on_start(world: &World, n: usize) {
    if world.broken_by(Around::NumbersReused) {
        let statement = "UPDATE node_state SET lsn = (SELECT ifnull(max(lsn), 0) FROM records)";
        world.nodes[n].db.connection().execute(statement, []).expect("a statement");
    }
}

/// What is broken where a message arrives whose link may have ended. False where it goes no further.
pub(crate) fn on_arrival(
    world: &mut World,
    pair: Pair,
    is_alive: bool,
    to: usize,
    message: &Message,
) -> bool {
    if let Message::Ack(ack) = message
        && !is_alive
        && world.broken_by(Around::AckOfAnEndedSession)
    {
        let from = if to == pair.0 { pair.1 } else { pair.0 };
        let name = world.nodes[from].name.clone();
        world.note(to, ack.table, &name, Change::Acknowledged(ack.clone()));
        if ack.drain.is_some() {
            world.end_drained(from, to, ack.clone());
        }
    }
    is_alive
}

/// What is broken in how late a timestamp may be.
pub(crate) fn on_believed(world: &World, reader: usize, latest: Hlc) -> Hlc {
    if !world.broken_by(Around::FutureNeverTaken) {
        return latest;
    }
    let reached_ms = world.wall_ms(reader).max(world.nodes[reader].db.hlc().unix_ms());
    latest.min(Hlc::from_unix_ms(reached_ms + MAX_SKEW_MS))
}

/// Rules that chance breaks: in which kind of runs that is missed, and how many of them that has taken. The
/// others have `stories`.
pub(crate) const TABLE: &[(Mutation, Kind, u64)] = &[
    (Mutation::Rule(Rule::ContextsUnite), Kind::Disks, 1),
    (Mutation::Rule(Rule::CursorAtLastScanned), Kind::Disks, 3),
    (Mutation::Rule(Rule::EndIsTheEnd), Kind::Disks, 3),
    (Mutation::Rule(Rule::ChangeLogFromSnapshotStart), Kind::Disks, 3),
    (Mutation::Around(Around::MergesUntold), Kind::Disks, 1),
    (Mutation::Rule(Rule::NarrowerScope), Kind::Scopes, 2),
    (Mutation::Rule(Rule::SnapshotConcludesWithItsStart), Kind::Clocks, 7),
    (Mutation::Rule(Rule::SourceClockObserved), Kind::Disks, 1),
    (Mutation::Rule(Rule::VectorAtTheEnd), Kind::Disks, 3),
    (Mutation::Around(Around::AckBeforeCommit), Kind::Scopes, 2),
    (Mutation::Rule(Rule::OthersConfirm), Kind::Clocks, 3),
    (Mutation::Rule(Rule::GcRaisesWatermark), Kind::Everything, 8),
    (Mutation::Rule(Rule::TruncationHeeded), Kind::Disks, 2),
    (Mutation::Rule(Rule::WatermarkHeeded), Kind::Everything, 8),
    (Mutation::Rule(Rule::FrozenKeeps), Kind::Scopes, 2),
    (Mutation::Rule(Rule::FrozenTakesNoWrites), Kind::Scopes, 15),
    (Mutation::Rule(Rule::FullSnapshotBelowWatermark), Kind::Everything, 8),
    (Mutation::Rule(Rule::FutureRefused), Kind::Clocks, 2),
    (Mutation::Around(Around::NoRotation), Kind::Disks, 2),
    (Mutation::Around(Around::NumbersReused), Kind::Disks, 2),
    (Mutation::Rule(Rule::ActorEndsChangeLogs), Kind::Disks, 2),
    (Mutation::Rule(Rule::ReaderInScope), Kind::Scopes, 4),
    (Mutation::Rule(Rule::FullSnapshotSweeps), Kind::Disks, 3),
    (Mutation::Rule(Rule::TakerInScope), Kind::Scopes, 27),
    (Mutation::Rule(Rule::SnapshotNotAcknowledged), Kind::Scopes, 8),
    (Mutation::Rule(Rule::AckAfterCommit), Kind::Scopes, 31),
    (Mutation::Rule(Rule::ContextOfVector), Kind::Everything, 8),
    (Mutation::Rule(Rule::AbandonedEnds), Kind::Everything, 12),
    (Mutation::Rule(Rule::WatermarkInherited), Kind::Disks, 66),
    (Mutation::Rule(Rule::FullSnapshotUnfiltered), Kind::Disks, 7),
    (Mutation::Rule(Rule::FillingTakesNoWrites), Kind::Scopes, 29),
    (Mutation::Rule(Rule::HandedStays), Kind::Clocks, 17),
];
