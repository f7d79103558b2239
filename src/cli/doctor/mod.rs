//! The command `doctor`: looks over the installation and says what is wrong with it, and what mends it.
//! Leaves mending to the administrator: it changes nothing.
//!
//! ```text
//!   each area (socket, daemon, units, …):   gather: the machine ──> Facts
//!                                           check:  Facts ──> findings     (pure)
//!   findings ──> a line each, or JSON ──> exit 0, or 1 if there is a problem
//! ```
//!
//! What this user may not see is no reason to call it well: it becomes a finding of its own, `unchecked`. What
//! somebody has chosen is no reason to call it wrong: it becomes a `note`.

mod bus;
mod clock;
mod configuration;
mod daemon;
mod finding;
mod leftovers;
mod mesh;
mod place;
mod program;
mod replicas;
mod shadows;
mod socket;
mod store;
mod units;

use std::path::{Path, PathBuf};

use clap::Args;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output;
use crate::sys::paths::{self, Environment};
use finding::{Finding, Status};

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Look below that directory for what an earlier installation has left, as in an image of a machine
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Have every row compared with its checksum now, and the structure of the database checked; takes as long as
    /// reading all of it
    #[arg(long)]
    deep: bool,
}

pub(crate) fn run(args: &Doctor, context: &Context) -> Result<(), Failure> {
    let findings = look_over(args, context)?;
    let problems = findings.iter().filter(|finding| finding.status == Status::Problem).count();
    if context.is_json() {
        context.printer().value(&finding::packed(&findings))?;
    } else {
        output::text(&finding::Lines(&findings))?;
    }
    match problems {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Failed, "1 problem found")),
        more => Err(Failure::new(Exit::Failed, format!("{more} problems found"))),
    }
}

/// Every finding, in an order in which each area rests on those before it.
fn look_over(args: &Doctor, context: &Context) -> Result<Vec<Finding>, Failure> {
    let env = Environment::of_this_process();
    let socket = context.socket()?;
    let whose = DaemonScope::of(&socket);
    let configured = context.configuration(whose.default_configuration());

    let file = socket::gather(&socket, whose, env.uid);
    let daemon = daemon::gather(context, whose);
    let units = units::gather(whose);
    let named = match whose {
        DaemonScope::System => configured.data_dir.clone().or(Some(paths::SYSTEM_DATA_DIR.into())),
        DaemonScope::User => {
            paths::first_named(None, env.cortex_data_dir.clone(), configured.data_dir)
                .or_else(|| paths::default_data_dir(&env))
        }
    };
    let data_dir = configuration::data_dir_in_force(context).or(named);

    let mut findings = socket::check(&file);
    findings.extend(daemon::check(&daemon));
    findings.extend(units::check(&units));
    let asked = configuration::Asked {
        file: configured.file.as_deref(),
        daemons_uid: match whose {
            DaemonScope::System if env.uid == 0 => {
                units.daemons_uid(file.owner().unwrap_or(env.uid))
            }
            DaemonScope::System | DaemonScope::User => None,
        },
        restart: whose.restart_command(),
    };
    findings.extend(configuration::check(&configuration::gather(context, asked)));
    let mesh = mesh::gather(context, whose, configured.file.as_deref());
    findings.extend(mesh::check(&mesh));
    findings.extend(replicas::check(&replicas::gather(context, args.deep)));
    findings.extend(bus::check(&bus::gather(whose, configured.bus, daemon.answers())));
    match &data_dir {
        Some(dir) => {
            let expected = store::Expected {
                writable: units.writable(),
                uid: units.daemons_uid(file.owner().unwrap_or(env.uid)),
                disk_bytes: daemon.disk_bytes(),
                start: whose.start_command(),
            };
            findings.extend(store::check(&store::gather(dir, expected)));
            findings.extend(leftovers::check(&leftovers::gather(dir)));
        }
        None => findings.push(Finding::unchecked(store::CHECK, "no data directory is known")),
    }
    let root = args.root.as_deref().or((whose == DaemonScope::System).then_some(Path::new("/")));
    if let Some(root) = root {
        findings.extend(shadows::check(&shadows::gather(root, data_dir.as_deref())));
    }
    findings.extend(clock::check(&clock::gather()));
    Ok(findings)
}

/// Which daemon is looked over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DaemonScope {
    /// The one of the whole machine, with its units and its place on the message bus.
    System,
    /// One that somebody has started for themselves: a socket and a data directory.
    User,
}

impl DaemonScope {
    fn of(socket: &Path) -> Self {
        if socket == Path::new(paths::SYSTEM_SOCKET) { Self::System } else { Self::User }
    }

    fn start_command(self) -> &'static str {
        match self {
            Self::System => "systemctl start cortexd",
            Self::User => "cortexd",
        }
    }

    fn restart_command(self) -> &'static str {
        match self {
            Self::System => "systemctl restart cortexd",
            Self::User => "end the running cortexd, and then: cortexd",
        }
    }

    fn log_command(self) -> &'static str {
        match self {
            Self::System => "journalctl -u cortexd -n 50",
            Self::User => "read what cortexd has written to its standard error",
        }
    }

    fn default_configuration(self) -> Option<&'static Path> {
        match self {
            Self::System => Some(Path::new(paths::SYSTEM_CONFIGURATION)),
            Self::User => None,
        }
    }
}
