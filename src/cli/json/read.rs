//! Reading JSON text as MessagePack bytes, value by value as the parser meets them.
//! Leaves the syntax to `serde_json`, and what the forms are to the parent module.

use std::fmt;
use std::ops::Range;

use cortex_core::wire::encode;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::form::TaggedType;
use super::packed;

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

impl NotJson {
    /// Whether the text ends within a value, as the first line of an indented one does.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.0.is_eof()
    }

    /// Whether something follows a value that is whole.
    pub(crate) fn is_followed(&self) -> bool {
        self.0.to_string().starts_with("trailing characters")
    }
}

/// The parser's own messages where they are cryptic, in plain language.
const PLAINER: [(&str, &str); 3] = [
    // The first is what it says where a high surrogate stands alone, the second where a low one does.
    ("unexpected end of hex escape", LONE_SURROGATE),
    ("lone leading surrogate in hex escape", LONE_SURROGATE),
    ("recursion limit exceeded", "nested too deeply"),
];

const LONE_SURROGATE: &str = r"lone surrogate: \ud800 to \udbff must be followed by \udc00 to \udfff, which is text in no encoding alone";

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let Some(reason) = text.strip_suffix(&place) else {
            return f.write_str(&text);
        };
        let plainer = PLAINER.iter().find_map(|(said, plain)| (*said == reason).then_some(*plain));
        f.write_str(plainer.unwrap_or(reason))?;
        // A text that ends too early may count its last line break as the start of another line.
        if error.line() == 1 || error.is_eof() {
            let column = error.column();
            return if column > 0 { write!(f, " at column {column}") } else { Ok(()) };
        }
        f.write_str(&place)
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
        encode::nil(self.out);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        encode::bool(self.out, value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        encode::uint(self.out, value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        encode::int(self.out, value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        encode::float(self.out, value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        encode::str(self.out, value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let out = self.out;
        let header = encode::open(out);
        let mut count = 0;
        while elements.next_element_seed(Encoder { out })?.is_some() {
            count += 1;
        }
        encode::close(out, header, encode::array, count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let out = self.out;
        let header = encode::open(out);
        let mut keys = Vec::new();
        while let Some(key) = entries.next_key_seed(Key { out })? {
            keys.push(key);
            entries.next_value_seed(Encoder { out })?;
        }
        if let [only] = keys.as_slice()
            && let Some((form, escapes)) = TaggedType::named(&out[only.clone()])
            && let Some(meant) = form.read(&out[only.end..])
        {
            if escapes == 0 {
                out.truncate(header);
                out.extend(packed(&meant));
            } else {
                unescape(out, header, only);
            }
            return Ok(());
        }
        let count = keys.len();
        if let Some(twice) = repeated(keys, out) {
            return Err(A::Error::custom(format!("the key {twice:?} stands twice in one object")));
        }
        encode::close(out, header, encode::map, count);
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
        encode::str(self.out, key);
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

/// Writes the object at `header` anew with a `$` less before its only key.
fn unescape(out: &mut Vec<u8>, header: usize, only: &Range<usize>) {
    let key = String::from_utf8_lossy(&out[only.start + 1..only.end]).into_owned();
    let value = out.split_off(only.end);
    out.truncate(header);
    encode::map(out, 1);
    encode::str(out, &key);
    out.extend_from_slice(&value);
}
