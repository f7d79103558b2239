//! Messages about replicas as frames, and back: large batches are made smaller on the way.
//! What is in them is `cortex_core::wire::replication`'s.

use std::io;

use bytes::Bytes;
use cortex_core::{
    replication::{self, Batch},
    wire::{
        link::{FRAME_BYTES, Incoming, Message},
        replication::{CONTEXT_ENTRIES, PLAIN_BYTES, Packed},
    },
};

/// A batch from this size on is compressed. Below, it goes into a few packets anyway.
const WORTH_IT: usize = 16 << 10;

/// Of zstd's levels the fastest: the other end of a local network is closer than a better one is worth.
const LEVEL: i32 = 1;

/// A message as a whole frame.
pub(super) fn frame(message: replication::Message) -> Vec<u8> {
    let mut out = Vec::new();
    Message::Sync(message).write(&mut out);
    out
}

/// A batch as a whole frame; none where it is larger than one may be.
pub(super) fn frame_of(batch: &Batch) -> Option<Vec<u8>> {
    let entries = batch.contexts.iter().map(replication::VersionVector::len).sum::<usize>();
    if entries > CONTEXT_ENTRIES {
        return None;
    }
    let plain = frame(replication::Message::Batch(Box::new(batch.clone())));
    let length = plain.len() - 4;
    if length < WORTH_IT {
        return Some(plain);
    }
    if length > PLAIN_BYTES {
        return None;
    }
    let packed = zstd::bulk::compress(&plain[4..], LEVEL)
        .ok()
        .filter(|body| body.len() < length)
        .map(|body| {
            let mut out = Vec::new();
            Message::Packed(Packed { length, body }).write(&mut out);
            out
        })
        .unwrap_or(plain);
    (packed.len() - 4 <= FRAME_BYTES).then_some(packed)
}

/// A frame's body as a message about replicas.
///
/// # Errors
/// Any other body.
pub(super) fn open(body: &Bytes) -> io::Result<replication::Message> {
    let no_message = || io::Error::from(io::ErrorKind::InvalidData);
    match Incoming::read(body).map_err(|_| no_message())? {
        Incoming::Known(Message::Sync(message)) => Ok(message),
        Incoming::Known(Message::Packed(Packed { length, body })) => {
            // Not a byte more than was announced, which is bounded, is written.
            let plain = zstd::bulk::decompress(&body, length)?;
            match Incoming::read(&plain).map_err(|_| no_message())? {
                Incoming::Known(Message::Sync(message @ replication::Message::Batch(_)))
                    if plain.len() == length =>
                {
                    Ok(message)
                }
                Incoming::Known(_) | Incoming::Unknown(_) => Err(no_message()),
            }
        }
        Incoming::Known(_) | Incoming::Unknown(_) => Err(no_message()),
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::{
        model::{ActorId, Hlc, Stamp, TableUid},
        replication::{ChangeLogId, Part, Position, RowVersion, VersionVector},
    };

    use super::*;

    fn batch(values: usize, value: &[u8]) -> Batch {
        let stamp = Stamp { hlc: Hlc::from_i64(1), actor: ActorId(1) };
        let row = |n: usize| RowVersion {
            key: n.to_be_bytes().to_vec(),
            value: Some(value.to_vec()),
            stamp,
            seq: n as u64,
            context: 0,
        };
        let part = Part::Delta { to: 1, last: true };
        let (table, log) = (TableUid([1; 16]), ChangeLogId([2; 16]));
        Batch {
            contexts: vec![VersionVector::new()],
            rows: (0..values).map(row).collect(),
            ..Batch::empty(table, ActorId(2), Position::default(), log, part)
        }
    }

    fn reopened(frame: &[u8]) -> io::Result<replication::Message> {
        open(&Bytes::copy_from_slice(&frame[4..]))
    }

    #[test]
    fn a_chunk_of_any_size_arrives_as_it_was() {
        for (values, value) in [(1, &b"x"[..]), (1000, &[7; 500]), (1, &vec![3; 1 << 20])] {
            let batch = batch(values, value);
            let frame = frame_of(&batch).expect("it fits");
            assert!(frame.len() < 20 << 10, "{} bytes", frame.len());
            let arrived = reopened(&frame).expect("a message");
            assert_eq!(arrived, replication::Message::Batch(Box::new(batch)));
        }
    }

    #[test]
    fn one_row_of_the_largest_size_fits_however_little_it_can_be_compressed() {
        let noise: Vec<u8> = (0..1_u64 << 17)
            .flat_map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n << 7)).to_be_bytes())
            .collect();
        let frame = frame_of(&batch(3, &noise)).expect("three of them fit");
        assert!(reopened(&frame).is_ok());
        assert!(frame_of(&batch(9, &noise)).is_none_or(|frame| frame.len() - 4 <= FRAME_BYTES));
    }

    #[test]
    fn what_is_larger_than_it_says_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], LEVEL).expect("compressed");
        for length in [0, 100, PLAIN_BYTES] {
            let mut out = Vec::new();
            Message::Packed(Packed { length, body: bomb.clone() }).write(&mut out);
            assert!(reopened(&out).is_err());
        }
    }
}
