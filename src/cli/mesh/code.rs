//! The code of an invitation: one word that says where to go, whom to trust there, and what to show.
//! Leaves the conversation to `conversation`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::pki::Fingerprint;

/// The form of the code. Another one needs another number.
const VERSION: u8 = 1;

/// Longest `host:port`: a DNS name of 253 bytes, and the rest.
const MOST_ADDRESS: usize = 262;

/// Known to the inviting machine and to the holder of the code.
pub(super) type Secret = [u8; 16];

/// What a code says.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) secret: Secret,
    pub(super) authority: Fingerprint,
    /// `host:port`
    pub(super) address: String,
}

/// The secret is for nobody's log.
impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Code").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Code {
    pub(super) fn text(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.secret);
        bytes.extend(self.authority);
        bytes.extend(self.address.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a code, as `clap` wants it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| damaged())?;
        let (version, rest) = bytes.split_first().ok_or_else(damaged)?;
        if *version != VERSION {
            return Err("the code is of another version of cortex".to_owned());
        }
        let (secret, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (authority, address) = rest.split_first_chunk().ok_or_else(damaged)?;
        let address = std::str::from_utf8(address).map_err(|_| damaged())?;
        let has_port =
            address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if !has_port || address.len() > MOST_ADDRESS {
            return Err(damaged());
        }
        Ok(Self { secret: *secret, authority: *authority, address: address.to_owned() })
    }
}

fn damaged() -> String {
    "the code is damaged or incomplete".to_owned()
}

/// `host:port`, with an IPv6 address in brackets.
pub(super) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_one_word_and_is_read_back() {
        for host in ["home.lan", "fd00::1"] {
            let code = Code { secret: [7; 16], authority: [9; 16], address: address(host, 4713) };
            let text = code.text();
            assert!(text.len() < 80, "{} is long", text.len());
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
            assert_eq!(Code::parse(&format!(" {text}\n")), Ok(code));
        }
    }

    #[test]
    fn what_is_no_code_is_refused_wherever_it_ends() {
        let whole = Code { secret: [1; 16], authority: [2; 16], address: "h:1".to_owned() }.text();
        for end in 0..whole.len() {
            assert!(Code::parse(&whole[..end]).is_err(), "{end}");
        }
        let other = URL_SAFE_NO_PAD.encode([2; 40]);
        assert!(Code::parse(&other).expect_err("another version").contains("version"));
    }
}
