//! A connection that goes wrong in the middle: what was asked before is answered, and then it is closed.
//! Leaves requests that are well formed and refused to other tests, and arbitrary bytes to `fuzz/`.

#[path = "support/real_daemon.rs"]
mod real_daemon;
#[path = "support/tool.rs"]
#[expect(dead_code, reason = "each test uses its part of the tool's helpers")]
mod tool;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use real_daemon::RealDaemon;
use rmpv::Value;

const PUT: &[u8] = b"\x94\x00\x07\xa3put\x92\xa1t\x81\xa2id\x01";
const PING: &[u8] = b"\x94\x00\x08\xa4ping\x90";

/// holds V6
#[test]
fn what_was_asked_before_the_bad_bytes_is_answered_however_they_arrive() {
    let no_messagepack: &[u8] = b"\xc1";
    let announced_too_large: &[u8] = b"\xdb\xff\xff\xff\xff";
    let daemon = RealDaemon::start();
    daemon.cortex(&["create", "t", "id"], b"");
    for bad in [no_messagepack, announced_too_large] {
        let mut stream = UnixStream::connect(daemon.socket()).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set a bound");
        // In one piece: the daemon sees the bad bytes before it has answered anything.
        stream.write_all(&[PUT, PING, bad].concat()).expect("send");
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).expect("the answers, and then the end");
        let mut answers = answers.as_slice();
        for (id, result) in [(7, "ok"), (8, "pong")] {
            let answer = rmpv::decode::read_value(&mut answers).expect("an answer");
            let expected = Value::Array(vec![1.into(), id.into(), Value::Nil, result.into()]);
            assert_eq!(answer, expected, "before {bad:x?}");
        }
        assert!(answers.is_empty(), "nothing follows: {answers:x?}");
    }
}
