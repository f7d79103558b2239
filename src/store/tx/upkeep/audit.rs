//! One step of an audit, in the writer's transaction; what an audit is, `store::audit` says.

use std::collections::BTreeSet;

use cortex_core::{
    model::{TableId, TableUid, UsageDelta},
    replication::TableDigest,
};
use rusqlite::params;

use crate::store::{
    audit::{SLICE, SLICE_BYTES, SLICE_ROWS},
    checksum::StoredRow,
    command::{AuditReport, AuditStep, Audited, UpkeepOutcome},
    error::{CommandError, StoreError},
    events::Event,
    system,
    tx::{Tx, audits::Audit, row_table::RowTable},
};

/// Audits under way at a time. One more ends the oldest, which begins again.
const AT_A_TIME: usize = 8;

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

pub(crate) fn audit(tx: &mut Tx<'_>, step: AuditStep) -> Result<UpkeepOutcome, CommandError> {
    let table = step.table;
    let entry = tx.state.catalog.by_id(table).cloned();
    if entry.is_none() && table != system::NUMBER {
        return Ok(UpkeepOutcome::Audited(Audited::Gone));
    }
    let place = entry.as_deref().map_or(RowTable::SYSTEM, RowTable::of);
    let audit = if step.begins {
        Audit::of(step.audit, table)
    } else {
        let known = tx.state.audits.iter().position(|audit| audit.number == step.audit);
        let Some(known) = known.filter(|known| tx.state.audits[*known].table == table) else {
            return Ok(UpkeepOutcome::Audited(Audited::Lost));
        };
        tx.state.audits.remove(known)
    };
    let (audit, bytes, ended) = audit_slice(tx, audit, place.uid)?;
    if ended {
        return Ok(UpkeepOutcome::Audited(Audited::Ended(conclude_audit(tx, place, &audit)?)));
    }
    if tx.state.audits.len() >= AT_A_TIME {
        tx.state.audits.remove(0);
    }
    tx.state.audits.push(audit);
    Ok(UpkeepOutcome::Audited(Audited::More { bytes }))
}

/// Reads the next rows. Answers how many bytes, and whether there are no more.
fn audit_slice(
    tx: &mut Tx<'_>,
    mut audit: Audit,
    uid: TableUid,
) -> Result<(Audit, u64, bool), CommandError> {
    let (rows, bytes, ended) = read_slice(tx, &audit, uid)?;
    let mut unsealed = None;
    for row in rows {
        let mut sound = row.stored.is_none_or(|stored| stored == i64::from(row.checksum));
        if row.stored.is_none() {
            let may_be = match unsealed {
                Some(known) => known,
                None => *unsealed.insert(!is_checksummed(tx, audit.table)?),
            };
            // Where every row had one, somebody else has put this row here.
            let checksum = if may_be { row.checksum } else { !row.checksum };
            let seal = "UPDATE records SET checksum = ?2 WHERE id = ?1";
            tx.execute(seal, params![row.id, checksum])?;
            sound = may_be;
        }
        audit.add(&row, sound);
        if !sound {
            tx.damage.found(audit.table, &row.key);
            tx.touched.push(tx.cache.bucket(audit.table, &row.key));
            audit.damaged.insert(row.key.clone());
        }
        audit.after = row.key;
    }
    Ok((audit, bytes, ended))
}

fn read_slice(
    tx: &Tx<'_>,
    audit: &Audit,
    uid: TableUid,
) -> Result<(Vec<Read>, u64, bool), StoreError> {
    let mut statement = tx.cached(SLICE)?;
    let mut found = statement.query(params![audit.table.0, audit.after])?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while bytes < SLICE_BYTES && (rows.len() as u64) < SLICE_ROWS {
        let Some(row) = found.next()? else {
            return Ok((rows, bytes, true));
        };
        let (row_here, checksum) = StoredRow::read(audit.table, row)?;
        let (StoredRow { key, value, .. }, stamp) = (row_here, row_here.stamp(&tx.state.actors));
        bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
        rows.push(Read {
            id: row.get(6)?,
            key: key.to_vec(),
            live: value.map(|value| (key.len() + value.len()) as u64),
            leaf: value.map_or_else(TableDigest::default, |value| {
                TableDigest::of_row(uid, key, stamp, value)
            }),
            checksum: row_here.checksum(),
            stored: checksum,
        });
    }
    Ok((rows, bytes, false))
}

/// True where no row of the table may be without a checksum.
fn is_checksummed(tx: &Tx<'_>, table: TableId) -> Result<bool, StoreError> {
    let mut statement = tx.cached("SELECT checksummed FROM tables WHERE id = ?1")?;
    Ok(statement.query_row([table.0], |row| row.get(0))?)
}

/// Compares what was kept beside the rows with what they come to, and puts it right.
fn conclude_audit(
    tx: &mut Tx<'_>,
    place: RowTable<'_>,
    audit: &Audit,
) -> Result<AuditReport, CommandError> {
    let (table, uid) = (place.id, place.uid);
    for key in tx.damage.of(table) {
        if !audit.damaged.contains(&key) {
            tx.damage.gone(table, &key);
        }
    }
    tx.execute("UPDATE tables SET checksummed = 1 WHERE id = ?1 AND checksummed = 0", [table.0])?;
    let mut wrong = Vec::new();
    if let Some(replica) = tx.state.replicas.get(uid)
        && (replica.digest, replica.tombstones) != (audit.digest, audit.tombstones)
    {
        if replica.digest != audit.digest {
            wrong.push("digest");
        }
        if replica.tombstones != audit.tombstones {
            wrong.push("number of tombstones");
        }
        if let Some(replica) = tx.state.replicas.get_mut(uid) {
            (replica.digest, replica.tombstones) = (audit.digest, audit.tombstones);
        }
    }
    if let Some(entry) = place.entry {
        let held = tx.totals.held_by(entry);
        if held != audit.totals {
            wrong.push("number of records or bytes");
            tx.totals.add(entry, audit.totals.plus(held.negated()));
        }
    }
    if !wrong.is_empty() {
        note_corrected(tx, place, audit, &wrong.join(" and "))?;
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
    tx: &mut Tx<'_>,
    place: RowTable<'_>,
    audit: &Audit,
    wrong: &str,
) -> Result<(), StoreError> {
    // Rows that are not there any more may be in memory.
    tx.touched.extend(0..tx.cache.buckets());
    tx.fresh.mark_incomplete();
    let records = audit.totals.records;
    let shown = place.entry.map_or_else(
        || "the directory".to_owned(),
        |entry| tx.state.catalog.show(&entry.table.name),
    );
    let text = format!(
        "the {wrong} kept of {shown} did not match its rows and was corrected: rows were changed or lost \
         outside of cortexd, {records} records are there"
    );
    tracing::warn!(table = %shown, %wrong, records, "what is kept of a table did not match its rows, and was corrected");
    match place.entry {
        Some(entry) => tx.note_of(&entry.table.name, "rows_differ", text),
        None => tx.note(&Event { uid: None, kind: "rows_differ", text }),
    }
}

impl Audit {
    fn of(number: u64, table: TableId) -> Self {
        Self {
            number,
            table,
            after: Vec::new(),
            totals: UsageDelta::default(),
            tombstones: 0,
            digest: TableDigest::default(),
            damaged: BTreeSet::new(),
        }
    }

    /// A damaged row is no part of the digest: nothing that it says is believed. It takes its room all the same.
    fn add(&mut self, row: &Read, sound: bool) {
        if let Some(bytes) = row.live {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.totals = self.totals.plus(UsageDelta { records: 1, bytes });
        }
        if sound {
            self.digest = self.digest.plus(row.leaf);
            self.tombstones += u64::from(row.live.is_none());
        }
    }
}
