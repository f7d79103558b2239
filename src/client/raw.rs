//! Finding where a MessagePack value ends, and copying it as it is, from a stream that is still arriving.
//! Leaves what the value says to others.

use std::io::{self, BufRead};

/// Copies the next value from `input` to the end of `out`, at most `keep` bytes of it; the rest is read and
/// dropped. Returns the size of the value, so a value was cut if that is more than was copied.
///
/// Lengths that the value claims are never believed beforehand: memory grows with what has arrived.
pub(crate) fn copy_value(
    input: &mut impl BufRead,
    out: &mut Vec<u8>,
    keep: usize,
) -> io::Result<u64> {
    let mut copy = Copy { input, out, room: keep, size: 0 };
    let mut values_left: u64 = 1;
    while values_left > 0 {
        let marker = copy.number(1)?;
        values_left = values_left - 1 + copy.body(marker)?;
    }
    Ok(copy.size)
}

/// Reads past the next value.
pub(crate) fn skip_value(input: &mut impl BufRead) -> io::Result<()> {
    copy_value(input, &mut Vec::new(), 0).map(|_| ())
}

struct Copy<'a, R> {
    input: &'a mut R,
    out: &'a mut Vec<u8>,
    room: usize,
    size: u64,
}

impl<R: BufRead> Copy<'_, R> {
    /// Copies what belongs to the value itself and returns how many values follow inside it.
    /// The arms are the rows of the table in the MessagePack specification.
    fn body(&mut self, marker: u64) -> io::Result<u64> {
        let bytes = match marker {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => 0,
            0x80..=0x8f => return Ok(2 * (marker & 0x0f)),
            0x90..=0x9f => return Ok(marker & 0x0f),
            0xa0..=0xbf => marker & 0x1f,
            0xc4 | 0xd9 => self.number(1)?,
            0xc5 | 0xda => self.number(2)?,
            0xc6 | 0xdb => self.number(4)?,
            0xc7 => self.number(1)? + 1,
            0xc8 => self.number(2)? + 1,
            0xc9 => self.number(4)? + 1,
            0xcc | 0xd0 => 1,
            0xcd | 0xd1 => 2,
            0xca | 0xce | 0xd2 => 4,
            0xcb | 0xcf | 0xd3 => 8,
            0xd4..=0xd8 => (1 << (marker - 0xd4)) + 1,
            0xdc => return self.number(2),
            0xdd => return self.number(4),
            0xde => return Ok(2 * self.number(2)?),
            0xdf => return Ok(2 * self.number(4)?),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{marker:#x} begins no MessagePack value"),
                ));
            }
        };
        self.copy(bytes)?;
        Ok(0)
    }

    /// Copies a big-endian number of `width` bytes and returns it.
    fn number(&mut self, width: u64) -> io::Result<u64> {
        let mut number = 0;
        for _ in 0..width {
            let byte = *self.available()?.first().ok_or(io::ErrorKind::UnexpectedEof)?;
            self.take(1);
            number = number << 8 | u64::from(byte);
        }
        Ok(number)
    }

    fn copy(&mut self, mut bytes: u64) -> io::Result<()> {
        while bytes > 0 {
            let here = self.available()?.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.take(here);
            bytes -= here as u64;
        }
        Ok(())
    }

    /// What has arrived: at least one byte, or it is an error.
    fn available(&mut self) -> io::Result<&[u8]> {
        let available = self.input.fill_buf()?;
        if available.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(available) }
    }

    /// Moves `amount` bytes, which are available, from the input to the output.
    fn take(&mut self, amount: usize) {
        let kept = amount.min(self.room);
        if kept > 0 {
            // The bytes were available a moment ago, so this returns them again without reading.
            if let Ok(available) = self.input.fill_buf() {
                self.out.extend_from_slice(&available[..kept]);
            }
        }
        self.input.consume(amount);
        self.room -= kept;
        self.size += amount as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;
    use crate::client::{arbitrary::any_value, pack};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_is_copied_as_it_is_however_its_bytes_arrive(value in any_value(), step in 1_usize..9) {
            let mut bytes = Vec::new();
            pack::value(&mut bytes, &value);
            let length = bytes.len();
            let followed: Vec<u8> = bytes.iter().copied().chain([0xc1, 0xc1]).collect();
            let mut input = BufReader::with_capacity(step, followed.as_slice());
            let mut out = Vec::new();
            prop_assert_eq!(copy_value(&mut input, &mut out, usize::MAX).expect("a whole value"), length as u64);
            prop_assert_eq!(out, bytes);
        }

        #[test]
        fn a_value_cut_short_is_an_unexpected_end(value in any_value(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            pack::value(&mut bytes, &value);
            let mut part = &bytes[..cut.index(bytes.len())];
            let error = skip_value(&mut part).expect_err("the end is missing");
            prop_assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = skip_value(&mut bytes.as_slice());
        }
    }

    #[test]
    fn a_claimed_length_costs_no_memory_before_it_arrives() {
        let mut out = Vec::new();
        let claim = [0xc6, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        assert!(copy_value(&mut claim.as_slice(), &mut out, usize::MAX).is_err());
        assert!(out.capacity() < 1024);
    }

    #[test]
    fn a_value_over_the_bound_is_read_to_its_end_and_kept_in_part() {
        let bytes = [0xa5, b'h', b'e', b'l', b'l', b'o', 0xc0];
        let mut input = bytes.as_slice();
        let mut out = Vec::new();
        assert_eq!(copy_value(&mut input, &mut out, 3).expect("a whole value"), 6);
        assert_eq!(out, bytes[..3]);
        assert_eq!(input, [0xc0]);
    }
}
