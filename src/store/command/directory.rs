//! What the writer can be asked about the directory: identities, tokens, rights.

use std::sync::Arc;

use cortex_core::model::{Caller, IdentityId, IdentityName, NodeName, Permissions, Principal, Uid};

use crate::store::{catalog::Entry, system::VerifiedRow};

/// An identity to be made.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Who asks. That they may is judged before: it takes the list of users.
    pub caller: Caller,
    /// Its id, drawn at random.
    pub id: IdentityId,
    /// Its name.
    pub name: IdentityName,
    /// The uid of this node that it is.
    pub uid: Uid,
}

/// The use of a claim token on this node.
#[derive(Debug)]
pub struct Claim {
    /// Who asks; becomes the identity.
    pub uid: Uid,
    /// Whose token it is.
    pub identity: IdentityId,
    /// What the origin says of the identity, with its signatures checked.
    pub rows: Vec<VerifiedRow>,
    /// The token, which is used up by it.
    pub token: TokenId,
}

/// The use of a claim token that this node has made.
#[derive(Debug)]
pub struct Redemption {
    /// The token, which is used up by it.
    pub token: TokenId,
    /// The node where it is used.
    pub node: NodeName,
    /// The uid there.
    pub uid: Uid,
}

/// A claim token, as far as its use goes.
#[derive(Clone, Copy, Debug)]
pub struct TokenId {
    /// Drawn at random when it was made.
    pub id: [u8; 16],
    /// When it expires by itself, in Unix milliseconds.
    pub expires_ms: u64,
}

/// Whose rights on which table are to change.
#[derive(Debug)]
pub struct Granting {
    /// Needs `admin`.
    pub caller: Caller,
    /// As it was looked up.
    pub entry: Arc<Entry>,
    /// Whose rights change.
    pub principal: Principal,
    /// Which of them.
    pub rights: Permissions,
}
