//! Connections to and from the other machines of the mesh, over TLS with both sides' certificates.
//! What certificates are worth is `pki`'s to judge; what a request may do, the service's.
//!
//! ```text
//!   listener ──> bounds ─> handshake ─> certificate, name, protocol ──┬─> cortex-rpc/1: rpc ──> conn, as for the
//! Unix socket
//!                  └────── refused: counted, logged ──────┘           └─> cortex-sync/1: link
//!   dialer ────> every configured machine, for ever ────────────────────> cortex-sync/1: link
//!   ask ───────> a request of the service to another machine ───────────> cortex-rpc/1
//!
//!   link <──> sync ──> rows, as the session says <──> store
//!   upkeep ──> deletions that every replica knows, change logs that are too long ──> store
//!   link ──> news ──> keeper: who is alive, events, what status shows ──> MeshView
//!                     keeper ──> live: closes what a reload, or time, has made untrusted
//! ```
//!
//! All of it runs on one thread. What a reload replaces is one value, [`Mesh`]; everybody looks at the newest.

mod ask;
mod clock_skew;
mod dialer;
mod frames;
mod handshake;
mod handshake_limiter;
mod keeper;
mod link;
mod links;
mod listener;
mod live;
mod mesh;
mod refused;
mod replication;
mod round_trip;
mod rpc;
mod upkeep;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use cortex_core::model::NodeName;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

pub use mesh::{Address, Mesh};

use super::{conn::Context, connections::ConnectionLimiter, limits::ConnLimits};
use crate::{
    service::{
        Service,
        mesh::{MeshView, PeerRequest},
    },
    store::Reader,
    sys::{clock, random},
};

/// How long connections may take to finish what they have begun, once the daemon ends.
const DRAIN: Duration = Duration::from_secs(5);

/// Events of links that may be queued for the keeper; links then wait, and read no further.
const PEER_EVENTS: usize = 256;

/// The peer port and everything behind it, not yet running.
#[derive(Debug)]
pub struct PeerPort {
    /// Answers requests.
    pub service: Arc<Service>,
    /// The thread's reader of single records.
    pub reader: Arc<Reader>,
    /// Bounds of connections, as for local ones.
    pub limits: Arc<ArcSwap<ConnLimits>>,
    /// Listens already.
    pub listener: std::net::TcpListener,
    /// What a reload replaces.
    pub mesh: watch::Receiver<Arc<Mesh>>,
    /// Shown to the service.
    pub view: Arc<MeshView>,
    /// What the service asks of other machines.
    pub asked: mpsc::Receiver<PeerRequest>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    context: Context,
    mesh: watch::Receiver<Arc<Mesh>>,
    view: Arc<MeshView>,
    refusals: refused::Refusals,
    live: Arc<live::Live>,
    links: Arc<links::Links>,
    peer_addresses: handshake_limiter::PeerAddresses,
    pool: ask::Pool,
    /// Connections for requests, counted apart from the local ones.
    limiter: Arc<ConnectionLimiter<NodeName>>,
    news: mpsc::Sender<keeper::PeerEvent>,
    /// Monotonic times count from here.
    started: Instant,
    /// Machines whose rows are ahead of this one's clock.
    held_off: replication::HeldOff,
    /// What keeps rows from coming through, as far as it was logged.
    problems: replication::ProblemLog,
    /// Which run of the daemon this is.
    boot: [u8; 16],
}

impl PeerPort {
    /// Serves the mesh until stopped, and then lets connections finish.
    ///
    /// # Errors
    /// If the listener cannot be watched.
    pub async fn keep(self, stop: watch::Receiver<bool>) -> std::io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let (news, incoming) = mpsc::channel(PEER_EVENTS);
        let shared = Arc::new(Shared {
            context: Context {
                service: self.service,
                reader: self.reader,
                limits: self.limits,
                stop: stop.clone(),
            },
            refusals: refused::Refusals::new(Arc::clone(&self.view)),
            mesh: self.mesh,
            view: self.view,
            live: Arc::default(),
            links: Arc::default(),
            peer_addresses: handshake_limiter::PeerAddresses::default(),
            pool: ask::Pool::default(),
            limiter: ConnectionLimiter::new(Arc::default()),
            news,
            started: clock::monotonic(),
            held_off: replication::HeldOff::default(),
            problems: replication::ProblemLog::default(),
            boot: random::id(),
        });
        tokio::join!(
            listener::run(&listener, &shared),
            dialer::run(&shared),
            ask::run(self.asked, &shared),
            keeper::run(incoming, &shared),
            upkeep::run(&shared),
        );
        Ok(())
    }
}

impl Shared {
    /// The newest configuration and credentials.
    fn mesh(&self) -> Arc<Mesh> {
        Arc::clone(&self.mesh.borrow())
    }

    /// Ends when the daemon does.
    async fn stopped(&self) {
        let mut stop = self.context.stop.clone();
        let _stopped_or_gone = stop.wait_for(|stop| *stop).await;
    }

    fn is_stopping(&self) -> bool {
        *self.context.stop.borrow()
    }

    /// Monotonic time since the start.
    fn now(&self) -> Duration {
        clock::monotonic().saturating_duration_since(self.started)
    }

    /// The same, as it goes over the wire.
    fn now_us(&self) -> u64 {
        u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Seconds since 1970, in which certificates count.
fn unix_s() -> u64 {
    clock::wall_ms() / 1000
}

/// Lets tasks end by themselves for a while, and ends the others.
async fn drain(mut tasks: JoinSet<()>) {
    let _busy_ones_are_closed =
        timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
}

/// Looks after a task that has ended.
fn reap(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(panic)) = ended {
        tracing::error!(%panic, "a connection to another machine panicked and was closed: {panic}");
    }
}

/// 32 random bits.
fn random() -> u32 {
    let [a, b, c, d, ..] = random::id();
    u32::from_be_bytes([a, b, c, d])
}
