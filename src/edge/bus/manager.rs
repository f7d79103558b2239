//! The interface org.cortexd.Cortex1.Manager: the daemon as a whole.
//! Single tables, nodes and identities are `table`'s, `node`'s and `identity`'s; whose rights a method is answered with is `dispatcher`'s.

use std::sync::Arc;

use cortex_core::{
    model::{Caller, Owner, Refusal, TableRef, Uid},
    wire::Method,
};
use tracing::debug;
use zbus::{
    Connection, ObjectPath, OwnedObjectPath, OwnedVariant, interface,
    message::Header,
    object_server::{ResponseDispatchListener, ResponseDispatchNotifier, SignalEmitter},
};

use super::{
    Parts, ROOT,
    dispatcher::{Begun, Dispatcher, Incoming},
    error::{Error, Result},
    identity::{self, IdentityInfo, Token},
    jobs::Job,
    node::{self, MeshStatus, NodeInfo},
    options::{self, Options},
    polkit::Action,
    request::{Field, Request},
    values::{self, Dict, UidUsage},
};

/// The result of a job that went well; that of another is the name of an error.
const DONE: &str = "done";

/// The path that stands for no object.
const NO_OBJECT: &str = "/";

/// The daemon.
#[derive(Debug)]
pub(super) struct Manager {
    parts: Parts,
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
        values::dict(&self.parts.dispatcher.ask(from, &Request::new(Method::Status)).await?)
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
        let request = Request::new(Method::Tables).flag("all");
        let mut names = values::texts(&self.parts.dispatcher.ask_as(uid, &request).await?)?;
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
        let request = Request::looking_up(Method::TableInfo, name);
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
        let request = Request::new(Method::CreateTable).text(name).texts(&attributes);
        let request = scope.into_iter().fold(request, Request::text);
        self.parts.dispatcher.ask_as(uid, &request).await?;
        self.parts.tables.update(connection).await?;
        self.path(uid, name).await
    }

    /// Takes back that this machine's copy of a table was dropped. The table has no object here by then.
    async fn restore_replica(
        &self,
        table: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let request = Request::looking_up(Method::DropTable, table).flags(&["replica", "undo"]);
        self.parts.dispatcher.manage(from, Action::ManageTables, &request).await?;
        Ok(())
    }

    /// What is known of the mesh as a whole; each other node has an object.
    #[zbus(out_args("status"))]
    async fn mesh_status(&self, options: Options) -> Result<Dict> {
        options::none(&options)?;
        Ok(MeshStatus::ask(&self.parts.dispatcher).await?.into_dict())
    }

    /// Every other node of the mesh, with its object.
    #[zbus(out_args("nodes"))]
    async fn list_nodes(
        &self,
        options: Options,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(String, OwnedObjectPath)>> {
        options::none(&options)?;
        let nodes = MeshStatus::ask(&self.parts.dispatcher).await?.nodes;
        self.parts.nodes.update(connection).await?;
        let with_object = |NodeInfo { name, .. }| {
            let path = node::object_path(&name);
            (name, path)
        };
        Ok(nodes.into_iter().map(with_object).collect())
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
        let list = self.parts.dispatcher.ask(from, &Request::new(Method::IdentityList)).await?;
        self.parts.identities.update(connection).await?;
        let mut identities = Vec::new();
        for IdentityInfo { name, id, .. } in IdentityInfo::read_all(&list)? {
            identities.push((name, self.identity_path(&id).await));
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
        let request = Request::new(Method::IdentityLookup).text(name);
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
        let request = Request::new(Method::IdentityLookup).text(node).number(uid.into());
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
        let request = |mapped: Option<Uid>| {
            let mapped = mapped.map(|uid| ("uid", Field::from(uid)));
            let fields: Vec<_> = wish.iter().copied().chain(mapped).collect();
            Request::new(Method::IdentityRegister).text(name).fields(&fields)
        };
        // Root is nobody, so what is registered as root says for whom.
        let (own, roots) = (request(mapped), request(Some(mapped.unwrap_or(uid))));
        let dispatcher = &self.parts.dispatcher;
        let token =
            dispatcher.try_then_manage(from, Action::ManageIdentities, &own, &roots).await?;
        let token = Token::read(&token)?;
        self.parts.identities.update(connection).await?;
        let identity = self.identity_path(&token.id).await;
        Ok((token.text, identity, token.expires))
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
        let request = Request::new(Method::IdentityClaim).text(token);
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
        let request = Request::new(Method::MeshRemoveNode).text(name);
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
        values::usage(&self.parts.dispatcher.ask(from, &Request::new(Method::Usage)).await?)
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
        let mut page = vec![("after", after)];
        if limit > 0 {
            page.push(("limit", limit.into()));
        }
        let request = Request::new(Method::Events).numbers(&page);
        values::dicts(&self.parts.dispatcher.ask(from, &request).await?)
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
        self.parts.dispatcher.manage(from, Action::Manage, &Request::new(Method::Reload)).await?;
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
            .manage(from, Action::Manage, &Request::new(Method::Checkpoint))
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
        let request = Request::new(Method::Backup).text(name);
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
    async fn version(&self) -> Result<String> {
        Ok(self.figure("version").await?.try_into()?)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn node(&self) -> Result<String> {
        Ok(self.figure("node").await?.try_into()?)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn tables(&self) -> Result<u64> {
        Ok(self.figure("tables").await?.try_into()?)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn records(&self) -> Result<u64> {
        Ok(self.figure("records").await?.try_into()?)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn bytes(&self) -> Result<u64> {
        Ok(self.figure("bytes").await?.try_into()?)
    }
}

impl Manager {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// One of the figures that everybody may know, whoever asks.
    async fn figure(&self, name: &str) -> Result<OwnedVariant> {
        let status = self.parts.dispatcher.ask_as(Uid::ROOT, &Request::new(Method::Status)).await?;
        values::dict(&status)?.remove(name).ok_or_else(|| Error::failed(format!("no {name}")))
    }

    async fn look_up(
        &self,
        from: Incoming<'_>,
        request: &Request,
    ) -> Result<(OwnedObjectPath, Dict)> {
        let info = IdentityInfo::read(&self.parts.dispatcher.ask(from, request).await?)?;
        self.parts.identities.update(from.connection).await?;
        Ok((self.identity_path(&info.id).await, info.properties()))
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
            Err(refusal) => return Err(crate::store::Failure::from(refusal).into()),
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

/// Waits for the caller to be told the job's path, so that its end is not announced before, and for
/// the job.
async fn carry_out(
    dispatcher: &Dispatcher,
    begun: Begun,
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
