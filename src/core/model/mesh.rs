//! Which mesh: the id that all its nodes have in common.
//! Where it comes from is the certificates' business; tokens and table ids are bound to it.

use std::fmt;

use super::hex;

/// The lasting id of a mesh, the same on all of its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshId(pub [u8; 16]);

impl MeshId {
    /// Reads 32 hexadecimal digits in lower case; none for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex::read(text).map(Self)
    }
}

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}
