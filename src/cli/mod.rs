//! The command line tool `cortex`: one file per family of commands.
//! Leaves the talking to `client`, and every decision about data and rights to the daemon.
//!
//! ```text
//!   args ── clap ──> Command ──> family::run(&Context) ──> client ──> daemon
//!                                    │
//!             data, as JSON, on standard output            Failure ──> "error: …", "hint: …" on standard error
//!                                                                 └──> exit status
//! ```
//!
//! A new family is a file with its `clap` arguments and a `run`, a variant of `Command`, and an arm below.

mod acl;
mod admin;
mod completions;
mod conflicts;
mod context;
mod doctor;
mod explain;
mod export;
mod failure;
mod help;
mod identity;
mod import;
mod json;
mod mesh;
mod migrate;
mod output;
mod printable;
mod progress;
mod records;
mod server;
mod source;
mod stream;
mod sync;
mod tables;
mod target;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use context::{Context, Global};
use failure::{Exit, Failure};

/// Runs the tool with the arguments of this process.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let color = output::color_choice(&args);
    let given = args.clone();
    let outcome = match parse(args, color) {
        Ok(cli) => run(cli),
        Err(error) if error.kind() == ErrorKind::DisplayHelp && is_help_a_key(&given) => {
            Err(Failure::new(Exit::Usage, "it is not clear whether this asks for help or names a key")
                .hint("For help: cortex help get. For a key that begins with a dash, put -- before it: cortex get TABLE -- KEY"))
        }
        // Help and version arrive here too; `clap` knows which of them belong on standard output.
        Err(error) => {
            // A reader that is gone needs no usage message.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match outcome {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => output::report(&failure, color),
    }
}

/// Whether the option for help stands where a command takes a key: a script that passes a key on would take the
/// text of the help for the record.
fn is_help_a_key(args: &[OsString]) -> bool {
    /// Commands whose argument after the table is a key.
    const TAKE_KEYS: [&str; 3] = ["get", "delete", "explain"];
    args.windows(3).any(|words| {
        let [command, table, key] = words else {
            return false;
        };
        TAKE_KEYS.iter().any(|name| command == name)
            && !table.as_encoded_bytes().starts_with(b"-")
            && (key == "--help" || key == "-h")
    })
}

/// The command line that the tool takes, for manuals and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

fn parse(args: Vec<OsString>, color: ColorChoice) -> Result<Cli, clap::Error> {
    let matches = Cli::command().color(color).try_get_matches_from(args)?;
    Cli::from_arg_matches(&matches)
}

fn run(cli: Cli) -> Result<(), Failure> {
    let context = Context::new(cli.global);
    match cli.command {
        Command::Ping => server::ping(&context),
        Command::Status => server::status(&context),
        Command::Tables(args) => tables::list(&args, &context),
        Command::Create(args) => tables::create(&args, &context),
        Command::Drop(args) => tables::drop(&args, &context),
        Command::Table { command } => tables::table(&command, &context),
        Command::Info(args) => tables::info(&args, &context),
        Command::Get(args) => records::get(&args, &context),
        Command::Put(args) => records::put(&args, &context),
        Command::Delete(args) => records::delete(&args, &context),
        Command::Query(args) => records::query(&args, &context),
        Command::All(args) => records::all(&args, &context),
        Command::Keys(args) => records::keys(&args, &context),
        Command::Acl { command } => acl::run(&command, &context),
        Command::Scope(args) => tables::scope(&args, &context),
        Command::Sync { command } => sync::run(&command, &context),
        Command::Conflicts(args) => conflicts::run(&args, &context),
        Command::Explain(args) => explain::run(&args, &context),
        Command::Identity { command } => identity::run(&command, &context),
        Command::Import(args) => import::run(&args, &context),
        Command::Export(args) => export::run(&args, &context),
        Command::Migrate(args) => migrate::run(&args, &context),
        Command::Usage => admin::usage(&context),
        Command::Events(args) => admin::events(&args, &context),
        Command::Config { command } => admin::config(&command, &context),
        Command::Reload => admin::reload(&context),
        Command::Checkpoint => admin::checkpoint(&context),
        Command::Backup(args) => admin::backup(&args, &context),
        Command::Doctor(args) => doctor::run(&args, &context),
        Command::Completions(args) => completions::run(&args),
        Command::Mesh { command } => mesh::run(command, &context),
        Command::Help(args) => help::run(&args, &context),
    }
}

/// Use the store of cortexd: tables of records, on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "cortex",
    version,
    disable_help_subcommand = true,
    after_help = help::OVERVIEW,
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that the daemon answers
    Ping,
    /// Show the daemon's version and state
    Status,
    /// List your own tables, and with --all those that you may read
    Tables(tables::List),
    /// Create a table
    #[command(visible_alias = "create-table", alias = "create_table")]
    Create(tables::Create),
    /// Drop a table with all its records
    #[command(visible_alias = "drop-table", alias = "drop_table")]
    Drop(tables::Drop),
    /// Change whose a table is
    Table {
        #[command(subcommand)]
        command: tables::Table,
    },
    /// Show a table's owner, key, attributes, scope, replicas and permissions
    Info(tables::Info),
    /// Print one record
    Get(records::Get),
    /// Store one record, replacing the one with the same key
    Put(records::Put),
    /// Delete one record, whether or not it is there
    Delete(records::Delete),
    /// Print the records that match a pattern
    Query(records::Query),
    /// Print all records of a table
    All(records::All),
    /// Print all keys of a table
    Keys(records::Keys),
    /// Say who may do what to your tables
    Acl {
        #[command(subcommand)]
        command: acl::Acl,
    },
    /// Show where a table's data may be, or decide it
    Scope(tables::Scope),
    /// Show how replicas on other nodes are, wait for them, mend them
    Sync {
        #[command(subcommand)]
        command: sync::Sync,
    },
    /// List versions of records that have lost against others without having seen them
    Conflicts(conflicts::Conflicts),
    /// Say why a table or a record is or is not on a node, and what mends it
    Explain(explain::Explain),
    /// Be the same person on every node: federated names
    Identity {
        #[command(subcommand)]
        command: identity::Identity,
    },
    /// Store many records from a file
    Import(import::Import),
    /// Write all records of a table to a file
    Export(export::Export),
    /// Bring everything over from another daemon, and compare it
    Migrate(migrate::Migrate),
    /// Show how much each user owns; for an ordinary user, their own share
    Usage,
    /// Show what happened: tables made and dropped, rights given and taken
    Events(admin::Events),
    /// Show the settings that the daemon runs with
    Config {
        #[command(subcommand)]
        command: admin::Config,
    },
    /// Have the daemon read its settings again; fails with the reason where they are wrong
    Reload,
    /// Have the daemon move its log into the database
    Checkpoint,
    /// Write a checked copy of the whole database to a file; restore it with: /usr/libexec/cortexd restore FILE
    Backup(admin::Backup),
    /// Look over the installation: what is wrong, and what mends it
    Doctor(doctor::Doctor),
    /// Make a mesh of machines: its CA, certificates, invitations
    Mesh {
        #[command(subcommand)]
        command: mesh::Mesh,
    },
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Explain a command or a topic
    Help(help::Help),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each_command(command: &clap::Command, visit: &mut impl FnMut(&clap::Command)) {
        visit(command);
        for sub in command.get_subcommands() {
            each_command(sub, visit);
        }
    }

    #[test]
    fn the_commands_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_says_what_it_is() {
        each_command(&Cli::command(), &mut |command| {
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
            for arg in command.get_arguments() {
                assert!(
                    arg.get_help().is_some(),
                    "{} {} has no description",
                    command.get_name(),
                    arg.get_id()
                );
            }
        });
    }

    #[test]
    fn the_names_that_scripts_use_are_all_there() {
        let root = Cli::command();
        for name in [
            "ping",
            "status",
            "tables",
            "create",
            "create-table",
            "create_table",
            "drop",
            "drop-table",
            "drop_table",
            "get",
            "put",
            "delete",
            "query",
            "all",
            "keys",
            "acl",
            "help",
        ] {
            assert!(root.find_subcommand(name).is_some(), "{name}");
        }
        // Options that the original tool has for making a mesh by hand.
        for line in ["mesh init-ca --dir d --force", "mesh add-node home 10.0.0.1 --dir d"] {
            let words = std::iter::once("cortex").chain(line.split(' '));
            assert!(root.clone().try_get_matches_from(words).is_ok(), "{line}");
        }
        let acl = root.find_subcommand("acl").expect("acl is there");
        for name in ["grant", "revoke", "list"] {
            assert!(acl.find_subcommand(name).is_some(), "acl {name}");
        }
    }
}
