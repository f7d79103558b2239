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
mod init;
mod init_ca;
mod invite;
mod join;
mod joiners;
mod online;
mod place;
mod renew;
mod report;
mod revoke;
mod settings;
mod sign;
mod timed;

use std::path::Path;

use clap::Subcommand;

use super::context::Context;
use super::failure::Failure;
use crate::pki::Files;

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

/// The node that a configuration names, and its files; none where it says nothing of a mesh.
pub(crate) fn configured(configuration: &Path) -> Result<Option<(String, Files)>, Failure> {
    let settings = settings::Settings::read(configuration)?;
    let beside = configuration.parent().unwrap_or(Path::new(""));
    Ok(settings.map(|settings| {
        let files = Files {
            ca_cert: beside.join(settings.ca_cert),
            node_cert: beside.join(settings.node_cert),
            node_key: beside.join(settings.node_key),
            crl: beside.join(settings.crl),
        };
        (settings.node_name, files)
    }))
}
