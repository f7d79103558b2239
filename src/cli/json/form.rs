//! The objects with a single key that stand for what JSON lacks: which key and which value make one.
//! Reading and writing the text around them is left to `read` and `write`.
//!
//! An object is a form only where its value is exactly what `write` would put there; any other object with the same
//! key is an object. A record that holds such an object itself is written with one more `$` before the key, and
//! that is taken away again where it is read: `$$binary` is the object, `$binary` are the bytes. Any number of `$`
//! can be escaped so, and nothing but a form with its fitting value ever is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rmpv::Value;

pub(super) const BINARY: &str = "$binary";
pub(super) const NUMBER_DOUBLE: &str = "$numberDouble";
pub(super) const EXT: &str = "$ext";
pub(super) const MAP: &str = "$map";
pub(super) const STRING: &str = "$string";

/// MessagePack has no subtypes of binary data; this is the generic one of Extended JSON.
pub(super) const GENERIC_SUBTYPE: &str = "00";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaggedType {
    Binary,
    NumberDouble,
    Ext,
    Map,
    String,
}

impl TaggedType {
    /// The form of that key, and how many `$` the key has beyond the form's own.
    pub(super) fn named(key: &[u8]) -> Option<(Self, usize)> {
        let dollars = key.iter().take_while(|byte| **byte == b'$').count();
        let escapes = dollars.checked_sub(1)?;
        let form = match std::str::from_utf8(&key[escapes..]).ok()? {
            BINARY => Self::Binary,
            NUMBER_DOUBLE => Self::NumberDouble,
            EXT => Self::Ext,
            MAP => Self::Map,
            STRING => Self::String,
            _ => return None,
        };
        Some((form, escapes))
    }

    /// What the form stands for, given the encoded value of its key; none where the value does not fit.
    pub(super) fn read(self, mut encoded: &[u8]) -> Option<Value> {
        let value = rmpv::decode::read_value(&mut encoded).ok()?;
        match self {
            Self::Binary => binary(&value),
            Self::NumberDouble => number_double(&value),
            Self::Ext => ext(&value),
            Self::Map => map(value),
            Self::String => string(&value),
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

fn map(value: Value) -> Option<Value> {
    let Value::Array(elements) = value else {
        return None;
    };
    let pair = |element| {
        let Value::Array(pair) = element else {
            return None;
        };
        <[Value; 2]>::try_from(pair).ok().map(|[name, value]| (name, value))
    };
    let entries = elements.into_iter().map(pair).collect::<Option<Vec<_>>>()?;
    let names = entries.iter().map(|(name, _)| name.as_str().map(str::as_bytes));
    // A map that is an object has its own text, and no second one.
    (!are_different_texts(names)).then_some(Value::Map(entries))
}

fn string(value: &Value) -> Option<Value> {
    let bytes = STANDARD.decode(value.as_str()?).ok()?;
    let text = rmpv::decode::read_value(&mut packed_string(&bytes).as_slice()).ok()?;
    std::str::from_utf8(&bytes).is_err().then_some(text)
}

fn packed_string(bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0xdb];
    packed.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    packed.extend_from_slice(bytes);
    packed
}

/// Whether these names, none for what is no text, can be the names of an object.
pub(super) fn are_different_texts<'n>(names: impl Iterator<Item = Option<&'n [u8]>>) -> bool {
    let Some(mut names) = names.collect::<Option<Vec<_>>>() else {
        return false;
    };
    names.sort_unstable();
    names.windows(2).all(|pair| pair[0] != pair[1])
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
