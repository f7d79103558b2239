//! Tables that follow their owner over three hosts: through a cut, a lossy network, crashes, a wrong clock, a
//! full disk. What replicas say to each other is the simulation's and the daemon's own tests'.
//!
//! ```text
//!   a 10.99.0.1      b 10.99.0.2      c 10.99.0.3      each lists the two others, nothing more is done
//!        └───────────────┴──── br0 ───────┘
//! ```

mod clock;
mod crash;
mod cut;
mod disk;
mod rolling;
mod story;

use std::fs;

use serde_json::Value;
use system_tests::{Host, Network, User, package, wait_until};

/// Their names and the last part of their addresses.
const NODES: [(&str, u8); 3] = [("a", 1), ("b", 2), ("c", 3)];

/// Somebody who is another uid on each host.
const ALICE: User = User::Named("alice");

/// How long replicas may take to become equal, in seconds.
const EQUAL_WITHIN: u32 = 60;

/// Three hosts of one mesh.
struct Trio {
    a: Host,
    b: Host,
    c: Host,
    _network: Network,
}

impl Trio {
    /// Three fresh hosts that list each other in their configuration.
    #[track_caller]
    fn start() -> Self {
        let network = Network::new();
        let hosts = NODES.map(|(name, number)| {
            let host = Host::boot_on(&network, name, number);
            package::install(&host, &package::built());
            host
        });
        hosts[0].sh("cortex mesh init-ca --output /root/ca");
        for (host, (name, number)) in hosts.iter().zip(NODES) {
            hosts[0].sh(&format!(
                "cortex mesh add-node {name} 10.99.0.{number} --ca-dir /root/ca --output /root/{name}"
            ));
            configure(&hosts[0], host, name);
        }
        for host in &hosts {
            host.sh("systemctl restart cortexd.service");
        }
        let [a, b, c] = hosts;
        let trio = Self { a, b, c, _network: network };
        for (host, others) in [(&trio.a, ["b", "c"]), (&trio.b, ["a", "c"]), (&trio.c, ["a", "b"])]
        {
            for other in others {
                wait_for_link(host, other);
            }
        }
        trio
    }

    /// Three hosts on which alice is the same person, and uids of hers that are other people elsewhere.
    #[track_caller]
    fn with_alice() -> Self {
        let trio = Self::start();
        for (host, uid) in [(&trio.a, 2001), (&trio.b, 2002), (&trio.c, 2003)] {
            host.sh(&format!("useradd --uid {uid} alice"));
        }
        let registered = asked(&trio.a, ALICE, "cortex identity register alice");
        let mut token = registered["token"].as_str().expect("a token").to_owned();
        for host in [&trio.b, &trio.c] {
            let claimed = asked(host, ALICE, &format!("cortex identity claim {token}"));
            assert_eq!(claimed, "claimed identity 'alice'");
            let another = asked(&trio.a, ALICE, "cortex identity token");
            another["token"].as_str().expect("a token").clone_into(&mut token);
        }
        trio
    }

    fn all(&self) -> [&Host; 3] {
        [&self.a, &self.b, &self.c]
    }
}

/// Gives a host its certificate and the list of the others.
#[track_caller]
fn configure(authority: &Host, host: &Host, name: &str) {
    host.sh("install -d -m 0700 -o cortex -g cortex /var/lib/cortex/mesh");
    for file in ["ca.crt", "crl.pem", "node.crt", "node.key"] {
        let made = fs::read(authority.path(&format!("/root/{name}/{file}"))).expect("it was made");
        fs::write(host.path(&format!("/var/lib/cortex/mesh/{file}")), made).expect("put it there");
    }
    host.sh("chown cortex:cortex /var/lib/cortex/mesh/*; chmod 0600 /var/lib/cortex/mesh/node.key");
    let others = NODES.iter().filter(|(other, _)| *other != name);
    let others: Vec<_> = others
        .map(|(other, number)| {
            format!("{{ name = \"{other}\", host = \"10.99.0.{number}\", port = 4712 }}")
        })
        .collect();
    host.write(
        "/etc/cortex/cortex.toml.d/mesh.toml",
        &format!(
            "[mesh]\nnode_name = \"{name}\"\nca_cert = \"/var/lib/cortex/mesh/ca.crt\"\n\
             node_cert = \"/var/lib/cortex/mesh/node.crt\"\n\
             node_key = \"/var/lib/cortex/mesh/node.key\"\n\
             crl = \"/var/lib/cortex/mesh/crl.pem\"\nnodes = [{}]\n",
            others.join(", ")
        ),
    );
}

#[track_caller]
fn wait_for_link(host: &Host, other: &str) {
    wait_until(|| {
        let status = asked(host, User::Root, "cortex mesh status");
        let mut peers = status["peers"].as_array().expect("a list").iter();
        let sees = peers.any(|peer| peer["name"] == other && peer["connected"] == true);
        if sees { Ok(()) } else { Err(format!("no {other} in {status}")) }
    });
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

/// Waits until every replica is said, and proved, to hold the same as this host's.
#[track_caller]
fn wait_until_equal(host: &Host, table: &str) {
    host.sh_as(ALICE, &format!("cortex sync wait {table} --all --timeout {EQUAL_WITHIN}"));
}

/// What a host says of another's replica of a table: in_sync, behind and so on.
#[track_caller]
fn state_of(host: &Host, table: &str, node: &str) -> Value {
    let status = asked(host, ALICE, &format!("cortex sync status {table}"));
    let table = if status.is_array() { &status[0] } else { &status };
    let nodes = table["nodes"].as_array().unwrap_or_else(|| panic!("no nodes in {status}"));
    let found = nodes.iter().find(|replica| replica["node"] == node);
    found.unwrap_or_else(|| panic!("{node} is not in {status}")).clone()
}

/// Waits until a host says so of another's replica.
#[track_caller]
fn wait_for_state(host: &Host, table: &str, node: &str, state: &str) {
    wait_until(|| {
        let replica = state_of(host, table, node);
        if replica["state"] == state { Ok(()) } else { Err(format!("{node} is {replica}")) }
    });
}

/// All rows of a table, which every host that has it must print alike.
#[track_caller]
fn rows(host: &Host, table: &str) -> String {
    host.sh_as(ALICE, &format!("cortex all {table}"))
}

/// The keys of a table.
#[track_caller]
fn keys(host: &Host, table: &str) -> Value {
    asked(host, ALICE, &format!("cortex keys {table}"))
}

/// Writes records with these keys.
#[track_caller]
fn put(host: &Host, table: &str, keys: &[&str]) {
    let lines: Vec<_> = keys.iter().map(|key| format!("{{\"id\":\"{key}\",\"by\":1}}")).collect();
    host.sh_as(ALICE, &format!("printf '%s\\n' '{}' | cortex import {table} -", lines.join("' '")));
}
