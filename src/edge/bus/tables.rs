//! Which tables have an object on the bus: follows the catalog, and announces what comes and goes.
//! What an object answers is `table`'s.
//!
//! The path is made of the table's number, which means nothing and is never given twice. Everybody
//! may find the path and receives the signals; neither says more than that there are so many tables,
//! which `Status` says too.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::model::{Owner, QualifiedName, Scope, TableId};
use tokio::sync::Mutex;
use zbus::{Connection, OwnedObjectPath};

use super::{ROOT, desk::Desk, presence, table::Table};
use crate::store::{Catalog, Entry};

/// Tables of one owner that have an object, so that nobody takes the room of all.
const OF_ONE_OWNER: usize = 256;

/// Tables that have an object. A description of all objects is one message, of 4 KiB for each, and a
/// message on the system bus may be 32 MiB long.
const IN_ALL: usize = 4096;

/// The objects of the tables.
#[derive(Debug)]
pub(super) struct Tables {
    desk: Arc<Desk>,
    /// The tables that have an object, with the scope that was last announced. Locked while objects
    /// are added and removed, so that this is done by one at a time.
    shown: Mutex<BTreeMap<TableId, Scope>>,
}

/// A step from the objects that there are to those that there should be.
#[derive(Debug)]
enum Change {
    Gone(TableId),
    New(Arc<Entry>),
    Scope(TableId, Scope),
}

impl Tables {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self { desk, shown: Mutex::default() }
    }

    /// Keeps the objects as the catalog is, until the connection fails.
    pub(super) async fn follow(&self, connection: &Connection) -> zbus::Result<()> {
        let changes = self.desk.store().catalog_changes();
        presence::follow(changes, async || self.update(connection).await).await
    }

    /// Makes the objects as the catalog is now.
    pub(super) async fn update(&self, connection: &Connection) -> zbus::Result<()> {
        let mut shown = self.shown.lock().await;
        let changes = changes(&shown, &to_show(&self.desk.store().catalog()));
        let server = connection.object_server();
        for change in changes {
            match change {
                Change::Gone(id) => {
                    server.remove::<Table, _>(path(id)).await?;
                    shown.remove(&id);
                }
                Change::New(entry) => {
                    let (id, scope) = (entry.table.id, entry.table.scope.clone());
                    server.at(path(id), Table::new(Arc::clone(&self.desk), entry)).await?;
                    shown.insert(id, scope);
                }
                Change::Scope(id, scope) => {
                    let object = server.interface::<_, Table>(path(id)).await?;
                    object.get().await.announce_scope(object.signal_emitter()).await?;
                    shown.insert(id, scope);
                }
            }
        }
        Ok(())
    }

    /// The path of a table's object, if it has one.
    pub(super) async fn path(&self, owner: &Owner, name: &str) -> Option<OwnedObjectPath> {
        let shown = self.shown.lock().await;
        let id = self.desk.store().catalog().find(owner, name)?.table.id;
        shown.contains_key(&id).then(|| path(id))
    }

    /// The tables that have an object.
    pub(super) async fn shown(&self) -> Vec<(QualifiedName, OwnedObjectPath)> {
        let shown = self.shown.lock().await;
        let entries = to_show(&self.desk.store().catalog());
        let present = entries.iter().filter(|(id, _)| shown.contains_key(id));
        present.map(|(id, entry)| (entry.table.name.clone(), path(*id))).collect()
    }
}

/// The path of the object of the table with that number.
pub(super) fn path(id: TableId) -> OwnedObjectPath {
    let path = format!("{ROOT}/table/{}", id.0);
    OwnedObjectPath::try_from(path).expect("digits are a path element")
}

/// The tables that should have an object: the oldest of each owner, and of those the oldest.
fn to_show(catalog: &Catalog) -> BTreeMap<TableId, Arc<Entry>> {
    within_bounds(catalog.namespaces().map(|(_, namespace)| namespace.tables()))
}

fn within_bounds<'c>(
    owners: impl Iterator<Item = impl Iterator<Item = &'c Arc<Entry>>>,
) -> BTreeMap<TableId, Arc<Entry>> {
    let of_owners = owners.flat_map(|tables| {
        let mut tables: Vec<_> = tables.collect();
        tables.sort_unstable_by_key(|entry| entry.table.id);
        tables.truncate(OF_ONE_OWNER);
        tables
    });
    let mut all: BTreeMap<_, _> =
        of_owners.map(|entry| (entry.table.id, Arc::clone(entry))).collect();
    if let Some(id) = all.keys().nth(IN_ALL).copied() {
        all.split_off(&id);
    }
    all
}

fn changes(
    shown: &BTreeMap<TableId, Scope>,
    to_show: &BTreeMap<TableId, Arc<Entry>>,
) -> Vec<Change> {
    let gone = shown.keys().filter(|id| !to_show.contains_key(id)).copied().map(Change::Gone);
    let others = to_show.iter().filter_map(|(id, entry)| match shown.get(id) {
        None => Some(Change::New(Arc::clone(entry))),
        Some(scope) if *scope != entry.table.scope => {
            Some(Change::Scope(*id, entry.table.scope.clone()))
        }
        Some(_) => None,
    });
    gone.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use cortex_core::model::{
        Acl, AttributeName, Hlc, Table as Metadata, TableName, TableUid, Uid,
    };

    use super::*;

    fn entry(id: i64, scope: Scope) -> (TableId, Arc<Entry>) {
        let name = TableName::parse(&format!("t{id}")).expect("a name");
        let table = Metadata {
            id: TableId(id),
            uid: TableUid([0; 16]),
            name: QualifiedName { owner: Owner::Uid(Uid(1)), name },
            attributes: vec![AttributeName::parse("id").expect("a name")],
            scope,
            contested: false,
            acl: Acl::default(),
        };
        (TableId(id), Arc::new(Entry::new(table, Hlc::default(), false)))
    }

    fn id(bound: usize) -> i64 {
        i64::try_from(bound).expect("a small number")
    }

    /// The ids of the tables that get an object, where the owners have the tables of these ids.
    fn shown(owners: &[Range<i64>]) -> Vec<i64> {
        // The youngest first: the order they come in is that of their names.
        let of = |ids: &Range<i64>| -> Vec<_> {
            ids.clone().rev().map(|id| entry(id, Scope::Local).1).collect()
        };
        let owners: Vec<_> = owners.iter().map(of).collect();
        let shown = within_bounds(owners.iter().map(|tables| tables.iter()));
        shown.into_keys().map(|id| id.0).collect()
    }

    /// holds D2
    #[test]
    fn the_oldest_tables_of_one_owner_have_an_object_and_leave_others_room() {
        let bound = id(OF_ONE_OWNER);
        let of_others = bound + 9..bound + 10;
        let expected: Vec<i64> = (0..bound).chain(of_others.clone()).collect();
        assert_eq!(shown(&[0..bound + 9, of_others]), expected);
    }

    /// holds D2
    #[test]
    fn the_oldest_tables_of_all_have_an_object_up_to_the_bound() {
        let (each, all) = (id(OF_ONE_OWNER), id(IN_ALL));
        let owners: Vec<_> =
            (0..all + each).step_by(OF_ONE_OWNER).map(|first| first..first + each).collect();
        assert_eq!(shown(&owners), (0..all).collect::<Vec<i64>>());
    }

    #[test]
    fn every_difference_is_one_change() {
        let shown = BTreeMap::from([
            (TableId(1), Scope::Local),
            (TableId(2), Scope::Local),
            (TableId(3), Scope::Local),
        ]);
        let to_show =
            BTreeMap::from([entry(2, Scope::Local), entry(3, Scope::All), entry(4, Scope::Local)]);
        let changes = changes(&shown, &to_show);
        assert!(
            matches!(
                &changes[..],
                [Change::Gone(TableId(1)), Change::Scope(TableId(3), Scope::All), Change::New(new)]
                    if new.table.id == TableId(4)
            ),
            "{changes:?}"
        );
    }
}
