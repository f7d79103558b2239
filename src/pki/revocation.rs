//! Revocation lists: which serial numbers are out, and until when the lists may be believed.
//! Leaves the check of their signatures to TLS's verifiers, and making them to `authority`.

use std::collections::HashSet;
use std::path::Path;

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{CertificateRevocationList, FromDer, RevokedCertificate};

use super::facts::{CertificateFields, unix};
use super::{Error, Serial, moment, read};

/// What the lists of a file say together.
#[derive(Debug)]
pub(super) struct Revoked {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    pub(super) serials: HashSet<Serial>,
    /// When the first of them expires.
    pub(super) next_update: u64,
}

impl Revoked {
    /// Reads the lists of a file, of which one must be the CA's.
    ///
    /// # Errors
    /// [`Error`], where they are missing, expired, or of other CAs only.
    pub(super) fn load(
        path: &Path,
        authority: &CertificateFields,
        now: u64,
    ) -> Result<Self, Error> {
        let what = "revocation list";
        let pem = read(what, path)?;
        let no_pem = |problem: String| Error::NoPem {
            what,
            path: path.to_owned(),
            expected: "X509 CRL",
            problem,
        };
        let lists = CertificateRevocationListDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| no_pem(e.to_string()))?;
        if lists.is_empty() {
            return Err(no_pem("no items found".to_owned()));
        }
        let mut revoked =
            Self { lists: Vec::new(), serials: HashSet::new(), next_update: u64::MAX };
        let mut is_own = false;
        for der in lists {
            is_own |= revoked.take(&der, authority, now)?;
            revoked.lists.push(der);
        }
        if is_own { Ok(revoked) } else { Err(Error::ForeignRevocationList) }
    }

    /// Adds a list; true if it is the authority's.
    fn take(&mut self, der: &[u8], authority: &CertificateFields, now: u64) -> Result<bool, Error> {
        let malformed = |e: &dyn std::fmt::Display| Error::Malformed {
            what: "revocation list",
            problem: e.to_string(),
        };
        let (_, list) = CertificateRevocationList::from_der(der).map_err(|e| malformed(&e))?;
        let next_update = unix(list.next_update().ok_or(Error::EndlessRevocationList)?);
        if next_update <= now {
            return Err(Error::StaleRevocationList { at: moment::shown(next_update) });
        }
        self.next_update = self.next_update.min(next_update);
        let serials = list.iter_revoked_certificates().map(RevokedCertificate::raw_serial);
        self.serials.extend(serials.map(Serial::from_bytes));
        Ok(list.issuer().as_raw() == authority.subject)
    }
}
