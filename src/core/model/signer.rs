//! Signer and verifier of rows, as the rules need them: signs for this node, verifies what others signed.
//! Keys, certificates and algorithms are left to the daemon.

use std::fmt;

use super::{MeshId, NodeName};

/// The SHA-256 of a public key (its SubjectPublicKeyInfo, RFC 5280), which identifies a signer.
pub type KeyHash = [u8; 32];

/// Why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSigned(pub Box<str>);

/// Signs as this node of the mesh, and verifies the signatures of others.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The mesh.
    fn mesh(&self) -> MeshId;

    /// This node.
    fn node(&self) -> &NodeName;

    /// The hash of this node's public key.
    fn key_hash(&self) -> KeyHash;

    /// This node's certificate (DER), by which others judge its signatures.
    fn certificate(&self) -> &[u8];

    /// Signs with this node's key.
    fn sign(&self, message: &[u8]) -> Vec<u8>;

    /// The node, and the hash of the key, that signed a message, by a certificate (DER) of this mesh.
    ///
    /// # Errors
    /// [`NotSigned`] for a certificate that is not good, or that is not the signer's.
    fn verify(
        &self,
        certificate: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(NodeName, KeyHash), NotSigned>;
}
