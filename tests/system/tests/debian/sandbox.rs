//! What the daemon can and cannot do once systemd has locked it in.
//! How it comes up is `activation`'s.

use system_tests::{User, package};

/// holds D1, V1
#[test]
fn two_users_are_told_apart_by_uid() {
    let host = package::installed("users");
    host.sh_as(User::Ann, r#"cortex create notes id && cortex put notes '{"id": "of ann"}'"#);
    host.sh_as(User::Ben, r#"cortex create notes id && cortex put notes '{"id": "of ben"}'"#);
    assert_eq!(host.sh_as(User::Ann, "cortex keys notes"), r#"["of ann"]"#);
    assert_eq!(host.sh_as(User::Ben, "cortex keys notes"), r#"["of ben"]"#);

    let ann = host.sh("id -u ann");
    let whose = format!("cortex keys {ann}:notes");
    let refused = host.run(User::Ben, &whose);
    assert_eq!(refused.status, Some(4), "{refused}");
    assert!(refused.stderr.starts_with("error: access_denied"), "{refused}");
    host.sh_as(User::Ann, &format!("cortex acl grant uid:{} notes read", host.sh("id -u ben")));
    assert_eq!(host.sh_as(User::Ben, &whose), r#"["of ann"]"#);
    assert_eq!(host.sh(&whose), r#"["of ann"]"#, "root bypasses");
}

/// holds D1
#[test]
fn the_units_are_clean_and_the_exposure_is_at_most_1_2() {
    let host = package::installed("security");
    let units = "cortexd.service cortexd.socket cortexd-peer.socket";
    let verified = host.run(User::Root, &format!("systemd-analyze verify {units}"));
    assert!(verified.ok() && verified.stderr.is_empty(), "{verified}");
    // As it runs, with whatever else the host says of it, and as it is shipped.
    for unit in ["cortexd.service", "--offline=true /usr/lib/systemd/system/cortexd.service"] {
        let scored = host.sh(&format!("systemd-analyze security --threshold=12 {unit}"));
        assert!(scored.contains("Overall exposure level for cortexd.service: "), "{scored}");
    }
}

/// holds D1
#[test]
fn the_daemon_writes_nowhere_but_in_its_state_directory() {
    let host = package::installed("writes");
    // As the daemon's user, with what the daemon sees of the file system.
    let write = |path: &str| {
        let pid = host.property("cortexd.service", "MainPID");
        let script =
            format!("nsenter --target {pid} --mount runuser -u cortex -- touch {path}/probe");
        host.run(User::Root, &script)
    };
    host.sh("chmod 0777 /etc/cortex /usr/local");
    assert!(write("/var/lib/cortex").ok());
    for path in ["/etc/cortex", "/usr/local", "/home/ann", "/var/lib", "/boot"] {
        let refused = write(path);
        assert!(!refused.ok(), "{refused}");
    }
}

/// holds D1
#[test]
fn the_configuration_is_roots_and_the_data_is_the_daemons_alone() {
    let host = package::installed("owners");
    host.sh_as(User::Ann, "cortex ping");
    let shown = host
        .sh("stat -c '%U:%G %a %n' /etc/cortex /etc/cortex/cortex.toml /etc/cortex/cortex.toml.d \
         /var/lib/cortex /var/lib/cortex/cortex.db");
    assert_eq!(
        shown,
        "root:root 755 /etc/cortex\nroot:root 644 /etc/cortex/cortex.toml\n\
         root:root 755 /etc/cortex/cortex.toml.d\n\
         cortex:cortex 700 /var/lib/cortex\ncortex:cortex 600 /var/lib/cortex/cortex.db"
    );
}
