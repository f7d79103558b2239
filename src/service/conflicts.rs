//! Methods on conflicts: versions that have lost against another although neither writer had seen the other's.
//! Which of two versions wins is `cortex_core::replication::resolve`; keeping the losing one, the store's.

use bytes::Bytes;
use cortex_core::{
    api::{
        self, Acknowledged, ConflictCount, ConflictList, ConflictReport, ConflictsElsewhere,
        RawValue, Version,
    },
    directory::Directory,
    model::{ActorId, Caller, Key, Permissions, Refusal, Stamp},
    wire::encode,
};

use super::{Answer, Service, read, ready};
use crate::store::{
    CommandError, Conflict, Entry, Reader, RecordCommand, RecordOutcome, Store, blocking,
};

/// Conflicts of one answer: unless fewer or more are asked for, and at most.
const LISTED: u32 = 100;
const MOST_LISTED: u32 = 1000;

impl Service {
    /// `conflicts []`: how many there are of each table; `[table]` or `[table, {limit, before}]`: those of one,
    /// the newest first.
    pub(super) fn conflicts(
        &self,
        caller: &Caller,
        params: &Bytes,
        out: &mut Vec<u8>,
    ) -> Result<Answer, CommandError> {
        let api::Conflicts { table, options } = read(params)?;
        let Some(table) = table else {
            return ready(out, &ConflictList::Counts(self.count_of_each(caller)));
        };
        let limit = options.limit.unwrap_or(LISTED).min(MOST_LISTED);
        let before = options.before.unwrap_or(i64::MAX);
        let entry = self.open(caller, table, Permissions::READ)?;
        let store = self.store.clone();
        Ok(Answer::later(blocking(move || {
            let found = store.conflicts(entry.table.id, before, limit)?;
            let catalog = store.catalog();
            let listed = found.iter().map(|conflict| shown(conflict, catalog.directory()));
            Ok(ConflictList::Conflicts(listed.collect()))
        })))
    }

    fn count_of_each(&self, caller: &Caller) -> Vec<ConflictCount> {
        let counted = self.replicated_for(caller).into_iter().map(|entry| {
            let replicas = self.replicas_of(&entry);
            let elsewhere = replicas.others.iter().filter_map(|other| {
                let conflicts = other.conflicts.filter(|count| *count > 0)?;
                Some(ConflictsElsewhere { node: other.node.to_string(), conflicts })
            });
            ConflictCount {
                conflicts: replicas.conflicts(),
                evicted: replicas.replica.as_ref().map_or(0, |replica| replica.conflicts_evicted),
                elsewhere: elsewhere.collect(),
                table: replicas.name,
            }
        });
        counted.filter(|of| of.conflicts + of.evicted > 0 || !of.elsewhere.is_empty()).collect()
    }

    /// `conflict_show [table, id]`: one of them, with the version that has lost and the record of now.
    pub(super) fn conflict_show(
        &self,
        caller: &Caller,
        params: &Bytes,
        reader: &Reader,
    ) -> Result<ConflictReport, CommandError> {
        let api::ConflictShow { table, id } = read(params)?;
        let entry = self.open(caller, table, Permissions::READ)?;
        entry.takes_reads()?;
        let found = find(&self.store, &entry, id)?;
        let mut current = None;
        reader.get(entry.table.id, &found.key, |now| current = Some(RawValue(now.to_vec())))?;
        let conflict = shown(&found, self.store.catalog().directory());
        Ok(ConflictReport { conflict, record: found.value.map(RawValue), current })
    }

    /// `conflict_restore [table, id]`: writes the version that has lost once more, on top of the record of now.
    pub(super) fn conflict_restore(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::ConflictRestore { table, id } = read(params)?;
        let entry = self.open(caller, table, Permissions::WRITE)?;
        let Conflict { key, value, .. } = find(&self.store, &entry, id)?;
        let mut encoded = Vec::new();
        encode::str_bytes(&mut encoded, &key);
        let key = Key::read(&encoded, &self.store.limits())?;
        let (caller, store) = (caller.clone(), self.store.clone());
        Ok(Answer::later(async move {
            let (by, of) = (caller.clone(), entry.clone());
            let write = match value {
                Some(record) => {
                    RecordCommand::Put { caller: by, entry: of, key, record: record.into() }
                }
                None => RecordCommand::Delete { caller: by, entry: of, key },
            };
            store.execute(write).await?;
            store.execute(RecordCommand::Acknowledge { caller, entry, conflict: Some(id) }).await?;
            Ok("restored".to_owned())
        }))
    }

    /// `conflict_ack [table]` or `[table, id]`: takes note of all conflicts of a table, or of one.
    pub(super) fn conflict_ack(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::ConflictAck { table, id } = read(params)?;
        let entry = self.open(caller, table, Permissions::WRITE)?;
        if let Some(id) = id {
            find(&self.store, &entry, id)?;
        }
        let (caller, store) = (caller.clone(), self.store.clone());
        Ok(Answer::later(async move {
            let done =
                store.execute(RecordCommand::Acknowledge { caller, entry, conflict: id }).await?;
            let acknowledged =
                if let RecordOutcome::Acknowledged { count } = done { count } else { 0 };
            Ok(Acknowledged { acknowledged })
        }))
    }
}

fn find(store: &Store, entry: &Entry, id: i64) -> Result<Conflict, CommandError> {
    let newest = store.conflicts(entry.table.id, id.saturating_add(1), 1)?;
    let found = newest.into_iter().find(|conflict| conflict.id == id);
    Ok(found.ok_or(Refusal::NotFound)?)
}

fn shown(conflict: &Conflict, directory: &Directory) -> api::Conflict {
    let version = |stamp: Stamp| Version {
        written_ms: stamp.hlc.unix_ms(),
        by: writer(directory, stamp.actor).map(str::to_owned),
    };
    let Version { written_ms, by } = version(conflict.stamp);
    api::Conflict {
        id: conflict.id,
        key: String::from_utf8_lossy(&conflict.key).into_owned(),
        deleted: conflict.value.is_none(),
        bytes: conflict.value.as_ref().map_or(0, Vec::len) as u64,
        written_ms,
        by,
        winner: version(conflict.winner),
        seen_ms: conflict.seen_ms,
        acknowledged: conflict.acknowledged,
    }
}

/// The node whose database writes as that actor now; none for one that was rotated since.
pub(super) fn writer(directory: &Directory, actor: ActorId) -> Option<&str> {
    if actor == ActorId::default() {
        return None;
    }
    let known = directory.known_nodes().find(|row| row.actor == actor);
    known.map(|row| row.node.as_str())
}
