//! Real data through everything: package metadata is converted, imported, queried, exported, and imported
//! elsewhere, with the real binaries.
//! Leaves the whole of Debian, and reading as another uid, to `examples/debian-packages.sh`.

#[path = "../../../examples/debian_packages.rs"]
#[expect(dead_code, reason = "an example's `main` is run by Cargo, its conversion here")]
mod example;

use daemon::Daemon;
use serde_json::{Value, json};
use tool::{check_exit, cortex_at, run_with_input};

use crate::support::{daemon, tool};

/// Stanzas in the format of `apt-cache dumpavail`, abridged.
const STANZAS: &str = include_str!("../../fixtures/debian_packages.txt");

fn converted(stanzas: &str) -> Result<String, String> {
    let mut lines = Vec::new();
    example::convert(stanzas.as_bytes(), &mut lines).map_err(|error| format!("{error:#}"))?;
    Ok(String::from_utf8(lines).expect("JSON is UTF-8"))
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("the output is JSON")
}

/// Runs `cortex` with `input` on its standard input; it must succeed, and answers what it printed.
fn cortex(daemon: &Daemon, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let output = run_with_input(cortex_at(&daemon.socket()).args(arguments), input);
    check_exit(&output, 0);
    output.stdout
}

/// A daemon that holds the fixture in a table `packages`, and how many records that is.
fn loaded() -> (Daemon, usize) {
    let daemon = Daemon::start();
    let lines = converted(STANZAS).expect("the fixture is well formed");
    let summary =
        cortex(&daemon, &["import", "packages", "--create", "id,Package"], lines.as_bytes());
    let count = lines.lines().count();
    assert_eq!(json(&summary)["imported"], json!(count));
    assert_eq!(count, STANZAS.matches("Package: ").count());
    (daemon, count)
}

#[test]
fn a_stanza_becomes_a_record_with_lists_and_numbers() {
    let stanza = "Package: a\nVersion: 1:2-3\nArchitecture: amd64\nDepends: b (>= 1) | c, d\n\
                  Tag: x::y,\n z::w\nSize: 12\nDescription: short\n long\n .\n longer: still\n\n\n";
    let expected = json!({
        "id": "a:amd64=1:2-3",
        "Package": "a",
        "Version": "1:2-3",
        "Architecture": "amd64",
        "Depends": ["b (>= 1) | c", "d"],
        "Tag": ["x::y", "z::w"],
        "Size": 12,
        "Description": "short\nlong\n\nlonger: still",
    });
    assert_eq!(json(converted(stanza).expect("well formed").as_bytes()), expected);
}

#[test]
fn what_is_no_stanza_is_refused_with_its_line() {
    let identity = "Package: a\nVersion: 1\nArchitecture: all\n";
    for (stanzas, reason) in [
        (" continued\n", "line 1: a continuation of no field"),
        ("Package: a\nnonsense\n", "line 2: neither a field"),
        ("Package: a\nPackage: b\n", "line 2: the field Package stands twice"),
        ("Package: a\nVersion: 1\n", "lacks one of Package, Architecture, Version"),
        (&format!("{identity}Size: many\n"), "Size is \"many\""),
    ] {
        let refused = converted(stanzas).expect_err("it is no stanza");
        assert!(refused.contains(reason), "{stanzas:?}: {refused}");
    }
}

/// holds V2, V5
#[test]
fn packages_are_found_by_a_field_and_by_a_member_of_a_list() {
    let (daemon, _) = loaded();
    let names = |pattern: &str| -> Vec<String> {
        let found = json(&cortex(&daemon, &["query", "packages", pattern], b""));
        let records = found.as_array().expect("a list");
        records.iter().map(|r| r["Package"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(r#"{"Package":"bash"}"#), ["bash"]);
    assert_eq!(
        names(r#"{"Tag":"game::strategy","Section":"games"}"#),
        ["0ad", "freeciv-server", "freeciv", "wesnoth"]
    );
    assert_eq!(names(r#"{"Tag":"no such tag"}"#), [""; 0]);
    assert_eq!(names(r#"{"Essential":"yes","Size":"1"}"#), [""; 0], "sizes are numbers");
}

#[test]
fn an_export_imported_elsewhere_exports_the_same_bytes() {
    let (daemon, count) = loaded();
    for format in ["ndjson", "msgpack"] {
        let export = ["export", "packages", "--format", format];
        let exported = cortex(&daemon, &export, b"");
        let elsewhere = Daemon::start();
        let import = ["import", "packages", "--create", "id", "--format", format];
        assert_eq!(json(&cortex(&elsewhere, &import, &exported))["imported"], json!(count));
        assert!(cortex(&elsewhere, &export, b"") == exported, "{format} came back different");
    }
}

/// Of any number of pages, each begins after the key before, whatever the kind of that key.
#[test]
fn a_table_with_keys_of_every_kind_is_exported_whole() {
    let daemon = Daemon::start();
    let mut lines = String::new();
    for number in 0..1_200 {
        // A page is a thousand records, and ends with a float here.
        lines.push_str(&format!("{{\"id\":{number}.5}}\n"));
    }
    lines.push_str("{\"id\":true}\n{\"id\":\"text\"}\n{\"id\":-7}\n{\"id\":false}\n");
    cortex(&daemon, &["import", "mixed", "--create", "id"], lines.as_bytes());
    let exported = cortex(&daemon, &["export", "mixed"], b"");
    let exported = String::from_utf8(exported).expect("JSON is UTF-8");
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&exported), sorted(&lines));
}
