//! The one way in which TLS is set up: version, provider, clock, verifiers, no resumption.
//! Leaves connections to their owners, and what a certificate must say beyond TLS to `peer`.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::Error;
use crate::sys::clock;

/// Named in every configuration, so that none depends on what another part of the process installed.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The wall clock for handshakes.
#[derive(Debug)]
pub(super) struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(clock::wall_ms())))
    }
}

/// Who is trusted, on either side of a connection.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    pub(super) servers: Arc<dyn ServerCertVerifier>,
}

impl Trust {
    /// Trusts what `authority` has signed and the lists do not revoke. Rustls takes an expired list for
    /// current unless configured otherwise.
    ///
    /// # Errors
    /// [`Error::Tls`] for what is no CA's certificate, or no revocation list.
    pub(super) fn new(
        authority: &CertificateDer<'_>,
        revoked: &[CertificateRevocationListDer<'static>],
    ) -> Result<Self, Error> {
        let failed = |problem: &dyn std::fmt::Display| Error::Tls(problem.to_string());
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned()).map_err(|e| failed(&e))?;
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .with_crls(revoked.to_vec())
            .enforce_revocation_expiration()
            .build()
            .map_err(|e| failed(&e))?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .with_crls(revoked.to_vec())
            .enforce_revocation_expiration()
            .build()
            .map_err(|e| failed(&e))?;
        Ok(Self { clients, servers })
    }
}

/// For the accepting side. A client that resumed a session would be let in without a look at the
/// revocation list, so there is nothing to resume: no tickets, no storage.
pub(super) fn server_config(
    trust: &Trust,
    own: &Arc<CertifiedKey>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(WallClock))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| Error::Tls(e.to_string()))?
        .with_client_cert_verifier(Arc::clone(&trust.clients))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(own))));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// For the connecting side.
pub(super) fn client_config(
    trust: &Trust,
    own: &Arc<CertifiedKey>,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(WallClock))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| Error::Tls(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&trust.servers))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(own))));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The name by which a node is looked for in its certificate.
///
/// # Errors
/// [`Error::Tls`] for a name of digits alone, which TLS takes for part of an address.
pub fn server_name(node: &cortex_core::model::NodeName) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(node.as_str().to_owned()).map_err(|e| Error::Tls(format!("{node}: {e}")))
}
