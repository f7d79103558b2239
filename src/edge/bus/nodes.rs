//! Which machines have an object on the bus: follows the mesh, and announces what comes, changes and goes.
//! What an object answers is `node`'s.
//!
//! The settings name no more machines than a mesh may have, so there is no other bound here.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cortex_core::api::PeerNode;
use tokio::{sync::Mutex, time::sleep};
use zbus::{Connection, object_server::SignalEmitter};

use super::{
    ROOT,
    dispatcher::Dispatcher,
    manager::Manager,
    node::{self, Node, UNSIGNALLED, object_path},
    object_sync::{self, Change},
};

/// Between two looks whether a mesh that is down has come up.
const MESH_PAUSE: Duration = Duration::from_secs(2);

/// The objects of the other machines.
#[derive(Debug)]
pub(super) struct Nodes {
    dispatcher: Arc<Dispatcher>,
    /// The machines that have an object, as they were last announced. Locked while objects are added
    /// and removed, so that this is done by one at a time.
    shown: Mutex<BTreeMap<String, PeerNode>>,
}

impl Nodes {
    pub(super) fn new(dispatcher: Arc<Dispatcher>) -> Self {
        Self { dispatcher, shown: Mutex::default() }
    }

    /// Keeps the objects as the mesh is, until the connection fails.
    pub(super) async fn follow(&self, connection: &Connection) -> zbus::Result<()> {
        while self.dispatcher.mesh().is_none() && self.dispatcher.mesh_is_down() {
            sleep(MESH_PAUSE).await;
        }
        match self.dispatcher.mesh() {
            Some(mesh) => {
                object_sync::follow(mesh.view().changes(), async || self.update(connection).await)
                    .await
            }
            None => std::future::pending().await,
        }
    }

    /// Makes the objects as the mesh is now.
    pub(super) async fn update(&self, connection: &Connection) -> zbus::Result<()> {
        let mut shown = self.shown.lock().await;
        let nodes = node::all(&self.dispatcher)?;
        let wanted = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
        let server = connection.object_server();
        for change in object_sync::changes(&shown, wanted) {
            match change {
                Change::Gone(name) => {
                    server.remove::<Node, _>(object_path(&name)).await?;
                    shown.remove(&name);
                }
                Change::New(name, info) => {
                    let node = Node::new(Arc::clone(&self.dispatcher), name.clone());
                    server.at(object_path(&name), node).await?;
                    shown.insert(name, info);
                }
                Change::Changed { key, before, now } => {
                    announce(connection, &before, &now).await?;
                    shown.insert(key, now);
                }
            }
        }
        Ok(())
    }
}

async fn announce(connection: &Connection, before: &PeerNode, now: &PeerNode) -> zbus::Result<()> {
    let news = object_sync::changed_properties(
        &node::properties(before),
        node::properties(now),
        &UNSIGNALLED,
    );
    object_sync::announce::<Node>(connection, object_path(&now.name), &news).await?;
    if before.state != now.state {
        let manager = SignalEmitter::new(connection, ROOT)?;
        Manager::node_state_changed(&manager, &now.name, &now.state).await?;
    }
    Ok(())
}
