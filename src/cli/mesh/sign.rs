//! The command `mesh sign`: a certificate for a key that was made elsewhere.
//! Leaves the request to whatever tool has made it: nothing but its key is taken.

use std::path::PathBuf;

use clap::Args;
use cortex_core::model::NodeName;

use super::place::MeshPaths;
use super::report::{io_failure, node_name, now, print};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::pki::{Authority, Duplicate, PublicKey, shown};

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The request, PEM, as of: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256
    #[arg(value_name = "CSRFILE")]
    request: PathBuf,
    /// The node's name: a-z, 0-9 and inner hyphens
    #[arg(value_parser = node_name)]
    name: NodeName,
    /// Where others reach it: a DNS name or an address
    host: String,
    /// The CA's directory [default: `ca` in the data directory]
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Sign, context: &Context) -> Result<(), Failure> {
    let ca_dir = MeshPaths::find(context)?.ca_dir(args.ca_dir.as_deref());
    let request =
        std::fs::read(&args.request).map_err(|e| io_failure("read", &args.request, &e))?;
    let key = PublicKey::from_request(&request)?;
    let mut authority = Authority::open(&ca_dir)?;
    let issued = authority.issue(&args.name, &args.host, &key, Duplicate::Refuse, now())?;
    print(
        context,
        vec![
            ("node", args.name.to_string().into()),
            ("serial", issued.serial.to_string().into()),
            ("expires", shown(issued.not_after).into()),
            ("certificate", issued.pem.into()),
            ("ca", authority.pem().into()),
            ("crl", authority.revocation_list()?.into()),
        ],
    )
}
