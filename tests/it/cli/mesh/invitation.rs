//! `mesh invite` and `mesh join`, over loopback, with everything in between that can go wrong.

#![expect(clippy::disallowed_methods, reason = "a test's time limit is measured by the real clock")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::cli::mesh::machine::Machine;
use crate::cli::mesh::tool::{check_exit, stderr};

/// The code with another address in it: where a proxy of the test listens.
fn redirected(code: &str, address: &str) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(code).expect("a code");
    bytes.truncate(33); // version, secret, fingerprint
    bytes.extend(address.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The code with another secret in it.
fn guessed(code: &str) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(code).expect("a code");
    bytes[1] ^= 1;
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Two machines, nothing but commands, one mesh.
///
/// holds M1, M3
#[test]
fn two_empty_machines_become_a_mesh() {
    let (home, office) = (Machine::new(), Machine::new());
    home.good(&["init", "home", "127.0.0.1"]);
    let invitation = home.invite("office");
    let joined = office.good(&["join", &invitation.code, "--port", "4812"]);
    assert_eq!(joined["node"], "office");
    assert_eq!(joined["host"], "127.0.0.1");
    let (status, printed, messages) = invitation.end();
    assert_eq!(status, 0, "{messages}");
    assert!(printed.contains("\"joined\":\"office\""), "{printed}");
    assert!(messages.contains("systemctl reload cortexd"), "{messages}");

    let (at_home, at_office) = (home.credentials("home"), office.credentials("office"));
    assert_eq!(at_home.mesh(), at_office.mesh());
    let now = cortexd::sys::clock::wall_ms() / 1000;
    let seen = at_home.check_peer(&[at_office.certificate().clone()], now).expect("a node");
    assert_eq!(seen.node, *at_office.node());
    let both = [
        ("home".to_owned(), "127.0.0.1".to_owned(), 4712),
        ("office".to_owned(), "127.0.0.1".to_owned(), 4812),
    ];
    assert_eq!(home.nodes(), both);
    assert_eq!(office.nodes(), both);
    assert_eq!(office.settings()["node_name"].as_str(), Some("office"));
    for (machine, name) in [(&home, "home"), (&office, "office")] {
        let accepted = machine.accepted();
        for part in
            [format!("mesh.node_name = {name}\n"), "office at 127.0.0.1 port 4812".to_owned()]
        {
            assert!(accepted.contains(&part), "{part:?} is not in: {accepted}");
        }
    }
    assert!(!office.path("state/ca").exists(), "the CA stays where it is");
    office.refused(&["join", "AAAA"], 2, &["code"]);
}

#[test]
fn a_third_machine_learns_of_both_others() {
    let (home, office, garden) = (Machine::first(), Machine::new(), Machine::new());
    for (machine, name, host) in [(&office, "office", "office.lan"), (&garden, "garden", "fd00::3")]
    {
        let invitation = home.invite(name);
        machine.good(&["join", &invitation.code, "--host", host]);
        assert_eq!(invitation.end().0, 0);
    }
    let names: Vec<_> = garden.nodes().into_iter().map(|(name, host, _)| (name, host)).collect();
    let expected = [("home", "127.0.0.1"), ("office", "office.lan"), ("garden", "fd00::3")];
    assert_eq!(names, expected.map(|(name, host)| (name.to_owned(), host.to_owned())));
}

/// holds M3
#[test]
fn an_invitation_is_refused_where_it_could_not_be_kept() {
    let machine = Machine::new();
    machine.refused(&["invite", "office"], 2, &["where does the new machine reach", "--host"]);
    machine.refused(&["invite", "office", "--host", "h"], 10, &["there is no CA in"]);
    let machine = Machine::first();
    machine.refused(&["invite", "home"], 1, &["has a certificate already"]);
    machine.refused(&["invite", "No"], 2, &["a node's name is made of"]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("listen");
    let taken = taken.local_addr().expect("bound").to_string();
    machine.refused(&["invite", "office", "--listen", &taken], 1, &["cannot listen on"]);
    machine.refused(&["invite", "office", "--minutes", "0"], 2, &["minutes"]);
}

#[test]
fn a_code_does_not_work_twice() {
    let (home, office, garden) = (Machine::first(), Machine::new(), Machine::new());
    let invitation = home.invite("office");
    let code = invitation.code.clone();
    office.good(&["join", &code]);
    assert_eq!(invitation.end().0, 0);
    garden.refused(
        &["join", &code],
        1,
        &["no invitation is open at", "expired or was used", "cortex mesh invite"],
    );
    // Nor with another invitation at the same place.
    let another = home.invite("garden");
    let output = garden.run(&["join", &redirected(&code, &another.address)]);
    check_exit(&output, 4);
    assert!(stderr(&output).contains("the code is wrong"), "{}", stderr(&output));
    assert!(!garden.path("state").exists(), "nothing was made");
    office.refused(&["join", &another.code], 1, &["the node `office` of a mesh already"]);
}

/// Passes a connection on, cuts it after so many bytes from the inviting side, and returns how many came.
fn proxy(to: String, after: u64) -> (String, JoinHandle<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("bound").to_string();
    let passed = thread::spawn(move || {
        let (client, _) = listener.accept().expect("accept");
        let server = TcpStream::connect(to).expect("connect");
        let (mut up_from, mut up_to) =
            (client.try_clone().expect("clone"), server.try_clone().expect("clone"));
        thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
        let passed = std::io::copy(&mut (&server).take(after), &mut &client).unwrap_or(0);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
        passed
    });
    (address, passed)
}

/// How many bytes the inviting side sends to a guest who joins.
fn whole_conversation() -> u64 {
    let (home, office) = (Machine::first(), Machine::new());
    let invitation = home.invite("office");
    let (proxy, passed) = proxy(invitation.address.clone(), u64::MAX);
    office.good(&["join", &redirected(&invitation.code, &proxy)]);
    passed.join().expect("it ends")
}

#[test]
fn a_connection_that_breaks_at_any_point_does_not_burn_the_code() {
    let whole = whole_conversation();
    let (home, office) = (Machine::first(), Machine::new());
    let invitation = home.invite("office");
    // Before anything, in the handshake, and in the middle of the answer.
    for after in [0, 100, whole / 4, whole - 1000, whole - 300] {
        let (proxy, passed) = proxy(invitation.address.clone(), after);
        let output = office.run(&["join", &redirected(&invitation.code, &proxy)]);
        check_exit(&output, 1);
        assert_eq!(passed.join().expect("it ends"), after);
        assert!(!office.path("state").exists(), "nothing is half there after {after} bytes");
        assert!(!office.path("cortex.toml.d").exists(), "after {after} bytes");
    }
    office.good(&["join", &invitation.code]);
    let (status, _, messages) = invitation.end();
    assert_eq!(status, 0, "{messages}");
    office.credentials("office");
    // What was granted on the way and never arrived is revoked, so that one code made one node.
    let listed = home.good(&["certificates"]);
    let listed = listed.as_array().expect("a list");
    assert!(listed.len() > 2, "some were granted on the way");
    let good = listed.iter().filter(|one| one["good"] == true);
    let good: Vec<_> = good.map(|one| one["node"].as_str().expect("text")).collect();
    assert_eq!(good, ["home", "office"]);
}

#[test]
fn ten_wrong_secrets_close_the_invitation() {
    let (home, office) = (Machine::first(), Machine::new());
    let invitation = home.invite("office");
    for _ in 0..10 {
        office.refused(&["join", &guessed(&invitation.code)], 4, &["the code is wrong"]);
    }
    let (status, printed, messages) = invitation.end();
    assert_eq!((status, printed.as_str()), (4, ""), "{messages}");
    assert_eq!(messages.matches("showed a wrong code").count(), 10, "{messages}");
    let listed = home.good(&["certificates"]);
    assert_eq!(listed.as_array().expect("a list").len(), 1, "nothing was issued");
}

/// Takes one connection to the end, and returns what came, decrypted by nobody.
fn listen_in(address_of: &TcpListener) -> Vec<u8> {
    let (mut tcp, _) = address_of.accept().expect("accept");
    tcp.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let mut came = Vec::new();
    let _ = tcp.read_to_end(&mut came);
    came
}

#[test]
fn a_man_in_the_middle_with_another_ca_is_refused_before_the_secret_is_sent() {
    let (home, office, evil) = (Machine::first(), Machine::new(), Machine::first());
    let invitation = home.invite("office");
    // It invites itself, with a CA of its own, at the place where the code leads.
    let mut trap = evil.invite("office");
    let output = office.run(&["join", &redirected(&invitation.code, &trap.address)]);
    check_exit(&output, 1);
    for part in ["is not the inviting machine", "Nothing was sent"] {
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    assert!(!office.path("state").exists());
    let messages = trap.says("the connection broke");
    assert!(!messages.contains("wrong code"), "the trap saw a secret: {messages}");
    office.good(&["join", &invitation.code]);
}

#[test]
fn who_speaks_no_tls_learns_nothing_and_stops_nobody() {
    let (home, office) = (Machine::first(), Machine::new());
    let invitation = home.invite("office");
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(&invitation.address).expect("connect"));
    }
    let mut rude = TcpStream::connect(&invitation.address).expect("connect");
    rude.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
    let begun = Instant::now();
    office.good(&["join", &invitation.code]);
    let (status, _, messages) = invitation.end();
    assert_eq!(status, 0, "{messages}");
    assert!(begun.elapsed() < Duration::from_secs(20), "those who say nothing are waited for");
    assert!(messages.contains("The code is still good"), "{messages}");
    drop(silent);

    // The other way round: who answers and speaks no TLS is sent no secret.
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("bound").to_string();
    let code = redirected(&invitation_code(&home), &address);
    let heard = thread::spawn(move || listen_in(&listener));
    let garden = Machine::new();
    let mut command = garden.mesh(&["join", &code]);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("cortex runs");
    let came = heard.join().expect("it ends");
    assert_ne!(child.wait().expect("it ends").code(), Some(0));
    let secret = URL_SAFE_NO_PAD.decode(&code).expect("a code")[1..17].to_vec();
    assert!(!came.is_empty(), "it began the handshake");
    assert!(!came.windows(secret.len()).any(|window| window == secret));
}

fn invitation_code(machine: &Machine) -> String {
    machine.invite("garden").code.clone()
}
