//! The judgement of other nodes' certificates: after a handshake, and for what they have signed.
//! Leaves whether a node is configured or known to the caller, who has the list.

use std::time::Duration;

use cortex_core::model::NodeName;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::facts::CertificateFields;
use super::{Credentials, Rejected, Serial, key};

/// What was found good in a node's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The node.
    pub node: NodeName,
    /// By which it may be revoked later.
    pub serial: Serial,
    /// When it expires, in seconds since 1970.
    pub not_after: u64,
    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub key_hash: [u8; 32],
    /// The DNS names besides the node's own, in lower case: the host that it is reached at. One that is another
    /// node's name would let it pass for that node with a peer that verifies the name alone.
    pub other_names: Vec<String>,
}

impl Credentials {
    /// Judges the chain that a peer has presented in a handshake under these credentials'
    /// configurations. TLS has checked signatures, validity and revocation, and does so once more here:
    /// the holder of a chain may ask again after a reload.
    ///
    /// An accepting side must also look at `alpn_protocol()` of its connection: rustls lets a client in that
    /// offers no application protocol, and then it is none ([`Rejected::NoProtocol`]).
    ///
    /// # Errors
    /// [`Rejected`], in the order: whose it is, validity, revocation, usages, names.
    pub fn check_peer(
        &self,
        chain: &[CertificateDer<'_>],
        now_unix_s: u64,
    ) -> Result<PeerCertificate, Rejected> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(Rejected::NoCertificate);
        };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_unix_s));
        self.trust()
            .clients
            .verify_client_cert(leaf, intermediates, now)
            .map_err(|error| Rejected::from(&error))?;
        let facts = CertificateFields::read(leaf).map_err(Rejected::Malformed)?;
        self.judge(facts)
    }

    /// Judges something that a node has signed with [`Credentials::sign`]: its certificate first, then the
    /// signature.
    ///
    /// # Errors
    /// [`Rejected`], as for [`Credentials::check_peer`], and [`Rejected::Signature`].
    pub fn verify_row(
        &self,
        certificate: &CertificateDer<'_>,
        message: &[u8],
        signature: &[u8],
        now_unix_s: u64,
    ) -> Result<PeerCertificate, Rejected> {
        // A row carries the leaf alone; intermediates are those that this node presents itself.
        let mut chain = vec![certificate.clone()];
        chain.extend(self.intermediates().iter().cloned());
        let peer = self.check_peer(&chain, now_unix_s)?;
        let facts = CertificateFields::read(certificate).map_err(Rejected::Malformed)?;
        if key::verifies(&facts.public_key, message, signature) {
            Ok(peer)
        } else {
            Err(Rejected::Signature)
        }
    }

    /// What is left to check of a certificate that chains to the CA.
    fn judge(&self, facts: CertificateFields) -> Result<PeerCertificate, Rejected> {
        facts.is_for_both_sides()?;
        let node = facts.node(self.mesh())?;
        let (key_hash, other_names) = (facts.key_hash(), facts.other_names(&node));
        let CertificateFields { serial, not_after, .. } = facts;
        Ok(PeerCertificate { node, serial, not_after, key_hash, other_names })
    }
}
