//! A federated table and a machine that has nothing of it: its owner asks about it there, and decides there.
//! Needs root, the only one who can be several users. What decisions come to is `cortex_core::directory`'s.
//!
//! `cargo test` does not run these tests by itself; `cargo test --test root` as root does.

mod authority;
mod orphans;
mod replica;

use daemon::{Daemon, wait_until};
use mesh::{Authority, free_port, is_connected};
use rmpv::Value;
use rpc::{field, list, map};
use user::{User, daemon_for_all};

use crate::{
    support::{cluster, daemon, mesh, rpc},
    user,
};

/// Alice on home and on office, and somebody else there.
const ALICE: u32 = 20_001;
const ALICE_THERE: u32 = 30_001;
const BOB_THERE: u32 = 30_002;

const NOT_HERE: &str = "not_here: the table's scope does not contain this machine";

/// Alice's table, which may be on home alone; office knows of it.
struct Scene {
    _ca: Authority,
    home: Daemon,
    office: Daemon,
}

impl Scene {
    fn new() -> Self {
        let ca = Authority::new();
        let ports = [free_port(), free_port()];
        let nodes = [("home", ports[0]), ("office", ports[1])];
        ca.issue("home");
        ca.issue("office");
        let home = daemon_for_all(&ca.settings("home", ports[0], &nodes));
        let office = daemon_for_all(&ca.settings("office", ports[1], &nodes));
        wait_until("both see each other", || {
            is_connected(&home, "office") && is_connected(&office, "home")
        });
        let wish = map([("uid", ALICE.into())]);
        let token = home.connect().call("identity_register", &["alice".into(), wish]);
        let token = token.expect("registered");
        let token = field(&token, "token").expect("a token").clone();
        User::connect(&office, ALICE_THERE).may(
            "identity_claim",
            &[token],
            "claimed identity 'alice'",
        );
        let mut alice = User::connect(&home, ALICE);
        let table = ["@notes".into(), list(["id".into()]), "home".into()];
        alice.may("create_table", &table, "created");
        alice.put("@notes", "milk");
        let scene = Self { _ca: ca, home, office };
        wait_until("office has heard of it", || {
            scene.alice().call("get_scope", &["@notes".into()]).is_ok()
        });
        scene
    }

    /// Alice on office.
    fn alice(&self) -> User {
        User::connect(&self.office, ALICE_THERE)
    }

    fn explained(&self, options: Value) -> Value {
        self.alice().call("explain", &["@notes".into(), options]).expect("an explanation")
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    field(value, name).and_then(Value::as_str).unwrap_or_else(|| panic!("{name} in {value}"))
}

/// holds S3, R5
#[test]
fn a_table_of_which_nothing_is_here_is_known_by_its_name_and_its_scope() {
    let scene = Scene::new();
    let scope = scene.alice().call("get_scope", &["@notes".into()]).expect("its scope");
    assert_eq!(text(&scope, "table"), "@alice:notes");
    assert_eq!(field(&scope, "node_scope"), Some(&list(["home".into()])));
    let replicas = field(&scope, "replicas").and_then(Value::as_array).expect("an array");
    let nodes: Vec<_> = replicas.iter().map(|replica| text(replica, "node")).collect();
    assert_eq!(nodes, ["home"], "none here");

    let why = scene.explained(map([]));
    assert_eq!(
        text(&why, "finding"),
        "@alice:notes is not on this node: its scope does not contain it"
    );
    let because = field(&why, "because").expect("reasons").to_string();
    assert!(because.contains("by its scope it is on home"), "{because}");
    assert_eq!(text(&why, "do"), "cortex scope @alice:notes home,office");
    let row = scene.explained(map([("key", "milk".into())]));
    assert_eq!(text(&row, "finding"), text(&why, "finding"), "no row of it is either");
    let there = scene.explained(map([("node", "home".into())]));
    assert!(text(&there, "finding").contains("on home"), "{there}");

    for (method, params) in [
        ("get", vec!["@notes".into(), "milk".into()]),
        ("put", vec!["@notes".into(), map([("id", "tea".into())])]),
        ("keys", vec!["@notes".into()]),
        ("table_info", vec!["@notes".into()]),
        ("sync_wait", vec!["@notes".into()]),
    ] {
        assert_eq!(scene.alice().call(method, &params), Err(NOT_HERE.into()), "{method}");
    }
    let shown = scene.office.cortex(&["scope", "@alice:notes"]);
    assert!(shown.status.success(), "root sees every table: {shown:?}");
    let refused = scene.office.cortex(&["get", "@alice:notes", "milk"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(NOT_HERE) && said.contains("cortex explain @alice:notes"), "{said}");
}

/// holds S3, V4: a stranger is told what they would be told of a table that there is not.
#[test]
fn nobody_learns_of_a_table_elsewhere_who_may_not_use_it() {
    let scene = Scene::new();
    let mut bob = User::connect(&scene.office, BOB_THERE);
    for name in ["@alice:notes", "@alice:nothing"] {
        for (method, params) in [
            ("get_scope", vec![name.into()]),
            ("set_scope", vec![name.into(), "all".into()]),
            ("get", vec![name.into(), "milk".into()]),
            ("table_info", vec![name.into()]),
            ("sync_wait", vec![name.into()]),
        ] {
            bob.may_not(method, &params);
        }
        let why = bob.call("explain", &[name.into()]).expect("an explanation");
        let finding = format!("there is no table {name} here, or you may not see it");
        assert_eq!(text(&why, "finding"), finding);
    }
    let mut alice = User::connect(&scene.home, ALICE);
    let to_bob = format!("uid:{BOB_THERE}@office");
    let reading = [to_bob.as_str().into(), "@notes".into(), "read".into()];
    alice.may("acl_grant", &reading, "granted");
    wait_until("bob may read it", || bob.call("get_scope", &["@alice:notes".into()]).is_ok());
    bob.may_not("set_scope", &["@alice:notes".into(), "all".into()]);
}

/// holds R2, S3
#[test]
fn its_owner_has_it_come_to_the_machine_where_they_are() {
    let scene = Scene::new();
    let local = scene.alice().call("set_scope", &["@notes".into(), "local".into()]);
    assert_eq!(local, Err(NOT_HERE.into()), "nobody would keep it");
    let unknown = scene.alice().call("set_scope", &["@notes".into(), "nowhere".into()]);
    assert_eq!(unknown, Err("unknown node: nowhere".into()));

    let state = || {
        let listed = scene.alice().call("tables", &[map([("details", true.into())])]);
        let listed = listed.expect("a list").as_array().expect("a list").clone();
        let notes = listed.iter().find(|table| text(table, "table") == "@alice:notes");
        text(notes.expect("it is known"), "state").to_owned()
    };
    assert_eq!(state(), "none");
    scene.alice().may("tables", &[], list([]));
    scene.alice().may("set_scope", &["@notes".into(), "home,office".into()], "scope updated");
    let time_limit = map([("timeout_ms", 20_000.into())]);
    let waited =
        scene.alice().call("sync_wait", &["@notes".into(), time_limit]).expect("it has come");
    assert_eq!(field(&waited, "verified"), Some(&true.into()));
    assert_eq!(state(), "ready");
    scene.alice().may("keys", &["@notes".into()], list(["milk".into()]));
    scene.alice().put("@notes", "tea");
    let mut here = User::connect(&scene.home, ALICE);
    wait_until("home has what office wrote", || {
        here.call("keys", &["@notes".into()]) == Ok(list(["milk".into(), "tea".into()]))
    });

    here.may("drop_table", &["@notes".into()], "dropped");
    wait_until("it is no table any more", || {
        scene.alice().call("get_scope", &["@notes".into()]) == Err("access_denied".into())
    });
}
