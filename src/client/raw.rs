//! Finding where a MessagePack value ends, and copying it as it is, from a stream that is still arriving.
//! Leaves what the value says to others.

use std::io::{self, BufRead};

use cortex_core::wire::{FrameError, Head, Reader, Step};

/// Copies the next value from `input` to the end of `out`, at most `keep` bytes of it; the rest is read and
/// dropped. Returns the size of the value, so a value was cut if that is more than was copied.
///
/// Lengths that the value claims are never believed beforehand: memory grows with what has arrived.
///
/// # Errors
/// What reading fails with; [`io::ErrorKind::UnexpectedEof`] where the value is cut short, and
/// [`io::ErrorKind::InvalidData`] where what comes is no MessagePack.
pub fn copy_value(input: &mut impl BufRead, out: &mut Vec<u8>, keep: usize) -> io::Result<u64> {
    let mut copy = Copy { input, out, room: keep, size: 0 };
    let mut values_left: u64 = 1;
    while values_left > 0 {
        let children = copy.one_value()?;
        values_left = (values_left - 1).saturating_add(children);
    }
    Ok(copy.size)
}

/// Enters an array, and answers how many elements follow; none where something else comes.
pub(crate) fn enter_array(input: &mut impl BufRead) -> io::Result<Option<usize>> {
    let (header, step) = Copy { input, out: &mut Vec::new(), room: 0, size: 0 }.header()?;
    match Reader::new(&header).head() {
        Some(Head::Array(count)) if step.bytes <= header.len() => Ok(Some(count)),
        _ => Ok(None),
    }
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
    /// Copies one value without those inside it, and answers how many these are.
    fn one_value(&mut self) -> io::Result<u64> {
        let (header, step) = self.header()?;
        self.copy((step.bytes - header.len()) as u64)?;
        Ok(step.children)
    }

    /// Copies bytes until they say how long the value is.
    fn header(&mut self) -> io::Result<(Vec<u8>, Step)> {
        let mut header = Vec::new();
        loop {
            let byte = *self.available()?.first().ok_or(io::ErrorKind::UnexpectedEof)?;
            self.take(1);
            header.push(byte);
            match Step::read(&header) {
                Ok(Some(step)) => return Ok((header, step)),
                Ok(None) => {}
                Err(FrameError::NotMessagePack | FrameError::TooLarge(_)) => {
                    let why = format!("{byte:#x} begins no MessagePack value");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
            }
        }
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

    use proptest::prelude::*;

    use super::*;

    /// Bytes of which many begin with a value: containers and lengths at the front, then anything.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let marker = prop_oneof![any::<u8>(), 0x80_u8..0xa4, 0xc0_u8..0xe0];
        (prop::collection::vec(marker, 1..6), prop::collection::vec(0_u8..6, 0..80))
            .prop_map(|(front, rest)| [front, rest].concat())
    }

    proptest! {
        /// The core's reader has the whole of it at once; here the bytes arrive as they please.
        #[test]
        fn a_value_is_copied_as_it_is_however_its_bytes_arrive(bytes in bytes(), step in 1_usize..9) {
            let whole = Reader::new(&bytes).raw();
            let mut input = BufReader::with_capacity(step, bytes.as_slice());
            let mut out = Vec::new();
            match copy_value(&mut input, &mut out, usize::MAX) {
                Ok(size) => {
                    prop_assert_eq!(Some(out.as_slice()), whole);
                    prop_assert_eq!(size, out.len() as u64);
                }
                Err(error) => {
                    prop_assert_eq!(whole, None);
                    let known = [io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidData];
                    prop_assert!(known.contains(&error.kind()), "{}", error);
                }
            }
        }

        #[test]
        fn a_value_cut_short_is_an_unexpected_end(bytes in bytes(), cut in any::<prop::sample::Index>()) {
            let whole = Reader::new(&bytes).raw();
            prop_assume!(whole.is_some());
            let whole = whole.unwrap_or_default();
            let mut part = &whole[..cut.index(whole.len())];
            let error = skip_value(&mut part).expect_err("the end is missing");
            prop_assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn an_array_is_entered_and_nothing_else() {
        for (mut bytes, expected) in [
            (&[0x92, 1, 2][..], Some(2)),
            (&[0xdc, 1, 0][..], Some(256)),
            (&[0x82, 1, 2, 3, 4][..], None),
            (&[0xc0][..], None),
            (&[0xa3, b'a', b'b', b'c'][..], None),
        ] {
            assert_eq!(enter_array(&mut bytes).expect("a header"), expected);
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
