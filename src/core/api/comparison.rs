//! What nodes that compare their replicas of a table ask of each other, and what they answer.
//! Values are never part of it: rows travel the usual way.
//!
//! ```text
//!   SyncBuckets ──> BucketDigests     which ranges of keys differ
//!   SyncMarks   ──> RowMarks          which versions are in them, part by part
//!   SyncPush    ──> ok                send these rows again
//!   SyncDigest  ──> ReplicaSummary    what the rows come to afterwards, computed from them
//! ```

use super::{
    Malformed, Response,
    param::{Bin, Param, WriteParam, options, request},
};
use crate::{
    model::{ActorId, Hlc, Stamp},
    replication::{Dot, TableDigest, VersionVector},
    wire::{Reader, encode},
};

/// Buckets of keys. With a million rows each holds some 250, so that a difference costs a few kilobytes.
pub const BUCKETS: usize = 4096;

/// Bytes of rows in one answer of `sync_marks`: a quarter of what is taken.
const MARKS_BYTES: usize = 2 << 20;

/// Keys of one `sync_push`, and bytes of them: half of what a request may be.
const PUSHED_KEYS: usize = 1000;
const PUSHED_BYTES: usize = 512 << 10;

request! {
    /// The digests of the buckets of a table.
    SyncBuckets<'a> = SyncBuckets -> BucketDigests {
        /// The table's id.
        table: Bin<'a>,
    }
}

request! {
    /// The rows of some buckets of a table, without their values.
    SyncMarks<'a> = SyncMarks -> RowMarks {
        /// The table's id.
        table: Bin<'a>,
        /// Which buckets; with none of them the answer is only where the replica is.
        buckets: Buckets,
        /// Only rows after this key.
        after: Option<Bin<'a>>,
    }
}

request! {
    /// What the rows of a table come to, computed from them.
    SyncDigest<'a> = SyncDigest -> ReplicaSummary {
        /// The table's id.
        table: Bin<'a>,
    }
}

options! {
    /// How rows are to be sent.
    PushOptions {
        /// As a new version; without it, the version that is there is announced again.
        again: bool,
    }
}

request! {
    /// Has rows sent that the asker lacks: `ok`.
    SyncPush<'a> = SyncPush -> String {
        /// The table's id.
        table: Bin<'a>,
        /// Their keys.
        keys: PushedKeys,
        /// How.
        options: PushOptions,
    }
}

/// The numbers of buckets, each below [`BUCKETS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets(pub Vec<usize>);

impl WriteParam for Buckets {
    fn write(&self, out: &mut Vec<u8>) {
        encode::array(out, self.0.len());
        self.0.iter().for_each(|bucket| encode::uint(out, *bucket as u64));
    }
}

impl Param<'_> for Buckets {
    fn read(encoded: &[u8]) -> Option<Self> {
        let bucket = |reader: &mut Reader<'_>| {
            usize::try_from(reader.count()?).ok().filter(|bucket| *bucket < BUCKETS)
        };
        Reader::new(encoded).list(BUCKETS, bucket).map(Self)
    }
}

/// Keys whose rows are to be sent, no more than one request has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedKeys(Vec<Vec<u8>>);

impl PushedKeys {
    /// All these keys, in as few requests as hold them. A key is at most 4 KiB long, far below the bound.
    #[must_use]
    pub fn batches(keys: Vec<Vec<u8>>) -> Vec<Self> {
        let mut batches: Vec<Self> = Vec::new();
        let mut bytes = 0;
        for key in keys {
            let has_room =
                |batch: &Self| batch.0.len() < PUSHED_KEYS && bytes + key.len() <= PUSHED_BYTES;
            let size = key.len() + 8;
            match batches.last_mut().filter(|batch| has_room(batch)) {
                Some(batch) => {
                    bytes += size;
                    batch.0.push(key);
                }
                None => {
                    bytes = size;
                    batches.push(Self(vec![key]));
                }
            }
        }
        batches
    }

    /// The keys.
    #[must_use]
    pub fn into_keys(self) -> Vec<Vec<u8>> {
        self.0
    }
}

impl WriteParam for PushedKeys {
    fn write(&self, out: &mut Vec<u8>) {
        encode::array(out, self.0.len());
        self.0.iter().for_each(|key| encode::bin(out, key));
    }
}

impl Param<'_> for PushedKeys {
    fn read(encoded: &[u8]) -> Option<Self> {
        let key = |reader: &mut Reader<'_>| reader.bin().map(<[u8]>::to_vec);
        Reader::new(encoded).list(PUSHED_KEYS, key).map(Self)
    }
}

/// Where a replica is: what it has incorporated, up to where it has forgotten deletions, what its rows come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaSummary {
    /// What it has incorporated.
    pub vector: VersionVector,
    /// Up to where its tombstones are collected.
    pub gc_watermark: VersionVector,
    /// The digest of its live rows.
    pub digest: TableDigest,
}

impl ReplicaSummary {
    /// True where both have incorporated the same and hold the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.vector == other.vector && self.digest == other.digest
    }

    /// As the first three elements of an answer.
    fn write_to(&self, out: &mut Vec<u8>) {
        write_vector(&self.vector, out);
        write_vector(&self.gc_watermark, out);
        encode::bin(out, &self.digest.to_bytes());
    }

    fn read_from(reader: &mut Reader<'_>) -> Option<Self> {
        let (vector, gc_watermark) = (read_vector(reader)?, read_vector(reader)?);
        Some(Self { vector, gc_watermark, digest: TableDigest::from_bytes(reader.bin_of()?) })
    }
}

impl Response for ReplicaSummary {
    fn read(result: &[u8]) -> Result<Self, Malformed> {
        read_elements(result, 3, Self::read_from)
    }

    fn write(&self, out: &mut Vec<u8>) {
        encode::array(out, 3);
        self.write_to(out);
    }
}

/// A digest of the live rows of each bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketDigests {
    /// Where the replica was before they were read.
    pub summary: ReplicaSummary,
    /// [`BUCKETS`] of them.
    pub digests: Vec<TableDigest>,
}

impl Response for BucketDigests {
    fn read(result: &[u8]) -> Result<Self, Malformed> {
        read_elements(result, 4, |reader| {
            let summary = ReplicaSummary::read_from(reader)?;
            let (sums, rest) = reader.bin()?.as_chunks::<32>();
            let digests: Vec<_> = sums.iter().map(|sum| TableDigest::from_bytes(*sum)).collect();
            (rest.is_empty() && digests.len() == BUCKETS).then_some(Self { summary, digests })
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        encode::array(out, 4);
        self.summary.write_to(out);
        encode::bin_header(out, 32 * self.digests.len());
        self.digests.iter().for_each(|digest| out.extend_from_slice(&digest.to_bytes()));
    }
}

/// A row by what distinguishes it from another version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMark {
    /// Its key.
    pub key: Vec<u8>,
    /// Its place in the merge order.
    pub stamp: Stamp,
    /// Its number among the writes of its actor.
    pub seq: u64,
    /// The SHA-256 of its value; none for a deletion.
    pub value: Option<[u8; 32]>,
}

impl RowMark {
    fn write_to(&self, out: &mut Vec<u8>) {
        encode::array(out, 5);
        encode::bin(out, &self.key);
        encode::uint(out, self.stamp.hlc.to_i64().unsigned_abs());
        encode::bin(out, &self.stamp.actor.0.to_be_bytes());
        encode::uint(out, self.seq);
        match &self.value {
            Some(hash) => encode::bin(out, hash),
            None => encode::nil(out),
        }
    }

    fn read_from(reader: &mut Reader<'_>) -> Option<Self> {
        reader.array_of(5)?;
        let key = reader.bin()?.to_vec();
        let hlc = Hlc::from_i64(i64::try_from(reader.count()?).ok()?);
        let stamp = Stamp { hlc, actor: read_actor(reader)? };
        Some(Self { key, stamp, seq: reader.count()?, value: reader.or_nil(Reader::bin_of)? })
    }
}

/// Rows of some buckets, deletions that are remembered among them, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMarks {
    /// Where the replica was before they were read.
    pub summary: ReplicaSummary,
    /// As many as one answer has room for.
    pub rows: Vec<RowMark>,
    /// True where more rows come after the last of them.
    pub more: bool,
}

impl RowMarks {
    /// As many of the rows as one answer has room for, and at least one.
    #[must_use]
    pub fn bounded(summary: ReplicaSummary, mut rows: Vec<RowMark>) -> Self {
        let mut bytes = 0;
        let has_room = |row: &RowMark| {
            let fits = bytes < MARKS_BYTES;
            bytes += row.key.len() + 80; // stamp, number and hash
            fits
        };
        let count = rows.iter().map(has_room).take_while(|fits| *fits).count();
        let more = count < rows.len();
        rows.truncate(count);
        Self { summary, rows, more }
    }
}

impl Response for RowMarks {
    fn read(result: &[u8]) -> Result<Self, Malformed> {
        read_elements(result, 5, |reader| {
            let summary = ReplicaSummary::read_from(reader)?;
            let rows = reader.list(usize::MAX, RowMark::read_from)?;
            Some(Self { summary, rows, more: reader.bool()? })
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        encode::array(out, 5);
        self.summary.write_to(out);
        encode::array(out, self.rows.len());
        self.rows.iter().for_each(|row| row.write_to(out));
        encode::bool(out, self.more);
    }
}

/// An answer that is an array of so many elements.
fn read_elements<T>(
    result: &[u8],
    count: usize,
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<T, Malformed> {
    let mut reader = Reader::new(result);
    let found = reader.array_of(count).and_then(|()| read(&mut reader));
    found.ok_or_else(|| Malformed(format!("an array of {count} elements is expected").into()))
}

fn write_vector(vector: &VersionVector, out: &mut Vec<u8>) {
    encode::array(out, vector.len());
    for Dot { actor, seq } in vector.iter() {
        encode::array(out, 2);
        encode::bin(out, &actor.0.to_be_bytes());
        encode::uint(out, seq);
    }
}

fn read_vector(reader: &mut Reader<'_>) -> Option<VersionVector> {
    let dots = reader.list(usize::MAX, |reader| {
        reader.array_of(2)?;
        Some(Dot { actor: read_actor(reader)?, seq: reader.count()? })
    })?;
    Some(dots.into_iter().collect())
}

fn read_actor(reader: &mut Reader<'_>) -> Option<ActorId> {
    reader.bin_of().map(|id| ActorId(u128::from_be_bytes(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(key: &str, at: u64) -> RowMark {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(at), actor: ActorId(1) };
        RowMark { key: key.into(), stamp, seq: at, value: Some([7; 32]) }
    }

    fn summary() -> ReplicaSummary {
        ReplicaSummary {
            vector: [Dot { actor: ActorId(9), seq: 4 }].into_iter().collect(),
            gc_watermark: [Dot { actor: ActorId(9), seq: 2 }].into_iter().collect(),
            digest: TableDigest::from_bytes([3; 32]),
        }
    }

    fn sent<T: Response>(response: &T) -> T {
        let mut bytes = Vec::new();
        response.write(&mut bytes);
        T::read(&bytes).expect("what was written")
    }

    #[test]
    fn rows_are_read_as_they_were_written_and_in_bounds() {
        let key = "k".repeat(4096);
        let mut left: Vec<_> = (0..1000).map(|n| mark(&format!("{n:04}{key}"), n)).collect();
        left.push(RowMark { value: None, ..mark("z", 1) });
        let (all, mut read) = (left.clone(), Vec::new());
        loop {
            let answer = RowMarks::bounded(summary(), left.clone());
            let mut bytes = Vec::new();
            answer.write(&mut bytes);
            assert!(bytes.len() < MARKS_BYTES + (16 << 10), "{}", bytes.len());
            let found = sent(&answer);
            assert_eq!(found, answer);
            left.drain(..found.rows.len());
            read.extend(found.rows);
            if !found.more {
                break;
            }
        }
        assert_eq!(read, all);
    }

    #[test]
    fn summaries_and_digests_are_read_as_they_were_written() {
        assert_eq!(sent(&summary()), summary());
        let digests = (0..BUCKETS).map(|n| TableDigest::from_bytes([n.to_le_bytes()[0]; 32]));
        let answer = BucketDigests { summary: summary(), digests: digests.collect() };
        assert_eq!(sent(&answer), answer);
        let short = BucketDigests { digests: Vec::new(), ..answer };
        let mut bytes = Vec::new();
        short.write(&mut bytes);
        BucketDigests::read(&bytes).expect_err("every bucket has a digest");
        RowMarks::read(b"\x94").expect_err("it breaks off");
    }

    #[test]
    fn keys_go_in_batches_that_a_request_has_room_for() {
        let keys: Vec<_> = (0..2500).map(|n: u32| n.to_be_bytes().repeat(256)).collect();
        let found = PushedKeys::batches(keys.clone());
        let bytes = |batch: &PushedKeys| batch.0.iter().map(Vec::len).sum::<usize>();
        assert!(found.iter().all(|batch| batch.0.len() <= PUSHED_KEYS));
        assert!(found.iter().all(|batch| bytes(batch) <= PUSHED_BYTES));
        let mut encoded = Vec::new();
        found[0].write(&mut encoded);
        assert_eq!(PushedKeys::read(&encoded).as_ref(), found.first());
        let sent: Vec<_> = found.into_iter().flat_map(PushedKeys::into_keys).collect();
        assert_eq!(sent, keys);
        assert!(PushedKeys::batches(Vec::new()).is_empty());
    }

    #[test]
    fn buckets_that_there_are_not_are_refused() {
        let mut encoded = Vec::new();
        Buckets(vec![0, BUCKETS - 1]).write(&mut encoded);
        assert_eq!(Buckets::read(&encoded), Some(Buckets(vec![0, BUCKETS - 1])));
        encoded.clear();
        Buckets(vec![BUCKETS]).write(&mut encoded);
        assert_eq!(Buckets::read(&encoded), None);
    }
}
