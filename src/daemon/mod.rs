//! The composition root: reads the settings, puts the parts together, and takes them down in order.
//! Nobody imports it; the parts know nothing of each other but what stands in their interfaces.
//!
//! ```text
//!   settings ─> log ─> store ─> service ─> shards ─> message bus ─> mesh ─> listener ─> READY
//!                                                                        │
//!        first to end:  accept │ mesh │ signal │ upkeep │ watchdog │ a fault of the store
//!                                                                        │
//!   STOPPING ─> no new connections ─> replies under way ─> last commits ─> exit
//! ```

mod activation;
mod args;
mod bus;
mod config;
mod log;
mod mesh_config;
mod peer;
mod rlimit;
mod socket;
mod supervise;
mod unconfigured;

use std::{
    io::{self, Write as _},
    net::TcpListener,
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use arc_swap::ArcSwap;
use clap::Parser;
use cortex_core::model::Uid;
use tokio::sync::mpsc;

pub use args::Args;
pub use config::{BusChoice, Config, Settings};
pub use mesh_config::{MeshConfig, MeshSettings, NodeConfig};

use crate::{
    edge::{
        bus::{Bus, BusKind},
        connections::ConnectionLimiter,
        limits::ConnLimits,
        peer::PeerPort,
        shard::Shards,
    },
    service::{self, ScanSlots, Service, wire_error},
    store::{self, CommandError, LogBounds, OpenError, Options, Restored, Store, Summary},
    sys::paths::{self, Environment},
};
use bus::BusThread;
use log::LogLevel;
use peer::{Joined, PeerThread};

/// EX_CONFIG of sysexits.h. The unit names it: what is wrong in the settings, another start does not mend.
const WRONG_SETTINGS: u8 = 78;

/// Runs the daemon as its command line says.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let env = Environment::of_this_process();
    let settings = match Settings::gather(&args, &env) {
        Ok(settings) => settings,
        Err(error) => {
            let status = failed(&error, ExitCode::from(WRONG_SETTINGS));
            if !args.check && args.action.is_none() {
                unconfigured::reject_clients();
            }
            return status;
        }
    };
    match start(&args, settings, &env) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, status_of(&error)),
    }
}

/// Where the data directory is somebody else's, what is wrong is the setting that names it.
fn status_of(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<OpenError>() {
        Some(error) if error.is_for_the_administrator() => ExitCode::from(WRONG_SETTINGS),
        Some(_) | None => ExitCode::FAILURE,
    }
}

fn failed(error: &anyhow::Error, status: ExitCode) -> ExitCode {
    eprintln!("error: {error:#}");
    status
}

fn start(args: &Args, settings: Settings, env: &Environment) -> Result<()> {
    // Before anything else that an action might do: who asks for a check wants nothing changed.
    if args.check {
        if let Some(mesh) = &settings.mesh {
            mesh.load()?;
        }
        return writeln!(io::stdout(), "{}", settings.summary())
            .context("cannot print the settings");
    }
    // What the store writes is nobody else's to read; the socket gets its own mode.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if let Some(args::Action::Restore { file }) = &args.action {
        return restore(file, &settings);
    }
    let level = Arc::new(log::start(&settings.log)?);
    rlimit::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(run(args, settings, env, &level))
}

/// Puts a backup in the place of the database. The settings say which.
fn restore(file: &Path, settings: &Settings) -> Result<()> {
    let dir = &settings.data_dir;
    let Restored { summary, kept } =
        store::restore(file, dir).with_context(|| format!("{} was not restored", dir.display()))?;
    let Summary { tables, records, bytes } = summary;
    println!(
        "restored {tables} tables with {records} records ({bytes} bytes) to {}",
        dir.display()
    );
    if let Some(kept) = kept {
        println!("the database that was there is kept as {}", kept.display());
    }
    Ok(())
}

/// The parts of a running daemon that a reload or the end touches.
#[derive(Debug)]
struct Running<'a> {
    args: &'a Args,
    env: &'a Environment,
    level: Arc<LogLevel>,
    settings: Settings,
    service: Arc<Service>,
    limits: Arc<ArcSwap<ConnLimits>>,
    limiter: Arc<ConnectionLimiter<Uid>>,
    shards: Shards,
    bus: Option<BusThread>,
    mesh: MeshStarter,
    peers: Option<PeerThread>,
    socket: socket::Socket,
}

async fn run(
    args: &Args,
    settings: Settings,
    env: &Environment,
    level: &Arc<LogLevel>,
) -> Result<()> {
    let passed = activation::Passed::take()?;
    if passed.clients.is_none() {
        // Before anything is made that a daemon which cannot serve would leave behind.
        socket::refuse_if_served(&settings.socket).await?;
    }
    // The store before the socket: of two daemons that start at the same moment, the one that comes
    // too late must not have replaced the other's socket.
    let store = Store::open(&Options {
        dir: settings.data_dir.clone(),
        // The last two are the message bus's and the mesh's.
        readers: settings.threads + 2,
        cache_kib: settings.cache_kib,
        record_cache_bytes: u64::from(settings.record_cache_mib) << 20,
        limits: settings.limits,
        log: LogBounds::default(),
        vfs: None,
        rollback_marker: paths::rollback_marker_dir(env),
    })?;
    let socket = match socket::Socket::open(&settings.socket, passed.clients).await {
        Ok(socket) => socket,
        Err(error) => {
            store.close().await;
            return Err(error);
        }
    };
    let slots = ScanSlots::new(settings.scans, settings.scans_per_uid);
    let (daemon_requests, asked) = mpsc::channel(service::DAEMON_REQUESTS);
    let service = Arc::new(Service::new(store, &settings.node, slots, daemon_requests));
    service.set_bounds(settings.conn.bounds());
    let limits = Arc::new(ArcSwap::from_pointee(settings.conn));
    // Before anybody is served: a node of a mesh is one from the first request on. One that cannot be serves
    // its own programs all the same.
    let mesh = MeshStarter::new(passed.peers, &settings);
    let peers = mesh.enter(&settings, &service, &limits).await;
    let limiter = ConnectionLimiter::new(Arc::clone(service.connections()));
    let shards = Shards::start(settings.threads, &service, &limits)
        .context("cannot start the threads that serve connections")?;
    let bus = start_bus(&settings, &service, level)?;
    let level = Arc::clone(level);
    let mut running = Running {
        args,
        env,
        level,
        settings,
        service,
        limits,
        limiter,
        shards,
        bus,
        mesh,
        peers,
        socket,
    };

    running.announce();
    let outcome = supervise::until_the_end(&mut running, asked).await;
    running.stop().await;
    outcome
}

fn start_bus(
    settings: &Settings,
    service: &Arc<Service>,
    level: &Arc<LogLevel>,
) -> Result<Option<BusThread>> {
    let which = match settings.bus {
        BusChoice::Off => return Ok(None),
        BusChoice::System => BusKind::System,
        BusChoice::Session => BusKind::Session,
    };
    let reader = service.store().reader(settings.threads);
    let level: Arc<LogLevel> = Arc::clone(level);
    let bus = Bus::new(which, Arc::clone(service), reader, level);
    BusThread::start(bus).map(Some).context("cannot start the thread of the message bus")
}

/// Where the mesh is entered: at the start, and later where it could not be then.
#[derive(Debug)]
struct MeshStarter {
    /// The socket that systemd has passed for it.
    passed: Option<TcpListener>,
}

impl MeshStarter {
    /// Without a mesh the socket is closed: a refusal is clearer to other machines than a timeout.
    fn new(passed: Option<TcpListener>, settings: &Settings) -> Self {
        if passed.is_some() && settings.mesh.is_none() {
            tracing::warn!(
                "systemd passed a socket for the mesh, and no mesh is configured: it is closed"
            );
        }
        Self { passed: passed.filter(|_| settings.mesh.is_some()) }
    }

    /// Enters the mesh that is configured. Where that cannot be, by what is wrong with files, clock, address or
    /// database, requests that need the mesh are refused with the reason, and everything else goes on.
    async fn enter(
        &self,
        settings: &Settings,
        service: &Arc<Service>,
        limits: &Arc<ArcSwap<ConnLimits>>,
    ) -> Option<PeerThread> {
        let mesh = settings.mesh.as_ref()?;
        match self.try_to_enter(mesh, settings, service, limits).await {
            Ok(peers) => Some(peers),
            Err(error) => {
                let why = format!("{error:#}");
                // The same again and again is worth one line.
                if service.why_mesh_is_down().as_deref() != Some(why.as_str()) {
                    tracing::error!(
                        "the mesh is down, only this machine's own programs are served: {why}"
                    );
                }
                service.keep_mesh_down(&why);
                None
            }
        }
    }

    async fn try_to_enter(
        &self,
        mesh: &MeshSettings,
        settings: &Settings,
        service: &Arc<Service>,
        limits: &Arc<ArcSwap<ConnLimits>>,
    ) -> Result<PeerThread> {
        let passed = self.passed.as_ref().map(TcpListener::try_clone).transpose();
        let (joined, handle) =
            Joined::new(mesh, passed.context("cannot use the socket of the mesh")?)?;
        let signer = joined.mesh.borrow().credentials().clone();
        service.join(signer).await.map_err(|failure| refused(&failure))?;
        let peers = start_peers(joined, settings, service, limits)?;
        service.enter_mesh(handle);
        Ok(peers)
    }
}

/// What the store says to a node that wants to join a mesh.
fn refused(failure: &CommandError) -> anyhow::Error {
    anyhow!("the mesh cannot be joined with this database: {}", wire_error(failure))
}

fn start_peers(
    joined: Joined,
    settings: &Settings,
    service: &Arc<Service>,
    limits: &Arc<ArcSwap<ConnLimits>>,
) -> Result<PeerThread> {
    let Joined { mesh, listener, view, asked } = joined;
    let port = PeerPort {
        service: Arc::clone(service),
        reader: service.store().reader(settings.threads + 1),
        limits: Arc::clone(limits),
        listener,
        mesh: mesh.subscribe(),
        view,
        asked,
    };
    PeerThread::start(mesh, port).context("cannot start the thread of the mesh")
}

impl Running<'_> {
    /// Prints where the daemon listens and what to type next, where it was started from a terminal.
    fn announce(&self) {
        let (socket, data) = (self.socket.path().display(), self.settings.data_dir.display());
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(%socket, %data, version, "cortexd {version} is ready");
        if !log::stderr_is_journal() {
            let greeting = format!(
                "cortexd {version} listens on {socket}\ndata is kept in {data}\nnext, in another terminal: {} ping\n",
                self.next_command()
            );
            // A reader that is gone, or a full disk behind it, is no reason not to serve.
            let _unread = io::stdout().write_all(greeting.as_bytes());
        }
        supervise::notify_ready(&format!("{version}, listening on {socket}"));
    }

    /// For the service manager.
    fn status_line(&self) -> String {
        let (version, socket) = (env!("CARGO_PKG_VERSION"), self.socket.path().display());
        format!("{version}, listening on {socket}{}", self.about_the_mesh())
    }

    /// For the service manager: nothing, unless the mesh is down.
    fn about_the_mesh(&self) -> String {
        let why = self.service.why_mesh_is_down();
        why.map_or_else(String::new, |why| format!("; the mesh is down: {why}"))
    }

    /// Tries again to enter a mesh that is down.
    async fn enter_mesh(&mut self) {
        if self.peers.is_none() {
            self.peers = self.mesh.enter(&self.settings, &self.service, &self.limits).await;
            if self.peers.is_some() {
                tracing::info!("the mesh is up");
            }
        }
    }

    /// How to call the client: as it would be found from here.
    fn next_command(&self) -> String {
        let mut command = if std::env::var_os("CARGO").is_some() {
            "cargo run --release --bin cortex --".to_owned()
        } else {
            "cortex".to_owned()
        };
        let found_by_itself =
            crate::sys::paths::default_socket_for_daemon(self.env) == self.socket.path();
        if !found_by_itself {
            command.push_str(&format!(" --socket {}", self.socket.path().display()));
        }
        command
    }

    /// Takes the daemon down: no new connections, the replies under way, the last commits.
    async fn stop(self) {
        supervise::notify_stopping();
        self.socket.close();
        self.service.store().give_up_backups();
        let leave_bus = async {
            if let Some(bus) = self.bus {
                bus.stop().await;
            }
        };
        let leave_mesh = async {
            if let Some(peers) = self.peers {
                peers.stop().await;
            }
        };
        tokio::join!(self.shards.drain(), leave_bus, leave_mesh);
        self.service.store().close().await;
        tracing::info!("stopped");
    }
}
