//! The machine fails the daemon: it hangs, the disk is full.
//! What a crash leaves behind is `restart`'s.

use cortexd::sys::journal;
use system_tests::{Host, User, package};

/// Replaces settings of the service until the next boot, and restarts it.
fn adjust(host: &Host, settings: &str) {
    host.write(
        "/run/systemd/system/cortexd.service.d/test.conf",
        &format!("[Service]\n{settings}\n"),
    );
    host.sh("systemctl daemon-reload && systemctl restart cortexd.service");
}

/// holds D1
#[test]
fn a_daemon_that_hangs_is_started_again_by_the_watchdog_and_nothing_is_lost() {
    let host = package::installed("hang");
    assert_eq!(host.property("cortexd.service", "WatchdogUSec"), "30s");
    adjust(&host, "WatchdogSec=2s\nTimeoutAbortSec=1s");
    host.sh_as(User::Ann, r#"cortex create notes id && cortex put notes '{"id": "kept"}'"#);
    let stuck = host.property("cortexd.service", "MainPID");
    host.sh(&format!("kill -STOP {stuck}"));
    host.wait_until(
        "test $(systemctl show --value -p NRestarts cortexd) = 1 && systemctl is-active cortexd",
    );
    assert_ne!(host.property("cortexd.service", "MainPID"), stuck);
    assert_eq!(host.sh_as(User::Ann, "cortex keys notes"), r#"["kept"]"#);
    let said = host.sh("journalctl -u cortexd --output=cat");
    assert!(said.contains("Watchdog timeout"), "{said}");
}

/// A file system of 24 MiB in the place of the state directory. Its device belongs to the kernel, which gives it
/// back when the host's mounts end; a container lacks the nodes of such devices.
fn keep_the_data_on_a_small_disk(host: &Host) {
    host.sh("mknod /dev/loop-control c 10 237
        for n in $(seq 0 63); do mknod /dev/loop$n b 7 $n; done
        truncate -s 24M /var/tmp/disk
        mkfs.ext4 -q /var/tmp/disk
        mount -o loop /var/tmp/disk /var/lib/cortex
        chown cortex:cortex /var/lib/cortex
        chmod 0700 /var/lib/cortex");
}

/// holds D1, E3
#[test]
fn a_full_disk_refuses_writes_goes_on_reading_and_is_recovered_from() {
    let host = package::installed("full");
    host.sh("systemctl stop cortexd.service");
    keep_the_data_on_a_small_disk(&host);
    // Reads end in time also where the watchdog is impatient.
    adjust(&host, "WatchdogSec=2s");
    let before = host.property("cortexd.service", "MainPID");
    let put = |key: &str| {
        host.run(
            User::Ann,
            &format!(r#"printf '{{"id": "{key}", "text": "%0500000d"}}' 0 | cortex put notes -"#),
        )
    };
    host.sh_as(User::Ann, "cortex create notes id && cortex create gone id");
    assert!(put("kept").ok());
    for n in 0..4 {
        host.sh_as(
            User::Ann,
            &format!(r#"printf '{{"id": "{n}", "text": "%0500000d"}}' 0 | cortex put gone -"#),
        );
    }

    host.sh("head -c 100M /dev/zero >/var/lib/cortex/ballast || true");
    // The log has some room of its own still.
    let mut stored = vec!["kept".to_owned()];
    let refused = (0..60).map(|n| format!("more {n:02}")).find_map(|key| {
        let put = put(&key);
        put.ok().then(|| stored.push(key)).is_none().then_some(put)
    });
    let refused = refused.expect("the disk is full");
    assert!(refused.stderr.starts_with("error: storage_full"), "{refused}");
    let keys = |host: &Host| host.sh_as(User::Ann, "cortex keys notes");
    let kept = format!("[\"{}\"]", stored.join("\",\""));
    assert_eq!(keys(&host), kept, "reading goes on, and nothing of the refused was stored");
    for _ in 0..3 {
        let fed = host.property("cortexd.service", "WatchdogTimestampMonotonic");
        host.wait_until(&format!(
            "test $(systemctl show --value -p WatchdogTimestampMonotonic cortexd) -gt {fed}"
        ));
    }
    assert_eq!(host.property("cortexd.service", "MainPID"), before, "no reason to end");

    host.sh("rm /var/lib/cortex/ballast");
    let stored = put("fits");
    assert!(stored.ok(), "{stored}");
    assert_eq!(keys(&host), kept.replacen('[', "[\"fits\",", 1));
    assert_eq!(host.property("cortexd.service", "NRestarts"), "0");
    let said = host.sh(&format!("journalctl --output=cat MESSAGE_ID={}", journal::STORAGE_FULL));
    assert!(said.starts_with("a transaction failed, nothing of it was stored"), "{said}");
}
