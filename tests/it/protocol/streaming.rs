//! Replies of any size: exact under concurrent writes, paged, in bounded memory, whatever the reader's pace.
//! Leaves readers that are too slow to be waited for to `bounds`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{scope, sleep};
use std::time::Duration;

use daemon::{Daemon, wait_until};
use rmpv::Value;
use rpc::{Rpc, field, list, map, packed, request};

use crate::support::{daemon, rpc};

/// Rows of a table that takes 4 MiB: more than the 1 MiB that is gathered before a list is counted ahead.
const ROWS: u64 = 4096;

fn key(n: u64) -> String {
    format!("k{n:06}")
}

/// A record of about 1 KiB.
fn row(n: u64) -> Value {
    let text = format!("{n:>1000}");
    map([("id", key(n).into()), ("even", n.is_multiple_of(2).into()), ("text", text.into())])
}

/// Stores rows `0..rows`, over some connections at once, so that they share commits.
fn fill(daemon: &Daemon, rows: u64) {
    const CONNECTIONS: u64 = 16;
    daemon.connect().create("t");
    scope(|scope| {
        for first in 0..CONNECTIONS {
            scope.spawn(move || {
                let puts: Vec<_> = (first..rows)
                    .step_by(usize::try_from(CONNECTIONS).expect("small"))
                    .map(|n| request(n, "put", &["t".into(), row(n)]))
                    .collect();
                let stored = daemon.connect().pipeline(&puts);
                assert!(stored.iter().all(|response| response.outcome == Ok("ok".into())));
            });
        }
    });
}

fn filled() -> (Daemon, Rpc) {
    let daemon = Daemon::start();
    fill(&daemon, ROWS);
    let rpc = daemon.connect();
    (daemon, rpc)
}

/// Asks for a list; its elements.
fn listed(rpc: &mut Rpc, method: &str, params: &[Value]) -> Vec<Value> {
    match rpc.call(method, params) {
        Ok(Value::Array(elements)) => elements,
        other => panic!("{method} answered {other:?}"),
    }
}

fn page(limit: u64, after: &str) -> Value {
    map([("limit", limit.into()), ("after", after.into())])
}

/// holds V6
#[test]
fn a_list_larger_than_what_is_gathered_is_whole_and_in_order() {
    let (_daemon, mut rpc) = filled();
    let t = || Value::from("t");
    let rows = |numbers: Box<dyn Iterator<Item = u64>>| numbers.map(row).collect::<Vec<_>>();
    assert_eq!(listed(&mut rpc, "all", &[t()]), rows(Box::new(0..ROWS)));
    let even = rows(Box::new((0..ROWS).step_by(2)));
    assert_eq!(listed(&mut rpc, "match", &[t(), map([("even", true.into())])]), even);
    assert_eq!(listed(&mut rpc, "match", &[t(), map([])]).len() as u64, ROWS);
    let keys: Vec<Value> = (0..ROWS).map(|n| key(n).into()).collect();
    assert_eq!(listed(&mut rpc, "keys", &[t()]), keys);
    assert_eq!(rpc.call("ping", &[]), Ok("pong".into()), "the next reply is in its place");
}

/// holds V6
#[test]
fn pages_of_any_size_make_up_the_whole() {
    let (_daemon, mut rpc) = filled();
    let t = || Value::from("t");
    // Within what is gathered, around its end, far beyond it, and beyond the table's.
    for size in [700, 1023, 1024, 3000, ROWS - 1, ROWS, ROWS + 1] {
        let mut whole = Vec::new();
        loop {
            let after = whole.last().and_then(|row| field(row, "id")?.as_str()).unwrap_or("");
            let next = listed(&mut rpc, "all", &[t(), page(size, after)]);
            let left = ROWS - whole.len() as u64;
            assert_eq!(next.len() as u64, size.min(left), "pages of {size}");
            if next.is_empty() {
                break;
            }
            whole.extend(next);
        }
        assert!(whole.into_iter().eq((0..ROWS).map(row)), "pages of {size}");
    }
    for (method, params, expected) in [
        ("all", vec![t(), page(5000, &key(ROWS - 2))], vec![row(ROWS - 1)]),
        ("all", vec![t(), map([("after", key(ROWS).into())])], vec![]),
        ("keys", vec![t(), page(2, &key(9))], vec![key(10).into(), key(11).into()]),
        (
            "match",
            vec![t(), map([("even", true.into())]), page(2, &key(9))],
            vec![row(10), row(12)],
        ),
        ("match", vec![t(), map([("id", key(7).into())]), page(2, "")], vec![row(7)]),
    ] {
        assert_eq!(listed(&mut rpc, method, &params), expected, "{method} {params:?}");
    }
    let even_beyond =
        listed(&mut rpc, "match", &[t(), map([("even", true.into())]), page(2000, "")]);
    assert!(even_beyond.into_iter().eq((0..4000).step_by(2).map(row)));
}

/// holds V6: the length that an array announces is the number of elements that follow, and both
/// are those of one moment, whatever is written meanwhile.
#[test]
fn lists_are_exact_while_others_write() {
    let (daemon, mut rpc) = filled();
    let (ended, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    scope(|scope| {
        scope.spawn(|| churn(&daemon, &ended, &rounds));
        let begun = || rounds.load(SeqCst);
        for (id, (method, params)) in (1..).zip([
            ("all", vec![Value::from("t")]),
            ("keys", vec!["t".into()]),
            ("match", vec!["t".into(), map([])]),
            ("match", vec!["t".into(), map([("even", true.into())])]),
            ("all", vec!["t".into(), page(3 * ROWS, "")]),
        ]) {
            let before = begun();
            rpc.send(&request(id, method, &params));
            let length = rpc.receive_array(id);
            // Some of the writes fall between the first and the last piece.
            wait_until("something is written", || begun() > before + 1);
            let names: Vec<_> = (0..length).map(|_| name_of(&rpc.element())).collect();
            rpc.send(&request(99, "ping", &[]));
            assert_eq!(rpc.receive().id, 99, "{method} {params:?} is as long as it said");
            assert!(names.is_sorted_by(|a, b| a < b), "{method}: each row once");
            let fixed = names.iter().filter(|name| name.starts_with('k')).count() as u64;
            let is_half = params.get(1) == Some(&map([("even", true.into())]));
            assert_eq!(fixed, if is_half { ROWS / 2 } else { ROWS }, "{method} {params:?}");
            // The writer replaces one batch of 100 by the next, so never more than two are there.
            assert!(length - fixed <= 200, "{method}: {} rows of the writer", length - fixed);
        }
        ended.store(true, SeqCst);
    });
}

fn name_of(element: &Value) -> String {
    let name = element.as_str().or_else(|| field(element, "id")?.as_str());
    name.expect("a record or a key").to_owned()
}

/// Puts and deletes rows before, between and after those that stay.
fn churn(daemon: &Daemon, ended: &AtomicBool, rounds: &AtomicU64) {
    let mut rpc = daemon.connect();
    let names = |round: u64| {
        let place = ["a", "j", "z"][usize::try_from(round % 3).expect("small")];
        (0..100).map(move |n| format!("{place}{round}-{n}"))
    };
    for round in 0.. {
        let record = |name: String| map([("id", name.into()), ("text", "x".repeat(500).into())]);
        let puts = names(round).map(|name| request(1, "put", &["t".into(), record(name)]));
        rpc.pipeline(&puts.collect::<Vec<_>>());
        rounds.fetch_add(1, SeqCst);
        let deletes = names(round).map(|name| request(1, "delete", &["t".into(), name.into()]));
        rpc.pipeline(&deletes.collect::<Vec<_>>());
        if ended.load(SeqCst) {
            return;
        }
    }
}

/// holds V6: a long reply holds up nobody else, and what is pipelined behind it comes behind it.
#[test]
fn others_are_served_while_a_long_reply_waits_for_its_reader() {
    let (daemon, mut slow) = filled();
    slow.send(&request(1, "all", &["t".into()]));
    slow.send(&request(2, "put", &["t".into(), row(0)]));
    slow.send(&request(3, "keys", &["t".into(), page(1, "")]));
    assert_eq!(slow.receive_array(1), ROWS);
    let mut others: Vec<_> = (0..8).map(|_| daemon.connect()).collect();
    for rpc in &mut others {
        assert_eq!(rpc.call("get", &["t".into(), key(7).into()]), Ok(row(7)));
        assert_eq!(rpc.call("put", &["t".into(), row(7)]), Ok("ok".into()));
        assert_eq!(listed(rpc, "keys", &["t".into(), page(1, "")]), [key(0).into()]);
    }
    for n in 0..ROWS {
        assert_eq!(slow.element(), row(n));
    }
    assert_eq!(slow.receive().outcome, Ok("ok".into()));
    assert_eq!(slow.receive().outcome, Ok(list([key(0).into()])));
}

/// holds V6: what a reply costs in memory depends neither on its size nor on its reader.
#[test]
fn a_table_of_a_hundred_megabytes_is_sent_to_slow_readers_in_bounded_memory() {
    const MANY: u64 = 100_000;
    /// Of each list: what is gathered, the page cache of its connection to the database, buffers.
    const PER_LIST_KIB: u64 = 6 << 10;
    // The caches are full once the table is written, so that growth is the lists' alone.
    let daemon = Daemon::with_config("threads = 2\ncache_mib = 4\nrecord_cache_mib = 4\n");
    fill(&daemon, MANY);
    let before = daemon.memory_kib("VmRSS");

    scope(|scope| {
        for (method, params) in
            [("all", vec![Value::from("t")]), ("match", vec!["t".into(), map([])])]
        {
            let daemon = &daemon;
            scope.spawn(move || read_slowly(daemon, method, &params, MANY));
        }
    });
    let most = daemon.memory_kib("VmHWM");
    let bound = before + 2 * PER_LIST_KIB;
    assert!(most <= bound, "{most} KiB at the most, {before} KiB before, the bound is {bound} KiB");
}

/// Reads a whole table with pauses that let the daemon run ahead as far as it will.
fn read_slowly(daemon: &Daemon, method: &str, params: &[Value], rows: u64) {
    let mut rpc = daemon.connect();
    rpc.send(&request(1, method, params));
    assert_eq!(rpc.receive_array(1), rows);
    let row_bytes = packed(&row(0)).len();
    for n in 0..rows - 1 {
        if n % (rows / 10) == 0 {
            sleep(Duration::from_millis(100));
        }
        rpc.skip(row_bytes);
    }
    assert_eq!(rpc.element(), row(rows - 1), "all rows are of one length, and this is the last");
}
