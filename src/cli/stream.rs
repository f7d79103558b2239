//! Lists of a table's records or keys that go on where they broke off: the reader of the output may pause for as long
//! as they like, and the daemon keeps no list open for so long.
//! Leaves what becomes of an element to the commands.
//!
//! ```text
//!   List ──request──> daemon ──elements──> visit
//!     ^                  │
//!     └── after: the last key, limit: what is left ── the connection was closed in the middle
//! ```
//!
//! A list is one snapshot of the table; one that went on is one snapshot for each of its parts.

use cortex_client::{
    Client, Elements, Error,
    api::{self, Raw},
};
use cortex_core::model::{Key, Limits};

use super::context::Context;
use super::failure::{Exit, Failure};

/// What the elements are.
#[derive(Debug, Clone)]
pub(crate) enum ListKind {
    /// Every record.
    All,
    /// The records that match an encoded pattern.
    Match(Vec<u8>),
    /// Keys.
    Keys,
}

/// Which elements are wanted.
#[derive(Debug, Clone)]
pub(crate) struct List<'a> {
    pub(crate) what: ListKind,
    pub(crate) table: &'a str,
    /// At most so many.
    pub(crate) limit: Option<u64>,
    /// Only those after this encoded key.
    pub(crate) after: Option<Vec<u8>>,
}

impl List<'_> {
    /// A whole table is asked for in the form that every daemon knows.
    fn ask<'c>(&self, client: &'c mut Client) -> Result<Elements<'c>, Error> {
        let (table, after) = (self.table, self.after.as_deref().map(Raw));
        let page = api::Page { limit: self.limit, after };
        match &self.what {
            ListKind::All => client.call_streamed(&api::All { table, page }),
            ListKind::Match(pattern) => {
                client.call_streamed(&api::Match { table, pattern: Raw(pattern), page })
            }
            ListKind::Keys => client.call_streamed(&api::Keys { table, page }),
        }
    }

    /// Makes of the list what is left of it after its first `count` elements, the last of which is given.
    fn resume_after(
        &mut self,
        count: u64,
        last: &[u8],
        key_field: Option<&str>,
    ) -> Result<(), Failure> {
        let key = match key_field {
            None => last.to_vec(),
            Some(field) => api::encoded(&key_of(last, field)?),
        };
        if self.after.as_ref() == Some(&key) {
            return Err(Failure::new(
                Exit::Failed,
                "unexpected answer: what comes after a key ends with it",
            ));
        }
        self.after = Some(key);
        self.limit = self.limit.map(|limit| limit.saturating_sub(count));
        Ok(())
    }
}

/// A connection for lists, and what is known of the tables.
pub(crate) struct Lists<'c> {
    context: &'c Context,
    client: Client,
    key_field: Option<String>,
    /// The last element that was visited.
    last: Vec<u8>,
    /// Elements that were visited since a list was last made to begin after one.
    fresh: u64,
}

impl<'c> Lists<'c> {
    pub(crate) fn connect(context: &'c Context) -> Result<Self, Failure> {
        let client = context.connect()?;
        Ok(Self { context, client, key_field: None, last: Vec::new(), fresh: 0 })
    }

    /// Visits the elements of a list, however often it breaks off, and returns how many there were.
    pub(crate) fn visit(
        &mut self,
        list: &mut List<'_>,
        mut visit: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let mut all = 0;
        loop {
            let ended = self.visit_part(list, &mut visit)?;
            all += self.fresh;
            if ended {
                return Ok(all);
            }
            self.client = self.context.connect()?;
            self.resume(list)?;
            if list.limit == Some(0) {
                return Ok(all);
            }
        }
    }

    /// Visits elements up to the end of the list, which is true, or to where it broke off.
    fn visit_part(
        &mut self,
        list: &List<'_>,
        visit: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        self.fresh = 0;
        let mut elements = list.ask(&mut self.client)?;
        loop {
            match elements.next_element() {
                Ok(Some(element)) => {
                    visit(element)?;
                    self.last.clear();
                    self.last.extend_from_slice(element);
                    self.fresh += 1;
                }
                Ok(None) => return Ok(true),
                // Not twice at the same place: that would be another reason than a slow reader.
                Err(Error::Closed) if self.fresh > 0 => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes of a list what comes after the elements that were visited.
    pub(crate) fn resume(&mut self, list: &mut List<'_>) -> Result<(), Failure> {
        if self.fresh == 0 {
            return Ok(());
        }
        let of_records = !matches!(list.what, ListKind::Keys);
        if of_records && self.key_field.is_none() {
            self.key_field = Some(key_field(&mut self.client, list.table)?);
        }
        let key_field = self.key_field.as_deref().filter(|_| of_records);
        list.resume_after(self.fresh, &self.last, key_field)?;
        self.fresh = 0;
        Ok(())
    }
}

/// Prints a list as one array.
pub(crate) fn print(context: &Context, list: &mut List<'_>) -> Result<(), Failure> {
    let mut lists = Lists::connect(context)?;
    let mut printer = context.printer().array();
    lists.visit(list, |element| printer.element(element))?;
    printer.end()
}

/// The name of the field that holds the keys of a table.
fn key_field(client: &mut Client, table: &str) -> Result<String, Failure> {
    let field = client.call(&api::TableInfo { table })?.key_field;
    if field.is_empty() {
        return Err(Failure::new(Exit::Failed, "unexpected answer: table_info names no key_field"));
    }
    Ok(field)
}

/// The key of a record as the daemon compares it: as text. Whether a key may be that long was the daemon's to
/// say when it took the record.
fn key_of(record: &[u8], key_field: &str) -> Result<String, Failure> {
    let any_length = Limits { key_bytes: usize::MAX, ..Limits::default() };
    let unexpected =
        |why: &str| Failure::new(Exit::Failed, format!("unexpected answer: a record {why}"));
    let key = Key::of_record(record, key_field, &any_length)
        .ok_or_else(|| unexpected("that is no map"))?
        .map_err(|refusal| unexpected(&format!("whose {key_field} is no key: {refusal}")))?;
    Ok(String::from_utf8_lossy(key.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::json::packed;
    use rmpv::Value;

    #[test]
    fn a_key_of_any_kind_has_the_text_by_which_the_daemon_orders_it() {
        let longer_than_any_default = "k".repeat(100_000);
        for (value, expected) in [
            (Value::from("a"), "a"),
            (7.into(), "7"),
            ((-7).into(), "-7"),
            (u64::MAX.into(), "18446744073709551615"),
            (1.5.into(), "1.5"),
            (7.0.into(), "7.0"),
            (true.into(), "true"),
            (longer_than_any_default.as_str().into(), &longer_than_any_default),
        ] {
            let record = packed(&Value::Map(vec![("n".into(), 1.into()), ("id".into(), value)]));
            assert_eq!(key_of(&record, "id").expect("a key"), expected);
            assert!(key_of(&record, "other").is_err());
        }
        assert!(key_of(&[0x07], "id").is_err(), "no map");
    }
}
