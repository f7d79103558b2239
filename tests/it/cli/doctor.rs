//! `cortex doctor` against real daemons: a healthy one, none, and one whose data directory is open to all.
//! Every single finding is tested on made-up facts, beside the checks.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use daemon::{Daemon, cortex, directory, in_dir, output_of, socket_in};
use mesh::{Authority, free_port};

use crate::support::{daemon, mesh};

fn doctor(dir: &Path, arguments: &[&str]) -> Output {
    output_of(in_dir(cortex(), dir).arg("doctor").args(arguments))
}

fn findings(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("one JSON value")
}

/// The status and the mending command of a check.
fn found<'a>(report: &'a serde_json::Value, check: &str) -> (&'a str, Option<&'a str>) {
    let findings = report["findings"].as_array().expect("a list");
    let finding = findings.iter().find(|finding| finding["check"] == check).expect(check);
    (finding["status"].as_str().expect("a word"), finding["mend"].as_str())
}

#[test]
fn a_healthy_daemon_has_no_problem_and_the_exit_status_says_so() {
    let daemon = Daemon::start();
    let output = doctor(daemon.directory(), &["--json"]);
    let report = findings(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["ok"], true);
    for check in ["socket", "socket-mode", "ping", "version", "data-dir", "database", "leftovers"] {
        assert_eq!(found(&report, check), ("ok", None), "{check}");
    }
    assert_eq!(found(&report, "systemd").0, "unchecked", "it is not the machine's daemon");
}

#[test]
fn without_a_daemon_the_problems_are_told_with_what_mends_them() {
    let dir = directory();
    let output = doctor(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let socket = socket_in(dir.path());
    let expected = format!("is not there. To mend: cortexd --socket {}", socket.display());
    assert!(
        text.lines().any(|line| line.starts_with("problem") && line.ends_with(&expected)),
        "{text}"
    );
}

#[test]
fn a_data_directory_that_is_open_and_a_kept_database_are_found() {
    let daemon = Daemon::start();
    let data = daemon.data_dir();
    fs::set_permissions(&data, Permissions::from_mode(0o755)).expect("opened");
    fs::write(data.join("cortex.db.before-restore-17"), "old").expect("written");
    let output = doctor(daemon.directory(), &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report = findings(&output);
    assert_eq!(report["ok"], false);
    let mend = format!("chmod 0700 {}", data.display());
    assert_eq!(found(&report, "data-dir"), ("problem", Some(mend.as_str())));
    assert_eq!(found(&report, "leftovers").0, "note", "somebody has wanted it");
}

#[test]
fn a_configuration_that_the_daemon_would_refuse_is_found_by_asking_it() {
    let daemon = Daemon::start();
    let file = daemon.directory().join("another.toml");
    fs::write(&file, "threads = 0\n").expect("written");
    let output = doctor(daemon.directory(), &["--json", "--config", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    let report = findings(&output);
    assert_eq!(found(&report, "configuration").0, "problem");
    assert!(report.to_string().contains("threads = 0 is not between 1 and 64"), "{report:#}");

    fs::write(&file, "threads = 1\n").expect("written");
    let output = doctor(daemon.directory(), &["--json", "--config", file.to_str().expect("UTF-8")]);
    assert_eq!(found(&findings(&output), "configuration"), ("ok", None));
}

#[test]
fn the_settings_in_force_are_shown_with_their_sources_and_compared_with_the_files() {
    let daemon = Daemon::with_config("[limits]\nnesting = 20\n");
    let config = daemon.config();
    let shown = output_of(in_dir(cortex(), daemon.directory()).args(["config", "show"]));
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(shown["limits.nesting"]["value"], "20");
    let lines = fs::read_to_string(&config).expect("its text");
    let line = 1 + lines.lines().position(|line| line.starts_with("nesting")).expect("there");
    let source = format!("{}:{line}", config.display());
    assert_eq!(shown["limits.nesting"]["source"], source.as_str());
    assert_eq!(shown["socket"]["source"], "--socket");
    assert_eq!(shown["threads"]["source"], serde_json::Value::Null);

    let arguments = ["--json", "--config", config.to_str().expect("UTF-8")];
    let in_force = |dir: &Path| {
        let report = findings(&doctor(dir, &arguments));
        found(&report, "config-in-force").0.to_owned()
    };
    assert_eq!(in_force(daemon.directory()), "ok");
    let drop_ins = config.with_extension("toml.d");
    fs::create_dir(&drop_ins).expect("a directory");
    fs::write(drop_ins.join("10-threads.toml"), "threads = 3\n").expect("written");
    assert_eq!(in_force(daemon.directory()), "problem", "it needs a restart");
}

/// holds M4
#[test]
fn a_node_of_a_mesh_is_told_who_is_not_reached_and_what_ends_soon() {
    let (ca, ports) = (Authority::new(), [free_port(), free_port()]);
    ca.issue("home");
    ca.issue_as("cabin", "cabin", mesh::BOTH_USAGES, &["-days", "29"]);
    let nodes = [("office", ports[1])];
    let daemon = Daemon::with_config(&ca.settings("home", ports[0], &nodes));
    let configuration = daemon.config();
    let look = || {
        let file = configuration.to_str().expect("UTF-8");
        findings(&doctor(daemon.directory(), &["--json", "--config", file]))
    };
    let report = look();
    assert_eq!(found(&report, "mesh-name"), ("ok", None));
    assert_eq!(found(&report, "mesh-peer").0, "problem");
    assert!(report.to_string().contains("office is not reached at 127.0.0.1"), "{report:#}");

    // As the daemon will find it when it reads its settings again.
    daemon.write_config(&ca.settings_with("home", "cabin", ports[0], &nodes));
    let report = look();
    let renewal = Some("where the CA is: cortex mesh renew home");
    assert_eq!(found(&report, "mesh-cert"), ("problem", renewal));
    assert!(report.to_string().contains("certificate names"), "{report:#}");
    daemon.write_config(&ca.settings("cabin", ports[0], &nodes));
    let report = look();
    assert_eq!(found(&report, "mesh-name").0, "problem", "the database is home's");
    assert_eq!(found(&report, "mesh-cert").0, "warning", "29 days are left");
}
