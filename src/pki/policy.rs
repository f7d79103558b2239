//! What certificates say: the CA's own, a node's, and that of an invitation.
//! Leaves to whom they are given, and keeping account of them, to `authority`.

use std::net::IpAddr;

use cortex_core::model::{MeshId, NodeName};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::ServerName;

use super::{IssueError, Serial, facts, moment};
use crate::sys::random;

const DAY_S: u64 = 24 * 60 * 60;
const AUTHORITY_S: u64 = 3653 * DAY_S;
const NODE_S: u64 = 731 * DAY_S;
/// Clocks of other machines are behind.
const BACKDATED_S: u64 = 5 * 60;

/// The name in an invitation's certificate. It has a dot, so it is no node's; RFC 2606 keeps `.invalid` free.
pub(super) const INVITATION: &str = "invitation.cortex.invalid";

/// Seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validity {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Validity {
    pub(super) fn of_authority(now: u64) -> Self {
        Self { from: now.saturating_sub(BACKDATED_S), to: now.saturating_add(AUTHORITY_S) }
    }

    /// Two years, within those of the CA.
    pub(super) fn of_node(now: u64, authority: Self) -> Self {
        Self::within(now, NODE_S, authority)
    }

    /// As long as an invitation may last.
    pub(super) fn of_invitation(now: u64, authority: Self) -> Self {
        Self::within(now, DAY_S, authority)
    }

    fn within(now: u64, seconds: u64, authority: Self) -> Self {
        Self {
            from: now.saturating_sub(BACKDATED_S).max(authority.from),
            to: now.saturating_add(seconds).min(authority.to),
        }
    }
}

/// Where a node is reached: a DNS name or an address, as it stands in a certificate.
///
/// # Errors
/// [`IssueError::Host`] for anything else.
pub(super) fn host_name(host: &str) -> Result<SanType, IssueError> {
    let refused = || IssueError::Host(host.to_owned());
    let name = ServerName::try_from(host).map_err(|_| refused())?;
    if let ServerName::IpAddress(address) = name {
        return Ok(SanType::IpAddress(IpAddr::from(address)));
    }
    Ok(SanType::DnsName(ia5(host)?))
}

/// The CA's own certificate. Its subject has the mesh's id in it: two CAs of one name could not be distinguished
/// by those who look for an issuer.
pub(super) fn authority(mesh: MeshId, validity: Validity) -> Result<CertificateParams, IssueError> {
    let short: String = mesh.to_string().chars().take(8).collect();
    let mut params = common(&format!("cortex mesh {short}"), validity);
    params.subject_alt_names = vec![SanType::URI(ia5(&facts::mesh_uri(mesh))?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A node's certificate.
pub(super) fn node(
    mesh: MeshId,
    node: &NodeName,
    host: &str,
    validity: Validity,
) -> Result<CertificateParams, IssueError> {
    let mut params = common(node.as_str(), validity);
    let name = SanType::DnsName(ia5(node.as_str())?);
    let uri = SanType::URI(ia5(&facts::node_uri(mesh, node))?);
    let host = host_name(host)?;
    params.subject_alt_names = vec![name.clone()];
    if host != name {
        params.subject_alt_names.push(host);
    }
    params.subject_alt_names.push(uri);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf(&mut params);
    Ok(params)
}

/// The certificate under which an invitation is served: no node could use it, and no server can be a client.
pub(super) fn invitation(validity: Validity) -> Result<CertificateParams, IssueError> {
    let mut params = common(INVITATION, validity);
    params.subject_alt_names = vec![SanType::DnsName(ia5(INVITATION)?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf(&mut params);
    Ok(params)
}

/// A serial number that nobody has had: rcgen's own is derived from the key, so that a renewed certificate
/// would be as revoked as the one before it.
pub(super) fn serial() -> Serial {
    let mut bytes = random::id();
    // Positive, and of full length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Serial::from_bytes(&bytes)
}

pub(super) fn number(serial: &Serial) -> SerialNumber {
    SerialNumber::from_slice(serial.as_bytes())
}

/// rcgen's defaults are valid from 1975 to 4096 and named after rcgen.
fn common(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = moment::datetime(validity.from);
    params.not_after = moment::datetime(validity.to);
    params.serial_number = Some(number(&serial()));
    params
}

fn leaf(params: &mut CertificateParams) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
}

fn ia5(text: &str) -> Result<Ia5String, IssueError> {
    Ia5String::try_from(text).map_err(IssueError::from)
}
