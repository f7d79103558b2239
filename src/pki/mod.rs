//! Who belongs to the mesh: this node's credentials, and the judgement of other nodes' certificates.
//! Leaves connections to `edge::peer`, when to load again to `daemon`, and what a peer may do to `service`.
//!
//! ```text
//!   ca.crt ─┐
//!   crl ────┤                       ┌─> server_config, client_config ──> handshake ──> check_peer ──> PeerCertificate
//!   node.crt┼─> Credentials::load ──┤
//!   node.key┘   or why not: Error   ├─> sign ···········> verify_row ··················┘   or why not: Rejected
//!                                   └─> revokes, not_after: what ends a live connection
//! ```
//!
//! A set of credentials is whole and never changes: to take a new key, certificate or revocation list, load
//! another set and put it in the place of the old one, configurations included. What TLS libraries leave
//! open is closed here: a common name that differs from the DNS names, a certificate without usages, a
//! revocation list that is missing or out of date.

mod credentials;
mod error;
mod facts;
mod key;
mod moment;
mod notary;
mod peer;
mod revocation;
mod serial;
mod tls;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub use credentials::Credentials;
pub use error::{Error, Rejected};
pub use peer::PeerCertificate;
pub use serial::Serial;
pub use tls::server_name;

/// Where a node's credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The CA's certificate, PEM.
    pub ca_cert: PathBuf,
    /// This node's certificate, PEM; intermediates may follow it.
    pub node_cert: PathBuf,
    /// The key of it, PEM. Nobody but its owner may read it, unless the service manager has put it into a
    /// directory of credentials.
    pub node_key: PathBuf,
    /// The CA's revocation list, PEM; those of intermediates may follow it.
    pub crl: PathBuf,
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::Missing { what, path: path.to_owned() },
        _ => Error::Unreadable { what, path: path.to_owned(), error },
    })
}
