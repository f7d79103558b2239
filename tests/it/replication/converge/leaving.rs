//! Machines that go for good, and what becomes of those who come back all the same.

use rmpv::Value;
use rusqlite::Connection;

use crate::replication::converge::{
    cluster::{Cluster, there},
    daemon::{Daemon, wait_until},
    mesh::{is_connected, refused},
    rpc::{field, map},
};

/// Names of the tables of a daemon's database that were made of replicas that were given up, and what is in them.
fn rescued(daemon: &Daemon) -> Vec<(String, u64)> {
    let db = Connection::open(daemon.data_dir().join("cortex.db")).expect("the database");
    let mut tables = db
        .prepare(
            "SELECT t.name, (SELECT count(*) FROM records r WHERE r.table_id = t.id AND r.value NOT NULL)
             FROM tables t WHERE t.name LIKE '%\\_rescued\\_%' ESCAPE '\\' AND t.dropped = 0",
        )
        .expect("a statement");
    let rows = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    rows.collect::<Result<_, _>>().expect("tables")
}

/// holds S4, R2: nothing of what only it had is lost, and nothing of it comes back by itself.
#[test]
fn a_replica_that_was_given_up_while_its_machine_was_away_is_put_aside_and_begins_anew() {
    let mesh = Cluster::with_line("home", "cabin");
    mesh.create("home", "notes", "all");
    mesh.put("home", "notes", 1, "before");
    let notes = &there("home", "notes");
    mesh.wait_for("cabin", notes, 1, Some("before"));

    mesh.cut();
    mesh.put("cabin", notes, 2, "only here");
    let scope = |arguments: &[&str]| {
        let told = mesh.node("home").cortex(arguments);
        assert!(told.status.success(), "{told:?}");
    };
    scope(&["scope", "notes", "home", "--abandon", "cabin"]);
    mesh.delete("home", "notes", 1);
    scope(&["scope", "notes", "all"]);
    mesh.put("home", "notes", 3, "after");

    mesh.heal();
    mesh.wait_for("cabin", notes, 3, Some("after"));
    mesh.wait_for("cabin", notes, 1, None);
    assert_eq!(mesh.get("cabin", notes, 2), None);
    assert_eq!(mesh.get("home", "notes", 2), None);
    assert_eq!(rescued(mesh.node("cabin")), [("notes_rescued_1".to_owned(), 2)]);
}

/// holds S4, R2
#[test]
fn a_new_machine_under_the_name_of_one_that_was_removed_is_another() {
    let mut mesh = Cluster::whole(&["home", "office"]);
    mesh.create("home", "notes", "all");
    mesh.put("home", "notes", 1, "before");
    let notes = &there("home", "notes");
    mesh.wait_for("office", notes, 1, Some("before"));
    let removed = mesh.node("home").connect().call("mesh_remove_node", &["office".into()]);
    removed.expect("removed");
    wait_until("it is refused", || refused(mesh.node("home"), "removed") > 0);
    mesh.put("home", "notes", 2, "after");

    mesh.node_mut("office").stop();
    mesh.boot("office"); // with nothing
    wait_until("the two see each other", || is_connected(mesh.node("home"), "office"));
    mesh.wait_for("office", notes, 1, Some("before"));
    mesh.wait_for("office", notes, 2, Some("after"));
    mesh.put("office", notes, 3, "of the new one");
    mesh.wait_for("home", "notes", 3, Some("of the new one"));
}

/// What a node answers to explain: its finding, its reasons, and what to do.
fn explained(daemon: &Daemon, table: &str, of: Option<&str>) -> [String; 3] {
    let options = map([("node", of.map_or(Value::Nil, Value::from))]);
    let told = daemon.connect().call("explain", &[table.into(), options]).expect("an answer");
    ["finding", "because", "do"].map(|part| {
        let part = field(&told, part).expect("a part");
        part.as_str().map_or_else(|| part.to_string(), str::to_owned)
    })
}

/// The state of a node's replica as another tells it, with the reason.
fn replica(daemon: &Daemon, table: &str, of: &str) -> (String, String) {
    let scope = daemon.connect().call("get_scope", &[table.into()]).expect("the scope");
    let replicas = field(&scope, "replicas").and_then(Value::as_array).expect("a list");
    let found = replicas.iter().find(|replica| field(replica, "node") == Some(&of.into()));
    let text = |name| found.and_then(|found| field(found, name)?.as_str()).unwrap_or_default();
    (text("state").to_owned(), text("why").to_owned())
}

/// holds S4, R5: at the end of a chain whose neighbour the scope leaves out too, nobody can take what it has.
#[test]
fn a_replica_with_no_link_into_the_scope_says_so_and_what_it_advises_helps() {
    let links = [("ash", "birch"), ("birch", "cedar"), ("cedar", "elm")];
    let mesh = Cluster::start(&["ash", "birch", "cedar", "elm"], &links);
    mesh.create("ash", "notes", "all");
    mesh.put("ash", "notes", 1, "milk");
    let notes = &there("ash", "notes");
    mesh.wait_for("elm", notes, 1, Some("milk"));
    let decide = |scope: &str| {
        let decided = mesh.node("ash").cortex(&["scope", notes, scope]);
        assert!(decided.status.success(), "{decided:?}");
    };
    decide("ash,birch");
    let (ash, elm) = (mesh.node("ash"), mesh.node("elm"));
    wait_until("cedar has left", || replica(ash, "notes", "cedar").0 == "left");

    let [finding, because, advice] = explained(elm, notes, None);
    assert_eq!(finding, format!("{notes} is to leave this node, and cannot drain"));
    for part in ["no node of the scope is linked to this node", "cedar lies between"] {
        assert!(because.contains(part), "{because}");
    }
    let [first, then] = ["ash,birch,cedar", "ash,birch"];
    assert_eq!(
        advice,
        format!("cortex scope {notes} {first}; once it has left elm: cortex scope {notes} {then}")
    );
    let (state, why) = replica(elm, notes, "elm");
    assert_eq!(state, "draining");
    assert!(why.starts_with("no node of its scope is linked to this one"), "{why}");
    let status = elm.cortex(&["sync", "status", notes]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("no node of its scope is linked"), "{status}");
    let doctor = elm.cortex(&["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("cannot drain") && doctor.contains("cortex explain"), "{doctor}");

    // Where it was decided nothing is known of elm's links, but where to ask.
    let [_, because, advice] = explained(ash, "notes", Some("elm"));
    assert!(because.contains("this node is not linked to elm"), "{because}");
    assert_eq!(advice, format!("on elm: cortex explain {notes}"));
    let (state, why) = replica(ash, "notes", "elm");
    assert!(state == "draining" && why.ends_with("notes --node elm"), "{state} {why}");

    decide(first);
    wait_until("elm has left", || replica(ash, "notes", "elm").0 == "left");
    decide(then);
    wait_until("cedar has left again", || replica(ash, "notes", "cedar").0 == "left");
}

/// holds S4, R7: nobody waits for the word of a machine that was never in the scope as far as it has heard.
#[test]
fn a_machine_that_was_off_while_a_scope_let_it_in_and_out_again_has_left() {
    let mut mesh = Cluster::whole(&["home", "cabin"]);
    mesh.create("home", "notes", "home");
    mesh.node_mut("cabin").stop();
    for scope in ["all", "home"] {
        let decided = mesh.node("home").cortex(&["scope", "notes", scope]);
        assert!(decided.status.success(), "{decided:?}");
    }
    let state = replica(mesh.node("home"), "notes", "cabin").0;
    assert_eq!(state, "draining", "it may have heard of the first alone");
    mesh.node_mut("cabin").restart();
    wait_until("cabin has left", || replica(mesh.node("home"), "notes", "cabin").0 == "left");
}
