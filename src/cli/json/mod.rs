//! JSON text to MessagePack and back, in one pass each way and without a tree in between.
//! Leaves to the commands where the text comes from, and to `raw` where a MessagePack value ends.
//!
//! Whatever JSON can say arrives unchanged and in its order: integers from -2^63 to 2^64-1 exactly, floats as
//! floats (`1.0` stays one), `null`, and text. An integer beyond 64 bits is read as a float, as JSON parsers
//! do. A key that appears twice in one object is refused: readers of JSON differ in which of them they keep.
//!
//! What JSON lacks is written as an object with a single key, and such an object is read back as what it
//! stands for. The first two forms are those of MongoDB Extended JSON v2
//! (<https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/>), the others are in their manner:
//!
//! | MessagePack | JSON |
//! |---|---|
//! | bin | `{"$binary":{"base64":"AAEC","subType":"00"}}` |
//! | float NaN, ±infinity | `{"$numberDouble":"NaN"}`, `"Infinity"`, `"-Infinity"` |
//! | ext | `{"$ext":{"type":5,"base64":"AAEC"}}` |
//! | map with names that are no text, or one twice | `{"$map":[[7,"seven"]]}` |
//! | str that is not UTF-8 | `{"$string":"//4="}` |
//! | map that looks like one of these | the same with `$$` |
//!
//! Every other object is an object, also one of Extended JSON that MessagePack has no type for, such as
//! `{"$oid":"…"}`, `{"$numberDouble":"1.5"}` or a `$binary` of another subtype: kept and printed as it came.
//!
//! Two things change on the way out, and only there: a float of 32 bits is written as the same number in 64,
//! and NaN in its one form.

#[cfg(test)]
#[path = "../../../tests/support/values.rs"]
mod arbitrary;
mod form;
mod read;
mod write;

use cortex_core::wire::encode;
use rmpv::Value;

pub(crate) use read::read;
pub(crate) use write::{Layout, write};

/// A value as MessagePack.
pub(crate) fn packed(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    pack(value, &mut out);
    out
}

fn pack(value: &Value, out: &mut Vec<u8>) {
    match value {
        // `rmpv` would write bytes in the place of a text that is not UTF-8.
        Value::String(text) => encode::str_bytes(out, text.as_bytes()),
        Value::Array(elements) => {
            encode::array(out, elements.len());
            elements.iter().for_each(|element| pack(element, out));
        }
        Value::Map(entries) => {
            encode::map(out, entries.len());
            for (name, entry) in entries {
                pack(name, out);
                pack(entry, out);
            }
        }
        Value::Nil
        | Value::Boolean(_)
        | Value::Integer(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::Binary(_)
        | Value::Ext(..) => {
            rmpv::encode::write_value(out, value).expect("a Vec takes every write");
        }
    }
}

/// Whether a MessagePack value is an array.
pub(crate) fn is_array(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(0x90..=0x9f | 0xdc | 0xdd))
}

/// Whether a MessagePack value is a map, as records and patterns are.
pub(crate) fn is_object(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(0x80..=0x8f | 0xde | 0xdf))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::arbitrary::any_value;
    use super::*;

    fn to_msgpack(text: &str) -> Result<Value, String> {
        let mut bytes = Vec::new();
        read(text.as_bytes(), &mut bytes).map_err(|e| e.to_string())?;
        let mut rest = bytes.as_slice();
        let value = rmpv::decode::read_value(&mut rest).expect("what was written is MessagePack");
        assert!(rest.is_empty(), "one value and no more");
        Ok(value)
    }

    fn to_json(value: &Value, mut layout: Layout) -> String {
        let bytes = packed(value);
        let mut text = Vec::new();
        write(&bytes, &mut text, &mut layout).expect("it is MessagePack");
        String::from_utf8(text).expect("JSON is UTF-8")
    }

    fn compact(value: &Value) -> String {
        to_json(value, Layout::compact())
    }

    /// The value as it is after JSON: floats are of 64 bits, NaN has one form.
    fn as_json_has_it(value: Value) -> Value {
        match value {
            Value::F32(number) => as_json_has_it(Value::F64(f64::from(number))),
            Value::F64(number) if number.is_nan() => Value::F64(f64::NAN),
            Value::Array(elements) => {
                Value::Array(elements.into_iter().map(as_json_has_it).collect())
            }
            Value::Map(entries) => Value::Map(
                entries.into_iter().map(|(k, v)| (as_json_has_it(k), as_json_has_it(v))).collect(),
            ),
            same @ (Value::Nil
            | Value::Boolean(_)
            | Value::Integer(_)
            | Value::F64(_)
            | Value::String(_)
            | Value::Binary(_)
            | Value::Ext(..)) => same,
        }
    }

    /// Any value, with maps among it that look like the forms, fit them and do not, escaped and not.
    fn any_tricky_value() -> impl Strategy<Value = Value> {
        let base64 = prop_oneof![Just("AAEC"), Just("//4="), Just("//5="), Just("?"), Just("")];
        let fitting = (base64, any::<i8>(), 0..5_usize).prop_map(|(base64, kind, which)| {
            let map = |pairs: [(&str, Value); 2]| {
                Value::Map(pairs.into_iter().map(|(k, v)| (k.into(), v)).collect())
            };
            match which {
                0 => map([("base64", base64.into()), ("subType", "00".into())]),
                1 => map([("subType", "04".into()), ("base64", base64.into())]),
                2 => map([("type", kind.into()), ("base64", base64.into())]),
                3 => {
                    ["NaN", "Infinity", "-Infinity", "1.5"][kind.unsigned_abs() as usize % 4].into()
                }
                _ => base64.into(),
            }
        });
        let leaf = prop_oneof![any_value(), fitting];
        leaf.prop_recursive(4, 40, 4, |inner| {
            let name = "[$]{0,4}(binary|numberDouble|ext|map|string|key)";
            prop_oneof![
                (name, inner.clone()).prop_map(|(k, v)| Value::Map(vec![(k.into(), v)])),
                prop::collection::vec((inner.clone(), inner.clone()), 0..3).prop_map(Value::Map),
                prop::collection::vec((inner.clone(), inner.clone()), 0..3).prop_map(|pairs| {
                    Value::Array(pairs.into_iter().map(|(k, v)| Value::Array(vec![k, v])).collect())
                }),
                (name, inner.clone(), inner).prop_map(|(k, v, w)| {
                    Value::Map(vec![(k.clone().into(), v), (k.into(), w)])
                }),
            ]
        })
    }

    /// Any JSON: objects have no key twice.
    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            prop::num::f64::NORMAL.prop_map(Into::into),
            ".{0,40}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 60, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Into::into),
                prop::collection::hash_map(".{0,6}", inner, 0..20)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_survives_json(any in any_tricky_value()) {
            let value = as_json_has_it(any);
            for layout in [Layout::compact(), Layout::pretty()] {
                // Compared as bytes, since NaN does not equal itself.
                let mut found = Vec::new();
                read(to_json(&value, layout).as_bytes(), &mut found).expect("own output is JSON");
                prop_assert_eq!(found, packed(&value));
            }
        }

        /// What the forms make of a JSON text has the same text again, as a form or as an object.
        #[test]
        fn every_tricky_json_survives_msgpack(any in any_tricky_value()) {
            let text = compact(&as_json_has_it(any));
            let json: serde_json::Value = serde_json::from_str(&text).expect("own output is JSON");
            let without_an_escape = text.replace("$$", "$");
            for text in [text, without_an_escape] {
                let Ok(value) = to_msgpack(&text) else { continue };
                let again: serde_json::Value = serde_json::from_str(&compact(&value)).expect("JSON");
                let given: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                prop_assert_eq!(again, given);
            }
            prop_assert!(to_msgpack(&json.to_string()).is_ok());
        }

        #[test]
        fn every_json_survives_msgpack_and_prints_as_serde_json_prints_it(json in any_json()) {
            let value = to_msgpack(&json.to_string()).expect("it is JSON");
            prop_assert_eq!(compact(&value), json.to_string());
            let pretty = serde_json::to_string_pretty(&json).expect("it is JSON");
            prop_assert_eq!(to_json(&value, Layout::pretty()), pretty);
        }

        #[test]
        fn any_msgpack_prints_as_json(any in any_value()) {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&compact(&any));
            prop_assert!(parsed.is_ok());
        }

        #[test]
        fn no_text_makes_reading_panic(text in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut out = vec![1, 2];
            if read(&text, &mut out).is_err() {
                prop_assert_eq!(out, [1, 2]);
            }
        }

        #[test]
        fn no_bytes_make_writing_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = write(&bytes, &mut Vec::new(), &mut Layout::compact());
        }
    }

    #[test]
    fn numbers_keep_their_kind_and_every_bit() {
        for (text, value) in [
            ("7", Value::from(7)),
            ("-7", Value::from(-7)),
            ("18446744073709551615", Value::from(u64::MAX)),
            ("-9223372036854775808", Value::from(i64::MIN)),
            ("1.0", Value::from(1.0)),
            ("-0.0", Value::from(-0.0)),
            ("0.1", Value::from(0.1)),
        ] {
            assert_eq!(to_msgpack(text), Ok(value.clone()));
            assert_eq!(compact(&value), text);
        }
    }

    #[test]
    fn what_json_lacks_is_written_in_extended_json() {
        for (text, value) in [
            (r#"{"$binary":{"base64":"AAEC","subType":"00"}}"#, Value::Binary(vec![0, 1, 2])),
            (r#"{"$numberDouble":"Infinity"}"#, Value::from(f64::INFINITY)),
            (r#"{"$numberDouble":"-Infinity"}"#, Value::from(f64::NEG_INFINITY)),
            (r#"{"$ext":{"type":-5,"base64":"AAEC"}}"#, Value::Ext(-5, vec![0, 1, 2])),
        ] {
            assert_eq!(compact(&value), text);
            assert_eq!(to_msgpack(text), Ok(value));
        }
        assert_eq!(compact(&Value::from(f64::NAN)), r#"{"$numberDouble":"NaN"}"#);
        assert!(
            matches!(to_msgpack(r#"{"$numberDouble":"NaN"}"#), Ok(Value::F64(nan)) if nan.is_nan())
        );
    }

    #[test]
    fn members_of_a_form_may_stand_in_any_order() {
        let text = r#"{ "$binary" : { "subType" : "00", "base64" : "AAEC" } }"#;
        assert_eq!(to_msgpack(text), Ok(Value::Binary(vec![0, 1, 2])));
    }

    #[test]
    fn what_other_programs_export_is_kept_and_printed_as_it_came() {
        for text in [
            r#"{"$binary":"AAEC"}"#,
            r#"{"$binary":{"base64":"?","subType":"00"}}"#,
            r#"{"$binary":{"base64":"AAEC","subType":"04"}}"#,
            r#"{"$binary":null}"#,
            r#"{"$numberDouble":"1.5"}"#,
            r#"{"$numberInt":"5"}"#,
            r#"{"$oid":"507f1f77bcf86cd799439011"}"#,
            r#"{"$date":{"$numberLong":"0"}}"#,
            r#"{"$ext":{"type":300,"base64":""}}"#,
            r#"{"$ext":1}"#,
            r#"{"$map":[["a",1]]}"#,
            r#"{"$string":"YQ=="}"#,
            r#"{"$$binary":1}"#,
        ] {
            let value = to_msgpack(text).expect(text);
            assert!(value.is_map(), "{text}");
            assert_eq!(compact(&value), text);
        }
    }

    #[test]
    fn a_map_that_looks_like_a_form_is_escaped_and_so_is_its_escape() {
        let inner = r#"{"base64":"AAEC","subType":"00"}"#;
        let members = to_msgpack(inner).expect("an object");
        for dollars in 1..4 {
            let key = format!("{}binary", "$".repeat(dollars));
            let value = Value::Map(vec![(key.as_str().into(), members.clone())]);
            let text = format!(r#"{{"${key}":{inner}}}"#);
            assert_eq!(compact(&value), text);
            assert_eq!(to_msgpack(&text), Ok(value));
        }
    }

    #[test]
    fn an_object_with_a_form_among_other_keys_is_an_object() {
        let text = r#"{"$binary":1,"a":2}"#;
        assert_eq!(compact(&to_msgpack(text).expect("an object")), text);
    }

    #[test]
    fn a_key_twice_is_refused() {
        let error = to_msgpack(r#"{"b":1,"a":{"c":1},"b":2}"#).expect_err("b stands twice");
        assert!(error.contains(r#""b""#), "{error}");
        assert!(to_msgpack(r#"{"a":{"a":1}}"#).is_ok(), "another object's key is another key");
    }

    #[test]
    fn names_that_no_object_can_have_are_written_as_pairs() {
        let map = Value::Map(vec![(7.into(), 1.into()), ("7".into(), 2.into())]);
        assert_eq!(compact(&map), r#"{"$map":[[7,1],["7",2]]}"#);
        let twice = Value::Map(vec![("a".into(), 1.into()), ("a".into(), 2.into())]);
        assert_eq!(compact(&twice), r#"{"$map":[["a",1],["a",2]]}"#);
        assert_eq!(to_msgpack(&compact(&twice)), Ok(twice));
    }

    #[test]
    fn a_string_that_is_not_utf8_is_written_as_its_bytes_and_comes_back_as_a_string() {
        let mut text = Vec::new();
        write(&[0xa2, 0xff, 0xfe], &mut text, &mut Layout::compact()).expect("it is MessagePack");
        assert_eq!(text, br#"{"$string":"//4="}"#);
        let mut bytes = Vec::new();
        read(&text, &mut bytes).expect("it is JSON");
        assert_eq!(bytes, [0xa2, 0xff, 0xfe]);
    }

    #[test]
    fn a_lone_surrogate_is_called_so() {
        for text in [r#""\ud800""#, r#""\udc00x""#, r#""\ud800\n""#, r#""\ud800A""#] {
            let error = to_msgpack(text).expect_err(text);
            assert!(error.starts_with("lone surrogate"), "{text}: {error}");
        }
        assert_eq!(to_msgpack(r#""\ud83d\ude00""#), Ok("\u{1f600}".into()));
    }

    #[test]
    fn an_error_says_where_it_is() {
        assert_eq!(to_msgpack("{\"a\":}").expect_err("no value"), "expected value at column 6");
        assert!(to_msgpack("{\n\"a\":}").expect_err("no value").ends_with("at line 2 column 5"));
        assert!(to_msgpack("{} {}").expect_err("two values").starts_with("trailing characters"));
    }

    #[test]
    fn nesting_without_end_is_refused_both_ways() {
        assert!(to_msgpack(&"[".repeat(100_000)).is_err());
        assert!(write(&[0x91; 100_000], &mut Vec::new(), &mut Layout::compact()).is_err());
    }
}
