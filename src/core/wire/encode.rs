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

/// Writes a float of 64 bits.
pub fn float(out: &mut Vec<u8>, value: f64) {
    encode::write_f64(out, value).expect(INFALLIBLE);
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

/// Writes bytes.
pub fn bin(out: &mut Vec<u8>, value: &[u8]) {
    bin_header(out, value.len());
    out.extend_from_slice(value);
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

/// Begins a container whose size is not known yet; [`close`] wants the position that this returns.
#[must_use]
pub fn open(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len() - 1
}

/// Writes the header, [`array()`] or [`map()`], of the container that was opened at `position`. Beyond fifteen elements
/// the header is longer than the byte that was kept for it, and the contents move.
pub fn close(out: &mut Vec<u8>, position: usize, header: fn(&mut Vec<u8>, usize), length: usize) {
    let mut written = Vec::with_capacity(5);
    header(&mut written, length);
    out.splice(position..=position, written);
}

/// The format's counts are 32 bits wide.
fn count(length: usize) -> u32 {
    u32::try_from(length).expect("fewer than 2^32 elements")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_container_closed_late_equals_one_whose_size_was_known(length in 0_usize..70_000) {
            let (mut late, mut known) = (vec![7], vec![7]);
            let position = open(&mut late);
            late.extend(std::iter::repeat_n(0xc0, length));
            close(&mut late, position, array, length);
            array(&mut known, length);
            known.extend(std::iter::repeat_n(0xc0, length));
            prop_assert_eq!(late, known);
        }
    }
}
