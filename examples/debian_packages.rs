//! Turns Debian's package metadata, as `apt-cache dumpavail` prints it, into records for `cortex import`.
//! Leaves storing them to `cortex`, and the whole tour to `examples/debian-packages.sh` beside it.
//!
//! ```text
//! apt-cache dumpavail | cargo run --release --example debian_packages | cortex import packages --create id
//! ```
//!
//! A stanza becomes one line of JSON: its fields under their own names, with relations and tags as lists,
//! sizes as integers, and a field `id` in front that names one build of one package: `name:arch=version`.

use std::io::{self, BufRead, BufWriter, Write};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value};

/// Fields that list relations to other packages, or tags, between commas.
const LISTS: [&str; 12] = [
    "Breaks",
    "Built-Using",
    "Conflicts",
    "Depends",
    "Enhances",
    "Pre-Depends",
    "Provides",
    "Recommends",
    "Replaces",
    "Static-Built-Using",
    "Suggests",
    "Tag",
];

/// Fields that hold a whole number: bytes, and KiB.
const NUMBERS: [&str; 2] = ["Size", "Installed-Size"];

/// Fields that name the build together.
const IDENTITY: [&str; 3] = ["Package", "Architecture", "Version"];

fn main() -> Result<()> {
    let mut output = BufWriter::new(io::stdout().lock());
    let records = convert(io::stdin().lock(), &mut output)?;
    output.flush().context("writing the records")?;
    eprintln!("{records} records");
    Ok(())
}

/// Converts every stanza of `input` and answers how many there were.
pub(crate) fn convert(input: impl BufRead, output: &mut impl Write) -> Result<u64> {
    let mut records = 0;
    let mut stanza = Stanza::default();
    for (index, line) in input.lines().enumerate() {
        let line = line.with_context(|| format!("reading line {}", index + 1))?;
        if line.trim().is_empty() {
            records += stanza.finish(output)?;
        } else {
            stanza.take(&line).with_context(|| format!("line {}", index + 1))?;
        }
    }
    records += stanza.finish(output)?;
    Ok(records)
}

/// The fields of a stanza as far as it has been read, in their order.
#[derive(Debug, Default)]
struct Stanza {
    fields: Vec<(String, String)>,
}

impl Stanza {
    /// Takes `Name: value`, or a line that begins with a space and goes on with the field before.
    fn take(&mut self, line: &str) -> Result<()> {
        if let Some(more) = line.strip_prefix([' ', '\t']) {
            let (_, value) = self.fields.last_mut().context("a continuation of no field")?;
            value.push('\n');
            // A lone dot stands for an empty line, which would end the stanza.
            value.push_str(if more == "." { "" } else { more });
            return Ok(());
        }
        let (name, value) = line.split_once(':').context("neither a field nor a continuation")?;
        ensure!(self.get(name).is_none(), "the field {name} stands twice");
        self.fields.push((name.to_owned(), value.trim().to_owned()));
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|(known, value)| (known == name).then_some(&**value))
    }

    /// Writes the record, if there is any, and begins the next stanza. Answers how many were written.
    fn finish(&mut self, output: &mut impl Write) -> Result<u64> {
        if self.fields.is_empty() {
            return Ok(0);
        }
        let mut record = Map::new();
        record.insert("id".into(), self.id()?.into());
        for (name, value) in self.fields.drain(..) {
            let value = typed(&name, value)?;
            record.insert(name, value);
        }
        serde_json::to_writer(&mut *output, &record).context("writing a record")?;
        output.write_all(b"\n").context("writing a record")?;
        Ok(1)
    }

    fn id(&self) -> Result<String> {
        let [Some(name), Some(arch), Some(version)] = IDENTITY.map(|field| self.get(field)) else {
            bail!("a stanza lacks one of {}; it begins {:?}", IDENTITY.join(", "), self.fields[0]);
        };
        Ok(format!("{name}:{arch}={version}"))
    }
}

fn typed(name: &str, value: String) -> Result<Value> {
    if LISTS.contains(&name) {
        return Ok(value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect());
    }
    if NUMBERS.contains(&name) {
        let number: u64 = value.parse().with_context(|| format!("{name} is {value:?}"))?;
        return Ok(number.into());
    }
    Ok(value.into())
}
