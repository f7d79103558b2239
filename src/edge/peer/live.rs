//! The connections that are open, by the certificates that they were opened with.
//! TLS looks at a certificate once; what becomes of it afterwards is looked at here, after each reload and when
//! one expires.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cortex_core::model::NodeName;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, oneshot};

use super::{Mesh, handshake::Protocol, refused::Refused};
use crate::pki::{PeerCertificate, Rejected};

/// The table of connections.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Locked for a look-up, and for a review, which verifies some signatures.
    table: Mutex<Table>,
    /// Tells the keeper that the next expiry may be another.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    chain: Arc<[CertificateDer<'static>]>,
    protocol: Protocol,
    /// Whose it is, and when it expires in seconds since 1970; none while it is not judged yet.
    known: Option<(NodeName, u64)>,
    /// Applied when the connection is closed from here.
    end: Option<oneshot::Sender<Refused>>,
}

/// A connection's line in the table; removed when dropped.
#[derive(Debug)]
pub(super) struct LiveEntry {
    live: Arc<Live>,
    id: u64,
    untrusted: oneshot::Receiver<Refused>,
}

/// A connection that was closed from here.
#[derive(Debug)]
pub(super) struct ClosedConnection {
    /// Whose it was; none for one that was being judged at that moment.
    pub(super) node: Option<NodeName>,
    pub(super) protocol: Protocol,
    pub(super) why: Refused,
}

impl Live {
    pub(super) fn enter(
        self: &Arc<Self>,
        chain: Arc<[CertificateDer<'static>]>,
        protocol: Protocol,
    ) -> LiveEntry {
        let (end, untrusted) = oneshot::channel();
        let mut table = self.table();
        table.last += 1;
        let id = table.last;
        table.entries.insert(id, Entry { chain, protocol, known: None, end: Some(end) });
        LiveEntry { live: Arc::clone(self), id, untrusted }
    }

    /// Notes whose a connection is, and when its certificate expires.
    pub(super) fn know(&self, place: &LiveEntry, peer: &PeerCertificate) {
        if let Some(entry) = self.table().entries.get_mut(&place.id) {
            entry.known = Some((peer.node.clone(), peer.not_after));
        }
        self.changed.notify_one();
    }

    /// When the next certificate expires, in seconds since 1970.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        let table = self.table();
        let trusted = table.entries.values().filter(|entry| entry.end.is_some());
        trusted.filter_map(|entry| Some(entry.known.as_ref()?.1)).min()
    }

    /// Judges every connection again, and closes those whose certificate is not valid any more.
    pub(super) fn review(&self, mesh: &Mesh, now_unix_s: u64) -> Vec<ClosedConnection> {
        let mut cut = Vec::new();
        for entry in self.table().entries.values_mut() {
            let Err(why) = mesh.judge(&entry.chain, now_unix_s) else { continue };
            // A list that nobody has renewed says nothing against those that are there; it keeps new ones out.
            if why == Refused::Certificate(Rejected::StaleRevocationList) {
                continue;
            }
            if let Some(end) = entry.end.take() {
                let _ends_already = end.send(why.clone());
                let node = entry.known.as_ref().map(|(node, _)| node.clone());
                cut.push(ClosedConnection { node, protocol: entry.protocol, why });
            }
        }
        cut
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveEntry {
    /// Ends when the connection is not to be trusted any more, and says why.
    pub(super) async fn untrusted(&mut self) -> Refused {
        match (&mut self.untrusted).await {
            Ok(why) => why,
            // The sender stands in the table for as long as this place does.
            Err(_) => std::future::pending().await,
        }
    }

    /// True where it was closed from here.
    pub(super) fn is_closed(&mut self) -> bool {
        !matches!(self.untrusted.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }
}

impl Drop for LiveEntry {
    fn drop(&mut self) {
        self.live.table().entries.remove(&self.id);
    }
}
