//! The command `mesh init-ca`: a new mesh's certificate authority.
//! Leaves nodes to the other commands.

use std::path::PathBuf;

use clap::Args;

use super::place::MeshPaths;
use super::report::{now, path, print};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::pki::files::IfExists;
use crate::pki::{Authority, shown};

#[derive(Debug, Args)]
pub(crate) struct InitCa {
    /// Where to keep the CA [default: `ca` in the data directory]
    #[arg(long, alias = "dir", value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace a CA that is there; every node then needs a new certificate
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &InitCa, context: &Context) -> Result<(), Failure> {
    let places = MeshPaths::find(context)?;
    if args.output.is_none() {
        places.make_state()?;
    }
    let dir = places.ca_dir(args.output.as_deref());
    let present = if args.force { IfExists::Replace } else { IfExists::Keep };
    let authority = Authority::create(&dir, present, now())?;
    note(&format!(
        "Whoever has {} can let anybody into the mesh: keep a copy offline, and no other.",
        dir.join("ca.key").display()
    ));
    print(
        context,
        vec![
            ("mesh", authority.mesh().to_string().into()),
            ("directory", path(&dir)),
            ("expires", shown(authority.not_after()).into()),
        ],
    )
}
