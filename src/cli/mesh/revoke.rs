//! The command `mesh revoke-certificate`: onto the revocation list, and into this node's copy of it.
//! Leaves the copies of other nodes to the administrator.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use cortex_core::model::NodeName;
use rmpv::Value;

use super::place::MeshPaths;
use super::report::{io_failure, now, path, print};
use super::settings::Settings;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::pki::Authority;
use crate::pki::files::{self, IfExists, Readers};

/// What makes a running daemon look at its files again.
pub(super) const RELOAD: &str = "next: systemctl reload cortexd";

#[derive(Debug, Args)]
pub(crate) struct RevokeCertificate {
    /// A node's name, for all its certificates, or one certificate's serial number
    #[arg(value_name = "NAME|SERIAL")]
    which: String,
    /// The CA's directory [default: `ca` in the data directory]
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
}

pub(crate) fn run(args: &RevokeCertificate, context: &Context) -> Result<(), Failure> {
    let places = MeshPaths::find(context)?;
    let ca_dir = places.ca_dir(args.ca_dir.as_deref());
    let mut authority = Authority::open(&ca_dir)?;
    let revoked = authority.revoke(&args.which, now())?;
    let list = ca_dir.join("crl.pem");
    if let Some(own) = Own::find(&places, &authority) {
        own.put_revocation_list(&authority.revocation_list()?)?;
        note(RELOAD);
    }
    note(&format!(
        "Every other node needs {} too, in the place of its own, and a reload.",
        list.display()
    ));
    let serials = revoked.iter().map(|serial| Value::from(serial.to_string()));
    print(context, vec![("revoked", Value::Array(serials.collect())), ("crl", path(&list))])
}

/// This machine, where it is a node of the CA's mesh itself.
#[derive(Debug)]
pub(super) struct Own(Settings);

impl Own {
    /// Nothing where this machine is configured for no mesh, or for another one: the CA may be anywhere.
    pub(super) fn find(places: &MeshPaths, authority: &Authority) -> Option<Self> {
        let settings = Settings::read(places.configuration().ok()?).ok()??;
        let is_same = fs::read_to_string(&settings.ca_cert).is_ok_and(|pem| pem == authority.pem());
        is_same.then_some(Self(settings))
    }

    pub(super) fn is(&self, node: &NodeName) -> bool {
        self.0.node_name == node.as_str()
    }

    pub(super) fn put_certificate(&self, pem: &str) -> Result<(), Failure> {
        replace(&self.0.node_cert, pem)
    }

    pub(super) fn put_revocation_list(&self, pem: &str) -> Result<(), Failure> {
        replace(&self.0.crl, pem)
    }
}

/// Puts a file in the place of another, whose owner it gets where that may be.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let is_root = nix::unistd::geteuid().is_root();
    let put = || {
        let meta = fs::metadata(path)?;
        let owner = is_root.then_some((meta.uid(), meta.gid()));
        files::write(path, text.as_bytes(), Readers::Everybody, IfExists::Replace, owner)
    };
    put().map_err(|e| io_failure("write", path, &e))
}
