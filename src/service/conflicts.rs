//! Methods on conflicts: versions that have lost against another although neither writer had seen the other's.
//! Which of two versions wins is `cortex_core::merge`; keeping the losing one, the store's.

use cortex_core::{
    directory::Directory,
    model::{ActorId, Caller, Key, Permissions, Refusal, Stamp},
    wire::{Head, Reader as Decoder, encode},
};

use super::{
    Answer, Service,
    params::{self, Params},
    tree::Tree,
};
use crate::store::{Command, Conflict, Done, Entry, Failure, Reader, Store};

/// Conflicts of one answer: unless fewer or more are asked for, and at most.
const LISTED: u32 = 100;
const MOST_LISTED: u32 = 1000;

impl Service {
    /// `conflicts []`: how many there are of each table; `[table]` or `[table, {limit, before}]`: those of one,
    /// the newest first.
    pub(super) fn conflicts(
        &self,
        caller: &Caller,
        params: Params<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Failure> {
        let mut params = params.between(0, 2)?;
        if params.is_empty() {
            self.count_of_each(caller).write(out);
            return Ok(Answer::Ready);
        }
        let table = params.text()?;
        let (mut limit, mut before) = (LISTED, i64::MAX);
        if let Some(options) = params.optional()? {
            params::each_option(options, |name, value| {
                match (name, value) {
                    ("limit", Head::Int(n)) => limit = u32::try_from(n).ok()?.min(MOST_LISTED),
                    ("before", Head::Int(id)) => before = i64::try_from(id).ok()?,
                    ("limit" | "before", Head::Nil) => {}
                    _ => return None,
                }
                Some(())
            })
            .ok_or_else(|| params.invalid())?;
        }
        let entry = self.open(caller, table, Permissions::READ)?;
        let store = self.store.clone();
        Ok(Answer::later(blocking(move || {
            let found = store.conflicts(entry.table.id, before, limit)?;
            let catalog = store.catalog();
            let listed =
                found.iter().map(|conflict| Tree::Map(shown(conflict, catalog.directory())));
            Ok(Tree::List(listed.collect()).encoded())
        })))
    }

    fn count_of_each(&self, caller: &Caller) -> Tree {
        let counted = self.replicated_for(caller).into_iter().filter_map(|entry| {
            let copies = self.copies_of(&entry);
            let evicted = copies.copy.as_ref().map_or(0, |copy| copy.conflicts_evicted);
            let elsewhere = copies.others.iter().filter_map(|other| {
                let count = other.conflicts.filter(|count| *count > 0)?;
                let node = other.node.as_str().into();
                Some(Tree::map([("node", node), ("conflicts", count.into())]))
            });
            let elsewhere: Vec<Tree> = elsewhere.collect();
            let (name, open) = (copies.name.as_str(), copies.conflicts());
            (open + evicted > 0 || !elsewhere.is_empty()).then(|| {
                Tree::map([
                    ("table", name.into()),
                    ("conflicts", open.into()),
                    ("evicted", evicted.into()),
                    ("elsewhere", Tree::List(elsewhere)),
                ])
            })
        });
        Tree::List(counted.collect())
    }

    /// `conflict_show [table, id]`: one of them, with the version that has lost and the record of now.
    pub(super) fn conflict_show(
        &self,
        caller: &Caller,
        params: Params<'_>,
        reader: &Reader,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Failure> {
        let mut params = params.count(2)?;
        let (table, id) = (params.text()?, read_id(&mut params)?);
        let entry = self.open(caller, table, Permissions::READ)?;
        entry.takes_reads()?;
        let conflict = find(&self.store, &entry, id)?;
        let mut current = Tree::Nil;
        reader.get(entry.table.id, &conflict.key, |now| current = Tree::Encoded(now.to_vec()))?;
        let catalog = self.store.catalog();
        let mut fields = shown(&conflict, catalog.directory());
        fields.push(("record", conflict.value.map_or(Tree::Nil, Tree::Encoded)));
        fields.push(("current", current));
        Tree::Map(fields).write(out);
        Ok(Answer::Ready)
    }

    /// `conflict_restore [table, id]`: writes the version that has lost once more, on top of the record of now.
    pub(super) fn conflict_restore(
        &self,
        caller: &Caller,
        params: Params<'_>,
    ) -> Result<Answer, Failure> {
        let mut params = params.count(2)?;
        let (table, id) = (params.text()?, read_id(&mut params)?);
        let entry = self.open(caller, table, Permissions::WRITE)?;
        let Conflict { key, value, .. } = find(&self.store, &entry, id)?;
        let mut encoded = Vec::new();
        encode::str_bytes(&mut encoded, &key);
        let key = Key::read(&encoded, &self.store.limits())?;
        let (caller, store) = (caller.clone(), self.store.clone());
        Ok(Answer::later(async move {
            let (by, of) = (caller.clone(), entry.clone());
            let write = match value {
                Some(record) => Command::Put { caller: by, entry: of, key, record: record.into() },
                None => Command::Delete { caller: by, entry: of, key },
            };
            store.execute(write).await?;
            store.execute(Command::Acknowledge { caller, entry, conflict: Some(id) }).await?;
            Ok(Tree::from("restored").encoded())
        }))
    }

    /// `conflict_ack [table]` or `[table, id]`: takes note of all conflicts of a table, or of one.
    pub(super) fn conflict_ack(
        &self,
        caller: &Caller,
        params: Params<'_>,
    ) -> Result<Answer, Failure> {
        let mut params = params.between(1, 2)?;
        let table = params.text()?;
        let id = match params.optional()? {
            None => None,
            Some(id) => match Decoder::new(id).head() {
                Some(Head::Nil) => None,
                Some(Head::Int(id)) => Some(i64::try_from(id).map_err(|_| params.invalid())?),
                _ => return Err(params.invalid().into()),
            },
        };
        let entry = self.open(caller, table, Permissions::WRITE)?;
        if let Some(id) = id {
            find(&self.store, &entry, id)?;
        }
        let (caller, store) = (caller.clone(), self.store.clone());
        Ok(Answer::later(async move {
            let done = store.execute(Command::Acknowledge { caller, entry, conflict: id }).await?;
            let count = if let Done::Acknowledged { count } = done { count } else { 0 };
            Ok(Tree::map([("acknowledged", count.into())]).encoded())
        }))
    }
}

/// Reads that may take a while, away from the threads that serve connections.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or(Err(crate::store::Fault::Closed.into()))
}

fn read_id(params: &mut Params<'_>) -> Result<i64, Refusal> {
    match Decoder::new(params.raw()?).head() {
        Some(Head::Int(id)) => i64::try_from(id).map_err(|_| params.invalid()),
        _ => Err(params.invalid()),
    }
}

fn find(store: &Store, entry: &Entry, id: i64) -> Result<Conflict, Failure> {
    let newest = store.conflicts(entry.table.id, id.saturating_add(1), 1)?;
    let found = newest.into_iter().find(|conflict| conflict.id == id);
    Ok(found.ok_or(Refusal::NotFound)?)
}

fn shown(conflict: &Conflict, directory: &Directory) -> Vec<(&'static str, Tree)> {
    let version = |stamp: Stamp| {
        [("written_ms", stamp.hlc.unix_ms().into()), ("by", writer(directory, stamp.actor).into())]
    };
    let [written_ms, by] = version(conflict.stamp);
    vec![
        ("id", conflict.id.unsigned_abs().into()),
        ("key", String::from_utf8_lossy(&conflict.key).into_owned().into()),
        ("deleted", conflict.value.is_none().into()),
        ("bytes", (conflict.value.as_ref().map_or(0, Vec::len) as u64).into()),
        written_ms,
        by,
        ("winner", Tree::map(version(conflict.winner))),
        ("seen_ms", conflict.seen_ms.into()),
        ("acknowledged", conflict.acknowledged.into()),
    ]
}

/// The node whose database writes as that origin now; none for an origin of earlier.
pub(super) fn writer(directory: &Directory, origin: ActorId) -> Option<&str> {
    if origin == ActorId::default() {
        return None;
    }
    let known = directory.known_nodes().find(|row| row.actor == origin);
    known.map(|row| row.node.as_str())
}
