//! Tables of an identity that nobody is any more: those who have rights go on, root looks after them.

use rmpv::Value;

use crate::scope::authority::{ANN, ANN_THERE, BOB, events, open_to_all, register};
use crate::scope::cluster::Cluster;
use crate::scope::daemon::{Daemon, wait_until};
use crate::scope::rpc::{field, list, map};
use crate::scope::user::User;

/// Ann on home and office, bob on home; ann's table is on both, bob may read and write it, and ann was revoked.
fn orphaned() -> Cluster {
    let mesh = Cluster::whole(&["home", "office"]);
    open_to_all(&mesh, &["home", "office"]);
    let token = register(mesh.node("home"), "ann", ANN);
    register(mesh.node("home"), "bob", BOB);
    let mut there = User::connect(mesh.node("office"), ANN_THERE);
    there.may("identity_claim", &[token], "claimed identity 'ann'");
    let mut ann = User::connect(mesh.node("home"), ANN);
    ann.create("@notes");
    ann.put("@notes", "milk");
    ann.may("acl_grant", &["@bob".into(), "@notes".into(), "read,write".into()], "granted");
    wait_until("office has it", || keys(mesh.node("office"), "@ann:notes").is_some());
    let revoked = mesh.node("home").connect().call("identity_revoke", &["ann".into()]);
    assert_eq!(revoked, Ok("revoked".into()));
    mesh
}

fn keys(at: &Daemon, table: &str) -> Option<Value> {
    at.connect().call("keys", &[table.into()]).ok()
}

/// The tables that root is told of.
fn listed(at: &Daemon) -> Vec<(String, bool)> {
    let details = map([("details", true.into())]);
    let tables = at.connect().call("tables", &[details]).expect("a list");
    let tables = tables.as_array().expect("a list").iter();
    let told = |table: &Value| {
        let name = field(table, "table").and_then(Value::as_str).expect("a name").to_owned();
        (name, field(table, "orphaned") == Some(&true.into()))
    };
    tables.map(told).collect()
}

fn denied() -> Result<Value, String> {
    Err("access_denied".into())
}

/// holds I4
#[test]
fn who_was_granted_rights_goes_on_and_root_of_the_home_sees_reads_and_drops() {
    let mesh = orphaned();
    let (home, office) = (mesh.node("home"), mesh.node("office"));
    let mut bob = User::connect(home, BOB);
    bob.put("@ann:notes", "tea");
    bob.may("keys", &["@ann:notes".into()], list(["milk".into(), "tea".into()]));
    bob.may_not("drop_table", &["@ann:notes".into()]);
    User::connect(home, ANN).may_not("keys", &["@ann:notes".into()]);
    let tables = listed(home);
    let (name, _) = tables.iter().find(|(_, orphaned)| *orphaned).expect("an orphan").clone();
    assert!(name.starts_with("@ann~") && name.ends_with(":notes"), "{name}");
    let names = home.connect().call("tables", &[]).expect("a list");
    assert!(names.to_string().contains(&name), "{names}");
    assert!(events(home, "tables_orphaned")[0].contains("cortex table chown"));
    let info = home.connect().call("table_info", &[name.as_str().into()]).expect("a table");
    assert_eq!(field(&info, "orphaned"), Some(&true.into()));
    let id = format!("id:{}", field(&info, "id").and_then(Value::as_str).expect("an id"));
    for name in [name.as_str(), "@ann:notes", id.as_str()] {
        assert_eq!(keys(home, name), Some(list(["milk".into(), "tea".into()])), "{name}");
        let elsewhere = office.connect().call("drop_table", &[name.into()]);
        wait_until("office knows that nobody is ann", || {
            office.connect().call("table_chown", &[name.into(), "uid:0".into()]) == denied()
        });
        assert_eq!(elsewhere, denied(), "root of another machine");
    }
    assert_eq!(listed(office).iter().filter(|(_, orphaned)| *orphaned).count(), 0);
    let exported = home.cortex(&["export", &name]);
    assert!(exported.status.success(), "{exported:?}");
    let doctor = home.cortex(&["doctor", "--json"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned()
        + &String::from_utf8_lossy(&doctor.stderr);
    assert!(said.contains(&format!("cortex table chown {name}")), "{said}");
    assert_eq!(home.connect().call("drop_table", &[id.into()]), Ok("dropped".into()));
    wait_until("it is gone everywhere", || keys(office, "@ann:notes").is_none());
}

/// holds K5, R3
#[test]
fn a_table_is_handed_over_with_its_rows_and_grants_everywhere() {
    let mut mesh = orphaned();
    let home = mesh.node("home");
    let table =
        field(&home.connect().call("table_info", &["@ann:notes".into()]).expect("a table"), "id")
            .expect("an id")
            .clone();
    User::connect(home, BOB).create("@notes");
    let bob = ["@ann:notes".into(), "@bob".into()];
    let taken = home.connect().call("table_chown", &bob);
    assert_eq!(taken, Err("already_exists".into()));
    User::connect(home, BOB).may_not("table_chown", &bob);
    let shown = home.cortex(&["table", "chown", "@ann:notes", "@bob", "--name", "from_ann"]);
    assert!(shown.status.success(), "{shown:?}");
    let mut owner = User::connect(home, BOB);
    owner.may("keys", &["@from_ann".into()], list(["milk".into()]));
    owner.put("@from_ann", "tea");
    owner.may("acl_grant", &["*".into(), "@from_ann".into(), "read".into()], "granted");
    assert_eq!(keys(home, "@ann:notes"), None, "the old name means nothing");
    mesh.wait_for_links();
    let both = Some(list(["milk".into(), "tea".into()]));
    wait_until("office knows whose it is", || keys(mesh.node("office"), "@bob:from_ann") == both);
    // It is the same table for good, after a crash and for a machine that was away.
    for name in ["home", "office"] {
        mesh.node_mut(name).kill();
        mesh.node_mut(name).restart();
    }
    mesh.wait_for_links();
    for name in ["home", "office"] {
        assert_eq!(keys(mesh.node(name), "@bob:from_ann"), both, "{name}");
        assert_eq!(keys(mesh.node(name), "@ann:notes"), None, "{name}");
    }
    let home = mesh.node("home");
    let mut owner = User::connect(home, BOB);
    let info = owner.call("table_info", &["@from_ann".into()]).expect("an own table");
    assert_eq!(field(&info, "id"), Some(&table), "with all that belongs to it");
    assert_eq!(field(&info, "owner"), Some(&"@bob".into()));
    assert!(field(&info, "acl").expect("grants").to_string().contains("*"), "{info}");
    owner.may("drop_table", &["@from_ann".into()], "dropped");
    owner.create("@from_ann");
    owner.may("keys", &["@from_ann".into()], list([]));
    wait_until("it is dropped there too", || {
        keys(mesh.node("office"), "@bob:from_ann") == Some(list([]))
    });
}

#[test]
fn a_table_is_handed_over_to_a_uid_of_this_machine_and_back() {
    let mesh = orphaned();
    let (home, office) = (mesh.node("home"), mesh.node("office"));
    let handed_over = Ok(Value::from("handed over"));
    let owner = format!("uid:{BOB}");
    let chown = |table: &str, owner: &str| {
        home.connect().call("table_chown", &[table.into(), owner.into()])
    };
    assert_eq!(chown("@ann:notes", &owner), handed_over);
    let mut bob = User::connect(home, BOB);
    bob.may("keys", &["notes".into()], list(["milk".into()]));
    bob.put("notes", "tea");
    let there = format!("{BOB}@home:notes");
    let both = Some(list(["milk".into(), "tea".into()]));
    wait_until("office calls it so", || keys(office, &there) == both);
    let without = bob.call("set_scope", &["notes".into(), "office".into()]);
    assert_eq!(without, Err("invalid scope: must include this node, home".into()));
    assert_eq!(chown(&format!("{BOB}:notes"), "@bob"), handed_over);
    bob.may("keys", &["@notes".into()], list(["milk".into(), "tea".into()]));
    wait_until("office calls it so", || keys(office, "@bob:notes") == both);
    for (table, owner) in [("@bob:notes", "@nobody"), ("@bob:notes", "*")] {
        assert!(chown(table, owner).is_err(), "{owner}");
    }
}

/// Tables that were never shared change their owner too.
#[test]
fn a_table_of_one_machine_is_handed_over() {
    let mesh = orphaned();
    let home = mesh.node("home");
    let mut ann = User::connect(home, ANN);
    ann.create("users");
    ann.put("users", "milk");
    ann.may("acl_grant", &["uid:7".into(), "users".into(), "read".into()], "granted");
    let chown = |table: &str, owner: &str| {
        home.connect().call("table_chown", &[table.into(), owner.into()])
    };
    let handed_over = Ok(Value::from("handed over"));
    assert_eq!(chown(&format!("{ANN}:users"), &format!("uid:{BOB}")), handed_over);
    ann.may("tables", &[], list([]));
    let mut bob = User::connect(home, BOB);
    bob.may("keys", &["users".into()], list(["milk".into()]));
    User::connect(home, 7).may("keys", &[format!("{BOB}:users").into()], list(["milk".into()]));
    assert_eq!(chown(&format!("{BOB}:users"), "@bob"), handed_over);
    bob.may("keys", &["@users".into()], list(["milk".into()]));
    User::connect(home, 7).may("keys", &["@bob:users".into()], list(["milk".into()]));
    let scope = bob.call("get_scope", &["@users".into()]).expect("its scope");
    assert!(scope.to_string().contains("local"), "it stays where it was: {scope}");
}

/// holds I4: where the machine on which somebody registered is gone, those that hold the rows look after them.
#[test]
fn what_is_left_of_a_machine_that_was_removed_is_looked_after() {
    let mut mesh = Cluster::whole(&["home", "office"]);
    open_to_all(&mesh, &["home", "office"]);
    register(mesh.node("home"), "ann", ANN);
    let mut ann = User::connect(mesh.node("home"), ANN);
    ann.create("@notes");
    ann.put("@notes", "milk");
    ann.may("create_table", &["own".into(), list(["id".into()]), "all".into()], "created");
    ann.put("own", "milk");
    let own = format!("{ANN}@home:own");
    wait_until("office has both", || {
        ["@ann:notes", &own].iter().all(|table| keys(mesh.node("office"), table).is_some())
    });
    mesh.node_mut("home").kill();
    let office = mesh.node("office");
    let removed = office.connect().call("mesh_remove_node", &["home".into()]);
    assert_eq!(removed, Ok("removed".into()));
    assert_eq!(listed(office).iter().filter(|(_, orphaned)| *orphaned).count(), 2);
    register(office, "cat", 30_013);
    for (table, name) in [("@ann:notes", "notes"), (own.as_str(), "own")] {
        let chown = office.connect().call("table_chown", &[table.into(), "@cat".into()]);
        assert_eq!(chown, Ok("handed over".into()), "{table}");
        let mut cat = User::connect(office, 30_013);
        let mine = format!("@{name}");
        cat.may("keys", &[mine.as_str().into()], list(["milk".into()]));
        cat.put(&mine, "tea");
    }
}
