//! A connection that goes wrong in the middle: what was asked before is answered, and then it is closed.
//! Leaves requests that are well formed and refused to other tests, and arbitrary bytes to `fuzz/`.

use daemon::Daemon;
use rmpv::Value;
use rpc::{packed, put_raw, request, success};

use crate::support::{daemon, rpc};

/// holds V6
#[test]
fn what_was_asked_before_the_bad_bytes_is_answered_however_they_arrive() {
    let no_messagepack: &[u8] = b"\xc1";
    let announced_too_large: &[u8] = b"\xdb\xff\xff\xff\xff";
    let record = packed(&Value::Map(vec![("id".into(), 1.into())]));
    let daemon = Daemon::start();
    daemon.connect().create("t");
    for bad in [no_messagepack, announced_too_large] {
        let mut rpc = daemon.connect();
        // In one piece: the daemon sees the bad bytes before it has answered anything.
        rpc.send(&[&put_raw(7, "t", &record), &request(8, "ping", &[]), bad].concat());
        let answers = [success(7, "ok"), success(8, "pong")].concat();
        assert_eq!(rpc.rest(), answers, "before {bad:x?}, and nothing after");
    }
}
