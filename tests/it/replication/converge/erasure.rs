//! A replica that has left its machine has left its disk: files are searched for what was in the rows.

use std::fs;
use std::path::{Path, PathBuf};

use rmpv::Value;

use crate::replication::converge::{
    cluster::{Cluster, there},
    daemon::{Daemon, wait_until},
    rpc::field,
};

const MARK: &str = "<a text that stands nowhere else>";

/// How often the text stands in the files of a daemon's data directory.
fn hits(daemon: &Daemon) -> usize {
    let files = fs::read_dir(daemon.data_dir()).expect("listed");
    let count = |path| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(MARK.len()).filter(|part| *part == MARK.as_bytes()).count()
    };
    files.map(|entry| count(entry.expect("an entry").path())).sum()
}

fn state_at(mesh: &Cluster, asked: &str, table: &str, node: &str) -> Option<String> {
    let scope = mesh.node(asked).connect().call("get_scope", &[table.into()]).ok()?;
    let replicas = field(&scope, "replicas").and_then(Value::as_array)?;
    let replica = replicas.iter().find(|replica| field(replica, "node") == Some(&node.into()))?;
    Some(field(replica, "state")?.as_str()?.to_owned())
}

fn shared(mesh: &Cluster) {
    mesh.create("home", "notes", "all");
    for n in 0..300 {
        mesh.put("home", "notes", n, &format!("{MARK} {n}"));
    }
    for n in 0..100 {
        mesh.put("home", "notes", n, &format!("{MARK} {n}, once more"));
    }
    let notes = &there("home", "notes");
    mesh.wait_for("office", notes, 299, Some(&format!("{MARK} 299")));
    mesh.wait_for("office", notes, 99, Some(&format!("{MARK} 99, once more")));
    for n in 50..100 {
        mesh.put("office", notes, n, &format!("{MARK} {n}, of office"));
    }
}

fn narrow(mesh: &Cluster) {
    let narrowed = mesh.node("home").cortex(&["scope", "notes", "home"]);
    assert!(narrowed.status.success(), "{narrowed:?}");
}

/// holds S4, S5
#[test]
fn a_replica_is_said_to_have_left_only_once_its_bytes_are_gone() {
    let mesh = Cluster::whole(&["home", "office"]);
    shared(&mesh);
    assert!(hits(mesh.node("office")) > 0, "it is there");
    narrow(&mesh);
    let mut state = None;
    wait_until("office has left", || {
        // Counted before asking: what was there a moment before it was said does not matter.
        state = state_at(&mesh, "home", "notes", "office");
        state.as_deref() == Some("left")
    });
    assert_eq!(hits(mesh.node("office")), 0, "and with it every byte");
    let events = mesh.node("office").connect().call("events", &[]).expect("events").to_string();
    assert!(events.contains("table_left") && events.contains("overwritten"), "{events}");
}

/// holds S5: killed between handing over and emptying the log.
#[test]
fn a_crash_before_the_bytes_are_gone_says_nothing_too_early() {
    let mut mesh = Cluster::whole(&["home", "office"]);
    shared(&mesh);
    narrow(&mesh);
    let database = mesh.node("office").data_dir().join("cortex.db");
    wait_until("its rows are out of sight", || {
        let db = rusqlite::Connection::open(&database).expect("the database");
        let count = |sql| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap_or(0);
        count(
            "SELECT (SELECT count(*) FROM departures) + (SELECT count(*) FROM events WHERE kind = 'table_left')",
        ) > 0
    });
    mesh.node_mut("office").kill();
    mesh.node_mut("office").restart();
    wait_until("office has left", || {
        state_at(&mesh, "home", "notes", "office").as_deref() == Some("left")
    });
    assert_eq!(hits(mesh.node("office")), 0);
}

/// A backup of a machine, in a file.
fn backup_of(daemon: &Daemon) -> PathBuf {
    let backup = daemon.connect().call("backup", &[]).expect("a backup");
    let parts = backup.as_array().expect("its parts").iter();
    let bytes: Vec<u8> = parts.flat_map(|part| part.as_slice().expect("bytes").to_vec()).collect();
    let file = daemon.directory().join("backup");
    fs::write(&file, bytes).expect("written");
    file
}

/// Puts a backup in the place of a machine's database, of which nothing is kept.
fn restore(mesh: &mut Cluster, name: &str, backup: &Path) {
    mesh.node_mut(name).stop();
    let restored = cortexd::store::restore(backup, &mesh.node(name).data_dir()).expect("restored");
    fs::remove_file(restored.kept.expect("what was there before")).expect("removed");
    mesh.node_mut(name).restart();
}

/// holds S5
#[test]
fn a_replica_that_a_restore_has_brought_back_leaves_no_byte_either() {
    let mut mesh = Cluster::whole(&["home", "office"]);
    shared(&mesh);
    let backup = backup_of(mesh.node("office"));
    restore(&mut mesh, "office", &backup);
    mesh.wait_for_links();
    narrow(&mesh);
    wait_until("office has left", || {
        state_at(&mesh, "home", "notes", "office").as_deref() == Some("left")
    });
    assert_eq!(hits(mesh.node("office")), 0, "in the file that is in use");
}

/// holds S4, S5: a backup from before it had left brings back the rows, and takes a write before the machine hears
/// that it had left. That write reaches the others, and nothing of the rest stays, in a table of another name either.
#[test]
fn a_replica_that_had_left_before_a_restore_hands_over_what_is_new_and_leaves_again() {
    let mut mesh = Cluster::with_line("home", "office");
    shared(&mesh);
    let backup = backup_of(mesh.node("office"));
    narrow(&mesh);
    let has_left = |mesh: &Cluster| {
        state_at(mesh, "home", "notes", "office").as_deref() == Some("left")
            && hits(mesh.node("office")) == 0
    };
    wait_until("office has left", || has_left(&mesh));
    mesh.delete("home", "notes", 1);
    mesh.cut();
    restore(&mut mesh, "office", &backup);
    let notes = &there("home", "notes");
    mesh.put("office", notes, 2, &format!("{MARK} of the restored one"));
    mesh.heal();
    mesh.wait_for("home", "notes", 2, Some(&format!("{MARK} of the restored one")));
    wait_until("office has left again", || has_left(&mesh));
    assert_eq!(mesh.get("home", "notes", 1), None, "a deletion since then stays one");
    let events = mesh.node("office").connect().call("events", &[]).expect("events").to_string();
    assert!(events.contains("table_resumed") && !events.contains("table_rescued"), "{events}");
}

/// holds S5: rows, versions that have lost, and what was kept of deletions.
#[test]
fn nothing_of_a_dropped_table_is_on_any_machine_soon_after() {
    let mesh = Cluster::with_line("home", "office");
    shared(&mesh);
    let notes = &there("home", "notes");
    mesh.cut();
    for n in 200..210 {
        mesh.put("home", "notes", n, &format!("{MARK} {n}, by home"));
        mesh.put("office", notes, n, &format!("{MARK} {n}, by office"));
    }
    for n in 210..220 {
        mesh.delete("home", "notes", n);
    }
    mesh.heal();
    wait_until("the two have met", || mesh.all("home", "notes") == mesh.all("office", notes));
    let dropped = mesh.node("home").cortex(&["drop", "notes", "--yes"]);
    assert!(dropped.status.success(), "{dropped:?}");
    for name in ["home", "office"] {
        wait_until(&format!("nothing of it is on {name}"), || hits(mesh.node(name)) == 0);
    }
}
