//! A store under a script: operations, what they should leave, and what a database file really holds.
//! When to crash, what to fail and which states are right is decided by the tests.

// Each test uses its own part.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cortex_core::model::{
    AttributeName, Caller, Key, Limits, Owner, Permissions, Principal, Scope, TableName, Uid,
};
use cortexd::store::{
    Command, CommandError, Entry, Granting, Options, RecordCommand, ScanStep, Store, TableCommand,
    UpkeepCommand,
};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

/// In memory where there is room for it: the sweeps write thousands of small files.
pub(crate) fn scratch_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("make a directory")
}

/// A name for a VFS that no other test of this process has.
pub(crate) fn unique_name(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a future of the store to its end.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// One change, by the names of what it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Create(Name),
    Drop(Name),
    /// The record is so many times that byte.
    Put(Name, &'static str, usize, u8),
    Delete(Name, &'static str),
    Grant(Name, u32, Permissions),
    Revoke(Name, u32, Permissions),
    /// Changes nothing that can be seen.
    Purge,
}

/// A table: its owner and its short name.
pub(crate) type Name = (u32, &'static str);

/// Everything that can be seen of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents(pub(crate) BTreeMap<(u32, String), Table>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) grants: BTreeMap<Principal, u8>,
}

impl Op {
    /// The command, with its table looked up now, by its owner.
    pub(crate) fn command(&self, store: &Store) -> Command {
        let entry = |name: &Name| find(store, *name).expect("the script makes its tables");
        let granting = |name: &Name, uid: u32, rights: Permissions| Granting {
            caller: owner(*name),
            entry: entry(name),
            principal: Principal::Uid(Uid(uid)),
            rights,
        };
        match self {
            Op::Create((uid, name)) => Command::Tables(TableCommand::CreateTable {
                caller: Caller::Local(Uid(*uid)),
                owner: Owner::Uid(Uid(*uid)),
                name: TableName::parse(name).expect("a name"),
                attributes: vec![AttributeName::parse("id").expect("a name")],
                scope: Scope::Local,
            }),
            Op::Drop(name) => Command::Tables(TableCommand::DropTable {
                caller: owner(*name),
                entry: entry(name),
            }),
            Op::Put(name, key, len, fill) => Command::Records(RecordCommand::Put {
                caller: owner(*name),
                entry: entry(name),
                key: self::key(key),
                record: Bytes::from(vec![*fill; *len]),
            }),
            Op::Delete(name, key) => Command::Records(RecordCommand::Delete {
                caller: owner(*name),
                entry: entry(name),
                key: self::key(key),
            }),
            Op::Grant(name, uid, rights) => {
                Command::Tables(TableCommand::Grant(granting(name, *uid, *rights)))
            }
            Op::Revoke(name, uid, rights) => {
                Command::Tables(TableCommand::Revoke(granting(name, *uid, *rights)))
            }
            Op::Purge => Command::Upkeep(UpkeepCommand::Purge),
        }
    }

    pub(crate) fn execute(&self, store: &Store) -> Result<(), CommandError> {
        wait(store.execute(self.command(store))).map(|_done| ())
    }
}

impl Contents {
    /// What an operation makes of it.
    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create((uid, name)) => {
                self.0.insert((*uid, (*name).to_owned()), Table::default());
            }
            Op::Drop((uid, name)) => {
                self.0.remove(&(*uid, (*name).to_owned()));
            }
            Op::Put(name, key, len, fill) => {
                self.table(*name).rows.insert(key.as_bytes().to_vec(), vec![*fill; *len]);
            }
            Op::Delete(name, key) => {
                self.table(*name).rows.remove(key.as_bytes());
            }
            Op::Grant(name, uid, rights) => {
                let principal = Principal::Uid(Uid(*uid));
                *self.table(*name).grants.entry(principal).or_default() |= rights.bits();
            }
            Op::Revoke(name, uid, rights) => {
                let grants = &mut self.table(*name).grants;
                let principal = Principal::Uid(Uid(*uid));
                let left = grants.remove(&principal).unwrap_or_default() & !rights.bits();
                if left != 0 {
                    grants.insert(principal, left);
                }
            }
            Op::Purge => {}
        }
    }

    fn table(&mut self, (uid, name): Name) -> &mut Table {
        self.0.get_mut(&(uid, name.to_owned())).expect("the script makes its tables")
    }

    /// What the store shows; its totals are compared with its rows on the way.
    pub(crate) fn of(store: &Store) -> Result<Self, String> {
        let mut contents = Self::default();
        let (mut records, mut bytes) = (0, 0);
        let catalog = store.catalog();
        for (owner, namespace) in catalog.namespaces() {
            let Owner::Uid(uid) = owner else {
                return Err(format!("{owner} was never asked for"));
            };
            let (mut owned_records, mut owned_bytes) = (0, 0);
            for entry in namespace.tables() {
                let table = read_table(store, entry)?;
                let name = &entry.table.name;
                let held: usize = table.rows.iter().map(|(k, v)| k.len() + v.len()).sum();
                let shown = (entry.usage.records(), entry.usage.bytes());
                let real = (table.rows.len() as u64, held as u64);
                if shown != real {
                    return Err(format!("{name} shows {shown:?} and holds {real:?}"));
                }
                owned_records += real.0;
                owned_bytes += real.1;
                contents.0.insert((uid.0, name.name.as_str().to_owned()), table);
            }
            let shown = (namespace.usage.records(), namespace.usage.bytes());
            if shown != (owned_records, owned_bytes) {
                return Err(format!(
                    "uid {uid} shows {shown:?}, holds {owned_records}, {owned_bytes}"
                ));
            }
            records += owned_records;
            bytes += owned_bytes;
        }
        let figures = store.figures();
        let shown = (figures.tables, figures.records, figures.bytes);
        if shown != (contents.0.len() as u64, records, bytes) {
            return Err(format!("status shows {shown:?}"));
        }
        Ok(contents)
    }
}

/// The counters that must never go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) seq: i64,
    pub(crate) lsn: i64,
    pub(crate) hlc: i64,
}

impl Counters {
    pub(crate) fn of(db: &Connection) -> rusqlite::Result<Self> {
        db.query_row("SELECT seq, lsn, hlc FROM node_state", [], |row| {
            Ok(Self { seq: row.get(0)?, lsn: row.get(1)?, hlc: row.get(2)? })
        })
    }

    /// True where none is behind.
    pub(crate) fn reach(self, earlier: Self) -> bool {
        self.seq >= earlier.seq && self.lsn >= earlier.lsn && self.hlc >= earlier.hlc
    }
}

/// A look at the file past the store, which may run or not.
pub(crate) fn inspector(dir: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(dir.join("cortex.db"), flags).expect("open the database");
    db.pragma_update(None, "query_only", true).expect("a setting");
    db
}

/// What must hold of the file whatever was stored: SQLite's own check, every number of a row
/// covered by the counters, stored totals equal to the rows, and nothing left of what is gone.
pub(crate) fn check_file(db: &Connection) -> Result<Counters, String> {
    let check: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .map_err(|e| format!("integrity_check: {e}"))?;
    if check != "ok" {
        return Err(check);
    }
    for (what, query) in [
        (
            "a row has a number that the counters do not cover",
            "SELECT count(*) FROM records, node_state AS n
             WHERE (records.actor = n.actor AND records.seq > n.seq)
                OR records.lsn > n.lsn OR records.hlc > n.hlc",
        ),
        ("two rows have the same number", "SELECT count(*) - count(DISTINCT lsn) FROM records"),
        (
            "two writes of one actor have the same number",
            "SELECT count(*) - count(DISTINCT actor || ':' || seq) FROM records",
        ),
        (
            "a table's totals are not those of its rows",
            "SELECT count(*) FROM tables WHERE dropped = 0 AND (records, bytes) IS NOT
             (SELECT count(value), coalesce(sum(length(key) + length(value)), 0)
              FROM records WHERE table_id = tables.id)",
        ),
        (
            "a row belongs to no table",
            "SELECT count(*) FROM records WHERE table_id NOT IN (SELECT id FROM tables)",
        ),
        (
            "a grant belongs to no table",
            "SELECT count(*) FROM grants WHERE table_id NOT IN
             (SELECT id FROM tables WHERE dropped = 0)",
        ),
    ] {
        let found: i64 = db.query_row(query, [], |row| row.get(0)).map_err(|e| e.to_string())?;
        if found != 0 {
            return Err(format!("{what} ({found})"));
        }
    }
    Counters::of(db).map_err(|e| e.to_string())
}

/// Options for a store whose directory a `FaultFs` watches.
pub(crate) fn options_over(fs: &faultfs::FaultFs) -> Options {
    Options { vfs: Some(fs.vfs_name().to_owned()), ..Options::new(fs.dir()) }
}

pub(crate) fn find(store: &Store, (uid, name): Name) -> Option<Arc<Entry>> {
    store.catalog().find(&Owner::Uid(Uid(uid)), name).map(Arc::clone)
}

pub(crate) fn owner((uid, _): Name) -> Caller {
    Caller::Local(Uid(uid))
}

/// A key of text.
pub(crate) fn key(text: &str) -> Key {
    let mut encoded = Vec::new();
    rmp::encode::write_str(&mut encoded, text).expect("a Vec takes everything");
    Key::read(&encoded, &Limits::default()).expect("a key")
}

fn read_table(store: &Store, entry: &Entry) -> Result<Table, String> {
    let mut table = Table::default();
    let mut scan = store.scan(entry.table.id, &[]).map_err(|e| e.to_string())?;
    let mut visit = |key: &[u8], value: &[u8]| {
        table.rows.insert(key.to_vec(), value.to_vec());
        ScanStep::Continue
    };
    while !scan.slice(&mut visit).map_err(|e| e.to_string())? {}
    let grants = entry.table.acl.iter();
    table.grants = grants.map(|(principal, rights)| (principal.clone(), rights.bits())).collect();
    Ok(table)
}
