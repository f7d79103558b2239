//! Writes MessagePack into a growing buffer.
//! Thin names over `rmp`, whose errors cannot occur when the sink is a `Vec`.

use rmp::encode;

const INFALLIBLE: &str = "a Vec takes every write";

/// Writes nil.
pub fn nil(out: &mut Vec<u8>) {
    encode::write_nil(out).expect(INFALLIBLE);
}

/// Writes a boolean.
pub fn bool(out: &mut Vec<u8>, value: bool) {
    encode::write_bool(out, value).expect(INFALLIBLE);
}

/// Writes an unsigned integer in its shortest form.
pub fn uint(out: &mut Vec<u8>, value: u64) {
    encode::write_uint(out, value).expect(INFALLIBLE);
}

/// Writes an integer in its shortest form.
pub fn int(out: &mut Vec<u8>, value: i64) {
    encode::write_sint(out, value).expect(INFALLIBLE);
}

/// Writes a string.
pub fn str(out: &mut Vec<u8>, value: &str) {
    encode::write_str(out, value).expect(INFALLIBLE);
}

/// Writes bytes that are known to be UTF-8 as a string.
pub fn str_bytes(out: &mut Vec<u8>, value: &[u8]) {
    encode::write_str_len(out, count(value.len())).expect(INFALLIBLE);
    out.extend_from_slice(value);
}

/// Starts a byte string: so many bytes must follow.
pub fn bin_header(out: &mut Vec<u8>, length: usize) {
    encode::write_bin_len(out, count(length)).expect(INFALLIBLE);
}

/// Starts an array: so many values must follow.
pub fn array(out: &mut Vec<u8>, length: usize) {
    encode::write_array_len(out, count(length)).expect(INFALLIBLE);
}

/// Starts a map: so many pairs must follow.
pub fn map(out: &mut Vec<u8>, length: usize) {
    encode::write_map_len(out, count(length)).expect(INFALLIBLE);
}

/// Writes an array of strings.
pub fn strings<'a>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = &'a str>) {
    array(out, values.len());
    for value in values {
        str(out, value);
    }
}

/// The format's counts are 32 bits wide.
fn count(length: usize) -> u32 {
    u32::try_from(length).expect("fewer than 2^32 elements")
}
