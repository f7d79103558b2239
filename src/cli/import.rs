//! The command `import`: the records of a file, put into a table as fast as the daemon makes them durable.
//! Leaves reading the file to `source`, and the window of requests under way to `client::Pipeline`.
//!
//! ```text
//!   Source ──record──> Pipeline::send ──> daemon
//!      │ bad line                            │ answer: stored, or refused
//!      └──────────────> ImportCounts <──────────────┘
//! ```
//!
//! A bad line is reported only after the answers to all lines before it, so lines are named in their order.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use cortex_client::{
    Client, Error, Pipeline, Window,
    api::{CreateTable, Put, Raw},
};
use rmpv::Value;

use super::context::Context;
use super::failure::{Exit, Failure, exit_of_refusal};
use super::json::packed;
use super::progress::Progress;
use super::source::{Format, NextRecord, Source};
use super::tables;

/// Enough under way for the daemon to make many records durable with one write to disk (beyond some thirty,
/// its limit is no longer the disk's latency), and little enough that an error stops an import soon.
const WINDOW: Window = Window { requests: 256, bytes: 1024 * 1024 };

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The table
    table: String,
    /// The file, or - for standard input
    #[arg(value_name = "FILE|-", default_value = "-")]
    file: PathBuf,
    /// Go on after a bad line; the exit status is 1 if there was any
    #[arg(long)]
    keep_going: bool,
    /// Create the table if it is not there, with these attributes, separated by commas; the first is the key
    #[arg(long, value_name = "ATTR,...")]
    create: Option<String>,
    /// How the records are written
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
}

pub(crate) fn run(args: &Import, context: &Context) -> Result<(), Failure> {
    let (input, size) = open(&args.file)?;
    let mut client = context.connect()?;
    if let Some(attributes) = &args.create {
        create(&mut client, &args.table, attributes)?;
    }
    let mut tally = ImportCounts {
        keep_going: args.keep_going,
        unit: "",
        imported: 0,
        failed: 0,
        stop: None,
        progress: Progress::begin(size),
    };
    let mut source = Source::new(input, args.format);
    tally.unit = source.unit();
    let outcome = store(&mut source, &mut client, &args.table, &mut tally);
    let seconds = tally.progress.end();
    let summary = summary(&tally, source.bytes(), seconds);
    // The counts matter most when the import failed, so they are printed either way, and an error in
    // printing them matters least.
    let printed = context.printer().value(&summary);
    outcome.and_then(|()| tally.verdict()).map_err(|failure| failure.about_table(&args.table))?;
    printed
}

/// The input, and its size if it is known.
fn open(file: &Path) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    if file == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let attempt = |e| Failure::while_doing(&format!("opening {}", file.display()), e);
    let input = File::open(file).map_err(attempt)?;
    let meta = input.metadata().map_err(attempt)?;
    Ok((Box::new(input), meta.is_file().then_some(meta.len())))
}

fn create(client: &mut Client, table: &str, attributes: &str) -> Result<(), Failure> {
    let attributes = [attributes.to_owned()];
    let attributes = tables::split_list(&attributes).into_iter().collect();
    match client.call(&CreateTable { name: table, attributes, scope: None }) {
        Ok(_) => Ok(()),
        Err(Error::Refused(refusal)) if refusal == "already_exists" => Ok(()),
        Err(error) => Err(Failure::from(error).about_table(table)),
    }
}

/// Stores what `source` holds, up to its end or to where the tally says stop. An error is one of the whole
/// import: the file cannot be read, or the daemon is gone.
fn store(
    source: &mut Source<impl Read>,
    client: &mut Client,
    table: &str,
    tally: &mut ImportCounts,
) -> Result<(), Failure> {
    let mut pipeline = client.pipeline(WINDOW);
    fill(source, &mut pipeline, table, tally).map_err(|interruption| match interruption {
        Interruption::Input(e) => Failure::while_doing("reading the records", e),
        Interruption::Daemon(error) => {
            let mut failure = Failure::from(error);
            let mut in_doubt = pipeline.unanswered();
            let (count, first) = (in_doubt.len(), in_doubt.next());
            failure.message += &format!("; {} stored", tally.imported);
            if let Some(first) = first {
                failure.message += &format!(", and {count} from {} {first} on may be", tally.unit);
            }
            failure
        }
    })
}

/// What ends an import in the middle.
enum Interruption {
    Input(io::Error),
    Daemon(Error),
}

impl From<Error> for Interruption {
    fn from(error: Error) -> Self {
        Self::Daemon(error)
    }
}

fn fill(
    source: &mut Source<impl Read>,
    pipeline: &mut Pipeline<'_, u64>,
    table: &str,
    tally: &mut ImportCounts,
) -> Result<(), Interruption> {
    let mut record = Vec::new();
    while tally.stop.is_none() {
        if source.may_wait() {
            // Nothing that was read waits for what may take hours to be written.
            pipeline.flush()?;
        }
        let found = match source.next_record(&mut record) {
            Ok(found) => found,
            Err(e) => {
                await_answers(pipeline, tally)?;
                return Err(Interruption::Input(e));
            }
        };
        tally.progress.at(source.bytes());
        match found {
            NextRecord::Record => {
                while !pipeline.has_room() {
                    take_answer(pipeline, tally)?;
                }
                let put = Put { table, record: Raw(&record) };
                let mut sent = pipeline.send(&put, source.number());
                if matches!(sent, Err(Error::OutOfBounds(_))) {
                    // With nothing under way, the daemon can be asked whether these are its bounds.
                    await_answers(pipeline, tally)?;
                    sent = pipeline.send(&put, source.number());
                }
                match sent {
                    Err(Error::OutOfBounds(why)) => tally.bad(source.number(), &why.to_string()),
                    sent => sent?,
                }
            }
            NextRecord::Bad(reason) => {
                await_answers(pipeline, tally)?;
                tally.bad(source.number(), &reason);
            }
            NextRecord::Broken(reason) => {
                await_answers(pipeline, tally)?;
                tally.broken(source.number(), &reason);
            }
            NextRecord::End => break,
        }
    }
    Ok(await_answers(pipeline, tally)?)
}

/// Waits until everything under way is answered.
fn await_answers(pipeline: &mut Pipeline<'_, u64>, tally: &mut ImportCounts) -> Result<(), Error> {
    while take_answer(pipeline, tally)? {}
    Ok(())
}

fn take_answer(pipeline: &mut Pipeline<'_, u64>, tally: &mut ImportCounts) -> Result<bool, Error> {
    let Some(answer) = pipeline.next_answer()? else {
        return Ok(false);
    };
    match answer.outcome {
        Ok(()) => tally.imported += 1,
        Err(refusal) => tally.refused(answer.tag, &refusal),
    }
    Ok(true)
}

/// What became of the lines, and whether to go on.
struct ImportCounts {
    keep_going: bool,
    unit: &'static str,
    imported: u64,
    failed: u64,
    stop: Option<Stop>,
    progress: Progress,
}

/// Why an import goes no further.
struct Stop {
    number: u64,
    exit: Exit,
    /// The daemon refuses every record for this reason, so no line is to be mended.
    refused: bool,
    reason: String,
}

/// Whether the daemon has refused this record, and may well take the next one.
fn is_about_the_record(refusal: &str) -> bool {
    matches!(refusal, "missing_key" | "invalid_request")
        || ["invalid params", "key too long", "number too large", "request too large"]
            .iter()
            .any(|begins| refusal.starts_with(begins))
}

impl ImportCounts {
    /// The daemon refused a record.
    fn refused(&mut self, number: u64, refusal: &str) {
        // A table that may not be written, or a full disk, refuses every line: going on would only repeat it,
        // and so would naming those that were under way.
        let hopeless = !is_about_the_record(refusal);
        if hopeless && self.stop.is_some() {
            self.failed += 1;
        } else {
            self.fail(number, refusal, exit_of_refusal(refusal), hopeless);
        }
        if let Some(stop) = self.stop.as_mut().filter(|stop| stop.number == number) {
            stop.refused = hopeless;
        }
    }

    /// A line is no record. It is of no interest if the import has stopped at a line before it.
    fn bad(&mut self, number: u64, reason: &str) {
        if self.stop.is_none() {
            self.fail(number, reason, Exit::Failed, false);
        }
    }

    /// The rest of the file cannot be read.
    fn broken(&mut self, number: u64, reason: &str) {
        if self.stop.is_none() {
            self.fail(number, reason, Exit::Failed, true);
        }
    }

    fn fail(&mut self, number: u64, reason: &str, exit: Exit, hopeless: bool) {
        self.failed += 1;
        self.progress.note(&format!("{} {number}: {reason}", self.unit));
        if self.stop.is_none() && (hopeless || !self.keep_going) {
            self.stop = Some(Stop { number, exit, refused: false, reason: reason.to_owned() });
        }
    }

    fn verdict(&self) -> Result<(), Failure> {
        let (imported, failed, unit) = (self.imported, self.failed, self.unit);
        match &self.stop {
            Some(stop) if stop.refused => {
                let mut failure = Failure::from(Error::Refused(stop.reason.clone()));
                failure.message = format!("{} at {unit} {}; {imported} stored", stop.reason, stop.number);
                Err(failure)
            }
            Some(stop) => Err(Failure::new(stop.exit, format!("stopped at {unit} {}; {imported} stored", stop.number))
                .hint(format!(
                    "Mend the {unit} and import again: what is stored is replaced by the same{}",
                    if self.keep_going { "" } else { ". Or leave bad ones out with --keep-going" }
                ))),
            None if failed > 0 => Err(Failure::new(Exit::Failed, format!("{failed} not stored; {imported} stored"))
                .hint(format!("Mend the {unit}s named above and import again: what is stored is replaced by the same"))),
            None => Ok(()),
        }
    }
}

fn summary(tally: &ImportCounts, bytes: u64, seconds: f64) -> Vec<u8> {
    packed(&Value::Map(vec![
        ("imported".into(), tally.imported.into()),
        ("failed".into(), tally.failed.into()),
        ("bytes".into(), bytes.into()),
        ("seconds".into(), seconds.into()),
    ]))
}
