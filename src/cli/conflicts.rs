//! Commands about conflicts: `conflicts`, `conflicts show`, `restore`, `ack`.
//! Leaves which version wins, and keeping the others, to the daemon.

use clap::{ArgAction, Args, Subcommand};
use rmpv::Value;

use super::context::Context;
use super::failure::Failure;
use super::output;
use super::sync::conflicts_elsewhere;
use crate::client::Params;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Conflicts {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The table; without it, how many there are of each
    table: Option<String>,
    /// At most so many, and at most 1000 [default: 100]
    #[arg(long, value_name = "N", requires = "table")]
    limit: Option<u64>,
    /// Only those with a smaller number than this
    #[arg(long, value_name = "ID", requires = "table")]
    before: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show one: the version that has lost, and the record of now
    Show(One),
    /// Write the version that has lost once more, on top of the record of now
    Restore(One),
    /// Take note of a conflict, so that it is not counted any more
    Ack(Ack),
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// The table
    table: String,
    /// The conflict's number, as `conflicts TABLE` lists it
    id: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Ack {
    /// The table
    table: String,
    /// The conflict's number
    #[arg(required_unless_present = "all")]
    id: Option<u64>,
    /// All conflicts of the table
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "id")]
    all: bool,
}

pub(crate) fn run(args: &Conflicts, context: &Context) -> Result<(), Failure> {
    match &args.command {
        None => list(&args.list, context),
        Some(Command::Show(one)) => about(one, "conflict_show", context),
        Some(Command::Restore(one)) => about(one, "conflict_restore", context),
        Some(Command::Ack(args)) => {
            let params = Params::new().str(&args.table);
            let params = match args.id {
                Some(id) => params.value(&Value::from(id)),
                None => params,
            };
            let outcome = context.call("conflict_ack", &params);
            outcome.map_err(|failure| of_conflict(failure, &args.table))
        }
    }
}

fn list(args: &List, context: &Context) -> Result<(), Failure> {
    let Some(table) = &args.table else {
        return context.call("conflicts", &Params::new());
    };
    let limit = args.limit.map(|limit| ("limit".into(), limit.into()));
    let before = args.before.map(|id| ("before".into(), id.into()));
    let options: Vec<(Value, Value)> = limit.into_iter().chain(before).collect();
    let params = Params::new().str(table).value(&Value::Map(options));
    context.call("conflicts", &params).map_err(|failure| failure.about_table(table))?;
    // The list is this node's. It is complete without what others keep, of which a node alone knows nothing.
    let status = context
        .connect()
        .and_then(|mut client| Ok(client.call("sync_status_table", &Params::new().str(table))?));
    if let Some(elsewhere) = status.ok().as_ref().and_then(conflicts_elsewhere) {
        output::note(&format!("note: {elsewhere}"));
    }
    Ok(())
}

fn about(one: &One, method: &str, context: &Context) -> Result<(), Failure> {
    let params = Params::new().str(&one.table).value(&Value::from(one.id));
    context.call(method, &params).map_err(|failure| of_conflict(failure, &one.table))
}

/// What is not found here is no record.
fn of_conflict(failure: Failure, table: &str) -> Failure {
    if failure.message == "not_found" {
        return failure.hint(format!("Which there are: cortex conflicts {table}"));
    }
    failure.about_table(table)
}
