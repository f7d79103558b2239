//! Commands about records: `get`, `put`, `delete`, `query`, `all`, `keys`.
//! Leaves the comparison of keys and patterns to the daemon.

use std::io::Read;

use clap::Args;
use rmpv::Value;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::json;
use crate::client::Params;

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The table
    table: String,
    /// The key, as text: 7 finds the number 7 and the text "7", which are one key
    #[arg(allow_negative_numbers = true)]
    key: String,
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The table
    table: String,
    /// The record as a JSON object, or - to read it from standard input
    #[arg(value_name = "JSON|-")]
    record: String,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The table
    table: String,
    /// The key, as text
    #[arg(allow_negative_numbers = true)]
    key: String,
}

#[derive(Debug, Args)]
pub(crate) struct Query {
    /// The table
    table: String,
    /// A JSON object: each of its fields must equal the record's, or be in the record's list
    #[arg(value_name = "PATTERN")]
    pattern: String,
    #[command(flatten)]
    page: Page,
}

#[derive(Debug, Args)]
pub(crate) struct All {
    /// The table
    table: String,
    #[command(flatten)]
    page: Page,
}

#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// The table
    table: String,
    #[command(flatten)]
    page: Page,
}

/// Which part of a table is wanted, in the order of its keys.
#[derive(Debug, Args)]
pub(crate) struct Page {
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Only those after this key
    #[arg(long, value_name = "KEY", allow_negative_numbers = true)]
    pub(crate) after: Option<String>,
}

impl Page {
    /// Adds the page to the parameters; a whole table is asked for in the form that every daemon knows.
    pub(crate) fn add_to(&self, params: Params) -> Params {
        let limit = self.limit.map(|limit| ("limit".into(), limit.into()));
        let after = self.after.as_deref().map(|key| ("after".into(), key.into()));
        let options: Vec<(Value, Value)> = limit.into_iter().chain(after).collect();
        if options.is_empty() { params } else { params.value(&Value::Map(options)) }
    }
}

pub(crate) fn get(args: &Get, context: &Context) -> Result<(), Failure> {
    let params = Params::new().str(&args.table).str(&args.key);
    context.call("get", &params).map_err(|failure| failure.about_table(&args.table))
}

pub(crate) fn put(args: &Put, context: &Context) -> Result<(), Failure> {
    let record = if args.record == "-" {
        object("the record", &standard_input()?, Exit::Failed)?
    } else {
        object("the record", args.record.as_bytes(), Exit::Usage)?
    };
    let params = Params::new().str(&args.table).raw(&record);
    context.call("put", &params).map_err(|failure| failure.about_table(&args.table))
}

pub(crate) fn delete(args: &Delete, context: &Context) -> Result<(), Failure> {
    let params = Params::new().str(&args.table).str(&args.key);
    context.call("delete", &params).map_err(|failure| failure.about_table(&args.table))
}

pub(crate) fn query(args: &Query, context: &Context) -> Result<(), Failure> {
    let pattern = object("the pattern", args.pattern.as_bytes(), Exit::Usage)?;
    let params = args.page.add_to(Params::new().str(&args.table).raw(&pattern));
    context.call_streamed("match", &params).map_err(|failure| failure.about_table(&args.table))
}

pub(crate) fn all(args: &All, context: &Context) -> Result<(), Failure> {
    let params = args.page.add_to(Params::new().str(&args.table));
    context.call_streamed("all", &params).map_err(|failure| failure.about_table(&args.table))
}

pub(crate) fn keys(args: &Keys, context: &Context) -> Result<(), Failure> {
    let params = args.page.add_to(Params::new().str(&args.table));
    context.call_streamed("keys", &params).map_err(|failure| failure.about_table(&args.table))
}

fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut text)
        .map_err(|e| Failure::while_doing("reading the record from standard input", e))?;
    Ok(text)
}

/// The JSON object `text` as MessagePack.
fn object(what: &str, text: &[u8], exit: Exit) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    json::read(text, &mut bytes).map_err(|e| {
        Failure::new(exit, format!("{what} is not JSON: {e}"))
            .hint(r#"In a shell, put single quotes around it, as in: '{"id": 7, "name": "Ann"}'"#)
    })?;
    if json::is_object(&bytes) {
        Ok(bytes)
    } else {
        Err(Failure::new(exit, format!("{what} is not a JSON object"))
            .hint(r#"An object has names and values, as in: '{"id": 7, "name": "Ann"}'"#))
    }
}
