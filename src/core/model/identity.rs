//! Federated identities: one person or service, whatever uids they have on which machines.
//! Who is mapped to whom is kept by `directory`.

use std::fmt;

use super::{Refusal, hex};

/// The lasting id of a federated identity, drawn at random when it is registered. Ownership and
/// rights refer to it, never to the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityId(pub [u8; 16]);

impl IdentityId {
    /// Reads 32 hexadecimal digits in lower case; none for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex::read(text).map(Self)
    }
}

impl fmt::Display for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

/// The name of a federated identity: a login name, or a name below one: `alice`, `alice.work`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityName(Box<str>);

impl IdentityName {
    /// Longest name in bytes: twice what useradd(8) takes, for the names below a login name.
    pub const MAX_BYTES: usize = 64;

    /// Takes lower-case letters, digits, `_`, `-` and inner dots, beginning with a letter or `_`.
    ///
    /// # Errors
    /// [`Refusal::InvalidIdentityName`] for anything else.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let part = |part: &str| {
            let inner =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
            part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && part.bytes().all(inner)
        };
        if text.len() > Self::MAX_BYTES || !text.split('.').all(part) {
            return Err(Refusal::InvalidIdentityName(text.chars().take(Self::MAX_BYTES).collect()));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True where a user of that login name may register this name: it is theirs, or below theirs.
    #[must_use]
    pub fn belongs_to(&self, login: &str) -> bool {
        let rest = self.0.strip_prefix(login);
        !login.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl fmt::Display for IdentityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_login_name_or_below_one() {
        for good in ["alice", "_svc", "a-b_2", "alice.work", "a.b.c", &"x".repeat(64)] {
            assert_eq!(IdentityName::parse(good).expect(good).as_str(), good);
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "2a",
            "Alice",
            "a b",
            "a~1",
            "a:b",
            "é",
            "a.2",
            &"x".repeat(65),
        ] {
            assert!(IdentityName::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_user_may_have_their_own_name_and_those_below_it() {
        let name = |text| IdentityName::parse(text).expect("a name");
        assert!(name("alice").belongs_to("alice"));
        assert!(name("alice.work").belongs_to("alice"));
        assert!(!name("alicework").belongs_to("alice"));
        assert!(!name("alice").belongs_to("alice.work"));
        assert!(!name("alice").belongs_to(""));
    }
}
