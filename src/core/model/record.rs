//! A record as its client wrote it: which key it has, and whether it matches a pattern.
//! The bytes are read in place and never written again.

use super::{Limits, Refusal};
use crate::wire::{Head, Reader, Value};

/// A record's key in its text form: the string itself, or the decimal form of a number. Keys are
/// compared and ordered as these bytes, so that 7 and "7" are one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<[u8]>);

impl Key {
    /// Reads a key from an encoded value: a string, an integer, a float or a boolean.
    ///
    /// # Errors
    /// [`Refusal::MissingKey`] for nil, bytes, containers, an empty string or one that is no
    /// UTF-8; [`Refusal::KeyTooLong`].
    pub fn read(value: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        let text = match Reader::new(value).head() {
            Some(Head::Str(text)) if !text.is_empty() && std::str::from_utf8(text).is_ok() => {
                text.into()
            }
            Some(Head::Int(n)) => n.to_string().into_bytes().into(),
            Some(Head::Float(f)) => f.to_string().into_bytes().into(),
            Some(Head::Bool(b)) => b.to_string().into_bytes().into(),
            Some(
                Head::Str(_)
                | Head::Nil
                | Head::Bin(_)
                | Head::Array(_)
                | Head::Map(_)
                | Head::Ext(..),
            )
            | None => return Err(Refusal::MissingKey),
        };
        Self::from_bytes(text, limits)
    }

    /// Finds the key of a record: the value of its key field, the last one of duplicates.
    /// None where `record` is no map.
    ///
    /// # Errors
    /// [`Refusal::MissingKey`] where the field is absent, otherwise as [`Key::read`].
    #[must_use]
    pub fn of_record(record: &[u8], field: &str, limits: &Limits) -> Option<Result<Self, Refusal>> {
        let mut found = None;
        for (name, value) in Fields::new(record)? {
            if name == field.as_bytes() {
                found = Some(value);
            }
        }
        Some(found.ok_or(Refusal::MissingKey).and_then(|value| Self::read(value, limits)))
    }

    fn from_bytes(text: Box<[u8]>, limits: &Limits) -> Result<Self, Refusal> {
        if text.len() > limits.key_bytes {
            return Err(Refusal::KeyTooLong(limits.key_bytes));
        }
        Ok(Self(text))
    }

    /// The text form. Always UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The fields of a record: pairs of a name's bytes and an encoded value, in the order in which
/// they stand. Pairs whose name is no string are passed over.
#[derive(Clone, Debug)]
struct Fields<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Fields<'a> {
    fn new(record: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(record);
        let Some(Head::Map(left)) = reader.head() else {
            return None;
        };
        Some(Self { reader, left })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            self.left -= 1;
            let (name, value) = (self.reader.raw()?, self.reader.raw()?);
            if let Some(Head::Str(name)) = Reader::new(name).head() {
                return Some((name, value));
            }
        }
        None
    }
}

/// A pattern to compare records with, read once and used for every record of a scan.
#[derive(Clone, Debug)]
pub struct Pattern<'a> {
    /// Sorted by name, each name once.
    fields: Vec<Wanted<'a>>,
}

#[derive(Clone, Debug)]
struct Wanted<'a> {
    name: &'a [u8],
    raw: &'a [u8],
    value: Value<'a>,
}

impl<'a> Pattern<'a> {
    /// Reads a pattern from an encoded map; none for any other value, or for a map with names
    /// that are no strings.
    #[must_use]
    pub fn read(pattern: &'a [u8]) -> Option<Self> {
        let Some(Head::Map(count)) = Reader::new(pattern).head() else {
            return None;
        };
        let given: Vec<_> = Fields::new(pattern)?.collect();
        if given.len() != count {
            return None;
        }
        let mut fields = Vec::with_capacity(count);
        for (name, raw) in given.into_iter().rev() {
            fields.push(Wanted { name, raw, value: Value::read(&mut Reader::new(raw))? });
        }
        fields.sort_by_key(|wanted| wanted.name);
        fields.dedup_by_key(|wanted| wanted.name);
        Some(Self { fields })
    }

    /// True where every field of the pattern equals the record's field of that name, or is a
    /// member of it where the record holds a list and the pattern does not. A nil in the pattern
    /// matches only nil; a field that the record lacks never matches.
    #[must_use]
    pub fn matches(&self, record: &[u8]) -> bool {
        let Some(fields) = Fields::new(record) else {
            return false;
        };
        let mut held = vec![None; self.fields.len()];
        for (name, value) in fields {
            if let Ok(index) = self.fields.binary_search_by_key(&name, |wanted| wanted.name) {
                held[index] = Some(value);
            }
        }
        let mut pairs = self.fields.iter().zip(held);
        pairs.all(|(wanted, value)| value.is_some_and(|value| wanted.accepts(value)))
    }
}

impl Wanted<'_> {
    fn accepts(&self, held: &[u8]) -> bool {
        if held == self.raw {
            return true;
        }
        let mut reader = Reader::new(held);
        let is_wanted = |value: Option<Value<'_>>| value.is_some_and(|value| value == self.value);
        let by_member = !matches!(self.value, Value::Array(_) | Value::Nil);
        match reader.clone().head() {
            Some(Head::Array(count)) if by_member => {
                let _entered = reader.head();
                (0..count).any(|_| is_wanted(Value::read(&mut reader)))
            }
            _ => is_wanted(Value::read(&mut reader)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(value: impl Into<rmpv::Value>) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &value.into()).expect("a Vec takes all");
        bytes
    }

    fn map(pairs: Vec<(&str, rmpv::Value)>) -> Vec<u8> {
        encoded(rmpv::Value::Map(pairs.into_iter().map(|(k, v)| (k.into(), v)).collect()))
    }

    fn key(value: rmpv::Value) -> Result<Key, Refusal> {
        Key::read(&encoded(value), &Limits::default())
    }

    #[test]
    fn keys_are_compared_as_strings() {
        assert_eq!(key(7.into()), key("7".into()));
        assert_eq!(key((-7).into()), key("-7".into()));
        assert_eq!(key(u64::MAX.into()), key("18446744073709551615".into()));
        assert_eq!(key(true.into()), key("true".into()));
        assert_eq!(key(1.5.into()), key("1.5".into()));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in
            [rmpv::Value::Nil, "".into(), rmpv::Value::Array(vec![]), rmpv::Value::Binary(vec![1])]
        {
            assert_eq!(key(bad), Err(Refusal::MissingKey));
        }
        let longest = "k".repeat(Limits::default().key_bytes);
        assert!(key(longest.as_str().into()).is_ok());
        assert_eq!(key((longest + "k").as_str().into()), Err(Refusal::KeyTooLong(4096)));
    }

    #[test]
    fn the_last_of_duplicate_key_fields_counts() {
        let record = map(vec![("id", 1.into()), ("x", 0.into()), ("id", 2.into())]);
        let found = Key::of_record(&record, "id", &Limits::default());
        assert_eq!(found, Some(key("2".into())));
    }

    #[test]
    fn a_record_without_its_key_field_is_missing_its_key() {
        let limits = Limits::default();
        assert_eq!(Key::of_record(&map(vec![]), "id", &limits), Some(Err(Refusal::MissingKey)));
        assert_eq!(Key::of_record(&encoded(5), "id", &limits), None, "no record at all");
    }

    fn matches(pattern: &[u8], record: &[u8]) -> bool {
        Pattern::read(pattern).expect("a pattern").matches(record)
    }

    /// holds V2: the rules of `match`, a row each.
    #[test]
    fn a_pattern_matches_by_equality_and_by_membership() {
        use rmpv::Value::{Array, Nil};
        let list = |items: &[i64]| Array(items.iter().map(|n| (*n).into()).collect());
        let record = map(vec![
            ("id", 1.into()),
            ("tags", list(&[1, 2])),
            ("none", Nil),
            ("holes", Array(vec![Nil, 3.into()])),
            ("half", 0.5.into()),
        ]);
        for (pattern, expected, why) in [
            (vec![], true, "an empty pattern matches all"),
            (vec![("id", 1.into())], true, "equal"),
            (vec![("id", 1.0.into())], true, "equal as numbers"),
            (vec![("id", "1".into())], false, "a string is no number"),
            (vec![("tags", 2.into())], true, "a member"),
            (vec![("tags", 3.into())], false, "no member"),
            (vec![("tags", list(&[1, 2]))], true, "the same list"),
            (vec![("tags", list(&[1]))], false, "another list"),
            (vec![("none", Nil)], true, "nil is nil"),
            (vec![("id", Nil)], false, "nil is nothing else"),
            (vec![("holes", Nil)], false, "nil matches only nil"),
            (vec![("absent", Nil)], false, "a field that is not there"),
            (vec![("id", 1.into()), ("half", 0.5.into())], true, "both"),
            (vec![("id", 1.into()), ("half", 0.6.into())], false, "not both"),
        ] {
            assert_eq!(matches(&map(pattern), &record), expected, "{why}");
        }
    }

    #[test]
    fn a_pattern_that_is_no_map_of_names_is_none() {
        assert!(Pattern::read(&encoded(1)).is_none());
        assert!(Pattern::read(&[0x81, 1, 1]).is_none(), "a name must be a string");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            pattern in prop::collection::vec(any::<u8>(), 0..60), record in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = Key::of_record(&record, "id", &Limits::default());
            if let Some(pattern) = Pattern::read(&pattern) {
                let _ = pattern.matches(&record);
            }
        }
    }
}
