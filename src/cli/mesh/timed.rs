//! A TCP connection that ends at a certain time, however slowly the other side sends.
//! Leaves what is said to its users.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::sys::clock;

/// A connection with a deadline for all of it.
#[derive(Debug)]
pub(super) struct Timed {
    tcp: TcpStream,
    until: Instant,
}

impl Timed {
    pub(super) fn new(tcp: TcpStream, time_limit: Duration) -> Self {
        Self { tcp, until: clock::monotonic() + time_limit }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(clock::monotonic());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

/// What a socket says when its time is over is that it would block.
fn timed_out(error: io::Error) -> io::Error {
    let is_late = error.kind() == io::ErrorKind::WouldBlock;
    if is_late { io::ErrorKind::TimedOut.into() } else { error }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(self.left()?)?;
        self.tcp.read(buffer).map_err(timed_out)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(self.left()?)?;
        self.tcp.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_ends_in_time_however_slowly_the_other_side_sends() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let mut slow = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        let (accepted, _) = listener.accept().expect("accept");
        let trickle = std::thread::spawn(move || {
            while slow.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut timed = Timed::new(accepted, Duration::from_millis(200));
        let error = timed.read_to_end(&mut Vec::new()).expect_err("it never ends");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(timed);
        trickle.join().expect("it ends");
    }
}
