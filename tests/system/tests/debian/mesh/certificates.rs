//! Certificates that are replaced and revoked while the hosts are connected.
//! Nothing is restarted: root's commands write the files, and a reload takes them up.

use system_tests::{Host, User, wait_until};

use super::{Mesh, asked, peer, refused, status, stranger::Stranger, wait_for_refusal};

/// How often a host has seen a link come up.
#[track_caller]
fn links_so_far(host: &Host) -> usize {
    let events = asked(host, User::Root, "cortex events");
    let events = events.as_array().expect("a list");
    events.iter().filter(|event| event["kind"] == "peer_up").count()
}

/// Waits until there was one link more than so many, and the hosts are connected again.
#[track_caller]
fn wait_for_another_link(mesh: &Mesh, host: &Host, before: usize) {
    wait_until(|| match links_so_far(host) {
        count if count > before => Ok(()),
        count => Err(format!("{count} links so far: {}", status(host))),
    });
    mesh.wait_for_link();
}

/// holds E1, M3
#[test]
fn a_certificate_is_renewed_while_connected_and_the_old_one_is_of_no_use_once_revoked() {
    let mesh = Mesh::start();
    let (home, office) = (&mesh.home, &mesh.office);
    let stranger = Stranger::between(&mesh.network);
    let pids = || [home, office].map(|host| host.property("cortexd.service", "MainPID"));
    let before = pids();
    let old = stranger.serial_number("10.99.0.1");
    let old_expires = peer(office, "home")["certificate_expires"].clone();

    let renewed = asked(home, User::Root, "cortex mesh renew home");
    home.sh("systemctl reload cortexd");
    let new = stranger.serial_number("10.99.0.1");
    assert_ne!(new, old);
    let serial = renewed["serial"].as_str().expect("a serial number").replace(':', "");
    assert_eq!(new.trim_start_matches('0'), serial.to_lowercase().trim_start_matches('0'));
    assert_eq!(home.sh(super::MADE), super::AS_IT_SHALL_BE, "the new file is the daemon's too");
    assert_eq!(peer(office, "home")["connected"], true, "what is open stays open");

    let links = links_so_far(office);
    home.sh(&format!("cortex mesh revoke-certificate {old} && systemctl reload cortexd"));
    mesh.carry_revocation_list();
    office.sh("systemctl reload cortexd");
    wait_for_another_link(&mesh, office, links);
    assert_ne!(peer(office, "home")["certificate_expires"], old_expires, "by the new certificate");

    // Made where the CA is, and carried to the node that it is of.
    let renewed = asked(home, User::Root, "cortex mesh renew office");
    let certificate = renewed["certificate"].as_str().expect("PEM");
    std::fs::write(office.path("/var/lib/cortex/mesh/node.crt"), certificate).expect("carry it");
    let old = stranger.serial_number("10.99.0.2");
    office.sh("systemctl reload cortexd");
    assert_ne!(stranger.serial_number("10.99.0.2"), old);
    mesh.wait_for_link();
    assert_eq!(pids(), before, "no daemon was restarted");
    for host in [home, office] {
        assert_eq!(host.sh_as(User::Ann, "cortex ping"), "\"pong\"");
        assert_eq!(super::problems(host), [""; 0]);
    }
}

/// holds E1, M5
#[test]
fn a_revoked_node_is_cut_off_at_the_reload_and_stays_out() {
    let mesh = Mesh::start();
    let (home, office) = (&mesh.home, &mesh.office);
    home.sh("cortex mesh revoke-certificate office && systemctl reload cortexd");
    for (host, other) in [(home, "office"), (office, "home")] {
        wait_until(|| {
            let peer = peer(host, other);
            if peer["connected"] == false { Ok(()) } else { Err(format!("still there: {peer}")) }
        });
    }
    let said = home.sh("journalctl -u cortexd --output=cat");
    assert!(said.contains("its certificate was revoked"), "{said}");
    let wait_until_it_has_tried = || wait_for_refusal(home, "revoked", refused(home, "revoked"));
    wait_until_it_has_tried();
    office.sh("systemctl restart cortexd");
    wait_until_it_has_tried();
    assert_eq!(peer(home, "office")["connected"], false);
    let office_says = peer(office, "home");
    assert!(office_says["last_error"].as_str().is_some_and(|why| !why.is_empty()), "{office_says}");
    let certificates = asked(home, User::Root, "cortex mesh certificates");
    let is_good = |node: &str| {
        let listed = certificates.as_array().expect("a list").iter();
        listed.filter(|one| one["node"] == node).any(|one| one["good"] == true)
    };
    assert!(is_good("home") && !is_good("office"), "{certificates}");
    assert_eq!(home.sh_as(User::Ann, "cortex ping"), "\"pong\"");
}
