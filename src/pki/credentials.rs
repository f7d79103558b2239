//! This node's credentials: four files, read and validated as one.
//! Leaves the judgement of peers to `peer`, and the set-up of TLS to `tls`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::model::{MeshId, NodeName};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::{CertifiedKey, Signer};
use rustls::{ClientConfig, ServerConfig};

use super::facts::CertificateFields;
use super::revocation::Revoked;
use super::tls::{self, Trust};
use super::{Error, Files, Rejected, Serial, key, moment, read};

const CA: &str = "CA's certificate";
const NODE: &str = "node's certificate";

/// One consistent, validated set of credentials. It never changes, so it is shared by [`Arc`]; what replaces
/// it is another set.
pub struct Credentials {
    node: NodeName,
    mesh: MeshId,
    key_hash: [u8; 32],
    other_names: Vec<String>,
    not_after: u64,
    ca_not_after: u64,
    revoked: Revoked,
    trust: Trust,
    own: Arc<CertifiedKey>,
    signer: Box<dyn Signer>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("node", &self.node)
            .field("mesh", &self.mesh)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files and checks that they belong together, to this node, and to this time.
    ///
    /// # Errors
    /// [`Error`]: the first thing that is wrong.
    pub fn load(files: &Files, node: &NodeName, now_unix_s: u64) -> Result<Self, Error> {
        let (authority, ca) = authority(&files.ca_cert, now_unix_s)?;
        let chain = certificates(NODE, &files.node_cert)?;
        let leaf = facts(NODE, &chain[0])?;
        let key = key::load(&files.node_key)?;
        let revoked = Revoked::load(&files.crl, &ca, now_unix_s)?;
        let own = certified(chain, key, &files.node_key)?;
        let trust = Trust::new(&authority, &revoked.lists)?;
        let mesh = ca.mesh();

        is_current(NODE, &leaf, now_unix_s)?;
        if revoked.serials.contains(&ca.serial) {
            return Err(Error::Revoked { what: CA });
        }
        chains(&trust, &own.cert, now_unix_s)?;
        leaf.is_for_both_sides().map_err(|_| Error::KeyUsage)?;
        is_named(&leaf, mesh, node)?;
        let signer = signer(&own, &leaf, &files.node_key)?;
        // The configurations are made on demand; what could fail there fails here.
        tls::server_config(&trust, &own, &[])?;
        tls::client_config(&trust, &own, &[])?;
        tls::server_name(node)?;
        Ok(Self {
            node: node.clone(),
            mesh,
            key_hash: leaf.key_hash(),
            other_names: leaf.other_names(node),
            not_after: leaf.not_after,
            ca_not_after: ca.not_after,
            revoked,
            trust,
            own,
            signer,
        })
    }

    /// The mesh: what the CA's certificate says in a URI `cortex://<mesh>`, else the first half of SHA-256
    /// of the CA's key.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// When this node's certificate expires, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// When the CA's certificate expires, in seconds since 1970.
    #[must_use]
    pub fn ca_not_after(&self) -> u64 {
        self.ca_not_after
    }

    /// When the revocation list expires, in seconds since 1970. From then on no handshake succeeds.
    #[must_use]
    pub fn crl_next_update(&self) -> u64 {
        self.revoked.next_update
    }

    /// This node's certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.own.cert[0]
    }

    /// SHA-256 of this node's `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn key_hash(&self) -> [u8; 32] {
        self.key_hash
    }

    /// The DNS names of this node's certificate besides its own name, in lower case.
    #[must_use]
    pub fn other_names(&self) -> &[String] {
        &self.other_names
    }

    /// Signs with this node's key; [`Credentials::verify_row`] verifies it. The message begins with what
    /// it is (`cortexd claim token v1\0`), so that no signature passes for one over something else.
    ///
    /// # Panics
    /// If the library cannot compute a signature with a key with which it could when it was loaded: it is
    /// out of memory.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signer.sign(message).expect("the key has signed before")
    }

    /// For the accepting side: TLS 1.3, a client certificate of this mesh, no resumption. Rustls lets a
    /// client in that offers no application protocol at all: see [`Credentials::check_peer`].
    ///
    /// # Panics
    /// Never: the same was done when the credentials were loaded.
    #[must_use]
    pub fn server_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        tls::server_config(&self.trust, &self.own, alpn).expect("it could be made before")
    }

    /// For the connecting side, whose server name is [`super::server_name`] of the node that is meant.
    ///
    /// # Panics
    /// Never: the same was done when the credentials were loaded.
    #[must_use]
    pub fn client_config(&self, alpn: &[u8]) -> Arc<ClientConfig> {
        tls::client_config(&self.trust, &self.own, alpn).expect("it could be made before")
    }

    /// Whether a certificate is revoked, for connections that outlive a change of the list.
    #[must_use]
    pub fn revokes(&self, serial: &Serial) -> bool {
        self.revoked.serials.contains(serial)
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    pub(super) fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.own.cert[1..]
    }
}

/// The CA's certificate, which must be one, and current.
fn authority(path: &Path, now: u64) -> Result<(CertificateDer<'static>, CertificateFields), Error> {
    let mut found = certificates(CA, path)?;
    let der = found.swap_remove(0);
    let facts = facts(CA, &der)?;
    if !facts.is_authority {
        return Err(Error::NotAnAuthority { path: path.to_owned() });
    }
    is_current(CA, &facts, now)?;
    Ok((der, facts))
}

/// All certificates of a file; at least one.
fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(what, path)?;
    let no_pem = |problem: String| Error::NoPem {
        what,
        path: path.to_owned(),
        expected: "CERTIFICATE",
        problem,
    };
    let found = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| no_pem(e.to_string()))?;
    if found.is_empty() { Err(no_pem("no items found".to_owned())) } else { Ok(found) }
}

fn facts(what: &'static str, der: &CertificateDer<'_>) -> Result<CertificateFields, Error> {
    CertificateFields::read(der).map_err(|problem| Error::Malformed { what, problem })
}

fn is_current(what: &'static str, facts: &CertificateFields, now: u64) -> Result<(), Error> {
    if now < facts.not_before {
        return Err(Error::NotYetValid { what, at: moment::shown(facts.not_before) });
    }
    if now > facts.not_after {
        return Err(Error::Expired { what, at: moment::shown(facts.not_after) });
    }
    Ok(())
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn rustls::sign::SigningKey>,
    path: &Path,
) -> Result<Arc<CertifiedKey>, Error> {
    let own = CertifiedKey::new(chain, key);
    own.keys_match().map_err(|_| Error::KeyMismatch { path: path.to_owned() })?;
    Ok(Arc::new(own))
}

/// Whether peers would accept this certificate, by the very check that they make.
fn chains(trust: &Trust, chain: &[CertificateDer<'_>], now: u64) -> Result<(), Error> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let Err(error) = trust.clients.verify_client_cert(&chain[0], &chain[1..], now) else {
        return Ok(());
    };
    if matches!(error, rustls::Error::InvalidCertRevocationList(_)) {
        return Err(Error::ForeignRevocationList);
    }
    Err(match Rejected::from(&error) {
        Rejected::OtherAuthority => Error::OtherAuthority,
        Rejected::Revoked => Error::Revoked { what: NODE },
        Rejected::KeyUsage => Error::KeyUsage,
        Rejected::StaleRevocationList => Error::ForeignRevocationList,
        Rejected::NoCertificate
        | Rejected::Expired
        | Rejected::NotYetValid
        | Rejected::Name(_)
        | Rejected::OtherMesh(_)
        | Rejected::Malformed(_)
        | Rejected::Signature
        | Rejected::NoProtocol
        | Rejected::Handshake(_) => Error::Tls(error.to_string()),
    })
}

fn is_named(leaf: &CertificateFields, mesh: MeshId, node: &NodeName) -> Result<(), Error> {
    let wrong = || Error::WrongName { node: node.clone(), found: leaf.names() };
    match leaf.node(mesh) {
        Ok(found) if found == *node => Ok(()),
        Err(Rejected::OtherMesh(found)) => {
            Err(Error::OtherMesh { node: node.clone(), mesh, found })
        }
        Ok(_) | Err(_) => Err(wrong()),
    }
}

/// What signs for this node; seen to make signatures that verify.
fn signer(
    own: &CertifiedKey,
    leaf: &CertificateFields,
    path: &Path,
) -> Result<Box<dyn Signer>, Error> {
    const PROBE: &[u8] = b"cortexd key check v1\0";
    let unsupported = |problem: String| Error::UnsupportedKey { path: path.to_owned(), problem };
    let signer = key::signer(own.key.as_ref())
        .ok_or_else(|| unsupported("it makes no signatures".to_owned()))?;
    let signature = signer.sign(PROBE).map_err(|e| unsupported(e.to_string()))?;
    if key::verifies(&leaf.public_key, PROBE, &signature) {
        Ok(signer)
    } else {
        Err(Error::KeyMismatch { path: path.to_owned() })
    }
}
