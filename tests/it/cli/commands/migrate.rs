//! `cortex migrate` from daemons of the original kind, and from one of ours, into real daemons.
//! Leaves everybody's tables, for which it takes root, to `root_uids`.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rmpv::Value;

use crate::cli::commands::daemon::Daemon;
use crate::cli::commands::fake_daemon::{FakeDaemon, Reaction, Request};
use crate::cli::commands::rpc::{Rpc, field, list, map};
use crate::cli::commands::tool::{check_exit, cortex_at, run, stderr};

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A table of a daemon of the original kind.
#[derive(Clone)]
struct Table {
    name: &'static str,
    attributes: Vec<&'static str>,
    records: Vec<Value>,
}

fn users(records: Vec<Value>) -> Table {
    Table { name: "users", attributes: vec!["id", "name"], records }
}

/// The key as the original daemon makes it: a fraction keeps its `.0`.
fn key(record: &Value, field_name: &str) -> String {
    let value = field(record, field_name).expect("a key");
    match (value.as_str(), value) {
        (Some(text), _) => text.to_owned(),
        (None, Value::F64(number)) => format!("{number:?}"),
        (None, other) => other.to_string(),
    }
}

/// A daemon of the original kind: no pages, lists in no order, rows of owners among the grants. An early one
/// does not describe its tables.
fn original(
    tables: Vec<Table>,
    grants: Vec<(&'static str, &'static str, Value)>,
    is_early: bool,
) -> FakeDaemon {
    FakeDaemon::start(move |request| answer(request, &tables, &grants, is_early))
}

fn answer(
    request: &Request,
    tables: &[Table],
    grants: &[(&'static str, &'static str, Value)],
    is_early: bool,
) -> Reaction {
    let named = request.params.first().and_then(Value::as_str).unwrap_or_default();
    let table = tables.iter().find(|table| table.name == named);
    let of = |answer: fn(&Table) -> Value| {
        table.map_or(Reaction::Error("access_denied"), |t| Reaction::Result(answer(t)))
    };
    match (request.method.as_str(), request.params.len()) {
        ("tables", 0) => {
            Reaction::Result(Value::Array(tables.iter().map(|t| t.name.into()).collect()))
        }
        ("table_info", 1) if is_early => Reaction::Error("unknown method: table_info"),
        ("table_info", 1) => of(|table| {
            let attributes = table.attributes.iter().map(|&name| name.into()).collect();
            map([
                ("attributes", Value::Array(attributes)),
                ("key_field", table.attributes[0].into()),
                ("node_scope", "local".into()),
                ("owner", own_uid().into()),
                ("table", table.name.into()),
            ])
        }),
        ("all", 1) => of(|table| Value::Array(table.records.iter().rev().cloned().collect())),
        ("keys", 1) => of(|table| {
            Value::Array(table.records.iter().map(|r| key(r, table.attributes[0]).into()).collect())
        }),
        ("get", 2) => {
            let wanted = request.params[1].as_str().unwrap_or_default();
            let found = table.and_then(|table| {
                table.records.iter().find(|record| key(record, table.attributes[0]) == wanted)
            });
            found.map_or(Reaction::Error("not_found"), |record| Reaction::Result(record.clone()))
        }
        ("acl_list", 0) => {
            let full = |table: &str| format!("{}:{table}", own_uid());
            let row = |identity: String, table: &str, permissions: Value| {
                map([
                    ("identity", identity.into()),
                    ("permissions", permissions),
                    ("table", full(table).into()),
                ])
            };
            let all = || list(["read".into(), "write".into(), "admin".into()]);
            let own = tables.iter().map(|t| row(format!("uid:{}", own_uid()), t.name, all()));
            let others =
                grants.iter().map(|(who, table, rights)| row((*who).into(), table, rights.clone()));
            Reaction::Result(Value::Array(others.chain(own).collect()))
        }
        _ => Reaction::Error("invalid params"),
    }
}

fn migrate(from: &Path, to: &Daemon, arguments: &[&str]) -> Output {
    let mut command = cortex_at(&to.socket());
    command.arg("migrate").arg("--from").arg(from);
    command.args(["--uid", &own_uid().to_string()]).args(arguments);
    run(&mut command)
}

/// The summary, and of it some counts.
fn counts<const N: usize>(output: &Output, names: [&str; N]) -> [u64; N] {
    let summary: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("one JSON value");
    names.map(|name| summary[name].as_u64().unwrap_or_else(|| panic!("{name} in {summary}")))
}

fn is_equal(output: &Output) -> bool {
    let summary: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("one JSON value");
    summary["equal"] == true
}

fn user(id: impl Into<Value>, name: &str) -> Value {
    map([("id", id.into()), ("name", name.into())])
}

fn all(rpc: &mut Rpc, table: &str) -> Vec<Value> {
    let records = rpc.call("all", &[table.into()]).expect("a list");
    records.as_array().expect("a list").clone()
}

#[test]
fn tables_records_and_grants_are_brought_over_and_found_equal() {
    let rich = map([
        ("id", "k".into()),
        ("none", Value::Nil),
        ("nested", map([("b", list([1.into(), 1.5.into()])), ("a", true.into())])),
    ]);
    let empty = Table { name: "empty", attributes: vec!["key", "value"], records: vec![] };
    let source = original(
        vec![users(vec![user(1, "Ann"), user("b", "Bob"), rich.clone()]), empty],
        vec![
            ("uid:7", "users", list(["write".into(), "read".into()])),
            ("*", "users", list(["read".into()])),
        ],
        false,
    );
    let target = Daemon::start();
    let output = migrate(&source.socket(), &target, &[]);
    check_exit(&output, 0);
    assert!(is_equal(&output));
    assert_eq!(
        counts(&output, ["tables", "records", "copied", "same", "grants_copied"]),
        [2, 3, 3, 3, 2]
    );

    let mut rpc = target.connect();
    assert_eq!(all(&mut rpc, "users"), [user(1, "Ann"), user("b", "Bob"), rich]);
    let info = rpc.call("table_info", &["empty".into()]).expect("it is there");
    assert_eq!(field(&info, "attributes"), Some(&list(["key".into(), "value".into()])));
    let grants = rpc.call("acl_list", &[]).expect("a list");
    let rows = grants.as_array().expect("a list").iter();
    let granted: Vec<_> = rows.map(|row| field(row, "identity").and_then(Value::as_str)).collect();
    let owner = format!("uid:{}", own_uid());
    assert_eq!(granted, [Some(owner.as_str()), Some(&owner), Some("*"), Some("uid:7")]);

    let again = migrate(&source.socket(), &target, &[]);
    check_exit(&again, 0);
    assert_eq!(counts(&again, ["copied", "already_there", "grants_copied"]), [0, 3, 0]);
    // One request per packet is all that such a daemon answers.
    assert!(source.requests().iter().all(|request| request.method != "put"));
}

#[test]
fn a_run_that_was_cut_off_is_taken_up_where_it_ended() {
    const RECORDS: usize = 1000;
    fn half(id: u64, stream: &mut UnixStream) {
        use std::io::Write as _;
        let records: Vec<_> = (0..RECORDS).map(|n| user(n as u64, "Ann")).collect();
        let answer = Value::Array(vec![1.into(), id.into(), Value::Nil, Value::Array(records)]);
        let bytes = crate::cli::commands::rpc::packed(&answer);
        let _ = stream.write_all(&bytes[..bytes.len() / 2]);
        let _ = stream.shutdown(Shutdown::Both);
    }
    let table = users((0..RECORDS).map(|n| user(n as u64, "Ann")).collect());
    let breaks = Arc::new(AtomicBool::new(true));
    let source = {
        let breaks = Arc::clone(&breaks);
        FakeDaemon::start(move |request| {
            if request.method == "all" && breaks.load(Ordering::SeqCst) {
                return Reaction::ByHand(half);
            }
            answer(request, std::slice::from_ref(&table), &[], false)
        })
    };
    let target = Daemon::start();
    let cut = migrate(&source.socket(), &target, &[]);
    check_exit(&cut, 1);
    let [copied] = counts(&cut, ["copied"]);
    assert!(copied > 0 && copied < RECORDS as u64, "{copied} copied before it was cut off");
    assert!(!is_equal(&cut));

    breaks.store(false, Ordering::SeqCst);
    let whole = migrate(&source.socket(), &target, &[]);
    check_exit(&whole, 0);
    let records = RECORDS as u64;
    assert_eq!(
        counts(&whole, ["copied", "already_there", "same"]),
        [records - copied, copied, records]
    );
}

#[test]
fn what_was_written_here_since_is_kept_and_listed_until_it_is_to_be_replaced() {
    let source = Daemon::start();
    let mut old = source.connect();
    old.create("t");
    for id in ["a", "b"] {
        old.call("put", &["t".into(), user(id, "old")]).expect("stored");
    }
    old.call("acl_grant", &["uid:7".into(), "t".into(), "read".into()]).expect("granted");
    let target = Daemon::start();
    check_exit(&migrate(&source.socket(), &target, &[]), 0);

    let mut new = target.connect();
    new.call("put", &["t".into(), user("a", "new")]).expect("stored");
    let kept = migrate(&source.socket(), &target, &[]);
    check_exit(&kept, 1);
    assert_eq!(counts(&kept, ["kept", "different", "copied"]), [1, 1, 0]);
    assert!(stderr(&kept).contains("\"a\" differs here"), "{}", stderr(&kept));
    assert!(stderr(&kept).contains("--overwrite"), "{}", stderr(&kept));
    assert_eq!(new.call("get", &["t".into(), "a".into()]), Ok(user("a", "new")));

    new.call("put", &["t".into(), user("c", "new")]).expect("stored");
    new.call("acl_grant", &["uid:8".into(), "t".into(), "read".into()]).expect("granted");
    let replaced = migrate(&source.socket(), &target, &["--overwrite"]);
    check_exit(&replaced, 1);
    assert_eq!(
        counts(&replaced, ["replaced", "different", "only_here", "grants_only_here"]),
        [1, 0, 1, 1]
    );
    for line in ["\"c\" is here alone", "\"uid:8\" may read here alone"] {
        assert!(stderr(&replaced).contains(line), "{}", stderr(&replaced));
    }
    assert_eq!(new.call("get", &["t".into(), "a".into()]), Ok(user("a", "old")));
}

#[test]
fn what_cannot_be_kept_here_is_named_and_left_out_if_the_user_says_so() {
    let deep = (0..70).fold(Value::Nil, |inner, _| list([inner]));
    let records = vec![
        // Two keys, here as there.
        user(1, "whole"),
        user(1.0, "fraction"),
        map([("id", "deep".into()), ("x", deep)]),
        user("k".repeat(5000), "long"),
        user("good", "Ann"),
    ];
    let source = original(
        vec![users(records), Table { name: "z", ..users(vec![user("z", "Zoe")]) }],
        vec![("nobody", "users", list(["read".into()]))],
        false,
    );
    let target = Daemon::start();
    let stopped = migrate(&source.socket(), &target, &[]);
    check_exit(&stopped, 1);
    assert!(stderr(&stopped).contains("--keep-going"), "{}", stderr(&stopped));
    assert_eq!(counts(&stopped, ["tables"]), [1], "it goes no further");

    let target = Daemon::start();
    let output = migrate(&source.socket(), &target, &["--keep-going"]);
    check_exit(&output, 1);
    let said = stderr(&output);
    for line in [
        "\"deep\" cannot be stored: nested in more than 62 levels",
        "cannot be stored: key too long: at most 4096 bytes",
        "the grant to \"nobody\" was refused: invalid_identity",
        ":z: 1 records, 1 copied, 1 same; equal",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(
        counts(&output, ["records", "copied", "not_stored", "kept", "grants_refused"]),
        [6, 4, 2, 0, 1]
    );
    assert_eq!(target.connect().call("get", &["z".into(), "z".into()]), Ok(user("z", "Zoe")));
}

#[test]
fn a_dry_run_changes_nothing_and_tells_what_would_be() {
    let source = original(vec![users(vec![user(1, "Ann")])], vec![], false);
    let target = Daemon::start();
    let output = migrate(&source.socket(), &target, &["--dry-run"]);
    check_exit(&output, 0);
    assert_eq!(counts(&output, ["tables", "copied"]), [1, 1]);
    let mut rpc = target.connect();
    assert_eq!(rpc.call("tables", &[]), Ok(list([])));

    rpc.create("users");
    rpc.call("put", &["users".into(), user(1, "Bob")]).expect("stored");
    let output = migrate(&source.socket(), &target, &["--dry-run"]);
    check_exit(&output, 1);
    assert_eq!(counts(&output, ["kept", "copied"]), [1, 0]);
    assert!(stderr(&output).contains("\"1\" differs here"), "{}", stderr(&output));
}

#[test]
fn an_early_source_does_not_say_which_field_is_the_key_and_its_records_do() {
    let records = vec![
        map([("id", 1.into()), ("same", 1.into()), ("name", "Ann".into())]),
        map([("id", 2.into()), ("same", 1.into()), ("name", "Bob".into())]),
    ];
    let empty = Table { name: "empty", attributes: vec!["k"], records: vec![] };
    let source = original(vec![users(records), empty], vec![], true);
    let target = Daemon::start();
    let output = migrate(&source.socket(), &target, &["--keep-going"]);
    check_exit(&output, 1);
    assert!(stderr(&output).contains("--attributes empty=KEY,..."), "{}", stderr(&output));
    let info = target.connect().call("table_info", &["users".into()]).expect("it is there");
    assert_eq!(field(&info, "key_field"), Some(&"id".into()));

    let output = migrate(&source.socket(), &target, &["--attributes", "empty=k,v"]);
    check_exit(&output, 0);
    let info = target.connect().call("table_info", &["empty".into()]).expect("it is there");
    assert_eq!(field(&info, "attributes"), Some(&list(["k".into(), "v".into()])));
}

#[test]
fn a_table_of_the_same_name_with_another_key_is_not_mixed_with_it() {
    let source = original(vec![users(vec![user(1, "Ann")])], vec![], false);
    let target = Daemon::start();
    let attributes = list(["name".into(), "id".into()]);
    target.connect().call("create_table", &["users".into(), attributes]).expect("created");
    let output = migrate(&source.socket(), &target, &[]);
    check_exit(&output, 1);
    assert!(
        stderr(&output).contains("its key is id in the source and name here"),
        "{}",
        stderr(&output)
    );
    assert!(all(&mut target.connect(), "users").is_empty());
}

#[test]
fn only_the_tables_that_are_named_are_brought_over() {
    let source = original(
        vec![users(vec![user(1, "Ann")]), Table { name: "b", ..users(vec![]) }],
        vec![],
        false,
    );
    let target = Daemon::start();
    check_exit(&migrate(&source.socket(), &target, &["users"]), 0);
    assert_eq!(target.connect().call("tables", &[]), Ok(list(["users".into()])));
}

#[test]
fn a_source_that_is_the_target_or_is_not_there_is_told_as_such() {
    let target = Daemon::start();
    let output = migrate(&target.socket(), &target, &[]);
    check_exit(&output, 2);
    assert!(stderr(&output).contains("the socket of both daemons"), "{}", stderr(&output));
    let output = migrate(&target.directory().join("absent"), &target, &[]);
    check_exit(&output, 8);
    let said = stderr(&output);
    assert!(said.contains("absent") && said.contains("--from name its socket"), "{said}");
    assert!(!is_equal(&output), "nothing is known to be equal");
}

#[test]
fn a_source_without_tables_is_told_as_such() {
    let (source, target) = (Daemon::start(), Daemon::start());
    let output = migrate(&source.socket(), &target, &[]);
    check_exit(&output, 0);
    assert!(stderr(&output).contains("names no tables"), "{}", stderr(&output));
}
