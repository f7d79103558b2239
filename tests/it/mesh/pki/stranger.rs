//! openssl(1) as the other end: an implementation that shares no code with ours, and its certificates.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cortexd::pki::{Credentials, Files, PeerCertificate, Rejected};
use rustls::{ServerConfig, ServerConnection};

use crate::mesh::pki::lab::{EC, Lab, extensions, name, now, text};

const RPC: &[u8] = b"cortex-rpc/1";

/// What a listener of the mesh makes of one connection.
fn accept(
    config: Arc<ServerConfig>,
    by: &Credentials,
    tcp: TcpStream,
) -> Result<PeerCertificate, Rejected> {
    let mut tcp = tcp;
    tcp.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut tls = ServerConnection::new(config).expect("a server");
    while tls.is_handshaking() {
        if let Err(error) = tls.complete_io(&mut tcp) {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            return Err(
                inner.map_or_else(|| Rejected::Handshake(error.to_string()), Rejected::from)
            );
        }
    }
    if tls.alpn_protocol().is_none() {
        return Err(Rejected::NoProtocol);
    }
    let peer = by.check_peer(tls.peer_certificates().unwrap_or_default(), now())?;
    tls.send_close_notify();
    tls.complete_io(&mut tcp).expect("say goodbye");
    Ok(peer)
}

/// Has `openssl s_client` connect, with these options besides the address.
fn visit(home: &Credentials, options: &[&str]) -> Result<PeerCertificate, Rejected> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("bound").to_string();
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-brief"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let (tcp, _) = listener.accept().expect("it connects");
    let outcome = accept(home.server_config(&[RPC]), home, tcp);
    // It reads its input until the end, or is gone already.
    if let Some(mut input) = client.stdin.take() {
        let _ = input.write_all(b"Q\n");
    }
    client.wait().expect("it ends");
    outcome
}

fn shown(files: &Files) -> [String; 4] {
    ["-cert".to_owned(), text(&files.node_cert), "-key".to_owned(), text(&files.node_key)]
}

fn visit_with(
    home: &Credentials,
    files: &Files,
    options: &[&str],
) -> Result<PeerCertificate, Rejected> {
    let shown = shown(files);
    let mut all: Vec<&str> = shown.iter().map(String::as_str).collect();
    all.extend(options);
    visit(home, &all)
}

const ALPN: [&str; 2] = ["-alpn", "cortex-rpc/1"];

/// holds M5
#[test]
fn certificates_of_this_ca_by_openssl_are_accepted_with_keys_of_every_kind() {
    let mut lab = Lab::new();
    let home = lab.credentials("home");
    for (node, key) in [
        ("p256", &EC[..]),
        ("p384", &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("ed25519", &["ed25519"]),
        ("rsa", &["rsa:2048"]),
    ] {
        let files = lab.by_openssl(node, key, &extensions(node));
        let peer = visit_with(&home, &files, &ALPN).unwrap_or_else(|e| panic!("{node}: {e}"));
        assert_eq!(peer.node, name(node));
    }
}

/// holds M5
#[test]
fn a_stranger_is_refused_for_what_is_wrong_with_it() {
    let (mut lab, mut other) = (Lab::new(), Lab::new());
    let home = lab.credentials("home");
    let (office, foreign) = (lab.node("office"), other.node("office"));
    let client_only =
        lab.by_openssl("garden", &EC, "subjectAltName=DNS:garden\nextendedKeyUsage=clientAuth\n");
    let server_only =
        lab.by_openssl("attic", &EC, "subjectAltName=DNS:attic\nextendedKeyUsage=serverAuth\n");

    assert_eq!(visit_with(&home, &office, &ALPN).expect("a node").node, name("office"));
    assert_eq!(visit(&home, &ALPN), Err(Rejected::NoCertificate));
    assert_eq!(visit_with(&home, &foreign, &ALPN), Err(Rejected::OtherAuthority));
    assert_eq!(visit_with(&home, &client_only, &ALPN), Err(Rejected::KeyUsage));
    assert_eq!(visit_with(&home, &server_only, &ALPN), Err(Rejected::KeyUsage));
    assert_eq!(visit_with(&home, &office, &[]), Err(Rejected::NoProtocol));
    assert_eq!(visit_with(&home, &office, &["-alpn", "http/1.1"]), Err(Rejected::NoProtocol));
    let old = visit_with(&home, &office, &["-alpn", "cortex-rpc/1", "-tls1_2"]);
    assert_eq!(old.expect_err("TLS 1.2").reason(), "handshake");

    lab.authority.revoke("office", now()).expect("revoke");
    let home = lab.credentials("home");
    assert_eq!(visit_with(&home, &office, &ALPN), Err(Rejected::Revoked));
}
