//! Methods on access control lists: acl_grant, acl_revoke, acl_list.
//! What a right allows is decided in `cortex_core::gate`.

use bytes::Bytes;
use cortex_core::{
    api::{self, TableGrant, TextOrList},
    directory::Directory,
    model::{Caller, Permissions, Refusal},
};

use super::{Answer, Service, read, tables::own_tables};
use crate::store::{CommandError, Entry, Granting, TableCommand};

impl Service {
    /// `acl_grant [identity, table, permissions]`.
    pub(super) fn acl_grant(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::AclGrant { identity, table, permissions } = read(params)?;
        let granting = self.granting(caller, identity, table, &permissions)?;
        Ok(Answer::commit(TableCommand::Grant(granting)))
    }

    /// `acl_revoke [identity, table, permissions]`.
    pub(super) fn acl_revoke(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::AclRevoke { identity, table, permissions } = read(params)?;
        let granting = self.granting(caller, identity, table, &permissions)?;
        Ok(Answer::commit(TableCommand::Revoke(granting)))
    }

    /// `acl_list []`: the owner's own row and every grant, for each of the caller's tables.
    pub(super) fn acl_list(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Vec<TableGrant>, CommandError> {
        let api::AclList {} = read(params)?;
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        let rows = own_tables(caller, &catalog).flat_map(|entry| {
            rows_of(entry, directory).map(|(identity, rights)| TableGrant {
                identity,
                table: catalog.show(&entry.table.name),
                permissions: names(rights),
            })
        });
        Ok(rows.collect())
    }

    fn granting(
        &self,
        caller: &Caller,
        identity: &str,
        table: &str,
        permissions: &TextOrList<'_>,
    ) -> Result<Granting, CommandError> {
        // Rights are decided wherever the owner is, with or without a replica.
        let entry = self.open_anywhere(caller, table, Permissions::ADMIN)?;
        let principal = self.store.catalog().directory().principal(identity)?;
        let rights = parse_permissions(permissions)?;
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
fn parse_permissions(words: &TextOrList<'_>) -> Result<Permissions, Refusal> {
    match words {
        TextOrList::Text(text) => Permissions::parse_list(text),
        TextOrList::List(words) if !words.is_empty() => words
            .iter()
            .try_fold(Permissions::NONE, |all, word| Ok(all.union(Permissions::parse_name(word)?))),
        TextOrList::List(_) | TextOrList::Invalid => Err(Refusal::InvalidPermissions),
    }
}

/// Rights as answers show them.
pub(super) fn names(rights: Permissions) -> Vec<String> {
    rights.names().map(str::to_owned).collect()
}
