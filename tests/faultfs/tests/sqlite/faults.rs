//! Injected faults: how SQLite reports each, and that none costs an acknowledged commit.

use faultfs::{Call, FaultFs, Op, Repeat, StoreError};
use rusqlite::{Connection, Result, ffi};

use crate::script::{self, Log, Mode, Program, Rig, WAL_FULL, connect, put, unique_name};

/// Ten rows in a database that nobody has open.
fn filled(mode: Mode) -> Rig {
    let rig = Rig::new();
    let mut db = rig.connect(mode).unwrap();
    script::create_tables(&db).unwrap();
    for key in 1..=10 {
        put(&mut db, key).unwrap();
    }
    drop(db);
    rig
}

/// What `act` reports when the first call that `when` picks fails.
fn check(
    mode: Mode,
    when: fn(&Call) -> bool,
    fault: StoreError,
    act: fn(&mut Connection) -> Result<()>,
    expected: i32,
) {
    let rig = filled(mode);
    let mut db = rig.connect(mode).unwrap();
    rig.fs.fail_when(when, fault, Repeat::Once);
    let error = act(&mut db).unwrap_err();
    let rusqlite::Error::SqliteFailure(error, _) = error else {
        panic!("{error}");
    };
    assert_eq!(rig.fs.struck().len(), 1);
    assert_eq!(error.extended_code, expected, "{:?}", rig.fs.struck()[0]);
}

fn add(db: &mut Connection) -> Result<()> {
    put(db, 11)
}

fn read_all(db: &mut Connection) -> Result<()> {
    db.query_row("SELECT sum(length(v)) FROM kv", [], |_| Ok(()))
}

fn truncate_wal(db: &mut Connection) -> Result<()> {
    put(db, 11)?;
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

#[test]
fn no_space_on_a_write_is_full() {
    let write = |call: &Call| call.op == Op::Write;
    for fault in [StoreError::NoSpace, StoreError::ShortNoSpace] {
        check(WAL_FULL, write, fault, add, ffi::SQLITE_FULL);
    }
}

#[test]
fn a_failed_write_is_ioerr_write() {
    let write = |call: &Call| call.op == Op::Write;
    for fault in [StoreError::Io, StoreError::ShortIo] {
        check(WAL_FULL, write, fault, add, ffi::SQLITE_IOERR_WRITE);
    }
}

#[test]
fn a_failed_sync_is_ioerr_fsync() {
    let wal = |call: &Call| call.op == Op::Sync && call.file.ends_with("-wal");
    check(WAL_FULL, wal, StoreError::Io, add, ffi::SQLITE_IOERR_FSYNC);
    let db = |call: &Call| call.op == Op::Sync && call.file.ends_with(".db");
    check(WAL_FULL, db, StoreError::Io, truncate_wal, ffi::SQLITE_IOERR_FSYNC);
}

/// The `unix` VFS takes `EIO` for a damaged file system, and SQLite reports that as damage.
#[test]
fn eio_on_a_read_is_corrupt_and_other_errors_are_ioerr_read() {
    let read = |call: &Call| call.op == Op::Read && call.len == 4096;
    check(WAL_FULL, read, StoreError::Io, read_all, ffi::SQLITE_CORRUPT);
    check(WAL_FULL, read, StoreError::Read, read_all, ffi::SQLITE_IOERR_READ);
}

#[test]
fn a_failed_truncation_is_ioerr_truncate() {
    let truncate = |call: &Call| call.op == Op::Truncate;
    let expected = ffi::SQLITE_IOERR_TRUNCATE;
    check(WAL_FULL, truncate, StoreError::Io, truncate_wal, expected);
}

#[test]
fn a_failed_deletion_is_ioerr_delete() {
    let mode = Mode { journal: "delete", synchronous: "full" };
    let delete = |call: &Call| call.op == Op::Delete;
    check(mode, delete, StoreError::Io, add, ffi::SQLITE_IOERR_DELETE);
}

#[test]
fn a_failed_open_is_cantopen() {
    let path = "a.db-journal";
    let mode = Mode { journal: "delete", synchronous: "full" };
    for fault in [StoreError::Io, StoreError::NoSpace] {
        let journal = move |call: &Call| &*call.file == path && call.op == Op::Create;
        let rig = filled(mode);
        let mut db = rig.connect(mode).unwrap();
        rig.fs.fail_when(journal, fault, Repeat::Once);
        let error = put(&mut db, 11).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::CannotOpen));
    }
}

#[test]
fn a_fault_strikes_once_or_until_healed() {
    let rig = filled(WAL_FULL);
    let mut db = rig.connect(WAL_FULL).unwrap();
    let next = |rig: &Rig| rig.fs.calls() + 1;

    rig.fs.fail(next(&rig), StoreError::NoSpace, Repeat::Once);
    assert!(put(&mut db, 11).is_err());
    put(&mut db, 11).unwrap();

    rig.fs.fail(next(&rig), StoreError::NoSpace, Repeat::Always);
    assert!(put(&mut db, 12).is_err());
    assert!(put(&mut db, 12).is_err());
    rig.fs.heal();
    put(&mut db, 12).unwrap();
}

#[test]
fn a_short_write_leaves_its_first_half() {
    let rig = filled(WAL_FULL);
    let mut db = rig.connect(WAL_FULL).unwrap();
    let page = |call: &Call| call.op == Op::Write && call.len == 4096;
    rig.fs.fail_when(page, StoreError::ShortIo, Repeat::Once);
    assert!(put(&mut db, 11).is_err());
    let struck = &rig.fs.struck()[0];
    let len = rig.fs.dir().join(&*struck.file).metadata().unwrap().len();
    assert_eq!(len, struck.offset + 2048);
}

/// One run of the script for each call and fault. A commit that failed may be there or not.
#[test]
fn no_fault_at_any_call_costs_an_acknowledged_commit() {
    let faults = [StoreError::NoSpace, StoreError::Io, StoreError::Read, StoreError::ShortIo];
    for fault in faults {
        let mut nth = 1;
        loop {
            let rig = Rig::new();
            rig.fs.fail(nth, fault, Repeat::Once);
            let mut log = Log::default();
            if let Ok(mut program) = Program::start(&rig, WAL_FULL) {
                program.run(&rig.fs, &mut log, 11);
            }
            let Some(struck) = rig.fs.struck().pop() else {
                break;
            };
            for seed in [0, 1, 2 + nth] {
                rig.judge(&log, rig.fs.calls(), seed)
                    .unwrap_or_else(|flaw| panic!("{struck:?}, seed {seed}: {flaw:?}"));
            }
            // The next call that this fault can strike: others would repeat this run.
            nth = struck.number + 1;
        }
        assert!(nth > 1, "{fault:?} never struck");
    }
}

/// The same with a checkpoint's sync, at every crash point after it, for the writes that Linux
/// gives up there are not the commit's but older ones.
#[test]
fn a_failed_sync_of_a_checkpoint_costs_nothing_if_the_checkpoint_is_repeated() {
    let rig = Rig::new();
    let mut log = Log::default();
    let mut program = Program::start(&rig, WAL_FULL).unwrap();
    program.run(&rig.fs, &mut log, 9);
    let database = |call: &Call| call.op == Op::Sync && &*call.file == "a.db";
    rig.fs.fail_when(database, StoreError::Io, Repeat::Once);
    assert!(program.checkpoint("TRUNCATE").is_err());
    let failed = rig.fs.calls();
    assert!(program.checkpoint("TRUNCATE").unwrap());
    for key in 10..=15 {
        log.put(&rig.fs, &mut program.writer, key);
    }
    let points = rig.fs.crash_points().into_iter().filter(|p| *p >= failed);
    for point in points {
        for seed in [0, 1, 2 + point, 3 + point, 4 + point] {
            rig.judge(&log, point, seed).unwrap();
        }
    }
}

#[test]
fn a_name_is_taken_until_its_handles_are_gone() {
    let name = unique_name();
    let dir = script::scratch_dir();
    let first = FaultFs::new(&name, dir.path()).unwrap();
    let clone = first.clone();
    drop(first);
    assert!(FaultFs::new(&name, dir.path()).is_err());

    let db = connect(&clone, WAL_FULL).unwrap();
    drop(clone);
    let again = FaultFs::new(&name, dir.path()).unwrap();
    assert_eq!(again.calls(), 0);
    // The old connection still works on the files it has open.
    script::create_tables(&db).unwrap();
}
