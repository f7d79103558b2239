//! The repository's order, as far as Cargo and clippy cannot see it: walls between modules, and housekeeping.
//! Leaves walls between packages to `Cargo.toml` and walls around crates to `deny.toml`.
//!
//! Every rule is applied twice: to the whole repository, where it must find nothing, and to a made-up file,
//! where it must find what is wrong.

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use circles::circle;
use rules::Finding;
use source::File;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// Applies a rule to every file of the repository.
fn check(rule: impl Fn(&File) -> Vec<Finding>) {
    let files = source::files(top());
    assert!(files.iter().any(|file| file.path == "src/core/lib.rs"), "the files are found");
    let mut broken = String::new();
    for file in &files {
        for Finding { line, message } in rule(file) {
            broken.push_str(&format!("\n{}:{line}: {message}", file.path));
        }
    }
    assert!(broken.is_empty(), "{broken}\n");
}

/// Applies a rule to a made-up file and answers the lines on which it is broken.
fn lines(rule: impl Fn(&File) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
    let file = File { path: path.into(), text: text.into() };
    rule(&file).into_iter().map(|finding| finding.line).collect()
}

#[test]
fn every_file_says_what_it_is() {
    check(rules::says_what_it_is);
    assert_eq!(lines(rules::says_what_it_is, "src/x.rs", "use a;\n//! Late.\n"), [1]);
    assert_eq!(lines(rules::says_what_it_is, "src/x.rs", "//! A thing.\nuse a;\n"), []);
}

#[test]
fn one_concept_has_one_word() {
    check(rules::speaks_by_the_glossary);
    let text = ["// the fe", "ed\nlet fe", "ed = 1;\nfeedback(fe", "ed_me);\n"].concat();
    assert_eq!(lines(rules::speaks_by_the_glossary, "src/store/rows.rs", &text), [1, 2]);
    assert_eq!(lines(rules::speaks_by_the_glossary, "src/store/schema.rs", &text), []);
}

#[test]
fn identifiers_are_those_of_the_field() {
    check(rules::names_by_the_glossary);
    let text = "// settle\nfn settle_all() { t.errand(\"slack\") }\nstruct Told;\nenum ToldLate { SlackX }\n";
    assert_eq!(lines(rules::names_by_the_glossary, "src/x.rs", text), [2, 2, 3, 4]);
    assert_eq!(lines(rules::names_by_the_glossary, "tests/x.rs", text), []);
}

#[test]
fn unsafe_code_stays_in_its_modules() {
    check(rules::is_safe);
    let text = "//! Not unsafe.\n#[expect(unsafe_code)]\nfn f() { unsafe { g() } }\n";
    assert_eq!(lines(rules::is_safe, "src/store/mod.rs", text), [2, 3]);
    assert_eq!(lines(rules::is_safe, "src/daemon/activation.rs", text), []);
}

#[test]
fn modules_import_only_what_stands_before_them() {
    check(rules::keeps_the_walls);
    for (path, text, expected) in [
        ("src/store/writer.rs", "use crate::{\n sys,\n service::Answer,\n};", &[3][..]),
        ("src/store/writer.rs", "use super::super::edge::conn;", &[1]),
        ("src/store/mod.rs", "use super::edge;", &[1]),
        ("src/store/mod.rs", "fn f() { g(crate::daemon::main) }", &[1]),
        ("src/store/mod.rs", "// crate::daemon\nuse super::sys;", &[]),
        ("src/service/mod.rs", "use crate::edge::conn;", &[1]),
        ("src/edge/mod.rs", "use crate::{daemon, service};", &[1]),
        (
            "src/cli/acl.rs",
            "use crate::pki;\nuse crate::store::Store;\nuse crate::service;",
            &[2, 3],
        ),
        ("src/client/pipeline.rs", "use crate::raw;", &[]),
        ("src/core/api/sync.rs", "use crate::replication::VersionVector;", &[1]),
        ("src/bin/cortex.rs", "fn main() { cortexd::store::open() }", &[1]),
        ("src/bin/cortex.rs", "fn main() { cortexd::cli::main() }", &[]),
        ("src/attic.rs", "use std::fs;", &[1]),
        ("src/core/model/name.rs", "use crate::wire::Head;", &[1]),
        ("src/core/model/record.rs", "use crate::wire::Head;", &[]),
        ("src/core/model/record.rs", "use crate::gate::admit;", &[1]),
        ("src/core/wire/frame.rs", "use crate::model::Refusal;", &[1]),
        ("src/core/wire/rpc.rs", "use crate::model::Refusal;", &[]),
        ("src/core/gate.rs", "mod tests {\n use super::*;\n use crate::wire;\n}", &[3]),
        ("src/lib.rs", "pub mod daemon;", &[]),
    ] {
        assert_eq!(lines(rules::keeps_the_walls, path, text), expected, "{path}: {text}");
    }
}

#[test]
fn the_files_of_the_store_form_no_circle() {
    assert_eq!(circle(&source::files(top()), "src/store"), [""; 0]);
    let made_up = |files: &[(&str, &str)]| {
        let file =
            |(path, text): &(&str, &str)| File { path: (*path).into(), text: (*text).into() };
        circle(&files.iter().map(file).collect::<Vec<_>>(), "src/store")
    };
    let writer = ("src/store/writer.rs", "use super::{rows::put, error::StoreError};");
    let rows = ("src/store/rows.rs", "use crate::store::error;\nuse super::super::sys::clock;");
    let error = (
        "src/store/error.rs",
        "fn f() { writer::run() }\n#[cfg(test)]\nmod tests {\n use super::super::writer;\n}",
    );
    assert_eq!(made_up(&[writer, rows, error]), [""; 0]);
    let back = ("src/store/rows.rs", "fn f() { super::writer::run() }");
    assert_eq!(made_up(&[writer, back, error]), ["store::rows", "store::writer"]);
    let top = ("src/store/mod.rs", "mod writer;\npub use writer::run;");
    let uses_top = ("src/store/writer.rs", "use super::LIMIT;");
    assert_eq!(made_up(&[top, uses_top]), ["store", "store::writer"]);
    let tests = ("src/store/tests.rs", "use super::run;");
    assert_eq!(made_up(&[top, writer, rows, error, tests]), [""; 0]);
}

#[test]
fn the_core_touches_nothing_of_the_world() {
    check(rules::is_pure);
    let text = "use std::{fmt, fs};\nuse std::time::{Duration,\n Instant};\nfn f() { std::net::x(); std::mem::take(y); }";
    assert_eq!(lines(rules::is_pure, "src/core/clock.rs", text), [1, 3, 4]);
    assert_eq!(lines(rules::is_pure, "src/sys/paths.rs", text), []);
}

#[test]
fn a_crate_is_named_where_it_belongs() {
    check(rules::names_crates_in_their_place);
    let rule = rules::names_crates_in_their_place;
    assert_eq!(lines(rule, "src/service/mod.rs", "use a;\nuse rusqlite::Connection;"), [2]);
    assert_eq!(
        lines(rule, "src/service/mod.rs", "use tokio::{sync::watch, net::UnixStream};"),
        [1]
    );
    assert_eq!(lines(rule, "src/client/lib.rs", "use tokio::sync::watch;"), [1]);
    assert_eq!(lines(rule, "src/store/mod.rs", "use rusqlite::Connection;"), []);
    assert_eq!(lines(rule, "tests/x.rs", "use rusqlite::Connection;"), []);
}

#[test]
fn mutants_stand_at_functions_and_not_in_conditions() {
    check(rules::asks_for_no_mutant);
    let text = "use rule::Rule;\nif a && !Rule::ReAnnounce.is_broken() {}\n";
    assert_eq!(lines(rules::asks_for_no_mutant, "src/store/x.rs", text), [2]);
    assert_eq!(lines(rules::asks_for_no_mutant, "src/mutant/lib.rs", text), []);
}

#[test]
fn nothing_is_left_for_later_or_for_one_machine() {
    check(rules::is_finished);
    let later = ["// TO", "DO: all\nlet autoTO", "DO = 1;\n"].concat();
    assert_eq!(lines(rules::is_finished, "src/x.rs", &later), [1]);
    let machine = ["cd /tmp/", "wt/x\ncd /wo", "rkspace\n\"/wo", "rk\"\na/wo", "rk\n"].concat();
    assert_eq!(lines(rules::is_finished, "x.sh", &machine), [1, 3]);
}

#[test]
fn a_promise_that_is_held_was_given() {
    let list = rules::promises(&read("tests/promises.md"));
    for (first, last) in
        [("V1", "V6"), ("K1", "K6"), ("M1", "M6"), ("S1", "S4"), ("T1", "T8"), ("E1", "E4")]
    {
        assert!(
            list.iter().any(|n| n == first) && list.iter().any(|n| n == last),
            "{first}, {last}"
        );
    }
    check(|file| rules::holds_known_promises(file, &list));
    let text =
        ["/// hol", "ds V1, V9: all\nfn f() {}\n// hol", "ds Z1\n// hol", "ds more\n"].concat();
    let rule = |file: &File| rules::holds_known_promises(file, &list);
    assert_eq!(lines(rule, "tests/x.rs", &text), [1, 3]);
}

#[test]
fn the_top_of_the_repository_holds_what_is_expected_there() {
    let ignored = source::ignored(top());
    for entry in fs::read_dir(top()).expect("list the top") {
        let name = entry.expect("list the top").file_name().into_string().expect("UTF-8");
        assert!(
            rules::is_at_home(&name, &ignored),
            "{name}: what is it for, and where does it belong?"
        );
    }
    assert!(rules::is_at_home("target", &ignored) && rules::is_at_home("LICENSE-MIT", &ignored));
    assert!(!rules::is_at_home("notes.txt", &ignored) && !rules::is_at_home("scripts", &ignored));
}

#[test]
fn sqlite_is_built_to_sync_data_alone() {
    let flags = option_env!("LIBSQLITE3_FLAGS").unwrap_or_default();
    assert!(flags.contains("-DHAVE_FDATASYNC"), "{flags:?}: see .cargo/config.toml");
}
