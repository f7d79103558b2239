//! The mesh on booted hosts, from the package and nothing else: as the manual tells it, as root types it.
//! What machines say to each other is the daemon's own tests'; here are its user, its sandbox and its sockets.
//!
//! ```text
//!   home 10.99.0.1      office 10.99.0.2      the stranger 10.99.0.9
//!        └───────────────────┴──── br0 ────────────┘
//! ```

mod certificates;
mod identity;
mod readme;
mod refusals;
mod stolen;
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
    /// Two hosts with nothing but the package.
    #[track_caller]
    fn of_nobody() -> Self {
        let network = Network::new();
        let [home, office] = [("home", 1), ("office", 2)].map(|(name, number)| {
            let host = Host::boot_on(&network, name, number);
            package::install(&host, &package::built());
            host
        });
        Self { home, office, network }
    }

    /// Two hosts that have become a mesh and see each other.
    #[track_caller]
    fn start() -> Self {
        let mesh = Self::of_nobody();
        mesh.home.sh("cortex mesh init home 10.99.0.1");
        mesh.home.sh("systemctl restart cortexd");
        mesh.join();
        mesh.office.sh("systemctl restart cortexd");
        mesh.home.sh("systemctl reload cortexd");
        mesh.wait_for_link();
        mesh
    }

    /// `home` invites, and `office` joins.
    #[track_caller]
    fn join(&self) {
        let mut invitation = self.home.begin(User::Root, "cortex mesh invite office");
        let invited = parsed(&invitation.line());
        let code = invited["code"].as_str().expect("a code");
        self.office.sh(&format!("cortex mesh join {code}"));
        let joined = parsed(&invitation.end().expect_ok());
        assert_eq!((&joined["joined"], &joined["host"]), (&"office".into(), &"10.99.0.2".into()));
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

    /// Hands the revocation list of the CA to the other host.
    #[track_caller]
    fn carry_revocation_list(&self) {
        let list = fs::read(self.home.path("/var/lib/cortex/ca/crl.pem")).expect("read the list");
        fs::write(self.office.path("/var/lib/cortex/mesh/crl.pem"), list).expect("carry the list");
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

/// What the doctor tells root: status, check and finding of each line.
#[track_caller]
fn findings(host: &Host) -> Vec<String> {
    let report = host.run(User::Root, "cortex doctor").stdout;
    assert!(!report.is_empty(), "the doctor says nothing");
    report.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// What the doctor finds that is not well.
#[track_caller]
fn problems(host: &Host) -> Vec<String> {
    findings(host).into_iter().filter(|line| line.starts_with("problem")).collect()
}

/// Waits until the doctor finds what begins like this.
#[track_caller]
fn wait_for_finding(host: &Host, finding: &str) {
    wait_until(|| {
        let found = findings(host);
        let is_there = found.iter().any(|line| line.starts_with(finding));
        if is_there { Ok(()) } else { Err(format!("{finding:?} is not in {found:#?}")) }
    });
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

/// holds M4
#[test]
fn the_doctor_says_at_each_step_what_is_still_missing() {
    let mesh = Mesh::of_nobody();
    let (home, office) = (&mesh.home, &mesh.office);
    wait_for_finding(home, "unchecked mesh no mesh is configured");
    home.sh("cortex mesh init home 10.99.0.1");
    wait_for_finding(
        home,
        "problem mesh the settings name the node home, the running daemon is in no",
    );
    home.sh("systemctl restart cortexd");
    wait_for_finding(home, "ok mesh-name this is the node home");
    assert_eq!(problems(home), [""; 0]);

    mesh.join();
    office.sh("systemctl restart cortexd");
    wait_for_finding(office, "problem mesh-peer home is not reached at 10.99.0.1 port 4712");
    home.sh("systemctl reload cortexd");
    for (host, other) in [(home, "office"), (office, "home")] {
        wait_for_finding(host, &format!("ok mesh-peer {other} is connected, and alive"));
        wait_for_finding(host, &format!("ok mesh-clock the clock of {other} is"));
        assert_eq!(problems(host), [""; 0]);
    }

    home.sh("cortex mesh revoke-certificate office && systemctl reload cortexd");
    wait_for_finding(home, "problem mesh-peer office is not reached at 10.99.0.2 port 4712");
    mesh.carry_revocation_list();
    let refused = office.run(User::Root, "systemctl reload cortexd");
    assert!(!refused.ok(), "its own certificate is on the list: {refused}");
    wait_for_finding(office, "problem mesh-cert");
}
