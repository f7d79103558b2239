//! Results as D-Bus types: dictionaries and lists of variants.
//! Which result belongs to which method is each object's.
//!
//! Counts are `t`, texts `s`. D-Bus has no nil: an entry without a value is left out.

use std::collections::BTreeMap;

use cortex_core::{
    api::Response,
    wire::{Head, Reader},
};
use zbus::{OwnedVariant, Str, Variant};

use super::error::{Error, Result};

/// `a{sv}`, in the order of the names: who looks at it twice finds everything in its place.
pub(super) type Dict = BTreeMap<String, OwnedVariant>;

/// All fields of an answer, those of later versions too: a map of plain values and of such maps.
pub(super) fn dict(answer: &impl Response) -> Result<Dict> {
    let mut encoded = Vec::new();
    answer.write(&mut encoded);
    let dict = read_dict(&mut Reader::new(&encoded));
    dict.ok_or_else(|| Error::failed("the result is no map of plain values"))
}

pub(super) fn text(text: String) -> OwnedVariant {
    Str::from(text).into()
}

pub(super) fn list<T>(values: Vec<T>) -> Result<OwnedVariant>
where
    Vec<T>: Into<Variant<'static>>,
{
    Ok(values.into().try_into()?)
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
    use cortex_core::api::{Event, OwnerUsage, StatusReport};

    use super::*;

    #[test]
    fn a_value_that_is_nil_is_left_out() {
        let dict = dict(&Event { id: 7, ..Event::default() }).expect("a map");
        assert_eq!(dict.keys().collect::<Vec<_>>(), ["at_ms", "id", "kind", "text"]);
        assert_eq!(u64::try_from(&dict["id"]), Ok(7));
    }

    #[test]
    fn what_is_no_map_of_plain_values_is_an_error_and_no_panic() {
        assert!(dict(&StatusReport::default()).is_ok());
        assert!(dict(&"text".to_owned()).is_err());
        assert!(dict(&vec![OwnerUsage::default()]).is_err());
        assert!(dict(&BTreeMap::from([("lists".to_owned(), vec![1_u64])])).is_err());
    }
}
