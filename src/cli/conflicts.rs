//! Commands about conflicts: `conflicts`, `conflicts show`, `restore`, `ack`.
//! Leaves which version wins, and keeping the others, to the daemon.

use clap::{ArgAction, Args, Subcommand};
use cortex_client::api::{self, ConflictsOptions};

use super::context::Context;
use super::failure::Failure;
use super::output;
use super::sync::conflicts_elsewhere;

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
    limit: Option<u32>,
    /// Only those with a smaller number than this
    #[arg(long, value_name = "ID", requires = "table")]
    before: Option<i64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show one: the version that has lost, and the record of now
    Show(ConflictArgs),
    /// Write the version that has lost once more, on top of the record of now
    Restore(ConflictArgs),
    /// Take note of a conflict, so that it is not counted any more
    Ack(Ack),
}

#[derive(Debug, Args)]
pub(crate) struct ConflictArgs {
    /// The table
    table: String,
    /// The conflict's number, as `conflicts TABLE` lists it
    id: i64,
}

#[derive(Debug, Args)]
pub(crate) struct Ack {
    /// The table
    table: String,
    /// The conflict's number
    #[arg(required_unless_present = "all")]
    id: Option<i64>,
    /// All conflicts of the table
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "id")]
    all: bool,
}

pub(crate) fn run(args: &Conflicts, context: &Context) -> Result<(), Failure> {
    match &args.command {
        None => list(&args.list, context),
        Some(Command::Show(ConflictArgs { table, id })) => {
            let shown = context.call(&api::ConflictShow { table, id: *id });
            shown.map_err(|failure| of_conflict(failure, table))
        }
        Some(Command::Restore(ConflictArgs { table, id })) => {
            let restored = context.call(&api::ConflictRestore { table, id: *id });
            restored.map_err(|failure| of_conflict(failure, table))
        }
        Some(Command::Ack(Ack { table, id, all: _ })) => {
            let noted = context.call(&api::ConflictAck { table, id: *id });
            noted.map_err(|failure| of_conflict(failure, table))
        }
    }
}

fn list(args: &List, context: &Context) -> Result<(), Failure> {
    let options = ConflictsOptions { limit: args.limit, before: args.before };
    let Some(table) = args.table.as_deref() else {
        return context.call(&api::Conflicts { table: None, options });
    };
    let listed = context.call(&api::Conflicts { table: Some(table), options });
    listed.map_err(|failure| failure.about_table(table))?;
    // The list is this node's. It is complete without what others keep, of which a node alone knows nothing.
    let status =
        context.connect().and_then(|mut client| Ok(client.call(&api::SyncStatusTable { table })?));
    if let Some(elsewhere) = status.ok().as_ref().and_then(conflicts_elsewhere) {
        output::note(&format!("note: {elsewhere}"));
    }
    Ok(())
}

/// What is not found here is no record.
fn of_conflict(failure: Failure, table: &str) -> Failure {
    if failure.message == "not_found" {
        return failure.hint(format!("Which there are: cortex conflicts {table}"));
    }
    failure.about_table(table)
}
