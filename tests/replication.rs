//! Tables on several machines, as real daemons over real TLS: what is written on one is there on the others.
//! Leaves links to `peers`, and the rules in all their cases to the simulation.

#[path = "replication/cluster.rs"]
mod cluster;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/line.rs"]
mod line;
#[path = "support/mesh.rs"]
mod mesh;
#[path = "support/rpc.rs"]
mod rpc;

use cluster::{Cluster, there};
use daemon::wait_until;

/// holds R1, R2, R3: rows and deletions travel, in both directions.
#[test]
fn what_is_written_on_one_machine_is_there_on_the_other() {
    let mesh = Cluster::whole(&["home", "office"]);
    mesh.create("home", "notes", "all");
    mesh.put("home", "notes", "milk", "two bottles");
    let notes = &there("home", "notes");
    mesh.wait_for("office", notes, "milk", Some("two bottles"));
    mesh.put("office", notes, "bread", "one loaf");
    mesh.put("office", notes, "milk", "three bottles");
    mesh.wait_for("home", "notes", "bread", Some("one loaf"));
    mesh.wait_for("home", "notes", "milk", Some("three bottles"));
    mesh.delete("home", "notes", "milk");
    mesh.wait_for("office", notes, "milk", None);
    assert_eq!(mesh.all("home", "notes"), mesh.all("office", notes));
}
