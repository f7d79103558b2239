//! The command `export`: all records of a table, in pages, to standard output or to a file.
//! Leaves the order of the records to the daemon, and the formats to `source` and `json`.
//!
//! Pages are not one snapshot: what is put or deleted meanwhile may or may not be in the file.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rmpv::Value;

use super::context::Context;
use super::failure::Failure;
use super::json::{self, Layout};
use super::output;
use super::printable::Shown;
use super::progress::Progress;
use super::source::Format;
use super::stream::{List, ListKind, Lists};
use super::target::Target;

/// A page is one answer of the daemon: large enough that asking costs nothing, small enough that nobody
/// else waits for it.
const PAGE: u64 = 1000;

const WRITE_SIZE: usize = 64 * 1024;

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The table
    table: String,
    /// Write to this file, which is replaced when the export is complete [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How the records are written
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
}

pub(crate) fn run(args: &Export, context: &Context) -> Result<(), Failure> {
    export(args, context).map_err(|failure| failure.about_table(&args.table))
}

fn export(args: &Export, context: &Context) -> Result<(), Failure> {
    let mut lists = Lists::connect(context)?;
    match args.output.as_deref().filter(|path| *path != Path::new("-")) {
        None => {
            let out: Box<dyn Write> = match args.format {
                Format::Ndjson => Box::new(Shown::new(io::stdout().lock())),
                Format::Msgpack => Box::new(io::stdout().lock()),
            };
            let mut sink = Sink::new(out, args.format, Progress::unseen(), output::writing);
            copy(&mut lists, &args.table, &mut sink)?;
            sink.flush()
        }
        Some(path) => {
            let attempt =
                |e: io::Error| Failure::while_doing(&format!("writing {}", path.display()), e);
            let target = Target::open(path).map_err(attempt)?;
            let out = target.file.try_clone().map_err(attempt)?;
            let mut sink = Sink::new(out, args.format, Progress::begin(None), attempt);
            copy(&mut lists, &args.table, &mut sink)?;
            sink.flush()?;
            let is_output = target.is_output();
            target.complete().map_err(attempt)?;
            if is_output {
                return Ok(());
            }
            context.printer().value(&sink.summary())
        }
    }
}

/// Copies the table page by page, each beginning after the last key of the one before, until a page is empty.
fn copy(
    lists: &mut Lists<'_>,
    table: &str,
    sink: &mut Sink<impl Write, impl Fn(io::Error) -> Failure>,
) -> Result<(), Failure> {
    let mut list = List { what: ListKind::All, table, limit: None, after: None };
    loop {
        list.limit = Some(PAGE);
        if lists.visit(&mut list, |record| sink.record(record))? == 0 {
            return Ok(());
        }
        lists.resume(&mut list)?;
    }
}

/// Where records go, and how many have gone there.
struct Sink<W: Write, F> {
    out: BufWriter<W>,
    /// What it means that writing there has failed.
    failed: F,
    format: Format,
    progress: Progress,
    exported: u64,
    bytes: u64,
    text: Vec<u8>,
}

impl<W: Write, F: Fn(io::Error) -> Failure> Sink<W, F> {
    fn new(out: W, format: Format, progress: Progress, failed: F) -> Self {
        let out = BufWriter::with_capacity(WRITE_SIZE, out);
        Self { out, failed, format, progress, exported: 0, bytes: 0, text: Vec::new() }
    }

    fn record(&mut self, record: &[u8]) -> Result<(), Failure> {
        let bytes = match self.format {
            Format::Msgpack => record,
            Format::Ndjson => {
                self.text.clear();
                json::write(record, &mut self.text, &mut Layout::compact())
                    .map_err(|e| Failure::while_doing("decoding a record", e))?;
                self.text.push(b'\n');
                &self.text
            }
        };
        self.out.write_all(bytes).map_err(&self.failed)?;
        self.exported += 1;
        self.bytes += bytes.len() as u64;
        self.progress.at(self.bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(&self.failed)
    }

    fn summary(&self) -> Vec<u8> {
        json::packed(&Value::Map(vec![
            ("exported".into(), self.exported.into()),
            ("bytes".into(), self.bytes.into()),
            ("seconds".into(), self.progress.end().into()),
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_written_names_the_file() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
        let failed = |error| Failure::while_doing("writing /dev/full", error);
        let mut sink = Sink::new(full, Format::Msgpack, Progress::unseen(), failed);
        let record = vec![0xc0; WRITE_SIZE + 1];
        let failure = sink.record(&record).expect_err("nothing can be written there");
        assert!(failure.message.starts_with("writing /dev/full"), "{}", failure.message);
    }
}
