//! The command `mesh invite`: prints a code, and listens until somebody has joined with it or time is up.
//! Leaves what is said to those who come to `joiners`.

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use cortex_core::model::NodeName;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::code::{Code, address};
use super::joiners::{JoinAttempt, Joiners, Outcome, State};
use super::place::MeshPaths;
use super::report::{node_name, now, print};
use super::settings::{self, Node, Settings};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::note;
use crate::pki::{Authority, Duplicate, shown};
use crate::sys::{clock, random};

/// Where invitations are served: beside the mesh's own port, which a daemon may hold.
const LISTEN: &str = "[::]:4713";

/// Joiners at a time. More are turned away at once; they may come again.
const MOST_GUESTS: usize = 8;

/// How often the end of the invitation is looked for while nobody comes.
const TICK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// The new node's name: a-z, 0-9 and inner hyphens
    #[arg(value_parser = node_name)]
    name: NodeName,
    /// Where the new machine reaches this one [default: this node's host in the configuration]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Where to listen for it
    #[arg(long, value_name = "ADDR", default_value = LISTEN)]
    listen: String,
    /// The CA's directory [default: `ca` in the data directory]
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// How long to wait
    #[arg(long, value_name = "MINUTES", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1440))]
    minutes: u16,
}

pub(crate) fn run(args: &Invite, context: &Context) -> Result<(), Failure> {
    let places = MeshPaths::find(context)?;
    let configuration = places.configuration().ok();
    let settings = configuration.map(Settings::read).transpose()?.flatten();
    let nodes = settings.as_ref().map(|settings| settings.nodes.clone()).unwrap_or_default();
    let host = host(args, settings.as_ref())?;
    let ca_dir = places.ca_dir(args.ca_dir.as_deref());
    let joiners = {
        // Not held while waiting: other commands may use the CA meanwhile.
        let authority = Authority::open(&ca_dir)?;
        // Where the new machine is reached is not known yet, and looked at when it asks.
        authority.may_name(&args.name, Duplicate::Refuse, now())?;
        Invitation::of(args, &authority, ca_dir.clone(), nodes)?
    };
    let listener = listen(&args.listen)?;
    announce(args, &joiners, &listener, &host, context)?;

    let until = clock::monotonic() + Duration::from_secs(u64::from(args.minutes) * 60);
    let outcome = wait(&listener, joiners.joiners, until)?;
    conclude(&outcome, args, configuration, context)
}

/// An invitation, and what goes into its code.
struct Invitation {
    joiners: Joiners,
    authority: crate::pki::Fingerprint,
}

impl Invitation {
    fn of(
        args: &Invite,
        authority: &Authority,
        ca_dir: PathBuf,
        nodes: Vec<Node>,
    ) -> Result<Self, Failure> {
        let nodes = nodes.into_iter().filter(|node| node.name != args.name.as_str()).collect();
        let joiners = Joiners {
            node: args.name.clone(),
            secret: random::id(),
            ca_dir,
            nodes,
            tls: authority.invitation_config(now())?,
            state: Mutex::new(State::default()),
        };
        Ok(Self { joiners, authority: authority.short_fingerprint() })
    }
}

fn host(args: &Invite, settings: Option<&Settings>) -> Result<String, Failure> {
    let configured = settings.and_then(Settings::own).map(|own| own.host.clone());
    args.host.clone().or(configured).ok_or_else(|| {
        Failure::new(Exit::Usage, "where does the new machine reach this one?").hint(
            "This machine is no node yet (cortex mesh init NAME HOST), or its own entry is not among its nodes: --host HOST",
        )
    })
}

fn listen(address: &str) -> Result<TcpListener, Failure> {
    let failed = |e: std::io::Error| {
        Failure::new(Exit::Failed, format!("cannot listen on {address}: {e}"))
            .hint("Another invitation may be open. To listen elsewhere: --listen ADDRESS:PORT")
    };
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(failed)?.collect();
    let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn announce(
    args: &Invite,
    invitation: &Invitation,
    listener: &TcpListener,
    host: &str,
    context: &Context,
) -> Result<(), Failure> {
    let port =
        listener.local_addr().map_err(|e| Failure::while_doing("finding the port", e))?.port();
    let address = address(host, port);
    let code = Code {
        secret: invitation.joiners.secret,
        authority: invitation.authority,
        address: address.clone(),
    };
    let text = code.text();
    note(&format!("on {}, within {} minutes: cortex mesh join {text}", args.name, args.minutes));
    note("Whoever has the code can join in its place: hand it over as you would a password.");
    print(
        context,
        vec![
            ("code", text.into()),
            ("address", address.into()),
            ("expires", shown(now() + u64::from(args.minutes) * 60).into()),
        ],
    )
}

/// Serves joiners until one has joined, too many were wrong, or time is up. Then it waits for nobody: who is
/// still being served is let go with the process.
fn wait(listener: &TcpListener, joiners: Joiners, until: Instant) -> Result<Outcome, Failure> {
    let joiners = Arc::new(joiners);
    let present = Arc::new(AtomicUsize::new(0));
    loop {
        let is_over = clock::monotonic() >= until;
        if is_over || matches!(joiners.outcome(), Outcome::Joined(_) | Outcome::Closed) {
            return Ok(joiners.close());
        }
        let Some((tcp, from)) = accept(listener)? else {
            continue;
        };
        if present.load(Ordering::Relaxed) >= MOST_GUESTS {
            continue; // dropped, and so closed
        }
        present.fetch_add(1, Ordering::Relaxed);
        let (joiners, present) = (Arc::clone(&joiners), Arc::clone(&present));
        std::thread::spawn(move || {
            print_visit(from, &joiners.serve(tcp));
            present.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// The next joiner, if one comes within a tick.
fn accept(listener: &TcpListener) -> Result<Option<(TcpStream, SocketAddr)>, Failure> {
    let failed = |e: std::io::Error| Failure::while_doing("waiting for the new machine", e);
    let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let tick = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
    match poll(&mut polled, tick) {
        Ok(0) | Err(Errno::EINTR) => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(failed(error.into())),
    }
    match listener.accept() {
        Ok((tcp, from)) => {
            tcp.set_nonblocking(false).map_err(failed)?;
            Ok(Some((tcp, from)))
        }
        // Gone again, or out of descriptors for a moment.
        Err(_) => Ok(None),
    }
}

fn print_visit(from: SocketAddr, visit: &JoinAttempt) {
    let from = from.ip().to_canonical();
    match visit {
        JoinAttempt::Broken(error) => {
            note(&format!("{from}: the connection broke: {error}. The code is still good."));
        }
        JoinAttempt::WrongSecret => note(&format!("{from}: showed a wrong code")),
        JoinAttempt::Refused(reason) => note(&format!("{from}: refused: {reason}")),
        JoinAttempt::Granted => {
            note(&format!("{from}: got a certificate, and does not want to join"));
        }
        JoinAttempt::Joined => note(&format!("{from}: joined")),
    }
}

fn conclude(
    outcome: &Outcome,
    args: &Invite,
    configuration: Option<&Path>,
    context: &Context,
) -> Result<(), Failure> {
    match outcome {
        Outcome::Joined(node) => {
            make_known(node, configuration)?;
            print(
                context,
                vec![
                    ("joined", node.name.as_str().into()),
                    ("host", node.host.as_str().into()),
                    ("port", node.port.into()),
                ],
            )
        }
        Outcome::Granted(node) => {
            make_known(node, configuration)?;
            Err(Failure::new(
                Exit::Timeout,
                format!("{} was given a certificate, and has not said that it joined", node.name),
            )
            .hint(format!("See whether it has. If not: cortex mesh revoke-certificate {}", node.name)))
        }
        Outcome::Closed => Err(Failure::new(Exit::Denied, "too many wrong codes were shown: the invitation is closed")
            .hint("Somebody who has no code tries to get in. Invite again, on another port or from another network")),
        Outcome::Waiting => Err(Failure::new(Exit::Timeout, format!("{} has not joined in time", args.name))
            .hint("The code is worthless now. For another: cortex mesh invite")),
    }
}

/// Enters the node into this machine's own configuration.
fn make_known(node: &Node, configuration: Option<&Path>) -> Result<(), Failure> {
    let is_entered =
        configuration.map(|file| settings::add_node(file, node.clone())).transpose()?;
    if is_entered == Some(true) {
        note("next, here and on every other node that shall know it: systemctl reload cortexd");
    } else {
        note(&format!(
            "Nothing here lists the nodes. Enter it under [mesh]: {{ name = {:?}, host = {:?}, port = {} }}",
            node.name, node.host, node.port
        ));
    }
    Ok(())
}
