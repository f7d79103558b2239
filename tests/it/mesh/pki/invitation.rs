//! TLS of an invitation: the invited side knows a fingerprint, and takes nobody but the CA that has it.

use std::sync::Arc;

use cortexd::pki::{Authority, Rejected, invitation_name, invited_config};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::mesh::pki::handshake::{Ends, Refused, refused_by_client, shake_with};
use crate::mesh::pki::lab::{Lab, YEAR_S, now};

/// An invited machine meets a server.
fn meet(authority: &Authority, server: Arc<ServerConfig>) -> Result<Ends, Refused> {
    let client = invited_config(authority.short_fingerprint()).expect("a client");
    shake_with(client, server, invitation_name().expect("a name"))
}

/// The server with another chain and key.
fn showing(
    config: &ServerConfig,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Arc<ServerConfig> {
    let key = config.crypto_provider().key_provider.load_private_key(key).expect("a key");
    let mut config = config.clone();
    config.cert_resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
    Arc::new(config)
}

fn ca(authority: &Authority) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("a certificate")
}

#[test]
fn the_ca_with_the_fingerprint_is_taken_and_no_other() {
    let (lab, other) = (Lab::new(), Lab::new());
    let invitation = lab.authority.invitation_config(now()).expect("a server");
    let (client, _) = meet(&lab.authority, invitation).expect("it is the one");
    assert_eq!(client.alpn_protocol(), Some(&b"cortex-join/1"[..]));
    let trap = other.authority.invitation_config(now()).expect("a server");
    assert_eq!(refused_by_client(meet(&lab.authority, trap)), Rejected::OtherAuthority);
}

/// Everybody can have the CA's certificate; showing it proves nothing.
#[test]
fn a_ca_that_is_shown_and_has_not_signed_is_no_proof() {
    let (lab, mut other) = (Lab::new(), Lab::new());
    let trap = other.authority.invitation_config(now()).expect("a server");
    let files = other.node("home");
    let leaf = CertificateDer::from_pem_file(&files.node_cert).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(&files.node_key).expect("a key");
    let trap = showing(&trap, vec![leaf, ca(&lab.authority)], key);
    assert_eq!(refused_by_client(meet(&lab.authority, trap)), Rejected::OtherAuthority);
}

/// A node's key that was stolen must not be enough to take in new ones.
#[test]
fn a_node_of_the_mesh_cannot_pass_for_an_invitation() {
    let mut lab = Lab::new();
    let files = lab.node("home");
    let leaf = CertificateDer::from_pem_file(&files.node_cert).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(&files.node_key).expect("a key");
    let server = lab.authority.invitation_config(now()).expect("a server");
    let trap = showing(&server, vec![leaf, ca(&lab.authority)], key);
    assert_eq!(refused_by_client(meet(&lab.authority, trap)).reason(), "name");
}

#[test]
fn an_expired_ca_invites_nobody() {
    let then = now() - 11 * YEAR_S;
    let lab = Lab::founded(then);
    let server = lab.authority.invitation_config(then).expect("a server");
    assert_eq!(refused_by_client(meet(&lab.authority, server)), Rejected::Expired);
}

/// And nobody takes an invitation's certificate for a node's.
#[test]
fn an_invitation_is_no_node() {
    let mut lab = Lab::new();
    let home = lab.credentials("home");
    let server = lab.authority.invitation_config(now()).expect("a server");
    let (client, _) = meet(&lab.authority, server).expect("it is the one");
    let chain = client.peer_certificates().expect("certificates");
    assert_eq!(home.check_peer(&chain[..1], now()), Err(Rejected::KeyUsage));
}
