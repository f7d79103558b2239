//! The interface org.cortexd.Cortex1.Table: one table, at a path made of its number.
//! Which tables have an object, and when it comes and goes, is `tables`'s.
//!
//! The object of a table is found by everybody, and reveals nothing: every property and every method
//! is answered with the rights of the caller.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::{
    api::{
        self, ChownOptions, DropOptions, ReplicaState, Response, ScopeOptions, TableReport,
        TextOrList,
    },
    model::{AttributeName, Caller, Permissions, Uid},
};
use zbus::{Connection, interface, message::Header, object_server::SignalEmitter};

use super::{
    dispatcher::{Dispatcher, Incoming},
    error::{Error, Result},
    options::{self, Options},
    polkit::Action,
    request::Request,
    tables::{self, path},
    values::{self, Dict},
};
use crate::store::{CommandError, Entry};

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    dispatcher: Arc<Dispatcher>,
    /// As it was when the object was made; says which table it is.
    entry: Arc<Entry>,
}

impl Table {
    pub(super) fn new(dispatcher: Arc<Dispatcher>, entry: Arc<Entry>) -> Self {
        Self { dispatcher, entry }
    }

    /// Carries out a request about this table with the sender's rights, or as polkit says.
    async fn manage<R: Response>(&self, from: Incoming<'_>, request: &Request<R>) -> Result<R> {
        self.check_there()?;
        let begun = self.dispatcher.begin(from, Action::ManageTables, request).await?;
        // The request names the table, and another may have taken the name. This one is there now,
        // so it was there when the name was looked up; and the writer looks at the number.
        self.check_there()?;
        self.dispatcher.end(begun).await
    }

    fn check_there(&self) -> Result<()> {
        if tables::is_there(&self.dispatcher.store().catalog(), &self.entry) {
            Ok(())
        } else {
            Err(Error::unknown_object(&path(self.entry.table.id)))
        }
    }

    /// Its full name.
    fn shown_name(&self) -> String {
        self.dispatcher.store().catalog().show(&self.entry.table.name)
    }

    /// What properties are taken from. They are answered with the sender's rights alone: while
    /// one is read, zbus holds a lock on all objects, and a person may take minutes to authenticate.
    async fn shown_to(
        &self,
        header: Option<Header<'_>>,
        connection: &Connection,
    ) -> Result<Arc<Entry>> {
        // Without a sender the value is for a signal, which everybody receives.
        let header = header.ok_or_else(|| Error::access_denied("access_denied"))?;
        let uid = self.dispatcher.uid(Incoming { connection, header: &header }).await?;
        self.check_there()?;
        readable(&self.dispatcher, uid, &self.shown_name())
    }
}

/// The table as it is now, for whom may read it.
pub(super) fn readable(dispatcher: &Dispatcher, uid: Uid, name: &str) -> Result<Arc<Entry>> {
    let opened = dispatcher.service().open(&Caller::Local(uid), name, Permissions::READ);
    Ok(opened.map_err(CommandError::from)?)
}

#[interface(name = "org.cortexd.Cortex1.Table", introspection_docs = false)]
impl Table {
    /// Everything about the table, its grants included.
    #[zbus(out_args("info"))]
    async fn info(
        &self,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Dict> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let request = Request::of(&api::TableInfo { table: &self.shown_name() });
        info(self.manage(from, &request).await?)
    }

    /// Removes the table with all its records; with the option `replica`, the replica of this machine alone.
    #[zbus(name = "Drop")]
    async fn drop_table(
        &self,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::only(&options, &["replica"])?;
        let options = DropOptions { replica: options::flag(&options, "replica")?, undo: false };
        let request = Request::of(&api::DropTable { table: &self.shown_name(), options });
        let from = Incoming { connection, header: &header };
        self.manage(from, &request).await?;
        Ok(())
    }

    /// Hands the table over to an identity or a uid of this machine; with the option `name`, under that name.
    async fn chown(
        &self,
        owner: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        let name = options::only_text(&options, "name")?.map(str::to_owned);
        let (table, options) = (&self.shown_name(), ChownOptions { name });
        let request = Request::of(&api::TableChown { table, owner, options });
        let from = Incoming { connection, header: &header };
        self.manage(from, &request).await?;
        Ok(())
    }

    /// Gives rights to an identity.
    async fn grant(
        &self,
        identity: &str,
        permissions: Vec<String>,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let (table, permissions) = (&self.shown_name(), words(&permissions));
        let request = Request::of(&api::AclGrant { identity, table, permissions });
        self.manage(from, &request).await?;
        Ok(())
    }

    /// Takes rights of an identity away.
    async fn revoke(
        &self,
        identity: &str,
        permissions: Vec<String>,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let (table, permissions) = (&self.shown_name(), words(&permissions));
        let request = Request::of(&api::AclRevoke { identity, table, permissions });
        self.manage(from, &request).await?;
        Ok(())
    }

    /// Says which nodes hold a replica.
    async fn set_scope(
        &self,
        scope: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let (table, scope) = (&self.shown_name(), TextOrList::Text(scope));
        let options = ScopeOptions::default();
        self.manage(from, &Request::of(&api::SetScope { table, scope, options })).await?;
        Ok(())
    }

    #[zbus(property(emits_changed_signal = "const"), name = "Name")]
    async fn full_name(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        self.shown_to(header, connection).await?;
        Ok(self.shown_name())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn owner(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        let entry = self.shown_to(header, connection).await?;
        Ok(owner(&self.dispatcher, &entry))
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn key_field(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        Ok(self.shown_to(header, connection).await?.table.key_field().to_string())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn attributes(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>> {
        Ok(attributes(&*self.shown_to(header, connection).await?))
    }

    /// The signal says that it has changed, not to what: everybody receives it.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    async fn scope(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        Ok(self.shown_to(header, connection).await?.table.scope.to_string())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn records(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u64> {
        Ok(self.shown_to(header, connection).await?.usage.records())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn bytes(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u64> {
        Ok(self.shown_to(header, connection).await?.usage.bytes())
    }

    /// As of the scope, the signal does not say how many.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    async fn conflicts(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u64> {
        let entry = self.shown_to(header, connection).await?;
        Ok(conflicts(&self.dispatcher, &entry))
    }

    /// A version of a record has lost against another. Everybody receives it, so that it does not say which.
    #[zbus(signal)]
    pub(super) async fn conflict_found(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;
}

impl Table {
    /// Tells everybody that there are more conflicts, or less.
    pub(super) async fn announce_conflicts(&self, emitter: &SignalEmitter<'_>) -> zbus::Result<()> {
        self.conflicts_invalidate(emitter).await
    }

    /// Tells everybody that the scope has changed.
    pub(super) async fn announce_scope(&self, emitter: &SignalEmitter<'_>) -> zbus::Result<()> {
        self.scope_invalidate(emitter).await
    }
}

/// What the properties of its object show.
pub(super) fn properties(dispatcher: &Dispatcher, entry: &Entry) -> Result<Dict> {
    let table = &entry.table;
    Ok(Dict::from([
        ("Name".into(), values::text(dispatcher.store().catalog().show(&table.name))),
        ("Owner".into(), values::text(owner(dispatcher, entry))),
        ("KeyField".into(), values::text(table.key_field().to_string())),
        ("Attributes".into(), values::list(attributes(entry))?),
        ("Scope".into(), values::text(table.scope.to_string())),
        ("Records".into(), entry.usage.records().into()),
        ("Bytes".into(), entry.usage.bytes().into()),
        ("Conflicts".into(), conflicts(dispatcher, entry).into()),
    ]))
}

fn owner(dispatcher: &Dispatcher, entry: &Entry) -> String {
    let catalog = dispatcher.store().catalog();
    catalog.directory().show_owner_as_principal(&entry.table.name.owner)
}

fn attributes(entry: &Entry) -> Vec<String> {
    entry.table.attributes.iter().map(AttributeName::to_string).collect()
}

/// Versions that have lost here, and of which nobody has taken note.
fn conflicts(dispatcher: &Dispatcher, entry: &Entry) -> u64 {
    dispatcher.store().replica(entry.table.uid).map_or(0, |replica| replica.conflicts.open.count)
}

fn words(permissions: &[String]) -> TextOrList<'_> {
    TextOrList::List(permissions.iter().map(String::as_str).collect())
}

/// All that `table_info` says, under the names of the wire. A scope is always as it would be written.
fn info(table: TableReport) -> Result<Dict> {
    let replicas = table.replicas.iter();
    let by_node: BTreeMap<String, u64> =
        replicas.filter_map(|replica| Some((replica.node.clone(), replica.conflicts?))).collect();
    let held = table.replicas.into_iter().filter(|replica| replica.state != ReplicaState::Left);
    let held: Vec<String> = held.map(|replica| replica.node).collect();
    let acl = table.acl.into_iter().map(|grant| (grant.identity, grant.permissions));
    Ok(Dict::from([
        ("table".into(), values::text(table.table)),
        ("owner".into(), values::text(table.owner)),
        ("key_field".into(), values::text(table.key_field)),
        ("attributes".into(), values::list(table.attributes)?),
        ("scope".into(), values::text(table.node_scope.to_string())),
        ("replicas".into(), values::list(held)?),
        ("records".into(), table.records.into()),
        ("bytes".into(), table.bytes.into()),
        ("state".into(), values::text(table.state.as_str().to_owned())),
        ("conflicts".into(), table.conflicts.into()),
        ("conflicts_by_node".into(), by_node.into()),
        ("acl".into(), values::list(acl.collect::<Vec<_>>())?),
    ]))
}
