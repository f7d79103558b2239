//! A driver with a node that exists in memory alone: what it has done, and when, is looked at; nothing is stored.
//! Two drivers over real databases are `tests/sim`'s, two daemons `tests/it/replication`'s.

use std::{cell::Cell, collections::BTreeSet, ops::Deref};

use super::*;
use crate::{
    directory::Directory,
    model::Stamp,
    replication::{
        ChangeLogId, Cursor, OpenConflicts, Parked, Part, ReplicaStatus, RowVersion, StatusGossip,
        TableDigest, VersionVector,
    },
};

const CHANGE_LOG: ChangeLogId = ChangeLogId([7; 16]);
const HERE: ActorId = ActorId(1);
const THERE: ActorId = ActorId(2);

fn name(name: &str) -> NodeName {
    NodeName::parse(name).expect("a name")
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[derive(Debug)]
struct Own {
    table: TableUid,
    vector: VersionVector,
}

fn own(table: TableUid) -> Arc<Own> {
    Arc::new(Own { table, vector: VersionVector::new() })
}

impl ReplicaSummary for Own {
    fn table(&self) -> TableUid {
        self.table
    }

    fn epoch(&self) -> u64 {
        1
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn vector(&self) -> &VersionVector {
        &self.vector
    }

    fn digest(&self) -> TableDigest {
        TableDigest::default()
    }

    fn open_conflicts(&self) -> OpenConflicts {
        OpenConflicts::default()
    }

    fn drain(&self) -> Option<[u8; 16]> {
        None
    }

    fn tombstones(&self) -> u64 {
        0
    }
}

/// A node that has a replica of the directory alone.
struct Scene {
    name: NodeName,
    system: Arc<Own>,
    wall_ms: Cell<u64>,
    statuses: Vec<(NodeName, ReplicaStatus)>,
    met: BTreeSet<NodeName>,
    directory: Directory,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            name: name("home"),
            system: own(SYSTEM_TABLE),
            wall_ms: Cell::new(1_000_000),
            statuses: Vec::new(),
            met: BTreeSet::new(),
            directory: Directory::default(),
        }
    }
}

impl Node for Scene {
    fn name(&self) -> &NodeName {
        &self.name
    }

    fn actor(&self) -> ActorId {
        HERE
    }

    fn hlc(&self) -> Hlc {
        Hlc::from_unix_ms(self.wall_ms.get())
    }

    fn wall_ms(&self) -> u64 {
        self.wall_ms.get()
    }

    fn replica(&self, table: TableUid) -> Option<Arc<dyn ReplicaSummary>> {
        // Any table that is asked for here has one.
        if table == SYSTEM_TABLE {
            return Some(Arc::clone(&self.system) as Arc<dyn ReplicaSummary>);
        }
        Some(own(table))
    }

    fn replicas(&self) -> Vec<Arc<dyn ReplicaSummary>> {
        vec![Arc::clone(&self.system) as Arc<dyn ReplicaSummary>]
    }

    fn directory(&self) -> impl Deref<Target = Directory> {
        &self.directory
    }

    fn statuses(&self, _: TableUid) -> Vec<(NodeName, ReplicaStatus)> {
        self.statuses.clone()
    }

    fn who_has_met(&self, _: Hlc) -> BTreeSet<NodeName> {
        self.met.clone()
    }
}

fn peer() -> Peer {
    Peer { node: name("office"), actor: THERE, database: None, last_of_ours: None }
}

fn driver(here: &Scene) -> Driver {
    Driver::new(peer(), Remembered::default(), 0, here, s(0))
}

fn outputs(driver: &mut Driver) -> Vec<Output> {
    std::iter::from_fn(|| driver.next_output()).collect()
}

fn work(driver: &mut Driver) -> Vec<Work> {
    let all = outputs(driver).into_iter();
    all.filter_map(|output| if let Output::Work(work) = output { Some(work) } else { None })
        .collect()
}

/// The places in the change log that are acknowledged.
fn acks(outputs: &[Output]) -> Vec<Option<Cursor>> {
    let of = |output: &Output| {
        if let Output::Send(Message::Ack(ack)) = output { Some(ack.cursor) } else { None }
    };
    outputs.iter().filter_map(of).collect()
}

fn at(lsn: u64) -> Position {
    Position { cursor: Some(Cursor { change_log: CHANGE_LOG, lsn }), snapshot: None }
}

fn batch(table: TableUid, from: u64, to: u64, last: bool) -> Box<Batch> {
    Box::new(Batch::empty(table, HERE, at(from), CHANGE_LOG, Part::Delta { to, last }))
}

fn request(table: TableUid) -> Box<PullRequest> {
    let vector = VersionVector::new();
    Box::new(PullRequest { table, reader: THERE, epoch: 1, position: at(0), vector })
}

/// The driver has asked for the directory from the store's place.
fn asks(driver: &mut Driver, here: &Scene, now: Duration) {
    assert_eq!(work(driver), [Work::Locate(SYSTEM_TABLE)]);
    driver.handle(Input::Done(Done::Located(SYSTEM_TABLE, Some(at(0)))), here, now);
    assert!(matches!(&outputs(driver)[..], [Output::Send(Message::PullRequest(_))]));
}

#[test]
fn a_batch_is_acknowledged_when_it_is_stored_and_not_before() {
    let here = Scene::default();
    let mut driver = driver(&here);
    asks(&mut driver, &here, s(0));
    let arrived = batch(SYSTEM_TABLE, 0, 5, true);
    driver.handle(Input::Message(Message::Batch(arrived)), &here, s(0));
    let outline = match work(&mut driver).pop() {
        Some(Work::Apply { batch, learn: false, .. }) => batch,
        other => panic!("{other:?}"),
    };
    let outcome = Outcome::Stored { verified: None };
    driver.handle(Input::Done(Done::Applied { outline, outcome }), &here, s(0));
    assert_eq!(acks(&outputs(&mut driver)), [at(5).cursor]);
}

#[test]
fn no_more_is_read_while_too_much_is_being_applied() {
    let here = Scene::default();
    let mut driver = driver(&here);
    driver.applying = APPLYING;
    assert!(!driver.may_read());
    let (outline, outcome) = (batch(SYSTEM_TABLE, 0, 1, true), Outcome::Unfit(Unfit::Past));
    driver.handle(Input::Done(Done::Applied { outline, outcome }), &here, s(0));
    assert!(driver.may_read());
}

#[test]
fn one_batch_is_read_at_a_time_and_a_request_for_which_there_is_nothing_waits_for_a_change() {
    let here = Scene::default();
    let mut driver = driver(&here);
    outputs(&mut driver);
    let table = TableUid([3; 16]);
    for table in [SYSTEM_TABLE, table] {
        driver.handle(Input::Message(Message::PullRequest(request(table))), &here, s(0));
    }
    let reads = work(&mut driver);
    assert!(matches!(&reads[..], [Work::Read { request, .. }] if request.table == SYSTEM_TABLE));
    let answered =
        ReaderKnows::default().answer(&request(SYSTEM_TABLE), batch(SYSTEM_TABLE, 0, 1, true));
    driver.handle(
        Input::Done(Done::Read { request: request(SYSTEM_TABLE), answered }),
        &here,
        s(0),
    );
    let sent = outputs(&mut driver);
    assert!(
        sent.iter().any(|output| matches!(output, Output::Send(Message::Batch(_)))),
        "{sent:?}"
    );
    assert!(!sent.iter().any(|output| matches!(output, Output::Work(_))), "the link is taken");
    driver.handle(Input::BatchSent, &here, s(0));
    assert!(
        matches!(&work(&mut driver)[..], [Work::Read { request, .. }] if request.table == table)
    );
    let nothing = Done::Read { request: request(table), answered: Answered::nothing(None) };
    driver.handle(Input::Done(nothing), &here, s(0));
    let parked = Output::Send(Message::Parked(Parked { table, drain: None }));
    assert!(outputs(&mut driver).contains(&parked));
    driver.handle(Input::ReplicasChanged(Some(vec![table])), &here, s(0));
    assert!(
        matches!(&work(&mut driver)[..], [Work::Read { request, .. }] if request.table == table)
    );
}

/// holds E3
#[test]
fn rows_pass_when_clocks_agree_and_the_directory_before() {
    let here = Scene::default();
    let mut driver = driver(&here);
    outputs(&mut driver);
    let table = TableUid([3; 16]);
    let apart = Input::Link { clock_offset_ms: 90_000, has_room: true };
    driver.handle(apart, &here, s(0));
    for table in [table, SYSTEM_TABLE] {
        driver.handle(Input::Message(Message::PullRequest(request(table))), &here, s(0));
    }
    let out = outputs(&mut driver);
    let refuse = Refuse { table, taking: false, why: Why::Clock(90_000) };
    assert!(out.contains(&Output::Send(Message::Refuse(refuse))), "{out:?}");
    assert!(out.iter().any(|output| matches!(output,
        Output::Work(Work::Read { request, .. }) if request.table == SYSTEM_TABLE)));
    let nothing = Answered::nothing(None);
    let done = Done::Read { request: request(SYSTEM_TABLE), answered: nothing };
    driver.handle(Input::Done(done), &here, s(0));
    outputs(&mut driver);
    let together = Input::Link { clock_offset_ms: 1_000, has_room: true };
    driver.handle(together, &here, s(0));
    assert!(
        matches!(&work(&mut driver)[..], [Work::Read { request, .. }] if request.table == table)
    );
}

fn ahead(here: &Scene) -> Batch {
    let hlc = Hlc::from_unix_ms(here.wall_ms.get() + 10 * MAX_SKEW_MS);
    let stamp = Stamp { hlc, actor: THERE };
    let row = RowVersion { key: vec![1], value: None, stamp, seq: 1, context: 0 };
    Batch { rows: vec![row], ..*batch(TableUid([3; 16]), 0, 1, true) }
}

#[test]
fn rows_of_a_clock_that_was_ahead_are_held_off_and_then_taken_as_they_are() {
    let mut here = Scene::default();
    let mut driver = driver(&here);
    let rows = ahead(&here);
    let newest = rows.rows[0].stamp.hlc;
    assert!(driver.believed(&rows, &here, s(1)) < newest, "its node may give them anew");
    assert_eq!(driver.poll_timeout().min(s(11)), driver.poll_timeout(), "it is asked again then");
    assert!(driver.believed(&rows, &here, s(10)) < newest);
    assert!(driver.believed(&rows, &here, s(11)) > newest);
    here.met.insert(name("cabin"));
    assert!(driver.believed(&rows, &here, s(4)) > newest, "nobody gives anew what others have");
    let Some(Output::Note(note)) = outputs(&mut driver)
        .into_iter()
        .find(|output| matches!(output, Output::Note(Note::AheadSince(_))))
    else {
        panic!("it outlives the link")
    };
    assert_eq!(note, Note::AheadSince(Some(s(1))));
}

#[test]
fn statuses_are_passed_on_once_and_all_of_them_once_more_after_a_minute() {
    let here = Scene {
        statuses: vec![
            (name("cabin"), ReplicaStatus::default()),
            (name("office"), ReplicaStatus::default()),
        ],
        ..Scene::default()
    };
    let mut driver = driver(&here);
    outputs(&mut driver);
    let mut sent = Vec::new();
    for second in 1..=65 {
        driver.handle_timeout(&here, s(second));
        for output in outputs(&mut driver) {
            if let Output::Send(Message::StatusGossip(StatusGossip { statuses, .. })) = output {
                let names = statuses.iter().map(|(node, _)| node.as_str().to_owned());
                sent.push((second, names.collect::<Vec<_>>()));
            }
        }
    }
    let both = || vec!["home".to_owned(), "cabin".to_owned()];
    assert_eq!(sent, [(1, both()), (56, both())], "and nobody is told of themselves");
}

#[test]
fn gossip_waits_while_the_link_is_full() {
    let here = Scene::default();
    let mut driver = driver(&here);
    outputs(&mut driver);
    driver.handle(Input::Link { clock_offset_ms: 0, has_room: false }, &here, s(0));
    driver.handle_timeout(&here, s(1));
    assert_eq!(outputs(&mut driver), []);
    driver.handle(Input::Link { clock_offset_ms: 0, has_room: true }, &here, s(1));
    driver.handle_timeout(&here, s(6));
    assert!(matches!(&outputs(&mut driver)[..], [Output::Send(Message::StatusGossip(_))]));
}

#[test]
fn an_actor_whose_writes_another_node_knows_better_is_rotated() {
    let here = Scene::default();
    let dot = |seq| Dot { actor: HERE, seq };
    let known = |last| {
        let peer = Peer { last_of_ours: Some(last), ..peer() };
        let mut driver = Driver::new(peer, Remembered::default(), 0, &here, s(0));
        assert!(work(&mut driver).contains(&Work::FindLastWrite));
        driver.handle(Input::Done(Done::LastWrite(dot(5))), &here, s(0));
        work(&mut driver)
    };
    assert_eq!(known(dot(7)), [Work::RotateActor { known: 7, own: 5 }]);
    assert_eq!(known(dot(5)), []);
    assert_eq!(known(Dot { actor: ActorId(9), seq: 7 }), [], "an earlier actor");
}

fn unverified(key: &str) -> UnverifiedRow {
    let stamp = Stamp { hlc: Hlc::from_unix_ms(1), actor: THERE };
    UnverifiedRow { key: key.into(), stamp, writer: None, why: "it is not signed".into() }
}

/// holds E1: a peer can send any number of them, of tables that it makes up.
#[test]
fn of_a_batch_that_nobody_has_asked_for_nothing_is_noted() {
    let here = Scene::default();
    let mut driver = driver(&here);
    asks(&mut driver, &here, s(0));
    let stamp = Stamp { hlc: Hlc::from_unix_ms(1), actor: THERE };
    let invalid = RowVersion { key: vec![0xff], value: None, stamp, seq: 1, context: 0 };
    let batch = Batch { rows: vec![invalid], ..*batch(TableUid([3; 16]), 0, 1, true) };
    driver.handle(Input::Message(Message::Batch(Box::new(batch))), &here, s(0));
    assert_eq!(outputs(&mut driver), []);
}

/// holds I3: nothing is acknowledged that stands behind a row which is not believed.
#[test]
fn behind_a_row_that_is_quarantined_the_directory_is_learnt_and_not_acknowledged() {
    let here = Scene::default();
    let mut driver = driver(&here);
    asks(&mut driver, &here, s(0));
    let first = batch(SYSTEM_TABLE, 0, 5, false);
    driver.handle(Input::Message(Message::Batch(first.clone())), &here, s(0));
    let sent = outputs(&mut driver);
    assert!(
        sent.iter().any(|output| matches!(output, Output::Work(Work::Apply { learn: false, .. })))
    );
    let learnt = Done::Learnt {
        outline: first,
        keys: vec![b"name/a".to_vec()],
        unverified: vec![unverified("grant/a"), unverified("name/b")],
    };
    driver.handle(Input::Done(learnt), &here, s(0));
    let out = outputs(&mut driver);
    let sent = out.iter().filter(|output| matches!(output, Output::Note(Note::Quarantined(_))));
    assert_eq!(sent.count(), 2);
    assert_eq!(acks(&out), [None]);
    let behind = batch(SYSTEM_TABLE, 5, 9, true);
    driver.handle(Input::Message(Message::Batch(behind)), &here, s(0));
    let learns = work(&mut driver);
    assert!(matches!(&learns[..], [Work::Apply { learn: true, .. }]), "{learns:?}");
}
