//! A SQLite VFS for tests that fails on demand and knows what a power loss would leave.
//! It judges nothing: what must survive is said by the test that uses it.
//!
//! ```text
//!   connections ──► vfs.rs ──► recorder.rs ──► SQLite's `unix` VFS ──► the test directory
//!   (any number)    C shim     counts, fails,   locks, -shm,            (live files)
//!                              logs changes     bytes
//!                                  │
//!                                  └─ log ──► disk.rs ── seed ──► another directory
//!                                             what is durable     (after the power loss)
//! ```
//!
//! # Use
//!
//! ```
//! use faultfs::{FaultFs, StoreError, Repeat};
//! use rusqlite::{Connection, OpenFlags};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let live = tempfile::tempdir()?;
//! let fs = FaultFs::new("doc-example", live.path())?;
//! let open = || {
//!     let path = fs.dir().join("a.db");
//!     Connection::open_with_flags_and_vfs(path, OpenFlags::default(), fs.vfs_name())
//! };
//! let writer = open()?;
//! writer.pragma_update(None, "journal_mode", "wal")?;
//! writer.pragma_update(None, "synchronous", "full")?;
//! let checkpointer = open()?; // as many as the program under test likes
//! writer.execute_batch("CREATE TABLE t(v)")?;
//! writer.execute_batch("INSERT INTO t VALUES (1)")?;
//! let acknowledged = fs.calls(); // this insert was durable by this call
//!
//! fs.fail(acknowledged + 1, StoreError::NoSpace, Repeat::Once);
//! assert!(writer.execute_batch("INSERT INTO t VALUES (2)").is_err());
//! checkpointer.execute_batch("PRAGMA wal_checkpoint")?;
//!
//! for point in fs.crash_points().into_iter().filter(|p| *p >= acknowledged) {
//!     let after = tempfile::tempdir()?;
//!     fs.power_loss_at(point, 7, after.path())?;
//!     let fresh = Connection::open(after.path().join("a.db"))?; // an ordinary VFS
//!     let n: i64 = fresh.query_row("SELECT count(*) FROM t", [], |r| r.get(0))?;
//!     assert_eq!(n, 1);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The model of a power loss
//!
//! What SQLite expects of a disk is in "Atomic Commit In SQLite"
//! (<https://sqlite.org/atomiccommit.html>, section 2), how its authors test it in "How
//! SQLite Is Tested" (<https://sqlite.org/testing.html>, 3.2 and 3.3); the interface is in
//! "The SQLite OS Interface or VFS" (<https://sqlite.org/vfs.html>). To treat each operation
//! as reordered with all others unless a sync orders them, and a directory entry as an
//! operation of its own, is the idea of ALICE (Pillai et al., "All File Systems Are Not
//! Created Equal", OSDI 2014).
//!
//! - A file is what it was at its last successful sync, plus *any* subset of the writes and
//!   truncations since, applied in order. A write may be kept, lost, torn at 512-byte sectors,
//!   or lost with the file grown to where it ended; growth is filled with zeros or junk, as
//!   SQLite takes into account. Bytes nobody wrote to do not change (`psow`, SQLite's default).
//! - Files do not order each other.
//! - A name is what it was when its directory was last synced, or any state it went through
//!   since: so a created file may be absent, a deleted one return, with or without a sync of
//!   its bytes. As in the `unix` VFS a directory is synced by a deletion that asks for it and by
//!   the first sync of a journal or WAL through a handle that may have created it.
//! - When a sync fails, what was unsynced may be lost for ever, though later syncs succeed:
//!   Linux marks the pages clean and reports the error once (<https://lwn.net/Articles/752063/>).
//!   Only writing the bytes again helps. Reads go on seeing the unsynced bytes, as with ext4.
//! - A sync makes its file durable the moment it returns. Nothing is ever really synced, so
//!   tests do not wait for a disk.
//!
//! The seed picks one such outcome: 0 loses everything unsynced, 1 keeps everything, each
//! other draws its own mix. The same seed and history give the same image.
//!
//! # Limits
//!
//! - Only I/O through this VFS is seen. Files never opened through it are copied as they are;
//!   after others write, rename or delete a tracked file, as a restore does, its durable state
//!   is unknown, and a new [`FaultFs`] is needed; only what a restarted program rewrites after
//!   [`FaultFs::process_crash`], before SQLite opens it, is noticed. A directory synced by others is not seen.
//! - The `-shm` file, locks and shared memory are the `unix` VFS's own, untouched, never
//!   failed, never in an image. Nor do `xAccess`, `xFileSize` and locking count or fail.
//! - No memory-mapped I/O (`mmap_size` has no effect), so that each read counts.
//! - Writes, syncs, truncations, opens and deletions are taken one at a time: two of them never
//!   overlap. With several threads the numbers of calls differ from run to run;
//!   [`FaultFs::fail_when`] picks by kind and file instead.
//! - The history is kept in memory, each written byte, until [`FaultFs::forget_history`].
//! - A few hundred bytes stay allocated for each [`FaultFs`]: a connection may hold a
//!   pointer to its VFS for ever.

mod disk;
mod faults;
mod recorder;
#[expect(unsafe_code, reason = "a VFS is a table of C functions; this module holds only them")]
mod vfs;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use faults::{Call, Op, Repeat, StoreError};
use recorder::Recorder;
use vfs::Registration;

/// A registered VFS and everything it saw. Clones share it; when the last one is dropped,
/// the name is free again and opening through the VFS fails.
#[derive(Clone, Debug)]
pub struct FaultFs {
    // Dropped first: no file is opened once it is gone.
    registration: Arc<Registration>,
    recorder: Arc<Recorder>,
}

impl FaultFs {
    /// Registers a VFS under `vfs_name` that tracks the files of `dir`, which must exist.
    /// Files that are there already count as durable; files elsewhere pass through.
    pub fn new(vfs_name: &str, dir: &Path) -> io::Result<Self> {
        Self::register(vfs_name, Recorder::new(dir.canonicalize()?))
    }

    /// The name to open connections with.
    pub fn vfs_name(&self) -> &str {
        self.registration.name()
    }

    /// The tracked directory, free of symbolic links.
    pub fn dir(&self) -> &Path {
        self.recorder.dir()
    }

    /// How many I/O calls there were so far. After a commit returns, this is a crash point at
    /// which the commit must be durable.
    pub fn calls(&self) -> u64 {
        self.recorder.calls()
    }

    /// Every call so far, since [`forget_history`](Self::forget_history).
    pub fn trace(&self) -> Vec<Call> {
        self.recorder.trace()
    }

    /// Fails the call with number `nth`, or the first later one that `fault` can strike: no
    /// read runs out of space. The next call has the number [`calls`](Self::calls)` + 1`.
    pub fn fail(&self, nth: u64, fault: StoreError, repeat: Repeat) {
        self.fail_when(move |call| call.number >= nth, fault, repeat);
    }

    /// Fails the calls which `when` picks and `fault` can strike. It is asked with the
    /// recorder's lock held, so it must not call this `FaultFs`.
    pub fn fail_when(
        &self,
        when: impl Fn(&Call) -> bool + Send + 'static,
        fault: StoreError,
        repeat: Repeat,
    ) {
        self.recorder.arm(Box::new(when), fault, repeat);
    }

    /// Withdraws every fault that was asked for: the disk works again.
    pub fn heal(&self) {
        self.recorder.heal();
    }

    /// The calls that were failed, in order.
    pub fn struck(&self) -> Vec<Call> {
        let mut calls = self.trace();
        calls.retain(|call| call.fault.is_some());
        calls
    }

    /// The numbers of calls after which the disk may look different, and the start of history.
    /// Crashes *during* a call need no point of their own: what a call changed before it was
    /// synced may be absent or partial in the images after it.
    pub fn crash_points(&self) -> Vec<u64> {
        self.recorder.crash_points()
    }

    /// Writes to the directory `into` what the disk may look like if the power goes now. An
    /// error also if somebody changed a tracked file behind the VFS.
    pub fn power_loss(&self, seed: u64, into: &Path) -> io::Result<()> {
        self.recorder.check_untouched()?;
        self.power_loss_at(self.calls(), seed, into)
    }

    /// Writes to the directory `into`, which should be new or empty, what the disk may have
    /// looked like if the power had gone after call `point`. One run of a script so serves
    /// every crash point. An error if `point` was forgotten, or if the real disk failed.
    pub fn power_loss_at(&self, point: u64, seed: u64, into: &Path) -> io::Result<()> {
        let image = self.recorder.after_power_loss(point, seed)?;
        copy_files(self.dir(), into, &|name| self.recorder.is_tracked(name))?;
        for (name, bytes) in image {
            let path = into.join(&*name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, bytes)?;
        }
        Ok(())
    }

    /// What a crash of the *process* leaves, as a VFS of its own over a copy in `into`: all
    /// writes are visible, and those unsynced, or lost by a failed sync, are so still. The
    /// process's connections go on with this one and should be thrown away.
    pub fn process_crash(&self, vfs_name: &str, into: &Path) -> io::Result<Self> {
        self.recorder.check_untouched()?;
        fs::create_dir_all(into)?;
        let into = into.canonicalize()?;
        let recorder =
            self.recorder.fork(into.clone(), || copy_files(self.dir(), &into, &|_name| false))?;
        Self::register(vfs_name, recorder)
    }

    /// Gives up the crash points and the trace before now, and the memory they take.
    pub fn forget_history(&self) {
        self.recorder.forget_history();
    }

    fn register(vfs_name: &str, recorder: Recorder) -> io::Result<Self> {
        let recorder = Arc::new(recorder);
        let registration = Arc::new(Registration::new(vfs_name, &recorder)?);
        Ok(Self { registration, recorder })
    }
}

/// Copies the tree `from` to `into`, without `-shm` files, which no crash leaves in a state
/// that SQLite trusts, and without those that `skip` names by their path below `from`.
fn copy_files(from: &Path, into: &Path, skip: &dyn Fn(&str) -> bool) -> io::Result<()> {
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        fs::create_dir_all(into.join(&dir))?;
        for entry in fs::read_dir(from.join(&dir))? {
            let entry = entry?;
            let name = dir.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                dirs.push(name);
                continue;
            }
            let text = name.to_str().unwrap_or_default();
            if !text.ends_with("-shm") && !skip(text) {
                fs::copy(entry.path(), into.join(&name))?;
            }
        }
    }
    Ok(())
}
