//! From a TCP connection to a machine whose certificate was judged and whose protocol is agreed on.
//! What is said then is `rpc`'s and `link`'s.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use cortex_core::{model::NodeName, wire::link};
use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{Mesh, Shared, live::LiveEntry, mesh::Address, refused::Refused, unix_s};
use crate::pki::{self, PeerCertificate, Rejected};

/// From the first byte to the last of a handshake. It is two round trips and some milliseconds of work.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long one address may take to accept, and a name to be looked up.
const CONNECT: Duration = Duration::from_secs(5);

/// Addresses of one machine that are tried.
const ADDRESSES: usize = 16;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Requests, as on the Unix socket.
    Rpc,
    /// The link between two machines.
    Link,
}

/// What the listener offers, the first that a client names too is taken.
pub(super) const ALL_PROTOCOLS: [&[u8]; 2] = [link::ALPN, RPC_ALPN];

const RPC_ALPN: &[u8] = b"cortex-rpc/1";

impl Protocol {
    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Rpc => RPC_ALPN,
            Self::Link => link::ALPN,
        }
    }

    fn agreed(alpn: Option<&[u8]>) -> Option<Self> {
        [Self::Rpc, Self::Link].into_iter().find(|protocol| alpn == Some(protocol.alpn()))
    }
}

/// A connection to a machine that is known to be the one it says.
#[derive(Debug)]
pub(super) struct AuthenticatedConnection {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) from: SocketAddr,
    pub(super) peer: PeerCertificate,
    pub(super) protocol: Protocol,
    /// Tells when it is not to be trusted any more.
    pub(super) place: LiveEntry,
}

/// Why a machine was not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{0} is not found: {1}")]
    Lookup(Box<str>, String),
    #[error("{0}: {1}")]
    Connect(SocketAddr, String),
    #[error("{0}: {1}")]
    Refused(SocketAddr, Refused),
}

/// Greets a machine that has connected.
pub(super) async fn accept(
    tcp: TcpStream,
    from: SocketAddr,
    shared: &Shared,
) -> Result<AuthenticatedConnection, Refused> {
    let acceptor = TlsAcceptor::from(shared.mesh().server());
    let accepted = timeout(HANDSHAKE, acceptor.accept(tcp)).await.map_err(|_| Refused::Timeout)?;
    let stream = TlsStream::Server(accepted.map_err(|error| why(&error))?);
    admit(stream, from, shared)
}

/// Connects to a machine at any of its addresses, and makes sure that it is the one that is meant.
pub(super) async fn dial(
    node: &NodeName,
    address: &Address,
    protocol: Protocol,
    shared: &Shared,
) -> Result<AuthenticatedConnection, DialError> {
    let Address { host, port } = address;
    let not_found = |why: String| DialError::Lookup(host.clone(), why);
    let found = timeout(CONNECT, lookup_host((&**host, *port))).await;
    let found = found.map_err(|_| not_found("no answer in time".into()))?;
    let found = found.map_err(|error| not_found(error.to_string()))?;
    let mut failed = not_found("the name has no address".into());
    for at in found.take(ADDRESSES) {
        shared.peer_addresses.note(node, at.ip());
        match dial_one(node, at, protocol, shared).await {
            Ok(greeted) => return Ok(greeted),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn dial_one(
    node: &NodeName,
    at: SocketAddr,
    protocol: Protocol,
    shared: &Shared,
) -> Result<AuthenticatedConnection, DialError> {
    let lost = |error: io::Error| DialError::Connect(at, error.to_string());
    let refused = |why: Refused| DialError::Refused(at, why);
    let tcp = timeout(CONNECT, TcpStream::connect(at)).await;
    let tcp = tcp.map_err(|_| lost(io::ErrorKind::TimedOut.into()))?.map_err(lost)?;
    let _only_slower = tcp.set_nodelay(true);
    let connector = TlsConnector::from(shared.mesh().client(protocol));
    let name = pki::server_name(node)
        .map_err(|error| refused(Refused::Certificate(Rejected::Name(error.to_string()))))?;
    let connected = timeout(HANDSHAKE, connector.connect(name, tcp)).await;
    let connected = connected.map_err(|_| refused(Refused::Timeout))?;
    let stream = TlsStream::Client(connected.map_err(|error| refused(why(&error)))?);
    let greeted = admit(stream, at, shared).map_err(refused)?;
    if greeted.peer.node != *node {
        return Err(refused(Refused::WrongNode(node.clone(), greeted.peer.node)));
    }
    if greeted.protocol != protocol {
        return Err(refused(Rejected::NoProtocol.into()));
    }
    Ok(greeted)
}

/// Judges the other side of a handshake that TLS is content with.
fn admit(
    stream: TlsStream<TcpStream>,
    from: SocketAddr,
    shared: &Shared,
) -> Result<AuthenticatedConnection, Refused> {
    let (_, session) = stream.get_ref();
    let protocol = Protocol::agreed(session.alpn_protocol()).ok_or(Rejected::NoProtocol)?;
    let chain: Arc<[CertificateDer<'static>]> = session.peer_certificates().unwrap_or(&[]).into();
    // Entered first and judged then: a reload in between finds it among the live ones.
    let place = shared.live.enter(Arc::clone(&chain), protocol);
    let mesh: Arc<Mesh> = shared.mesh();
    let peer = mesh.judge(&chain, unix_s())?;
    shared.live.know(&place, &peer);
    Ok(AuthenticatedConnection { stream, from, peer, protocol, place })
}

/// What a failed handshake says: the cause that TLS names, or that the other side has broken off.
fn why(error: &io::Error) -> Refused {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(cause) => Refused::Certificate(Rejected::from(cause)),
        None => Refused::BrokenOff(error.to_string()),
    }
}
