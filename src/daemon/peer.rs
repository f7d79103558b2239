//! The mesh of a running daemon: its listening socket, its thread, and what a reload gives them.
//! What is said between machines is the edge's.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, watch};

use super::mesh_config::{MeshSettings, PORT};
use crate::{
    edge::peer::{Mesh, PeerPort},
    service::mesh::{self, MeshSnapshot, MeshView, Peer, PeerRequest},
    sys::clock,
};

/// What is made before the service that uses it, and becomes a thread after it.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) mesh: watch::Sender<Arc<Mesh>>,
    pub(super) listener: TcpListener,
    pub(super) view: Arc<MeshView>,
    pub(super) asked: mpsc::Receiver<PeerRequest>,
}

/// The running thread.
#[derive(Debug)]
pub(super) struct PeerThread {
    mesh: watch::Sender<Arc<Mesh>>,
    stop: watch::Sender<bool>,
    /// Its other end is the thread's, and gone with it.
    runs: watch::Receiver<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Joined {
    /// Reads the credentials and listens, on systemd's socket where it has passed one.
    ///
    /// # Errors
    /// What is wrong with the files, or with the address.
    pub(super) fn new(
        settings: &MeshSettings,
        passed: Option<TcpListener>,
    ) -> Result<(Self, mesh::Mesh)> {
        let mesh = settings.load()?;
        let listener = match passed {
            Some(listener) => listener,
            None => bind(settings).with_context(|| {
                format!("cannot listen on {} for the mesh", settings.listens_on())
            })?,
        };
        listener.set_nonblocking(true).context("cannot use the socket of the mesh")?;
        // Whole from the beginning: a request must not find fewer machines than are configured.
        let now_ms = clock::wall_ms();
        let peers = mesh.nodes().iter().map(|(node, address)| {
            Peer::unseen(node.clone(), address.host.clone(), address.port, now_ms)
        });
        let view = MeshView::new(MeshSnapshot {
            node: mesh.node().clone(),
            mesh: mesh.credentials().mesh(),
            certificate_expires: mesh.credentials().not_after(),
            peers: peers.collect(),
        });
        let (service, asked) = mesh::Mesh::new(Arc::clone(&view));
        let (mesh, _) = watch::channel(Arc::new(mesh));
        Ok((Self { mesh, listener, view, asked }, service))
    }
}

/// Listens where the settings say. Where they say nothing, a kernel without IPv6 is no reason to fail.
fn bind(settings: &MeshSettings) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(settings.listens_on());
    match &bound {
        Err(error) if settings.listen.is_none() && is_no_ipv6(error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))
        }
        Ok(_) | Err(_) => bound,
    }
}

fn is_no_ipv6(error: &io::Error) -> bool {
    const NO_FAMILY: i32 = nix::errno::Errno::EAFNOSUPPORT as i32;
    const NO_ADDRESS: i32 = nix::errno::Errno::EADDRNOTAVAIL as i32;
    matches!(error.raw_os_error(), Some(NO_FAMILY | NO_ADDRESS))
}

impl PeerThread {
    /// Starts the thread. A thread of its own, since handshakes are work, and neither local requests nor the
    /// watchdog should wait for those of strangers.
    pub(super) fn start(mesh: watch::Sender<Arc<Mesh>>, port: PeerPort) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (running, runs) = watch::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("peers".into()).spawn(move || {
            let _gone_with_the_thread = running;
            let kept = runtime.block_on(port.keep(stopped));
            // A name that is being looked up may take longer than anybody wants to wait for the end.
            runtime.shutdown_background();
            kept
        })?;
        Ok(Self { mesh, stop, runs, thread })
    }

    /// Puts other credentials and machines in force.
    pub(super) fn replace(&self, mesh: Mesh) {
        self.mesh.send_replace(Arc::new(mesh));
    }

    /// A future that ends when the thread has, which it does by itself only where it has failed.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut runs = self.runs.clone();
        async move { while runs.changed().await.is_ok() {} }
    }

    /// Ends the connections, and gives the requests under way a moment.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        match tokio::task::spawn_blocking(|| self.thread.join()).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                tracing::error!(%error, "the thread of the mesh has failed: {error}");
            }
            Ok(Err(_)) | Err(_) => tracing::error!("the thread of the mesh panicked"),
        }
    }
}
