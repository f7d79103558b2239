//! Rows of another node that no client could have stored: they are left out of its batches and named.
//!
//! A node that is not what it was certified as may send any bytes. What it sends is answered to clients as it came, so
//! it passes the same check as what clients send. The other rows of the batch are taken, and what its source knows is
//! believed: then digests differ, and status says that the replicas do.

use std::collections::BTreeMap;

use super::{Batch, Dot};
use crate::model::record::{self, RecordFault};

/// A row that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRow {
    /// Its key, which may be no text.
    pub key: Vec<u8>,
    /// Which write it claims to be.
    pub dot: Dot,
    /// What is wrong with it.
    pub why: RecordFault,
}

impl Batch {
    /// Takes the rows out that no client could have stored. Of a batch of records: rows of the directory are signed, and
    /// judged by that.
    pub fn take_invalid_rows(&mut self) -> Vec<InvalidRow> {
        let mut invalid = Vec::new();
        self.rows.retain(|row| {
            let checked = match &row.value {
                Some(value) => record::validate(&row.key, value),
                None => record::validate_key(&row.key),
            };
            let Err(why) = checked else { return true };
            invalid.push(InvalidRow { key: row.key.clone(), dot: row.dot(), why });
            false
        });
        invalid
    }
}

/// The rows of one replica that were left out, as far as they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InvalidRows {
    rows: BTreeMap<Vec<u8>, RecordFault>,
    /// True where there are more.
    more: bool,
}

impl InvalidRows {
    /// Rows that are kept.
    const MOST: usize = 64;

    /// Adds rows. Answers those that were not known, as far as they are kept.
    pub fn note(&mut self, rows: Vec<InvalidRow>) -> Vec<InvalidRow> {
        let mut news = Vec::new();
        for row in rows {
            let is_known = self.rows.get(&row.key) == Some(&row.why);
            if is_known {
                continue;
            }
            if self.rows.len() >= Self::MOST && !self.rows.contains_key(&row.key) {
                self.more = true;
                continue;
            }
            self.rows.insert(row.key.clone(), row.why);
            news.push(row);
        }
        news
    }

    /// What is to be said of them, if there are any: how many, and what is wrong with the first.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let (key, why) = self.rows.iter().next()?;
        let more = if self.more { "more than " } else { "" };
        let rows = match self.rows.len() {
            1 => "row".to_owned(),
            count => format!("{more}{count} rows"),
        };
        let key = String::from_utf8_lossy(key).escape_debug().to_string();
        Some(format!("{rows} of it that no client could have stored: \"{key}\": {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{ActorId, Hlc, Stamp, TableUid},
        replication::{ChangeLogId, Part, Position, RowVersion},
    };

    /// A map whose one field, `id`, is a text of one byte.
    fn record(key: &str) -> Vec<u8> {
        [&[0x81, 0xa2, b'i', b'd', 0xa1], key.as_bytes()].concat()
    }

    fn row(key: &str, value: Option<Vec<u8>>, seq: u64) -> RowVersion {
        let stamp = Stamp { hlc: Hlc::from_unix_ms(seq), actor: ActorId(1) };
        RowVersion { key: key.into(), value, stamp, seq, context: 0 }
    }

    #[test]
    fn a_row_that_no_client_could_have_stored_is_left_out_and_the_others_are_not() {
        let two_values = [record("c"), record("d")].concat();
        let rows = vec![
            row("a", Some(record("a")), 1),
            row("b", Some(record("a")), 2),
            row("c", Some(two_values), 3),
            row("d", None, 4),
            row("", None, 5),
        ];
        let part = Part::Delta { to: 5, last: true };
        let empty = Batch::empty(
            TableUid([1; 16]),
            ActorId(2),
            Position::default(),
            ChangeLogId([1; 16]),
            part,
        );
        let mut batch = Batch { rows, ..empty };
        let invalid = batch.take_invalid_rows();
        let taken: Vec<_> = batch.rows.iter().map(|row| row.seq).collect();
        assert_eq!(taken, [1, 4]);
        let left_out: Vec<_> = invalid.iter().map(|row| (row.dot.seq, row.why)).collect();
        let expected =
            [(2, RecordFault::OtherKey), (3, RecordFault::NotAMap), (5, RecordFault::Key)];
        assert_eq!(left_out, expected);
        assert!(batch.take_invalid_rows().is_empty());
    }

    #[test]
    fn rows_are_named_once_and_in_bounds() {
        let invalid = |n: usize| InvalidRow {
            key: format!("k{n:03}").into(),
            dot: Dot { actor: ActorId(1), seq: n as u64 },
            why: RecordFault::NotAMap,
        };
        let mut rows = InvalidRows::default();
        assert_eq!(rows.summary(), None);
        assert_eq!(rows.note(vec![invalid(1)]), [invalid(1)]);
        assert!(rows.note(vec![invalid(1)]).is_empty());
        assert!(
            rows.summary()
                .is_some_and(|text| text.starts_with("row of it") && text.contains("k001"))
        );
        assert_eq!(rows.note((0..100).map(invalid).collect()).len(), InvalidRows::MOST - 1);
        assert!(rows.summary().is_some_and(|text| text.starts_with("more than 64 rows")));
    }
}
