//! MessagePack-RPC as `cortexd` speaks it, encoded by hand and skimmed, never decoded.
//!
//! The skimmer finds where a reply ends, and checks that its id is the expected
//! one, its error is nil and its result has the shape that was asked for.

use super::wire::{KEY_BYTES, Key, Reply, Skimmed, Stop, VALUE_BYTES, Wire};

// The markers at the ends of these hold `KEY_BYTES` and `VALUE_BYTES`.
/// `"put", ["bench", {"id": …`, up to the key.
const PUT: &[u8] = b"\xa3put\x92\xa5bench\x82\xa2id\xac";
/// `… "v": bin …`, up to the value.
const PUT_VALUE: &[u8] = b"\xa1v\xc4\x64";
/// `"get", ["bench", …`, up to the key.
const GET: &[u8] = b"\xa3get\x92\xa5bench\xac";
const _: () = assert!(KEY_BYTES == 12 && VALUE_BYTES == 100);
const PING: &[u8] = b"\xa4ping\x90";
/// `"create_table", ["bench", ["id", "v"]]`.
const CREATE: &[u8] = b"\xaccreate_table\x92\xa5bench\x92\xa2id\xa1v";

/// The ids of one connection: the next to give out and the next to be answered.
#[derive(Debug, Default)]
pub(crate) struct Msgpack {
    asked: u32,
    answered: u32,
}

impl Msgpack {
    /// Appends the creation of the table that puts and gets name.
    pub(crate) fn create_table(&mut self, out: &mut Vec<u8>) {
        self.open_request(out);
        out.extend_from_slice(CREATE);
    }

    /// Ids are always sent in four bytes: a valid encoding of a fixed width.
    fn open_request(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\x94\x00\xce");
        out.extend_from_slice(&self.asked.to_be_bytes());
        self.asked = self.asked.wrapping_add(1);
    }
}

impl Wire for Msgpack {
    fn ping(&mut self, out: &mut Vec<u8>) {
        self.open_request(out);
        out.extend_from_slice(PING);
    }

    fn put(&mut self, out: &mut Vec<u8>, key: &Key, value: &[u8; VALUE_BYTES]) {
        self.open_request(out);
        out.extend_from_slice(PUT);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(PUT_VALUE);
        out.extend_from_slice(value);
    }

    fn get(&mut self, out: &mut Vec<u8>, key: &Key) {
        self.open_request(out);
        out.extend_from_slice(GET);
        out.extend_from_slice(key.as_bytes());
    }

    fn skim(&mut self, bytes: &[u8]) -> Result<Skimmed, Stop> {
        let mut cursor = Cursor { bytes, at: 0 };
        if cursor.byte()? != 0x94 || cursor.byte()? != 1 {
            return Err(Stop::Malformed("not a response of four elements"));
        }
        if cursor.unsigned()? != u64::from(self.answered) {
            return Err(Stop::Malformed("a response out of request order"));
        }
        let error = cursor.value()?;
        let result = cursor.value()?;
        let reply = judge(error, result)?;
        self.answered = self.answered.wrapping_add(1);
        Ok(Skimmed { len: cursor.at, reply })
    }
}

/// Only the two shapes of result that this load can earn are accepted.
fn judge(error: &[u8], result: &[u8]) -> Result<Reply, Stop> {
    if error[0] != NIL {
        let text = rmp::decode::read_str_from_slice(error)
            .map_err(|_| Stop::Malformed("an error that is neither nil nor string"))?;
        return Ok(Reply::Refused(text.0.to_owned()));
    }
    match result[0] {
        0xa0..=0xbf | 0xd9..=0xdb => Ok(Reply::Done),
        0x80..=0x8f | 0xde | 0xdf => Ok(Reply::Record(result.len())),
        _ => Err(Stop::Malformed("a result that is neither string nor map")),
    }
}

const NIL: u8 = 0xc0;

/// A position in bytes that may end anywhere.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The encoding of the value here, at least one byte. Nesting costs no stack:
    /// what a container holds is added to the values still to pass.
    fn value(&mut self) -> Result<&'a [u8], Stop> {
        let start = self.at;
        let mut pending = 1_u64;
        while pending > 0 {
            pending = pending - 1 + self.head()?;
        }
        Ok(&self.bytes[start..self.at])
    }

    /// Passes one marker and its own bytes, and says how many values it contains.
    fn head(&mut self) -> Result<u64, Stop> {
        let marker = self.byte()?;
        let (body, children) = match marker {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
            0x80..=0x8f => (0, 2 * u64::from(marker & 0x0f)),
            0x90..=0x9f => (0, u64::from(marker & 0x0f)),
            0xa0..=0xbf => (u64::from(marker & 0x1f), 0),
            0xc1 => return Err(Stop::Malformed("0xc1 is no marker")),
            0xc4 | 0xd9 => (self.uint(1)?, 0),
            0xc5 | 0xda => (self.uint(2)?, 0),
            0xc6 | 0xdb => (self.uint(4)?, 0),
            0xc7..=0xc9 => (self.uint(1 << (marker - 0xc7))? + 1, 0),
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 => (2, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xd4..=0xd8 => (1 + (1 << (marker - 0xd4)), 0),
            0xdc => (0, self.uint(2)?),
            0xdd => (0, self.uint(4)?),
            0xde => (0, 2 * self.uint(2)?),
            0xdf => (0, 2 * self.uint(4)?),
        };
        self.take(body)?;
        Ok(children)
    }

    /// An unsigned integer of any width.
    fn unsigned(&mut self) -> Result<u64, Stop> {
        match self.byte()? {
            small @ 0x00..=0x7f => Ok(u64::from(small)),
            0xcc => self.uint(1),
            0xcd => self.uint(2),
            0xce => self.uint(4),
            0xcf => self.uint(8),
            _ => Err(Stop::Malformed("a message id that is no unsigned integer")),
        }
    }

    fn uint(&mut self, width: u64) -> Result<u64, Stop> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(n).ok().and_then(|n| rest.get(..n)).ok_or(Stop::Partial)?;
        self.at += taken.len();
        Ok(taken)
    }
}
