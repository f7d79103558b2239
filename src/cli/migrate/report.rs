//! What became of each table, printed as it goes on and summed up at the end.
//! Leaves finding out to `table` and `compare`.

use std::path::Path;

use rmpv::Value;

use crate::cli::failure::{Exit, Failure};
use crate::cli::json::packed;
use crate::cli::progress::Progress;

/// Lines about single records and grants of one table; more are counted.
const LINES: u64 = 100;

/// Of all tables together.
#[derive(Debug)]
pub(super) struct Report {
    dry_run: bool,
    progress: Progress,
    bytes: u64,
    tables: Vec<TableReport>,
    /// Tables that have files and that the source did not name.
    unseen: Vec<String>,
}

/// Of one table.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct TableReport {
    uid: u32,
    name: String,
    /// Records of the source, those among them that cannot be stored included.
    pub(super) records: u64,
    pub(super) copied: u64,
    /// Were equal before.
    pub(super) already_there: u64,
    pub(super) replaced: u64,
    /// Differ, and stay as they are here.
    pub(super) kept: u64,
    pub(super) not_stored: u64,
    pub(super) grants: u64,
    pub(super) grants_copied: u64,
    pub(super) grants_refused: u64,
    /// The comparison at the end.
    pub(super) same: u64,
    pub(super) different: u64,
    pub(super) missing: u64,
    pub(super) only_here: u64,
    pub(super) grants_only_here: u64,
    pub(super) compared: bool,
    /// Why the table as a whole was not brought over.
    pub(super) error: Option<String>,
    lines: u64,
}

impl TableReport {
    pub(super) fn new(uid: u32, name: &str) -> Self {
        Self { uid, name: name.to_owned(), ..Self::default() }
    }

    /// `1000:users`, `@alice:notes`.
    pub(super) fn full_name(&self) -> String {
        if self.name.starts_with('@') {
            self.name.clone()
        } else {
            format!("{}:{}", self.uid, self.name)
        }
    }

    fn is_equal(&self) -> bool {
        let differing = self.not_stored
            + self.different
            + self.missing
            + self.only_here
            + self.grants_refused
            + self.grants_only_here;
        self.compared && self.error.is_none() && differing == 0
    }

    /// Whether anything stands in the way, as far as is known before anything is changed.
    fn is_obstructed(&self) -> bool {
        self.error.is_some() || self.not_stored + self.kept > 0
    }

    fn counts(&self) -> [(&'static str, u64); 14] {
        [
            ("records", self.records),
            ("copied", self.copied),
            ("already_there", self.already_there),
            ("replaced", self.replaced),
            ("kept", self.kept),
            ("not_stored", self.not_stored),
            ("same", self.same),
            ("different", self.different),
            ("missing", self.missing),
            ("only_here", self.only_here),
            ("grants", self.grants),
            ("grants_copied", self.grants_copied),
            ("grants_refused", self.grants_refused),
            ("grants_only_here", self.grants_only_here),
        ]
    }

    /// The counts that are not zero, as text.
    fn line(&self, dry_run: bool) -> String {
        if let Some(error) = &self.error {
            return format!("{}: {error}", self.full_name());
        }
        let more = self.counts().into_iter().skip(1).filter(|(_, count)| *count > 0);
        let more: String =
            more.map(|(name, count)| format!(", {count} {}", name.replace('_', " "))).collect();
        let verdict = match (dry_run, self.is_equal()) {
            (true, _) => "nothing was changed",
            (false, true) => "equal",
            (false, false) => "not equal",
        };
        format!("{}: {} records{more}; {verdict}", self.full_name(), self.records)
    }

    fn tree(&self) -> Value {
        let mut fields: Vec<(Value, Value)> =
            vec![("table".into(), self.full_name().into()), ("uid".into(), self.uid.into())];
        fields.extend(self.counts().map(|(name, count)| (name.into(), count.into())));
        fields.push(("equal".into(), self.is_equal().into()));
        fields.push(("error".into(), self.error.clone().map_or(Value::Nil, Value::from)));
        Value::Map(fields)
    }
}

impl Report {
    pub(super) fn begin(dry_run: bool) -> Self {
        let progress = Progress::begin(None);
        Self { dry_run, progress, bytes: 0, tables: Vec::new(), unseen: Vec::new() }
    }

    /// So many bytes more were read.
    pub(super) fn read(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.progress.at(self.bytes);
    }

    /// Tells of something about one record or grant of a table.
    pub(super) fn note(&self, table: &mut TableReport, what: &str) {
        table.lines += 1;
        if table.lines <= LINES {
            self.progress.note(&format!("{}: {what}", table.full_name()));
        } else if table.lines == LINES + 1 {
            self.progress.note(&format!("{}: more is counted and not listed", table.full_name()));
        }
    }

    /// Takes a table that is done with.
    pub(super) fn add(&mut self, table: TableReport) {
        self.progress.note(&table.line(self.dry_run));
        self.tables.push(table);
    }

    pub(super) fn has(&self, uid: u32, name: &str) -> bool {
        self.tables.iter().any(|table| table.uid == uid && table.name == name)
    }

    /// A table has files, and the source did not name it.
    pub(super) fn unseen(&mut self, uid: u32, name: &str) {
        let table = format!("{uid}:{name}");
        self.progress.note(&format!("{table}: has a file, and the source does not name it"));
        self.unseen.push(table);
    }

    /// The summary, as MessagePack. What ended early is not known to be equal.
    pub(super) fn end(&self, from: &Path, is_complete: bool) -> Vec<u8> {
        let seconds = self.progress.end();
        if is_complete && self.tables.is_empty() {
            self.progress.note("the source names no tables of these users");
        }
        let sum = |n: usize| self.tables.iter().map(|table| table.counts()[n].1).sum::<u64>();
        let mut fields: Vec<(Value, Value)> = vec![
            ("from".into(), from.display().to_string().into()),
            ("dry_run".into(), self.dry_run.into()),
            ("tables".into(), (self.tables.len() as u64).into()),
        ];
        let names = TableReport::default().counts().map(|(name, _)| name);
        fields.extend(names.iter().enumerate().map(|(n, name)| ((*name).into(), sum(n).into())));
        fields.push(("bytes".into(), self.bytes.into()));
        fields.push(("seconds".into(), seconds.into()));
        fields.push(("equal".into(), (is_complete && self.is_equal()).into()));
        let unseen = self.unseen.iter().map(|table| Value::from(table.as_str()));
        fields.push(("unseen".into(), Value::Array(unseen.collect())));
        let details = self.tables.iter().map(TableReport::tree);
        fields.push(("details".into(), Value::Array(details.collect())));
        packed(&Value::Map(fields))
    }

    fn is_equal(&self) -> bool {
        self.unseen.is_empty() && self.tables.iter().all(TableReport::is_equal)
    }

    /// How the command ends.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let (wrong, text, hint): (fn(&TableReport) -> bool, _, _) = if self.dry_run {
            (TableReport::is_obstructed, "would not be equal", BEFORE)
        } else {
            (|table| !table.is_equal(), "are not equal", AFTER)
        };
        let wrong = self.tables.iter().filter(|table| wrong(table)).count() + self.unseen.len();
        if wrong == 0 {
            return Ok(());
        }
        let all = self.tables.len() + self.unseen.len();
        Err(Failure::new(Exit::Failed, format!("{wrong} of {all} tables {text}")).hint(hint))
    }
}

const BEFORE: &str =
    "What stands in the way is listed above. Records that differ here are kept unless: --overwrite";

const AFTER: &str = "What differs is listed above. To replace records that differ here: --overwrite; a second run does only what is left";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_equal_once_compared_without_a_difference() {
        let table = TableReport { compared: true, same: 3, ..TableReport::new(1000, "users") };
        assert!(table.is_equal());
        for wrong in [
            TableReport { compared: false, ..table.clone() },
            TableReport { not_stored: 1, ..table.clone() },
            TableReport { different: 1, ..table.clone() },
            TableReport { missing: 1, ..table.clone() },
            TableReport { only_here: 1, ..table.clone() },
            TableReport { grants_refused: 1, ..table.clone() },
            TableReport { grants_only_here: 1, ..table.clone() },
            TableReport { error: Some("access_denied".into()), ..table.clone() },
        ] {
            assert!(!wrong.is_equal(), "{wrong:?}");
        }
    }

    #[test]
    fn a_line_says_what_is_not_nothing() {
        let table = TableReport {
            records: 3,
            copied: 2,
            already_there: 1,
            compared: true,
            ..TableReport::new(1000, "users")
        };
        assert_eq!(table.line(false), "1000:users: 3 records, 2 copied, 1 already there; equal");
        let failed =
            TableReport { error: Some("no".into()), ..TableReport::new(0, "@alice:notes") };
        assert_eq!(failed.line(false), "@alice:notes: no");
    }
}
