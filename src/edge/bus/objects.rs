//! The interface org.freedesktop.DBus.ObjectManager: all objects of the daemon in one answer.
//! zbus's own would tell everybody the same; here callers are told of the tables that they may read.
//! The signals are sent by zbus, for every object below this one, without values.

use std::{collections::HashMap, sync::Arc};

use cortex_core::wire::Method;
use zbus::{
    Connection, ObjectPath, OwnedObjectPath, interface,
    message::Header,
    object_server::{Interface, SignalEmitter},
};

use super::{
    desk::{Desk, Incoming},
    error::Result,
    jobs::{Job, Jobs},
    request::Request,
    table::Table,
    tables::Tables,
    values::{Dict, TableInfo},
};

/// `a{oa{sa{sv}}}`
type Managed = HashMap<OwnedObjectPath, HashMap<String, Dict>>;

/// The list of all objects.
#[derive(Debug)]
pub(super) struct Objects {
    desk: Arc<Desk>,
    tables: Arc<Tables>,
    jobs: Arc<Jobs>,
}

impl Objects {
    pub(super) fn new(desk: Arc<Desk>, tables: Arc<Tables>, jobs: Arc<Jobs>) -> Self {
        Self { desk, tables, jobs }
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
        let uid = self.desk.uid(Incoming { connection, header: &header }).await?;
        let mut managed = Managed::new();
        for (name, path) in self.tables.shown().await {
            let name = self.desk.store().catalog().show(&name);
            let request = Request::new(Method::TableInfo).text(&name);
            // A table that is denied, or gone by now, is left out.
            if let Ok(info) = self.desk.ask_as(uid, &request).await {
                let properties = TableInfo::read(&info)?.into_properties()?;
                managed.insert(path, HashMap::from([(Table::name().to_string(), properties)]));
            }
        }
        for job in self.jobs.running() {
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
