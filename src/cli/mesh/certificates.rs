//! The command `mesh certificates`: what the CA has issued.
//! Leaves what the nodes have installed to the nodes.

use std::path::PathBuf;

use clap::Args;
use rmpv::Value;

use super::place::MeshPaths;
use super::report::{now, object, print_value};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::pki::{Authority, Record};

#[derive(Debug, Args)]
pub(crate) struct Certificates {
    /// The CA's directory [default: `ca` in the data directory]
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Certificates, context: &Context) -> Result<(), Failure> {
    let authority = Authority::open(&MeshPaths::find(context)?.ca_dir(args.ca_dir.as_deref()))?;
    let now = now();
    let listed = authority.records().iter().map(|record| shown(record, now));
    print_value(context, &Value::Array(listed.collect()))
}

fn shown(record: &Record, now: u64) -> Value {
    object(vec![
        ("node", record.name.as_str().into()),
        ("serial", record.serial.as_str().into()),
        ("host", record.host.as_str().into()),
        ("issued", record.issued.as_str().into()),
        ("expires", record.expires.as_str().into()),
        ("revoked", record.revoked.as_deref().map_or(Value::Nil, Value::from)),
        ("good", record.is_good(now).into()),
    ])
}
