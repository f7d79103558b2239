//! A session with a clock of its own: what it asks for, in which order and when.
//! Leaves rows to the store's tests, and two machines that really talk to `tests/it/replication/`.

use super::{super::*, *};
use crate::model::ActorId;

const SYSTEM: TableUid = TableUid([0; 16]);
const CHANGE_LOG: ChangeLogId = ChangeLogId([7; 16]);

fn table(number: u8) -> TableUid {
    TableUid([number; 16])
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(lsn: u64) -> Position {
    Position { cursor: Some(Cursor { change_log: CHANGE_LOG, lsn }), snapshot: None }
}

/// A batch of the log, which leads to this LSN.
fn log(table: TableUid, from: &Position, to: u64, last: bool) -> Box<Batch> {
    batch(table, from, Part::Delta { to, last })
}

fn batch(table: TableUid, from: &Position, part: Part) -> Box<Batch> {
    Box::new(Batch::empty(table, ActorId(1), from.clone(), CHANGE_LOG, part))
}

fn request(table: TableUid, position: Position) -> PullRequest {
    PullRequest { table, reader: ActorId(1), epoch: 1, position, vector: VersionVector::new() }
}

fn parked(table: TableUid) -> Message {
    Message::Parked(Parked { table, drain: None })
}

fn refuse(table: TableUid, why: Why) -> Message {
    Message::Refuse(Refuse { table, taking: false, why })
}

/// A session with somebody who does what it says: the store stands at LSN 0 everywhere.
struct Scene {
    session: Session,
    now: Duration,
    taken: Vec<Batch>,
    said: Vec<Message>,
    acknowledged: Vec<TableUid>,
}

impl Scene {
    fn new(tables: &[u8]) -> Self {
        let session = Session::new(SYSTEM, ms(0));
        let mut scene =
            Self { session, now: ms(0), taken: vec![], said: vec![], acknowledged: vec![] };
        scene.session.follow(&tables.iter().map(|n| (table(*n), 1)).collect(), ms(0));
        scene
    }

    /// The same once the system table was read to its end, and everything was asked for.
    fn after_the_first(tables: &[u8]) -> Self {
        let mut scene = Self::new(tables);
        assert_eq!(scene.asks(), [SYSTEM]);
        scene.hear(parked(SYSTEM));
        assert_eq!(scene.asks(), tables.iter().map(|n| table(*n)).collect::<Vec<_>>());
        scene.acknowledged.clear();
        scene
    }

    /// Does what is to be done; answers what was asked for.
    fn asks(&mut self) -> Vec<TableUid> {
        self.positions().into_iter().map(|(table, _)| table).collect()
    }

    fn positions(&mut self) -> Vec<(TableUid, Position)> {
        let mut asked = vec![];
        while let Some(output) = self.session.next_output() {
            match output {
                Output::Ask { table, from } => {
                    let from = from.unwrap_or(at(0));
                    self.session.asked(table, Some(from.clone()), self.now);
                    asked.push((table, from));
                }
                Output::Apply(batch) => self.taken.push(*batch),
                Output::Acknowledge { table, .. } => self.acknowledged.push(table),
                Output::Say(message) => self.said.push(message),
            }
        }
        asked
    }

    fn hear(&mut self, message: Message) {
        self.session.handle(message, self.now);
    }

    /// The batch that has been stored for the longest time is stored, or not.
    fn complete(&mut self, outcome: BatchOutcome) {
        let batch = self.taken.remove(0);
        self.session.taken(&batch, outcome, self.now);
    }

    /// Lets time pass, in the steps that were announced.
    fn pass(&mut self, time: Duration) -> Vec<(Duration, TableUid)> {
        let (end, mut asked) = (self.now + time, vec![]);
        while let Some(next) = self.session.poll_timeout().filter(|next| *next <= end) {
            assert!(next >= self.now, "nothing is due that was not done");
            self.now = next;
            self.session.handle_timeout(next);
            let tables = self.asks();
            assert!(!tables.is_empty(), "what was announced comes");
            asked.extend(tables.into_iter().map(|table| (next, table)));
        }
        self.now = end;
        asked
    }
}

#[test]
fn the_system_table_is_read_to_its_end_before_anything_else_is_asked_for() {
    let mut scene = Scene::new(&[1, 2]);
    assert_eq!(scene.asks(), [SYSTEM]);
    scene.hear(Message::Batch(log(SYSTEM, &at(0), 9, false)));
    assert_eq!(scene.asks(), [SYSTEM], "the next part is asked for at once");
    scene.complete(BatchOutcome::Stored);
    assert_eq!(scene.asks(), []);
    scene.hear(Message::Batch(log(SYSTEM, &at(9), 12, true)));
    assert_eq!(scene.asks(), []);
    scene.complete(BatchOutcome::Stored);
    let mut asked = scene.asks();
    asked.sort();
    assert_eq!(asked, [SYSTEM, table(1), table(2)]);
}

#[test]
fn a_request_that_waits_is_answered_when_the_replica_changes() {
    let mut scene = Scene::new(&[]);
    scene.hear(Message::PullRequest(Box::new(request(table(1), at(5)))));
    let asked = scene.session.next_pull_request().expect("to be answered");
    assert_eq!(scene.session.next_pull_request(), None);
    scene.session.served(&asked, Answer::Nothing(None));
    scene.asks();
    assert_eq!(scene.said, [parked(table(1))]);
    scene.session.changed(table(2));
    assert_eq!(scene.session.next_pull_request(), None, "another table");
    scene.session.changed(table(1));
    let again = scene.session.next_pull_request().expect("to be answered");
    scene.session.changed(table(1)); // while it is being answered
    scene.session.served(&again, Answer::Nothing(None));
    assert!(scene.session.next_pull_request().is_some(), "what has changed meanwhile counts");
    let batch = log(table(1), &at(5), 6, true);
    scene.session.served(&again, Answer::Batch(batch.clone()));
    scene.asks();
    assert_eq!(scene.said[1..], [Message::Batch(batch)], "and nothing else was said");
    scene.session.changed(table(1));
    assert_eq!(scene.session.next_pull_request(), None, "it was answered");
}

#[test]
fn a_new_request_takes_the_place_of_the_one_before() {
    let mut scene = Scene::new(&[]);
    scene.hear(Message::PullRequest(Box::new(request(table(1), at(5)))));
    let old = scene.session.next_pull_request().expect("to be answered");
    scene.hear(Message::PullRequest(Box::new(request(table(1), at(8)))));
    scene.session.served(&old, Answer::Batch(log(table(1), &at(5), 6, true)));
    scene.asks();
    assert_eq!(scene.said, [], "nobody parked for it any more");
    assert_eq!(scene.session.next_pull_request().map(|request| request.position), Some(at(8)));
}

#[test]
fn requests_for_the_system_table_are_answered_first_and_the_others_in_turn() {
    let mut scene = Scene::new(&[]);
    for number in [1, 2, 0, 3] {
        scene.hear(Message::PullRequest(Box::new(request(table(number), at(0)))));
    }
    let order: Vec<_> = std::iter::from_fn(|| scene.session.next_pull_request())
        .map(|request| request.table)
        .collect();
    assert_eq!(order, [SYSTEM, table(1), table(2), table(3)]);
}

#[test]
fn what_a_reader_has_said_to_have_is_left_out_of_the_answer_that_it_waits_for() {
    let mut scene = Scene::new(&[]);
    scene.hear(Message::PullRequest(Box::new(request(table(1), at(5)))));
    let has: VersionVector = [Dot { actor: ActorId(1), seq: 4 }].into_iter().collect();
    scene.session.reader_has(table(1), &has);
    assert_eq!(scene.session.next_pull_request().map(|request| request.vector), Some(has));
}

#[test]
fn of_a_long_log_the_next_part_is_asked_for_while_one_is_stored() {
    let mut scene = Scene::after_the_first(&[1]);
    scene.hear(Message::Batch(log(table(1), &at(0), 10, false)));
    assert_eq!(scene.positions(), [(table(1), at(10))]);
    scene.hear(Message::Batch(log(table(1), &at(10), 20, false)));
    assert_eq!((scene.asks(), scene.taken.len()), (vec![], 1), "one at a time is stored");
    scene.complete(BatchOutcome::Stored);
    assert_eq!(scene.positions(), [(table(1), at(20))]);
    assert_eq!(scene.taken[0].from, at(10));
    scene.complete(BatchOutcome::Stored);
    scene.hear(Message::Batch(log(table(1), &at(20), 25, true)));
    assert_eq!(scene.asks(), [], "nothing more is known to come");
    scene.complete(BatchOutcome::Stored);
    assert_eq!(scene.asks(), [table(1)], "so the next request waits at the source");
    assert_eq!(scene.acknowledged, [table(1); 3]);
}

#[test]
fn a_pass_is_gone_on_with_from_where_the_store_says_since_it_draws_its_number() {
    let mut scene = Scene::after_the_first(&[1]);
    let part =
        |starts, reached| Part::Snapshot { kind: SnapshotKind::Scan, starts, pinned: 3, reached };
    scene.hear(Message::Batch(batch(table(1), &at(0), part(true, Some(vec![5])))));
    assert_eq!(scene.asks(), []);
    scene.complete(BatchOutcome::Stored);
    let asked = scene.session.next_output();
    assert_eq!(asked, Some(Output::Acknowledge { table: table(1), upto: None, drain: None }));
    assert_eq!(scene.session.next_output(), Some(Output::Ask { table: table(1), from: None }));
    let snapshot = |after| Some(SnapshotTransfer { kind: SnapshotKind::Scan, number: 44, after });
    let inside = Position { snapshot: snapshot(vec![5]), ..at(3) };
    scene.session.asked(table(1), Some(inside.clone()), scene.now);
    scene.hear(Message::Batch(batch(table(1), &inside, part(false, Some(vec![9])))));
    assert_eq!(scene.positions(), [(table(1), Position { snapshot: snapshot(vec![9]), ..at(3) })]);
}

#[test]
fn what_nobody_has_asked_for_is_dropped() {
    let mut scene = Scene::after_the_first(&[1]);
    scene.hear(Message::Batch(log(table(1), &at(3), 9, true)));
    scene.hear(Message::Batch(log(table(9), &at(0), 9, true)));
    assert_eq!((scene.asks(), scene.taken.len()), (vec![], 0));
}

#[test]
fn pauses_grow_while_it_fails_and_are_short_again_afterwards() {
    let mut scene = Scene::after_the_first(&[1]);
    let mut pauses = vec![];
    for _ in 0..8 {
        scene.hear(refuse(table(1), Why::NoReplica));
        let before = scene.now;
        let asked = scene.pass(ms(10_000));
        pauses.push((asked[0].0 - before).as_millis());
        scene.now = asked[0].0;
    }
    assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    scene.hear(parked(table(1)));
    scene.hear(refuse(table(1), Why::Busy));
    assert_eq!(scene.pass(ms(300)).len(), 1);
}

#[test]
fn a_request_that_was_refused_may_be_answered_all_the_same() {
    let mut scene = Scene::after_the_first(&[1]);
    scene.hear(refuse(table(1), Why::UnknownEpoch));
    scene.hear(Message::Batch(log(table(1), &at(0), 9, true)));
    scene.asks();
    assert_eq!(scene.taken.len(), 1);
}

#[test]
fn everything_is_asked_for_again_after_a_minute() {
    let mut scene = Scene::after_the_first(&[1]);
    scene.hear(parked(table(1)));
    scene.asks();
    let asked = scene.pass(ms(60_000));
    assert_eq!(asked, [(ms(60_000), SYSTEM), (ms(60_000), table(1))]);
}

#[test]
fn decisions_that_are_not_known_yet_are_asked_for_at_once_and_the_rows_when_they_are_there() {
    let mut scene = Scene::after_the_first(&[1]);
    scene.hear(Message::Batch(log(table(1), &at(0), 9, true)));
    scene.asks();
    scene.complete(BatchOutcome::Unfit(Unfit::ScopeUnknown));
    assert_eq!(scene.asks(), [SYSTEM]);
    let told = Refuse { table: table(1), taking: true, why: Why::Directory };
    assert_eq!(scene.said, [Message::Refuse(told)]);
    scene.hear(Message::Batch(log(SYSTEM, &at(0), 7, true)));
    scene.asks();
    scene.complete(BatchOutcome::Stored);
    let mut asked = scene.asks();
    asked.sort();
    assert_eq!(asked, [SYSTEM, table(1)]);
}

#[test]
fn a_chunk_from_a_position_that_is_past_is_asked_for_anew_without_a_pause_once() {
    let mut scene = Scene::after_the_first(&[1]);
    for expected in [vec![table(1)], vec![]] {
        scene.hear(Message::Batch(log(table(1), &at(0), 9, true)));
        scene.asks();
        scene.complete(BatchOutcome::Unfit(Unfit::Past));
        assert_eq!(scene.asks(), expected);
    }
    assert_eq!(scene.pass(ms(400)).len(), 1);
}

#[test]
fn what_follows_a_chunk_that_was_not_stored_is_dropped_too() {
    let mut scene = Scene::after_the_first(&[1]);
    scene.hear(Message::Batch(log(table(1), &at(0), 10, false)));
    scene.asks();
    scene.hear(Message::Batch(log(table(1), &at(10), 20, false)));
    scene.asks();
    scene.complete(BatchOutcome::Failed(Why::Storage));
    assert_eq!((scene.asks(), scene.taken.len()), (vec![], 0));
    assert_eq!(scene.pass(ms(200)).len(), 1, "asked for again from where the store is");
}

#[test]
fn so_many_tables_are_transferred_at_a_time_and_small_ones_pass_them() {
    let numbers: Vec<u8> = (1..=10).collect();
    let mut scene = Scene::after_the_first(&numbers);
    for number in &numbers {
        scene.hear(Message::Batch(log(table(*number), &at(0), 5, false)));
    }
    assert_eq!(scene.asks().len(), TRANSFERS, "these go on");
    for _ in 0..10 {
        scene.complete(BatchOutcome::Stored);
    }
    assert_eq!(scene.asks(), [], "the others wait");
    assert_eq!(
        scene.session.poll_timeout(),
        Some(ms(60_000)),
        "and are not looked after in a loop"
    );
    let all = numbers.iter().copied().chain([20]).map(|n| (table(n), 1));
    scene.session.follow(&all.collect(), ms(0));
    assert_eq!(scene.asks(), [table(20)], "one that has little to say is asked for");
    scene.hear(Message::Batch(log(table(1), &at(5), 9, true)));
    scene.asks();
    scene.complete(BatchOutcome::Stored);
    assert_eq!(scene.asks(), [table(1), table(9)], "a transfer has ended, another one begins");
}

#[test]
fn a_table_that_is_not_followed_any_more_is_left_alone() {
    let mut scene = Scene::after_the_first(&[1]);
    scene.hear(Message::Batch(log(table(1), &at(0), 5, false)));
    scene.asks();
    scene.session.follow(&BTreeMap::new(), ms(0));
    scene.complete(BatchOutcome::Stored);
    assert_eq!(scene.asks(), []);
    assert_eq!(scene.pass(ms(60_000)), [(ms(60_000), SYSTEM)]);
}

#[test]
fn a_replica_that_has_begun_anew_is_asked_for_at_once() {
    let mut scene = Scene::after_the_first(&[1]);
    scene.hear(parked(table(1)));
    scene.asks();
    scene.session.follow(&[(table(1), 1)].into(), ms(0));
    assert_eq!(scene.asks(), [], "its request waits at the source");
    scene.session.follow(&[(table(1), 2)].into(), ms(0));
    assert_eq!(scene.asks(), [table(1)], "and the one of before is of no use");
}

#[test]
fn a_replica_that_begins_anew_while_a_batch_is_stored_is_asked_for_after_that() {
    let mut scene = Scene::after_the_first(&[1]);
    scene.hear(Message::Batch(log(table(1), &at(0), 5, false)));
    scene.asks();
    scene.session.follow(&[(table(1), 2)].into(), ms(0));
    assert_eq!(scene.asks(), []);
    scene.complete(BatchOutcome::Unfit(Unfit::Past));
    assert_eq!(scene.asks(), [table(1)]);
}

#[test]
fn a_replica_that_drains_is_acknowledged_even_where_nothing_was_missing() {
    let mut scene = Scene::after_the_first(&[1]);
    scene.hear(parked(table(1)));
    scene.asks();
    assert_eq!(scene.acknowledged, [table(1)], "what is here is told once");
    scene.hear(parked(table(1)));
    scene.asks();
    assert_eq!(scene.acknowledged.len(), 1);
    scene.hear(Message::Parked(Parked { table: table(1), drain: Some([3; 16]) }));
    let acknowledge =
        Output::Acknowledge { table: table(1), upto: Some(at(0)), drain: Some([3; 16]) };
    assert_eq!(scene.session.next_output(), Some(acknowledge));
}

#[test]
fn what_waits_behind_a_batch_is_acknowledged_when_that_is_stored() {
    let mut scene = Scene::after_the_first(&[1]);
    scene.hear(Message::Batch(log(table(1), &at(0), 5, false)));
    assert_eq!(scene.positions(), [(table(1), at(5))]);
    let drain = Some([3; 16]);
    scene.hear(Message::Parked(Parked { table: table(1), drain }));
    scene.asks();
    assert_eq!(scene.acknowledged, [], "what leads there is being stored");
    scene.complete(BatchOutcome::Stored);
    let acknowledge = Output::Acknowledge { table: table(1), upto: Some(at(5)), drain };
    assert_eq!(scene.session.next_output(), Some(acknowledge));
}

#[test]
fn a_draining_is_told_once_to_a_request_that_waits() {
    let mut scene = Scene::new(&[]);
    scene.hear(Message::PullRequest(Box::new(request(table(1), at(5)))));
    for drain in [None, Some([1; 16]), Some([1; 16]), Some([2; 16])] {
        let asked = scene.session.next_pull_request().expect("to be answered");
        scene.session.served(&asked, Answer::Nothing(drain));
        scene.session.changed(table(1));
    }
    scene.asks();
    let told = |drain| Message::Parked(Parked { table: table(1), drain });
    assert_eq!(scene.said, [told(None), told(Some([1; 16])), told(Some([2; 16]))]);
}

#[test]
fn what_is_hurried_is_asked_for_at_once_unless_it_is_being_asked_for() {
    let mut scene = Scene::after_the_first(&[]);
    assert!(scene.session.hurry(SYSTEM, ms(5)));
    assert_eq!(scene.session.poll_timeout(), Some(ms(5)));
    scene.now = ms(5);
    scene.session.handle_timeout(ms(5));
    assert!(!scene.session.hurry(SYSTEM, ms(6)), "its place is being looked for");
    assert_eq!(scene.asks(), [SYSTEM]);
}

#[test]
fn requests_over_the_bound_are_refused_and_those_that_are_kept_can_be_replaced() {
    let mut scene = Scene::after_the_first(&[]);
    let numbered = |number: u32| TableUid(u128::from(number + 1).to_be_bytes());
    let dot = |n: u64| Dot { actor: ActorId(n.into()), seq: 1 };
    let vector: VersionVector = (0..4096).map(dot).collect();
    let ask = |number| {
        let request = PullRequest { vector: vector.clone(), ..request(numbered(number), at(0)) };
        Message::PullRequest(Box::new(request))
    };
    let mut count = 0;
    while scene.session.outputs.is_empty() {
        scene.hear(ask(0));
        assert!(scene.session.outputs.is_empty(), "the same table once more");
        count += 1;
        assert!(count < 10_000, "there is a bound");
        scene.hear(ask(count));
    }
    let refused = Refuse { table: numbered(count), taking: false, why: Why::Busy };
    assert_eq!(scene.session.next_output(), Some(Output::Say(Message::Refuse(refused))));
}
