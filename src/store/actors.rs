//! Actors of writes by their short numbers, which rows carry instead of the ids.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::model::{ActorId, Hlc};
use rusqlite::{Connection, params};

use super::error::StoreError;

/// The actors that are known in this file. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Actors(Arc<Table>);

#[derive(Clone, Debug, Default)]
struct Table {
    ids: BTreeMap<i64, ActorId>,
    numbers: BTreeMap<ActorId, i64>,
}

impl Actors {
    pub(super) fn load(conn: &Connection) -> Result<Self, StoreError> {
        let mut table = Table::default();
        let mut statement = conn.prepare_cached("SELECT number, uid FROM actors")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            table.insert(row.get(0)?, ActorId(u128::from_be_bytes(row.get(1)?)));
        }
        Ok(Self(Arc::new(table)))
    }

    /// Those of a connection's transaction, of which these are some or all: numbers are given out in order,
    /// and never taken back.
    pub(super) fn as_read_by(&self, conn: &Connection) -> Result<Self, StoreError> {
        let newest: Option<i64> = conn
            .prepare_cached("SELECT max(number) FROM actors")?
            .query_row([], |row| row.get(0))?;
        if newest == self.0.ids.keys().next_back().copied() {
            Ok(self.clone())
        } else {
            Self::load(conn)
        }
    }

    /// The id behind a short number. A number that is not listed, which only a damaged file has,
    /// stands for the least id, so that any other version of the row wins over it.
    pub(super) fn id(&self, number: i64) -> ActorId {
        self.0.ids.get(&number).copied().unwrap_or_default()
    }

    /// The short number of an actor, if it has one here.
    pub(super) fn number(&self, id: ActorId) -> Option<i64> {
        self.0.numbers.get(&id).copied()
    }

    /// The short number of an actor, which gets one if it has none.
    pub(super) fn enter(
        &mut self,
        conn: &Connection,
        id: ActorId,
        seen: Hlc,
    ) -> Result<i64, StoreError> {
        if let Some(number) = self.number(id) {
            return Ok(number);
        }
        conn.prepare_cached("INSERT INTO actors (uid, born_hlc) VALUES (?1, ?2)")?
            .execute(params![id.0.to_be_bytes(), seen.to_i64()])?;
        let number = conn.last_insert_rowid();
        Arc::make_mut(&mut self.0).insert(number, id);
        Ok(number)
    }
}

impl Table {
    fn insert(&mut self, number: i64, id: ActorId) {
        self.ids.insert(number, id);
        self.numbers.insert(id, number);
    }
}
