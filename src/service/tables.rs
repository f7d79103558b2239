//! Methods on tables as wholes: tables, create_table, drop_table, table_info.
//! Their rows are `records` and `listing`.

use std::{collections::BTreeSet, sync::Arc};

use cortex_core::{
    gate,
    model::{
        Acl, AttributeName, Caller, Limits, NodeName, Permissions, Refusal, Scope, TableName,
        TableRef, Uid,
    },
    wire::{Head, Reader, encode},
};

use super::{Answer, Service, params::Params};
use crate::store::{Command, Entry, Failure, Namespace};

impl Service {
    /// `tables []`: the caller's own tables by their short names. `tables [{all: true}]`: every
    /// table that the caller may read, by its full name.
    pub(super) fn tables(
        &self,
        caller: &Caller,
        params: Params<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Failure> {
        let mut params = params.between(0, 1)?;
        let all = if params.is_empty() { false } else { read_all_flag(&mut params)? };
        let catalog = self.store.catalog();
        let names: Vec<String> = if all {
            let readable =
                |entry: &&Arc<Entry>| gate::admit(caller, &entry.table, Permissions::READ).is_ok();
            let tables = catalog.namespaces().flat_map(|(_, namespace)| namespace.tables());
            tables.filter(readable).map(|entry| entry.table.name.to_string()).collect()
        } else {
            let own = owner_of(caller).and_then(|uid| catalog.namespace(uid));
            let tables = own.into_iter().flat_map(Namespace::tables);
            tables.map(|entry| entry.table.name.name.to_string()).collect()
        };
        encode::strings(out, names.iter().map(String::as_str));
        Ok(Answer::Ready)
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
        let scope = if params.is_empty() { None } else { Some(params.raw()?) };

        let (owner, name) = own_name(caller, name)?;
        let attributes = read_attributes(attributes, &params)?;
        let scope = scope.map_or(Ok(Scope::Local), |scope| read_scope(scope, &params))?;
        if scope != Scope::Local {
            return Err(Refusal::MeshNotConfigured.into());
        }
        if self.store.catalog().find(owner, name.as_str()).is_some() {
            return Err(Refusal::AlreadyExists.into());
        }
        Ok(Answer::Commit(Command::CreateTable { owner, name, attributes, scope }))
    }

    /// `drop_table [table]`.
    pub(super) fn drop_table(
        &self,
        caller: &Caller,
        params: Params<'_>,
    ) -> Result<Answer, Failure> {
        let mut params = params.count(1)?;
        let entry = self.open(caller, params.text()?, Permissions::ADMIN)?;
        Ok(Answer::Commit(Command::DropTable { caller: caller.clone(), entry }))
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

    fn write_info(&self, entry: &Entry, out: &mut Vec<u8>) {
        let table = &entry.table;
        encode::map(out, 9);
        encode::str(out, "table");
        encode::str(out, &table.name.to_string());
        encode::str(out, "owner");
        encode::str(out, &format!("uid:{}", table.name.owner));
        encode::str(out, "key_field");
        encode::str(out, table.key_field().as_str());
        encode::str(out, "attributes");
        encode::strings(out, table.attributes.iter().map(AttributeName::as_str));
        encode::str(out, "node_scope");
        write_scope(&table.scope, out);
        encode::str(out, "replicas");
        encode::strings(out, [&*self.node].into_iter());
        encode::str(out, "records");
        encode::uint(out, entry.usage.records());
        encode::str(out, "bytes");
        encode::uint(out, entry.usage.bytes());
        encode::str(out, "acl");
        write_acl(&table.acl, out);
    }
}

/// Reads `{all: true}`.
fn read_all_flag(params: &mut Params<'_>) -> Result<bool, Refusal> {
    let mut reader = Reader::new(params.raw()?);
    let pair = match reader.head() {
        Some(Head::Map(1)) => (reader.text(), reader.head()),
        _ => (None, None),
    };
    match pair {
        (Some("all"), Some(Head::Bool(all))) => Ok(all),
        _ => Err(params.invalid()),
    }
}

fn write_acl(acl: &Acl, out: &mut Vec<u8>) {
    encode::array(out, acl.iter().count());
    for (principal, rights) in acl.iter() {
        encode::map(out, 2);
        encode::str(out, "identity");
        encode::str(out, &principal.to_string());
        encode::str(out, "permissions");
        write_permissions(rights, out);
    }
}

pub(super) fn write_permissions(rights: Permissions, out: &mut Vec<u8>) {
    let words: Vec<_> = rights.words().collect();
    encode::strings(out, words.into_iter());
}

fn write_scope(scope: &Scope, out: &mut Vec<u8>) {
    match scope {
        Scope::Local | Scope::All => encode::str(out, &scope.to_string()),
        Scope::Nodes(nodes) => encode::strings(out, nodes.iter().map(NodeName::as_str)),
    }
}

pub(super) fn owner_of(caller: &Caller) -> Option<Uid> {
    match caller {
        Caller::Local(uid) => Some(*uid),
        Caller::Peer { .. } => None,
    }
}

/// The namespace and name of a table that the caller wants to make: always their own.
fn own_name(caller: &Caller, written: &str) -> Result<(Uid, TableName), Refusal> {
    let uid = owner_of(caller).ok_or(Refusal::AccessDenied)?;
    match TableRef::parse(written)? {
        TableRef::Own(name) => Ok((uid, TableName::parse(name)?)),
        TableRef::Of(owner, name) if owner == uid => Ok((uid, TableName::parse(name)?)),
        TableRef::Of(..) => Err(Refusal::AccessDenied),
        TableRef::Federated { .. } => Err(Refusal::FederatedIdentityRequired),
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
fn read_scope(encoded: &[u8], params: &Params<'_>) -> Result<Scope, Refusal> {
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
