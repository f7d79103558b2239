//! A database of every released schema opens with this version, whole, and becomes what a new one is.
//! Schemas that this version does not know are `open_errors`.
//!
//! The fixtures are made by `tests/fixtures/make.sh`, one for each schema; what is in them stands
//! there and below.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cortex_core::model::{AttributeName, Owner, Permissions, Principal, Scope, Uid};
use cortexd::store::{Entry, OpenError, Options, ScanStep, Store};
use faultfs::FaultFs;
use rmpv::Value;
use rusqlite::Connection;

use scripted::{check_file, inspector, options_over, scratch_dir, wait};

use crate::support::scripted;

/// Who made the fixtures.
const OWNER: Owner = Owner::Uid(Uid(0));

/// The released schemas, in order, with the fixture of each.
fn fixtures() -> Vec<(u32, PathBuf)> {
    let path = |n: u32| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/schema-{n}.db"))
    };
    (1..).map(|n| (n, path(n))).take_while(|(_, path)| path.exists()).collect()
}

/// A data directory with a copy of that database.
fn directory_with(fixture: &Path) -> tempfile::TempDir {
    let dir = scratch_dir();
    fs::copy(fixture, dir.path().join("cortex.db")).expect("copy the fixture");
    dir
}

fn schema_of(db: &Connection) -> u32 {
    db.pragma_query_value(None, "user_version", |row| row.get(0)).expect("its version")
}

/// Everything that defines the schema, by kind and name.
fn definition_of(db: &Connection) -> BTreeMap<(String, String), Option<String>> {
    let mut statement = db.prepare("SELECT type, name, sql FROM sqlite_schema").expect("a query");
    let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)));
    rows.expect("the schema").collect::<Result<_, _>>().expect("the schema")
}

/// Of the file its name and three counters, and the name of an actor.
type Identity = (Vec<u8>, i64, i64, i64, Vec<u8>);

/// The numbers and names that must survive: of the file, of its writes, of its actors.
fn identity_of(db: &Connection) -> Vec<Identity> {
    let actors = if schema_of(db) < 7 { "incarnations" } else { "actors" };
    let mut statement = db
        .prepare(&format!(
            "SELECT db_uid, seq, lsn, hlc, uid FROM node_state, {actors} ORDER BY number"
        ))
        .expect("a query");
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)));
    rows.expect("the counters").collect::<Result<_, _>>().expect("the counters")
}

/// holds S1, among others.
fn check_contents(store: &Store) {
    let catalog = store.catalog();
    let tables: Vec<_> =
        catalog.namespaces().flat_map(|(_, namespace)| namespace.tables()).collect();
    let names: Vec<_> = tables.iter().map(|entry| entry.table.name.to_string()).collect();
    assert_eq!(names, ["0:notes", "0:users"]);

    for table in &tables {
        assert_eq!(table.table.scope, Scope::Local, "what was made without a scope stays here");
        assert!(!table.replicated, "and never left");
    }
    assert!(catalog.directory().is_empty() && catalog.directory().here().is_none(), "no mesh");

    let users = catalog.find(&OWNER, "users").expect("it is there");
    let attributes: Vec<_> = users.table.attributes.iter().map(AttributeName::as_str).collect();
    assert_eq!(attributes, ["id", "name", "tags"]);
    let rights = Permissions::READ.union(Permissions::WRITE);
    assert_eq!(users.table.acl.held_by(&Principal::Uid(Uid(1000))), rights);
    let expected = [
        ("7", r#"{"id": 7, "name": "Bob", "tags": nil}"#),
        ("a", r#"{"id": "a", "name": "Ada L.", "tags": ["x"]}"#),
    ];
    assert_eq!(records(store, users), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));

    let notes = catalog.find(&OWNER, "notes").expect("it is there");
    assert_eq!(notes.table.acl.held_by(&Principal::Everyone), Permissions::READ);
    let long = format!(r#"{{"key": "long", "text": "{}"}}"#, "0".repeat(9_000));
    assert_eq!(records(store, notes), [("long".to_owned(), long)]);
}

/// The keys and records of a table as text; its totals are compared with them.
fn records(store: &Store, entry: &Entry) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut bytes = 0;
    let mut scan = store.scan(entry.table.id, &[]).expect("a scan");
    let mut visit = |key: &[u8], mut record: &[u8]| {
        bytes += key.len() + record.len();
        let key = String::from_utf8(key.to_vec()).expect("a key is text");
        let record: Value = rmpv::decode::read_value(&mut record).expect("a record");
        found.push((key, record.to_string()));
        ScanStep::Continue
    };
    while !scan.slice(&mut visit).expect("rows") {}
    assert_eq!(entry.usage.records(), found.len() as u64);
    assert_eq!(entry.usage.bytes(), bytes as u64);
    found
}

/// holds E4
#[test]
fn every_released_schema_becomes_the_newest_with_everything_in_it() {
    let fresh = scratch_dir();
    wait(Store::open(&Options::new(fresh.path())).expect("a new store").close());
    let newest = schema_of(&inspector(fresh.path()));
    let released = fixtures();
    assert_eq!(released.len(), newest as usize, "each schema has a fixture");

    for (schema, fixture) in released {
        let dir = directory_with(&fixture);
        let before = inspector(dir.path());
        assert_eq!(schema_of(&before), schema, "{}", fixture.display());
        let identity = identity_of(&before);
        drop(before);

        let store = Store::open(&Options::new(dir.path())).expect("it opens");
        check_contents(&store);
        wait(store.close());
        drop(store);

        let after = inspector(dir.path());
        assert_eq!(schema_of(&after), newest);
        assert_eq!(definition_of(&after), definition_of(&inspector(fresh.path())));
        assert_eq!(identity_of(&after), identity, "schema {schema}");
        check_file(&after).expect("it is in order");
    }
}

/// holds E4
#[test]
fn a_power_loss_during_a_migration_costs_nothing() {
    for (schema, fixture) in fixtures() {
        let dir = directory_with(&fixture);
        let fs = FaultFs::new(&scripted::unique_name("migrations"), dir.path()).expect("a VFS");
        let store = Store::open(&options_over(&fs)).expect("it opens");
        wait(store.close());
        drop(store);
        for point in fs.crash_points() {
            for seed in [0, 1, 2 + point, 1_000 + point] {
                let image = scratch_dir();
                fs.power_loss_at(point, seed, image.path()).expect("an image");
                let store = Store::open(&Options::new(image.path())).unwrap_or_else(|error| {
                    panic!("schema {schema}, call {point}, seed {seed}: {error}")
                });
                check_contents(&store);
                check_file(&inspector(image.path())).expect("it is in order");
            }
        }
    }
}

/// Without shared memory there is no write-ahead log: the setting does not take, which SQLite
/// tells nobody who does not ask.
#[test]
fn a_setting_that_does_not_take_is_refused() {
    let dir = scratch_dir();
    let options = Options { vfs: Some("unix-dotfile".into()), ..Options::new(dir.path()) };
    let error = Store::open(&options).expect_err("no log is possible");
    assert!(matches!(&error, OpenError::Pragma { pragma: "journal_mode", .. }), "{error}");
    let told = error.to_string();
    assert!(told.contains(&*dir.path().display().to_string()) && told.contains("local"), "{told}");
}
