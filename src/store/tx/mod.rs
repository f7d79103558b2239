//! What one transaction does. [`Tx`] is the state that a commit would bring, the connection, and what is gathered
//! for the commit; it has a few primitives, and everything else is free functions over it, by family.
//!
//! ```text
//!   Tx  <──  versions          put_version, the one way to write a row
//!    ^          ^
//!    └──────────┼── records      what clients store and delete
//!               ├── directory    who is who, and what follows for replicas here  <── tables
//!               ├── replication  batches of other replicas, tombstone GC, change logs
//!               └── upkeep       audits, and what is left of dropped tables
//!
//!   all of them  <──  dispatch   one command: which function carries it out
//! ```
//!
//! Imports go against the arrows alone: `tests/tidy.rs` holds that the files of the store form no circle. Who decides
//! what is written is `cortex_core`; transactions, replies and the write-ahead log are the writer's.

mod admission;
mod audits;
mod directory;
pub(super) mod dispatch;
mod entries;
mod ledger;
mod records;
pub(super) mod replication;
mod row_table;
pub(super) mod state;
mod tables;
pub(super) mod totals;
mod upkeep;
mod versions;

use std::sync::Arc;

use cortex_core::{
    directory::Directory,
    model::{Hlc, Limits, NodeName, QualifiedName, Refusal, Signer, Stamp},
    replication::VersionVector,
};
use rusqlite::{CachedStatement, Connection, params};

use self::{state::State, totals::Totals};
use crate::store::{
    cache::RecordCache,
    catalog::Catalog,
    contexts::Contexts,
    damage::Damage,
    error::StoreError,
    events::{self, Event},
    exposure::Exposure,
    recent::PendingChanges,
};

/// A transaction in the making: the state that a commit would bring.
pub(crate) struct Tx<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) state: State,
    pub(crate) limits: Limits,
    pub(crate) wall_ms: u64,
    draw_id: &'a dyn Fn() -> [u8; 16],
    /// True once something must be written besides rows.
    pub(crate) changed: bool,
    pub(crate) totals: Totals,
    pub(crate) cache: &'a RecordCache,
    pub(crate) contexts: &'a Contexts,
    pub(crate) exposure: &'a Exposure,
    pub(crate) damage: &'a Damage,
    /// The context that was made last: writes that follow each other have the same.
    pub(crate) newest_context: Option<(VersionVector, Option<i64>)>,
    /// The cache's buckets of the keys that were written.
    pub(crate) touched: Vec<usize>,
    /// The changes that are to be sent to others.
    pub(crate) fresh: PendingChanges,
}

/// What a batch works with besides the file and the state.
#[derive(Clone, Copy)]
pub(crate) struct TxResources<'a> {
    pub(crate) cache: &'a RecordCache,
    pub(crate) contexts: &'a Contexts,
    pub(crate) exposure: &'a Exposure,
    pub(crate) damage: &'a Damage,
    pub(crate) limits: Limits,
    /// The wall clock, in Unix milliseconds.
    pub(crate) wall_ms: u64,
    /// Draws ids at random.
    pub(crate) draw_id: &'a dyn Fn() -> [u8; 16],
}

/// What a transaction has brought about, to be published with its commit.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) state: State,
    pub(crate) totals: Totals,
    pub(crate) touched: Vec<usize>,
    pub(crate) fresh: PendingChanges,
}

impl<'a> Tx<'a> {
    pub(crate) fn begin(conn: &'a Connection, state: &State, means: TxResources<'a>) -> Self {
        Self {
            conn,
            state: state.clone(),
            limits: means.limits,
            wall_ms: means.wall_ms,
            draw_id: means.draw_id,
            changed: false,
            totals: Totals::default(),
            cache: means.cache,
            contexts: means.contexts,
            exposure: means.exposure,
            damage: means.damage,
            newest_context: None,
            touched: Vec::new(),
            fresh: PendingChanges::default(),
        }
    }

    /// Writes the counters and totals; answers what to publish after the commit.
    pub(crate) fn finish(mut self) -> Result<Finished, StoreError> {
        for (table, delta) in self.totals.tables() {
            self.execute(
                "UPDATE tables SET records = records + ?2, bytes = bytes + ?3 WHERE id = ?1",
                params![table.0, delta.records, delta.bytes],
            )?;
        }
        self.state.replicas.save(self.conn, &mut self.state.actors)?;
        self.contexts.save(self.conn, &self.state.uses)?;
        self.state.uses.clear();
        if self.changed {
            self.execute(
                "UPDATE node_state SET seq = ?1, lsn = ?2, hlc = ?3 WHERE id = 1",
                params![self.state.seq, self.state.lsn, self.state.clock.last().to_i64()],
            )?;
        }
        let Self { state, totals, touched, fresh, .. } = self;
        Ok(Finished { state, totals, touched, fresh })
    }

    /// 128 random bits.
    pub(crate) fn draw_id(&self) -> [u8; 16] {
        (self.draw_id)()
    }

    pub(crate) fn draw_stamp(&mut self) -> Stamp {
        self.changed = true;
        let actor = self.state.own_actor();
        Stamp { hlc: self.state.clock.stamp(self.wall_ms), actor }
    }

    /// The stamp and number of a row that this node writes.
    pub(crate) fn draw(&mut self) -> (Stamp, u64) {
        let stamp = self.draw_stamp();
        self.state.seq += 1;
        (stamp, self.state.seq)
    }

    /// A number of the change log, never drawn again.
    pub(crate) fn draw_lsn(&mut self) -> u64 {
        self.changed = true;
        self.state.lsn += 1;
        self.state.lsn
    }

    /// Has the clock exceed a timestamp that another node has drawn.
    pub(crate) fn observe(&mut self, hlc: Hlc) {
        self.state.clock.observe(hlc);
        self.changed = true;
    }

    /// The short number of an actor of rows, which gets one if it has none.
    pub(crate) fn actor_number_of(&mut self, stamp: Stamp) -> Result<i64, StoreError> {
        self.state.actors.enter(self.conn, stamp.actor, stamp.hlc)
    }

    /// The number of a context. One that is used by no row in the end goes with the transaction.
    pub(crate) fn intern(&mut self, context: &VersionVector) -> Result<Option<i64>, StoreError> {
        let id = self.contexts.intern(self.conn, &mut self.state.actors, context)?;
        self.count_use(id, 0);
        Ok(id)
    }

    pub(crate) fn count_use(&mut self, context: Option<i64>, more: i64) {
        if let Some(id) = context {
            *self.state.uses.entry(id).or_default() += more;
        }
    }

    pub(crate) fn signer(&self) -> Result<Arc<dyn Signer>, Refusal> {
        self.state.signer.clone().ok_or(Refusal::MeshNotConfigured)
    }

    pub(crate) fn here(&self) -> Result<NodeName, Refusal> {
        Ok(self.signer()?.node().clone())
    }

    pub(crate) fn directory(&self) -> &Directory {
        self.state.catalog.directory()
    }

    fn directory_mut(&mut self) -> &mut Directory {
        self.catalog_mut().directory_mut()
    }

    pub(crate) fn catalog_mut(&mut self) -> &mut Catalog {
        Arc::make_mut(&mut self.state.catalog)
    }

    pub(crate) fn note(&self, event: &Event) -> Result<(), StoreError> {
        events::record(self.conn, event, self.wall_ms)
    }

    /// Writes down what happened to a table, for its owner.
    pub(crate) fn note_of(
        &self,
        name: &QualifiedName,
        kind: &'static str,
        text: String,
    ) -> Result<(), StoreError> {
        self.note(&Event { uid: self.state.catalog.uid_here(&name.owner), kind, text })
    }

    pub(crate) fn cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.conn.prepare_cached(sql)
    }

    pub(crate) fn execute(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<()> {
        self.cached(sql)?.execute(params).map(|_rows| ())
    }
}
