//! What one user can do to another's tables, by the uid that the kernel reports: needs root, which is
//! the only one who can be several users.
//! Leaves the decision itself, over all its inputs, to `cortex_core::gate`.
//!
//! `cargo test` does not run these tests by itself; `cargo test --test root` as root does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use daemon::{Daemon, Guarded, bare, copy_program, directory, output_of, wait_until};
use rmpv::Value;
use rpc::{list, map, request};
use user::{User, daemon_for_all, require_root};

use crate::{
    support::{daemon, rpc},
    user,
};

// Users without an account: nothing here looks one up.
const ANN: u32 = 20_001;
const BOB: u32 = 20_002;
const ROOT: u32 = 0;

fn record(id: &str) -> Value {
    map([("id", id.into())])
}

fn names(value: Result<Value, String>) -> Vec<String> {
    let Ok(Value::Array(names)) = value else {
        panic!("no list: {value:?}");
    };
    names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

/// holds V3
#[test]
fn each_user_has_a_namespace_of_their_own() {
    let daemon = daemon_for_all("");
    let (mut ann, mut bob) = (User::connect(&daemon, ANN), User::connect(&daemon, BOB));
    ann.create("users");
    bob.create("users");
    ann.create("only_anns");
    ann.put("users", "ann");
    bob.put("users", "bob");
    ann.may("keys", &["users".into()], list(["ann".into()]));
    bob.may("keys", &["users".into()], list(["bob".into()]));
    bob.may("keys", &[format!("{BOB}:users").into()], list(["bob".into()]));
    assert_eq!(names(ann.call("tables", &[])), ["only_anns", "users"]);
    assert_eq!(names(bob.call("tables", &[])), ["users"]);

    bob.may_not("create_table", &[format!("{ANN}:theirs").into(), list(["id".into()])]);
    bob.may("drop_table", &["users".into()], "dropped");
    ann.may("get", &["users".into(), "ann".into()], record("ann"));
}

/// Every operation on a table with what it needs: a letter of `read`, `write` or `admin`.
fn operations(table: &str) -> Vec<(char, &'static str, Vec<Value>)> {
    let t = || Value::from(table);
    vec![
        ('r', "get", vec![t(), "k".into()]),
        ('r', "all", vec![t()]),
        ('r', "keys", vec![t()]),
        ('r', "match", vec![t(), map([])]),
        ('r', "table_info", vec![t()]),
        ('w', "put", vec![t(), record("k")]),
        ('w', "delete", vec![t(), "absent".into()]),
        ('a', "acl_grant", vec!["uid:1".into(), t(), "read".into()]),
        ('a', "acl_revoke", vec!["uid:1".into(), t(), "read".into()]),
    ]
}

/// holds V3, V4: each right alone and with others, to one user and to everybody.
#[test]
fn a_grant_allows_what_it_names_and_nothing_else() {
    let daemon = daemon_for_all("");
    let (mut ann, mut bob) = (User::connect(&daemon, ANN), User::connect(&daemon, BOB));
    ann.create("notes");
    ann.put("notes", "k");
    let full_name = format!("{ANN}:notes");
    for principal in [format!("uid:{BOB}"), "*".into()] {
        for rights in [
            "",
            "read",
            "write",
            "admin",
            "read,write",
            "read,admin",
            "write,admin",
            "read,write,admin",
        ] {
            let granting = [principal.as_str().into(), "notes".into(), rights.into()];
            if !rights.is_empty() {
                ann.may("acl_grant", &granting, "granted");
            }
            for (needed, method, params) in operations(&full_name) {
                let is_allowed = rights.split(',').any(|right| right.starts_with(needed));
                let answer = bob.call(method, &params);
                let refused = answer == Err("access_denied".into());
                assert_eq!(
                    answer.is_ok(),
                    is_allowed,
                    "{principal} {rights:?}: {method} {answer:?}"
                );
                assert_eq!(refused, !is_allowed, "{principal} {rights:?}: {method} {answer:?}");
            }
            // A short name is the caller's own, whatever they may do to another's.
            bob.may_not("get", &["notes".into(), "k".into()]);
            if !rights.is_empty() {
                ann.may("acl_revoke", &granting, "revoked");
            }
        }
    }
    for (_, method, params) in operations(&full_name) {
        bob.may_not(method, &params);
    }
    let rows = ann.call("acl_list", &[]).expect("a list");
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "the owner's row alone: {rows}");
}

/// holds V4
#[test]
fn only_who_may_administer_a_table_may_drop_it() {
    let daemon = daemon_for_all("");
    let (mut ann, mut bob) = (User::connect(&daemon, ANN), User::connect(&daemon, BOB));
    let drop_it = [format!("{ANN}:t").into()];
    for rights in ["read,write", "admin"] {
        ann.create("t");
        bob.may_not("drop_table", &drop_it);
        ann.may("acl_grant", &[format!("uid:{BOB}").into(), "t".into(), rights.into()], "granted");
        if rights == "admin" {
            bob.may("drop_table", &drop_it, "dropped");
        } else {
            bob.may_not("drop_table", &drop_it);
            ann.may("drop_table", &["t".into()], "dropped");
        }
    }
    // Of a table that was dropped nothing is left to whoever had a grant on it.
    ann.create("t");
    for (_, method, params) in operations(&format!("{ANN}:t")) {
        bob.may_not(method, &params);
    }
}

/// holds V4: a revoked right counts for no request that is sent after the revocation is answered,
/// on no connection that is open, and after no restart.
#[test]
fn a_revoked_right_is_gone_at_once_and_for_good() {
    let mut daemon = daemon_for_all("");
    let (mut ann, mut bob) = (User::connect(&daemon, ANN), User::connect(&daemon, BOB));
    ann.create("t");
    ann.put("t", "k");
    let granting = |rights: &str| [format!("uid:{BOB}").into(), "t".into(), rights.into()];
    let (get, put) =
        ([format!("{ANN}:t").into(), "k".into()], [format!("{ANN}:t").into(), record("k")]);
    for _ in 0..20 {
        ann.may("acl_grant", &granting("read,write"), "granted");
        bob.may("get", &get, record("k"));
        bob.may("put", &put, "ok");
        ann.may("acl_revoke", &granting("read"), "revoked");
        bob.may_not("get", &get);
        bob.may("put", &put, "ok");
        ann.may("acl_revoke", &granting("write"), "revoked");
        bob.may_not("put", &put);
    }
    ann.may("acl_grant", &granting("read"), "granted");
    daemon.kill();
    daemon.restart();
    let (mut ann, mut bob) = (User::connect(&daemon, ANN), User::connect(&daemon, BOB));
    bob.may("get", &get, record("k"));
    bob.may_not("put", &put);
    ann.may("acl_revoke", &granting("read"), "revoked");
    daemon.kill();
    daemon.restart();
    User::connect(&daemon, BOB).may_not("get", &get);
}

/// holds V4: nobody can find out by asking which tables others have.
#[test]
fn an_absent_table_and_a_forbidden_one_look_the_same() {
    let daemon = daemon_for_all("");
    let (mut ann, mut bob) = (User::connect(&daemon, ANN), User::connect(&daemon, BOB));
    ann.create("secret");
    ann.put("secret", "k");
    let (forbidden, absent) = (format!("{ANN}:secret"), format!("{ANN}:absent"));
    for ((_, method, there), (.., not_there)) in
        operations(&forbidden).into_iter().zip(operations(&absent))
    {
        let answers =
            bob.rpc.pipeline(&[request(1, method, &there), request(1, method, &not_there)]);
        assert_eq!(answers[0].bytes, answers[1].bytes, "{method}");
    }
    // Also where there is something wrong with the rest of the request.
    for (method, rest) in [
        ("put", vec![map([])]),
        ("get", vec![Value::Nil]),
        ("delete", vec![Value::Nil]),
        ("put", vec![record(&"k".repeat(5000))]),
    ] {
        let params = |table: &str| [vec![table.into()], rest.clone()].concat();
        let answers = bob.rpc.pipeline(&[
            request(1, method, &params(&forbidden)),
            request(1, method, &params(&absent)),
        ]);
        assert_eq!(answers[0].bytes, answers[1].bytes, "{method} {rest:?}");
    }
    for (identity, rights) in [("nobody", "read"), ("uid:1", "reed")] {
        let params = |table: &str| [identity.into(), table.into(), rights.into()];
        let answers = bob.rpc.pipeline(&[
            request(1, "acl_grant", &params(&forbidden)),
            request(1, "acl_grant", &params(&absent)),
        ]);
        assert_eq!(answers[0].bytes, answers[1].bytes, "{identity} {rights}");
    }
    assert_eq!(names(bob.call("tables", &[])), Vec::<String>::new());
    assert_eq!(names(bob.call("tables", &[map([("all", true.into())])])), Vec::<String>::new());
    bob.may("acl_list", &[], list([]));
    bob.may("usage", &[], list([]));
}

/// holds V4: also where the daemon itself is no root.
#[test]
fn root_may_do_everything_to_every_table() {
    require_root();
    for daemon in [daemon_for_all(""), Daemon::as_uid(BOB, "")] {
        let (mut ann, mut root) = (User::connect(&daemon, ANN), User::connect(&daemon, ROOT));
        ann.create("t");
        ann.put("t", "k");
        for (_, method, params) in operations(&format!("{ANN}:t")) {
            assert!(root.call(method, &params).is_ok(), "{method} {params:?}");
        }
        root.may_not("get", &["t".into(), "k".into()]);
        root.may_not("get", &[format!("{ANN}:absent").into(), "k".into()]);
        root.may("drop_table", &[format!("{ANN}:t").into()], "dropped");
        ann.may_not("get", &["t".into(), "k".into()]);
    }
}

/// Who the daemon runs as may administer it, and still not read what others keep in it by asking.
#[test]
fn the_daemons_own_user_has_no_rights_on_others_tables() {
    require_root();
    let daemon = Daemon::as_uid(BOB, "");
    let (mut ann, mut bob) = (User::connect(&daemon, ANN), User::connect(&daemon, BOB));
    ann.create("t");
    ann.put("t", "k");
    for (_, method, params) in operations(&format!("{ANN}:t")) {
        bob.may_not(method, &params);
    }
    for method in ["reload", "checkpoint", "backup"] {
        ann.may_not(method, &[]);
    }
    bob.may("reload", &[], "reloaded");
}

/// holds V6: whoever opens all that one user may have takes nothing from others.
#[test]
fn bounds_of_one_user_are_not_anothers() {
    const LIMITS: &str =
        "[limits]\nconnections_per_uid = 3\ntables_per_uid = 1\nbytes_per_uid = 20\n";
    let daemon = daemon_for_all(LIMITS);
    let mut anns: Vec<_> = (0..3).map(|_| User::connect(&daemon, ANN)).collect();
    for ann in &mut anns {
        ann.may("ping", &[], "pong");
    }
    let ann = &mut anns[0];
    let turned_away = User::connect(&daemon, ANN).call("ping", &[]);
    assert_eq!(turned_away, Err("too_many_connections".into()));
    let mut bob = User::connect(&daemon, BOB);
    for user in [ann, &mut bob] {
        user.create("t");
        let another = user.call("create_table", &["u".into(), list(["id".into()])]);
        assert_eq!(another, Err("too many tables: at most 1 for one user".into()));
        user.put("t", "k");
        let large = user.call("put", &["t".into(), record(&"k".repeat(20))]);
        assert_eq!(large, Err("quota exceeded: at most 20 bytes for one user".into()));
    }
}

/// What is in a table counts for its owner, whoever wrote it.
#[test]
fn what_a_guest_writes_counts_for_the_owner() {
    let daemon = daemon_for_all("[limits]\nbytes_per_uid = 30\n");
    let (mut ann, mut bob) = (User::connect(&daemon, ANN), User::connect(&daemon, BOB));
    ann.create("t");
    bob.create("t");
    ann.may("acl_grant", &["*".into(), "t".into(), "write".into()], "granted");
    bob.put(&format!("{ANN}:t"), "from_bob");
    let full = Err("quota exceeded: at most 30 bytes for one user".to_owned());
    assert_eq!(ann.call("put", &["t".into(), record("from_ann")]), full);
    assert_eq!(bob.call("put", &[format!("{ANN}:t").into(), record("from_bob2")]), full);
    bob.put("t", "from_bob");
}

/// A copy of a program that every user can run.
fn for_all(program: &str, directory: &Path) -> PathBuf {
    let copy = directory.join(Path::new(program).file_name().expect("a name"));
    copy_program(program, &copy);
    copy
}

/// holds V1, V5: what a user starts without saying where, the user's client finds without being told.
#[test]
fn a_users_own_daemon_is_found_by_the_users_client() {
    require_root();
    let directory = directory();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("open");
    let daemon = for_all(env!("CARGO_BIN_EXE_cortexd"), directory.path());
    let client = for_all(env!("CARGO_BIN_EXE_cortex"), directory.path());
    let fallback = Fallback(format!("/tmp/cortex-{ANN}").into());
    for has_runtime_directory in [true, false] {
        let home = directory.path().join(format!("home-{has_runtime_directory}"));
        fs::create_dir(&home).expect("make a home");
        std::os::unix::fs::chown(&home, Some(ANN), Some(ANN)).expect("give it away");
        let as_ann = |program: &Path| {
            let mut command = bare(program);
            command
                .env("HOME", &home)
                .uid(ANN)
                .gid(ANN)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if has_runtime_directory {
                command.env("XDG_RUNTIME_DIR", &home);
            }
            command
        };
        let _daemon = Guarded(as_ann(&daemon).spawn().expect("start the daemon"));
        wait_until("the user's client is answered", || {
            output_of(as_ann(&client).arg("ping")).status.success()
        });
        let socket = if has_runtime_directory {
            home.join("cortex/cortex.sock")
        } else {
            fallback.0.join("cortex.sock")
        };
        assert!(socket.exists(), "{}", socket.display());
        assert!(home.join(".local/state/cortex/cortex.db").is_file());
    }
}

/// The owner of a directory may remove what others put there, whatever its mode.
#[test]
fn a_socket_is_not_put_into_a_directory_of_another_user() {
    require_root();
    let (everybodys, anns) = (directory(), directory());
    fs::set_permissions(everybodys.path(), PermissionsExt::from_mode(0o755)).expect("open");
    std::os::unix::fs::chown(anns.path(), Some(ANN), Some(ANN)).expect("give it away");
    fs::set_permissions(anns.path(), PermissionsExt::from_mode(0o1777)).expect("open to all");
    let mut daemon = bare(for_all(env!("CARGO_BIN_EXE_cortexd"), everybodys.path()));
    daemon.arg("--socket").arg(anns.path().join("cortex.sock"));
    daemon.arg("--data-dir").arg(anns.path().join("data")).uid(BOB).gid(BOB);
    let output = output_of(&mut daemon);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(
        told.contains(&format!("belongs to uid {ANN}, who could put another socket")),
        "{told}"
    );
}

/// The directory that a daemon makes for itself where a user has none for sockets. Removed when dropped.
struct Fallback(PathBuf);

impl Drop for Fallback {
    fn drop(&mut self) {
        // The daemon may not have come as far as making it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// holds V5: the tool shows a refusal to another user as it shows it to anybody.
#[test]
fn the_tool_speaks_for_the_user_who_calls_it() {
    let daemon = daemon_for_all("");
    let client = for_all(env!("CARGO_BIN_EXE_cortex"), daemon.directory());
    let run = |uid: u32, arguments: &[&str]| {
        let mut command: Command = bare(&client);
        command.arg("--socket").arg(daemon.socket()).args(arguments).uid(uid).gid(uid);
        let output = output_of(&mut command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let full_name = format!("{ANN}:t");
    assert_eq!(run(ANN, &["create", "t", "id"]), (Some(0), "\"created\"\n".into()));
    assert_eq!(run(ANN, &["put", "t", r#"{"id":"k"}"#]), (Some(0), "\"ok\"\n".into()));
    assert_eq!(run(BOB, &["get", &full_name, "k"]), (Some(4), String::new()));
    let grant = ["acl", "grant", &format!("uid:{BOB}"), "t", "read"];
    assert_eq!(run(ANN, &grant), (Some(0), "\"granted\"\n".into()));
    assert_eq!(run(BOB, &["get", &full_name, "k"]), (Some(0), "{\"id\":\"k\"}\n".into()));
    assert_eq!(run(BOB, &["put", &full_name, r#"{"id":"k"}"#]), (Some(4), String::new()));
}

/// holds V3, V4: root brings over everybody's tables as each of them, and is told what the source did not name.
#[test]
fn root_brings_over_the_tables_of_every_user_into_the_namespaces_that_they_had() {
    let (source, target) = (daemon_for_all(""), daemon_for_all(""));
    for uid in [ANN, BOB] {
        let mut user = User::connect(&source, uid);
        user.create("notes");
        user.put("notes", &format!("of-{uid}"));
    }
    let mut ann = User::connect(&source, ANN);
    ann.may("acl_grant", &[format!("uid:{BOB}").into(), "notes".into(), "read".into()], "granted");
    let files = directory();
    for table in [format!("{ANN}:notes"), format!("{BOB}:notes"), format!("{BOB}:lost")] {
        fs::write(files.path().join(format!("{table}.DCD")), "rows").expect("written");
    }
    let from = source.socket();
    let migrate = |arguments: &[&str]| {
        let from = from.to_str().expect("UTF-8");
        target.cortex(&[&["migrate", "--from", from][..], arguments].concat())
    };
    let (ann, bob) = (ANN.to_string(), BOB.to_string());
    let output = migrate(&["--uid", &ann, "--uid", &bob]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for uid in [ANN, BOB] {
        let mut user = User::connect(&target, uid);
        user.may("tables", &[], list(["notes".into()]));
        user.may("keys", &["notes".into()], list([format!("of-{uid}").into()]));
    }
    User::connect(&target, BOB).may(
        "keys",
        &[format!("{ANN}:notes").into()],
        list([format!("of-{ANN}").into()]),
    );
    User::connect(&target, ANN).may_not("keys", &[format!("{BOB}:notes").into()]);
    assert_eq!(
        User::connect(&target, ROOT).call("tables", &[]),
        Ok(list([])),
        "none of it is root's"
    );

    let dir = files.path().to_str().expect("UTF-8");
    let output = migrate(&["--uid", &ann, "--uid", &bob, "--files", dir]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("{BOB}:lost: has a file")), "{said}");
}

/// holds V3: what root may do for others, nobody else may.
#[test]
fn a_user_brings_over_their_own_tables_alone() {
    let (source, target) = (daemon_for_all(""), daemon_for_all(""));
    User::connect(&source, ANN).create("notes");
    User::connect(&source, BOB).create("secret");
    let directory = directory();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("open");
    let client = for_all(env!("CARGO_BIN_EXE_cortex"), directory.path());
    let migrate = |arguments: &[&str]| {
        let mut command = bare(&client);
        command.arg("--socket").arg(target.socket());
        command.arg("migrate").arg("--from").arg(source.socket()).args(arguments);
        output_of(command.uid(ANN).gid(ANN))
    };
    assert_eq!(migrate(&["--uid", &BOB.to_string()]).status.code(), Some(4));
    assert_eq!(migrate(&["--files", "/"]).status.code(), Some(4));
    assert_eq!(migrate(&[]).status.code(), Some(0));
    User::connect(&target, ANN).may("tables", &[], list(["notes".into()]));
    User::connect(&target, BOB).may("tables", &[], list([]));
}
