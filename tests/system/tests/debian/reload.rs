//! `systemctl reload`: it puts new settings in force, or fails with the reason and changes nothing.
//! Which settings there are is the daemon's own tests'.

use system_tests::{Host, User, package};

const FILE: &str = "/etc/cortex/cortex.toml";

/// What the third table of a user leads to, where two are allowed.
const TOO_MANY: &str = "error: too many tables: at most 2 for one user";

fn create(host: &Host, table: &str) -> system_tests::Ran {
    host.run(User::Ann, &format!("cortex create {table} id"))
}

/// A host where nobody may have more than two tables, and Ann has them.
fn bounded(name: &str) -> Host {
    let host = package::installed(name);
    create(&host, "one").expect_ok();
    create(&host, "two").expect_ok();
    host.write(FILE, "[limits]\ntables_per_uid = 2\n");
    host.sh("systemctl reload cortexd");
    host
}

/// holds D1
#[test]
fn a_reload_puts_new_settings_in_force_without_a_restart() {
    let host = bounded("reload");
    assert!(create(&host, "three").stderr.starts_with(TOO_MANY));
    let pid = host.property("cortexd.service", "MainPID");
    host.write("/etc/cortex/cortex.toml.d/10-more.toml", "[limits]\ntables_per_uid = 3\n");
    host.sh("systemctl reload cortexd");
    create(&host, "three").expect_ok();
    assert_eq!(host.property("cortexd.service", "MainPID"), pid);
}

/// holds D1
#[test]
fn a_reload_of_broken_settings_fails_with_the_reason_and_changes_nothing() {
    let host = bounded("broken");
    let pid = host.property("cortexd.service", "MainPID");
    for (broken, reason) in [
        ("[limits]\ntables_per_uid = 0\n", "tables_per_uid = 0 is not between 1 and 1000000"),
        ("[limits]\ntables = 9\n", "unknown field `tables`"),
        ("data_dir = '/srv'\n", "a restart is needed to change data_dir"),
    ] {
        host.write(FILE, broken);
        let failed = host.run(User::Root, "systemctl reload cortexd");
        assert!(!failed.ok(), "{failed}");
        let said = host.sh("systemctl status cortexd");
        assert!(said.contains(reason), "{said}");
        assert_eq!(host.property("cortexd.service", "ActiveState"), "active");
        assert_eq!(host.property("cortexd.service", "MainPID"), pid);
        assert!(create(&host, "three").stderr.starts_with(TOO_MANY), "the old bound holds");
    }
    host.write(FILE, "");
    host.sh("systemctl reload cortexd");
    create(&host, "three").expect_ok();
}

/// holds D1
#[test]
fn only_root_may_reload() {
    let host = package::installed("rights");
    let refused = host.run(User::Ann, "cortex reload");
    assert_eq!(refused.status, Some(4), "{refused}");
    host.sh("cortex reload");
}

/// holds D1
#[test]
fn a_start_with_broken_settings_fails_with_the_reason_and_works_once_they_are_mended() {
    let host = package::installed("mended");
    host.write(FILE, "threads = 99\n");
    let failed = host.run(User::Root, "systemctl restart cortexd.service");
    assert!(!failed.ok(), "{failed}");
    let said = host.sh("journalctl -u cortexd --output=cat");
    assert!(
        said.contains(&format!("error: {FILE}:1: threads = 99 is not between 1 and 64")),
        "{said}"
    );
    let ended = ["Result", "ExecMainStatus", "NRestarts"]
        .map(|property| host.property("cortexd.service", property));
    assert_eq!(ended, ["exit-code", "78", "0"], "another start would not mend it");
    host.write(FILE, "threads = 2\n");
    host.sh("systemctl start cortexd.service");
    assert_eq!(host.sh_as(User::Ann, "cortex ping"), "\"pong\"");
}
