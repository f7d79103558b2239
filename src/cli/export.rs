//! The command `export`: all records of a table, in pages, to standard output or to a file.
//! Leaves the order of the records to the daemon, and the formats to `source` and `json`.
//!
//! Pages are not one snapshot: what is put or deleted meanwhile may or may not be in the file.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use cortex_core::model::{Key, Limits};
use rmpv::Value;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::json::{self, Layout};
use super::output;
use super::progress::Progress;
use super::source::Format;
use super::target::Target;
use crate::client::{Client, Params, pack};

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
    let mut client = context.connect()?;
    let key_field = key_field(&mut client, &args.table)?;
    match args.output.as_deref().filter(|path| *path != Path::new("-")) {
        None => {
            let out = io::stdout().lock();
            let mut sink = Sink::new(out, args.format, Progress::unseen(), output::writing);
            copy(&mut client, &args.table, &key_field, &mut sink)?;
            sink.flush()
        }
        Some(path) => {
            let attempt =
                |e: io::Error| Failure::while_doing(&format!("writing {}", path.display()), e);
            let target = Target::open(path).map_err(attempt)?;
            let out = target.file.try_clone().map_err(attempt)?;
            let mut sink = Sink::new(out, args.format, Progress::begin(None), attempt);
            copy(&mut client, &args.table, &key_field, &mut sink)?;
            sink.flush()?;
            target.complete().map_err(attempt)?;
            context.printer().value(&sink.summary())
        }
    }
}

fn key_field(client: &mut Client, table: &str) -> Result<String, Failure> {
    let info = client.call("table_info", &Params::new().str(table))?;
    let field = info.as_map().and_then(|fields| field(fields, "key_field")).and_then(Value::as_str);
    field.map(str::to_owned).ok_or_else(|| {
        Failure::new(Exit::Failed, "unexpected answer: table_info names no key_field")
    })
}

/// Copies the table page by page, each beginning after the last key of the one before, until a page is empty.
fn copy(
    client: &mut Client,
    table: &str,
    key_field: &str,
    sink: &mut Sink<impl Write, impl Fn(io::Error) -> Failure>,
) -> Result<(), Failure> {
    let mut after: Option<String> = None;
    let mut last = Vec::new();
    loop {
        let mut page = vec![("limit".into(), PAGE.into())];
        page.extend(after.as_deref().map(|key| ("after".into(), key.into())));
        let mut records =
            client.call_streamed("all", &Params::new().str(table).value(&Value::Map(page)))?;
        last.clear();
        while let Some(record) = records.next_element()? {
            sink.record(record)?;
            last.clear();
            last.extend_from_slice(record);
        }
        if last.is_empty() {
            return Ok(());
        }
        let key = key(&last, key_field)?;
        if after.as_ref() == Some(&key) {
            return Err(Failure::new(
                Exit::Failed,
                format!("unexpected answer: the page after {key:?} ends with it"),
            ));
        }
        after = Some(key);
    }
}

/// The key of a record as the daemon compares it: as text. Whether a key may be that long was the daemon's to
/// say when it took the record.
fn key(record: &[u8], key_field: &str) -> Result<String, Failure> {
    let any_length = Limits { key_bytes: usize::MAX, ..Limits::default() };
    let unexpected =
        |why: &str| Failure::new(Exit::Failed, format!("unexpected answer: a record {why}"));
    let key = Key::of_record(record, key_field, &any_length)
        .ok_or_else(|| unexpected("that is no map"))?
        .map_err(|refusal| unexpected(&format!("whose {key_field} is no key: {refusal}")))?;
    Ok(String::from_utf8_lossy(key.as_bytes()).into_owned())
}

fn field<'v>(fields: &'v [(Value, Value)], name: &str) -> Option<&'v Value> {
    fields.iter().find_map(|(key, value)| (key.as_str() == Some(name)).then_some(value))
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
        let mut summary = Vec::new();
        pack::value(
            &mut summary,
            &Value::Map(vec![
                ("exported".into(), self.exported.into()),
                ("bytes".into(), self.bytes.into()),
                ("seconds".into(), self.progress.end().into()),
            ]),
        );
        summary
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

    #[test]
    fn a_key_of_any_kind_has_the_text_by_which_the_daemon_orders_it() {
        let longer_than_any_default = "k".repeat(100_000);
        for (value, expected) in [
            (Value::from("a"), "a"),
            (7.into(), "7"),
            ((-7).into(), "-7"),
            (u64::MAX.into(), "18446744073709551615"),
            (1.5.into(), "1.5"),
            (1e300.into(), 1e300.to_string().as_str()),
            (f64::NAN.into(), "NaN"),
            (true.into(), "true"),
            (longer_than_any_default.as_str().into(), &longer_than_any_default),
        ] {
            let mut record = Vec::new();
            pack::value(
                &mut record,
                &Value::Map(vec![("n".into(), 1.into()), ("id".into(), value)]),
            );
            assert_eq!(key(&record, "id").expect("a key"), expected);
            assert!(key(&record, "other").is_err());
        }
        assert!(key(&[0x07], "id").is_err(), "no map");
    }
}
