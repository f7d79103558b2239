//! After this machine's clock was ahead and is right again: what was written meanwhile, and what nobody else
//! has, gets timestamps of the present. With those of the future no other machine would take it.
//!
//! Only what no other copy covers may be given another stamp, and only then may the clock go back.

use cortex_core::{
    directory::Row,
    model::{Hlc, TableUid},
};
use rusqlite::params;

use super::{
    apply::Batch,
    command::Done,
    error::{Failure, Fault},
    events::Event,
    rows::{Found, Place},
    system,
};

/// What is to be stamped again.
#[derive(Clone, Debug)]
pub struct Restamp {
    /// Timestamps beyond this are of the future.
    pub latest: Hlc,
    /// The greatest number of this machine's present origin that any other copy covers.
    pub covered: u64,
}

impl Batch<'_> {
    /// Stamps rows of the future again that nobody else has.
    pub(super) fn restamp(&mut self, restamp: &Restamp) -> Result<Done, Failure> {
        if self.state.hlc() <= restamp.latest {
            return Ok(Done::Restamped { rows: 0 });
        }
        let tables: Vec<TableUid> = {
            let copies = self.state.replicas.iter();
            let shared = copies.filter(|copy| copy.uid != system::UID && copy.table.is_some());
            shared.map(|copy| copy.uid).collect()
        };
        let mut ahead = Vec::new();
        for table in tables {
            for (key, found) in self.rows_ahead(table, restamp)? {
                ahead.push((table, key, found));
            }
        }
        self.state.set_clock_back(self.newest_that_stays(restamp)?);
        self.changed = true;
        ahead.sort_by_key(|(_, _, found)| found.stamp);
        let rows = ahead.len() as u64;
        for (table, key, found) in ahead {
            self.stamp_again(table, &key, &found)?;
        }
        self.sign_again(restamp)?;
        let text =
            format!("the clock is right again: {rows} rows were given timestamps of the present");
        self.note(&Event { uid: None, kind: "clock_mended", text })?;
        Ok(Done::Restamped { rows })
    }

    /// Rows of a table that are of the future, by this origin, and with nobody else.
    fn rows_ahead(
        &self,
        table: TableUid,
        restamp: &Restamp,
    ) -> Result<Vec<(Vec<u8>, Found)>, Fault> {
        let Some(id) = self.state.replicas.get(table).and_then(|copy| copy.table) else {
            return Ok(Vec::new());
        };
        let keys: Vec<Vec<u8>> = {
            let mut statement = self.cached(
                "SELECT key FROM records
                 WHERE table_id = ?1 AND hlc > ?2 AND incarnation = ?3 AND seq > ?4",
            )?;
            let wanted = params![id.0, restamp.latest.to_i64(), self.state.origin, restamp.covered];
            statement.query_map(wanted, |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        let mut found = Vec::new();
        for key in keys {
            if let Some(row) = self.find_row(id, &key)? {
                found.push((key, row));
            }
        }
        Ok(found)
    }

    /// The greatest timestamp in any copy that keeps its stamp.
    fn newest_that_stays(&self, restamp: &Restamp) -> Result<Hlc, Fault> {
        let newest: Option<i64> = self
            .cached(
                "SELECT max(hlc) FROM records
                 WHERE table_id IN (SELECT table_id FROM replicas)
                   AND NOT (hlc > ?1 AND incarnation = ?2 AND seq > ?3)",
            )?
            .query_row(
                params![restamp.latest.to_i64(), self.state.origin, restamp.covered],
                |row| row.get(0),
            )?;
        Ok(newest.map_or_else(Hlc::default, Hlc::from_i64))
    }

    fn stamp_again(&mut self, table: TableUid, key: &[u8], found: &Found) -> Result<(), Failure> {
        let Some(entry) = self.state.catalog.by_uid(table).cloned() else {
            return Ok(());
        };
        let value = found.value.as_deref();
        self.write_row(Place::of(&entry), key, Some(found), value, found.context_id)
    }

    /// The same for what this machine says in the directory, which is signed with its stamp.
    fn sign_again(&mut self, restamp: &Restamp) -> Result<(), Failure> {
        let Ok(here) = self.here() else {
            return Ok(());
        };
        let own: Vec<Row> = self.state.catalog.directory().written_by(&here).collect();
        let mut ahead = Vec::new();
        for row in own {
            let key = row.key();
            let Some(found) = self.find_row(Place::SYSTEM.id, key.as_bytes())? else {
                continue;
            };
            let is_ours = found.stamp.incarnation == self.state.own_incarnation();
            if found.stamp.hlc > restamp.latest && is_ours && found.seq > restamp.covered {
                // Out of the way: what is written now has an earlier stamp.
                self.remove_row(Place::SYSTEM, key.as_bytes(), &found)?;
                ahead.push(row);
            }
        }
        self.write(ahead)
    }
}
