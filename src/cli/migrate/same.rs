//! Whether two records are the same, however each daemon writes its MessagePack.
//! Leaves which records to compare to `batch`.
//!
//! The original daemon reads every record into terms and writes it anew: maps in another order, numbers in
//! another width. So what is compared is a canonicalize form: maps sorted by name, numbers in one width. 1 and 1.0,
//! text and bytes stay different.

use cortex_core::wire::encode;
use rmpv::Value;

use crate::cli::json::packed;

/// Whether two encoded records are the same.
pub(super) fn records(one: &[u8], other: &[u8]) -> bool {
    one == other || matches!((canonicalize(one), canonicalize(other)), (Some(a), Some(b)) if a == b)
}

fn canonicalize(mut encoded: &[u8]) -> Option<Vec<u8>> {
    let value = rmpv::decode::read_value(&mut encoded).ok()?;
    let mut out = Vec::new();
    write(&value, &mut out);
    Some(out)
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::F32(number) => encode::float(out, f64::from(*number)),
        Value::Array(items) => {
            encode::array(out, items.len());
            items.iter().for_each(|item| write(item, out));
        }
        Value::Map(pairs) => {
            encode::map(out, pairs.len());
            let mut sorted: Vec<_> = pairs.iter().map(pair).collect();
            sorted.sort_unstable();
            sorted.iter().for_each(|pair| out.extend_from_slice(pair));
        }
        Value::Nil
        | Value::Boolean(_)
        | Value::Integer(_)
        | Value::F64(_)
        | Value::String(_)
        | Value::Binary(_)
        | Value::Ext(..) => out.extend(packed(value)),
    }
}

/// A name and its value, in canonicalize form one behind the other.
fn pair((name, value): &(Value, Value)) -> Vec<u8> {
    let mut out = Vec::new();
    write(name, &mut out);
    write(value, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: &Value) -> Vec<u8> {
        packed(value)
    }

    fn map(pairs: &[(&str, Value)]) -> Value {
        Value::Map(pairs.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())
    }

    #[test]
    fn the_order_of_names_and_the_width_of_numbers_make_no_difference() {
        let one = map(&[("a", 1.into()), ("b", map(&[("x", 1.into()), ("y", Value::F32(0.5))]))]);
        let other = map(&[("b", map(&[("y", 0.5.into()), ("x", 1.into())])), ("a", 1.into())]);
        assert!(records(&encoded(&one), &encoded(&other)));
        // 1 in five bytes instead of one.
        assert!(records(b"\x81\xa1a\xce\x00\x00\x00\x01", b"\x81\xa1a\x01"));
    }

    #[test]
    fn what_is_another_value_is_different() {
        let values = [
            1.into(),
            1.0.into(),
            "1".into(),
            Value::Binary(b"1".to_vec()),
            Value::Nil,
            false.into(),
            Value::Array(vec![1.into(), 2.into()]),
            Value::Array(vec![2.into(), 1.into()]),
            map(&[]),
            map(&[("a", Value::Nil)]),
        ];
        for (n, one) in values.iter().enumerate() {
            for (m, other) in values.iter().enumerate() {
                assert_eq!(records(&encoded(one), &encoded(other)), n == m, "{one} {other}");
            }
        }
        assert!(!records(b"\xc1", b"\x01"), "what cannot be read is equal to nothing else");
    }
}
