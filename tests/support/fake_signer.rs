//! Signatures without keys, for unit tests, the simulation and tests of the store: a hash over signer and message, a
//! name for a certificate. Real ones are `pki`'s; here it is enough that a changed row is found out.

use std::hash::{DefaultHasher, Hash, Hasher};

use cortex_core::model::{KeyHash, MeshId, NodeName, NotSigned, Signer};

/// Signs as the node of its name. A certificate that begins with `x` is no good any more.
#[derive(Debug)]
pub(crate) struct FakeSigner(NodeName);

impl FakeSigner {
    pub(crate) fn of(name: &str) -> Self {
        Self(NodeName::parse(name).expect("a name"))
    }
}

fn hash_of(certificate: &[u8], message: &[u8]) -> Vec<u8> {
    let mut hash = DefaultHasher::new();
    (certificate, message).hash(&mut hash);
    hash.finish().to_be_bytes().to_vec()
}

impl Signer for FakeSigner {
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
        hash_of(self.certificate(), message)
    }

    fn verify(
        &self,
        certificate: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(NodeName, KeyHash), NotSigned> {
        let no = |why: &str| NotSigned(why.into());
        if certificate.first() == Some(&b'x') {
            return Err(no("the certificate is revoked"));
        }
        let name = std::str::from_utf8(certificate).map_err(|_| no("no certificate"))?;
        if signature != hash_of(certificate, message) {
            return Err(no("the signature is not that of the certificate"));
        }
        Ok((NodeName::parse(name).map_err(|_| no("no name"))?, [1; 32]))
    }
}
