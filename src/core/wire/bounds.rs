//! How large and how deep one message may be: the same check for the daemon, which reads messages, and for clients,
//! which want to know before they send one.
//! How the bytes of a stream are followed is left to `frame`.

use thiserror::Error;

use super::{FrameError, Scan, Scanner};

/// The bounds of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the whole message.
    pub message_bytes: usize,
    /// Levels of containers that are not empty, the message's own array included.
    pub nesting: usize,
}

/// Levels that a request has around a parameter: the array of the request and that of its parameters.
pub const LEVELS_AROUND: usize = 2;

impl Default for Bounds {
    /// What the daemon takes unless its settings say otherwise.
    fn default() -> Self {
        Self { message_bytes: 1 << 20, nesting: 64 }
    }
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OutOfBounds {
    /// It has too many bytes.
    #[error("the request is {bytes} bytes long, and the limit is {most}")]
    TooLarge {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        most: usize,
    },
    /// Its containers are nested in too many levels.
    #[error("nested too deeply: a record or a pattern may have {} levels", most.saturating_sub(LEVELS_AROUND))]
    TooDeep {
        /// How many levels the whole message may have.
        most: usize,
    },
}

impl Bounds {
    /// A scanner that keeps to these bounds.
    #[must_use]
    pub fn scanner(&self) -> Scanner {
        Scanner::new(self.message_bytes, self.nesting)
    }

    /// Whether a daemon with these bounds takes `message`, which is one whole MessagePack value.
    ///
    /// # Errors
    /// [`OutOfBounds`], as the daemon's own scan of the same bytes would find it.
    pub fn check(&self, message: &[u8]) -> Result<(), OutOfBounds> {
        let too_large = OutOfBounds::TooLarge { bytes: message.len(), most: self.message_bytes };
        if message.len() > self.message_bytes {
            return Err(too_large);
        }
        match self.scanner().scan(message) {
            Ok(Scan::Deep(_)) => Err(OutOfBounds::TooDeep { most: self.nesting }),
            Err(FrameError::TooLarge(_)) => Err(too_large),
            // What is no MessagePack is not out of bounds; the daemon says what it is.
            Ok(Scan::Whole(_) | Scan::More) | Err(FrameError::NotMessagePack) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Bounds = Bounds { message_bytes: 20, nesting: 3 };

    #[test]
    fn a_message_at_a_bound_is_taken_and_one_beyond_it_is_not() {
        let bytes =
            |length: u8| [vec![0xc4, length - 2], vec![0; usize::from(length) - 2]].concat();
        assert_eq!(SMALL.check(&bytes(20)), Ok(()));
        assert_eq!(SMALL.check(&bytes(21)), Err(OutOfBounds::TooLarge { bytes: 21, most: 20 }));
        let nested = |levels: usize| [vec![0x91; levels], vec![0xc0]].concat();
        assert_eq!(SMALL.check(&nested(3)), Ok(()));
        assert_eq!(SMALL.check(&nested(4)), Err(OutOfBounds::TooDeep { most: 3 }));
        assert_eq!(SMALL.check(&[0x91, 0x91, 0x91, 0x90]), Ok(()), "an empty list is no level");
    }

    #[test]
    fn the_message_names_the_levels_of_the_parameter_and_not_of_the_request() {
        let text = OutOfBounds::TooDeep { most: 64 }.to_string();
        assert!(text.contains("62 levels"), "{text}");
    }
}
