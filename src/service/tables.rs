//! Methods on tables as wholes: tables, create_table, drop_table, table_info.
//! Their rows are `records` and `listing`.

use std::{collections::BTreeSet, sync::Arc};

use cortex_core::{
    directory::Directory,
    gate,
    model::{
        Acl, AttributeName, Caller, Limits, NodeName, Owner, Permissions, Principal, Refusal,
        Scope, TableName, TableRef, Uid,
    },
    wire::{Head, Reader, encode},
};

use super::{
    Answer, Service,
    params::{self, Params},
    tree::Tree,
};
use crate::store::{Catalog, Command, Entry, Failure, Namespace};

impl Service {
    /// `tables []`: the caller's own tables, by their short names, and those of their federated
    /// identity by their full ones. `tables [{all: true}]`: every table that the caller may read,
    /// by its full name. With `{details: true}` each with how it is, those among them of which nothing is here.
    pub(super) fn tables(
        &self,
        caller: &Caller,
        params: Params<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Failure> {
        let mut params = params.between(0, 1)?;
        let (mut all, mut details) = (false, false);
        if let Some(options) = params.optional()? {
            params::each_option(options, |name, value| {
                match (name, value) {
                    ("all", Head::Bool(wanted)) => all = wanted,
                    ("details", Head::Bool(wanted)) => details = wanted,
                    _ => return None,
                }
                Some(())
            })
            .ok_or_else(|| params.invalid())?;
        }
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
            let names: Vec<String> = names.collect();
            encode::strings(out, names.iter().map(String::as_str));
            return Ok(Answer::Ready);
        }
        let mut elsewhere = tables_elsewhere(caller, &catalog, all);
        elsewhere.extend(orphans);
        let described = here.into_iter().chain(&elsewhere);
        let described = described.map(|entry| self.describe(entry, shown(entry)));
        Tree::List(described.collect()).write(out);
        Ok(Answer::Ready)
    }

    fn describe(&self, entry: &Arc<Entry>, name: String) -> Tree {
        let copies = self.copies_of(entry);
        let catalog = self.store.catalog();
        Tree::map([
            ("table", name.into()),
            ("id", entry.table.uid.to_string().into()),
            ("orphaned", gate::is_orphaned(&entry.table, catalog.directory()).into()),
            ("node_scope", scope_tree(&entry.table.scope)),
            ("state", copies.here.word().into()),
            ("records", entry.usage.records().into()),
            ("bytes", entry.usage.bytes().into()),
            ("conflicts", copies.conflicts().into()),
        ])
    }

    /// `create_table [name, [attributes]]` or `[name, [attributes], scope]`.
    pub(super) fn create_table(
        &self,
        caller: &Caller,
        params: Params<'_>,
    ) -> Result<Answer, Failure> {
        let mut params = params.between(2, 3)?;
        let name = params.text()?;
        let attributes = params.raw()?;
        let scope = params.optional()?;

        let catalog = self.store.catalog();
        let (owner, name) = own_name(caller, name, catalog.directory())?;
        let attributes = read_attributes(attributes, &params)?;
        let scope = scope.map(|scope| read_scope(scope, &params)).transpose()?;
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
        Ok(Answer::Commit(Command::CreateTable { caller, owner, name, attributes, scope }))
    }

    /// `drop_table [table]`, or `[table, {replica: true}]` for the copy of this machine alone, which
    /// `[table, {replica: true, undo: true}]` takes back.
    pub(super) fn drop_table(
        &self,
        caller: &Caller,
        params: Params<'_>,
    ) -> Result<Answer, Failure> {
        let mut params = params.between(1, 2)?;
        let table = params.text()?;
        let (mut replica, mut undo) = (false, false);
        if let Some(options) = params.optional()? {
            params::each_option(options, |name, value| {
                match (name, value) {
                    ("replica", Head::Bool(wanted)) => replica = wanted,
                    ("undo", Head::Bool(wanted)) => undo = wanted,
                    _ => return None,
                }
                Some(())
            })
            .ok_or_else(|| params.invalid())?;
        }
        if undo && !replica {
            return Err(params.invalid().into());
        }
        if replica {
            return self.decline(caller, table, !undo);
        }
        let entry = self.open_anywhere(caller, table, Permissions::ADMIN)?;
        Ok(Answer::Commit(Command::DropTable { caller: caller.clone(), entry }))
    }

    /// Keeps a table away from this machine, or takes that back. Of the table of a uid elsewhere nothing but its id
    /// may be known here by then.
    fn decline(&self, caller: &Caller, table: &str, declined: bool) -> Result<Answer, Failure> {
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
        Ok(Answer::Commit(Command::Decline { caller: caller.clone(), table: id, declined }))
    }

    /// `table_chown [table, owner]` or `[table, owner, {name}]`: hands a table over.
    pub(super) fn table_chown(
        &self,
        caller: &Caller,
        params: Params<'_>,
    ) -> Result<Answer, Failure> {
        let mut params = params.between(2, 3)?;
        let (table, owner) = (params.text()?, params.text()?);
        let mut name = None;
        if let Some(options) = params.optional()? {
            params::each_option(options, |option, value| {
                match (option, value) {
                    ("name", Head::Str(text)) => name = Some(text.to_vec()),
                    ("name", Head::Nil) => {}
                    _ => return None,
                }
                Some(())
            })
            .ok_or_else(|| params.invalid())?;
        }
        let parse = |text: Vec<u8>| {
            let text = String::from_utf8(text).map_err(|_| Refusal::InvalidTableName)?;
            TableName::parse(&text)
        };
        let name = name.map(parse).transpose()?;
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
        Ok(Answer::Commit(Command::Chown { caller: caller.clone(), entry, owner, name }))
    }

    /// `table_info [table]`.
    pub(super) fn table_info(
        &self,
        caller: &Caller,
        params: Params<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Failure> {
        let mut params = params.count(1)?;
        let entry = self.open(caller, params.text()?, Permissions::READ)?;
        self.write_info(&entry, out);
        Ok(Answer::Ready)
    }

    fn write_info(&self, entry: &Arc<Entry>, out: &mut Vec<u8>) {
        let copies = self.copies_of(entry);
        let table = &entry.table;
        let catalog = self.store.catalog();
        let directory = catalog.directory();
        encode::map(out, 15);
        encode::str(out, "table");
        encode::str(out, &directory.show(&table.name));
        encode::str(out, "id");
        encode::str(out, &table.uid.to_string());
        encode::str(out, "owner");
        encode::str(out, &directory.show_owner_as_principal(&table.name.owner));
        encode::str(out, "key_field");
        encode::str(out, table.key_field().as_str());
        encode::str(out, "attributes");
        encode::strings(out, table.attributes.iter().map(AttributeName::as_str));
        encode::str(out, "node_scope");
        write_scope(&table.scope, out);
        encode::str(out, "scope_contested");
        encode::bool(out, table.contested);
        encode::str(out, "decisions");
        self.decisions_tree(entry).write(out);
        encode::str(out, "orphaned");
        encode::bool(out, gate::is_orphaned(table, directory));
        encode::str(out, "replicas");
        self.replicas_tree(&copies).write(out);
        encode::str(out, "state");
        encode::str(out, copies.here.word());
        encode::str(out, "conflicts");
        encode::uint(out, copies.conflicts());
        encode::str(out, "records");
        encode::uint(out, entry.usage.records());
        encode::str(out, "bytes");
        encode::uint(out, entry.usage.bytes());
        encode::str(out, "acl");
        write_acl(&table.acl, directory, out);
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

fn write_acl(acl: &Acl, directory: &Directory, out: &mut Vec<u8>) {
    encode::array(out, acl.iter().count());
    for (principal, rights) in acl.iter() {
        encode::map(out, 2);
        encode::str(out, "identity");
        encode::str(out, &directory.show_principal(principal));
        encode::str(out, "permissions");
        write_permissions(rights, out);
    }
}

pub(super) fn write_permissions(rights: Permissions, out: &mut Vec<u8>) {
    let words: Vec<_> = rights.words().collect();
    encode::strings(out, words.into_iter());
}

pub(super) fn write_scope(scope: &Scope, out: &mut Vec<u8>) {
    scope_tree(scope).write(out);
}

pub(super) fn scope_tree(scope: &Scope) -> Tree {
    match scope {
        Scope::Local | Scope::All => scope.to_string().into(),
        Scope::Nodes(nodes) => Tree::list(nodes.iter().map(NodeName::as_str)),
    }
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
        TableRef::Of(owner, name) if owner == uid => Ok((Owner::Uid(uid), TableName::parse(name)?)),
        TableRef::Of(..) | TableRef::Remote { .. } | TableRef::Id(_) => Err(Refusal::AccessDenied),
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

fn read_attributes(encoded: &[u8], params: &Params<'_>) -> Result<Vec<AttributeName>, Refusal> {
    let mut reader = Reader::new(encoded);
    let Some(Head::Array(count @ 1..)) = reader.head() else {
        return Err(params.invalid());
    };
    if count > Limits::ATTRIBUTES {
        return Err(Refusal::TooManyAttributes);
    }
    let mut attributes = Vec::with_capacity(count);
    let mut known = BTreeSet::new();
    for _ in 0..count {
        let attribute = AttributeName::parse(reader.text().ok_or(Refusal::InvalidAttributeType)?)?;
        if !known.insert(attribute.clone()) {
            return Err(Refusal::DuplicateAttribute(attribute.as_str().into()));
        }
        attributes.push(attribute);
    }
    Ok(attributes)
}

/// A scope is `local`, `all`, `home,office` or a list of node names.
pub(super) fn read_scope(encoded: &[u8], params: &Params<'_>) -> Result<Scope, Refusal> {
    let mut reader = Reader::new(encoded);
    match reader.clone().head() {
        Some(Head::Str(_)) => Scope::parse(reader.text().ok_or(Refusal::InvalidScope)?),
        Some(Head::Array(count)) => {
            let _entered = reader.head();
            let names: Option<Vec<_>> = (0..count).map(|_| reader.text()).collect();
            Scope::parse(&names.ok_or(Refusal::InvalidScope)?.join(","))
        }
        _ => Err(params.invalid()),
    }
}
