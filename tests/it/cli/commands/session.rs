//! A session as users of the original tool have it, line by line, against a real daemon: every command, in the
//! spellings that scripts use, with what it prints and whether it succeeds.
//! Leaves the requests that the commands make to `cli`, and the methods to `wire_v1`.

use crate::cli::commands::daemon::Daemon;
use crate::cli::commands::tool::{cortex_at, run, stderr, stdout};

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A command line, and what it prints: one line of JSON, or after `error: ` the refusal.
type Line = (&'static [&'static str], &'static str);

/// Runs lines one after the other. `UID` stands for the caller's.
fn check(daemon: &Daemon, lines: &[Line]) {
    for (arguments, expected) in lines {
        let filled = |text: &str| text.replace("UID", &own_uid().to_string());
        let arguments: Vec<_> = arguments.iter().map(|argument| filled(argument)).collect();
        let output = run(cortex_at(&daemon.socket()).args(&arguments));
        let expected = filled(expected);
        match expected.strip_prefix("error: ") {
            None => {
                assert_eq!(stdout(&output), format!("{expected}\n"), "{arguments:?}");
                assert_eq!(stderr(&output), "", "{arguments:?}");
                assert_eq!(output.status.code(), Some(0), "{arguments:?}");
            }
            Some(_) => {
                assert_eq!(stdout(&output), "", "{arguments:?}");
                let said = stderr(&output);
                assert_eq!(said.lines().next(), Some(expected.as_str()), "{arguments:?}");
                assert_ne!(output.status.code(), Some(0), "{arguments:?}");
            }
        }
    }
}

/// holds V5
#[test]
fn tables_are_made_listed_and_dropped_in_every_spelling() {
    check(
        &Daemon::start(),
        &[
            (&["ping"], r#""pong""#),
            (&["tables"], "[]"),
            (&["create_table", "a", "id,name,email"], r#""created""#),
            (&["create-table", "b", "id, name"], r#""created""#),
            (&["create", "c", "id", "name", "email"], r#""created""#),
            (&["create_table", "a", "id"], "error: already_exists"),
            (&["create_table", "9a", "id"], BAD_NAME),
            (&["create_table", "d", "id,e-mail"], "error: invalid attribute name: e-mail"),
            (&["tables"], r#"["a","b","c"]"#),
            (&["drop_table", "a"], r#""dropped""#),
            (&["drop-table", "b"], r#""dropped""#),
            (&["drop", "UID:c"], r#""dropped""#),
            (&["drop_table", "a"], "error: access_denied"),
            (&["tables"], "[]"),
        ],
    );
}

const BAD_NAME: &str = "error: invalid table name: must be alphanumeric with underscores";

/// holds V5
#[test]
fn records_are_put_got_queried_and_deleted() {
    check(
        &Daemon::start(),
        &[
            (&["create_table", "users", "id,name"], r#""created""#),
            (&["put", "users", r#"{"id":"u1","name":"alice","tags":["a","b"]}"#], r#""ok""#),
            (&["put", "users", r#"{"id":2,"name":"bob","admin":true,"left":null}"#], r#""ok""#),
            (&["put", "users", r#"{"name":"nobody"}"#], "error: missing_key"),
            (&["put", "absent", r#"{"id":1}"#], "error: access_denied"),
            (&["get", "users", "u1"], r#"{"id":"u1","name":"alice","tags":["a","b"]}"#),
            (&["get", "users", "2"], r#"{"id":2,"name":"bob","admin":true,"left":null}"#),
            (&["get", "users", "u3"], "error: not_found"),
            (
                &["query", "users", r#"{"tags":"b"}"#],
                r#"[{"id":"u1","name":"alice","tags":["a","b"]}]"#,
            ),
            (
                &["query", "users", r#"{"name":"bob","admin":true}"#],
                r#"[{"id":2,"name":"bob","admin":true,"left":null}]"#,
            ),
            (&["query", "users", r#"{"name":"eve"}"#], "[]"),
            (&["keys", "users"], r#"["2","u1"]"#),
            (&["delete", "users", "u1"], r#""ok""#),
            (&["delete", "users", "u1"], r#""ok""#),
            (&["all", "users"], r#"[{"id":2,"name":"bob","admin":true,"left":null}]"#),
            (
                &["--pretty", "get", "users", "2"],
                "{\n  \"id\": 2,\n  \"name\": \"bob\",\n  \"admin\": true,\n  \"left\": null\n}",
            ),
            (&["keys", "users", "--pretty"], "[\n  \"2\"\n]"),
        ],
    );
}

/// holds V4, V5
#[test]
fn rights_are_granted_listed_with_the_owners_own_and_revoked() {
    check(
        &Daemon::start(),
        &[
            (&["create_table", "users", "id"], r#""created""#),
            (
                &["acl", "list"],
                r#"[{"identity":"uid:UID","table":"UID:users","permissions":["read","write","admin"]}]"#,
            ),
            (&["acl", "grant", "uid:4001", "users", "read,write"], r#""granted""#),
            (&["acl", "grant", "*", "UID:users", "read"], r#""granted""#),
            (
                &["acl", "list"],
                concat!(
                    r#"[{"identity":"uid:UID","table":"UID:users","permissions":["read","write","admin"]},"#,
                    r#"{"identity":"*","table":"UID:users","permissions":["read"]},"#,
                    r#"{"identity":"uid:4001","table":"UID:users","permissions":["read","write"]}]"#,
                ),
            ),
            (&["acl", "revoke", "uid:4001", "users", "write"], r#""revoked""#),
            (&["acl", "grant", "uid:4001", "users", "reed"], "error: invalid_permissions"),
            (&["acl", "grant", "4001", "users", "read"], "error: invalid_identity"),
            (&["acl", "grant", "uid:4001", "absent", "read"], "error: access_denied"),
        ],
    );
}

/// holds M1, S3: what one machine can tell is told without a mesh, and what needs others says so.
#[test]
fn one_machine_answers_what_it_can_tell_by_itself() {
    let daemon = Daemon::start();
    check(
        &daemon,
        &[
            (&["create_table", "users", "id,name"], r#""created""#),
            (&["identity", "list"], "[]"),
            (&["identity", "lookup", "alice"], "error: unknown_identity"),
            (&["sync", "status"], "[]"),
            (&["scope", "users", "local"], r#""scope updated""#),
            (&["scope", "users", "all"], "error: mesh networking not configured"),
            (&["scope", "absent"], "error: access_denied"),
            (&["create_table", "@notes", "id"], "error: federated_identity_required"),
            (&["identity", "register", "alice"], "error: mesh networking not configured"),
            (&["mesh", "status"], "error: mesh networking not configured"),
            (&["mesh", "list-nodes"], "error: mesh networking not configured"),
            (&["sync", "repair", "users"], "error: mesh networking not configured"),
        ],
    );
    for (arguments, name, expected) in [
        (&["scope", "users"][..], "node_scope", "local"),
        (&["info", "users"], "key_field", "id"),
        (&["info", "users"], "node_scope", "local"),
        (&["sync", "status", "users"], "scope", "local"),
    ] {
        let output = run(cortex_at(&daemon.socket()).args(arguments));
        let answer: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
        assert_eq!(answer[name], expected, "{arguments:?}: {answer}");
    }
    let shown = run(cortex_at(&daemon.socket()).args(["sync", "status", "--pretty"]));
    assert_eq!(stdout(&shown), "no table has replicas on other nodes\n");
}
