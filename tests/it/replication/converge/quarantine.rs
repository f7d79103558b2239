//! Rows of the directory that cannot be verified: they are not believed, and stand in the way of no others.
//! That every other row needs its signature is `store::system`'s; who may write which, the core's.

use rmpv::Value;

use crate::replication::converge::cluster::{Cluster, there};
use crate::replication::converge::daemon::{Daemon, wait_until};
use crate::replication::converge::mesh::peer;
use crate::replication::converge::rpc::{field, map};

fn register(daemon: &Daemon, name: &str, uid: u32) {
    let wish = map([("uid", uid.into())]);
    daemon.connect().call("identity_register", &[name.into(), wish]).expect("registered");
}

fn identities(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.connect().call("identity_list", &[]).expect("a list");
    let listed = listed.as_array().expect("a list").iter();
    listed.map(|who| field(who, "fed_id").expect("a name").as_str().expect("text").into()).collect()
}

/// What a machine says of the directory that home passes on.
fn directory_of_home(daemon: &Daemon) -> Option<String> {
    let home = peer(daemon, "home");
    field(&home, "directory").and_then(Value::as_str).map(str::to_owned)
}

/// holds M5, R3: a machine that comes later cannot verify what one wrote whose certificate was revoked meanwhile.
/// It believes none of it, says so, learns all the rest, and believes it once it is signed anew.
#[test]
fn rows_that_cannot_be_verified_are_not_believed_and_hold_up_no_others() {
    let names = ["home", "cabin", "office"];
    let mut mesh = Cluster::prepared(&names, &[("home", "cabin"), ("home", "office")]);
    mesh.boot("home");
    mesh.boot("cabin");
    register(mesh.node("cabin"), "carol", 4001);
    register(mesh.node("home"), "dave", 4002);
    mesh.create("home", "notes", "all");
    mesh.put("home", "notes", 1, "of home");
    mesh.create("home", "letters", "all");
    mesh.put("home", "letters", 1, "of home");
    let (notes, letters) = (&there("home", "notes"), &there("home", "letters"));
    let grant = |at: &str, table: &str, who: &str, right: &str| {
        let granting = [who.into(), table.into(), right.into()];
        mesh.node(at).connect().call("acl_grant", &granting)
    };
    grant("home", "letters", "*", "admin").expect("granted");
    wait_until("cabin has heard that it may", || {
        grant("cabin", letters, "uid:4001", "read").is_ok()
    });
    wait_until("home knows what cabin has granted", || {
        let info = mesh.node("home").connect().call("table_info", &["letters".into()]);
        info.expect("its data").to_string().contains("uid:4001@cabin")
    });
    wait_until("home knows of both", || identities(mesh.node("home")) == ["carol", "dave"]);
    mesh.node_mut("cabin").stop();
    mesh.ca.revoke("cabin");

    mesh.boot("office");
    mesh.wait_for("office", notes, 1, Some("of home"));
    let status = mesh.node("office").connect().call("sync_status", &[]).expect("how replicas are");
    assert!(!status.to_string().contains("letters"), "cabin may have taken rights on it away");
    wait_until("office knows of dave", || identities(mesh.node("office")) == ["dave"]);
    let trouble = directory_of_home(mesh.node("office")).expect("it says so");
    assert!(trouble.contains("cannot be verified") && trouble.contains("by cabin"), "{trouble}");
    let doctor = mesh.node("office").cortex(&["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("of what home passes on"), "{doctor}");
    let explained = mesh.node("office").cortex(&["explain", letters]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("of what home passes on, "), "{explained}");
    assert!(explained.contains("\"do\":\"for the node that has written them"), "{explained}");
    assert!(!explained.contains("sync wait"), "no waiting makes them believed: {explained}");
    wait_until("it is written down", || {
        let events = mesh.node("office").connect().call("events", &[]).expect("the events");
        let written = events.to_string();
        written.contains("row_unverified") && written.contains("+node/cabin")
    });
    register(mesh.node("home"), "erin", 4003);
    wait_until("what is new comes all the same", || {
        identities(mesh.node("office")) == ["dave", "erin"]
    });
    mesh.node_mut("office").stop();
    mesh.node_mut("office").restart();
    wait_until("a restart changes nothing of it", || {
        directory_of_home(mesh.node("office")).is_some_and(|now| now.contains("by cabin"))
    });
    assert_eq!(identities(mesh.node("office")), ["dave", "erin"]);
    assert_eq!(mesh.get("office", letters, 1), None);

    mesh.ca.issue("cabin");
    mesh.node_mut("cabin").restart();
    wait_until("carol is known once cabin has signed anew", || {
        identities(mesh.node("office")) == ["carol", "dave", "erin"]
    });
    mesh.wait_for("office", letters, 1, Some("of home"));
    wait_until("nothing is quarantined any more", || {
        directory_of_home(mesh.node("office")).is_none()
    });
}
