//! What a node of a mesh says of replicas, conflicts and rows, as far as one node can be asked.
//! What two nodes come to is in `sync_cli`; how a replica is judged, with `service::replicas`.

use daemon::Daemon;
use mesh::{Authority, free_port};
use rmpv::Value;
use rpc::{field, list, map};

use crate::support::{daemon, mesh, rpc};

/// A daemon that knows another which is never there.
struct Home {
    daemon: Daemon,
    _ca: Authority,
}

impl Home {
    fn start() -> Self {
        let ca = Authority::new();
        ca.issue("home");
        let ports = [free_port(), free_port()];
        let nodes = [("home", ports[0]), ("office", ports[1])];
        Self { daemon: Daemon::with_config(&ca.settings("home", ports[0], &nodes)), _ca: ca }
    }

    fn with_table() -> Self {
        let home = Self::start();
        let created = home.call("create_table", &["t".into(), list(["id".into()]), "all".into()]);
        assert_eq!(created, Ok("created".into()));
        home.put(7);
        home
    }

    fn put(&self, id: u64) {
        let record = map([("id", id.into())]);
        assert_eq!(self.call("put", &["t".into(), record]), Ok("ok".into()));
    }

    fn call(&self, method: &str, params: &[Value]) -> Result<Value, String> {
        self.daemon.connect().call(method, params)
    }

    fn explain(&self, options: Value) -> Value {
        self.call("explain", &["t".into(), options]).expect("an explanation")
    }
}

fn refused(error: &str) -> Result<Value, String> {
    Err(error.to_owned())
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    field(value, name).and_then(Value::as_str).unwrap_or_else(|| panic!("{name} in {value}"))
}

/// holds R5
#[test]
fn a_table_that_nobody_else_has_yet_is_ready_here_and_verified_nowhere() {
    let home = Home::with_table();
    let all = home.call("sync_status", &[]).expect("the state of all");
    let one = home.call("sync_status_table", &["t".into()]).expect("the state of one");
    assert_eq!(all, list([one.clone()]));
    let here = field(&one, "here").expect("the replica here");
    assert_eq!((text(here, "state"), text(here, "node")), ("ready", "home"));
    assert_eq!(text(here, "digest").len(), 64);
    assert_eq!(field(&one, "nodes"), Some(&list([])));
    let waited = home.call("sync_wait", &["t".into()]).expect("there is nobody to wait for");
    assert_eq!(field(&waited, "verified"), Some(&true.into()));
    let elsewhere = map([("node", "office".into())]);
    assert_eq!(
        home.call("sync_wait", &["t".into(), elsewhere]),
        refused("not_in_scope: office"),
        "it has not presented itself"
    );
}

#[test]
fn a_table_that_was_never_shared_is_no_matter_of_replicas() {
    let home = Home::start();
    home.daemon.connect().create("t");
    assert_eq!(home.call("sync_status", &[]), Ok(list([])));
    let info = home.call("table_info", &["t".into()]).expect("its data");
    assert_eq!((text(&info, "state"), field(&info, "conflicts")), ("ready", Some(&0.into())));
    let replicas = field(&info, "replicas").and_then(Value::as_array).expect("an array");
    assert_eq!(replicas.len(), 1);
    assert_eq!((text(&replicas[0], "node"), text(&replicas[0], "state")), ("home", "ready"));
}

/// holds N3: names alone are what they always were.
#[test]
fn tables_are_listed_with_how_their_replicas_are() {
    let home = Home::with_table();
    home.daemon.connect().create("alone");
    assert_eq!(home.call("tables", &[]), Ok(list(["alone".into(), "t".into()])));
    let details = home.call("tables", &[map([("details", true.into())])]).expect("a list");
    let told = |table: &str, scope: &str, records: u64| {
        let details = details.as_array().expect("a list");
        let found = details.iter().find(|listed| text(listed, "table") == table).expect("a table");
        assert_eq!((text(found, "state"), text(found, "node_scope")), ("ready", scope));
        assert_eq!(field(found, "records"), Some(&records.into()), "{found}");
        assert_eq!(field(found, "conflicts"), Some(&0.into()), "{found}");
    };
    told("alone", "local", 0);
    told("t", "all", 1);
    let wrong = home.call("tables", &[map([("detail", true.into())])]);
    assert_eq!(wrong, refused("invalid params: expected [] or [{all, details}]"));
    let output = home.daemon.cortex(&["tables", "--long"]);
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(printed.starts_with("[{\"table\":\"alone\",\"id\":\""), "{printed}");
}

/// holds R6
#[test]
fn a_repair_without_others_finds_nothing_and_says_so() {
    let home = Home::with_table();
    let report = home.call("sync_repair", &["t".into()]).expect("a report");
    assert_eq!(field(&report, "verified"), Some(&true.into()), "{report}");
    assert_eq!(field(&report, "compared"), Some(&list([])));
    let output = home.daemon.cortex(&["sync", "repair", "t", "--dry-run"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn conflicts_are_listed_and_one_that_is_not_there_is_not_found() {
    let home = Home::with_table();
    assert_eq!(home.call("conflicts", &[]), Ok(list([])));
    assert_eq!(home.call("conflicts", &["t".into()]), Ok(list([])));
    for method in ["conflict_show", "conflict_restore", "conflict_ack"] {
        assert_eq!(home.call(method, &["t".into(), 1.into()]), refused("not_found"), "{method}");
    }
    let acknowledged = home.call("conflict_ack", &["t".into()]).expect("all of none");
    assert_eq!(field(&acknowledged, "acknowledged"), Some(&0.into()));
    let status = home.call("status", &[]).expect("status");
    assert_eq!(field(&status, "conflicts"), Some(&0.into()));
}

/// holds R5
#[test]
fn why_a_row_is_or_is_not_there_is_explained() {
    let home = Home::with_table();
    let of = |id: u64| home.explain(map([("key", id.into())]));
    assert_eq!(text(&of(7), "finding"), "7 is on this node");
    let because = field(&of(7), "because").expect("reasons").to_string();
    assert!(because.contains("it was written at") && because.contains("by home"), "{because}");
    assert!(text(&of(8), "finding").starts_with("8 is not there"), "{}", of(8));
    let there = home.explain(map([("node", "office".into())]));
    assert_eq!(text(&there, "finding"), "office is no member of this mesh");
    assert_eq!(text(&there, "do"), "cortex mesh status");
    let absent = home.call("explain", &["nothing".into()]).expect("an explanation");
    assert_eq!(text(&absent, "do"), "cortex tables");
}

/// holds S3
#[test]
fn a_replica_that_there_is_not_cannot_be_given_up() {
    let home = Home::with_table();
    let abandon = |node: &str| {
        let options = map([("abandon", list([node.into()]))]);
        home.call("set_scope", &["t".into(), "all".into(), options])
    };
    assert_eq!(abandon("office"), refused("unknown node: office"));
    assert_eq!(
        abandon("home"),
        refused("invalid scope: must include this node, home"),
        "the table of a uid stays at its home"
    );
    let scope = home.call("get_scope", &["t".into()]).expect("its scope");
    let replicas = field(&scope, "replicas").and_then(Value::as_array).expect("an array");
    assert_eq!(text(&replicas[0], "node"), "home");
}

#[test]
fn nodes_and_names_that_are_not_known_are_neither_removed_nor_resolved() {
    let home = Home::start();
    assert_eq!(home.call("mesh_remove_node", &["office".into()]), refused("unknown node: office"));
    assert_eq!(
        home.call("mesh_remove_node", &["home".into()]),
        refused("own_node: a node cannot remove itself, do it on another one")
    );
    assert_eq!(
        home.call("identity_resolve", &["alice".into(), "3f2a".into()]),
        refused("unknown_identity")
    );
}

/// holds M6
#[test]
fn what_nodes_ask_of_each_other_no_user_may_ask_for() {
    let home = Home::with_table();
    for method in ["sync_buckets", "sync_marks", "sync_push"] {
        assert_eq!(home.call(method, &[]), refused("access_denied"), "{method}");
    }
}

#[test]
fn without_a_mesh_the_methods_of_the_mesh_say_so() {
    let daemon = Daemon::start();
    let mut rpc = daemon.connect();
    rpc.create("t");
    let t = || vec![Value::from("t")];
    for (method, params) in [
        ("sync_wait", t()),
        ("sync_repair", t()),
        ("mesh_remove_node", t()),
        ("identity_resolve", vec!["alice".into(), "3f2a".into()]),
    ] {
        assert_eq!(
            rpc.call(method, &params),
            refused("mesh networking not configured"),
            "{method}"
        );
    }
    assert_eq!(rpc.call("conflicts", &[]), Ok(list([])));
    let explained = rpc.call("explain", &t()).expect("an explanation");
    assert_eq!(text(&explained, "finding").split(':').count(), 2, "{explained}");
}

#[test]
fn the_commands_print_what_the_methods_answer() {
    let home = Home::with_table();
    let printed = |arguments: &[&str]| {
        let output = home.daemon.cortex(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(printed(&["sync", "status"]).starts_with("[{\"table\":"));
    assert!(printed(&["sync", "status", "t"]).starts_with("{\"table\":"));
    let pretty = printed(&["sync", "status", "--pretty"]);
    assert!(pretty.contains("ready here, 1 records"), "{pretty}");
    assert!(printed(&["sync", "wait", "t", "--timeout", "5"]).contains("\"verified\":true"));
    assert_eq!(printed(&["conflicts"]), "[]\n");
    assert_eq!(printed(&["conflicts", "t", "--limit", "3"]), "[]\n");
    assert!(printed(&["explain", "t", "7"]).contains("is on this node"));
    assert!(printed(&["scope", "t"]).contains("\"replicas\":[{\"node\":\"home\""));
    let refused = home.daemon.cortex(&["conflicts", "show", "t", "9"]);
    assert_eq!(refused.status.code(), Some(10), "{refused:?}");
    let gone = home.daemon.cortex(&["mesh", "remove-node", "office"]);
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
}
