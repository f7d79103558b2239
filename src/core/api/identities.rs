//! Federated identities: names under which a person is the same on every machine.
//! Which rows of the directory say so is `crate::directory`'s.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::param::{options, request};

options! {
    /// Whose token, and what it is good for.
    TokenOptions {
        /// Whose: a federated name, for root; of a token alone.
        name: Option<String>,
        /// Who gets the name: a uid of this machine, for root; of a registration alone.
        uid: Option<u32>,
        /// Good on that node alone.
        for_node: Option<String>,
        /// Good for that uid of the other node alone.
        for_uid: Option<u32>,
        /// Good for so many seconds, at most a day; an hour unless it is said.
        seconds: Option<u64>,
    }
}

request! {
    /// Makes a federated identity the caller's on this machine.
    IdentityRegister<'a> = IdentityRegister -> ClaimToken {
        /// What it is called.
        name: &'a str,
        /// What the token is good for.
        options: TokenOptions,
    }
}

request! {
    /// Another token for the caller's identity.
    IdentityToken = IdentityToken -> ClaimToken {
        /// What it is good for.
        options: TokenOptions,
    }
}

/// What makes somebody on another machine the same identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimToken {
    /// The identity's name.
    pub name: String,
    /// The identity's id: 32 hexadecimal digits.
    pub fid: String,
    /// Until when it is good, in seconds since 1970.
    pub expires_at: u64,
    /// What is to be presented there.
    pub token: String,
}

request! {
    /// Makes the caller whom a token says: `claimed identity 'NAME'`.
    IdentityClaim<'a> = IdentityClaim -> String {
        /// The token.
        token: &'a str,
    }
}

request! {
    /// Every federated identity of the mesh.
    IdentityList = IdentityList -> Vec<Identity> {}
}

/// A federated identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// Its name as it is shown: with digits of the id where two have the name.
    pub fed_id: String,
    /// Its id: 32 hexadecimal digits.
    pub fid: String,
    /// Which uid it is on which node.
    pub mappings: BTreeMap<String, u32>,
    /// Where it comes from.
    pub metadata: IdentityMetadata,
}

/// Where an identity comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdentityMetadata {
    /// The node on which it was registered.
    pub home: String,
    /// When.
    pub created_ms: u64,
    /// True where another has its name.
    pub contested: bool,
}

request! {
    /// One identity: by its name, or by a node and a uid there.
    IdentityLookup<'a> = IdentityLookup -> Identity {
        /// A federated name, or with a uid the name of a node.
        name: &'a str,
        /// A uid of that node.
        uid: Option<u32>,
    }
}

request! {
    /// Takes an identity away from its uid on a node, or on all: `revoked`.
    IdentityRevoke<'a> = IdentityRevoke -> String {
        /// Its name.
        name: &'a str,
        /// On which node.
        node: Option<&'a str>,
    }
}

request! {
    /// Resolves a name that several identities have to one of  them: `resolved`. For administrators.
    IdentityResolve<'a> = IdentityResolve -> String {
        /// The name.
        name: &'a str,
        /// Who keeps it: the id, or the digits that distinguish it from the others.
        id: &'a str,
    }
}
