//! The command `mesh add-node`: a node's key and certificate, in a directory to be carried to it.
//! Leaves carrying it to the administrator; `mesh join` needs no carrying.

use std::path::PathBuf;

use clap::Args;
use cortex_core::model::NodeName;

use super::place::{Bundle, MeshPaths, Prepared, occupied};
use super::report::{node_name, now, path, print};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::pki::files::IfExists;
use crate::pki::{Authority, Duplicate, NewKey, shown};

#[derive(Debug, Args)]
pub(crate) struct AddNode {
    /// The node's name: a-z, 0-9 and inner hyphens
    #[arg(value_parser = node_name)]
    name: NodeName,
    /// Where others reach it: a DNS name or an address
    host: String,
    /// The CA's directory [default: `ca` in the data directory]
    #[arg(long, alias = "dir", value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// Where to put the files [default: `nodes/NAME` in the CA's directory]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Issue another certificate to a node that has one, and put aside files that are there
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &AddNode, context: &Context) -> Result<(), Failure> {
    let now = now();
    let ca_dir = MeshPaths::find(context)?.ca_dir(args.ca_dir.as_deref());
    let (duplicate, present) = if args.force {
        (Duplicate::Allow, IfExists::Replace)
    } else {
        (Duplicate::Refuse, IfExists::Keep)
    };
    let mut authority = Authority::open(&ca_dir)?;
    authority.may_issue(&args.name, &args.host, duplicate, now)?;
    let target =
        args.output.clone().unwrap_or_else(|| ca_dir.join("nodes").join(args.name.as_str()));
    if present == IfExists::Keep && target.exists() {
        return Err(occupied(&target));
    }
    let key = NewKey::generate()?;
    let issued = authority.issue(&args.name, &args.host, &key.public()?, duplicate, now)?;
    let bundle = Bundle {
        ca_cert: authority.pem(),
        node_cert: &issued.pem,
        node_key: &key.pem(),
        crl: &authority.revocation_list()?,
    };
    let prepared = Prepared::write(&target, &bundle, None)?;
    prepared.check(&args.name, now)?;
    prepared.put(present)?;
    note(&format!(
        "next: move {} to {}, key included, and name its files under [mesh]: cortex.toml(5)",
        target.display(),
        args.name
    ));
    print(
        context,
        vec![
            ("node", args.name.to_string().into()),
            ("serial", issued.serial.to_string().into()),
            ("expires", shown(issued.not_after).into()),
            ("directory", path(&target)),
        ],
    )
}
