//! How many handshakes may be under way: in all, from one address, and with strangers.
//! Until its certificate was judged, a connection is a stranger's. Accepting it is the listener's.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use cortex_core::model::NodeName;

/// Handshakes under way in all. Each takes some 50 KiB and, by the timeout, at most five seconds.
const HANDSHAKES: usize = 64;

/// Of these, the places that only addresses of machines of the mesh may take.
const RESERVED: usize = 32;

/// Handshakes under way from one address. A machine that starts dials once for its link and a few times for requests.
const HANDSHAKES_PER_ADDRESS: usize = 16;

/// Bounds the handshakes under way: of strangers, in all and from one network.
#[derive(Debug, Default)]
pub(super) struct HandshakeLimiter {
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
pub(super) struct HandshakePermit {
    limiter: Arc<HandshakeLimiter>,
    address: IpAddr,
}

impl HandshakeLimiter {
    /// A permit for a handshake with that address, if there is room. Some is kept for those at which machines of the
    /// mesh are expected: else as many strangers as there are places would keep them out.
    pub(super) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        is_expected: bool,
    ) -> Option<HandshakePermit> {
        let address = network_of(address);
        let most = if is_expected { HANDSHAKES } else { HANDSHAKES - RESERVED };
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let here = under_way.by_address.get(&address).copied().unwrap_or(0);
        if under_way.all >= most || here >= HANDSHAKES_PER_ADDRESS {
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

/// Where machines of the mesh are expected to come from: the addresses that their configured names have, and those
/// from which they have shown their certificates.
#[derive(Debug, Default)]
pub(super) struct PeerAddresses(Mutex<BTreeMap<NodeName, VecDeque<IpAddr>>>);

impl PeerAddresses {
    /// Addresses that are kept of one machine, the latest: one with more of them is at one of these.
    const MOST: usize = 8;

    /// Takes note of an address of a machine.
    pub(super) fn note(&self, node: &NodeName, address: IpAddr) {
        let address = network_of(address);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_node = all.entry(node.clone()).or_default();
        of_node.retain(|known| *known != address);
        of_node.push_back(address);
        if of_node.len() > Self::MOST {
            of_node.pop_front();
        }
    }

    /// Forgets the machines that are not among these.
    pub(super) fn retain(&self, nodes: &[NodeName]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|node, _| nodes.contains(node));
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let address = network_of(address);
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().any(|of_node| of_node.contains(&address))
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
    fn one_address_cannot_take_all_places() {
        let limiter = Arc::<HandshakeLimiter>::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let here: Vec<_> =
            std::iter::from_fn(|| limiter.enter(address("10.0.0.1"), true)).collect();
        assert_eq!(here.len(), HANDSHAKES_PER_ADDRESS);
        assert!(
            limiter.enter(address("::ffff:10.0.0.1"), true).is_none(),
            "the same, written otherwise"
        );
        assert!(limiter.enter(address("10.0.0.2"), true).is_some());
        drop(here);
        assert!(limiter.enter(address("10.0.0.1"), true).is_some(), "the turns were given back");
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
        let of_one: Vec<_> =
            (0..99).filter_map(|host| limiter.enter(address(1, host), false)).collect();
        assert_eq!(of_one.len(), HANDSHAKES_PER_ADDRESS);
        let of_many: Vec<_> =
            (2..999).filter_map(|network| limiter.enter(address(network, 1), false)).collect();
        assert_eq!(of_one.len() + of_many.len(), HANDSHAKES - RESERVED);
        let expected: Vec<_> =
            (2..999).filter_map(|network| limiter.enter(address(network, 1), true)).collect();
        assert_eq!(expected.len(), RESERVED, "places are kept for machines of the mesh");
    }

    #[test]
    fn machines_are_expected_where_they_were_found_last_as_long_as_they_are_configured() {
        let node = |name| NodeName::parse(name).expect("a name");
        let addresses = PeerAddresses::default();
        let address = |host: u8| IpAddr::from([10, 0, 0, host]);
        (0..20).for_each(|host| addresses.note(&node("home"), address(host)));
        addresses.note(&node("office"), address(99));
        assert!(!addresses.contains(address(0)) && addresses.contains(address(19)));
        assert!(addresses.contains("::ffff:10.0.0.99".parse().expect("an address")));
        addresses.retain(&[node("home")]);
        assert!(addresses.contains(address(12)) && !addresses.contains(address(99)));
    }
}
