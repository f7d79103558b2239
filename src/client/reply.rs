//! The head of an answer: `[1, id, error, …`, up to where the result begins.
//! Leaves the result to whoever asked for it.

use std::io::BufRead;

use rmpv::Value;

use super::error::Error;
use super::raw;

/// The id of an answer that answers no request: the daemon refuses the connection.
const CONNECTION: u64 = 0;

/// The type of a MessagePack-RPC response.
const RESPONSE: u64 = 1;

/// An error text longer than this is no error text.
const MAX_ERROR: usize = 64 * 1024;

/// Reads the head of the answer to request `id`: `Ok`, or the daemon's refusal. In both cases the result
/// (nil, if refused) is next in `input`.
pub(super) fn read_head(input: &mut impl BufRead, id: u32) -> Result<Result<(), String>, Error> {
    let elements = rmp::decode::read_array_len(input)
        .map_err(|e| Error::decoding(e, "an answer is not an array"))?;
    if elements != 4 {
        return Err(Error::Protocol(format!("an answer has {elements} elements instead of 4")));
    }
    let kind = read_small(input)?;
    if kind.as_u64() != Some(RESPONSE) {
        return Err(Error::Protocol(format!("a message of type {kind} instead of an answer")));
    }
    let answered = read_small(input)?;
    let error = read_small(input)?;
    let refusal = if error.is_nil() {
        None
    } else if let Value::String(text) = &error {
        Some(String::from_utf8_lossy(text.as_bytes()).into_owned())
    } else {
        return Err(Error::Protocol(format!("an error that is not text: {error}")));
    };
    if let (Some(CONNECTION), Some(refusal)) = (answered.as_u64(), &refusal) {
        return Err(Error::Refused(refusal.clone()));
    }
    if answered.as_u64() != Some(u64::from(id)) {
        return Err(Error::Protocol(format!("an answer to request {answered} instead of {id}")));
    }
    Ok(refusal.map_or(Ok(()), Err))
}

fn read_small(input: &mut impl BufRead) -> Result<Value, Error> {
    let mut bytes = Vec::new();
    raw::copy_value(input, &mut bytes, MAX_ERROR)?;
    rmpv::decode::read_value(&mut bytes.as_slice())
        .map_err(|e| Error::Protocol(format!("the head of an answer cannot be decoded: {e}")))
}
