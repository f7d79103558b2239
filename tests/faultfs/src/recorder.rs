//! Counts the calls, decides which fail, and logs what changed, so that the disk of any
//! moment can be rebuilt. What the log means is said in `disk.rs`; the real I/O comes in as
//! closures from `vfs.rs`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rusqlite::ffi;

use crate::disk::{Change, Disk, FileId};
use crate::faults::{Call, Op, Repeat, StoreError, Trap};

#[derive(Debug)]
pub(crate) struct Recorder {
    dir: PathBuf,
    // Held over the real call where one changes the disk, so that the log has the order in
    // which it happened, and a sync covers exactly the writes before it. SQLite's `unix` VFS
    // never calls back and never waits for another connection in these calls.
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    calls: u64,
    trace: Vec<Call>,
    traps: Vec<Trap>,
    /// The disk after call `forgotten`; what came later is in the log.
    base: Disk,
    forgotten: u64,
    log: Vec<(u64, Change)>,
    /// The disk after so many changes of the log: tests ask for crash points in ascending
    /// order, several times for each, and a replay from the start is most of an image's cost.
    replayed: Option<(usize, Disk)>,
    /// What each name stands for to the running process.
    live: HashMap<Arc<str>, FileId>,
    /// The time of last change of the files that a fork copied and nobody has opened since.
    sealed: HashMap<Arc<str>, SystemTime>,
    /// All names there ever were, whether or not they are there now.
    names: HashSet<Arc<str>>,
    next_file: u64,
    /// The first failure that nobody injected: the log no longer tells the truth.
    broken: Option<String>,
}

/// An open file, as a handle remembers it.
#[derive(Clone, Debug)]
pub(crate) struct Tracked {
    id: FileId,
    name: Arc<str>,
}

impl Recorder {
    /// `dir` is absolute and free of symbolic links, as are the paths SQLite will ask for.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, state: Mutex::default() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn calls(&self) -> u64 {
        self.lock().calls
    }

    pub(crate) fn trace(&self) -> Vec<Call> {
        self.lock().trace.clone()
    }

    pub(crate) fn is_tracked(&self, name: &str) -> bool {
        self.lock().names.contains(name)
    }

    pub(crate) fn arm(
        &self,
        when: Box<dyn Fn(&Call) -> bool + Send>,
        fault: StoreError,
        repeat: Repeat,
    ) {
        self.lock().traps.push(Trap { when, fault, repeat });
    }

    pub(crate) fn heal(&self) {
        self.lock().traps.clear();
    }

    pub(crate) fn crash_points(&self) -> Vec<u64> {
        let state = self.lock();
        let mut points = vec![state.forgotten];
        points.extend(state.log.iter().map(|(call, _)| *call));
        points.dedup();
        points
    }

    pub(crate) fn after_power_loss(
        &self,
        point: u64,
        seed: u64,
    ) -> io::Result<BTreeMap<Arc<str>, Vec<u8>>> {
        Ok(self.lock().disk_at(point)?.after_power_loss(seed))
    }

    /// An error if a tracked file is not what was written through the VFS.
    pub(crate) fn check_untouched(&self) -> io::Result<()> {
        let mut state = self.lock();
        let now = state.calls;
        let disk = state.disk_at(now)?.clone();
        for (name, file) in &state.live {
            if fs::read(self.dir.join(&**name)).ok() != disk.live(*file) {
                return Err(io::Error::other(format!(
                    "{name} was changed behind the VFS: its durable state is unknown"
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn forget_history(&self) {
        let mut state = self.lock();
        let State { base, log, .. } = &mut *state;
        for (_, change) in log.drain(..) {
            base.apply(&change);
        }
        state.replayed = None;
        state.forgotten = state.calls;
        state.trace.clear();
    }

    /// A recorder that goes on from here with the files `copy` copies to `dir`.
    pub(crate) fn fork(
        &self,
        dir: PathBuf,
        copy: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut state = self.lock();
        copy()?;
        let mut sealed = HashMap::new();
        for name in state.live.keys() {
            let file = fs::File::options().write(true).open(dir.join(&**name))?;
            // Long ago, so that no clock is too coarse to tell.
            file.set_modified(SystemTime::UNIX_EPOCH)?;
            sealed.insert(Arc::clone(name), SystemTime::UNIX_EPOCH);
        }
        let now = state.calls;
        let forked = State {
            base: state.disk_at(now)?.clone(),
            live: state.live.clone(),
            sealed,
            names: state.names.clone(),
            next_file: state.next_file,
            ..State::default()
        };
        Ok(Self { dir, state: Mutex::new(forked) })
    }

    /// The path below the directory, if `path` is there and SQLite can name it.
    pub(crate) fn name_of(&self, path: &Path) -> Option<Arc<str>> {
        let name = path.strip_prefix(&self.dir).ok()?;
        Some(Arc::from(name.to_str()?))
    }

    pub(crate) fn open(
        &self,
        name: Arc<str>,
        may_create: bool,
        real: impl FnOnce() -> i32,
    ) -> Result<Tracked, i32> {
        let mut state = self.lock();
        let path = self.dir.join(&*name);
        let exists = path.exists();
        let op = if may_create && !exists { Op::Create } else { Op::Open };
        let (_, fault) = state.call(op, &name, 0, 0);
        if let Some((_, code)) = fault {
            return Err(code);
        }
        let code = real();
        if code != ffi::SQLITE_OK {
            return Err(code);
        }
        let id = match state.live.get(&name).copied() {
            Some(id) if exists => {
                state.take_note_of_rewriting(id, &name, &path)?;
                id
            }
            Some(_) | None => {
                // A file that exists and is not known was there before us.
                let adopted = if exists {
                    Some(fs::read(&path).map_err(|_| ffi::SQLITE_CANTOPEN)?)
                } else {
                    None
                };
                state.introduce(&name, adopted)
            }
        };
        Ok(Tracked { id, name })
    }

    pub(crate) fn read(
        &self,
        file: &Tracked,
        offset: u64,
        len: usize,
        real: impl FnOnce() -> i32,
    ) -> i32 {
        let (_, fault) = self.lock().call(Op::Read, &file.name, offset, len);
        match fault {
            Some((_, code)) => code,
            None => real(),
        }
    }

    pub(crate) fn write(
        &self,
        file: &Tracked,
        offset: u64,
        data: &[u8],
        real: impl FnOnce(&[u8]) -> i32,
    ) -> i32 {
        let mut state = self.lock();
        let (call, fault) = state.call(Op::Write, &file.name, offset, data.len());
        let (data, code) = match fault {
            Some((fault, code)) => (&data[..fault.written(data.len())], code),
            None => (data, ffi::SQLITE_OK),
        };
        if data.is_empty() {
            return code;
        }
        if let Err(real) = state.really(Op::Write, &file.name, real(data)) {
            return real;
        }
        let change = Change::Write { file: file.id, offset, data: Arc::from(data) };
        state.log.push((call, change));
        code
    }

    pub(crate) fn truncate(&self, file: &Tracked, len: u64, real: impl FnOnce() -> i32) -> i32 {
        let mut state = self.lock();
        let (call, fault) = state.call(Op::Truncate, &file.name, len, 0);
        if let Some((_, code)) = fault {
            return code;
        }
        if let Err(real) = state.really(Op::Truncate, &file.name, real()) {
            return real;
        }
        let change = Change::Truncate { file: file.id, len };
        state.log.push((call, change));
        ffi::SQLITE_OK
    }

    /// There is nothing real to do: the model is the disk.
    pub(crate) fn sync(&self, file: &Tracked, with_dir: bool) -> i32 {
        let mut state = self.lock();
        let (call, fault) = state.call(Op::Sync, &file.name, 0, 0);
        let (change, code) = match fault {
            Some((_, code)) => (Change::SyncFailed { file: file.id }, code),
            None => {
                let change = Change::Sync {
                    file: file.id,
                    with_dir_of: with_dir.then(|| Arc::clone(&file.name)),
                };
                (change, ffi::SQLITE_OK)
            }
        };
        state.log.push((call, change));
        code
    }

    pub(crate) fn delete(
        &self,
        name: &Arc<str>,
        sync_dir: bool,
        real: impl FnOnce() -> i32,
    ) -> i32 {
        let mut state = self.lock();
        let path = self.dir.join(&**name);
        let (call, fault) = state.call(Op::Delete, name, 0, 0);
        if let Some((_, code)) = fault {
            return code;
        }
        // A file that was there before us must be able to come back.
        if !state.live.contains_key(name)
            && let Ok(bytes) = fs::read(path)
        {
            state.introduce(name, Some(bytes));
        }
        let code = real();
        if code == ffi::SQLITE_OK {
            state.live.remove(name);
            let change = Change::Delete { name: Arc::clone(name), sync_dir };
            state.log.push((call, change));
        }
        code
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked in a `when` closure has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a call and says whether it fails, how, and with which result code.
    fn call(
        &mut self,
        op: Op,
        file: &Arc<str>,
        offset: u64,
        len: usize,
    ) -> (u64, Option<(StoreError, i32)>) {
        self.calls += 1;
        let mut call =
            Call { number: self.calls, op, file: Arc::clone(file), offset, len, fault: None };
        let armed = self.traps.iter().enumerate().find_map(|(at, trap)| {
            let code = trap.fault.code(op)?;
            (trap.when)(&call).then_some((at, trap.repeat, trap.fault, code))
        });
        let fault = armed.map(|(at, repeat, fault, code)| {
            match repeat {
                Repeat::Once => drop(self.traps.remove(at)),
                Repeat::Always => {}
            }
            (fault, code)
        });
        call.fault = fault.map(|(fault, _)| fault);
        self.trace.push(call);
        (self.calls, fault)
    }

    /// A program that starts after a crash may write a file before SQLite opens it. Its syncs are
    /// not seen, so all of it counts as written and not synced.
    fn take_note_of_rewriting(
        &mut self,
        file: FileId,
        name: &Arc<str>,
        path: &Path,
    ) -> Result<(), i32> {
        let Some(sealed) = self.sealed.remove(name) else {
            return Ok(());
        };
        let changed = fs::metadata(path).and_then(|meta| meta.modified());
        if changed.map_err(|_| ffi::SQLITE_CANTOPEN)? != sealed {
            let bytes = fs::read(path).map_err(|_| ffi::SQLITE_CANTOPEN)?;
            let truncate = Change::Truncate { file, len: bytes.len() as u64 };
            let write = Change::Write { file, offset: 0, data: Arc::from(bytes) };
            self.log.extend([(self.calls, truncate), (self.calls, write)]);
        }
        Ok(())
    }

    /// A name that was not known: its file was there before (`adopted`) or is created now.
    fn introduce(&mut self, name: &Arc<str>, adopted: Option<Vec<u8>>) -> FileId {
        self.next_file += 1;
        let file = FileId(self.next_file);
        self.live.insert(Arc::clone(name), file);
        self.names.insert(Arc::clone(name));
        match adopted {
            Some(bytes) => {
                self.base.adopt(Arc::clone(name), file, bytes);
                self.replayed = None;
            }
            None => {
                let change = Change::Create { name: Arc::clone(name), file };
                self.log.push((self.calls, change));
            }
        }
        file
    }

    fn really(&mut self, op: Op, file: &str, code: i32) -> Result<(), i32> {
        if code == ffi::SQLITE_OK {
            return Ok(());
        }
        self.broken.get_or_insert_with(|| format!("{op:?} of {file}: SQLite result code {code}"));
        Err(code)
    }

    fn disk_at(&mut self, point: u64) -> io::Result<&Disk> {
        if let Some(broken) = &self.broken {
            return Err(io::Error::other(format!("the real disk failed under the test: {broken}")));
        }
        if point < self.forgotten {
            return Err(io::Error::other(format!(
                "crash point {point}: the history before {} is forgotten",
                self.forgotten
            )));
        }
        let until = self.log.partition_point(|(call, _)| *call <= point);
        self.replayed.take_if(|(done, _)| *done > until);
        let (done, disk) = self.replayed.get_or_insert_with(|| (0, self.base.clone()));
        for (_, change) in &self.log[*done..until] {
            disk.apply(change);
        }
        *done = until;
        Ok(disk)
    }
}
