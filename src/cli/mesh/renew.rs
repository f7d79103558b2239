//! The command `mesh renew`: a node's certificate anew, before the old one expires.
//! Leaves revoking the old one to `mesh revoke-certificate`; it stays good until it expires.

use std::path::PathBuf;

use clap::Args;
use cortex_core::model::NodeName;

use super::place::MeshPaths;
use super::report::{node_name, now, print};
use super::revoke::{self, Own};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::pki::{Authority, shown};

#[derive(Debug, Args)]
pub(crate) struct Renew {
    /// The node's name
    #[arg(value_parser = node_name)]
    name: NodeName,
    /// The CA's directory [default: `ca` in the data directory]
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Renew, context: &Context) -> Result<(), Failure> {
    let places = MeshPaths::find(context)?;
    let mut authority = Authority::open(&places.ca_dir(args.ca_dir.as_deref()))?;
    let issued = authority.renew(&args.name, now())?;
    let own = Own::find(&places, &authority);
    let is_own = own.as_ref().filter(|own| own.is(&args.name));
    if let Some(own) = is_own {
        own.put_certificate(&issued.pem)?;
        note(revoke::RELOAD);
    } else {
        note(&format!(
            "next: put the certificate in the place of the old one on {}, and there: systemctl reload cortexd",
            args.name
        ));
    }
    print(
        context,
        vec![
            ("node", args.name.to_string().into()),
            ("serial", issued.serial.to_string().into()),
            ("expires", shown(issued.not_after).into()),
            ("certificate", issued.pem.into()),
        ],
    )
}
