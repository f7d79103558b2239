//! This machine's replicas of tables: what each has incorporated and where its change log stands, in memory and
//! in the file. What follows from it is decided by `cortex_core::replication`.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::{
    model::{TableId, TableUid},
    replication::{ChangeLogId, OpenConflicts, TableDigest, VersionVector, driver::ReplicaSummary},
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    actors::Actors,
    checksum::StoredRow,
    conflicts::{self, ConflictCounts},
    contexts,
    error::StoreError,
};

/// One replica, as of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Of which table.
    pub uid: TableUid,
    /// The table's number here; none until its first rows have come.
    pub table: Option<TableId>,
    /// Which replica epoch of the replica it is; 0 where there is none.
    pub epoch: u64,
    /// True once it is whole.
    pub ready: bool,
    /// Its change log.
    pub change_log: ChangeLogId,
    /// Entries of the change log up to here are gone.
    pub truncated_lsn: u64,
    /// The LSN of the last change.
    pub last_lsn: u64,
    /// What is incorporated.
    pub vector: VersionVector,
    /// Up to where deletions were forgotten.
    pub gc_watermark: VersionVector,
    /// What the live rows come to.
    pub digest: TableDigest,
    /// Deletions that are kept.
    pub tombstones: u64,
    /// Conflicts of which nobody has taken note.
    pub conflicts: ConflictCounts,
    /// Conflicts that were given up to stay within bounds.
    pub conflicts_evicted: u64,
    /// The draining that is under way; a new one after each start, since acknowledgements of an earlier
    /// one do not count.
    pub drain: Option<[u8; 16]>,
}

impl Replica {
    /// A replica that begins.
    pub(super) fn new(uid: TableUid, epoch: u64, change_log: ChangeLogId, lsn: u64) -> Self {
        Self {
            uid,
            table: None,
            epoch,
            ready: false,
            change_log,
            truncated_lsn: lsn,
            last_lsn: lsn,
            vector: VersionVector::new(),
            gc_watermark: VersionVector::new(),
            digest: TableDigest::default(),
            tombstones: 0,
            conflicts: ConflictCounts::default(),
            conflicts_evicted: 0,
            drain: None,
        }
    }
}

impl ReplicaSummary for Replica {
    fn table(&self) -> TableUid {
        self.uid
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn vector(&self) -> &VersionVector {
        &self.vector
    }

    fn digest(&self) -> TableDigest {
        self.digest
    }

    fn open_conflicts(&self) -> OpenConflicts {
        self.conflicts.open
    }

    fn drain(&self) -> Option<[u8; 16]> {
        self.drain
    }

    fn tombstones(&self) -> u64 {
        self.tombstones
    }
}

/// All replicas: those of the last commit, and above them what the transaction has changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Replicas {
    committed: Arc<BTreeMap<TableUid, Arc<Replica>>>,
    changed: BTreeMap<TableUid, Replica>,
}

impl Replicas {
    pub(super) fn get(&self, uid: TableUid) -> Option<&Replica> {
        self.changed.get(&uid).or_else(|| self.committed.get(&uid).map(Arc::as_ref))
    }

    /// The replica, to be changed; none where there is none.
    pub(super) fn get_mut(&mut self, uid: TableUid) -> Option<&mut Replica> {
        if !self.changed.contains_key(&uid) {
            let replica = Replica::clone(self.committed.get(&uid)?);
            self.changed.insert(uid, replica);
        }
        self.changed.get_mut(&uid)
    }

    pub(super) fn insert(&mut self, replica: Replica) {
        self.changed.insert(replica.uid, replica);
    }

    /// A replica, as of the last commit.
    pub(super) fn committed_replica(&self, uid: TableUid) -> Option<Arc<Replica>> {
        self.committed.get(&uid).cloned()
    }

    /// Every replica, as of the last commit.
    pub(super) fn committed(&self) -> Vec<Arc<Replica>> {
        self.committed.values().cloned().collect()
    }

    /// Every replica.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Replica> {
        let unchanged = self.committed.values().filter(|r| !self.changed.contains_key(&r.uid));
        self.changed.values().chain(unchanged.map(Arc::as_ref))
    }

    /// Writes what the transaction has changed.
    pub(super) fn save(&self, conn: &Connection, actors: &mut Actors) -> Result<(), StoreError> {
        for replica in self.changed.values() {
            let before = self.committed.get(&replica.uid).map(Arc::as_ref);
            if before != Some(replica) {
                save(conn, actors, before, replica)?;
            }
        }
        Ok(())
    }

    /// Makes what was changed part of what was committed; answers it.
    pub(super) fn take_changed(&mut self) -> Vec<Arc<Replica>> {
        let changed: Vec<_> =
            std::mem::take(&mut self.changed).into_values().map(Arc::new).collect();
        let committed = Arc::make_mut(&mut self.committed);
        committed.extend(changed.iter().map(|replica| (replica.uid, Arc::clone(replica))));
        changed
    }

    pub(super) fn load(conn: &Connection, actors: &Actors) -> Result<Self, StoreError> {
        let open = conflicts::open(conn)?;
        let mut statement = conn.prepare(&format!("SELECT {COLUMNS} FROM replicas"))?;
        let mut rows = statement.query([])?;
        let mut committed = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let mut replica = from_row(row, actors)?;
            if let Some(table) = replica.table {
                replica.conflicts = open.of(table);
            }
            committed.insert(replica.uid, Arc::new(replica));
        }
        Ok(Self { committed: Arc::new(committed), changed: BTreeMap::new() })
    }
}

/// What [`from_row`] reads.
const COLUMNS: &str =
    "uid, table_id, epoch, ready, change_log, truncated_lsn, last_lsn, digest, tombstones,
     conflicts_evicted, vector, gc_watermark";

/// A replica without its conflicts.
fn from_row(row: &Row<'_>, actors: &Actors) -> rusqlite::Result<Replica> {
    let vector = |index| row.get::<_, Vec<u8>>(index).map(|body| contexts::decode(actors, &body));
    Ok(Replica {
        uid: TableUid(row.get(0)?),
        table: row.get::<_, Option<i64>>(1)?.map(TableId),
        epoch: row.get(2)?,
        ready: row.get(3)?,
        change_log: ChangeLogId(row.get(4)?),
        truncated_lsn: row.get(5)?,
        last_lsn: row.get(6)?,
        vector: vector(10)?,
        gc_watermark: vector(11)?,
        digest: TableDigest::from_bytes(row.get(7)?),
        tombstones: row.get(8)?,
        conflicts: ConflictCounts::default(),
        conflicts_evicted: row.get(9)?,
        drain: None,
    })
}

/// One replica without its conflicts.
pub(super) fn load_one(
    conn: &Connection,
    actors: &Actors,
    uid: TableUid,
) -> Result<Option<Replica>, StoreError> {
    let mut statement =
        conn.prepare_cached(&format!("SELECT {COLUMNS} FROM replicas WHERE uid = ?1"))?;
    Ok(statement.query_row([uid.0], |row| from_row(row, actors)).optional()?)
}

/// The LSN of a replica's last change.
pub(super) fn last_change(conn: &Connection, uid: TableUid) -> Result<Option<u64>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT last_lsn FROM replicas WHERE uid = ?1")?;
    Ok(statement.query_row([uid.0], |row| row.get(0)).optional()?)
}

fn save(
    conn: &Connection,
    actors: &mut Actors,
    before: Option<&Replica>,
    replica: &Replica,
) -> Result<(), StoreError> {
    // What is not set is in no index that would have to be written too.
    let sql = if before.is_some_and(|before| before.table == replica.table) {
        "UPDATE replicas SET epoch = ?3, ready = ?4, change_log = ?5, truncated_lsn = ?6, last_lsn = ?7, digest = ?8,
         tombstones = ?9, conflicts_evicted = ?10, vector = ?11, gc_watermark = ?12
         WHERE uid = ?1 AND table_id IS ?2"
    } else {
        "INSERT OR REPLACE INTO replicas (uid, table_id, epoch, ready, change_log, truncated_lsn, last_lsn, digest,
         tombstones, conflicts_evicted, vector, gc_watermark)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
    };
    let vector = contexts::encode(conn, actors, &replica.vector)?;
    let gc_watermark = contexts::encode(conn, actors, &replica.gc_watermark)?;
    conn.prepare_cached(sql)?.execute(params![
        replica.uid.0,
        replica.table.map(|table| table.0),
        replica.epoch,
        replica.ready,
        replica.change_log.0,
        replica.truncated_lsn,
        replica.last_lsn,
        replica.digest.to_bytes(),
        replica.tombstones,
        replica.conflicts_evicted,
        vector,
        gc_watermark,
    ])?;
    Ok(())
}

/// What the live rows of a table come to, read anew.
pub(super) fn recount(
    conn: &Connection,
    actors: &Actors,
    table: TableId,
    uid: TableUid,
) -> Result<TableDigest, StoreError> {
    recount_by(conn, actors, table, uid, "checksum")
}

/// `checksum` names the column, or stands for it in a schema that has none.
fn recount_by(
    conn: &Connection,
    actors: &Actors,
    table: TableId,
    uid: TableUid,
    checksum: &str,
) -> Result<TableDigest, StoreError> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT key, value, hlc, actor, seq, {checksum} FROM records
         WHERE table_id = ?1 AND value IS NOT NULL",
    ))?;
    let mut rows = statement.query([table.0])?;
    let mut sum = TableDigest::default();
    while let Some(row) = rows.next()? {
        let (stored, checksum) = StoredRow::read(table, row)?;
        if let Some(value) = stored.value.filter(|_| stored.is_sound(checksum)) {
            sum = sum.plus(TableDigest::of_row(uid, stored.key, stored.stamp(actors), value));
        }
    }
    Ok(sum)
}

/// Works out the digests that a migration has left open.
pub(super) fn recount_all(conn: &Connection) -> Result<(), StoreError> {
    let actors = Actors::load(conn)?;
    for replica in Replicas::load(conn, &actors)?.committed() {
        if let Some(table) = replica.table {
            let digest = recount_by(conn, &actors, table, replica.uid, "NULL")?;
            conn.execute(
                "UPDATE replicas SET digest = ?2 WHERE uid = ?1",
                params![replica.uid.0, digest.to_bytes()],
            )?;
        }
    }
    Ok(())
}
