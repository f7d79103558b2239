//! Claim tokens: what one node says of an identity, signed, for another node to believe.
//! Using one up is the store's; asking the node that made it, `identity`'s.
//!
//! `base64url(JSON) "." base64url(signature)`, without padding. The JSON is shown by
//! cortex-protocol(7); the signature is by the key of the issuing node's certificate over the domain
//! and the encoded JSON.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cortex_core::model::{
    IdentityId, IdentityName, KeyHash, MeshId, NodeName, Refusal, Signer, Uid,
};
use serde::{Deserialize, Serialize};

/// Keeps the signature from being taken for one of something else.
const DOMAIN: &[u8] = b"cortexd claim token v1\0";

/// The version of the form.
const VERSION: u8 = 1;

/// Bytes of a token. One takes some 600.
const MOST_BYTES: usize = 4096;

/// Seconds that an issuer's clock may be ahead of this node's.
const SKEW_S: u64 = 60;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Drawn at random: by it the token is known to be used.
    pub id: [u8; 16],
    /// Where it is good.
    pub mesh: MeshId,
    /// Whom its user becomes.
    pub identity: IdentityId,
    /// What they are called.
    pub name: IdentityName,
    /// The node that made it.
    pub origin: NodeName,
    /// The uid there that is the identity.
    pub origin_uid: Uid,
    /// The key that signed it.
    pub issuer: KeyHash,
    /// The only node where it may be used; none for any, as long as the origin can be asked.
    pub node: Option<NodeName>,
    /// The only uid that may use it.
    pub uid: Option<Uid>,
    /// Seconds since 1970.
    pub issued_at: u64,
    /// Seconds since 1970.
    pub expires_at: u64,
}

/// The JSON, with the keys that protocol and clients know.
#[derive(Debug, Deserialize, Serialize)]
struct Payload {
    v: u8,
    jti: String,
    mesh: String,
    fed_id: String,
    fid: String,
    origin_node: String,
    origin_uid: u32,
    iss: String,
    aud: Option<String>,
    uid: Option<u32>,
    issued_at: u64,
    expires_at: u64,
}

impl Token {
    /// The longest that a token may be valid: a day.
    pub(super) const MOST_SECONDS: u64 = 86_400;

    /// Writes and signs the token.
    ///
    /// # Panics
    /// Never: its parts are strings and numbers, which JSON can say.
    #[must_use]
    pub fn sign(&self, signer: &dyn Signer) -> String {
        let payload = serde_json::to_vec(&self.payload()).expect("strings and numbers are JSON");
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let signature = URL_SAFE_NO_PAD.encode(signer.sign(&signed_part(&payload)));
        format!("{payload}.{signature}")
    }

    /// Reads a token and checks what it says of itself. Whether its signature is good is for
    /// [`Signed::check`].
    ///
    /// # Errors
    /// [`Refusal::TokenMalformed`].
    pub fn read(text: &str) -> Result<Signed, Refusal> {
        if text.len() > MOST_BYTES {
            return Err(Refusal::TokenMalformed);
        }
        let (payload, signature) = text.trim().split_once('.').ok_or(Refusal::TokenMalformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::TokenMalformed);
        let read: Payload =
            serde_json::from_slice(&decode(payload)?).map_err(|_| Refusal::TokenMalformed)?;
        let token = Self::from_payload(&read).ok_or(Refusal::TokenMalformed)?;
        Ok(Signed { token, signed: signed_part(payload), signature: decode(signature)? })
    }

    fn payload(&self) -> Payload {
        Payload {
            v: VERSION,
            jti: MeshId(self.id).to_string(),
            mesh: self.mesh.to_string(),
            fed_id: self.name.to_string(),
            fid: self.identity.to_string(),
            origin_node: self.origin.to_string(),
            origin_uid: self.origin_uid.0,
            iss: URL_SAFE_NO_PAD.encode(self.issuer),
            aud: self.node.as_ref().map(ToString::to_string),
            uid: self.uid.map(|uid| uid.0),
            issued_at: self.issued_at,
            expires_at: self.expires_at,
        }
    }

    fn from_payload(payload: &Payload) -> Option<Self> {
        if payload.v != VERSION {
            return None;
        }
        let node = |text: &String| NodeName::parse(text).ok();
        Some(Self {
            id: MeshId::parse(&payload.jti)?.0,
            mesh: MeshId::parse(&payload.mesh)?,
            identity: IdentityId::parse(&payload.fid)?,
            name: IdentityName::parse(&payload.fed_id).ok()?,
            origin: node(&payload.origin_node)?,
            origin_uid: Uid(payload.origin_uid),
            issuer: URL_SAFE_NO_PAD.decode(&payload.iss).ok()?.try_into().ok()?,
            node: match &payload.aud {
                Some(text) => Some(node(text)?),
                None => None,
            },
            uid: payload.uid.map(Uid),
            issued_at: payload.issued_at,
            expires_at: payload.expires_at,
        })
    }

    /// Whether a user of a node may use the token now.
    ///
    /// # Errors
    /// The refusal that says why not.
    pub fn admits(
        &self,
        mesh: MeshId,
        node: &NodeName,
        uid: Uid,
        now_s: u64,
    ) -> Result<(), Refusal> {
        if self.mesh != mesh {
            return Err(Refusal::TokenForeign);
        }
        let lifetime = self.expires_at.saturating_sub(self.issued_at);
        let begun = self.issued_at <= now_s + SKEW_S;
        if now_s >= self.expires_at || lifetime > Self::MOST_SECONDS || !begun {
            return Err(Refusal::TokenExpired);
        }
        if let Some(meant) = self.node.as_ref().filter(|meant| *meant != node) {
            return Err(Refusal::TokenForNode(meant.as_str().into()));
        }
        if let Some(meant) = self.uid.filter(|meant| *meant != uid) {
            return Err(Refusal::TokenForUid(meant.0));
        }
        Ok(())
    }
}

/// A token as it was read, with its signature not yet judged.
#[derive(Clone, Debug)]
pub struct Signed {
    /// What it says of itself.
    pub token: Token,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    /// The token, if it was signed by the node that it names, with the key that it names.
    ///
    /// # Errors
    /// [`Refusal::TokenForged`].
    pub fn check(self, signer: &dyn Signer, certificate: &[u8]) -> Result<Token, Refusal> {
        let signed = signer.verify(certificate, &self.signed, &self.signature);
        let (node, key) = signed.map_err(|_| Refusal::TokenForged)?;
        if node != self.token.origin || key != self.token.issuer {
            return Err(Refusal::TokenForged);
        }
        Ok(self.token)
    }
}

fn signed_part(payload: &str) -> Vec<u8> {
    [DOMAIN, payload.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::fake_signer::FakeSigner;

    fn token() -> Token {
        Token {
            id: [3; 16],
            mesh: MeshId([7; 16]),
            identity: IdentityId([4; 16]),
            name: IdentityName::parse("alice").expect("a name"),
            origin: NodeName::parse("a").expect("a name"),
            origin_uid: Uid(1000),
            issuer: [1; 32],
            node: None,
            uid: None,
            issued_at: 1_000,
            expires_at: 4_600,
        }
    }

    #[test]
    fn a_token_reads_back_as_it_was_signed() {
        let bound = Token { node: NodeName::parse("b").ok(), uid: Some(Uid(7)), ..token() };
        for token in [token(), bound] {
            let text = token.sign(&FakeSigner::of("a"));
            let read = Token::read(&text).expect("well formed");
            assert_eq!(read.check(&FakeSigner::of("b"), b"a"), Ok(token));
        }
    }

    /// holds I3
    #[test]
    fn a_token_that_another_has_signed_is_forged() {
        let text = token().sign(&FakeSigner::of("mallory"));
        let read = || Token::read(&text).expect("well formed");
        let judge = FakeSigner::of("b");
        assert_eq!(read().check(&judge, b"a"), Err(Refusal::TokenForged), "not a's signature");
        assert_eq!(read().check(&judge, b"mallory"), Err(Refusal::TokenForged), "not the origin");
        let rotated = Token { issuer: [2; 32], ..token() }.sign(&FakeSigner::of("a"));
        let rotated = Token::read(&rotated).expect("well formed");
        assert_eq!(rotated.check(&judge, b"a"), Err(Refusal::TokenForged), "not the key it names");
    }

    /// holds I3
    #[test]
    fn each_reason_to_refuse_a_token_has_its_own_name() {
        let b = NodeName::parse("b").expect("a name");
        let judge = |token: &Token, now| token.admits(MeshId([7; 16]), &b, Uid(7), now);
        assert_eq!(judge(&token(), 1_000), Ok(()));
        assert_eq!(judge(&token(), 4_600), Err(Refusal::TokenExpired));
        assert_eq!(judge(&token(), 939), Err(Refusal::TokenExpired), "issued in the future");
        let long = Token { expires_at: 1_000 + Token::MOST_SECONDS + 1, ..token() };
        assert_eq!(judge(&long, 1_000), Err(Refusal::TokenExpired), "no token is valid so long");
        let foreign = Token { mesh: MeshId([8; 16]), ..token() };
        assert_eq!(judge(&foreign, 1_000), Err(Refusal::TokenForeign));
        let elsewhere = Token { node: NodeName::parse("c").ok(), ..token() };
        assert_eq!(judge(&elsewhere, 1_000), Err(Refusal::TokenForNode("c".into())));
        let others = Token { uid: Some(Uid(8)), ..token() };
        assert_eq!(judge(&others, 1_000), Err(Refusal::TokenForUid(8)));
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        let good = token().sign(&FakeSigner::of("a"));
        let (payload, _) = good.split_once('.').expect("two parts");
        for bad in ["", ".", "a.b", payload, &format!("{payload}.!"), &"x".repeat(5000)] {
            assert_eq!(Token::read(bad).map(|_| ()), Err(Refusal::TokenMalformed), "{bad:?}");
        }
    }

    proptest! {
        /// holds I3: no byte of a token can be changed.
        #[test]
        fn a_changed_token_is_refused(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_-]") {
            let good = token().sign(&FakeSigner::of("a"));
            let mut bad: Vec<char> = good.chars().collect();
            let at = at.index(bad.len());
            bad[at] = with.chars().next().expect("one");
            let bad: String = bad.into_iter().collect();
            prop_assume!(bad != good);
            let read = Token::read(&bad).and_then(|read| read.check(&FakeSigner::of("b"), b"a"));
            prop_assert!(read.is_err(), "{:?}", read);
        }

        #[test]
        fn nothing_that_is_read_panics(text in ".{0,200}") {
            let _read_or_not = Token::read(&text);
        }
    }
}
