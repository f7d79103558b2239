//! The command `explain`: why a table or a record is or is not on a node.
//! Leaves the reasons to the daemon.

use clap::Args;
use rmpv::Value;

use super::context::Context;
use super::failure::Failure;
use super::records;
use crate::client::Params;

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The table
    table: String,
    /// A record's key, as text; without it, the table as a whole
    #[arg(allow_hyphen_values = true)]
    key: Option<String>,
    /// The same, as JSON
    #[arg(long, value_name = "JSON", allow_hyphen_values = true, conflicts_with = "key")]
    key_json: Option<String>,
    /// On which node [default: this one]
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

pub(crate) fn run(args: &Explain, context: &Context) -> Result<(), Failure> {
    let key = match (&args.key, &args.key_json) {
        (Some(text), _) => Some(Value::from(text.as_str())),
        (None, Some(json)) => Some(records::key_in_json("--key-json", json)?),
        (None, None) => None,
    };
    let key = key.map(|key| (Value::from("key"), key));
    let node = args.node.as_deref().map(|node| (Value::from("node"), Value::from(node)));
    let options = Value::Map(key.into_iter().chain(node).collect());
    let params = Params::new().str(&args.table).value(&options);
    context.call("explain", &params).map_err(|failure| failure.about_table(&args.table))
}
