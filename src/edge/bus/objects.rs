//! The interface org.freedesktop.DBus.ObjectManager: all objects of the daemon in one answer.
//! zbus's own would answer everybody alike; here the answer holds the tables that the caller may read.
//! The signals are sent by zbus, for every object below this one, without values.

use std::collections::HashMap;

use zbus::{
    Connection, ObjectPath, OwnedObjectPath, interface,
    message::Header,
    object_server::{Interface, SignalEmitter},
};

use super::{
    SharedObjects,
    dispatcher::Incoming,
    error::Result,
    identity::{self, Identity},
    jobs::Job,
    node::{self, Node},
    table::{self, Table},
    values::Dict,
};

/// `a{oa{sa{sv}}}`
type Managed = HashMap<OwnedObjectPath, HashMap<String, Dict>>;

/// The list of all objects.
#[derive(Debug)]
pub(super) struct Objects {
    parts: SharedObjects,
}

impl Objects {
    pub(super) fn new(parts: SharedObjects) -> Self {
        Self { parts }
    }
}

#[interface(name = "org.freedesktop.DBus.ObjectManager", introspection_docs = false)]
impl Objects {
    #[zbus(out_args("object_paths_interfaces_and_properties"))]
    async fn get_managed_objects(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Managed> {
        let SharedObjects { dispatcher, tables, nodes: _, identities, jobs } = &self.parts;
        let uid = dispatcher.uid(Incoming { connection, header: &header }).await?;
        let mut managed = Managed::new();
        for (name, path) in tables.shown().await {
            let name = dispatcher.store().catalog().show(&name);
            // A table that is denied, or gone by now, is left out.
            if let Ok(entry) = table::readable(dispatcher, uid, &name) {
                let properties = table::properties(dispatcher, &entry)?;
                managed.insert(path, HashMap::from([(Table::name().to_string(), properties)]));
            }
        }
        for node in node::all(dispatcher)? {
            let object = HashMap::from([(Node::name().to_string(), node::properties(&node))]);
            managed.insert(node::object_path(&node.name), object);
        }
        for identity in identities.shown().await {
            let object =
                HashMap::from([(Identity::name().to_string(), identity::properties(&identity))]);
            managed.insert(identity::object_path(&identity.fid), object);
        }
        for job in jobs.running() {
            let object = HashMap::from([(Job::name().to_string(), job.properties())]);
            managed.insert(job.path(), object);
        }
        Ok(managed)
    }

    #[zbus(signal)]
    async fn interfaces_added(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces_and_properties: HashMap<String, Dict>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn interfaces_removed(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces: Vec<String>,
    ) -> zbus::Result<()>;
}
