//! Commands about records: `get`, `put`, `delete`, `query`, `all`, `keys`.
//! Leaves the comparison of keys and patterns to the daemon.

use std::io::{self, Read};

use clap::Args;
use cortex_client::api::{self, Raw};
use cortex_core::model::{Key, Limits};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::json;
use super::source::{self, MAX_TEXT};
use super::stream::{self, List, ListKind};

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The table
    table: String,
    #[command(flatten)]
    key: KeyArg,
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
    #[command(flatten)]
    key: KeyArg,
}

#[derive(Debug, Args)]
pub(crate) struct Query {
    /// The table
    table: String,
    /// A JSON object: each of its fields must equal the record's, or be in the record's list; - reads it from
    /// standard input
    #[arg(value_name = "PATTERN|-")]
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
    limit: Option<u64>,
    /// Only those after this key
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    after: Option<String>,
    /// The same, as JSON
    #[arg(long, value_name = "JSON", allow_hyphen_values = true, conflicts_with = "after")]
    after_json: Option<String>,
}

impl Page {
    /// The list of this page.
    fn list<'t>(&self, what: ListKind, table: &'t str) -> Result<List<'t>, Failure> {
        let after = match (&self.after, &self.after_json) {
            (Some(text), _) => Some(api::encoded(text)),
            (None, Some(json)) => Some(key_in_json("--after-json", json)?),
            (None, None) => None,
        };
        Ok(List { what, table, limit: self.limit, after })
    }
}

/// The key of one record, as text or, for what no argument can hold, as JSON.
#[derive(Debug, Args)]
struct KeyArg {
    /// The key, as text: 7 finds the number 7 and the text "7", which are one key
    #[arg(allow_hyphen_values = true, required_unless_present = "key_json")]
    key: Option<String>,
    /// The key, as JSON: for one with a NUL in it, as in '"a\\u0000b"'
    #[arg(long, value_name = "JSON", allow_hyphen_values = true, conflicts_with = "key")]
    key_json: Option<String>,
}

impl KeyArg {
    /// As MessagePack.
    fn encoded(&self) -> Result<Vec<u8>, Failure> {
        match (&self.key, &self.key_json) {
            (Some(text), _) => Ok(api::encoded(text)),
            (None, Some(json)) => key_in_json("--key-json", json),
            (None, None) => Ok(api::encoded(&())),
        }
    }
}

/// The key that the JSON in an option is, as MessagePack.
fn key_in_json(option: &str, json: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    json::read(json.as_bytes(), &mut bytes).map_err(|e| {
        Failure::new(Exit::Usage, format!("{option} is not JSON: {e}"))
            .hint(format!(r#"A text has double quotes, as in: {option} '"a"'"#))
    })?;
    Ok(bytes)
}

/// The same, as the text by which the daemon knows it.
pub(crate) fn key_text(option: &str, json: &str) -> Result<Vec<u8>, Failure> {
    let any_length = Limits { key_bytes: usize::MAX, ..Limits::default() };
    let key = Key::read(&key_in_json(option, json)?, &any_length);
    let key = key.map_err(|why| Failure::new(Exit::Usage, format!("{option} is no key: {why}")))?;
    Ok(key.as_bytes().to_vec())
}

pub(crate) fn get(args: &Get, context: &Context) -> Result<(), Failure> {
    let get = api::Get { table: &args.table, key: Raw(&args.key.encoded()?) };
    context.call(&get).map_err(|failure| failure.about_table(&args.table))
}

pub(crate) fn put(args: &Put, context: &Context) -> Result<(), Failure> {
    let record = object("the record", &args.record)?;
    let put = api::Put { table: &args.table, record: Raw(&record) };
    context.call(&put).map_err(|failure| failure.about_table(&args.table))
}

pub(crate) fn delete(args: &Delete, context: &Context) -> Result<(), Failure> {
    let delete = api::Delete { table: &args.table, key: Raw(&args.key.encoded()?) };
    context.call(&delete).map_err(|failure| failure.about_table(&args.table))
}

pub(crate) fn query(args: &Query, context: &Context) -> Result<(), Failure> {
    let pattern = object("the pattern", &args.pattern)?;
    print(args.page.list(ListKind::Match(pattern), &args.table)?, context)
}

pub(crate) fn all(args: &All, context: &Context) -> Result<(), Failure> {
    print(args.page.list(ListKind::All, &args.table)?, context)
}

pub(crate) fn keys(args: &Keys, context: &Context) -> Result<(), Failure> {
    print(args.page.list(ListKind::Keys, &args.table)?, context)
}

fn print(mut list: List<'_>, context: &Context) -> Result<(), Failure> {
    stream::print(context, &mut list).map_err(|failure| failure.about_table(list.table))
}

/// Reads no more than a request could hold: a file without an end would take all memory.
fn standard_input(what: &str) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_TEXT as u64 + 1)
        .read_to_end(&mut text)
        .map_err(|e| Failure::while_doing(&format!("reading {what} from standard input"), e))?;
    if text.len() > MAX_TEXT {
        return Err(Failure::new(
            Exit::Failed,
            format!("{what} is too large: standard input has more than {MAX_TEXT} bytes, and a request holds 1 MiB"),
        )
        .hint("Many records, one on each line, are for: cortex import TABLE"));
    }
    Ok(text)
}

/// The JSON object that an argument is, or for - standard input, as MessagePack.
fn object(what: &str, argument: &str) -> Result<Vec<u8>, Failure> {
    if argument != "-" {
        return parsed(what, argument.as_bytes(), Exit::Usage);
    }
    let text = standard_input(what)?;
    parsed(what, source::without_mark(&text), Exit::Failed)
}

fn parsed(what: &str, text: &[u8], exit: Exit) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    json::read(text, &mut bytes).map_err(|e| {
        let hint = if e.is_followed() {
            "There is more than one value; many records, one on each line, are for: cortex import TABLE"
        } else {
            r#"In a shell, put single quotes around it, as in: '{"id": 7, "name": "Ann"}'"#
        };
        Failure::new(exit, format!("{what} is not JSON: {e}")).hint(hint)
    })?;
    if json::is_object(&bytes) {
        Ok(bytes)
    } else {
        Err(Failure::new(exit, format!("{what} is not a JSON object"))
            .hint(r#"An object has names and values, as in: '{"id": 7, "name": "Ann"}'"#))
    }
}
