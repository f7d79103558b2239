//! The protocols of the load generator: a skimmer that miscounts would benchmark
//! something else than it says. The generator itself has no test harness.

#[path = "../../../benches/load/msgpack.rs"]
mod msgpack;
#[path = "../../../benches/load/resp.rs"]
mod resp;
#[path = "../../../benches/load/wire.rs"]
mod wire;

use msgpack::Msgpack;
use proptest::prelude::*;
use resp::Resp;
use rmpv::Value;
use values::any_value;
use wire::{Key, Reply, Skimmed, Stop, VALUE_BYTES, Wire};

use crate::support::values;

const VALUE: [u8; VALUE_BYTES] = [0xc1; VALUE_BYTES];

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).expect("a Vec takes every value");
    bytes
}

fn decoded(bytes: &[u8]) -> Vec<Value> {
    let mut rest = bytes;
    let mut values = Vec::new();
    while !rest.is_empty() {
        values.push(rmpv::decode::read_value(&mut rest).expect("whole values"));
    }
    values
}

fn response(id: u64, error: Value, result: Value) -> Vec<u8> {
    encoded(&Value::Array(vec![1.into(), id.into(), error, result]))
}

fn map(entries: &[(&str, Value)]) -> Value {
    Value::Map(entries.iter().map(|(name, value)| (Value::from(*name), value.clone())).collect())
}

fn request(id: u64, method: &str, params: Vec<Value>) -> Value {
    Value::Array(vec![0.into(), id.into(), method.into(), Value::Array(params)])
}

/// Every prefix of a reply is partial, the whole is skimmed, what follows is left alone.
fn check_reply<W: Wire>(bytes: &[u8], expected: Reply) {
    let mut wire = W::default();
    for end in 0..bytes.len() {
        assert_eq!(wire.skim(&bytes[..end]), Err(Stop::Partial), "{end} bytes");
    }
    let len = bytes.len();
    let reply = expected;
    let followed = [bytes, b"\xc1\xc1"].concat();
    assert_eq!(wire.skim(&followed), Ok(Skimmed { len, reply }));
}

fn check_malformed<W: Wire>(bytes: &[u8]) {
    let skimmed = W::default().skim(bytes);
    assert!(matches!(skimmed, Err(Stop::Malformed(_))), "{skimmed:?}");
}

#[test]
fn keys_have_a_fixed_width_and_differ_by_row() {
    assert_eq!(Key::of(0).as_bytes(), b"key:00000000");
    assert_eq!(Key::of(90_417).as_bytes(), b"key:00090417");
}

#[test]
fn msgpack_requests_are_those_of_the_protocol() {
    let mut wire = Msgpack::default();
    let mut out = Vec::new();

    wire.ping(&mut out);
    wire.create_table(&mut out);
    wire.put(&mut out, &Key::of(7), &VALUE);
    wire.get(&mut out, &Key::of(7));

    let key = Value::from("key:00000007");
    let attributes = Value::Array(vec!["id".into(), "v".into()]);
    let record = map(&[("id", key.clone()), ("v", Value::Binary(VALUE.to_vec()))]);
    let expected = [
        request(0, "ping", vec![]),
        request(1, "create_table", vec!["bench".into(), attributes]),
        request(2, "put", vec!["bench".into(), record]),
        request(3, "get", vec!["bench".into(), key]),
    ];
    assert_eq!(decoded(&out), expected);
}

#[test]
fn a_msgpack_string_result_is_done() {
    check_reply::<Msgpack>(&response(0, Value::Nil, "ok".into()), Reply::Done);
}

#[test]
fn a_msgpack_record_counts_its_bytes() {
    let record = map(&[("id", "a".into()), ("v", Value::Binary(VALUE.to_vec()))]);
    let len = encoded(&record).len();
    check_reply::<Msgpack>(&response(0, Value::Nil, record), Reply::Record(len));
}

#[test]
fn a_msgpack_error_is_refused_with_its_text() {
    check_reply::<Msgpack>(
        &response(0, "not_found".into(), Value::Nil),
        Reply::Refused("not_found".to_owned()),
    );
}

#[test]
fn a_msgpack_reply_must_carry_the_id_that_is_due() {
    check_malformed::<Msgpack>(&response(1, Value::Nil, "ok".into()));

    let mut wire = Msgpack::default();
    for id in 0..70_000 {
        let bytes = response(id, Value::Nil, "ok".into());
        assert!(wire.skim(&bytes).is_ok(), "id {id} in its shortest encoding");
    }
    let wide_id = b"\x94\x01\xcf\x00\x00\x00\x00\x00\x01\x11\x70\xc0\xa2ok";
    assert!(wire.skim(wide_id).is_ok(), "70,000 in eight bytes");
}

#[test]
fn msgpack_that_is_no_expected_response_is_malformed() {
    check_malformed::<Msgpack>(&encoded(&request(0, "ping", vec![])));
    check_malformed::<Msgpack>(&encoded(&Value::from("pong")));
    check_malformed::<Msgpack>(&response(0, Value::Nil, Value::Nil));
    check_malformed::<Msgpack>(&response(0, Value::Nil, 1.into()));
    check_malformed::<Msgpack>(&response(0, false.into(), Value::Nil));
    check_malformed::<Msgpack>(b"\x94\x01\x00\xc0\xc1");
    check_malformed::<Msgpack>(b"\x94\x01\xa1a\xc0\xc0");
}

/// One that does not arrive in one piece among them.
fn value_of_any_size() -> impl Strategy<Value = Value> {
    prop_oneof![9 => any_value(), 1 => Just(Value::Binary(vec![7; 70_000]))]
}

proptest! {
    #[test]
    fn any_record_is_skimmed_to_its_last_byte(value in value_of_any_size(), cut in any::<prop::sample::Index>()) {
        let bytes = response(0, Value::Nil, map(&[("v", value)]));
        let mut wire = Msgpack::default();

        prop_assert_eq!(wire.skim(&bytes[..cut.index(bytes.len())]), Err(Stop::Partial));
        let skimmed = wire.skim(&bytes);

        prop_assert_eq!(skimmed.map(|skimmed| skimmed.len), Ok(bytes.len()));
    }

    #[test]
    fn arbitrary_bytes_are_skimmed_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let bytes = [b"\x94\x01\x00\xc0".as_slice(), &bytes].concat();
        if let Ok(skimmed) = Msgpack::default().skim(&bytes) {
            prop_assert!(skimmed.len <= bytes.len());
        }
        if let Ok(skimmed) = Resp.skim(&bytes[4..]) {
            prop_assert!(skimmed.len <= bytes.len());
        }
    }
}

#[test]
fn resp_requests_have_the_lengths_they_announce() {
    let mut out = Vec::new();

    Resp.ping(&mut out);
    Resp.put(&mut out, &Key::of(7), &VALUE);
    Resp.get(&mut out, &Key::of(7));

    let set: &[u8] = b"*3\r\n$3\r\nSET\r\n$12\r\nkey:00000007\r\n$100\r\n";
    let get: &[u8] = b"*2\r\n$3\r\nGET\r\n$12\r\nkey:00000007\r\n";
    let expected = [b"*1\r\n$4\r\nPING\r\n", set, &VALUE, b"\r\n", get].concat();
    assert_eq!(out, expected);
}

#[test]
fn resp_replies_are_told_apart() {
    check_reply::<Resp>(b"+OK\r\n", Reply::Done);
    check_reply::<Resp>(b"$5\r\nab\r\nc\r\n", Reply::Record(5));
    check_reply::<Resp>(b"$0\r\n\r\n", Reply::Record(0));
    check_reply::<Resp>(b"$-1\r\n", Reply::Refused("no such key".to_owned()));
    check_reply::<Resp>(b"-LOADING wait\r\n", Reply::Refused("LOADING wait".to_owned()));
}

#[test]
fn resp_that_was_not_asked_for_is_malformed() {
    check_malformed::<Resp>(b":1\r\n");
    check_malformed::<Resp>(b"\r\n");
    check_malformed::<Resp>(b"$x\r\n");
    check_malformed::<Resp>(b"$2\r\nabc\r\n");
}
