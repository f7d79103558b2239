//! The story from one end to the other: who she is, what is hers, where it is, and where it is not.

use serde_json::json;
use system_tests::wait_until;

use super::{ALICE, Trio, asked, keys, put, rows, state_of, wait_until_equal};

/// holds R1, R2, R3, R5, S2, S4, I1, N1
#[test]
fn a_table_is_where_its_owner_has_decided_and_nowhere_else() {
    let trio = Trio::with_alice();
    let (a, b, c) = (&trio.a, &trio.b, &trio.c);
    assert_eq!(asked(a, ALICE, "cortex create @notes id"), "created");
    put(a, "@notes", &["from a"]);
    wait_until_equal(a, "@notes");
    for host in trio.all() {
        assert_eq!(keys(host, "@notes"), json!(["from a"]));
    }
    put(b, "@notes", &["from b"]);
    c.wait_until("test \"$(runuser -u alice -- cortex keys @notes)\" = '[\"from a\",\"from b\"]'");
    c.sh_as(ALICE, "cortex delete @notes 'from a'");
    wait_until_equal(c, "@notes");
    for host in trio.all() {
        assert_eq!(keys(host, "@notes"), json!(["from b"]), "what is deleted is deleted");
    }
    for other in ["b", "c"] {
        let replica = state_of(a, "@notes", other);
        assert_eq!(replica["state"], "in_sync", "{replica}");
        assert!(replica["verified_ms"].as_u64().is_some_and(|ms| ms > 0), "{replica}");
    }

    // Two of three.
    asked(a, ALICE, "cortex create @few id --scope a,b");
    put(a, "@few", &["secret"]);
    wait_until_equal(a, "@few");
    assert_eq!(rows(b, "@few"), rows(a, "@few"));
    assert!(!c.run(ALICE, "cortex all @few").ok(), "c has no replica");
    let on_disk = "grep -c secret /var/lib/cortex/cortex.db /var/lib/cortex/cortex.db-wal | cut -d: -f2 | sort -u";
    assert_eq!(c.sh(on_disk), "0", "not for a moment");

    // Narrowed: b hands over what it has, and keeps nothing.
    put(b, "@few", &["handed over"]);
    asked(a, ALICE, "cortex scope @few a");
    wait_until(|| {
        let scope = asked(a, ALICE, "cortex scope @few");
        let left = !asked(b, ALICE, "cortex tables").to_string().contains("few");
        if left { Ok(()) } else { Err(scope.to_string()) }
    });
    assert_eq!(keys(a, "@few"), json!(["handed over", "secret"]));
    assert!(!b.run(ALICE, "cortex all @few").ok());
    let explained = asked(a, ALICE, "cortex explain @few --node b");
    assert!(explained.to_string().contains("scope"), "{explained}");
}

/// holds S4, R2
#[test]
fn widening_a_scope_fills_the_new_machine_and_dropping_a_table_drops_it_everywhere() {
    let trio = Trio::with_alice();
    let (a, b, c) = (&trio.a, &trio.b, &trio.c);
    asked(a, ALICE, "cortex create @list id --scope a");
    a.sh_as(
        ALICE,
        "for n in $(seq 1000); do echo \"{\\\"id\\\": $n}\"; done | cortex import @list -",
    );
    asked(a, ALICE, "cortex scope @list all");
    wait_until_equal(a, "@list");
    for host in [b, c] {
        assert_eq!(rows(host, "@list"), rows(a, "@list"));
    }
    b.sh_as(ALICE, "cortex drop @list");
    for host in [a, c] {
        host.wait_until("! runuser -u alice -- cortex info @list");
    }
}
