//! The interface org.cortexd.Cortex1.Manager: the daemon as a whole.
//! Single tables, nodes and identities are `table`'s, `node`'s and `identity`'s; whose rights a method is answered with is `dispatcher`'s.

use std::sync::Arc;

use cortex_core::{
    api::{
        self, Attributes, DropOptions, EventsOptions, OwnerUsage, TableList, TablesOptions,
        TextOrList, TokenOptions,
    },
    model::{Caller, Owner, Refusal, TableRef, Uid},
};
use tracing::debug;
use zbus::{
    Connection, ObjectPath, OwnedObjectPath, interface,
    message::Header,
    object_server::{ResponseDispatchListener, ResponseDispatchNotifier, SignalEmitter},
};

use super::{
    ROOT, SharedObjects,
    dispatcher::{AdmittedRequest, Dispatcher, Incoming},
    error::{Error, Result},
    identity,
    jobs::Job,
    node,
    options::{self, Options},
    polkit::Action,
    request::Request,
    values::{self, Dict},
};
use crate::store::CommandError;

/// `(uttt)`: a uid, its tables, their records, the bytes of those.
type UidUsage = (u32, u64, u64, u64);

/// The result of a job that went well; that of another is the name of an error.
const DONE: &str = "done";

/// The path that stands for no object.
const NO_OBJECT: &str = "/";

/// The daemon.
#[derive(Debug)]
pub(super) struct Manager {
    parts: SharedObjects,
}

#[interface(name = "org.cortexd.Cortex1.Manager", introspection_docs = false)]
impl Manager {
    /// The figures that everybody may know.
    #[zbus(out_args("status"))]
    async fn status(
        &self,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Dict> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        values::dict(&self.parts.dispatcher.ask(from, &Request::of(&api::Status {})).await?)
    }

    /// Every table that the caller may read, with its object.
    #[zbus(out_args("tables"))]
    async fn list_tables(
        &self,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(String, OwnedObjectPath)>> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let uid = self.parts.dispatcher.uid(from).await?;
        let options = TablesOptions { all: true, details: false };
        let request = Request::of(&api::Tables { options });
        let TableList::Names(mut names) = self.parts.dispatcher.ask_as(uid, &request).await? else {
            return Err(Error::failed("names were asked for"));
        };
        names.sort_unstable();
        self.parts.tables.update(connection).await?;
        let mut tables = Vec::with_capacity(names.len());
        for name in names {
            let path = self.path(uid, &name).await?;
            tables.push((name, path));
        }
        Ok(tables)
    }

    /// The object of a table.
    #[zbus(out_args("table"))]
    async fn get_table(
        &self,
        name: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let uid = self.parts.dispatcher.uid(from).await?;
        let request = Request::looking_up(&api::TableInfo { table: name });
        if self.is_own(uid, name) {
            // The owner holds every right: what is denied is not there, and polkit is not asked.
            let found = self.parts.dispatcher.ask_as(uid, &request).await;
            found.map_err(
                |error| {
                    if error.is_access_denied() { Error::no_such_table() } else { error }
                },
            )?;
        } else {
            self.parts.dispatcher.manage(from, Action::ManageTables, &request).await?;
        }
        self.parts.tables.update(connection).await?;
        let path = self.path(uid, name).await?;
        if path.as_str() == NO_OBJECT {
            return Err(Error::limits_exceeded("more tables than have an object"));
        }
        Ok(path)
    }

    /// Makes a table in the caller's own namespace.
    #[zbus(out_args("table"))]
    async fn create_table(
        &self,
        name: &str,
        attributes: Vec<String>,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        let scope = options::only_text(&options, "scope")?;
        let from = Incoming { connection, header: &header };
        let uid = self.parts.dispatcher.uid(from).await?;
        let attributes: Attributes<'_> = attributes.iter().map(String::as_str).collect();
        let scope = scope.map(TextOrList::Text);
        let request = Request::of(&api::CreateTable { name, attributes, scope });
        self.parts.dispatcher.ask_as(uid, &request).await?;
        self.parts.tables.update(connection).await?;
        self.path(uid, name).await
    }

    /// Takes back that this machine's replica of a table was dropped. The table has no object here by then.
    async fn restore_replica(
        &self,
        table: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let options = DropOptions { replica: true, undo: true };
        let request = Request::looking_up(&api::DropTable { table, options });
        self.parts.dispatcher.manage(from, Action::ManageTables, &request).await?;
        Ok(())
    }

    /// What is known of the mesh as a whole; each other node has an object.
    #[zbus(out_args("status"))]
    async fn mesh_status(&self, options: Options) -> Result<Dict> {
        options::none(&options)?;
        Ok(node::mesh(self.mesh().await?))
    }

    /// Every other node of the mesh, with its object.
    #[zbus(out_args("nodes"))]
    async fn list_nodes(
        &self,
        options: Options,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(String, OwnedObjectPath)>> {
        options::none(&options)?;
        let nodes = self.mesh().await?.peers.into_iter().map(|node| node.name);
        self.parts.nodes.update(connection).await?;
        Ok(nodes.map(|name| (name.clone(), node::object_path(&name))).collect())
    }

    /// Every federated identity, with its object.
    #[zbus(out_args("identities"))]
    async fn list_identities(
        &self,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(String, OwnedObjectPath)>> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let list = self.parts.dispatcher.ask(from, &Request::of(&api::IdentityList {})).await?;
        self.parts.identities.update(connection).await?;
        let mut identities = Vec::new();
        for api::Identity { fed_id, fid, .. } in list {
            identities.push((fed_id, self.identity_path(&fid).await));
        }
        Ok(identities)
    }

    /// The identity of that name: its object, and what that shows.
    #[zbus(out_args("identity", "properties"))]
    async fn lookup_identity(
        &self,
        name: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(OwnedObjectPath, Dict)> {
        options::none(&options)?;
        let request = Request::of(&api::IdentityLookup { name, uid: None });
        self.look_up(Incoming { connection, header: &header }, &request).await
    }

    /// Who a uid of a node is.
    #[zbus(out_args("identity", "properties"))]
    async fn lookup_uid(
        &self,
        node: &str,
        uid: u32,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(OwnedObjectPath, Dict)> {
        options::none(&options)?;
        let request = Request::of(&api::IdentityLookup { name: node, uid: Some(uid) });
        self.look_up(Incoming { connection, header: &header }, &request).await
    }

    /// Makes a federated identity of that name the caller's on this node.
    #[zbus(out_args("token", "identity", "expires"))]
    async fn register_identity(
        &self,
        name: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(String, OwnedObjectPath, u64)> {
        let wish = identity::wish(&options, &["uid"])?;
        let mapped = options::uid(&options, "uid")?;
        let from = Incoming { connection, header: &header };
        let uid = self.parts.dispatcher.uid(from).await?;
        let request = |uid: Option<u32>| {
            let options = TokenOptions { uid, ..wish.clone() };
            Request::of(&api::IdentityRegister { name, options })
        };
        // Root is nobody, so what is registered as root says for whom.
        let (own, roots) = (request(mapped), request(Some(mapped.unwrap_or(uid.0))));
        let dispatcher = &self.parts.dispatcher;
        let token =
            dispatcher.try_then_manage(from, Action::ManageIdentities, &own, &roots).await?;
        self.parts.identities.update(connection).await?;
        let identity = self.identity_path(&token.fid).await;
        Ok((token.token, identity, token.expires_at))
    }

    /// Makes the caller on this node whom a token of another says.
    #[zbus(out_args("identity"))]
    async fn claim_identity(
        &self,
        token: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        options::none(&options)?;
        let uid = self.parts.dispatcher.uid(Incoming { connection, header: &header }).await?;
        let request = Request::of(&api::IdentityClaim { token });
        self.parts.dispatcher.ask_as(uid, &request).await?;
        self.parts.identities.update(connection).await?;
        let catalog = self.parts.dispatcher.store().catalog();
        match catalog.directory().identity_of_caller(&Caller::Local(uid)) {
            Some(id) => Ok(self.identity_path(&id.to_string()).await),
            None => Err(Error::failed("the identity was revoked at once")),
        }
    }

    /// Puts a node out of the mesh with the database that it has.
    async fn remove_node(
        &self,
        name: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let request = Request::of(&api::MeshRemoveNode { node: name });
        self.parts.dispatcher.manage(from, Action::ManageMesh, &request).await?;
        Ok(())
    }

    /// What each uid owns; for ordinary callers, what they own.
    #[zbus(out_args("usage"))]
    async fn usage(
        &self,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<UidUsage>> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let usage = self.parts.dispatcher.ask(from, &Request::of(&api::Usage {})).await?;
        Ok(usage.iter().filter_map(of_uid).collect())
    }

    /// The newest events, the oldest of them first; for ordinary callers, those about them.
    #[zbus(out_args("events"))]
    async fn events(
        &self,
        limit: u32,
        after: u64,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<Dict>> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let after =
            i64::try_from(after).map_err(|_| Error::invalid_args("no event has that id"))?;
        let options = EventsOptions { limit: Some(limit).filter(|limit| *limit > 0), after };
        let events =
            self.parts.dispatcher.ask(from, &Request::of(&api::Events { options })).await?;
        events.iter().map(values::dict).collect()
    }

    /// Reads the settings again.
    async fn reload(
        &self,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        self.parts.dispatcher.manage(from, Action::Manage, &Request::of(&api::Reload {})).await?;
        Ok(())
    }

    /// Moves the log into the database.
    async fn checkpoint(
        &self,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        self.parts
            .dispatcher
            .manage(from, Action::Manage, &Request::of(&api::Checkpoint {}))
            .await?;
        Ok(())
    }

    /// Begins a backup that the daemon keeps under that name.
    #[zbus(out_args("job"))]
    async fn backup(
        &self,
        name: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<ResponseDispatchNotifier<OwnedObjectPath>> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let request = Request::of(&api::Backup { name: Some(name) });
        let begun = self.parts.dispatcher.begin(from, Action::Backup, &request).await?;
        let job = self.parts.jobs.begin("backup");
        connection.object_server().at(job.path(), job).await?;
        let (answer, answered) = ResponseDispatchNotifier::new(job.path());
        let (dispatcher, jobs, connection) =
            (Arc::clone(&self.parts.dispatcher), Arc::clone(&self.parts.jobs), connection.clone());
        tokio::spawn(async move {
            let result = carry_out(&dispatcher, begun, answered).await;
            jobs.end(job);
            if let Err(error) = announce_end(&connection, job, result).await {
                debug!(%error, "the end of a job could not be announced");
            }
        });
        Ok(answer)
    }

    /// A job has ended: `done`, or the name of an error.
    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: ObjectPath<'_>,
        result: &str,
    ) -> zbus::Result<()>;

    /// Another node is seen in another state.
    #[zbus(signal)]
    pub(super) async fn node_state_changed(
        emitter: &SignalEmitter<'_>,
        node: &str,
        state: &str,
    ) -> zbus::Result<()>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        self.figures().version
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn node(&self) -> String {
        self.figures().node
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn tables(&self) -> u64 {
        self.figures().tables
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn records(&self) -> u64 {
        self.figures().records
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn bytes(&self) -> u64 {
        self.figures().bytes
    }
}

impl Manager {
    pub(super) fn new(parts: SharedObjects) -> Self {
        Self { parts }
    }

    /// The figures that everybody may know.
    fn figures(&self) -> api::StatusReport {
        self.parts.dispatcher.service().status_report()
    }

    /// How the mesh is, for every caller.
    async fn mesh(&self) -> Result<api::MeshReport> {
        self.parts.dispatcher.ask_as(Uid::ROOT, &Request::of(&api::MeshStatus {})).await
    }

    async fn look_up(
        &self,
        from: Incoming<'_>,
        request: &Request<api::Identity>,
    ) -> Result<(OwnedObjectPath, Dict)> {
        let info = self.parts.dispatcher.ask(from, request).await?;
        self.parts.identities.update(from.connection).await?;
        Ok((self.identity_path(&info.fid).await, identity::properties(&info)))
    }

    /// The object of an identity; `/` where there is none for want of room.
    async fn identity_path(&self, id: &str) -> OwnedObjectPath {
        let path = self.parts.identities.path(id).await;
        path.unwrap_or_else(|| ObjectPath::from_static_str_unchecked(NO_OBJECT).into())
    }

    /// The object of a table that the caller may know of; `/` where there is none for want of room.
    async fn path(&self, uid: Uid, name: &str) -> Result<OwnedObjectPath> {
        let path = match self.resolve(uid, name) {
            Ok((owner, name)) => self.parts.tables.path(&owner, &name).await,
            Err(refusal) => return Err(CommandError::from(refusal).into()),
        };
        Ok(path.unwrap_or_else(|| ObjectPath::from_static_str_unchecked(NO_OBJECT).into()))
    }

    fn resolve(&self, uid: Uid, name: &str) -> std::result::Result<(Owner, String), Refusal> {
        let catalog = self.parts.dispatcher.store().catalog();
        let written = TableRef::parse(name)?;
        if let TableRef::Id(table) = written {
            let entry = catalog.find_by_id(table).ok_or(Refusal::AccessDenied)?;
            let name = &entry.table.name;
            return Ok((name.owner.clone(), name.name.to_string()));
        }
        let (owner, name) = catalog.directory().resolve(written, &Caller::Local(uid))?;
        Ok((owner, name.to_owned()))
    }

    /// True for a name in the caller's own namespace.
    fn is_own(&self, uid: Uid, name: &str) -> bool {
        let catalog = self.parts.dispatcher.store().catalog();
        let own = catalog.directory().identity_of_caller(&Caller::Local(uid));
        self.resolve(uid, name).is_ok_and(|(owner, _)| {
            owner == Owner::Uid(uid) || own.is_some_and(|own| owner == Owner::Identity(own))
        })
    }
}

/// None for what a federated identity has that is nobody here.
fn of_uid(usage: &OwnerUsage) -> Option<UidUsage> {
    Some((usage.uid?, usage.tables, usage.records, usage.bytes))
}

/// Waits until the caller has the job's path, so that its end is not announced before, and for
/// the job.
async fn carry_out(
    dispatcher: &Dispatcher,
    begun: AdmittedRequest<api::KeptBackup>,
    answered: ResponseDispatchListener,
) -> &'static str {
    answered.await;
    match dispatcher.end(begun).await {
        Ok(_) => DONE,
        Err(error) => error.dbus_name(),
    }
}

async fn announce_end(connection: &Connection, job: Job, result: &str) -> zbus::Result<()> {
    connection.object_server().remove::<Job, _>(job.path()).await?;
    let emitter = SignalEmitter::new(connection, ROOT)?;
    Manager::job_removed(&emitter, job.id, job.path().into(), result).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_an_identity_that_is_nobody_here_are_those_of_no_uid() {
        let of = |uid| OwnerUsage { uid, tables: 1, records: 2, bytes: 3, ..OwnerUsage::default() };
        assert_eq!(of_uid(&of(Some(1000))), Some((1000, 1, 2, 3)));
        assert_eq!(of_uid(&of(None)), None);
    }
}
