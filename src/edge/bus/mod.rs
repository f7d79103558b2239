//! The message bus: `org.cortexd.Cortex1`, for administrators and their tools.
//! What a request means, and who may make it, is the service's; here are a caller made out of the
//! sender's uid, and D-Bus types out of results.
//!
//! ```text
//!   connect ─> serve objects ─> follow the catalog ─> own the name ─┬─> until the bus is gone
//!      ^                                                            │
//!      └────────────────────────── back-off <───────────────────────┘
//!
//!   /org/cortexd/Cortex1            manager (Manager), objects (ObjectManager)
//!   /org/cortexd/Cortex1/table/N    table (Table), made and removed by tables
//!   /org/cortexd/Cortex1/node/…     node (Node), made and removed by nodes
//!   /org/cortexd/Cortex1/identity/… identity (Identity), made and removed by identities
//!   /org/cortexd/Cortex1/job/N      jobs (Job), while it runs
//!   /org/freedesktop/LogControl1    log_control (LogControl1)
//!                                       └─> dispatcher: uid, polkit ─> Service::call
//! ```
//!
//! # Who learns what
//!
//! Nobody can probe for the names of tables, and the bus has ways to reveal them that no access control
//! reaches: introspection lists every object, and signals go to everybody. So:
//!
//! - The path of a table holds its number and not its name. Numbers are counted up and never given
//!   twice; how many tables there are, everybody may know from status.
//! - Every property and every method of a table is answered with the rights of the sender, by the same
//!   gate as on the Unix socket. Without them a property is denied, and left out where all are asked
//!   for; `GetManagedObjects` and `ListTables` leave the table out.
//! - Signals of tables carry no values: `InterfacesAdded` comes without properties, a property that
//!   changes is announced as changed, without what it has become.
//! - An object whose table is denied and a table that is not there answer the same, as long as it is
//!   not root who asks, or somebody to whom polkit has given root's rights for the request.
//!
//! The nodes of the mesh, and who is who on them, everybody may ask for on the socket: their objects
//! answer everybody alike, and their signals say what has changed.
//!
//! # Whose rights
//!
//! A method is carried out with the sender's own rights. Where the gate denies it, polkit is asked,
//! and on a yes it is carried out with root's. Properties never ask polkit: zbus holds a lock on all
//! objects while one is read or set, and a person who is asked for a password may take minutes.

mod dispatcher;
mod error;
mod identities;
mod identity;
mod jobs;
mod log_control;
mod manager;
mod node;
mod nodes;
mod object_sync;
mod objects;
mod options;
mod path;
mod polkit;
mod request;
mod table;
mod tables;
mod values;

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use cortex_core::backoff::Backoff;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};
use zbus::{Connection, DBusError, connection::Builder, fdo::RequestNameFlags};

pub use log_control::LogControl;

use crate::{service::Service, store::Reader, sys::clock};
use dispatcher::Dispatcher;
use identities::Identities;
use jobs::Jobs;
use log_control::Log;
use manager::Manager;
use nodes::Nodes;
use objects::Objects;
use polkit::Polkit;
use tables::Tables;

/// The name on the bus.
const NAME: &str = "org.cortexd.Cortex1";

/// The object of the daemon; all but the log's are below it.
const ROOT: &str = "/org/cortexd/Cortex1";

/// Where systemd looks for the log.
const LOG: &str = "/org/freedesktop/LogControl1";

/// How long joining may take: a bus that accepts and does not answer is as good as none.
const JOIN: Duration = Duration::from_secs(25);

/// The first pause before joining is tried again: a bus that is restarted is back within a second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause. On a first installation the name is refused until the bus has read its policy.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long the daemon must have been on the bus for the pauses to begin with the first one again: a
/// bus that throws it out each time is not joined ten times a second.
const STABLE: Duration = Duration::from_secs(10);

/// How long the calls under way may take once the daemon ends.
const LEAVE: Duration = Duration::from_secs(2);

/// Which of the buses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusKind {
    /// The machine's: `DBUS_SYSTEM_BUS_ADDRESS`, or its usual place.
    System,
    /// The user's: `DBUS_SESSION_BUS_ADDRESS`, or its usual place.
    Session,
}

/// The daemon's part on a bus.
#[derive(Debug)]
pub struct Bus {
    which: BusKind,
    service: Arc<Service>,
    reader: Arc<Reader>,
    log: Arc<dyn LogControl>,
    polkit: Arc<Polkit>,
    last_job: Arc<AtomicU32>,
}

/// The daemon on the bus, with its name.
struct Joined {
    connection: Connection,
    objects: SharedObjects,
}

/// What the objects of one connection share.
#[derive(Clone, Debug)]
struct SharedObjects {
    dispatcher: Arc<Dispatcher>,
    tables: Arc<Tables>,
    nodes: Arc<Nodes>,
    identities: Arc<Identities>,
    jobs: Arc<Jobs>,
}

/// What keeps the daemon away.
struct JoinError {
    why: String,
    /// The same for every attempt that fails for the same reason; the text may name the attempt.
    kind: String,
}

impl Bus {
    /// A part for a service, on its own thread: with a reader of its own.
    #[must_use]
    pub fn new(
        which: BusKind,
        service: Arc<Service>,
        reader: Arc<Reader>,
        log: Arc<dyn LogControl>,
    ) -> Self {
        let (polkit, last_job) = Default::default();
        Self { which, service, reader, log, polkit, last_job }
    }

    /// Stays on the bus until stopped, however often the bus goes away. What keeps it away is
    /// logged when it changes.
    pub async fn keep(&self, mut stop: watch::Receiver<bool>) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut logged = None;
        loop {
            let Some(joined) = unless_stopped(&mut stop, self.join()).await else { return };
            match joined {
                Ok(joined) => {
                    info!(name = NAME, "on the message bus as {NAME}");
                    let since = clock::monotonic();
                    let Some(why) = unless_stopped(&mut stop, joined.until_gone()).await else {
                        return joined.leave().await;
                    };
                    warn!(why, "the message bus is gone, waiting for it to come back: {why}");
                    logged = None;
                    if since.elapsed() >= STABLE {
                        backoff.reset();
                    }
                }
                Err(JoinError { why, kind }) if logged.as_ref() == Some(&kind) => {
                    debug!(why, "still not on the message bus");
                }
                Err(JoinError { why, kind }) => {
                    warn!(why, "not on the message bus, trying again: {why}");
                    logged = Some(kind);
                }
            }
            if unless_stopped(&mut stop, sleep(backoff.next_pause())).await.is_none() {
                return;
            }
        }
    }

    async fn join(&self) -> Result<Joined, JoinError> {
        match timeout(JOIN, self.try_to_join()).await {
            Ok(joined) => joined.map_err(JoinError::from),
            Err(_) => Err(JoinError { why: "the bus does not answer".into(), kind: String::new() }),
        }
    }

    /// Serves first, and asks for the name when there is somebody to answer to it.
    async fn try_to_join(&self) -> zbus::Result<Joined> {
        let dispatcher = Arc::new(Dispatcher::new(
            Arc::clone(&self.service),
            Arc::clone(&self.reader),
            Arc::clone(&self.polkit),
        ));
        let objects = SharedObjects {
            tables: Arc::new(Tables::new(Arc::clone(&dispatcher))),
            nodes: Arc::new(Nodes::new(Arc::clone(&dispatcher))),
            identities: Arc::new(Identities::new(Arc::clone(&dispatcher))),
            jobs: Arc::new(Jobs::new(Arc::clone(&self.last_job))),
            dispatcher: Arc::clone(&dispatcher),
        };
        let builder = match self.which {
            BusKind::System => Builder::system(),
            BusKind::Session => Builder::session(),
        };
        let connection = builder
            .serve_at(ROOT, Manager::new(objects.clone()))
            .serve_at(ROOT, Objects::new(objects.clone()))
            .serve_at(LOG, Log::new(dispatcher, Arc::clone(&self.log)))
            .build()
            .await?;
        objects.update(&connection).await?;
        // Neither taken from another nor given up to one, as zbus would have it.
        connection.request_name_with_flags(NAME, RequestNameFlags::DO_NOT_QUEUE).await?;
        Ok(Joined { connection, objects })
    }
}

impl SharedObjects {
    /// Makes the objects as everything is now.
    async fn update(&self, connection: &Connection) -> zbus::Result<()> {
        self.tables.update(connection).await?;
        self.nodes.update(connection).await?;
        self.identities.update(connection).await
    }

    /// Keeps the objects as everything is, until the connection fails.
    async fn follow(&self, connection: &Connection) -> zbus::Result<()> {
        tokio::try_join!(
            self.tables.follow(connection),
            self.nodes.follow(connection),
            self.identities.follow(connection),
        )?;
        Ok(())
    }
}

impl From<zbus::Error> for JoinError {
    fn from(error: zbus::Error) -> Self {
        let why = error.to_string();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the list is zbus's, and two are answers"
        )]
        let kind = match &error {
            zbus::Error::FDO(error) => error.name().to_string(),
            zbus::Error::MethodError(name, _, _) => name.to_string(),
            _ => why.clone(),
        };
        Self { why, kind }
    }
}

impl Joined {
    /// Follows tables, nodes and identities until the connection is lost; answers why.
    async fn until_gone(&self) -> String {
        tokio::select! {
            () = self.connection.closed() => "the connection was closed".into(),
            failed = self.objects.follow(&self.connection) => {
                failed.map_or_else(|error| error.to_string(), |()| "the catalog ended".into())
            }
        }
    }

    /// Gives up the name, and waits for the calls under way.
    async fn leave(self) {
        let left = timeout(LEAVE, async {
            if let Err(error) = self.connection.release_name(NAME).await {
                debug!(%error, "the name on the message bus was not given up");
            }
            self.connection.graceful_shutdown().await;
        });
        if left.await.is_err() {
            warn!("calls on the message bus that were still busy were given up");
        }
    }
}

/// What a future brings; none where the daemon ends first.
async fn unless_stopped<T>(
    stop: &mut watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        outcome = work => Some(outcome),
        _ = stop.wait_for(|stop| *stop) => None,
    }
}
