//! Records in memory, up to a bound: a hit saves the look-up in SQLite.
//! Which records stay is the library's business (S3-FIFO); that none is stale is ours.
//!
//! Every key falls into one of many buckets, and each bucket has a version: odd while a commit
//! that touches one of its keys is becoming visible. An entry carries the version that its bucket
//! had before the entry was read from SQLite, and counts only while the bucket still has it.
//!
//! ```text
//!   writer    versions of the touched buckets: odd ──> COMMIT ──> even again, two further
//!   reader    version, if even ──> snapshot, look-up ──> entry (bytes, version)
//!   hit       entry.version == version of the bucket now
//! ```
//!
//! So a stale entry needs no removing: it does not count, and is evicted or replaced in time.

use std::{
    hash::{BuildHasher, Hash},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use cortex_core::model::TableId;
use quick_cache::{
    DefaultHashBuilder, Equivalent, Weighter,
    sync::{Cache, DefaultLifecycle},
};

/// Buckets of keys. A commit of 64 writes keeps one key in a thousand from being cached meanwhile.
const BUCKETS: usize = 1 << 16;

/// Records larger than this are read from SQLite each time: one would push out hundreds.
const LARGEST: usize = 16 << 10;

/// What an entry takes besides its key and record, roughly.
const OVERHEAD: u64 = 96;

/// The number of entries to plan for, from the bound in bytes: small records are the rule.
const TYPICAL: u64 = 512;

/// A bounded cache of records.
#[derive(Debug)]
pub(super) struct RecordCache {
    entries: Cache<CacheKey, Entry, Weight, DefaultHashBuilder>,
    versions: Box<[AtomicU64]>,
    hasher: DefaultHashBuilder,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CacheKey {
    table: TableId,
    key: Box<[u8]>,
}

/// Hashes as [`CacheKey`] does.
#[derive(Debug, Hash)]
struct CacheKeyRef<'a> {
    table: TableId,
    key: &'a [u8],
}

impl Equivalent<CacheKey> for CacheKeyRef<'_> {
    fn equivalent(&self, name: &CacheKey) -> bool {
        self.table == name.table && *self.key == *name.key
    }
}

#[derive(Clone, Debug)]
struct Entry {
    record: Arc<[u8]>,
    version: u64,
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<CacheKey, Entry> for Weight {
    fn weight(&self, name: &CacheKey, entry: &Entry) -> u64 {
        (name.key.len() + entry.record.len()) as u64 + OVERHEAD
    }
}

/// A bucket and the version that it had, to be taken before the snapshot that is read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct BucketVersion {
    version: u64,
}

impl RecordCache {
    /// A cache of at most `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let entries = usize::try_from(bytes / TYPICAL).unwrap_or(usize::MAX).max(1);
        Self {
            entries: Cache::with(
                entries,
                bytes,
                Weight,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            versions: std::iter::repeat_with(AtomicU64::default).take(BUCKETS).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// The record, if it is here and still what the last commit left.
    pub(super) fn get(&self, table: TableId, key: &[u8]) -> Option<Arc<[u8]>> {
        let name = CacheKeyRef { table, key };
        let entry = self.entries.get(&name)?;
        let version = self.versions[self.bucket(table, key)].load(SeqCst);
        (entry.version == version).then_some(entry.record)
    }

    /// Leave to insert what a snapshot taken from now on says of the key; none while a commit
    /// that touches its bucket is becoming visible.
    pub(super) fn bucket_version(&self, table: TableId, key: &[u8]) -> Option<BucketVersion> {
        let version = self.versions[self.bucket(table, key)].load(SeqCst);
        version.is_multiple_of(2).then_some(BucketVersion { version })
    }

    pub(super) fn insert(
        &self,
        bucket_version: BucketVersion,
        table: TableId,
        key: &[u8],
        record: &[u8],
    ) {
        if record.len() > LARGEST {
            return;
        }
        let entry = Entry { record: record.into(), version: bucket_version.version };
        self.entries.insert(CacheKey { table, key: key.into() }, entry);
    }

    /// The bucket of a key, to be collected for [`RecordCache::begin`].
    pub(super) fn bucket(&self, table: TableId, key: &[u8]) -> usize {
        let hash = self.hasher.hash_one(CacheKeyRef { table, key });
        usize::try_from(hash % BUCKETS as u64).unwrap_or(0)
    }

    /// How many buckets there are.
    pub(super) fn buckets(&self) -> usize {
        self.versions.len()
    }

    /// Announces that a commit that touches these buckets may become visible from now on, until
    /// the guard is dropped.
    pub(super) fn begin(&self, mut buckets: Vec<usize>) -> WriteGuard<'_> {
        // Each once: announced twice, a bucket would look stable.
        buckets.sort_unstable();
        buckets.dedup();
        for bucket in &buckets {
            self.versions[*bucket].fetch_add(1, SeqCst);
        }
        WriteGuard { cache: self, buckets }
    }
}

/// Buckets whose keys a commit is changing.
#[derive(Debug)]
pub(super) struct WriteGuard<'a> {
    cache: &'a RecordCache,
    buckets: Vec<usize>,
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        for bucket in &self.buckets {
            self.cache.versions[*bucket].fetch_add(1, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(1);

    fn cached(cache: &RecordCache, key: &[u8]) -> Option<Vec<u8>> {
        cache.get(TABLE, key).map(|record| record.to_vec())
    }

    #[test]
    fn an_entry_counts_until_a_commit_touches_its_key() {
        let cache = RecordCache::new(1 << 20);
        let bucket_version = cache.bucket_version(TABLE, b"k").expect("nothing under way");
        cache.insert(bucket_version, TABLE, b"k", b"old");
        assert_eq!(cached(&cache, b"k").as_deref(), Some(&b"old"[..]));
        assert_eq!(cache.get(TableId(2), b"k"), None, "another table");
        drop(cache.begin(vec![cache.bucket(TABLE, b"k")]));
        assert_eq!(cached(&cache, b"k"), None);
    }

    #[test]
    fn nothing_is_cached_while_a_commit_touches_its_key() {
        let cache = RecordCache::new(1 << 20);
        let bucket = cache.bucket(TABLE, b"k");
        let before = cache.bucket_version(TABLE, b"k").expect("nothing under way");
        let guard = cache.begin(vec![bucket, bucket]);
        assert!(cache.bucket_version(TABLE, b"k").is_none());
        cache.insert(before, TABLE, b"k", b"read before the commit");
        assert_eq!(cached(&cache, b"k"), None);
        drop(guard);
        assert_eq!(cached(&cache, b"k"), None, "a ticket from before the commit does not count");
        assert!(cache.bucket_version(TABLE, b"k").is_some());
    }

    #[test]
    fn the_bound_in_bytes_holds() {
        let cache = RecordCache::new(100_000);
        for n in 0..10_000u32 {
            let key = n.to_be_bytes();
            let bucket_version = cache.bucket_version(TABLE, &key).expect("nothing under way");
            cache.insert(bucket_version, TABLE, &key, &[0; 200]);
        }
        assert!(cache.entries.weight() <= 100_000);
        assert!(cache.entries.len() > 100);
    }
}
