//! Two values of any kind: matching one as a pattern against the other answers what a naive matcher answers.
//! Leaves which records a list contains to the tests of the service.
//!
//! Input: two MessagePack values in a row, the pattern and the record.

#![no_main]

use cortex_core::{
    model::{Key, Limits, Pattern},
    wire::{Reader, Scan, Scanner},
};
use libfuzzer_sys::fuzz_target;
use rmpv::Value;

/// The edge lets no deeper value through.
const DEPTH: usize = 64;
/// The naive matcher compares maps both ways on every level, and would not come to an end much deeper.
const NAIVE_DEPTH: usize = 5;

fuzz_target!(|input: &[u8]| {
    let Some((pattern, rest)) = first_value(input, DEPTH) else {
        return;
    };
    let Some((record, _)) = first_value(rest, DEPTH) else {
        return;
    };
    let answer = Pattern::read(pattern).map(|pattern| pattern.matches(record));
    if first_value(pattern, NAIVE_DEPTH).is_none() || first_value(record, NAIVE_DEPTH).is_none() {
        return;
    }
    let (Some(wanted), Some(held)) = (decoded(pattern), decoded(record)) else {
        return;
    };
    assert_eq!(answer, naive(&wanted, &held), "{wanted} against {held}");
    same_key(record, &held);
});

/// The bytes of the first value, as the edge would cut it out, and what follows.
fn first_value(bytes: &[u8], depth: usize) -> Option<(&[u8], &[u8])> {
    match Scanner::new(bytes.len(), depth).scan(bytes) {
        Ok(Scan::Whole(length)) => Some(bytes.split_at(length)),
        Ok(Scan::More | Scan::Deep(_)) | Err(_) => None,
    }
}

fn decoded(mut bytes: &[u8]) -> Option<Value> {
    rmpv::decode::read_value(&mut bytes).ok()
}

/// The rules of `match`, on trees. None where the pattern is no map of names.
fn naive(pattern: &Value, record: &Value) -> Option<bool> {
    let pattern = pattern.as_map()?;
    if !pattern.iter().all(|(name, _)| matches!(name, Value::String(_))) {
        return None;
    }
    let Value::Map(record) = record else {
        return Some(false);
    };
    Some(pattern.iter().all(|(name, _)| {
        let wanted = last(pattern, name).expect("it is in there");
        last(record, name).is_some_and(|held| match held {
            Value::Array(members) if !matches!(wanted, Value::Array(_) | Value::Nil) => {
                members.iter().any(|member| equal(member, wanted))
            }
            _ => equal(held, wanted),
        })
    }))
}

/// Of names that stand twice, the last counts.
fn last<'v>(map: &'v [(Value, Value)], name: &Value) -> Option<&'v Value> {
    map.iter()
        .rev()
        .find_map(|(known, value)| (bytes_of(known)? == bytes_of(name)?).then_some(value))
}

fn bytes_of(text: &Value) -> Option<&[u8]> {
    if let Value::String(text) = text { Some(text.as_bytes()) } else { None }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => return a == b,
        (None, None) => {}
        (Some(_), None) | (None, Some(_)) => return false,
    }
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Map(a), Value::Map(b)) => within(a, b) && within(b, a),
        (Value::String(a), Value::String(b)) => a.as_bytes() == b.as_bytes(),
        _ => a == b,
    }
}

/// Whether every entry that counts in one map has its equal in the other.
fn within(a: &[(Value, Value)], b: &[(Value, Value)]) -> bool {
    a.iter().all(|(key, _)| {
        let of = |map: &[(Value, Value)]| {
            map.iter().rev().find_map(|(known, value)| equal(known, key).then(|| value.clone()))
        };
        matches!((of(a), of(b)), (Some(a), Some(b)) if equal(&a, &b))
    })
}

/// A number by its value: a whole one, or the bits of what no integer of the format equals.
#[derive(PartialEq)]
enum Number {
    Whole(i128),
    Other(u64),
}

fn number(value: &Value) -> Option<Number> {
    let float = match value {
        Value::Integer(n) => {
            return n.as_i64().map(i128::from).or(n.as_u64().map(i128::from)).map(Number::Whole);
        }
        Value::F32(float) => f64::from(*float),
        Value::F64(float) => *float,
        _ => return None,
    };
    // The round trip through the wide integer decides, not the float's own idea of a fraction.
    let whole = float as i128;
    let in_format = (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&whole);
    if in_format && whole as f64 == float {
        return Some(Number::Whole(whole));
    }
    Some(Number::Other(float.to_bits()))
}

/// A record's key is the text of its last key field, and is read without looking at the rest.
fn same_key(record: &[u8], held: &Value) {
    let found = Key::of_record(record, "id", &Limits::default());
    let Value::Map(fields) = held else {
        assert!(found.is_none());
        return;
    };
    let found = found.expect("a map").ok();
    let expected = match last(fields, &Value::from("id")) {
        Some(Value::F32(float)) => return is_key_of(found.as_ref(), f64::from(*float)),
        Some(Value::F64(float)) => return is_key_of(found.as_ref(), *float),
        Some(Value::String(text)) => {
            text.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        }
        Some(Value::Integer(n)) => Some(n.to_string()),
        Some(Value::Boolean(flag)) => Some(flag.to_string()),
        Some(_) | None => None,
    };
    let expected = expected.filter(|text| text.len() <= Limits::default().key_bytes);
    assert_eq!(found.as_ref().map(Key::as_bytes), expected.as_deref().map(str::as_bytes));
    assert!(Reader::new(record).raw().is_some());
}

/// A float has a key of its own, which reads back as that float and as no integer, unless it stands for more than one.
fn is_key_of(found: Option<&Key>, float: f64) {
    if !float.is_finite() || float.abs() >= 9_007_199_254_740_992.0 {
        assert!(found.is_none(), "{float}");
        return;
    }
    let key = std::str::from_utf8(found.expect("a key").as_bytes()).expect("a text");
    assert!(key.contains(['.', 'e']), "{key} is an integer");
    let read: f64 = key.parse().expect("a float");
    assert_eq!(read.to_bits(), float.to_bits(), "{key}");
}
