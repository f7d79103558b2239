//! The mesh on booted hosts, from the package and nothing else: as the manual tells it, as root types it.
//! What machines say to each other is the daemon's own tests'; here are its user, its sandbox and its sockets.
//!
//! ```text
//!   home 10.99.0.1      office 10.99.0.2      the stranger 10.99.0.9
//!        └───────────────────┴──── br0 ────────────┘
//! ```

mod certificates;
mod identity;
mod refusals;
mod stranger;

use std::fs;

use serde_json::Value;
use stranger::Stranger;
use system_tests::{Host, Network, User, package, wait_until};

/// What `mesh init` and `mesh join` have made, with its owners.
const MADE: &str = "stat -c '%U:%G %a %n' /var/lib/cortex /var/lib/cortex/mesh /var/lib/cortex/mesh/* \
    /etc/cortex/cortex.toml.d/mesh.toml";

/// What that shall be: the daemon's, and nobody else's where it is a secret.
const AS_IT_SHALL_BE: &str = "cortex:cortex 700 /var/lib/cortex
cortex:cortex 700 /var/lib/cortex/mesh
cortex:cortex 644 /var/lib/cortex/mesh/ca.crt
cortex:cortex 644 /var/lib/cortex/mesh/crl.pem
cortex:cortex 644 /var/lib/cortex/mesh/node.crt
cortex:cortex 600 /var/lib/cortex/mesh/node.key
root:root 644 /etc/cortex/cortex.toml.d/mesh.toml";

/// Two hosts of one mesh. The CA is on `home`.
struct Mesh {
    home: Host,
    office: Host,
    network: Network,
}

impl Mesh {
    /// From two hosts with nothing but the package to two that see each other.
    #[track_caller]
    fn start() -> Self {
        let network = Network::new();
        let [home, office] = [("home", 1), ("office", 2)].map(|(name, number)| {
            let host = Host::boot_on(&network, name, number);
            package::install(&host, &package::built());
            host
        });
        home.sh("cortex mesh init home 10.99.0.1");
        home.sh("systemctl restart cortexd");
        let mut invitation = home.begin(User::Root, "cortex mesh invite office");
        let invited = parsed(&invitation.line());
        let code = invited["code"].as_str().expect("a code");
        office.sh(&format!("cortex mesh join {code}"));
        let joined = parsed(&invitation.end().expect_ok());
        assert_eq!((&joined["joined"], &joined["host"]), (&"office".into(), &"10.99.0.2".into()));
        office.sh("systemctl restart cortexd");
        home.sh("systemctl reload cortexd");
        let mesh = Self { home, office, network };
        mesh.wait_for_link();
        mesh
    }

    /// Waits until each host is alive in the eyes of the other.
    #[track_caller]
    fn wait_for_link(&self) {
        for (host, other) in [(&self.home, "office"), (&self.office, "home")] {
            wait_until(|| {
                let peer = peer(host, other);
                let sees = peer["connected"] == true && peer["state"] == "alive";
                if sees { Ok(()) } else { Err(format!("{other} is {peer}")) }
            });
        }
    }

    /// Hands the revocation list of the CA to the other host, which takes it up.
    #[track_caller]
    fn carry_revocation_list(&self) {
        let list = fs::read(self.home.path("/var/lib/cortex/ca/crl.pem")).expect("read the list");
        fs::write(self.office.path("/var/lib/cortex/mesh/crl.pem"), list).expect("carry the list");
        self.office.sh("systemctl reload cortexd");
    }
}

#[track_caller]
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What a command of `cortex` prints.
#[track_caller]
fn asked(host: &Host, user: User, command: &str) -> Value {
    parsed(&host.sh_as(user, command))
}

#[track_caller]
fn status(host: &Host) -> Value {
    asked(host, User::Root, "cortex mesh status")
}

/// What a host says of another.
#[track_caller]
fn peer(host: &Host, name: &str) -> Value {
    let status = status(host);
    let peers = status["peers"].as_array().expect("a list");
    let found = peers.iter().find(|peer| peer["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {status}")).clone()
}

/// How many connections a host has refused for this reason.
#[track_caller]
fn refused(host: &Host, reason: &str) -> u64 {
    status(host)["refused"][reason].as_u64().unwrap_or(0)
}

/// Waits until a host has refused one more than so many.
#[track_caller]
fn wait_for_refusal(host: &Host, reason: &str, before: u64) {
    wait_until(|| {
        let status = status(host);
        let is_counted = status["refused"][reason].as_u64().is_some_and(|count| count > before);
        if is_counted { Ok(()) } else { Err(format!("nobody is refused for {reason}: {status}")) }
    });
}

/// What the doctor finds that is not well, as root.
#[track_caller]
fn problems(host: &Host) -> Vec<String> {
    let report = host.run(User::Root, "cortex doctor").stdout;
    assert!(!report.is_empty(), "the doctor says nothing");
    report.lines().filter(|line| line.starts_with("problem")).map(str::to_owned).collect()
}

/// holds M1, M3, M4
#[test]
fn two_machines_with_the_package_become_a_mesh_by_the_commands_of_the_manual() {
    let mesh = Mesh::start();
    let (home, office) = (&mesh.home, &mesh.office);
    for (host, own, other, address) in
        [(home, "home", "office", "10.99.0.2"), (office, "office", "home", "10.99.0.1")]
    {
        let nodes = asked(host, User::Ann, "cortex mesh list-nodes");
        let expected = serde_json::json!([{ "name": other, "host": address, "port": 4712 }]);
        assert_eq!(nodes, expected, "anybody may see it");
        assert_eq!(asked(host, User::Ann, "cortex status")["node"], own);
        assert_eq!(host.sh(MADE), AS_IT_SHALL_BE, "{own}");
        assert_eq!(problems(host), [""; 0], "{own}");
        let beside_the_key = "ls -A /var/lib/cortex | grep -v -e '^cortex' -e '^mesh$' -e '^ca$'";
        assert!(!host.run(User::Root, beside_the_key).ok(), "nothing unfinished is left on {own}");
    }
    assert_eq!(status(home)["mesh"], status(office)["mesh"]);
    let authority = home.sh("stat -c '%U:%G %a' /var/lib/cortex/ca /var/lib/cortex/ca/ca.key");
    assert_eq!(authority, "root:root 700\nroot:root 600", "not even the daemon reads the CA's key");
    assert!(!office.path("/var/lib/cortex/ca").exists(), "the CA is on one machine");
}

/// holds M1, M3, D1
#[test]
fn a_mesh_may_begin_before_the_daemon_has_ever_run() {
    let host = Host::boot("first");
    // As images are made: packages are installed, and start nothing (invoke-rc.d(8)).
    host.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");
    host.sh("chmod +x /usr/sbin/policy-rc.d");
    package::install(&host, &package::built());
    assert!(!host.path("/var/lib/cortex").exists(), "the daemon has not run");
    host.sh("cortex mesh init home 10.99.0.1");
    assert_eq!(host.sh(MADE), AS_IT_SHALL_BE);
    host.sh("systemctl start cortexd.service");
    assert_eq!(status(&host)["node"], "home");
    assert_eq!(host.sh(MADE), AS_IT_SHALL_BE, "systemd leaves it to the daemon as it is");
    let authority = host.sh("stat -c '%U:%G %a' /var/lib/cortex/ca /var/lib/cortex/ca/ca.key");
    assert_eq!(authority, "root:root 700\nroot:root 600");
    assert_eq!(problems(&host), [""; 0]);
}

/// holds M2, D1
#[test]
fn the_port_of_the_mesh_is_the_daemons_own_or_the_socket_that_systemd_passes() {
    let mesh = Mesh::start();
    let stranger = Stranger::between(&mesh.network);
    // A node's files are all that it takes to pass for it.
    let [as_home, as_office] = [(&mesh.home, "home"), (&mesh.office, "office")]
        .map(|(host, node)| stranger.takes(host, "/var/lib/cortex/mesh", "node", node));
    let holders = |host: &Host| host.sh("ss -Hltnp 'sport = :4712'");
    assert!(!holders(&mesh.office).contains("systemd"), "{}", holders(&mesh.office));
    assert!(stranger.pings("10.99.0.2", Some(&as_home)), "`listen` of the configuration");

    mesh.office.sh("systemctl enable cortexd-peer.socket && systemctl restart cortexd.service");
    let held = holders(&mesh.office);
    assert!(held.contains("\"systemd\"") && held.contains("\"cortexd\""), "{held}");
    mesh.wait_for_link();
    assert!(stranger.pings("10.99.0.2", Some(&as_home)), "systemd's socket");
    assert!(stranger.pings("10.99.0.1", Some(&as_office)), "the other host, as before");
    assert_eq!(problems(&mesh.office), [""; 0]);
}

/// holds M1
#[test]
fn a_key_that_the_daemon_may_not_read_is_named_and_the_one_that_it_has_stays_in_force() {
    let host = package::installed("unread");
    host.sh("cortex mesh init home 10.99.0.1 && systemctl restart cortexd");
    let pid = host.property("cortexd.service", "MainPID");
    host.sh("chown root:root /var/lib/cortex/mesh/node.key");
    let failed = host.run(User::Root, "systemctl reload cortexd");
    assert!(!failed.ok(), "{failed}");
    let said = host.sh("journalctl -u cortexd --output=cat");
    assert!(said.contains("/var/lib/cortex/mesh/node.key"), "{said}");
    assert_eq!(host.property("cortexd.service", "MainPID"), pid);
    assert_eq!(status(&host)["node"], "home", "the key that it has read is in force");
    host.sh("chown cortex:cortex /var/lib/cortex/mesh/node.key && systemctl reload cortexd");
}
