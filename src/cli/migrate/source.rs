//! What is asked of the daemon to leave: which tables there are, what each is, who may use it.
//! Leaves its records to `batch`.

use std::collections::BTreeMap;

use cortex_client::{
    Client, Elements, Error,
    api::{
        AclList, All, Get, Keys, NodeScope, Page, Raw, RawValue, TableGrant, TableInfo, TableList,
        Tables, TablesOptions, encoded,
    },
};
use cortex_core::model::{Key, Limits};
use cortex_core::wire::Reader;
use rmpv::Value;
use serde::Deserialize;

use crate::cli::failure::Failure;
use crate::cli::json::packed;

/// Records that are looked at to find out which of their fields is the key.
const SAMPLE: usize = 64;

/// The daemon to leave, seen by one user.
#[derive(Debug)]
pub(super) struct Source {
    client: Client,
    uid: u32,
}

/// What a table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    /// The key first.
    pub(super) attributes: Vec<String>,
    /// `local`, `all`, or names of nodes separated by commas.
    pub(super) scope: String,
}

/// What `table_info` says, as far as every daemon says it alike: the owner is a number to the original one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TableDescription {
    key_field: String,
    attributes: Vec<String>,
    node_scope: NodeScope,
}

/// Rights that somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) identity: String,
    /// In the order read, write, admin.
    pub(super) permissions: Vec<String>,
}

impl Source {
    pub(super) fn new(client: Client, uid: u32) -> Self {
        Self { client, uid }
    }

    /// The user's tables, by the names that this user calls them.
    pub(super) fn tables(&mut self) -> Result<Vec<String>, Failure> {
        match self.client.call(&Tables { options: TablesOptions::default() })? {
            TableList::Names(names) => Ok(names),
            TableList::Details(tables) => Ok(tables.into_iter().map(|of| of.table).collect()),
        }
    }

    /// The grants on each of them but those to the owner.
    pub(super) fn grants(&mut self) -> Result<BTreeMap<String, Vec<Grant>>, Failure> {
        Ok(grants(&mut self.client, self.uid)?)
    }

    /// All records of a table, as they arrive.
    pub(super) fn records(&mut self, table: &str) -> Result<Elements<'_>, Error> {
        self.client.call_streamed(&All { table, page: Page::default() })
    }

    /// Whether there is a record with that key.
    pub(super) fn has(&mut self, table: &str, key: &str) -> Result<bool, Error> {
        match self.client.call_raw(&Get { table, key: Raw(&encoded(&key)) }) {
            Ok(_record) => Ok(true),
            Err(Error::Refused(refusal)) if refusal == "not_found" => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What a table is. An early daemon does not answer that: then its records show which field is the key. `None`
    /// where they do not either.
    pub(super) fn describe(&mut self, table: &str) -> Result<Option<Description>, Error> {
        match describe(&mut self.client, table) {
            Err(Error::Refused(refusal)) if refusal.starts_with("unknown method") => {
                let key = self.find_key(table)?;
                let scope = "local".to_owned();
                Ok(key.map(|key| Description { attributes: vec![key], scope }))
            }
            described => described.map(Some),
        }
    }

    /// The one field that holds the key in every record looked at.
    fn find_key(&mut self, table: &str) -> Result<Option<String>, Error> {
        let mut keys = Vec::new();
        let mut elements = self.client.call_streamed(&Keys { table, page: Page::default() })?;
        while let Some(element) = elements.next_element()? {
            if keys.len() < SAMPLE {
                keys.extend(text(element).map(str::to_owned));
            }
        }
        let mut candidates: Option<Vec<String>> = None;
        for key in keys {
            let record = self.client.call_raw(&Get { table, key: Raw(&encoded(&key)) })?;
            let fields = fields_with(&decoded(&record)?, &key);
            candidates = Some(match candidates {
                None => fields,
                Some(before) => before.into_iter().filter(|name| fields.contains(name)).collect(),
            });
        }
        Ok(candidates.filter(|found| found.len() == 1).and_then(|mut found| found.pop()))
    }
}

/// What a daemon says of a table.
pub(super) fn describe(client: &mut Client, table: &str) -> Result<Description, Error> {
    let table: TableDescription = RawValue(client.call_raw(&TableInfo { table })?).decoded()?;
    let others = table.attributes.into_iter().filter(|name| *name != table.key_field);
    let attributes = std::iter::once(table.key_field.clone()).chain(others).collect();
    Ok(Description { attributes, scope: table.node_scope.to_string() })
}

/// The grants on a user's tables by the user's names for them, but those to the owner.
pub(super) fn grants(client: &mut Client, uid: u32) -> Result<BTreeMap<String, Vec<Grant>>, Error> {
    let rows = client.call(&AclList {})?;
    let mut grants: BTreeMap<String, Vec<Grant>> = BTreeMap::new();
    let own = format!("{uid}:");
    for TableGrant { identity, table, permissions } in rows {
        let is_owner = identity == format!("uid:{uid}")
            || table.split_once(':').is_some_and(|(owner, _)| owner == identity);
        if is_owner {
            continue;
        }
        let permissions = ordered(&permissions);
        let name = table.strip_prefix(&own).unwrap_or(&table).to_owned();
        grants.entry(name).or_default().push(Grant { identity, permissions });
    }
    Ok(grants)
}

/// Permissions in the order read, write, admin, each once; unknown ones behind.
fn ordered(permissions: &[String]) -> Vec<String> {
    const WORDS: [&str; 3] = ["read", "write", "admin"];
    let known = WORDS.iter().filter(|word| permissions.iter().any(|given| given == *word));
    let others = permissions.iter().filter(|given| !WORDS.contains(&given.as_str()));
    known.map(|word| (*word).to_owned()).chain(others.cloned()).collect()
}

/// The fields of a record whose value makes that key.
fn fields_with(record: &Value, key: &str) -> Vec<String> {
    let pairs = record.as_map().map(Vec::as_slice).unwrap_or_default();
    let makes_it = pairs.iter().filter(|(_, value)| makes_key(value, key));
    makes_it.filter_map(|(name, _)| name.as_str().map(str::to_owned)).collect()
}

/// Whether a value is kept under that key, here or where fractions keep their `.0`.
fn makes_key(value: &Value, key: &str) -> bool {
    if let (Value::F64(number), Ok(written)) = (value, key.parse::<f64>()) {
        return number.to_bits() == written.to_bits();
    }
    Key::read(&packed(value), &Limits::default())
        .is_ok_and(|made| made.as_bytes() == key.as_bytes())
}

/// A text among the elements of a list; none for anything else.
pub(super) fn text(encoded: &[u8]) -> Option<&str> {
    Reader::new(encoded).text()
}

fn decoded(bytes: &[u8]) -> Result<Value, Error> {
    rmpv::decode::read_value(&mut &*bytes)
        .map_err(|e| Error::Protocol(format!("a value cannot be decoded: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &[(&str, Value)]) -> Value {
        Value::Map(fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())
    }

    #[test]
    fn the_field_that_makes_the_key_is_found_whatever_its_type() {
        for (value, key) in
            [(7.into(), "7"), ("a".into(), "a"), (1.0.into(), "1.0"), (true.into(), "true")]
        {
            let found = fields_with(&record(&[("id", value), ("x", Value::Nil)]), key);
            assert_eq!(found, ["id"], "{key}");
        }
        let two = record(&[("id", 7.into()), ("also", "7".into())]);
        assert_eq!(fields_with(&two, "7"), ["id", "also"]);
    }

    #[test]
    fn permissions_are_compared_in_one_order() {
        let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(ordered(&words("admin,read,read")), ["read", "admin"]);
        assert_eq!(ordered(&words("watch,write")), ["write", "watch"]);
    }
}
