//! One person with another uid on each host.
//! Who may claim what, in every case, is in `root_identity`, over users that have no account.

use serde_json::json;
use system_tests::{Host, Ran, User, wait_until};

use super::{Mesh, asked};

const ALICE: User = User::Named("alice");
const BOB: User = User::Named("bob");

const HER_UID: u32 = 2001;
const HER_UID_THERE: u32 = 3001;

#[track_caller]
fn refused(ran: &Ran, error: &str) {
    assert_eq!(ran.status, Some(4), "{ran}");
    assert!(ran.stderr.starts_with(&format!("error: {error}")), "{ran}");
}

/// holds I1, I2, I3, N1, M6
#[test]
fn a_person_is_the_same_on_both_hosts_and_who_has_her_uid_by_chance_is_not() {
    let Mesh { home, office, network: _up } = &Mesh::start();
    home.sh(&format!("useradd --uid {HER_UID} alice"));
    office.sh(&format!("useradd --uid {HER_UID_THERE} alice && useradd --uid {HER_UID} bob"));
    let as_alice = |host: &Host, command: &str| asked(host, ALICE, command);

    refused(&office.run(BOB, "cortex identity register alice"), "identity_not_yours");
    let registered = as_alice(home, "cortex identity register alice");
    let token = registered["token"].as_str().expect("a token");
    let claimed = as_alice(office, &format!("cortex identity claim {token}"));
    assert_eq!(claimed, "claimed identity 'alice'");
    let replayed = office.run(BOB, &format!("cortex identity claim {token}"));
    assert!(replayed.stderr.starts_with("error: identity_has_a_uid_here"), "{replayed}");

    wait_until(|| {
        let [here, there] = [home, office].map(|host| host.sh_as(ALICE, "cortex identity list"));
        if here == there { Ok(()) } else { Err(format!("{here} and {there}")) }
    });
    let mappings = json!({ "home": HER_UID, "office": HER_UID_THERE });
    assert_eq!(as_alice(home, "cortex identity lookup alice")["mappings"], mappings);

    assert_eq!(as_alice(home, "cortex create @notes id"), "created");
    as_alice(home, "cortex sync wait @notes --all");
    let [here, there] = [home, office].map(|host| {
        let info = as_alice(host, "cortex info @notes");
        assert_eq!((&info["owner"], &info["node_scope"]), (&json!("@alice"), &json!("all")));
        info["id"].clone()
    });
    assert!(here.is_string() || here.is_number(), "{here}");
    assert_eq!(here, there, "one table, wherever it was made");

    as_alice(office, r#"cortex put @notes '{"id": "milk"}'"#);
    assert_eq!(as_alice(office, "cortex keys @alice:notes"), json!(["milk"]));
    refused(&office.run(BOB, "cortex keys @alice:notes"), "access_denied");
    refused(&office.run(BOB, "cortex info @alice:notes"), "access_denied");
    assert!(!office.run(BOB, "cortex keys @notes").ok(), "bob has no such name");
    assert_eq!(asked(office, BOB, "cortex tables"), json!([]));
}

/// holds I3, I4
#[test]
fn an_identity_is_taken_away_and_claimed_again_while_the_other_host_is_off() {
    let Mesh { home, office, network: _up } = &Mesh::start();
    home.sh(&format!("useradd --uid {HER_UID} alice"));
    office.sh(&format!("useradd --uid {HER_UID_THERE} alice && useradd bob"));
    let bound = |command: &str| {
        let printed = asked(home, ALICE, &format!("cortex identity {command} --for-node office"));
        printed["token"].as_str().expect("a token").to_owned()
    };
    let claim = |token: &str| office.run(ALICE, &format!("cortex identity claim {token}"));
    let stop = "systemctl stop cortexd.service cortexd.socket";

    let first = bound("register alice");
    wait_until(|| {
        let known = office.sh_as(ALICE, "cortex identity list");
        if known.contains("alice") { Ok(()) } else { Err(known) }
    });
    home.sh(stop);
    claim(&first).expect_ok(); // it was made for this host, which knows who has made it
    home.sh("systemctl start cortexd.service");
    office.sh_as(ALICE, "cortex create @notes id");

    let second = bound("token");
    refused(&office.run(BOB, "cortex identity revoke alice office"), "access_denied");
    office.sh("cortex identity revoke alice office");
    assert!(!office.run(ALICE, "cortex keys @notes").ok(), "she is nobody in particular");
    assert_eq!(office.sh_as(ALICE, "cortex tables"), "[]");
    home.sh(stop);
    assert!(claim(&first).stderr.starts_with("error: token_already_used"));
    claim(&second).expect_ok();
    assert_eq!(office.sh_as(ALICE, "cortex keys @notes"), "[]", "it is hers again");
}
