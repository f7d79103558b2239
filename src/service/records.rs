//! Methods on single records: put, get, delete; and on lists of them: all, keys, match.
//! Lists of them are made in `listing`.

use cortex_core::model::{Caller, Key, Permissions, Refusal};

use super::{
    Answer, Service,
    listing::{self, Listing},
    params::Params,
};
use crate::store::{Command, Failure, Reader};

impl Service {
    /// `put [table, record]`.
    pub(super) fn put(&self, caller: &Caller, params: Params<'_>) -> Result<Answer, Failure> {
        let mut params = params.count(2)?;
        let (table, record) = (params.text()?, params.bytes()?);
        let entry = self.open(caller, table, Permissions::WRITE)?;
        let field = entry.table.key_field().as_str();
        let key = Key::of_record(&record, field, &self.store.limits())
            .ok_or_else(|| params.invalid())??;
        Ok(Answer::Commit(Command::Put { caller: caller.clone(), entry, key, record }))
    }

    /// `get [table, key]`.
    pub(super) fn get(
        &self,
        caller: &Caller,
        params: Params<'_>,
        reader: &Reader,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Failure> {
        let mut params = params.count(2)?;
        let (table, key) = (params.text()?, params.raw()?);
        let entry = self.open(caller, table, Permissions::READ)?;
        entry.takes_reads()?;
        // What cannot be a key is the key of no record.
        let key = Key::read(key, &self.store.limits()).map_err(|_| Refusal::NotFound)?;
        let found =
            reader.get(entry.table.id, key.as_bytes(), |record| out.extend_from_slice(record))?;
        if found { Ok(Answer::Ready) } else { Err(Refusal::NotFound.into()) }
    }

    /// `delete [table, key]`.
    pub(super) fn delete(&self, caller: &Caller, params: Params<'_>) -> Result<Answer, Failure> {
        let mut params = params.count(2)?;
        let (table, key) = (params.text()?, params.raw()?);
        let entry = self.open(caller, table, Permissions::WRITE)?;
        let key = Key::read(key, &self.store.limits())?;
        Ok(Answer::Commit(Command::Delete { caller: caller.clone(), entry, key }))
    }

    /// `all [table]` or `[table, {limit, after}]`.
    pub(super) fn all(&self, caller: &Caller, params: Params<'_>) -> Result<Answer, Failure> {
        let mut params = params.between(1, 2)?;
        let table = params.text()?;
        self.list(caller, table, listing::What::All, params)
    }

    /// `keys [table]` or `[table, {limit, after}]`.
    pub(super) fn keys(&self, caller: &Caller, params: Params<'_>) -> Result<Answer, Failure> {
        let mut params = params.between(1, 2)?;
        let table = params.text()?;
        self.list(caller, table, listing::What::Keys, params)
    }

    /// `match [table, pattern]` or `[table, pattern, {limit, after}]`.
    pub(super) fn matching(&self, caller: &Caller, params: Params<'_>) -> Result<Answer, Failure> {
        let mut params = params.between(2, 3)?;
        let (table, pattern) = (params.text()?, params.bytes()?);
        self.list(caller, table, listing::What::Matching(pattern), params)
    }

    fn list(
        &self,
        caller: &Caller,
        table: &str,
        what: listing::What,
        mut params: Params<'_>,
    ) -> Result<Answer, Failure> {
        let page = params.optional()?;
        let page = listing::Page::read(page).ok_or_else(|| params.invalid())?;
        if !what.is_well_formed() {
            return Err(params.invalid().into());
        }
        let entry = self.open(caller, table, Permissions::READ)?;
        entry.takes_reads()?;
        let listing = Listing::new(self.store.clone(), entry.table.id, what, page);
        Ok(Answer::List(Box::new(listing)))
    }
}
