//! A node's side of getting a certificate: a new key, and a request for it that proves its possession.
//! Leaves granting it to `authority`, which takes nothing but the public key from a request.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SubjectPublicKeyInfo};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::{
    prelude::{FromDer, X509CertificationRequest},
    public_key,
};

use super::IssueError;

/// Bits of an RSA key that TLS accepts signatures of.
const LEAST_RSA_BITS: usize = 2048;

/// A private key that was made here. Its text is shown to nobody.
pub struct NewKey(KeyPair);

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewKey")
    }
}

impl NewKey {
    /// Makes an ECDSA key on P-256.
    ///
    /// # Errors
    /// [`IssueError::Crypto`] where the library cannot.
    pub fn generate() -> Result<Self, IssueError> {
        Ok(Self(KeyPair::generate()?))
    }

    /// The key itself, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A request for a certificate, PEM. It names nothing: the CA decides what a certificate says.
    ///
    /// # Errors
    /// [`IssueError::Crypto`] where the library cannot.
    pub fn request(&self) -> Result<String, IssueError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0)?.pem()?)
    }

    /// What a certificate is asked for.
    ///
    /// # Errors
    /// [`IssueError::Crypto`] where the library cannot.
    pub fn public(&self) -> Result<PublicKey, IssueError> {
        use rcgen::PublicKeyData as _;
        PublicKey::from_info(&self.0.subject_public_key_info())
    }
}

/// A public key for which a certificate may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    pub(super) info: SubjectPublicKeyInfo,
    der: Vec<u8>,
}

impl PublicKey {
    /// Takes the key out of a request, PEM, whose signature shows that the sender has the private key. What
    /// else the request says is not looked at.
    ///
    /// # Errors
    /// [`IssueError::Request`] for what is no request, is not signed by its key, or has a key of another kind
    /// than nodes may have.
    pub fn from_request(pem: &[u8]) -> Result<Self, IssueError> {
        let refused = |problem: String| IssueError::Request(problem);
        let der = CertificateSigningRequestDer::from_pem_slice(pem)
            .map_err(|e| refused(format!("it is no CERTIFICATE REQUEST in PEM: {e}")))?;
        let (_, request) =
            X509CertificationRequest::from_der(&der).map_err(|e| refused(e.to_string()))?;
        if let Some(bits) = rsa_bits(&request).filter(|bits| *bits < LEAST_RSA_BITS) {
            return Err(refused(format!(
                "its RSA key has {bits} bits, and must have {LEAST_RSA_BITS} at least"
            )));
        }
        request
            .verify_signature()
            .map_err(|_| refused("it is not signed by the key that it names".to_owned()))?;
        Self::from_info(request.certification_request_info.subject_pki.raw)
    }

    /// Takes an encoded `SubjectPublicKeyInfo`.
    pub(super) fn from_info(der: &[u8]) -> Result<Self, IssueError> {
        let info = SubjectPublicKeyInfo::from_der(der).map_err(|_| {
            IssueError::Request(
                "its key is of no supported kind: ECDSA P-256, P-384 and P-521, Ed25519, and RSA are"
                    .to_owned(),
            )
        })?;
        Ok(Self { info, der: der.to_owned() })
    }

    /// The encoded `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }
}

/// None for a key of another kind.
fn rsa_bits(request: &X509CertificationRequest<'_>) -> Option<usize> {
    let key = request.certification_request_info.subject_pki.parsed().ok()?;
    if let public_key::PublicKey::RSA(rsa) = key { Some(rsa.key_size()) } else { None }
}
