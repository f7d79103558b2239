//! What was deleted, overwritten or dropped is in no file of the data directory once the promised time is over.
//! That other machines hear of a copy's end only then is `replication`'s.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use bytes::Bytes;
use cortexd::store::{Command, Options, RecordCommand, ScanStep, Store, UpkeepCommand};

use super::{TABLE, create, find, key, owner, scratch_dir, wait};
use crate::upkeep::scripted::Op;

/// cortexd(8): "within a minute". Longer here, for a busy machine.
const PROMISED: Duration = Duration::from_secs(90);

/// Rows written and mostly removed again: enough for pages to be split, joined and rebuilt many times.
const WRITES: u32 = 3_000;

/// Texts that can be told apart wherever they stand: of the n-th write.
fn mark(n: u32) -> String {
    format!("<M{n:08}>")
}

/// The marks in all files of a directory.
fn marks(dir: &Path) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).expect("listed") {
        let bytes = fs::read(entry.expect("an entry").path()).expect("readable");
        for at in 0..bytes.len().saturating_sub(10) {
            if bytes[at..].starts_with(b"<M") && bytes[at + 10] == b'>' {
                let digits = std::str::from_utf8(&bytes[at + 2..at + 10]).unwrap_or("");
                found.extend(digits.parse::<u32>());
            }
        }
    }
    found
}

/// A sequence that looks random and is the same each time.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

/// Writes, overwrites and deletes rows of all sizes. Answers the marks that must be there afterwards.
fn churn(store: &Store, seed: u64, writes: std::ops::Range<u32>) -> BTreeSet<u32> {
    let mut sequence = Sequence(seed);
    let mut living: Vec<(String, u32)> = Vec::new();
    let entry = find(store, TABLE).expect("it is there");
    wait(async {
        let mut answers = Vec::new();
        for n in writes {
            let size = [1, 4, 9, 30, 80, 150, 300, 900][sequence.below(8)];
            let record = Bytes::from(mark(n).repeat(size));
            let (choice, caller, entry) = (sequence.below(4), owner(TABLE), entry.clone());
            let name = if choice < 2 || living.is_empty() {
                living.push((format!("{}-{n}", sequence.below(1 << 20)), n));
                living[living.len() - 1].0.clone()
            } else {
                let at = sequence.below(living.len());
                living[at].1 = n;
                living[at].0.clone()
            };
            let command = if choice == 3 {
                living.retain(|(known, _)| *known != name);
                Command::Records(RecordCommand::Delete { caller, entry, key: key(&name) })
            } else {
                Command::Records(RecordCommand::Put { caller, entry, key: key(&name), record })
            };
            answers.push(store.submit(command).await.expect("queued"));
            if answers.len() == 20 {
                for answer in answers.drain(..) {
                    answer.await.expect("an answer").expect("done");
                }
            }
        }
        for answer in answers {
            answer.await.expect("an answer").expect("done");
        }
    });
    living.into_iter().map(|(_, n)| n).collect()
}

/// Has the upkeep go on until a directory holds these marks and no others.
fn wait_for_marks(store: &Store, dir: &Path, expected: &BTreeSet<u32>) {
    let started = cortexd::sys::clock::monotonic();
    loop {
        wait(store.execute(UpkeepCommand::Purge)).expect("a step");
        let found = marks(dir);
        assert!(found.is_superset(expected), "what is stored is gone");
        if found == *expected {
            return;
        }
        let left = found.difference(expected).count();
        assert!(started.elapsed() < PROMISED, "{left} of what is gone are there");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// holds S5
#[test]
fn nothing_of_what_was_deleted_or_overwritten_is_in_any_file_soon_after() {
    let dir = scratch_dir();
    let store = Store::open(&Options::new(dir.path())).expect("a store");
    create(&store);
    let living = churn(&store, 1, 0..WRITES);
    assert!(marks(dir.path()).len() > living.len(), "the log still has all of it");
    wait_for_marks(&store, dir.path(), &living);
    wait(store.close());
    assert_eq!(marks(dir.path()), living, "nothing comes back at the end");
}

/// holds S5: a client that reads slowly keeps its answer, and not everybody's deletions.
#[test]
fn a_read_over_an_old_state_does_not_keep_what_was_deleted() {
    let dir = scratch_dir();
    let store = Store::open(&Options::new(dir.path())).expect("a store");
    create(&store);
    let before = churn(&store, 2, 0..200);
    let table = find(&store, TABLE).expect("it is there").table.id;
    let mut scan = store.scan(table, b"").expect("a scan");
    assert!(!scan.slice(|_, _| ScanStep::Pause).expect("a row"), "it has read one");
    let reader = std::thread::spawn(move || {
        while matches!(scan.slice(|_, _| ScanStep::Pause), Ok(false)) {
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    let after = churn(&store, 3, 200..400);
    wait_for_marks(&store, dir.path(), &before.union(&after).copied().collect());
    reader.join().expect("no panic");
    wait(store.close());
}

/// holds S5
#[test]
fn nothing_of_a_dropped_table_is_in_any_file_soon_after() {
    let dir = scratch_dir();
    let store = Store::open(&Options::new(dir.path())).expect("a store");
    create(&store);
    churn(&store, 4, 0..WRITES);
    Op::Drop(TABLE).execute(&store).expect("dropped");
    wait_for_marks(&store, dir.path(), &BTreeSet::new());
    wait(store.close());
}

/// holds S5: what a crash interrupts is done by the next start.
#[test]
fn after_a_crash_nothing_is_left_either() {
    let dir = scratch_dir();
    let store = Store::open(&Options::new(dir.path())).expect("a store");
    create(&store);
    let living = churn(&store, 5, 0..WRITES);
    store.checkpoint().expect("moved, with the gaps as they are");
    let crashed = scratch_dir();
    for name in ["cortex.db", "cortex.db-wal"] {
        fs::copy(dir.path().join(name), crashed.path().join(name)).expect("copied");
    }
    wait(store.close());
    let store = Store::open(&Options::new(crashed.path())).expect("it recovers");
    wait_for_marks(&store, crashed.path(), &living);
    wait(store.close());
}

/// holds S5: free pages that an earlier version has left as they were, too.
#[test]
fn what_an_earlier_version_has_left_is_overwritten() {
    let dir = scratch_dir();
    let store = Store::open(&Options::new(dir.path())).expect("a store");
    create(&store);
    let living = churn(&store, 6, 0..200);
    wait(store.close());
    drop(store);
    let earlier = rusqlite::Connection::open(dir.path().join("cortex.db")).expect("opened");
    earlier
        .execute_batch(
            "PRAGMA secure_delete = OFF; CREATE TABLE x (t TEXT); UPDATE node_state SET swept = 0;",
        )
        .expect("made");
    for n in 0..500 {
        let text = mark(1_000 + n).repeat(50);
        earlier.execute("INSERT INTO x VALUES (?1)", [text]).expect("stored");
    }
    earlier.execute_batch("DROP TABLE x").expect("dropped");
    drop(earlier);
    assert!(marks(dir.path()).len() > living.len() + 400, "the free pages hold it");
    let store = Store::open(&Options::new(dir.path())).expect("a store");
    wait_for_marks(&store, dir.path(), &living);
    wait(store.close());
}
