//! The command `explain`: why a table or a record is or is not on a node.
//! Leaves the reasons to the daemon.

use clap::Args;
use rmpv::Value;

use super::context::Context;
use super::failure::Failure;
use crate::client::Params;

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The table
    table: String,
    /// A record's key, as text; without it, the table as a whole
    #[arg(allow_negative_numbers = true)]
    key: Option<String>,
    /// On which node [default: this one]
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

pub(crate) fn run(args: &Explain, context: &Context) -> Result<(), Failure> {
    let key = args.key.as_deref().map(|key| (Value::from("key"), Value::from(key)));
    let node = args.node.as_deref().map(|node| (Value::from("node"), Value::from(node)));
    let options = Value::Map(key.into_iter().chain(node).collect());
    let params = Params::new().str(&args.table).value(&options);
    context.call("explain", &params).map_err(|failure| failure.about_table(&args.table))
}
