//! How the service comes up: by being enabled, by a connection, by hand.
//! What it may do once it is up is `sandbox`'s.

use system_tests::{User, package};

/// holds D1
#[test]
fn enabling_the_service_makes_all_its_links() {
    let host = package::installed("enable");
    let links = [
        "multi-user.target.wants/cortexd.service",
        "sockets.target.wants/cortexd.socket",
        "dbus-org.cortexd.Cortex1.service",
    ];
    let missing = |host: &system_tests::Host| {
        let absent = |link: &&&str| {
            !host.run(User::Root, &format!("test -L /etc/systemd/system/{link}")).ok()
        };
        links.iter().filter(absent).count()
    };
    host.sh("systemctl disable --now cortexd.service cortexd.socket");
    assert_eq!(missing(&host), links.len(), "disabled");
    host.sh("systemctl enable --now cortexd");
    assert_eq!(missing(&host), 0, "enabled");
    assert_eq!(host.sh_as(User::Ann, "cortex ping"), "\"pong\"");
}

/// holds D1
#[test]
fn the_first_connection_starts_the_service() {
    let host = package::installed("first");
    host.sh("systemctl stop cortexd.service");
    assert_eq!(host.property("cortexd.service", "ActiveState"), "inactive");
    assert_eq!(host.property("cortexd.socket", "ActiveState"), "active");
    assert_eq!(host.sh_as(User::Ann, "cortex ping"), "\"pong\"");
    assert_eq!(host.property("cortexd.service", "ActiveState"), "active");
}

/// holds D1
#[test]
fn a_start_by_hand_opens_the_socket_too() {
    let host = package::installed("hand");
    host.sh("systemctl stop cortexd.service cortexd.socket && systemctl start cortexd.service");
    assert_eq!(
        host.sh("stat -c '%U %a %F' /run/cortex /run/cortex/cortex.sock"),
        "root 755 directory\nroot 666 socket"
    );
    assert_eq!(host.sh_as(User::Ann, "cortex ping"), "\"pong\"");
    assert!(host.property("cortexd.service", "StatusText").contains("/run/cortex/cortex.sock"));
}

/// holds M1, D4: what `systemctl preset-all` does, the first boot of an image does too, since an image has no machine
/// id.
#[test]
fn the_preset_of_all_units_opens_no_port_on_a_host_without_a_mesh() {
    let host = package::installed("preset");
    host.sh("systemctl enable cortexd-peer.socket"); // as Debian's own preset, of every unit, would have it
    host.sh("systemctl disable cortexd.service cortexd.socket");
    host.sh("systemctl preset-all && systemctl daemon-reload");
    let units = ["cortexd.service", "cortexd.socket", "cortexd-peer.socket"];
    let enabled = host.run(User::Root, &format!("systemctl is-enabled {}", units.join(" ")));
    assert_eq!(enabled.stdout, "enabled\nenabled\ndisabled");
    host.sh("systemctl stop cortexd.service cortexd.socket");
    host.sh("systemctl start sockets.target multi-user.target");
    host.wait_until("systemctl start cortexd.socket && runuser -u ann -- cortex ping");
    assert_eq!(host.sh("ss -Hltn 'sport = :4712'"), "", "nobody listens");
}
