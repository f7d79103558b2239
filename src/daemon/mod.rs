//! The composition root: reads the settings, puts the parts together, and takes them down in order.
//! Nobody imports it; the parts know nothing of each other but what stands in their interfaces.
//!
//! ```text
//!   settings ─> log ─> store ─> service ─> shards ─> listener ─> READY
//!                                                       │
//!        first to end:  accept │ signal │ upkeep │ watchdog │ a fault of the store
//!                                                       │
//!   STOPPING ─> no new connections ─> replies under way ─> last commits ─> exit
//! ```

mod activation;
mod args;
mod config;
mod log;
mod rlimit;
mod socket;
mod supervise;

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use clap::Parser;

pub use args::Args;
pub use config::{Config, Settings};

use crate::{
    edge::{limits::ConnLimits, seats::Seats, shard::Shards},
    paths::Environment,
    service::{ScanSlots, Service},
    store::{LogBounds, Options, Store},
};
use log::LogLevel;

/// Runs the daemon as its command line says.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<()> {
    let env = Environment::of_this_process();
    let settings = Settings::gather(args, &env)?;
    if args.check {
        println!("{}", settings.summary());
        return Ok(());
    }
    let level = log::start(&settings.log)?;
    rlimit::raise_open_files();
    // What the store writes is nobody else's to read; the socket gets its own mode.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(run(args, settings, &env, &level))
}

/// The parts of a running daemon that a reload or the end touches.
#[derive(Debug)]
struct Running<'a> {
    args: &'a Args,
    env: &'a Environment,
    level: &'a LogLevel,
    settings: Settings,
    service: Arc<Service>,
    limits: Arc<ArcSwap<ConnLimits>>,
    seats: Arc<Seats>,
    shards: Shards,
    socket: socket::Socket,
}

async fn run(args: &Args, settings: Settings, env: &Environment, level: &LogLevel) -> Result<()> {
    let socket = socket::Socket::open(&settings.socket).await?;
    let store = Store::open(&Options {
        dir: settings.data_dir.clone(),
        readers: settings.threads,
        cache_kib: settings.cache_kib,
        limits: settings.limits,
        log: LogBounds::default(),
        vfs: None,
    })?;
    let slots = ScanSlots::new(settings.scans, settings.scans_per_uid);
    let service = Arc::new(Service::new(store, &settings.node, slots));
    let limits = Arc::new(ArcSwap::from_pointee(settings.conn));
    let seats = Seats::new(Arc::clone(service.connections()));
    let shards = Shards::start(settings.threads, &service, &limits)
        .context("cannot start the threads that serve connections")?;
    let mut running =
        Running { args, env, level, settings, service, limits, seats, shards, socket };

    running.announce();
    let outcome = supervise::until_the_end(&mut running).await;
    running.stop().await;
    outcome
}

impl Running<'_> {
    /// Says where the daemon listens, to whoever started it, and what to type next.
    fn announce(&self) {
        let (socket, data) = (self.socket.path().display(), self.settings.data_dir.display());
        tracing::info!(%socket, %data, version = env!("CARGO_PKG_VERSION"), "ready");
        if !log::stderr_is_journal() {
            println!("cortexd {} listens on {socket}", env!("CARGO_PKG_VERSION"));
            println!("data is kept in {data}");
            println!("next, in another terminal: {} ping", self.next_command());
        }
        supervise::notify_ready(&format!("listening on {socket}"));
    }

    /// How to call the client: as it would be found from here.
    fn next_command(&self) -> String {
        let mut command = if std::env::var_os("CARGO").is_some() {
            "cargo run --release --bin cortex --".to_owned()
        } else {
            "cortex".to_owned()
        };
        let found_by_itself =
            crate::paths::default_socket_for_daemon(self.env) == self.socket.path();
        if !found_by_itself {
            command.push_str(&format!(" --socket {}", self.socket.path().display()));
        }
        command
    }

    /// Takes the daemon down: no new connections, the replies under way, the last commits.
    async fn stop(self) {
        supervise::notify_stopping();
        self.socket.close();
        self.shards.drain().await;
        self.service.store().close().await;
        tracing::info!("stopped");
    }
}
