//! Machines whose clocks are wrong for a while. Leaves all the ways in which they can be to the simulation.

use std::{thread::sleep, time::Duration};

use rmpv::Value;

use crate::replication::converge::cluster::{Cluster, there};
use crate::replication::converge::daemon::{Daemon, wait_until};
use crate::replication::converge::rpc::{field, map};

const HOUR_MS: i64 = 3_600_000;

/// What one machine says of the replica of a table on another: its state, and why.
fn state_of(at: &Daemon, table: &str, node: &str) -> (String, String) {
    let status = at.connect().call("sync_status_table", &[table.into()]).expect("a state");
    let nodes = field(&status, "nodes").and_then(Value::as_array).expect("nodes");
    let found = nodes.iter().find(|found| field(found, "node") == Some(&node.into()));
    let text = |name: &str| {
        found.and_then(|found| field(found, name)?.as_str()).unwrap_or_default().to_owned()
    };
    (text("state"), text("why"))
}

fn explained(at: &Daemon, table: &str, node: &str) -> String {
    let output = at.cortex(&["explain", table, "--node", node]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn doctor(at: &Daemon) -> String {
    let output = at.cortex(&["doctor", "--config", at.config().to_str().expect("a path")]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// holds R7, R5, E3: two of three machines are an hour ahead for three seconds and meet each other's rows. Neither
/// could give its rows timestamps of the present any more, and each waited for the other.
#[test]
fn machines_that_were_ahead_together_keep_nobody_waiting() {
    let mut mesh = Cluster::whole(&["home", "office", "cabin"]);
    mesh.create("home", "notes", "all");
    let notes = &there("home", "notes");
    mesh.put("home", "notes", "k", "before");
    for at in ["office", "cabin"] {
        mesh.wait_for(at, notes, "k", Some("before"));
    }

    for at in ["home", "office"] {
        mesh.node(at).set_clock(HOUR_MS);
    }
    for other in ["home", "office"] {
        mesh.node("cabin").wait_for_log(&format!("the clock of {other} is 36"));
        mesh.node(other).wait_for_log("the clock of cabin is 36");
    }
    mesh.put("home", "notes", "k", "from home, ahead");
    mesh.put("office", notes, "o", "from office, ahead");
    mesh.put("cabin", notes, "c", "from cabin");
    mesh.wait_for("office", notes, "k", Some("from home, ahead"));
    mesh.wait_for("home", "notes", "o", Some("from office, ahead"));
    assert_eq!(mesh.get("cabin", notes, "k").as_deref(), Some("before"), "it is not believed yet");
    // While it lasts both sides say who waits for whom, for what, and what ends it; and so do the others' tools.
    let why = || state_of(mesh.node("cabin"), notes, "home").1;
    wait_until("it is said on the side that is right", || why().contains("clock: "));
    let why = why();
    assert!(why.contains("its clock is 36") && why.contains("s ahead of this machine's"), "{why}");
    assert!(why.contains("rows pass once both agree within 60 s"), "{why}");
    let why = || state_of(mesh.node("home"), "notes", "cabin").1;
    wait_until("it is said on the side that is ahead", || why().contains("clock: "));
    let why = why();
    assert!(why.contains("s behind this machine's"), "{why}");
    let said = explained(mesh.node("cabin"), notes, "home");
    assert!(said.contains("s ahead of this machine's"), "{said}");
    let report = doctor(mesh.node("cabin"));
    assert!(report.contains("s ahead of this machine's"), "{report}");
    // The directory passes in both directions.
    let everybody = |call: &str, at: &str, table: &str| {
        let arguments = ["*".into(), table.into(), "read,write".into()];
        mesh.node(at).connect().call(call, &arguments).expect("it is the owner's to decide");
    };
    let granted = |at: &str| {
        let info = mesh.node(at).connect().call("table_info", &[notes.as_str().into()]);
        info.expect("what is known of the table").to_string().contains("\"*\"")
    };
    assert!(granted("cabin"));
    everybody("acl_revoke", "home", "notes");
    wait_until("the revocation is on cabin", || !granted("cabin"));
    everybody("acl_grant", "home", "notes");
    wait_until("the grant is on cabin", || granted("cabin"));
    let somebody = Value::Map(vec![("uid".into(), 4242.into())]);
    let registered =
        mesh.node("cabin").connect().call("identity_register", &["late".into(), somebody]);
    registered.expect("root registers whom it wants");
    wait_until("who is registered on cabin is known to those ahead", || {
        mesh.node("home").connect().call("identity_lookup", &["late".into()]).is_ok()
    });
    sleep(Duration::from_secs(3));

    for at in ["home", "office"] {
        mesh.node(at).set_clock(0);
    }
    mesh.wait_for("cabin", notes, "k", Some("from home, ahead"));
    mesh.wait_for("cabin", notes, "o", Some("from office, ahead"));
    for (at, table) in [("home", "notes"), ("office", notes.as_str())] {
        mesh.wait_for(at, table, "c", Some("from cabin"));
    }
    // Whoever writes afterwards wins, although their clock is late by an hour.
    mesh.put("cabin", notes, "k", "after");
    mesh.wait_for("home", "notes", "k", Some("after"));
    everybody("acl_revoke", "home", "notes");
    wait_until("the revocation is on cabin", || !granted("cabin"));
    wait_until("all are in sync", || {
        let pairs =
            [("home", "notes", "cabin"), ("office", notes, "cabin"), ("cabin", notes, "home")];
        pairs.iter().all(|(at, table, node)| state_of(mesh.node(at), table, node).0 == "in_sync")
    });
    // What a restart forgets is not waited for again.
    mesh.node_mut("cabin").stop();
    mesh.put("home", "notes", "k", "last");
    mesh.node_mut("cabin").restart();
    mesh.wait_for("cabin", notes, "k", Some("last"));
    let lines = mesh.node("cabin").log();
    let told = lines.matches(" do not come through ").count();
    assert!(told <= 12, "{told} lines while a state lasted: {lines}");
}

/// holds R7, E3: what only the machine has that was ahead gets timestamps of the present, also where it was started
/// anew, and nobody else's clock is moved.
#[test]
fn a_machine_that_was_ahead_alone_moves_nobody_s_timestamps() {
    let mut mesh = Cluster::whole(&["home", "office"]);
    mesh.create("home", "notes", "all");
    let notes = &there("home", "notes");
    mesh.put("home", "notes", "k", "before");
    mesh.wait_for("office", notes, "k", Some("before"));
    mesh.node("home").set_clock(HOUR_MS);
    mesh.node("office").wait_for_log("the clock of home is 36");
    mesh.node("home").wait_for_log("the clock of office is 36");
    mesh.put("home", "notes", "k", "ahead");
    mesh.node("home").set_clock(0);
    mesh.node_mut("home").kill();
    mesh.node_mut("home").restart();
    mesh.wait_for("office", notes, "k", Some("ahead"));
    let events = mesh.node("home").cortex(&["events"]);
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    assert!(events.contains("clock_mended"), "{events}");
    assert!(!mesh.node("office").log().contains("taken with their timestamps"));
}

/// holds K2, E3: whatever the clock shows, at the start and later, what was put is got.
#[test]
fn what_is_put_is_got_whatever_the_clock_does() {
    let mut daemon = Daemon::start();
    let to_1970 = -i64::try_from(cortexd::sys::clock::wall_ms()).expect("small");
    let years = |years: i64| years * 365 * 24 * HOUR_MS;
    daemon
        .connect()
        .call("create_table", &["t".into(), Value::Array(vec!["id".into()])])
        .expect("made");
    let walls = [years(13), to_1970, 0, years(4000), to_1970 - HOUR_MS, years(-20), 1, 0];
    for (n, wall) in walls.into_iter().enumerate() {
        daemon.set_clock(wall);
        if n.is_multiple_of(2) {
            daemon.stop();
            daemon.restart();
        }
        for round in 0..3 {
            let text = format!("{n} {round}");
            let record = map([("id", "k".into()), ("text", text.as_str().into())]);
            let mut rpc = daemon.connect();
            assert_eq!(rpc.call("put", &["t".into(), record]), Ok("ok".into()));
            let found = rpc.call("get", &["t".into(), "k".into()]).expect("it is there");
            assert_eq!(field(&found, "text"), Some(&text.as_str().into()));
            rpc.call("delete", &["t".into(), "k".into()]).expect("deleted");
            assert!(rpc.call("get", &["t".into(), "k".into()]).is_err());
        }
    }
}
