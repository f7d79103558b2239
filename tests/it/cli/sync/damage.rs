//! What a disk, a stray program or an operator has changed below the daemon: found, named, never passed on, and
//! mended from another replica. Databases are edited by hand here.

use nix::sys::signal::Signal;

use super::*;
use crate::cli::sync::daemon::{cortexd, output_of};

/// Changes a database by hand while its daemon is stopped, and starts it again.
fn edit(daemon: &mut Daemon, change: impl FnOnce(&Connection)) {
    daemon.stop();
    by_hand(daemon, change);
    daemon.restart();
}

/// The same, whether or not it runs.
fn by_hand(daemon: &Daemon, change: impl FnOnce(&Connection)) {
    let db = Connection::open(daemon.data_dir().join("cortex.db")).expect("the database");
    change(&db);
}

/// The rows of a key in tables called `t`.
const ROW: &str =
    "key = ?1 AND table_id IN (SELECT id FROM tables WHERE name = 't' AND dropped = 0)";

fn changed(db: &Connection, change: &str, key: &str) {
    let changed = db.execute(&format!("{change} WHERE {ROW}"), [key.as_bytes()]);
    assert_eq!(changed, Ok(1), "{change}");
}

/// Another letter in the text of the record.
fn flip(db: &Connection, key: &str) {
    changed(
        db,
        "UPDATE records SET value = CAST(replace(CAST(value AS TEXT), 'first', 'fIrst') AS BLOB)",
        key,
    );
}

fn delete_row(db: &Connection, key: &str) {
    changed(db, "DELETE FROM records", key);
}

fn events(daemon: &Daemon, kind: &str) -> Vec<String> {
    let listed = call(daemon, "events", &[]).expect("the events");
    let listed = listed.as_array().expect("an array").iter();
    let of_kind = listed.filter(|event| text(event, "kind") == kind);
    of_kind.map(|event| text(event, "text").to_owned()).collect()
}

fn scrub(daemon: &Daemon, figure: &str) -> u64 {
    let status = call(daemon, "status", &[]).expect("status");
    field(field(&status, "scrub").expect("the scrub"), figure).and_then(Value::as_u64).unwrap_or(0)
}

fn wait_for_scrub(daemon: &Daemon) {
    wait_until("all rows were read", || scrub(daemon, "ended_ms") > 0);
}

fn in_sync(pair: &Pair) {
    wait_until("both are in sync", || text(&office(pair), "state") == "in_sync");
}

fn rows_of(daemon: &Daemon, table: &str) -> Value {
    call(daemon, "all", &[table.into()]).expect("the rows")
}

/// Repairs, and demands that it says so and that it is so.
fn repair(pair: &Pair, more: &[&str]) -> String {
    let report = run(&pair.home, &[&["sync", "repair", HERE], more].concat());
    assert!(report.status.success(), "{report:?}");
    assert!(printed(&report).contains("\"verified\":true"), "{report:?}");
    assert_eq!(rows_of(&pair.home, HERE), rows_of(&pair.office, THERE));
    in_sync(pair);
    printed(&report)
}

/// holds R5
#[test]
fn a_flipped_byte_is_found_and_named_and_not_read_until_the_row_is_stored_again() {
    let mut daemon = Daemon::start();
    let params = [HERE.into(), list(["id".into(), "v".into()])];
    call(&daemon, "create_table", &params).expect("created");
    (0..3).for_each(|id| put(&daemon, HERE, id, "first"));
    edit(&mut daemon, |db| flip(db, "1"));

    wait_until("it is found", || scrub(&daemon, "damaged") == 1);
    let refused = "row_damaged: the row 1 is damaged: its checksum does not match";
    assert_eq!(call(&daemon, "get", &[HERE.into(), 1.into()]), Err(refused.into()));
    for method in ["all", "keys"] {
        assert_eq!(call(&daemon, method, &[HERE.into()]), Err(refused.into()), "{method}");
    }
    assert_eq!(value_of(&daemon, HERE, 2), "first");
    wait_until("it is an event", || !events(&daemon, "row_damaged").is_empty());
    assert_eq!(events(&daemon, "row_damaged").len(), 1, "told once");
    assert!(events(&daemon, "row_damaged")[0].starts_with("row 1 of "));
    let doctor = run(&daemon, &["doctor"]);
    assert!(printed(&doctor).contains("1 row is damaged"), "{}", printed(&doctor));

    put(&daemon, HERE, 1, "second");
    assert_eq!(value_of(&daemon, HERE, 1), "second");
    wait_until("it is gone", || scrub(&daemon, "damaged") == 0);
    wait_until("that is an event", || events(&daemon, "row_replaced").len() == 1);
}

/// holds R5, R6
#[test]
fn a_damaged_row_heals_from_another_replica_by_itself() {
    for change in [
        flip as fn(&Connection, &str),
        |db, key| changed(db, "UPDATE records SET hlc = hlc - 70000", key),
        |db, key| changed(db, "UPDATE records SET hlc = hlc + 1", key),
        |db, key| changed(db, "UPDATE records SET seq = seq + 1", key),
        |db, key| changed(db, "UPDATE records SET value = NULL", key),
    ] {
        let mut pair = Pair::start();
        edit(&mut pair.home, |db| change(db, "5"));
        pair.wait_for_link();
        wait_until("it is replaced", || !events(&pair.home, "row_replaced").is_empty());
        assert!(!events(&pair.home, "row_damaged").is_empty());
        assert_eq!(value_of(&pair.home, HERE, 5), "first");
        assert_eq!(value_of(&pair.office, THERE, 5), "first", "it was not passed on");
        in_sync(&pair);
        repair(&pair, &[]);
    }
}

/// holds R5: what is damaged is not passed on, nor is the other replica said to have it.
#[test]
fn a_damaged_row_never_reaches_another_machine() {
    let mut pair = Pair::start();
    pair.office.stop();
    put(&pair.home, HERE, 50, "first");
    edit(&mut pair.home, |db| flip(db, "50"));
    wait_for_scrub(&pair.home);
    pair.office.restart();
    pair.wait_for_link();
    wait_until("home says why", || {
        field(&office(&pair), "why")
            .and_then(Value::as_str)
            .is_some_and(|why| why.contains("damaged"))
    });
    assert_eq!(call(&pair.office, "get", &[THERE.into(), 50.into()]), Err("not_found".into()));
    let waited = run(&pair.home, &["sync", "wait", HERE, "--timeout", "2"]);
    assert_eq!(waited.status.code(), Some(3), "{waited:?}");
    put(&pair.home, HERE, 50, "second");
    pair.wait_until_equal();
    assert_eq!(value_of(&pair.office, THERE, 50), "second");
}

/// holds R5, R6
#[test]
fn a_row_that_was_deleted_by_hand_is_noticed_by_the_start_and_a_repair_brings_it_back() {
    let mut pair = Pair::start();
    edit(&mut pair.office, |db| delete_row(db, "5"));
    pair.wait_for_link();
    wait_until("what was kept of it is corrected", || {
        !events(&pair.office, "rows_differ").is_empty()
    });
    wait_until("home is told", || text(&office(&pair), "state") == "diverged");
    wait_until("home names the row", || {
        field(&office(&pair), "differs") == Some(&list(["5".into()]))
    });
    let report = repair(&pair, &[]);
    assert!(report.contains("{\"key\":\"5\",\"verdict\":\"only_here\"}"), "{report}");
    assert_eq!(value_of(&pair.office, THERE, 5), "first");
}

/// holds R6
#[test]
fn a_repair_recomputes_before_it_answers_though_the_daemons_run() {
    let pair = Pair::start();
    wait_for_scrub(&pair.home);
    wait_for_scrub(&pair.office);
    by_hand(&pair.home, |db| delete_row(db, "5"));
    by_hand(&pair.office, |db| delete_row(db, "6"));
    let dry = run(&pair.home, &["sync", "repair", HERE, "--dry-run"]);
    assert_eq!(dry.status.code(), Some(1), "{dry:?}");
    assert!(printed(&dry).contains("\"verified\":false"), "{dry:?}");
    let report = repair(&pair, &["--prefer-present"]);
    assert!(report.contains("only_here") && report.contains("only_there"), "{report}");
    assert_eq!(value_of(&pair.home, HERE, 5), "first");
    assert_eq!(value_of(&pair.office, THERE, 6), "first");
}

/// holds R6
#[test]
fn rows_that_both_sides_have_and_that_differ_are_mended_by_the_merge_rule() {
    let pair = Pair::start();
    by_hand(&pair.home, |db| flip(db, "5"));
    by_hand(&pair.office, |db| {
        // As a defect would leave it: sound by its checksum, which is not there.
        changed(
            db,
            "UPDATE records SET value = CAST(replace(CAST(value AS TEXT), 'first', 'fOrst') AS BLOB), checksum = NULL",
            "6",
        );
        db.execute("UPDATE tables SET checksummed = 0", []).expect("a schema of before");
    });
    repair(&pair, &[]);
    assert_eq!(value_of(&pair.home, HERE, 5), "first");
    assert_eq!(
        value_of(&pair.home, HERE, 6),
        "first",
        "of two contents the greater, as everywhere"
    );
    assert_eq!(value_of(&pair.office, THERE, 6), "first");
}

/// holds R6
#[test]
fn what_is_lost_on_both_sides_is_equal_and_said_so() {
    let mut pair = Pair::start();
    edit(&mut pair.home, |db| delete_row(db, "5"));
    edit(&mut pair.office, |db| delete_row(db, "5"));
    pair.wait_for_link();
    repair(&pair, &[]);
    assert!(!events(&pair.home, "rows_differ").is_empty());
    let gone = call(&pair.home, "get", &[HERE.into(), 5.into()]);
    assert_eq!(gone, Err("not_found".into()));
}

/// holds R6
#[test]
fn a_row_that_nobody_wrote_is_damaged() {
    let mut pair = Pair::start();
    edit(&mut pair.home, |db| {
        db.execute(
            &format!(
                "INSERT INTO records (table_id, key, value, hlc, actor, seq, lsn)
                 SELECT table_id, CAST('77' AS BLOB), value, hlc, actor, seq, lsn FROM records WHERE {ROW}"
            ),
            [b"5".as_slice()],
        )
        .expect("a row");
    });
    wait_until("it is found", || !events(&pair.home, "row_damaged").is_empty());
    assert!(events(&pair.home, "row_damaged")[0].starts_with("row 77 of "));
    pair.wait_for_link();
    let unknown = call(&pair.office, "get", &[THERE.into(), 77.into()]);
    assert_eq!(unknown, Err("not_found".into()));
    call(&pair.home, "delete", &[HERE.into(), 77.into()]).expect("deleted");
    pair.wait_until_equal();
    repair(&pair, &[]);
}

/// holds D1: nobody reads, writes or corrects anything, and nothing is committed.
#[test]
fn an_idle_daemon_commits_nothing() {
    let pair = Pair::start();
    wait_for_scrub(&pair.home);
    in_sync(&pair);
    let commits = || {
        let status = call(&pair.home, "status", &[]).expect("status");
        field(&status, "commits").and_then(Value::as_u64).expect("a number")
    };
    let mut before = commits();
    wait_until("nothing is left to do", || {
        std::thread::sleep(Duration::from_secs(7)); // longer than upkeep rests
        std::mem::replace(&mut before, commits()) == before
    });
}

/// holds R5
#[test]
fn a_deep_look_reads_every_row_now_and_a_backup_refuses_what_is_damaged() {
    let daemon = Daemon::start();
    let params = [HERE.into(), list(["id".into(), "v".into()])];
    call(&daemon, "create_table", &params).expect("created");
    (0..3).for_each(|id| put(&daemon, HERE, id, "first"));
    wait_for_scrub(&daemon);
    let backup = daemon.directory().join("copy.db").display().to_string();
    let made = run(&daemon, &["backup", &backup]);
    assert!(made.status.success(), "{made:?}");
    let well = printed(&run(&daemon, &["doctor", "--deep"]));
    assert!(well.contains("all 3 records are what was stored"), "{well}");

    by_hand(&daemon, |db| flip(db, "1"));
    let deep = printed(&run(&daemon, &["doctor", "--deep"]));
    assert!(deep.contains("1 row is damaged"), "{deep}");
    let refused = run(&daemon, &["backup", &format!("{backup}.2")]);
    assert!(complaint(&refused).contains("row_damaged: the row 1 of "), "{refused:?}");

    let copy = Connection::open(&backup).expect("the copy");
    flip(&copy, "2");
    drop(copy);
    let elsewhere = daemon.directory().join("elsewhere");
    let restored = output_of(cortexd().args([
        "--data-dir",
        &elsewhere.display().to_string(),
        "restore",
        &backup,
    ]));
    assert!(!restored.status.success(), "{restored:?}");
    assert!(complaint(&restored).contains("the row 2 of 0:t is damaged"), "{restored:?}");
    assert!(!elsewhere.join("cortex.db").exists(), "nothing is put in place");
}

/// holds R5
#[test]
fn a_machine_that_is_paused_is_not_said_to_be_in_sync_and_confirms_nothing() {
    let pair = Pair::start();
    in_sync(&pair);
    pair.office.process().signal(Signal::SIGSTOP);
    wait_until("home does not hear it", || {
        let office = office(&pair);
        text(&office, "state") == "unknown" && text(&office, "why").starts_with("no heartbeat for")
    });
    let waited = run(&pair.home, &["sync", "wait", HERE, "--timeout", "2"]);
    assert_eq!(waited.status.code(), Some(3), "{waited:?}");
    assert!(complaint(&waited).contains("not confirmed by office"), "{waited:?}");
    pair.office.process().signal(Signal::SIGCONT);
    in_sync(&pair);
    pair.wait_until_equal();
}
