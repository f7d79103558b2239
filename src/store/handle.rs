//! The store as everybody else holds it: opened, asked, closed. What is written goes to the writer's queue; reads go
//! past it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    thread::JoinHandle,
};

use cortex_core::{
    model::{ActorId, Hlc, Limits, NodeName, Signer, Stamp, TableId, TableUid},
    replication::{Dot, Position, PullRequest, VersionVector},
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{
    actors, audit, backup,
    catalog::{Catalog, Usage},
    checkpoint,
    command::{self, Command, Family, Outcome},
    conflicts::{self, Conflict},
    damage, database, directory, erasure,
    error::{CommandError, OpenError, StoreError},
    exposure, free_space, inherited,
    options::{FILE, Options},
    place::{open_beside, report_unclean_end},
    published::Published,
    read_batch::{self, BatchBounds, BatchRead, BatchRefusal},
    reader::Reader,
    replica::Replica,
    reserve, rollback_marker,
    scan::{self, Scan},
    schema, system, tombstone_gc, tx, writer,
};
use crate::sys::{clock, random};

/// Commands that may wait for the writer. When full, senders wait, and their connections stop
/// reading.
const QUEUE: usize = 1024;

/// Bytes that waiting commands may hold together.
const QUEUE_BYTES: usize = 64 << 20;

/// Page cache of a scan's connection: it reads on and on, what it has passed it needs no more.
const SCAN_CACHE_KIB: u32 = 1024;

/// How often a reader looks whether the writer has shown what it has committed: some microseconds pass in
/// between.
const CATALOG_LOOKS: u32 = 10_000;

/// A handle on the store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    queue: mpsc::Sender<command::Job>,
    /// One permit per KiB of queued commands.
    room: Arc<Semaphore>,
    published: Arc<Published>,
    readers: Vec<Arc<Reader>>,
    pub(super) scans: Arc<scan::Pool>,
    /// Applied by the one call of `close` that joins them.
    threads: Mutex<Vec<JoinHandle<()>>>,
    path: PathBuf,
    vfs: Option<String>,
    /// Which database this is, for ever.
    database: [u8; 16],
    exposure: Arc<exposure::Exposure>,
    damage: Arc<damage::Damage>,
    /// Unlocked by the kernel when closed, or when the process ends.
    _lock: File,
}

/// Figures about a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Tables of all owners.
    pub tables: u64,
    /// Live records.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Transactions committed since the start.
    pub commits: u64,
    /// Commands carried out or refused since the start.
    pub commands: u64,
    /// How long the last commit took, in microseconds.
    pub last_commit_us: u64,
    /// Bytes of the database and its log on disk.
    pub disk_bytes: u64,
}

impl Store {
    /// Opens the store in a directory, or makes one there.
    ///
    /// # Errors
    /// [`OpenError`]; an existing database is then as it was.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let path = options.dir.join(FILE);
        directory::refuse_what_is_not_ours(&options.dir)?;
        let lock = directory::take_directory(&options.dir)?;
        schema::check_access(&path)?;
        schema::check_header(&path)?;
        let unclean = report_unclean_end(&path);
        inherited::sync_log(&path)?;
        backup::remove_leftovers(&options.dir);
        // Before SQLite needs room to open the file.
        let reserve = options.vfs.is_none().then(|| reserve::Reserve::of(&options.dir));
        let connect =
            |role| schema::connect(&path, options.vfs.as_deref(), role, options.cache_kib);
        let fault = |fault| OpenError::StoreError { path: path.display().to_string(), fault };
        let mut conn = connect(schema::Role::Writer)?;
        schema::migrate(&mut conn, &path)?;
        schema::adopt_copy(&mut conn).map_err(|e| fault(e.into()))?;
        if unclean {
            schema::note_unclean_end(&conn).map_err(|e| fault(e.into()))?;
        }
        let state = tx::state::State::load(&conn).map_err(fault)?;
        let mut engine = database::Engine::new(conn, state, random::id);

        let (rollback_marker, mark) = rollback_marker::RollbackMarker::open(
            options.rollback_marker.as_deref(),
            engine.state.database,
            &path,
        );
        let file = open_beside(&path, options.vfs.as_deref()).map_err(fault)?;
        let sweep = !engine.state.departures.swept;
        let free_space =
            file.as_ref().map(|file| free_space::FreeSpace::new(Arc::clone(file), &path, sweep));
        let damage = Arc::clone(&engine.damage);
        let published = Arc::new(Published::new(
            Arc::clone(&engine.state.catalog),
            Arc::clone(&damage),
            options,
            file,
        ));
        engine
            .resume_or_rotate_actor(mark, writer::around(&published, clock::wall_ms()))
            .map_err(fault)?;
        let state = &engine.state;
        published.show(&state.catalog);
        let (database, exposure) = (state.database, Arc::clone(&engine.exposure));
        published.publish_clock(state.hlc());
        published.publish_replicas(&state.replicas.committed(), &engine.recent, state);
        published.follow_log(&mut engine.conn).map_err(|e| fault(e.into()))?;
        published.log_pages.store(inherited::pages_in_log(&path), Relaxed);
        let reader = |_| {
            let conn = connect(schema::Role::Reader)?;
            Ok(Arc::new(Reader::new(conn, Arc::clone(&published))))
        };
        let readers = (0..options.readers).map(reader).collect::<Result<Vec<_>, OpenError>>()?;

        let thread_failed = |e: std::io::Error| fault(StoreError::Io(format!("no thread: {e}")));
        let (checkpointer, checkpoints) =
            checkpoint::start(connect(schema::Role::Checkpointer)?, Arc::clone(&published))
                .map_err(thread_failed)?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = writer::Writer {
            engine,
            rollback_marker,
            published: Arc::clone(&published),
            readers: readers.clone(),
            checkpointer,
            bounds: options.log.within(reserve.as_ref()),
            reserve,
            erasure: erasure::Erasure::new(free_space),
        };
        let writer = std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || writer.run(jobs))
            .map_err(thread_failed)?;

        let scans = scan::Pool::new(scan_connector(path.clone(), options.clone()));
        let inner = Inner {
            queue,
            room: Arc::new(Semaphore::new(QUEUE_BYTES / 1024)),
            published,
            readers,
            scans,
            threads: Mutex::new(vec![writer, checkpoints]),
            path,
            vfs: options.vfs.clone(),
            database,
            exposure,
            damage,
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Queues a command; waits while the queue is full. The answer comes by the receiver, after
    /// the commit.
    ///
    /// # Errors
    /// [`StoreError::Closed`] once the store has been closed or has stopped.
    pub async fn submit(
        &self,
        command: impl Into<Command>,
    ) -> Result<oneshot::Receiver<Result<Outcome, CommandError>>, StoreError> {
        let command = command.into();
        // The largest message is as large as the queue: with its overhead it would wait for ever for
        // room that there never is, and everybody behind it.
        let kib = command.weight().div_ceil(1024).min(QUEUE_BYTES / 1024);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.inner.room);
        let share = room.acquire_many_owned(kib).await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let job = command::Job { command, reply, _share: share };
        self.inner.queue.send(job).await.map_err(|_| StoreError::Closed)?;
        Ok(answer)
    }

    /// Carries out a command and waits for its commit.
    ///
    /// # Errors
    /// A [`CommandError`]: nothing was changed. Only after [`StoreError::SyncFailed`] that is not known.
    pub async fn execute<C: Family>(&self, command: C) -> Result<C::Outcome, CommandError> {
        let answer = self.submit(command).await?;
        let outcome = answer.await.unwrap_or(Err(StoreError::Closed.into()))?;
        C::outcome(outcome).ok_or_else(|| StoreError::Closed.into())
    }

    /// The tables, as of the last commit.
    #[must_use]
    pub fn catalog(&self) -> arc_swap::Guard<Arc<Catalog>> {
        self.inner.published.catalog.load()
    }

    /// Changes when the catalog does; changes that follow each other closely may be seen as one.
    #[must_use]
    pub fn catalog_changes(&self) -> watch::Receiver<()> {
        self.inner.published.catalog_changed.subscribe()
    }

    /// The reader of one thread, by its number.
    ///
    /// # Panics
    /// If there are not as many readers.
    #[must_use]
    pub fn reader(&self, thread: usize) -> Arc<Reader> {
        Arc::clone(&self.inner.readers[thread])
    }

    /// Starts a read of a table in key order, from after a key.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn scan(&self, table: TableId, after: &[u8]) -> Result<Scan, StoreError> {
        self.inner.scans.scan(&self.inner.published, table, after)
    }

    /// Reads what a replica on another node wants of the one here. Blocks for a moment: not for a thread
    /// that serves clients.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn read_batch(
        &self,
        reader: &NodeName,
        want: &PullRequest,
        bounds: BatchBounds,
    ) -> Result<BatchRead, StoreError> {
        let published = &self.inner.published;
        let served = self.inner.exposure.over(reader, want, || {
            self.read(|conn, actors| {
                // The rows come first: a scope that was narrowed before they were written must be known when
                // it is asked who may have them.
                let known = read_batch::system_change_log(conn)?;
                let shown =
                    || published.replicas.get(system::UID).map_or(0, |replica| replica.last_lsn);
                for _ in 0..CATALOG_LOOKS {
                    if shown() >= known {
                        let catalog = published.catalog.load();
                        let file = read_batch::File { conn, actors, damage: &self.inner.damage };
                        return read_batch::read_batch(file, &catalog, reader, want, bounds);
                    }
                    std::thread::yield_now();
                }
                Ok(BatchRead::Refused(BatchRefusal::Busy))
            })
        })?;
        Ok(served.draining(self.replica(want.table).and_then(|replica| replica.drain)))
    }

    /// Takes note that a reader has not taken, and never will, what it was answered last.
    pub fn was_refused(&self, reader: &NodeName, table: TableUid) {
        self.inner.exposure.refused(reader, table);
    }

    /// A link to a reader begins: what it has not said to have stored of what it was given before it has stored, or will
    /// ask for once more.
    pub fn link_began(&self, reader: &NodeName) {
        self.inner.exposure.link_began(reader);
    }

    /// Another machine has stored the batch of a table that it was given first, of those that it had not stored yet.
    pub fn was_stored(&self, reader: &NodeName, table: TableUid) {
        self.inner.exposure.stored(reader, table);
    }

    /// The same from memory, where what the other replica lacks has been written just now. Does not block.
    #[must_use]
    pub fn read_recent_batch(
        &self,
        reader: &NodeName,
        want: &PullRequest,
        bounds: BatchBounds,
    ) -> Option<BatchRead> {
        let (replica, recent) = self.inner.published.replicas.with_recent(want.table)?;
        // The catalog comes last: it is no older than the rows.
        let served = self.inner.exposure.over(reader, want, || {
            read_batch::read_recent_batch(&replica, &recent, &self.catalog(), reader, want, bounds)
                .ok_or(())
        });
        Some(served.ok()?.draining(replica.drain))
    }

    /// Reads rows, with the actors that they name.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&rusqlite::Connection, &actors::Actors) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let known = self.inner.published.replicas.actors();
        self.inner.scans.read(|conn| read(conn, &known.as_read_by(conn)?))
    }

    /// Where this machine's replica of a table stands in another node's.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn position(&self, table: TableUid, peer: &NodeName) -> Result<Position, StoreError> {
        let Some(table) = self.replica(table).and_then(|replica| replica.table) else {
            return Ok(Position::default());
        };
        self.read(|conn, actors| {
            Ok(tx::replication::cursors::load_cursor(conn, actors, table, peer)?.position)
        })
    }

    /// This machine's replica of a table, as of the last commit.
    #[must_use]
    pub fn replica(&self, table: TableUid) -> Option<Arc<Replica>> {
        self.inner.published.replicas.get(table)
    }

    /// All replicas of this machine.
    #[must_use]
    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        self.inner.published.replicas.all()
    }

    /// Changes when a replica does.
    #[must_use]
    pub fn replica_changes(&self) -> watch::Receiver<()> {
        self.inner.published.replicas.changes()
    }

    /// How many changes of replicas there were so far; and the tables of those after an earlier such number,
    /// none where there are too many to be listed.
    #[must_use]
    pub fn replicas_changed_since(&self, count: u64) -> (u64, Option<Vec<TableUid>>) {
        self.inner.published.replicas.changed_since(count)
    }

    /// The rows of the directory whose signatures say nothing to a node that comes later, each with its
    /// stamp: to be signed here, in the place of their writers. Reads all of the directory.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn orphans(&self, signer: &dyn Signer) -> Result<Vec<(Vec<u8>, Stamp)>, StoreError> {
        let catalog = self.catalog();
        self.inner.scans.read(|conn| system::orphans(conn, signer, catalog.directory()))
    }

    /// Conflicts of a table, the newest first, from before a number.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn conflicts(
        &self,
        table: TableId,
        before: i64,
        limit: u32,
    ) -> Result<Vec<Conflict>, StoreError> {
        self.read(|conn, actors| conflicts::read(conn, actors, table, before, limit))
    }

    /// One of the newest deletions of a table that is not among those that every replica knows, if there is one.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn unconfirmed_deletion(
        &self,
        table: TableId,
        confirmed: &VersionVector,
    ) -> Result<Option<Dot>, StoreError> {
        self.read(|conn, actors| tombstone_gc::unconfirmed(conn, actors, table, confirmed))
    }

    /// The LSN up to which a table's change log is to be cut, to keep at most so many entries.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn change_log_excess(&self, table: TableId, keep: u64) -> Result<Option<u64>, StoreError> {
        self.inner.scans.read(|conn| read_batch::change_log_excess(conn, table, keep))
    }

    /// The keys of a table's rows that were found to be damaged, as far as they are kept.
    #[must_use]
    pub fn damaged(&self, table: TableId) -> Vec<Vec<u8>> {
        self.inner.damage.of(table)
    }

    /// How many rows of which tables were found to be damaged. Few have any.
    #[must_use]
    pub fn damaged_counts(&self) -> BTreeMap<TableId, u64> {
        self.inner.damage.counts()
    }

    /// What has become known of damaged rows since this was asked last, and is given to nobody else.
    #[must_use]
    pub fn take_damage_news(&self) -> damage::DamageNews {
        self.inner.damage.take_news()
    }

    /// Changes when there is news of damaged rows.
    #[must_use]
    pub fn damage_changes(&self) -> watch::Receiver<()> {
        self.inner.damage.changes()
    }

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
        self.inner.scans.read(|conn| audit::read_ahead(conn, table, after))
    }

    /// Copies the state of the last commit into a new file. Blocks for as long as reading the whole
    /// database takes: not for a thread that serves connections.
    ///
    /// # Errors
    /// What SQLite reports, or a copy that does not pass its check. A part of the file may remain.
    pub fn backup(&self, into: &Path) -> Result<backup::Summary, StoreError> {
        let (path, vfs) = (&self.inner.path, self.inner.vfs.as_deref());
        let conn = schema::connect(path, vfs, schema::Role::Checkpointer, SCAN_CACHE_KIB);
        let published = Arc::clone(&self.inner.published);
        let given_up = move || published.ending.load(Relaxed);
        backup::make(&mut conn.map_err(OpenError::into_fault)?, into, given_up)
    }

    /// Has backups that are being made end with [`StoreError::Closed`], and others not go far: one may take
    /// minutes, and the thread that it is on would be waited for.
    pub fn give_up_backups(&self) {
        self.inner.published.ending.store(true, Relaxed);
    }

    /// Moves all it can from the log into the database. Blocks as [`Store::backup`] does.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let (path, vfs) = (&self.inner.path, self.inner.vfs.as_deref());
        let conn = schema::connect(path, vfs, schema::Role::Checkpointer, SCAN_CACHE_KIB);
        let moved = checkpoint::run(&conn.map_err(OpenError::into_fault)?);
        self.inner.published.report_outcome(&moved);
        moved.map(|_nearly_done| ())
    }

    /// The directory that holds the database.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.inner.path.parent().unwrap_or(Path::new("."))
    }

    /// Which database this is: distinct from every other one, copies of it among them.
    #[must_use]
    pub fn database(&self) -> [u8; 16] {
        self.inner.database
    }

    /// The number of the last write of this database, and whom it is by.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn last_write(&self) -> Result<Dot, StoreError> {
        self.read(|conn, actors| {
            let mut statement =
                conn.prepare_cached("SELECT actor, seq FROM node_state WHERE id = 1")?;
            let dot = statement
                .query_row([], |row| Ok(Dot { actor: actors.id(row.get(0)?), seq: row.get(1)? }))?;
            Ok(dot)
        })
    }

    /// Who the writes of this database are by.
    #[must_use]
    pub fn actor(&self) -> ActorId {
        **self.inner.published.actor.load()
    }

    /// The greatest timestamp that a committed write has.
    #[must_use]
    pub fn hlc(&self) -> Hlc {
        Hlc::from_i64(self.inner.published.hlc.load(Relaxed).cast_signed())
    }

    /// Figures for status. Costs two stat(2) calls.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let published = &self.inner.published;
        let catalog = published.catalog.load();
        let sum = |of: fn(&Usage) -> u64| catalog.namespaces().map(|(_, n)| of(&n.usage)).sum();
        let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
        Figures {
            tables: catalog.len() as u64,
            records: sum(Usage::records),
            bytes: sum(Usage::bytes),
            commits: published.commits.load(Relaxed),
            commands: published.commands.load(Relaxed),
            last_commit_us: published.commit_us.load(Relaxed),
            disk_bytes: size(&self.inner.path) + size(&schema::log_path(&self.inner.path)),
        }
    }

    /// The bounds on what one owner may hold.
    #[must_use]
    pub fn limits(&self) -> Limits {
        **self.inner.published.limits.load()
    }

    /// Puts other bounds in force. What is over them already stays.
    pub fn set_limits(&self, limits: Limits) {
        self.inner.published.limits.store(Arc::new(limits));
    }

    /// Changes once, when a fault has stopped the store.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<StoreError>> {
        self.inner.published.fatal.subscribe()
    }

    /// Carries out what was submitted before and ends the writer. Later commands are answered
    /// [`StoreError::Closed`].
    pub async fn close(&self) {
        let _stopped_already = self.execute(Command::Stop).await;
        let threads = {
            let mut threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *threads)
        };
        // They end by themselves once the writer is gone; waiting takes a checkpoint's time.
        let joined = tokio::task::spawn_blocking(|| {
            threads.into_iter().map(JoinHandle::join).all(|r| r.is_ok())
        });
        if !joined.await.unwrap_or(false) {
            tracing::error!("a thread of the store panicked");
        }
    }
}

fn scan_connector(path: PathBuf, options: Options) -> scan::Connect {
    scan::Connect(Box::new(move || {
        schema::connect(&path, options.vfs.as_deref(), schema::Role::Reader, SCAN_CACHE_KIB)
            .map_err(OpenError::into_fault)
    }))
}
