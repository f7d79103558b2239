//! A message has a bounded time to arrive: bytes that trickle in do not buy more of it.
//! That many connections of one uid are bounded besides is tested with the edge.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use daemon::Daemon;

use crate::support::daemon;

/// `[0, 1, "aaaa…`: 255 bytes of a method's name are announced.
const BEGINNING: [u8; 5] = [0x94, 0, 1, 0xd9, 0xff];

/// `[0, 1, "ping", []]`
const PING: [u8; 9] = [0x94, 0, 1, 0xa4, b'p', b'i', b'n', b'g', 0x90];

/// Between two bytes: a fifth of the second that a message may take here.
const PAUSE: Duration = Duration::from_millis(200);

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.socket()).expect("a connection");
    stream.set_read_timeout(Some(PAUSE)).expect("a timeout");
    stream
}

/// Whether the daemon hangs up within one pause.
fn hangs_up(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(count) => count == 0,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(_reset) => true,
    }
}

#[test]
fn a_message_that_trickles_is_cut_off_when_its_time_is_over() {
    let daemon = Daemon::with_config("limits.message_seconds = 1");
    let mut stream = connect(&daemon);
    stream.write_all(&BEGINNING).expect("sent");
    // Of the 255 bytes there are enough for 51 s.
    let cut_off = (0..255).any(|_| stream.write_all(b"a").is_err() || hangs_up(&mut stream));
    assert!(cut_off, "the whole message was waited for");
}

#[test]
fn messages_that_arrive_in_time_keep_the_connection_for_longer_than_one_may_take() {
    let daemon = Daemon::with_config("limits.message_seconds = 2");
    let mut stream = connect(&daemon);
    let (first, last) = PING.split_at(4);
    // Each message takes one pause, all of them together more than the two seconds.
    for _ in 0..11 {
        stream.write_all(first).expect("sent");
        assert!(!hangs_up(&mut stream), "cut off within its time");
        stream.write_all(last).expect("sent");
        stream.set_read_timeout(None).expect("time_limit");
        let mut answer = [0; 9];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer[5..], b"pong");
        stream.set_read_timeout(Some(PAUSE)).expect("a timeout");
    }
}
