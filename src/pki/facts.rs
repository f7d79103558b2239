//! What a certificate says, as far as the mesh goes by it: names, usages, validity, key.
//! Leaves judging it, signatures included, to `credentials` and `peer`.

use aws_lc_rs::digest::{SHA256, digest};
use cortex_core::model::{MeshId, NodeName};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::{Rejected, Serial};

/// The scheme of the URI by which our own tools bind a certificate to its mesh.
const SCHEME: &str = "cortex://";

/// What stands in a certificate.
#[derive(Debug, Clone)]
pub(super) struct CertificateFields {
    pub(super) serial: Serial,
    pub(super) common_names: Vec<String>,
    pub(super) dns_names: Vec<String>,
    /// What follows `cortex://` in URIs among the alternative names.
    pub(super) mesh_uris: Vec<String>,
    pub(super) server_auth: bool,
    pub(super) client_auth: bool,
    pub(super) is_authority: bool,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    /// The subject's name, encoded.
    pub(super) subject: Vec<u8>,
    /// The public key with its algorithm: the `SubjectPublicKeyInfo`, encoded.
    pub(super) public_key: Vec<u8>,
}

impl CertificateFields {
    /// Reads a certificate.
    ///
    /// # Errors
    /// What is wrong with its encoding.
    pub(super) fn read(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
        if !rest.is_empty() {
            return Err("something follows the certificate".to_owned());
        }
        let mut facts = Self {
            serial: Serial::from_bytes(certificate.raw_serial()),
            common_names: common_names(&certificate),
            dns_names: Vec::new(),
            mesh_uris: Vec::new(),
            server_auth: false,
            client_auth: false,
            is_authority: certificate.is_ca(),
            not_before: unix(certificate.validity().not_before),
            not_after: unix(certificate.validity().not_after),
            subject: certificate.subject().as_raw().to_vec(),
            public_key: certificate.public_key().raw.to_vec(),
        };
        facts.take_names(&certificate)?;
        facts.take_usages(&certificate)?;
        Ok(facts)
    }

    fn take_names(&mut self, certificate: &X509Certificate<'_>) -> Result<(), String> {
        let names = certificate.subject_alternative_name().map_err(|e| e.to_string())?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            if let GeneralName::DNSName(name) = name {
                self.dns_names.push((*name).to_owned());
            } else if let GeneralName::URI(uri) = name
                && let Some(rest) = uri.strip_prefix(SCHEME)
            {
                self.mesh_uris.push(rest.to_owned());
            }
        }
        Ok(())
    }

    fn take_usages(&mut self, certificate: &X509Certificate<'_>) -> Result<(), String> {
        let usage = certificate.extended_key_usage().map_err(|e| e.to_string())?;
        // `anyExtendedKeyUsage` is not enough: TLS libraries differ on whether it counts.
        self.server_auth = usage.as_ref().is_some_and(|usage| usage.value.server_auth);
        self.client_auth = usage.as_ref().is_some_and(|usage| usage.value.client_auth);
        Ok(())
    }

    /// The mesh that a CA's certificate stands for: what its URI says, else the first half of its key's hash.
    pub(super) fn mesh(&self) -> MeshId {
        let named = self.mesh_uris.iter().find_map(|uri| MeshId::parse(uri));
        named.unwrap_or_else(|| {
            let mut id = [0; 16];
            id.copy_from_slice(&self.key_hash()[..16]);
            MeshId(id)
        })
    }

    /// SHA-256 of the public key.
    pub(super) fn key_hash(&self) -> [u8; 32] {
        sha256(&self.public_key)
    }

    /// The node that the certificate is for.
    ///
    /// # Errors
    /// [`Rejected::Name`] unless it has one common name, a node's, that is one of its DNS names too;
    /// [`Rejected::OtherMesh`] where it is bound to another mesh or node.
    pub(super) fn node(&self, mesh: MeshId) -> Result<NodeName, Rejected> {
        // TLS libraries look at DNS names alone, so those and the common name must agree.
        let [name] = self.common_names.as_slice() else {
            return Err(Rejected::Name(self.names()));
        };
        let node = NodeName::parse(name).map_err(|_| Rejected::Name(self.names()))?;
        if !self.dns_names.iter().any(|dns| dns == node.as_str()) {
            return Err(Rejected::Name(self.names()));
        }
        match self.mesh_uris.iter().find(|uri| **uri != format!("{mesh}/{node}")) {
            Some(other) => Err(Rejected::OtherMesh(format!("{SCHEME}{other}"))),
            None => Ok(node),
        }
    }

    /// The DNS names besides the node's own, as TLS compares them.
    pub(super) fn other_names(&self, node: &NodeName) -> Vec<String> {
        let names = self.dns_names.iter().map(|name| name.to_ascii_lowercase());
        names.filter(|name| name != node.as_str()).collect()
    }

    /// All names, for a message. The text may be anything, so it is bounded and escaped.
    pub(super) fn names(&self) -> String {
        const MOST: usize = 200;
        let text = format!("common name {:?}, DNS names {:?}", self.common_names, self.dns_names);
        text.chars().take(MOST).collect()
    }

    /// Whether it is a node's: both sides of a connection can be played with it.
    ///
    /// # Errors
    /// [`Rejected::KeyUsage`]
    pub(super) fn is_for_both_sides(&self) -> Result<(), Rejected> {
        if self.server_auth && self.client_auth { Ok(()) } else { Err(Rejected::KeyUsage) }
    }
}

/// The URI that binds a node's certificate to its mesh.
pub(super) fn node_uri(mesh: MeshId, node: &NodeName) -> String {
    format!("{SCHEME}{mesh}/{node}")
}

/// The URI by which a CA's certificate says which mesh it stands for.
pub(super) fn mesh_uri(mesh: MeshId) -> String {
    format!("{SCHEME}{mesh}")
}

/// SHA-256, as it stands for keys and certificates.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// Seconds since 1970; what lies before it counts as its beginning.
pub(super) fn unix(time: ASN1Time) -> u64 {
    u64::try_from(time.timestamp()).unwrap_or(0)
}

fn common_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    // One that is no text is kept as one that is no name.
    let text = |name: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        name.as_str().unwrap_or_default().to_owned()
    };
    certificate.subject().iter_common_name().map(text).collect()
}
