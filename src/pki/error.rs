//! Why credentials of this node are not used, why those of a peer are not accepted, why none are issued.
//! Leaves logging and counting to the callers, to whom [`Rejected::reason`] gives a short word for each case.

use std::io;
use std::path::{Path, PathBuf};

use cortex_core::model::{MeshId, NodeName};
use rustls::{CertRevocationListError, CertificateError};

/// Why [`super::Credentials::load`] refuses a set of files. The texts are for the administrator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the {what} {} is not there", path.display())]
    Missing { what: &'static str, path: PathBuf },
    #[error("cannot read the {what} {}: {error}", path.display())]
    Unreadable { what: &'static str, path: PathBuf, error: io::Error },
    #[error("the {what} {} holds no {expected} in PEM: {problem}", path.display())]
    NoPem { what: &'static str, path: PathBuf, expected: &'static str, problem: String },
    #[error("the {what} cannot be read as X.509: {problem}")]
    Malformed { what: &'static str, problem: String },
    #[error("the key {} may be read by others (mode {mode:04o}): chmod 600 {}", path.display(), path.display())]
    KeyReadableByOthers { path: PathBuf, mode: u32 },
    #[error("the key {} is of no kind that is supported: {problem}; ECDSA P-256, P-384 and P-521, Ed25519, and RSA from 2048 bits are", path.display())]
    UnsupportedKey { path: PathBuf, problem: String },
    #[error("the key {} does not belong to the certificate", path.display())]
    KeyMismatch { path: PathBuf },
    #[error("the {what} expired at {at}")]
    Expired { what: &'static str, at: String },
    #[error("the {what} is not valid before {at}; is the clock right?")]
    NotYetValid { what: &'static str, at: String },
    #[error("the certificate {} is no CA's: its basic constraints do not say so", path.display())]
    NotAnAuthority { path: PathBuf },
    #[error("the node's certificate is of another CA")]
    OtherAuthority,
    #[error(
        "the node's certificate names {found}, not `{node}`: its common name and one of its DNS names must be the node's name"
    )]
    WrongName { node: NodeName, found: String },
    #[error(
        "the node's certificate names the node `{found}` of a mesh; this is `{node}` of mesh {mesh}"
    )]
    OtherMesh { node: NodeName, mesh: MeshId, found: String },
    #[error(
        "the node's certificate lacks an extended key usage: both serverAuth and clientAuth are needed"
    )]
    KeyUsage,
    #[error("the {what} is revoked")]
    Revoked { what: &'static str },
    #[error("the revocation list expired at {at}: renew it where the CA is")]
    StaleRevocationList { at: String },
    #[error(
        "the revocation list says not when it expires, so that it is unknown whether it is current"
    )]
    EndlessRevocationList,
    #[error("the revocation list is of another CA")]
    ForeignRevocationList,
    #[error("TLS cannot be set up with these files: {0}")]
    Tls(String),
}

/// Why a CA does not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("there is a CA in {} already", .0.display())]
    Exists(PathBuf),
    #[error("there is no CA in {}", .0.display())]
    Absent(PathBuf),
    #[error("the CA in {} cannot be used: {problem}", dir.display())]
    Unusable { dir: PathBuf, problem: String },
    #[error("`{0}` cannot be a node's name: TLS takes digits alone for part of an address")]
    Name(NodeName),
    #[error("`{0}` is no host: neither a DNS name nor an address")]
    Host(String),
    #[error("`{0}` cannot be the host: it is the name of another node")]
    HostIsNode(String),
    #[error(
        "`{node}` cannot be a node's name: the certificate of node `{other}` has it as its host"
    )]
    NodeIsHost { node: NodeName, other: String },
    #[error("`{node}` has a certificate already, {serial}, good until {expires}")]
    Duplicate { node: NodeName, serial: String, expires: String },
    #[error("no certificate of `{0}` is known here")]
    Unknown(String),
    #[error("the request is refused: {0}")]
    Request(String),
    #[error("the certificate would be refused by the nodes: {0}")]
    Unverified(String),
    #[error("keys and signatures: {0}")]
    Crypto(String),
    #[error("{doing} {}: {error}", path.display())]
    Io { doing: &'static str, path: PathBuf, error: io::Error },
}

impl IssueError {
    pub(super) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { doing: "cannot read", path: path.to_owned(), error }
    }

    pub(super) fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { doing: "cannot write", path: path.to_owned(), error }
    }
}

impl From<rcgen::Error> for IssueError {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

/// Why a peer's certificate, or something signed with it, is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("no certificate was presented")]
    NoCertificate,
    #[error("the certificate is of another CA")]
    OtherAuthority,
    #[error("the certificate has expired")]
    Expired,
    #[error("the certificate is not valid yet: a clock is wrong, here or where it was made")]
    NotYetValid,
    #[error("the certificate is revoked")]
    Revoked,
    #[error("the certificate's key usage is wrong: a node needs both serverAuth and clientAuth")]
    KeyUsage,
    #[error("the certificate names no node: {0}")]
    Name(String),
    #[error("the certificate is for {0}, which is another mesh or node")]
    OtherMesh(String),
    #[error("this node's revocation list has expired, or is not that of the certificate's issuer")]
    StaleRevocationList,
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    #[error("the signature is not by the certificate's key")]
    Signature,
    #[error("no application protocol was agreed on")]
    NoProtocol,
    #[error("the peer broke off or broke the protocol: {0}")]
    Handshake(String),
}

impl Rejected {
    /// One word for counters and log fields; never anything that the peer has written.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::OtherAuthority => "other_authority",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::KeyUsage => "key_usage",
            Self::Name(_) => "name",
            Self::OtherMesh(_) => "other_mesh",
            Self::StaleRevocationList => "stale_revocation_list",
            Self::Malformed(_) => "malformed",
            Self::Signature => "signature",
            Self::NoProtocol => "no_protocol",
            Self::Handshake(_) => "handshake",
        }
    }
}

/// What a failed handshake says of the peer.
impl From<&rustls::Error> for Rejected {
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls' enums may grow")]
    fn from(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::NoApplicationProtocol => Self::NoProtocol,
            rustls::Error::InvalidCertificate(problem) => problem.into(),
            rustls::Error::InvalidCertRevocationList(CertRevocationListError::BadSignature) => {
                Self::OtherAuthority
            }
            rustls::Error::InvalidCertRevocationList(_) => Self::StaleRevocationList,
            other => Self::Handshake(other.to_string()),
        }
    }
}

impl From<&CertificateError> for Rejected {
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls' enums may grow")]
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::Revoked => Self::Revoked,
            // A CA of the same name and another key is another CA.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::OtherAuthority
            }
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => Self::StaleRevocationList,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::KeyUsage
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::Name(error.to_string())
            }
            other => Self::Malformed(other.to_string()),
        }
    }
}
