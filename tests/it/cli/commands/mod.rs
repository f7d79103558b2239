//! The real `cortex` binary against a daemon that says what the test wants: exit statuses, wire, output, errors.
//! Leaves what a daemon does with the requests to the tests against the real one.

#![expect(clippy::disallowed_methods, reason = "a test's time limit is measured by the real clock")]

mod help;
mod migrate;
mod places;
mod session;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output, Stdio};

use fake_daemon::{FakeDaemon, Reaction};
use rmpv::Value;
use rpc::{field, map, packed};
use tool::{check_exit, cortex, cortex_at, run, run_with_input, stderr, stdout};

use crate::support::{daemon, fake_daemon, rpc, tool};

fn answering(result: Value) -> FakeDaemon {
    FakeDaemon::start(move |_| Reaction::Result(result.clone()))
}

fn refusing(error: &'static str) -> FakeDaemon {
    FakeDaemon::start(move |_| Reaction::Error(error))
}

// Exit statuses, row by row.

#[test]
fn exit_0_prints_the_result_as_json_and_nothing_else() {
    let daemon = answering("pong".into());
    let output = run(cortex_at(&daemon.socket()).arg("ping"));
    check_exit(&output, 0);
    assert_eq!(stdout(&output), "\"pong\"\n");
    assert_eq!(stderr(&output), "");
}

#[test]
fn exit_1_is_any_other_refusal_in_the_daemons_own_words() {
    let daemon = refusing("missing_key");
    let output = run(cortex_at(&daemon.socket()).args(["put", "users", "{}"]));
    check_exit(&output, 1);
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).starts_with("error: missing_key\nhint: "), "{}", stderr(&output));
    assert!(stderr(&output).contains("cortex info users"), "the hint names the table");
}

#[test]
fn exit_2_is_a_command_line_that_says_nothing() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["get", "users"],
        &["put", "users", "not json"],
        &["put", "users", "[1]"],
        &["query", "users", "7"],
        &["create", "users"],
        &["create", "users", ","],
        &["ping", "--timeout", "soon"],
        &["help", "frobnicate"],
        &["import", "users", "--format", "csv"],
    ] {
        let output = run(cortex().args(arguments));
        check_exit(&output, 2);
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn exit_3_is_a_daemon_that_does_not_answer_in_time() {
    let daemon = FakeDaemon::start(|_| Reaction::Silence);
    let output = run(cortex_at(&daemon.socket()).args(["ping", "--timeout", "0.1"]));
    check_exit(&output, 3);
    assert!(stderr(&output).contains("--timeout"), "{}", stderr(&output));
}

#[test]
fn exit_3_is_also_a_daemon_that_no_longer_accepts() {
    let directory = tempfile::tempdir().expect("make a directory");
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).expect("bind");
    // Smallest possible backlog, then filled.
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).expect("a backlog"))
        .expect("listen");
    let _waiting = UnixStream::connect(&socket).expect("the backlog takes one");
    let output = run(cortex_at(&socket).args(["ping", "--timeout", "0.1"]));
    check_exit(&output, 3);
}

#[test]
fn exit_4_is_a_denied_access_and_says_that_it_may_be_a_wrong_name() {
    let daemon = refusing("access_denied");
    for arguments in
        [&["get", "users", "7"][..], &["all", "users"], &["import", "users"], &["export", "users"]]
    {
        let output = run_with_input(cortex_at(&daemon.socket()).args(arguments), b"{\"id\":1}\n");
        check_exit(&output, 4);
        assert!(
            stderr(&output).contains("error: access_denied"),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains("hint: There is no table users"),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn exit_4_is_also_a_socket_whose_permissions_keep_the_user_out() {
    if nix::unistd::geteuid().is_root() {
        // Permissions do not hold for root, who runs this test as somebody else below.
        return exit_4_as_nobody();
    }
    let daemon = answering("pong".into());
    fs::set_permissions(daemon.socket(), PermissionsExt::from_mode(0o000))
        .expect("close the socket");
    check_exit(&run(cortex_at(&daemon.socket()).arg("ping")), 4);
}

fn exit_4_as_nobody() {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let daemon = answering("pong".into());
    // The binary may stand where only root can read, so it comes along. Another process writes the copy: a
    // child that another test starts meanwhile would inherit it open for writing, and it could not be run.
    let copy = daemon.directory().join("cortex");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_cortex")).arg(&copy).status();
    assert!(copied.expect("cp runs").success());
    fs::set_permissions(daemon.directory(), PermissionsExt::from_mode(0o755))
        .expect("open the directory");
    fs::set_permissions(daemon.socket(), PermissionsExt::from_mode(0o600))
        .expect("close the socket");
    let mut command = Command::new(copy);
    command.arg("--socket").arg(daemon.socket()).arg("ping").uid(NOBODY).gid(NOBODY);
    let output = run(&mut command);
    check_exit(&output, 4);
    assert!(stderr(&output).starts_with("error: no permission"), "{}", stderr(&output));
}

#[test]
fn exit_8_is_no_daemon_and_says_how_to_start_it() {
    let directory = tempfile::tempdir().expect("make a directory");
    let absent = directory.path().join("absent");
    let abandoned = directory.path().join("abandoned");
    drop(UnixListener::bind(&abandoned).expect("bind"));
    for socket in [absent, abandoned] {
        let output = run(cortex_at(&socket).arg("ping"));
        check_exit(&output, 8);
        assert!(
            stderr(&output).starts_with("error: cortexd is not running"),
            "{}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains("hint: Start it: systemctl start cortexd.socket"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_command_for_administrators_says_who_may_and_speaks_of_no_table() {
    let dir = tempfile::tempdir().expect("make a directory");
    let file = dir.path().join("copy.db");
    let backup = ["backup", file.to_str().expect("UTF-8")];
    for arguments in [&["reload"][..], &["checkpoint"], &backup] {
        let daemon = refusing("access_denied");
        let output = run(cortex_at(&daemon.socket()).args(arguments));
        check_exit(&output, 4);
        let said = stderr(&output);
        assert!(said.starts_with("error: access_denied\nhint: Only root"), "{said}");
        assert!(!said.contains("TABLE"), "{said}");
    }
}

#[test]
fn exit_10_is_a_record_that_is_not_there() {
    let daemon = refusing("not_found");
    let output = run(cortex_at(&daemon.socket()).args(["get", "users", "7"]));
    check_exit(&output, 10);
    assert_eq!(stderr(&output).lines().next(), Some("error: not_found"));
}

// What goes over the wire.

/// Runs the tool and returns the method and the parameters, as JSON, of its only request.
fn request_of(arguments: &[&str]) -> String {
    let daemon = answering(Value::Array(Vec::new()));
    let output = run(cortex_at(&daemon.socket()).args(arguments));
    check_exit(&output, 0);
    let [request] = daemon.requests().try_into().expect("one request");
    format!("{}{}", request.method, Value::Array(request.params))
}

#[test]
fn commands_send_what_v1_daemons_understand() {
    for (arguments, expected) in [
        (&["ping"][..], r#"ping[]"#),
        (&["status"], r#"status[]"#),
        (&["tables"], r#"tables[]"#),
        (&["create", "users", "id", "name"], r#"create_table["users", ["id", "name"]]"#),
        (&["create-table", "users", "id,name"], r#"create_table["users", ["id", "name"]]"#),
        (
            &["create_table", "users", "id, name", "mail"],
            r#"create_table["users", ["id", "name", "mail"]]"#,
        ),
        (
            &["create", "users", "id", "--scope", "local"],
            r#"create_table["users", ["id"], "local"]"#,
        ),
        (&["drop", "users"], r#"drop_table["users"]"#),
        (&["drop-table", "users"], r#"drop_table["users"]"#),
        (&["drop_table", "users", "--yes"], r#"drop_table["users"]"#),
        (&["info", "1000:users"], r#"table_info["1000:users"]"#),
        (&["get", "users", "7"], r#"get["users", "7"]"#),
        (&["get", "users", "-7"], r#"get["users", "-7"]"#),
        (&["put", "users", r#"{"id": 7}"#], r#"put["users", {"id": 7}]"#),
        (&["delete", "users", "7"], r#"delete["users", "7"]"#),
        (&["query", "users", r#"{"name":"Ann"}"#], r#"match["users", {"name": "Ann"}]"#),
        (&["all", "@alice:memories"], r#"all["@alice:memories"]"#),
        (&["keys", "users"], r#"keys["users"]"#),
        (
            &["all", "users", "--limit", "2", "--after", "7"],
            r#"all["users", {"limit": 2, "after": "7"}]"#,
        ),
        (&["keys", "users", "--after", "-7"], r#"keys["users", {"after": "-7"}]"#),
        (&["query", "users", "{}", "--limit", "2"], r#"match["users", {}, {"limit": 2}]"#),
        (
            &["acl", "grant", "uid:7", "users", "read,write"],
            r#"acl_grant["uid:7", "users", "read,write"]"#,
        ),
        (
            &["acl", "grant", "*", "users", "read", "write"],
            r#"acl_grant["*", "users", "read,write"]"#,
        ),
        (&["acl", "revoke", "uid:7", "users", "read"], r#"acl_revoke["uid:7", "users", "read"]"#),
        (&["acl", "list"], r#"acl_list[]"#),
        (&["tables", "--all"], r#"tables[{"all": true}]"#),
        (&["tables", "--all", "--long"], r#"tables[{"all": true, "details": true}]"#),
    ] {
        assert_eq!(request_of(arguments), expected, "{arguments:?}");
    }
}

#[test]
fn a_record_is_read_from_standard_input_where_it_may_span_lines() {
    let daemon = answering("ok".into());
    let put = || {
        let mut command = cortex_at(&daemon.socket());
        command.args(["put", "users", "-"]);
        command
    };
    let output = run_with_input(&mut put(), b"{\n  \"id\": 7\n}\n");
    check_exit(&output, 0);
    assert_eq!(stdout(&output), "\"ok\"\n");
    assert_eq!(daemon.requests()[0].params, ["users".into(), map([("id", 7.into())])]);

    let output = run_with_input(&mut put(), b"{\n \"id\" 7}");
    check_exit(&output, 1);
    assert!(stderr(&output).contains("line 2"), "{}", stderr(&output));
}

// What the daemon can do to a client.

#[test]
fn a_refused_connection_says_why() {
    let refusal =
        packed(&Value::Array(vec![1.into(), 0.into(), "too_many_connections".into(), Value::Nil]));
    let daemon = FakeDaemon::start(move |_| Reaction::Bytes(refusal.clone()));
    for arguments in [&["ping"][..], &["import", "users"]] {
        let output = run_with_input(cortex_at(&daemon.socket()).args(arguments), b"{\"id\":1}\n");
        check_exit(&output, 1);
        assert!(stderr(&output).contains("error: too_many_connections"), "{}", stderr(&output));
        assert!(stderr(&output).contains("\nhint: "), "{}", stderr(&output));
    }
}

/// What another machine or a table says goes to a terminal, which would obey it.
#[test]
fn a_refusal_sets_no_title_and_turns_no_text_round() {
    let daemon = refusing("refused_by_node: \u{1b}]0;owned\u{7}\u{9b}31m\u{202e}txt");
    let output = run(cortex_at(&daemon.socket()).args(["ping"]));
    check_exit(&output, 1);
    let told = stderr(&output);
    let shown = "error: refused_by_node: \\u001b]0;owned\\u0007\\u009b31m\\u202etxt";
    assert!(told.starts_with(shown), "{told:?}");
    let output = run(cortex_at(&daemon.socket()).args(["--color", "always", "ping"]));
    let coloured = stderr(&output);
    assert!(coloured.starts_with("\u{1b}[1;31merror:"), "our own colours stay: {coloured:?}");
}

#[test]
fn a_daemon_that_hangs_up_or_talks_nonsense_is_an_error_and_no_panic() {
    let nonsense = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        vec![0xc1],
        vec![0x94, 1, 1],
        vec![0x94, 1, 1, 0xc0, 0xdd],
    ];
    let mut daemons: Vec<FakeDaemon> = nonsense
        .into_iter()
        .map(|bytes| FakeDaemon::start(move |_| Reaction::Bytes(bytes.clone())))
        .collect();
    daemons.push(FakeDaemon::start(|_| Reaction::HangUp));
    for daemon in daemons {
        for arguments in
            [&["ping"][..], &["all", "users"], &["import", "users"], &["export", "users"]]
        {
            let mut command = cortex_at(&daemon.socket());
            let output =
                run_with_input(command.args(["--timeout", "0.2"]).args(arguments), b"{\"id\":1}\n");
            assert!(
                matches!(output.status.code(), Some(1 | 3)),
                "{arguments:?}: {:?}",
                output.status
            );
            assert!(stderr(&output).contains("error: "), "{arguments:?}: {}", stderr(&output));
            assert!(!stderr(&output).contains("panicked"), "{arguments:?}: {}", stderr(&output));
        }
    }
}

// Output.

#[test]
fn arrays_are_compact_unless_pretty_is_asked_for() {
    let daemon = answering(Value::Array(vec![
        map([("id", 1.into()), ("tags", Value::Array(vec!["a".into()]))]),
        2.5.into(),
    ]));
    let output = run(cortex_at(&daemon.socket()).args(["all", "users"]));
    assert_eq!(stdout(&output), "[{\"id\":1,\"tags\":[\"a\"]},2.5]\n");
    let pretty = "[\n  {\n    \"id\": 1,\n    \"tags\": [\n      \"a\"\n    ]\n  },\n  2.5\n]\n";
    let output = run(cortex_at(&daemon.socket()).args(["all", "users", "--pretty"]));
    assert_eq!(stdout(&output), pretty);

    let empty = answering(Value::Array(Vec::new()));
    let output = run(cortex_at(&empty.socket()).args(["all", "users", "--pretty"]));
    assert_eq!(stdout(&output), "[]\n");
}

/// An answer whose second half is sent only when the first has been printed, or never.
#[test]
fn a_long_answer_is_printed_while_it_arrives() {
    const ELEMENTS: u32 = 200_000;
    let daemon = FakeDaemon::start(|_| {
        Reaction::ByHand(|id, stream| {
            let mut half = vec![0x94, 1, u8::try_from(id).expect("a small id"), 0xc0, 0xdd];
            half.extend(ELEMENTS.to_be_bytes());
            half.extend(std::iter::repeat_n(7, ELEMENTS as usize - 1));
            stream.write_all(&half).expect("write");
            // The last element is missing: the tool waits for it with everything else printed.
        })
    });
    let mut command = cortex_at(&daemon.socket());
    command.args(["all", "users", "--timeout", "20"]).stdout(Stdio::piped());
    let mut child = command.spawn().expect("cortex runs");
    let mut out = child.stdout.take().expect("it is piped");
    let mut printed = vec![0; 300_000];
    out.read_exact(&mut printed).expect("the elements that have arrived");
    assert!(printed.starts_with(b"[7,7,7,"));
    child.kill().expect("end it");
    child.wait().expect("it ended");
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let long = Value::Array(vec!["x".repeat(1000).into(); 2000]);
    let daemon = FakeDaemon::start(move |request| match request.method.as_str() {
        "table_info" => Reaction::Result(map([("key_field", "id".into())])),
        _ => Reaction::Result(long.clone()),
    });
    for arguments in [&["all", "users"][..], &["export", "users"]] {
        let mut command = cortex_at(&daemon.socket());
        let mut child = command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cortex runs");
        let mut first = [0; 10];
        child
            .stdout
            .take()
            .expect("it is piped")
            .read_exact(&mut first)
            .expect("something is printed");
        let output = child.wait_with_output().expect("it ends");
        check_exit(&output, 0);
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
}

#[test]
fn a_full_disk_under_the_output_is_an_error() {
    let daemon = answering("pong".into());
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("open /dev/full");
    let output = run(cortex_at(&daemon.socket()).arg("ping").stdout(full));
    check_exit(&output, 1);
    assert!(stderr(&output).starts_with("error: writing the output: "), "{}", stderr(&output));
}

#[test]
fn messages_are_coloured_only_when_asked_or_at_a_terminal() {
    let directory = tempfile::tempdir().expect("make a directory");
    let coloured = |arguments: &[&str], no_color: bool| {
        let mut command = cortex_at(&directory.path().join("absent"));
        if no_color {
            command.env("NO_COLOR", "1");
        }
        stderr(&run(command.args(arguments))).contains("\x1b[")
    };
    assert!(!coloured(&["ping"], false), "a pipe is no terminal");
    assert!(coloured(&["ping", "--color", "always"], false));
    assert!(coloured(&["ping", "--color=always"], true), "the flag is nearer than the variable");
    assert!(!coloured(&["ping", "--color", "never"], false));
    assert!(coloured(&["pong", "--color", "always"], false), "errors of usage too");
    assert!(!coloured(&["pong"], true));
}

// Import and export.

/// Refuses records without an `id`, and those whose `id` is the name of an error.
fn picky() -> FakeDaemon {
    FakeDaemon::start(|request| {
        match request.params.get(1).and_then(|record| field(record, "id")) {
            None => Reaction::Error("missing_key"),
            Some(id) if id.as_str() == Some("access_denied") => Reaction::Error("access_denied"),
            Some(id) if id.as_str() == Some("hang up") => Reaction::HangUp,
            Some(_) => Reaction::Result("ok".into()),
        }
    })
}

fn import(daemon: &FakeDaemon, arguments: &[&str], input: &[u8]) -> Output {
    run_with_input(cortex_at(&daemon.socket()).args(["import", "users"]).args(arguments), input)
}

/// The summary without its seconds.
fn summary(output: &Output) -> String {
    let text = stdout(output);
    let (counts, seconds) = text.split_once(",\"seconds\":").expect("a summary has seconds");
    assert!(seconds.trim_end().trim_end_matches('}').parse::<f64>().is_ok(), "{seconds}");
    counts.to_owned()
}

#[test]
fn an_import_stores_every_line_and_counts_them() {
    let daemon = picky();
    let mut input = Vec::new();
    for id in 0..5_000 {
        writeln!(input, "{{\"id\":{id},\"text\":\"{}\"}}", "x".repeat(500))
            .expect("a Vec takes everything");
    }
    let output = import(&daemon, &["-"], &input);
    check_exit(&output, 0);
    assert_eq!(
        summary(&output),
        format!("{{\"imported\":5000,\"failed\":0,\"bytes\":{}", input.len())
    );
    let stored = daemon.requests();
    assert_eq!(stored.len(), 5_000);
    assert!(
        stored
            .iter()
            .enumerate()
            .all(|(id, request)| field(&request.params[1], "id") == Some(&id.into()))
    );
}

#[test]
fn an_import_stops_at_the_first_bad_line_and_says_what_is_stored() {
    for (bad, reason) in [
        ("{\"id\"", "line 3: not JSON: EOF"),
        ("[1]", "line 3: not a JSON object"),
        ("{\"name\":\"Ann\"}", "line 3: missing_key"),
        ("{\"id\":1,\"id\":2}", "line 3: not JSON: the key \"id\" stands twice"),
        (&format!("{{\"id\":\"{}\"}}", "x".repeat(1024 * 1024)), "line 3: the request is 1048"),
    ] {
        let daemon = picky();
        let output =
            import(&daemon, &[], format!("{{\"id\":1}}\n{{\"id\":2}}\n{bad}\n").as_bytes());
        check_exit(&output, 1);
        let messages = stderr(&output);
        assert!(messages.starts_with(reason), "{messages}");
        assert!(messages.contains("error: stopped at line 3; 2 stored"), "{messages}");
        assert!(messages.contains("--keep-going"), "{messages}");
        assert!(
            summary(&output).starts_with("{\"imported\":2,\"failed\":1"),
            "{}",
            summary(&output)
        );
    }
}

#[test]
fn an_import_that_keeps_going_names_each_bad_line_in_order_and_fails_at_the_end() {
    let daemon = picky();
    let output =
        import(&daemon, &["--keep-going"], b"{}\n{\"id\":2}\nx\n{\"id\":4}\n{}\n{\"id\":6}\n");
    check_exit(&output, 1);
    let messages = stderr(&output);
    let named: Vec<&str> =
        messages.lines().filter_map(|line| line.split_once(':').map(|(place, _)| place)).collect();
    assert_eq!(named, ["line 1", "line 3", "line 5", "error", "hint"], "{messages}");
    assert!(messages.contains("error: 3 not stored; 3 stored"), "{messages}");
    assert!(summary(&output).starts_with("{\"imported\":3,\"failed\":3"));
}

#[test]
fn an_import_into_a_forbidden_table_gives_up_even_if_told_to_keep_going() {
    let daemon = picky();
    let output =
        import(&daemon, &["--keep-going"], "{\"id\":\"access_denied\"}\n".repeat(2_000).as_bytes());
    check_exit(&output, 4);
    assert_eq!(
        stderr(&output).matches("line ").count(),
        2,
        "once where it happens, once in the end: {}",
        stderr(&output)
    );
    assert!(daemon.requests().len() < 2_000);
}

#[test]
fn an_import_cut_off_says_what_is_stored_and_what_is_in_doubt() {
    let daemon = picky();
    let output =
        import(&daemon, &[], b"{\"id\":1}\n{\"id\":2}\n{\"id\":\"hang up\"}\n{\"id\":4}\n");
    check_exit(&output, 1);
    let expected = "error: the daemon closed the connection; 2 stored, and 2 from line 3 on may be";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    assert!(summary(&output).starts_with("{\"imported\":2,\"failed\":0"));
}

#[test]
fn an_import_sends_what_it_has_before_it_waits_for_more() {
    let daemon = picky();
    let mut child = cortex_at(&daemon.socket())
        .args(["import", "users"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cortex runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(b"{\"id\":1}\n").expect("write");
    let time_limit = std::time::Instant::now();
    while daemon.requests().is_empty() {
        assert!(time_limit.elapsed().as_secs() < 20, "the first line is not sent");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(stdin);
    check_exit(&child.wait_with_output().expect("it ends"), 0);
}

#[test]
fn an_import_creates_the_table_unless_it_is_there() {
    let daemon = FakeDaemon::start(|request| match request.method.as_str() {
        "create_table" => Reaction::Error("already_exists"),
        _ => Reaction::Result("ok".into()),
    });
    let output = import(&daemon, &["--create", "id,name"], b"{\"id\":1}\n");
    check_exit(&output, 0);
    let requests = daemon.requests();
    assert_eq!(requests[0].method, "create_table");
    assert_eq!(
        requests[0].params,
        ["users".into(), Value::Array(vec!["id".into(), "name".into()])]
    );
    assert_eq!(requests[1].method, "put");

    let forbidden = refusing("access_denied");
    check_exit(&import(&forbidden, &["--create", "id"], b"{\"id\":1}\n"), 4);
    assert_eq!(forbidden.requests().len(), 1, "nothing is put into a table that could not be made");
}

/// A table of 2,500 records with numbers as keys, handed out in pages.
fn paging() -> FakeDaemon {
    FakeDaemon::start(|request| {
        if request.method == "table_info" {
            return Reaction::Result(map([("table", "users".into()), ("key_field", "id".into())]));
        }
        let options = request.params.get(1).expect("pages are asked for");
        let limit = field(options, "limit").and_then(Value::as_u64).expect("a page has a limit");
        let after = field(options, "after")
            .map(|key| key.as_str().expect("keys are text").parse().expect("a number"));
        let first: u64 = after.map_or(1_000, |key: u64| key + 1);
        let page = (first..(first + limit).min(3_500))
            .map(|id| map([("id", id.into()), ("data", Value::Binary(vec![1, 2]))]));
        Reaction::Result(Value::Array(page.collect()))
    })
}

#[test]
fn an_export_writes_every_record_of_every_page_and_an_import_reads_it_back() {
    for format in ["ndjson", "msgpack"] {
        let (from, to) = (paging(), picky());
        let output = run(cortex_at(&from.socket()).args(["export", "users", "--format", format]));
        check_exit(&output, 0);
        let output = import(&to, &["--format", format], &output.stdout);
        check_exit(&output, 0);
        let records: Vec<Value> =
            to.requests().into_iter().map(|request| request.params[1].clone()).collect();
        assert_eq!(records.len(), 2_500);
        assert_eq!(records[0], map([("id", 1_000.into()), ("data", Value::Binary(vec![1, 2]))]));
        assert_eq!(field(&records[2_499], "id"), Some(&3_499.into()));
    }
}

#[test]
fn an_export_to_a_file_replaces_it_when_complete_and_not_before() {
    let daemon = paging();
    let file = daemon.directory().join("users.ndjson");
    fs::write(&file, "old").expect("write");

    let broken = FakeDaemon::start(|request| match request.method.as_str() {
        "table_info" => Reaction::Result(map([("key_field", "id".into())])),
        _ => Reaction::HangUp,
    });
    check_exit(
        &run(cortex_at(&broken.socket()).args(["export", "users", "--output"]).arg(&file)),
        1,
    );
    assert_eq!(fs::read_to_string(&file).expect("read"), "old");

    let output = run(cortex_at(&daemon.socket()).args(["export", "users", "--output"]).arg(&file));
    check_exit(&output, 0);
    assert!(stdout(&output).starts_with("{\"exported\":2500,\"bytes\":"), "{}", stdout(&output));
    let lines = BufReader::new(fs::File::open(&file).expect("open")).lines().count();
    assert_eq!(lines, 2_500);
    let left = fs::read_dir(daemon.directory()).expect("list").count();
    assert_eq!(left, 2, "the socket and the file, and nothing beside them");
}

#[test]
fn an_export_from_a_daemon_that_ignores_pages_ends() {
    let daemon = FakeDaemon::start(|request| match request.method.as_str() {
        "table_info" => Reaction::Result(map([("key_field", "id".into())])),
        _ => Reaction::Result(Value::Array(vec![map([("id", 7.into())])])),
    });
    let output = run(cortex_at(&daemon.socket()).args(["export", "users"]));
    check_exit(&output, 1);
    assert!(stderr(&output).contains("unexpected answer"), "{}", stderr(&output));
}

/// Somebody may want the bytes elsewhere than in a file, or none of them: as root into /dev/null.
#[test]
fn a_backup_into_a_pipe_leaves_the_pipe_as_open_as_it_was() {
    let daemon = answering(Value::Array(vec![Value::Binary(b"the copy".to_vec())]));
    let pipe = daemon.directory().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("run mkfifo").success());
    fs::set_permissions(&pipe, PermissionsExt::from_mode(0o644)).expect("a mode");
    // Open for both, so that neither side waits for the other.
    let mut reader = fs::File::options().read(true).write(true).open(&pipe).expect("open the pipe");
    let output = run(cortex_at(&daemon.socket()).arg("backup").arg(&pipe));
    check_exit(&output, 0);
    let mut copy = [0; 8];
    reader.read_exact(&mut copy).expect("what was sent");
    assert_eq!(&copy, b"the copy");
    let mode = fs::metadata(&pipe).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}
