//! What the writer can be asked about who is who: identities, tokens, members of the mesh.

use std::sync::Arc;

use cortex_core::model::{Caller, IdentityId, IdentityName, NodeName, Signer, Stamp, Uid};

use crate::store::system::VerifiedRow;

/// A change of who is who: identities, tokens, members of the mesh.
#[derive(Debug)]
pub enum DirectoryCommand {
    /// Become, or be again, a node of a mesh: sign for it from now on.
    Join(Arc<dyn Signer>),
    /// Make a federated identity.
    Register(Registration),
    /// Map a uid of this node to an identity by a token.
    Claim(Box<Claim>),
    /// Sign rows of the directory in the place of writers who cannot any more: their keys, each with the
    /// stamp that it was found with.
    Adopt(Vec<(Vec<u8>, Stamp)>),
    /// Note that a token made here was used elsewhere.
    Redeem(Redemption),
    /// Take over what another node says of itself.
    Learn(Vec<VerifiedRow>),
    /// Revoke mappings of an identity.
    Unbind {
        /// Root, or mapped to the identity here.
        caller: Caller,
        /// Whose.
        identity: IdentityId,
        /// On that node alone; none for everywhere.
        node: Option<NodeName>,
    },
    /// Put a node out of the mesh with the database that it has.
    RemoveNode {
        /// Who asks. That they may is judged before.
        caller: Caller,
        /// Which.
        node: NodeName,
    },
    /// Decide which of several federated identities keeps a name.
    ResolveName {
        /// Who asks. That they may is judged before.
        caller: Caller,
        /// The name.
        name: IdentityName,
        /// Who keeps it.
        keep: IdentityId,
    },
}

/// What a change of who is who has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryOutcome {
    /// This node signs for the mesh.
    Joined,
    /// The identity exists.
    Registered,
    /// The caller is the identity.
    Claimed,
    /// Rows are signed in their writers' place.
    Adopted,
    /// The token is used up.
    Redeemed,
    /// What was said is known here.
    Learned,
    /// The mappings do not hold any more.
    Unbound,
    /// The node is out of the mesh.
    Removed,
    /// The name means one identity.
    NameResolved,
}

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

impl DirectoryCommand {
    pub(super) fn may_use_reserve(&self) -> bool {
        match self {
            Self::Join(_) | Self::Learn(_) | Self::Unbind { .. } | Self::RemoveNode { .. } => true,
            Self::Register(_)
            | Self::Claim(_)
            | Self::Adopt(_)
            | Self::Redeem(_)
            | Self::ResolveName { .. } => false,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Adopt(rows) => rows.iter().map(|(key, _)| key.len() + 64).sum(),
            Self::Learn(rows) => rows.iter().map(VerifiedRow::bytes).sum(),
            Self::Claim(claim) => claim.rows.iter().map(VerifiedRow::bytes).sum(),
            Self::Join(_)
            | Self::Register(_)
            | Self::Redeem(_)
            | Self::Unbind { .. }
            | Self::RemoveNode { .. }
            | Self::ResolveName { .. } => 0,
        }
    }
}
