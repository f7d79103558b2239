//! What nodes that compare their replicas say to each other, in bytes.
//! Values are never among it: rows travel the usual way.

use cortex_core::{
    model::{ActorId, Hlc, Stamp},
    replication::{Dot, TableDigest, VersionVector},
    wire::{Head, Reader as Decoder, encode},
};

use crate::store::{BUCKETS, RowMark};

/// Bytes of rows in one answer of `sync_marks`: a quarter of what is taken.
const MARKS_BYTES: usize = 2 << 20;

/// Keys of one `sync_push`, and bytes of them: half of what a request may be.
const PUSHED_KEYS: usize = 1000;
const PUSHED_BYTES: usize = 512 << 10;

pub(in crate::service) fn batches(keys: Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    let mut batches: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut bytes = 0;
    for key in keys {
        let full =
            |batch: &Vec<Vec<u8>>| batch.len() >= PUSHED_KEYS || bytes + key.len() > PUSHED_BYTES;
        if batches.last().is_none_or(full) {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += key.len() + 8;
        if let Some(batch) = batches.last_mut() {
            batch.push(key);
        }
    }
    batches
}

fn write_vector(vector: &VersionVector, out: &mut Vec<u8>) {
    encode::array(out, vector.len());
    for Dot { actor, seq } in vector.iter() {
        encode::array(out, 2);
        encode::bin(out, &actor.0.to_be_bytes());
        encode::uint(out, seq);
    }
}

/// Where a replica is: what it has incorporated, up to where it has forgotten deletions, what its rows come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::service) struct Stand {
    pub(in crate::service) vector: VersionVector,
    pub(in crate::service) gc_watermark: VersionVector,
    pub(in crate::service) digest: TableDigest,
}

impl Stand {
    /// `vector, GC watermark, digest`, as the first elements of an answer.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_vector(&self.vector, out);
        write_vector(&self.gc_watermark, out);
        encode::bin(out, &self.digest.to_bytes());
    }

    fn read(from: &mut Decoder<'_>) -> Option<Self> {
        let (vector, gc_watermark) = (read_vector(from)?, read_vector(from)?);
        Some(Self { vector, gc_watermark, digest: TableDigest::from_bytes(read_bin(from)?) })
    }

    /// An answer of `sync_digest`.
    pub(super) fn decode(encoded: &[u8]) -> Option<Self> {
        let mut from = Decoder::new(encoded);
        let Head::Array(3) = from.head()? else {
            return None;
        };
        Self::read(&mut from)
    }

    pub(super) fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        encode::array(&mut out, 3);
        self.write(&mut out);
        out
    }
}

/// As many rows as one answer has room for: `[vector, GC watermark, digest, rows, more]`.
pub(super) fn encode_marks(stand: &Stand, marks: &[RowMark]) -> Vec<u8> {
    let (mut rows, mut count) = (Vec::new(), 0);
    for mark in marks {
        if rows.len() >= MARKS_BYTES {
            break;
        }
        count += 1;
        encode::array(&mut rows, 5);
        encode::bin(&mut rows, &mark.key);
        encode::uint(&mut rows, mark.stamp.hlc.to_i64().unsigned_abs());
        encode::bin(&mut rows, &mark.stamp.actor.0.to_be_bytes());
        encode::uint(&mut rows, mark.seq);
        match &mark.value {
            Some(hash) => encode::bin(&mut rows, hash),
            None => encode::nil(&mut rows),
        }
    }
    let mut out = Vec::with_capacity(rows.len() + 1024);
    encode::array(&mut out, 5);
    stand.write(&mut out);
    encode::array(&mut out, count);
    out.append(&mut rows);
    encode::bool(&mut out, count < marks.len());
    out
}

/// An answer of `sync_marks`.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) stand: Stand,
    pub(super) rows: Vec<RowMark>,
    pub(super) more: bool,
}

pub(super) fn read_marks(encoded: &[u8]) -> Option<Marks> {
    let mut from = Decoder::new(encoded);
    let Head::Array(5) = from.head()? else {
        return None;
    };
    let stand = Stand::read(&mut from)?;
    let Head::Array(count) = from.head()? else {
        return None;
    };
    let rows: Option<Vec<RowMark>> = (0..count).map(|_| read_mark(&mut from)).collect();
    let Head::Bool(more) = from.head()? else {
        return None;
    };
    Some(Marks { stand, rows: rows?, more })
}

pub(super) fn read_mark(from: &mut Decoder<'_>) -> Option<RowMark> {
    let Head::Array(5) = from.head()? else {
        return None;
    };
    let (Head::Bin(key), Head::Int(hlc)) = (from.head()?, from.head()?) else {
        return None;
    };
    let actor = ActorId(u128::from_be_bytes(read_bin(from)?));
    let (Head::Int(seq), value) = (from.head()?, from.head()?) else {
        return None;
    };
    let value = if let Head::Bin(hash) = value {
        Some(hash.try_into().ok()?)
    } else if value == Head::Nil {
        None
    } else {
        return None;
    };
    let stamp = Stamp { hlc: Hlc::from_i64(i64::try_from(hlc).ok()?), actor };
    Some(RowMark { key: key.to_vec(), stamp, seq: u64::try_from(seq).ok()?, value })
}

pub(super) fn read_digests(encoded: &[u8]) -> Option<Vec<TableDigest>> {
    let mut from = Decoder::new(encoded);
    let Head::Array(4) = from.head()? else {
        return None;
    };
    let _stand = Stand::read(&mut from)?;
    let Head::Bin(sums) = from.head()? else {
        return None;
    };
    let (sums, rest) = sums.as_chunks::<32>();
    let whole = rest.is_empty() && sums.len() == BUCKETS;
    whole.then(|| sums.iter().map(|sum| TableDigest::from_bytes(*sum)).collect())
}

pub(super) fn read_vector(from: &mut Decoder<'_>) -> Option<VersionVector> {
    let Head::Array(count) = from.head()? else {
        return None;
    };
    let dot = |_| {
        let Head::Array(2) = from.head()? else {
            return None;
        };
        let actor = ActorId(u128::from_be_bytes(read_bin(from)?));
        let Head::Int(seq) = from.head()? else {
            return None;
        };
        Some(Dot { actor, seq: u64::try_from(seq).ok()? })
    };
    (0..count).map(dot).collect()
}

pub(super) fn read_bin<const N: usize>(from: &mut Decoder<'_>) -> Option<[u8; N]> {
    let Head::Bin(bytes) = from.head()? else {
        return None;
    };
    bytes.try_into().ok()
}

pub(super) fn read_buckets(encoded: &[u8]) -> Option<Vec<usize>> {
    let mut from = Decoder::new(encoded);
    let Head::Array(count @ ..=BUCKETS) = from.head()? else {
        return None;
    };
    let bucket = |_| {
        let Head::Int(bucket) = from.head()? else {
            return None;
        };
        usize::try_from(bucket).ok().filter(|bucket| *bucket < BUCKETS)
    };
    (0..count).map(bucket).collect()
}

pub(super) fn read_keys(encoded: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut from = Decoder::new(encoded);
    let Head::Array(count @ ..=PUSHED_KEYS) = from.head()? else {
        return None;
    };
    let key = |_| {
        let Head::Bin(key) = from.head()? else {
            return None;
        };
        Some(key.to_vec())
    };
    (0..count).map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(key: &str, at: u64) -> RowMark {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(at), actor: ActorId(1) };
        RowMark { key: key.into(), stamp, seq: at, value: Some([7; 32]) }
    }

    #[test]
    fn rows_are_read_as_they_were_written_and_in_bounds() {
        let key = "k".repeat(4096);
        let marks: Vec<_> = (0..1000).map(|n| mark(&format!("{n:04}{key}"), n)).collect();
        let vector: VersionVector = [Dot { actor: ActorId(9), seq: 4 }].into_iter().collect();
        let digest = TableDigest::from_bytes([3; 32]);
        let gc_watermark = [Dot { actor: ActorId(9), seq: 2 }].into_iter().collect();
        let stand = Stand { vector, gc_watermark, digest };
        assert_eq!(Stand::decode(&stand.encoded()).as_ref(), Some(&stand));
        let (mut after, mut read) = (0, Vec::new());
        loop {
            let answer = encode_marks(&stand, &marks[after..]);
            assert!(answer.len() < MARKS_BYTES + (16 << 10), "{}", answer.len());
            let found = read_marks(&answer).expect("an answer");
            assert_eq!(found.stand, stand);
            after += found.rows.len();
            read.extend(found.rows);
            if !found.more {
                break;
            }
        }
        assert_eq!(read, marks);
        assert!(read_marks(b"\x94").is_none() && read_digests(b"\x93").is_none());
    }

    #[test]
    fn keys_are_told_in_batches_that_a_request_has_room_for() {
        let keys: Vec<_> = (0..2500).map(|n: u32| n.to_be_bytes().repeat(256)).collect();
        let found = batches(keys.clone());
        assert!(found.iter().all(|batch| batch.len() <= PUSHED_KEYS));
        let bytes = |batch: &Vec<Vec<u8>>| batch.iter().map(Vec::len).sum::<usize>();
        assert!(found.iter().all(|batch| bytes(batch) <= PUSHED_BYTES));
        assert_eq!(found.concat(), keys);
        assert!(batches(Vec::new()).is_empty());
    }
}
