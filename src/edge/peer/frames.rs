//! Frames of a link out of a stream of bytes, and into one.
//! What is in them is `cortex_core::wire::link`'s.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use cortex_core::wire::link::{Message, body_length};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

/// The room for one read. A larger frame makes the buffer grow as it arrives, and not by what it announces.
const READ: usize = 16 << 10;

/// What is written in one go.
const PIECE: usize = 64 << 10;

/// What a buffer may keep when nothing is in it.
const KEPT: usize = 64 << 10;

/// Why no frame came.
#[derive(Debug)]
pub(super) enum FrameError {
    Closed,
    TooLarge,
    Io(io::Error),
}

/// Reads frames.
#[derive(Debug)]
pub(super) struct Frames<R> {
    stream: R,
    input: BytesMut,
    received: u64,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, input: BytesMut::new(), received: 0 }
    }

    /// The body of the next frame. May be given up and called again: nothing is lost.
    pub(super) async fn next(&mut self, bound: usize) -> Result<Bytes, FrameError> {
        loop {
            if let Some(body) = self.take(bound)? {
                return Ok(body);
            }
            if self.input.is_empty() && self.input.capacity() > KEPT {
                self.input = BytesMut::new();
            }
            self.input.reserve(READ);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err(FrameError::Closed),
                Ok(read) => self.received += read as u64,
                Err(error) => return Err(FrameError::Io(error)),
            }
        }
    }

    /// Bytes that have come so far: a large frame may take its time.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    fn take(&mut self, bound: usize) -> Result<Option<Bytes>, FrameError> {
        let Some((header, arrived)) = self.input.split_first_chunk() else {
            return Ok(None);
        };
        let length = body_length(*header, bound).ok_or(FrameError::TooLarge)?;
        if arrived.len() < length {
            return Ok(None);
        }
        let mut frame = self.input.split_to(4 + length).freeze();
        Ok(Some(frame.split_off(4)))
    }
}

/// Writes messages as they are queued, until the queue is closed; then says that nothing more will come. Frames
/// about rows wait until no message does.
///
/// # Errors
/// What the stream reports, or that it takes nothing for too long.
pub(super) async fn write_all<W: AsyncWrite + Unpin>(
    mut stream: W,
    mut queue: mpsc::Receiver<Message>,
    mut rows: mpsc::Receiver<Vec<u8>>,
    idle_timeout: Duration,
) -> io::Result<()> {
    let mut output = Vec::new();
    loop {
        tokio::select! {
            biased;
            message = queue.recv() => match message {
                Some(message) => {
                    output.clear();
                    message.write(&mut output);
                }
                None => break,
            },
            Some(frame) = rows.recv() => output = frame,
        }
        // A piece at a time: over a slow network a large frame takes long, and goes on all the same.
        for piece in output.chunks(PIECE) {
            within(idle_timeout, stream.write_all(piece)).await?;
        }
        within(idle_timeout, stream.flush()).await?;
    }
    within(idle_timeout, stream.shutdown()).await
}

async fn within(
    idle_timeout: Duration,
    write: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    timeout(idle_timeout, write).await.map_err(|_| io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use cortex_core::wire::link::Bye;
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn frames_arrive_whole_however_they_are_cut() {
        let (mut from, to) = duplex(1);
        let mut frames = Frames::new(to);
        let (said, queue) = mpsc::channel(4);
        let (_, no_rows) = mpsc::channel(1);
        said.send(Message::Bye(Bye::Stopping)).await.expect("room");
        said.send(Message::Bye(Bye::Mistake)).await.expect("room");
        drop(said);
        let writing = tokio::spawn(async move {
            write_all(&mut from, queue, no_rows, Duration::from_secs(9)).await
        });
        for code in [1, 4] {
            assert_eq!(frames.next(100).await.expect("a frame")[..], [0x82, 0, 4, 1, code]);
        }
        assert!(matches!(frames.next(100).await, Err(FrameError::Closed)));
        writing.await.expect("no panic").expect("written");
    }

    #[tokio::test]
    async fn a_large_frame_is_refused_by_its_announcement() {
        let (mut from, to) = duplex(64);
        from.write_all(&[0, 0, 0, 101]).await.expect("written");
        let refused = Frames::new(to).next(100).await;
        assert!(matches!(refused, Err(FrameError::TooLarge)), "{refused:?}");
    }

    #[tokio::test]
    async fn what_is_announced_takes_no_memory_before_it_comes() {
        let (mut from, to) = duplex(64);
        from.write_all(&[0, 0x40, 0, 0, 1, 2, 3]).await.expect("written");
        let mut frames = Frames::new(to);
        let waiting = timeout(Duration::from_millis(20), frames.next(4 << 20)).await;
        assert!(waiting.is_err(), "4 MiB were announced, 3 bytes have come");
        assert!(frames.input.capacity() <= KEPT);
    }
}
