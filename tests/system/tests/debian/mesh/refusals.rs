//! Strangers at the port of a real host: each is refused, and counted.
//! All the ways to be refused are in the daemon's own tests; here the port is systemd's and the CA the package's.

use cortexd::sys::journal;
use system_tests::User;

use super::{Mesh, peer, refused, stranger::Stranger, wait_for_refusal};

/// holds M3, M5
#[test]
fn a_stranger_without_a_good_certificate_of_the_mesh_gets_nothing_and_is_counted() {
    let mesh = Mesh::start();
    let home = &mesh.home;
    let stranger = Stranger::between(&mesh.network);
    let pid = home.property("cortexd.service", "MainPID");

    home.sh("cortex mesh init-ca --output /root/other
        cortex mesh add-node office 10.99.0.9 --ca-dir /root/other --output /root/other-office
        cortex mesh add-node cabin 10.99.0.9 --output /root/cabin
        cortex mesh add-node barn 10.99.0.9 --output /root/barn
        cortex mesh revoke-certificate barn
        systemctl reload cortexd");
    let good = stranger.forges(home, "office", "good", &[]);
    let expired = ["-startdate", "200101000000Z", "-enddate", "210101000000Z"];
    let expired = stranger.forges(home, "office", "expired", &expired);
    let other = stranger.takes(home, "/root/other-office", "node", "other");
    let cabin = stranger.takes(home, "/root/cabin", "node", "cabin");
    let revoked = stranger.takes(home, "/root/barn", "node", "barn");
    let own = stranger.takes(home, "/var/lib/cortex/mesh", "node", "home");

    assert!(
        stranger.pings("10.99.0.1", Some(&good)),
        "the CA's word counts, whoever wrote it down"
    );
    for (papers, reason) in [
        (None, "no_certificate"),
        (Some(&other), "other_authority"),
        (Some(&expired), "expired"),
        (Some(&revoked), "revoked"),
        (Some(&cabin), "not_configured"),
        (Some(&own), "own_name"),
    ] {
        let before = refused(home, reason);
        assert!(!stranger.pings("10.99.0.1", papers), "{reason}: it was let in");
        wait_for_refusal(home, reason, before);
        // One line of each reason and interval: of some, another has had it already.
        let id = journal::PEER_REFUSED;
        let logged = format!("journalctl --output=json MESSAGE_ID={id} | grep '\"{reason}\"'");
        home.wait_until(&logged);
    }
    assert!(stranger.pings("10.99.0.1", Some(&good)), "who may is let in all the same");
    assert_eq!(peer(home, "office")["connected"], true, "the nodes have noticed nothing");
    assert_eq!(home.property("cortexd.service", "MainPID"), pid);
    assert_eq!(home.sh_as(User::Ann, "cortex ping"), "\"pong\"");
}
