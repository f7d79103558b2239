//! The interface org.cortexd.Cortex1.Table: one table, at a path made of its number.
//! Which tables have an object, and when it comes and goes, is `tables`'s.
//!
//! The object of a table is found by everybody, and tells nothing: every property and every method
//! is answered with the rights of whoever asks.

use std::sync::Arc;

use cortex_core::{model::QualifiedName, wire::Method};
use zbus::{Connection, interface, message::Header, object_server::SignalEmitter};

use super::{
    dispatcher::{Dispatcher, Incoming},
    error::{Error, Result},
    options::{self, Options},
    polkit::Action,
    request::{Field, Request},
    tables::{self, path},
    values::{Dict, TableInfo},
};
use crate::store::Entry;

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
    async fn manage(&self, from: Incoming<'_>, request: &Request) -> Result<Vec<u8>> {
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

    fn name(&self) -> &QualifiedName {
        &self.entry.table.name
    }

    fn request(&self, method: Method) -> Request {
        let name = self.dispatcher.store().catalog().show(self.name());
        Request::new(method).text(&name)
    }

    /// What a property is taken from. Properties are answered with the sender's rights alone: while
    /// one is read, zbus holds a lock on all objects, and a person may take minutes to authenticate.
    async fn shown_to(
        &self,
        header: Option<Header<'_>>,
        connection: &Connection,
    ) -> Result<TableInfo> {
        // Without a sender the value is for a signal, which everybody receives.
        let header = header.ok_or_else(|| Error::access_denied("access_denied"))?;
        let from = Incoming { connection, header: &header };
        let uid = self.dispatcher.uid(from).await?;
        self.check_there()?;
        let info = self.dispatcher.ask_as(uid, &self.request(Method::TableInfo)).await?;
        TableInfo::read(&info)
    }
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
        let info = self.manage(from, &self.request(Method::TableInfo)).await?;
        TableInfo::read(&info)?.into_dict()
    }

    /// Removes the table with all its records; with the option `replica`, the copy of this machine alone.
    #[zbus(name = "Drop")]
    async fn drop_table(
        &self,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::only(&options, &["replica"])?;
        let mut request = self.request(Method::DropTable);
        if options::flag(&options, "replica")? {
            request = request.flag("replica");
        }
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
        let name = options::only_text(&options, "name")?;
        let request = self.request(Method::TableChown).text(owner);
        let request = name
            .into_iter()
            .fold(request, |request, name| request.fields(&[("name", Field::Text(name))]));
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
        self.manage(from, &self.granting(Method::AclGrant, identity, &permissions)).await?;
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
        self.manage(from, &self.granting(Method::AclRevoke, identity, &permissions)).await?;
        Ok(())
    }

    /// Says which nodes hold a copy.
    async fn set_scope(
        &self,
        scope: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        self.manage(from, &self.request(Method::SetScope).text(scope)).await?;
        Ok(())
    }

    #[zbus(property(emits_changed_signal = "const"), name = "Name")]
    async fn full_name(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        Ok(self.shown_to(header, connection).await?.name)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn owner(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        Ok(self.shown_to(header, connection).await?.owner)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn key_field(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        Ok(self.shown_to(header, connection).await?.key_field)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn attributes(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>> {
        Ok(self.shown_to(header, connection).await?.attributes)
    }

    /// The signal says that it has changed, not to what: everybody receives it.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    async fn scope(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        Ok(self.shown_to(header, connection).await?.scope)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn records(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u64> {
        Ok(self.shown_to(header, connection).await?.records)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn bytes(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u64> {
        Ok(self.shown_to(header, connection).await?.bytes)
    }

    /// As of the scope, the signal does not say how many.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    async fn conflicts(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u64> {
        Ok(self.shown_to(header, connection).await?.conflicts)
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

    fn granting(&self, method: Method, identity: &str, permissions: &[String]) -> Request {
        let name = self.dispatcher.store().catalog().show(self.name());
        Request::new(method).text(identity).text(&name).texts(permissions)
    }

    /// Tells everybody that the scope has changed.
    pub(super) async fn announce_scope(&self, emitter: &SignalEmitter<'_>) -> zbus::Result<()> {
        self.scope_invalidate(emitter).await
    }
}
