//! Reads MessagePack values in place, borrowing from the bytes.
//! Finding where a message ends, and bounding it, is done before, in `frame`.

use rmp::Marker;

/// What stands at the front of a value: a scalar whole, a container by its count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Head<'a> {
    /// nil
    Nil,
    /// A boolean.
    Bool(bool),
    /// Any integer of the format: -2^63 to 2^64-1.
    Int(i128),
    /// A float of either width.
    Float(f64),
    /// A string, not checked to be UTF-8.
    Str(&'a [u8]),
    /// Bytes.
    Bin(&'a [u8]),
    /// So many values follow.
    Array(usize),
    /// So many pairs of values follow.
    Map(usize),
    /// An extension type and its bytes.
    Ext(i8, &'a [u8]),
}

/// A cursor over MessagePack bytes. Every method answers none at the end of the bytes or where
/// they are no MessagePack, and never panics.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads a scalar, or enters a container.
    pub fn head(&mut self) -> Option<Head<'a>> {
        let marker = Marker::from_u8(self.chunk::<1>()?[0]);
        Some(match marker {
            Marker::Null => Head::Nil,
            Marker::True => Head::Bool(true),
            Marker::False => Head::Bool(false),
            Marker::FixPos(n) => Head::Int(n.into()),
            Marker::FixNeg(n) => Head::Int(n.into()),
            Marker::U8 => Head::Int(u8::from_be_bytes(self.chunk()?).into()),
            Marker::U16 => Head::Int(u16::from_be_bytes(self.chunk()?).into()),
            Marker::U32 => Head::Int(u32::from_be_bytes(self.chunk()?).into()),
            Marker::U64 => Head::Int(u64::from_be_bytes(self.chunk()?).into()),
            Marker::I8 => Head::Int(i8::from_be_bytes(self.chunk()?).into()),
            Marker::I16 => Head::Int(i16::from_be_bytes(self.chunk()?).into()),
            Marker::I32 => Head::Int(i32::from_be_bytes(self.chunk()?).into()),
            Marker::I64 => Head::Int(i64::from_be_bytes(self.chunk()?).into()),
            Marker::F32 => Head::Float(f32::from_be_bytes(self.chunk()?).into()),
            Marker::F64 => Head::Float(f64::from_be_bytes(self.chunk()?)),
            Marker::FixStr(n) => Head::Str(self.take(n.into())?),
            Marker::Str8 => Head::Str(self.sized::<1>()?),
            Marker::Str16 => Head::Str(self.sized::<2>()?),
            Marker::Str32 => Head::Str(self.sized::<4>()?),
            Marker::Bin8 => Head::Bin(self.sized::<1>()?),
            Marker::Bin16 => Head::Bin(self.sized::<2>()?),
            Marker::Bin32 => Head::Bin(self.sized::<4>()?),
            Marker::FixArray(n) => Head::Array(n.into()),
            Marker::Array16 => Head::Array(self.length::<2>()?),
            Marker::Array32 => Head::Array(self.length::<4>()?),
            Marker::FixMap(n) => Head::Map(n.into()),
            Marker::Map16 => Head::Map(self.length::<2>()?),
            Marker::Map32 => Head::Map(self.length::<4>()?),
            Marker::FixExt1 => self.ext(1)?,
            Marker::FixExt2 => self.ext(2)?,
            Marker::FixExt4 => self.ext(4)?,
            Marker::FixExt8 => self.ext(8)?,
            Marker::FixExt16 => self.ext(16)?,
            Marker::Ext8 => self.length::<1>().and_then(|n| self.ext(n))?,
            Marker::Ext16 => self.length::<2>().and_then(|n| self.ext(n))?,
            Marker::Ext32 => self.length::<4>().and_then(|n| self.ext(n))?,
            Marker::Reserved => return None,
        })
    }

    /// Reads one whole value and answers its bytes.
    pub fn raw(&mut self) -> Option<&'a [u8]> {
        let start = self.rest;
        let mut pending = 1u64;
        while pending > 0 {
            let children = match self.head()? {
                Head::Array(n) => n as u64,
                Head::Map(n) => 2 * n as u64,
                Head::Nil
                | Head::Bool(_)
                | Head::Int(_)
                | Head::Float(_)
                | Head::Str(_)
                | Head::Bin(_)
                | Head::Ext(..) => 0,
            };
            pending = (pending - 1).saturating_add(children);
        }
        start.get(..start.len() - self.rest.len())
    }

    /// Reads a string that is UTF-8; none for any other value.
    pub fn text(&mut self) -> Option<&'a str> {
        let Some(Head::Str(bytes)) = self.head() else {
            return None;
        };
        std::str::from_utf8(bytes).ok()
    }

    /// Reads an integer; none for any other value.
    pub fn int(&mut self) -> Option<i128> {
        let Head::Int(value) = self.head()? else {
            return None;
        };
        Some(value)
    }

    /// Reads an integer from 0 to 2^64-1; none for any other value.
    pub fn uint(&mut self) -> Option<u64> {
        u64::try_from(self.int()?).ok()
    }

    /// Reads an integer from 0 to 2^63-1, as which a database can keep a number; none for any other value.
    pub fn count(&mut self) -> Option<u64> {
        self.uint().filter(|value| i64::try_from(*value).is_ok())
    }

    /// Reads a boolean; none for any other value.
    pub fn bool(&mut self) -> Option<bool> {
        let Head::Bool(value) = self.head()? else {
            return None;
        };
        Some(value)
    }

    /// Reads bytes; none for any other value.
    pub fn bin(&mut self) -> Option<&'a [u8]> {
        let Head::Bin(bytes) = self.head()? else {
            return None;
        };
        Some(bytes)
    }

    /// Reads exactly `N` bytes; none for any other value.
    pub fn bin_of<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bin()?.try_into().ok()
    }

    /// Reads a value, or nil as none; the outer none where `read` finds none.
    pub fn or_nil<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        let mut ahead = self.clone();
        if ahead.head()? == Head::Nil {
            *self = ahead;
            return Some(None);
        }
        read(self).map(Some)
    }

    /// Enters an array and answers how many values follow; none for any other value.
    pub fn array(&mut self) -> Option<usize> {
        let Head::Array(count) = self.head()? else {
            return None;
        };
        Some(count)
    }

    /// Enters an array of exactly so many values; none for any other value.
    pub fn array_of(&mut self, count: usize) -> Option<()> {
        (self.array()? == count).then_some(())
    }

    /// Enters a map and answers how many pairs follow; none for any other value.
    pub fn map(&mut self) -> Option<usize> {
        let Head::Map(count) = self.head()? else {
            return None;
        };
        Some(count)
    }

    /// Reads an array of at most `most` elements; none for any other value. The list grows with what is there,
    /// not by what the array announces.
    pub fn list<T>(
        &mut self,
        most: usize,
        mut element: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let count = self.array().filter(|count| *count <= most)?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(element(self)?);
        }
        Some(list)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    fn length<const N: usize>(&mut self) -> Option<usize> {
        Some(self.chunk::<N>()?.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    }

    fn sized<const N: usize>(&mut self) -> Option<&'a [u8]> {
        let length = self.length::<N>()?;
        self.take(length)
    }

    fn ext(&mut self, length: usize) -> Option<Head<'a>> {
        let kind = i8::from_be_bytes(self.chunk()?);
        Some(Head::Ext(kind, self.take(length)?))
    }
}

/// A value in a form in which equal values are equal, however they were encoded: 7 in one byte or
/// in nine, 1 and 1.0, maps in any order. Strings and byte strings differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value<'a> {
    /// nil
    Nil,
    /// A boolean.
    Bool(bool),
    /// An integer, or a float without a fraction that an integer of the format can hold.
    Int(i128),
    /// Any other float, by its bits, so that NaN equals itself.
    Float(u64),
    /// A string.
    Str(&'a [u8]),
    /// Bytes.
    Bin(&'a [u8]),
    /// Values in order.
    Array(Vec<Value<'a>>),
    /// Pairs sorted by key, each key once: of duplicates the last counts.
    Map(Vec<(Value<'a>, Value<'a>)>),
    /// An extension.
    Ext(i8, &'a [u8]),
}

impl<'a> Value<'a> {
    /// Reads one value. None where the bytes are no MessagePack.
    ///
    /// The recursion is as deep as the value: pass in only what `frame` has bounded.
    pub fn read(from: &mut Reader<'a>) -> Option<Self> {
        Some(match from.head()? {
            Head::Nil => Self::Nil,
            Head::Bool(b) => Self::Bool(b),
            Head::Int(n) => Self::Int(n),
            Head::Float(f) => Self::from_float(f),
            Head::Str(s) => Self::Str(s),
            Head::Bin(b) => Self::Bin(b),
            Head::Ext(kind, bytes) => Self::Ext(kind, bytes),
            Head::Array(count) => {
                Self::Array((0..count).map(|_| Self::read(from)).collect::<Option<_>>()?)
            }
            Head::Map(count) => {
                let pair = |_| Some((Self::read(from)?, Self::read(from)?));
                let mut pairs = (0..count).map(pair).collect::<Option<Vec<_>>>()?;
                // Stable, and then reversed for the removal: the last of equal keys stays.
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                pairs.reverse();
                pairs.dedup_by(|a, b| a.0 == b.0);
                Self::Map(pairs)
            }
        })
    }

    fn from_float(float: f64) -> Self {
        /// 2^64: beyond it no integer of the format equals the float.
        const INTEGERS_END: f64 = 18_446_744_073_709_551_616.0;
        /// -2^63: the least integer of the format.
        const INTEGERS_START: f64 = -9_223_372_036_854_775_808.0;
        let whole = float.fract() == 0.0 && (INTEGERS_START..INTEGERS_END).contains(&float);
        if whole {
            #[expect(clippy::cast_possible_truncation, reason = "whole and within the range")]
            return Self::Int(float as i128);
        }
        Self::Float(float.to_bits())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Value<'_> {
        Value::read(&mut Reader::new(bytes)).expect("a whole value")
    }

    #[test]
    fn equal_values_are_equal_however_they_are_encoded() {
        assert_eq!(read(&[7]), read(&[0xd3, 0, 0, 0, 0, 0, 0, 0, 7]));
        assert_eq!(read(&[1]), read(&[0xca, 0x3f, 0x80, 0, 0]), "1 and 1.0f32");
        assert_eq!(read(&[0xa1, b'a']), read(&[0xd9, 1, b'a']));
        assert_ne!(read(&[0xa1, b'a']), read(&[0xc4, 1, b'a']), "a string is no byte string");
        assert_eq!(read(&[0x82, 1, 2, 3, 4]), read(&[0x82, 3, 4, 1, 2]));
    }

    #[test]
    fn of_duplicate_keys_the_last_counts() {
        assert_eq!(read(&[0x83, 1, 2, 1, 3, 0, 9]), read(&[0x82, 0, 9, 1, 3]));
    }

    #[test]
    fn integers_at_the_ends_of_the_range_keep_their_value() {
        assert_eq!(
            read(&[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]),
            Value::Int(u64::MAX.into())
        );
        assert_eq!(read(&[0xd3, 128, 0, 0, 0, 0, 0, 0, 0]), Value::Int(i64::MIN.into()));
        let two_to_64 = (u64::MAX as f64).to_be_bytes();
        let mut bytes = vec![0xcb];
        bytes.extend(two_to_64);
        assert!(matches!(read(&bytes), Value::Float(_)), "no integer of the format is that large");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut reader = Reader::new(&bytes);
            while reader.raw().is_some() {}
            let mut reader = Reader::new(&bytes);
            let _ = Value::read(&mut reader);
        }

        #[test]
        fn raw_answers_exactly_one_value(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut reader = Reader::new(&bytes);
            if let Some(raw) = reader.raw() {
                let scan = super::super::Scanner::new(usize::MAX, usize::MAX).scan(&bytes);
                prop_assert_eq!(scan, Ok(super::super::Scan::Whole(raw.len())));
            }
        }
    }
}
