//! Commands about the mesh: `mesh init-ca`, `mesh add-node` and the rest, one file each.
//! Leaves keys and certificates to `pki`, and the mesh in service to the daemon.
//!
//! ```text
//!  where the CA is                          on the new machine
//!  init-ca, add-node, sign, renew,          join CODE ──> key, request ─┐
//!  revoke-certificate, certificates                                     │ TLS, fingerprint in CODE
//!  invite NAME ──> CODE ············································    │
//!        └─ listens <───────────────────────────────────────────────────┘
//!           certificate, CA, revocation list, nodes ──> files, [mesh] in the configuration
//! ```

mod add_node;
mod certificates;
mod code;
mod conversation;
mod guests;
mod init;
mod init_ca;
mod invite;
mod join;
mod online;
mod place;
mod renew;
mod report;
mod revoke;
mod settings;
mod sign;
mod timed;

use clap::Subcommand;

use super::context::Context;
use super::failure::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Mesh {
    /// Make this machine the first node of a new mesh: a CA, a certificate, the configuration
    Init(init::Init),
    /// Ask a machine in: print a code for it, and wait until it has joined
    Invite(invite::Invite),
    /// Join a mesh with the code of an invitation: the key is made here and never leaves
    Join(join::Join),
    /// Make a certificate authority
    InitCa(init_ca::InitCa),
    /// Make a key and a certificate for a node, to be carried there
    AddNode(add_node::AddNode),
    /// Make a certificate for a node from a request that another tool has made
    Sign(sign::Sign),
    /// Make a node's certificate anew, for the same key
    Renew(renew::Renew),
    /// Put a node's certificates, or one by its serial number, on the revocation list
    RevokeCertificate(revoke::RevokeCertificate),
    /// List the certificates that were issued
    Certificates(certificates::Certificates),
    #[command(flatten)]
    Online(online::Online),
}

pub(crate) fn run(command: Mesh, context: &Context) -> Result<(), Failure> {
    match command {
        Mesh::Init(args) => init::run(&args, context),
        Mesh::Invite(args) => invite::run(&args, context),
        Mesh::Join(args) => join::run(&args, context),
        Mesh::InitCa(args) => init_ca::run(&args, context),
        Mesh::AddNode(args) => add_node::run(&args, context),
        Mesh::Sign(args) => sign::run(&args, context),
        Mesh::Renew(args) => renew::run(&args, context),
        Mesh::RevokeCertificate(args) => revoke::run(&args, context),
        Mesh::Certificates(args) => certificates::run(&args, context),
        Mesh::Online(command) => online::run(&command, context),
    }
}
