//! Power losses at every point of a script, and what each durability setting makes of them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use faultfs::{FaultFs, Op, Repeat, StoreError};

use crate::script::{
    self, Flaw, Log, Mode, Program, Rig, WAL_FULL, connect, judge_power_loss, scratch_dir,
    unique_name,
};

/// How often each kind of flaw was found over all crash points, and the first with its point
/// and seed.
#[derive(Default, Debug, PartialEq)]
struct Found {
    lost: u32,
    broken: u32,
    first: Option<(u64, u64, Flaw)>,
}

const NOTHING: Found = Found { lost: 0, broken: 0, first: None };

/// Runs the script and judges every crash point with the two extreme seeds and some others.
fn sweep(mode: Mode, ops: i64, mixed_seeds: u64) -> Found {
    let rig = Rig::new();
    let mut log = Log::default();
    let mut program = Program::start(&rig, mode).unwrap();
    program.run(&rig.fs, &mut log, ops);
    assert_eq!(log.acknowledged.len(), usize::try_from(ops).unwrap());
    sweep_points(&rig.fs, &log, mixed_seeds)
}

fn sweep_points(fs: &FaultFs, log: &Log, mixed_seeds: u64) -> Found {
    let mut found = Found::default();
    for point in fs.crash_points() {
        let mixed = (0..mixed_seeds).map(|n| 2 + point * mixed_seeds + n);
        for seed in [0, 1].into_iter().chain(mixed) {
            let Err(flaw) = judge_power_loss(fs, log, point, seed) else {
                continue;
            };
            match &flaw {
                Flaw::Lost(_) => found.lost += 1,
                Flaw::Broken(_) => found.broken += 1,
            }
            found.first.get_or_insert((point, seed, flaw));
        }
    }
    found
}

#[test]
fn wal_with_full_keeps_every_acknowledged_commit_at_every_crash_point() {
    assert_eq!(sweep(WAL_FULL, 50, 3), NOTHING);
}

#[test]
fn wal_without_syncs_loses_acknowledged_commits_and_breaks() {
    let found = sweep(Mode { journal: "wal", synchronous: "off" }, 20, 2);
    assert!(found.lost > 0 && found.broken > 0, "{found:?}");
}

#[test]
fn wal_with_normal_loses_acknowledged_commits_but_never_breaks() {
    let found = sweep(Mode { journal: "wal", synchronous: "normal" }, 20, 2);
    assert!(found.lost > 0, "{found:?}");
    assert_eq!(found.broken, 0, "{found:?}");
}

/// SQLite's manual says so of `PRAGMA synchronous`: only EXTRA syncs the directory after the
/// journal's deletion, which is the commit.
#[test]
fn a_rollback_journal_needs_extra_to_keep_every_acknowledged_commit() {
    let mode = |synchronous| Mode { journal: "delete", synchronous };
    let full = sweep(mode("full"), 12, 2);
    assert!(full.lost > 0, "{full:?}");
    assert_eq!(full.broken, 0, "{full:?}");
    assert_eq!(sweep(mode("extra"), 12, 2), NOTHING);
}

#[test]
fn a_page_may_be_torn() {
    let rig = Rig::new();
    let db = rig.connect(Mode { journal: "off", synchronous: "full" }).unwrap();
    let fill = |byte: &str| {
        db.execute(
            "INSERT OR REPLACE INTO t VALUES (1, CAST(replace(hex(zeroblob(1500)), '0', ?) AS BLOB))",
            [byte],
        )
        .unwrap();
    };
    db.execute_batch("CREATE TABLE t(k INTEGER PRIMARY KEY, v)").unwrap();
    fill("o");
    let before = rig.fs.calls();
    fill("n");
    let written = rig.fs.trace().into_iter();
    let page = written.filter(|call| call.number > before && call.op == Op::Write).last().unwrap();

    let torn = (0..50).any(|seed| {
        let image = scratch_dir();
        rig.fs.power_loss_at(page.number, seed, image.path()).unwrap();
        // Without a journal nothing ever syncs the directory: the file may be absent.
        let Ok(bytes) = fs::read(image.path().join("a.db")) else {
            return false;
        };
        let at = usize::try_from(page.offset).unwrap();
        let bytes = &bytes[at..at + page.len];
        bytes.contains(&b'o') && bytes.contains(&b'n')
    });
    assert!(torn);
}

#[test]
fn threads_of_one_process_lose_nothing_with_full() {
    let rig = Rig::new();
    let mut log = Log::default();
    let mut writer = rig.connect(WAL_FULL).unwrap();
    script::create_tables(&writer).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let work = |sql: &'static str| {
            let (rig, stop) = (&rig, &stop);
            scope.spawn(move || {
                let db = rig.connect(WAL_FULL).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    // A checkpoint may find the database busy.
                    drop(db.query_row(sql, [], |_| Ok(())));
                }
            });
        };
        work("PRAGMA wal_checkpoint(RESTART)");
        work("SELECT sum(length(v)) FROM kv");
        work("SELECT count(*) FROM twin");
        for key in 1..=60 {
            log.put(&rig.fs, &mut writer, key);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(log.acknowledged.len() > 30);
    let points = rig.fs.crash_points();
    let step = points.len() / 100 + 1;
    for (n, point) in points.into_iter().step_by(step).enumerate() {
        for seed in [0, 2 + n as u64] {
            rig.judge(&log, point, seed).unwrap();
        }
    }
}

#[test]
fn a_process_crash_keeps_what_was_written_and_a_power_loss_after_it_may_not() {
    let normal = Mode { journal: "wal", synchronous: "normal" };
    let rig = Rig::new();
    let mut log = Log::default();
    let mut program = Program::start(&rig, normal).unwrap();
    program.run(&rig.fs, &mut log, 9);
    let dir = scratch_dir();
    let restarted = rig.fs.process_crash(&unique_name(), dir.path()).unwrap();

    log.carry_over();
    judge_power_loss(&restarted, &log, 0, 1).unwrap();
    assert!(matches!(judge_power_loss(&restarted, &log, 0, 0), Err(Flaw::Lost(_))));
}

/// A commit whose sync failed is in the page cache, not on the disk. A restarted process reads
/// it from there, takes it for committed, and a checkpoint copies it to the database without
/// the WAL that could finish the copy.
#[test]
fn a_process_crash_after_a_failed_sync_may_break_the_database() {
    let found = restart_after_failed_sync(|_program| {});
    assert!(found.broken > 0, "{found:?}");
}

#[test]
fn a_full_checkpoint_after_a_failed_sync_makes_a_process_crash_safe() {
    let found = restart_after_failed_sync(|program| {
        assert!(program.checkpoint("TRUNCATE").unwrap());
    });
    assert_eq!(found, NOTHING);
}

/// What the next process reads from memory is on the disk once it has written it again and a
/// sync has succeeded: here the checkpoint's, of the WAL, before it writes to the database.
#[test]
fn a_wal_written_again_before_it_is_opened_makes_a_process_crash_safe() {
    let rewrite = |restarted: &FaultFs| {
        let wal = restarted.dir().join("a.db-wal");
        let file = fs::File::options().write(true).open(&wal).unwrap();
        file.write_all_at(&fs::read(&wal).unwrap(), 0).unwrap();
    };
    assert_eq!(restart_after_failed_sync_and(|_program| {}, rewrite), NOTHING);
}

fn restart_after_failed_sync(then: impl FnOnce(&Program)) -> Found {
    restart_after_failed_sync_and(then, |_restarted| {})
}

/// A commit fails in its sync, `then` is done about it, the process crashes, another one takes
/// over, does `first`, goes on, and then the power goes.
fn restart_after_failed_sync_and(
    then: impl FnOnce(&Program),
    first: impl FnOnce(&FaultFs),
) -> Found {
    let rig = Rig::new();
    let mut log = Log::default();
    let mut program = Program::start(&rig, WAL_FULL).unwrap();
    program.run(&rig.fs, &mut log, 30);
    // The WAL holds no older versions of the pages that would hide the damage.
    assert!(program.checkpoint("TRUNCATE").unwrap());
    let other_page = "PRAGMA user_version = 1";
    program.writer.execute_batch(other_page).unwrap();
    rig.fs.fail_when(|call| call.op == Op::Sync, StoreError::Io, Repeat::Once);
    log.put(&rig.fs, &mut program.writer, 31);
    assert_eq!(log.acknowledged.len(), 30);
    then(&program);

    let dir = scratch_dir();
    let restarted = rig.fs.process_crash(&unique_name(), dir.path()).unwrap();
    log.carry_over();
    first(&restarted);
    let mut db = connect(&restarted, WAL_FULL).unwrap();
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    log.put(&restarted, &mut db, 32);
    sweep_points(&restarted, &log, 10)
}

#[test]
fn an_image_keeps_other_files_and_leaves_out_shared_memory() {
    let rig = Rig::new();
    fs::create_dir(rig.fs.dir().join("sub")).unwrap();
    fs::write(rig.fs.dir().join("sub/note"), "x").unwrap();
    let mut log = Log::default();
    let mut program = Program::start(&rig, WAL_FULL).unwrap();
    log.put(&rig.fs, &mut program.writer, 1);
    assert!(rig.fs.dir().join("a.db-shm").exists());

    let image = scratch_dir();
    rig.fs.power_loss(0, image.path()).unwrap();
    assert_eq!(fs::read(image.path().join("sub/note")).unwrap(), b"x");
    assert!(image.path().join("a.db-wal").exists());
    assert!(!image.path().join("a.db-shm").exists());
}

#[test]
fn with_everything_kept_the_image_is_the_live_directory() {
    let rig = Rig::new();
    let mut log = Log::default();
    let mut program = Program::start(&rig, WAL_FULL).unwrap();
    program.run(&rig.fs, &mut log, 25);
    let image = scratch_dir();
    rig.fs.power_loss(1, image.path()).unwrap();
    for file in ["a.db", "a.db-wal"] {
        let [live, image] = [rig.fs.dir(), image.path()].map(|dir| fs::read(dir.join(file)));
        assert!(live.unwrap() == image.unwrap(), "{file}");
    }
}

#[test]
fn a_file_changed_behind_the_vfs_is_noticed() {
    let rig = Rig::new();
    let mut log = Log::default();
    let mut program = Program::start(&rig, WAL_FULL).unwrap();
    log.put(&rig.fs, &mut program.writer, 1);
    fs::write(rig.fs.dir().join("a.db"), "x").unwrap();
    let image = scratch_dir();
    assert!(rig.fs.power_loss(0, image.path()).is_err());
}

#[test]
fn a_database_that_was_there_before_is_durable() {
    let dir = scratch_dir();
    let path = dir.path().join("a.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    script::create_tables(&db).unwrap();
    drop(db);
    let fs = FaultFs::new(&unique_name(), dir.path()).unwrap();
    let db = connect(&fs, WAL_FULL).unwrap();
    let image = scratch_dir();
    fs.power_loss_at(0, 0, image.path()).unwrap();
    drop(db);
    let db = rusqlite::Connection::open(image.path().join("a.db")).unwrap();
    db.query_row("SELECT count(*) FROM kv", [], |_| Ok(())).unwrap();
}

#[test]
fn forgotten_crash_points_are_refused_and_later_ones_are_right() {
    let rig = Rig::new();
    let mut log = Log::default();
    let mut program = Program::start(&rig, WAL_FULL).unwrap();
    program.run(&rig.fs, &mut log, 5);
    let early = rig.fs.calls() - 1;
    rig.fs.forget_history();
    program.writer.execute_batch("PRAGMA user_version = 1").unwrap();
    let image = scratch_dir();
    assert!(rig.fs.power_loss_at(early, 0, image.path()).is_err());
    assert_eq!(sweep_points(&rig.fs, &log, 4), NOTHING);
}
