//! A mesh's certificate authority: a directory with its key, its certificate, what it issued, what it revoked.
//! Leaves what certificates say to `policy`, and whose machine it runs on to the command line.
//!
//! ```text
//!   ca.key       0600, the one secret of a mesh
//!   ca.crt       for every node
//!   crl.pem      for every node, again whenever something is revoked
//!   issued.toml  serial numbers, nodes, validity
//!   issued/      the certificates, by serial number
//! ```
//!
//! A certificate is entered in the index before it leaves; one that nobody has received can be revoked.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cortex_core::model::{MeshId, NodeName};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair,
    PublicKeyData as _, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};

use super::facts::{CertificateFields, sha256};
use super::files::{self, IfExists, Readers};
use super::index::{Index, Record};
use super::policy::{self, Validity};
use super::request::{NewKey, PublicKey};
use super::{IssueError, Rejected, Serial, moment, tls};
use crate::sys::random;

/// Where things are in the directory.
const KEY: &str = "ca.key";
const CERTIFICATE: &str = "ca.crt";
const REVOKED: &str = "crl.pem";
const INDEX: &str = "issued.toml";
const ISSUED: &str = "issued";
const LOCK: &str = ".lock";

/// Opened, and nobody else's meanwhile: two commands at once would forget what one of them has issued.
pub struct Authority {
    dir: PathBuf,
    der: CertificateDer<'static>,
    pem: String,
    facts: CertificateFields,
    issuer: Issuer<'static, KeyPair>,
    index: Index,
    _lock: File,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// A certificate that was made, PEM, and its serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// By which it can be revoked.
    pub serial: Serial,
    /// For the node.
    pub pem: String,
    /// When it expires, in seconds since 1970.
    pub not_after: u64,
}

/// What to do where a node of the name has a certificate that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicate {
    /// [`IssueError::Duplicate`]
    Refuse,
    /// Issue another; both can be used.
    Allow,
}

impl Authority {
    /// Makes a new mesh's authority, with an empty revocation list: a node without one would take everything.
    ///
    /// # Errors
    /// [`IssueError::Exists`] where there is one, unless it shall be replaced. Its nodes then need new
    /// certificates.
    pub fn create(dir: &Path, present: IfExists, now_unix_s: u64) -> Result<Self, IssueError> {
        files::private_directory(dir).map_err(IssueError::writing(dir))?;
        let lock = lock(dir)?;
        if present == IfExists::Keep && Self::is_in(dir) {
            return Err(IssueError::Exists(dir.to_owned()));
        }
        let key = KeyPair::generate()?;
        let mesh = MeshId(random::id());
        let params = policy::authority(mesh, Validity::of_authority(now_unix_s))?;
        let certificate = params.self_signed(&key)?;
        let place = |name: &str, text: &str, readers| {
            let path = dir.join(name);
            files::write(&path, text.as_bytes(), readers, IfExists::Replace, None)
                .map_err(IssueError::writing(&path))
        };
        place(KEY, &key.serialize_pem(), Readers::Owner)?;
        place(CERTIFICATE, &certificate.pem(), Readers::Everybody)?;
        Index::default().write(&dir.join(INDEX)).map_err(IssueError::writing(&dir.join(INDEX)))?;
        let mut authority = Self::opened(dir, lock)?;
        authority.write_revoked(now_unix_s)?;
        Ok(authority)
    }

    /// Opens an authority, be it made by [`Authority::create`] or by another tool. Waits for others that
    /// have it open.
    ///
    /// # Errors
    /// [`IssueError::Absent`], or what is wrong with its files.
    pub fn open(dir: &Path) -> Result<Self, IssueError> {
        if !dir.join(KEY).exists() {
            return Err(IssueError::Absent(dir.to_owned()));
        }
        Self::opened(dir, lock(dir)?)
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_in(dir: &Path) -> bool {
        dir.join(KEY).exists() || dir.join(CERTIFICATE).exists()
    }

    fn opened(dir: &Path, lock: File) -> Result<Self, IssueError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(IssueError::reading(&path))
        };
        let unusable = |problem: &str| IssueError::Unusable {
            dir: dir.to_owned(),
            problem: problem.to_owned(),
        };
        let pem = String::from_utf8(read(CERTIFICATE)?)
            .map_err(|_| unusable("its certificate is no PEM"))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| unusable(&format!("its certificate: {e}")))?;
        let facts = CertificateFields::read(&der)
            .map_err(|e| unusable(&format!("its certificate: {e}")))?;
        let key = PrivateKeyDer::from_pem_slice(&read(KEY)?)
            .map_err(|e| unusable(&format!("its key: {e}")))?;
        let key = KeyPair::try_from(&key)?;
        if key.subject_public_key_info() != facts.public_key {
            return Err(unusable("its key does not belong to its certificate"));
        }
        if !facts.is_authority {
            return Err(unusable("its certificate is no CA's"));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        let index = Index::read(&dir.join(INDEX)).map_err(IssueError::reading(&dir.join(INDEX)))?;
        Ok(Self { dir: dir.to_owned(), der, pem, facts, issuer, index, _lock: lock })
    }

    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        self.facts.mesh()
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the certificate.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.der)
    }

    /// When the certificate expires, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.facts.not_after
    }

    /// What was issued, the oldest first.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.index.records
    }

    /// The revocation list, PEM.
    ///
    /// # Errors
    /// [`IssueError::Io`]
    pub fn revocation_list(&self) -> Result<String, IssueError> {
        let path = self.dir.join(REVOKED);
        std::fs::read_to_string(&path).map_err(IssueError::reading(&path))
    }

    /// Whether a node of this name may be given a certificate.
    ///
    /// # Errors
    /// [`IssueError::Name`], [`IssueError::NodeIsHost`], [`IssueError::Duplicate`]
    pub fn may_name(
        &self,
        node: &NodeName,
        duplicate: Duplicate,
        now_unix_s: u64,
    ) -> Result<(), IssueError> {
        tls::server_name(node).map_err(|_| IssueError::Name(node.clone()))?;
        let known = self.index.good(node.as_str(), now_unix_s);
        // One that has the name already may go on: it is the other's certificate that is refused.
        if known.is_none()
            && let Some(other) = self.index.reached_at(node, now_unix_s)
        {
            return Err(IssueError::NodeIsHost { node: node.clone(), other: other.name.clone() });
        }
        match known {
            Some(record) if duplicate == Duplicate::Refuse => Err(IssueError::Duplicate {
                node: node.clone(),
                serial: record.serial.clone(),
                expires: record.expires.clone(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a node may be given a certificate that says that it is reached at this host.
    ///
    /// # Errors
    /// As [`Authority::may_name`]; [`IssueError::Host`], [`IssueError::HostIsNode`]
    pub fn may_issue(
        &self,
        node: &NodeName,
        host: &str,
        duplicate: Duplicate,
        now_unix_s: u64,
    ) -> Result<(), IssueError> {
        self.may_name(node, duplicate, now_unix_s)?;
        policy::host_name(host)?;
        // A node that could show the name of another as one of its own would pass for it in TLS.
        let is_others = |record: &Record| {
            record.name.eq_ignore_ascii_case(host) && record.name != node.as_str()
        };
        if self.index.records.iter().any(is_others) {
            return Err(IssueError::HostIsNode(host.to_owned()));
        }
        Ok(())
    }

    /// Issues a certificate for a node's key.
    ///
    /// # Errors
    /// As [`Authority::may_issue`], or what failed. A certificate that is in the index and not in the answer
    /// was seen by nobody.
    pub fn issue(
        &mut self,
        node: &NodeName,
        host: &str,
        key: &PublicKey,
        duplicate: Duplicate,
        now_unix_s: u64,
    ) -> Result<Issued, IssueError> {
        self.may_issue(node, host, duplicate, now_unix_s)?;
        let validity = Validity::of_node(now_unix_s, self.validity());
        let params = policy::node(self.mesh(), node, host, validity)?;
        let certificate = params.signed_by(&key.info, &self.issuer)?;
        let facts = CertificateFields::read(certificate.der()).map_err(IssueError::Unverified)?;
        self.check(certificate.der(), now_unix_s)?;
        let record = Record::new(node.as_str(), &facts.serial, host, now_unix_s, facts.not_after);
        self.index.records.push(record);
        self.write_index()?;
        let issued =
            Issued { serial: facts.serial, pem: certificate.pem(), not_after: facts.not_after };
        self.keep(&issued)?;
        Ok(issued)
    }

    /// Issues a node's certificate anew, for the same key and host, with another serial number. The old one
    /// stays in use until it expires or is revoked.
    ///
    /// # Errors
    /// [`IssueError::Unknown`] where the node has none that is in use.
    pub fn renew(&mut self, node: &NodeName, now_unix_s: u64) -> Result<Issued, IssueError> {
        let unknown = || IssueError::Unknown(node.to_string());
        let record = self
            .index
            .records
            .iter()
            .rev()
            .find(|record| record.name == node.as_str() && record.revoked.is_none());
        let record = record.ok_or_else(unknown)?.clone();
        let path = self.dir.join(ISSUED).join(format!("{}.crt", record.serial));
        let pem = std::fs::read(&path).map_err(IssueError::reading(&path))?;
        let der = CertificateDer::from_pem_slice(&pem)
            .map_err(|e| IssueError::Unverified(e.to_string()))?;
        let key = PublicKey::from_info(
            &CertificateFields::read(&der).map_err(IssueError::Unverified)?.public_key,
        )?;
        self.issue(node, &record.host, &key, Duplicate::Allow, now_unix_s)
    }

    /// Revokes all certificates of a node, or the one with a serial number, and writes the revocation list
    /// anew. A serial number that was issued by another tool is revoked as well.
    ///
    /// # Errors
    /// [`IssueError::Unknown`] for what is neither.
    pub fn revoke(&mut self, which: &str, now_unix_s: u64) -> Result<Vec<Serial>, IssueError> {
        let serial = Serial::parse(which);
        let is_meant = |record: &Record| {
            record.name == which || serial.is_some() && Serial::parse(&record.serial) == serial
        };
        let mut revoked = Vec::new();
        for record in self.index.records.iter_mut().filter(|record| is_meant(record)) {
            record.revoked.get_or_insert_with(|| moment::shown(now_unix_s));
            revoked.extend(Serial::parse(&record.serial));
        }
        if revoked.is_empty() {
            return Err(IssueError::Unknown(which.to_owned()));
        }
        self.write_index()?;
        self.write_revoked(now_unix_s)?;
        Ok(revoked)
    }

    /// A short-lived certificate and key under which an invitation is served. It is in no index: no node
    /// accepts it, and it is gone with the process.
    pub(super) fn invitation(
        &self,
        now: u64,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IssueError> {
        let key = NewKey::generate()?;
        let validity = Validity::of_invitation(now, self.validity());
        let certificate = self.sign(&policy::invitation(validity)?, &key.public()?)?;
        let private = PrivateKeyDer::from_pem_slice(key.pem().as_bytes())
            .map_err(|e| IssueError::Crypto(e.to_string()))?;
        Ok((vec![certificate, self.der.clone()], private))
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &PublicKey,
    ) -> Result<CertificateDer<'static>, IssueError> {
        Ok(params.signed_by(&key.info, &self.issuer)?.into())
    }

    fn validity(&self) -> Validity {
        Validity { from: self.facts.not_before, to: self.facts.not_after }
    }

    /// Checks a certificate as nodes will: a CA of another tool may have a name that is encoded differently
    /// by this one, and its certificates would be refused everywhere.
    fn check(&self, certificate: &CertificateDer<'_>, now: u64) -> Result<(), IssueError> {
        let pem = self.revocation_list()?;
        let revoked = CertificateRevocationListDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| IssueError::Unverified(format!("the revocation list: {e}")))?;
        let trust = tls::Trust::new(&self.der, &[revoked])
            .map_err(|e| IssueError::Unverified(e.to_string()))?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        trust
            .clients
            .verify_client_cert(certificate, &[], now)
            .map_err(|e| IssueError::Unverified(Rejected::from(&e).to_string()))?;
        Ok(())
    }

    fn keep(&self, issued: &Issued) -> Result<(), IssueError> {
        let dir = self.dir.join(ISSUED);
        files::private_directory(&dir).map_err(IssueError::writing(&dir))?;
        let path = dir.join(format!("{}.crt", issued.serial));
        files::write(&path, issued.pem.as_bytes(), Readers::Everybody, IfExists::Replace, None)
            .map_err(IssueError::writing(&path))
    }

    fn write_index(&self) -> Result<(), IssueError> {
        let path = self.dir.join(INDEX);
        self.index.write(&path).map_err(IssueError::writing(&path))
    }

    /// Makes the revocation list of what the index says is revoked. It is good until the CA ends: anyone who
    /// revokes something hands out another.
    fn write_revoked(&mut self, now: u64) -> Result<(), IssueError> {
        let revoked = self.index.records.iter().filter_map(revoked_entry).collect();
        self.index.crl_number += 1;
        let list = CertificateRevocationListParams {
            this_update: moment::datetime(now),
            next_update: moment::datetime(self.facts.not_after),
            crl_number: SerialNumber::from(self.index.crl_number),
            issuing_distribution_point: None,
            revoked_certs: revoked,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = list.signed_by(&self.issuer)?.pem()?;
        self.write_index()?;
        let path = self.dir.join(REVOKED);
        files::write(&path, pem.as_bytes(), Readers::Everybody, IfExists::Replace, None)
            .map_err(IssueError::writing(&path))
    }
}

fn revoked_entry(record: &Record) -> Option<RevokedCertParams> {
    let at = moment::read(record.revoked.as_deref()?).unwrap_or(0);
    Some(RevokedCertParams {
        serial_number: policy::number(&Serial::parse(&record.serial)?),
        revocation_time: moment::datetime(at),
        reason_code: None,
        invalidity_date: None,
    })
}

/// Waits until nobody else has the directory open. The lock goes with the file.
fn lock(dir: &Path) -> Result<File, IssueError> {
    let path = dir.join(LOCK);
    let open = || -> io::Result<File> {
        let file = File::options().write(true).create(true).truncate(false).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(IssueError::writing(&path))
}
