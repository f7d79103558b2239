//! Who decides about a table, and where: a creation decides nothing about a table that there is, root nothing about
//! what belongs to somebody who has no account on its machine, and no decision leaves nobody who could decide.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rmpv::Value;

use crate::scope::cluster::Cluster;
use crate::scope::daemon::{Daemon, wait_until};
use crate::scope::rpc::{field, list, map};
use crate::scope::user::{User, require_root};

/// Ann, on home and where she claims her name.
pub(crate) const ANN: u32 = 20_011;
pub(crate) const ANN_THERE: u32 = 30_011;
pub(crate) const BOB: u32 = 20_012;

/// Lets every user reach the daemons.
pub(crate) fn open_to_all(mesh: &Cluster, names: &[&str]) {
    require_root();
    for name in names {
        let directory = mesh.node(name).directory();
        fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).expect("open");
    }
}

/// Registers an identity; a token of it.
pub(crate) fn register(at: &Daemon, name: &str, uid: u32) -> Value {
    let wish = map([("uid", uid.into())]);
    let answer = at.connect().call("identity_register", &[name.into(), wish]).expect("registered");
    field(&answer, "token").expect("a token").clone()
}

pub(crate) fn scope_of(at: &Daemon, table: &str) -> Option<Value> {
    let scope = at.connect().call("get_scope", &[table.into()]).ok()?;
    field(&scope, "node_scope").cloned()
}

/// The texts of the events of a kind that a daemon has written down.
pub(crate) fn events(at: &Daemon, kind: &str) -> Vec<String> {
    let events = at.connect().call("events", &[]).expect("the events");
    let events = events.as_array().expect("a list").iter();
    let wanted = events.filter(|event| field(event, "kind") == Some(&kind.into()));
    wanted.map(|event| field(event, "text").expect("a text").to_string()).collect()
}

fn creation(name: &str, scope: Option<&str>) -> Vec<Value> {
    let mut params = vec![name.into(), list(["id".into()])];
    params.extend(scope.map(Value::from));
    params
}

/// Ann on both machines.
fn ann_on_both() -> Cluster {
    let mesh = Cluster::with_line("home", "office");
    open_to_all(&mesh, &["home", "office"]);
    let token = register(mesh.node("home"), "ann", ANN);
    let mut there = User::connect(mesh.node("office"), ANN_THERE);
    there.may("identity_claim", &[token], "claimed identity 'ann'");
    mesh
}

/// holds N2, S4
#[test]
fn a_creation_decides_nothing_about_a_table_that_there_is() {
    let mesh = ann_on_both();
    let (home, office) = (mesh.node("home"), mesh.node("office"));
    let mut ann = User::connect(home, ANN);
    ann.may("create_table", &creation("@q", Some("local")), "created");
    ann.put("@q", "a secret");
    wait_until("office knows of it", || scope_of(office, "@ann:q").is_some());
    let before = scope_of(office, "@ann:q");
    let mut there = User::connect(office, ANN_THERE);
    for name in ["@q", "@ann:q"] {
        for scope in [None, Some("local"), Some("all"), Some("office"), Some("office,home")] {
            let made = there.call("create_table", &creation(name, scope));
            assert_eq!(made, Err("already_exists".into()), "{name} {scope:?}");
        }
    }
    assert_eq!(scope_of(office, "@ann:q"), before);
    assert_eq!(scope_of(home, "@ann:q"), before);
    ann.may("keys", &["@q".into()], list(["a secret".into()]));
    assert_eq!(
        there.call("keys", &["@q".into()]),
        Err(crate::scope::NOT_HERE.into()),
        "and its rows are where they were"
    );
    // Once it is dropped, the name is free, here too.
    ann.may("drop_table", &["@q".into()], "dropped");
    wait_until("the name is free", || {
        there.call("create_table", &creation("@q", Some("local"))) == Ok("created".into())
    });
}

/// holds S4, K8
#[test]
fn two_creations_that_had_not_heard_of_each_other_keep_the_narrower_scope_and_say_so() {
    let mesh = ann_on_both();
    let (home, office) = (mesh.node("home"), mesh.node("office"));
    mesh.cut();
    User::connect(home, ANN).may("create_table", &creation("@q", Some("home")), "created");
    User::connect(home, ANN).put("@q", "a secret");
    let attributes = ["@q".into(), list(["key".into(), "text".into()]), "all".into()];
    User::connect(office, ANN_THERE).may("create_table", &attributes, "created");
    mesh.heal();
    for at in [home, office] {
        wait_until("the narrower scope holds", || {
            scope_of(at, "@ann:q") == Some(list(["home".into()]))
        });
        wait_until("it is said", || {
            let said = events(at, "scope_contested");
            said.len() == 1 && said[0].contains("home: home") && said[0].contains("office: all")
        });
        let why = at.connect().call("explain", &["@ann:q".into()]).expect("an explanation");
        let because = field(&why, "because").expect("reasons").to_string();
        assert!(because.contains("office has decided: all"), "{because}");
        let scope = at.connect().call("get_scope", &["@ann:q".into()]).expect("its scope");
        let decisions = field(&scope, "decisions").and_then(Value::as_array).expect("a list");
        assert_eq!(decisions.len(), 2, "{scope}");
    }
    let mut there = User::connect(office, ANN_THERE);
    assert!(there.call("get", &["@q".into(), "a secret".into()]).is_err(), "not on office");
    // Whoever owns it chooses, from either machine.
    there.may("set_scope", &["@q".into(), "home".into()], "scope updated");
    wait_until("it is decided", || {
        let scope = home.connect().call("get_scope", &["@ann:q".into()]).expect("its scope");
        field(&scope, "contested") == Some(&false.into())
    });
    User::connect(home, ANN).may("keys", &["@q".into()], list(["a secret".into()]));
    let info = User::connect(home, ANN).call("table_info", &["@q".into()]).expect("a table");
    assert_eq!(field(&info, "key_field"), Some(&"id".into()), "that of the first creation");
}

/// holds K8: what is decided already is not decided again, and takes nobody's decision away.
#[test]
fn a_scope_that_is_so_already_competes_with_nothing() {
    let mesh = ann_on_both();
    let (home, office) = (mesh.node("home"), mesh.node("office"));
    User::connect(home, ANN).may("create_table", &creation("@q", Some("home,office")), "created");
    wait_until("office has it", || {
        User::connect(office, ANN_THERE).call("keys", &["@q".into()]).is_ok()
    });
    mesh.cut();
    let mut there = User::connect(office, ANN_THERE);
    there.may("set_scope", &["@q".into(), "office,home".into()], "scope updated");
    User::connect(home, ANN).may("set_scope", &["@q".into(), "all".into()], "scope updated");
    mesh.heal();
    wait_until("office hears of it", || scope_of(office, "@ann:q") == Some("all".into()));
    let scope = office.connect().call("get_scope", &["@ann:q".into()]).expect("its scope");
    assert_eq!(field(&scope, "contested"), Some(&false.into()));
    wait_until("it is told", || {
        events(office, "scope_changed").iter().any(|text| text.contains("decided on home"))
    });
}

/// holds S2, V4
#[test]
fn root_decides_nothing_where_the_owner_has_no_account() {
    let mesh = Cluster::whole(&["home", "office"]);
    open_to_all(&mesh, &["home", "office"]);
    let (home, office) = (mesh.node("home"), mesh.node("office"));
    register(home, "ann", ANN);
    let mut ann = User::connect(home, ANN);
    ann.may("create_table", &creation("@secret", Some("home,office")), "created");
    ann.put("@secret", "milk");
    ann.may("create_table", &creation("own", Some("home,office")), "created");
    ann.put("own", "milk");
    ann.may("create_table", &creation("@elsewhere", Some("home")), "created");
    let own = format!("{ANN}@home:own");
    for table in ["@ann:secret", own.as_str()] {
        wait_until("office has it", || {
            office.connect().call("keys", &[table.into()]) == Ok(list(["milk".into()]))
        });
    }
    wait_until("office knows of it", || scope_of(office, "@ann:elsewhere").is_some());
    let mut root = office.connect();
    for table in ["@ann:secret", own.as_str(), "@ann:elsewhere"] {
        let abandon = map([("abandon", list(["home".into()]))]);
        for (method, params) in [
            ("set_scope", vec![table.into(), "all".into()]),
            ("set_scope", vec![table.into(), "local".into()]),
            ("set_scope", vec![table.into(), "office".into(), abandon]),
            ("acl_grant", vec!["uid:0".into(), table.into(), "write".into()]),
            ("acl_grant", vec!["*".into(), table.into(), "admin".into()]),
            ("acl_revoke", vec!["*".into(), table.into(), "read".into()]),
            ("drop_table", vec![table.into()]),
            ("table_chown", vec![table.into(), "uid:0".into()]),
        ] {
            let answer = root.call(method, &params);
            assert_eq!(answer, Err("access_denied".into()), "{method} {params:?}");
        }
    }
    for table in ["@ann:secret", own.as_str()] {
        for (method, params) in [
            ("put", vec![table.into(), map([("id", "tea".into())])]),
            ("delete", vec![table.into(), "milk".into()]),
            ("conflict_ack", vec![table.into()]),
            ("sync_repair", vec![table.into()]),
        ] {
            let answer = root.call(method, &params);
            assert_eq!(answer, Err("access_denied".into()), "{method} {params:?}");
        }
        assert!(root.call("get", &[table.into(), "milk".into()]).is_ok(), "what is here is read");
        assert!(root.call("table_info", &[table.into()]).is_ok());
    }
    // Where the owner has an account, root is whom it always was.
    let mut root = home.connect();
    let scope = ["@ann:secret".into(), "home".into()];
    assert_eq!(root.call("set_scope", &scope), Ok("scope updated".into()));
    let table = format!("{ANN}:own");
    assert_eq!(root.call("drop_table", &[table.into()]), Ok("dropped".into()));
}

/// holds S1, S2
#[test]
fn the_table_of_a_uid_is_never_without_its_home() {
    let mesh = ann_on_both();
    let (home, office) = (mesh.node("home"), mesh.node("office"));
    let mut ann = User::connect(home, ANN);
    ann.may("create_table", &creation("users", Some("all")), "created");
    ann.put("users", "milk");
    let at_home = Err("invalid scope: must include this node, home".to_owned());
    for scope in ["office".into(), list(["office".into()])] {
        assert_eq!(ann.call("set_scope", &["users".into(), scope]), at_home);
    }
    let mut there = User::connect(office, ANN_THERE);
    let users = format!("{ANN}@home:users");
    wait_until("office has it", || there.call("keys", &[users.as_str().into()]).is_ok());
    let elsewhere = Err("invalid scope: must include the table's home, home".to_owned());
    for scope in ["office", "local"] {
        let decided = there.call("set_scope", &[users.as_str().into(), scope.into()]);
        assert_eq!(decided, elsewhere, "{scope}");
    }
    let abandon = map([("abandon", list(["home".into()]))]);
    let given_up = there.call("set_scope", &[users.as_str().into(), "all".into(), abandon]);
    assert_eq!(given_up, elsewhere);
    there.may("set_scope", &[users.as_str().into(), "home".into()], "scope updated");
    wait_until("office has left", || there.call("keys", &[users.as_str().into()]).is_err());
    ann.may("keys", &["users".into()], list(["milk".into()]));
    ann.may("set_scope", &["users".into(), "all".into()], "scope updated");
}

/// Its owner has an account on home and on office, and their table may be on neither.
#[test]
fn a_table_that_is_on_no_machine_of_its_owner_is_theirs_all_the_same() {
    let mesh = Cluster::whole(&["home", "office"]);
    open_to_all(&mesh, &["home", "office"]);
    let (home, office) = (mesh.node("home"), mesh.node("office"));
    register(home, "ann", ANN);
    let mut ann = User::connect(home, ANN);
    ann.may("create_table", &creation("@q", Some("home")), "created");
    ann.put("@q", "milk");
    ann.may("set_scope", &["@q".into(), "office".into()], "scope updated");
    wait_until("it has moved", || {
        office.connect().call("keys", &["@ann:q".into()]) == Ok(list(["milk".into()]))
    });
    wait_until("home has nothing of it", || ann.call("keys", &["@q".into()]).is_err());
    ann.may("acl_grant", &["*".into(), "@q".into(), "read".into()], "granted");
    ann.may("acl_revoke", &["*".into(), "@q".into(), "read".into()], "revoked");
    ann.may("set_scope", &["@q".into(), "home,office".into()], "scope updated");
    wait_until("it is back", || ann.call("keys", &["@q".into()]) == Ok(list(["milk".into()])));
}

/// holds I4
#[test]
fn a_table_whose_only_replica_is_lost_is_dropped_and_made_again_by_its_owner() {
    let mut mesh = Cluster::whole(&["home", "office"]);
    open_to_all(&mesh, &["home", "office"]);
    register(mesh.node("home"), "ann", ANN);
    User::connect(mesh.node("home"), ANN).may(
        "create_table",
        &creation("@q", Some("home")),
        "created",
    );
    let moved = ["@q".into(), "office".into()];
    User::connect(mesh.node("home"), ANN).may("set_scope", &moved, "scope updated");
    wait_until("it has moved", || {
        mesh.node("office").connect().call("keys", &["@ann:q".into()]).is_ok()
    });
    mesh.node_mut("office").kill();
    let home = mesh.node("home");
    let removed = home.connect().call("mesh_remove_node", &["office".into()]);
    assert_eq!(removed, Ok("removed".into()));
    let mut ann = User::connect(home, ANN);
    assert_eq!(ann.call("create_table", &creation("@q", None)), Err("already_exists".into()));
    ann.may("drop_table", &["@q".into()], "dropped");
    ann.may("create_table", &creation("@q", None), "created");
    ann.put("@q", "milk");
    let gone = ann.call("set_scope", &["@q".into(), "office".into()]);
    assert_eq!(gone, Err("unknown node: office".into()), "it was removed");
}

/// holds R8: the end of a chain is known from the directory alone.
#[test]
fn a_member_that_is_not_linked_to_is_no_stranger() {
    let mesh = Cluster::start(&["a", "b", "c"], &[("a", "b"), ("b", "c")]);
    open_to_all(&mesh, &["a", "b", "c"]);
    let a = mesh.node("a");
    wait_until("a has heard of c", || {
        let mut root = a.connect();
        root.call("create_table", &creation("t", Some("a,c"))) == Ok("created".into())
    });
    let mut root = a.connect();
    assert_eq!(root.call("create_table", &creation("u", None)), Ok("created".into()));
    assert_eq!(root.call("set_scope", &["u".into(), "a,b,c".into()]), Ok("scope updated".into()));
    let unknown = root.call("set_scope", &["u".into(), "a,d".into()]);
    assert_eq!(unknown, Err("unknown node: d".into()));
    let for_c = map([("uid", ANN.into()), ("for_node", "c".into())]);
    assert!(root.call("identity_register", &["ann".into(), for_c]).is_ok());
    let why = root.call("explain", &["u".into(), map([("node", "c".into())])]);
    let why = why.expect("an explanation").to_string();
    assert!(!why.contains("no member"), "{why}");
    assert_eq!(root.call("put", &["u".into(), map([("id", 1.into())])]), Ok("ok".into()));
    let time_limit = map([("node", "c".into()), ("timeout_ms", 60_000.into())]);
    assert!(root.call("sync_wait", &["u".into(), time_limit]).is_ok(), "through b");
    wait_until("c has it", || {
        mesh.node("c").connect().call("keys", &["0@a:u".into()]) == Ok(list(["1".into()]))
    });
}
