//! Commands about the mesh of a running daemon: `mesh list-nodes`, `mesh status`, `mesh remove-node`,
//! `mesh reload`.
//! Leaves what they report to the daemon.

use clap::{Args, Subcommand};
use cortex_client::api::{MeshListNodes, MeshRemoveNode, MeshStatus};
use cortex_core::model::NodeName;

use super::report::node_name;
use crate::cli::admin;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::note;

#[derive(Debug, Subcommand)]
pub(crate) enum Online {
    /// List the other machines of the mesh and where they are dialled
    ListNodes,
    /// Show each machine's link, state, round trip, clock and certificate, and who was refused
    Status,
    /// Put a node out of the mesh for good: its replicas, and who its users are, do not count any more
    RemoveNode(RemoveNode),
    /// Have the daemon read its settings, certificates and revocation list again
    Reload,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveNode {
    /// The node's name
    #[arg(value_parser = node_name)]
    name: NodeName,
}

pub(crate) fn run(command: &Online, context: &Context) -> Result<(), Failure> {
    match command {
        Online::ListNodes => context.call(&MeshListNodes {}),
        Online::Status => context.call(&MeshStatus {}),
        Online::RemoveNode(args) => remove_node(&args.name, context),
        Online::Reload => admin::reload(context),
    }
}

fn remove_node(name: &NodeName, context: &Context) -> Result<(), Failure> {
    context.call(&MeshRemoveNode { node: name.as_str() }).map_err(Failure::about_administration)?;
    note(&format!(
        "{name} is out of the mesh on every node that receives this. What only it had is lost."
    ));
    note("Its users are nobody from now on; nobody waits for its replicas any more.");
    note(&format!("next, where the CA is: cortex mesh revoke-certificate {name}"));
    note(&format!(
        "then take {name} out of the nodes in the settings of every node: cortex mesh reload"
    ));
    note(&format!(
        "To have the machine back, install it again without its data: cortex mesh invite {name}"
    ));
    Ok(())
}
