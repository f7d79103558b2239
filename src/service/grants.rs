//! Methods on access control lists: acl_grant, acl_revoke, acl_list.
//! What a right allows is decided in `cortex_core::gate`.

use cortex_core::{
    directory::Directory,
    model::{Caller, Permissions, Refusal},
    wire::{Head, Reader, encode},
};

use super::{
    Answer, Service,
    params::Params,
    tables::{own_tables, write_permissions},
};
use crate::store::{Command, Entry, Failure, Granting};

impl Service {
    /// `acl_grant [identity, table, permissions]`.
    pub(super) fn acl_grant(&self, caller: &Caller, params: Params<'_>) -> Result<Answer, Failure> {
        Ok(Answer::Commit(Command::Grant(self.granting(caller, params)?)))
    }

    /// `acl_revoke [identity, table, permissions]`.
    pub(super) fn acl_revoke(
        &self,
        caller: &Caller,
        params: Params<'_>,
    ) -> Result<Answer, Failure> {
        Ok(Answer::Commit(Command::Revoke(self.granting(caller, params)?)))
    }

    /// `acl_list []`: the owner's own row and every grant, for each of the caller's tables.
    pub(super) fn acl_list(
        &self,
        caller: &Caller,
        params: Params<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Failure> {
        params.count(0)?;
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        let rows: Vec<_> = own_tables(caller, &catalog)
            .flat_map(|entry| rows_of(entry, directory).map(move |row| (entry, row)))
            .collect();
        encode::array(out, rows.len());
        for (entry, (identity, rights)) in rows {
            encode::map(out, 3);
            encode::str(out, "identity");
            encode::str(out, &identity);
            encode::str(out, "table");
            encode::str(out, &catalog.show(&entry.table.name));
            encode::str(out, "permissions");
            write_permissions(rights, out);
        }
        Ok(Answer::Ready)
    }

    fn granting(&self, caller: &Caller, params: Params<'_>) -> Result<Granting, Failure> {
        let mut params = params.count(3)?;
        let (identity, table, rights) = (params.text()?, params.text()?, params.raw()?);
        // Rights are decided wherever the owner is, with or without a copy.
        let entry = self.open_anywhere(caller, table, Permissions::ADMIN)?;
        let principal = self.store.catalog().directory().principal(identity)?;
        let rights = read_permissions(rights, &params)?;
        Ok(Granting { caller: caller.clone(), entry, principal, rights })
    }
}

/// Who holds which rights on a table: the owner all, then what was granted, by principal. What was granted to
/// the owner adds nothing, and a client that looks up an identity must find one row for it.
fn rows_of<'a>(
    entry: &'a Entry,
    directory: &'a Directory,
) -> impl Iterator<Item = (String, Permissions)> + 'a {
    let owner = directory.show_owner_as_principal(&entry.table.name.owner);
    let granted = entry.table.acl.iter();
    let granted = granted.map(|(principal, rights)| (directory.show_principal(principal), rights));
    let others = {
        let owner = owner.clone();
        granted.filter(move |(identity, _)| *identity != owner)
    };
    std::iter::once((owner, Permissions::ALL)).chain(others)
}

/// Permissions are `read,write` or a list of words.
fn read_permissions(encoded: &[u8], params: &Params<'_>) -> Result<Permissions, Refusal> {
    let mut reader = Reader::new(encoded);
    match reader.clone().head() {
        Some(Head::Str(_)) => {
            Permissions::parse_list(reader.text().ok_or(Refusal::InvalidPermissions)?)
        }
        Some(Head::Array(count @ 1..)) => {
            let _entered = reader.head();
            (0..count).try_fold(Permissions::NONE, |all, _| {
                let word = reader.text().ok_or(Refusal::InvalidPermissions)?;
                Ok(all.union(Permissions::parse_word(word)?))
            })
        }
        Some(Head::Array(0)) => Err(Refusal::InvalidPermissions),
        _ => Err(params.invalid()),
    }
}
