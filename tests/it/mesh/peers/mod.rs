//! Machines of a mesh over real TLS: links, who is alive, reload, rotation, revocation.
//! Requests between them are in `peers/asking`, strangers in `peers/strangers`, machines that misbehave in
//! `peers/hostile` and `peers/byzantine`.

mod asking;
mod byzantine;
mod hostile;
mod strangers;

use daemon::{Daemon, cortexd, output_of, wait_until};
use mesh::{
    Authority, BOTH_USAGES, connections_to, free_port, is_connected, moment, peer, reload, state,
    status,
};
use rmpv::Value;
use rpc::field;

use crate::support::{daemon, mesh, rpc};

/// Two daemons that know each other.
struct Pair {
    ca: Authority,
    home: Daemon,
    office: Daemon,
    ports: [u16; 2],
}

impl Pair {
    fn start() -> Self {
        let ca = Authority::new();
        ca.issue("home");
        ca.issue("office");
        Self::with(ca)
    }

    fn with(ca: Authority) -> Self {
        let ports = [free_port(), free_port()];
        let nodes = [("home", ports[0]), ("office", ports[1])];
        let home = Daemon::with_config(&ca.settings("home", ports[0], &nodes));
        let office = Daemon::with_config(&ca.settings("office", ports[1], &nodes));
        let pair = Self { ca, home, office, ports };
        pair.wait_for_link();
        pair
    }

    fn wait_for_link(&self) {
        wait_until("both see each other", || {
            is_connected(&self.home, "office") && is_connected(&self.office, "home")
        });
    }

    fn settings_of_home(&self, file: &str, nodes: &[(&str, u16)]) -> String {
        self.ca.settings_with("home", file, self.ports[0], nodes)
    }

    fn both(&self) -> [(&'static str, u16); 2] {
        [("home", self.ports[0]), ("office", self.ports[1])]
    }
}

fn number(value: &Value, name: &str) -> u64 {
    field(value, name).and_then(Value::as_u64).unwrap_or_else(|| panic!("{name} in {value}"))
}

fn has_event(daemon: &Daemon, kind: &str) -> bool {
    let events = daemon.connect().call("events", &[]).expect("events");
    events
        .as_array()
        .expect("an array")
        .iter()
        .any(|event| field(event, "kind") == Some(&kind.into()))
}

/// holds M1, M4, R1
#[test]
fn two_machines_find_each_other_and_say_so() {
    let pair = Pair::start();
    wait_until("the round trip is measured", || {
        field(&peer(&pair.home, "office"), "round_trip_us").is_some_and(|trip| !trip.is_nil())
    });
    let office = peer(&pair.home, "office");
    assert_eq!(field(&office, "state"), Some(&"alive".into()), "{office}");
    assert!(number(&office, "round_trip_us") < 10_000_000, "{office}");
    let offset = field(&office, "clock_offset_ms").and_then(Value::as_i64).expect("measured");
    assert!(offset.abs() < 10_000, "one clock, and it is said to differ by {offset} ms");
    assert!(number(&office, "certificate_expires") > number(&office, "since_ms") / 1000);

    let home = status(&pair.home);
    assert_eq!(field(&home, "node"), Some(&"home".into()));
    assert_eq!(field(&home, "mesh"), field(&status(&pair.office), "mesh"), "one mesh, one id");
    wait_until("each sees that the other sees it", || {
        let status = status(&pair.home);
        let row = |name| field(field(&status, "matrix").expect("a map"), name).cloned();
        let both: Vec<Value> = vec!["home".into(), "office".into()];
        row("home") == Some(Value::Array(both.clone()))
            && row("office").and_then(|row| row.as_array().map(Vec::len)) == Some(2)
    });
    let listed = pair.office.cortex(&["mesh", "list-nodes"]);
    let expected =
        format!("[{{\"name\":\"home\",\"host\":\"127.0.0.1\",\"port\":{}}}]\n", pair.ports[0]);
    assert_eq!(String::from_utf8(listed.stdout).expect("UTF-8"), expected, "itself is left out");
    assert!(pair.home.cortex(&["mesh", "status"]).status.success());
    let own = pair.home.connect().call("status", &[]).expect("status");
    assert_eq!(field(&own, "node"), Some(&"home".into()), "the name in the mesh, not the host's");
    wait_until("it is written down", || {
        has_event(&pair.home, "peer_up") && has_event(&pair.home, "peer_alive")
    });
}

/// A machine that has joined dials before the settings of the other are read again, and one that ends closes what is
/// under way: neither is anything that somebody must look at.
#[test]
fn a_join_in_the_documented_order_and_an_orderly_end_refuse_nobody_in_the_log() {
    let ca = Authority::new();
    ca.issue("home");
    ca.issue("office");
    let ports = [free_port(), free_port()];
    let nodes = [("home", ports[0]), ("office", ports[1])];
    let home = Daemon::with_config(&ca.settings("home", ports[0], &nodes[..1]));
    let mut office = Daemon::with_config(&ca.settings("office", ports[1], &nodes));
    home.wait_for_log("office has a certificate of this mesh and is not configured here");
    reload(&home, &ca.settings("home", ports[0], &nodes)).expect("read again");
    wait_until("both see each other", || {
        is_connected(&home, "office") && is_connected(&office, "home")
    });
    for _ in 0..3 {
        assert!(office.stop().success());
        wait_until("it is gone", || !is_connected(&home, "office"));
        office.restart();
        wait_until("it is back", || is_connected(&home, "office") && is_connected(&office, "home"));
    }
    for log in [home.log(), office.log()] {
        assert!(!log.contains("refused a connection"), "{log}");
    }
}

/// holds R1
#[test]
fn of_the_links_that_both_dial_one_is_left() {
    let pair = Pair::start();
    wait_until("one link is left", || connections_to(&pair.ports) == 1);
    assert!(is_connected(&pair.home, "office") && is_connected(&pair.office, "home"));
}

/// holds R1
#[test]
fn a_machine_that_is_gone_becomes_suspect_and_comes_back_by_itself() {
    let mut pair = Pair::start();
    pair.office.kill();
    wait_until("the link is gone", || !is_connected(&pair.home, "office"));
    assert_eq!(state(&pair.home, "office"), "alive", "a link that breaks is no silence yet");
    wait_until("it is suspect", || state(&pair.home, "office") == "suspect");
    let gone = peer(&pair.home, "office");
    assert!(field(&gone, "last_error").is_some_and(|error| !error.is_nil()), "{gone}");
    assert!(has_event(&pair.home, "peer_down"));
    pair.office.restart();
    pair.wait_for_link();
    assert_ne!(state(&pair.home, "office"), "alive", "it is heard, and must be heard for a while");
    wait_until("it is alive again", || state(&pair.home, "office") == "alive");
    assert!(field(&peer(&pair.home, "office"), "last_error").is_some_and(Value::is_nil));
}

/// holds R1: nobody waits for the silence of a machine that has said that it stops, and a restart is no flapping.
#[test]
fn a_machine_that_stops_in_good_order_is_dead_at_once_and_alive_as_soon_as_it_is_back() {
    let mut pair = Pair::start();
    assert!(pair.office.stop().success());
    wait_until("the link is gone", || !is_connected(&pair.home, "office"));
    assert_eq!(state(&pair.home, "office"), "dead");
    pair.office.restart();
    wait_until("it is alive again", || {
        let state = state(&pair.home, "office");
        assert_ne!(state, "suspect", "it is not damped");
        state == "alive"
    });
}

/// holds M1, E1
#[test]
fn a_reload_that_is_wrong_changes_nothing() {
    let pair = Pair::start();
    pair.ca.issue("cabin");
    std::fs::write(pair.ca.path("broken.crt"), "no certificate").expect("written");
    std::fs::copy(pair.ca.path("home.key"), pair.ca.path("broken.key")).expect("copied");
    for (file, wanted) in [
        ("broken", "broken.crt"),
        ("absent", "absent.crt"),
        ("cabin", "home"), // another node's certificate
    ] {
        let settings = "log = 'debug'\n".to_owned() + &pair.settings_of_home(file, &[]);
        let error = reload(&pair.home, &settings).expect_err(file);
        assert!(
            error.contains("the settings were not changed") && error.contains(wanted),
            "{error}"
        );
    }
    let moved = pair
        .settings_of_home("home", &pair.both())
        .replace("listen = '127.0.0.1", "listen = '127.0.0.2");
    let error = reload(&pair.home, &moved).expect_err("it needs a restart");
    assert!(error.contains("a restart is needed to change mesh.listen"), "{error}");
    let error = reload(&pair.home, "").expect_err("it needs a restart");
    assert!(error.contains("a restart is needed to change mesh"), "{error}");
    assert!(
        is_connected(&pair.home, "office"),
        "the nodes that the wrong settings left out are there"
    );
    assert!(!pair.home.log().contains("DEBUG"), "nor was anything else of them taken");
}

/// holds M1
#[test]
fn a_mesh_that_cannot_be_joined_is_refused_by_a_check() {
    let (ca, other) = (Authority::new(), Authority::new());
    ca.issue("home");
    ca.issue_as(
        "old",
        "home",
        BOTH_USAGES,
        &["-startdate", "200101000000Z", "-enddate", "210101000000Z"],
    );
    ca.issue_for("both", "home", &["home", "office"], BOTH_USAGES, &[]);
    let settings = |ca: &Authority, file: &str| ca.settings_with("home", file, free_port(), &[]);
    let beside_office = ca.settings_with("home", "both", free_port(), &[("office", free_port())]);
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("cortex.toml");
    let check = |text: &str| {
        std::fs::write(&config, format!("bus = 'off'\n{text}")).expect("written");
        let mut command = cortexd();
        command.arg("--config").arg(&config).arg("--data-dir").arg(dir.path().join("data"));
        command.arg("--socket").arg(dir.path().join("socket"));
        output_of(command.arg("--check"))
    };
    let of_another_ca = settings(&ca, "home")
        .replace(&ca.path("ca.c").display().to_string(), &other.path("ca.c").display().to_string());
    for (text, wanted) in [
        (settings(&ca, "absent"), "is not there"),
        (settings(&ca, "old"), "expired"),
        (of_another_ca, "CA"),
        (settings(&ca, "home").replace("home.key'", "ca.key'"), "ca.key"),
        (settings(&ca, "home").replace("node_name = 'home'", "node_name = 'office'"), "office"),
        (settings(&ca, "home").replace("ca.crl'", "none.crl'"), "none.crl"),
        (beside_office, "the node's certificate names the node office too"),
    ] {
        let output = check(&text);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(wanted), "{wanted}: {said}");
    }
    let good = check(&settings(&ca, "home"));
    let said = String::from_utf8_lossy(&good.stdout);
    assert!(good.status.success() && said.contains("mesh.node_name = home"), "{said}");
}

/// holds M1
#[test]
fn without_a_mesh_a_machine_runs_alone() {
    let daemon = Daemon::start();
    for method in ["mesh_status", "mesh_list_nodes"] {
        let answer = daemon.connect().call(method, &[]);
        assert_eq!(answer, Err("mesh networking not configured".into()), "{method}");
    }
}

/// holds E1
#[test]
fn a_new_certificate_is_taken_up_and_the_old_one_is_cut_when_it_is_revoked() {
    let pair = Pair::start();
    pair.ca.issue_as("renewed", "home", BOTH_USAGES, &[]);
    reload(&pair.home, &pair.settings_of_home("renewed", &pair.both())).expect("it is good");
    assert!(is_connected(&pair.home, "office"), "what is open stays open");

    pair.ca.revoke("home");
    let reloaded = pair.office.cortex(&["mesh", "reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    pair.office.wait_for_log("its certificate was revoked");
    pair.wait_for_link();
}

/// holds E1, M5
#[test]
fn a_revoked_machine_is_cut_off_and_stays_out_and_the_others_do_not_notice() {
    let pair = Pair::start();
    pair.ca.issue("cabin");
    let nodes = [("home", pair.ports[0]), ("office", pair.ports[1]), ("cabin", free_port())];
    for (daemon, name, port) in
        [(&pair.home, "home", pair.ports[0]), (&pair.office, "office", pair.ports[1])]
    {
        reload(daemon, &pair.ca.settings(name, port, &nodes)).expect("a new machine is let in");
    }
    let cabin = Daemon::with_config(&pair.ca.settings("cabin", nodes[2].1, &nodes));
    wait_until("the new machine is there", || {
        is_connected(&pair.home, "cabin") && is_connected(&pair.office, "cabin")
    });
    pair.ca.revoke("cabin");
    for daemon in [&pair.home, &pair.office] {
        assert!(daemon.cortex(&["mesh", "reload"]).status.success());
        wait_until("it is cut off", || !is_connected(daemon, "cabin"));
    }
    let before = mesh::refused(&pair.home, "revoked");
    wait_until("it tries and is refused", || mesh::refused(&pair.home, "revoked") > before);
    assert!(!is_connected(&pair.home, "cabin") && is_connected(&pair.home, "office"));
    assert!(!pair.home.log().contains("the link to office has ended"));
    drop(cabin);
}

/// holds E1
#[test]
fn a_machine_that_is_no_longer_configured_is_cut_off() {
    let pair = Pair::start();
    reload(&pair.home, &pair.settings_of_home("home", &[])).expect("it is good");
    wait_until("it is cut off", || !is_connected(&pair.office, "home"));
    wait_until("it is refused", || mesh::refused(&pair.home, "not_configured") > 0);
    reload(&pair.home, &pair.settings_of_home("home", &pair.both())).expect("it is good");
    pair.wait_for_link();
}

/// holds E1
#[test]
fn a_certificate_that_expires_loses_its_connections() {
    let ca = Authority::new();
    ca.issue("office");
    // Long enough for two daemons to start and greet each other on a busy machine.
    ca.issue_as(
        "home",
        "home",
        BOTH_USAGES,
        &["-startdate", &moment(-60), "-enddate", &moment(15)],
    );
    let pair = Pair::with(ca);
    pair.office.wait_for_log("its certificate has expired");
    wait_until("it is cut off", || !is_connected(&pair.office, "home"));
}
