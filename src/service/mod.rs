//! The one request path: a request of any caller, over any transport, is judged and answered here.
//! Making a caller out of a connection, and bytes out of an answer, is left to the edge.
//!
//! ```text
//!   Caller + method + params ──> Service::call ──┬─> Ready: the result stands in the buffer
//!                                  gate (early)  ├─> Commit: a command for the writer, which
//!                                                │   judges the caller once more
//!                                                ├─> List: a result of any size
//!                                                └─> Later: an administrator's lengthy request
//! ```
//!
//! `call` itself never waits. Point reads happen inline, over the snapshot of the calling thread.

mod access;
mod admin;
mod backup;
mod conflicts;
mod drain;
mod explain;
mod grants;
mod identity;
mod listing;
pub mod mesh;
mod obstacle;
mod records;
mod repair;
mod replicas;
mod scope;
pub mod scrub;
mod slots;
mod status;
pub mod sync;
mod syncing;
mod tables;
pub mod token;
mod users;
mod whole;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use cortex_core::{
    api::{Request, Response},
    model::{Caller, Refusal, Signer, Uid},
    wire::{Bounds, Method},
};
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use listing::Listing;
pub use slots::ScanSlots;

use crate::{
    store::{
        Command, CommandError, DirectoryCommand, DirectoryOutcome, Outcome, Reader, Store,
        StoreError, TableOutcome,
    },
    sys::clock,
};

/// What a request leads to.
#[derive(Debug)]
pub enum Answer {
    /// The encoded result has been appended to the buffer.
    Ready,
    /// To be carried out by the writer; [`Service::done`] is the result.
    Commit(Command),
    /// A list that may be larger than memory.
    List(Box<Listing>),
    /// What the request leads to will be known later: it takes more than a moment.
    Later(oneshot::Receiver<Result<Deferred, CommandError>>),
}

impl Answer {
    /// A command for the writer.
    fn commit(command: impl Into<Command>) -> Self {
        Self::Commit(command.into())
    }

    /// The result of work that a connection's thread does not wait for.
    fn later<R: Response>(
        work: impl Future<Output = Result<R, CommandError>> + Send + 'static,
    ) -> Self {
        let (done, answer) = oneshot::channel();
        tokio::spawn(async move {
            let encoded = work.await.map(|response| {
                let mut out = Vec::new();
                response.write(&mut out);
                Deferred::Encoded(out)
            });
            let _gone = done.send(encoded);
        });
        Self::Later(answer)
    }
}

/// What a lengthy request has led to.
#[derive(Debug)]
pub enum Deferred {
    /// The encoded result.
    Encoded(Vec<u8>),
    /// A result that may be larger than memory.
    Pieces(Box<dyn Pieces>),
}

/// A result that is written a piece at a time, as the receiver takes it.
pub trait Pieces: std::fmt::Debug + Send {
    /// Goes on for a moment, appending to the buffer.
    ///
    /// # Errors
    /// A [`CommandError`]. Once something was sent, the reply cannot be completed any more.
    fn step(&mut self, out: &mut Vec<u8>) -> Result<Step, CommandError>;
}

/// What one step brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to send yet; what is in the buffer must stay there.
    Working,
    /// The buffer can be sent and emptied.
    Send,
    /// The buffer holds the end of the result.
    Finished,
}

/// What only the daemon can do for a request: it holds the settings.
#[derive(Debug)]
pub enum DaemonRequest {
    /// Read the settings again; the answer is why they were not taken.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Say which settings are in force.
    Settings(oneshot::Sender<Vec<EffectiveSetting>>),
}

/// A setting in force.
#[derive(Clone, Debug)]
pub struct EffectiveSetting {
    /// Its key, as in the configuration file, dotted.
    pub name: &'static str,
    /// Its value, as text.
    pub value: String,
    /// The file and line, option or variable that it comes from; none for a default.
    pub source: Option<String>,
}

/// Requests that may be queued for the daemon. Only administrators make them, so few are enough.
pub const DAEMON_REQUESTS: usize = 8;

/// Answers requests. One per daemon.
#[derive(Debug)]
pub struct Service {
    store: Store,
    node: Box<str>,
    /// The uid that the daemon runs as.
    own_uid: Uid,
    started: Instant,
    connections: Arc<AtomicUsize>,
    scans: ScanSlots,
    daemon_requests: mpsc::Sender<DaemonRequest>,
    /// One permit: one backup at a time.
    backups: Arc<Semaphore>,
    /// A few permits: whole tables that are read to be compared.
    comparisons: Arc<Semaphore>,
    /// The other machines; none for a node that runs alone, or as long as the mesh is down.
    mesh: OnceLock<mesh::Mesh>,
    /// Why the mesh that is configured is down; none where it is not.
    mesh_down: ArcSwap<Option<Box<str>>>,
    /// Who signs for this node; none as long as no mesh is configured.
    signer: ArcSwap<Option<Arc<dyn Signer>>>,
    /// Of one message, as the edge keeps them.
    bounds: ArcSwap<Bounds>,
    /// Replicas of tables on other machines.
    sync: Arc<sync::SyncView>,
    /// How far the rows were compared with their checksums.
    scrub: scrub::ScrubView,
}

impl Service {
    /// A service over a store, on a node of that name. What needs the settings is sent to the daemon.
    #[must_use]
    pub fn new(
        store: Store,
        node: &str,
        scans: ScanSlots,
        daemon_requests: mpsc::Sender<DaemonRequest>,
    ) -> Self {
        Self {
            store,
            node: node.into(),
            own_uid: Uid(nix::unistd::geteuid().as_raw()),
            started: clock::monotonic(),
            connections: Arc::default(),
            scans,
            daemon_requests,
            backups: Arc::new(Semaphore::new(1)),
            comparisons: Arc::new(Semaphore::new(repair::AT_A_TIME)),
            bounds: ArcSwap::default(),
            mesh: OnceLock::new(),
            mesh_down: ArcSwap::default(),
            signer: ArcSwap::default(),
            sync: sync::SyncView::new(),
            scrub: scrub::ScrubView::default(),
        }
    }

    /// From now on clients see these as the bounds of one message. The edge keeps to them.
    pub fn set_bounds(&self, bounds: Bounds) {
        self.bounds.store(Arc::new(bounds));
    }

    /// The same, on a node of a mesh.
    #[must_use]
    pub fn in_mesh(self, mesh: mesh::Mesh) -> Self {
        self.enter_mesh(mesh);
        self
    }

    /// From now on this is a node of a mesh that is up. Once only: a mesh that is up stays so.
    pub fn enter_mesh(&self, mesh: mesh::Mesh) {
        let _entered_before = self.mesh.set(mesh);
        self.mesh_down.store(Arc::new(None));
    }

    /// Says why the mesh that is configured is down: requests that need it are refused with that.
    pub fn keep_mesh_down(&self, why: &str) {
        self.mesh_down.store(Arc::new(Some(why.into())));
    }

    /// Why the mesh that is configured is down; none where it is up, or none is configured.
    #[must_use]
    pub fn why_mesh_is_down(&self) -> Option<Box<str>> {
        Option::clone(&self.mesh_down.load())
    }

    /// What is answered where there is no mesh.
    fn without_mesh(&self) -> Refusal {
        self.why_mesh_is_down().map_or(Refusal::MeshNotConfigured, Refusal::MeshDown)
    }

    /// From now on signs as the signer does: at the start, and when keys were replaced.
    ///
    /// # Errors
    /// [`Refusal::AnotherNode`] and [`Refusal::AnotherMesh`] where the database belongs elsewhere;
    /// a fault of the store. Nothing has changed then.
    pub async fn join(&self, signer: Arc<dyn Signer>) -> Result<(), CommandError> {
        self.store.execute(DirectoryCommand::Join(Arc::clone(&signer))).await?;
        self.signer.store(Arc::new(Some(signer)));
        Ok(())
    }

    /// Who signs for this node.
    fn signer(&self) -> Result<Arc<dyn Signer>, Refusal> {
        Option::clone(&self.signer.load()).ok_or_else(|| self.without_mesh())
    }

    /// What is known of the replicas on other machines.
    #[must_use]
    pub fn sync(&self) -> &Arc<sync::SyncView> {
        &self.sync
    }

    /// How far the rows were compared with their checksums.
    #[must_use]
    pub fn scrub(&self) -> &scrub::ScrubView {
        &self.scrub
    }

    /// The store underneath.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who may read whole tables at the same time.
    #[must_use]
    pub fn scans(&self) -> &ScanSlots {
        &self.scans
    }

    /// The gauge of open connections, kept by the edge and shown in status.
    #[must_use]
    pub fn connections(&self) -> &Arc<AtomicUsize> {
        &self.connections
    }

    /// Judges a request and answers it, or says what remains to be done. `params` is the encoded
    /// array of parameters.
    ///
    /// # Errors
    /// A [`CommandError`]. Nothing was changed; what was appended to `out` must be taken back.
    pub fn call(
        &self,
        caller: &Caller,
        method: &str,
        params: &Bytes,
        reader: &Reader,
        out: &mut Vec<u8>,
    ) -> Result<Answer, CommandError> {
        let Some(method) = allowed(caller, method)? else {
            return Err(Refusal::UnknownMethod(method.into()).into());
        };
        match method {
            Method::Ping => ready(out, &self.ping(params)?),
            Method::Status => ready(out, &self.status(params)?),
            Method::Tables => ready(out, &self.tables(caller, params)?),
            Method::CreateTable => self.create_table(caller, params),
            Method::DropTable => self.drop_table(caller, params),
            Method::TableChown => self.table_chown(caller, params),
            Method::TableInfo => ready(out, &self.table_info(caller, params)?),
            Method::Put => self.put(caller, params),
            Method::Get => self.get(caller, params, reader, out),
            Method::Delete => self.delete(caller, params),
            Method::Match => self.matching(caller, params),
            Method::All => self.all(caller, params),
            Method::Keys => self.keys(caller, params),
            Method::AclGrant => self.acl_grant(caller, params),
            Method::AclRevoke => self.acl_revoke(caller, params),
            Method::AclList => ready(out, &self.acl_list(caller, params)?),
            Method::Usage => ready(out, &self.usage(caller, params)?),
            Method::Events => ready(out, &self.events(caller, params, reader)?),
            Method::Reload => self.reload(caller, params),
            Method::Settings => self.settings(caller, params),
            Method::Checkpoint => self.checkpoint(caller, params),
            Method::Backup => self.backup(caller, params),
            Method::GetScope => ready(out, &self.get_scope(caller, params)?),
            Method::SetScope => self.set_scope(caller, params, out),
            Method::IdentityRegister => self.identity_register(caller, params),
            Method::IdentityToken => ready(out, &self.identity_token(caller, params)?),
            Method::IdentityClaim => self.identity_claim(caller, params),
            Method::IdentityRedeem => self.identity_redeem(caller, params, reader),
            Method::IdentityLearn => self.identity_learn(caller, params),
            Method::IdentityList => ready(out, &self.identity_list(params)?),
            Method::IdentityLookup => ready(out, &self.identity_lookup(params)?),
            Method::IdentityRevoke => self.identity_revoke(caller, params),
            Method::MeshListNodes => ready(out, &self.mesh_list_nodes(params)?),
            Method::MeshStatus => ready(out, &self.mesh_status(params)?),
            Method::MeshRemoveNode => self.mesh_remove_node(caller, params),
            Method::IdentityResolve => self.identity_resolve(caller, params),
            Method::SyncStatus => ready(out, &self.sync_status(caller, params)?),
            Method::SyncStatusTable => ready(out, &self.sync_status_table(caller, params)?),
            Method::SyncWait => self.sync_wait(caller, params),
            Method::SyncRepair => self.sync_repair(caller, params),
            Method::SyncBuckets => self.sync_buckets(caller, params),
            Method::SyncMarks => self.sync_marks(caller, params),
            Method::SyncPush => self.sync_push(caller, params),
            Method::SyncDigest => self.sync_digest(caller, params),
            Method::Scrub => self.scrub_now(caller, params),
            Method::Conflicts => self.conflicts(caller, params, out),
            Method::ConflictShow => ready(out, &self.conflict_show(caller, params, reader)?),
            Method::ConflictRestore => self.conflict_restore(caller, params),
            Method::ConflictAck => self.conflict_ack(caller, params),
            Method::Explain => ready(out, &self.explain(caller, params)?),
        }
    }

    /// The result of a committed command, as v1 clients know it.
    #[must_use]
    pub fn done(done: Outcome) -> &'static str {
        match done {
            Outcome::Tables(outcome) => match outcome {
                TableOutcome::Created => "created",
                TableOutcome::Dropped | TableOutcome::Declined { declined: true } => "dropped",
                TableOutcome::Declined { declined: false } => "restored",
                TableOutcome::HandedOver => "handed over",
                TableOutcome::Granted => "granted",
                TableOutcome::Revoked => "revoked",
                TableOutcome::Scoped => "scope updated",
            },
            Outcome::Directory(outcome) => match outcome {
                DirectoryOutcome::Removed => "removed",
                DirectoryOutcome::NameResolved => "resolved",
                DirectoryOutcome::Unbound => "revoked",
                DirectoryOutcome::Joined
                | DirectoryOutcome::Registered
                | DirectoryOutcome::Claimed
                | DirectoryOutcome::Adopted
                | DirectoryOutcome::Redeemed
                | DirectoryOutcome::Learned => "ok",
            },
            Outcome::Records(_)
            | Outcome::Replication(_)
            | Outcome::Upkeep(_)
            | Outcome::Stopped => "ok",
        }
    }

    fn open_connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

/// The parameters of a method.
fn read<'a, R: Request<'a>>(params: &'a Bytes) -> Result<R, Refusal> {
    R::read(params).ok_or_else(R::invalid)
}

/// A result that is known at once.
fn ready(out: &mut Vec<u8>, response: &impl Response) -> Result<Answer, CommandError> {
    response.write(out);
    Ok(Answer::Ready)
}

/// The method of that name, if there is one. Another machine may name only those that are open to it: what
/// else there is here, it does not learn. Some are for other machines alone.
fn allowed(caller: &Caller, name: &str) -> Result<Option<Method>, Refusal> {
    let method = Method::from_name(name);
    match caller {
        Caller::Local(_) if method.is_some_and(Method::is_for_peers_alone) => {
            Err(Refusal::AccessDenied)
        }
        Caller::Local(_) => Ok(method),
        Caller::Peer { .. } if method.is_some_and(Method::open_to_peers) => Ok(method),
        Caller::Peer { .. } => Err(Refusal::AccessDenied),
    }
}

/// What the error slot of a reply says of a failure. Faults are worded for clients; their cause
/// is in the log.
#[must_use]
pub fn wire_error(failure: &CommandError) -> String {
    match failure {
        CommandError::Refused(refusal) => refusal.to_string(),
        CommandError::Faulted(
            fault @ (StoreError::Damaged { .. } | StoreError::DamagedCopy { .. }),
        ) => {
            format!("{}: {fault}", fault.wire())
        }
        CommandError::Faulted(fault) => fault.wire().to_owned(),
    }
}
