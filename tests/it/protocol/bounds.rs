//! Every bound of cortex.toml, lowered and met: its exact error, and that the daemon serves everybody else on.
//! Leaves bounds that tell uids apart to `root_uids`, and which values the file may hold to `lifecycle`.

use std::thread::sleep;
use std::time::Duration;

use daemon::{Daemon, time_of, wait_until};
use rmpv::Value;
use rpc::{Rpc, failure, field, list, map, packed, put_raw, request, success};

use crate::support::{daemon, rpc};

/// The shortest time that a setting can bound anything to.
const SECOND: Duration = Duration::from_secs(1);

/// Later than this, a bound of a second does not hold, however busy the machine is.
const LATE: Duration = Duration::from_secs(15);

fn limited(limits: &str) -> (Daemon, Rpc) {
    let daemon = Daemon::with_config(&format!("[limits]\n{limits}\n"));
    let mut rpc = daemon.connect();
    rpc.create("t");
    (daemon, rpc)
}

fn assert_serves(daemon: &Daemon) {
    assert_eq!(daemon.connect().call("ping", &[]), Ok("pong".into()));
}

/// Waits for the daemon to close the connection: not before a second has passed, and not much later.
fn assert_closed_after_a_second(rpc: &mut Rpc) {
    let ((), took) = time_of(|| rpc.assert_closed());
    assert!(took < LATE, "closed after {took:?}");
}

// The size of a message.

/// A ping of so many bytes: its id stands in more bytes than it needs, its method is padded.
fn message_of(bytes: usize) -> Vec<u8> {
    let around = request(1, "x", &["".into()]).len();
    // The header of a long string takes four bytes more than that of an empty one.
    let message = request(1, "x", &["y".repeat(bytes - around - 4).into()]);
    assert_eq!(message.len(), bytes);
    message
}

fn check_message_bound(config: &str, bound: usize) {
    let daemon = Daemon::with_config(config);
    let mut rpc = daemon.connect();
    rpc.send(&message_of(bound));
    assert_eq!(rpc.receive().bytes, failure(1, "unknown method: x"));

    // The daemon may hang up before all of it is sent.
    let _sent = rpc.try_send(&message_of(bound + 1));
    assert_eq!(rpc.rest(), failure(1, &format!("request too large: at most {bound} bytes")));
    assert_serves(&daemon);
}

/// holds V6
#[test]
fn a_message_of_a_mebibyte_is_answered_and_one_byte_more_closes_the_connection() {
    check_message_bound("", 1 << 20);
    check_message_bound("[limits]\nmessage_bytes = 70000", 70_000);
}

/// holds V6: a length that is announced and does not fit closes the connection before any of it has come.
#[test]
fn a_message_that_will_be_too_large_is_not_waited_for() {
    let (daemon, _rpc) = limited("message_bytes = 4096");
    for announced in [
        b"\xdb\xff\xff\xff\xff".as_slice(),
        b"\xc6\x7f\xff\xff\xff",
        b"\xdd\x00\x00\x10\x00",
        b"\xdf\x80\x00\x00\x00",
        b"\xc9\x00\x01\x00\x00\x01",
        b"\x94\x00\x01\xa3put\x92\xa1t\xdf\x00\x00\x08\x00",
        // Nested, so that none is too large by itself.
        b"\xdc\x07\xff\xdc\x07\xff\xdc\x07\xff",
    ] {
        let mut rpc = daemon.connect();
        rpc.send(announced);
        // What is recognised as a request is refused under its id.
        let is_request = announced.starts_with(b"\x94\x00\x01");
        let refusal = failure(1, "request too large: at most 4096 bytes");
        assert_eq!(rpc.rest(), if is_request { refusal } else { Vec::new() });
    }
    assert_serves(&daemon);
}

/// What cannot be followed is not worth a line each: whoever can connect could fill the log.
#[test]
fn bytes_that_are_no_messagepack_close_the_connection_and_are_warned_of_once() {
    let daemon = Daemon::start();
    for bad in [b"\xc1".as_slice(), b"\x94\x00\x01\xc1", b"\xc1\xc1\xc1\xc1"].repeat(10) {
        let mut rpc = daemon.connect();
        rpc.send(bad);
        rpc.assert_closed();
    }
    let log = daemon.log();
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
    assert!(log.contains("WARN a connection sent what cannot be followed"), "{log}");
    assert!(log.contains(&format!("caller=uid:{}", nix::unistd::geteuid())), "{log}");
    assert_serves(&daemon);
}

/// A client of another protocol is no reason to stop, whatever its bytes happen to mean.
#[test]
fn a_client_of_another_protocol_is_answered_or_closed() {
    let daemon = Daemon::start();
    let mut rpc = daemon.connect();
    let http = b"GET / HTTP/1.1\r\n\r\n";
    rpc.send(http);
    for _ in http {
        assert_eq!(rpc.receive().bytes, failure(0, "invalid_request"));
    }
    let mut rpc = daemon.connect();
    let every_byte: Vec<u8> = (0..=u8::MAX).rev().collect();
    rpc.send(&every_byte);
    rpc.stream().shutdown(std::net::Shutdown::Write).expect("nothing more to say");
    rpc.rest();
    assert_serves(&daemon);
}

// Nesting.

/// `[0, id, "put", ["t", {"id": "k", "v": …}]]` with so many levels in all.
fn nested_put(id: u64, levels: usize) -> Vec<u8> {
    /// The message, its parameters and the record.
    const AROUND: usize = 3;
    let value = [vec![0x91; levels - AROUND], vec![0xc0]].concat();
    put_raw(id, "t", &[b"\x82\xa2id\xa1k\xa1v".as_slice(), &value].concat())
}

fn check_nesting_bound(limits: &str, bound: usize) {
    let (_daemon, mut rpc) = limited(limits);
    rpc.send(&nested_put(1, bound));
    assert_eq!(rpc.receive().bytes, success(1, "ok"));
    for levels in [bound + 1, 10 * bound, 100_000] {
        rpc.send(&nested_put(2, levels));
        assert_eq!(rpc.receive().bytes, failure(2, "invalid_request"), "{levels} levels");
    }
    let got = rpc.call("get", &["t".into(), "k".into()]).expect("the connection lives");
    let mut value = field(&got, "v").expect("its value");
    for _ in 0..bound - 3 {
        value = &value.as_array().expect("a list")[0];
    }
    assert_eq!(*value, Value::Nil);
}

#[test]
fn nesting_up_to_the_bound_is_stored_and_beyond_it_refused_on_a_connection_that_lives() {
    check_nesting_bound("", 64);
    check_nesting_bound("nesting = 4", 4);
    check_nesting_bound("nesting = 256", 256);
}

// Connections.

fn assert_turned_away(daemon: &Daemon) {
    let mut rpc = daemon.connect();
    assert_eq!(rpc.rest(), failure(0, "too_many_connections"));
}

fn check_connection_bound(limits: &str) {
    let daemon = Daemon::with_config(&format!("[limits]\n{limits}\n"));
    let mut first = daemon.connect();
    wait_until("only one connection is open", || {
        is_served(&mut first) && connections(&mut first) == 1 || {
            first = daemon.connect();
            false
        }
    });
    // Half-way through its first message, and it takes a place.
    let mut second = daemon.connect();
    second.send(b"\x94\x00\x01\xa4pi");
    wait_until("both are counted", || connections(&mut first) == 2);
    for _ in 0..20 {
        assert_turned_away(&daemon);
    }
    assert!(is_served(&mut first), "who was there stays");
    second.send(b"ng\x90");
    assert_eq!(second.receive().outcome, Ok("pong".into()), "half a message can be ended");

    drop(second);
    wait_until("there is room again", || connections(&mut first) == 1);
    assert!(is_served(&mut daemon.connect()));
}

fn is_served(rpc: &mut Rpc) -> bool {
    rpc.call("ping", &[]) == Ok("pong".into())
}

fn connections(rpc: &mut Rpc) -> u64 {
    let status = rpc.call("status", &[]).expect("status");
    field(&status, "connections").and_then(Value::as_u64).expect("a number")
}

/// holds V6
#[test]
fn connections_over_the_bound_are_told_so_and_those_that_are_there_stay() {
    check_connection_bound("connections_per_uid = 2");
    check_connection_bound("connections = 2");
}

/// holds V6: as many as one uid may have by default, all of them served at once.
#[test]
fn two_hundred_and_fifty_six_connections_of_one_uid_are_served() {
    let daemon = Daemon::start();
    let mut all: Vec<_> = (0..256).map(|_| daemon.connect()).collect();
    for rpc in &mut all {
        rpc.send(&request(1, "ping", &[]));
    }
    for rpc in &mut all {
        assert_eq!(rpc.receive().outcome, Ok("pong".into()));
    }
    assert_turned_away(&daemon);
}

// Time.

#[test]
fn a_connection_that_rests_too_long_is_closed() {
    let daemon = Daemon::with_config("[limits]\nidle_seconds = 1\n");
    let mut rpc = daemon.connect();
    for _ in 0..4 {
        sleep(SECOND / 3);
        assert!(is_served(&mut rpc), "each request counts anew");
    }
    assert_closed_after_a_second(&mut rpc);
    assert_serves(&daemon);
}

#[test]
fn a_message_that_does_not_come_to_its_end_closes_the_connection() {
    let daemon = Daemon::with_config("[limits]\nmessage_seconds = 1\n");
    let mut idle = daemon.connect();
    let mut half = daemon.connect();
    half.send(&request(1, "ping", &[])[..4]);
    assert_closed_after_a_second(&mut half);
    assert!(is_served(&mut idle), "between two messages there is all the time");
}

/// The bound is on the whole message: a byte now and then does not extend it.
#[test]
fn a_message_that_trickles_in_closes_the_connection() {
    let daemon = Daemon::with_config("[limits]\nmessage_seconds = 1\n");
    let mut rpc = daemon.connect();
    let message = request(1, "put", &["t".into(), "x".repeat(10_000).into()]);
    let sent = message.iter().take(200).take_while(|byte| {
        sleep(SECOND / 20);
        rpc.try_send(&[**byte]).is_ok()
    });
    assert!(sent.count() < 200, "after ten seconds it is still waited for");
    rpc.assert_closed();
    assert_serves(&daemon);
}

/// A table of some 4 MiB, which no buffer between the daemon and a client holds.
fn fill(rpc: &mut Rpc) {
    let text = "x".repeat(100_000);
    for n in 0..40 {
        let record = map([("id", n.into()), ("text", text.as_str().into())]);
        assert_eq!(rpc.call("put", &["t".into(), record]), Ok("ok".into()));
    }
}

#[test]
fn a_reader_that_accepts_nothing_any_more_is_closed() {
    let (daemon, mut rpc) = limited("stall_seconds = 1");
    fill(&mut rpc);
    let mut stalled = daemon.connect();
    stalled.send(&request(1, "all", &["t".into()]));
    assert_eq!(stalled.receive_array(1), 40);
    wait_until("it is closed", || connections(&mut rpc) == 1);
    let rest = stalled.rest();
    assert!(rest.len() < 4_000_000, "{} bytes came after all", rest.len());
    assert_serves(&daemon);
}

#[test]
fn a_whole_table_that_takes_too_long_is_broken_off() {
    let (daemon, mut rpc) = limited("scan_seconds = 1");
    fill(&mut rpc);
    let mut slow = daemon.connect();
    slow.send(&request(1, "all", &["t".into()]));
    assert_eq!(slow.receive_array(1), 40);
    // Never stalled, and yet not done in time.
    let taken = (0..40).take_while(|_| {
        sleep(SECOND / 10);
        slow.skip(10_000);
        connections(&mut rpc) > 1
    });
    assert!(taken.count() < 40, "after four seconds it is still being sent");
    assert_serves(&daemon);
}

/// Whoever finds no slot waits for one: nobody is refused, and what is short needs none.
#[test]
fn whole_tables_over_the_bound_are_read_in_turn() {
    let (daemon, mut rpc) = limited("scans = 1\nstall_seconds = 2");
    fill(&mut rpc);
    let mut first = daemon.connect();
    first.send(&request(1, "all", &["t".into()]));
    assert_eq!(first.receive_array(1), 40);
    let mut second = daemon.connect();
    second.send(&request(1, "keys", &["t".into(), map([("limit", 1.into())])]));
    assert_eq!(second.receive().outcome, Ok(list(["0".into()])), "short enough");
    second.send(&request(2, "all", &["t".into()]));
    sleep(SECOND / 4);
    assert!(second.is_open_and_silent(), "it waits for its turn");
    assert_serves(&daemon);
    // The first never goes on, and is closed for it.
    assert_eq!(second.receive_array(2), 40);
    for _ in 0..40 {
        second.element();
    }
}

// Names and keys.

#[test]
fn keys_over_the_bound_are_refused_where_they_are_written() {
    let check = |limits: &str, bound: usize| {
        let (_daemon, mut rpc) = limited(limits);
        let longest = "k".repeat(bound);
        let put =
            |rpc: &mut Rpc, key: &str| rpc.call("put", &["t".into(), map([("id", key.into())])]);
        assert_eq!(put(&mut rpc, &longest), Ok("ok".into()));
        let too_long = longest.clone() + "k";
        let error = Err(format!("key too long: at most {bound} bytes"));
        assert_eq!(put(&mut rpc, &too_long), error);
        let too_long = || vec!["t".into(), Value::from(too_long.as_str())];
        assert_eq!(rpc.call("delete", &too_long()), error);
        assert_eq!(rpc.call("get", &too_long()), Err("not_found".into()));
        assert_eq!(rpc.call("keys", &["t".into()]), Ok(list([longest.into()])));
    };
    check("", 4096);
    check("key_bytes = 16", 16);
}

#[test]
fn names_and_attributes_over_their_bounds_are_refused() {
    let (_daemon, mut rpc) = limited("");
    let longest = "n".repeat(128);
    let too_long = longest.clone() + "n";
    let mut create = |name: &str, attributes: Vec<String>| {
        let attributes = attributes.into_iter().map(Value::from).collect();
        rpc.call("create_table", &[name.into(), Value::Array(attributes)])
    };
    assert_eq!(create(&longest, vec![longest.clone()]), Ok("created".into()));
    let error = Err("name too long: at most 128 bytes".to_owned());
    assert_eq!(create(&too_long, vec!["id".into()]), error);
    assert_eq!(create("u", vec!["id".into(), too_long]), error);
    let attributes = |count: usize| (0..count).map(|n| format!("a{n}")).collect::<Vec<_>>();
    assert_eq!(create("u", attributes(64)), Ok("created".into()));
    assert_eq!(create("v", attributes(65)), Err("too many attributes: at most 64".into()));
    let twice = vec!["id".into(), "a".into(), "id".into()];
    assert_eq!(create("v", twice), Err("duplicate attribute name: id".into()));
}

// What one uid may own.

#[test]
fn tables_over_the_bound_are_refused_until_one_is_dropped() {
    let (mut daemon, mut rpc) = limited("tables_per_uid = 2");
    rpc.create("u");
    let another = ["v".into(), list(["id".into()])];
    let error = Err("too many tables: at most 2 for one user".to_owned());
    assert_eq!(rpc.call("create_table", &another), error);
    daemon.stop();
    daemon.restart();
    let mut rpc = daemon.connect();
    assert_eq!(rpc.call("create_table", &another), error, "after a restart too");
    assert_eq!(rpc.call("drop_table", &["u".into()]), Ok("dropped".into()));
    assert_eq!(rpc.call("create_table", &another), Ok("created".into()));
}

#[test]
fn bytes_over_the_quota_are_refused_until_some_are_given_back() {
    /// The key and the record: `{"id": "a", "v": <bytes>}`.
    fn record(key: &str, bytes: usize) -> Value {
        let around =
            1 + packed(&map([("id", key.into()), ("v", Value::Binary(vec![0; 99]))])).len() - 99;
        map([("id", key.into()), ("v", Value::Binary(vec![0; bytes - around]))])
    }
    let (mut daemon, mut rpc) = limited("bytes_per_uid = 200");
    let put = |rpc: &mut Rpc, key, bytes| rpc.call("put", &["t".into(), record(key, bytes)]);
    let (stored, error) =
        (Ok(Value::from("ok")), Err("quota exceeded: at most 200 bytes for one user".to_owned()));
    assert_eq!(put(&mut rpc, "a", 150), stored);
    assert_eq!(put(&mut rpc, "b", 51), error);
    assert_eq!(put(&mut rpc, "b", 50), stored, "exactly the quota");
    assert_eq!(put(&mut rpc, "a", 151), error, "a larger version");
    assert_eq!(put(&mut rpc, "a", 149), stored, "a smaller version");
    rpc.create("u");
    let elsewhere = ["u".into(), record("c", 30)];
    assert_eq!(rpc.call("put", &elsewhere), error, "all tables count together");
    daemon.kill();
    daemon.restart();
    let mut rpc = daemon.connect();
    assert_eq!(rpc.call("put", &elsewhere), error, "after a restart too");
    assert_eq!(rpc.call("delete", &["t".into(), "b".into()]), stored);
    assert_eq!(rpc.call("put", &elsewhere), stored);
    assert_eq!(put(&mut rpc, "b", 50), error);
    assert_eq!(rpc.call("drop_table", &["t".into()]), Ok("dropped".into()));
    assert_eq!(rpc.call("put", &["u".into(), record("d", 170)]), stored);
}

#[test]
fn a_tables_list_of_grants_is_bounded() {
    let (_daemon, mut rpc) = limited("");
    let grant = |n: u64, rights: &str| {
        request(n, "acl_grant", &[format!("uid:{n}").into(), "t".into(), rights.into()])
    };
    let granted = rpc.pipeline(&(1..=256).map(|n| grant(n, "read")).collect::<Vec<_>>());
    assert!(granted.iter().all(|response| response.outcome == Ok("granted".into())));
    let beyond = rpc.pipeline(&[grant(257, "read"), grant(256, "write")]);
    let error = "too many grants: at most 256 for one table";
    assert_eq!(beyond[0].outcome, Err(error.into()));
    assert_eq!(beyond[1].outcome, Ok("granted".into()), "one that is listed may get more");
    let revoke = ["uid:7".into(), "t".into(), "read".into()];
    assert_eq!(rpc.call("acl_revoke", &revoke), Ok("revoked".into()));
    assert_eq!(rpc.pipeline(&[grant(257, "read")])[0].outcome, Ok("granted".into()));
}
