//! Commands about the mesh of a running daemon: `mesh list-nodes`, `mesh status`, `mesh reload`.
//! Leaves what they report to the daemon.

use clap::Subcommand;

use crate::cli::admin;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::client::Params;

#[derive(Debug, Subcommand)]
pub(crate) enum Online {
    /// List the other machines of the mesh and where they are dialled
    ListNodes,
    /// Show each machine's link, state, round trip, clock and certificate, and who was refused
    Status,
    /// Have the daemon read its settings, certificates and revocation list again
    Reload,
}

pub(crate) fn run(command: &Online, context: &Context) -> Result<(), Failure> {
    match command {
        Online::ListNodes => context.call("mesh_list_nodes", &Params::new()),
        Online::Status => context.call("mesh_status", &Params::new()),
        Online::Reload => admin::reload(context),
    }
}
