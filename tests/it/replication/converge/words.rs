//! Every word that is said of a replica, under the fault that it is for: the word, its cause, and what is advised.
//! Copies that are filled, frozen, diverged or damaged are `sync_cli`'s; clocks, `clocks`; a full disk, `root_disk`.

use rmpv::Value;

use crate::replication::converge::cluster::{Cluster, there};
use crate::replication::converge::daemon::{Daemon, wait_until};
use crate::replication::converge::mesh::{free_port, is_connected, peer, refused, state};
use crate::replication::converge::rpc::field;

fn text(value: &Value, name: &str) -> String {
    field(value, name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn status(daemon: &Daemon, table: &str) -> Value {
    daemon.connect().call("sync_status_table", &[table.into()]).expect("the state of a table")
}

/// State and reason of another node's replica; empty before it is known.
fn replica(daemon: &Daemon, table: &str, node: &str) -> (String, String) {
    let status = status(daemon, table);
    let nodes = field(&status, "nodes").and_then(Value::as_array).expect("an array").iter();
    let found = nodes.into_iter().find(|replica| text(replica, "node") == node);
    found.map(|found| (text(found, "state"), text(found, "why"))).unwrap_or_default()
}

fn is_in_sync(daemon: &Daemon, table: &str, node: &str) -> bool {
    replica(daemon, table, node).0 == "in_sync"
}

/// Who holds up deletions, and why; empty where nobody does.
fn kept_by(daemon: &Daemon, table: &str) -> (String, String) {
    let status = status(daemon, table);
    let kept_by = field(&status, "deletions_kept_by").expect("a field");
    if kept_by.is_nil() {
        Default::default()
    } else {
        (text(kept_by, "node"), text(kept_by, "why"))
    }
}

fn printed(daemon: &Daemon, arguments: &[&str]) -> String {
    String::from_utf8_lossy(&daemon.cortex(arguments).stdout).into_owned()
}

fn explained(daemon: &Daemon, arguments: &[&str]) -> [String; 2] {
    let printed = printed(daemon, &[&["explain"], arguments].concat());
    let value: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    ["finding", "do"].map(|name| value[name].as_str().unwrap_or_default().to_owned())
}

/// How a table is, by `cortex tables --long`.
fn listed(daemon: &Daemon, table: &str) -> serde_json::Value {
    let all = printed(daemon, &["tables", "--long"]);
    let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
    let found = all.as_array().expect("an array").iter().find(|listed| listed["table"] == table);
    found.unwrap_or_else(|| panic!("{table} is not in {all}")).clone()
}

/// holds R5: nothing ends on a line that is dead in one direction, and who hears nothing says so.
#[test]
fn on_a_line_that_is_dead_in_one_direction_nobody_is_in_sync_who_is_not_heard() {
    let mesh = Cluster::with_line("home", "office");
    mesh.create("home", "notes", "all");
    mesh.put("home", "notes", 1, "before");
    let (home, office) = (mesh.node("home"), mesh.node("office"));
    wait_until("both are in sync", || is_in_sync(home, "notes", "office"));
    assert_eq!(listed(home, "notes")["state"], "ready");

    mesh.silence("office");
    wait_until("home says that it hears nothing", || {
        assert_ne!(state(home, "office"), "dead", "long before it is taken for dead");
        let (state, why) = replica(home, "notes", "office");
        state == "unknown" && why.starts_with("no heartbeat for ")
    });
    assert!(is_connected(home, "office"), "no connection has ended");
    let [finding, advice] = explained(home, &["notes", "--node", "office"]);
    assert_eq!(
        finding,
        "how the replica of notes on office is, is not known now".replace("notes", "0:notes")
    );
    assert!(
        advice.contains("there, systemctl status cortexd; here, cortex mesh status"),
        "{advice}"
    );
    let waited = home.cortex(&["sync", "wait", "notes", "--timeout", "1"]);
    assert_eq!(waited.status.code(), Some(3), "{waited:?}");
    let notes = &there("home", "notes");
    assert_ne!(replica(office, notes, "home").0, "diverged", "home is heard there, and unchanged");

    mesh.put("home", "notes", 2, "meanwhile");
    let (state_now, why) = replica(home, "notes", "office");
    assert_eq!(state_now, "behind");
    assert!(why.starts_with("no heartbeat for ") || why.starts_with("unreachable"), "{why}");
    wait_until("it is taken for dead, and at no moment for connected too", || {
        let office = peer(home, "office");
        let is_dead = text(&office, "state") == "dead";
        assert!(!is_dead || field(&office, "connected") == Some(&false.into()), "{office}");
        is_dead
    });
    mesh.hear_again();
    mesh.wait_for("office", notes, 2, Some("meanwhile"));
    wait_until("both are in sync again", || is_in_sync(home, "notes", "office"));
}

/// holds R5, R8: each word for why deletions are remembered names the node.
#[test]
fn who_holds_up_deletions_is_named_with_the_reason() {
    let mut mesh = Cluster::whole(&["home", "office"]);
    mesh.create("home", "notes", "all");
    for id in 0..3 {
        mesh.put("home", "notes", id, "before");
    }
    let notes = there("home", "notes");
    mesh.wait_for("office", &notes, 2, Some("before"));
    // Before anything is known of office nobody is named either.
    wait_until("office has said what it has", || is_in_sync(mesh.node("home"), "notes", "office"));
    wait_until("nobody holds anything up", || kept_by(mesh.node("home"), "notes").0.is_empty());

    mesh.node_mut("office").stop();
    mesh.delete("home", "notes", 1);
    wait_until("office has not said that it knows of it", || {
        let (node, why) = kept_by(mesh.node("home"), "notes");
        node == "office" && why.starts_with("behind")
    });
    let shown = printed(mesh.node("home"), &["sync", "status", "notes", "--pretty"]);
    assert!(shown.contains("deletions are remembered for office, behind: "), "{shown}");
    mesh.node_mut("home").stop();
    mesh.node_mut("home").restart();
    wait_until("it has not said anything since", || {
        let (node, why) = kept_by(mesh.node("home"), "notes");
        node == "office" && why.starts_with("silent")
    });
    mesh.node_mut("office").restart();
    mesh.wait_for_links();
    wait_until("it knows", || kept_by(mesh.node("home"), "notes").0.is_empty());
}

/// holds R5: on both sides the owner, the place and the bound are named, and no waiting is advised.
#[test]
fn rows_over_a_bound_of_their_owner_are_held_up_in_words_that_name_it() {
    let mut mesh = Cluster::prepared(&["home", "office"], &[("home", "office")]);
    mesh.boot_with("home", "limits.bytes_per_uid = 8192\n");
    mesh.boot("office");
    mesh.wait_for_links();
    mesh.create("home", "notes", "all");
    mesh.put("home", "notes", 1, "small");
    let (home, office, notes) = (mesh.node("home"), mesh.node("office"), &there("home", "notes"));
    mesh.wait_for("office", notes, 1, Some("small"));
    mesh.put("office", notes, 2, &"x".repeat(10_000));

    wait_until("home does not take it", || {
        replica(home, "notes", "office")
            .1
            .starts_with("its rows are not taken: quota; the owner of ")
    });
    wait_until("office is told", || {
        replica(office, notes, "home").1.starts_with("it does not take rows: quota; the owner of ")
    });
    for (daemon, table, other) in [(home, "notes", "office"), (office, notes, "home")] {
        wait_until("each side says that rows do not pass", || {
            explained(daemon, &[table, "--node", other])[0].contains("rows do not pass")
        });
        let [_, advice] = explained(daemon, &[table, "--node", other]);
        assert!(advice.contains("may store no more on home: there, cortex usage"), "{advice}");
        assert!(advice.contains("limits.bytes_per_uid"), "{advice}");
        let doctor = printed(daemon, &["doctor"]);
        assert!(doctor.contains("replicas-blocked") && doctor.contains("quota"), "{doctor}");
    }
    let [_, advice] = explained(office, &[notes, "2", "--node", "home"]);
    assert!(advice.contains("limits.bytes_per_uid"), "{advice}");
    wait_until("deletions wait for what home lacks", || {
        let (node, why) = kept_by(home, "notes");
        node == "office" && why.starts_with("ahead")
    });
    let usage = printed(home, &["usage"]);
    let usage: serde_json::Value = serde_json::from_str(&usage).expect("JSON");
    let records: u64 =
        usage.as_array().into_iter().flatten().filter_map(|of| of["records"].as_u64()).sum();
    assert_eq!(records, 1, "what is stored here, and not what is held up: {usage}");

    mesh.delete("office", notes, 2);
    wait_until("nothing is held up any more", || is_in_sync(home, "notes", "office"));
}

/// holds R5: what a removed node has is not called whole, here nor there.
#[test]
fn a_node_that_was_removed_is_told_so_and_shown_so() {
    let mesh = Cluster::whole(&["home", "office"]);
    mesh.create("home", "notes", "all");
    mesh.put("home", "notes", 1, "before");
    let (home, office, notes) = (mesh.node("home"), mesh.node("office"), &there("home", "notes"));
    mesh.wait_for("office", notes, 1, Some("before"));
    assert!(home.cortex(&["mesh", "remove-node", "office"]).status.success());
    wait_until("home says so", || {
        replica(home, "notes", "office") == ("left".into(), "removed from the mesh".into())
    });
    wait_until("office knows", || {
        let [finding, advice] = explained(office, &[notes]);
        finding.ends_with("as it was when the node was removed from the mesh")
            && advice == "on a node of the mesh: cortex mesh invite"
    });
    let of_office = status(office, notes);
    let here = field(&of_office, "here").expect("a replica");
    assert_eq!(text(here, "why"), "home says that this node was removed from the mesh");
    assert_ne!(replica(office, notes, "home").0, "in_sync");
    let doctor = printed(office, &["doctor"]);
    assert!(doctor.contains("office was put out with its database"), "{doctor}");
    let [finding, advice] = explained(home, &["notes", "--node", "office"]);
    assert!(finding.ends_with("is not on office any more"), "{finding}");
    assert_eq!(advice, "cortex mesh invite office");
}

/// holds R4: whoever keeps a conflict takes note of it once it was restored anywhere.
#[test]
fn a_conflict_that_is_restored_on_one_machine_counts_on_none() {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let mut mesh = Cluster::whole(&NAMES);
    mesh.create("a", "notes", "all");
    let notes = there("a", "notes");
    let called = |name: &str| if name == "a" { "notes".to_owned() } else { notes.clone() };
    mesh.put("a", "notes", 1, "before");
    for name in ["b", "c"] {
        mesh.wait_for(name, &notes, 1, Some("before"));
    }
    mesh.node_mut("a").stop();
    mesh.put("b", &notes, 1, "of b");
    mesh.wait_for("c", &notes, 1, Some("of b"));
    for name in ["b", "c"] {
        mesh.node_mut(name).stop();
    }
    mesh.node_mut("a").restart();
    mesh.put("a", "notes", 1, "of a");
    for name in ["b", "c"] {
        mesh.node_mut(name).restart();
    }
    let kept = |name: &str| {
        let status = status(mesh.node(name), &called(name));
        let here = field(&status, "here").expect("a replica").clone();
        field(&here, "conflicts").and_then(Value::as_u64).expect("a number")
    };
    let keepers = || NAMES.into_iter().filter(|name| kept(name) > 0).collect::<Vec<_>>();
    // Which of them meet both versions depends on who reads from whom first.
    wait_until("somebody has met both versions", || !keepers().is_empty());

    let at = keepers()[0];
    let table = called(at);
    let listed = mesh.node(at).connect().call("conflicts", &[table.as_str().into()]);
    let listed = listed.expect("a list");
    let first = &listed.as_array().expect("an array")[0];
    let id = field(first, "id").and_then(Value::as_u64).expect("a number");
    let restored = mesh.node(at).connect().call("conflict_restore", &[table.into(), id.into()]);
    assert_eq!(restored, Ok("restored".into()));
    for name in NAMES {
        mesh.wait_for(name, &called(name), 1, Some("of b"));
    }
    wait_until("nobody counts it any more", || keepers().is_empty());
}

/// holds R5: whom rows wait for, and why, is told on both sides, in the doctor too, and waiting is not advised.
#[test]
fn a_clock_that_keeps_rows_waiting_is_named_on_both_sides() {
    let mesh = Cluster::whole(&["home", "office"]);
    mesh.create("home", "notes", "all");
    mesh.put("home", "notes", 1, "before");
    let (home, office, notes) = (mesh.node("home"), mesh.node("office"), &there("home", "notes"));
    mesh.wait_for("office", notes, 1, Some("before"));
    office.set_clock(3_600_000);
    wait_until("home knows", || {
        let offset = peer(home, "office");
        field(&offset, "clock_offset_ms").and_then(Value::as_i64).is_some_and(|ms| ms > 60_000)
    });
    mesh.put("office", notes, 1, "of an hour later");
    for (daemon, table, other, side) in
        [(home, "notes", "office", "ahead of"), (office, notes, "home", "behind")]
    {
        wait_until("it says so", || {
            let (_, why) = replica(daemon, table, other);
            why.contains("clock: ") && why.contains("timedatectl set-ntp true")
        });
        let [_, advice] = explained(daemon, &[table, "--node", other]);
        assert_eq!(advice, "on both: timedatectl set-ntp true", "{other}");
        let doctor = printed(daemon, &["doctor"]);
        assert!(doctor.contains("mesh-clock") && doctor.contains(side), "{doctor}");
        assert!(doctor.contains("replicas-blocked"), "{doctor}");
    }
    office.set_clock(0);
    mesh.wait_for("home", "notes", 1, Some("of an hour later"));
    wait_until("both are in sync again", || is_in_sync(home, "notes", "office"));
}

/// holds M5, R5: a second machine under one name is told apart, whether its database is another or a copy.
#[test]
fn two_machines_under_one_name_are_found_by_the_doctor() {
    let mut mesh = Cluster::whole(&["home", "office"]);
    let settings = mesh.ca.settings("office", free_port(), &[("home", mesh.port("home"))]);
    let mut second = Daemon::with_config(&settings);
    wait_until("it is held off", || refused(mesh.node("home"), "name_taken") > 0);
    let doctor = printed(mesh.node("home"), &["doctor"]);
    assert!(doctor.contains("a name that another database already uses"), "{doctor}");
    wait_until("it is told why", || {
        let doctor = printed(&second, &["doctor"]);
        doctor.contains("if office was installed again, on home: cortex mesh remove-node office")
    });

    second.stop();
    mesh.node_mut("office").stop();
    for file in std::fs::read_dir(mesh.node("office").data_dir()).expect("its files") {
        let file = file.expect("a file");
        if file.file_type().expect("its kind").is_file() {
            let copy = second.data_dir().join(file.file_name());
            std::fs::copy(file.path(), copy).expect("copied");
        }
    }
    mesh.node_mut("office").restart();
    second.restart();
    wait_until("two are seen to use the name", || {
        field(&peer(mesh.node("home"), "office"), "name_in_use_twice") == Some(&true.into())
    });
    let doctor = printed(mesh.node("home"), &["doctor"]);
    assert!(doctor.contains("two machines use the name office"), "{doctor}");
}
