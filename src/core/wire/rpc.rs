//! MessagePack-RPC messages: reading requests, writing responses.
//! Source: the MessagePack-RPC specification, and the fifth element described in cortex-protocol(7).

use super::{Head, Reader, encode};
use crate::model::Refusal;

/// The type number of a request, the first element of its array.
const REQUEST: i128 = 0;
/// The type number of a response.
const RESPONSE: u64 = 1;

/// A request, borrowed from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Chosen by the client, repeated in the response.
    pub msgid: u64,
    /// The method's name.
    pub method: &'a str,
    /// The encoded array of parameters.
    pub params: &'a [u8],
    /// The encoded fifth element, which only peers may send.
    pub metadata: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Reads a request from one whole MessagePack value. None where the value is no request.
    #[must_use]
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(message);
        let Head::Array(elements @ (4 | 5)) = reader.head()? else {
            return None;
        };
        let Head::Int(REQUEST) = reader.head()? else {
            return None;
        };
        let Head::Int(msgid) = reader.head()? else {
            return None;
        };
        let msgid = u64::try_from(msgid).ok()?;
        let method = reader.text()?;
        let params = reader.raw()?;
        let Some(Head::Array(_)) = Reader::new(params).head() else {
            return None;
        };
        let metadata = if elements == 5 { Some(reader.raw()?) } else { None };
        Some(Self { msgid, method, params, metadata })
    }
}

/// Starts a successful response: exactly one value, the result, must follow.
pub fn begin_result(out: &mut Vec<u8>, msgid: u64) {
    encode::array(out, 4);
    encode::uint(out, RESPONSE);
    encode::uint(out, msgid);
    encode::nil(out);
}

/// Writes a whole response whose result is a string.
pub fn text_result(out: &mut Vec<u8>, msgid: u64, result: &str) {
    begin_result(out, msgid);
    encode::str(out, result);
}

/// Writes a whole response that carries an error.
pub fn error(out: &mut Vec<u8>, msgid: u64, error: &str) {
    encode::array(out, 4);
    encode::uint(out, RESPONSE);
    encode::uint(out, msgid);
    encode::str(out, error);
    encode::nil(out);
}

/// Writes a whole response for what was no request: its id is unknown and stands as 0.
pub fn invalid_request(out: &mut Vec<u8>) {
    error(out, 0, &Refusal::InvalidRequest.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_in_place() {
        let bytes = [0x94, 0, 7, 0xa4, b'p', b'i', b'n', b'g', 0x91, 1];
        let expected = Request { msgid: 7, method: "ping", params: &[0x91, 1], metadata: None };
        assert_eq!(Request::parse(&bytes), Some(expected));
    }

    #[test]
    fn the_fifth_element_is_kept_for_the_edge_to_judge() {
        let bytes = [0x95, 0, 7, 0xa1, b'x', 0x90, 0x81, 0xa3, b'u', b'i', b'd', 5];
        let request = Request::parse(&bytes).expect("a request");
        assert_eq!(request.metadata, Some(&bytes[6..]));
    }

    #[test]
    fn what_is_no_request_is_told_apart() {
        for bytes in [
            &[0xc0][..],
            &[0x93, 0, 7, 0xa0],                   // three elements
            &[0x94, 1, 7, 0xa0, 0x90],             // a response
            &[0x94, 0, 0xff, 0xa0, 0x90],          // a negative id
            &[0x94, 0, 7, 5, 0x90],                // the method is no string
            &[0x94, 0, 7, 0xa1, 0xff, 0x90],       // the method is no UTF-8
            &[0x94, 0, 7, 0xa0, 0x80],             // the parameters are a map
            &[0x96, 0, 7, 0xa0, 0x90, 0xc0, 0xc0], // six elements
        ] {
            assert_eq!(Request::parse(bytes), None, "{bytes:x?}");
        }
    }
}
