//! Records that come and go through `cortex`: numbers as keys, what JSON lacks, files in every encoding, arguments that
//! are data, readers that rest.
//! Leaves messages about a daemon that misbehaves to `cli`.

use std::fs;
use std::io::Read;
use std::process::{Command, Output, Stdio};

use crate::cli::records::daemon::Daemon;
use crate::cli::records::tool::{check_exit, cortex_at, run, run_with_input, stderr, stdout};

fn with_table(config: &str) -> Daemon {
    let daemon = Daemon::with_config(config);
    check_exit(&daemon.cortex(&["create", "t", "id"]), 0);
    daemon
}

fn import(daemon: &Daemon, arguments: &[&str], input: &[u8]) -> Output {
    run_with_input(cortex_at(&daemon.socket()).args(["import", "t", "-"]).args(arguments), input)
}

fn exported(daemon: &Daemon) -> String {
    let output = daemon.cortex(&["export", "t"]);
    check_exit(&output, 0);
    stdout(&output)
}

/// The first two fields of the summary.
fn counts(output: &Output) -> String {
    stdout(output).split(",\"bytes\"").next().unwrap_or_default().to_owned()
}

#[test]
fn numbers_too_large_for_a_key_are_refused_and_never_fall_onto_one() {
    let daemon = with_table("");
    let lines = "{\"id\":18446744073709551616}\n{\"id\":18446744073709551617}\n{\"id\":1e300}\n\
                 {\"id\":18446744073709551615}\n{\"id\":7}\n{\"id\":7.0}\n{\"id\":-0.0}\n{\"id\":0}\n";
    let output = import(&daemon, &["--keep-going"], lines.as_bytes());
    check_exit(&output, 1);
    assert_eq!(counts(&output), "{\"imported\":5,\"failed\":3");
    assert_eq!(stderr(&output).matches("number too large for a key").count(), 3, "{output:?}");
    let keys = daemon.cortex(&["keys", "t"]);
    assert_eq!(stdout(&keys), "[\"-0.0\",\"0\",\"18446744073709551615\",\"7\",\"7.0\"]\n");
    assert_eq!(stdout(&daemon.cortex(&["get", "t", "7.0"])), "{\"id\":7.0}\n");
    let refused = daemon.cortex(&["put", "t", r#"{"id":{"$numberDouble":"NaN"}}"#]);
    assert!(stderr(&refused).starts_with("error: missing_key"), "{refused:?}");
}

#[test]
fn numbers_that_are_no_keys_come_back_as_they_were_written() {
    let daemon = with_table("");
    let lines: String = [
        "9007199254740993",
        "18446744073709551615",
        "-9223372036854775808",
        "0",
        "-0.0",
        "1.0",
        "0.1",
        "5e-324",
        "2.225073858507201e-308",
        "1.7976931348623157e+308",
        "1e+50",
        "100000.0",
        "-1",
    ]
    .iter()
    .enumerate()
    .map(|(n, number)| format!("{{\"id\":\"{n:02}\",\"v\":{number}}}\n"))
    .collect();
    check_exit(&import(&daemon, &[], lines.as_bytes()), 0);
    assert_eq!(exported(&daemon), lines);
}

#[test]
fn a_number_that_no_type_holds_is_refused_and_only_what_rounds_is_changed() {
    let daemon = with_table("");
    let lines: String = [
        "1e400",
        "-1e400",
        "1e-400",
        "-0",
        "18446744073709551616",
        "NaN",
        "Infinity",
        "01",
        ".5",
        "+1",
        "1.",
    ]
    .iter()
    .enumerate()
    .map(|(n, number)| format!("{{\"id\":\"{n}\",\"v\":{number}}}\n"))
    .collect();
    let output = import(&daemon, &["--keep-going"], lines.as_bytes());
    assert_eq!(counts(&output), "{\"imported\":3,\"failed\":8");
    let kept = "{\"id\":\"2\",\"v\":0.0}\n{\"id\":\"3\",\"v\":-0.0}\n\
                {\"id\":\"4\",\"v\":1.8446744073709552e+19}\n";
    assert_eq!(exported(&daemon), kept);
}

#[test]
fn an_import_that_keeps_going_loses_the_line_that_is_nested_too_deeply_and_no_other() {
    let daemon = with_table("");
    let record = |id: usize, levels: usize| {
        format!("{{\"id\":\"{id:04}\",\"v\":{}1{}}}\n", "[".repeat(levels), "]".repeat(levels))
    };
    let lines: String = (1..=1000).map(|id| record(id, if id == 2 { 62 } else { 1 })).collect();
    let output = import(&daemon, &["--keep-going"], lines.as_bytes());
    check_exit(&output, 1);
    assert_eq!(counts(&output), "{\"imported\":999,\"failed\":1");
    assert!(stderr(&output).contains("line 2: nested too deeply"), "{output:?}");
    assert_eq!(exported(&daemon).lines().count(), 999);
    check_exit(&import(&daemon, &[], record(2, 61).as_bytes()), 0);
    for levels in [62, 100, 1000] {
        let output = run_with_input(
            cortex_at(&daemon.socket()).args(["put", "t", "-"]),
            record(1, levels).as_bytes(),
        );
        check_exit(&output, 1);
        assert!(stderr(&output).contains("nested too deeply"), "{output:?}");
    }
}

#[test]
fn what_the_daemon_was_told_to_take_is_sent_and_stored() {
    let daemon = with_table("[limits]\nmessage_bytes = 3000000\nnesting = 80\n");
    let large = format!("{{\"id\":\"large\",\"v\":\"{}\"}}\n", "x".repeat(2_000_000));
    let deep = format!("{{\"id\":\"deep\",\"v\":{}1{}}}\n", "[".repeat(70), "]".repeat(70));
    check_exit(&import(&daemon, &[], (large + &deep).as_bytes()), 0);
    let put = |input: &str| {
        run_with_input(cortex_at(&daemon.socket()).args(["put", "t", "-"]), input.as_bytes())
    };
    check_exit(&put(&deep), 0);
    assert!(stdout(&daemon.cortex(&["get", "t", "deep"])).contains("[[[1]]]"));
}

#[test]
fn extended_json_of_others_is_kept_and_printed_unchanged() {
    let daemon = with_table("");
    let lines = concat!(
        r#"{"id":"1","price":{"$numberDouble":"1.5"},"n":{"$numberInt":"5"}}"#,
        "\n",
        r#"{"id":"2","uuid":{"$binary":{"base64":"AAECAwQFBgcICQoLDA0ODw==","subType":"04"}}}"#,
        "\n",
        r#"{"id":"3","x":{"$ext":1}}"#,
        "\n",
        r#"{"id":"4","x":{"$binary":null}}"#,
        "\n",
        r#"{"id":"5","x":{"$oid":"507f1f77bcf86cd799439011"},"at":{"$date":{"$numberLong":"0"}}}"#,
        "\n",
        r#"{"id":"6","x":{"$$binary":{"base64":"AAEC","subType":"00"}}}"#,
        "\n",
        r#"{"id":"7","x":{"$map":[[7,{"$numberDouble":"NaN"}]]},"y":{"$string":"//4="}}"#,
        "\n",
    );
    check_exit(&import(&daemon, &[], lines.as_bytes()), 0);
    assert_eq!(exported(&daemon), lines);
}

#[test]
fn files_with_a_byte_order_mark_crlf_and_blank_lines_are_read() {
    let daemon = with_table("");
    let lines = b"\xef\xbb\xbf{\"id\":\"1\"}\r\n\r\n   \n{\"id\":\"2\"}\r\n";
    check_exit(&import(&daemon, &[], lines), 0);
    assert_eq!(exported(&daemon), "{\"id\":\"1\"}\n{\"id\":\"2\"}\n");
    let put = run_with_input(
        cortex_at(&daemon.socket()).args(["put", "t", "-"]),
        b"\xef\xbb\xbf{\"id\":\"3\"}",
    );
    check_exit(&put, 0);
}

#[test]
fn what_is_no_line_of_json_is_refused_with_what_makes_one_of_it() {
    let daemon = with_table("");
    for (input, named) in [
        (&b"{\n  \"id\": \"1\"\n}\n"[..], "jq -c ."),
        (b"[{\"id\":\"1\"}]\n", "jq -c '.[]'"),
        (b"\x1f\x8b\x08\x00", "zcat"),
        (b"\xff\xfe{\x00", "iconv"),
        (b"\x81\xa2id\x01", "--format msgpack"),
        (b"{\"id\":\"1\",\"v\":\"\\ud800\"}\n", "lone surrogate"),
        (b"{\"id\":\"2\",\"v\":\"\\udc00x\"}\n", "lone surrogate"),
        (b"{\"id\":\"1\"} x\n", "trailing characters"),
        (b"{\"id\":\"1\",\"id\":\"2\"}\n", "twice"),
    ] {
        let output = import(&daemon, &[], input);
        check_exit(&output, 1);
        assert!(stderr(&output).contains(named), "{named}: {output:?}");
    }
    assert_eq!(exported(&daemon), "");
}

#[test]
fn keys_that_begin_with_a_dash_are_keys() {
    let daemon = with_table("");
    let lines = b"{\"id\":\"-x\"}\n{\"id\":\"--limit\"}\n{\"id\":\"--help\"}\n{\"id\":\"-1\"}\n{\"id\":\"a\"}\n";
    check_exit(&import(&daemon, &[], lines), 0);
    for key in ["-x", "-1"] {
        let got = daemon.cortex(&["get", "t", key]);
        assert_eq!(stdout(&got), format!("{{\"id\":\"{key}\"}}\n"), "{got:?}");
        check_exit(&daemon.cortex(&["explain", "t", key]), 0);
        let next = daemon.cortex(&["keys", "t", "--limit", "1", "--after", key]);
        assert_eq!(next.status.code(), Some(0), "{next:?}");
    }
    let next = daemon.cortex(&["keys", "t", "--limit", "1", "--after", "-x"]);
    assert_eq!(stdout(&next), "[\"a\"]\n");
    assert_eq!(stdout(&daemon.cortex(&["get", "t", "--", "--help"])), "{\"id\":\"--help\"}\n");
    for verb in ["get", "delete"] {
        for help in ["--help", "-h"] {
            let unclear = daemon.cortex(&[verb, "t", help]);
            check_exit(&unclear, 2);
            assert_eq!(stdout(&unclear), "", "nothing that a script could take for a record");
        }
    }
    check_exit(&daemon.cortex(&["get", "--help"]), 0);
    check_exit(&daemon.cortex(&["delete", "t", "-x"]), 0);
    check_exit(&daemon.cortex(&["get", "t", "-x"]), 10);
}

#[test]
fn a_key_that_no_argument_can_hold_is_given_as_json() {
    let daemon = with_table("");
    check_exit(&import(&daemon, &[], b"{\"id\":\"a\\u0000b\"}\n{\"id\":\"c\"}\n{\"id\":1.5}\n"), 0);
    let key = r#""a\u0000b""#;
    let got = daemon.cortex(&["get", "t", "--key-json", key]);
    assert_eq!(stdout(&got), "{\"id\":\"a\\u0000b\"}\n", "{got:?}");
    assert_eq!(stdout(&daemon.cortex(&["get", "t", "--key-json", "1.5"])), "{\"id\":1.5}\n");
    let next = daemon.cortex(&["keys", "t", "--after-json", key]);
    assert_eq!(stdout(&next), "[\"c\"]\n");
    let next = daemon.cortex(&["keys", "t", "--limit", "1", "--after-json", "1.5"]);
    assert_eq!(stdout(&next), "[\"a\\u0000b\"]\n");
    check_exit(&daemon.cortex(&["delete", "t", "--key-json", key]), 0);
    check_exit(&daemon.cortex(&["get", "t", "--key-json", key]), 10);
    check_exit(&daemon.cortex(&["get", "t", "--key-json", "x"]), 2);
}

#[test]
fn long_keys_names_and_patterns_are_answered() {
    let daemon = with_table("");
    let long = "k".repeat(10_000);
    check_exit(&daemon.cortex(&["get", "t", &long]), 10);
    assert_eq!(stdout(&daemon.cortex(&["keys", "t", "--after", &long])), "[]\n");
    check_exit(&daemon.cortex(&["get", &long, "k"]), 4);
    let put = daemon.cortex(&["put", "t", &format!("{{\"id\":\"{long}\"}}")]);
    assert!(stderr(&put).starts_with("error: key too long"), "{put:?}");
    let fields: Vec<String> = (0..20_000).map(|n| format!("\"f{n}\":{n}")).collect();
    let pattern = format!("{{{}}}", fields.join(","));
    let mut query = cortex_at(&daemon.socket());
    let found = run_with_input(query.args(["query", "t", "-"]), pattern.as_bytes());
    assert_eq!(stdout(&found), "[]\n", "{found:?}");
}

/// Under a limit of memory that the whole input would break.
#[test]
fn standard_input_without_an_end_is_refused() {
    let daemon = with_table("");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 700000; exec \"$@\" </dev/zero", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_cortex")).arg("--socket").arg(daemon.socket());
    let output = run(command.args(["put", "t", "-"]));
    check_exit(&output, 1);
    assert!(stderr(&output).contains("too large"), "{output:?}");
}

/// What others print to the file that is standard output stays, by whatever name it is exported to.
#[test]
fn an_export_to_standard_output_by_name_leaves_what_is_there() {
    let daemon = with_table("");
    check_exit(&import(&daemon, &[], b"{\"id\":\"1\"}\n"), 0);
    let file = daemon.directory().join("out");
    let script = r#"{ echo header; "$1" --socket "$2" export t -o "$3"; echo footer; } > "$4""#;
    for name in ["/dev/stdout", "/proc/self/fd/1", "/dev/fd/1", "-", &file.display().to_string()] {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_cortex")]);
        let output = run(command.arg(daemon.socket()).arg(name).arg(&file));
        check_exit(&output, 0);
        let found = fs::read_to_string(&file).expect("it is there");
        assert_eq!(found, "header\n{\"id\":\"1\"}\nfooter\n", "{name}");
    }
}

/// A reader that rests until the daemon has closed the connection, and then goes on.
#[test]
fn a_reader_that_rests_loses_nothing_and_gets_nothing_twice() {
    const RECORDS: usize = 6000;
    let daemon = with_table("[limits]\nstall_seconds = 1\n");
    let padding = "y".repeat(300);
    let lines: String = (0..RECORDS)
        .map(|id| {
            format!("{{\"id\":\"{id:06}\",\"even\":{},\"pad\":\"{padding}\"}}\n", id % 2 == 0)
        })
        .collect();
    check_exit(&import(&daemon, &[], lines.as_bytes()), 0);
    let array = |records: &[&str]| format!("[{}]\n", records.join(","));
    let all: Vec<&str> = lines.lines().collect();
    let even: Vec<&str> = all.iter().step_by(2).copied().collect();
    let cases = [
        (&["export", "t"][..], lines.clone()),
        (&["all", "t"], array(&all)),
        (&["query", "t", "{\"even\":true}"], array(&even)),
        (&["query", "t", "{\"even\":true}", "--limit", "2900"], array(&even[..2900])),
    ];
    let start = |arguments: &[&str]| {
        let mut command = cortex_at(&daemon.socket());
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("cortex runs")
    };
    let children: Vec<_> = cases.iter().map(|(arguments, _)| start(arguments)).collect();
    daemon.wait_for_log("the client accepted no byte of its replies");
    let mut rpc = daemon.connect();
    crate::cli::records::daemon::wait_until("every connection but one is closed", || {
        let status = rpc.call("status", &[]).expect("status");
        crate::cli::records::rpc::field(&status, "connections") == Some(&1.into())
    });
    for (mut child, (arguments, expected)) in children.into_iter().zip(cases) {
        let mut found = String::new();
        let mut output = child.stdout.take().expect("it is piped");
        output.read_to_string(&mut found).expect("UTF-8");
        let ended = child.wait_with_output().expect("it ends");
        check_exit(&ended, 0);
        assert!(found == expected, "{arguments:?}: {} bytes for {}", found.len(), expected.len());
    }
}
