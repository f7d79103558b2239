//! Who is asking: a uid that the kernel vouched for, or a node that its certificate vouched for.
//! How either was established is the edge's business; what it may do is decided in `gate`.

use std::fmt;

use super::Refusal;

/// A Unix user id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub u32);

impl Uid {
    /// The superuser, who bypasses access control on the Unix socket and nowhere else.
    pub const ROOT: Self = Self(0);
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a machine of the mesh: a DNS label, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Box<str>);

impl NodeName {
    /// Longest name, the bound of a DNS label (RFC 1035, 2.3.4).
    pub const MAX_BYTES: usize = 63;

    /// Takes a name that is a DNS label in lower case: letters, digits and inner hyphens.
    ///
    /// # Errors
    /// [`Refusal::InvalidNodeName`] for anything else.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let well_formed = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if !well_formed {
            return Err(Refusal::InvalidNodeName(text.into()));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The party behind a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A process of this machine, known by `SO_PEERCRED` (unix(7)).
    Local(Uid),
    /// Another machine of the mesh, known by its certificate.
    Peer {
        /// That machine.
        node: NodeName,
        /// Its user on whose behalf it asks, as it says. Counts only through a federated identity.
        uid: Option<Uid>,
    },
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(uid) => write!(f, "uid:{uid}"),
            Self::Peer { node, uid: None } => write!(f, "node:{node}"),
            Self::Peer { node, uid: Some(uid) } => write!(f, "uid:{uid}@{node}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_is_a_dns_label() {
        for good in ["a", "home", "node-2", &"x".repeat(63)] {
            assert_eq!(NodeName::parse(good).expect(good).as_str(), good);
        }
        for bad in ["", "-a", "a-", "Home", "a.b", "a_b", "é", &"x".repeat(64)] {
            assert!(NodeName::parse(bad).is_err(), "{bad:?} was taken");
        }
    }
}
