//! One table: made here where it is not, its records and grants brought over.
//! Leaves the comparison at the end to `compare`.

use std::collections::{BTreeMap, BTreeSet};

use cortex_client::{
    Client, Error,
    api::{AclGrant, CreateTable, TextOrList},
};

use super::Migrate;
use super::batch::{self, Row, TargetRecord};
use super::compare;
use super::report::{Report, TableReport};
use super::source::{self, Description, Grant, Source};
use crate::cli::failure::{Exit, Failure};

/// What is to be done, as whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) uid: u32,
    pub(super) args: &'a Migrate,
    /// What the user says of tables.
    pub(super) attributes: &'a BTreeMap<String, Vec<String>>,
}

/// Why a table goes no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// The others can be brought over all the same.
    Table(String),
    /// A daemon is gone, or does not speak the protocol.
    Everything(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => Self::Table(refusal),
            error @ (Error::NotRunning { .. }
            | Error::NoPermission { .. }
            | Error::Connect { .. }
            | Error::Timeout
            | Error::OutOfBounds(_)
            | Error::PathTooLong { .. }
            | Error::Closed
            | Error::Protocol(_)
            | Error::Io(_)) => Self::Everything(error),
        }
    }
}

/// Brings over one table, compares it, and reports.
pub(super) fn migrate(
    job: &Job<'_>,
    name: &str,
    grants: &[Grant],
    source: &mut Source,
    target: &mut Client,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut table = TableReport::new(job.uid, name);
    let mut work = TableMigration { job, name, target, report, table: &mut table };
    let outcome = work.all(grants, source);
    let bad = table.not_stored + table.grants_refused > 0;
    let full_name = table.full_name();
    let outcome = match outcome {
        Ok(()) if bad && !job.args.keep_going => Err(Failure::new(
            Exit::Failed,
            format!("stopped at {full_name}: not everything in it can be brought over"),
        )
        .hint("What, and why, is said above. To leave it out and go on: --keep-going")),
        Ok(()) => Ok(()),
        Err(Stop::Everything(error)) => {
            table.error = Some(error.to_string());
            Err(error.into())
        }
        Err(Stop::Table(why)) => {
            let failure = Failure::from(Error::Refused(why.clone())).about_table(name);
            table.error = Some(why);
            if job.args.keep_going { Ok(()) } else { Err(stopped_at(&full_name, failure)) }
        }
    };
    report.add(table);
    outcome
}

fn stopped_at(table: &str, failure: Failure) -> Failure {
    Failure { message: format!("stopped at {table}: {}", failure.message), ..failure }
}

/// A table that is being brought over.
struct TableMigration<'a, 'j> {
    job: &'a Job<'j>,
    name: &'a str,
    target: &'a mut Client,
    report: &'a mut Report,
    table: &'a mut TableReport,
}

impl TableMigration<'_, '_> {
    fn all(&mut self, grants: &[Grant], source: &mut Source) -> Result<(), Stop> {
        let Description { attributes, scope } = self.description(source)?;
        let [key_field, ..] = attributes.as_slice() else {
            return Err(Stop::Table("the source names no key field".to_owned()));
        };
        let is_here = self.make(&attributes, &scope)?;
        self.copy(key_field, is_here, source)?;
        self.grant(grants, is_here)?;
        if !self.job.args.dry_run {
            compare::records(self.name, key_field, source, self.target, self.report, self.table)?;
            self.compare_grants(grants)?;
            self.table.compared = true;
        }
        Ok(())
    }

    /// What the table is: as the user says, or else the source.
    fn description(&self, source: &mut Source) -> Result<Description, Stop> {
        if let Some(attributes) = self.job.attributes.get(self.name) {
            let scope = "local".to_owned();
            return Ok(Description { attributes: attributes.clone(), scope });
        }
        source.describe(self.name)?.ok_or_else(|| {
            Stop::Table(format!(
                "the source does not say which field is the key; say it: --attributes {}=KEY,...",
                self.name
            ))
        })
    }

    /// Makes the table where it is not. Answers whether it is here now.
    fn make(&mut self, attributes: &[String], scope: &str) -> Result<bool, Stop> {
        let here = match source::describe(self.target, self.name) {
            Ok(here) => here,
            // What is not there and what is forbidden look the same; creating it shows which.
            Err(Error::Refused(refusal)) if refusal == "access_denied" => {
                if self.job.args.dry_run {
                    return Ok(false);
                }
                let attributes = attributes.iter().map(String::as_str).collect();
                self.target.call(&CreateTable { name: self.name, attributes, scope: None })?;
                source::describe(self.target, self.name)?
            }
            Err(error) => return Err(error.into()),
        };
        let key = |attributes: &[String]| attributes.first().cloned().unwrap_or_default();
        if key(attributes) != key(&here.attributes) {
            let (there, here) = (key(attributes), key(&here.attributes));
            return Err(Stop::Table(format!("its key is {there} in the source and {here} here")));
        }
        if here.scope != scope {
            let what = format!(
                "its scope is {scope} in the source and {} here; to change it: cortex scope {} {scope}",
                here.scope, self.name
            );
            self.report.note(self.table, &what);
        }
        Ok(true)
    }

    fn copy(&mut self, key_field: &str, is_here: bool, source: &mut Source) -> Result<(), Stop> {
        let mut elements = source.records(self.name)?;
        loop {
            let batch = batch::read(&mut elements, key_field)?;
            self.report.read(batch.bytes);
            self.table.records += (batch.rows.len() + batch.bad.len()) as u64;
            for (key, why) in &batch.bad {
                self.table.not_stored += 1;
                self.report.note(self.table, &format!("{key:?} cannot be stored: {why}"));
            }
            let there = if is_here {
                batch::look_up(self.target, self.name, &batch.rows)?
            } else {
                vec![TargetRecord::Nothing; batch.rows.len()]
            };
            let wanted = self.wanted(&batch.rows, &there);
            if self.job.args.dry_run {
                self.table.copied += wanted.len() as u64;
            } else {
                self.put(&wanted)?;
            }
            if batch.is_last {
                return Ok(());
            }
        }
    }

    /// The rows to be stored here. What differs is kept unless the user wants it replaced, and of two records
    /// of the source that have one key here, the first is stored.
    fn wanted<'r>(&mut self, rows: &'r [Row], there: &[TargetRecord]) -> Vec<&'r Row> {
        let (mut wanted, mut keys) = (Vec::new(), BTreeSet::new());
        for (row, there) in rows.iter().zip(there) {
            let is_first = keys.insert(row.key.as_str());
            match there {
                TargetRecord::Nothing if is_first => wanted.push(row),
                TargetRecord::Same => self.table.already_there += 1,
                TargetRecord::Another if is_first && self.job.args.overwrite => {
                    self.table.replaced += 1;
                    wanted.push(row);
                }
                TargetRecord::Nothing | TargetRecord::Another => {
                    self.table.kept += 1;
                    if self.job.args.dry_run {
                        self.report.note(self.table, &format!("{:?} differs here", row.key));
                    }
                }
            }
        }
        wanted
    }

    fn put(&mut self, rows: &[&Row]) -> Result<(), Stop> {
        let (report, table) = (&*self.report, &mut *self.table);
        batch::put(self.target, self.name, rows, |row, outcome| match outcome {
            Ok(()) => table.copied += 1,
            Err(refusal) => {
                table.not_stored += 1;
                report.note(table, &format!("{:?} was not stored: {refusal}", row.key));
            }
        })?;
        Ok(())
    }

    fn grant(&mut self, grants: &[Grant], is_here: bool) -> Result<(), Stop> {
        self.table.grants = grants.len() as u64;
        let here = if is_here { self.grants_here()? } else { Vec::new() };
        for grant in grants {
            let has = |word: &&String| held(&here, &grant.identity).contains(word);
            let lacking: Vec<&str> =
                grant.permissions.iter().filter(|word| !has(word)).map(String::as_str).collect();
            if lacking.is_empty() {
                continue;
            }
            if self.job.args.dry_run {
                self.table.grants_copied += 1;
                continue;
            }
            let identity = &grant.identity;
            let permissions = &lacking.join(",");
            let permissions = TextOrList::Text(permissions);
            match self.target.call(&AclGrant { identity, table: self.name, permissions }) {
                Ok(_granted) => self.table.grants_copied += 1,
                Err(Error::Refused(refusal)) => {
                    self.table.grants_refused += 1;
                    let what = format!("the grant to {:?} was refused: {refusal}", grant.identity);
                    self.report.note(self.table, &what);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Counts what is granted here and not in the source. What the source has was granted, or refused.
    fn compare_grants(&mut self, grants: &[Grant]) -> Result<(), Stop> {
        for here in self.grants_here()? {
            let there = held(grants, &here.identity);
            let more: Vec<_> =
                here.permissions.iter().filter(|word| !there.contains(word)).cloned().collect();
            if !more.is_empty() {
                self.table.grants_only_here += 1;
                let what = format!("{:?} may {} here alone", here.identity, more.join(", "));
                self.report.note(self.table, &what);
            }
        }
        Ok(())
    }

    fn grants_here(&mut self) -> Result<Vec<Grant>, Error> {
        let mut all = source::grants(self.target, self.job.uid)?;
        Ok(all.remove(self.name).unwrap_or_default())
    }
}

/// What somebody may, by a list of grants.
fn held<'g>(grants: &'g [Grant], identity: &str) -> &'g [String] {
    let found = grants.iter().find(|grant| grant.identity == identity);
    found.map_or(&[], |grant| grant.permissions.as_slice())
}
