//! Signatures without keys: a hash over the signer and the message, a name for a certificate.
//! Real ones are `pki`'s; here it is enough that a changed row is told.

use std::hash::{DefaultHasher, Hash, Hasher};

use cortex_core::model::{KeyHash, MeshId, NodeName, NotSigned, Signer};

#[derive(Debug)]
pub(crate) struct Fake(NodeName);

impl Fake {
    pub(crate) fn new(node: &NodeName) -> Self {
        Self(node.clone())
    }
}

fn sign(node: &str, message: &[u8]) -> Vec<u8> {
    let mut hash = DefaultHasher::new();
    (node, message).hash(&mut hash);
    hash.finish().to_be_bytes().to_vec()
}

impl Signer for Fake {
    fn mesh(&self) -> MeshId {
        MeshId([7; 16])
    }

    fn node(&self) -> &NodeName {
        &self.0
    }

    fn key_hash(&self) -> KeyHash {
        [1; 32]
    }

    fn certificate(&self) -> &[u8] {
        self.0.as_str().as_bytes()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        sign(self.0.as_str(), message)
    }

    fn verify(
        &self,
        certificate: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(NodeName, KeyHash), NotSigned> {
        let refused = || NotSigned("not signed".into());
        let name = std::str::from_utf8(certificate).map_err(|_| refused())?;
        if sign(name, message) != signature {
            return Err(refused());
        }
        Ok((NodeName::parse(name).map_err(|_| refused())?, [1; 32]))
    }
}
