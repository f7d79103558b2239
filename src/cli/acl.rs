//! Commands about rights: `acl grant`, `acl revoke`, `acl list`.
//! Leaves what an identity and a permission are to the daemon.

use clap::{Args, Subcommand};
use cortex_client::api::{AclGrant, AclList, AclRevoke, TextOrList};

use super::context::Context;
use super::failure::Failure;
use super::tables::split_list;

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
        Acl::Grant(Change { identity, table, permissions }) => {
            let permissions = &split_list(permissions).join(",");
            let permissions = TextOrList::Text(permissions);
            let granted = context.call(&AclGrant { identity, table, permissions });
            granted.map_err(|failure| failure.about_table(table))
        }
        Acl::Revoke(Change { identity, table, permissions }) => {
            let permissions = &split_list(permissions).join(",");
            let permissions = TextOrList::Text(permissions);
            let revoked = context.call(&AclRevoke { identity, table, permissions });
            revoked.map_err(|failure| failure.about_table(table))
        }
        Acl::List => context.call(&AclList {}),
    }
}
