//! Some records of a table at a time: read from the source, and looked up in the target by their keys.
//! Leaves what to do about each to `table` and `compare`.

use cortex_client::{
    Client, Elements, Error, MAX_REQUEST, Pipeline, Window,
    api::{Get, Put, Raw, encoded},
};
use cortex_core::model::{Key, Limits};
use cortex_core::wire::{Scan, Scanner};

use super::same;

/// Enough under way for the target to make many records durable with one write to disk.
const WINDOW: Window = Window { requests: 256, bytes: 1024 * 1024 };

/// A batch ends with the record that reaches one of these.
const ROWS: usize = 256;
const BYTES: usize = 4 << 20;

/// How deep a record may be nested: 64 levels, two of which are the request around it.
const LEVELS: usize = 62;

/// A record and the key that it has in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) record: Vec<u8>,
}

/// What the target has under a record's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetRecord {
    Nothing,
    Same,
    Another,
}

/// What was read of a table.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    /// Records that the target cannot hold: which, and why.
    pub(super) bad: Vec<(String, String)>,
    pub(super) bytes: usize,
    pub(super) is_last: bool,
}

/// Reads on.
pub(super) fn read(elements: &mut Elements<'_>, key_field: &str) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    while batch.rows.len() + batch.bad.len() < ROWS && batch.bytes < BYTES {
        let Some(record) = elements.next_element()? else {
            batch.is_last = true;
            return Ok(batch);
        };
        batch.bytes += record.len();
        match checked(record, key_field) {
            Ok(key) => batch.rows.push(Row { key, record: record.to_vec() }),
            Err(bad) => batch.bad.push(bad),
        }
    }
    Ok(batch)
}

/// A record's key, or which record cannot be stored and why.
fn checked(record: &[u8], key_field: &str) -> Result<String, (String, String)> {
    let key = match Key::of_record(record, key_field, &Limits::default()) {
        None => return Err((String::new(), "not a map".to_owned())),
        Some(Err(refusal)) => return Err((shown(record), refusal.to_string())),
        // Always UTF-8.
        Some(Ok(key)) => String::from_utf8_lossy(key.as_bytes()).into_owned(),
    };
    match Scanner::new(MAX_REQUEST, LEVELS).scan(record) {
        Ok(Scan::Whole(_)) => Ok(key),
        Ok(Scan::Deep(_)) => Err((key, format!("nested in more than {LEVELS} levels"))),
        Ok(Scan::More) => Err((key, "cut short".to_owned())),
        Err(error) => Err((key, error.to_string())),
    }
}

/// The beginning of a record that has no key to name it by.
fn shown(record: &[u8]) -> String {
    const MOST: usize = 60;
    let value = rmpv::decode::read_value(&mut &*record);
    let text = value.map(|value| value.to_string()).unwrap_or_default();
    text.chars().take(MOST).collect()
}

/// What the target has under the key of each row, in their order.
pub(super) fn look_up(
    target: &mut Client,
    table: &str,
    rows: &[Row],
) -> Result<Vec<TargetRecord>, Error> {
    let mut found = Vec::with_capacity(rows.len());
    let mut pipeline = target.pipeline(WINDOW);
    let mut result = Vec::new();
    for row in rows {
        while !pipeline.has_room() {
            next(&mut pipeline, &mut result, &mut found)?;
        }
        pipeline.send(&Get { table, key: Raw(&encoded(&row.key)) }, row)?;
    }
    while next(&mut pipeline, &mut result, &mut found)? {}
    Ok(found)
}

fn next(
    pipeline: &mut Pipeline<'_, &Row>,
    result: &mut Vec<u8>,
    found: &mut Vec<TargetRecord>,
) -> Result<bool, Error> {
    let Some(answer) = pipeline.next_result(result)? else {
        return Ok(false);
    };
    found.push(match answer.outcome {
        Ok(()) if same::records(&answer.tag.record, result) => TargetRecord::Same,
        Ok(()) => TargetRecord::Another,
        Err(refusal) if refusal == "not_found" => TargetRecord::Nothing,
        Err(refusal) => return Err(Error::Refused(refusal)),
    });
    Ok(true)
}

/// Stores rows, and answers for each whether it was refused.
pub(super) fn put<'r>(
    target: &mut Client,
    table: &str,
    rows: &[&'r Row],
    mut outcome: impl FnMut(&'r Row, Result<(), String>),
) -> Result<(), Error> {
    let mut pipeline: Pipeline<'_, &'r Row> = target.pipeline(WINDOW);
    for row in rows {
        while !pipeline.has_room() {
            if let Some(answer) = pipeline.next_answer()? {
                outcome(answer.tag, answer.outcome);
            }
        }
        match pipeline.send(&Put { table, record: Raw(&row.record) }, row) {
            Err(Error::OutOfBounds(why)) => {
                outcome(row, Err(why.to_string()));
            }
            sent => sent?,
        }
    }
    while let Some(answer) = pipeline.next_answer()? {
        outcome(answer.tag, answer.outcome);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_the_target_cannot_hold_is_named_with_the_reason() {
        assert_eq!(checked(b"\x81\xa2id\x07", "id"), Ok("7".to_owned()));
        assert_eq!(checked(b"\x07", "id"), Err((String::new(), "not a map".to_owned())));
        let without_key = checked(b"\x81\xa1x\x07", "id").expect_err("no key");
        assert_eq!(without_key.1, "missing_key");
        let deep = [b"\x82\xa2id\x07\xa1x".as_slice(), &[0x91; LEVELS], b"\x01"].concat();
        let (key, why) = checked(&deep, "id").expect_err("too deep");
        assert_eq!((key.as_str(), why.as_str()), ("7", "nested in more than 62 levels"));
        let long = [b"\x81\xa2id\xdb\x00\x20\x00\x00".as_slice(), &[b'k'; 2 << 20]].concat();
        assert_eq!(
            checked(&long, "id").expect_err("too long").1,
            "key too long: at most 4096 bytes"
        );
    }
}
