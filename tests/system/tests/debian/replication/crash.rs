//! A machine is killed while its replica fills.

use super::{ALICE, Trio, asked, rows, wait_for_link, wait_until_equal};

/// holds R2, E3
#[test]
fn a_copy_that_was_killed_while_it_filled_goes_on_and_ends_whole() {
    let trio = Trio::with_alice();
    let (a, b) = (&trio.a, &trio.b);
    asked(a, ALICE, "cortex create @large id --scope a");
    a.sh_as(
        ALICE,
        "seq 40000 | sed 's/.*/{\"id\": &, \"text\": \"some text to be copied, number &\"}/' | cortex import @large -",
    );
    asked(a, ALICE, "cortex scope @large a,b");
    for _ in 0..3 {
        b.sh("systemctl kill --signal=KILL cortexd.service");
        b.wait_until("systemctl is-active cortexd.service && cortex ping");
    }
    wait_for_link(a, "b");
    wait_until_equal(a, "@large");
    assert_eq!(rows(b, "@large"), rows(a, "@large"));
    assert_eq!(asked(b, ALICE, "cortex sync status @large")["here"]["state"], "ready");
}
