//! What the store does so that nobody is in another's way: small steps, bounded logs, no work for nothing.
//! Leaves how long any of it takes to the benchmarks.

mod erasure;

use bytes::Bytes;
use cortex_core::model::{Limits, Refusal, Uid};
use cortexd::store::{
    Command, CommandError, Event, EventFilter, Options, RecordCommand, RecordOutcome, Store,
    UpkeepCommand, UpkeepOutcome,
};
use scripted::{Op, find, key, owner, scratch_dir, wait};

use crate::support::scripted;

const TABLE: (u32, &str) = (1000, "t");

fn open(dir: &tempfile::TempDir, limits: Limits) -> Store {
    Store::open(&Options { limits, ..Options::new(dir.path()) }).expect("a store")
}

fn create(store: &Store) {
    Op::Create(TABLE).execute(store).expect("created");
}

fn put(store: &Store, name: &str, bytes: usize) -> Result<RecordOutcome, CommandError> {
    let entry = find(store, TABLE).expect("it is there");
    let record = Bytes::from(vec![7; bytes]);
    wait(store.execute(RecordCommand::Put { caller: owner(TABLE), entry, key: key(name), record }))
}

#[test]
fn large_rows_of_a_dropped_table_go_a_few_at_a_time() {
    let dir = scratch_dir();
    let store = open(&dir, Limits::default());
    create(&store);
    for n in 0..12 {
        put(&store, &n.to_string(), 200 << 10).expect("stored");
    }
    Op::Drop(TABLE).execute(&store).expect("dropped");
    let mut steps = 0;
    while wait(store.execute(UpkeepCommand::Purge)).expect("removed")
        == (UpkeepOutcome::Purged { more: true })
    {
        steps += 1;
    }
    assert!(steps >= 6, "a step takes some 256 KiB: {steps} for 2.4 MiB");
    wait(store.close());
}

/// holds K3: a number names one write, and what was no write has none.
#[test]
fn what_comes_to_nothing_draws_no_number() {
    let dir = scratch_dir();
    let store = open(&dir, Limits { bytes_per_uid: 100, ..Limits::default() });
    create(&store);
    put(&store, "a", 50).expect("within the quota");
    let before = store.hlc();
    let refused = put(&store, "b", 80);
    assert!(
        matches!(refused, Err(CommandError::Refused(Refusal::QuotaExceeded(100)))),
        "{refused:?}"
    );
    Op::Delete(TABLE, "absent").execute(&store).expect("deleting what is not there is fine");
    assert_eq!(store.hlc(), before, "nothing was stamped");
    put(&store, "c", 10).expect("within the quota");
    assert!(store.hlc() > before, "a write is");
    wait(store.close());
}

#[test]
fn nobody_pushes_out_the_events_of_others() {
    let dir = scratch_dir();
    let store = open(&dir, Limits::default());
    let note = |uid: u32| {
        Command::Upkeep(UpkeepCommand::Note(Event {
            uid: Some(Uid(uid)),
            kind: "test",
            text: "x".into(),
        }))
    };
    wait(async {
        store.execute(note(1)).await.expect("noted");
        for _ in 0..12_000 {
            let _answer = store.submit(note(2)).await.expect("queued");
        }
        store.execute(note(2)).await.expect("noted");
    });
    let events = |uid: u32, limit| {
        let wanted = EventFilter { uid: Some(Uid(uid)), after: 0, limit };
        store.reader(0).events(wanted).expect("events").len()
    };
    assert_eq!(events(1, 10), 1, "the other's is still there");
    assert_eq!(events(2, 20_000), 2_000, "and the loud one's own have a bound");
    wait(store.close());
}
