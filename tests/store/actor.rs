//! Which actor a database is after a start: the same one only where it is certain that no number
//! of it can be used twice. What follows between copies is the simulation's.

#[path = "../support/fake_signer.rs"]
mod fake_signer;

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use cortex_core::model::{
    ActorId, AttributeName, Caller, NodeName, Owner, Scope, Signer, TableName, Uid,
};
use cortexd::store::{
    Command, DirectoryCommand, Options, RecordCommand, Restored, Store, TableCommand, restore,
};

use scripted::{find, inspector, key, scratch_dir, wait};

use crate::support::scripted;

const OWNER: Uid = Uid(1000);

/// A database of a mesh, and a place in memory for the word on how far it has come.
struct Place {
    data: tempfile::TempDir,
    rollback_marker: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let rollback_marker = tempfile::tempdir_in("/dev/shm").expect("memory");
        Self { data: scratch_dir(), rollback_marker }
    }

    fn open_in(&self, data: &Path) -> Store {
        let rollback_marker = Some(self.rollback_marker.path().to_owned());
        Store::open(&Options { rollback_marker, ..Options::new(data) }).expect("it opens")
    }

    /// Starts as a daemon of the mesh does.
    fn start(&self) -> Store {
        let store = self.open_in(self.data.path());
        join(&store);
        store
    }

    fn database(&self) -> std::path::PathBuf {
        self.data.path().join("cortex.db")
    }
}

fn join(store: &Store) {
    let signer: Arc<dyn Signer> = Arc::new(fake_signer::FakeSigner::of("home"));
    wait(store.execute(DirectoryCommand::Join(signer))).expect("it joins");
}

fn write(store: &Store, name: &str) {
    let command = Command::Tables(TableCommand::CreateTable {
        caller: Caller::Local(OWNER),
        owner: Owner::Uid(OWNER),
        name: TableName::parse(name).expect("a name"),
        attributes: vec![AttributeName::parse("id").expect("a name")],
        scope: Scope::All,
    });
    wait(store.execute(command)).expect("it is made");
}

fn end(store: Store) -> ActorId {
    let actor = store.actor();
    wait(store.close());
    drop(store);
    actor
}

/// holds K7
#[test]
fn a_restart_keeps_the_actor() {
    let place = Place::new();
    let store = place.start();
    write(&store, "one");
    let first = end(store);
    let store = place.start();
    assert_eq!(store.actor(), first);
    write(&store, "two");
    assert_eq!(end(store), first);
    assert_eq!(end(place.start()), first);
}

/// holds K3, K7
#[test]
fn a_database_that_was_put_back_is_another_actor() {
    let place = Place::new();
    let store = place.start();
    write(&store, "kept");
    let first = end(store);
    let older = fs::read(place.database()).expect("a copy");
    let store = place.start();
    write(&store, "forgotten");
    assert_eq!(end(store), first);
    // In place, so that it is the same file.
    fs::write(place.database(), older).expect("it is put back");
    let second = end(place.start());
    assert_ne!(second, first, "numbers that are in the world are not drawn again");
    assert_eq!(end(place.start()), second, "and it goes on as that one");
}

/// holds K3, K7
#[test]
fn a_copy_and_a_machine_that_was_restarted_are_other_actors() {
    let place = Place::new();
    let store = place.start();
    write(&store, "one");
    let first = end(store);

    let copy = scratch_dir();
    fs::copy(place.database(), copy.path().join("cortex.db")).expect("a copy");
    let copied = place.open_in(copy.path());
    join(&copied);
    assert_ne!(end(copied), first, "a copy");

    fs::remove_dir_all(place.rollback_marker.path()).expect("what a restart of the machine does");
    assert_ne!(end(place.start()), first, "a restart of the machine");
}

/// holds K3, K7
#[test]
fn a_restored_backup_is_another_actor_in_another_database() {
    let place = Place::new();
    let store = place.start();
    write(&store, "one");
    let backup = place.rollback_marker.path().join("backup");
    store.backup(&backup).expect("it is made");
    write(&store, "two");
    let first = end(store);
    let Restored { .. } = restore(&backup, place.data.path()).expect("it is restored");
    let store = place.start();
    assert_ne!(store.actor(), first);
    let catalog = store.catalog();
    let here = NodeName::parse("home").expect("a name");
    let said = catalog.directory().node(&here).expect("it has presented itself");
    assert_eq!(said.actor, store.actor(), "the others learn of it");
    drop(catalog);
    wait(store.close());
}

/// holds K3
#[test]
fn a_database_that_joins_a_mesh_leaves_the_actor_that_a_copy_of_it_may_have() {
    let place = Place::new();
    let store = place.open_in(place.data.path());
    let alone = end(store);
    let store = place.open_in(place.data.path());
    assert_eq!(store.actor(), alone, "without a mesh nothing ever leaves");
    join(&store);
    assert_ne!(store.actor(), alone);
    wait(store.close());
}

/// holds K2, K3
#[test]
fn a_table_that_is_shared_gets_an_id_that_no_copy_of_the_database_gives_it() {
    let place = Place::new();
    let store = place.start();
    let (caller, name) = (Caller::Local(OWNER), TableName::parse("notes").expect("a name"));
    let attributes = vec![AttributeName::parse("id").expect("a name")];
    let command = Command::Tables(TableCommand::CreateTable {
        caller: caller.clone(),
        owner: Owner::Uid(OWNER),
        name,
        attributes,
        scope: Scope::Local,
    });
    wait(store.execute(command)).expect("it is made");
    let find = || {
        let catalog = store.catalog();
        Arc::clone(catalog.find(&Owner::Uid(OWNER), "notes").expect("it is there"))
    };
    let before = find();
    let command = Command::Tables(TableCommand::SetScope {
        caller,
        entry: Arc::clone(&before),
        scope: Scope::All,
        abandon: BTreeSet::new(),
    });
    wait(store.execute(command)).expect("it is shared");
    let after = find();
    assert_ne!(after.table.uid, before.table.uid);
    assert!(after.replicated && after.takes_writes().is_ok());
    wait(store.close());
}

/// Each restart of the machine is an actor more, which every row that is written from then on has seen: so
/// what rows have seen grows with the square of the restarts, and an actor has to be little.
#[test]
fn what_rows_have_seen_takes_little_for_each_restart_of_the_machine() {
    const RESTARTS: usize = 40;
    const BYTES_OF_ONE: usize = 4;
    let place = Place::new();
    let store = place.start();
    write(&store, "notes");
    end(store);
    for row in 1..=RESTARTS {
        fs::remove_dir_all(place.rollback_marker.path())
            .expect("what a restart of the machine does");
        let store = place.start();
        let entry = find(&store, (OWNER.0, "notes")).expect("it is there");
        let id = format!("{row:04}");
        let record = [b"\x81\xa2id\xa4", id.as_bytes()].concat().into();
        let put = Command::Records(RecordCommand::Put {
            caller: Caller::Local(OWNER),
            entry,
            key: key(&id),
            record,
        });
        wait(store.execute(put)).expect("it is stored");
        end(store);
    }
    let db = inspector(place.data.path());
    let sum = "SELECT count(*), sum(length(body)) FROM contexts";
    let (contexts, bytes): (usize, usize) =
        db.query_row(sum, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("they are counted");
    assert!(contexts + 1 >= RESTARTS, "{contexts}: each row has seen another number of actors");
    let actors_seen = RESTARTS * (RESTARTS + 1) / 2;
    assert!(bytes <= actors_seen * BYTES_OF_ONE, "{bytes} bytes for {actors_seen} actors");
}
