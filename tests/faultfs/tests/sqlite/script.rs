//! A small program under test: a writer, a checkpointer and a reader on one database, and the
//! judge of what a crash left. The tests decide what fails and which verdicts they expect.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use faultfs::FaultFs;
use rusqlite::{Connection, OpenFlags, Result};
use tempfile::TempDir;

/// A directory with a `FaultFs` over it.
pub(crate) struct Rig {
    pub(crate) fs: FaultFs,
    _dir: TempDir,
}

/// How a connection is set up.
#[derive(Clone, Copy)]
pub(crate) struct Mode {
    pub(crate) journal: &'static str,
    pub(crate) synchronous: &'static str,
}

pub(crate) const WAL_FULL: Mode = Mode { journal: "wal", synchronous: "full" };

pub(crate) struct Program {
    pub(crate) writer: Connection,
    checkpointer: Connection,
    reader: Connection,
    /// With a rollback journal an open read would only keep the writer out.
    reader_stays: bool,
}

/// What the script knows of its own commits.
#[derive(Default)]
pub(crate) struct Log {
    /// The key, and the number of calls when its commit had returned.
    pub(crate) acknowledged: Vec<(i64, u64)>,
    attempted: BTreeSet<i64>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Flaw {
    /// An acknowledged commit is gone.
    Lost(i64),
    /// The database is damaged, half of a transaction is there, or a value nobody wrote.
    Broken(String),
}

impl Rig {
    pub(crate) fn new() -> Self {
        let dir = scratch_dir();
        let fs = FaultFs::new(&unique_name(), dir.path()).unwrap();
        Self { fs, _dir: dir }
    }

    pub(crate) fn connect(&self, mode: Mode) -> Result<Connection> {
        connect(&self.fs, mode)
    }

    /// The database in the image of one power loss, judged.
    pub(crate) fn judge(&self, log: &Log, point: u64, seed: u64) -> Result<(), Flaw> {
        judge_power_loss(&self.fs, log, point, seed)
    }
}

/// In memory where there is room for it: the sweeps write thousands of small files.
pub(crate) fn scratch_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) fn unique_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("faultfs-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn connect(fs: &FaultFs, mode: Mode) -> Result<Connection> {
    let path = fs.dir().join("a.db");
    let db = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), fs.vfs_name())?;
    db.pragma_update(None, "journal_mode", mode.journal)?;
    db.pragma_update(None, "synchronous", mode.synchronous)?;
    // Checkpoints are the checkpointer's.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(db)
}

/// Two tables and an index, so that half a transaction can be told from a whole one.
pub(crate) fn create_tables(db: &Connection) -> Result<()> {
    db.execute_batch(
        "BEGIN;
         CREATE TABLE IF NOT EXISTS kv(k INTEGER PRIMARY KEY, v BLOB);
         CREATE TABLE IF NOT EXISTS twin(note TEXT PRIMARY KEY, k INTEGER);
         COMMIT",
    )
}

pub(crate) fn put(db: &mut Connection, key: i64) -> Result<()> {
    let tx = db.transaction()?;
    tx.execute("INSERT INTO kv VALUES (?, ?)", (key, value(key)))?;
    let note = format!("{:04} {key}", key * 7919 % 1000);
    tx.execute("INSERT INTO twin VALUES (?, ?)", (note, key))?;
    tx.commit()
}

/// From a part of a page to several pages.
fn value(key: i64) -> Vec<u8> {
    let fill = u8::try_from(key % 251).unwrap();
    let len = usize::try_from(100 + key * 977 % 6000).unwrap();
    vec![fill; len]
}

impl Program {
    pub(crate) fn start(rig: &Rig, mode: Mode) -> Result<Self> {
        let writer = rig.connect(mode)?;
        create_tables(&writer)?;
        Ok(Self {
            writer,
            checkpointer: rig.connect(mode)?,
            reader: rig.connect(mode)?,
            reader_stays: mode.journal == "wal",
        })
    }

    /// Writes keys 1 to `ops`, with checkpoints of all kinds and a reader in their way. What
    /// fails is left out and the script goes on, as a program might that ignores errors.
    pub(crate) fn run(&mut self, fs: &FaultFs, log: &mut Log, ops: i64) {
        for key in 1..=ops {
            match key % 10 {
                3 if self.reader_stays => {
                    drop(self.reader.execute_batch("BEGIN; SELECT count(*) FROM kv"));
                }
                4 => drop(self.checkpoint("PASSIVE")),
                7 => drop(self.reader.execute_batch("ROLLBACK")),
                8 => drop(self.checkpoint("RESTART")),
                0 => drop(self.checkpoint("TRUNCATE")),
                _ => {}
            }
            log.put(fs, &mut self.writer, key);
        }
    }

    pub(crate) fn checkpoint(&self, how: &str) -> Result<bool> {
        let sql = format!("PRAGMA wal_checkpoint({how})");
        let busy: i64 = self.checkpointer.query_row(&sql, [], |row| row.get(0))?;
        Ok(busy == 0)
    }
}

impl Log {
    /// To the next process's calls, which count from nothing.
    pub(crate) fn carry_over(&mut self) {
        for (_, calls) in &mut self.acknowledged {
            *calls = 0;
        }
    }

    pub(crate) fn put(&mut self, fs: &FaultFs, db: &mut Connection, key: i64) {
        self.attempted.insert(key);
        if put(db, key).is_ok() {
            self.acknowledged.push((key, fs.calls()));
        }
    }
}

pub(crate) fn judge_power_loss(fs: &FaultFs, log: &Log, point: u64, seed: u64) -> Result<(), Flaw> {
    let image = scratch_dir();
    fs.power_loss_at(point, seed, image.path()).unwrap();
    let keys = keys_in(&image.path().join("a.db")).map_err(Flaw::Broken)?;
    if let Some(key) = keys.difference(&log.attempted).next() {
        return Err(Flaw::Broken(format!("key {key} was never written")));
    }
    for (key, calls) in &log.acknowledged {
        if *calls <= point && !keys.contains(key) {
            return Err(Flaw::Lost(*key));
        }
    }
    Ok(())
}

/// The keys of a database that an ordinary VFS opens, if it is in order.
fn keys_in(path: &Path) -> Result<BTreeSet<i64>, String> {
    let read = || {
        let db = Connection::open(path)?;
        // The image is thrown away: no need to wait for the real disk.
        db.pragma_update(None, "synchronous", "off")?;
        let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        if check != "ok" {
            return Ok(Err(check));
        }
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('kv', 'twin')";
        match db.query_row(tables, [], |row| row.get(0))? {
            0 => return Ok(Ok(BTreeSet::new())),
            2 => {}
            n => return Ok(Err(format!("{n} of 2 tables"))),
        }
        let mut keys = BTreeSet::new();
        let mut rows = db.prepare("SELECT k, v FROM kv")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let (key, found): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            if found != value(key) {
                return Ok(Err(format!("key {key} has a value nobody wrote")));
            }
            keys.insert(key);
        }
        let mut twins = db.prepare("SELECT k FROM twin")?;
        let twins: BTreeSet<i64> = twins.query_map([], |row| row.get(0))?.collect::<Result<_>>()?;
        if twins != keys {
            return Ok(Err("half a transaction".to_owned()));
        }
        Ok(Ok(keys))
    };
    read().unwrap_or_else(|e: rusqlite::Error| Err(e.to_string()))
}
