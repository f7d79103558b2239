//! The write-ahead log that an earlier process left: judged, and made durable, before SQLite believes it.
//! The database file itself is `schema`'s; replaying the log is SQLite's.
//!
//! SQLite takes a commit for done if its frames are in the log *as this machine reads it*. After
//! a crash of the process alone that says nothing about the disk: the frames may never have been
//! synced, or, worse, a sync of them may have failed. The kernel then reports the error once and
//! may keep the pages in memory, marked clean, so that no later sync writes them (Rebello et al.,
//! "Can Applications Recover from fsync Failures?", ATC 2020; ext4 and XFS keep the new contents,
//! Btrfs goes back to the old). SQLite would show such a commit to clients, count on from its
//! numbers, and copy its pages into the database; if the power then goes, the log on disk cannot
//! finish the copy, and the database is broken.
//!
//! So the log is written again, byte for byte, and synced, before SQLite opens it:
//!
//! - Writing marks the pages dirty, whatever they were, and the sync covers what was read: from
//!   then on memory and disk agree on the log. Where the kernel has gone back to older contents,
//!   those are what is read, and SQLite ends the log where the checksums no longer fit.
//! - It is safe to be interrupted: bytes are replaced by the same bytes. What was durable stays
//!   so, torn or not, and of the rest any part may be there, which the checksums sort out.
//! - The database needs no such care. It is only ever written from the log, which starts again
//!   only after a sync of the database has succeeded; and a checkpoint in a new process copies
//!   every page of the log again.
//! - It costs one pass over a log of at most some [`pressure_pages`], and only after a crash: an
//!   orderly end leaves no log.
//!
//! [`pressure_pages`]: super::options::LogBounds::pressure_pages

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
};

use super::{
    error::{OpenError, StoreError},
    reserve::PAGE,
    schema,
};

/// Bytes rewritten at a time.
const CHUNK: usize = 1 << 20;

/// Of the log itself, and of each page in it, as SQLite's file format documents them (section 4,
/// "The Write-Ahead Log").
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Pages that a log has room for, of which an earlier process may have left fewer.
pub(super) fn pages_in_log(database: &Path) -> u64 {
    let length = fs::metadata(schema::log_path(database)).map_or(0, |log| log.len());
    length.saturating_sub(LOG_HEADER as u64) / (FRAME_HEADER as u64 + PAGE)
}

/// Makes what a log holds durable. Nothing is done where there is none.
///
/// # Errors
/// [`OpenError`]: where the log must not be touched, it was not; otherwise it reads as before.
pub(super) fn sync_log(database: &Path) -> Result<(), OpenError> {
    let path = schema::log_path(database);
    let shown = || path.display().to_string();
    let file = match File::options().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(OpenError::File { path: shown(), cause }),
    };
    let unreadable = |cause| OpenError::File { path: shown(), cause };
    if file.metadata().map_err(unreadable)?.len() == 0 {
        return Ok(());
    }
    // SQLite deletes the log of an empty database.
    if fs::metadata(database).map_or(0, |meta| meta.len()) == 0 {
        return Err(OpenError::Orphaned { path: database.display().to_string(), log: shown() });
    }
    if let Some(found) = newest_schema(&file).map_err(unreadable)? {
        schema::refuse_newer(database, found)?;
    }
    rewrite(&file).map_err(|fault| OpenError::StoreError { path: shown(), fault })
}

/// The schema version that the log would bring, where it brings one: a process of a newer version
/// may have crashed before its migration got into the database.
fn newest_schema(log: &File) -> io::Result<Option<u32>> {
    let mut header = [0; LOG_HEADER];
    if !read_whole(log, &mut header, 0)? {
        return Ok(None);
    }
    let page_bytes = schema::field(&header, 8) as usize;
    if !page_bytes.is_power_of_two() || !(512..=65_536).contains(&page_bytes) {
        return Ok(None); // SQLite passes over such a log
    }
    let mut sum = Checksum::new(schema::field(&header, 0));
    sum.add(&header[..24]);
    let (mut committed, mut pending) = (None, None);
    let mut at = LOG_HEADER as u64;
    let mut frame = vec![0; FRAME_HEADER + page_bytes];
    while read_whole(log, &mut frame, at)? {
        let (head, page) = frame.split_at(FRAME_HEADER);
        sum.add(&head[..8]);
        sum.add(page);
        // What follows is left over from before the log last started again, or was not written
        // to its end.
        if head[8..16] != header[16..24] || !sum.is(&head[16..24]) {
            break;
        }
        let (number, pages_after_commit) = (schema::field(head, 0), schema::field(head, 4));
        if number == 1 {
            pending = Some(schema::version_in(page));
        }
        if pages_after_commit > 0 {
            committed = pending.or(committed);
        }
        at += frame.len() as u64;
    }
    Ok(committed)
}

/// The running checksum over a log.
struct Checksum {
    word: fn([u8; 4]) -> u32,
    sums: (u32, u32),
}

impl Checksum {
    /// The lowest bit of the magic number says how words are read.
    fn new(magic: u32) -> Self {
        let word = if magic & 1 == 1 { u32::from_be_bytes } else { u32::from_le_bytes };
        Self { word, sums: (0, 0) }
    }

    fn add(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<4>();
        for [first, second] in words.as_chunks::<2>().0 {
            let (a, b) = &mut self.sums;
            *a = a.wrapping_add((self.word)(*first)).wrapping_add(*b);
            *b = b.wrapping_add((self.word)(*second)).wrapping_add(*a);
        }
    }

    fn is(&self, stored: &[u8]) -> bool {
        self.sums == (schema::field(stored, 0), schema::field(stored, 4))
    }
}

fn read_whole(log: &File, buf: &mut [u8], at: u64) -> io::Result<bool> {
    match log.read_exact_at(buf, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// What rewriting asks of a file; apart from `File`, so that a test can lose what a kernel may.
trait Medium {
    fn read(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

impl Medium for File {
    fn read(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.read_at(buf, at)
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A failure of reading or writing. Where file systems copy on write, even this takes room.
fn failed(error: &io::Error) -> StoreError {
    let (kind, text) = (error.kind(), error.to_string());
    if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        StoreError::Full(text)
    } else {
        StoreError::Io(text)
    }
}

fn rewrite(file: &impl Medium) -> Result<(), StoreError> {
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let count = match file.read(&mut chunk, at) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(&error)),
        };
        file.write(&chunk[..count], at).map_err(|error| failed(&error))?;
        at += count as u64;
    }
    file.sync().map_err(|error| StoreError::SyncFailed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A file whose pages a failed sync has left clean in memory and different on the disk.
    #[derive(Default)]
    struct Forsaken {
        memory: Vec<u8>,
        disk: RefCell<Vec<u8>>,
        dirty: RefCell<Vec<std::ops::Range<usize>>>,
        sync_fails: Cell<bool>,
    }

    impl Forsaken {
        fn holding(bytes: usize) -> Self {
            let memory: Vec<u8> = (0..=u8::MAX).cycle().take(bytes).collect();
            Self { memory, disk: vec![0xee; bytes].into(), ..Self::default() }
        }
    }

    impl Medium for Forsaken {
        /// Half of what was asked for, as read(2) may.
        fn read(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
            let rest = &self.memory[usize::try_from(at).expect("small")..];
            let count = rest.len().min(buf.len().div_ceil(2));
            buf[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }

        fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
            let at = usize::try_from(at).expect("small");
            assert_eq!(bytes, &self.memory[at..at + bytes.len()], "the same bytes");
            self.dirty.borrow_mut().push(at..at + bytes.len());
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            if self.sync_fails.get() {
                return Err(io::Error::from_raw_os_error(nix::libc::EIO));
            }
            for range in self.dirty.borrow_mut().drain(..) {
                self.disk.borrow_mut()[range.clone()].copy_from_slice(&self.memory[range]);
            }
            Ok(())
        }
    }

    /// holds K6
    #[test]
    fn what_a_failed_sync_left_in_memory_alone_is_on_the_disk_afterwards() {
        for bytes in [1, CHUNK - 1, CHUNK, 2 * CHUNK + 17] {
            let file = Forsaken::holding(bytes);
            rewrite(&file).expect("the disk works again");
            assert!(*file.disk.borrow() == file.memory, "{bytes} bytes");
        }
    }

    #[test]
    fn a_log_that_cannot_be_synced_is_not_believed() {
        let file = Forsaken::holding(100);
        file.sync_fails.set(true);
        assert!(matches!(rewrite(&file), Err(StoreError::SyncFailed(_))));
    }
}
