//! One thread with one single-threaded runtime per core; a connection stays on the one it was given.
//! Measured: a work-stealing runtime and a thread per connection are both slower on few cores.

use std::{
    os::unix::net::UnixStream as StdUnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use cortex_core::model::{Caller, Uid};
use tokio::{
    net::UnixStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, warn};

use super::{
    conn::{self, Context},
    connections::ConnectionPermit,
    limits::ConnLimits,
};
use crate::service::Service;

/// How long connections may take to finish what they have begun, once the daemon ends. A client
/// that sends without a pause would keep it for ever.
const DRAIN: Duration = Duration::from_secs(10);

/// A connection on its way to its thread.
struct IncomingConnection {
    stream: StdUnixStream,
    caller: Caller,
    permit: ConnectionPermit<Uid>,
}

/// The threads that serve connections.
#[derive(Debug)]
pub struct Shards {
    shards: Vec<Shard>,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct Shard {
    /// Unbounded, and yet bounded: each arrival holds a permit.
    arrivals: mpsc::UnboundedSender<IncomingConnection>,
    load: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Shards {
    /// Starts `threads` threads over the service; the store must have a reader for each.
    ///
    /// # Errors
    /// If the system grants no thread or no event queue.
    pub fn start(
        threads: usize,
        service: &Arc<Service>,
        limits: &Arc<ArcSwap<ConnLimits>>,
    ) -> std::io::Result<Self> {
        let (stop, _) = watch::channel(false);
        let start_one = |index| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (arrivals, incoming) = mpsc::unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            let context = Arc::new(Context {
                service: Arc::clone(service),
                reader: service.store().reader(index),
                limits: Arc::clone(limits),
                stop: stop.subscribe(),
            });
            let on_shard = Arc::clone(&load);
            let thread = std::thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(move || runtime.block_on(serve(incoming, context, on_shard)))?;
            Ok(Shard { arrivals, load, thread })
        };
        let shards = (0..threads).map(start_one).collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self { shards, stop })
    }

    /// Gives a connection to the thread that has the fewest.
    pub(super) fn dispatch(
        &self,
        stream: UnixStream,
        caller: Caller,
        permit: ConnectionPermit<Uid>,
    ) {
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return debug!(%error, "a connection was lost while it was accepted"),
        };
        if let Some(shard) = self.shards.iter().min_by_key(|shard| shard.load.load(Relaxed)) {
            shard.load.fetch_add(1, Relaxed);
            let _ended = shard.arrivals.send(IncomingConnection { stream, caller, permit });
        }
    }

    /// Lets every connection finish what it has begun, and ends the threads.
    pub async fn drain(self) {
        self.stop.send_replace(true);
        let threads: Vec<_> = self.shards.into_iter().map(|shard| shard.thread).collect();
        let joined = tokio::task::spawn_blocking(|| {
            threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count()
        });
        if joined.await.unwrap_or(1) > 0 {
            tracing::error!("a thread that serves connections panicked");
        }
    }
}

async fn serve(
    mut incoming: mpsc::UnboundedReceiver<IncomingConnection>,
    context: Arc<Context>,
    load: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    let mut stop = context.stop.clone();
    loop {
        tokio::select! {
            arrival = incoming.recv() => {
                let Some(arrival) = arrival else { break };
                connections.spawn(serve_one(arrival, Arc::clone(&context), Arc::clone(&load)));
            }
            ended = connections.join_next(), if !connections.is_empty() => {
                if let Some(Err(panic)) = ended {
                    tracing::error!(%panic, "a connection panicked and was closed: {panic}");
                }
            }
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN, drained).await.is_err() {
        warn!("connections that were still busy were closed");
    }
}

async fn serve_one(arrival: IncomingConnection, context: Arc<Context>, load: Arc<AtomicUsize>) {
    let IncomingConnection { stream, caller, permit } = arrival;
    match UnixStream::from_std(stream) {
        Ok(stream) => conn::serve(stream, caller, &context).await,
        Err(error) => warn!(%error, "a connection could not be watched and was closed: {error}"),
    }
    load.fetch_sub(1, Relaxed);
    drop(permit);
}
