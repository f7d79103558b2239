//! The database and what is decided in it, one transaction at a time: no thread, no queue, no clock.
//! The writer is the thread around it; a simulation is another loop around the same.

use std::sync::Arc;

use cortex_core::{
    model::{ActorId, Hlc, Limits, NodeName, Signer, Stamp, TableUid},
    replication::{Dot, Position, PullRequest, VersionVector},
};
use rusqlite::Connection;

use super::{
    cache::RecordCache,
    catalog::Catalog,
    command::{Command, Outcome, ReplicationCommand},
    contexts::Contexts,
    damage::Damage,
    error::{CommandError, OpenError, StoreError},
    exposure::Exposure,
    read_batch,
    recent::Recent,
    replica::Replica,
    schema, system, tombstone_gc,
    tx::{Finished, Tx, TxResources, dispatch, replication::cursors, state::State, totals::Totals},
};

/// The connection that changes rows, and what is known of them in memory.
pub(super) struct Engine {
    pub(super) conn: Connection,
    pub(super) state: State,
    /// The newest changes of replicas.
    pub(super) recent: Arc<Recent>,
    contexts: Contexts,
    /// What other machines may have taken.
    pub(super) exposure: Arc<Exposure>,
    /// Rows that are not what was stored.
    pub(super) damage: Arc<Damage>,
    /// Draws ids at random.
    draw_id: Box<dyn Fn() -> [u8; 16] + Send>,
}

/// What a transaction has brought.
pub(super) struct Committed {
    pub(super) totals: Totals,
    pub(super) outcomes: Vec<Result<Outcome, CommandError>>,
    /// The replicas that have changed.
    pub(super) replicas: Vec<Arc<Replica>>,
    /// The state before.
    pub(super) before: Arc<Catalog>,
    /// True where something was written: most upkeep finds nothing to do.
    pub(super) wrote: bool,
}

/// What the world lends a transaction.
#[derive(Clone, Copy)]
pub(super) struct TxInputs<'a> {
    pub(super) cache: &'a RecordCache,
    pub(super) limits: Limits,
    pub(super) wall_ms: u64,
}

impl Engine {
    pub(super) fn new(
        conn: Connection,
        state: State,
        draw_id: impl Fn() -> [u8; 16] + Send + 'static,
    ) -> Self {
        let recent = Arc::new(Recent::from(state.lsn, state.hlc()));
        let (contexts, exposure) = (Contexts::default(), Arc::default());
        let damage = Arc::new(Damage::new());
        Self { conn, state, recent, contexts, exposure, damage, draw_id: Box::new(draw_id) }
    }

    /// Carries out commands in one transaction. `announce` gets the cache's buckets that are
    /// touched, just before the commit; what it returns is dropped just after.
    ///
    /// After a fault nothing has changed, but the state must be read again.
    pub(super) fn transact<'c, G>(
        &mut self,
        commands: impl Iterator<Item = &'c Command>,
        around: TxInputs<'_>,
        announce: impl FnOnce(Vec<usize>) -> G,
    ) -> Result<Committed, StoreError> {
        let transaction = Transaction::begin(&self.conn)?;
        let written_before = self.conn.total_changes();
        let means = TxResources {
            cache: around.cache,
            contexts: &self.contexts,
            exposure: &self.exposure,
            damage: &self.damage,
            limits: around.limits,
            wall_ms: around.wall_ms,
            draw_id: self.draw_id.as_ref(),
        };
        let mut tx = Tx::begin(&self.conn, &self.state, means);
        let mut outcomes = Vec::new();
        for command in commands {
            match dispatch::apply(&mut tx, command) {
                Err(CommandError::Faulted(fault)) => return Err(fault), // dropping rolls back
                outcome => outcomes.push(outcome),
            }
        }
        let Finished { state, totals, touched, fresh } = tx.finish()?;
        let wrote = self.conn.total_changes() != written_before;
        let announced = announce(touched);
        transaction.commit()?;
        drop(announced);
        let before = Arc::clone(&self.state.catalog);
        self.state = state;
        let replicas = self.state.replicas.take_changed();
        let (lsn, hlc) = (self.state.lsn, self.state.hlc());
        if !replicas.is_empty() || fresh.is_broken() || hlc < self.recent.hlc {
            Arc::make_mut(&mut self.recent).add(fresh, lsn, hlc);
        }
        Ok(Committed { totals, outcomes, replicas, before, wrote })
    }

    /// At the start: goes on as the same actor only where it is certain that the file is as far
    /// as that had come. Where nothing has ever left this machine it does not matter.
    pub(super) fn resume_or_rotate_actor(
        &mut self,
        mark: Option<(ActorId, u64)>,
        around: TxInputs<'_>,
    ) -> Result<(), StoreError> {
        let own = self.state.own_actor();
        let goes_on = mark.is_some_and(|(who, seq)| who == own && seq <= self.state.seq);
        if goes_on || self.state.catalog.directory().here().is_none() {
            return Ok(());
        }
        self.transact(
            std::iter::once(&Command::Replication(ReplicationCommand::RotateActor)),
            around,
            |_| (),
        )?;
        Ok(())
    }

    /// After a fault nothing in memory is believed: it is read again from the file.
    pub(super) fn reload(&mut self) -> Result<(), StoreError> {
        let mut state = State::load(&self.conn)?;
        state.signer = self.state.signer.take();
        state.keep_drains(&self.state);
        self.contexts.forget();
        self.recent = Arc::new(Recent::from(state.lsn, state.hlc()));
        self.state = state;
        Ok(())
    }
}

/// A transaction of the writer's, rolled back when it is dropped. Its statements stay prepared, unlike those
/// of [`rusqlite::Transaction`].
struct Transaction<'c>(&'c Connection);

impl<'c> Transaction<'c> {
    fn begin(conn: &'c Connection) -> rusqlite::Result<Self> {
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(Self(conn))
    }

    fn commit(self) -> rusqlite::Result<()> {
        self.0.prepare_cached("COMMIT")?.execute([]).map(|_none| ())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // Asked of SQLite rather than remembered: a full disk may have ended it already.
        if !self.0.is_autocommit() {
            let _begin_fails_next = self.0.execute_batch("ROLLBACK");
        }
    }
}

/// A database without threads, for simulations: the same commands and the same answers as a
/// [`super::Store`], with time and randomness as arguments.
pub struct Database {
    engine: Engine,
    cache: RecordCache,
}

impl Database {
    /// A new database in memory.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn in_memory(draw_id: impl Fn() -> [u8; 16] + Send + 'static) -> Result<Self, OpenError> {
        let fault = |fault: StoreError| OpenError::StoreError { path: ":memory:".into(), fault };
        let mut conn = Connection::open_in_memory().map_err(|e| fault(e.into()))?;
        conn.set_prepared_statement_cache_capacity(schema::STATEMENT_CACHE);
        schema::create(&mut conn, &draw_id).map_err(fault)?;
        Self::over(conn, draw_id).map_err(fault)
    }

    fn over(
        conn: Connection,
        draw_id: impl Fn() -> [u8; 16] + Send + 'static,
    ) -> Result<Self, StoreError> {
        let state = State::load(&conn)?;
        Ok(Self { engine: Engine::new(conn, state, draw_id), cache: RecordCache::new(1 << 16) })
    }

    /// Another database that holds what this one does: its disk at this moment.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn image(
        &self,
        draw_id: impl Fn() -> [u8; 16] + Send + 'static,
    ) -> Result<Self, StoreError> {
        let mut image = Connection::open_in_memory()?;
        image.set_prepared_statement_cache_capacity(schema::STATEMENT_CACHE);
        rusqlite::backup::Backup::new(&self.engine.conn, &mut image)?.step(-1)?;
        Self::over(image, draw_id)
    }

    /// Carries out a command at a time of the wall clock, in Unix milliseconds.
    ///
    /// # Errors
    /// As [`super::Store::execute`].
    pub fn execute(&mut self, command: &Command, wall_ms: u64) -> Result<Outcome, CommandError> {
        let limits = Limits::default();
        let around = TxInputs { cache: &self.cache, limits, wall_ms };
        let commands = std::iter::once(command);
        match self.engine.transact(commands, around, |touched| self.cache.begin(touched)) {
            Ok(mut committed) => {
                committed.totals.publish(&self.engine.state.catalog);
                self.engine.exposure.end();
                self.engine.state.departures.log_emptied(); // there is none
                committed.outcomes.pop().unwrap_or(Err(StoreError::Closed.into()))
            }
            Err(fault) => {
                self.engine.reload()?;
                self.engine.exposure.end();
                Err(fault.into())
            }
        }
    }

    /// As [`super::Store::read_batch`].
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn read_batch(
        &self,
        reader: &NodeName,
        want: &PullRequest,
        bounds: read_batch::BatchBounds,
    ) -> Result<read_batch::BatchRead, StoreError> {
        let Engine { conn, state, .. } = &self.engine;
        let served = self.engine.exposure.over(reader, want, || {
            let file =
                read_batch::File { conn, actors: &state.actors, damage: &self.engine.damage };
            read_batch::read_batch(file, self.catalog(), reader, want, bounds)
        })?;
        Ok(served.draining(self.replica(want.table).and_then(|replica| replica.drain)))
    }

    /// As [`super::Store::link_began`].
    pub fn link_began(&self, reader: &NodeName) {
        self.engine.exposure.link_began(reader);
    }

    /// As [`super::Store::was_stored`].
    pub fn was_stored(&self, reader: &NodeName, table: TableUid) {
        self.engine.exposure.stored(reader, table);
    }

    /// As [`super::Store::was_refused`].
    pub fn was_refused(&self, reader: &NodeName, table: TableUid) {
        self.engine.exposure.refused(reader, table);
    }

    /// As [`super::Store::read_recent_batch`].
    #[must_use]
    pub fn read_recent_batch(
        &self,
        reader: &NodeName,
        want: &PullRequest,
        bounds: read_batch::BatchBounds,
    ) -> Option<read_batch::BatchRead> {
        let Engine { state, recent, .. } = &self.engine;
        let replica = state.replicas.committed_replica(want.table)?;
        let served = self.engine.exposure.over(reader, want, || {
            read_batch::read_recent_batch(&replica, recent, self.catalog(), reader, want, bounds)
                .ok_or(())
        });
        let served = served.ok()?;
        Some(served.draining(replica.drain))
    }

    /// Where this database's replica of a table stands in another node's.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn position(&self, table: TableUid, peer: &NodeName) -> Result<Position, StoreError> {
        let Some(table) = self.replica(table).and_then(|replica| replica.table) else {
            return Ok(Position::default());
        };
        let actors = &self.engine.state.actors;
        Ok(cursors::load_cursor(&self.engine.conn, actors, table, peer)?.position)
    }

    /// As [`super::Store::unconfirmed_deletion`].
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn unconfirmed_deletion(
        &self,
        table: TableUid,
        confirmed: &VersionVector,
    ) -> Result<Option<Dot>, StoreError> {
        let Some(table) = self.replica(table).and_then(|replica| replica.table) else {
            return Ok(None);
        };
        let actors = &self.engine.state.actors;
        tombstone_gc::unconfirmed(&self.engine.conn, actors, table, confirmed)
    }

    /// As [`super::Store::change_log_excess`].
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn change_log_excess(&self, table: TableUid, keep: u64) -> Result<Option<u64>, StoreError> {
        let Some(table) = self.replica(table).and_then(|replica| replica.table) else {
            return Ok(None);
        };
        read_batch::change_log_excess(&self.engine.conn, table, keep)
    }

    /// As [`super::Store::orphans`].
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn orphans(&self, signer: &dyn Signer) -> Result<Vec<(Vec<u8>, Stamp)>, StoreError> {
        system::orphans(&self.engine.conn, signer, self.catalog().directory())
    }

    /// Reads everything again from the file, as at a start.
    #[cfg(test)]
    pub(super) fn reload(&mut self) -> Result<(), StoreError> {
        self.engine.reload()
    }

    /// The tables.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.engine.state.catalog
    }

    /// This database's replica of a table.
    #[must_use]
    pub fn replica(&self, table: TableUid) -> Option<&Replica> {
        self.engine.state.replicas.get(table)
    }

    /// The same, as it is shared until something of it changes.
    #[must_use]
    pub fn shared_replica(&self, table: TableUid) -> Option<Arc<Replica>> {
        self.engine.state.replicas.committed_replica(table)
    }

    /// All replicas of this database.
    #[must_use]
    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        self.engine.state.replicas.committed()
    }

    /// Which database it is, for ever.
    #[must_use]
    pub fn database(&self) -> [u8; 16] {
        self.engine.state.database
    }

    /// The number of its last write, and whom it is by.
    #[must_use]
    pub fn last_write(&self) -> Dot {
        Dot { actor: self.actor(), seq: self.engine.state.seq }
    }

    /// Which actor it is.
    #[must_use]
    pub fn actor(&self) -> ActorId {
        self.engine.state.own_actor()
    }

    /// Its hybrid clock.
    #[must_use]
    pub fn hlc(&self) -> Hlc {
        self.engine.state.hlc()
    }

    /// The connection, for an oracle that looks at rows.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.engine.conn
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("state", &self.state).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}
