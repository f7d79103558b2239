//! Methods on single records: put, get, delete; and on lists of them: all, keys, match.
//! Lists of them are made in `listing`.

use bytes::Bytes;
use cortex_core::{
    api::{self, Raw, Request as _},
    model::{Caller, Key, Permissions, Refusal},
};

use super::{
    Answer, Service,
    listing::{ListSelection, Listing, Page},
    read,
};
use crate::store::{CommandError, Reader, RecordCommand};

impl Service {
    /// `put [table, record]`.
    pub(super) fn put(&self, caller: &Caller, params: &Bytes) -> Result<Answer, CommandError> {
        let api::Put { table, record: Raw(record) } = read(params)?;
        let entry = self.open(caller, table, Permissions::WRITE)?;
        let field = entry.table.key_field().as_str();
        let key =
            Key::of_record(record, field, &self.store.limits()).ok_or_else(api::Put::invalid)??;
        let record = params.slice_ref(record);
        Ok(Answer::commit(RecordCommand::Put { caller: caller.clone(), entry, key, record }))
    }

    /// `get [table, key]`.
    pub(super) fn get(
        &self,
        caller: &Caller,
        params: &Bytes,
        reader: &Reader,
        out: &mut Vec<u8>,
    ) -> Result<Answer, CommandError> {
        let api::Get { table, key: Raw(key) } = read(params)?;
        let entry = self.open(caller, table, Permissions::READ)?;
        entry.takes_reads()?;
        // What cannot be a key is the key of no record.
        let key = Key::read(key, &self.store.limits()).map_err(|_| Refusal::NotFound)?;
        let found =
            reader.get(entry.table.id, key.as_bytes(), |record| out.extend_from_slice(record))?;
        if found { Ok(Answer::Ready) } else { Err(Refusal::NotFound.into()) }
    }

    /// `delete [table, key]`.
    pub(super) fn delete(&self, caller: &Caller, params: &Bytes) -> Result<Answer, CommandError> {
        let api::Delete { table, key: Raw(key) } = read(params)?;
        let entry = self.open(caller, table, Permissions::WRITE)?;
        let key = Key::read(key, &self.store.limits())?;
        Ok(Answer::commit(RecordCommand::Delete { caller: caller.clone(), entry, key }))
    }

    /// `all [table]` or `[table, {limit, after}]`.
    pub(super) fn all(&self, caller: &Caller, params: &Bytes) -> Result<Answer, CommandError> {
        let api::All { table, page } = read(params)?;
        self.list(caller, table, ListSelection::All, page, api::All::invalid)
    }

    /// `keys [table]` or `[table, {limit, after}]`.
    pub(super) fn keys(&self, caller: &Caller, params: &Bytes) -> Result<Answer, CommandError> {
        let api::Keys { table, page } = read(params)?;
        self.list(caller, table, ListSelection::Keys, page, api::Keys::invalid)
    }

    /// `match [table, pattern]` or `[table, pattern, {limit, after}]`.
    pub(super) fn matching(&self, caller: &Caller, params: &Bytes) -> Result<Answer, CommandError> {
        let api::Match { table, pattern: Raw(pattern), page } = read(params)?;
        let what = ListSelection::Matching(params.slice_ref(pattern));
        self.list(caller, table, what, page, api::Match::invalid)
    }

    fn list(
        &self,
        caller: &Caller,
        table: &str,
        what: ListSelection,
        page: api::Page<'_>,
        invalid: fn() -> Refusal,
    ) -> Result<Answer, CommandError> {
        let page = Page::of(page).filter(|_| what.is_well_formed()).ok_or_else(invalid)?;
        let entry = self.open(caller, table, Permissions::READ)?;
        entry.takes_reads()?;
        let listing = Listing::new(self.store.clone(), entry.table.id, what, page);
        Ok(Answer::List(Box::new(listing)))
    }
}
