//! The port for other machines.
//! What is spoken on it is not the package's concern.

use system_tests::{Host, Network, User, package};

/// Connects from one host to the peer port of the one with number 1.
fn reaches(host: &Host) -> bool {
    host.run(User::Root, "timeout 5 bash -c '</dev/tcp/10.99.0.1/4712'").ok()
}

/// holds D1, R1
#[test]
fn the_port_for_other_machines_is_closed_until_it_is_enabled() {
    let network = Network::new();
    let one = Host::boot_on(&network, "one", 1);
    let two = Host::boot_on(&network, "two", 2);
    package::install(&one, &package::built());
    assert!(!reaches(&two), "not enabled");
    one.sh("systemctl enable cortexd-peer.socket && systemctl restart cortexd.service");
    assert!(reaches(&two), "enabled");
    assert_eq!(one.sh_as(User::Ann, "cortex ping"), "\"pong\"", "clients have their socket still");
}
