//! Every machine is restarted in turn, and somebody goes on writing to it.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use system_tests::Host;

use super::{ALICE, Trio, asked, keys, wait_for_link, wait_until_equal};

/// Writes one record after another until told to stop; answers those that were confirmed.
fn count(host: &Host, name: &str, stop: &AtomicBool) -> BTreeSet<String> {
    let mut confirmed = BTreeSet::new();
    for n in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        let key = format!("{name}{n}");
        if host.run(ALICE, &format!("cortex put @count '{{\"id\": \"{key}\"}}'")).ok() {
            confirmed.insert(key);
        }
    }
    confirmed
}

/// holds R7, D4, E4
#[test]
fn nothing_that_was_confirmed_is_lost_while_all_machines_restart_in_turn() {
    let trio = Trio::with_alice();
    asked(&trio.a, ALICE, "cortex create @count id");
    wait_until_equal(&trio.a, "@count");
    let stop = AtomicBool::new(false);
    let confirmed = thread::scope(|scope| {
        let writers: Vec<_> = trio
            .all()
            .into_iter()
            .zip(["a", "b", "c"])
            .map(|(host, name)| {
                let stop = &stop;
                scope.spawn(move || count(host, name, stop))
            })
            .collect();
        for _ in 0..2 {
            for (host, others) in
                [(&trio.a, ["b", "c"]), (&trio.b, ["a", "c"]), (&trio.c, ["a", "b"])]
            {
                thread::sleep(Duration::from_secs(1));
                host.sh("systemctl restart cortexd.service");
                others.iter().for_each(|other| wait_for_link(host, other));
            }
        }
        stop.store(true, Relaxed);
        let counted = writers.into_iter().map(|writer| writer.join().expect("no panic"));
        counted.flatten().collect::<BTreeSet<_>>()
    });
    assert!(confirmed.len() > 100, "{}", confirmed.len());
    for host in trio.all() {
        wait_until_equal(host, "@count");
    }
    for host in trio.all() {
        let held = keys(host, "@count");
        let held: BTreeSet<_> =
            held.as_array().expect("a list").iter().filter_map(|key| key.as_str()).collect();
        let lost: Vec<_> = confirmed.iter().filter(|key| !held.contains(key.as_str())).collect();
        assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), confirmed.len());
    }
}
