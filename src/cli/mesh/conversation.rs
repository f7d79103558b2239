//! What the two sides of an invitation say to each other: a bounded frame each way, and an acknowledgement.
//! Leaves TLS to `pki`, and what follows from it to `joiners` and `join`.
//!
//! ```text
//!   invited ── Hello: secret, request, where I shall be reached ──> inviting
//!           <── Answer: certificate, CA, revocation list, nodes ──
//!           ── Done ──> once everything is on disk
//! ```

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::settings::Node;

/// Longest frame. A mesh of hundreds of nodes fits.
const MOST_BYTES: u32 = 64 * 1024;

/// What the invited side begins with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// That of the code, in hexadecimal digits.
    pub(super) secret: String,
    /// PEM.
    pub(super) request: String,
    pub(super) host: String,
    pub(super) port: u16,
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(super) enum Answer {
    Granted(Box<Grant>),
    Refused { reason: String },
}

/// Everything that a node needs, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) name: String,
    pub(super) certificate: String,
    pub(super) ca: String,
    pub(super) crl: String,
    pub(super) nodes: Vec<Node>,
    /// What the inviting machine's clock shows, in seconds since 1970; none where it does not say.
    #[serde(default)]
    pub(super) clock: Option<u64>,
}

/// That everything is on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) joined: bool,
}

/// Sends a frame: its length, and JSON.
pub(super) fn send(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length <= MOST_BYTES);
    let length = length.ok_or_else(too_long)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&json)?;
    stream.flush()
}

/// Receives a frame.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MOST_BYTES {
        return Err(too_long());
    }
    let mut json = Vec::new();
    stream.take(length.into()).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame is longer than 64 KiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_sent() {
        let mut bytes = Vec::new();
        send(&mut bytes, &Answer::Refused { reason: "no".to_owned() }).expect("send");
        let Answer::Refused { reason } = receive(&mut bytes.as_slice()).expect("receive") else {
            panic!("another answer");
        };
        assert_eq!(reason, "no");
    }

    #[test]
    fn a_frame_that_is_too_long_is_neither_sent_nor_read() {
        let reason = "x".repeat(65 * 1024);
        assert!(send(&mut Vec::new(), &Answer::Refused { reason }).is_err());
        let announced = [0xff; 8];
        let error = receive::<Done>(&mut announced.as_slice()).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_frame_that_breaks_off_is_an_error() {
        let mut bytes = Vec::new();
        send(&mut bytes, &Done { joined: true }).expect("send");
        for end in 0..bytes.len() {
            assert!(receive::<Done>(&mut &bytes[..end]).is_err(), "{end}");
        }
    }
}
