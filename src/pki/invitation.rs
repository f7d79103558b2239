//! TLS for an invitation: a new machine knows nothing but the fingerprint of the CA, and nobody knows it.
//! Leaves what is said, and the secret that is asked for, to `cli::mesh`.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::facts::{CertificateFields, sha256};
use super::tls::{WallClock, provider};
use super::{Authority, Error, IssueError, policy};

/// The application protocol of an invitation.
const ALPN: &[u8] = b"cortex-join/1";

/// The first half of SHA-256 of a CA's certificate: as good as the whole against anybody who would have to
/// find another certificate with it.
pub type Fingerprint = [u8; 16];

impl Authority {
    /// The fingerprint for an invitation.
    #[must_use]
    pub fn short_fingerprint(&self) -> Fingerprint {
        shortened(&self.fingerprint())
    }

    /// For the inviting side: a certificate that this CA has signed for nothing else, and no client
    /// certificate: who is asked in proves it by the secret.
    ///
    /// # Errors
    /// [`IssueError::Crypto`] where the library cannot.
    pub fn invitation_config(&self, now_unix_s: u64) -> Result<Arc<ServerConfig>, IssueError> {
        let failed = |e: rustls::Error| IssueError::Crypto(e.to_string());
        let (chain, key) = self.invitation(now_unix_s)?;
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(WallClock))
            .with_protocol_versions(&[&TLS13])
            .map_err(failed)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(failed)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

/// For the invited side: the other side must have a certificate by the CA with this fingerprint, and must be
/// serving an invitation. The handshake fails otherwise, before anything was sent.
///
/// # Errors
/// [`Error::Tls`] where the library cannot.
pub fn invited_config(fingerprint: Fingerprint) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(WallClock))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| Error::Tls(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ByFingerprint(fingerprint)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The name that the invited side asks for.
///
/// # Errors
/// Never: the name is fixed and good.
pub fn invitation_name() -> Result<ServerName<'static>, Error> {
    ServerName::try_from(policy::INVITATION).map_err(|e| Error::Tls(e.to_string()))
}

fn shortened(fingerprint: &[u8; 32]) -> Fingerprint {
    let mut short = [0; 16];
    short.copy_from_slice(&fingerprint[..16]);
    short
}

/// Trusts the CA with a fingerprint, which must be in the chain that is presented.
#[derive(Debug)]
struct ByFingerprint(Fingerprint);

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_meant = |der: &&CertificateDer<'_>| shortened(&sha256(der)) == self.0;
        let authority = intermediates.iter().find(is_meant);
        let authority = authority.ok_or(CertificateError::UnknownIssuer)?;
        is_current_authority(authority, now)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A trust anchor's own validity is looked at by nobody else.
fn is_current_authority(der: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let facts = CertificateFields::read(der).map_err(|_| CertificateError::BadEncoding)?;
    let now = now.as_secs();
    if !facts.is_authority {
        return Err(CertificateError::UnknownIssuer.into());
    }
    if now < facts.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > facts.not_after {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}
