//! The head of an answer: `[1, id, error, …`, up to where the result begins.
//! Leaves the result to the caller.

use std::io::BufRead;

use cortex_core::wire::{Head, Reader};

use super::error::Error;
use super::raw;

/// The id of an answer that answers no request: the daemon refuses the connection.
const CONNECTION: i128 = 0;

/// The type of a MessagePack-RPC response.
const RESPONSE: i128 = 1;

/// An error text longer than this is no error text.
const MAX_ERROR: usize = 64 * 1024;

/// Reads the head of the answer to request `id`: `Ok`, or the daemon's refusal. In both cases the result
/// (nil, if refused) is next in `input`.
pub(super) fn read_head(input: &mut impl BufRead, id: u32) -> Result<Result<(), String>, Error> {
    match raw::enter_array(input)? {
        Some(4) => {}
        Some(elements) => {
            let why = format!("an answer has {elements} elements instead of 4");
            return Err(Error::Protocol(why));
        }
        None => return Err(Error::Protocol("an answer is not an array".to_owned())),
    }
    let (mut kind, mut answered, mut error) = Default::default();
    if read_small(input, &mut kind)? != Head::Int(RESPONSE) {
        return Err(Error::Protocol("a message of another type instead of an answer".to_owned()));
    }
    let answered = read_small(input, &mut answered)?;
    let refusal = match read_small(input, &mut error)? {
        Head::Nil => None,
        Head::Str(text) => Some(String::from_utf8_lossy(text).into_owned()),
        other @ (Head::Bool(_)
        | Head::Int(_)
        | Head::Float(_)
        | Head::Bin(_)
        | Head::Array(_)
        | Head::Map(_)
        | Head::Ext(..)) => {
            return Err(Error::Protocol(format!("an error that is not text: {other:?}")));
        }
    };
    if let (Head::Int(CONNECTION), Some(refusal)) = (answered, &refusal) {
        return Err(Error::Refused(refusal.clone()));
    }
    if answered != Head::Int(id.into()) {
        return Err(Error::Protocol(format!("an answer to request {answered:?} instead of {id}")));
    }
    Ok(refusal.map_or(Ok(()), Err))
}

fn read_small<'b>(input: &mut impl BufRead, bytes: &'b mut Vec<u8>) -> Result<Head<'b>, Error> {
    raw::copy_value(input, bytes, MAX_ERROR)?;
    let head = Reader::new(bytes).head();
    head.ok_or_else(|| Error::Protocol("the head of an answer is too long".to_owned()))
}
