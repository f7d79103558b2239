//! Commands about tables as a whole: `tables`, `create`, `drop`, `info`, `scope`, `table chown`.
//! Leaves names, rights and scopes to the daemon.

use std::io::{self, IsTerminal, Write};

use clap::{ArgAction, Args, Subcommand};
use cortex_client::api::{
    self, Attributes, ChownOptions, DropOptions, ScopeOptions, TablesOptions, TextOrList,
};

use super::context::Context;
use super::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Also those that others let you read; all by their full names
    #[arg(long, action = ArgAction::SetTrue)]
    all: bool,
    /// Say of each where it may be, how the replica here is, and how much it holds
    #[arg(long, short, action = ArgAction::SetTrue)]
    long: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The table: `users`, or `@memories` for one that belongs to your federated name
    #[arg(value_name = "NAME")]
    name: String,
    /// The attributes, separated by spaces or commas; the first is the key
    #[arg(value_name = "ATTR", required = true)]
    attributes: Vec<String>,
    /// Which nodes hold a replica: `local`, `all`, or names of nodes separated by commas
    #[arg(long)]
    scope: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Drop {
    /// The table
    table: String,
    /// Do not ask, even at a terminal
    #[arg(long, short)]
    yes: bool,
    /// Drop the replica of this machine alone, and keep the table away from it; for root
    #[arg(long)]
    replica: bool,
    /// Take back that the replica of this machine was dropped
    #[arg(long, requires = "replica")]
    undo: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Table {
    /// Hand a table over to another owner, with its records, grants and replicas; for root
    Chown(Chown),
}

#[derive(Debug, Args)]
pub(crate) struct Chown {
    /// The table: its name, or id:ID
    table: String,
    /// Who has it from then on: @name for a federated identity, uid:N for a user of this machine
    #[arg(value_name = "OWNER")]
    owner: String,
    /// What it is called from then on, where the new owner has a table of its name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// The table
    table: String,
}

#[derive(Debug, Args)]
pub(crate) struct Scope {
    /// The table
    table: String,
    /// Which nodes may hold its data: `local`, `all`, or names of nodes separated by commas
    #[arg(value_name = "SCOPE")]
    scope: Option<String>,
    /// Abandon the replica of a node that will not come back, with all that only it has; can be repeated
    #[arg(long, value_name = "NODE", requires = "scope")]
    abandon: Vec<String>,
}

pub(crate) fn list(args: &List, context: &Context) -> Result<(), Failure> {
    // In the form that every daemon knows, unless something is chosen.
    context.call(&api::Tables { options: TablesOptions { all: args.all, details: args.long } })
}

pub(crate) fn create(args: &Create, context: &Context) -> Result<(), Failure> {
    let attributes = split_list(&args.attributes);
    if attributes.is_empty() {
        return Err(Failure::new(Exit::Usage, "a table needs at least one attribute, its key")
            .hint(format!("For example: cortex create {} id name", args.name)));
    }
    let creation = api::CreateTable {
        name: &args.name,
        attributes: attributes.into_iter().collect::<Attributes<'_>>(),
        scope: args.scope.as_deref().map(TextOrList::Text),
    };
    context.call(&creation).map_err(|failure| failure.about_table(&args.name))
}

/// Splits arguments at spaces and commas.
pub(crate) fn split_list(arguments: &[String]) -> Vec<&str> {
    let separator = |c: char| c == ',' || c.is_whitespace();
    arguments
        .iter()
        .flat_map(|argument| argument.split(separator))
        .filter(|word| !word.is_empty())
        .collect()
}

pub(crate) fn drop(args: &Drop, context: &Context) -> Result<(), Failure> {
    // Scripts have always dropped tables without being asked, so only somebody at a terminal is.
    let somebody_is_there = io::stdin().is_terminal() && io::stderr().is_terminal();
    if somebody_is_there && !args.yes && !args.undo && !confirmed(args)? {
        return Err(Failure::new(Exit::Failed, format!("{} is not dropped", args.table)));
    }
    let options = DropOptions { replica: args.replica, undo: args.undo };
    let dropped = context.call(&api::DropTable { table: &args.table, options });
    dropped.map_err(|failure| failure.about_table(&args.table))
}

fn confirmed(args: &Drop) -> Result<bool, Failure> {
    let attempt = "asking whether to drop the table";
    let mut stderr = io::stderr().lock();
    let table = &args.table;
    let what = if args.replica { "from this machine alone" } else { "with all its records" };
    write!(stderr, "Drop {table} {what}? [y/N] ")
        .and_then(|()| stderr.flush())
        .map_err(|e| Failure::while_doing(attempt, e))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|e| Failure::while_doing(attempt, e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

pub(crate) fn table(command: &Table, context: &Context) -> Result<(), Failure> {
    let Table::Chown(args) = command;
    let options = ChownOptions { name: args.name.clone() };
    let chown = api::TableChown { table: &args.table, owner: &args.owner, options };
    context.call(&chown).map_err(|mut failure| {
        if failure.message == "already_exists" {
            failure.hint = Some(TAKEN.to_owned());
        }
        failure.about_table(&args.table)
    })
}

/// What to do where the new owner has a table of that name.
const TAKEN: &str = "They have a table of that name. To hand it over under another one: cortex table chown TABLE OWNER --name NAME";

pub(crate) fn info(args: &Info, context: &Context) -> Result<(), Failure> {
    context
        .call(&api::TableInfo { table: &args.table })
        .map_err(|failure| failure.about_table(&args.table))
}

pub(crate) fn scope(args: &Scope, context: &Context) -> Result<(), Failure> {
    let table = &args.table;
    let outcome = match &args.scope {
        None => context.call(&api::GetScope { table }),
        Some(scope) => {
            let options = ScopeOptions { abandon: args.abandon.clone() };
            context.call(&api::SetScope { table, scope: TextOrList::Text(scope), options })
        }
    };
    outcome.map_err(|failure| failure.about_table(&args.table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_separated_by_spaces_or_commas_or_both() {
        let split = |arguments: &[&str]| {
            let owned: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
            split_list(&owned).join("|")
        };
        assert_eq!(split(&["id", "name", "mail"]), "id|name|mail");
        assert_eq!(split(&["id,name,mail"]), "id|name|mail");
        assert_eq!(split(&["id, name", "mail,"]), "id|name|mail");
        assert_eq!(split(&[" , "]), "");
    }
}
