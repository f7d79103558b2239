//! The method backup: a checked copy of the whole database, sent to the caller or kept by the daemon.
//! Making and checking the copy is the store's.
//!
//! The caller may be anybody's shell, and the daemon may write nowhere but in its own directory.
//! So the copy is made there, and its bytes are the reply: an array of byte strings.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use cortex_core::{
    api::{self, KeptBackup, Request as _, Response as _},
    model::{Caller, Refusal},
    wire::encode,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Answer, Deferred, Pieces, Service, Step, read};
use crate::{
    store::{BACKUP_SENDING, CommandError, KEPT_BACKUPS, Store, StoreError, Summary},
    sys::journal,
};

/// Bytes of one element of the reply.
const CHUNK: usize = 256 << 10;

impl Service {
    /// `backup []`: the reply is the copy, as an array of byte strings. `backup [name]`: the copy
    /// is kept as `backups/NAME.db`, the reply says where and what it holds.
    pub(super) fn backup(&self, caller: &Caller, params: &Bytes) -> Result<Answer, CommandError> {
        let api::Backup { name } = read(params)?;
        if name.is_some_and(|name| !is_plain(name)) {
            return Err(api::Backup::invalid().into());
        }
        self.require_admin(caller)?;
        let turn = self.backups.clone().try_acquire_owned().map_err(|_| Refusal::BackupUnderWay)?;
        let name = name.map(str::to_owned);
        let store = self.store.clone();
        let (done, answer) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let result = match name {
                Some(name) => keep(&store, &name, turn),
                None => stream(&store, turn),
            };
            let _gone = done.send(result);
        });
        Ok(Answer::Later(answer))
    }
}

/// A file name that leads nowhere else.
fn is_plain(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=100).contains(&name.len()) && name.chars().all(inner) && !name.starts_with('.')
}

/// Gives up its turn before the answer is out: a client that has the answer may begin the next one.
fn keep(store: &Store, name: &str, _turn: OwnedSemaphorePermit) -> Result<Deferred, CommandError> {
    let dir = store.dir().join(KEPT_BACKUPS);
    make_kept_dir(store.dir(), &dir)
        .map_err(|e| StoreError::Io(format!("{}: {e}", dir.display())))?;
    let path = dir.join(format!("{name}.db"));
    if path.exists() {
        return Err(Refusal::AlreadyExists.into());
    }
    let unfinished = TempFile(dir.join(format!(".{name}.db.making")));
    let summary = make(store, &unfinished.0)?;
    fs::rename(&unfinished.0, &path)
        .and_then(|()| File::open(&dir)?.sync_all())
        .map_err(|e| StoreError::Io(format!("{}: {e}", path.display())))?;
    let mut out = Vec::new();
    let Summary { bytes, tables, records } = summary;
    KeptBackup { path: path.display().to_string(), bytes, tables, records }.write(&mut out);
    Ok(Deferred::Encoded(out))
}

/// A directory whose name is not on disk yet would take every backup in it along when the power fails.
fn make_kept_dir(data_dir: &Path, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    File::open(data_dir)?.sync_all()
}

fn stream(store: &Store, turn: OwnedSemaphorePermit) -> Result<Deferred, CommandError> {
    let unfinished = TempFile(store.dir().join(BACKUP_SENDING));
    let summary = make(store, &unfinished.0)?;
    let file = File::open(&unfinished.0).map_err(|e| StoreError::Io(e.to_string()))?;
    // The open file is enough; its name can go.
    drop(unfinished);
    Ok(Deferred::Pieces(Box::new(Sending {
        file,
        left: summary.bytes,
        begun: false,
        turn: Some(turn),
    })))
}

fn make(store: &Store, path: &Path) -> Result<Summary, StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::Io(format!("{}: {e}", path.display())));
        }
        _ => {}
    }
    let summary = store.backup(path)?;
    tracing::info!(
        MESSAGE_ID = journal::BACKUP_FINISHED,
        bytes = summary.bytes,
        records = summary.records,
        "a backup of {} records was made, {} bytes",
        summary.records,
        summary.bytes
    );
    Ok(summary)
}

/// A file that goes away again unless it was renamed.
struct TempFile(PathBuf);

impl Drop for TempFile {
    fn drop(&mut self) {
        let _renamed = fs::remove_file(&self.0);
    }
}

/// A copy on its way to the caller.
#[derive(Debug)]
struct Sending {
    file: File,
    left: u64,
    begun: bool,
    /// Held until the last bytes are read, or the caller has gone away: at most one copy takes room on the disk.
    turn: Option<OwnedSemaphorePermit>,
}

impl Pieces for Sending {
    fn step(&mut self, out: &mut Vec<u8>) -> Result<Step, CommandError> {
        if !self.begun {
            let chunks = self.left.div_ceil(CHUNK as u64);
            encode::array(out, usize::try_from(chunks).map_err(|_| StoreError::Closed)?);
            self.begun = true;
        }
        if self.left == 0 {
            return Ok(Step::Finished);
        }
        let size = usize::try_from(self.left).map_or(CHUNK, |left| left.min(CHUNK));
        encode::bin_header(out, size);
        let start = out.len();
        out.resize(start + size, 0);
        self.file.read_exact(&mut out[start..]).map_err(|e| StoreError::Io(e.to_string()))?;
        self.left -= size as u64;
        if self.left == 0 {
            // Before these bytes are sent, not after: the caller who has them all may begin the next backup
            // before this thread gets to run again.
            self.turn = None;
        }
        Ok(Step::Send)
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::{
        model::Uid,
        wire::{Head, Reader as Decoder},
    };
    use tokio::sync::mpsc;

    use super::*;
    use crate::{service::ScanSlots, store::Options};

    /// A client reads the last bytes of a copy while its connection's thread still holds what it read them from.
    #[tokio::test]
    async fn the_next_backup_may_begin_while_the_last_bytes_of_one_are_on_their_way() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&Options::new(dir.path())).expect("a store");
        let service = Service::new(store, "here", ScanSlots::new(1, 1), mpsc::channel(1).0);
        let (root, reader) = (Caller::Local(Uid::ROOT), service.store().reader(0));
        let none = Bytes::from_static(&[0x90]);
        let begin = || service.call(&root, "backup", &none, &reader, &mut Vec::new());
        let mut sent = Vec::new();
        for number in 0..3 {
            let Ok(Answer::Later(copy)) = begin() else { panic!("{number}: it is refused") };
            let Ok(Ok(Deferred::Pieces(mut pieces))) = copy.await else {
                panic!("there is no copy")
            };
            let mut piece = Vec::new();
            assert_eq!(pieces.step(&mut piece).expect("a piece"), Step::Send);
            let Some(Head::Array(count)) = Decoder::new(&piece).head() else {
                panic!("no array");
            };
            for _ in 1..count {
                assert!(matches!(begin(), Err(CommandError::Refused(Refusal::BackupUnderWay))));
                assert_eq!(pieces.step(&mut piece).expect("a piece"), Step::Send);
            }
            sent.push(pieces); // its end not asked for, and not dropped
        }
        service.store().close().await;
    }

    #[tokio::test]
    async fn who_has_the_answer_may_begin_the_next_backup() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&Options::new(dir.path())).expect("a store");
        let service = Service::new(store, "here", ScanSlots::new(1, 1), mpsc::channel(1).0);
        let (root, reader) = (Caller::Local(Uid::ROOT), service.store().reader(0));
        for number in 0..50 {
            let mut params = Vec::new();
            encode::strings(&mut params, [format!("b{number}").as_str()].into_iter());
            let params = Bytes::from(params);
            let begun = service.call(&root, "backup", &params, &reader, &mut Vec::new());
            let answer = begun.unwrap_or_else(|failure| panic!("{number}: {failure}"));
            service.end(&root, answer, Vec::new()).await.expect("kept");
        }
        service.store().close().await;
    }
}
