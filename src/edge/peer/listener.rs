//! The listener on the peer port: is there room for a handshake, and to whom does the connection go after it.
//! Until its certificate was judged, a connection is a stranger's, and everything it may take is bounded here.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, warn};

use super::{
    Shared, drain,
    handshake::{self, Protocol},
    handshake_limiter::{HandshakeLimiter, HandshakePermit},
    link,
    links::Side,
    reap,
    refused::Refused,
    rpc,
};

/// The pause after a failed accept: the process is out of descriptors, and only time helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the daemon ends.
pub(super) async fn run(listener: &TcpListener, shared: &Arc<Shared>) {
    let limiter = Arc::<HandshakeLimiter>::default();
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, from)) => {
                    failing = false;
                    let is_expected = shared.peer_addresses.contains(from.ip());
                    match limiter.enter(from.ip(), is_expected) {
                        Some(turn) => {
                            connections.spawn(receive(tcp, from, turn, Arc::clone(shared)));
                        }
                        None => shared.refusals.note(from, &Refused::TooManyHandshakes),
                    }
                }
                Err(error) => {
                    if !failing {
                        warn!(%error, "cannot accept a connection on the peer port, trying again: {error}");
                    }
                    failing = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            ended = connections.join_next(), if !connections.is_empty() => reap(ended),
            () = shared.stopped() => break,
        }
    }
    drain(connections).await;
}

async fn receive(tcp: TcpStream, from: SocketAddr, turn: HandshakePermit, shared: Arc<Shared>) {
    let _only_slower = tcp.set_nodelay(true);
    let greeted = tokio::select! {
        greeted = handshake::accept(tcp, from, &shared) => greeted,
        () = shared.stopped() => return,
    };
    drop(turn);
    let greeted = match greeted {
        Ok(greeted) => greeted,
        Err(why) => return shared.refusals.note(from, &why),
    };
    shared.peer_addresses.note(&greeted.peer.node, from.ip());
    debug!(%from, node = %greeted.peer.node, protocol = ?greeted.protocol, "a machine has connected");
    match greeted.protocol {
        Protocol::Rpc => rpc::serve(greeted, &shared).await,
        Protocol::Link => {
            let _said_by_the_link = link::run(greeted, Side::Them, &shared).await;
        }
    }
}
