//! Keeps what this machine knows of the others: who is alive, how far away, since when; and shows it.
//! Also looks after certificates that expire or were revoked while their connections are open.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use cortex_core::{
    membership::{Membership, State, Timing, Transition},
    model::NodeName,
};
use tokio::{sync::mpsc, time::sleep};
use tracing::{info, warn};

use super::{Mesh, Shared, clock_skew, live::ClosedConnection, refused::Refused, unix_s};
use crate::{
    pki::Rejected,
    service::mesh::{MeshSnapshot, Peer, SILENT},
    store::{Event, UpkeepCommand},
    sys::clock,
    sys::journal,
};

/// The longest rest. Wall clocks jump, so an expiry is never slept for in one piece.
const REST: Duration = Duration::from_secs(60);

/// The shortest: whatever a deadline that has passed is about, it does not keep the thread busy.
const LEAST_REST: Duration = Duration::from_millis(20);

/// Events that may wait for the store. When its disk stands still, further ones are in the log alone.
const EVENTS: usize = 64;

/// What happens to links.
#[derive(Debug)]
pub(super) enum PeerEvent {
    /// A link is there, and both sides have spoken.
    Up { node: NodeName, certificate_expires: u64 },
    /// A heartbeat.
    Heartbeat(HeartbeatReport),
    /// A link that was up has ended.
    Down { node: NodeName, why: String, end: End },
    /// A machine was not reached, or what was dialled has ended.
    Failed { node: NodeName, why: String },
}

/// What the end of a link means for the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Another link is kept: nothing.
    Replaced,
    /// It has said that its daemon stops.
    Stopped,
    /// Nobody knows.
    Lost,
}

/// What a heartbeat says.
#[derive(Debug)]
pub(super) struct HeartbeatReport {
    pub(super) node: NodeName,
    pub(super) round_trip_us: Option<u64>,
    pub(super) clock_offset_ms: Option<i64>,
    pub(super) sees: Vec<NodeName>,
}

/// Keeps until the daemon ends.
pub(super) async fn run(mut news: mpsc::Receiver<PeerEvent>, shared: &Arc<Shared>) {
    let (events, to_write) = mpsc::channel(EVENTS);
    let keep = async {
        let mut keeper = Keeper::new(shared, events);
        keeper.keep(&mut news).await;
    };
    tokio::join!(keep, write_down(to_write, shared));
}

/// Puts events into the store, one at a time.
async fn write_down(mut events: mpsc::Receiver<Event>, shared: &Shared) {
    while let Some(event) = events.recv().await {
        // A store that takes no events says so itself.
        let _failed = shared.context.service.store().execute(UpkeepCommand::Note(event)).await;
    }
}

struct Keeper<'a> {
    shared: &'a Arc<Shared>,
    members: Membership,
    peers: BTreeMap<NodeName, PeerRecord>,
    events: mpsc::Sender<Event>,
}

/// What is known of one machine besides its state.
#[derive(Debug, Default)]
struct PeerRecord {
    /// Links to it. Two while one takes the place of the other.
    links: u32,
    /// Unix milliseconds of the last change of its state.
    since_ms: u64,
    round_trip_us: Option<u64>,
    clock_offset_ms: Option<i64>,
    clock: clock_skew::Reported,
    certificate_expires: Option<u64>,
    last_error: Option<String>,
    sees: Vec<NodeName>,
    /// When the last heartbeat came.
    last_heartbeat: Option<Instant>,
}

impl<'a> Keeper<'a> {
    fn new(shared: &'a Arc<Shared>, events: mpsc::Sender<Event>) -> Self {
        let members = Membership::new(Timing::default());
        Self { shared, members, peers: BTreeMap::new(), events }
    }

    async fn keep(&mut self, news: &mut mpsc::Receiver<PeerEvent>) {
        let mut mesh = self.shared.mesh.clone();
        self.follow(&Arc::clone(&mesh.borrow_and_update()));
        loop {
            self.show();
            tokio::select! {
                told = news.recv() => match told {
                    Some(told) => self.take(told),
                    None => return,
                },
                changed = mesh.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow(&Arc::clone(&mesh.borrow_and_update()));
                }
                () = sleep(self.rest()) => self.update_members(),
                () = self.shared.live.changed.notified() => {}
                () = self.shared.stopped() => return,
            }
        }
    }

    /// How long nothing changes by itself.
    fn rest(&self) -> Duration {
        let silence = self.members.poll_timeout().map(|at| at.saturating_sub(self.shared.now()));
        // A certificate is good up to the end of its last second.
        let expiry = self.shared.live.next_expiry().map(|at| {
            let end_ms = at.saturating_add(1).saturating_mul(1000);
            Duration::from_millis(end_ms.saturating_sub(clock::wall_ms()))
        });
        silence.into_iter().chain(expiry).fold(REST, Duration::min).max(LEAST_REST)
    }

    fn update_members(&mut self) {
        let changes = self.members.handle_timeout(self.shared.now());
        self.take_note(changes);
        self.review(&self.shared.mesh());
        self.shared.pool.tidy(clock::monotonic());
    }

    /// Takes up another configuration.
    fn follow(&mut self, mesh: &Mesh) {
        self.members.watch(mesh.nodes().keys(), self.shared.now());
        self.peers.retain(|node, _| mesh.nodes().contains_key(node));
        for node in mesh.nodes().keys() {
            let new = || PeerRecord { since_ms: clock::wall_ms(), ..PeerRecord::default() };
            self.peers.entry(node.clone()).or_insert_with(new);
        }
        self.shared.pool.clear();
        self.review(mesh);
    }

    /// Closes what is open with certificates that do not do any more.
    fn review(&self, mesh: &Mesh) {
        for ClosedConnection { node, protocol, why } in self.shared.live.review(mesh, unix_s()) {
            let node = node.as_ref().map(NodeName::as_str);
            let whose = node.unwrap_or("a machine that has not said its name");
            if why == Refused::Certificate(Rejected::Revoked) {
                warn!(
                    MESSAGE_ID = journal::CERTIFICATE_REVOKED,
                    node,
                    ?protocol,
                    "a connection of {whose} was closed: its certificate was revoked"
                );
            } else if why == Refused::Certificate(Rejected::Expired) {
                warn!(
                    MESSAGE_ID = journal::CERTIFICATE_EXPIRED,
                    node,
                    ?protocol,
                    "a connection of {whose} was closed: its certificate has expired"
                );
            } else {
                let why = why.to_string();
                warn!(node, ?protocol, why = %why.escape_debug(), "a connection of {whose} was closed: {}", why.escape_debug());
            }
        }
    }

    fn take(&mut self, news: PeerEvent) {
        match news {
            PeerEvent::Up { node, certificate_expires } => self.up(&node, certificate_expires),
            PeerEvent::Heartbeat(heartbeat) => self.heartbeat(heartbeat),
            PeerEvent::Down { node, why, end } => self.down(&node, why, end),
            PeerEvent::Failed { node, why } => self.failed(&node, why),
        }
    }

    fn up(&mut self, node: &NodeName, certificate_expires: u64) {
        let Some(known) = self.peers.get_mut(node) else { return };
        known.links += 1;
        known.certificate_expires = Some(certificate_expires);
        known.last_error = None;
        if known.links == 1 {
            info!(MESSAGE_ID = journal::PEER_JOINED, %node, "there is a link to {node}");
            self.note("peer_up", format!("{node}: there is a link"));
        }
    }

    fn down(&mut self, node: &NodeName, why: String, end: End) {
        let Some(known) = self.peers.get_mut(node) else { return };
        known.links = known.links.saturating_sub(1);
        if known.links > 0 {
            return;
        }
        known.certificate_expires = None;
        known.round_trip_us = None;
        known.clock_offset_ms = None;
        if end == End::Replaced {
            // The other link reports itself in a moment.
            return;
        }
        warn!(MESSAGE_ID = journal::PEER_LOST, %node, why = %why.escape_debug(), "the link to {node} has ended: {}", why.escape_debug());
        self.note("peer_down", format!("{node}: the link has ended: {why}"));
        if let Some(known) = self.peers.get_mut(node) {
            known.last_error = Some(why);
        }
        if end == End::Stopped {
            self.stopped(node);
        }
    }

    fn stopped(&mut self, node: &NodeName) {
        let Some(Transition { from, to, .. }) = self.members.stop(node, self.shared.now()) else {
            return;
        };
        if let Some(known) = self.peers.get_mut(node) {
            (known.since_ms, known.last_heartbeat) = (clock::wall_ms(), None);
        }
        info!(%node, %from, %to, "{node} is {to}: its daemon was stopped");
        self.note("peer_dead", format!("{node}: {to}, was {from}: its daemon was stopped"));
    }

    fn failed(&mut self, node: &NodeName, why: String) {
        let Some(known) = self.peers.get_mut(node) else { return };
        if known.links > 0 {
            return;
        }
        // The same again and again is worth one line.
        if known.last_error.as_ref() != Some(&why) {
            info!(%node, why = %why.escape_debug(), "{node} is not reached, trying again: {}", why.escape_debug());
            known.last_error = Some(why);
        }
    }

    fn heartbeat(&mut self, heartbeat: HeartbeatReport) {
        let changes = self.members.heartbeat(&heartbeat.node, self.shared.now());
        self.take_note(changes);
        let Some(known) = self.peers.get_mut(&heartbeat.node) else { return };
        if let Some(offset_ms) = heartbeat.clock_offset_ms {
            known.clock.report(&heartbeat.node, offset_ms, self.shared.now());
        }
        known.last_heartbeat = Some(clock::monotonic());
        known.round_trip_us = heartbeat.round_trip_us.or(known.round_trip_us);
        known.clock_offset_ms = heartbeat.clock_offset_ms.or(known.clock_offset_ms);
        known.sees = heartbeat.sees;
    }

    fn take_note(&mut self, changes: Vec<Transition>) {
        for Transition { node, from, to, .. } in changes {
            if let Some(known) = self.peers.get_mut(&node) {
                known.since_ms = clock::wall_ms();
            }
            let kind = match to {
                State::Unseen => continue,
                State::Alive => "peer_alive",
                State::Suspect => "peer_suspect",
                State::Dead => "peer_dead",
            };
            let timing = Timing::default();
            let silent_s = if to == State::Dead { timing.dead } else { timing.suspect }.as_secs();
            match to {
                State::Dead => warn!(
                    MESSAGE_ID = journal::PEER_DEAD, %node, silent_s,
                    "{node} is dead: no heartbeat for {silent_s} s"
                ),
                State::Suspect => {
                    info!(%node, %from, %to, "{node} is suspect: no heartbeat for {silent_s} s");
                }
                State::Alive | State::Unseen => {
                    info!(%node, %from, %to, "{node} is {to}, was {from}");
                }
            }
            self.note(kind, format!("{node}: {to}, was {from}"));
        }
    }

    fn note(&self, kind: &'static str, text: String) {
        let _full = self.events.try_send(Event { uid: None, kind, text });
    }

    /// Lets the service see all of it.
    fn show(&self) {
        let mesh = self.shared.mesh();
        let peers = mesh.nodes().iter().filter_map(|(node, address)| {
            let known = self.peers.get(node)?;
            let (state, _) = self.members.state(node)?;
            let (connected, state) = shown(known, state);
            Some(Peer {
                node: node.clone(),
                host: address.host.clone(),
                port: address.port,
                connected,
                state,
                since_ms: known.since_ms,
                round_trip_us: known.round_trip_us,
                clock_offset_ms: known.clock_offset_ms,
                certificate_expires: known.certificate_expires,
                last_error: known.last_error.clone(),
                sees: known.sees.clone(),
                last_heartbeat: known.last_heartbeat,
                has_duplicates: self.shared.links.has_duplicates(node),
            })
        });
        self.shared.view.show(MeshSnapshot {
            node: mesh.node().clone(),
            mesh: mesh.credentials().mesh(),
            certificate_expires: mesh.credentials().not_after(),
            peers: peers.collect(),
        });
    }
}

/// Whether there is a link, and the state to it. A machine whose heartbeats come again is damped for a while before it counts
/// as alive, and is not dead meanwhile; one that is dead is not connected, though its link may not have ended yet.
fn shown(known: &PeerRecord, state: State) -> (bool, State) {
    let linked = known.links > 0;
    let is_fresh = known.last_heartbeat.is_some_and(|at| at.elapsed() <= SILENT);
    match state {
        State::Dead if linked && is_fresh => (true, State::Suspect),
        State::Dead => (false, State::Dead),
        State::Unseen | State::Alive | State::Suspect => (linked, state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_machine_is_connected_and_dead() {
        let ago = |seconds| clock::monotonic().checked_sub(Duration::from_secs(seconds));
        let known =
            |links, last_heartbeat| PeerRecord { links, last_heartbeat, ..PeerRecord::default() };
        assert_eq!(shown(&known(1, ago(0)), State::Dead), (true, State::Suspect));
        assert_eq!(shown(&known(1, ago(15)), State::Dead), (false, State::Dead));
        assert_eq!(shown(&known(0, ago(0)), State::Dead), (false, State::Dead));
        assert_eq!(shown(&known(1, ago(0)), State::Alive), (true, State::Alive));
        assert_eq!(shown(&known(1, None), State::Unseen), (true, State::Unseen));
    }
}
