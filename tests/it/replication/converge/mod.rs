//! Tables on several machines, as real daemons over real TLS: what is written on one is there on the others.
//! Leaves links to `peers`, and the rules in all their cases to the simulation.

mod clocks;
mod down;
mod erasure;
mod leaving;
mod quarantine;
mod restored;
mod strange;
mod words;

use cluster::{Cluster, there};
use daemon::wait_until;

use crate::support::{cluster, daemon, mesh, rpc};

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

/// holds R8: two machines that do not know each other's address converge through a third.
#[test]
fn a_chain_converges() {
    let mesh = Cluster::start(&["a", "b", "c"], &[("a", "b"), ("b", "c")]);
    mesh.create("a", "notes", "all");
    let notes = &there("a", "notes");
    mesh.put("a", "notes", 1, "from a");
    mesh.wait_for("c", notes, 1, Some("from a"));
    mesh.put("c", notes, 2, "from c");
    mesh.wait_for("a", "notes", 2, Some("from c"));
    mesh.delete("c", notes, 1);
    mesh.wait_for("a", "notes", 1, None);
    wait_until("all are equal", || {
        let everywhere = [("a", "notes"), ("b", notes), ("c", notes)];
        let [a, b, c] = everywhere.map(|(at, table)| mesh.all(at, table));
        a.is_some() && a == b && b == c
    });
    wait_until("a has heard of c's replica that it is the same, through b", || {
        let status = mesh.node("a").connect().call("sync_status_table", &["notes".into()]);
        let status = status.expect("the state of a table");
        let nodes = rpc::field(&status, "nodes").and_then(rmpv::Value::as_array).expect("nodes");
        let c = nodes.iter().find(|node| rpc::field(node, "node") == Some(&"c".into()));
        c.and_then(|c| rpc::field(c, "verified_ms")?.as_u64()).is_some()
            && rpc::field(&status, "deletions_kept_by") == Some(&rmpv::Value::Nil)
    });
}

/// holds R7
#[test]
fn a_machine_that_was_away_catches_up() {
    let mut mesh = Cluster::whole(&["home", "office"]);
    mesh.create("home", "notes", "all");
    let notes = &there("home", "notes");
    for n in 0..10 {
        mesh.put("home", "notes", n, "before");
    }
    mesh.wait_for("office", notes, 9, Some("before"));
    mesh.node_mut("office").stop();
    for n in 0..5 {
        mesh.delete("home", "notes", n);
        mesh.put("home", "notes", n + 100, "meanwhile");
    }
    mesh.node_mut("office").restart();
    wait_until("it has caught up", || mesh.all("office", notes) == mesh.all("home", "notes"));
    mesh.put("office", notes, 7, "after");
    mesh.wait_for("home", "notes", 7, Some("after"));
}

/// holds R7: a crash in the middle of the first transfer costs what was not stored, and no more.
#[test]
fn a_reader_that_is_killed_goes_on_where_it_was() {
    const ROWS: usize = 20_000;
    let mut mesh = Cluster::prepared(&["home", "office"], &[("home", "office")]);
    mesh.boot("home");
    mesh.create("home", "notes", "all");
    let text = "x".repeat(200);
    let put = |n: usize| {
        rpc::request(
            n as u64,
            "put",
            &["notes".into(), rpc::map([("id", n.into()), ("text", text.as_str().into())])],
        )
    };
    let puts: Vec<_> = (0..ROWS).map(put).collect();
    mesh.node("home").connect().pipeline(&puts);
    mesh.boot("office");
    let notes = &there("home", "notes");
    let count = |mesh: &Cluster| {
        mesh.node("office")
            .connect()
            .call("keys", &[notes.as_str().into()])
            .ok()
            .and_then(|keys| keys.as_array().map(Vec::len))
            .unwrap_or(0)
    };
    for part in [1, 2] {
        wait_until("some rows have come", || count(&mesh) >= part * ROWS / 10);
        mesh.node_mut("office").kill();
        mesh.node_mut("office").restart();
        assert!(count(&mesh) >= part * ROWS / 10, "what was there is there");
    }
    wait_until("all rows have come", || count(&mesh) == ROWS);
    assert_eq!(mesh.all("office", notes), mesh.all("home", "notes"));
}

/// holds S4: who is not in the scope never has a row, and who leaves it hands over what only it has.
#[test]
fn a_narrowed_scope_takes_the_rows_away() {
    let mesh = Cluster::whole(&["home", "office", "cabin"]);
    mesh.create("home", "notes", "home,office");
    let notes = &there("home", "notes");
    mesh.put("home", "notes", 1, "a secret of two machines");
    mesh.wait_for("office", notes, 1, Some("a secret of two machines"));
    mesh.put("office", notes, 2, "written on the second");
    let narrowed = mesh.node("home").connect().call("set_scope", &["notes".into(), "home".into()]);
    assert_eq!(narrowed, Ok("scope updated".into()));
    wait_until("office has no table any more", || mesh.all("office", notes).is_none());
    mesh.wait_for("home", "notes", 2, Some("written on the second"));
    for name in ["office", "cabin"] {
        wait_until("its file has no rows", || rows_in_file(&mesh, name) == 0);
        assert!(mesh.all(name, notes).is_none());
    }
    assert!(!mesh.node("cabin").log().contains("notes"));
}

/// The rows of all tables but the system's in a machine's file.
fn rows_in_file(mesh: &Cluster, name: &str) -> i64 {
    let path = mesh.node(name).data_dir().join("cortex.db");
    let conn =
        rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY);
    let conn = conn.expect("open the database");
    let rows = "SELECT count(*) FROM records WHERE table_id != 0";
    conn.query_row(rows, [], |row| row.get(0)).expect("count the rows")
}

/// holds R4, R7: both sides of a cut write on, and end with the same; what has lost is kept.
#[test]
fn both_sides_of_a_cut_end_with_the_same_row() {
    let mesh = Cluster::with_line("home", "office");
    mesh.create("home", "notes", "all");
    let notes = &there("home", "notes");
    mesh.put("home", "notes", 1, "before");
    mesh.put("home", "notes", 2, "before");
    mesh.wait_for("office", notes, 2, Some("before"));
    mesh.cut();
    mesh.put("home", "notes", 1, "of home");
    mesh.put("office", notes, 1, "of office");
    mesh.delete("home", "notes", 2);
    mesh.put("office", notes, 3, "of office");
    mesh.heal();
    mesh.wait_for("home", "notes", 1, Some("of office"));
    mesh.wait_for("office", notes, 1, Some("of office"));
    mesh.wait_for("home", "notes", 3, Some("of office"));
    mesh.wait_for("office", notes, 2, None);
    assert_eq!(mesh.all("home", "notes"), mesh.all("office", notes));
    // Where one side has merged the two before the other, the other hears of one row alone.
    let mut by = std::collections::BTreeSet::new();
    for (name, table) in [("home", "notes"), ("office", notes)] {
        let conflicts = mesh.node(name).connect().call("conflicts", &[table.into()]);
        let conflicts = conflicts.expect("a list");
        let lost = conflicts.as_array().expect("a list").iter();
        by.extend(lost.map(|lost| rpc::field(lost, "by").expect("a name").to_string()));
    }
    assert_eq!(by, ["\"home\"".to_owned()].into(), "what home has written has lost");
}

/// holds R4: each machine says how many conflicts every machine keeps, those too that it is not linked to, and
/// hears of it where somebody has taken note of them.
#[test]
fn conflicts_of_every_machine_are_known_on_every_machine() {
    let mut mesh = Cluster::start(&["a", "b", "c"], &[("a", "b"), ("b", "c")]);
    mesh.create("a", "notes", "all");
    let notes = &there("a", "notes");
    mesh.put("a", "notes", 1, "before");
    mesh.wait_for("c", notes, 1, Some("before"));
    mesh.node_mut("b").stop();
    mesh.put("a", "notes", 1, "of a");
    mesh.put("c", notes, 1, "of c");
    mesh.node_mut("b").restart();
    mesh.wait_for("a", "notes", 1, Some("of c"));

    let everywhere = [("a", "notes"), ("b", notes), ("c", notes)];
    let status = |(at, table): (&str, &str)| {
        let status = mesh.node(at).connect().call("sync_status_table", &[table.into()]);
        status.expect("the state of a table")
    };
    let number = |value: &rmpv::Value| rpc::field(value, "conflicts").and_then(rmpv::Value::as_u64);
    let kept = |place: (&str, &str)| {
        rpc::field(&status(place), "here").and_then(number).expect("a number")
    };
    let all_say =
        |total: u64| everywhere.iter().all(|place| number(&status(*place)) == Some(total));
    wait_until("somebody has met both versions, and all say so", || {
        let total = everywhere.into_iter().map(kept).sum();
        total > 0 && all_say(total)
    });
    wait_until("a says of each of the others what it says itself", || {
        let a = status(everywhere[0]);
        let nodes = rpc::field(&a, "nodes").and_then(rmpv::Value::as_array).expect("nodes");
        let is_right = |node: &rmpv::Value| {
            let name = rpc::field(node, "node").and_then(rmpv::Value::as_str).expect("a name");
            number(node) == Some(kept((name, notes)))
        };
        nodes.len() == 2 && nodes.iter().all(is_right)
    });

    for (at, table) in everywhere {
        mesh.node(at).connect().call("conflict_ack", &[table.into()]).expect("taken note of");
    }
    wait_until("all have heard that nothing is left", || all_say(0));
}

/// holds R2, S1
#[test]
fn a_table_that_is_dropped_is_dropped_everywhere_and_a_widened_one_spreads() {
    let mesh = Cluster::whole(&["home", "office"]);
    mesh.create("home", "notes", "local");
    mesh.put("home", "notes", 1, "older than the scope");
    let notes = &there("home", "notes");
    let widened = mesh.node("home").connect().call("set_scope", &["notes".into(), "all".into()]);
    assert_eq!(widened, Ok("scope updated".into()));
    mesh.wait_for("office", notes, 1, Some("older than the scope"));
    let dropped = mesh.node("home").connect().call("drop_table", &["notes".into()]);
    assert_eq!(dropped, Ok("dropped".into()));
    wait_until("it is gone", || mesh.all("office", notes).is_none());
    wait_until("its rows are too", || rows_in_file(&mesh, "office") == 0);
}

/// holds R8: rows of the largest size, more of them than fit into one message, and more tables than are
/// transferred at a time.
#[test]
fn large_rows_and_many_tables_arrive() {
    let mesh = Cluster::whole(&["home", "office"]);
    mesh.create("home", "large", "all");
    let noise = |seed: usize| -> String {
        let mut state = seed as u64 + 1;
        let step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + u8::try_from((state >> 33) % 90).expect("small"))
        };
        std::iter::repeat_with(step).take(1_000_000).collect()
    };
    for n in 0..6 {
        mesh.put("home", "large", n, &noise(n));
    }
    for n in 0..30 {
        mesh.create("home", &format!("small_{n}"), "all");
        mesh.put("home", &format!("small_{n}"), 1, "here");
    }
    for n in 0..30 {
        mesh.wait_for("office", &there("home", &format!("small_{n}")), 1, Some("here"));
    }
    let large = &there("home", "large");
    wait_until("the large ones are there", || {
        mesh.all("office", large) == mesh.all("home", "large")
    });
}
