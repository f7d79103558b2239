//! Which identities have an object on the bus: follows the directory, and announces what comes, changes and goes.
//! What an object answers is `identity`'s.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::api;
use tokio::sync::Mutex;
use zbus::{Connection, OwnedObjectPath};

use super::{
    dispatcher::Dispatcher,
    identity::{self, Identity, object_path},
    object_sync::{self, Change},
};

/// Identities of one home that have an object, so that no machine takes the room of all.
const OF_ONE_HOME: usize = 256;

/// Identities that have an object. A description of all objects is one message, which must have room
/// for those of the tables too.
const IN_ALL: usize = 1024;

/// The objects of the identities.
#[derive(Debug)]
pub(super) struct Identities {
    dispatcher: Arc<Dispatcher>,
    /// By id, the identities that have an object, as they were last announced. Locked while objects
    /// are added and removed, so that this is done by one at a time.
    shown: Mutex<BTreeMap<String, api::Identity>>,
}

impl Identities {
    pub(super) fn new(dispatcher: Arc<Dispatcher>) -> Self {
        Self { dispatcher, shown: Mutex::default() }
    }

    /// Keeps the objects as the directory is, until the connection fails.
    pub(super) async fn follow(&self, connection: &Connection) -> zbus::Result<()> {
        let changes = self.dispatcher.store().catalog_changes();
        object_sync::follow(changes, async || self.update(connection).await).await
    }

    /// Makes the objects as the directory is now.
    pub(super) async fn update(&self, connection: &Connection) -> zbus::Result<()> {
        let mut shown = self.shown.lock().await;
        let wanted = within_bounds(self.dispatcher.service().identities());
        let server = connection.object_server();
        for change in object_sync::changes(&shown, wanted) {
            match change {
                Change::Gone(id) => {
                    server.remove::<Identity, _>(object_path(&id)).await?;
                    shown.remove(&id);
                }
                Change::New(id, info) => {
                    let identity = Identity::new(Arc::clone(&self.dispatcher), &info);
                    server.at(object_path(&id), identity).await?;
                    shown.insert(id, info);
                }
                Change::Changed { key, before, now } => {
                    let news = object_sync::changed_properties(
                        &identity::properties(&before),
                        identity::properties(&now),
                        &[],
                    );
                    object_sync::announce::<Identity>(connection, object_path(&key), &news).await?;
                    shown.insert(key, now);
                }
            }
        }
        Ok(())
    }

    /// The path of an identity's object, if it has one.
    pub(super) async fn path(&self, id: &str) -> Option<OwnedObjectPath> {
        self.shown.lock().await.contains_key(id).then(|| object_path(id))
    }

    /// The identities that have an object, as they were last announced.
    pub(super) async fn shown(&self) -> Vec<api::Identity> {
        self.shown.lock().await.values().cloned().collect()
    }
}

/// The identities that should have an object, by id: the oldest of each home, and of those the oldest.
fn within_bounds(mut all: Vec<api::Identity>) -> BTreeMap<String, api::Identity> {
    all.sort_unstable_by(|a, b| {
        (a.metadata.created_ms, &a.fid).cmp(&(b.metadata.created_ms, &b.fid))
    });
    let mut of_homes: BTreeMap<String, usize> = BTreeMap::new();
    all.retain(|info| {
        let count = of_homes.entry(info.metadata.home.clone()).or_default();
        *count += 1;
        *count <= OF_ONE_HOME
    });
    all.truncate(IN_ALL);
    all.into_iter().map(|info| (info.fid.clone(), info)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(home: usize, created_ms: u64) -> api::Identity {
        let (home, id) = (format!("n{home}"), format!("{home}-{created_ms:06}"));
        let mut info = api::Identity::default();
        (info.metadata.home, info.fid, info.metadata.created_ms) = (home, id, created_ms);
        info
    }

    fn shown(all: Vec<api::Identity>) -> Vec<String> {
        within_bounds(all).into_keys().collect()
    }

    /// holds D2
    #[test]
    fn the_oldest_identities_of_one_home_have_an_object_and_leave_others_room() {
        let bound = OF_ONE_HOME as u64;
        let all = (0..bound + 9).rev().map(|at| identity(1, at));
        let found = shown(all.chain([identity(2, bound + 99)]).collect());
        let expected: Vec<_> = (0..bound).map(|at| identity(1, at).fid).collect();
        assert_eq!(found[..OF_ONE_HOME], expected);
        assert_eq!(found[OF_ONE_HOME..], [identity(2, bound + 99).fid]);
    }

    /// holds D2
    #[test]
    fn the_oldest_identities_of_all_have_an_object_up_to_the_bound() {
        let homes = IN_ALL / OF_ONE_HOME + 1;
        let of = |home| (0..OF_ONE_HOME as u64).map(move |at| identity(home, at));
        let found = within_bounds((0..homes).flat_map(of).collect());
        assert_eq!(found.len(), IN_ALL);
        assert!(found.values().all(|info| info.metadata.created_ms < OF_ONE_HOME as u64 - 1));
    }
}
