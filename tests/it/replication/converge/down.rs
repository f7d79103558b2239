//! A machine whose mesh is down: its own programs are served, it says why, and the mesh comes up by itself.
//! Which credentials are good is `pki`'s.

use std::fs;
use std::net::TcpListener;

use rmpv::Value;

use crate::replication::converge::cluster::Cluster;
use crate::replication::converge::daemon::{Daemon, wait_until};
use crate::replication::converge::mesh::{BOTH_USAGES, moment};
use crate::replication::converge::rpc::{field, list, map};

/// What the daemon answers to a question about its mesh; none where the mesh is up.
fn why_down(daemon: &Daemon) -> Option<String> {
    daemon.connect().call("mesh_status", &[]).err()
}

fn sees_office(daemon: &Daemon) -> bool {
    let Ok(status) = daemon.connect().call("mesh_status", &[]) else { return false };
    let peers = field(&status, "peers").and_then(Value::as_array).expect("an array").clone();
    peers.iter().any(|peer| {
        field(peer, "name") == Some(&"office".into())
            && field(peer, "connected") == Some(&true.into())
    })
}

/// Local programs are served, old tables and new ones, and everybody who asks is told what is wrong.
fn assert_only_the_mesh_is_down(daemon: &Daemon, table: &str, why: &str) {
    let said = why_down(daemon).expect("the mesh is down");
    assert!(said.starts_with("mesh_down: ") && said.contains(why), "{said}");
    let mut rpc = daemon.connect();
    let created = rpc.call("create_table", &[table.into(), list(["id".into()])]);
    assert_eq!(created, Ok("created".into()));
    for table in [table, "notes"] {
        let stored = rpc.call("put", &[table.into(), map([("id", 7.into())])]);
        assert_eq!(stored, Ok("ok".into()), "{table}");
    }
    let status = rpc.call("status", &[]).expect("the status");
    let told = field(&status, "mesh_down").and_then(Value::as_str).expect("the reason");
    assert!(told.contains(why), "{told}");
    let doctor = daemon.cortex(&["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("the mesh is down") && doctor.contains(why), "{doctor}");
    let is_it = |line: &&str| line.contains("the mesh is down") && line.contains(why);
    let lines = daemon.log().lines().filter(is_it).count();
    assert_eq!(lines, 1, "a state is told once: {}", daemon.log());
}

/// holds M1, M5
#[test]
fn what_keeps_a_machine_out_of_its_mesh_keeps_nothing_from_its_own_programs() {
    let mut mesh = Cluster::whole(&["home", "office"]);
    mesh.create("home", "notes", "all");
    let (list, kept) = (mesh.ca.path("ca.crl"), mesh.ca.path("kept.crl"));
    assert!(mesh.node_mut("home").stop().success());
    fs::rename(&list, &kept).expect("move it");
    mesh.node_mut("home").restart();
    assert_only_the_mesh_is_down(mesh.node("home"), "without_list", "revocation list");
    fs::rename(&kept, &list).expect("move it");
    wait_until("it comes up by itself", || sees_office(mesh.node("home")));
    mesh.wait_for_links();

    assert!(mesh.node_mut("home").stop().success());
    let port = mesh.port("home");
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("it is free");
    mesh.node_mut("home").restart();
    assert_only_the_mesh_is_down(mesh.node("home"), "without_port", "cannot listen");
    drop(taken);
    wait_until("it comes up once the port is free", || sees_office(mesh.node("home")));

    assert!(mesh.node_mut("home").stop().success());
    let ended = ["-startdate", &moment(-7200), "-enddate", &moment(-3600)];
    mesh.ca.issue_as("home", "home", BOTH_USAGES, &ended);
    mesh.node_mut("home").restart();
    assert_only_the_mesh_is_down(mesh.node("home"), "without_time", "certificate expired");
    mesh.ca.issue("home");
    mesh.node("home").connect().call("reload", &[]).expect("a reload tries at once");
    assert_eq!(why_down(mesh.node("home")), None);
    wait_until("it is reached again", || sees_office(mesh.node("home")));
}
