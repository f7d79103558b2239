//! Methods on tables as wholes: tables, create_table, drop_table, table_info.
//! Their rows are `records` and `listing`.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use cortex_core::{
    api::{
        self, Attributes, Grant, NodeScope, Request as _, TableList, TableReport, TableSummary,
        TextOrList,
    },
    directory::Directory,
    gate,
    model::{
        Acl, AttributeName, Caller, Limits, Owner, Permissions, Principal, Refusal, Scope,
        TableName, TableRef, Uid,
    },
};

use super::{Answer, Service, grants::names, read};
use crate::store::{Catalog, CommandError, Entry, Namespace, TableCommand};

impl Service {
    /// `tables []`: the caller's own tables, by their short names, and those of their federated
    /// identity by their full ones. `tables [{all: true}]`: every table that the caller may read,
    /// by its full name. With `{details: true}` each with how it is, those among them of which nothing is here.
    pub(super) fn tables(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<TableList, CommandError> {
        let api::Tables { options: api::TablesOptions { all, details } } = read(params)?;
        let catalog = self.store.catalog();
        let shown = |entry: &Entry| match &entry.table.name.owner {
            Owner::Uid(_) if !all => entry.table.name.name.to_string(),
            Owner::Uid(_) | Owner::Identity(_) | Owner::Remote(..) => {
                catalog.show(&entry.table.name)
            }
        };
        let here: Vec<&Arc<Entry>> =
            if all { readable(caller, &catalog) } else { own_tables(caller, &catalog).collect() };
        // What belongs to nobody is for root to look after.
        let orphans = if all { Vec::new() } else { orphans(caller, &catalog) };
        if !details {
            let names = here.into_iter().chain(&orphans).map(|entry| shown(entry));
            return Ok(TableList::Names(names.collect()));
        }
        let mut elsewhere = tables_elsewhere(caller, &catalog, all);
        elsewhere.extend(orphans);
        let described = here.into_iter().chain(&elsewhere);
        let described = described.map(|entry| self.describe(entry, shown(entry)));
        Ok(TableList::Details(described.collect()))
    }

    fn describe(&self, entry: &Arc<Entry>, table: String) -> TableSummary {
        let replicas = self.replicas_of(entry);
        let catalog = self.store.catalog();
        TableSummary {
            table,
            id: entry.table.uid.to_string(),
            orphaned: gate::is_orphaned(&entry.table, catalog.directory()),
            node_scope: NodeScope::from(&entry.table.scope),
            state: replicas.here.into(),
            records: entry.usage.records(),
            bytes: entry.usage.bytes(),
            conflicts: replicas.conflicts(),
        }
    }

    /// `create_table [name, [attributes]]` or `[name, [attributes], scope]`.
    pub(super) fn create_table(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::CreateTable { name, attributes, scope } = read(params)?;
        let catalog = self.store.catalog();
        let (owner, name) = own_name(caller, name, catalog.directory())?;
        let attributes = parse_attributes(&attributes)?;
        let scope = scope.map(|scope| parse_scope(&scope)).transpose()?;
        let scope = scope.unwrap_or(match owner {
            Owner::Identity(_) => Scope::All,
            Owner::Uid(_) | Owner::Remote(..) => Scope::Local,
        });
        self.check_scope(&scope)?;
        if let (Scope::Nodes(nodes), Some(here)) = (&scope, catalog.directory().here())
            && !nodes.contains(here)
        {
            return Err(Refusal::ScopeWithoutHome(here.as_str().into()).into());
        }
        let is_known = catalog.find(&owner, name.as_str()).is_some()
            || catalog.find_elsewhere(&owner, name.as_str()).is_some();
        if is_known {
            return Err(Refusal::AlreadyExists.into());
        }
        let caller = caller.clone();
        Ok(Answer::commit(TableCommand::CreateTable { caller, owner, name, attributes, scope }))
    }

    /// `drop_table [table]`, or `[table, {replica: true}]` for the replica of this machine alone, which
    /// `[table, {replica: true, undo: true}]` takes back.
    pub(super) fn drop_table(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::DropTable { table, options: api::DropOptions { replica, undo } } = read(params)?;
        if undo && !replica {
            return Err(api::DropTable::invalid().into());
        }
        if replica {
            return self.decline(caller, table, !undo);
        }
        let entry = self.open_anywhere(caller, table, Permissions::ADMIN)?;
        Ok(Answer::commit(TableCommand::DropTable { caller: caller.clone(), entry }))
    }

    /// Keeps a table away from this machine, or takes that back. Of the table of a uid elsewhere nothing but its id
    /// may be known here by then.
    fn decline(
        &self,
        caller: &Caller,
        table: &str,
        declined: bool,
    ) -> Result<Answer, CommandError> {
        self.signer()?;
        if *caller != Caller::Local(Uid::ROOT) {
            return Err(Refusal::AccessDenied.into());
        }
        let catalog = self.store.catalog();
        let id = match TableRef::parse(table) {
            Ok(TableRef::Id(id)) => id,
            Ok(_) | Err(_) => self.open_anywhere(caller, table, Permissions::READ)?.table.uid,
        };
        if declined {
            let entry = catalog.find_by_id(id).ok_or(Refusal::AccessDenied)?;
            gate::admit_replica(caller, &entry.table, catalog.directory())?;
        }
        Ok(Answer::commit(TableCommand::Decline { caller: caller.clone(), table: id, declined }))
    }

    /// `table_chown [table, owner]` or `[table, owner, {name}]`: hands a table over.
    pub(super) fn table_chown(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<Answer, CommandError> {
        let api::TableChown { table, owner, options } = read(params)?;
        let name = options.name.as_deref().map(TableName::parse).transpose()?;
        if *caller != Caller::Local(Uid::ROOT) {
            return Err(Refusal::AccessDenied.into());
        }
        let entry = self.open_anywhere(caller, table, Permissions::ADMIN)?;
        let catalog = self.store.catalog();
        let owner = match catalog.directory().principal(owner)? {
            Principal::Identity(id) => Owner::Identity(id),
            Principal::Uid(uid) => Owner::Uid(uid),
            Principal::UidAt(uid, node) if catalog.directory().here() == Some(&node) => {
                Owner::Uid(uid)
            }
            Principal::Everyone | Principal::UidAt(..) => {
                return Err(Refusal::InvalidIdentity.into());
            }
        };
        Ok(Answer::commit(TableCommand::Chown { caller: caller.clone(), entry, owner, name }))
    }

    /// `table_info [table]`.
    pub(super) fn table_info(
        &self,
        caller: &Caller,
        params: &Bytes,
    ) -> Result<TableReport, CommandError> {
        let api::TableInfo { table } = read(params)?;
        Ok(self.table_report(&self.open(caller, table, Permissions::READ)?))
    }

    fn table_report(&self, entry: &Arc<Entry>) -> TableReport {
        let replicas = self.replicas_of(entry);
        let table = &entry.table;
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        TableReport {
            table: directory.show(&table.name),
            id: table.uid.to_string(),
            owner: directory.show_owner_as_principal(&table.name.owner),
            key_field: table.key_field().to_string(),
            attributes: table.attributes.iter().map(AttributeName::to_string).collect(),
            node_scope: NodeScope::from(&table.scope),
            scope_contested: table.contested,
            decisions: self.decisions(entry),
            orphaned: gate::is_orphaned(table, directory),
            replicas: self.replicas(&replicas),
            state: replicas.here.into(),
            conflicts: replicas.conflicts(),
            records: entry.usage.records(),
            bytes: entry.usage.bytes(),
            acl: granted(&table.acl, directory),
        }
    }
}

/// Every table here that a caller may read.
fn readable<'a>(caller: &Caller, catalog: &'a Catalog) -> Vec<&'a Arc<Entry>> {
    let may_read = |entry: &&Arc<Entry>| {
        gate::admit(caller, &entry.table, Permissions::READ, catalog.directory()).is_ok()
    };
    let tables = catalog.namespaces().flat_map(|(_, namespace)| namespace.tables());
    tables.filter(may_read).collect()
}

/// The tables that belong to nobody and that root of this machine decides about, whether or not they are here.
fn orphans(caller: &Caller, catalog: &Catalog) -> Vec<Arc<Entry>> {
    if *caller != Caller::Local(Uid::ROOT) {
        return Vec::new();
    }
    let directory = catalog.directory();
    let decides = |entry: &&Arc<Entry>| {
        gate::is_orphaned(&entry.table, directory) && gate::root_decides(&entry.table, directory)
    };
    let here = catalog.namespaces().flat_map(|(_, namespace)| namespace.tables());
    let here: Vec<_> = here.filter(decides).cloned().collect();
    let named =
        directory.departed().flat_map(|id| directory.names_of(id).map(move |name| (id, name)));
    let elsewhere =
        named.filter_map(|(id, name)| catalog.find_elsewhere(&Owner::Identity(id), name.as_str()));
    let elsewhere: Vec<_> = elsewhere.filter(|entry| decides(&entry)).collect();
    here.into_iter().chain(elsewhere).collect()
}

/// The tables of identities of which nothing is here: of all that the caller may read, or of their own identity.
fn tables_elsewhere(caller: &Caller, catalog: &Catalog, all: bool) -> Vec<Arc<Entry>> {
    let directory = catalog.directory();
    let own = directory.identity_of_caller(caller);
    let owners = directory.identities().map(|row| row.id).filter(|id| all || own == Some(*id));
    let named = owners.flat_map(|id| directory.names_of(id).map(move |name| (id, name)));
    let elsewhere =
        named.filter_map(|(id, name)| catalog.find_elsewhere(&Owner::Identity(id), name.as_str()));
    let may_read = |entry: &Arc<Entry>| {
        gate::admit(caller, &entry.table, Permissions::READ, directory).is_ok()
    };
    elsewhere.filter(may_read).collect()
}

/// The tables of a caller: of their uid, and of the identity that they are.
pub(super) fn own_tables<'a>(
    caller: &Caller,
    catalog: &'a Catalog,
) -> impl Iterator<Item = &'a Arc<Entry>> {
    let uid = owner_of(caller).map(Owner::Uid);
    let identity = catalog.directory().identity_of_caller(caller).map(Owner::Identity);
    let own = [uid, identity].into_iter().flatten();
    own.filter_map(|owner| catalog.namespace(&owner)).flat_map(Namespace::tables)
}

fn granted(acl: &Acl, directory: &Directory) -> Vec<Grant> {
    let grant = |(principal, rights)| Grant {
        identity: directory.show_principal(principal),
        permissions: names(rights),
    };
    acl.iter().map(grant).collect()
}

pub(super) fn owner_of(caller: &Caller) -> Option<Uid> {
    match caller {
        Caller::Local(uid) => Some(*uid),
        Caller::Peer { .. } => None,
    }
}

/// The namespace and name of a table that the caller wants to make: always their own.
fn own_name(
    caller: &Caller,
    written: &str,
    directory: &Directory,
) -> Result<(Owner, TableName), Refusal> {
    let uid = owner_of(caller).ok_or(Refusal::AccessDenied)?;
    match TableRef::parse(written)? {
        TableRef::Own(name) => Ok((Owner::Uid(uid), TableName::parse(name)?)),
        TableRef::Uid(owner, name) if owner == uid => {
            Ok((Owner::Uid(uid), TableName::parse(name)?))
        }
        TableRef::Uid(..) | TableRef::Remote { .. } | TableRef::Id(_) => Err(Refusal::AccessDenied),
        TableRef::Federated { identity, name } => {
            let own = directory.identity_of_caller(caller);
            let own = own.ok_or(Refusal::FederatedIdentityRequired)?;
            let meant = identity.map_or(Ok(own), |who| directory.find_for(who, caller));
            if meant != Ok(own) {
                return Err(Refusal::AccessDenied);
            }
            Ok((Owner::Identity(own), TableName::parse(name)?))
        }
    }
}

fn parse_attributes(names: &Attributes<'_>) -> Result<Vec<AttributeName>, Refusal> {
    if names.0.len() > Limits::ATTRIBUTES {
        return Err(Refusal::TooManyAttributes);
    }
    let mut attributes = Vec::with_capacity(names.0.len());
    let mut known = BTreeSet::new();
    for name in &names.0 {
        let attribute = AttributeName::parse(name.ok_or(Refusal::InvalidAttributeType)?)?;
        if !known.insert(attribute.clone()) {
            return Err(Refusal::DuplicateAttribute(attribute.as_str().into()));
        }
        attributes.push(attribute);
    }
    Ok(attributes)
}

/// A scope is `local`, `all`, `home,office` or a list of node names.
pub(super) fn parse_scope(words: &TextOrList<'_>) -> Result<Scope, Refusal> {
    match words {
        TextOrList::Text(text) => Scope::parse(text),
        TextOrList::List(names) => Scope::parse(&names.join(",")),
        TextOrList::Invalid => Err(Refusal::InvalidScope),
    }
}
