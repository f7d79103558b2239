//! What the journal tells an administrator.
//! Which faults lead to which message is tested where the faults are.

use cortexd::sys::journal;
use system_tests::{User, package};

/// holds D1
#[test]
fn journalctl_explains_what_an_administrator_must_act_on() {
    let host = package::installed("journal");
    host.write("/etc/cortex/cortex.toml", "threads = 99\n");
    assert!(!host.run(User::Root, "systemctl reload cortexd").ok());
    let said = host.sh(&format!(
        "journalctl --catalog --unit=cortexd MESSAGE_ID={}",
        journal::CONFIGURATION_REJECTED
    ));
    for wanted in [
        "the settings were not changed",
        "Subject: New settings were refused",
        "threads = 99 is not between 1 and 64",
        "Support: man:cortex.toml(5)",
        "Nothing has changed: the daemon goes on with the settings it had.",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

/// holds D1
#[test]
fn every_explanation_reaches_the_journals_catalog() {
    let host = package::installed("catalog");
    let listed = host.sh("journalctl --list-catalog");
    for id in journal::ALL {
        assert!(listed.lines().any(|line| line.starts_with(id)), "{id}: {listed}");
    }
}

/// holds D1
#[test]
fn a_line_carries_its_fields_and_its_priority() {
    let host = package::installed("fields");
    let ready = host.sh("journalctl -u cortexd --output=json");
    let line = ready
        .lines()
        .find(|line| line.contains(r#""MESSAGE":"cortexd "#) && line.contains(" is ready\""))
        .unwrap_or_else(|| panic!("{ready}"));
    assert!(line.contains(r#""SOCKET":"/run/cortex/cortex.sock""#), "{line}");
    assert!(
        line.contains(r#""PRIORITY":"6""#) && line.contains(r#""SYSLOG_IDENTIFIER":"cortexd""#),
        "{line}"
    );
}
