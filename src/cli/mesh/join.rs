//! The command `mesh join`: this machine becomes a node of the mesh whose invitation it has.
//! Leaves granting to the inviting side.
//!
//! Nothing is sent before the other side has shown the CA whose fingerprint is in the code. Nothing of this
//! machine changes before everything has come and is found good; then all of it does.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cortex_core::model::NodeName;
use rmpv::Value;
use rustls::{ClientConnection, StreamOwned};

use super::code::Code;
use super::conversation::{self, Answer, Done, Grant, Hello};
use super::init::is_node_already;
use super::place::{Bundle, MeshPaths, Prepared, occupied};
use super::report::{now, path, print};
use super::settings::{Node, PORT, Settings};
use super::timed::Timed;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::note;
use crate::pki::files::IfExists;
use crate::pki::{self, NewKey};

/// For reaching one address of the inviting machine.
const CONNECT: Duration = Duration::from_secs(10);

/// For the whole conversation. The inviting side may wait for another command to be done with the CA.
const TIME_LIMIT: Duration = Duration::from_secs(60);

type Stream = StreamOwned<ClientConnection, Timed>;

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The code that `cortex mesh invite` has printed
    #[arg(value_parser = Code::parse)]
    code: Code,
    /// Where others reach this machine: a DNS name or an address [default: the address that it has towards
    /// the inviting machine]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The port of the mesh on this machine
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    port: u16,
    /// Where to keep the key and the certificates [default: `mesh` in the data directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Join, context: &Context) -> Result<(), Failure> {
    let places = MeshPaths::find(context)?;
    let configuration = places.configuration()?;
    if let Some(settings) = Settings::read(configuration)? {
        return Err(is_node_already(&settings.node_name, configuration));
    }
    let target = target(args, &places)?;
    let key = NewKey::generate()?;
    let mut stream = connect(&args.code)?;
    let host = host(args, &stream)?;
    let grant = ask(&mut stream, &args.code, &key, &host, args.port)?;

    check_clock(grant.clock, now())?;
    let node = NodeName::parse(&grant.name).map_err(|_| unexpected("it names no node"))?;
    places.make_state()?;
    let bundle = Bundle {
        ca_cert: &grant.ca,
        node_cert: &grant.certificate,
        node_key: &key.pem(),
        crl: &grant.crl,
    };
    let prepared = Prepared::write(&target, &bundle, places.owner())?;
    let credentials = prepared.check(&node, now())?;
    let files = prepared.put(IfExists::Keep)?;
    let nodes = grant.nodes.clone();
    let fragment = Settings::new(&node, args.port, &files, nodes).write(configuration)?;
    acknowledge(&mut stream);
    note("next: systemctl restart cortexd");
    let names = grant.nodes.iter().map(|node| Value::from(node.name.as_str()));
    print(
        context,
        vec![
            ("node", node.to_string().into()),
            ("mesh", credentials.mesh().to_string().into()),
            ("host", host.into()),
            ("expires", pki::shown(credentials.not_after()).into()),
            ("directory", path(&target)),
            ("configuration", path(&fragment)),
            ("nodes", Value::Array(names.collect())),
        ],
    )
}

/// Two machines exchange no rows while their clocks differ by more, and certificates count by them.
const MOST_APART_S: u64 = 60;

/// Compares this machine's clock with the inviting one's, before anything is written: whatever comes of a wrong one
/// later, a certificate that is not valid yet or a table whose records do not come, would not name it.
fn check_clock(theirs: Option<u64>, ours: u64) -> Result<(), Failure> {
    let Some(theirs) = theirs.filter(|theirs| theirs.abs_diff(ours) > MOST_APART_S) else {
        return Ok(());
    };
    let direction = if ours < theirs { "behind" } else { "ahead of" };
    let text = format!(
        "this machine's clock is {} s {direction} the inviting machine's: {} here, {} there",
        ours.abs_diff(theirs),
        pki::shown(ours),
        pki::shown(theirs)
    );
    Err(Failure::new(Exit::Failed, text).hint(
        "Nothing was written, and the code is still good. Set the clock that is wrong (timedatectl set-ntp true), then give the same command again",
    ))
}

fn target(args: &Join, places: &MeshPaths) -> Result<PathBuf, Failure> {
    let target = args.dir.clone().unwrap_or_else(|| places.node_dir());
    let target =
        std::path::absolute(&target).map_err(|e| super::report::io_failure("find", &target, &e))?;
    if target.exists() {
        return Err(occupied(&target)
            .hint("It is left over from an earlier mesh. To join anew, move it away"));
    }
    Ok(target)
}

/// Connects, and makes sure that it is the inviting machine that answers.
fn connect(code: &Code) -> Result<Stream, Failure> {
    let mut tcp = Timed::new(dial(&code.address).map_err(|e| unreached(code, &e))?, TIME_LIMIT);
    let config = pki::invited_config(code.authority)?;
    let mut tls = ClientConnection::new(config, pki::invitation_name()?)
        .map_err(|e| Failure::while_doing("setting up TLS", e))?;
    while tls.is_handshaking() {
        if let Err(error) = tls.complete_io(&mut tcp) {
            let attempt = format!("{} is not the inviting machine", code.address);
            return Err(failure(&attempt, &error).hint(
                "Nothing was sent to it. Somebody may be in between, or the code is from another time; ask for another code",
            ));
        }
    }
    Ok(StreamOwned::new(tls, tcp))
}

/// A machine that refuses the connection is there, and nobody invites on it: which is so as soon as a code
/// was used, or its time is over.
fn unreached(code: &Code, error: &std::io::Error) -> Failure {
    let address = &code.address;
    if error.kind() != std::io::ErrorKind::ConnectionRefused {
        return failure(&format!("cannot reach the inviting machine at {address}"), error);
    }
    let text = format!(
        "no invitation is open at {address}: the code has expired or was used, or `cortex mesh invite` was ended there"
    );
    Failure::new(Exit::Failed, text)
        .hint("Ask for another code, where the CA is: cortex mesh invite NAME")
}

/// Tries every address of the host.
fn dial(address: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn failure(attempt: &str, error: &std::io::Error) -> Failure {
    let is_late = error.kind() == std::io::ErrorKind::TimedOut;
    let exit = if is_late { Exit::Timeout } else { Exit::Failed };
    Failure::new(exit, format!("{attempt}: {error}"))
}

fn host(args: &Join, stream: &Stream) -> Result<String, Failure> {
    if let Some(host) = &args.host {
        return Ok(host.clone());
    }
    let own: SocketAddr = stream
        .sock
        .tcp()
        .local_addr()
        .map_err(|e| Failure::while_doing("finding the own address", e))?;
    let host = own.ip().to_canonical().to_string();
    note(&format!("Others will reach this machine at {host}. To give a name instead: --host HOST"));
    Ok(host)
}

/// Shows the secret, and takes what is granted.
fn ask(
    stream: &mut Stream,
    code: &Code,
    key: &NewKey,
    host: &str,
    port: u16,
) -> Result<Grant, Failure> {
    let hello = Hello {
        secret: format!("{:032x}", u128::from_be_bytes(code.secret)),
        request: key.request()?,
        host: host.to_owned(),
        port,
    };
    let broken = |error: std::io::Error| {
        failure("the connection broke", &error).hint("The code is still good: try again")
    };
    conversation::send(stream, &hello).map_err(broken)?;
    match conversation::receive(stream).map_err(broken)? {
        Answer::Granted(grant) => Ok(*grant),
        Answer::Refused { reason } => {
            // It comes from elsewhere, and goes to a terminal.
            let reason: String = reason.chars().filter(|c| !c.is_control()).take(300).collect();
            Err(Failure::new(Exit::Denied, format!("the inviting machine refuses: {reason}")))
        }
    }
}

fn unexpected(what: &str) -> Failure {
    Failure::new(Exit::Failed, format!("the inviting machine's answer cannot be used: {what}"))
}

/// Says that everything is on disk. Where that does not arrive, this machine is a node all the same, and the
/// inviting side waits until its time is over.
fn acknowledge(stream: &mut Stream) {
    let said = conversation::send(stream, &Done { joined: true }).and_then(|()| {
        stream.conn.send_close_notify();
        stream.conn.complete_io(&mut stream.sock).map(|_| ())
    });
    if said.is_err() {
        note("This machine has joined, but could not say so: end `cortex mesh invite` over there.");
    }
}

/// A machine as others will dial it.
pub(super) fn as_node(name: &NodeName, host: &str, port: u16) -> Node {
    Node { name: name.to_string(), host: host.to_owned(), port }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_is_named_with_both_times() {
        assert!(check_clock(None, 5).is_ok(), "it does not say");
        assert!(check_clock(Some(1_000), 1_060).is_ok());
        let text = |theirs, ours| {
            let failure = check_clock(Some(theirs), ours).expect_err("they differ");
            failure.message
        };
        let behind = text(1_795_000_000, 1_794_996_400);
        assert!(behind.contains("3600 s behind the inviting machine's"), "{behind}");
        assert!(behind.contains("here") && behind.contains("there"), "{behind}");
        assert!(text(0, 3_600).contains("3600 s ahead of the inviting machine's"));
    }
}
