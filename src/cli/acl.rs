//! Commands about rights: `acl grant`, `acl revoke`, `acl list`.
//! Leaves what an identity and a permission are to the daemon.

use clap::{Args, Subcommand};

use super::context::Context;
use super::failure::Failure;
use super::tables::words;
use crate::client::Params;

#[derive(Debug, Subcommand)]
pub(crate) enum Acl {
    /// Allow an identity something on a table of yours
    Grant(Change),
    /// Take back what was granted
    Revoke(Change),
    /// List what is granted on your tables
    List,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    /// Who: uid:N for a user of this machine, @name for a federated identity, '*' for everybody
    identity: String,
    /// The table
    table: String,
    /// What: read, write, admin, separated by spaces or commas
    #[arg(value_name = "PERM", required = true)]
    permissions: Vec<String>,
}

pub(crate) fn run(command: &Acl, context: &Context) -> Result<(), Failure> {
    match command {
        Acl::Grant(change) => call("acl_grant", change, context),
        Acl::Revoke(change) => call("acl_revoke", change, context),
        Acl::List => context.call("acl_list", &Params::new()),
    }
}

fn call(method: &str, change: &Change, context: &Context) -> Result<(), Failure> {
    let permissions = words(&change.permissions).join(",");
    let params = Params::new().str(&change.identity).str(&change.table).str(&permissions);
    context.call(method, &params).map_err(|failure| failure.about_table(&change.table))
}
