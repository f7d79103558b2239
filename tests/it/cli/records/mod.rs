//! What a record holds comes back as it was written: every type, byte for byte, also after a restart.
//! Leaves what the methods answer otherwise to `wire_v1`.

mod command_line;

use std::cell::RefCell;

use daemon::Daemon;
use proptest::prelude::*;
use rmpv::Value;
use rpc::{Rpc, packed, put_raw, request, success};
use values::any_value;

use crate::support::{daemon, rpc, tool, values};

/// Records whose bytes no encoder chooses, and that are MessagePack all the same: `{"id": "k", "v": …}`.
const UNUSUAL: [(&[u8], &str); 18] = [
    (b"\xd3\x00\x00\x00\x00\x00\x00\x00\x01", "1 in nine bytes"),
    (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "the largest integer"),
    (b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", "the least integer"),
    (b"\xca\x7f\xc0\x00\x01", "a NaN with a payload, in four bytes"),
    (b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x01", "a signalling NaN"),
    (b"\xcb\x80\x00\x00\x00\x00\x00\x00\x00", "minus zero"),
    (b"\xcb\xff\xf0\x00\x00\x00\x00\x00\x00", "minus infinity"),
    (b"\xdb\x00\x00\x00\x01a", "a short string with a long header"),
    (b"\xa2\xff\xfe", "a string that is no UTF-8"),
    (b"\xc6\x00\x00\x00\x01a", "short bytes with a long header"),
    (b"\xdd\x00\x00\x00\x01\xc0", "a short array with a long header"),
    (b"\xdf\x00\x00\x00\x01\xc0\xc0", "a map with nil as a key"),
    (b"\x82\xa1a\x01\xa1a\x02", "a map with a key twice"),
    (b"\x81\x91\x01\x02", "a map with an array as a key"),
    (b"\xd4\x00\x01", "an extension of one byte"),
    (b"\xd6\xff\x00\x00\x00\x00", "a timestamp"),
    (b"\xc7\x00\x05", "an extension of no bytes"),
    (b"\xc9\x00\x00\x00\x01\x7fa", "a short extension with a long header"),
];

fn with_table() -> (Daemon, Rpc) {
    let daemon = Daemon::start();
    let mut rpc = daemon.connect();
    rpc.create("t");
    (daemon, rpc)
}

fn record_of(value: &[u8]) -> Vec<u8> {
    [b"\x82\xa2id\xa1k\xa1v".as_slice(), value].concat()
}

/// Puts a record and reads it back in each way there is.
fn check(rpc: &mut Rpc, record: &[u8], what: &str) {
    let select_all = &["t".into(), Value::Map(Vec::new())][..];
    let responses = rpc.pipeline(&[
        put_raw(1, "t", record),
        request(2, "get", &["t".into(), "k".into()]),
        request(3, "all", &["t".into()]),
        request(4, "match", select_all),
    ]);
    assert_eq!(responses[0].bytes, success(1, "ok"), "{what}");
    let got = [b"\x94\x01\x02\xc0".as_slice(), record].concat();
    assert_eq!(responses[1].bytes, got, "{what}");
    for listed in &responses[2..] {
        assert!(listed.bytes.ends_with(&[b"\x01", record].concat()), "{what}: {listed:x?}");
    }
}

/// holds V2
#[test]
fn unusual_encodings_come_back_byte_for_byte_also_after_a_restart() {
    let (mut daemon, mut rpc) = with_table();
    for (value, what) in UNUSUAL {
        check(&mut rpc, &record_of(value), what);
    }
    let key_twice = b"\x83\xa2id\xa1x\xa2id\xa1k\x05\x06";
    check(&mut rpc, key_twice, "the key field twice, the last one counts, and a field of no name");
    let all_of_them: Vec<u8> =
        UNUSUAL.iter().flat_map(|(value, _)| value.iter().copied()).collect();
    let whole = record_of(&[b"\xdc\x00\x12".as_slice(), &all_of_them].concat());
    check(&mut rpc, &whole, "all of them in an array");

    daemon.kill();
    daemon.restart();
    let got = daemon.connect().exchange("get", &["t".into(), "k".into()]);
    assert_eq!(got.bytes, [b"\x94\x01\x01\xc0".as_slice(), &whole].concat());
}

/// holds V2, V6: the largest record that a request can carry.
#[test]
fn a_record_of_nearly_a_mebibyte_comes_back() {
    const REQUEST: usize = 1 << 20;
    let (_daemon, mut rpc) = with_table();
    let around =
        put_raw(1, "t", &record_of(&packed(&Value::Binary(vec![0; 1 << 17])))).len() - (1 << 17);
    let bytes = (0..=u8::MAX).cycle().take(REQUEST - around).collect();
    let record = record_of(&packed(&Value::Binary(bytes)));
    assert_eq!(put_raw(1, "t", &record).len(), REQUEST, "the largest request there is");
    check(&mut rpc, &record, "the largest record");
}

/// holds V2
#[test]
fn any_record_comes_back_byte_for_byte() {
    let (_daemon, rpc) = with_table();
    let rpc = RefCell::new(rpc);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) };
    proptest!(config, |(value in any_value(), fields in prop::collection::vec((".{0,20}", any_value()), 0..6))| {
        let fields = fields.into_iter().filter(|(name, _)| name != "id");
        let mut record = vec![("v".into(), value)];
        record.extend(fields.map(|(name, value)| (name.into(), value)));
        record.push(("id".into(), "k".into()));
        check(&mut rpc.borrow_mut(), &packed(&Value::Map(record)), "a record");
    });
}
