//! A machine whose clock is wrong, and what happens a day later.

use serde_json::{Value, json};
use system_tests::{Host, wait_until};

use super::{ALICE, Trio, asked, keys, put, rows, state_of, wait_for_state, wait_until_equal};

/// Has the daemon believe another time.
fn set_clock(host: &Host, offset: &str) {
    let library = host.sh("find /usr/lib -name libfaketime.so.1");
    host.write(
        "/run/systemd/system/cortexd.service.d/clock.conf",
        &format!(
            "[Service]\nEnvironment=LD_PRELOAD={library} FAKETIME={offset} \
             FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1\n"
        ),
    );
    host.sh("systemctl daemon-reload && systemctl restart cortexd.service");
}

fn mend_clock(host: &Host) {
    host.sh("rm /run/systemd/system/cortexd.service.d/clock.conf
        systemctl daemon-reload && systemctl restart cortexd.service");
}

/// holds R5, R7, E3
#[test]
fn a_machine_an_hour_ahead_is_held_and_its_rows_are_there_once_its_clock_is_right() {
    let trio = Trio::with_alice();
    let (a, b, c) = (&trio.a, &trio.b, &trio.c);
    asked(a, ALICE, "cortex create @notes id");
    put(a, "@notes", &["before"]);
    wait_until_equal(a, "@notes");

    set_clock(c, "+1h");
    put(c, "@notes", &["from the future"]);
    put(a, "@notes", &["meanwhile"]);
    wait_for_state(a, "@notes", "b", "in_sync");
    wait_until(|| {
        let replica = state_of(a, "@notes", "c");
        let is_held = replica["state"] == "behind" && replica["why"].to_string().contains("clock");
        if is_held { Ok(()) } else { Err(replica.to_string()) }
    });
    assert_eq!(keys(b, "@notes"), json!(["before", "meanwhile"]), "no row goes either way");
    assert_eq!(keys(c, "@notes"), json!(["before", "from the future"]));

    mend_clock(c);
    for host in trio.all() {
        host.wait_until(
            "test \"$(runuser -u alice -- cortex keys @notes)\" = '[\"before\",\"from the future\",\"meanwhile\"]'",
        );
    }
    wait_until_equal(a, "@notes");
    assert_eq!(rows(c, "@notes"), rows(a, "@notes"));
}

/// What a host says of its own replica of a table, and of who keeps deletions from being forgotten.
fn deletions(host: &Host, table: &str) -> (Value, Value) {
    let status = asked(host, ALICE, &format!("cortex sync status {table}"));
    let table = if status.is_array() { &status[0] } else { &status };
    (table["here"]["tombstones"].clone(), table["deletions_kept_by"]["node"].clone())
}

/// holds R7
#[test]
fn a_deletion_is_forgotten_when_a_day_has_passed_and_all_have_said_that_they_have_it() {
    let trio = Trio::with_alice();
    let (a, b, c) = (&trio.a, &trio.b, &trio.c);
    asked(a, ALICE, "cortex create @notes id");
    put(a, "@notes", &["kept", "gone"]);
    wait_until_equal(a, "@notes");
    c.sh("systemctl stop cortexd.socket cortexd.service");
    b.sh_as(ALICE, "cortex delete @notes gone");
    wait_for_state(a, "@notes", "b", "in_sync");

    for host in [a, b] {
        set_clock(host, "+25h");
    }
    for host in [a, b] {
        wait_until(|| match deletions(host, "@notes") {
            (kept, by) if kept == 1 && by == "c" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    c.sh("systemctl start cortexd.socket");
    set_clock(c, "+25h");
    for host in trio.all() {
        wait_until(|| match deletions(host, "@notes") {
            (kept, by) if kept == 0 && by.is_null() => Ok(()),
            other => Err(format!("{other:?}")),
        });
        assert_eq!(keys(host, "@notes"), json!(["kept"]));
    }
    wait_until_equal(a, "@notes");
}
