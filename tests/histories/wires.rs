//! The network between the nodes, which belongs to the history: every connection passes a proxy that can hold back
//! what goes in one direction, slow it down, delay it, refuse connections, or leave one end open without the other.
//!
//! What is held back is not lost: it arrives later, as TCP sends again what was not confirmed.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::history::NodeId;

/// How often a proxy that waits for bytes looks whether anything has changed.
const LOOK: Duration = Duration::from_millis(25);

/// What happens to bytes from one node to another.
#[derive(Debug, Default)]
struct ScanStep {
    is_held: AtomicBool,
    delay_ms: AtomicU64,
    /// Bytes per second; 0 for no bound.
    rate: AtomicU64,
}

/// A connection that passes the proxy.
#[derive(Debug)]
struct Connection {
    caller: TcpStream,
    called: TcpStream,
    /// The caller's end is gone, and the other is not told.
    is_torn: AtomicBool,
}

impl Connection {
    fn close(&self) {
        for end in [&self.caller, &self.called] {
            let _gone_already = end.shutdown(Shutdown::Both);
        }
    }
}

/// A connection with the nodes that it connects, the caller first.
type Open = ((NodeId, NodeId), Arc<Connection>);

#[derive(Debug, Default)]
struct Shared {
    flows: BTreeMap<(NodeId, NodeId), ScanStep>,
    refused: BTreeMap<(NodeId, NodeId), AtomicBool>,
    open: Mutex<Vec<Open>>,
    ended: AtomicBool,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All proxies of a history. They end when it is dropped.
#[derive(Debug)]
pub(crate) struct Wires {
    shared: Arc<Shared>,
    /// From, to: the port by which the first reaches the second.
    ports: BTreeMap<(NodeId, NodeId), u16>,
}

impl Wires {
    /// Proxies for these pairs of nodes, which listen on these ports.
    pub(crate) fn new(ports: &[u16], links: &[(NodeId, NodeId)]) -> Self {
        let both: Vec<_> = links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
        let flows = both.iter().map(|pair| (*pair, ScanStep::default())).collect();
        let refused = both.iter().map(|pair| (*pair, AtomicBool::default())).collect();
        let shared = Arc::new(Shared { flows, refused, ..Shared::default() });
        let listen = |pair: &(NodeId, NodeId)| {
            let port = listen(*pair, Arc::clone(&shared), ports[pair.1]);
            (*pair, port)
        };
        let ports = both.iter().map(listen).collect();
        Self { shared, ports }
    }

    /// The port by which a node reaches another.
    pub(crate) fn port(&self, from: NodeId, to: NodeId) -> u16 {
        self.ports[&(from, to)]
    }

    pub(crate) fn hold(&self, from: NodeId, to: NodeId, is_held: bool) {
        if let Some(flow) = self.shared.flows.get(&(from, to)) {
            flow.is_held.store(is_held, Relaxed);
        }
    }

    pub(crate) fn delay(&self, from: NodeId, to: NodeId, ms: u64) {
        if let Some(flow) = self.shared.flows.get(&(from, to)) {
            flow.delay_ms.store(ms, Relaxed);
        }
    }

    pub(crate) fn slow(&self, from: NodeId, to: NodeId, bytes_per_second: u64) {
        if let Some(flow) = self.shared.flows.get(&(from, to)) {
            flow.rate.store(bytes_per_second, Relaxed);
        }
    }

    /// Closes the connections between two nodes and refuses others, or lets them in again.
    pub(crate) fn refuse(&self, a: NodeId, b: NodeId, is_refused: bool) {
        // While nothing is let in: what is being let in is closed here, or finds that it is refused.
        let open = self.shared.open();
        let both = [(a, b), (b, a)];
        for refused in both.iter().filter_map(|pair| self.shared.refused.get(pair)) {
            refused.store(is_refused, Relaxed);
        }
        if is_refused {
            open.iter().filter(|(pair, _)| both.contains(pair)).for_each(|(_, one)| one.close());
        }
    }

    /// Ends the caller's side of every connection between two nodes; the other sides hear nothing of it.
    pub(crate) fn tear(&self, a: NodeId, b: NodeId) {
        for pair in [(a, b), (b, a)] {
            self.each(pair, |connection| {
                connection.is_torn.store(true, Relaxed);
                let _gone_already = connection.caller.shutdown(Shutdown::Both);
            });
        }
    }

    /// Everything passes again; what was torn is closed.
    pub(crate) fn heal(&self) {
        for flow in self.shared.flows.values() {
            flow.is_held.store(false, Relaxed);
            flow.delay_ms.store(0, Relaxed);
            flow.rate.store(0, Relaxed);
        }
        self.shared.refused.values().for_each(|refused| refused.store(false, Relaxed));
        self.heal_torn();
    }

    /// Closes what was torn: the other ends notice at last.
    pub(crate) fn heal_torn(&self) {
        let torn = |connection: &Connection| connection.is_torn.load(Relaxed);
        for (_, connection) in self.shared.open().iter().filter(|(_, one)| torn(one)) {
            connection.close();
        }
    }

    fn each(&self, pair: (NodeId, NodeId), act: impl Fn(&Connection)) {
        self.shared.open().iter().filter(|(of, _)| *of == pair).for_each(|(_, one)| act(one));
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        self.shared.ended.store(true, Relaxed);
        self.shared.open().iter().for_each(|(_, connection)| connection.close());
        for port in self.ports.values() {
            // Wakes the listener up, which then ends.
            let _gone_already = TcpStream::connect(("127.0.0.1", *port));
        }
    }
}

fn listen(pair: (NodeId, NodeId), shared: Arc<Shared>, target: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("it is bound").port();
    spawn(move || {
        for caller in listener.incoming().flatten() {
            if shared.ended.load(Relaxed) {
                return;
            }
            if shared.refused[&pair].load(Relaxed) {
                continue; // dropped, which closes it, and nothing is heard of it at the other end
            }
            let Ok(called) = TcpStream::connect(("127.0.0.1", target)) else {
                continue;
            };
            connect(pair, &shared, caller, called);
        }
    });
    port
}

fn connect(pair: (NodeId, NodeId), shared: &Arc<Shared>, caller: TcpStream, called: TcpStream) {
    for end in [&caller, &called] {
        let _only_slower = end.set_nodelay(true);
        end.set_read_timeout(Some(LOOK)).expect("set a timeout");
    }
    let connection = Arc::new(Connection { caller, called, is_torn: AtomicBool::new(false) });
    {
        let mut open = shared.open();
        if shared.refused[&pair].load(Relaxed) {
            return connection.close();
        }
        open.push((pair, Arc::clone(&connection)));
    }
    for forth in [true, false] {
        let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
        spawn(move || {
            pass(pair, forth, &shared, &connection);
            // The end of a torn connection stays open until the network is whole again.
            if !connection.is_torn.load(Relaxed) {
                connection.close();
            }
            shared.open().retain(|(_, other)| {
                !Arc::ptr_eq(other, &connection) || connection.is_torn.load(Relaxed)
            });
        });
    }
}

/// Passes bytes on in one direction until an end is closed.
fn pass((a, b): (NodeId, NodeId), forth: bool, shared: &Shared, connection: &Connection) {
    let flow = &shared.flows[&if forth { (a, b) } else { (b, a) }];
    let Connection { caller, called, .. } = connection;
    let (mut from, mut to) = if forth { (caller, called) } else { (called, caller) };
    let mut bytes = vec![0; 16 << 10];
    let wait_while_held = || {
        while flow.is_held.load(Relaxed) && !shared.ended.load(Relaxed) {
            sleep(LOOK);
        }
    };
    while !shared.ended.load(Relaxed) {
        wait_while_held();
        let count = match from.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => return,
        };
        sleep(Duration::from_millis(flow.delay_ms.load(Relaxed)));
        wait_while_held();
        if let Some(ms) = (count as u64 * 1000).checked_div(flow.rate.load(Relaxed)) {
            sleep(Duration::from_millis(ms));
        }
        let is_lost = connection.is_torn.load(Relaxed) && !forth;
        if !is_lost && to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}
