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
//! Where the CA is, there is an [`Authority`] too: offline, in a directory that only its owner may enter.
//!
//! A set of credentials is whole and never changes: to take a new key, certificate or revocation list, load
//! another set and put it in the place of the old one, configurations included. What TLS libraries leave
//! open is closed here: a common name that differs from the DNS names, a certificate without usages, a
//! revocation list that is missing or out of date.

mod authority;
mod credentials;
mod error;
mod facts;
pub mod files;
mod index;
mod invitation;
mod key;
mod moment;
mod peer;
mod policy;
mod request;
mod revocation;
mod serial;
mod signer;
mod tls;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub use authority::{Authority, Duplicate, Issued};
pub use credentials::Credentials;
pub use error::{Error, IssueError, Rejected};
pub use index::Record;
pub use invitation::{Fingerprint, invitation_name, invited_config};
pub use moment::shown;
pub use peer::PeerCertificate;
pub use request::{NewKey, PublicKey};
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

impl Files {
    /// The names that our own tools give them in a directory.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        let file = |name: &str| dir.join(name);
        Self {
            ca_cert: file("ca.crt"),
            node_cert: file("node.crt"),
            node_key: file("node.key"),
            crl: file("crl.pem"),
        }
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| {
        let path = path.to_owned();
        if error.kind() == ErrorKind::NotFound {
            Error::Missing { what, path }
        } else {
            Error::Unreadable { what, path, error }
        }
    })
}
