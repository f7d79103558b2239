//! The mesh: this node's credentials are good for a while, the other nodes are reached, and their clocks agree.
//! What is wrong with the settings themselves is left to `configuration`.
//!
//! The daemon reports the state of the others; what is in the files is judged as the daemon does it, where this user may
//! read them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cortex_client::{
    Error as CallError,
    api::{self, MeshReport, PeerNode},
};
use cortex_core::model::NodeName;

use super::super::context::Context;
use super::super::mesh;
use super::DaemonScope;
use super::finding::Finding;
use crate::pki::{Credentials, Error, shown};
use crate::remedy::{self, NEW_LIST, renewal};
use crate::sys::clock;

const MESH: &str = "mesh";
const NAME: &str = "mesh-name";
const CERTIFICATE: &str = "mesh-cert";
const CA: &str = "mesh-ca";
const LIST: &str = "mesh-crl";
const PEER: &str = "mesh-peer";
/// Begins the refusal of a daemon whose mesh is down.
const DOWN: &str = "mesh_down: ";

const SECOND: &str = "mesh-second";
const PEER_CERTIFICATE: &str = "mesh-peer-cert";
const CLOCK: &str = "mesh-clock";
const DIRECTORY: &str = "mesh-directory";

/// Enough to renew a certificate in a week in which nobody looks, and in the next one.
const SOON: u64 = 30 * 24 * 60 * 60;

/// Two clocks that somebody keeps differ by less than a second; of writes within more than that, the wrong one
/// may win.
const OFFSET_WORTH_A_WARNING_MS: u64 = 2_000;

/// From here on tokens expire before they are used, and the order of changes is not what people remember.
const OFFSET_TOO_LARGE_MS: u64 = 60_000;

#[derive(Debug)]
pub(super) struct MeshFacts {
    whose: DaemonScope,
    /// Seconds since 1970.
    now: u64,
    configured: Option<Node>,
    running: Running,
}

/// The node that the settings name.
#[derive(Debug)]
struct Node {
    configuration: PathBuf,
    name: String,
    credentials: Result<Expiries, Error>,
}

/// When what becomes out of date, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expiries {
    certificate: u64,
    ca: u64,
    list: u64,
}

/// What the daemon says.
#[derive(Debug)]
enum Running {
    NoAnswer,
    Alone,
    /// A mesh is configured and cannot be joined; why.
    Down(String),
    InMesh(MeshReport),
}

pub(super) fn gather(
    context: &Context,
    whose: DaemonScope,
    configuration: Option<&Path>,
) -> MeshFacts {
    let now = clock::wall_ms() / 1000;
    let configured = configuration.and_then(|file| read(file, now));
    MeshFacts { whose, now, configured, running: ask(context) }
}

/// What cannot be read is a matter for `configuration`.
fn read(configuration: &Path, now: u64) -> Option<Node> {
    let (name, files) = mesh::configured(configuration).ok().flatten()?;
    let node = NodeName::parse(&name).ok()?;
    let credentials = Credentials::load(&files, &node, now).map(|credentials| Expiries {
        certificate: credentials.not_after(),
        ca: credentials.ca_not_after(),
        list: credentials.crl_next_update(),
    });
    Some(Node { configuration: configuration.to_owned(), name, credentials })
}

fn ask(context: &Context) -> Running {
    let Ok(mut client) = context.connect() else {
        return Running::NoAnswer;
    };
    match client.call(&api::MeshStatus {}) {
        Ok(status) => Running::InMesh(status),
        Err(CallError::Refused(why)) if why.starts_with(DOWN) => {
            Running::Down(why.trim_start_matches(DOWN).to_owned())
        }
        // It is the only other refusal; a daemon that does not know the method is in no mesh either.
        Err(CallError::Refused(_)) => Running::Alone,
        Err(_) => Running::NoAnswer,
    }
}

pub(super) fn check(facts: &MeshFacts) -> Vec<Finding> {
    let mut findings = match (&facts.configured, &facts.running) {
        (None, Running::Alone | Running::NoAnswer) => {
            return vec![Finding::unchecked(MESH, "no mesh is configured, this node runs alone")];
        }
        (Some(node), Running::Alone) => {
            vec![not_joined(node, facts.whose)]
        }
        (_, Running::Down(why)) => vec![Finding::problem(
            MESH,
            format!("the mesh is down, this machine's own programs are served: {why}"),
            "mend the cause; the daemon tries again by itself, and at once with: cortex mesh reload",
        )],
        (Some(_), Running::NoAnswer) => {
            vec![Finding::unchecked(MESH, "the daemon does not say how the other nodes are")]
        }
        (Some(node), Running::InMesh(status)) => vec![name(node, status)],
        (None, Running::InMesh(_)) => Vec::new(),
    };
    let running = match &facts.running {
        Running::InMesh(status) => Some(status),
        Running::Alone | Running::Down(_) | Running::NoAnswer => None,
    };
    findings.extend(credentials(facts.configured.as_ref(), running, facts.now));
    findings.extend(running.and_then(second));
    for peer in running.iter().flat_map(|status| &status.peers) {
        findings.push(reach(peer, running.map_or("", |status| &status.node)));
        findings.extend(clock(peer));
        findings.extend(peer_certificate(peer, facts.now));
        findings.extend(directory(peer));
        findings.extend(duplicate_name(peer));
    }
    findings
}

fn not_joined(node: &Node, whose: DaemonScope) -> Finding {
    let text =
        format!("the settings name the node {}, the running daemon is in no mesh", node.name);
    Finding::problem(MESH, text, whose.restart_command())
}

/// The name is in the database as soon as the mesh was joined, and the daemon keeps to it.
fn name(node: &Node, status: &MeshReport) -> Finding {
    let (configured, own) = (&node.name, &status.node);
    if configured == own {
        return Finding::ok(NAME, format!("this is the node {own}"));
    }
    let file = node.configuration.display();
    Finding::problem(
        NAME,
        format!("the settings name the node {configured}, the database is that of {own}"),
        format!(
            "write node_name = \"{own}\" in the [mesh] of {file}, and then: cortex mesh reload"
        ),
    )
}

/// None where no machine has come under the name of another.
fn second(status: &MeshReport) -> Option<Finding> {
    let count = status.refused.get("name_taken").filter(|count| **count > 0)?;
    Some(Finding::warning(
        SECOND,
        format!(
            "{count} times since its start the daemon has held off a machine under a name that another database already uses"
        ),
        "its log says from which address: journalctl -u cortexd -g name_taken. If the machine was installed again: cortex mesh remove-node NAME; otherwise stop it",
    ))
}

/// What the files say, or, where this user may not read them, what the daemon says.
fn credentials(node: Option<&Node>, running: Option<&MeshReport>, now: u64) -> Vec<Finding> {
    match node.map(|node| (&node.name, &node.credentials)) {
        Some((name, Ok(expiries))) => vec![
            own_certificate(name, expiries.certificate, now),
            expiry(CA, "the CA's certificate", expiries.ca, now, NEW_CA),
            expiry(LIST, "the revocation list", expiries.list, now, NEW_LIST),
        ],
        Some((name, Err(error))) if !is_hidden(error) => {
            vec![Finding::problem(CERTIFICATE, error.to_string(), mend(name, error))]
        }
        Some((_, Err(_))) | None => {
            let known = running.map(|status| (&status.node, status.certificate_expires));
            let own = known.map(|(name, expires)| own_certificate(name, expires, now));
            let hidden = Finding::hidden(CA, "this user may not read the node's credentials");
            own.into_iter().chain([hidden]).collect()
        }
    }
}

const NEW_CA: &str =
    "where the CA is: cortex mesh init-ca --force, and a new certificate for every node";

fn own_certificate(name: &str, expires: u64, now: u64) -> Finding {
    expiry(CERTIFICATE, "this node's certificate", expires, now, &renewal(name))
}

fn expiry(check: &'static str, what: &str, at: u64, now: u64, mend: &str) -> Finding {
    let day = shown(at);
    if at < now {
        Finding::problem(check, format!("{what} has expired at {day}"), mend)
    } else if at - now < SOON {
        Finding::warning(check, format!("{what} expires at {day}"), mend)
    } else {
        Finding::ok(check, format!("{what} is good until {day}"))
    }
}

fn is_hidden(error: &Error) -> bool {
    matches!(error, Error::Unreadable { error, .. } if error.kind() == ErrorKind::PermissionDenied)
}

/// What makes the credentials good again.
fn mend(name: &str, error: &Error) -> String {
    match error {
        // The only other certificate that is judged is the CA's.
        Error::Expired { what, .. } if what.starts_with("CA") => NEW_CA.to_owned(),
        Error::KeyReadableByOthers { path, .. } => format!("chmod 600 {}", path.display()),
        Error::NotYetValid { .. } => "timedatectl set-ntp true".to_owned(),
        Error::StaleRevocationList { .. }
        | Error::EndlessRevocationList
        | Error::ForeignRevocationList => NEW_LIST.to_owned(),
        Error::Revoked { .. } => {
            format!("where the CA is: cortex mesh add-node {name} HOST --force")
        }
        Error::Missing { path, .. }
        | Error::Unreadable { path, .. }
        | Error::NoPem { path, .. }
        | Error::UnsupportedKey { path, .. }
        | Error::NotAnAuthority { path } => {
            format!("put the right file at {}, and then: cortex mesh reload", path.display())
        }
        Error::Malformed { .. }
        | Error::KeyMismatch { .. }
        | Error::Expired { .. }
        | Error::OtherAuthority
        | Error::WrongName { .. }
        | Error::OtherMesh { .. }
        | Error::KeyUsage
        | Error::Tls(_) => renewal(name),
    }
}

fn reach(peer: &PeerNode, own: &str) -> Finding {
    let PeerNode { name, host, port, state, .. } = peer;
    if peer.connected {
        return Finding::ok(PEER, format!("{name} is connected, and {state}"));
    }
    let why = peer.last_error.as_deref().unwrap_or("it was not tried yet");
    Finding::problem(
        PEER,
        format!("{name} is not reached at {host} port {port}: {why}"),
        remedy::for_node(name, own, peer.last_error.as_deref()),
    )
}

/// None before the offset was measured.
fn clock(peer: &PeerNode) -> Option<Finding> {
    let offset = peer.clock_offset_ms.filter(|_| peer.connected)?;
    let (name, apart) = (&peer.name, offset.unsigned_abs());
    let mend = format!("here, and on {name}: timedatectl set-ntp true");
    let direction = if offset < 0 { "behind" } else { "ahead of" };
    let text = format!("the clock of {name} is {apart} ms {direction} this one");
    Some(if apart > OFFSET_TOO_LARGE_MS {
        Finding::problem(CLOCK, text, mend)
    } else if apart > OFFSET_WORTH_A_WARNING_MS {
        Finding::warning(CLOCK, text, mend)
    } else {
        Finding::ok(CLOCK, text)
    })
}

/// None where all that it passes on is believed.
fn directory(peer: &PeerNode) -> Option<Finding> {
    let trouble = peer.directory.as_ref()?;
    Some(Finding::warning(
        DIRECTORY,
        format!("of what {} passes on, {trouble}", peer.name),
        "for the node that wrote them, where the CA is: cortex mesh renew NODE; then reload or start it once. Which rows: sudo cortex events",
    ))
}

/// None where one machine alone uses the name.
fn duplicate_name(peer: &PeerNode) -> Option<Finding> {
    let name = &peer.name;
    peer.name_in_use_twice.then(|| {
        Finding::problem(
            NAME,
            format!("two machines use the name {name}, and take each other's place"),
            format!("on the one that is not {name}: systemctl stop cortexd, then give it a name and a certificate of its own: cortex mesh join"),
        )
    })
}

/// None as long as it was not seen.
fn peer_certificate(peer: &PeerNode, now: u64) -> Option<Finding> {
    let what = format!("the certificate of {}", peer.name);
    let expires = peer.certificate_expires?;
    Some(expiry(PEER_CERTIFICATE, &what, expires, now, &renewal(&peer.name)))
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Status as Outcome, the_problem};
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const LATER: u64 = NOW + 10 * SOON;

    fn node(credentials: Result<Expiries, Error>) -> Option<Node> {
        Some(Node { configuration: "/c.toml".into(), name: "home".into(), credentials })
    }

    fn good() -> Expiries {
        Expiries { certificate: LATER, ca: LATER, list: LATER }
    }

    fn office() -> PeerNode {
        PeerNode {
            name: "office".into(),
            host: "office.lan".into(),
            port: 4712,
            connected: true,
            state: "alive".into(),
            clock_offset_ms: Some(-3),
            certificate_expires: Some(LATER),
            ..PeerNode::default()
        }
    }

    fn seen(peer: PeerNode) -> Running {
        let (node, certificate_expires) = ("home".into(), LATER);
        let peers = vec![peer];
        Running::InMesh(MeshReport { node, certificate_expires, peers, ..MeshReport::default() })
    }

    fn facts(configured: Option<Node>, running: Running) -> MeshFacts {
        MeshFacts { whose: DaemonScope::System, now: NOW, configured, running }
    }

    fn with(peer: PeerNode) -> Vec<Finding> {
        check(&facts(node(Ok(good())), seen(peer)))
    }

    fn outcome(findings: &[Finding], check: &str) -> Outcome {
        findings.iter().find(|finding| finding.check == check).expect(check).status
    }

    /// holds M4
    #[test]
    fn a_mesh_whose_nodes_agree_is_well() {
        let found = with(office());
        assert_eq!(found.len(), 7, "{found:?}");
        assert!(found.iter().all(|finding| finding.status == Outcome::Ok), "{found:?}");
    }

    #[test]
    fn a_node_that_runs_alone_is_not_judged() {
        let found = check(&facts(None, Running::Alone));
        assert_eq!(found.len(), 1);
        assert_eq!(outcome(&found, MESH), Outcome::Unchecked);
    }

    #[test]
    fn a_mesh_that_is_configured_and_not_joined_is_a_problem() {
        let (check, mend) = the_problem(check(&facts(node(Ok(good())), Running::Alone)));
        assert_eq!((check, mend.as_str()), (MESH, "systemctl restart cortexd"));
    }

    #[test]
    fn rows_of_the_directory_that_are_not_believed_are_worth_a_warning() {
        let trouble = Some("a row of the directory cannot be verified".to_owned());
        let duplicate_name = with(PeerNode { name_in_use_twice: true, ..office() });
        assert_eq!(the_problem(duplicate_name).0, NAME);
        let found = with(PeerNode { directory: trouble, ..office() });
        assert_eq!(outcome(&found, DIRECTORY), Outcome::Warning);
    }

    #[test]
    fn clocks_that_differ_are_worth_a_warning_and_then_a_problem() {
        for (offset, expected) in [
            (2_000, Outcome::Ok),
            (-2_001, Outcome::Warning),
            (60_000, Outcome::Warning),
            (-60_001, Outcome::Problem),
        ] {
            let found = with(PeerNode { clock_offset_ms: Some(offset), ..office() });
            assert_eq!(outcome(&found, CLOCK), expected, "{offset}");
        }
        let unknown = with(PeerNode { clock_offset_ms: None, ..office() });
        assert!(unknown.iter().all(|finding| finding.check != CLOCK), "{unknown:?}");
    }

    #[test]
    fn what_expires_is_worth_a_warning_before_and_a_problem_after() {
        for (at, expected) in [
            (NOW + SOON, Outcome::Ok),
            (NOW + SOON - 1, Outcome::Warning),
            (NOW, Outcome::Warning),
            (NOW - 1, Outcome::Problem),
        ] {
            let of = |expiries| check(&facts(node(Ok(expiries)), Running::NoAnswer));
            let certificate = of(Expiries { certificate: at, ..good() });
            assert_eq!(outcome(&certificate, CERTIFICATE), expected, "{at}");
            assert_eq!(outcome(&of(Expiries { ca: at, ..good() }), CA), expected, "{at}");
            assert_eq!(outcome(&of(Expiries { list: at, ..good() }), LIST), expected, "{at}");
            let peer = with(PeerNode { certificate_expires: Some(at), ..office() });
            assert_eq!(outcome(&peer, PEER_CERTIFICATE), expected, "{at}");
        }
    }

    #[test]
    fn a_node_that_is_not_reached_is_a_problem_with_the_reason() {
        let peer =
            PeerNode { connected: false, last_error: Some("no route to host".into()), ..office() };
        let found = with(peer);
        assert!(found.iter().any(|finding| finding.text.contains("no route to host")));
        let (check, mend) = the_problem(found);
        assert_eq!(check, PEER);
        assert!(mend.starts_with("on office: systemctl start cortexd"), "{mend}");
    }

    #[test]
    fn another_name_than_the_databases_or_the_certificates_is_a_problem() {
        let mut other = node(Ok(good())).expect("a node");
        other.name = "cabin".into();
        let (check_name, mend) = the_problem(check(&facts(Some(other), seen(office()))));
        assert_eq!(check_name, NAME);
        assert!(mend.contains("node_name = \"home\"") && mend.contains("/c.toml"), "{mend}");

        let home = NodeName::parse("home").expect("a name");
        let wrong = Error::WrongName { node: home, found: "`attic`".into() };
        let found = check(&facts(node(Err(wrong)), seen(office())));
        assert!(found.iter().any(|finding| finding.text.contains("names `attic`")), "{found:?}");
        let (check_name, mend) = the_problem(found);
        assert_eq!(
            (check_name, mend.as_str()),
            (CERTIFICATE, "where the CA is: cortex mesh renew home")
        );
    }

    #[test]
    fn of_files_that_may_not_be_read_the_daemon_tells_what_it_knows() {
        let denied = Error::Unreadable {
            what: "key",
            path: "/k".into(),
            error: ErrorKind::PermissionDenied.into(),
        };
        let found = check(&facts(node(Err(denied)), seen(office())));
        assert_eq!(outcome(&found, CERTIFICATE), Outcome::Ok);
        assert_eq!(outcome(&found, CA), Outcome::Unchecked);
    }
}
