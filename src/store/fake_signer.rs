//! Signatures without keys, for unit tests: a certificate is a name, and who signs adds it. Real ones are
//! `pki`'s.

use cortex_core::model::{KeyHash, MeshId, NodeName, NotSigned, Signer};

/// Signs as the node of its name. A certificate that begins with `x` is no good any more.
#[derive(Debug)]
pub(crate) struct FakeSigner(NodeName);

impl FakeSigner {
    pub(crate) fn of(name: &str) -> Self {
        Self(NodeName::parse(name).expect("a name"))
    }
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
        [self.certificate(), message].concat()
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
        if *signature != [certificate, message].concat() {
            return Err(no("the signature is not that of the certificate"));
        }
        Ok((NodeName::parse(name).map_err(|_| no("no name"))?, [1; 32]))
    }
}
