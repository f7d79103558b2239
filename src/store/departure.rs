//! Stays of replicas that are over here and of which bytes may still be on the disk.
//! What a replica epoch is, and when it is over, is `epoch`'s; emptying the log is the writer's (`erasure`).
//!
//! ```text
//!   handed over ──> rows out of sight, departure stored ──> rows removed (purge) ──> log emptied ──> told to all
//!                   one transaction                         many small ones          and the gaps    departure gone
//! ```
//!
//! The others take the replica epoch for over once they are told, and people take "left" for a promise. So it is told
//! last. Each arrow may be the last thing before a crash: the departure is in the file, and what follows is
//! done by the next start; of a log nothing is believed that this process has not emptied itself.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::{
    directory::Standing,
    model::{TableUid, Uid},
};
use rusqlite::{Connection, params};

use super::{
    apply::Tx,
    catalog::Entry,
    error::{CommandError, StoreError},
    events::Event,
    replica::Replica,
};

/// A replica epoch that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Departure {
    uid: TableUid,
    epoch: u64,
    /// How often the log had been emptied when the last row was removed; none while there are rows.
    rows_gone: Option<u64>,
}

/// All of them, by the number that the table had here.
#[derive(Clone, Debug, Default)]
pub(super) struct Departures {
    waiting: Arc<BTreeMap<i64, Departure>>,
    /// How often, since the file was opened, the log was emptied with nothing left over in the file either.
    emptied: u64,
    /// True where the file says that all its pages were looked at.
    pub(super) swept: bool,
    /// True while the removal of rows is to go on at once although there are none: pages are being looked at.
    pub(super) hurry: bool,
}

impl Departures {
    pub(super) fn load(conn: &Connection) -> Result<Self, StoreError> {
        let mut statement = conn.prepare(
            "SELECT d.table_id, d.uid, d.epoch, t.id IS NULL
             FROM departures d LEFT JOIN tables t ON t.id = d.table_id",
        )?;
        let rows = statement.query_map([], |row| {
            let rows_gone = row.get::<_, bool>(3)?.then_some(0);
            Ok((
                row.get(0)?,
                Departure { uid: TableUid(row.get(1)?), epoch: row.get(2)?, rows_gone },
            ))
        })?;
        let waiting = Arc::new(rows.collect::<Result<_, _>>()?);
        let swept =
            conn.query_row("SELECT swept FROM node_state WHERE id = 1", [], |row| row.get(0))?;
        Ok(Self { waiting, emptied: 0, swept, hurry: false })
    }

    /// True where some stay waits for nothing but an empty log.
    pub(super) fn wait_for_log(&self) -> bool {
        self.waiting.values().any(|departure| departure.rows_gone == Some(self.emptied))
    }

    /// True where the bytes of an earlier replica epoch of a table's replica may still be here.
    pub(super) fn include(&self, table: TableUid) -> bool {
        self.waiting.values().any(|departure| departure.uid == table)
    }

    /// The log holds nothing any more, and the file no bytes of what was removed.
    pub(super) fn log_emptied(&mut self) {
        self.emptied += 1;
    }

    /// The last row of a table was removed.
    fn rows_are_gone(&mut self, table: i64) {
        if self.waiting.contains_key(&table)
            && let Some(departure) = Arc::make_mut(&mut self.waiting).get_mut(&table)
        {
            departure.rows_gone = Some(self.emptied);
        }
    }

    /// Those of which nothing is left.
    fn over(&self) -> Vec<(i64, Departure)> {
        let is_over =
            |departure: &Departure| departure.rows_gone.is_some_and(|at| at < self.emptied);
        let over = self.waiting.iter().filter(|(_, departure)| is_over(departure));
        over.map(|(table, departure)| (*table, departure.clone())).collect()
    }
}

impl Tx<'_> {
    /// Remembers that a replica epoch is over whose rows have just gone out of sight.
    pub(super) fn depart(
        &mut self,
        entry: &Entry,
        replica: &Replica,
        taker: &str,
    ) -> Result<(), CommandError> {
        let name = &entry.table.name;
        let (table, owner) = (entry.table.id.0, self.state.catalog.uid_here(&name.owner));
        let shown = self.state.catalog.show(name);
        self.execute(
            "INSERT OR REPLACE INTO departures (table_id, uid, epoch, owner, name, taker)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![table, replica.uid.0, replica.epoch, owner.map(|uid| uid.0), shown, taker],
        )?;
        let departure = Departure { uid: replica.uid, epoch: replica.epoch, rows_gone: None };
        Arc::make_mut(&mut self.state.departures.waiting).insert(table, departure);
        Ok(())
    }

    /// The last row of a dropped table was removed.
    pub(super) fn table_is_empty(&mut self, table: i64) -> Result<(), StoreError> {
        self.execute("DELETE FROM tables WHERE id = ?1", [table])?;
        self.state.departures.rows_are_gone(table);
        Ok(())
    }

    /// Tells of the replica epochs of which no byte is left. True where there were some.
    pub(super) fn tell_departures(&mut self) -> Result<bool, CommandError> {
        let departures = &mut self.state.departures;
        if departures.emptied > 0 && !departures.swept {
            departures.swept = true;
            self.execute("UPDATE node_state SET swept = 1 WHERE id = 1", [])?;
        }
        let over = self.state.departures.over();
        if over.is_empty() || self.here().is_err() {
            return Ok(false); // without a mesh there is nobody to tell; once there is one again, it is told
        }
        for (table, departure) in &over {
            self.tell_departure(*table, departure)?;
        }
        Ok(true)
    }

    fn tell_departure(&mut self, table: i64, departure: &Departure) -> Result<(), CommandError> {
        let Departure { uid, epoch, .. } = departure;
        let (owner, name, taker): (Option<u32>, String, String) = self
            .cached("SELECT owner, name, taker FROM departures WHERE table_id = ?1")?
            .query_row([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        self.execute("DELETE FROM departures WHERE table_id = ?1", [table])?;
        Arc::make_mut(&mut self.state.departures.waiting).remove(&table);
        let directory = self.state.catalog.directory();
        if !directory.is_dropped(*uid) {
            let here = self.here()?;
            let said = directory.replica(*uid, &here);
            let (up, down) = said.map_or((*epoch, *epoch), |row| (row.up, row.down.max(*epoch)));
            // One that was decided and taken back meanwhile is over with it.
            let is_here = self.state.replicas.get(*uid).is_some_and(|replica| replica.epoch > 0);
            let is_out = directory.standing(*uid, &here) == Standing::Out;
            let forgotten = self.forgotten_epoch(*uid, &here).filter(|_| is_out && !is_here);
            let (up, down) = forgotten.map_or((up, down), |epoch| (up.max(epoch), down.max(epoch)));
            self.publish_epochs(*uid, &here, up.max(*epoch), down)?;
        }
        let has_it = if taker.is_empty() {
            "nothing of it had come".to_owned()
        } else {
            format!("{taker} has everything")
        };
        let text = format!("{name} has left this machine: {has_it}, and its bytes are overwritten");
        self.note(&Event { uid: owner.map(Uid), kind: "table_left", text })?;
        Ok(())
    }
}
