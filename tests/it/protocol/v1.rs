//! Every method of the first protocol, row by row: its values and error strings, byte for byte.
//! Leaves who may do what to `root_uids`, bounds to `bounds`, and the contents of records to `records`.

use daemon::Daemon;
use rmpv::Value;
use rpc::{Rpc, failure, field, list, map, packed, success};

use crate::support::{daemon, rpc};

/// A daemon with a table `users` (`id`, `name`) and a connection to it.
fn with_users() -> (Daemon, Rpc) {
    let daemon = Daemon::start();
    let mut rpc = daemon.connect();
    let attributes = list(["id".into(), "name".into()]);
    yields(&mut rpc, "create_table", &["users".into(), attributes], "created");
    (daemon, rpc)
}

/// Checks a result, byte for byte.
fn yields(rpc: &mut Rpc, method: &str, params: &[Value], result: impl Into<Value>) {
    let response = rpc.exchange(method, params);
    let expected = success(response.id, result);
    assert_eq!(response.bytes, expected, "{method} {params:?}: {:?}", response.outcome);
}

/// Checks an error, byte for byte.
fn refuses(rpc: &mut Rpc, method: &str, params: &[Value], error: &str) {
    let response = rpc.exchange(method, params);
    let expected = failure(response.id, error);
    assert_eq!(response.bytes, expected, "{method} {params:?}: {:?}", response.outcome);
}

/// Checks a result that is a list of rows, whose length may be written in any width.
fn lists<const N: usize>(rpc: &mut Rpc, method: &str, params: &[Value], expected: [Value; N]) {
    assert_eq!(rpc.call(method, params), Ok(list(expected)), "{method} {params:?}");
}

fn user(id: impl Into<Value>, name: &str) -> Value {
    map([("id", id.into()), ("name", name.into())])
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// holds V2
#[test]
fn ping_answers_pong() {
    let daemon = Daemon::start();
    let mut rpc = daemon.connect();
    rpc.send(b"\x94\x00\x07\xa4ping\x90");
    assert_eq!(rpc.receive().bytes, b"\x94\x01\x07\xc0\xa4pong");
}

/// holds V2
#[test]
fn a_response_repeats_the_id_of_its_request_whatever_it_is() {
    let daemon = Daemon::start();
    let mut rpc = daemon.connect();
    for id in [0, 1, 127, 128, 65_535, 65_536, u64::from(u32::MAX), u64::MAX] {
        rpc.send(&rpc::request(id, "ping", &[]));
        assert_eq!(rpc.receive().bytes, success(id, "pong"));
    }
    // An id that is not in its shortest form is the same number.
    rpc.send(b"\x94\x00\xcf\x00\x00\x00\x00\x00\x00\x00\x07\xa4ping\x90");
    assert_eq!(rpc.receive().bytes, success(7, "pong"));
}

/// holds V2
#[test]
fn status_says_what_runs_and_how_many_tables_there_are() {
    let (_daemon, mut rpc) = with_users();
    let status = rpc.call("status", &[]).expect("status");
    assert_eq!(field(&status, "version"), Some(&env!("CARGO_PKG_VERSION").into()));
    assert_eq!(field(&status, "status"), Some(&"running".into()));
    let host = nix::unistd::gethostname().expect("a host name").into_string().expect("UTF-8");
    assert_eq!(field(&status, "node"), Some(&host.into()));
    assert_eq!(field(&status, "tables"), Some(&1.into()));
}

/// holds V2, V3
#[test]
fn tables_lists_the_callers_own_by_their_short_names() {
    let (_daemon, mut rpc) = with_users();
    rpc.create("_a9");
    yields(&mut rpc, "tables", &[], list(["_a9".into(), "users".into()]));
    yields(&mut rpc, "drop_table", &["users".into()], "dropped");
    yields(&mut rpc, "tables", &[], list(["_a9".into()]));
    yields(&mut rpc, "drop_table", &["_a9".into()], "dropped");
    yields(&mut rpc, "tables", &[], list([]));
}

/// holds V2
#[test]
fn create_table_answers_every_row_of_its_errors() {
    let (_daemon, mut rpc) = with_users();
    let id = || list(["id".into()]);
    let bad_name = "invalid table name: must be alphanumeric with underscores";
    let bad_params = "invalid params: expected [name, [attributes]] or [name, [attributes], scope]";
    let own = format!("{}:own", own_uid());
    let foreign = format!("{}:foreign", own_uid() + 1);
    let mut create = |params: &[Value], expected: Result<&str, &str>| match expected {
        Ok(result) => yields(&mut rpc, "create_table", params, result),
        Err(error) => refuses(&mut rpc, "create_table", params, error),
    };

    create(&["users".into(), id()], Err("already_exists"));
    create(&["local".into(), id(), "local".into()], Ok("created"));
    create(&[own.as_str().into(), id()], Ok("created"));
    create(&["own".into(), id()], Err("already_exists"));
    for name in ["", "9a", "a-b", "a b", "é", "a.b", "x:a", "01:a", "a\0"] {
        create(&[name.into(), id()], Err(bad_name));
    }
    for attribute in ["", "9a", "a-b", "é", "@a"] {
        let error = format!("invalid attribute name: {attribute}");
        create(&["t".into(), list(["id".into(), attribute.into()])], Err(&error));
    }
    for attribute in [Value::Nil, 7.into(), list([]), Value::Binary(b"a".to_vec())] {
        create(&["t".into(), list(["id".into(), attribute])], Err("invalid attribute type"));
    }
    for params in [
        &[][..],
        &["t".into()],
        &["t".into(), "id".into()],
        &["t".into(), list([])],
        &[7.into(), id()],
        &["t".into(), id(), 7.into()],
        &["t".into(), id(), "local".into(), Value::Nil],
    ] {
        create(params, Err(bad_params));
    }
    create(&[foreign.as_str().into(), id()], Err("access_denied"));
    create(&["@t".into(), id()], Err("federated_identity_required"));
    create(&["t".into(), id(), "all".into()], Err("mesh networking not configured"));
}

/// holds V2
#[test]
fn drop_table_takes_the_records_along() {
    let (_daemon, mut rpc) = with_users();
    yields(&mut rpc, "put", &["users".into(), user(1, "Ann")], "ok");
    yields(&mut rpc, "drop_table", &["users".into()], "dropped");
    refuses(&mut rpc, "drop_table", &["users".into()], "access_denied");
    refuses(&mut rpc, "get", &["users".into(), 1.into()], "access_denied");
    rpc.create("users");
    refuses(&mut rpc, "get", &["users".into(), 1.into()], "not_found");
    lists(&mut rpc, "all", &["users".into()], []);
}

/// holds V2
#[test]
fn put_answers_every_row_of_its_errors() {
    let (_daemon, mut rpc) = with_users();
    let bad_params = "invalid params: expected [table, record]";
    for params in [
        &[][..],
        &["users".into()],
        &["users".into(), list([])],
        &["users".into(), "id".into()],
        &["users".into(), Value::Nil],
        &[7.into(), user(1, "Ann")],
        &["users".into(), user(1, "Ann"), Value::Nil],
    ] {
        refuses(&mut rpc, "put", params, bad_params);
    }
    for key in [Value::Nil, "".into(), list([]), map([]), Value::Binary(b"7".to_vec())] {
        refuses(&mut rpc, "put", &["users".into(), user(key, "Ann")], "missing_key");
    }
    refuses(&mut rpc, "put", &["users".into(), map([("name", "Ann".into())])], "missing_key");
    refuses(&mut rpc, "put", &["absent".into(), user(1, "Ann")], "access_denied");
    lists(&mut rpc, "all", &["users".into()], []);
}

/// holds V2
#[test]
fn a_record_is_got_as_it_was_put_until_it_is_put_again_or_deleted() {
    let (_daemon, mut rpc) = with_users();
    let get = &["users".into(), "1".into()][..];
    refuses(&mut rpc, "get", get, "not_found");
    yields(&mut rpc, "put", &["users".into(), user(1, "Ann")], "ok");
    yields(&mut rpc, "get", get, user(1, "Ann"));
    let undeclared = map([("extra", list([1.into()])), ("id", 1.into())]);
    yields(&mut rpc, "put", &["users".into(), undeclared.clone()], "ok");
    yields(&mut rpc, "get", get, undeclared);
    yields(&mut rpc, "delete", get, "ok");
    refuses(&mut rpc, "get", get, "not_found");
    yields(&mut rpc, "delete", get, "ok");
}

/// holds V2
#[test]
fn keys_are_compared_as_strings() {
    let (_daemon, mut rpc) = with_users();
    for (key, text) in [
        (Value::from(7), "7"),
        ((-7).into(), "-7"),
        (u64::MAX.into(), "18446744073709551615"),
        (i64::MIN.into(), "-9223372036854775808"),
        (true.into(), "true"),
        (1.5.into(), "1.5"),
        (7.0.into(), "7.0"),
        ("é ☃".into(), "é ☃"),
    ] {
        let record = user(key.clone(), text);
        yields(&mut rpc, "put", &["users".into(), record.clone()], "ok");
        yields(&mut rpc, "get", &["users".into(), key.clone()], record.clone());
        yields(&mut rpc, "get", &["users".into(), text.into()], record);
        lists(&mut rpc, "keys", &["users".into()], [text.into()]);
        let replacement = user(text, "replaced");
        yields(&mut rpc, "put", &["users".into(), replacement.clone()], "ok");
        lists(&mut rpc, "all", &["users".into()], [replacement]);
        yields(&mut rpc, "delete", &["users".into(), key], "ok");
        lists(&mut rpc, "keys", &["users".into()], []);
    }
}

/// holds V2
#[test]
fn get_and_delete_answer_every_row_of_their_errors() {
    let (_daemon, mut rpc) = with_users();
    for method in ["get", "delete"] {
        let bad_params = "invalid params: expected [table, key]";
        for params in [
            &[][..],
            &["users".into()],
            &[7.into(), 1.into()],
            &["users".into(), 1.into(), 2.into()],
        ] {
            refuses(&mut rpc, method, params, bad_params);
        }
        refuses(&mut rpc, method, &["absent".into(), 1.into()], "access_denied");
    }
    for no_key in [Value::Nil, "".into(), list([]), map([])] {
        refuses(&mut rpc, "get", &["users".into(), no_key.clone()], "not_found");
        refuses(&mut rpc, "delete", &["users".into(), no_key], "missing_key");
    }
}

/// holds V2
#[test]
fn all_and_keys_list_in_the_order_of_the_keys() {
    let (_daemon, mut rpc) = with_users();
    for (id, name) in [(2, "Bob"), (10, "Cid"), (1, "Ann")] {
        yields(&mut rpc, "put", &["users".into(), user(id, name)], "ok");
    }
    let table = &["users".into()][..];
    lists(&mut rpc, "keys", table, ["1".into(), "10".into(), "2".into()]);
    lists(&mut rpc, "all", table, [user(1, "Ann"), user(10, "Cid"), user(2, "Bob")]);
    let page = |limit: u64, after: &str| map([("limit", limit.into()), ("after", after.into())]);
    lists(&mut rpc, "keys", &["users".into(), page(1, "1")], ["10".into()]);
    lists(&mut rpc, "keys", &["users".into(), page(9, "10")], ["2".into()]);
    lists(&mut rpc, "keys", &["users".into(), page(0, "")], []);
    for method in ["all", "keys"] {
        let bad_params = "invalid params: expected [table] or [table, {limit, after}]";
        let no_page = map([("limit", "1".into())]);
        for params in [
            &[][..],
            &[7.into()],
            &["users".into(), 1.into()],
            &["users".into(), no_page],
            &["users".into(), page(1, ""), Value::Nil],
        ] {
            refuses(&mut rpc, method, params, bad_params);
        }
        refuses(&mut rpc, method, &["absent".into()], "access_denied");
    }
}

/// holds V2: the rules of `match`, a row each.
#[test]
fn match_compares_by_equality_and_by_membership() {
    let (_daemon, mut rpc) = with_users();
    let record = map([
        ("id", 1.into()),
        ("name", "Ann".into()),
        ("tags", list(["a".into(), "b".into()])),
        ("none", Value::Nil),
        ("holes", list([Value::Nil, 3.into()])),
        ("nested", list([list([1.into()]), map([("x", 1.into())])])),
        ("inner", map([("y", 2.into()), ("x", 1.into())])),
        ("half", 0.5.into()),
        ("bytes", Value::Binary(b"Ann".to_vec())),
        ("yes", true.into()),
    ]);
    yields(&mut rpc, "put", &["users".into(), record.clone()], "ok");
    let mut check = |pattern: Value, is_match: bool, why: &str| {
        let found = rpc.call("match", &["users".into(), pattern]);
        let expected = if is_match { list([record.clone()]) } else { list([]) };
        assert_eq!(found, Ok(expected), "{why}");
    };
    check(map([]), true, "an empty pattern matches every record");
    check(map([("name", "Ann".into())]), true, "equal");
    check(map([("name", "ann".into())]), false, "another string");
    check(map([("name", Value::Binary(b"Ann".to_vec()))]), false, "bytes are no string");
    check(map([("bytes", Value::Binary(b"Ann".to_vec()))]), true, "equal bytes");
    check(map([("id", 1.into())]), true, "equal");
    check(map([("id", 1.0.into())]), true, "equal as numbers");
    check(map([("id", "1".into())]), false, "a string is no number");
    check(map([("half", 0.5.into())]), true, "an equal fraction");
    check(map([("half", Value::F32(0.5))]), true, "an equal fraction of another width");
    check(map([("yes", true.into())]), true, "an equal boolean");
    check(map([("yes", 1.into())]), false, "a number is no boolean");
    check(map([("tags", "b".into())]), true, "a member");
    check(map([("tags", "c".into())]), false, "no member");
    check(map([("tags", list(["a".into(), "b".into()]))]), true, "an equal list");
    check(map([("tags", list(["b".into(), "a".into()]))]), false, "a list in another order");
    check(map([("tags", list(["a".into()]))]), false, "a part of the list");
    check(map([("nested", list([1.into()]))]), false, "a list is no member");
    check(map([("nested", map([("x", 1.into())]))]), true, "a map is a member");
    check(map([("inner", map([("x", 1.into()), ("y", 2.into())]))]), true, "in any order");
    check(map([("inner", map([("x", 1.into())]))]), false, "a part of the map");
    check(map([("none", Value::Nil)]), true, "nil is nil");
    check(map([("id", Value::Nil)]), false, "nil is nothing else");
    check(map([("holes", Value::Nil)]), false, "nil is no member of a list");
    check(map([("absent", Value::Nil)]), false, "a field that the record lacks");
    check(map([("id", 1.into()), ("name", "Ann".into())]), true, "both");
    check(map([("id", 1.into()), ("name", "Bob".into())]), false, "not both");
}

/// holds V2
#[test]
fn match_answers_every_row_of_its_errors() {
    let (_daemon, mut rpc) = with_users();
    let bad_params =
        "invalid params: expected [table, pattern] or [table, pattern, {limit, after}]";
    let numbered = Value::Map(vec![(1.into(), 1.into())]);
    for params in [
        &["users".into()][..],
        &["users".into(), list([])],
        &["users".into(), Value::Nil],
        &["users".into(), numbered],
        &["users".into(), map([]), 1.into()],
        &["users".into(), map([]), map([]), map([])],
    ] {
        refuses(&mut rpc, "match", params, bad_params);
    }
    refuses(&mut rpc, "match", &["absent".into(), map([])], "access_denied");
    lists(&mut rpc, "match", &["users".into(), map([])], []);
}

/// holds V2, V4
#[test]
fn grants_are_listed_until_they_are_revoked() {
    let (_daemon, mut rpc) = with_users();
    let full_name = format!("{}:users", own_uid());
    let grant = |identity: &str, permissions: &[&str]| {
        map([
            ("identity", identity.into()),
            ("table", full_name.as_str().into()),
            ("permissions", Value::Array(permissions.iter().map(|&p| p.into()).collect())),
        ])
    };
    let owner = format!("uid:{}", own_uid());
    let own = || grant(&owner, &["read", "write", "admin"]);
    let users = || Value::from("users");
    yields(&mut rpc, "acl_list", &[], list([own()]));
    yields(&mut rpc, "acl_grant", &["uid:7".into(), users(), "write,read".into()], "granted");
    let words = list(["admin".into(), "read".into()]);
    yields(&mut rpc, "acl_grant", &["*".into(), full_name.as_str().into(), words], "granted");
    let both = [grant("*", &["read", "admin"]), grant("uid:7", &["read", "write"])];
    let [everybodys, sevens] = both;
    yields(&mut rpc, "acl_list", &[], list([own(), everybodys, sevens]));
    yields(&mut rpc, "acl_revoke", &["*".into(), users(), "read,admin".into()], "revoked");
    yields(&mut rpc, "acl_revoke", &["uid:7".into(), users(), "read".into()], "revoked");
    yields(&mut rpc, "acl_list", &[], list([own(), grant("uid:7", &["write"])]));
    yields(&mut rpc, "acl_revoke", &["uid:8".into(), users(), "read".into()], "revoked");
    yields(&mut rpc, "acl_list", &[], list([own(), grant("uid:7", &["write"])]));
}

/// holds V2, V4: whatever is granted to the owner or taken from them, theirs is one row with all rights.
#[test]
fn the_owners_own_row_is_in_acl_list_once_for_each_table() {
    let (_daemon, mut rpc) = with_users();
    rpc.create("a");
    let owner = format!("uid:{}", own_uid());
    let row = |table: &str| {
        map([
            ("identity", owner.as_str().into()),
            ("table", format!("{}:{table}", own_uid()).into()),
            ("permissions", list(["read".into(), "write".into(), "admin".into()])),
        ])
    };
    let both = || list([row("a"), row("users")]);
    yields(&mut rpc, "acl_list", &[], both());
    let grant = |rights: &str| [owner.as_str().into(), Value::from("a"), rights.into()];
    yields(&mut rpc, "acl_grant", &grant("read"), "granted");
    yields(&mut rpc, "acl_list", &[], both());
    yields(&mut rpc, "acl_revoke", &grant("read,write,admin"), "revoked");
    yields(&mut rpc, "acl_list", &[], both());
    yields(&mut rpc, "drop_table", &["a".into()], "dropped");
    yields(&mut rpc, "acl_list", &[], list([row("users")]));
}

/// holds V2
#[test]
fn acl_grant_and_acl_revoke_answer_every_row_of_their_errors() {
    let (_daemon, mut rpc) = with_users();
    for method in ["acl_grant", "acl_revoke"] {
        let mut refuse = |identity: Value, table: &str, permissions: Value, error: &str| {
            refuses(&mut rpc, method, &[identity, table.into(), permissions], error);
        };
        for identity in ["", "7", "uid:", "uid:x", "uid:07", "uid:-1", "uid:4294967296", "**"] {
            refuse(identity.into(), "users", "read".into(), "invalid_identity");
        }
        for permissions in
            ["".into(), "reed".into(), "READ".into(), "read,".into(), list([]), list([7.into()])]
        {
            refuse("uid:7".into(), "users", permissions, "invalid_permissions");
        }
        refuse("uid:7".into(), "absent", "read".into(), "access_denied");
        let bad_params = "invalid params: expected [identity, table, permissions]";
        refuse(7.into(), "users", "read".into(), bad_params);
        refuse("uid:7".into(), "users", 7.into(), bad_params);
        refuses(&mut rpc, method, &["uid:7".into(), "users".into()], bad_params);
    }
    refuses(&mut rpc, "acl_list", &[1.into()], "invalid params: expected []");
    let rows = rpc.call("acl_list", &[]).expect("a list");
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "the owner's row alone: {rows}");
}

/// holds V2, V4: what cannot exist, does not exist or is foreign looks the same.
#[test]
fn every_way_to_name_a_table_that_is_not_there_answers_the_same() {
    let (_daemon, mut rpc) = with_users();
    let foreign = format!("{}:users", own_uid() + 1);
    for table in [
        "absent",
        foreign.as_str(),
        "4294967295:users",
        "x:users",
        "01:users",
        "",
        ":",
        "a-b",
        "@notes",
        "@ann:notes",
    ] {
        for (method, params) in [
            ("get", vec![table.into(), 1.into()]),
            ("put", vec![table.into(), user(1, "Ann")]),
            ("delete", vec![table.into(), 1.into()]),
            ("match", vec![table.into(), map([])]),
            ("all", vec![table.into()]),
            ("keys", vec![table.into()]),
            ("drop_table", vec![table.into()]),
            ("acl_grant", vec!["*".into(), table.into(), "read".into()]),
            ("acl_revoke", vec!["*".into(), table.into(), "read".into()]),
        ] {
            refuses(&mut rpc, method, &params, "access_denied");
        }
    }
}

/// holds V2, V3
#[test]
fn the_full_name_of_an_own_table_means_that_table() {
    let (_daemon, mut rpc) = with_users();
    let full_name = format!("{}:users", own_uid());
    yields(&mut rpc, "put", &[full_name.as_str().into(), user(1, "Ann")], "ok");
    yields(&mut rpc, "get", &["users".into(), 1.into()], user(1, "Ann"));
    yields(&mut rpc, "drop_table", &[full_name.as_str().into()], "dropped");
    refuses(&mut rpc, "get", &["users".into(), 1.into()], "access_denied");
}

/// holds V2
#[test]
fn unknown_methods_and_wrong_parameters_say_so() {
    let daemon = Daemon::start();
    let mut rpc = daemon.connect();
    for name in ["", "Ping", "ping ", "pïng", "__proto__"] {
        refuses(&mut rpc, name, &[], &format!("unknown method: {name}"));
    }
    refuses(&mut rpc, "ping", &[1.into()], "invalid params: expected []");
    refuses(&mut rpc, "status", &[map([])], "invalid params: expected []");
    refuses(
        &mut rpc,
        "drop_table",
        &[],
        "invalid params: expected [table] or [table, {replica, undo}]",
    );
    refuses(
        &mut rpc,
        "drop_table",
        &[1.into()],
        "invalid params: expected [table] or [table, {replica, undo}]",
    );
}

/// holds M1: what needs other machines says that there are none.
#[test]
fn methods_of_the_mesh_say_that_there_is_none() {
    let (_daemon, mut rpc) = with_users();
    let users = || Value::from("users");
    for (method, params) in [
        ("identity_register", vec!["ann".into()]),
        ("identity_token", vec![]),
        ("identity_claim", vec!["a.b".into()]),
        ("identity_revoke", vec!["ann".into()]),
        ("identity_resolve", vec!["ann".into(), "3f2a".into()]),
        ("mesh_list_nodes", vec![]),
        ("mesh_status", vec![]),
        ("mesh_remove_node", vec!["office".into()]),
        ("set_scope", vec![users(), "all".into()]),
        ("set_scope", vec![users(), "home,office".into()]),
        ("sync_wait", vec![users()]),
        ("sync_repair", vec![users()]),
    ] {
        refuses(&mut rpc, method, &params, "mesh networking not configured");
    }
}

/// holds M1, S1: questions that one machine can answer by itself are answered without a mesh.
#[test]
fn questions_about_scopes_identities_and_replicas_have_answers_on_one_machine() {
    let (_daemon, mut rpc) = with_users();
    let full_name = format!("{}:users", own_uid());
    for name in ["users", &full_name] {
        let scope = rpc.call("get_scope", &[name.into()]).expect("a scope");
        assert_eq!(field(&scope, "table"), Some(&full_name.as_str().into()), "{name}");
        assert_eq!(field(&scope, "node_scope"), Some(&"local".into()), "{name}");
    }
    yields(&mut rpc, "identity_list", &[], list([]));
    refuses(&mut rpc, "identity_lookup", &["ann".into()], "unknown_identity");
    yields(&mut rpc, "sync_status", &[], list([]));
    let status = rpc.call("sync_status_table", &["users".into()]).expect("a state");
    assert_eq!(field(&status, "scope"), Some(&"local".into()));
    assert_eq!(field(&status, "nodes"), Some(&list([])));
    let info = rpc.call("table_info", &["users".into()]).expect("a table");
    let owner = format!("uid:{}", own_uid());
    for (name, expected) in [
        ("table", full_name.as_str().into()),
        ("owner", owner.as_str().into()),
        ("key_field", "id".into()),
        ("attributes", list(["id".into(), "name".into()])),
        ("node_scope", "local".into()),
    ] {
        assert_eq!(field(&info, name), Some(&expected), "{name}");
    }
    // What is local stays so: there is nothing to decide.
    yields(&mut rpc, "set_scope", &["users".into(), "local".into()], "scope updated");
    for method in ["get_scope", "sync_status_table", "table_info"] {
        refuses(&mut rpc, method, &["absent".into()], "access_denied");
        refuses(&mut rpc, method, &[], "invalid params: expected [table]");
    }
    refuses(&mut rpc, "set_scope", &["absent".into(), "local".into()], "access_denied");
    refuses(&mut rpc, "identity_list", &[1.into()], "invalid params: expected []");
    refuses(&mut rpc, "sync_status", &[1.into()], "invalid params: expected []");
}

/// holds V2: what is no request is answered as such, and the connection goes on.
#[test]
fn a_value_that_is_no_request_is_answered_with_the_id_0() {
    let daemon = Daemon::start();
    let mut rpc = daemon.connect();
    let ping = || Value::from("ping");
    for value in [
        Value::Nil,
        7.into(),
        "ping".into(),
        map([]),
        list([]),
        list([0.into(), 1.into(), ping()]),
        list([0.into(), 1.into(), ping(), Value::Nil]),
        list([0.into(), 1.into(), ping(), map([])]),
        list([0.into(), 1.into(), 7.into(), list([])]),
        list([0.into(), (-1).into(), ping(), list([])]),
        list([0.into(), "1".into(), ping(), list([])]),
        list([1.into(), 1.into(), Value::Nil, "a response".into()]),
        list([2.into(), "a notification".into(), list([])]),
        list([0.into(), 1.into(), ping(), list([]), map([]), map([])]),
        Value::Ext(1, vec![1, 2, 3]),
    ] {
        rpc.send(&packed(&value));
        assert_eq!(rpc.receive().bytes, failure(0, "invalid_request"), "{value}");
    }
    rpc.send(b"\x94\x00\x01\xa4\xff\xff\xff\xff\x90");
    assert_eq!(rpc.receive().bytes, failure(0, "invalid_request"), "a method that is no UTF-8");
    yields(&mut rpc, "ping", &[], "pong");
}

/// holds M6: the uid that only peers may send is refused here, whoever it names.
#[test]
fn a_fifth_element_is_refused_by_its_name() {
    let daemon = Daemon::start();
    let mut rpc = daemon.connect();
    for metadata in [map([("uid", 0.into())]), map([]), Value::Nil] {
        let request = list([0.into(), 9.into(), "ping".into(), list([]), metadata]);
        rpc.send(&packed(&request));
        let expected = failure(9, "metadata not allowed on local connections");
        assert_eq!(rpc.receive().bytes, expected);
    }
    yields(&mut rpc, "ping", &[], "pong");
}
