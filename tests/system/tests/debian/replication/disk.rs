//! A machine whose disk is full.

use system_tests::{Host, wait_until};

use super::{
    ALICE, Trio, asked, put, rows, state_of, wait_for_link, wait_for_state, wait_until_equal,
};

/// Moves the data to a file system of 24 MiB.
fn move_to_a_small_disk(host: &Host) {
    host.sh("systemctl stop cortexd.service cortexd.socket
        mknod /dev/loop-control c 10 237 || true
        for n in $(seq 0 63); do test -e /dev/loop$n || mknod /dev/loop$n b 7 $n; done
        truncate -s 24M /var/tmp/disk
        mkfs.ext4 -q /var/tmp/disk
        mkdir /mnt/small && mount -o loop /var/tmp/disk /mnt/small
        rm -f /var/lib/cortex/cortex.reserve
        cp -a /var/lib/cortex/. /mnt/small/
        mount --move /mnt/small /var/lib/cortex 2>/dev/null || { umount /mnt/small; mount -o loop /var/tmp/disk /var/lib/cortex; }
        chown cortex:cortex /var/lib/cortex
        chmod 0700 /var/lib/cortex
        systemctl start cortexd.socket cortexd.service");
}

/// holds R5, R7, E3
#[test]
fn a_machine_whose_disk_is_full_falls_behind_says_why_and_catches_up() {
    let trio = Trio::with_alice();
    let (a, b) = (&trio.a, &trio.b);
    move_to_a_small_disk(b);
    wait_for_link(a, "b");
    asked(a, ALICE, "cortex create @notes id --scope a,b");
    put(a, "@notes", &["small"]);
    wait_until_equal(a, "@notes");

    b.sh("head -c 100M /dev/zero >/var/lib/cortex/ballast || true");
    for n in 0..4 {
        a.sh_as(
            ALICE,
            &format!(
                r#"printf '{{"id": "large {n}", "text": "%0500000d"}}' 0 | cortex put @notes -"#
            ),
        );
    }
    wait_for_state(a, "@notes", "b", "behind");
    wait_until(|| {
        let replica = state_of(b, "@notes", "a");
        let says_why = replica["why"].to_string().contains("storage");
        if says_why { Ok(()) } else { Err(replica.to_string()) }
    });

    b.sh("rm /var/lib/cortex/ballast");
    wait_until_equal(a, "@notes");
    assert_eq!(rows(b, "@notes"), rows(a, "@notes"));
}
