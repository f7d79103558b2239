//! What a table's rows come to, computed from the rows: its digest, its counts, its damage. What is kept beside the
//! rows, and grows with each write, is compared with that, and corrected.
//!
//! ```text
//!   Audit ──> a slice of rows in the writer's transaction ──> the next ──> ... ──> compared, corrected
//!                 writes of others, in between: a change to a row that was passed changes the sum as well
//! ```
//!
//! So no snapshot is held for longer than a slice, however large the table is, and the result is exact. When to
//! look, and how fast, is the service's.

use std::collections::BTreeSet;

use cortex_core::{
    merge::Delta,
    model::{Hlc, Stamp, TableId, TableUid},
    replication::TableDigest,
};
use rusqlite::{Connection, params};

use super::{
    Store,
    apply::Tx,
    checksum::StoredRow,
    command::Outcome,
    error::{CommandError, StoreError},
    events::Event,
    rows::Place,
    system,
};

/// Rows of one slice, and bytes from which it is enough: a fraction of a millisecond of the writer's time.
const SLICE_ROWS: u64 = 256;
const SLICE_BYTES: u64 = 256 << 10;

/// Audits under way at a time. One more ends the oldest, which begins again.
const AT_A_TIME: usize = 8;

/// One step of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditStep {
    /// Of which table, by its number here.
    pub table: TableId,
    /// Which audit it is, drawn by whoever asks for it.
    pub audit: u64,
    /// True for its first step.
    pub begins: bool,
}

/// What a step of an audit has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audited {
    /// There are more rows.
    More {
        /// Bytes of keys and values that were read.
        bytes: u64,
    },
    /// All rows were read.
    Ended(AuditReport),
    /// It is not known any more, and must begin again.
    Lost,
    /// There is no such table here.
    Gone,
}

/// What a table's rows come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Live rows.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Of the live rows, without damaged ones.
    pub digest: TableDigest,
    /// Rows that are not what was stored.
    pub damaged: u64,
    /// True where what was kept beside the rows was another, and was corrected.
    pub corrected: bool,
}

/// An audit under way.
#[derive(Clone, Debug)]
pub(super) struct Audit {
    number: u64,
    table: TableId,
    /// The last key that was read.
    after: Vec<u8>,
    totals: Delta,
    tombstones: u64,
    digest: TableDigest,
    damaged: BTreeSet<Vec<u8>>,
}

/// What a write changes of a table's digest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DigestChange {
    pub(super) minus: Option<TableDigest>,
    pub(super) plus: Option<TableDigest>,
    pub(super) tombstones: i64,
}

impl DigestChange {
    /// The digest and the number of tombstones after it.
    pub(super) fn applied(self, digest: TableDigest, tombstones: u64) -> (TableDigest, u64) {
        let digest = digest.minus(self.minus.unwrap_or_default());
        let digest = digest.plus(self.plus.unwrap_or_default());
        (digest, tombstones.saturating_add_signed(self.tombstones))
    }
}

/// A row of a slice.
struct Read {
    id: i64,
    key: Vec<u8>,
    /// Bytes of key and value of a live row.
    live: Option<u64>,
    /// What it adds to the digest, if it is sound and live.
    leaf: TableDigest,
    checksum: u32,
    stored: Option<i64>,
}

impl Store {
    /// What is wrong with the structure of the database, by SQLite's own check of pages and indices; none where
    /// nothing is. Reads the whole file.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn integrity(&self) -> Result<Option<String>, StoreError> {
        self.inner.scans.read(|conn| {
            let found: String =
                conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
            Ok((found != "ok").then_some(found))
        })
    }

    /// Reads what the next step of an audit of a table will read, from after a key, so that the writer need not wait
    /// for the disk. Answers the last key; none at the end.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn read_ahead(&self, table: TableId, after: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.scans.read(|conn| read_ahead(conn, table, after))
    }
}

impl Tx<'_> {
    pub(super) fn audit(&mut self, step: AuditStep) -> Result<Outcome, CommandError> {
        let table = step.table;
        let entry = self.state.catalog.by_id(table).cloned();
        if entry.is_none() && table != system::NUMBER {
            return Ok(Outcome::Audited(Audited::Gone));
        }
        let place = entry.as_deref().map_or(Place::SYSTEM, Place::of);
        let audit = if step.begins {
            Audit::of(step.audit, table)
        } else {
            let known = self.state.audits.iter().position(|audit| audit.number == step.audit);
            let Some(known) = known.filter(|known| self.state.audits[*known].table == table) else {
                return Ok(Outcome::Audited(Audited::Lost));
            };
            self.state.audits.remove(known)
        };
        let (audit, bytes, ended) = self.audit_slice(audit, place.uid)?;
        if ended {
            return Ok(Outcome::Audited(Audited::Ended(self.conclude_audit(place, &audit)?)));
        }
        if self.state.audits.len() >= AT_A_TIME {
            self.state.audits.remove(0);
        }
        self.state.audits.push(audit);
        Ok(Outcome::Audited(Audited::More { bytes }))
    }

    /// Reads the next rows. Answers how many bytes, and whether there are no more.
    fn audit_slice(
        &mut self,
        mut audit: Audit,
        uid: TableUid,
    ) -> Result<(Audit, u64, bool), CommandError> {
        let (rows, bytes, ended) = self.read_slice(&audit, uid)?;
        let mut unsealed = None;
        for row in rows {
            let mut sound = row.stored.is_none_or(|stored| stored == i64::from(row.checksum));
            if row.stored.is_none() {
                let may_be = match unsealed {
                    Some(known) => known,
                    None => *unsealed.insert(!self.is_checksummed(audit.table)?),
                };
                // Where every row had one, somebody else has put this row here.
                let checksum = if may_be { row.checksum } else { !row.checksum };
                let seal = "UPDATE records SET checksum = ?2 WHERE id = ?1";
                self.execute(seal, params![row.id, checksum])?;
                sound = may_be;
            }
            audit.add(&row, sound);
            if !sound {
                self.damage.found(audit.table, &row.key);
                self.touched.push(self.cache.bucket(audit.table, &row.key));
                audit.damaged.insert(row.key.clone());
            }
            audit.after = row.key;
        }
        Ok((audit, bytes, ended))
    }

    fn read_slice(
        &self,
        audit: &Audit,
        uid: TableUid,
    ) -> Result<(Vec<Read>, u64, bool), StoreError> {
        let mut statement = self.cached(SLICE)?;
        let mut found = statement.query(params![audit.table.0, audit.after])?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while bytes < SLICE_BYTES && (rows.len() as u64) < SLICE_ROWS {
            let Some(row) = found.next()? else {
                return Ok((rows, bytes, true));
            };
            let damaged = |e: rusqlite::types::FromSqlError| StoreError::Corrupt(e.to_string());
            let key = row.get_ref(1)?.as_blob().map_err(damaged)?;
            let value = row.get_ref(2)?.as_blob_or_null().map_err(damaged)?;
            let (hlc, actor_number, seq) = (row.get(3)?, row.get(4)?, row.get(5)?);
            let stored = StoredRow { table: audit.table, key, hlc, actor_number, seq, value };
            let actor = self.state.actors.id(actor_number);
            let stamp = Stamp { hlc: Hlc::from_i64(hlc), actor };
            bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
            rows.push(Read {
                id: row.get(0)?,
                key: key.to_vec(),
                live: value.map(|value| (key.len() + value.len()) as u64),
                leaf: value.map_or_else(TableDigest::default, |value| {
                    TableDigest::of_row(uid, key, stamp, value)
                }),
                checksum: stored.checksum(),
                stored: row.get(6)?,
            });
        }
        Ok((rows, bytes, false))
    }

    /// True where no row of the table may be without a checksum.
    fn is_checksummed(&self, table: TableId) -> Result<bool, StoreError> {
        let mut statement = self.cached("SELECT checksummed FROM tables WHERE id = ?1")?;
        Ok(statement.query_row([table.0], |row| row.get(0))?)
    }

    /// Compares what was kept beside the rows with what they come to, and puts it right.
    fn conclude_audit(
        &mut self,
        place: Place<'_>,
        audit: &Audit,
    ) -> Result<AuditReport, CommandError> {
        let (table, uid) = (place.id, place.uid);
        for key in self.damage.of(table) {
            if !audit.damaged.contains(&key) {
                self.damage.gone(table, &key);
            }
        }
        self.execute(
            "UPDATE tables SET checksummed = 1 WHERE id = ?1 AND checksummed = 0",
            [table.0],
        )?;
        let mut wrong = Vec::new();
        if let Some(replica) = self.state.replicas.get(uid)
            && (replica.digest, replica.tombstones) != (audit.digest, audit.tombstones)
        {
            if replica.digest != audit.digest {
                wrong.push("digest");
            }
            if replica.tombstones != audit.tombstones {
                wrong.push("number of tombstones");
            }
            if let Some(replica) = self.state.replicas.get_mut(uid) {
                (replica.digest, replica.tombstones) = (audit.digest, audit.tombstones);
            }
        }
        if let Some(entry) = place.entry {
            let held = self.totals.held_by(entry);
            if held != audit.totals {
                wrong.push("number of records or bytes");
                self.totals.add(entry, audit.totals.plus(held.negated()));
            }
        }
        if !wrong.is_empty() {
            self.note_corrected(place, audit, &wrong.join(" and "))?;
        }
        Ok(AuditReport {
            records: audit.totals.records.unsigned_abs(),
            bytes: audit.totals.bytes.unsigned_abs(),
            digest: audit.digest,
            damaged: audit.damaged.len() as u64,
            corrected: !wrong.is_empty(),
        })
    }

    fn note_corrected(
        &mut self,
        place: Place<'_>,
        audit: &Audit,
        wrong: &str,
    ) -> Result<(), StoreError> {
        // Rows that are not there any more may be in memory.
        self.touched.extend(0..self.cache.buckets());
        self.fresh.give_up();
        let records = audit.totals.records;
        let shown = place.entry.map_or_else(
            || "the directory".to_owned(),
            |entry| self.state.catalog.show(&entry.table.name),
        );
        let text = format!(
            "the {wrong} kept of {shown} did not match its rows and was corrected: rows were changed or lost \
             outside of cortexd, {records} records are there"
        );
        tracing::warn!(table = %shown, %wrong, records, "what is kept of a table did not match its rows, and was corrected");
        match place.entry {
            Some(entry) => self.note_of(&entry.table.name, "rows_differ", text),
            None => self.note(&Event { uid: None, kind: "rows_differ", text }),
        }
    }

    /// Tells the audits of a table about a write to a row that they have passed.
    pub(super) fn tell_audits(
        &mut self,
        table: TableId,
        key: &[u8],
        delta: Delta,
        digest: DigestChange,
    ) {
        let passed = |audit: &&mut Audit| audit.table == table && key <= audit.after.as_slice();
        for audit in self.state.audits.iter_mut().filter(passed) {
            audit.totals = audit.totals.plus(delta);
            (audit.digest, audit.tombstones) = digest.applied(audit.digest, audit.tombstones);
            audit.damaged.remove(key);
        }
    }
}

impl Audit {
    fn of(number: u64, table: TableId) -> Self {
        Self {
            number,
            table,
            after: Vec::new(),
            totals: Delta::default(),
            tombstones: 0,
            digest: TableDigest::default(),
            damaged: BTreeSet::new(),
        }
    }

    /// A damaged row is no part of the digest: nothing that it says is believed. It takes its room all the same.
    fn add(&mut self, row: &Read, sound: bool) {
        if let Some(bytes) = row.live {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.totals = self.totals.plus(Delta { records: 1, bytes });
        }
        if sound {
            self.digest = self.digest.plus(row.leaf);
            self.tombstones += u64::from(row.live.is_none());
        }
    }
}

const SLICE: &str = "SELECT id, key, value, hlc, actor, seq, checksum FROM records
     WHERE table_id = ?1 AND key > ?2 ORDER BY key";

/// Reads what the next step of an audit will read, so that the writer finds it in memory. Answers the last key;
/// none at the end.
pub(super) fn read_ahead(
    conn: &Connection,
    table: TableId,
    after: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = conn.prepare_cached(SLICE)?;
    let mut found = statement.query(params![table.0, after])?;
    let (mut rows, mut bytes, mut last) = (0, 0, None);
    while bytes < SLICE_BYTES && rows < SLICE_ROWS {
        let Some(row) = found.next()? else { return Ok(None) };
        let damaged = |e: rusqlite::types::FromSqlError| StoreError::Corrupt(e.to_string());
        let key = row.get_ref(1)?.as_blob().map_err(damaged)?;
        let value = row.get_ref(2)?.as_blob_or_null().map_err(damaged)?;
        // Once through the whole value: a large one is on pages of its own.
        let read = value.unwrap_or_default().iter().fold(0_u8, |sum, byte| sum ^ byte);
        (rows, bytes) = (rows + 1, bytes + (key.len() + value.map_or(0, <[u8]>::len)) as u64);
        std::hint::black_box(read);
        last = Some(key.to_vec());
    }
    Ok(last)
}
