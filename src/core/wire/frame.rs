//! Finds where one MessagePack value ends in bytes that arrive in pieces.
//! It keeps no bytes and builds no value: a few counters, however large the message.
//!
//! ```text
//!   bytes so far ──> Scanner ──> More            read on, the next call goes on where this one stopped
//!                           ├──> Whole(length)   one value, within the bounds
//!                           ├──> Deep(length)    one value, nested over the bound: answerable, not usable
//!                           └──> FrameError      the stream is lost: no MessagePack, or too large
//! ```
//!
//! Every element takes at least one byte, so a length that cannot fit into the bound is refused
//! when it is declared, before anything is buffered for it.

use rmp::Marker;
use thiserror::Error;

/// The outcome of looking at the bytes that have arrived so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The value is not complete yet.
    More,
    /// The value takes the first so many bytes.
    Whole(usize),
    /// The value takes the first so many bytes and is nested more deeply than allowed.
    Deep(usize),
}

/// Why a stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The byte 0xc1, which no MessagePack value contains as a marker.
    #[error("not MessagePack")]
    NotMessagePack,
    /// The value is, or announces that it will be, larger than the bound in bytes.
    #[error("a message larger than {0} bytes")]
    TooLarge(usize),
}

/// A resumable search for the end of one value.
#[derive(Clone, Debug)]
pub struct Scanner {
    limit: usize,
    max_depth: usize,
    /// Bytes of the value known to belong to it. May lie beyond what has arrived.
    reached: usize,
    /// Values still to come, per open container, outermost first. Never longer than `max_depth`.
    open: Vec<u64>,
    /// Values still to come inside a container that is nested too deeply; levels are not kept
    /// apart any more.
    below: u64,
    started: bool,
    deep: bool,
}

impl Scanner {
    /// A scanner for values of at most `limit` bytes, with containers in at most `max_depth` levels.
    #[must_use]
    pub fn new(limit: usize, max_depth: usize) -> Self {
        Self {
            limit,
            max_depth,
            reached: 0,
            open: Vec::new(),
            below: 0,
            started: false,
            deep: false,
        }
    }

    /// Looks at `bytes`, which start at the value's first byte and have grown since the last call.
    /// After `Whole` or `Deep` the scanner is ready for the next value.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is then lost and the scanner of no further use.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Scan, FrameError> {
        while !self.is_done() {
            let Some(step) = Step::read(bytes.get(self.reached..).unwrap_or_default())? else {
                return Ok(Scan::More);
            };
            self.reached += step.bytes;
            self.account(step.children);
            if self.least_length() > self.limit as u64 {
                return Err(FrameError::TooLarge(self.limit));
            }
        }
        if self.reached > bytes.len() {
            return Ok(Scan::More);
        }
        let whole = if self.deep { Scan::Deep(self.reached) } else { Scan::Whole(self.reached) };
        *self =
            Self { open: std::mem::take(&mut self.open), ..Self::new(self.limit, self.max_depth) };
        Ok(whole)
    }

    fn is_done(&self) -> bool {
        self.started && self.open.is_empty() && self.below == 0
    }

    /// The bytes that the value will take at the very least.
    fn least_length(&self) -> u64 {
        let pending = self.open.iter().fold(self.below, |sum, n| sum.saturating_add(*n));
        pending.saturating_add(self.reached as u64)
    }

    /// Counts one value as seen and opens it if it holds others.
    fn account(&mut self, children: u64) {
        self.started = true;
        if self.below > 0 {
            self.below = (self.below - 1).saturating_add(children);
        } else {
            if let Some(innermost) = self.open.last_mut() {
                *innermost -= 1;
            }
            if children > 0 && self.open.len() < self.max_depth {
                self.open.push(children);
            } else if children > 0 {
                self.deep = true;
                self.below = children;
            }
        }
        if self.below == 0 {
            while self.open.last() == Some(&0) {
                self.open.pop();
            }
        }
    }
}

/// What one marker byte announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The bytes up to the next marker, this one's among them.
    pub bytes: usize,
    /// The values nested below this one, which come next.
    pub children: u64,
}

impl Step {
    /// Reads the marker at the front, with its length where it has one. None where more bytes are needed for that:
    /// five are always enough.
    ///
    /// # Errors
    /// [`FrameError::NotMessagePack`].
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some((&marker, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let leaf = |bytes: u64| Some(Step::new(bytes, 0));
        let sized = |header: u64, length: Option<u64>| length.map(|n| Step::new(header + n, 0));
        let array = |header: u64, count: Option<u64>| count.map(|n| Step::new(header, n));
        let map = |header: u64, count: Option<u64>| count.map(|n| Step::new(header, 2 * n));
        Ok(match Marker::from_u8(marker) {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => {
                leaf(1)
            }
            Marker::U8 | Marker::I8 => leaf(2),
            Marker::U16 | Marker::I16 => leaf(3),
            Marker::U32 | Marker::I32 | Marker::F32 => leaf(5),
            Marker::U64 | Marker::I64 | Marker::F64 => leaf(9),
            Marker::FixStr(n) => leaf(1 + u64::from(n)),
            Marker::Str8 | Marker::Bin8 => sized(2, big_endian(rest, 1)),
            Marker::Str16 | Marker::Bin16 => sized(3, big_endian(rest, 2)),
            Marker::Str32 | Marker::Bin32 => sized(5, big_endian(rest, 4)),
            Marker::FixExt1 => leaf(3),
            Marker::FixExt2 => leaf(4),
            Marker::FixExt4 => leaf(6),
            Marker::FixExt8 => leaf(10),
            Marker::FixExt16 => leaf(18),
            Marker::Ext8 => sized(3, big_endian(rest, 1)),
            Marker::Ext16 => sized(4, big_endian(rest, 2)),
            Marker::Ext32 => sized(6, big_endian(rest, 4)),
            Marker::FixArray(n) => array(1, Some(u64::from(n))),
            Marker::Array16 => array(3, big_endian(rest, 2)),
            Marker::Array32 => array(5, big_endian(rest, 4)),
            Marker::FixMap(n) => map(1, Some(u64::from(n))),
            Marker::Map16 => map(3, big_endian(rest, 2)),
            Marker::Map32 => map(5, big_endian(rest, 4)),
            Marker::Reserved => return Err(FrameError::NotMessagePack),
        })
    }

    fn new(bytes: u64, children: u64) -> Self {
        Self { bytes: usize::try_from(bytes).unwrap_or(usize::MAX), children }
    }
}

/// The first `width` bytes as a number; none if they have not all arrived.
fn big_endian(bytes: &[u8], width: usize) -> Option<u64> {
    let field = bytes.get(..width)?;
    Some(field.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 16;
    const DEPTH: usize = 8;

    fn scan_whole(bytes: &[u8]) -> Result<Scan, FrameError> {
        Scanner::new(LIMIT, DEPTH).scan(bytes)
    }

    fn encoded(value: &rmpv::Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).expect("a Vec takes all");
        bytes
    }

    fn nested(levels: usize) -> Vec<u8> {
        let mut bytes = vec![0x91; levels];
        bytes.push(0xc0);
        bytes
    }

    #[test]
    fn nesting_up_to_the_bound_is_whole_and_beyond_it_deep() {
        assert_eq!(scan_whole(&nested(DEPTH)), Ok(Scan::Whole(DEPTH + 1)));
        assert_eq!(scan_whole(&nested(DEPTH + 1)), Ok(Scan::Deep(DEPTH + 2)));
        assert_eq!(scan_whole(&nested(5_000)), Ok(Scan::Deep(5_001)));
    }

    #[test]
    fn a_deep_value_ends_where_it_ends() {
        let mut scanner = Scanner::new(LIMIT, DEPTH);
        let mut bytes = nested(DEPTH + 3);
        let length = bytes.len();
        bytes.push(0x07);
        assert_eq!(scanner.scan(&bytes), Ok(Scan::Deep(length)));
        assert_eq!(scanner.scan(&bytes[length..]), Ok(Scan::Whole(1)));
    }

    #[test]
    fn an_announced_length_over_the_bound_is_refused_at_once() {
        for header in [
            &[0xdb, 0, 1, 0, 0][..],         // str32 of 64 KiB
            &[0xc6, 0xff, 0xff, 0xff, 0xff], // bin32 of 4 GiB
            &[0xdd, 0, 1, 0, 0],             // array32 of 64 Ki elements
            &[0xdf, 0xff, 0xff, 0xff, 0xff], // map32 of 4 Gi pairs
            &[0xc9, 0xff, 0xff, 0xff, 0xff], // ext32
            &[0x92, 0xdd, 0, 0, 0xff, 0xff], // the outer array's second element does not fit
        ] {
            assert_eq!(scan_whole(header), Err(FrameError::TooLarge(LIMIT)), "{header:x?}");
        }
    }

    #[test]
    fn a_value_of_exactly_the_bound_passes() {
        let mut bytes = vec![0xdb];
        bytes.extend(u32::try_from(LIMIT - 5).expect("small").to_be_bytes());
        assert_eq!(scan_whole(&bytes), Ok(Scan::More));
        bytes.resize(LIMIT, b'x');
        assert_eq!(scan_whole(&bytes), Ok(Scan::Whole(LIMIT)));
    }

    #[test]
    fn the_reserved_marker_is_no_messagepack_anywhere() {
        assert_eq!(scan_whole(&[0xc1]), Err(FrameError::NotMessagePack));
        assert_eq!(scan_whole(&[0x92, 0xc0, 0xc1]), Err(FrameError::NotMessagePack));
    }

    fn any_value() -> impl Strategy<Value = rmpv::Value> {
        let leaf = prop_oneof![
            Just(rmpv::Value::Nil),
            any::<bool>().prop_map(rmpv::Value::from),
            any::<i64>().prop_map(rmpv::Value::from),
            any::<u64>().prop_map(rmpv::Value::from),
            any::<f32>().prop_map(rmpv::Value::from),
            any::<f64>().prop_map(rmpv::Value::from),
            ".{0,300}".prop_map(rmpv::Value::from),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(rmpv::Value::from),
            (any::<i8>(), prop::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(t, b)| rmpv::Value::Ext(t, b)),
        ];
        leaf.prop_recursive(4, 64, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(rmpv::Value::Array),
                prop::collection::vec((inner.clone(), inner), 0..20).prop_map(rmpv::Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_end_is_found_wherever_the_bytes_are_cut(
            first in any_value(), second in any_value(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut bytes = encoded(&first);
            let first_length = bytes.len();
            bytes.extend(encoded(&second));
            let mut scanner = Scanner::new(1 << 24, DEPTH);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(first_length)).collect();
            cuts.sort_unstable();
            for cut in cuts {
                prop_assert_eq!(scanner.scan(&bytes[..cut]), Ok(Scan::More));
            }
            prop_assert_eq!(scanner.scan(&bytes), Ok(Scan::Whole(first_length)));
            prop_assert_eq!(scanner.scan(&bytes[first_length..]), Ok(Scan::Whole(bytes.len() - first_length)));
        }

        #[test]
        fn arbitrary_bytes_are_judged_as_the_reference_decoder_judges_them(
            bytes in prop::collection::vec(any::<u8>(), 1..200),
        ) {
            let mut rest = &bytes[..];
            let reference = rmpv::decode::read_value(&mut rest);
            match Scanner::new(1 << 40, usize::MAX).scan(&bytes) {
                Ok(Scan::Whole(length)) => {
                    prop_assert!(reference.is_ok());
                    prop_assert_eq!(length, bytes.len() - rest.len());
                }
                Ok(Scan::More) => prop_assert!(reference.is_err()),
                Ok(Scan::Deep(_)) => prop_assert!(false, "no depth is too deep here"),
                Err(FrameError::TooLarge(_)) => prop_assert!(reference.is_err()),
                Err(FrameError::NotMessagePack) => {} // the reference reads the reserved marker as nil
            }
        }
    }
}
