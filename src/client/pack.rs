//! Appending MessagePack to a buffer, each value in its shortest form; none of it can fail.
//! Leaves limits to whoever sends the buffer.

use rmpv::Value;

pub(crate) fn nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

pub(crate) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

pub(crate) fn unsigned(out: &mut Vec<u8>, value: u64) {
    if let Ok(small) = u8::try_from(value) {
        if small < 0x80 {
            out.push(small);
        } else {
            out.extend([0xcc, small]);
        }
    } else if let Ok(short) = u16::try_from(value) {
        prefixed(out, 0xcd, &short.to_be_bytes());
    } else if let Ok(word) = u32::try_from(value) {
        prefixed(out, 0xce, &word.to_be_bytes());
    } else {
        prefixed(out, 0xcf, &value.to_be_bytes());
    }
}

pub(crate) fn signed(out: &mut Vec<u8>, value: i64) {
    if let Ok(positive) = u64::try_from(value) {
        unsigned(out, positive);
    } else if let Ok(small) = i8::try_from(value) {
        if small < -32 {
            out.push(0xd0);
        }
        out.extend(small.to_be_bytes());
    } else if let Ok(short) = i16::try_from(value) {
        prefixed(out, 0xd1, &short.to_be_bytes());
    } else if let Ok(word) = i32::try_from(value) {
        prefixed(out, 0xd2, &word.to_be_bytes());
    } else {
        prefixed(out, 0xd3, &value.to_be_bytes());
    }
}

pub(crate) fn float(out: &mut Vec<u8>, value: f64) {
    prefixed(out, 0xcb, &value.to_be_bytes());
}

pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    string_header(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn string_header(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(small) if small < 32 => out.push(0xa0 | small),
        Ok(byte) => out.extend([0xd9, byte]),
        Err(_) => wide_header(out, 0xda, 0xdb, length),
    }
}

pub(crate) fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(byte) => out.extend([0xc4, byte]),
        Err(_) => wide_header(out, 0xc5, 0xc6, bytes.len()),
    }
    out.extend_from_slice(bytes);
}

pub(crate) fn extension(out: &mut Vec<u8>, kind: i8, bytes: &[u8]) {
    match bytes.len() {
        1 => out.push(0xd4),
        2 => out.push(0xd5),
        4 => out.push(0xd6),
        8 => out.push(0xd7),
        16 => out.push(0xd8),
        length => match u8::try_from(length) {
            Ok(byte) => out.extend([0xc7, byte]),
            Err(_) => wide_header(out, 0xc8, 0xc9, length),
        },
    }
    out.extend(kind.to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(crate) fn array_header(out: &mut Vec<u8>, elements: usize) {
    container_header(out, ARRAY, elements);
}

pub(crate) fn map_header(out: &mut Vec<u8>, entries: usize) {
    container_header(out, MAP, entries);
}

/// The three forms of an array's or a map's header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Container {
    fix: u8,
    wide: u8,
    widest: u8,
}

pub(crate) const ARRAY: Container = Container { fix: 0x90, wide: 0xdc, widest: 0xdd };
pub(crate) const MAP: Container = Container { fix: 0x80, wide: 0xde, widest: 0xdf };

/// Begins a container whose size is not known yet; [`close`] wants the position that this returns.
pub(crate) fn open(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len() - 1
}

/// Writes the header of the container that was opened at `position`. Beyond fifteen elements the header is
/// longer than the byte that was kept for it, and the contents move.
pub(crate) fn close(out: &mut Vec<u8>, position: usize, container: Container, count: usize) {
    let mut header = Vec::with_capacity(5);
    container_header(&mut header, container, count);
    out.splice(position..=position, header);
}

fn container_header(out: &mut Vec<u8>, container: Container, count: usize) {
    match u8::try_from(count) {
        Ok(small) if small < 16 => out.push(container.fix | small),
        _ => wide_header(out, container.wide, container.widest, count),
    }
}

/// A marker and a length of two or four bytes. A length beyond `u32` is saturated: such a value is far over
/// every limit on requests, and what is refused is never read.
fn wide_header(out: &mut Vec<u8>, wide: u8, widest: u8, length: usize) {
    match u16::try_from(length) {
        Ok(short) => prefixed(out, wide, &short.to_be_bytes()),
        Err(_) => prefixed(out, widest, &u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()),
    }
}

fn prefixed(out: &mut Vec<u8>, marker: u8, bytes: &[u8]) {
    out.push(marker);
    out.extend_from_slice(bytes);
}

pub(crate) fn value(out: &mut Vec<u8>, any: &Value) {
    match any {
        Value::Nil => nil(out),
        Value::Boolean(flag) => boolean(out, *flag),
        Value::Integer(number) => match number.as_u64() {
            Some(positive) => unsigned(out, positive),
            None => signed(out, number.as_i64().unwrap_or_default()),
        },
        Value::F32(number) => prefixed(out, 0xca, &number.to_be_bytes()),
        Value::F64(number) => float(out, *number),
        Value::String(text) => {
            string_header(out, text.as_bytes().len());
            out.extend_from_slice(text.as_bytes());
        }
        Value::Binary(bytes) => binary(out, bytes),
        Value::Array(elements) => {
            array_header(out, elements.len());
            for element in elements {
                value(out, element);
            }
        }
        Value::Map(entries) => {
            map_header(out, entries.len());
            for (key, entry) in entries {
                value(out, key);
                value(out, entry);
            }
        }
        Value::Ext(kind, bytes) => extension(out, *kind, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::arbitrary::any_value;
    use proptest::prelude::*;

    fn reference(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).expect("a Vec takes everything");
        bytes
    }

    proptest! {
        #[test]
        fn values_are_packed_as_the_reference_packs_them(any in any_value()) {
            let mut packed = Vec::new();
            value(&mut packed, &any);
            prop_assert_eq!(packed, reference(&any));
        }

        #[test]
        fn a_container_closed_late_equals_one_whose_size_was_known(count in 0_usize..70_000) {
            let (mut late, mut known) = (vec![7], vec![7]);
            let position = open(&mut late);
            late.extend(std::iter::repeat_n(0xc0, count));
            close(&mut late, position, ARRAY, count);
            array_header(&mut known, count);
            known.extend(std::iter::repeat_n(0xc0, count));
            prop_assert_eq!(late, known);
        }
    }

    #[test]
    fn long_strings_and_binaries_have_the_headers_of_their_length() {
        for length in [0, 31, 32, 255, 256, 65_535, 65_536] {
            for any in [
                Value::from("x".repeat(length)),
                Value::Binary(vec![1; length]),
                Value::Ext(-3, vec![1; length]),
            ] {
                let mut packed = Vec::new();
                value(&mut packed, &any);
                assert_eq!(packed, reference(&any), "length {length}");
            }
        }
    }
}
