//! The other machines, as far as requests are concerned: who they are, how they are, and asking one of them.
//! Connections to them are the edge's, which publishes what it sees here and answers what is asked.
//!
//! ```text
//!   edge::peer ──> MeshView ──> mesh_status, mesh_list_nodes
//!   edge::peer <── PeerRequest <── Mesh::call <── a method that needs another machine's answer
//! ```

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use cortex_core::{
    api::{self, Malformed, MeshReport, Named, NodeAddress, PeerNode, Request, Response as _},
    membership::State,
    model::{Caller, MeshId, NodeName, Refusal, Uid},
    wire::{Method, link::Reject},
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Answer, Service, read};
use crate::store::{CommandError, DirectoryCommand, SYSTEM_TABLE};

/// Requests to other machines that may wait for the edge to take them up. More are refused as busy.
pub const REQUESTS: usize = 64;

/// What a service knows of the mesh.
#[derive(Clone, Debug)]
pub struct Mesh {
    view: Arc<MeshView>,
    requests: mpsc::Sender<PeerRequest>,
}

/// A request to another machine, on its way to the edge.
#[derive(Debug)]
pub struct PeerRequest {
    /// Which machine.
    pub node: NodeName,
    /// One that is open to peers.
    pub method: Method,
    /// The encoded array of parameters.
    pub params: Bytes,
    /// The user of this machine on whose behalf it is made; none for the machine itself.
    pub uid: Option<Uid>,
    /// When the answer is of no use any more.
    pub deadline: Instant,
    /// Takes the encoded result. Dropped where nobody waits any more.
    pub answer: oneshot::Sender<Result<Bytes, AskError>>,
}

/// Why another machine has given no result. Unless it is [`AskError::Refused`], the request may have been
/// carried out all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No machine of that name is configured.
    #[error("no node {0} is configured")]
    UnknownNode(NodeName),
    /// It was not reached: nothing was asked.
    #[error("{0}")]
    Unreachable(String),
    /// It refused, with this text.
    #[error("{0}")]
    Refused(Box<str>),
    /// No answer came in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke off before the answer.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// The answer is none to this request.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The answer is larger than is taken.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// Too many requests wait already, or the daemon ends: nothing was asked.
    #[error("too many requests to other nodes wait already")]
    Busy,
}

/// What another machine answers, once it does.
pub type Answered<T> = Pin<Box<dyn Future<Output = Result<T, AskError>> + Send>>;

impl Mesh {
    /// A handle on the mesh, and the end of the channel that the edge answers.
    #[must_use]
    pub fn new(view: Arc<MeshView>) -> (Self, mpsc::Receiver<PeerRequest>) {
        let (requests, asked) = mpsc::channel(REQUESTS);
        (Self { view, requests }, asked)
    }

    /// What is known of the other machines now.
    #[must_use]
    pub fn view(&self) -> &MeshView {
        &self.view
    }

    /// Asks another machine, on behalf of a user of this one or for the machine itself, and waits for its answer
    /// until the deadline.
    ///
    /// # Errors
    /// [`AskError`].
    // Boxed, because the compiler cannot see that a future over a request with a borrowed parameter is `Send`.
    pub fn call<'r, R: Request<'r>>(
        &self,
        node: &NodeName,
        request: &R,
        uid: Option<Uid>,
        deadline: Instant,
    ) -> Answered<R::Response> {
        let mut params = Vec::new();
        request.write(&mut params);
        let (answer, answered) = oneshot::channel();
        let request = PeerRequest {
            node: node.clone(),
            method: R::METHOD,
            params: params.into(),
            uid,
            deadline,
            answer,
        };
        let sent = self.requests.try_send(request).map_err(|_| AskError::Busy);
        Box::pin(async move {
            sent?;
            let answered = tokio::time::timeout_at(deadline.into(), answered).await;
            let result = answered.map_err(|_| AskError::Timeout)?.unwrap_or(Err(AskError::Busy))?;
            Ok(R::Response::read(&result)?)
        })
    }
}

/// What the edge sees of the mesh; replaced as a whole whenever something changes.
#[derive(Debug)]
pub struct MeshView {
    now: ArcSwap<MeshSnapshot>,
    /// Marked with each change, heartbeats included.
    changed: watch::Sender<()>,
    /// Connections refused since the start, by reason. Locked to count one, and to show them.
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// The mesh at one moment.
#[derive(Clone, Debug)]
pub struct MeshSnapshot {
    /// This node.
    pub node: NodeName,
    /// The mesh.
    pub mesh: MeshId,
    /// When this node's certificate expires, in seconds since 1970.
    pub certificate_expires: u64,
    /// The configured machines, in the order of their names.
    pub peers: Vec<Peer>,
}

/// One other machine at one moment.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub node: NodeName,
    /// Where it is dialled.
    pub host: Box<str>,
    /// At which port.
    pub port: u16,
    /// True while there is a link.
    pub connected: bool,
    /// What its heartbeats say.
    pub state: State,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
    /// Smoothed; none before the first measurement.
    pub round_trip_us: Option<u64>,
    /// Its wall clock less this machine's, to half a round trip.
    pub clock_offset_ms: Option<i64>,
    /// When the certificate of the link expires, in seconds since 1970.
    pub certificate_expires: Option<u64>,
    /// Why the last attempt to reach it failed, or the last link ended; none while there is a link.
    pub last_error: Option<String>,
    /// Whom it sees alive, as it said last.
    pub sees: Vec<NodeName>,
    /// When its last heartbeat came; none where none has.
    pub last_heartbeat: Option<Instant>,
    /// True where two machines use its name.
    pub has_duplicates: bool,
}

/// A link on which no heartbeat has come for so long says nothing of now: three have failed to come.
pub const SILENT: Duration = Duration::from_secs(3);

impl Peer {
    /// A machine that is configured and has sent no heartbeat yet.
    #[must_use]
    pub fn unseen(node: NodeName, host: Box<str>, port: u16, since_ms: u64) -> Self {
        Self {
            node,
            host,
            port,
            connected: false,
            state: State::Unseen,
            since_ms,
            round_trip_us: None,
            clock_offset_ms: None,
            certificate_expires: None,
            last_error: None,
            sees: Vec::new(),
            last_heartbeat: None,
            has_duplicates: false,
        }
    }

    /// For how long no heartbeat has come, where that is too long for its last status to count.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        let silence = self.last_heartbeat.map(|at| at.elapsed());
        silence.filter(|silence| *silence > SILENT)
    }
}

impl MeshView {
    /// Begins with this.
    #[must_use]
    pub fn new(seen: MeshSnapshot) -> Arc<Self> {
        Arc::new(Self {
            now: ArcSwap::from_pointee(seen),
            changed: watch::Sender::new(()),
            refused: Mutex::default(),
        })
    }

    /// The mesh now.
    #[must_use]
    pub fn now(&self) -> arc_swap::Guard<Arc<MeshSnapshot>> {
        self.now.load()
    }

    /// Lets everybody see a change.
    pub fn show(&self, seen: MeshSnapshot) {
        self.now.store(Arc::new(seen));
        self.changed.send_replace(());
    }

    /// Tells of every change from now on: at least one for each heartbeat.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Counts a connection that was refused.
    pub fn count_refused(&self, reason: &'static str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(reason).or_default() += 1;
    }

    /// The connections refused since the start, by reason.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl MeshSnapshot {
    /// A machine that does not want this one any more, since its database was removed from the mesh.
    pub fn removed_by(&self) -> Option<&NodeName> {
        let evicted = Reject::Evicted.to_string();
        let mut refusing = self.peers.iter().filter(|peer| {
            !peer.connected && peer.last_error.as_ref().is_some_and(|why| why.contains(&evicted))
        });
        refusing.next().map(|peer| &peer.node)
    }

    /// The machines that are alive, this one first.
    pub fn alive(&self) -> impl Iterator<Item = &NodeName> {
        let alive = self.peers.iter().filter(|peer| peer.state == State::Alive);
        std::iter::once(&self.node).chain(alive.map(|peer| &peer.node))
    }
}

impl Service {
    /// The other machines; none for a node that runs alone.
    #[must_use]
    pub fn mesh(&self) -> Option<&Mesh> {
        self.mesh.get()
    }

    fn in_a_mesh(&self) -> Result<&Mesh, Refusal> {
        self.mesh().ok_or_else(|| self.without_mesh())
    }

    /// `mesh_list_nodes []`: the configured machines.
    pub(super) fn mesh_list_nodes(&self, params: &Bytes) -> Result<Vec<NodeAddress>, CommandError> {
        let api::MeshListNodes {} = read(params)?;
        let seen = self.in_a_mesh()?.view.now();
        let address = |Peer { node, host, port, .. }: &Peer| NodeAddress {
            name: node.to_string(),
            host: host.to_string(),
            port: *port,
        };
        Ok(seen.peers.iter().map(address).collect())
    }

    /// `mesh_remove_node [node]`: puts a node out of the mesh with the database that it has.
    pub(super) fn mesh_remove_node(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        self.signer()?;
        let api::MeshRemoveNode { node } = read(params)?;
        let node = NodeName::parse(node)?;
        self.require_admin(caller)?;
        Ok(Answer::commit(DirectoryCommand::RemoveNode { caller: caller.clone(), node }))
    }

    /// `mesh_status []`: what is known of the configured machines, and who was refused.
    pub(super) fn mesh_status(&self, params: &Bytes) -> Result<MeshReport, CommandError> {
        let api::MeshStatus {} = read(params)?;
        Ok(self.mesh_report()?)
    }

    /// What `mesh_status` answers.
    ///
    /// # Errors
    /// [`Refusal::MeshNotConfigured`] and [`Refusal::MeshDown`].
    pub fn mesh_report(&self) -> Result<MeshReport, Refusal> {
        let view = &self.in_a_mesh()?.view;
        let seen = view.now();
        let refused = view.refused().into_iter().map(|(why, count)| (why.to_owned(), count));
        Ok(MeshReport {
            node: seen.node.to_string(),
            mesh: seen.mesh.to_string(),
            certificate_expires: seen.certificate_expires,
            peers: seen.peers.iter().map(|peer| self.peer_node(peer)).collect(),
            refused: refused.collect(),
            matrix: matrix(&seen),
        })
    }

    /// What `mesh_status` says of one machine; none where the settings do not name it.
    #[must_use]
    pub fn peer(&self, name: &str) -> Option<PeerNode> {
        let seen = self.mesh()?.view.now();
        let peer = seen.peers.iter().find(|peer| peer.node.as_str() == name)?;
        Some(self.peer_node(peer))
    }

    fn peer_node(&self, peer: &Peer) -> PeerNode {
        let directory = self.sync.of(SYSTEM_TABLE, &peer.node);
        PeerNode {
            name: peer.node.to_string(),
            host: peer.host.to_string(),
            port: peer.port,
            connected: peer.connected,
            state: peer.state.to_string(),
            since_ms: peer.since_ms,
            round_trip_us: peer.round_trip_us,
            clock_offset_ms: peer.clock_offset_ms,
            certificate_expires: peer.certificate_expires,
            name_in_use_twice: peer.has_duplicates,
            last_error: peer.last_error.clone(),
            directory: directory.and_then(|replica| replica.quarantined.summary()),
        }
    }
}

/// Who sees whom: where rows disagree, some machines do not reach each other.
fn matrix(seen: &MeshSnapshot) -> Named<Vec<String>> {
    let own = (seen.node.to_string(), seen.alive().map(NodeName::to_string).collect());
    let connected = seen.peers.iter().filter(|peer| peer.connected);
    let others = connected
        .map(|peer| (peer.node.to_string(), peer.sees.iter().map(NodeName::to_string).collect()));
    Named(std::iter::once(own).chain(others).collect())
}
