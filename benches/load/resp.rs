//! RESP as Redis speaks it: `SET`, `GET` and `PING`, and the replies to them.

use super::wire::{KEY_BYTES, Key, Reply, Skimmed, Stop, VALUE_BYTES, Wire};

// The lengths inside these are `KEY_BYTES` and `VALUE_BYTES`.
const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$12\r\n";
const SET_VALUE: &[u8] = b"\r\n$100\r\n";
const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$12\r\n";
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const CRLF: &[u8] = b"\r\n";
const _: () = assert!(KEY_BYTES == 12 && VALUE_BYTES == 100);

/// RESP has no message ids, so there is nothing to remember.
#[derive(Debug, Default)]
pub(crate) struct Resp;

impl Wire for Resp {
    fn ping(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PING);
    }

    fn put(&mut self, out: &mut Vec<u8>, key: &Key, value: &[u8; VALUE_BYTES]) {
        out.extend_from_slice(SET);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(SET_VALUE);
        out.extend_from_slice(value);
        out.extend_from_slice(CRLF);
    }

    fn get(&mut self, out: &mut Vec<u8>, key: &Key) {
        out.extend_from_slice(GET);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(CRLF);
    }

    fn skim(&mut self, bytes: &[u8]) -> Result<Skimmed, Stop> {
        let line = line(bytes)?;
        let len = line.len() + CRLF.len();
        match line.split_first() {
            Some((b'+', _)) => Ok(Skimmed { len, reply: Reply::Done }),
            Some((b'-', text)) => Ok(refused(len, text)),
            Some((b'$', b"-1")) => Ok(refused(len, b"no such key")),
            Some((b'$', digits)) => bulk(bytes, len, digits),
            _ => Err(Stop::Malformed("a reply of a kind that was not asked for")),
        }
    }
}

fn refused(len: usize, text: &[u8]) -> Skimmed {
    Skimmed { len, reply: Reply::Refused(String::from_utf8_lossy(text).into_owned()) }
}

/// The first line of `bytes`, without its end.
fn line(bytes: &[u8]) -> Result<&[u8], Stop> {
    let end = bytes.windows(CRLF.len()).position(|pair| pair == CRLF).ok_or(Stop::Partial)?;
    Ok(&bytes[..end])
}

/// A bulk string whose payload starts at `start` and has `digits` bytes.
fn bulk(bytes: &[u8], start: usize, digits: &[u8]) -> Result<Skimmed, Stop> {
    let size = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse::<u32>().ok())
        .ok_or(Stop::Malformed("a bulk length that is no number"))? as usize;
    let tail = bytes.get(start + size..).ok_or(Stop::Partial)?;
    match tail.get(..CRLF.len()) {
        None => Err(Stop::Partial),
        Some(CRLF) => Ok(Skimmed { len: start + size + CRLF.len(), reply: Reply::Record(size) }),
        Some(_) => Err(Stop::Malformed("a bulk string that ends elsewhere")),
    }
}
