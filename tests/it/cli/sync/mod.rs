//! Two nodes whose replicas are asked about, waited for, compared and mended, from the command line.
//! That rows travel at all, and in every weather, is tested elsewhere.

mod damage;

use std::process::Output;
use std::time::Duration;

use cortex_core::{
    model::{ActorId, Hlc, Stamp, TableUid},
    replication::TableDigest,
};
use daemon::{Daemon, time_of, wait_until};
use mesh::{Authority, free_port, is_connected};
use rmpv::Value;
use rpc::{field, list, map};
use rusqlite::{Connection, params};

use crate::support::{daemon, mesh, rpc};

/// The table of root on home, as it is called there and on the other node.
const HERE: &str = "t";
const THERE: &str = "0@home:t";

/// Two daemons with a table that both hold.
struct Pair {
    _ca: Authority,
    home: Daemon,
    office: Daemon,
}

impl Pair {
    fn start() -> Self {
        let ca = Authority::new();
        ca.issue("home");
        ca.issue("office");
        let ports = [free_port(), free_port()];
        let nodes = [("home", ports[0]), ("office", ports[1])];
        let home = Daemon::with_config(&ca.settings("home", ports[0], &nodes));
        let office = Daemon::with_config(&ca.settings("office", ports[1], &nodes));
        let pair = Self { _ca: ca, home, office };
        pair.wait_for_link();
        let params = [HERE.into(), list(["id".into(), "v".into()]), "all".into()];
        call(&pair.home, "create_table", &params).expect("created");
        // Root of office is nobody to the table of a uid of home, as everybody else is.
        let everybody = ["*".into(), HERE.into(), "read,write,admin".into()];
        call(&pair.home, "acl_grant", &everybody).expect("granted");
        for id in 0..20 {
            put(&pair.home, HERE, id, "first");
        }
        wait_until("office is known as a member", || {
            nodes_of(&pair.home).iter().any(|node| text(node, "node") == "office")
        });
        pair.wait_until_equal();
        pair
    }

    fn wait_for_link(&self) {
        wait_until("both see each other", || {
            is_connected(&self.home, "office") && is_connected(&self.office, "home")
        });
    }

    fn wait_until_equal(&self) {
        wait_until("both hold the same", || {
            run(&self.home, &["sync", "wait", HERE, "--timeout", "5"]).status.success()
        });
    }
}

fn call(daemon: &Daemon, method: &str, params: &[Value]) -> Result<Value, String> {
    daemon.connect().call(method, params)
}

fn put(daemon: &Daemon, table: &str, id: u64, value: &str) {
    let record = map([("id", id.into()), ("v", value.into())]);
    call(daemon, "put", &[table.into(), record]).expect("stored");
}

fn value_of(daemon: &Daemon, table: &str, id: u64) -> String {
    let record = call(daemon, "get", &[table.into(), id.into()]).expect("a record");
    text(&record, "v").to_owned()
}

fn run(daemon: &Daemon, arguments: &[&str]) -> Output {
    daemon.cortex(arguments)
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    field(value, name).and_then(Value::as_str).unwrap_or_else(|| panic!("{name} in {value}"))
}

fn nodes_of(daemon: &Daemon) -> Vec<Value> {
    let status = call(daemon, "sync_status_table", &[HERE.into()]).expect("the state of replicas");
    field(&status, "nodes").and_then(Value::as_array).expect("an array").clone()
}

/// How home sees the replica of office.
fn office(pair: &Pair) -> Value {
    let nodes = nodes_of(&pair.home);
    nodes.into_iter().find(|node| text(node, "node") == "office").expect("office")
}

/// holds R5
#[test]
fn a_replica_is_in_sync_until_its_node_is_gone_and_behind_once_something_was_written() {
    let mut pair = Pair::start();
    wait_until("the replicas are found equal", || text(&office(&pair), "state") == "in_sync");
    assert!(field(&office(&pair), "verified_ms").is_some_and(Value::is_u64));
    let explained = run(&pair.home, &["explain", HERE, "7", "--node", "office"]);
    assert!(printed(&explained).contains("7 is on office"), "{}", printed(&explained));

    pair.office.stop();
    wait_until("the link is gone", || !is_connected(&pair.home, "office"));
    assert_eq!(text(&office(&pair), "state"), "unknown");
    assert!(text(&office(&pair), "why").starts_with("unreachable"), "{}", office(&pair));
    put(&pair.home, HERE, 7, "second");
    assert_eq!(text(&office(&pair), "state"), "behind");
    let waited = run(&pair.home, &["sync", "wait", HERE, "--node", "office", "--timeout", "1"]);
    assert_eq!(waited.status.code(), Some(3));
    assert!(complaint(&waited).contains("timeout: not confirmed by office"), "{waited:?}");
    let explained = run(&pair.home, &["explain", HERE, "7", "--node", "office"]);
    assert!(printed(&explained).contains("7 has not reached office"), "{}", printed(&explained));

    pair.office.restart();
    pair.wait_until_equal();
    assert_eq!(value_of(&pair.office, THERE, 7), "second");
    wait_until("it has said what it has", || {
        let scope = run(&pair.home, &["scope", HERE]);
        printed(&scope).contains("\"node\":\"office\",\"state\":\"in_sync\"")
    });
}

/// holds R5: what was found before the daemon started is not believed, it is found anew.
#[test]
fn replicas_are_found_equal_again_as_soon_as_a_daemon_that_was_restarted_has_its_link() {
    let mut pair = Pair::start();
    pair.home.stop();
    pair.office.stop();
    pair.home.restart();
    assert_eq!(text(&office(&pair), "state"), "unknown");
    assert_eq!(field(&office(&pair), "verified_ms"), Some(&Value::Nil));
    let shown = printed(&run(&pair.home, &["sync", "status", HERE, "--pretty"]));
    assert!(shown.contains("not found equal since this daemon started"), "{shown}");

    let restarted_ms = cortexd::sys::clock::wall_ms();
    pair.office.restart();
    pair.wait_for_link();
    let (verified, took) = time_of(|| {
        wait_until("they are found equal", || text(&office(&pair), "state") == "in_sync");
        field(&office(&pair), "verified_ms").and_then(Value::as_u64).expect("a time")
    });
    assert!(verified >= restarted_ms, "{verified} is later than {restarted_ms}");
    assert!(took < Duration::from_secs(3), "{took:?}, without a row that would travel");
}

/// holds R4
#[test]
fn a_version_that_has_lost_is_listed_and_restored() {
    let mut pair = Pair::start();
    pair.office.stop();
    put(&pair.home, HERE, 3, "of home");
    pair.home.stop();
    pair.office.restart();
    put(&pair.office, THERE, 3, "of office");
    pair.home.restart();
    pair.wait_for_link();
    pair.wait_until_equal();
    assert_eq!(value_of(&pair.home, HERE, 3), "of office", "it was written later");

    let conflicts_at = |daemon: &Daemon, table: &str| {
        let listed = call(daemon, "conflicts", &[table.into()]).expect("a list");
        listed.as_array().expect("an array").clone()
    };
    let (at_home, at_office) = (conflicts_at(&pair.home, HERE), conflicts_at(&pair.office, THERE));
    let (daemon, table, found) = match at_home.first() {
        Some(found) => (&pair.home, HERE, found),
        None => (&pair.office, THERE, at_office.first().expect("one of the two has met both")),
    };
    assert_eq!(text(found, "key"), "3");
    let id = field(found, "id").and_then(Value::as_u64).expect("a number").to_string();
    let shown = printed(&run(daemon, &["conflicts", "show", table, &id]));
    assert!(
        shown.contains("\"v\":\"of home\"") && shown.contains("\"v\":\"of office\""),
        "{shown}"
    );
    let status = call(daemon, "status", &[]).expect("status");
    assert!(field(&status, "conflicts").and_then(Value::as_u64) > Some(0), "{status}");

    let (other, name, its_table) =
        if table == HERE { (&pair.office, "home", THERE) } else { (&pair.home, "office", HERE) };
    let told = format!("conflicts that {name} has met are seen there: cortex conflicts");
    wait_until("the other node says where it is", || {
        printed(&run(other, &["sync", "status", its_table, "--pretty"])).contains(&told)
    });
    assert!(complaint(&run(other, &["conflicts", its_table])).contains(&told));
    let counted = printed(&run(other, &["conflicts"]));
    assert!(counted.contains(&format!("{{\"node\":\"{name}\",\"conflicts\":1}}")), "{counted}");
    let explained = printed(&run(other, &["explain", its_table]));
    assert!(explained.contains(&format!("taken note, on {name}")), "{explained}");
    let doctor = printed(&run(other, &["doctor"]));
    assert!(doctor.contains(&format!("have lost against others on {name}")), "{doctor}");

    let restored = run(daemon, &["conflicts", "restore", table, &id]);
    assert_eq!(printed(&restored), "\"restored\"\n", "{restored:?}");
    pair.wait_until_equal();
    assert_eq!(value_of(&pair.home, HERE, 3), "of home");
    assert_eq!(value_of(&pair.office, THERE, 3), "of home");
    assert!(conflicts_at(daemon, table).iter().all(|conflict| {
        field(conflict, "id").and_then(Value::as_u64).map(|n| n.to_string()) != Some(id.clone())
            || field(conflict, "acknowledged") == Some(&true.into())
    }));
}

/// Has a replica be one whose first transfer was cut off in the middle.
fn break_off(daemon: &mut Daemon) {
    daemon.stop();
    let db = Connection::open(daemon.data_dir().join("cortex.db")).expect("the database");
    for (change, of) in [
        ("UPDATE replicas SET ready = 0 WHERE uid", "uid"),
        ("DELETE FROM cursors WHERE table_id", "id"),
    ] {
        let table = format!("(SELECT {of} FROM tables WHERE name = 't' AND dropped = 0)");
        assert_eq!(db.execute(&format!("{change} = {table}"), []), Ok(1));
    }
    drop(db);
    daemon.restart();
}

/// holds R2: half of a table is worse than none.
#[test]
fn a_replica_that_is_being_filled_answers_no_reads_and_no_writes_until_it_is_whole() {
    const NOT_READY: &str = "table_not_ready: its rows are still on their way to this machine";
    let mut pair = Pair::start();
    pair.home.stop();
    break_off(&mut pair.office);
    let record = map([("id", 5.into())]);
    for (method, params) in [
        ("get", vec![THERE.into(), 5.into()]),
        ("all", vec![THERE.into()]),
        ("keys", vec![THERE.into()]),
        ("match", vec![THERE.into(), record.clone()]),
        ("put", vec![THERE.into(), record]),
        ("delete", vec![THERE.into(), 5.into()]),
    ] {
        assert_eq!(call(&pair.office, method, &params), Err(NOT_READY.into()), "{method}");
    }
    for arguments in
        [&["get", THERE, "5"][..], &["all", THERE], &["keys", THERE], &["export", THERE]]
    {
        let refused = run(&pair.office, arguments);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert_eq!(printed(&refused), "", "not the half of it");
        let told = complaint(&refused);
        let hint = format!("hint: To wait for it: cortex sync wait {THERE}");
        assert!(told.starts_with(&format!("error: {NOT_READY}\n{hint}")), "{told}");
    }
    let status = call(&pair.office, "sync_status_table", &[THERE.into()]).expect("a state");
    assert_eq!(text(field(&status, "here").expect("a replica"), "state"), "filling");
    let shown = printed(&run(&pair.office, &["sync", "status", THERE, "--pretty"]));
    assert!(shown.contains("filling here"), "{shown}");
    let explained = printed(&run(&pair.office, &["explain", THERE, "5"]));
    assert!(explained.contains("do not all come through to this node"), "{explained}");
    assert!(
        explained.contains("on home: systemctl start cortexd"),
        "to wait is of no use: {explained}"
    );
    let listed = printed(&run(&pair.office, &["tables", "--long", "--all"]));
    assert!(listed.contains("\"state\":\"filling\""), "{listed}");

    pair.home.restart();
    let waited = run(&pair.office, &["sync", "wait", THERE]);
    assert!(waited.status.success(), "{waited:?}");
    assert_eq!(value_of(&pair.office, THERE, 5), "first");
}

/// Takes a row out of a replica behind the daemon's back, as a defect might, so that it claims to have seen it.
fn lose(daemon: &mut Daemon, key: &str) {
    daemon.stop();
    let db = Connection::open(daemon.data_dir().join("cortex.db")).expect("the database");
    let (table, uid): (i64, [u8; 16]) = db
        .query_row("SELECT id, uid FROM tables WHERE name = 't' AND dropped = 0", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .expect("the table");
    let (id, hlc, origin, value): (i64, i64, [u8; 16], Vec<u8>) = db
        .query_row(
            "SELECT r.id, r.hlc, i.uid, r.value FROM records r
             JOIN actors i ON i.number = r.actor WHERE table_id = ?1 AND key = ?2",
            params![table, key.as_bytes()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .expect("the row");
    let actor = ActorId(u128::from_be_bytes(origin));
    let stamp = Stamp { hlc: Hlc::from_i64(hlc), actor };
    let leaf = TableDigest::of_row(TableUid(uid), key.as_bytes(), stamp, &value);
    let digest: [u8; 32] = db
        .query_row("SELECT digest FROM replicas WHERE uid = ?1", [uid], |row| row.get(0))
        .expect("the replica");
    let without = TableDigest::from_bytes(digest).minus(leaf).to_bytes();
    db.execute("UPDATE replicas SET digest = ?2 WHERE uid = ?1", params![uid, without])
        .expect("the digest");
    db.execute("DELETE FROM records WHERE id = ?1", [id]).expect("the row");
    db.execute(
        "UPDATE tables SET records = records - 1, bytes = bytes - ?2 WHERE id = ?1",
        params![table, key.len() + value.len()],
    )
    .expect("the totals");
    drop(db);
    daemon.restart();
}

/// holds R6
#[test]
fn a_repair_finds_a_lost_row_and_brings_it_back() {
    let mut pair = Pair::start();
    let equal = run(&pair.home, &["sync", "repair", HERE]);
    assert!(equal.status.success(), "{equal:?}");
    assert!(printed(&equal).contains("\"buckets_differing\":0"), "{equal:?}");

    lose(&mut pair.office, "5");
    pair.wait_for_link();
    wait_until("it is noticed", || text(&office(&pair), "state") == "diverged");
    let explained = run(&pair.home, &["explain", HERE, "--node", "office"]);
    assert!(printed(&explained).contains("cortex sync repair"), "{}", printed(&explained));
    let doctor = run(&pair.home, &["doctor"]);
    assert!(printed(&doctor).contains("sync repair"), "{}", printed(&doctor));

    let report = run(&pair.home, &["sync", "repair", HERE, "--dry-run"]);
    assert_eq!(report.status.code(), Some(1), "{report:?}");
    let found = "{\"key\":\"5\",\"verdict\":\"only_here\"}";
    assert!(printed(&report).contains(found), "{}", printed(&report));
    assert!(printed(&report).contains("\"kept\":1"), "{}", printed(&report));
    assert_eq!(value_of(&pair.home, HERE, 5), "first", "nothing is deleted by itself");

    let report = run(&pair.home, &["sync", "repair", HERE]);
    assert!(report.status.success(), "{report:?}");
    assert_eq!(value_of(&pair.office, THERE, 5), "first");
    wait_until("it is noticed", || text(&office(&pair), "state") == "in_sync");
}

/// holds R6
#[test]
fn what_only_another_node_has_can_be_taken_from_there_or_deleted_by_an_ordinary_deletion() {
    let mut pair = Pair::start();
    lose(&mut pair.home, "5");
    pair.wait_for_link();
    let report = run(&pair.home, &["sync", "repair", HERE, "--prefer-present"]);
    assert!(report.status.success(), "{report:?}");
    assert!(printed(&report).contains("\"verdict\":\"only_there\""), "{}", printed(&report));
    assert_eq!(value_of(&pair.home, HERE, 5), "first");

    lose(&mut pair.home, "6");
    pair.wait_for_link();
    let report = run(&pair.home, &["sync", "repair", HERE, "--prefer-absent"]);
    assert!(report.status.success(), "{report:?}");
    let gone = call(&pair.office, "get", &[THERE.into(), 6.into()]);
    assert_eq!(gone, Err("not_found".into()));
}

/// holds S3, S4
#[test]
fn a_replica_out_of_the_scope_is_handed_over_and_said_to_have_left() {
    let pair = Pair::start();
    put(&pair.office, THERE, 50, "of office");
    let narrowed = run(&pair.home, &["scope", HERE, "home"]);
    assert_eq!(printed(&narrowed), "\"scope updated\"\n", "{narrowed:?}");
    let state_of = |name: &str| {
        let scope = call(&pair.home, "get_scope", &[HERE.into()]).expect("a scope");
        let replicas = field(&scope, "replicas").and_then(Value::as_array).expect("an array");
        let replica = replicas.iter().find(|replica| text(replica, "node") == name);
        text(replica.expect("a replica"), "state").to_owned()
    };
    wait_until("it has left", || state_of("office") == "left");
    assert_eq!(state_of("home"), "ready");
    assert_eq!(value_of(&pair.home, HERE, 50), "of office", "what only office had");
    let denied = call(&pair.office, "get", &[THERE.into(), 50.into()]).expect_err("it is gone");
    assert!(denied == "access_denied" || denied.starts_with("not_here"), "{denied}");
    let explained = run(&pair.home, &["explain", HERE, "--node", "office"]);
    let expected = "\"do\":\"cortex scope 0:t home,office\"";
    assert!(printed(&explained).contains(expected), "{}", printed(&explained));
}

/// holds S4
#[test]
fn competing_decisions_freeze_a_replica_and_everybody_is_told_what_to_do() {
    let mut pair = Pair::start();
    pair.office.stop();
    assert!(run(&pair.home, &["scope", HERE, "home"]).status.success());
    pair.home.stop();
    pair.office.restart();
    assert!(run(&pair.office, &["scope", THERE, "home,office"]).status.success());
    pair.home.restart();
    pair.wait_for_link();
    let frozen = |daemon: &Daemon, table: &str| {
        let status = call(daemon, "sync_status_table", &[table.into()]).expect("a state");
        text(field(&status, "here").expect("a replica"), "state") == "frozen"
    };
    wait_until("office is frozen", || frozen(&pair.office, THERE));
    let all = map([("all", true.into()), ("details", true.into())]);
    let listed = call(&pair.office, "tables", &[all]).expect("the tables");
    let states: Vec<_> = listed.as_array().expect("an array").iter().collect();
    assert_eq!((text(states[0], "table"), text(states[0], "state")), (THERE, "frozen"), "{listed}");
    let record = map([("id", 1.into())]);
    let refused = call(&pair.office, "put", &[THERE.into(), record]).expect_err("it is frozen");
    assert!(refused.starts_with("scope_contested"), "{refused}");
    let explained = printed(&run(&pair.office, &["explain", THERE]));
    assert!(explained.contains("is frozen here"), "{explained}");
    assert!(explained.contains("\"do\":\"cortex scope 0@home:t SCOPE\""), "{explained}");
    let doctor = printed(&run(&pair.office, &["doctor"]));
    assert!(doctor.contains("decisions about the scope of 0@home:t compete"), "{doctor}");

    assert!(run(&pair.home, &["scope", HERE, "all"]).status.success());
    pair.wait_until_equal();
    assert!(!frozen(&pair.office, THERE));
}

#[test]
fn a_node_that_is_removed_is_waited_for_no_more() {
    let mut pair = Pair::start();
    pair.office.stop();
    let removed = run(&pair.home, &["mesh", "remove-node", "office"]);
    assert!(removed.status.success(), "{removed:?}");
    let told = complaint(&removed);
    assert!(told.contains("cortex mesh revoke-certificate office"), "{told}");
    assert!(nodes_of(&pair.home).iter().all(|node| text(node, "state") == "left"));
    assert!(run(&pair.home, &["sync", "wait", HERE]).status.success());
    let explained = run(&pair.home, &["explain", HERE, "--node", "office"]);
    assert!(printed(&explained).contains("removed from the mesh"), "{}", printed(&explained));
}

/// holds I5
#[test]
fn a_name_that_both_have_registered_is_resolved_to_one_and_the_other_stays_who_they_are() {
    let mut pair = Pair::start();
    let register = |daemon: &Daemon, uid: &str| {
        let output = run(daemon, &["identity", "register", "carol", "--uid", uid]);
        assert!(output.status.success(), "{output:?}");
        let token: serde_json::Value = serde_json::from_str(&printed(&output)).expect("JSON");
        token["fid"].as_str().expect("an id").to_owned()
    };
    pair.office.stop();
    let kept = register(&pair.home, "4001");
    pair.home.stop();
    pair.office.restart();
    let other = register(&pair.office, "4002");
    pair.home.restart();
    pair.wait_for_link();
    let listed = |daemon: &Daemon| printed(&run(daemon, &["identity", "list"]));
    wait_until("both know of both", || {
        [&pair.home, &pair.office].iter().all(|daemon| {
            let listed = listed(daemon);
            listed.contains(&kept) && listed.contains(&other)
        })
    });
    let contested = run(&pair.office, &["identity", "lookup", "carol"]);
    assert!(complaint(&contested).contains("identity_contested"), "{contested:?}");
    let doctor = printed(&run(&pair.office, &["doctor"]));
    let mend = format!("cortex identity resolve carol --keep {kept}");
    assert!(doctor.contains(&mend), "{doctor}");

    let resolved = run(&pair.office, &["identity", "resolve", "carol", "--keep", &kept[..8]]);
    assert_eq!(printed(&resolved), "\"resolved\"\n", "{resolved:?}");
    wait_until("home has heard of it", || {
        printed(&run(&pair.home, &["identity", "lookup", "carol"])).contains(&kept)
    });
    let digits = format!("carol~{}", &other[..4]);
    assert!(listed(&pair.home).contains(&digits), "{}", listed(&pair.home));
}
