//! The one request path: whoever asks and over whatever transport, a request is judged and answered here.
//! Making a caller out of a connection, and bytes out of an answer, is left to the edge.
//!
//! ```text
//!   Caller + method + params ──> Service::call ──┬─> Ready: the result stands in the buffer
//!                                  gate (early)  ├─> Commit: a command for the writer, which
//!                                                │   judges the caller once more
//!                                                └─> List: a result that comes in pieces
//! ```
//!
//! `call` itself never waits. Point reads happen inline, over the snapshot of the calling thread.

mod access;
mod grants;
mod listing;
mod params;
mod records;
mod slots;
mod status;
mod tables;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use bytes::Bytes;
use cortex_core::{
    model::{Caller, Refusal},
    wire::Method,
};

pub use listing::{Listing, Step};
pub use slots::ScanSlots;

use crate::{
    ambient,
    store::{Command, Done, Failure, Reader, Store},
};
use params::Params;

/// What a request leads to.
#[derive(Debug)]
pub enum Answer {
    /// The encoded result has been appended to the buffer.
    Ready,
    /// To be carried out by the writer; [`Service::done`] is the result.
    Commit(Command),
    /// A list that may be larger than memory.
    List(Box<Listing>),
}

/// Answers requests. One per daemon.
#[derive(Debug)]
pub struct Service {
    store: Store,
    node: Box<str>,
    started: Instant,
    connections: Arc<AtomicUsize>,
    scans: ScanSlots,
}

impl Service {
    /// A service over a store, on a node of that name.
    #[must_use]
    pub fn new(store: Store, node: &str, scans: ScanSlots) -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        Self { store, node: node.into(), started: ambient::monotonic(), connections, scans }
    }

    /// The store underneath.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who may read whole tables at the same time.
    #[must_use]
    pub fn scans(&self) -> &ScanSlots {
        &self.scans
    }

    /// The gauge of open connections, kept by the edge and shown in status.
    #[must_use]
    pub fn connections(&self) -> &Arc<AtomicUsize> {
        &self.connections
    }

    /// Judges a request and answers it, or says what remains to be done. `params` is the encoded
    /// array of parameters.
    ///
    /// # Errors
    /// A [`Failure`]. Nothing was changed; what was appended to `out` must be taken back.
    pub fn call(
        &self,
        caller: &Caller,
        method: &str,
        params: &Bytes,
        reader: &Reader,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Failure> {
        let Some(method) = Method::from_name(method) else {
            return Err(unknown(method).into());
        };
        let params = Params::new(method, params);
        match method {
            Method::Ping => self.ping(params, out),
            Method::Status => self.status(params, out),
            Method::Tables => self.tables(caller, params, out),
            Method::CreateTable => self.create_table(caller, params),
            Method::DropTable => self.drop_table(caller, params),
            Method::TableInfo => self.table_info(caller, params, out),
            Method::Put => self.put(caller, params),
            Method::Get => self.get(caller, params, reader, out),
            Method::Delete => self.delete(caller, params),
            Method::Match => self.matching(caller, params),
            Method::All => self.all(caller, params),
            Method::Keys => self.keys(caller, params),
            Method::AclGrant => self.acl_grant(caller, params),
            Method::AclRevoke => self.acl_revoke(caller, params),
            Method::AclList => self.acl_list(caller, params, out),
        }
    }

    /// The result of a committed command, as v1 clients know it.
    #[must_use]
    pub fn done(done: Done) -> &'static str {
        match done {
            Done::Created => "created",
            Done::Dropped => "dropped",
            Done::Stored | Done::Deleted | Done::Purged { .. } | Done::Stopped => "ok",
            Done::Granted => "granted",
            Done::Revoked => "revoked",
        }
    }

    fn open_connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

fn unknown(method: &str) -> Refusal {
    if Method::needs_mesh(method) {
        Refusal::MeshNotConfigured
    } else {
        Refusal::UnknownMethod(method.into())
    }
}

/// What the error slot of a reply says of a failure. Faults are worded for clients; their cause
/// is in the log.
#[must_use]
pub fn wire_error(failure: &Failure) -> String {
    match failure {
        Failure::Refused(refusal) => refusal.to_string(),
        Failure::Faulted(fault) => fault.wire().to_owned(),
    }
}
