//! Which tables have an object on the bus: follows the catalog, and announces what comes and goes.
//! What an object answers is `table`'s.
//!
//! The path is made of the table's number, which means nothing and is never given twice. Everybody
//! may find the path and receives the signals; neither says more than that there are so many tables,
//! which `Status` says too.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cortex_core::model::{Owner, QualifiedName, TableId};
use tokio::{sync::Mutex, time::sleep};
use zbus::{Connection, OwnedObjectPath};

use super::{
    ROOT,
    dispatcher::Dispatcher,
    object_sync::{self, Change},
    table::Table,
};
use crate::store::{Catalog, ConflictCounts, Entry};

/// Tables of one owner that have an object, so that nobody takes the room of all.
const OF_ONE_OWNER: usize = 256;

/// Tables that have an object. A description of all objects is one message, of 4 KiB for each, and a
/// message on the system bus may be 32 MiB long.
const IN_ALL: usize = 4096;

/// Between two looks at the conflicts, which come with rows: a second is soon enough for people.
const CONFLICTS_PAUSE: Duration = Duration::from_secs(1);

/// The objects of the tables.
#[derive(Debug)]
pub(super) struct Tables {
    dispatcher: Arc<Dispatcher>,
    /// The tables that have an object, as they were last announced. Locked while objects are added and
    /// removed, so that this is done by one at a time.
    shown: Mutex<BTreeMap<TableId, Shown>>,
}

/// A table, and what is announced of it.
#[derive(Clone, Debug)]
struct Shown {
    entry: Arc<Entry>,
    conflicts: Conflicts,
}

/// The conflicts of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Conflicts {
    /// Of which nobody has taken note.
    open: u64,
    /// Met since the daemon started, or since the table came.
    met: u64,
}

impl PartialEq for Shown {
    /// True where there is nothing to announce.
    fn eq(&self, other: &Self) -> bool {
        let scope = |shown: &Self| shown.entry.table.scope.clone();
        let name = |shown: &Self| shown.entry.table.name.clone();
        scope(self) == scope(other)
            && self.conflicts == other.conflicts
            && name(self) == name(other)
    }
}

impl Tables {
    pub(super) fn new(dispatcher: Arc<Dispatcher>) -> Self {
        Self { dispatcher, shown: Mutex::default() }
    }

    /// Keeps the objects as the catalog is, and says where conflicts have come up, until the connection fails.
    pub(super) async fn follow(&self, connection: &Connection) -> zbus::Result<()> {
        let store = self.dispatcher.store();
        let tables =
            object_sync::follow(store.catalog_changes(), async || self.update(connection).await);
        let conflicts = object_sync::follow(store.replica_changes(), async || {
            if !self.are_shown(&self.conflicts()).await {
                self.update(connection).await?;
            }
            sleep(CONFLICTS_PAUSE).await;
            Ok(())
        });
        tokio::try_join!(tables, conflicts).map(|_never_both| ())
    }

    /// The conflicts of each table that has, or had, any.
    fn conflicts(&self) -> BTreeMap<TableId, Conflicts> {
        let replicas = self.dispatcher.store().replicas();
        let counted = replicas.iter().filter_map(|replica| {
            let ConflictCounts { open, met } = replica.conflicts;
            let conflicts = Conflicts { open: open.count, met };
            Some((replica.table?, conflicts))
        });
        counted.filter(|(_, conflicts)| *conflicts != Conflicts::default()).collect()
    }

    async fn are_shown(&self, conflicts: &BTreeMap<TableId, Conflicts>) -> bool {
        let shown = self.shown.lock().await;
        let is_shown = |(id, shown): (&TableId, &Shown)| {
            shown.conflicts == conflicts.get(id).copied().unwrap_or_default()
        };
        shown.iter().all(is_shown)
    }

    /// Makes the objects as the catalog is now.
    pub(super) async fn update(&self, connection: &Connection) -> zbus::Result<()> {
        let mut shown = self.shown.lock().await;
        let wanted = to_show(&self.dispatcher.store().catalog(), &self.conflicts());
        let server = connection.object_server();
        for change in object_sync::changes(&shown, wanted) {
            match change {
                Change::Gone(id) => {
                    server.remove::<Table, _>(path(id)).await?;
                    shown.remove(&id);
                }
                Change::New(id, new) => {
                    let table = Table::new(Arc::clone(&self.dispatcher), Arc::clone(&new.entry));
                    server.at(path(id), table).await?;
                    shown.insert(id, new);
                }
                Change::Changed { key, before, now }
                    if before.entry.table.name != now.entry.table.name =>
                {
                    // Its name and owner are constant properties: under another one it is another object.
                    server.remove::<Table, _>(path(key)).await?;
                    let table = Table::new(Arc::clone(&self.dispatcher), Arc::clone(&now.entry));
                    server.at(path(key), table).await?;
                    shown.insert(key, now);
                }
                Change::Changed { key, before, now } => {
                    let object = server.interface::<_, Table>(path(key)).await?;
                    let (table, emitter) = (object.get().await, object.signal_emitter());
                    if before.entry.table.scope != now.entry.table.scope {
                        table.announce_scope(emitter).await?;
                    }
                    if before.conflicts.open != now.conflicts.open {
                        table.announce_conflicts(emitter).await?;
                    }
                    if before.conflicts.met < now.conflicts.met {
                        Table::conflict_found(emitter).await?;
                    }
                    shown.insert(key, now);
                }
            }
        }
        Ok(())
    }

    /// The path of a table's object, if it has one.
    pub(super) async fn path(&self, owner: &Owner, name: &str) -> Option<OwnedObjectPath> {
        let shown = self.shown.lock().await;
        let id = self.dispatcher.store().catalog().find(owner, name)?.table.id;
        shown.contains_key(&id).then(|| path(id))
    }

    /// The tables that have an object.
    pub(super) async fn shown(&self) -> Vec<(QualifiedName, OwnedObjectPath)> {
        let shown = self.shown.lock().await;
        let catalog = self.dispatcher.store().catalog();
        let present = shown.iter().filter(|(_, shown)| is_there(&catalog, &shown.entry));
        present.map(|(id, shown)| (shown.entry.table.name.clone(), path(*id))).collect()
    }
}

/// The path of the object of the table with that number.
pub(super) fn path(id: TableId) -> OwnedObjectPath {
    let path = format!("{ROOT}/table/{}", id.0);
    OwnedObjectPath::try_from(path).expect("digits are a path element")
}

/// True while the table has the number that it had: its lasting id is another one once it is shared.
pub(super) fn is_there(catalog: &Catalog, entry: &Entry) -> bool {
    let name = &entry.table.name;
    let now = catalog.find(&name.owner, name.name.as_str());
    now.is_some_and(|now| now.table.id == entry.table.id)
}

/// The tables that should have an object: the oldest of each owner, and of those the oldest.
fn to_show(
    catalog: &Catalog,
    conflicts: &BTreeMap<TableId, Conflicts>,
) -> BTreeMap<TableId, Shown> {
    let entries = within_bounds(catalog.namespaces().map(|(_, namespace)| namespace.tables()));
    let shown = |(id, entry)| {
        let conflicts = conflicts.get(&id).copied().unwrap_or_default();
        (id, Shown { entry, conflicts })
    };
    entries.into_iter().map(shown).collect()
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

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use cortex_core::model::{
        Acl, AttributeName, Hlc, Scope, Table as Metadata, TableName, TableUid, Uid,
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
    fn a_table_is_announced_where_its_scope_or_its_conflicts_are_others() {
        let of = |scope: Scope, open, met| {
            let conflicts = Conflicts { open, met };
            Shown { entry: entry(1, scope).1, conflicts }
        };
        assert_eq!(of(Scope::Local, 0, 0), of(Scope::Local, 0, 0));
        assert_ne!(of(Scope::Local, 0, 0), of(Scope::All, 0, 0));
        assert_ne!(of(Scope::Local, 1, 1), of(Scope::Local, 2, 1));
        assert_ne!(
            of(Scope::Local, 1, 1),
            of(Scope::Local, 1, 2),
            "one found, and one taken note of"
        );
    }
}
