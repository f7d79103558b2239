//! Serial numbers of certificates, as they are compared and shown.
//! Leaves drawing them to `authority`.

use std::fmt;

/// A certificate's serial number: big-endian, without leading zeros, so that each has one form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Box<[u8]>);

impl Serial {
    /// RFC 5280, 4.1.2.2: no conforming serial number is longer.
    const MOST_BYTES: usize = 20;

    /// Takes the bytes of a DER INTEGER.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Self(bytes[zeros..].into())
    }

    /// Reads hexadecimal digits, with or without colons between the bytes, as openssl(1) and
    /// [`fmt::Display`] write them; none for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        let well_formed = !digits.is_empty()
            && digits.len() <= 2 * Self::MOST_BYTES
            && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if !well_formed {
            return None;
        }
        let even = if digits.len().is_multiple_of(2) { digits } else { format!("0{digits}") };
        let bytes: Option<Vec<u8>> = (0..even.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&even[at..at + 2], 16).ok())
            .collect();
        bytes.map(|bytes| Self::from_bytes(&bytes))
    }

    /// The number, big-endian.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("00");
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_has_one_form_however_it_is_written() {
        let serial = Serial::from_bytes(&[0, 0x8f, 1]);
        for text in ["8f01", "8F:01", "008f01", "0:8f:01"] {
            assert_eq!(Serial::parse(text), Some(serial.clone()), "{text}");
        }
        assert_eq!(serial.to_string(), "8f01");
        assert_eq!(Serial::from_bytes(&[0]).to_string(), "00");
        for bad in ["", "xyz", "8f 01", &"1".repeat(41)] {
            assert_eq!(Serial::parse(bad), None, "{bad:?}");
        }
    }
}
