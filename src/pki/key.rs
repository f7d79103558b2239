//! A node's private key: read from its file, matched with its certificate, used for signatures.
//! Leaves the files' places to the settings, and making keys to `authority`.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{Signer, SigningKey};

use super::{Error, read, tls};

/// One signature scheme for each kind of key, so that a verifier knows it from the certificate alone.
/// RSA is PSS with SHA-256.
const SCHEMES: [SignatureScheme; 5] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Reads a private key.
///
/// # Errors
/// [`Error`], where it is missing, others may read it, or it is of no supported kind.
pub(super) fn load(path: &Path) -> Result<Arc<dyn SigningKey>, Error> {
    let what = "key";
    let pem = read(what, path)?;
    let mode = std::fs::metadata(path)
        .map_err(|error| Error::Unreadable { what, path: path.to_owned(), error })?
        .mode();
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    if mode & OTHERS != 0 && !is_below(path, credentials.as_deref()) {
        return Err(Error::KeyReadableByOthers { path: path.to_owned(), mode: mode & 0o7777 });
    }
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|problem| Error::NoPem {
        what,
        path: path.to_owned(),
        expected: "private key",
        problem: problem.to_string(),
    })?;
    tls::provider()
        .key_provider
        .load_private_key(key)
        .map_err(|e| Error::UnsupportedKey { path: path.to_owned(), problem: e.to_string() })
}

/// Whether a file is a credential that the service manager passed: it has seen to who may read it, and
/// sets modes of its own.
fn is_below(path: &Path, credentials: Option<&OsStr>) -> bool {
    credentials.filter(|dir| !dir.is_empty()).is_some_and(|dir| path.starts_with(dir))
}

/// What signs rows and tokens with a key.
pub(super) fn signer(key: &dyn SigningKey) -> Option<Box<dyn Signer>> {
    key.choose_scheme(&SCHEMES)
}

/// Whether `signature` is of `message` by the key whose `SubjectPublicKeyInfo` is given, as [`signer`] makes them.
pub(super) fn verifies(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
    let Ok((_, info)) = SubjectPublicKeyInfo::from_der(public_key) else {
        return false;
    };
    let Some(algorithm) = algorithm_in(public_key) else {
        return false;
    };
    let known = tls::provider().signature_verification_algorithms;
    // The first of a scheme's algorithms is the one that TLS 1.3 means; the others mix curves and hashes.
    let fitting = known
        .mapping
        .iter()
        .filter(|(scheme, _)| SCHEMES.contains(scheme))
        .filter_map(|(_, algorithms)| algorithms.first())
        .find(|candidate| candidate.public_key_alg_id().as_ref() == algorithm);
    fitting.is_some_and(|algorithm| {
        let key = info.subject_public_key.data.as_ref();
        algorithm.verify_signature(key, message, signature).is_ok()
    })
}

/// The algorithm with its parameters, encoded, without the sequence around them.
fn algorithm_in(public_key: &[u8]) -> Option<&[u8]> {
    use x509_parser::asn1_rs::{Any, FromDer};
    let (_, outer) = Any::from_der(public_key).ok()?;
    let (_, algorithm) = Any::from_der(outer.data).ok()?;
    Some(algorithm.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_below_the_directory_of_credentials_and_nothing_else_is() {
        let dir = Some(OsStr::new("/run/credentials/cortexd.service"));
        assert!(is_below(Path::new("/run/credentials/cortexd.service/node.key"), dir));
        assert!(!is_below(Path::new("/run/credentials/cortexd.service2/node.key"), dir));
        assert!(!is_below(Path::new("/var/lib/cortex/node.key"), dir));
        assert!(!is_below(Path::new("/var/lib/cortex/node.key"), None));
        assert!(!is_below(Path::new("/var/lib/cortex/node.key"), Some(OsStr::new(""))));
    }
}
