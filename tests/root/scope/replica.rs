//! Root keeps a table away from its own machine, which decides for that machine and for no other.

use rmpv::Value;

use crate::scope::authority::{ANN, events, open_to_all, register, scope_of};
use crate::scope::cluster::Cluster;
use crate::scope::daemon::{Daemon, wait_until};
use crate::scope::rpc::{field, list, map};
use crate::scope::user::User;

/// Ann has an account on home alone.
fn ann_on_home(names: &[&str]) -> Cluster {
    let mesh = Cluster::whole(names);
    open_to_all(&mesh, names);
    register(mesh.node("home"), "ann", ANN);
    mesh
}

fn make(mesh: &Cluster, table: &str, scope: &str) {
    let mut ann = User::connect(mesh.node("home"), ANN);
    ann.may("create_table", &[table.into(), list(["id".into()]), scope.into()], "created");
    ann.put(table, "milk");
}

fn replica(at: &Daemon, table: &str, undo: bool) -> Result<Value, String> {
    let options = map([("replica", true.into()), ("undo", undo.into())]);
    at.connect().call("drop_table", &[table.into(), options])
}

/// What a daemon says of the replica on another node: its state, and why.
fn copy_on(at: &Daemon, table: &str, node: &str) -> (String, String) {
    let scope = at.connect().call("get_scope", &[table.into()]).expect("its scope");
    let replicas = field(&scope, "replicas").and_then(Value::as_array).expect("a list");
    let found = replicas.iter().find(|replica| field(replica, "node") == Some(&node.into()));
    let text = |name| found.and_then(|found| field(found, name)?.as_str()).unwrap_or("").to_owned();
    (text("state"), text("why"))
}

fn has(at: &Daemon, table: &str) -> bool {
    at.connect().call("keys", &[table.into()]).is_ok()
}

/// holds S4
#[test]
fn a_replica_that_root_drops_hands_over_stays_away_and_comes_back_when_it_is_taken_back() {
    let mut mesh = ann_on_home(&["home", "office"]);
    make(&mesh, "@secret", "all");
    let (home, office) = (mesh.node("home"), mesh.node("office"));
    wait_until("office has it", || has(office, "@ann:secret"));
    let mut nobody = User::connect(office, 30_012);
    let options = map([("replica", true.into())]);
    nobody.may_not("drop_table", &["@ann:secret".into(), options]);
    assert_eq!(replica(office, "@ann:secret", false), Ok("dropped".into()));
    assert_eq!(replica(office, "@ann:secret", false), Ok("dropped".into()), "it is so already");
    wait_until("home knows that it has left", || {
        let (state, why) = copy_on(home, "@ann:secret", "office");
        state == "left" && why.contains("its root keeps the table away")
    });
    wait_until("it is gone", || !has(office, "@ann:secret"));
    let (_, why) = copy_on(office, "@ann:secret", "office");
    assert!(why.contains("--replica --undo"), "{why}");
    assert!(events(home, "replica_dropped")[0].contains("root of office"));
    assert_eq!(scope_of(home, "@ann:secret"), Some("all".into()), "the scope is what it was");
    // What is written, decided or restarted meanwhile does not bring it back.
    User::connect(home, ANN).put("@secret", "tea");
    let decided = ["@secret".into(), "home,office".into()];
    User::connect(home, ANN).may("set_scope", &decided, "scope updated");
    mesh.node_mut("office").stop();
    mesh.node_mut("office").restart();
    mesh.wait_for_links();
    let (home, office) = (mesh.node("home"), mesh.node("office"));
    wait_until("office has heard of the scope", || {
        scope_of(office, "@ann:secret") == Some(list(["home".into(), "office".into()]))
    });
    assert!(!has(office, "@ann:secret"));
    let why = office.connect().call("explain", &["@ann:secret".into()]).expect("an explanation");
    let finding = field(&why, "finding").expect("a finding").to_string();
    assert!(finding.contains("kept away from this node by its root"), "{finding}");

    assert_eq!(replica(office, "@ann:secret", true), Ok("restored".into()));
    wait_until("it comes back", || {
        office.connect().call("keys", &["@ann:secret".into()])
            == Ok(list(["milk".into(), "tea".into()]))
    });
    wait_until("home is told", || events(home, "replica_kept").len() == 1);
}

/// Of the table of a uid elsewhere nothing but its id is known once it has left.
#[test]
fn the_replica_of_a_uids_table_is_taken_back_by_its_id() {
    let mesh = ann_on_home(&["home", "office"]);
    make(&mesh, "own", "all");
    let (home, office) = (mesh.node("home"), mesh.node("office"));
    let own = format!("{ANN}@home:own");
    wait_until("office has it", || has(office, &own));
    let home_stays = replica(home, &format!("{ANN}:own"), false);
    assert_eq!(home_stays, Err("invalid scope: must include this node, home".into()));
    assert_eq!(replica(office, &own, false), Ok("dropped".into()));
    wait_until("it is gone", || !has(office, &own));
    let told = events(office, "replica_dropped").remove(0);
    let id = told.split("id:").nth(1).and_then(|rest| rest.get(..32)).expect("its id");
    assert_eq!(replica(office, &format!("id:{id}"), true), Ok("restored".into()));
    wait_until("it comes back", || has(office, &own));
}

#[test]
fn the_only_replica_is_not_dropped_for_one_machine() {
    let mesh = ann_on_home(&["home", "office"]);
    make(&mesh, "@secret", "home");
    let only = replica(mesh.node("home"), "@ann:secret", false);
    assert_eq!(only, Err("only_replica: no other node is in the table's scope".into()));
    wait_until("office knows of it", || scope_of(mesh.node("office"), "@ann:secret").is_some());
    let none = replica(mesh.node("office"), "@ann:secret", false);
    assert_eq!(none, Err(crate::scope::NOT_HERE.into()), "there is none");
    User::connect(mesh.node("home"), ANN).may("keys", &["@secret".into()], list(["milk".into()]));
}
