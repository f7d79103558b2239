//! Backup and restore: a copy made under load is sound and complete, and takes the database's place.
//! How its bytes travel to a caller is tested with the command line.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use cortex_core::model::{AttributeName, Caller, Key, Limits, Owner, Scope, TableName, Uid};
use cortexd::store::{
    Command, Entry, OpenError, Options, Outcome, RecordCommand, RecordOutcome, ScanStep, Store,
    TableCommand, TableOutcome, restore,
};

const OWNER: Uid = Uid(1000);

fn open(dir: &Path) -> Store {
    Store::open(&Options::new(dir)).expect("the store opens")
}

async fn create(store: &Store, name: &str) -> Arc<Entry> {
    let command = Command::Tables(TableCommand::CreateTable {
        caller: Caller::Local(OWNER),
        owner: Owner::Uid(OWNER),
        name: TableName::parse(name).expect("a name"),
        attributes: vec![AttributeName::parse("id").expect("a name")],
        scope: Scope::Local,
    });
    assert_eq!(
        store.execute(command).await.expect("created"),
        Outcome::Tables(TableOutcome::Created)
    );
    table(store, name)
}

fn table(store: &Store, name: &str) -> Arc<Entry> {
    Arc::clone(store.catalog().find(&Owner::Uid(OWNER), name).expect("the table is there"))
}

/// A record `{id: key, n: number}` as its bytes.
fn record(key: &str, number: u64) -> Bytes {
    let fields = vec![("id".into(), key.into()), ("n".into(), number.into())];
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &rmpv::Value::Map(fields)).expect("a Vec takes all");
    bytes.into()
}

async fn put(store: &Store, entry: &Arc<Entry>, key: &str, number: u64) {
    let record = record(key, number);
    let key = Key::of_record(&record, "id", &Limits::default()).expect("a map").expect("a key");
    let caller = Caller::Local(OWNER);
    let command =
        Command::Records(RecordCommand::Put { caller, entry: Arc::clone(entry), key, record });
    assert_eq!(
        store.execute(command).await.expect("stored"),
        Outcome::Records(RecordOutcome::Stored)
    );
}

fn rows(store: &Store, entry: &Entry) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let mut scan = store.scan(entry.table.id, b"").expect("a scan");
    let mut visit = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ScanStep::Continue
    };
    while !scan.slice(&mut visit).expect("a slice") {}
    rows
}

/// Holds E4: what was acknowledged before the backup began is in it, whatever is written meanwhile.
#[tokio::test]
async fn a_backup_under_write_load_is_sound_and_holds_all_that_was_acknowledged_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir.path().join("data"));
    let entry = create(&store, "load").await;
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::spawn({
        let (store, entry) = (store.clone(), Arc::clone(&entry));
        let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        async move {
            for number in 1.. {
                put(&store, &entry, &format!("k{number:08}"), number).await;
                acknowledged.store(number, SeqCst);
                if stop.load(SeqCst) {
                    return number;
                }
            }
            0
        }
    });
    while acknowledged.load(SeqCst) < 200 {
        tokio::task::yield_now().await;
    }
    let before = acknowledged.load(SeqCst);
    let copy = dir.path().join("copy.db");
    let summary = {
        let (store, copy) = (store.clone(), copy.clone());
        tokio::task::spawn_blocking(move || store.backup(&copy)).await.expect("no panic")
    }
    .expect("the backup is made and passes its check");
    let at_the_end = acknowledged.load(SeqCst);
    stop.store(true, SeqCst);
    writer.await.expect("no panic");
    store.close().await;

    assert!(summary.records >= before, "{} records, {before} were acknowledged", summary.records);
    assert!(summary.records <= at_the_end + 1, "more records than were written");
    let other = dir.path().join("other");
    restore(&copy, &other).expect("restored");
    let restored = open(&other);
    let found = rows(&restored, &table(&restored, "load"));
    assert_eq!(found.len() as u64, summary.records);
    for (number, (_, value)) in (1..).zip(&found) {
        assert_eq!(*value, record(&format!("k{number:08}"), number), "a gap or another value");
    }
    restored.close().await;
}

#[tokio::test]
async fn a_restore_keeps_the_database_that_was_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy.db"));
    let store = open(&data);
    let entry = create(&store, "notes").await;
    put(&store, &entry, "old", 1).await;
    store.backup(&copy).expect("made");
    put(&store, &entry, "newer", 2).await;
    store.close().await;
    drop((store, entry));

    let kept = restore(&copy, &data).expect("restored").kept.expect("there was a database");
    let keys = |dir: &Path| {
        let store = open(dir);
        let rows = rows(&store, &table(&store, "notes"));
        rows.into_iter().map(|(key, _)| String::from_utf8(key).expect("text")).collect::<Vec<_>>()
    };
    assert_eq!(keys(&data), ["old"]);
    let aside = dir.path().join("aside");
    fs::create_dir(&aside).expect("made");
    fs::rename(kept, aside.join("cortex.db")).expect("moved");
    assert_eq!(keys(&aside), ["newer", "old"], "the old database is whole");
}

/// holds K3, K7: a restored copy never gives out a number that the original gave out.
#[tokio::test]
async fn a_restored_database_is_another_origin_of_writes() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy.db"));
    let store = open(&data);
    create(&store, "notes").await;
    store.backup(&copy).expect("made");
    store.close().await;
    drop(store);
    let origin = |path: &Path| {
        let conn = rusqlite::Connection::open(path).expect("opens");
        conn.query_row(
            "SELECT hex(actors.uid), hex(db_uid), is_copy FROM node_state
             JOIN actors ON number = actor",
            [],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?)),
        )
        .expect("one row")
    };
    let original = origin(&data.join("cortex.db"));
    assert!(!original.2);
    assert!(origin(&copy).2, "a backup says that it is one");
    restore(&copy, &data).expect("restored");
    open(&data).close().await;
    let restored = origin(&data.join("cortex.db"));
    assert_ne!(restored.0, original.0, "the actor");
    assert_ne!(restored.1, original.1, "the database");
    assert!(!restored.2);
    open(&data).close().await;
    assert_eq!(origin(&data.join("cortex.db")), restored, "a restart changes nothing");
}

#[tokio::test]
async fn a_restore_refuses_what_is_no_sound_backup_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy.db"));
    let store = open(&data);
    let entry = create(&store, "notes").await;
    for number in 0..2_000 {
        put(&store, &entry, &format!("k{number}"), number).await;
    }
    store.backup(&copy).expect("made");
    assert!(matches!(restore(&copy, &data), Err(OpenError::InUse(_))), "a daemon uses it");
    store.close().await;
    drop((store, entry));
    let before = fs::read(data.join("cortex.db")).expect("readable");

    let plain = dir.path().join("plain.db");
    fs::copy(data.join("cortex.db"), &plain).expect("copied");
    assert!(matches!(restore(&plain, &data), Err(OpenError::NoBackup(_))), "a plain copy");

    let text = dir.path().join("text");
    fs::write(&text, "nothing of the kind, and longer than a header ".repeat(10)).expect("written");
    assert!(matches!(restore(&text, &data), Err(OpenError::Unlike { .. })), "a text file");

    let torn = dir.path().join("torn.db");
    let mut bytes = fs::read(&copy).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0x5a);
    fs::write(&torn, bytes).expect("written");
    assert!(matches!(restore(&torn, &data), Err(OpenError::Unsound { .. })), "a damaged copy");

    let newer = dir.path().join("newer.db");
    fs::copy(&copy, &newer).expect("copied");
    rusqlite::Connection::open(&newer)
        .and_then(|conn| conn.pragma_update(None, "user_version", 9_999))
        .expect("changed");
    assert!(matches!(restore(&newer, &data), Err(OpenError::NewerBackup { .. })), "a later schema");

    assert_eq!(fs::read(data.join("cortex.db")).expect("readable"), before);
    let names: Vec<_> = fs::read_dir(&data)
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    assert!(names.iter().all(|name| !name.contains("restor")), "left behind: {names:?}");
}

/// Each is told what it is and what helps, and the disk is blamed for none of them.
#[tokio::test]
async fn what_cannot_be_restored_is_told_its_own_cause_and_makes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir.path().join("source"));
    let entry = create(&store, "notes").await;
    for number in 0..2_000 {
        put(&store, &entry, &format!("k{number}"), number).await;
    }
    let copy = dir.path().join("copy.db");
    store.backup(&copy).expect("made");
    store.close().await;
    let file = |name: &str, bytes: &[u8]| {
        fs::write(dir.path().join(name), bytes).expect("written");
    };
    let whole = fs::read(&copy).expect("readable");
    file("empty", b"");
    file("short", b"SQLite format 3\0");
    file("cut off", &whole[..whole.len() / 2]);
    file("cut in a page", &whole[..whole.len() - 1000]);
    rusqlite::Connection::open(dir.path().join("foreign"))
        .and_then(|conn| conn.execute_batch("CREATE TABLE bookmarks (url TEXT)"))
        .expect("made");
    for (name, says, helps) in [
        ("missing", "No such file", "`cortex backup`"),
        ("source", "directory", "name a file in it"),
        ("empty", "is empty", "not made by `cortex backup`"),
        ("short", "no database of cortexd", "not made by `cortex backup`"),
        ("foreign", "no database of cortexd", "not made by `cortex backup`"),
        ("cut off", "a part of it is missing", "copy it here once more"),
        ("cut in a page", "a part of it is missing", "copy it here once more"),
    ] {
        let from = dir.path().join(name);
        let (absent, there) = (dir.path().join("new"), dir.path().join("there"));
        let told = restore(&from, &there).expect_err(name).to_string();
        for text in [&*from.display().to_string(), says, helps] {
            assert!(told.contains(text), "{name}: {text:?} is not in {told:?}");
        }
        assert!(!told.contains("dmesg") && !told.contains("--data-dir"), "{name}: {told}");
        assert!(!there.join("cortex.db").exists(), "{name}");
        if !name.starts_with("cut") {
            restore(&from, &absent).expect_err(name);
            assert!(!absent.exists(), "{name}: a directory was made");
        }
    }
}

/// A restore is often root's, and a backup may lie where all may read it.
#[tokio::test]
async fn what_was_restored_belongs_to_the_directorys_owner_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy.db"));
    let store = open(&dir.path().join("source"));
    store.backup(&copy).expect("a backup");
    store.close().await;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).expect("open the copy to all");
    fs::create_dir(&data).expect("a directory");
    if nix::unistd::geteuid().is_root() {
        // As systemd leaves it for the service's user. Others cannot give a directory away.
        chown(&data, Some(12_345), Some(12_345)).expect("given away");
    }

    restore(&copy, &data).expect("restored");
    let directory = fs::metadata(&data).expect("it is there");
    for name in ["cortex.db", "cortexd.lock"] {
        let file = fs::metadata(data.join(name)).expect(name);
        assert_eq!((file.uid(), file.gid()), (directory.uid(), directory.gid()), "{name}");
        assert_eq!(file.mode() & 0o777, 0o600, "{name}");
    }
}
