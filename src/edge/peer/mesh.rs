//! What a reload replaces as a whole: credentials, what TLS makes of them, and the configured machines.
//! Where it is read from is the daemon's; when it is looked at, everybody's here.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::model::NodeName;
use rustls::{ClientConfig, ServerConfig, pki_types::CertificateDer};

use super::{
    handshake::{ALL_PROTOCOLS, Protocol},
    refused::Refused,
};
use crate::pki::{Credentials, PeerCertificate};

/// Where a machine is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address.
    pub host: Box<str>,
    /// Its peer port.
    pub port: u16,
}

/// The mesh as it is configured now.
#[derive(Debug)]
pub struct Mesh {
    credentials: Arc<Credentials>,
    nodes: BTreeMap<NodeName, Address>,
    server: Arc<ServerConfig>,
    link: Arc<ClientConfig>,
    rpc: Arc<ClientConfig>,
}

impl Mesh {
    /// Puts credentials and the other machines together. An entry with the own name is passed over, so that
    /// all machines can share one list.
    #[must_use]
    pub fn new(credentials: Arc<Credentials>, mut nodes: BTreeMap<NodeName, Address>) -> Self {
        nodes.remove(credentials.node());
        Self {
            server: credentials.server_config(&ALL_PROTOCOLS),
            link: credentials.client_config(Protocol::Link.alpn()),
            rpc: credentials.client_config(Protocol::Rpc.alpn()),
            credentials,
            nodes,
        }
    }

    /// This machine's credentials.
    #[must_use]
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// This machine.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        self.credentials.node()
    }

    /// The other machines.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeName, Address> {
        &self.nodes
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    pub(super) fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        Arc::clone(match protocol {
            Protocol::Rpc => &self.rpc,
            Protocol::Link => &self.link,
        })
    }

    /// Judges a certificate, and whether its name is one that is configured here and not the own.
    pub(super) fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        now_unix_s: u64,
    ) -> Result<PeerCertificate, Refused> {
        let peer = self.credentials.check_peer(chain, now_unix_s)?;
        if peer.node == *self.node() {
            return Err(Refused::OwnName);
        }
        if !self.nodes.contains_key(&peer.node) {
            return Err(Refused::NotConfigured(peer.node));
        }
        match self.named_in(&peer.other_names) {
            Some(other) => Err(Refused::NamesAnother(peer.node, other.clone())),
            None => Ok(peer),
        }
    }

    /// The node of this mesh whose name the own certificate has beside this machine's: every other machine refuses it.
    #[must_use]
    pub fn named_beside(&self) -> Option<&NodeName> {
        self.named_in(self.credentials.other_names())
    }

    /// A node of this mesh that is among the names.
    fn named_in(&self, names: &[String]) -> Option<&NodeName> {
        let nodes = self.nodes.keys().chain([self.node()]);
        nodes.into_iter().find(|node| names.iter().any(|name| name == node.as_str()))
    }
}
