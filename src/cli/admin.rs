//! Commands for administrators: `usage`, `events`, `config`, `reload`, `checkpoint`, `backup`.
//! Who may use them is decided by the daemon.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use cortex_client::api;
use rmpv::Value;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::progress::Progress;
use super::target::Target;

use super::json::packed;

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// The newest so many, at most 1000
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Only those after the event with this id
    #[arg(long, value_name = "ID")]
    after: Option<i64>,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to write; it is replaced when the backup is complete
    file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print every setting that is in force, and the file and line that it comes from
    Show,
}

pub(crate) fn config(command: &Config, context: &Context) -> Result<(), Failure> {
    match command {
        Config::Show => context.call(&api::Settings {}).map_err(Failure::about_administration),
    }
}

pub(crate) fn usage(context: &Context) -> Result<(), Failure> {
    context.call(&api::Usage {})
}

pub(crate) fn events(args: &Events, context: &Context) -> Result<(), Failure> {
    let options = api::EventsOptions { limit: args.limit, after: args.after.unwrap_or_default() };
    context.call(&api::Events { options })
}

pub(crate) fn reload(context: &Context) -> Result<(), Failure> {
    context.call(&api::Reload {}).map_err(Failure::about_administration)
}

pub(crate) fn checkpoint(context: &Context) -> Result<(), Failure> {
    context.call(&api::Checkpoint {}).map_err(Failure::about_administration)
}

/// Asks for a copy of the whole database and writes it to a file. The daemon has checked the copy
/// before it sends it; that all of it arrives is what the array's length is for.
pub(crate) fn backup(args: &Backup, context: &Context) -> Result<(), Failure> {
    let path = &args.file;
    let writing = |e: io::Error| Failure::while_doing(&format!("writing {}", path.display()), e);
    // Before the daemon is asked to make a copy that then could not be written.
    // It holds everybody's records.
    let mut target = Target::open_private(path).map_err(writing)?;
    let mut client = context.connect_patiently()?;
    let mut chunks = client
        .call_streamed(&api::Backup { name: None })
        .map_err(|error| Failure::from(error).about_administration())?;
    let progress = Progress::begin(None);
    let mut bytes = 0;
    while let Some(chunk) = chunks.next_element()? {
        let value = rmpv::decode::read_value_ref(&mut &*chunk)
            .map_err(|e| Failure::while_doing("decoding the backup", e))?;
        let rmpv::ValueRef::Binary(chunk) = value else {
            return Err(Failure::new(Exit::Failed, "unexpected answer: a backup is made of bytes"));
        };
        target.file.write_all(chunk).map_err(writing)?;
        bytes += chunk.len() as u64;
        progress.at(bytes);
    }
    let seconds = progress.end();
    let is_output = target.is_output();
    target.complete().map_err(writing)?;
    if is_output {
        return Ok(());
    }
    let path = Value::from(path.display().to_string());
    let fields = vec![
        ("backup".into(), path),
        ("bytes".into(), bytes.into()),
        ("seconds".into(), seconds.into()),
    ];
    context.printer().value(&packed(&Value::Map(fields)))
}
