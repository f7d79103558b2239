//! Strangers at the peer port, played by openssl-s_client(1): each is refused, counted and logged.
//! What machines of the mesh may do wrong is in `hostile`.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use tokio::net::TcpSocket;

use crate::mesh::peers::daemon::{Daemon, wait_until};
use crate::mesh::peers::mesh::{
    Authority, BOTH_USAGES, Tls, free_port, ping_with_openssl, refused,
};

const ALPN: [&str; 3] = ["-tls1_3", "-alpn", "cortex-rpc/1"];

/// A daemon `home` that knows `office`, and certificates that do not do.
fn door() -> (Authority, Authority, Daemon, u16) {
    let (ca, other) = (Authority::new(), Authority::new());
    for name in ["home", "office", "cabin"] {
        ca.issue(name);
    }
    other.issue("office");
    ca.issue_as(
        "expired",
        "office",
        BOTH_USAGES,
        &["-startdate", "200101000000Z", "-enddate", "210101000000Z"],
    );
    ca.issue_as("revoked", "office", BOTH_USAGES, &[]);
    ca.revoke("revoked");
    ca.issue_as("server", "office", "serverAuth", &[]);
    ca.issue_as("client", "office", "clientAuth", &[]);
    ca.issue_as("signer", "office", "codeSigning", &[]);
    ca.issue_for("both", "office", &["office", "office.lan", "HOME"], BOTH_USAGES, &[]);
    ca.issue_for("host", "office", &["office", "office.lan"], BOTH_USAGES, &[]);
    let port = free_port();
    let home = Daemon::with_config(&ca.settings("home", port, &[("office", free_port())]));
    (ca, other, home, port)
}

/// holds M5
#[test]
fn only_certificates_of_this_mesh_are_let_in_and_each_refusal_is_counted() {
    let (ca, other, home, port) = door();
    let directory = ca.path("");
    let pings = |with: &[&str], certificate: Option<(&Authority, &str)>| {
        let mut arguments = with.to_vec();
        let files = certificate.map(|(ca, name)| {
            [format!("{name}.crt"), format!("{name}.key")]
                .map(|file| ca.path(&file).display().to_string())
        });
        if let Some([certificate, key]) = &files {
            arguments.extend(["-cert", certificate, "-key", key]);
        }
        ping_with_openssl(port, &directory, &arguments)
    };
    assert!(pings(&ALPN, Some((&ca, "office"))), "who may is let in");
    assert!(pings(&ALPN, Some((&ca, "host"))), "and may be reached at another name");
    assert!(
        pings(&["-tls1_3", "-alpn", "h2,cortex-rpc/1"], Some((&ca, "office"))),
        "and may name more"
    );

    let no_alpn = ["-tls1_3"];
    let other_alpn = ["-tls1_3", "-alpn", "h2"];
    let old = ["-tls1_2", "-alpn", "cortex-rpc/1"];
    for (with, certificate, reason) in [
        (&ALPN[..], None, "no_certificate"),
        (&ALPN, Some((&other, "office")), "other_authority"),
        (&ALPN, Some((&ca, "expired")), "expired"),
        (&ALPN, Some((&ca, "revoked")), "revoked"),
        (&ALPN, Some((&ca, "server")), "key_usage"),
        (&ALPN, Some((&ca, "client")), "key_usage"),
        (&ALPN, Some((&ca, "signer")), "key_usage"),
        (&ALPN, Some((&ca, "cabin")), "not_configured"),
        (&ALPN, Some((&ca, "home")), "own_name"),
        (&ALPN, Some((&ca, "both")), "names_another"),
        (&no_alpn, Some((&ca, "office")), "no_protocol"),
        (&other_alpn, Some((&ca, "office")), "no_protocol"),
        (&old, Some((&ca, "office")), "handshake"),
    ] {
        let before = refused(&home, reason);
        assert!(!pings(with, certificate), "{reason}: it was let in");
        wait_until(reason, || refused(&home, reason) > before);
        assert!(home.log().contains(&format!("reason=\"{reason}\"")), "{reason}: {}", home.log());
    }
    let lines = home.log().matches("reason=\"key_usage\"").count();
    assert_eq!(lines, 1, "one line per reason and interval");
    assert!(pings(&ALPN, Some((&ca, "office"))), "who may is let in all the same");
}

/// A session that was resumed would be let in without a look at the list of revoked certificates.
/// holds M5, E1
#[test]
fn there_is_no_session_to_resume() {
    let (ca, _, _home, port) = door();
    let session = ca.path("session").display().to_string();
    let arguments =
        [&ALPN[..], &["-cert", "office.crt", "-key", "office.key", "-sess_out", &session]].concat();
    assert!(ping_with_openssl(port, &ca.path(""), &arguments));
    assert!(!ca.path("session").exists(), "the daemon has handed out a ticket");
}

/// holds M5
#[test]
fn who_says_nothing_or_no_tls_is_sent_away() {
    let (_ca, _, home, port) = door();
    let silent = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let mut web = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    web.write_all(b"GET / HTTP/1.1\r\nHost: home\r\n\r\n").expect("sent");
    wait_until("what is no TLS is refused", || refused(&home, "handshake") == 1);
    wait_until("who says nothing is sent away", || refused(&home, "timeout") == 1);
    drop(silent);
}

/// holds M5
#[test]
fn strangers_who_only_wait_leave_no_more_than_their_share_to_one_address() {
    let (_ca, _, home, port) = door();
    let crowd: Vec<_> =
        (0..40).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("connect")).collect();
    wait_until("the surplus is sent away at once", || refused(&home, "too_many_handshakes") >= 20);
    drop(crowd);
}

/// holds M5: however many addresses strangers have, machines of the mesh find a place.
#[test]
fn strangers_at_many_addresses_do_not_keep_a_machine_of_the_mesh_out() {
    let (ca, _, home, port) = door();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("an event loop");
    let mut crowd = Vec::new();
    for round in 0..3 {
        for host in 2..10_u8 {
            for _ in 0..16 {
                let socket = TcpSocket::new_v4().expect("a socket");
                socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).expect("bind");
                let to = SocketAddr::from(([127, 0, 0, 1], port));
                crowd.push(runtime.block_on(socket.connect(to)).expect("connect"));
            }
        }
        let office = Tls::rpc(&ca.credentials("office", "office"), "home", port);
        assert_eq!({ office }.call("ping", &[], None), Ok("pong".into()), "{round}");
    }
    wait_until("they are refused", || refused(&home, "too_many_handshakes") >= 64);
}
