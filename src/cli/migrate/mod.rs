//! The command `migrate`: brings the tables, records and grants of another daemon into this one.
//! Leaves whose tables there are to `users`, one table to `table`, and the comparison at the end to `compare`.
//!
//! ```text
//!   for each user, connected to both daemons as that user:
//!     tables ──> for each: key and attributes ──> create here, where it is not
//!                          all ──a batch at a time──> get here ──> put here what is not here yet
//!                          grants
//!                          all, once more ──> get here ──> equal? counted? what is here alone?
//!   Report ──> a line per table on standard error, a summary on standard output, exit 1 unless all is equal
//! ```
//!
//! What is here is never replaced unasked, so that a second run goes on where the first one stopped, and a
//! record that was written here since is kept. Memory holds one batch. A daemon of the original kind answers one
//! request per packet: of the source nothing is ever asked before the answer before it has come.

mod batch;
mod compare;
mod report;
mod same;
mod source;
mod table;
mod users;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args};
use cortex_client::Client;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::tables::split_list;
use report::Report;
use table::Job;

/// The source puts a whole table together before it answers.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(600);

/// As for every other command.
const TARGET_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// The socket of the daemon to bring everything over from
    #[arg(long, value_name = "SOCKET")]
    from: PathBuf,
    /// These tables alone, as the source's `tables` names them
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// For root: the tables of that user; can be repeated [default: of every user of this machine]
    #[arg(long, value_name = "UID")]
    uid: Vec<u32>,
    /// For root: the source's data directory, whose file names say which tables none must be missed of
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// The key and the other attributes of a table, where the source cannot say; can be repeated
    #[arg(long, value_name = "TABLE=ATTR,...")]
    attributes: Vec<String>,
    /// Show what would be brought over, and what stands in the way, and change nothing
    #[arg(long, action = ArgAction::SetTrue)]
    dry_run: bool,
    /// Replace records that differ here; without it they are kept, and listed
    #[arg(long, action = ArgAction::SetTrue)]
    overwrite: bool,
    /// Go on after a record or a table that cannot be brought over; the exit status is 1 if there was any
    #[arg(long, action = ArgAction::SetTrue)]
    keep_going: bool,
}

pub(crate) fn run(args: &Migrate, context: &Context) -> Result<(), Failure> {
    let target = context.socket()?;
    if is_same(&args.from, &target) {
        let text = format!("{} is the socket of both daemons", target.display());
        return Err(Failure::new(Exit::Usage, text)
            .hint("--from names the one to leave, --socket the one to move to"));
    }
    let attributes = attributes(&args.attributes)?;
    let users = users::chosen(&args.uid, args.files.as_deref())?;
    let mut report = Report::begin(args.dry_run);
    let outcome = users.iter().try_for_each(|uid| {
        let job = Job { uid, args, attributes: &attributes };
        bring_over(&job, context, &target, &mut report)
    });
    if outcome.is_ok() {
        let unseen = users.expected().filter(|(uid, name)| !report.has(*uid, name));
        let unseen: Vec<_> = unseen.filter(|(_, name)| args.takes(name)).collect();
        unseen.into_iter().for_each(|(uid, name)| report.unseen(uid, &name));
    }
    // The counts matter most when it failed, so they are printed either way.
    let printed = context.printer().value(&report.end(&args.from, outcome.is_ok()));
    outcome?;
    printed?;
    report.verdict()
}

/// Brings over the tables of one user.
fn bring_over(
    job: &Job<'_>,
    context: &Context,
    target: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    let connect = |socket: &Path, usual: Duration| {
        let timeout = context.chosen_timeout().unwrap_or(Some(usual));
        users::as_user(job.uid, || Client::connect(socket, timeout))?.map_err(Failure::from)
    };
    let source =
        connect(&job.args.from, SOURCE_TIMEOUT).map_err(|failure| no_source(job, failure))?;
    let mut source = source::Source::new(source, job.uid);
    let tables: Vec<_> = source.tables()?.into_iter().filter(|name| job.args.takes(name)).collect();
    if tables.is_empty() {
        return Ok(());
    }
    let grants = source.grants()?;
    let mut target = connect(target, TARGET_TIMEOUT)?;
    tables.iter().try_for_each(|name| {
        let grants = grants.get(name).map_or(&[][..], Vec::as_slice);
        table::migrate(job, name, grants, &mut source, &mut target, report)
    })
}

/// A failure to connect to the source, which is not the daemon that the usual hints are about.
fn no_source(job: &Job<'_>, failure: Failure) -> Failure {
    let hint = match failure.exit {
        Exit::NotRunning => {
            "The daemon to leave must run, and --from name its socket; see cortex-migrate(7)"
                .to_owned()
        }
        Exit::Denied => format!(
            "Root connects as each user in turn: uid {} must have a way to {}, by the modes of the directories above it",
            job.uid,
            job.args.from.display()
        ),
        Exit::Ok | Exit::Failed | Exit::Usage | Exit::Timeout | Exit::NotFound => return failure,
    };
    Failure { message: format!("the source: {}", failure.message), ..failure }.hint(hint)
}

impl Migrate {
    fn takes(&self, table: &str) -> bool {
        self.tables.is_empty() || self.tables.iter().any(|wanted| wanted == table)
    }
}

/// Whether two paths name one socket.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

/// Reads `--attributes`.
fn attributes(given: &[String]) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let read = |text: &String| {
        let (table, list) = text.split_once('=')?;
        let words: Vec<_> = split_list(&[list.to_owned()]).into_iter().map(str::to_owned).collect();
        (!words.is_empty()).then(|| (table.to_owned(), words))
    };
    let wrong = |text: &String| {
        Failure::new(Exit::Usage, format!("--attributes {text}: not TABLE=ATTR,..."))
            .hint("For example: --attributes users=id,name")
    };
    given.iter().map(|text| read(text).ok_or_else(|| wrong(text))).collect()
}
