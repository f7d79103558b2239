//! Results as D-Bus types: out of the bytes of the request path, into dictionaries and lists.
//! Which result belongs to which method is each object's.
//!
//! Counts are `t`, texts `s`. D-Bus has no nil: an entry without a value is left out.

use std::collections::BTreeMap;

use cortex_core::wire::{Head, Reader};
use zbus::{OwnedVariant, Str, Variant};

use super::error::{Error, Result};

/// `a{sv}`, in the order of the names: who looks at it twice finds everything in its place.
pub(super) type Dict = BTreeMap<String, OwnedVariant>;

/// `(uttt)`: a uid, its tables, their records, the bytes of those.
pub(super) type UidUsage = (u32, u64, u64, u64);

/// What table_info says of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TableInfo {
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) key_field: String,
    pub(super) attributes: Vec<String>,
    pub(super) scope: String,
    pub(super) replicas: Vec<String>,
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// How the copy here is.
    state: String,
    /// Versions that have lost, and of which nobody has taken note.
    pub(super) conflicts: u64,
    /// The same of each node that has said how many it keeps.
    conflicts_by_node: BTreeMap<String, u64>,
    /// Who holds which rights.
    pub(super) acl: Vec<(String, Vec<String>)>,
}

/// A map of scalars.
pub(super) fn dict(result: &[u8]) -> Result<Dict> {
    whole(result, read_dict)
}

/// A list of maps of scalars.
pub(super) fn dicts(result: &[u8]) -> Result<Vec<Dict>> {
    whole(result, |from| read_list(from, read_dict))
}

/// A list of strings.
pub(super) fn texts(result: &[u8]) -> Result<Vec<String>> {
    whole(result, read_texts)
}

/// The result of usage.
pub(super) fn usage(result: &[u8]) -> Result<Vec<UidUsage>> {
    whole(result, |from| read_list(from, read_usage))
}

impl TableInfo {
    /// Reads the result of table_info. Keys that are not known here are passed over.
    pub(super) fn read(result: &[u8]) -> Result<Self> {
        whole(result, read_info)
    }

    /// All of it, under the names of the wire.
    pub(super) fn into_dict(self) -> Result<Dict> {
        Ok(Dict::from([
            ("table".into(), text(self.name)),
            ("owner".into(), text(self.owner)),
            ("key_field".into(), text(self.key_field)),
            ("attributes".into(), list(self.attributes)?),
            ("scope".into(), text(self.scope)),
            ("replicas".into(), list(self.replicas)?),
            ("records".into(), self.records.into()),
            ("bytes".into(), self.bytes.into()),
            ("state".into(), text(self.state)),
            ("conflicts".into(), self.conflicts.into()),
            ("conflicts_by_node".into(), self.conflicts_by_node.into()),
            ("acl".into(), list(self.acl)?),
        ]))
    }

    /// What the properties of its object show.
    pub(super) fn into_properties(self) -> Result<Dict> {
        Ok(Dict::from([
            ("Name".into(), text(self.name)),
            ("Owner".into(), text(self.owner)),
            ("KeyField".into(), text(self.key_field)),
            ("Attributes".into(), list(self.attributes)?),
            ("Scope".into(), text(self.scope)),
            ("Records".into(), self.records.into()),
            ("Bytes".into(), self.bytes.into()),
            ("Conflicts".into(), self.conflicts.into()),
        ]))
    }
}

pub(super) fn text(text: String) -> OwnedVariant {
    Str::from(text).into()
}

fn list<T>(values: Vec<T>) -> Result<OwnedVariant>
where
    Vec<T>: Into<Variant<'static>>,
{
    Ok(values.into().try_into()?)
}

/// Reads a result to its end. What cannot be read is a defect: both sides are ours.
pub(super) fn whole<T>(result: &[u8], read: impl Fn(&mut Reader<'_>) -> Option<T>) -> Result<T> {
    let mut from = Reader::new(result);
    let value = read(&mut from).filter(|_| from.rest().is_empty());
    value.ok_or_else(|| Error::failed("the result has another shape than expected"))
}

pub(super) fn read_list<T>(
    from: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(Head::Array(count)) = from.head() else {
        return None;
    };
    (0..count).map(|_| read(from)).collect()
}

pub(super) fn read_texts(from: &mut Reader<'_>) -> Option<Vec<String>> {
    read_list(from, |from| from.text().map(str::to_owned))
}

fn read_dict(from: &mut Reader<'_>) -> Option<Dict> {
    let Some(Head::Map(count)) = from.head() else {
        return None;
    };
    read_entries(from, count)
}

/// The entries of a map of texts to plain values and such maps.
fn read_entries(from: &mut Reader<'_>, count: usize) -> Option<Dict> {
    let mut dict = Dict::new();
    for _ in 0..count {
        let name = from.text()?.to_owned();
        let value = match from.head()? {
            Head::Nil => continue,
            Head::Bool(value) => value.into(),
            Head::Int(value) => match u64::try_from(value) {
                Ok(count) => count.into(),
                Err(_) => i64::try_from(value).ok()?.into(),
            },
            Head::Float(value) => value.into(),
            Head::Str(value) => text(std::str::from_utf8(value).ok()?.to_owned()),
            Head::Map(count) => Variant::from(read_entries(from, count)?).try_into().ok()?,
            Head::Bin(_) | Head::Array(_) | Head::Ext(..) => return None,
        };
        dict.insert(name, value);
    }
    Some(dict)
}

fn read_usage(from: &mut Reader<'_>) -> Option<UidUsage> {
    let (mut uid, mut tables, mut records, mut bytes) = Default::default();
    each_pair(from, |name, from| {
        match name {
            "uid" => uid = u32::try_from(number(from)?).ok()?,
            "tables" => tables = number(from)?,
            "records" => records = number(from)?,
            "bytes" => bytes = number(from)?,
            _ => drop(from.raw()?),
        }
        Some(())
    })?;
    Some((uid, tables, records, bytes))
}

fn read_info(from: &mut Reader<'_>) -> Option<TableInfo> {
    let mut info = TableInfo::default();
    each_pair(from, |name, from| {
        match name {
            "table" => info.name = from.text()?.to_owned(),
            "owner" => info.owner = from.text()?.to_owned(),
            "key_field" => info.key_field = from.text()?.to_owned(),
            "attributes" => info.attributes = read_texts(from)?,
            "node_scope" => info.scope = read_scope(from)?,
            "replicas" => {
                let replicas = read_list(from, read_replica)?;
                for (node, _, conflicts) in &replicas {
                    info.conflicts_by_node.extend(conflicts.map(|count| (node.clone(), count)));
                }
                let held = replicas.into_iter().filter(|(_, has_left, _)| !has_left);
                info.replicas = held.map(|(node, ..)| node).collect();
            }
            "state" => info.state = from.text()?.to_owned(),
            "conflicts" => info.conflicts = number(from)?,
            "records" => info.records = number(from)?,
            "bytes" => info.bytes = number(from)?,
            "acl" => info.acl = read_list(from, read_grant)?,
            _ => drop(from.raw()?),
        }
        Some(())
    })?;
    Some(info)
}

/// The node that a copy is on, whether it has left, and the conflicts that it keeps.
fn read_replica(from: &mut Reader<'_>) -> Option<(String, bool, Option<u64>)> {
    let (mut node, mut has_left, mut conflicts) = (String::new(), false, None);
    each_pair(from, |name, from| {
        match name {
            "node" => node = from.text()?.to_owned(),
            "state" => has_left = from.text()? == "left",
            "conflicts" if from.clone().head()? == Head::Nil => drop(from.raw()?),
            "conflicts" => conflicts = Some(number(from)?),
            _ => drop(from.raw()?),
        }
        Some(())
    })?;
    Some((node, has_left, conflicts))
}

fn read_grant(from: &mut Reader<'_>) -> Option<(String, Vec<String>)> {
    let (mut identity, mut permissions) = Default::default();
    each_pair(from, |name, from| {
        match name {
            "identity" => identity = from.text()?.to_owned(),
            "permissions" => permissions = read_texts(from)?,
            _ => drop(from.raw()?),
        }
        Some(())
    })?;
    Some((identity, permissions))
}

/// A scope is a word or a list of nodes; here it is always as it would be written.
fn read_scope(from: &mut Reader<'_>) -> Option<String> {
    if let Some(Head::Array(_)) = from.clone().head() {
        return Some(read_texts(from)?.join(","));
    }
    from.text().map(str::to_owned)
}

pub(super) fn each_pair<'a>(
    from: &mut Reader<'a>,
    mut take: impl FnMut(&'a str, &mut Reader<'a>) -> Option<()>,
) -> Option<()> {
    let Some(Head::Map(count)) = from.head() else {
        return None;
    };
    (0..count).try_for_each(|_| take(from.text()?, from))
}

/// A map of values of one kind.
pub(super) fn read_map<T>(
    from: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Option<T>,
) -> Option<BTreeMap<String, T>> {
    let mut map = BTreeMap::new();
    each_pair(from, |name, from| {
        map.insert(name.to_owned(), read(from)?);
        Some(())
    })?;
    Some(map)
}

pub(super) fn number(from: &mut Reader<'_>) -> Option<u64> {
    let Head::Int(number) = from.head()? else {
        return None;
    };
    u64::try_from(number).ok()
}

pub(super) fn signed(from: &mut Reader<'_>) -> Option<i64> {
    let Head::Int(number) = from.head()? else {
        return None;
    };
    i64::try_from(number).ok()
}

pub(super) fn flag(from: &mut Reader<'_>) -> Option<bool> {
    let Head::Bool(flag) = from.head()? else {
        return None;
    };
    Some(flag)
}

/// The names of the properties in the file of an interface, in order.
#[cfg(test)]
pub(super) fn declared_properties(file: &str) -> Vec<&str> {
    let lines = file.lines().filter_map(|line| line.trim().strip_prefix("<property name=\""));
    let mut names: Vec<_> = lines.filter_map(|rest| rest.split('"').next()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use cortex_core::wire::encode;

    use super::*;

    #[test]
    fn a_value_that_is_nil_is_left_out() {
        let mut result = Vec::new();
        encode::map(&mut result, 2);
        encode::str(&mut result, "uid");
        encode::nil(&mut result);
        encode::str(&mut result, "id");
        encode::uint(&mut result, 7);
        let dict = dict(&result).expect("a map");
        assert_eq!(dict.keys().collect::<Vec<_>>(), ["id"]);
        assert_eq!(u64::try_from(&dict["id"]), Ok(7));
    }

    #[test]
    fn a_scope_of_nodes_is_shown_as_it_is_written() {
        let mut result = Vec::new();
        encode::map(&mut result, 2);
        encode::str(&mut result, "node_scope");
        encode::strings(&mut result, ["home", "office"].into_iter());
        encode::str(&mut result, "what a later version adds");
        encode::map(&mut result, 0);
        assert_eq!(TableInfo::read(&result).expect("a map").scope, "home,office");
    }

    #[test]
    fn a_result_of_another_shape_is_an_error_and_no_panic() {
        for bytes in [&[][..], &[0xc0], &[0x81], &[0x81, 0xa1], &[0x90, 0x90], &[0x80, 0]] {
            assert!(dict(bytes).is_err() && dicts(bytes).is_err(), "{bytes:x?}");
            assert!(usage(bytes).is_err() && TableInfo::read(bytes).is_err(), "{bytes:x?}");
        }
    }
}
