//! Reading JSON text as MessagePack bytes, value by value as the parser meets them.
//! Leaves the syntax to `serde_json`, and what the forms are to the parent module.

use std::fmt;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rmpv::Value;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::{BINARY, EXT, GENERIC_SUBTYPE, NUMBER_DOUBLE};
use crate::client::pack;

/// Appends the JSON `text`, which is one value and nothing more, to `out` as MessagePack.
/// On an error `out` is as it was.
pub(crate) fn read(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotJson> {
    let start = out.len();
    let mut parser = serde_json::Deserializer::from_slice(text);
    let outcome = Encoder { out }.deserialize(&mut parser).and_then(|()| parser.end());
    outcome.map_err(|error| {
        out.truncate(start);
        NotJson(error)
    })
}

/// Why a text is not read; says where, and leaves out the line if there is only one.
#[derive(Debug, thiserror::Error)]
pub(crate) struct NotJson(serde_json::Error);

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        let text = error.to_string();
        match text.strip_suffix(&format!(" at line 1 column {}", error.column())) {
            Some(reason) => write!(f, "{reason} at column {}", error.column()),
            None => f.write_str(&text),
        }
    }
}

/// Appends the value that the parser meets.
struct Encoder<'o> {
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Encoder<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Encoder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        pack::nil(self.out);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        pack::boolean(self.out, value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        pack::unsigned(self.out, value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        pack::signed(self.out, value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        pack::float(self.out, value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        pack::string(self.out, value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let out = self.out;
        let header = pack::open(out);
        let mut count = 0;
        while elements.next_element_seed(Encoder { out })?.is_some() {
            count += 1;
        }
        pack::close(out, header, pack::ARRAY, count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let out = self.out;
        let header = pack::open(out);
        let mut keys = Vec::new();
        while let Some(key) = entries.next_key_seed(Key { out })? {
            keys.push(key);
            entries.next_value_seed(Encoder { out })?;
        }
        if let [only] = keys.as_slice()
            && let Some(form) = Form::named(&out[only.clone()])
        {
            let meant = form.read(&out[only.end..]).map_err(A::Error::custom)?;
            out.truncate(header);
            pack::value(out, &meant);
            return Ok(());
        }
        let count = keys.len();
        if let Some(twice) = repeated(keys, out) {
            return Err(A::Error::custom(format!("the key {twice:?} stands twice in one object")));
        }
        pack::close(out, header, pack::MAP, count);
        Ok(())
    }
}

/// Appends an object's key and returns where its text stands. The place holds until the object is closed:
/// what follows only moves what follows it.
struct Key<'o> {
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Range<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<Range<usize>, D::Error> {
        parser.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Range<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Range<usize>, E> {
        pack::string(self.out, key);
        let end = self.out.len();
        Ok(end - key.len()..end)
    }
}

/// A key that two of the places hold. Sorting keeps a record of a hundred thousand keys from taking minutes.
fn repeated(mut keys: Vec<Range<usize>>, out: &[u8]) -> Option<String> {
    keys.sort_unstable_by_key(|key| &out[key.clone()]);
    let twice = keys.windows(2).find(|pair| out[pair[0].clone()] == out[pair[1].clone()])?;
    Some(String::from_utf8_lossy(&out[twice[0].clone()]).into_owned())
}

/// An object that stands for what JSON lacks.
#[derive(Debug, Clone, Copy)]
enum Form {
    Binary,
    NumberDouble,
    Ext,
}

impl Form {
    fn named(key: &[u8]) -> Option<Self> {
        [(BINARY, Self::Binary), (NUMBER_DOUBLE, Self::NumberDouble), (EXT, Self::Ext)]
            .into_iter()
            .find_map(|(name, form)| (name.as_bytes() == key).then_some(form))
    }

    /// What the form means, given the encoded value of its only key; the error says what the form takes.
    fn read(self, mut encoded: &[u8]) -> Result<Value, &'static str> {
        let value = rmpv::decode::read_value(&mut encoded).unwrap_or(Value::Nil);
        match self {
            Self::Binary => binary(&value).ok_or(r#"$binary takes {"base64":"…","subType":"00"}"#),
            Self::NumberDouble => {
                number_double(&value).ok_or("$numberDouble takes NaN, Infinity or -Infinity")
            }
            Self::Ext => ext(&value).ok_or(r#"$ext takes {"type":-128…127,"base64":"…"}"#),
        }
    }
}

fn binary(value: &Value) -> Option<Value> {
    let [base64, subtype] = members(value, ["base64", "subType"])?;
    (subtype.as_str()? == GENERIC_SUBTYPE).then_some(())?;
    Some(Value::Binary(STANDARD.decode(base64.as_str()?).ok()?))
}

fn number_double(value: &Value) -> Option<Value> {
    match value.as_str()? {
        "NaN" => Some(f64::NAN.into()),
        "Infinity" => Some(f64::INFINITY.into()),
        "-Infinity" => Some(f64::NEG_INFINITY.into()),
        _ => None,
    }
}

fn ext(value: &Value) -> Option<Value> {
    let [kind, base64] = members(value, ["type", "base64"])?;
    let kind = i8::try_from(kind.as_i64()?).ok()?;
    Some(Value::Ext(kind, STANDARD.decode(base64.as_str()?).ok()?))
}

/// The two members of `value`, if it is an object of exactly these.
fn members<'v>(value: &'v Value, names: [&str; 2]) -> Option<[&'v Value; 2]> {
    let entries = value.as_map()?;
    (entries.len() == 2).then_some(())?;
    let member = |name: &str| {
        entries.iter().find_map(|(key, entry)| (key.as_str() == Some(name)).then_some(entry))
    };
    Some([member(names[0])?, member(names[1])?])
}
