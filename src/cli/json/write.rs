//! Writing MessagePack bytes as JSON text, compact or indented.
//! Leaves numbers and the escaping of strings to `serde_json`, and what the forms are to the parent module.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cortex_core::wire::{Head, Reader};
use serde::Serialize;

use super::form::{self, BINARY, EXT, GENERIC_SUBTYPE, MAP, NUMBER_DOUBLE, STRING, TaggedType};

/// Deeper nesting is refused. A record may have 256 levels where the settings say so, and what JSON lacks takes up
/// to three levels for one.
const MAX_DEPTH: usize = 1024;

/// One level of indentation, as `jq` has it.
const INDENT: &[u8] = b"  ";

/// Writes `bytes`, which are one MessagePack value and nothing more, as JSON. An error of kind `InvalidData`
/// says that they are not; any other is the writer's own.
pub(crate) fn write(mut bytes: &[u8], out: &mut impl Write, layout: &mut Layout) -> io::Result<()> {
    value(&mut bytes, out, layout)?;
    if bytes.is_empty() { Ok(()) } else { Err(malformed("bytes follow the value")) }
}

/// Where line breaks and indentation go; knows how deep it stands, so that one array can be written by parts.
#[derive(Debug)]
pub(crate) struct Layout {
    pretty: bool,
    depth: usize,
}

impl Layout {
    pub(crate) fn compact() -> Self {
        Self { pretty: false, depth: 0 }
    }

    pub(crate) fn pretty() -> Self {
        Self { pretty: true, depth: 0 }
    }

    /// Whether nothing is open.
    pub(crate) fn is_outside(&self) -> bool {
        self.depth == 0
    }

    /// Opens an array or an object.
    pub(crate) fn open(&mut self, out: &mut impl Write, bracket: &[u8]) -> io::Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(malformed("nested too deep"));
        }
        self.depth += 1;
        out.write_all(bracket)
    }

    /// Comes before each element or key.
    pub(crate) fn item(&mut self, out: &mut impl Write, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        self.line(out)
    }

    /// Closes what was opened.
    pub(crate) fn close(
        &mut self,
        out: &mut impl Write,
        bracket: &[u8],
        empty: bool,
    ) -> io::Result<()> {
        self.depth -= 1;
        if !empty {
            self.line(out)?;
        }
        out.write_all(bracket)
    }

    fn line(&self, out: &mut impl Write) -> io::Result<()> {
        if self.pretty {
            out.write_all(b"\n")?;
            for _ in 0..self.depth {
                out.write_all(INDENT)?;
            }
        }
        Ok(())
    }

    fn colon(&self) -> &'static [u8] {
        if self.pretty { b": " } else { b":" }
    }
}

/// Writes the next value of `input`. The arms are the rows of the table in the MessagePack specification.
fn value(input: &mut &[u8], out: &mut impl Write, layout: &mut Layout) -> io::Result<()> {
    let marker = marker(input)?;
    match marker {
        0x00..=0x7f => scalar(out, &marker),
        0x80..=0x8f => map(input, usize::from(marker & 0x0f), out, layout),
        0x90..=0x9f => array(input, usize::from(marker & 0x0f), out, layout),
        0xa0..=0xbf => string(take(input, usize::from(marker & 0x1f))?, out, layout),
        0xc0 => out.write_all(b"null"),
        0xc2 => out.write_all(b"false"),
        0xc3 => out.write_all(b"true"),
        0xc4 => binary(sized(input, 1)?, out, layout),
        0xc5 => binary(sized(input, 2)?, out, layout),
        0xc6 => binary(sized(input, 4)?, out, layout),
        0xc7..=0xc9 => {
            let length = length(input, 1 << (marker - 0xc7))?;
            extension(input, length, out, layout)
        }
        0xca => float(f32::from_be_bytes(fixed(input)?).into(), out, layout),
        0xcb => float(f64::from_be_bytes(fixed(input)?), out, layout),
        0xcc => scalar(out, &u8::from_be_bytes(fixed(input)?)),
        0xcd => scalar(out, &u16::from_be_bytes(fixed(input)?)),
        0xce => scalar(out, &u32::from_be_bytes(fixed(input)?)),
        0xcf => scalar(out, &u64::from_be_bytes(fixed(input)?)),
        0xd0 => scalar(out, &i8::from_be_bytes(fixed(input)?)),
        0xd1 => scalar(out, &i16::from_be_bytes(fixed(input)?)),
        0xd2 => scalar(out, &i32::from_be_bytes(fixed(input)?)),
        0xd3 => scalar(out, &i64::from_be_bytes(fixed(input)?)),
        0xd4..=0xd8 => extension(input, 1 << (marker - 0xd4), out, layout),
        0xd9 => string(sized(input, 1)?, out, layout),
        0xda => string(sized(input, 2)?, out, layout),
        0xdb => string(sized(input, 4)?, out, layout),
        0xdc | 0xdd => {
            let count = length(input, 2 << (marker - 0xdc))?;
            array(input, count, out, layout)
        }
        0xde | 0xdf => {
            let count = length(input, 2 << (marker - 0xde))?;
            map(input, count, out, layout)
        }
        0xe0..=0xff => scalar(out, &marker.cast_signed()),
        0xc1 => Err(malformed("0xc1 begins no value")),
    }
}

fn array(
    input: &mut &[u8],
    count: usize,
    out: &mut impl Write,
    layout: &mut Layout,
) -> io::Result<()> {
    layout.open(out, b"[")?;
    for index in 0..count {
        layout.item(out, index == 0)?;
        value(input, out, layout)?;
    }
    layout.close(out, b"]", count == 0)
}

fn map(
    input: &mut &[u8],
    count: usize,
    out: &mut impl Write,
    layout: &mut Layout,
) -> io::Result<()> {
    let shape = Shape::of(input, count);
    if shape == Shape::Pairs {
        return form(MAP, out, layout, |out, layout| pairs(input, count, out, layout));
    }
    layout.open(out, b"{")?;
    for index in 0..count {
        layout.item(out, index == 0)?;
        let name = name(input)?;
        if shape == Shape::Escaped {
            scalar(out, &format!("${name}"))?;
        } else {
            scalar(out, name)?;
        }
        out.write_all(layout.colon())?;
        value(input, out, layout)?;
    }
    layout.close(out, b"}", count == 0)
}

/// The pairs of a map as arrays of two, since no object can have such names.
fn pairs<W: Write>(
    input: &mut &[u8],
    count: usize,
    out: &mut W,
    layout: &mut Layout,
) -> io::Result<()> {
    layout.open(out, b"[")?;
    for index in 0..count {
        layout.item(out, index == 0)?;
        array(input, 2, out, layout)?;
    }
    layout.close(out, b"]", count == 0)
}

/// How a map is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// As an object.
    Object,
    /// As an object that would be read as a form, if its only key had not one more `$`.
    Escaped,
    /// As the form of a map whose names are not all different texts.
    Pairs,
}

impl Shape {
    /// Looks ahead at the entries of a map; what is cut short shows when it is written.
    fn of(entries: &[u8], count: usize) -> Self {
        let mut reader = Reader::new(entries);
        let mut names = Vec::with_capacity(count.min(entries.len()));
        let mut last_value = entries;
        for _ in 0..count {
            let (Some(name), Some(value)) = (reader.raw(), reader.raw()) else {
                return Self::Object;
            };
            names.push(match Reader::new(name).head() {
                Some(Head::Str(text)) if std::str::from_utf8(text).is_ok() => Some(text),
                _ => None,
            });
            last_value = value;
        }
        if let [Some(only)] = names.as_slice() {
            let fits = |(form, _): (TaggedType, usize)| form.read(last_value).is_some();
            return if TaggedType::named(only).is_some_and(fits) {
                Self::Escaped
            } else {
                Self::Object
            };
        }
        if form::are_different_texts(names.into_iter()) { Self::Object } else { Self::Pairs }
    }
}

/// The next value, which is text.
fn name<'i>(input: &mut &'i [u8]) -> io::Result<&'i str> {
    let mut reader = Reader::new(input);
    let text = reader.text().ok_or_else(|| malformed("a value is cut short"))?;
    *input = reader.rest();
    Ok(text)
}

fn string(bytes: &[u8], out: &mut impl Write, layout: &mut Layout) -> io::Result<()> {
    match std::str::from_utf8(bytes) {
        Ok(text) => scalar(out, text),
        Err(_) => form(STRING, out, layout, |out, _| scalar(out, &STANDARD.encode(bytes))),
    }
}

fn float(number: f64, out: &mut impl Write, layout: &mut Layout) -> io::Result<()> {
    if number.is_finite() {
        return scalar(out, &number);
    }
    let name = match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    };
    form(NUMBER_DOUBLE, out, layout, |out, _| scalar(out, name))
}

fn binary(bytes: &[u8], out: &mut impl Write, layout: &mut Layout) -> io::Result<()> {
    form(BINARY, out, layout, |out, layout| {
        pair(out, layout, ("base64", &STANDARD.encode(bytes)), ("subType", &GENERIC_SUBTYPE))
    })
}

fn extension(
    input: &mut &[u8],
    length: usize,
    out: &mut impl Write,
    layout: &mut Layout,
) -> io::Result<()> {
    let kind = i8::from_be_bytes(fixed(input)?);
    let bytes = take(input, length)?;
    form(EXT, out, layout, |out, layout| {
        pair(out, layout, ("type", &kind), ("base64", &STANDARD.encode(bytes)))
    })
}

/// Writes an object with the single key `name`.
fn form<W: Write>(
    name: &str,
    out: &mut W,
    layout: &mut Layout,
    content: impl FnOnce(&mut W, &mut Layout) -> io::Result<()>,
) -> io::Result<()> {
    layout.open(out, b"{")?;
    layout.item(out, true)?;
    scalar(out, name)?;
    out.write_all(layout.colon())?;
    content(out, layout)?;
    layout.close(out, b"}", false)
}

/// Writes an object of two members.
fn pair(
    out: &mut impl Write,
    layout: &mut Layout,
    first: (&str, &impl Serialize),
    second: (&str, &impl Serialize),
) -> io::Result<()> {
    layout.open(out, b"{")?;
    layout.item(out, true)?;
    scalar(out, first.0)?;
    out.write_all(layout.colon())?;
    scalar(out, first.1)?;
    layout.item(out, false)?;
    scalar(out, second.0)?;
    out.write_all(layout.colon())?;
    scalar(out, second.1)?;
    layout.close(out, b"}", false)
}

fn scalar(out: &mut impl Write, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    Ok(serde_json::to_writer(out, value)?)
}

fn marker(input: &mut &[u8]) -> io::Result<u8> {
    Ok(u8::from_be_bytes(fixed(input)?))
}

fn fixed<const N: usize>(input: &mut &[u8]) -> io::Result<[u8; N]> {
    let (head, rest) =
        input.split_first_chunk().ok_or_else(|| malformed("a value is cut short"))?;
    *input = rest;
    Ok(*head)
}

/// The bytes after a length of `width` bytes.
fn sized<'i>(input: &mut &'i [u8], width: usize) -> io::Result<&'i [u8]> {
    let length = length(input, width)?;
    take(input, length)
}

fn length(input: &mut &[u8], width: usize) -> io::Result<usize> {
    Ok(take(input, width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

fn take<'i>(input: &mut &'i [u8], count: usize) -> io::Result<&'i [u8]> {
    let (head, rest) =
        input.split_at_checked(count).ok_or_else(|| malformed("a value is cut short"))?;
    *input = rest;
    Ok(head)
}

fn malformed(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not MessagePack: {reason}"))
}
