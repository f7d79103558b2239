//! Connections that are refused: why, how often, and a line in the log now and then.
//! Who is refused is decided where the connection stands.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use cortex_core::{model::NodeName, wire::link::Reject};
use tracing::{debug, info, warn};

use crate::{
    pki::Rejected, service::mesh::MeshView, sys::clock, sys::journal, sys::throttle::LogThrottle,
};

/// A machine that has just joined may dial before the settings here name it: that is no fault for so long.
const JOINING: Duration = Duration::from_secs(60);

/// A machine that has not dialled for so long is logged again. Longer than any pause between two attempts.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Why a connection is refused, or one that was accepted is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Certificate(#[from] Rejected),
    #[error("no node {0} is configured here")]
    NotConfigured(NodeName),
    #[error("it has the certificate of node {1} where node {0} was expected")]
    WrongNode(NodeName, NodeName),
    #[error("the certificate of {0} names the node {1} too, for which it could pass")]
    NamesAnother(NodeName, NodeName),
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
            Self::NamesAnother(..) => "names_another",
            Self::OwnName => "own_name",
            Self::BrokenOff(_) => "handshake",
            Self::Timeout => "timeout",
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::TooManyConnections => "too_many_connections",
            Self::Greeting(reject) => match reject {
                Reject::Mesh => "other_mesh",
                Reject::Version => "version",
                Reject::WrongNode => "wrong_node",
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
    logged: Mutex<BTreeMap<&'static str, Arc<LogThrottle>>>,
    /// Machines of the mesh that are not configured here. No more than the CA has given certificates to.
    unnamed: Mutex<BTreeMap<NodeName, UnconfiguredPeer>>,
}

/// What was logged of a machine of the mesh that is not configured here.
#[derive(Clone, Copy, Debug)]
struct UnconfiguredPeer {
    first: Instant,
    last: Instant,
    warned: bool,
}

/// How a refusal of such a machine is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    /// It may have joined just now.
    Info,
    /// The settings were not read again, or do not name it.
    Warning,
    Already,
}

impl UnconfiguredPeer {
    /// Takes note of another attempt.
    fn note(known: Option<Self>, now: Instant) -> (Self, Report) {
        let since = |at: Instant| now.saturating_duration_since(at);
        match known.filter(|known| since(known.last) < FORGOTTEN) {
            None => (Self { first: now, last: now, warned: false }, Report::Info),
            Some(known) if !known.warned && since(known.first) >= JOINING => {
                (Self { last: now, warned: true, ..known }, Report::Warning)
            }
            Some(known) => (Self { last: now, ..known }, Report::Already),
        }
    }
}

impl Refusals {
    pub(super) fn new(view: Arc<MeshView>) -> Self {
        Self { view, logged: Mutex::default(), unnamed: Mutex::default() }
    }

    /// Takes note of one. What a stranger has written stands in the log with its control characters escaped.
    pub(super) fn note(&self, from: SocketAddr, why: &Refused) {
        let reason = why.reason();
        self.view.count_refused(reason);
        if let Refused::BrokenOff(why) = why {
            // Nothing was refused: the dialler has gone, as a daemon does that ends.
            return debug!(%from, why = %why.escape_debug(), "a connection has ended before its greeting");
        }
        if let Refused::NotConfigured(node) = why {
            return self.note_unnamed(from, node, reason);
        }
        let throttle = {
            let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(logged.entry(reason).or_default())
        };
        if let Some(suppressed) = throttle.due() {
            let why = why.to_string();
            warn!(
                MESSAGE_ID = journal::PEER_REFUSED,
                %from,
                reason,
                suppressed,
                "refused a connection to the peer port: {}",
                why.escape_debug()
            );
        }
    }

    /// Takes note of a machine of the mesh that the settings here do not name: a line when it comes first, and one
    /// where it is still so when its joining is over.
    fn note_unnamed(&self, from: SocketAddr, node: &NodeName, reason: &'static str) {
        let report = {
            let mut unnamed = self.unnamed.lock().unwrap_or_else(PoisonError::into_inner);
            let (now, report) =
                UnconfiguredPeer::note(unnamed.get(node).copied(), clock::monotonic());
            unnamed.insert(node.clone(), now);
            report
        };
        match report {
            Report::Info => info!(
                MESSAGE_ID = journal::PEER_REFUSED, %from, %node, reason,
                "{node} has a certificate of this mesh and is not configured here: once mesh.nodes names it: cortex mesh reload"
            ),
            Report::Warning => warn!(
                MESSAGE_ID = journal::PEER_REFUSED, %from, %node, reason,
                "refused a connection of {node}, which has a certificate of this mesh and is not configured here: add it to mesh.nodes, and then: cortex mesh reload"
            ),
            Report::Already => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_joins_is_news_and_one_that_is_not_configured_for_a_minute_a_warning() {
        let start = clock::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut known, report) = UnconfiguredPeer::note(None, at(0));
        assert_eq!(report, Report::Info);
        let mut report_at = |seconds| {
            let (now, report) = UnconfiguredPeer::note(Some(known), at(seconds));
            known = now;
            report
        };
        assert_eq!(report_at(59), Report::Already);
        assert_eq!(report_at(61), Report::Warning);
        assert_eq!(report_at(200), Report::Already, "once");
        assert_eq!(report_at(900), Report::Info, "it was away");
    }
}
