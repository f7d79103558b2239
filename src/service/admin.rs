//! Methods for administrators: usage, events, reload, checkpoint.
//! An ordinary uid may see what concerns itself; the rest is for uid 0 of this machine, and for the
//! uid that the daemon runs as, which could read the database file anyway.

use cortex_core::{
    model::{Caller, Owner, Refusal, Uid},
    wire::{Head, Reader as Decoder, encode},
};
use tokio::sync::oneshot;

use super::{
    Answer, Errand, InForce, Later, Service, params::Params, tables::owner_of, tree::Tree,
};
use crate::store::{Catalog, Failure, Fault, Namespace, Reader, Recorded, Wanted};

/// Events of one answer, unless fewer are asked for.
const EVENTS: u32 = 1000;

impl Service {
    /// `usage []`: what each uid and each federated identity owns; for an ordinary caller, what
    /// they own.
    pub(super) fn usage(
        &self,
        caller: &Caller,
        params: Params<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Failure> {
        params.count(0)?;
        let catalog = self.store.catalog();
        let own = owner_of(caller).map(Owner::Uid);
        let identity = catalog.directory().identity_of_caller(caller).map(Owner::Identity);
        let seen = |owner: &Owner| {
            self.is_admin(caller) || [&own, &identity].into_iter().flatten().any(|own| own == owner)
        };
        let mut owners: Vec<_> = catalog.namespaces().filter(|(owner, _)| seen(owner)).collect();
        owners.sort_by_key(|(owner, _)| *owner);
        encode::array(out, owners.len());
        for (owner, namespace) in owners {
            write_usage(owner, &catalog, namespace, out);
        }
        Ok(Answer::Ready)
    }

    /// `events []` or `[{limit, after}]`: the newest events, the oldest of them first.
    pub(super) fn events(
        &self,
        caller: &Caller,
        params: Params<'_>,
        reader: &Reader,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Failure> {
        let mut params = params.between(0, 1)?;
        let of = if self.is_admin(caller) { None } else { Some(local_uid(caller)?) };
        let mut wanted = Wanted { of, after: 0, limit: EVENTS };
        if !params.is_empty() {
            let page = params.raw()?;
            read_page(page, &mut wanted).ok_or_else(|| params.invalid())?;
        }
        let events = reader.events(wanted)?;
        encode::array(out, events.len());
        for event in &events {
            write_event(event, out);
        }
        Ok(Answer::Ready)
    }

    /// Lets pass whoever may see and do everything.
    pub(super) fn require_admin(&self, caller: &Caller) -> Result<(), Refusal> {
        if self.is_admin(caller) { Ok(()) } else { Err(Refusal::AccessDenied) }
    }

    fn is_admin(&self, caller: &Caller) -> bool {
        [Uid::ROOT, self.own_uid].into_iter().any(|uid| *caller == Caller::Local(uid))
    }

    /// `reload []`: reads the settings again, and fails with the reason where they are wrong.
    pub(super) fn reload(&self, caller: &Caller, params: Params<'_>) -> Result<Answer, Failure> {
        params.count(0)?;
        self.require_admin(caller)?;
        let (verdict, told) = oneshot::channel();
        self.errands.try_send(Errand::Reload(verdict)).map_err(|_| Fault::Closed)?;
        Ok(Answer::later(async move {
            match told.await {
                Ok(Ok(())) => Ok(text("reloaded")),
                Ok(Err(why)) => Err(Refusal::ReloadRejected(why.into()).into()),
                Err(_) => Err(Fault::Closed.into()),
            }
        }))
    }

    /// `settings []`: by name, what is in force and where it comes from, for an administrator.
    pub(super) fn settings(&self, caller: &Caller, params: Params<'_>) -> Result<Answer, Failure> {
        params.count(0)?;
        self.require_admin(caller)?;
        let (asked, told) = oneshot::channel();
        self.errands.try_send(Errand::Settings(asked)).map_err(|_| Fault::Closed)?;
        Ok(Answer::later(async move {
            let settings = told.await.map_err(|_| Fault::Closed)?;
            let one = |InForce { name, value, source }: InForce| {
                let source = source.map_or(Tree::Nil, Tree::Text);
                (name, Tree::map([("value", Tree::Text(value)), ("source", source)]))
            };
            Ok(Tree::Map(settings.into_iter().map(one).collect()).encoded())
        }))
    }

    /// `checkpoint []`: moves the log into the database.
    pub(super) fn checkpoint(
        &self,
        caller: &Caller,
        params: Params<'_>,
    ) -> Result<Answer, Failure> {
        params.count(0)?;
        self.require_admin(caller)?;
        let (done, answer) = oneshot::channel();
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            let result = store.checkpoint().map(|()| Later::Encoded(text("ok")));
            let _gone = done.send(result.map_err(Failure::from));
        });
        Ok(Answer::Later(answer))
    }
}

fn local_uid(caller: &Caller) -> Result<Uid, Refusal> {
    owner_of(caller).ok_or(Refusal::AccessDenied)
}

fn text(result: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    encode::str(&mut encoded, result);
    encoded
}

fn read_page(encoded: &[u8], wanted: &mut Wanted) -> Option<()> {
    let mut reader = Decoder::new(encoded);
    let Some(Head::Map(count)) = reader.head() else {
        return None;
    };
    for _ in 0..count {
        match (reader.text()?, reader.head()?) {
            ("limit", Head::Int(limit)) => wanted.limit = u32::try_from(limit).ok()?.min(EVENTS),
            ("after", Head::Int(after)) => wanted.after = i64::try_from(after).ok()?,
            _ => return None,
        }
    }
    Some(())
}

fn write_usage(owner: &Owner, catalog: &Catalog, namespace: &Namespace, out: &mut Vec<u8>) {
    let numbers = [
        ("tables", namespace.tables().len() as u64),
        ("records", namespace.usage.records()),
        ("bytes", namespace.usage.bytes()),
    ];
    encode::map(out, 2 + numbers.len());
    encode::str(out, "owner");
    encode::str(out, &catalog.directory().show_owner(owner));
    encode::str(out, "uid");
    match catalog.uid_here(owner) {
        Some(uid) => encode::uint(out, uid.0.into()),
        None => encode::nil(out),
    }
    for (name, number) in numbers {
        encode::str(out, name);
        encode::uint(out, number);
    }
}

fn write_event(event: &Recorded, out: &mut Vec<u8>) {
    encode::map(out, 5);
    encode::str(out, "id");
    encode::uint(out, event.id.unsigned_abs());
    encode::str(out, "at_ms");
    encode::uint(out, event.at_ms);
    encode::str(out, "uid");
    match event.uid {
        Some(uid) => encode::uint(out, uid.0.into()),
        None => encode::nil(out),
    }
    encode::str(out, "kind");
    encode::str(out, &event.kind);
    encode::str(out, "text");
    encode::str(out, &event.text);
}
