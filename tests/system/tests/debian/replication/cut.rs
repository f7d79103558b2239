//! The network is cut, or loses packets.

use std::{thread, time::Duration};

use serde_json::json;
use system_tests::Host;

use super::{ALICE, Trio, asked, keys, put, rows, wait_for_link, wait_for_state, wait_until_equal};

/// How long the cut lasts.
const CUT: Duration = Duration::from_secs(60);

/// Has a host hear nothing of the mesh, nor be heard.
fn cut(host: &Host) {
    host.sh("nft add table inet cut
        for way in input output; do
            nft \"add chain inet cut $way { type filter hook $way priority 0; }\"
            nft add rule inet cut $way meta oifname host0 drop 2>/dev/null || true
            nft add rule inet cut $way meta iifname host0 drop 2>/dev/null || true
        done");
}

fn heal(host: &Host) {
    host.sh("nft delete table inet cut");
}

/// holds R4, R5, R7
#[test]
fn both_sides_of_a_cut_go_on_and_are_one_afterwards() {
    let trio = Trio::with_alice();
    let (a, b, c) = (&trio.a, &trio.b, &trio.c);
    asked(a, ALICE, "cortex create @notes id");
    put(a, "@notes", &["kept", "deleted on a", "deleted on c", "both"]);
    wait_until_equal(a, "@notes");

    cut(c);
    put(a, "@notes", &["from a"]);
    a.sh_as(ALICE, "cortex delete @notes 'deleted on a'");
    put(c, "@notes", &["from c"]);
    c.sh_as(ALICE, "cortex delete @notes 'deleted on c'");
    a.sh_as(ALICE, "cortex put @notes '{\"id\": \"both\", \"by\": \"a\"}'");
    c.sh_as(ALICE, "cortex put @notes '{\"id\": \"both\", \"by\": \"c\"}'");
    wait_for_state(a, "@notes", "b", "in_sync");
    wait_for_state(a, "@notes", "c", "behind");
    assert_eq!(keys(c, "@notes"), json!(["both", "deleted on a", "from c", "kept"]), "c works on");
    thread::sleep(CUT);
    heal(c);

    wait_for_link(a, "c");
    wait_for_link(b, "c");
    wait_until_equal(a, "@notes");
    wait_until_equal(c, "@notes");
    assert_eq!(keys(a, "@notes"), json!(["both", "from a", "from c", "kept"]));
    for host in [b, c] {
        assert_eq!(rows(host, "@notes"), rows(a, "@notes"));
    }
    let conflicts = trio.all().map(|host| asked(host, ALICE, "cortex conflicts @notes"));
    assert!(
        conflicts.iter().any(|seen| seen.to_string().contains("both")),
        "the version that lost is kept: {conflicts:?}"
    );
    assert!(
        conflicts.iter().all(|seen| !seen.to_string().contains("kept")),
        "and nothing else is a conflict: {conflicts:?}"
    );
}

/// holds R1, R7
#[test]
fn a_tenth_of_the_packets_is_lost_and_no_row() {
    let trio = Trio::with_alice();
    let (a, b, c) = (&trio.a, &trio.b, &trio.c);
    asked(a, ALICE, "cortex create @notes id");
    for host in trio.all() {
        host.sh("nft add table inet loss
            nft \"add chain inet loss in { type filter hook input priority 0; }\"
            nft add rule inet loss in iifname host0 numgen random mod 10 == 0 drop");
    }
    for (host, by) in [(a, "a"), (b, "b"), (c, "c")] {
        host.sh_as(
            ALICE,
            &format!(
                "for n in $(seq 500); do echo \"{{\\\"id\\\": \\\"{by}$n\\\"}}\"; done | cortex import @notes -"
            ),
        );
    }
    for host in trio.all() {
        wait_until_equal(host, "@notes");
    }
    assert_eq!(keys(a, "@notes").as_array().map(Vec::len), Some(1500));
    for host in [b, c] {
        assert_eq!(rows(host, "@notes"), rows(a, "@notes"));
    }
}
