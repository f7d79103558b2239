//! Rules that chance breaks too rarely: for each the shortest story in which it is missed. All steps are such
//! as happen in any run; the invariants are looked at as in any run, and at the end everything must heal.

use std::collections::BTreeSet;

use cortex_core::{
    model::{Owner, Scope, TableUid},
    replication::{Batch, Message, Part, driver::Work},
    rule::Rule,
};
use cortexd::store::{Collection, Command, ReplicationCommand, SYSTEM_TABLE};

use crate::{
    actions::{pull, sync_everybody},
    clocks,
    deeds::{Deed, Step, once, play, some},
    doubts,
    links::{InFlight, Until, pair},
    mutations::{Around, Mutation},
    requests::{self, IDENTITY, create, entry, named, remove, set_scope},
    rest::{heal, settle},
    restored,
    shrink::end,
    world::{LEAST_AGE_MS, SKEW_MS, World, broken},
};

/// What ends badly without one of the rules.
pub(crate) struct Story {
    pub(crate) rules: &'static [Mutation],
    pub(crate) tell: fn(&mut World),
}

pub(crate) const ALL: &[Story] = &[
    Story {
        rules: &[rule(Rule::DirectoryPassesClocks), rule(Rule::DirectoryMovesNoClock)],
        tell: clocks::a_decision_passes_between_clocks_that_differ,
    },
    Story {
        rules: &[rule(Rule::OwnRowExceeded)],
        tell: clocks::a_decision_of_the_present_follows_one_of_the_future,
    },
    Story {
        rules: &[around(Around::FutureNeverTaken), rule(Rule::RestampedUnobserved)],
        tell: clocks::two_are_ahead_together,
    },
    Story {
        rules: &[rule(Rule::ForgottenDecisionCounts)],
        tell: restored::one_is_read_before_it_hears_what_it_has_forgotten,
    },
    Story {
        rules: &[
            rule(Rule::QuarantineNotAcknowledged),
            rule(Rule::QuarantinePassed),
            rule(Rule::QuarantineReleased),
            rule(Rule::QuarantineRetried),
            rule(Rule::QuarantineWithholds),
        ],
        tell: doubts::a_grant_cannot_be_verified_for_a_while,
    },
    Story {
        rules: &[rule(Rule::QuarantineReleased)],
        tell: doubts::a_grant_comes_another_way_meanwhile,
    },
    Story { rules: &[rule(Rule::NothingAcknowledged)], tell: one_forgets_how_far_it_was_read },
    Story { rules: &[rule(Rule::NewEpochAsks)], tell: one_leaves_and_comes_back_at_once },
    Story { rules: &[rule(Rule::ParkedHearsOfChange)], tell: a_row_travels_when_it_is_written },
    Story { rules: &[rule(Rule::StatusesPassedOn)], tell: a_deletion_is_forgotten_along_a_line },
    Story { rules: &[rule(Rule::StatusesForHolders)], tell: one_is_excluded },
    Story { rules: &[rule(Rule::EndIsTheEnd)], tell: disks_seed_0 },
    Story { rules: &[rule(Rule::TruncationHeeded)], tell: disks_seed_3 },
    Story { rules: &[rule(Rule::AnswersThisPosition)], tell: a_pass_ends_late },
    Story { rules: &[rule(Rule::EachReplicaConfirms)], tell: one_is_away },
    Story { rules: &[rule(Rule::UnheardReplicasAsked)], tell: one_joins_unseen },
    Story { rules: &[rule(Rule::TombstonesAge)], tell: a_late_clock_forgets },
    Story { rules: &[rule(Rule::NobodyAhead)], tell: a_chunk_is_long_under_way },
    Story { rules: &[rule(Rule::RemovalsBeforeRows)], tell: a_removal_is_heard_of_late },
    Story { rules: &[around(Around::RemovedHeard)], tell: one_that_was_removed_speaks_on },
    Story { rules: &[rule(Rule::EndedSourceRefused)], tell: one_does_not_know_it_is_written_off },
    Story {
        rules: &[rule(Rule::ReAnnounce), rule(Rule::ReAnnouncedPasses)],
        tell: a_deletion_was_forgotten_too_early,
    },
    Story { rules: &[rule(Rule::StatusOfOneActor)], tell: what_was_confirmed_is_lost },
    Story {
        rules: &[around(Around::AckOfAnEndedSession)],
        tell: a_word_arrives_after_its_connection,
    },
    Story {
        rules: &[Mutation::Twice(Rule::StatusOfOneEpoch, Rule::LeavingRotatesActor)],
        tell: one_leaves_and_comes_back,
    },
    Story { rules: &[rule(Rule::StaleSourceRefused)], tell: one_comes_back_with_an_old_clock },
    Story { rules: &[rule(Rule::AnswersThisActor)], tell: an_answer_outlives_who_has_asked },
    Story { rules: &[rule(Rule::MarksOfOneSnapshot)], tell: a_row_goes_between_two_passes },
    Story { rules: &[rule(Rule::CollectedIgnored)], tell: a_version_arrives_twice },
    Story { rules: &[rule(Rule::LeavingRotatesActor)], tell: one_forgets_what_it_has_written },
    Story { rules: &[rule(Rule::ReaderStayKnown)], tell: one_asks_on_that_was_written_off },
    Story { rules: &[rule(Rule::SnapshotBeforeGc)], tell: a_pass_brings_what_was_deleted },
    Story { rules: &[rule(Rule::KnowledgeIsTransitive)], tell: a_decision_is_known_by_another },
    Story { rules: &[rule(Rule::ScopeBeforeRows)], tell: a_row_overtakes_a_decision },
    Story { rules: &[rule(Rule::ReadyFromReady)], tell: one_fills_from_one_that_fills },
    Story { rules: &[rule(Rule::ForgottenEpochEnds)], tell: a_disk_forgets_a_stay },
    Story {
        rules: &[rule(Rule::EndedEpochResumes)],
        tell: restored::a_disk_brings_back_what_has_left,
    },
    Story { rules: &[rule(Rule::DrainedWholly)], tell: the_heir_has_a_part },
    Story { rules: &[rule(Rule::DrainedIntoScope)], tell: the_heir_is_excluded_too },
    Story { rules: &[rule(Rule::DrainedIntoLivingEpoch)], tell: the_heir_is_abandoned },
];

const fn rule(rule: Rule) -> Mutation {
    Mutation::Rule(rule)
}

const fn around(rule: Around) -> Mutation {
    Mutation::Around(rule)
}

/// Adds nodes that know each other, in a world without faults.
pub(crate) fn nodes(world: &mut World, count: usize) {
    world.calm = true;
    let first = world.nodes.len();
    for _ in 0..count {
        world.add_node(false);
    }
    if first == 0 {
        requests::register(world);
    }
    sync_everybody(world, &[SYSTEM_TABLE]);
    for n in first.max(1)..world.nodes.len() {
        requests::claim(world, n);
    }
    sync_everybody(world, &[SYSTEM_TABLE]);
}

/// A table of node 0 that all have, with a row.
pub(crate) fn shared(world: &mut World) -> TableUid {
    let table = made(world, Scope::All);
    put(world, 0, 0);
    settle(world);
    table
}

fn made(world: &mut World, scope: Scope) -> TableUid {
    create(world, 0, Owner::Identity(IDENTITY), "f", scope);
    world.tables[0]
}

pub(crate) fn put(world: &mut World, n: usize, key: usize) {
    let entry = entry(world, n, world.tables[0]).expect("a table");
    requests::put(world, n, &entry, key);
    world.now_ms += 10;
}

fn delete(world: &mut World, n: usize, key: usize) {
    let entry = entry(world, n, world.tables[0]).expect("a table");
    requests::delete(world, n, &entry, key);
    world.now_ms += 10;
}

pub(crate) fn decide(world: &mut World, n: usize, nodes: &[usize], abandon: &[usize]) {
    let entry = entry(world, n, world.tables[0]).expect("a table");
    let scope = named(world, &nodes.iter().copied().collect());
    let off: BTreeSet<_> = abandon.iter().map(|n| world.nodes[*n].name.clone()).collect();
    set_scope(world, n, &entry, scope, off);
    world.now_ms += 10;
}

/// One reads all that another has of the directory.
pub(crate) fn directory(world: &mut World, reader: usize, source: usize) {
    pull(world, reader, source, SYSTEM_TABLE, 20);
}

pub(crate) fn directories(world: &mut World) {
    sync_everybody(world, &[SYSTEM_TABLE]);
    sync_everybody(world, &[SYSTEM_TABLE]);
}

/// One reads all that another has of the table.
fn rows(world: &mut World, reader: usize, source: usize) {
    pull(world, reader, source, world.tables[0], 20);
}

pub(crate) fn cut(world: &mut World, a: usize, b: usize) {
    world.cut.insert((a.min(b), a.max(b)));
}

fn a_day_later(world: &mut World) {
    world.now_ms += LEAST_AGE_MS + 2 * SKEW_MS;
}

fn collect(world: &mut World, n: usize) {
    world.upkeep_round(n);
}

/// What one is answered by another: its store is about to apply it, until it is delivered.
fn answer(world: &mut World, reader: usize, source: usize) -> InFlight {
    world.exchange(reader, source, world.tables[0], Until::Arrived);
    let (link, table) = (pair(reader, source), world.tables[0]);
    let is_it = |item: &InFlight| {
        matches!(item,
        InFlight::Work { pair, n, work: Work::Apply { batch, .. }, .. }
            if (*pair, *n, batch.table) == (link, reader, table))
    };
    let at = world.network.iter().position(is_it).unwrap_or_else(|| world.broken_off());
    world.network.remove(at)
}

/// What a reader acknowledges of the table: it is on its way.
fn acknowledgement(world: &mut World, reader: usize) -> InFlight {
    let table = world.tables[0];
    let is_it = |item: &InFlight| {
        matches!(item,
        InFlight::Message { from, message: Message::Ack(ack), .. } if (*from, ack.table) == (reader, table))
    };
    let at = world.network.iter().position(is_it).expect("an acknowledgement");
    world.network.remove(at)
}

pub(crate) fn roll_back(world: &mut World, n: usize) {
    let saved = world.saved(n);
    world.restart(n, saved);
}

/// The disk is put back to what it was while the daemon runs on, which finds out.
fn put_back(world: &mut World, n: usize) {
    let (links, session) = (std::mem::take(&mut world.links), world.nodes[n].session);
    roll_back(world, n);
    (world.links, world.nodes[n].session) = (links, session);
}

/// Clocks that differ as much as they may, the second one's behind.
fn skewed(world: &mut World) {
    world.nodes[0].skew_ms = (SKEW_MS / 2).cast_signed();
    world.nodes[1].skew_ms = -(SKEW_MS / 2).cast_signed();
}

fn is_end_of_snapshot(batch: &Batch) -> bool {
    matches!(batch.part, Part::Snapshot { reached: None, .. })
}

/// The end of a snapshot transfer arrives when another one is under way, which has delivered little so far.
fn a_pass_ends_late(world: &mut World) {
    nodes(world, 2);
    let scope = named(world, &[0].into());
    let table = made(world, scope);
    for key in 0..9 {
        put(world, 0, key);
    }
    delete(world, 0, 8);
    a_day_later(world);
    collect(world, 0);
    decide(world, 0, &[0, 1], &[]);
    directory(world, 1, 0);
    directory(world, 0, 1);
    world.calm = false;
    let end = loop {
        let part = answer(world, 1, 0);
        if matches!(&part, InFlight::Work { work: Work::Apply { batch, .. }, .. } if is_end_of_snapshot(batch))
        {
            break part;
        }
        world.deliver(part);
    };
    world.link_down(pair(0, 1));
    put(world, 0, 7);
    let upto = world.nodes[0].db.replica(table).expect("a copy").last_lsn;
    world.must(0, &Command::Replication(ReplicationCommand::TruncateChangeLog { table, upto }));
    let anew = answer(world, 1, 0);
    world.deliver(anew);
    world.deliver(end);
    heal(world);
}

/// A daemon is started anew, and what it knew of the others is lost, who have nothing to read of it.
fn one_forgets_how_far_it_was_read(world: &mut World) {
    nodes(world, 2);
    let table = shared(world);
    world.restart(0, None);
    settle(world);
    let known = world.nodes[0].peers.of(table, &world.nodes[1].name);
    if known.is_none_or(|known| known.reached.is_none()) {
        broken("n0 does not know how far n1 has read".into());
    }
    heal(world);
}

/// Whoever waits for rows need not ask again.
fn a_row_travels_when_it_is_written(world: &mut World) {
    nodes(world, 2);
    let table = shared(world);
    settle(world);
    put(world, 0, 1);
    settle(world);
    if world.nodes[1].disk.copies.get(&table).is_none_or(|copy| copy.rows.len() < 2) {
        broken("n1 waits for a row that was written long ago".into());
    }
    heal(world);
}

/// A replica leaves and begins anew before its drivers look, while a request of before waits at the source.
fn one_leaves_and_comes_back_at_once(world: &mut World) {
    nodes(world, 2);
    let table = shared(world);
    settle(world);
    decide(world, 0, &[0], &[1]);
    decide(world, 0, &[0, 1], &[]);
    settle(world);
    if !world.nodes[1].db.replica(table).is_some_and(|replica| replica.ready) {
        broken("n1 does not fill a replica that has begun anew".into());
    }
    heal(world);
}

/// The ends of a line never meet, and know that a deletion has come to all of it.
fn a_deletion_is_forgotten_along_a_line(world: &mut World) {
    nodes(world, 3);
    let table = shared(world);
    world.all_links_down();
    world.chain = true;
    delete(world, 0, 0);
    settle(world);
    a_day_later(world);
    collect(world, 0);
    if !world.nodes[0].disk.copies[&table].rows.is_empty() {
        broken("n0 keeps a deletion that all have confirmed".into());
    }
    heal(world);
}

/// A replica has left, and the others go on.
fn one_is_excluded(world: &mut World) {
    nodes(world, 3);
    shared(world);
    decide(world, 0, &[0, 1], &[]);
    settle(world);
    put(world, 0, 1);
    settle(world);
    heal(world);
}

/// Most have confirmed a deletion, and one could not yet.
fn one_is_away(world: &mut World) {
    nodes(world, 3);
    shared(world);
    cut(world, 0, 2);
    cut(world, 1, 2);
    delete(world, 0, 0);
    rows(world, 1, 0);
    a_day_later(world);
    collect(world, 0);
    heal(world);
}

/// One fills its replica from another before that one hears of a deletion; who has deleted knows nothing of it.
fn one_joins_unseen(world: &mut World) {
    nodes(world, 2);
    shared(world);
    let new = world.add_node(false);
    cut(world, 0, new);
    directory(world, 1, new);
    directory(world, new, 1);
    directory(world, 1, new);
    rows(world, new, 1);
    delete(world, 0, 0);
    rows(world, 1, 0);
    a_day_later(world);
    collect(world, 0);
    heal(world);
}

/// A deletion is confirmed, lost, and written over by a clock that is late.
fn a_late_clock_forgets(world: &mut World) {
    nodes(world, 2);
    skewed(world);
    shared(world);
    world.save(1);
    delete(world, 0, 0);
    rows(world, 1, 0);
    collect(world, 0);
    world.now_ms += 10;
    roll_back(world, 1);
    put(world, 1, 0);
    rows(world, 1, 0);
    heal(world);
}

/// An older version of what was deleted meanwhile, and collected, arrives at last: from a replica that changed
/// nothing when it was sent, since decisions competed.
fn a_chunk_is_long_under_way(world: &mut World) {
    nodes(world, 3);
    shared(world);
    put(world, 1, 0);
    decide(world, 0, &[0, 1, 2], &[]);
    decide(world, 2, &[0, 2], &[]);
    directories(world);
    world.link_down(pair(0, 1));
    let late = answer(world, 0, 1);
    decide(world, 0, &[0, 1, 2], &[]);
    directories(world);
    delete(world, 0, 0);
    rows(world, 2, 0);
    rows(world, 1, 0);
    a_day_later(world);
    collect(world, 0);
    world.deliver(late);
    heal(world);
}

/// The same, by when what arrives has long come another way.
fn a_version_arrives_twice(world: &mut World) {
    nodes(world, 3);
    shared(world);
    put(world, 1, 0);
    rows(world, 2, 1);
    decide(world, 0, &[0, 1, 2], &[]);
    decide(world, 2, &[0, 2], &[]);
    directories(world);
    world.link_down(pair(0, 1));
    let late = answer(world, 0, 1);
    decide(world, 0, &[0, 1, 2], &[]);
    directories(world);
    rows(world, 0, 2);
    delete(world, 0, 0);
    rows(world, 2, 0);
    rows(world, 1, 0);
    a_day_later(world);
    collect(world, 0);
    world.deliver(late);
    heal(world);
}

/// One has rows of a node that knows of a removal, and reads on of who was removed.
fn a_removal_is_heard_of_late(world: &mut World) {
    nodes(world, 3);
    shared(world);
    remove(world, 0, 2);
    put(world, 0, 1);
    put(world, 2, 2);
    rows(world, 1, 0);
    rows(world, 1, 2);
    heal(world);
}

fn one_that_was_removed_speaks_on(world: &mut World) {
    nodes(world, 3);
    let table = shared(world);
    remove(world, 0, 2);
    let entry = entry(world, 2, table).expect("a table");
    let scope = named(world, &[2].into());
    set_scope(world, 2, &entry, scope, BTreeSet::new());
    directory(world, 0, 2);
    heal(world);
}

fn one_does_not_know_it_is_written_off(world: &mut World) {
    nodes(world, 3);
    shared(world);
    put(world, 2, 0);
    decide(world, 0, &[0, 1], &[2]);
    cut(world, 0, 2);
    let late = answer(world, 1, 2);
    directory(world, 1, 0);
    world.deliver(late);
    heal(world);
}

/// What only the other rules prevent has happened, the worst of it: a deletion was forgotten while somebody
/// who had not heard of it was away with a write of the key. Which of both is kept is nobody's merit by
/// then, but all must keep the same.
fn a_deletion_was_forgotten_too_early(world: &mut World) {
    nodes(world, 3);
    let table = shared(world);
    cut(world, 0, 2);
    cut(world, 1, 2);
    put(world, 2, 0);
    delete(world, 0, 0);
    rows(world, 1, 0);
    a_day_later(world);
    let places = world.history.by_place.keys().filter(|(of, _)| *of == table);
    world.history.orphans = places.cloned().collect();
    let confirmed = world.nodes[0].db.replica(table).expect("a copy").vector.clone();
    let before_ms = world.now_ms;
    world.must(
        0,
        &Command::Replication(ReplicationCommand::Collect(Collection {
            table,
            confirmed,
            before_ms,
            after: 0,
        })),
    );
    world.cut.clear();
    rows(world, 2, 0);
    rows(world, 0, 2);
    heal(world);
}

/// A deletion is confirmed; who has confirmed it loses it, and says who it is now.
fn what_was_confirmed_is_lost(world: &mut World) {
    nodes(world, 2);
    shared(world);
    world.save(1);
    delete(world, 0, 0);
    rows(world, 1, 0);
    roll_back(world, 1);
    let _lost = answer(world, 1, 0);
    a_day_later(world);
    collect(world, 0);
    heal(world);
}

/// The same, and the confirmation arrives last.
fn a_word_arrives_after_its_connection(world: &mut World) {
    nodes(world, 2);
    shared(world);
    world.save(1);
    delete(world, 0, 0);
    let deletion = answer(world, 1, 0);
    world.deliver(deletion);
    let status = acknowledgement(world, 1);
    roll_back(world, 1);
    let _lost = answer(world, 1, 0);
    world.deliver(status);
    a_day_later(world);
    collect(world, 0);
    heal(world);
}

/// A replica has confirmed a deletion, leaves, and begins again with nothing. Who would forget the deletion hears
/// that from others.
fn one_leaves_and_comes_back(world: &mut World) {
    nodes(world, 3);
    shared(world);
    delete(world, 0, 0);
    settle(world);
    decide(world, 0, &[0, 2], &[]);
    directory(world, 2, 0);
    directory(world, 1, 2);
    rows(world, 2, 1);
    directory(world, 2, 1);
    directory(world, 0, 2);
    decide(world, 0, &[0, 1, 2], &[]);
    directory(world, 2, 0);
    directory(world, 1, 2);
    directory(world, 2, 1);
    directory(world, 0, 2);
    a_day_later(world);
    collect(world, 0);
    heal(world);
}

/// A write that a disk has made after it has lost a deletion, by a clock that is late, is offered to who has
/// collected that deletion.
fn one_comes_back_with_an_old_clock(world: &mut World) {
    nodes(world, 2);
    skewed(world);
    shared(world);
    world.save(1);
    delete(world, 0, 0);
    rows(world, 1, 0);
    roll_back(world, 1);
    put(world, 1, 0);
    a_day_later(world);
    collect(world, 0);
    rows(world, 0, 1);
    heal(world);
}

/// An answer leaves out what its reader had when it asked, and has lost since.
fn an_answer_outlives_who_has_asked(world: &mut World) {
    nodes(world, 3);
    shared(world);
    put(world, 2, 0);
    rows(world, 0, 2);
    world.save(1);
    rows(world, 1, 2);
    world.link_down(pair(0, 1)); // what it asks for is what it lacks now
    let late = answer(world, 1, 0);
    put_back(world, 1);
    world.deliver(late);
    heal(world);
}

/// A row was read from a replica which finds out, before it is read anew, that the row was deleted long ago.
fn a_row_goes_between_two_passes(world: &mut World) {
    nodes(world, 2);
    shared(world);
    for key in 1..9 {
        put(world, 0, key);
    }
    delete(world, 0, 8);
    settle(world);
    a_day_later(world);
    collect(world, 1);
    world.save(1);
    delete(world, 0, 0);
    rows(world, 1, 0);
    a_day_later(world);
    collect(world, 0);
    roll_back(world, 1);
    let new = world.add_node(false);
    cut(world, 0, new);
    directory(world, 1, new);
    directory(world, new, 1);
    directory(world, 1, new);
    world.calm = false;
    let first = answer(world, new, 1);
    world.deliver(first);
    world.calm = true;
    rows(world, 1, 0);
    put(world, 1, 7);
    let table = world.tables[0];
    let upto = world.nodes[1].db.replica(table).expect("a copy").last_lsn;
    world.must(1, &Command::Replication(ReplicationCommand::TruncateChangeLog { table, upto }));
    rows(world, new, 1);
    heal(world);
}

/// A replica leaves and fills again, from one that has not got all that it had written itself.
fn one_forgets_what_it_has_written(world: &mut World) {
    nodes(world, 3);
    shared(world);
    put(world, 2, 1);
    rows(world, 0, 2);
    decide(world, 0, &[0, 1], &[]);
    directory(world, 2, 0);
    rows(world, 0, 2);
    directory(world, 0, 2);
    decide(world, 0, &[0, 1, 2], &[]);
    directory(world, 2, 0);
    directories(world);
    rows(world, 2, 1);
    put(world, 2, 2);
    heal(world);
}

/// A replica that was abandoned, and may begin anew, asks on as if it had not heard of that. It has not.
fn one_asks_on_that_was_written_off(world: &mut World) {
    nodes(world, 2);
    shared(world);
    decide(world, 0, &[0], &[1]);
    decide(world, 0, &[0, 1], &[]);
    put(world, 0, 1);
    rows(world, 1, 0);
    heal(world);
}

/// A full snapshot transfer is about to bring a row whose deletion all have confirmed meanwhile. Its writer is gone,
/// and
/// no vector covers the write.
fn a_pass_brings_what_was_deleted(world: &mut World) {
    nodes(world, 4);
    shared(world);
    put(world, 0, 5);
    settle(world);
    world.save(0);
    delete(world, 1, 5);
    settle(world);
    a_day_later(world);
    collect(world, 1);
    put(world, 2, 1);
    put(world, 2, 2);
    world.small = true;
    pull(world, 1, 2, world.tables[0], 1);
    pull(world, 3, 2, world.tables[0], 1);
    (0..4).filter(|n| *n != 2).for_each(|n| cut(world, n, 2));
    roll_back(world, 0);
    decide(world, 1, &[0, 1, 3], &[2]);
    directories(world);
    world.link_down(pair(0, 1));
    let begins = answer(world, 0, 1);
    world.deliver(begins);
    let late = answer(world, 0, 1);
    world.small = false;
    delete(world, 3, 1);
    rows(world, 0, 3);
    rows(world, 1, 0);
    rows(world, 3, 0);
    a_day_later(world);
    collect(world, 0);
    world.deliver(late);
    heal(world);
}

/// One decides who has heard of a decision before it has heard of that which this one had replaced; and then
/// the one between is lost.
fn a_decision_is_known_by_another(world: &mut World) {
    nodes(world, 4);
    let table = shared(world);
    world.save(0);
    decide(world, 1, &[0, 1, 2], &[]);
    directory(world, 0, 1);
    decide(world, 0, &[0, 1, 2, 3], &[]);
    let upto = world.nodes[0].db.replica(SYSTEM_TABLE).expect("a copy").last_lsn;
    world.must(
        0,
        &Command::Replication(ReplicationCommand::TruncateChangeLog { table: SYSTEM_TABLE, upto }),
    );
    world.small = true;
    let known = |world: &World, by: usize| {
        let directory = world.nodes[2].db.catalog().directory();
        let newest = world
            .history
            .numbered
            .keys()
            .filter(|(of, node, _)| *of == table && *node == world.nodes[by].name);
        let newest = newest.map(|(_, _, count)| *count).max();
        directory.scope_knowledge(table).get(&world.nodes[by].name).copied() == newest
    };
    while !known(world, 0) {
        pull(world, 2, 0, SYSTEM_TABLE, 1);
    }
    decide(world, 2, &[1, 2, 3], &[]);
    world.small = false;
    roll_back(world, 0);
    decide(world, 0, &[0, 1, 2, 3], &[]);
    heal(world);
}

/// One has a row before the decision that its writer knew, and passes it on.
fn a_row_overtakes_a_decision(world: &mut World) {
    nodes(world, 3);
    shared(world);
    decide(world, 0, &[0, 1], &[]);
    put(world, 0, 1);
    rows(world, 1, 0);
    rows(world, 2, 1);
    heal(world);
}

fn one_fills_from_one_that_fills(world: &mut World) {
    nodes(world, 3);
    let table = made(world, Scope::All);
    for key in 0..4 {
        put(world, 0, key);
    }
    directories(world);
    world.small = true;
    pull(world, 1, 0, table, 1);
    world.small = false;
    rows(world, 2, 1);
    heal(world);
}

/// A replica that others wait for was begun on a disk that is as it was before.
fn a_disk_forgets_a_stay(world: &mut World) {
    nodes(world, 2);
    world.save(1);
    shared(world);
    decide(world, 0, &[0], &[]);
    roll_back(world, 1);
    heal(world);
}

fn the_heir_has_a_part(world: &mut World) {
    nodes(world, 2);
    let table = shared(world);
    put(world, 1, 1);
    put(world, 1, 2);
    decide(world, 0, &[0], &[]);
    directory(world, 1, 0);
    world.small = true;
    pull(world, 0, 1, table, 1);
    heal(world);
}

/// The word of a replica that has all that another one had, which leaves: on its way.
fn status_of_an_heir(world: &mut World) -> InFlight {
    nodes(world, 3);
    shared(world);
    put(world, 1, 1);
    decide(world, 0, &[0, 2], &[]);
    directory(world, 1, 0);
    directory(world, 2, 0);
    let everything = answer(world, 2, 1);
    world.deliver(everything);
    acknowledgement(world, 2)
}

fn the_heir_is_excluded_too(world: &mut World) {
    let status = status_of_an_heir(world);
    decide(world, 0, &[0], &[]);
    directory(world, 1, 0);
    world.deliver(status);
    heal(world);
}

/// And is admitted again, to begin with nothing.
fn the_heir_is_abandoned(world: &mut World) {
    let status = status_of_an_heir(world);
    decide(world, 0, &[0], &[2]);
    decide(world, 0, &[0, 2], &[]);
    directory(world, 1, 0);
    world.deliver(status);
    heal(world);
}

/// I7 n0 claims a write that it was not sent: the part that it read ends before.
fn disks_seed_0(world: &mut World) {
    nodes(world, 2);
    shared(world);
    world.calm = false;
    play(
        world,
        &[
            once(Deed::Put { n: 1, table: 0, key: 2 }),
            once(Deed::Delete { n: 1, table: 0, key: 1 }),
            once(Deed::Delete { n: 1, table: 0, key: 2 }),
            once(Deed::Put { n: 1, table: 0, key: 1 }),
            Step {
                after_ms: 0,
                dice: 251,
                deed: Deed::Read { reader: 0, source: 1, table: 0, most: 7 },
            },
        ],
    );
    end(world, 1);
}

/// I7 n1 claims a deletion that was cut off the change log.
fn disks_seed_3(world: &mut World) {
    nodes(world, 2);
    shared(world);
    world.calm = false;
    play(
        world,
        &[
            once(Deed::Join),
            once(Deed::Spread { nodes: some(&[0, 1, 2]), table: 0 }),
            once(Deed::Calm { nodes: some(&[0, 1, 2]), rounds: 1 }),
            once(Deed::Delete { n: 2, table: 0, key: 1 }),
            once(Deed::Truncate { n: 2, table: 0, upto: 31 }),
        ],
    );
    end(world, 1);
}
