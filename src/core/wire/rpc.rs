//! MessagePack-RPC messages: reading requests, writing responses.
//! Source: the MessagePack-RPC specification, and the fifth element described in cortex-protocol(7).

use super::{Head, Reader, encode};
use crate::model::{Refusal, Uid};

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
        let elements = reader.array().filter(|elements| matches!(elements, 4 | 5))?;
        (reader.int()? == REQUEST).then_some(())?;
        let msgid = reader.uint()?;
        let method = reader.text()?;
        let params = reader.raw()?;
        Reader::new(params).array()?;
        let metadata = if elements == 5 { Some(reader.raw()?) } else { None };
        Some(Self { msgid, method, params, metadata })
    }
}

/// The id of a request of which only the beginning is there, or whose rest cannot be used. None where what is
/// there is the beginning of no request, or ends before its method's name does.
#[must_use]
pub fn msgid_of(beginning: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(beginning);
    let (4 | 5, REQUEST) = (reader.array()?, reader.int()?) else {
        return None;
    };
    let msgid = reader.int()?;
    let _method = reader.text()?;
    u64::try_from(msgid).ok()
}

/// Reads the fifth element of a peer's request: a map that holds nothing, or `uid` alone. The user on whose
/// behalf the other machine asks, as it says.
///
/// # Errors
/// [`Refusal::InvalidRequest`] for anything else, and [`Refusal::AccessDenied`] for uid 0: nobody is root here
/// who is root elsewhere.
pub fn peer_uid(metadata: &[u8]) -> Result<Option<Uid>, Refusal> {
    let mut reader = Reader::new(metadata);
    let Some(entries @ (0 | 1)) = reader.map() else {
        return Err(Refusal::InvalidRequest);
    };
    if entries == 0 {
        return Ok(None);
    }
    let (Some("uid"), Some(uid)) = (reader.text(), reader.int()) else {
        return Err(Refusal::InvalidRequest);
    };
    match u32::try_from(uid).map(Uid) {
        Ok(Uid::ROOT) => Err(Refusal::AccessDenied),
        Ok(uid) => Ok(Some(uid)),
        Err(_) => Err(Refusal::InvalidRequest),
    }
}

/// Starts a request of a client: exactly one value, the array of parameters, must follow.
pub fn begin_request(out: &mut Vec<u8>, msgid: u64, method: &str) {
    encode::array(out, 4);
    encode::uint(out, 0); // a request
    encode::uint(out, msgid);
    encode::str(out, method);
}

/// Writes a whole request to another machine, on behalf of a user of this one.
pub fn request(out: &mut Vec<u8>, msgid: u64, method: &str, params: &[u8], uid: Option<Uid>) {
    encode::array(out, 4 + usize::from(uid.is_some()));
    encode::uint(out, 0); // a request
    encode::uint(out, msgid);
    encode::str(out, method);
    out.extend_from_slice(params);
    if let Some(uid) = uid {
        encode::map(out, 1);
        encode::str(out, "uid");
        encode::uint(out, uid.0.into());
    }
}

/// What a response says: the encoded result, or the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The id of the request that it answers.
    pub msgid: u64,
    /// The encoded result, or the error's text.
    pub outcome: Result<&'a [u8], &'a str>,
}

impl<'a> Response<'a> {
    /// Takes one whole message apart. None if it is no response.
    #[must_use]
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(message);
        let (4, 1) = (reader.array()?, reader.int()?) else {
            return None;
        };
        let msgid = reader.uint()?;
        let error = reader.raw()?;
        let result = reader.raw()?;
        let is_error = Reader::new(error).head()? != Head::Nil;
        let outcome = if is_error { Err(Reader::new(error).text()?) } else { Ok(result) };
        Some(Self { msgid, outcome })
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
    fn a_peers_request_carries_a_uid_and_nothing_else() {
        let sent = |uid| {
            let mut bytes = Vec::new();
            request(&mut bytes, 7, "get", &[0x90], uid);
            let metadata = Request::parse(&bytes).expect("a request").metadata.map(<[u8]>::to_vec);
            metadata.map(|metadata| peer_uid(&metadata))
        };
        assert_eq!(sent(None), None);
        assert_eq!(sent(Some(Uid(1000))), Some(Ok(Some(Uid(1000)))));
        assert_eq!(sent(Some(Uid(u32::MAX))), Some(Ok(Some(Uid(u32::MAX)))));
        assert_eq!(
            sent(Some(Uid::ROOT)),
            Some(Err(Refusal::AccessDenied)),
            "root elsewhere is nobody here"
        );
        assert_eq!(peer_uid(&[0x80]), Ok(None));
        for bad in [
            &[0xc0][..],
            &[0x81, 0xa3, b'u', b'i', b'd', 0xff], // -1
            &[0x81, 0xa3, b'u', b'i', b'd', 0xcf, 0, 0, 0, 1, 0, 0, 0, 0], // 2^32
            &[0x81, 0xa3, b'u', b'i', b'd', 0xa1, b'5'],
            &[0x81, 0xa3, b'g', b'i', b'd', 5],
            &[0x82, 0xa3, b'u', b'i', b'd', 5, 0xa3, b'g', b'i', b'd', 5],
            &[0x91, 5],
        ] {
            assert_eq!(peer_uid(bad), Err(Refusal::InvalidRequest), "{bad:x?}");
        }
    }

    #[test]
    fn a_response_is_a_result_or_an_error() {
        let mut bytes = Vec::new();
        text_result(&mut bytes, 3, "pong");
        let expected = Response { msgid: 3, outcome: Ok(&[0xa4, b'p', b'o', b'n', b'g'][..]) };
        assert_eq!(Response::parse(&bytes), Some(expected));
        bytes.clear();
        error(&mut bytes, 4, "not_found");
        assert_eq!(Response::parse(&bytes), Some(Response { msgid: 4, outcome: Err("not_found") }));
        for bad in
            [&[0xc0][..], &[0x94, 0, 4, 0xc0, 0xc0], &[0x94, 1, 4, 5, 0xc0], &[0x93, 1, 4, 0xc0]]
        {
            assert_eq!(Response::parse(bad), None, "{bad:x?}");
        }
    }

    #[test]
    fn the_id_is_known_once_the_method_has_come() {
        let bytes = [0x94, 0, 7, 0xa4, b'p', b'i', b'n', b'g', 0x91, 1];
        for length in 0..=bytes.len() {
            let expected = (length >= 8).then_some(7);
            assert_eq!(msgid_of(&bytes[..length]), expected, "{length} bytes");
        }
        for other in
            [&[0xdc_u8, 0, 9][..], &[0x94, 1, 7, 0xa0], &[0x94, 0, 0xff, 0xa0], &[0x94, 0, 7, 5]]
        {
            assert_eq!(msgid_of(other), None, "{other:x?}");
        }
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
