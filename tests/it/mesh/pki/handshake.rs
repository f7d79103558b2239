//! Two ends of TLS in memory, each with credentials: who gets in, and why others do not.

use std::sync::Arc;

use cortexd::pki::{Credentials, Rejected, server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig,
    ServerConnection,
};

use crate::mesh::pki::lab::{EC, Lab, YEAR_S, extensions, name, now};

const RPC: &[u8] = b"cortex-rpc/1";
const SYNC: &[u8] = b"cortex-sync/1";

/// Both ends after the handshake.
pub(crate) type Ends = (ClientConnection, ServerConnection);

/// Which end refused, and why.
#[derive(Debug)]
pub(crate) enum Refused {
    ByClient(rustls::Error),
    ByServer(rustls::Error),
}

fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>, to: &str) -> Result<Ends, Refused> {
    shake_with(client, server, server_name(&name(to)).expect("a server's name"))
}

pub(crate) fn shake_with(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    to: ServerName<'static>,
) -> Result<Ends, Refused> {
    let mut client = ClientConnection::new(client, to).expect("a client");
    let mut server = ServerConnection::new(server).expect("a server");
    loop {
        let mut moved = 0;
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("write");
        }
        moved += bytes.len();
        server.read_tls(&mut bytes.as_slice()).expect("read");
        server.process_new_packets().map_err(Refused::ByServer)?;
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).expect("write");
        }
        moved += bytes.len();
        client.read_tls(&mut bytes.as_slice()).expect("read");
        client.process_new_packets().map_err(Refused::ByClient)?;
        if moved == 0 {
            return Ok((client, server));
        }
    }
}

fn between(client: &Credentials, server: &Credentials) -> Result<Ends, Refused> {
    shake(client.client_config(RPC), server.server_config(&[SYNC, RPC]), server.node().as_str())
}

/// What the server says of a client that it refuses.
fn refused_by_server(outcome: Result<Ends, Refused>) -> Rejected {
    match outcome {
        Err(Refused::ByServer(error)) => Rejected::from(&error),
        Err(Refused::ByClient(error)) => panic!("the client refused: {error}"),
        Ok(_) => panic!("it was let in"),
    }
}

pub(crate) fn refused_by_client(outcome: Result<Ends, Refused>) -> Rejected {
    match outcome {
        Err(Refused::ByClient(error)) => Rejected::from(&error),
        Err(Refused::ByServer(error)) => panic!("the server refused: {error}"),
        Ok(_) => panic!("it was taken"),
    }
}

fn load(files: &cortexd::pki::Files, node: &str, at: u64) -> Credentials {
    Credentials::load(files, &name(node), at).expect("good when it was loaded")
}

/// holds M2, M5
#[test]
fn nodes_of_one_mesh_know_each_other() {
    let mut lab = Lab::new();
    let (home, office) = (lab.credentials("home"), lab.credentials("office"));
    let (client, server) = between(&home, &office).expect("both are of the mesh");
    let seen = |chain: Option<&[CertificateDer<'_>]>, by: &Credentials| {
        by.check_peer(chain.expect("certificates"), now()).expect("a node")
    };
    let at_office = seen(server.peer_certificates(), &office);
    let at_home = seen(client.peer_certificates(), &home);
    assert_eq!(at_office.node, name("home"));
    assert_eq!(at_office.key_hash, home.key_hash());
    assert_eq!(at_home.node, name("office"));
    assert_eq!(server.alpn_protocol(), Some(RPC));
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = server.negotiated_key_exchange_group().expect("a group").name();
    assert_eq!(format!("{group:?}"), "X25519MLKEM768");
}

/// holds M5
#[test]
fn a_certificate_of_another_ca_is_refused_by_either_end() {
    let (mut lab, mut other) = (Lab::new(), Lab::new());
    let (home, stranger) = (lab.credentials("home"), other.credentials("home"));
    // Each end would refuse; the client looks first.
    assert_eq!(refused_by_client(between(&stranger, &home)), Rejected::OtherAuthority);
    let trusting = with_roots(&lab, Some(&stranger));
    let outcome = shake(trusting, home.server_config(&[RPC]), "home");
    assert_eq!(refused_by_server(outcome), Rejected::OtherAuthority);
}

/// holds M5
#[test]
fn an_expired_certificate_is_refused_by_either_end() {
    let then = now() - 3 * YEAR_S;
    let mut lab = Lab::founded(then);
    let files = lab.node_issued("office", then);
    let (home, late) = (lab.credentials("home"), load(&files, "office", then));
    assert_eq!(refused_by_server(between(&late, &home)), Rejected::Expired);
    assert_eq!(refused_by_client(between(&home, &late)), Rejected::Expired);
}

/// holds M5, E1
#[test]
fn a_revoked_certificate_is_refused_by_either_end_once_the_list_is_loaded() {
    let mut lab = Lab::new();
    let (office, before) = (lab.credentials("office"), lab.credentials("home"));
    between(&office, &before).expect("not revoked yet");
    lab.authority.revoke("office", now()).expect("revoke");
    let home = lab.credentials("home");
    assert_eq!(refused_by_server(between(&office, &home)), Rejected::Revoked);
    assert_eq!(refused_by_client(between(&home, &office)), Rejected::Revoked);
    between(&office, &before).expect("the old set is as it was");
    let peer = before.check_peer(&[office.certificate().clone()], now()).expect("as before");
    assert!(home.revokes(&peer.serial), "its live connections end");
    assert!(!before.revokes(&peer.serial));
}

/// holds M5
#[test]
fn who_has_no_certificate_is_refused() {
    let mut lab = Lab::new();
    let home = lab.credentials("home");
    let outcome = shake(with_roots(&lab, None), home.server_config(&[RPC]), "home");
    assert_eq!(refused_by_server(outcome), Rejected::NoCertificate);
    assert_eq!(home.check_peer(&[], now()), Err(Rejected::NoCertificate));
}

/// holds M5
#[test]
fn a_certificate_for_one_side_alone_is_refused() {
    let mut lab = Lab::new();
    let home = lab.credentials("home");
    for usage in ["extendedKeyUsage=clientAuth", "extendedKeyUsage=serverAuth", ""] {
        let names = format!("subjectAltName=DNS:office\n{usage}\n");
        let files = lab.by_openssl("office", &EC, &names);
        let pem = std::fs::read(&files.node_cert).expect("read");
        let leaf = CertificateDer::from_pem_slice(&pem).expect("a certificate");
        assert_eq!(home.check_peer(&[leaf], now()), Err(Rejected::KeyUsage), "{usage:?}");
    }
}

/// holds M5
#[test]
fn a_certificate_whose_names_differ_is_refused() {
    let mut lab = Lab::new();
    let home = lab.credentials("home");
    for (dir, subject, dns) in
        [("a", "/CN=office", "home"), ("b", "/CN=home", "office"), ("c", "/O=x", "home")]
    {
        let files = lab.by_openssl_named(dir, subject, &EC, &extensions(dns));
        let pem = std::fs::read(&files.node_cert).expect("read");
        let leaf = CertificateDer::from_pem_slice(&pem).expect("a certificate");
        let refused = home.check_peer(&[leaf], now()).expect_err("its names differ");
        assert_eq!(refused.reason(), "name", "{refused}");
    }
}

/// holds M5
#[test]
fn a_client_that_offers_no_protocol_gets_none_and_one_that_offers_another_is_refused() {
    let mut lab = Lab::new();
    let (home, office) = (lab.credentials("home"), lab.credentials("office"));
    let mut silent = ClientConfig::clone(&home.client_config(RPC));
    silent.alpn_protocols.clear();
    let server = office.server_config(&[RPC]);
    let (_, accepted) = shake(Arc::new(silent), Arc::clone(&server), "office").expect("let in");
    assert_eq!(accepted.alpn_protocol(), None, "which is why the accepting side must look");
    let outcome = shake(home.client_config(b"http/1.1"), server, "office");
    assert_eq!(refused_by_server(outcome), Rejected::NoProtocol);
}

/// holds M5
#[test]
fn a_server_of_another_name_is_refused_by_the_client() {
    let mut lab = Lab::new();
    let (home, office) = (lab.credentials("home"), lab.credentials("office"));
    let outcome = shake(home.client_config(RPC), office.server_config(&[RPC]), "garden");
    assert_eq!(refused_by_client(outcome).reason(), "name");
}

/// holds E1
#[test]
fn nothing_is_resumed_past_a_revocation_list() {
    let mut lab = Lab::new();
    let (home, office) = (lab.credentials("home"), lab.credentials("office"));
    // A client that would resume if it could.
    let mut eager = ClientConfig::clone(&home.client_config(RPC));
    eager.resumption = rustls::client::Resumption::default();
    let (eager, server) = (Arc::new(eager), office.server_config(&[RPC]));
    for _ in 0..3 {
        let (client, accepted) =
            shake(Arc::clone(&eager), Arc::clone(&server), "office").expect("let in");
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(accepted.handshake_kind(), Some(HandshakeKind::Full));
    }
}

/// A client of this mesh that shows somebody else's certificate, or none.
fn with_roots(lab: &Lab, shown: Option<&Credentials>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(lab.authority.pem().as_bytes()).expect("a certificate");
    roots.add(ca).expect("a CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => builder.with_client_cert_resolver(Arc::clone(
            &shown.client_config(RPC).client_auth_cert_resolver,
        )),
    };
    config.alpn_protocols = vec![RPC.to_vec()];
    Arc::new(config)
}
