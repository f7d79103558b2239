//! A record as its client wrote it: which key it has, and whether it matches a pattern.
//! The bytes are read in place and never written again.

use super::{Limits, Refusal};
use crate::wire::{Head, Reader, Scan, Scanner, Value};

/// From here on a float stands for more than one integer, and what a client read as different numbers may
/// be one: 2^53.
const INEXACT_FROM: f64 = 9_007_199_254_740_992.0;

/// A record's key in its text form: the string itself, or what JSON writes for a number or a boolean. Keys
/// are compared and ordered as these bytes, so that 7 and "7" are one key. No two values that are not
/// strings have the same text: 7 and 7.0 are two keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<[u8]>);

impl Key {
    /// Reads a key from an encoded value: a string, an integer, a float or a boolean.
    ///
    /// # Errors
    /// [`Refusal::MissingKey`] for nil, NaN, the infinities, bytes, containers, an empty string or one that
    /// is no UTF-8; [`Refusal::KeyInexact`] for floats of 2^53 and more; [`Refusal::KeyTooLong`].
    pub fn read(value: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        let text = match Reader::new(value).head() {
            Some(Head::Str(text)) if !text.is_empty() && std::str::from_utf8(text).is_ok() => {
                text.into()
            }
            Some(Head::Int(n)) => n.to_string().into_bytes().into(),
            Some(Head::Float(f)) if f.is_finite() => float_text(f)?.into_bytes().into(),
            Some(Head::Bool(b)) => b.to_string().into_bytes().into(),
            Some(
                Head::Str(_)
                | Head::Nil
                | Head::Float(_)
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

/// The shortest decimal text that reads back as this float and as no integer: with a point or an exponent,
/// laid out as the JSON of `cortex` has it. It names rows on disk and between machines, so it is laid out
/// here and not by a library, which may choose another form one day.
fn float_text(float: f64) -> Result<String, Refusal> {
    /// The least exponent that is written with leading zeros instead.
    const LEAST_PLAIN: i32 = -5;
    if float.abs() >= INEXACT_FROM {
        return Err(Refusal::KeyInexact);
    }
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    Ok(if exponent >= LEAST_PLAIN {
        // Never an exponent, and a fraction also where it is zero.
        let plain = float.to_string();
        if plain.contains('.') { plain } else { plain + ".0" }
    } else {
        format!("{mantissa}e{exponent}")
    })
}

/// Levels of nesting that a record may have under any settings: those of a message, without its own two.
const MOST_LEVELS: usize = 254;

/// What is wrong with a row that came from elsewhere: no client could have stored it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The key is empty, or no UTF-8.
    #[error("its key is no text")]
    Key,
    /// The value is not exactly one MessagePack map.
    #[error("its value is no record: not exactly one MessagePack map")]
    NotAMap,
    /// The value is nested more deeply than any settings allow.
    #[error("its value is nested too deeply")]
    TooDeep,
    /// No field of the record holds the key.
    #[error("no field of its value is its key")]
    OtherKey,
}

/// Whether these bytes are a record under that key that a client could have stored. Clients are answered the bytes
/// as they are: what is no value of its own would be read as a part of the reply around it.
///
/// # Errors
/// [`RecordFault`].
pub fn validate(key: &[u8], record: &[u8]) -> Result<(), RecordFault> {
    validate_key(key)?;
    match Scanner::new(record.len(), MOST_LEVELS).scan(record) {
        Ok(Scan::Whole(length)) if length == record.len() => {}
        Ok(Scan::Deep(_)) => return Err(RecordFault::TooDeep),
        Ok(Scan::Whole(_) | Scan::More) | Err(_) => return Err(RecordFault::NotAMap),
    }
    let any_length = Limits { key_bytes: usize::MAX, ..Limits::default() };
    let is_key = |value| Key::read(value, &any_length).is_ok_and(|found| found.as_bytes() == key);
    // Any field, not the key field: where a table was made twice by nodes that did not know of each other, the rows
    // of one of them go by another field than the one that counts since.
    let mut fields = Fields::new(record).ok_or(RecordFault::NotAMap)?;
    fields.any(|(_, value)| is_key(value)).then_some(()).ok_or(RecordFault::OtherKey)
}

/// The same of a key alone, as a deletion has it.
///
/// # Errors
/// [`RecordFault::Key`].
pub fn validate_key(key: &[u8]) -> Result<(), RecordFault> {
    let is_text = !key.is_empty() && std::str::from_utf8(key).is_ok();
    is_text.then_some(()).ok_or(RecordFault::Key)
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
    fn a_float_is_a_key_of_its_own_in_the_form_that_json_has() {
        for (float, text) in [
            (7.0, "7.0"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (0.000_01, "0.00001"),
            (0.000_001, "1e-6"),
            (1.5e-7, "1.5e-7"),
            (5e-324, "5e-324"),
            (-9_007_199_254_740_991.0, "-9007199254740991.0"),
        ] {
            assert_eq!(key(float.into()), key(text.into()), "{text}");
        }
        assert_ne!(key(7.0.into()), key(7.into()));
        assert_eq!(key(rmpv::Value::F32(0.5)), key(0.5.into()), "the same number");
    }

    #[test]
    fn a_float_that_stands_for_more_than_one_integer_is_no_key() {
        for float in [9_007_199_254_740_992.0, -1.844_674_407_370_955_2e19, f64::MAX] {
            assert_eq!(key(float.into()), Err(Refusal::KeyInexact), "{float}");
        }
    }

    #[test]
    fn what_no_client_could_have_stored_is_no_record() {
        let record = map(vec![("n", 1.into()), ("id", 7.into())]);
        assert_eq!(validate(b"7", &record), Ok(()));
        assert_eq!(validate(b"1", &record), Ok(()), "the key field of another creation");
        assert_eq!(validate(b"8", &record), Err(RecordFault::OtherKey));
        assert_eq!(validate(b"", &record), Err(RecordFault::Key));
        assert_eq!(validate(b"\xff", &record), Err(RecordFault::Key));
        let two = [record.clone(), record.clone()].concat();
        assert_eq!(validate(b"7", &two), Err(RecordFault::NotAMap), "a second value");
        for bytes in [&record[..record.len() - 1], b"", b"\xc1", &encoded("7"), &encoded(7)] {
            assert_eq!(validate(b"7", bytes), Err(RecordFault::NotAMap), "{bytes:x?}");
        }
        let deep = (0..MOST_LEVELS).fold(rmpv::Value::from(1), |inner, _| vec![inner].into());
        let deep = map(vec![("id", 7.into()), ("deep", deep)]);
        assert_eq!(validate(b"7", &deep), Err(RecordFault::TooDeep));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in [
            rmpv::Value::Nil,
            "".into(),
            rmpv::Value::Array(vec![]),
            rmpv::Value::Binary(vec![1]),
            f64::NAN.into(),
            f64::INFINITY.into(),
            f64::NEG_INFINITY.into(),
        ] {
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

    /// Scalars that keys may be made of, those at the edges of their types more often than chance has them.
    fn any_scalar() -> impl Strategy<Value = rmpv::Value> {
        let edges = prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, 1e15, 4.5e15, 1e-5, 9.9e-6]);
        prop_oneof![
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            (-20..20_i64).prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<f32>().prop_map(Into::into),
            edges.prop_map(Into::into),
            (-20..20_i8).prop_map(|n| f64::from(n).into()),
            (-40..40_i8).prop_map(|n| (f64::from(n) / 8.0).into()),
        ]
    }

    /// What makes two scalars one value: their kind, and the number.
    fn identity(value: &rmpv::Value) -> (u8, i128) {
        match value {
            rmpv::Value::Boolean(b) => (0, i128::from(*b)),
            rmpv::Value::Integer(n) => {
                (1, n.as_u64().map_or_else(|| n.as_i64().unwrap_or(0).into(), i128::from))
            }
            rmpv::Value::F32(f) => (2, f64::from(*f).to_bits().into()),
            rmpv::Value::F64(f) => (2, f.to_bits().into()),
            rmpv::Value::Nil
            | rmpv::Value::String(_)
            | rmpv::Value::Binary(_)
            | rmpv::Value::Array(_)
            | rmpv::Value::Map(_)
            | rmpv::Value::Ext(..) => unreachable!("only numbers and booleans are drawn"),
        }
    }

    proptest! {
        /// holds V2: two values that are not the same never fall onto one key.
        #[test]
        fn keys_of_scalars_are_one_exactly_where_the_values_are(a in any_scalar(), b in any_scalar()) {
            if let (Ok(one), Ok(other)) = (key(a.clone()), key(b.clone())) {
                prop_assert_eq!(one == other, identity(&a) == identity(&b), "{} {}", a, b);
            }
        }

        /// And the text of one is the only text that is the same key.
        #[test]
        fn a_scalar_and_its_text_are_one_key(a in any_scalar()) {
            if let Ok(found) = key(a) {
                let text = String::from_utf8(found.as_bytes().to_vec()).expect("UTF-8");
                prop_assert_eq!(key(text.as_str().into()), Ok(found));
            }
        }

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
