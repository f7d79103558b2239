//! Records that clients store and delete, and repairs of rows.

use cortex_core::{
    model::{Caller, Permissions},
    replication::Dot,
};

use crate::store::{
    catalog::Entry,
    command::RecordOutcome,
    error::{CommandError, StoreError},
    tx::{
        Tx, admission,
        row_table::RowTable,
        versions::{self, ExistingRow, Origin},
    },
};

/// Stores a record of a client.
pub(crate) fn put(
    tx: &mut Tx<'_>,
    caller: &Caller,
    entry: &Entry,
    key: &[u8],
    record: &[u8],
) -> Result<RecordOutcome, CommandError> {
    let entry = admission::admit(tx, caller, entry, Permissions::WRITE)?;
    entry.takes_writes()?;
    write(tx, &entry, key, Some(record))?;
    Ok(RecordOutcome::Stored)
}

/// Removes a record of a client, whether or not it is there.
pub(crate) fn delete(
    tx: &mut Tx<'_>,
    caller: &Caller,
    entry: &Entry,
    key: &[u8],
) -> Result<RecordOutcome, CommandError> {
    let entry = admission::admit(tx, caller, entry, Permissions::WRITE)?;
    entry.takes_writes()?;
    write(tx, &entry, key, None)?;
    Ok(RecordOutcome::Deleted)
}

/// A version made here and now. One that comes to nothing has drawn no number, and needs no commit.
fn write(
    tx: &mut Tx<'_>,
    entry: &Entry,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), CommandError> {
    if entry.replicated {
        return write_shared(tx, entry, key, value);
    }
    let place = RowTable::of(entry);
    let present = versions::find_present(tx, place.id, key)?;
    if present.is_none() && value.is_none() {
        return Ok(());
    }
    versions::put_version(tx, place, key, present, value, Origin::Local)?;
    Ok(())
}

/// The same in a table of which there may be other replicas: the change travels to them.
fn write_shared(
    tx: &mut Tx<'_>,
    entry: &Entry,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), CommandError> {
    let place = RowTable::of(entry);
    let found = versions::find(tx, place.id, key)?;
    if found.is_none() && value.is_none() && !may_come(tx, entry) {
        return Ok(()); // there is nothing to delete, and nobody who could have it
    }
    let present = found.as_ref().map(ExistingRow::present);
    // Before its context is stored: a refusal changes nothing.
    admission::check_quota(tx, entry, versions::difference(key, present, value))?;
    let context_id = versions::context_here(tx, place, found.as_ref())?;
    if let Some(found) = &found {
        // A table that was local while the clock was ahead may hold it, after the clock was set back.
        tx.state.clock.observe(found.stamp.hlc);
    }
    versions::put_version(tx, place, key, present, value, Origin::Shared { context_id })?;
    Ok(())
}

/// True where another replica may have a row that is not here.
fn may_come(tx: &Tx<'_>, entry: &Entry) -> bool {
    let directory = tx.state.catalog.directory();
    directory.here().is_some_and(|here| {
        let others = directory.must_confirm(entry.table.uid);
        others.keys().any(|node| node != here)
    })
}

/// Re-announces versions to all nodes, those too that claim to have them. Answers how many there
/// were.
pub(crate) fn re_announce(
    tx: &mut Tx<'_>,
    entry: &Entry,
    keys: &[Vec<u8>],
) -> Result<u64, StoreError> {
    let place = RowTable::of(entry);
    let mut pushed = 0;
    for key in keys {
        if let Some(found) = versions::find(tx, place.id, key)?.filter(|found| !found.damaged) {
            versions::re_announce(tx, place, &found)?;
            pushed += 1;
        }
    }
    Ok(pushed)
}

/// Writes versions once more, each as a new one: a replica that claims to have the old one must take it.
/// Answers how many there were.
pub(crate) fn rewrite(
    tx: &mut Tx<'_>,
    entry: &Entry,
    keys: &[Vec<u8>],
) -> Result<u64, CommandError> {
    let mut written = 0;
    for key in keys {
        let found = versions::find(tx, entry.table.id, key)?;
        let found = found.filter(|found| !found.damaged);
        if let Some(value) = found.and_then(|found| found.value) {
            write_shared(tx, entry, key, Some(&value))?;
            written += 1;
        }
    }
    Ok(written)
}

/// Deletes rows that are as they were when somebody decided about them. Answers how many there were.
pub(crate) fn erase_unchanged(
    tx: &mut Tx<'_>,
    entry: &Entry,
    rows: &[(Vec<u8>, Option<Dot>)],
) -> Result<u64, CommandError> {
    let mut erased = 0;
    for (key, seen) in rows {
        let found = versions::find(tx, entry.table.id, key)?;
        let found = found.filter(|found| !found.damaged);
        let now = found.map(|row| Dot { actor: row.stamp.actor, seq: row.seq });
        if now == *seen {
            write_shared(tx, entry, key, None)?;
            erased += 1;
        }
    }
    Ok(erased)
}

#[cfg(test)]
mod tests {
    use cortex_core::model::{AttributeName, Key, Limits, Owner, Scope, TableName, Uid};

    use super::*;
    use crate::store::{
        command::{Command, RecordCommand, TableCommand},
        database::Database,
    };

    const OWNER: Uid = Uid(1000);

    /// A table that is here alone, with a row that still has a context, as in a table made of the rows of an abandoned
    /// replica.
    fn rescued() -> (Database, impl Fn(Option<&[u8]>) -> Command) {
        let mut database = Database::in_memory(|| [7; 16]).expect("a database");
        let name = TableName::parse("notes").expect("a name");
        let create = TableCommand::CreateTable {
            caller: Caller::Local(OWNER),
            owner: Owner::Uid(OWNER),
            name: name.clone(),
            attributes: vec![AttributeName::parse("id").expect("a name")],
            scope: Scope::Local,
        };
        database.execute(&create.into(), 1).expect("made");
        let entry = database.catalog().find(&Owner::Uid(OWNER), name.as_str()).cloned();
        let entry = entry.expect("it is there");
        let write = move |record: Option<&[u8]>| {
            let (caller, entry) = (Caller::Local(OWNER), entry.clone());
            let key = Key::read(b"\xa1k", &Limits::default()).expect("a key");
            Command::from(match record {
                Some(record) => {
                    let record = record.to_vec().into();
                    RecordCommand::Put { caller, entry, key, record }
                }
                None => RecordCommand::Delete { caller, entry, key },
            })
        };
        database.execute(&write(Some(b"before")), 2).expect("stored");
        database
            .connection()
            .execute_batch(
                "INSERT INTO contexts (id, body, uses) VALUES (1, x'01', 1);
                 UPDATE records SET context = 1;",
            )
            .expect("it has a context");
        database.reload().expect("it is read");
        (database, write)
    }

    #[test]
    fn what_replaces_a_row_that_is_here_alone_gives_up_its_context() {
        for record in [Some(&b"after"[..]), None] {
            let (mut database, write) = rescued();
            database.execute(&write(record), 3).expect("written");
            let count = |sql: &str| -> i64 {
                database.connection().query_row(sql, [], |row| row.get(0)).expect("a number")
            };
            assert_eq!(count("SELECT count(*) FROM contexts"), 0, "{record:?}");
            assert_eq!(count("SELECT count(*) FROM records"), i64::from(record.is_some()));
            assert_eq!(count("SELECT count(*) FROM records WHERE context IS NOT NULL"), 0);
        }
    }
}
