//! What the writer knows besides the rows, as of the last commit; within a transaction, as a commit would leave it.

use std::sync::Arc;

use cortex_core::{
    clock::HybridClock,
    model::{ActorId, Hlc, Signer},
};
use rusqlite::Connection;

use crate::store::{
    actors::Actors, catalog::Catalog, contexts::Uses, departure::Departures, error::StoreError,
    replica::Replicas, tx::audits::Audit,
};

/// What the writer knows besides the rows. Exactly what the file says as of the last commit.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) clock: HybridClock,
    pub(crate) seq: u64,
    pub(crate) lsn: u64,
    /// The actor of local writes, by its short number.
    pub(crate) actor_number: i64,
    /// The ids behind the short numbers of actors.
    pub(crate) actors: Actors,
    /// This file, as others know it.
    pub(crate) database: [u8; 16],
    pub(crate) catalog: Arc<Catalog>,
    /// This machine's replicas of tables.
    pub(crate) replicas: Replicas,
    /// Replica epochs that are over, and of which bytes may still be on the disk.
    pub(crate) departures: Departures,
    /// How often contexts are used more after the transaction, or less.
    pub(crate) uses: Uses,
    /// Audits that are under way.
    pub(crate) audits: Vec<Audit>,
    /// Who signs for this node; none where no mesh is configured.
    pub(crate) signer: Option<Arc<dyn Signer>>,
}

impl State {
    /// The greatest timestamp drawn so far.
    pub(crate) fn hlc(&self) -> Hlc {
        self.clock.last()
    }

    /// Goes on with drains that were under way in memory.
    pub(crate) fn keep_drains(&mut self, before: &Self) {
        for replica in before.replicas.iter().filter(|replica| replica.drain.is_some()) {
            if let Some(kept) = self.replicas.get_mut(replica.uid) {
                kept.drain = replica.drain;
            }
        }
        self.replicas.take_changed();
    }

    /// Draws timestamps after this one again.
    pub(crate) fn set_clock_back(&mut self, to: Hlc) {
        self.clock.set_back(to);
    }

    /// Who the writes of this database are by.
    pub(crate) fn own_actor(&self) -> ActorId {
        self.actors.id(self.actor_number)
    }

    pub(crate) fn load(conn: &Connection) -> Result<Self, StoreError> {
        let actors = Actors::load(conn)?;
        let catalog = Arc::new(Catalog::load(conn)?);
        let replicas = Replicas::load(conn, &actors)?;
        let departures = Departures::load(conn)?;
        let state = conn.query_row(
            "SELECT actor, seq, lsn, hlc, db_uid FROM node_state WHERE id = 1",
            [],
            |row| {
                Ok(Self {
                    clock: HybridClock::resume(Hlc::from_i64(row.get(3)?)),
                    seq: row.get(1)?,
                    lsn: row.get(2)?,
                    actor_number: row.get(0)?,
                    actors,
                    database: row.get(4)?,
                    catalog,
                    replicas,
                    departures,
                    uses: Uses::new(),
                    audits: Vec::new(),
                    signer: None,
                })
            },
        )?;
        Ok(state)
    }
}
