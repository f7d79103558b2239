//! Dispatches the methods of all objects to the one request path: who asks, and with whose rights.
//! What is asked, and in which D-Bus types it is answered, is each object's.
//!
//! ```text
//!   message ──> sender's uid (from the bus) ──> Service::call as that uid ──> answer
//!                                                   │ access_denied
//!                                                   └──> polkit ──yes──> Service::call as uid 0
//! ```

use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
};

use cortex_core::{
    api::Response,
    model::{Caller, Refusal, Uid},
    wire::Method,
};
use tracing::info;
use zbus::{
    Connection,
    fdo::DBusProxy,
    message::Header,
    names::{BusName, OwnedUniqueName},
};

use super::{
    error::{Error, Result},
    polkit::{Action, Polkit},
    request::Request,
};
use crate::{
    service::{Answer, Service, mesh::Mesh},
    store::{CommandError, Reader, Store},
};

/// Senders whose uids are remembered. When there are more, all are forgotten and asked for again.
const KNOWN_SENDERS: usize = 1024;

/// A message: the connection that it came on, and its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming<'a> {
    pub(super) connection: &'a Connection,
    pub(super) header: &'a Header<'a>,
}

/// What the objects of one connection share. Holds no connection: the objects belong to it, and it
/// would never be closed.
#[derive(Debug)]
pub(super) struct Dispatcher {
    service: Arc<Service>,
    reader: Arc<Reader>,
    polkit: Arc<Polkit>,
    /// The bus never gives a unique name twice, and no connection changes its uid. Locked for a
    /// look-up.
    senders: Mutex<HashMap<OwnedUniqueName, Uid>>,
}

/// A request that has passed the gate.
#[derive(Debug)]
pub(super) struct AdmittedRequest<R> {
    caller: Uid,
    looks_up: bool,
    answer: Answer,
    out: Vec<u8>,
    response: PhantomData<fn() -> R>,
}

impl Dispatcher {
    pub(super) fn new(service: Arc<Service>, reader: Arc<Reader>, polkit: Arc<Polkit>) -> Self {
        Self { service, reader, polkit, senders: Mutex::default() }
    }

    /// The one request path.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    pub(super) fn store(&self) -> &Store {
        self.service.store()
    }

    /// The other machines; none for a node that runs alone.
    pub(super) fn mesh(&self) -> Option<&Mesh> {
        self.service.mesh()
    }

    /// True where the mesh that is configured is down: it may come up.
    pub(super) fn mesh_is_down(&self) -> bool {
        self.service.why_mesh_is_down().is_some()
    }

    /// The uid of the sender, as the bus knows it.
    pub(super) async fn uid(&self, from: Incoming<'_>) -> Result<Uid> {
        let nobody = || Error::access_denied("the sender of the message is not known");
        let sender = from.header.sender().ok_or_else(nobody)?;
        let known =
            self.senders.lock().unwrap_or_else(PoisonError::into_inner).get(&**sender).copied();
        if let Some(uid) = known {
            return Ok(uid);
        }
        let bus = DBusProxy::new(from.connection).await?;
        let asked = bus.get_connection_unix_user(BusName::from(sender.clone())).await;
        let uid = Uid(asked.map_err(|_| nobody())?);
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if senders.len() >= KNOWN_SENDERS {
            senders.clear();
        }
        senders.insert(sender.clone().into(), uid);
        Ok(uid)
    }

    /// Carries a request out with the rights of a uid.
    pub(super) async fn ask_as<R: Response>(&self, uid: Uid, request: &Request<R>) -> Result<R> {
        let begun = self.begin_as(uid, request)?;
        self.end(begun).await
    }

    /// Carries a request out with the sender's rights, and no others.
    pub(super) async fn ask<R: Response>(
        &self,
        from: Incoming<'_>,
        request: &Request<R>,
    ) -> Result<R> {
        self.ask_as(self.uid(from).await?, request).await
    }

    /// Carries a request out with the sender's rights, or with root's where polkit says so.
    pub(super) async fn manage<R: Response>(
        &self,
        from: Incoming<'_>,
        action: Action,
        request: &Request<R>,
    ) -> Result<R> {
        let begun = self.begin(from, action, request).await?;
        self.end(begun).await
    }

    /// Lets a request pass the gate: with the sender's rights, or with root's where polkit says so.
    /// Nothing is changed before [`Dispatcher::end`].
    pub(super) async fn begin<R: Response>(
        &self,
        from: Incoming<'_>,
        action: Action,
        request: &Request<R>,
    ) -> Result<AdmittedRequest<R>> {
        let uid = self.uid(from).await?;
        match self.begin_as(uid, request) {
            Err(error) if error.is_access_denied() => {
                self.authorise(from, uid, action, request.method).await?;
                self.begin_as(Uid::ROOT, request)
            }
            outcome => outcome,
        }
    }

    /// Carries a request out whose gate is at its end: with the sender's rights, or, where these do not
    /// suffice and polkit says so, with root's, who may have to name the table in another way. A refusal has
    /// changed nothing, so there is nothing to take back in between.
    pub(super) async fn try_then_manage<R: Response>(
        &self,
        from: Incoming<'_>,
        action: Action,
        own: &Request<R>,
        roots: &Request<R>,
    ) -> Result<R> {
        let uid = self.uid(from).await?;
        match self.ask_as(uid, own).await {
            Err(error) if error.is_want_of_rights() => {
                let authorised = self.authorise(from, uid, action, own.method).await;
                // The first no says more than the second.
                authorised.map_err(|no| if no.is_access_denied() { error } else { no })?;
                self.ask_as(Uid::ROOT, roots).await
            }
            outcome => outcome,
        }
    }

    async fn authorise(
        &self,
        from: Incoming<'_>,
        uid: Uid,
        action: Action,
        method: Method,
    ) -> Result<()> {
        self.polkit.check(from, uid, action).await?;
        info!(%uid, action = action.id(), method = method.name(), "polkit has authorised {} for uid {uid}", method.name());
        Ok(())
    }

    /// Carries out what has passed the gate.
    pub(super) async fn end<R: Response>(&self, begun: AdmittedRequest<R>) -> Result<R> {
        let AdmittedRequest { caller, looks_up, answer, out, response: _ } = begun;
        let ended = self.service.end(&Caller::Local(caller), answer, out).await;
        let result = ended.map_err(|failure| error_for(caller, looks_up, failure))?;
        // What cannot be read is a defect: both sides are ours.
        R::read(&result).map_err(Error::failed)
    }

    fn begin_as<R: Response>(&self, uid: Uid, request: &Request<R>) -> Result<AdmittedRequest<R>> {
        let Request { method, looks_up, ref params, .. } = *request;
        let mut out = Vec::new();
        let caller = Caller::Local(uid);
        match self.service.call(&caller, method.name(), params, &self.reader, &mut out) {
            Ok(answer) => {
                Ok(AdmittedRequest { caller: uid, looks_up, answer, out, response: PhantomData })
            }
            Err(failure) => Err(error_for(uid, looks_up, failure)),
        }
    }
}

/// Root reads every table, so one that root cannot look up is not there. Others must not learn which of the two it
/// is. What root may not decide about is there all the same: elsewhere it is its owner's alone.
fn error_for(uid: Uid, looks_up: bool, failure: CommandError) -> Error {
    let denied = matches!(failure, CommandError::Refused(Refusal::AccessDenied));
    if denied && uid == Uid::ROOT && looks_up { Error::no_such_table() } else { failure.into() }
}
