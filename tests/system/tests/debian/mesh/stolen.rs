//! A laptop is stolen: put out, its certificates revoked, and replaced, by the commands of cortex-mesh(7), "When a
//! machine is stolen", "Removed" and "Replaced".
//! What the machines say to each other meanwhile is `root_identity/stolen`'s.
//!
//! ```text
//!   home 10.99.0.1 (CA)    attic 10.99.0.3    office 10.99.0.2, stolen    its replacements .4 and .5
//!        └─────────────────────┴─── br0 ──────────┴───────────────────────────┘
//! ```

use std::fs;

use serde_json::json;
use system_tests::{Host, Network, User, package, wait_until};

use super::{Mesh, asked, parsed, peer, problems};

const ALICE: User = User::Named("alice");
const BOB: User = User::Named("bob");

/// Where the settings that `cortex mesh` writes are, and what begins each machine in them.
const SETTINGS: &str = "/etc/cortex/cortex.toml.d/mesh.toml";
const NODE: &str = "[[mesh.nodes]]\n";

/// Home and attic, which have lost office.
struct Robbed {
    home: Host,
    attic: Host,
    network: Network,
}

/// A machine of alice and bob, who have other uids on each.
fn with_people(host: &Host, number: u32) {
    host.sh(&format!(
        "useradd --uid {} alice && useradd --uid {} bob",
        2000 + number,
        3000 + number
    ));
}

/// A fresh host with the package, and accounts for both.
fn fresh(network: &Network, name: &str, number: u8) -> Host {
    let host = Host::boot_on(network, name, number);
    package::install(&host, &package::built());
    with_people(&host, number.into());
    host
}

/// Has a fresh host join, as "The second machine" says.
fn join(home: &Host, host: &Host, name: &str) {
    let mut invitation = home.begin(User::Root, &format!("cortex mesh invite {name}"));
    let code = parsed(&invitation.line())["code"].as_str().expect("a code").to_owned();
    host.sh(&format!("cortex mesh join {code}"));
    invitation.end().expect_ok();
    host.sh("systemctl restart cortexd");
    home.sh("systemctl reload cortexd");
}

/// Tells a machine of another one in its settings.
fn told_of(host: &Host, name: &str, number: u8) {
    let mut settings = host.sh(&format!("cat {SETTINGS}"));
    settings += &format!("\n\n{NODE}name = \"{name}\"\nhost = \"10.99.0.{number}\"\nport = 4712\n");
    host.write(SETTINGS, &settings);
    host.sh("systemctl reload cortexd");
}

/// Takes a machine out of `mesh.nodes`.
fn untold_of(host: &Host, name: &str) {
    let settings = host.sh(&format!("cat {SETTINGS}"));
    let is_other = |part: &&str| !part.starts_with(&format!("name = \"{name}\""));
    let kept: Vec<_> = settings.split(NODE).filter(is_other).collect();
    assert_eq!(kept.len() + 1, settings.split(NODE).count(), "{name} is not in {settings}");
    host.write(SETTINGS, &kept.join(NODE));
}

fn wait_for_links(hosts: &[(&Host, &str)]) {
    for (host, own) in hosts {
        for (_, other) in hosts.iter().filter(|(_, other)| other != own) {
            wait_until(|| {
                let peer = peer(host, other);
                let sees = peer["connected"] == true && peer["state"] == "alive";
                if sees { Ok(()) } else { Err(format!("on {own}, {other} is {peer}")) }
            });
        }
    }
}

fn wait_for_keys(host: &Host, user: User, table: &str, expected: &serde_json::Value) {
    wait_until(|| {
        let keys = host.run(user, &format!("cortex keys {table}"));
        let has = keys.ok() && parsed(&keys.stdout) == *expected;
        if has { Ok(()) } else { Err(keys.to_string()) }
    });
}

impl Robbed {
    /// Alice was registered on office, bob on home; her table was made, decided on and granted on office. Office has
    /// its power cut, and is not seen again.
    fn new() -> Self {
        let Mesh { home, office, network } = Mesh::start();
        with_people(&home, 1);
        with_people(&office, 2);
        let attic = fresh(&network, "attic", 3);
        join(&home, &attic, "attic");
        told_of(&office, "attic", 3);
        wait_for_links(&[(&home, "home"), (&office, "office"), (&attic, "attic")]);
        for (at, user, name, elsewhere) in
            [(&office, ALICE, "alice", [&home, &attic]), (&home, BOB, "bob", [&office, &attic])]
        {
            let mut printed = asked(at, user, &format!("cortex identity register {name}"));
            for host in elsewhere {
                let token = printed["token"].as_str().expect("a token");
                host.sh_as(user, &format!("cortex identity claim {token}"));
                printed = asked(at, user, "cortex identity token");
            }
        }
        office.sh_as(ALICE, "cortex create @notes id");
        office.sh_as(ALICE, r#"cortex put @notes '{"id": "milk"}'"#);
        office.sh_as(ALICE, "cortex scope @notes home && cortex scope @notes all");
        wait_until(|| {
            let granted = office.run(ALICE, "cortex acl grant @bob @notes read");
            if granted.ok() { Ok(()) } else { Err(granted.to_string()) }
        });
        for host in [&home, &attic] {
            wait_for_keys(host, BOB, "@alice:notes", &json!(["milk"]));
        }
        Self { home, attic, network }
    }

    /// "When a machine is stolen" and "Removed", with the list to every machine. Alice is nobody on it any more; that
    /// bob was somebody there is forgotten.
    fn put_out(&self, name: &str) {
        self.home.sh(&format!("cortex identity revoke alice {name}"));
        self.home.sh(&format!("cortex mesh remove-node {name}"));
        self.home.sh(&format!("cortex mesh revoke-certificate {name}"));
        let list = fs::read(self.home.path("/var/lib/cortex/ca/crl.pem")).expect("the list");
        for host in [&self.home, &self.attic] {
            untold_of(host, name);
            fs::write(host.path("/var/lib/cortex/mesh/crl.pem"), &list).expect("carry the list");
            host.sh("systemctl reload cortexd");
        }
    }

    /// "Replaced": a machine joins, alice and bob become themselves on it, and have there what is theirs.
    /// `members` are the machines that joined before it, apart from home, which invites.
    fn replace(&self, name: &str, number: u8, members: &[&Host], keys: &serde_json::Value) -> Host {
        let (home, attic) = (&self.home, &self.attic);
        let new = fresh(&self.network, name, number);
        join(home, &new, name);
        for member in members {
            told_of(member, name, number);
        }
        wait_for_links(&[(home, "home"), (attic, "attic"), (&new, name)]);
        for (user, known_on, person) in [(ALICE, attic, "alice"), (BOB, home, "bob")] {
            let token = asked(known_on, user, "cortex identity token");
            let token = token["token"].as_str().expect("a token");
            let claimed = asked(&new, user, &format!("cortex identity claim {token}"));
            assert_eq!(claimed, json!(format!("claimed identity '{person}'")));
        }
        wait_for_keys(&new, ALICE, "@notes", keys);
        wait_for_keys(&new, BOB, "@alice:notes", keys);
        let denied = new.run(BOB, r#"cortex put @alice:notes '{"id": "bobs"}'"#);
        assert!(denied.stderr.starts_with("error: access_denied"), "{denied}");
        for (host, own) in [(home, "home"), (attic, "attic"), (&new, name)] {
            wait_until(|| match problems(host) {
                none if none.is_empty() => Ok(()),
                found => Err(format!("on {own} the doctor finds {found:#?}")),
            });
        }
        new
    }
}

/// holds M5, I1, N2
#[test]
fn a_stolen_machine_is_replaced_under_a_new_name_and_under_its_own_by_the_words_of_the_manual() {
    let robbed = Robbed::new();
    robbed.put_out("office");
    robbed.home.sh_as(ALICE, r#"cortex put @notes '{"id": "tea"}'"#);

    let cabin = robbed.replace("cabin", 4, &[&robbed.attic], &json!(["milk", "tea"]));
    cabin.sh_as(ALICE, r#"cortex put @notes '{"id": "rope"}'"#);
    wait_for_keys(&robbed.attic, ALICE, "@notes", &json!(["milk", "rope", "tea"]));

    let members = [&robbed.attic, &cabin];
    let office = robbed.replace("office", 5, &members, &json!(["milk", "rope", "tea"]));
    office.sh_as(ALICE, r#"cortex put @notes '{"id": "wine"}'"#);
    wait_for_keys(&robbed.home, ALICE, "@notes", &json!(["milk", "rope", "tea", "wine"]));
    let who = asked(&robbed.home, ALICE, "cortex identity lookup alice");
    let mapped = json!({ "attic": 2003, "cabin": 2004, "home": 2001, "office": 2005 });
    assert_eq!(who["mappings"], mapped);
}
