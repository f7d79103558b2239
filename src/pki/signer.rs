//! A node's credentials as the rules know them: who signs for this node, and who has signed a thing.
//! What is signed, and what follows from it, is the store's and the service's.

use cortex_core::model::{KeyHash, MeshId, NodeName, NotSigned, Signer};
use rustls::pki_types::CertificateDer;

use super::Credentials;
use crate::sys::clock;

impl Signer for Credentials {
    fn mesh(&self) -> MeshId {
        self.mesh()
    }

    fn node(&self) -> &NodeName {
        self.node()
    }

    fn key_hash(&self) -> KeyHash {
        self.key_hash()
    }

    fn certificate(&self) -> &[u8] {
        self.certificate()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.sign(message)
    }

    fn verify(
        &self,
        certificate: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(NodeName, KeyHash), NotSigned> {
        let certificate = CertificateDer::from(certificate);
        let peer = self
            .verify_row(&certificate, message, signature, clock::wall_ms() / 1000)
            .map_err(|rejected| NotSigned(rejected.to_string().into()))?;
        Ok((peer.node, peer.key_hash))
    }
}
