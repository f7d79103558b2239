//! The listener on the peer port: is there room for a handshake, and to whom does the connection go after it.
//! Until its certificate was judged, a connection is a stranger's, and everything it may take is bounded here.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, warn};

use super::{
    Shared, drain,
    handshake::{self, Protocol},
    link,
    links::Side,
    reap,
    refused::Refused,
    rpc,
};

/// The pause after a failed accept: the process is out of descriptors, and only time helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Handshakes under way in all. Each takes some 50 KiB and, by the timeout, at most five seconds.
const HANDSHAKES: usize = 64;

/// The same from one address. A machine that starts dials once for its link and a few times for requests.
const HANDSHAKES_PER_ADDRESS: usize = 16;

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
                    match limiter.enter(from.ip()) {
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
    debug!(%from, node = %greeted.peer.node, protocol = ?greeted.protocol, "a machine has connected");
    match greeted.protocol {
        Protocol::Rpc => rpc::serve(greeted, &shared).await,
        Protocol::Link => {
            let _said_by_the_link = link::run(greeted, Side::Them, &shared).await;
        }
    }
}

/// Bounds the handshakes under way: of strangers, in all and from one network.
#[derive(Debug, Default)]
struct HandshakeLimiter {
    /// Locked for a look-up.
    under_way: Mutex<HandshakesInFlight>,
}

#[derive(Debug, Default)]
struct HandshakesInFlight {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The permit of one handshake; given back when dropped.
#[derive(Debug)]
struct HandshakePermit {
    limiter: Arc<HandshakeLimiter>,
    address: IpAddr,
}

impl HandshakeLimiter {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<HandshakePermit> {
        let address = network_of(address);
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let here = under_way.by_address.get(&address).copied().unwrap_or(0);
        if under_way.all >= HANDSHAKES || here >= HANDSHAKES_PER_ADDRESS {
            return None;
        }
        under_way.all += 1;
        under_way.by_address.insert(address, here + 1);
        Some(HandshakePermit { limiter: Arc::clone(self), address })
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        let mut under_way = self.limiter.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.all -= 1;
        match under_way.by_address.get_mut(&self.address) {
            Some(here) if *here > 1 => *here -= 1,
            Some(_) | None => {
                under_way.by_address.remove(&self.address);
            }
        }
    }
}

/// What one party is given whole: an IPv4 address, or the 64 bits of a network of IPv6.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_fill_the_doorway() {
        let limiter = Arc::<HandshakeLimiter>::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let here: Vec<_> = std::iter::from_fn(|| limiter.enter(address("10.0.0.1"))).collect();
        assert_eq!(here.len(), HANDSHAKES_PER_ADDRESS);
        assert!(limiter.enter(address("::ffff:10.0.0.1")).is_none(), "the same, written otherwise");
        assert!(limiter.enter(address("10.0.0.2")).is_some());
        drop(here);
        assert!(limiter.enter(address("10.0.0.1")).is_some(), "the turns were given back");
        assert!(
            limiter.under_way.lock().expect("no panic").by_address.is_empty(),
            "nothing is left"
        );
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_there_is_a_bound_on_all() {
        let limiter = Arc::<HandshakeLimiter>::default();
        let address = |network: u32, host: u32| {
            format!("2001:db8:0:{network:x}::{host:x}").parse().expect("an address")
        };
        let of_one: Vec<_> = (0..99).filter_map(|host| limiter.enter(address(1, host))).collect();
        assert_eq!(of_one.len(), HANDSHAKES_PER_ADDRESS);
        let of_many: Vec<_> =
            (2..999).filter_map(|network| limiter.enter(address(network, 1))).collect();
        assert_eq!(of_one.len() + of_many.len(), HANDSHAKES);
    }
}
