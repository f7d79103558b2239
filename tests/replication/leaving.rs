//! Machines that go for good, and what becomes of those who come back all the same.

use rusqlite::Connection;

use crate::{
    cluster::{Cluster, there},
    daemon::{Daemon, wait_until},
    mesh::{is_connected, refused},
};

/// Names of the tables of a daemon's database that were made of copies that were given up, and what is in them.
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
fn a_copy_that_was_given_up_while_its_machine_was_away_is_put_aside_and_begins_anew() {
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
    scope(&["scope", "notes", "home", "--write-off", "cabin"]);
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
