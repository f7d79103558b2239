//! Methods for administrators: usage, events, reload, checkpoint.
//! An ordinary uid may see what concerns itself; the rest is for uid 0 of this machine, and for the
//! uid that the daemon runs as, which could read the database file anyway.

use bytes::Bytes;
use cortex_core::{
    api::{self, Event, Named, OwnerUsage, Setting},
    model::{Caller, Owner, Refusal, Uid},
};
use tokio::sync::oneshot;

use super::{Answer, DaemonRequest, EffectiveSetting, Service, read, tables::owner_of};
use crate::store::{
    Catalog, CommandError, EventFilter, EventRecord, Namespace, Reader, StoreError, blocking,
};

/// Events of one answer, unless fewer are asked for.
const EVENTS: u32 = 1000;

impl Service {
    /// `usage []`: what each uid and each federated identity owns; for an ordinary caller, what
    /// they own.
    pub(super) fn usage(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Vec<OwnerUsage>, CommandError> {
        let api::Usage {} = read(params)?;
        let catalog = self.store.catalog();
        let own = owner_of(caller).map(Owner::Uid);
        let identity = catalog.directory().identity_of_caller(caller).map(Owner::Identity);
        let seen = |owner: &Owner| {
            self.is_admin(caller) || [&own, &identity].into_iter().flatten().any(|own| own == owner)
        };
        let mut owners: Vec<_> = catalog.namespaces().filter(|(owner, _)| seen(owner)).collect();
        owners.sort_by_key(|(owner, _)| *owner);
        Ok(owners.into_iter().map(|(owner, namespace)| used(owner, &catalog, namespace)).collect())
    }

    /// `events []` or `[{limit, after}]`: the newest events, the oldest of them first.
    pub(super) fn events(
        &self,
        caller: &Caller,
        params: &Bytes,
        reader: &Reader,
    ) -> Result<Vec<Event>, CommandError> {
        let api::Events { options } = read(params)?;
        let of = if self.is_admin(caller) { None } else { Some(local_uid(caller)?) };
        let limit = options.limit.unwrap_or(EVENTS).min(EVENTS);
        let events = reader.events(EventFilter { uid: of, after: options.after, limit })?;
        Ok(events.into_iter().map(shown).collect())
    }

    /// Lets administrators pass.
    pub(super) fn require_admin(&self, caller: &Caller) -> Result<(), Refusal> {
        if self.is_admin(caller) { Ok(()) } else { Err(Refusal::AccessDenied) }
    }

    fn is_admin(&self, caller: &Caller) -> bool {
        [Uid::ROOT, self.own_uid].into_iter().any(|uid| *caller == Caller::Local(uid))
    }

    /// `reload []`: reads the settings again, and fails with the reason where they are wrong.
    pub(super) fn reload(&self, caller: &Caller, params: &Bytes) -> Result<Answer, CommandError> {
        let api::Reload {} = read(params)?;
        self.require_admin(caller)?;
        let (reply, result) = oneshot::channel();
        self.daemon_requests
            .try_send(DaemonRequest::Reload(reply))
            .map_err(|_| StoreError::Closed)?;
        Ok(Answer::later(async move {
            match result.await {
                Ok(Ok(())) => Ok("reloaded".to_owned()),
                Ok(Err(why)) => Err(Refusal::ReloadRejected(why.into()).into()),
                Err(_) => Err(StoreError::Closed.into()),
            }
        }))
    }

    /// `settings []`: by name, what is in force and where it comes from, for an administrator.
    pub(super) fn settings(&self, caller: &Caller, params: &Bytes) -> Result<Answer, CommandError> {
        let api::Settings {} = read(params)?;
        self.require_admin(caller)?;
        let (reply, result) = oneshot::channel();
        self.daemon_requests
            .try_send(DaemonRequest::Settings(reply))
            .map_err(|_| StoreError::Closed)?;
        Ok(Answer::later(async move {
            let settings = result.await.map_err(|_| StoreError::Closed)?;
            let one = |EffectiveSetting { name, value, source }| {
                (name.to_owned(), Setting { value, source })
            };
            Ok(Named(settings.into_iter().map(one).collect()))
        }))
    }

    /// `checkpoint []`: moves the log into the database.
    pub(super) fn checkpoint(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::Checkpoint {} = read(params)?;
        self.require_admin(caller)?;
        let store = self.store.clone();
        Ok(Answer::later(blocking(move || {
            store.checkpoint()?;
            Ok("ok".to_owned())
        })))
    }
}

fn local_uid(caller: &Caller) -> Result<Uid, Refusal> {
    owner_of(caller).ok_or(Refusal::AccessDenied)
}

fn used(owner: &Owner, catalog: &Catalog, namespace: &Namespace) -> OwnerUsage {
    OwnerUsage {
        owner: catalog.directory().show_owner(owner),
        uid: catalog.uid_here(owner).map(|uid| uid.0),
        tables: namespace.tables().len() as u64,
        records: namespace.usage.records(),
        bytes: namespace.usage.bytes(),
    }
}

fn shown(event: EventRecord) -> Event {
    let EventRecord { id, at_ms, uid, kind, text } = event;
    Event { id: id.unsigned_abs(), at_ms, uid: uid.map(|uid| uid.0), kind, text }
}
