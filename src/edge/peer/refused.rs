//! Connections that are refused: why, how often, and a line in the log now and then.
//! Who is refused is decided where the connection stands.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use cortex_core::{model::NodeName, wire::link::Reject};
use tracing::{debug, warn};

use crate::{journal, pki::Rejected, service::mesh::MeshView, sparing::Sparing};

/// Why a connection is refused, or one that was accepted is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Certificate(#[from] Rejected),
    #[error("no node {0} is configured here")]
    NotConfigured(NodeName),
    #[error("it has the certificate of node {1} where node {0} was expected")]
    WrongNode(NodeName, NodeName),
    #[error("it has the name of this node itself")]
    OwnName,
    #[error("the handshake was broken off from there: {0}")]
    BrokenOff(String),
    #[error("the handshake took too long")]
    Timeout,
    #[error("too many handshakes are under way")]
    TooManyHandshakes,
    #[error("the node has too many connections")]
    TooManyConnections,
    #[error("its greeting does not do: {0}")]
    Greeting(Reject),
}

impl Refused {
    /// One word for counters, the same for ever.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Certificate(rejected) => rejected.reason(),
            Self::NotConfigured(_) => "not_configured",
            Self::WrongNode(..) => "wrong_node",
            Self::OwnName => "own_name",
            Self::BrokenOff(_) => "handshake",
            Self::Timeout => "timeout",
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::TooManyConnections => "too_many_connections",
            Self::Greeting(reject) => match reject {
                Reject::Mesh => "other_mesh",
                Reject::NotMember => "not_configured",
                Reject::Version => "version",
                Reject::WrongNode => "wrong_node",
                Reject::Clock { .. } => "clock",
                Reject::Evicted => "removed",
                Reject::NameTaken => "name_taken",
                Reject::Duplicate | Reject::Other(_) => "greeting",
            },
        }
    }
}

/// Counts refusals, and logs one of each reason per interval.
#[derive(Debug)]
pub(super) struct Refusals {
    view: Arc<MeshView>,
    /// Locked for a look-up.
    logged: Mutex<BTreeMap<&'static str, Arc<Sparing>>>,
}

impl Refusals {
    pub(super) fn new(view: Arc<MeshView>) -> Self {
        Self { view, logged: Mutex::default() }
    }

    /// Takes note of one. What a stranger has written stands in the log with its control characters escaped.
    pub(super) fn note(&self, from: SocketAddr, why: &Refused) {
        let reason = why.reason();
        self.view.count_refused(reason);
        if let Refused::BrokenOff(why) = why {
            // Nobody was refused: whoever dialled has gone, as a daemon does that ends.
            return debug!(%from, why = %why.escape_debug(), "a connection has ended before its greeting");
        }
        let sparing = {
            let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(logged.entry(reason).or_default())
        };
        if let Some(kept_back) = sparing.due() {
            let why = why.to_string();
            warn!(
                MESSAGE_ID = journal::PEER_REFUSED,
                %from,
                reason,
                kept_back,
                "refused a connection to the peer port: {}",
                why.escape_debug()
            );
        }
    }
}
