//! Upkeep of a node that exists in memory alone: what it would have done, and when, is looked at.
//! With real databases it is `tests/sim`'s.

use std::{cell::Cell, ops::Deref};

use super::*;
use crate::{
    directory::{Directory, ReplicaRow, Row},
    model::{ActorId, Stamp},
    replication::{GcBlocking, OpenConflicts, ReplicaStatus, TableDigest},
};

const TABLE: TableUid = TableUid([3; 16]);
const WALL_MS: u64 = 1_000_000_000;

fn name(name: &str) -> NodeName {
    NodeName::parse(name).expect("a name")
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn vector(seq: u64) -> VersionVector {
    [Dot { actor: ActorId(1), seq }].into_iter().collect()
}

#[derive(Clone, Debug)]
struct Own {
    table: TableUid,
    ready: bool,
    tombstones: u64,
    digest: TableDigest,
    vector: VersionVector,
}

impl ReplicaSummary for Own {
    fn table(&self) -> TableUid {
        self.table
    }

    fn epoch(&self) -> u64 {
        1
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn vector(&self) -> &VersionVector {
        &self.vector
    }

    fn digest(&self) -> TableDigest {
        self.digest
    }

    fn open_conflicts(&self) -> OpenConflicts {
        OpenConflicts::default()
    }

    fn drain(&self) -> Option<[u8; 16]> {
        None
    }

    fn tombstones(&self) -> u64 {
        self.tombstones
    }
}

fn own(table: TableUid) -> Own {
    let (vector, digest) = (vector(5), TableDigest::default());
    Own { table, ready: true, tombstones: 1, digest, vector }
}

/// The node `a`, with a replica of a table that `b` has too.
struct Scene {
    name: NodeName,
    replicas: Vec<Arc<Own>>,
    remote: RemoteReplica,
    rows: u64,
    offsets_ms: Vec<i64>,
    /// How far timestamps are ahead of the clock.
    ahead_ms: Cell<u64>,
    directory: Directory,
}

impl Default for Scene {
    fn default() -> Self {
        let mut directory = Directory::default();
        for node in ["a", "b"] {
            let (database, node) = ([1; 16], name(node));
            let row = ReplicaRow { table: TABLE, node, database, up: 1, down: 0, declines: 0 };
            directory.insert(Row::Replica(row));
        }
        let status = ReplicaStatus { epoch: 1, vector: vector(5), ..ReplicaStatus::default() };
        Self {
            name: name("a"),
            replicas: vec![Arc::new(own(SYSTEM_TABLE)), Arc::new(own(TABLE))],
            remote: RemoteReplica { status: Some(status), ..RemoteReplica::default() },
            rows: 0,
            offsets_ms: vec![0],
            ahead_ms: Cell::new(0),
            directory,
        }
    }
}

impl Node for Scene {
    fn name(&self) -> &NodeName {
        &self.name
    }

    fn actor(&self) -> ActorId {
        ActorId(1)
    }

    fn hlc(&self) -> Hlc {
        Hlc::from_unix_ms(WALL_MS + self.ahead_ms.get())
    }

    fn wall_ms(&self) -> u64 {
        WALL_MS
    }

    fn replica(&self, table: TableUid) -> Option<Arc<dyn ReplicaSummary>> {
        self.replicas().into_iter().find(|own| own.table() == table)
    }

    fn replicas(&self) -> Vec<Arc<dyn ReplicaSummary>> {
        let all = self.replicas.iter().cloned();
        all.map(|own| -> Arc<dyn ReplicaSummary> { own }).collect()
    }

    fn directory(&self) -> impl Deref<Target = Directory> {
        &self.directory
    }

    fn statuses(&self, table: TableUid) -> Vec<(NodeName, ReplicaStatus)> {
        let known = self.remote_replicas(table).into_iter();
        known.filter_map(|(node, known)| Some((node, known.status?))).collect()
    }

    fn who_has_met(&self, _: Hlc) -> BTreeSet<NodeName> {
        unreachable!("that is asked by drivers")
    }
}

impl UpkeepNode for Scene {
    fn remote_replicas(&self, table: TableUid) -> Vec<(NodeName, RemoteReplica)> {
        if table == TABLE { vec![(name("b"), self.remote.clone())] } else { Vec::new() }
    }

    fn rows(&self, _: TableUid) -> u64 {
        self.rows
    }

    fn clock_offsets_ms(&self) -> Vec<i64> {
        self.offsets_ms.clone()
    }
}

fn upkeep() -> Upkeep {
    Upkeep::new(Retention::default(), 0, s(0))
}

/// What comes of it up to a time, each timeout when it was announced.
fn until(upkeep: &mut Upkeep, here: &Scene, end: Duration) -> Vec<Output> {
    let mut outputs = Vec::new();
    let mut now = Duration::ZERO;
    while upkeep.poll_timeout() <= end {
        now = now.max(upkeep.poll_timeout());
        upkeep.handle_timeout(here, now);
        outputs.extend(std::iter::from_fn(|| upkeep.next_output()));
    }
    outputs
}

fn works(outputs: Vec<Output>) -> Vec<Work> {
    let work = |output| match output {
        Output::Work(work) => Some(work),
        Output::Note(_) => None,
    };
    outputs.into_iter().filter_map(work).collect()
}

fn notes(outputs: Vec<Output>) -> Vec<Note> {
    let note = |output| match output {
        Output::Note(note) => Some(note),
        Output::Work(_) => None,
    };
    outputs.into_iter().filter_map(note).collect()
}

#[test]
fn deletions_that_every_replica_knows_are_collected_when_they_are_old() {
    let before_ms = WALL_MS - Retention::default().least_age_ms;
    let collect = Work::Collect { table: TABLE, confirmed: vector(5), before_ms };
    let outputs = until(&mut upkeep(), &Scene::default(), s(5));
    assert!(outputs.contains(&Output::Note(Note::GcBlocked { table: TABLE, by: None })));
    assert_eq!(works(outputs), [Work::Adopt, collect], "and none of the directory");
}

#[test]
fn nothing_is_collected_before_it_has_said_what_it_has() {
    let silent = Scene { remote: RemoteReplica::default(), ..Scene::default() };
    let outputs = until(&mut upkeep(), &silent, s(5));
    let by = Some(GcBlocker { node: name("b"), why: GcBlocking::Silent });
    assert!(outputs.contains(&Output::Note(Note::GcBlocked { table: TABLE, by })));
    assert_eq!(works(outputs), [Work::Adopt]);
}

#[test]
fn nothing_is_collected_from_a_replica_that_is_not_whole() {
    let mut filling = Scene::default();
    filling.replicas[1] = Arc::new(Own { ready: false, ..own(TABLE) });
    assert_eq!(works(until(&mut upkeep(), &filling, s(5))), [Work::Adopt]);
}

#[test]
fn who_does_not_know_a_deletion_yet_is_named() {
    let mut behind = Scene::default();
    behind.remote.status.as_mut().expect("it has one").vector = vector(3);
    let mut upkeep = upkeep();
    let outputs = until(&mut upkeep, &behind, s(5));
    let find = Work::FindUnconfirmed { table: TABLE, confirmed: vector(3) };
    assert!(works(outputs).contains(&find));
    for (seq, by) in [(3, None), (4, Some(name("b")))] {
        let deletion = Some(Dot { actor: ActorId(1), seq });
        upkeep.handle(Input::Unconfirmed { table: TABLE, deletion }, &behind);
        let by = by.map(|node| GcBlocker { node, why: GcBlocking::Behind });
        let told = upkeep.next_output();
        assert_eq!(told, Some(Output::Note(Note::GcBlocked { table: TABLE, by })));
    }
}

#[test]
fn a_replica_is_looked_at_once_the_work_of_the_one_before_is_done() {
    let (mut upkeep, here) = (upkeep(), Scene::default());
    let mut looked_at = Vec::new();
    upkeep.handle_timeout(&here, s(5));
    while upkeep.poll_timeout() <= s(5) {
        let before = upkeep.due.front().copied();
        upkeep.handle_timeout(&here, s(5));
        looked_at.extend(before);
    }
    assert_eq!(looked_at, [TABLE, SYSTEM_TABLE]);
    assert_eq!(upkeep.poll_timeout(), s(6), "and the clock is looked at each second");
}

#[test]
fn change_logs_are_cut_once_a_minute_to_twice_the_rows_at_least() {
    for (rows, keep) in [(3, 100_000), (70_000, 140_000)] {
        let here = Scene { rows, ..Scene::default() };
        let works = works(until(&mut upkeep(), &here, s(119)));
        let cuts = works.iter().filter(|work| matches!(work, Work::TruncateChangeLog { .. }));
        let cuts: Vec<_> = cuts.collect();
        assert_eq!(cuts.len(), 2, "of two replicas: {cuts:?}");
        assert_eq!(cuts[0], &Work::TruncateChangeLog { table: TABLE, keep });
    }
}

#[test]
fn signatures_are_looked_at_again_when_something_has_changed_or_an_hour_has_passed() {
    let adopts = |upkeep: &mut Upkeep, here: &Scene, end| {
        let works = works(until(upkeep, here, end));
        works.iter().filter(|work| **work == Work::Adopt).count()
    };
    let (mut upkeep, mut here) = (upkeep(), Scene::default());
    assert_eq!(adopts(&mut upkeep, &here, s(100)), 1);
    here.replicas[0] = Arc::new(own(SYSTEM_TABLE));
    assert_eq!(adopts(&mut upkeep, &here, s(200)), 1, "the directory has changed");
    for input in [Input::CredentialsReplaced, Input::NotAdopted] {
        upkeep.handle(input, &here);
    }
    assert_eq!(adopts(&mut upkeep, &here, s(300)), 1, "others may be believed");
    assert_eq!(adopts(&mut upkeep, &here, s(4000)), 1, "certificates may have ended");
}

#[test]
fn timestamps_of_the_future_are_given_anew_where_nobody_has_met_them() {
    let mut here = Scene::default();
    here.ahead_ms.set(3_600_000);
    let latest = Hlc::from_unix_ms(WALL_MS + crate::replication::driver::MAX_SKEW_MS);
    let why = |here: &Scene| {
        let outputs = until(&mut upkeep(), here, s(1));
        match notes(outputs).pop() {
            Some(Note::AheadOfClock(ahead)) => ahead.map(|ahead| (ahead.by_ms, ahead.why)),
            other => panic!("{other:?}"),
        }
    };
    let nodes = || [name("b")].into();
    assert_eq!(why(&here), Some((3_600_000, TimestampsKept::Silent(nodes()))));
    here.remote.met = Some(here.hlc());
    assert_eq!(why(&here), Some((3_600_000, TimestampsKept::Met(nodes()))));
    here.remote.met = Some(latest);
    here.offsets_ms = vec![-3_600_000];
    assert_eq!(why(&here), Some((3_600_000, TimestampsKept::ClockUnconfirmed)));
    here.offsets_ms = vec![0];
    assert_eq!(until(&mut upkeep(), &here, s(1)), [Output::Work(Work::Restamp { latest })]);
}

#[test]
fn that_timestamps_are_ahead_is_over_when_the_clock_has_passed_them() {
    let (mut upkeep, here) = (upkeep(), Scene::default());
    here.ahead_ms.set(3_600_000);
    assert_eq!(notes(until(&mut upkeep, &here, s(2))).len(), 2);
    here.ahead_ms.set(0);
    assert_eq!(notes(until(&mut upkeep, &here, s(4))), [Note::AheadOfClock(None)]);
}

#[test]
fn replicas_have_diverged_that_stay_different_although_they_know_the_same() {
    let stamp = Stamp { hlc: Hlc::from_unix_ms(1), actor: ActorId(1) };
    let digest = TableDigest::of_row(TABLE, b"k", stamp, b"v");
    let (mut upkeep, mut here) = (upkeep(), Scene::default());
    let differ = |here: &mut Scene, digest| {
        here.remote.status.as_mut().expect("it has one").digest = digest;
    };
    let diverged = Output::Note(Note::Diverged { table: TABLE, node: name("b") });
    differ(&mut here, digest);
    let outputs = until(&mut upkeep, &here, s(10));
    assert!(outputs.contains(&Output::Work(Work::Scrub(TABLE))));
    assert!(!outputs.contains(&diverged), "a transfer may be under way");
    differ(&mut here, digest.plus(digest));
    assert!(!until(&mut upkeep, &here, s(20)).contains(&diverged), "they differ in another way");
    let outputs = until(&mut upkeep, &here, s(26));
    assert!(outputs.contains(&diverged));
    here.remote.diverged = true;
    let name_them = Output::Work(Work::NameDifferences { table: TABLE, node: name("b") });
    let outputs = until(&mut upkeep, &here, s(31));
    assert!(outputs.contains(&name_them) && !outputs.contains(&diverged), "it was noted once");
    here.remote.differs = vec![b"k".to_vec()];
    assert!(!until(&mut upkeep, &here, s(36)).contains(&name_them), "they are named");
}
