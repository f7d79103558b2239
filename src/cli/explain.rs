//! The command `explain`: why a table or a record is or is not on a node.
//! Leaves the reasons to the daemon.

use clap::Args;
use cortex_client::api::{self, ExplainOptions, KeyText};

use super::context::Context;
use super::failure::Failure;
use super::records;

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
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(json)) => Some(records::key_text("--key-json", json)?),
        (None, None) => None,
    };
    let options = ExplainOptions { key: key.map(KeyText), node: args.node.clone() };
    let explain = api::Explain { table: &args.table, options };
    context.call(&explain).map_err(|failure| failure.about_table(&args.table))
}
