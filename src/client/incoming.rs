//! The receiving half of a connection: a `BufRead` whose buffer can also be topped up without waiting.
//! Leaves what the bytes mean to `raw` and `reply`.

use std::io::{self, BufRead, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

/// How much is read at once: a page of a thousand records takes a few dozen reads, a small answer one.
const READ_SIZE: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Incoming {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// `buffer[start..end]` has arrived and is not consumed.
    start: usize,
    end: usize,
}

impl Incoming {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: vec![0; READ_SIZE], start: 0, end: 0 }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether everything that was received is consumed.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes in what has arrived, without waiting and without giving up what is here. The buffer grows to
    /// what the window of a pipeline lets the daemon answer.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() + READ_SIZE, 0);
        }
        match recv(self.stream.as_raw_fd(), &mut self.buffer[self.end..], MsgFlags::MSG_DONTWAIT) {
            Ok(received) => {
                self.end += received;
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl BufRead for Incoming {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.is_empty() {
            self.start = 0;
            // Before the read, which may fail: nothing old may show up again then.
            self.end = 0;
            self.end = read_uninterrupted(&mut self.stream, &mut self.buffer)?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, amount: usize) {
        self.start = (self.start + amount).min(self.end);
    }
}

impl Read for Incoming {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(out.len());
        out[..amount].copy_from_slice(&available[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}

fn read_uninterrupted(stream: &mut UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
