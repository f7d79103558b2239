//! Pipelining: how messages are cut into packets changes nothing, and replies come in the order of the requests.
//! Leaves replies that are larger than memory to `streaming`.

use std::thread::scope;

use daemon::Daemon;
use rmpv::Value;
use rpc::{Rpc, list, map, request};

use crate::support::{daemon, rpc};

fn with_table() -> (Daemon, Rpc) {
    let daemon = Daemon::start();
    let mut rpc = daemon.connect();
    rpc.create("t");
    (daemon, rpc)
}

fn record(id: &str, n: u64) -> Value {
    map([("id", id.into()), ("n", n.into())])
}

/// Requests whose answers depend on those before, in every pair of kinds: reads, writes, tables, lists,
/// refusals. With the answer to each.
fn script() -> Vec<(&'static str, Vec<Value>, Result<Value, &'static str>)> {
    let t = || Value::from("t");
    vec![
        ("get", vec![t(), "k".into()], Err("not_found")),
        ("put", vec![t(), record("k", 1)], Ok("ok".into())),
        ("get", vec![t(), "k".into()], Ok(record("k", 1))),
        ("put", vec![t(), record("k", 2)], Ok("ok".into())),
        ("put", vec![t(), record("l", 3)], Ok("ok".into())),
        ("all", vec![t()], Ok(list([record("k", 2), record("l", 3)]))),
        ("delete", vec![t(), "k".into()], Ok("ok".into())),
        ("keys", vec![t()], Ok(list(["l".into()]))),
        ("put", vec![t(), Value::Nil], Err("invalid params: expected [table, record]")),
        ("put", vec![t(), record("k", 4)], Ok("ok".into())),
        ("put", vec![t(), map([])], Err("missing_key")),
        ("put", vec!["absent".into(), record("k", 4)], Err("access_denied")),
        ("match", vec![t(), map([("n", 4.into())])], Ok(list([record("k", 4)]))),
        ("create_table", vec!["u".into(), list(["id".into()])], Ok("created".into())),
        ("put", vec!["u".into(), record("a", 1)], Ok("ok".into())),
        ("create_table", vec!["u".into(), list(["id".into()])], Err("already_exists")),
        ("get", vec!["u".into(), "a".into()], Ok(record("a", 1))),
        ("put", vec!["u".into(), record("b", 1)], Ok("ok".into())),
        ("drop_table", vec!["u".into()], Ok("dropped".into())),
        ("put", vec!["u".into(), record("c", 1)], Err("access_denied")),
        ("create_table", vec!["u".into(), list(["key".into()])], Ok("created".into())),
        ("put", vec!["u".into(), record("a", 1)], Err("missing_key")),
        ("all", vec!["u".into()], Ok(list([]))),
        ("tables", vec![], Ok(list(["t".into(), "u".into()]))),
        ("acl_grant", vec!["uid:7".into(), "u".into(), "read".into()], Ok("granted".into())),
        ("drop_table", vec!["u".into()], Ok("dropped".into())),
        ("acl_list", vec![], Ok(list([owners_row("t")]))),
        ("delete", vec![t(), "k".into()], Ok("ok".into())),
        ("get", vec![t(), "k".into()], Err("not_found")),
        ("delete", vec![t(), "l".into()], Ok("ok".into())),
        ("nonsense", vec![], Err("unknown method: nonsense")),
        ("ping", vec![], Ok("pong".into())),
    ]
}

/// The row of the owner in `acl_list`.
fn owners_row(table: &str) -> Value {
    let uid = nix::unistd::geteuid();
    map([
        ("identity", format!("uid:{uid}").into()),
        ("table", format!("{uid}:{table}").into()),
        ("permissions", list(["read".into(), "write".into(), "admin".into()])),
    ])
}

fn requests(first_id: u64) -> Vec<Vec<u8>> {
    let of = |(id, (method, params, _)): (u64, (&str, Vec<Value>, _))| request(id, method, &params);
    (first_id..).zip(script()).map(of).collect()
}

/// Receives the answers to the whole script.
fn check_answers(rpc: &mut Rpc, first_id: u64) {
    for (id, (method, params, expected)) in (first_id..).zip(script()) {
        let response = rpc.receive();
        assert_eq!(response.id, id, "the answer to {method} {params:?} is not in its place");
        assert_eq!(response.outcome, expected.map_err(str::to_owned), "{id}: {method} {params:?}");
    }
}

/// holds V6: each request sees what those before it have done, also before they are answered.
#[test]
fn requests_in_one_packet_are_carried_out_and_answered_in_order() {
    let (_daemon, mut rpc) = with_table();
    rpc.send(&requests(1).concat());
    check_answers(&mut rpc, 1);
}

/// holds V6
#[test]
fn requests_that_arrive_a_byte_at_a_time_are_answered_alike() {
    let (_daemon, mut rpc) = with_table();
    for byte in requests(1).concat() {
        rpc.send(&[byte]);
    }
    check_answers(&mut rpc, 1);
}

/// holds V6: wherever a packet ends, within a header, a string or between two messages.
#[test]
fn packets_of_any_size_are_answered_alike() {
    let (_daemon, mut rpc) = with_table();
    let script = script().len() as u64;
    for (round, size) in [2, 3, 7, 13, 64, 333].into_iter().enumerate() {
        let first_id = 1 + round as u64 * script;
        for packet in requests(first_id).concat().chunks(size) {
            rpc.send(packet);
        }
        check_answers(&mut rpc, first_id);
    }
}

/// holds V6: more requests and more replies than the buffers between client and daemon hold.
#[test]
fn ten_thousand_requests_under_way_are_answered_in_order() {
    const KEYS: u64 = 100;
    let (_daemon, mut rpc) = with_table();
    let key = |n| format!("k{}", n % KEYS);
    let mut expected = Vec::new();
    for round in 0..50 {
        let numbers = round * KEYS..(round + 1) * KEYS;
        for n in numbers.clone() {
            expected.push(("put", vec!["t".into(), record(&key(n), n)], Value::from("ok")));
        }
        for n in numbers {
            expected.push(("get", vec!["t".into(), key(n).into()], record(&key(n), n)));
        }
    }
    let request =
        |(id, (method, params, _)): (u64, &(&str, Vec<Value>, _))| request(id, method, params);
    let requests: Vec<_> = (0..).zip(&expected).map(request).collect();
    let responses = rpc.pipeline(&requests);
    for ((id, response), (_, _, result)) in (0..).zip(responses).zip(expected) {
        assert_eq!((response.id, response.outcome), (id, Ok(result)));
    }
}

/// holds V6: what came before a value that is no request is answered, and so is what comes after.
#[test]
fn a_bad_message_among_good_ones_is_answered_in_its_place() {
    let (_daemon, mut rpc) = with_table();
    let too_deep = [[0x91; 100].as_slice(), &[0xc0]].concat();
    for bad in [b"\xc0".as_slice(), b"\x80", b"\x94\x01\x01\x01\x01", &too_deep] {
        let put = request(5, "put", &["t".into(), record("k", 1)]);
        rpc.send(&[&put, bad, &request(6, "ping", &[])].concat());
        let answers = [rpc.receive(), rpc.receive(), rpc.receive()];
        assert_eq!(answers.each_ref().map(|answer| answer.id), [5, 0, 6]);
        let [put, bad, ping] = answers.map(|answer| answer.outcome);
        assert_eq!(put, Ok("ok".into()));
        assert_eq!(bad, Err("invalid_request".into()));
        assert_eq!(ping, Ok("pong".into()));
    }
}

/// holds V6: an end of the stream makes nothing of what came before it undone or unanswered.
#[test]
fn requests_before_bytes_that_cannot_be_followed_are_answered() {
    let (daemon, mut rpc) = with_table();
    for (round, bad) in [b"\xc1".as_slice(), b"\xdb\xff\xff\xff\xff"].into_iter().enumerate() {
        let mut bad_client = daemon.connect();
        let key = format!("k{round}");
        let put = request(1, "put", &["t".into(), record(&key, 1)]);
        let get = request(2, "get", &["t".into(), key.as_str().into()]);
        let last = request(3, "put", &["t".into(), record(&key, 2)]);
        bad_client.send(&[&put, &get, &last, bad].concat());
        for expected in [Value::from("ok"), record(&key, 1), "ok".into()] {
            assert_eq!(bad_client.receive().outcome, Ok(expected));
        }
        bad_client.assert_closed();
        assert_eq!(rpc.call("get", &["t".into(), key.as_str().into()]), Ok(record(&key, 2)));
    }
}

/// holds V6: a client that has said all it will say still gets all its answers.
#[test]
fn a_client_that_closes_its_sending_side_gets_its_answers() {
    let (_daemon, mut rpc) = with_table();
    rpc.send(&requests(1).concat());
    rpc.stream().shutdown(std::net::Shutdown::Write).expect("close the sending side");
    check_answers(&mut rpc, 1);
    rpc.assert_closed();
}

/// holds V6: a put answered on one connection is seen on all others.
#[test]
fn many_connections_at_once_each_see_their_own_answers_and_each_others_writes() {
    const CLIENTS: u64 = 64;
    let (daemon, mut rpc) = with_table();
    scope(|scope| {
        for client in 0..CLIENTS {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut rpc = daemon.connect();
                for n in 0..20 {
                    let own = record(&format!("client{client}"), n);
                    assert_eq!(rpc.call("put", &["t".into(), own.clone()]), Ok("ok".into()));
                    let key = format!("client{client}").into();
                    assert_eq!(daemon.connect().call("get", &["t".into(), key]), Ok(own));
                }
            });
        }
    });
    let keys = rpc.call("keys", &["t".into()]).expect("keys");
    assert_eq!(keys.as_array().map(Vec::len), usize::try_from(CLIENTS).ok());
}
