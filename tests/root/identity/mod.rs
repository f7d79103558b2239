//! Federated identities over two real machines of a mesh: one person with a uid on each, and everybody
//! who is not that person. Needs root, the only one who can be several users.
//! Leaves what mappings and scopes come to, in any order of arrival, to `cortex_core::directory`.
//!
//! `cargo test` does not run these tests by itself; `cargo test --test root` as root does.

mod stolen;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use daemon::{Daemon, wait_until};
use mesh::{Authority, Tls, free_port, is_connected, reload};
use rmpv::Value;
use rpc::{field, list, map};
use user::{User, require_root};

use crate::{
    support::{daemon, mesh, rpc},
    user,
};

/// Alice on home and on office. The users need no account: only registering by oneself looks one up.
const ALICE: u32 = 20_001;
const ALICE_THERE: u32 = 30_001;
const BOB: u32 = 20_002;
const BOB_THERE: u32 = 30_002;

/// Two daemons of a mesh, which every user can reach.
struct Mesh {
    ca: Authority,
    home: Daemon,
    office: Daemon,
    ports: [u16; 2],
}

impl Mesh {
    fn start() -> Self {
        require_root();
        let ca = Authority::new();
        let ports = [free_port(), free_port()];
        let nodes = [("home", ports[0]), ("office", ports[1]), ("third", 1)];
        let start = |name: &str, port| {
            ca.issue(name);
            let daemon = Daemon::with_config(&ca.settings(name, port, &nodes));
            fs::set_permissions(daemon.directory(), PermissionsExt::from_mode(0o755))
                .expect("open");
            daemon
        };
        let (home, office) = (start("home", ports[0]), start("office", ports[1]));
        let mesh = Self { ca, home, office, ports };
        mesh.wait_for_link();
        mesh
    }

    fn wait_for_link(&self) {
        wait_until("both see each other", || {
            is_connected(&self.home, "office") && is_connected(&self.office, "home")
        });
    }

    /// Registers alice on home; her token.
    fn register_alice(&self) -> String {
        self.register(&[("uid", ALICE.into())])
    }

    fn register(&self, options: &[(&str, Value)]) -> String {
        let mut root = self.home.connect();
        token(root.call("identity_register", &["alice".into(), options_of(options)]))
    }

    /// Alice with both of her uids.
    fn with_alice() -> Self {
        let mesh = Self::start();
        let token = mesh.register_alice();
        let mut there = User::connect(&mesh.office, ALICE_THERE);
        there.may("identity_claim", &[token.into()], "claimed identity 'alice'");
        mesh
    }

    /// Another token of alice's, made on home.
    fn token(&self, options: &[(&str, Value)]) -> String {
        let mut alice = User::connect(&self.home, ALICE);
        token(alice.call("identity_token", &[options_of(options)]))
    }

    fn claim(&self, uid: u32, token: &str) -> Result<Value, String> {
        User::connect(&self.office, uid).call("identity_claim", &[token.into()])
    }
}

fn options_of(options: &[(&str, Value)]) -> Value {
    Value::Map(options.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())
}

fn token(answer: Result<Value, String>) -> String {
    let answer = answer.expect("a token");
    field(&answer, "token").and_then(Value::as_str).expect("a text").to_owned()
}

fn refused(error: &str) -> Result<Value, String> {
    Err(error.to_owned())
}

fn mappings(daemon: &Daemon) -> Vec<(String, u64)> {
    let listed = daemon.connect().call("identity_list", &[]).expect("a list");
    let all = listed.as_array().expect("an array").iter();
    let maps = all.filter_map(|identity| field(identity, "mappings").and_then(Value::as_map));
    let pairs = maps.flatten().map(|(node, uid)| {
        (node.as_str().expect("a name").to_owned(), uid.as_u64().expect("a uid"))
    });
    pairs.collect()
}

fn on_both() -> Vec<(String, u64)> {
    vec![("home".into(), ALICE.into()), ("office".into(), ALICE_THERE.into())]
}

/// holds I2, I3, N1: the walk from two machines to one person.
#[test]
fn one_person_is_the_same_on_both_machines() {
    let mesh = Mesh::with_alice();
    assert_eq!(mappings(&mesh.office), on_both(), "the claim has brought the identity along");
    let mut here = User::connect(&mesh.home, ALICE);
    let mut there = User::connect(&mesh.office, ALICE_THERE);
    let mut ids = BTreeSet::new();
    here.create("@notes");
    wait_until("it is there too", || there.call("keys", &["@notes".into()]).is_ok());
    let again = there.call("create_table", &["@notes".into(), list(["id".into()])]);
    assert_eq!(again, refused("already_exists"), "whoever makes it, makes it for both");
    for alice in [&mut here, &mut there] {
        alice.put("@notes", "milk");
        alice.may("keys", &["@alice:notes".into()], list(["milk".into()]));
        alice.may("tables", &[], list(["@alice:notes".into()]));
        let info = alice.call("table_info", &["@notes".into()]).expect("an own table");
        assert_eq!(field(&info, "owner"), Some(&"@alice".into()));
        ids.insert(field(&info, "id").expect("an id").to_string());
        assert_eq!(field(&info, "node_scope"), Some(&"all".into()));
    }
    assert_eq!(ids.len(), 1, "one table");
    let mut stranger = User::connect(&mesh.office, ALICE);
    stranger.may_not("keys", &["@alice:notes".into()]);
    stranger.may_not("keys", &["@notes".into()]);
}

/// holds N1, N2
#[test]
fn without_an_identity_there_is_no_federated_table() {
    let mesh = Mesh::with_alice();
    let mut bob = User::connect(&mesh.home, BOB);
    let attributes = list(["id".into()]);
    let created = bob.call("create_table", &["@notes".into(), attributes.clone()]);
    assert_eq!(created, refused("federated_identity_required"));
    let mut alice = User::connect(&mesh.home, ALICE);
    let root =
        User::connect(&mesh.home, 0).call("create_table", &["@x".into(), attributes.clone()]);
    assert_eq!(root, refused("federated_identity_required"), "root is nobody in particular");
    let others = alice.call("create_table", &["@bob:notes".into(), attributes]);
    assert_eq!(others, refused("access_denied"));
}

/// holds I2
#[test]
fn a_user_without_that_login_name_may_not_register_it() {
    let mesh = Mesh::start();
    let mut bob = User::connect(&mesh.home, BOB);
    let answer = bob.call("identity_register", &["alice".into()]).expect_err("refused");
    assert!(answer.starts_with("identity_not_yours"), "{answer}");
    // Nobody of that uid is known to the machine, so that no name is theirs.
    let mut nobody = User::connect(&mesh.home, 4_000_000_003);
    let answer = nobody.call("identity_register", &["alice".into()]).expect_err("refused");
    assert_eq!(
        answer,
        "identity_not_yours: uid 4000000003 has no login name on this machine, so root must register one for it"
    );
    let for_another = bob.call("identity_register", &["x".into(), map([("uid", 7.into())])]);
    assert_eq!(for_another, refused("access_denied"));
    let mut root = mesh.home.connect();
    let register = |root: &mut rpc::Rpc, name: &str, uid: u32| {
        root.call("identity_register", &[name.into(), map([("uid", uid.into())])]).map(|_| ())
    };
    assert_eq!(register(&mut root, "alice", ALICE), Ok(()));
    assert_eq!(register(&mut root, "alice", BOB), Err("identity_taken".into()));
    let second = register(&mut root, "alice.work", ALICE);
    assert_eq!(second, Err("already_mapped: this uid is @alice".into()));
    assert_eq!(register(&mut root, "root", 0), Err("root_is_never_mapped".into()));
    let nameless = register(&mut root, "Alice", BOB);
    assert_eq!(nameless, Err("invalid identity name: Alice".into()));
    assert_eq!(mappings(&mesh.home), [("home".to_owned(), u64::from(ALICE))], "the one alone");
}

/// holds I3
#[test]
fn a_token_works_once_in_the_whole_mesh() {
    let mesh = Mesh::start();
    let token = mesh.register_alice();
    assert_eq!(mesh.claim(ALICE_THERE, &token), Ok("claimed identity 'alice'".into()));
    assert_eq!(
        mesh.claim(ALICE_THERE, &token),
        refused("already_mapped: this uid is @alice"),
        "she is already"
    );
    let has_one = format!("identity_has_a_uid_here: {ALICE_THERE}");
    assert_eq!(mesh.claim(BOB_THERE, &token), refused(&has_one));
    let mut root = mesh.office.connect();
    root.call("identity_revoke", &["alice".into(), "office".into()]).expect("revoked");
    assert_eq!(mesh.claim(BOB_THERE, &token), refused("token_already_used"), "by the origin");
    assert_eq!(mesh.claim(ALICE_THERE, &token), refused("token_already_used"), "here");
    let another = mesh.token(&[]);
    assert_eq!(mesh.claim(ALICE_THERE, &another), Ok("claimed identity 'alice'".into()));
}

/// holds I1, N2, R3: identities, and then what belongs to them, come by themselves.
#[test]
fn an_identity_and_its_tables_are_known_everywhere_by_themselves() {
    let mesh = Mesh::start();
    let token = mesh.register_alice();
    wait_until("office has heard of alice", || mappings(&mesh.office).len() == 1);
    let mut here = User::connect(&mesh.home, ALICE);
    here.create("@notes");
    here.put("@notes", "milk");
    assert_eq!(mesh.claim(ALICE_THERE, &token), Ok("claimed identity 'alice'".into()));
    let mut there = User::connect(&mesh.office, ALICE_THERE);
    wait_until("her notes are there", || {
        there.call("keys", &["@notes".into()]) == Ok(list(["milk".into()]))
    });
    there.put("@notes", "tea");
    wait_until("and those from there are here", || {
        here.call("keys", &["@notes".into()]) == Ok(list(["milk".into(), "tea".into()]))
    });
    User::connect(&mesh.office, ALICE).may_not("keys", &["@alice:notes".into()]);
}

/// holds I3: each refusal has its own error, and changes nothing.
#[test]
fn a_token_that_is_not_good_maps_nobody() {
    let mesh = Mesh::start();
    let good = mesh.register_alice();
    let (payload, signature) = good.split_once('.').expect("two parts");
    let json = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    let json = String::from_utf8(json).expect("text");
    let changed = |from: &str, to: &str| {
        let changed = json.replacen(from, to, 1);
        assert_ne!(changed, json, "{from} stands in the token");
        format!("{}.{signature}", URL_SAFE_NO_PAD.encode(changed))
    };
    let other_mesh = {
        let key = "\"mesh\":\"";
        let at = json.find(key).expect("a mesh") + key.len();
        changed(&json[at..at + 32], &"0".repeat(32))
    };
    let refusals = [
        ("".to_owned(), "token_malformed"),
        ("x.y".to_owned(), "token_malformed"),
        (payload.to_owned(), "token_malformed"),
        (changed(&format!("\"origin_uid\":{ALICE}"), "\"origin_uid\":7"), "token_forged"),
        (changed("\"fed_id\":\"alice\"", "\"fed_id\":\"bob\""), "token_forged"),
        (format!("{payload}.{}", URL_SAFE_NO_PAD.encode([1; 70])), "token_forged"),
        (other_mesh, "token_of_another_mesh"),
        (mesh.token(&[("for_node", "third".into())]), "token_for_another_node: third"),
        (mesh.token(&[("for_uid", 7.into())]), "token_for_another_uid: 7"),
    ];
    for (token, error) in refusals {
        assert_eq!(mesh.claim(ALICE_THERE, &token), refused(error), "{token}");
    }
    assert_eq!(mesh.claim(0, &good), refused("root_is_never_mapped"));
    let short = mesh.token(&[("seconds", 1.into())]);
    sleep(Duration::from_millis(2_100)); // the token's own time is what is tested
    assert_eq!(mesh.claim(ALICE_THERE, &short), refused("token_expired"));
    let long = User::connect(&mesh.home, ALICE)
        .call("identity_token", &[map([("seconds", 86_401.into())])]);
    assert_eq!(long, refused("token_lifetime: at most 86400 seconds"));
    let there = |(node, _): &(String, u64)| node == "office";
    assert!(!mappings(&mesh.office).iter().any(there), "nobody is mapped there");
    assert_eq!(mesh.claim(ALICE_THERE, &good), Ok("claimed identity 'alice'".into()));
}

/// holds I3
#[test]
fn a_token_of_an_identity_that_is_no_more_is_refused_by_its_origin() {
    let mesh = Mesh::start();
    let token = mesh.register_alice();
    let mut alice = User::connect(&mesh.home, ALICE);
    alice.may("identity_revoke", &["alice".into()], "revoked");
    assert_eq!(mesh.claim(ALICE_THERE, &token), refused("unknown_identity"));
}

/// holds I3
#[test]
fn a_token_needs_its_origin_unless_it_was_made_for_this_machine() {
    let mut mesh = Mesh::with_alice();
    // Alice is known on office by now; her mapping there is given up, to claim it again.
    let anywhere = mesh.token(&[]);
    let bound = mesh.token(&[("for_node", "office".into())]);
    let mut root = mesh.office.connect();
    root.call("identity_claim", &["x.y".into()]).expect_err("root is asked for a token first");
    let mut bob = User::connect(&mesh.home, ALICE);
    bob.may("identity_revoke", &["alice".into(), "home".into()], "revoked");
    let again = mesh.claim(BOB_THERE, &anywhere);
    assert!(again.is_err(), "{again:?}");
    assert_eq!(mesh.home.stop().code(), Some(0));
    let has_one = format!("identity_has_a_uid_here: {ALICE_THERE}");
    assert_eq!(mesh.claim(BOB_THERE, &bound), refused(&has_one));
    root.call("identity_revoke", &["alice".into(), "office".into()]).expect("revoked");
    let gone = mesh.claim(ALICE_THERE, &anywhere);
    assert_eq!(gone, refused("node_unreachable: home"));
}

/// holds I3
#[test]
fn a_token_for_this_machine_is_not_called_forged_where_its_identity_was_never_heard_of() {
    let mut mesh = Mesh::start();
    assert_eq!(mesh.office.stop().code(), Some(0));
    let token = mesh.register(&[("uid", ALICE.into()), ("for_node", "office".into())]);
    assert_eq!(mesh.home.stop().code(), Some(0));
    mesh.office.restart();
    assert_eq!(mesh.claim(ALICE_THERE, &token), refused("node_unreachable: home"));
    mesh.home.restart();
    mesh.wait_for_link();
    assert_eq!(mesh.claim(ALICE_THERE, &token), Ok("claimed identity 'alice'".into()));
}

/// holds I4
#[test]
fn root_and_whoever_is_mapped_here_may_revoke() {
    let mesh = Mesh::with_alice();
    let mut bob = User::connect(&mesh.office, BOB_THERE);
    bob.may_not("identity_revoke", &["alice".into()]);
    let unknown = bob.call("identity_revoke", &["carol".into()]);
    assert_eq!(unknown, refused("unknown_identity"));
    let mut there = User::connect(&mesh.office, ALICE_THERE);
    there.create("@notes");
    there.may("identity_revoke", &["alice".into(), "office".into()], "revoked");
    there.may_not("keys", &["@notes".into()]);
    assert_eq!(mappings(&mesh.office), [("home".to_owned(), u64::from(ALICE))]);
    let mut root = mesh.office.connect();
    assert_eq!(root.call("identity_revoke", &["alice".into()]), Ok("revoked".into()));
    assert_eq!(mappings(&mesh.office), []);
    let looked_up = root.call("identity_lookup", &["alice".into()]);
    assert_eq!(looked_up, refused("unknown_identity"));
}

/// holds I1
#[test]
fn an_identity_is_found_by_name_and_by_account() {
    let mesh = Mesh::with_alice();
    let mut bob = User::connect(&mesh.office, BOB_THERE);
    let by_name = bob.call("identity_lookup", &["alice".into()]).expect("known");
    let by_account = bob.call("identity_lookup", &["home".into(), ALICE.into()]).expect("known");
    assert_eq!(by_name, by_account);
    assert_eq!(field(&by_name, "fed_id"), Some(&"alice".into()));
    let nobody = bob.call("identity_lookup", &["office".into(), ALICE.into()]);
    assert_eq!(nobody, refused("unknown_identity"), "another machine's uid");
}

/// holds N2: both machines compute the same id for a table of the same name, and another one after a drop.
#[test]
fn a_federated_table_survives_restarts_and_is_another_one_after_a_drop() {
    let mut mesh = Mesh::with_alice();
    {
        let mut alice = User::connect(&mesh.home, ALICE);
        alice.create("@notes");
        alice.put("@notes", "milk");
        alice.may("acl_grant", &["uid:20002".into(), "@notes".into(), "read".into()], "granted");
    }
    mesh.home.kill();
    mesh.home.restart();
    let mut alice = User::connect(&mesh.home, ALICE);
    alice.may("keys", &["@notes".into()], list(["milk".into()]));
    let mut bob = User::connect(&mesh.home, BOB);
    bob.may("keys", &["@alice:notes".into()], list(["milk".into()]));
    let id = |alice: &mut User| {
        let info = alice.call("table_info", &["@notes".into()]).expect("an own table");
        field(&info, "id").expect("an id").clone()
    };
    let first = id(&mut alice);
    alice.may("drop_table", &["@notes".into()], "dropped");
    bob.may_not("keys", &["@alice:notes".into()]);
    alice.create("@notes");
    alice.may("keys", &["@notes".into()], list([]));
    bob.may_not("keys", &["@alice:notes".into()]);
    assert_ne!(id(&mut alice), first, "another table");
}

/// holds N4: what a grant on a table that may leave says of a uid, it says of that uid of this machine.
#[test]
fn grants_on_what_may_leave_are_qualified_and_shown_short_at_home() {
    let mesh = Mesh::with_alice();
    let mut alice = User::connect(&mesh.home, ALICE);
    alice.create("users");
    alice.may("acl_grant", &["uid:20002".into(), "users".into(), "read".into()], "granted");
    alice.may("set_scope", &["users".into(), "home,office".into()], "scope updated");
    let mut bob = User::connect(&mesh.home, BOB);
    bob.may("keys", &[format!("{ALICE}:users").into()], list([]));
    let grants = alice.call("acl_list", &[]).expect("a list");
    let rows = grants.as_array().expect("an array");
    let identities: Vec<_> = rows.iter().map(|row| field(row, "identity").cloned()).collect();
    let owner = format!("uid:{ALICE}").as_str().into();
    assert_eq!(identities, [Some(owner), Some("uid:20002".into())], "the owner comes first");
    alice.may("acl_revoke", &["uid:20002@home".into(), "users".into(), "read".into()], "revoked");
    bob.may_not("keys", &[format!("{ALICE}:users").into()]);
    alice.may("acl_grant", &["@alice".into(), "users".into(), "read".into()], "granted");
    let nobody = alice.call("acl_grant", &["@carol".into(), "users".into(), "read".into()]);
    assert_eq!(nobody, refused("unknown_identity"));
}

/// holds S1, S3
#[test]
fn a_scope_is_shown_and_decided() {
    let mesh = Mesh::with_alice();
    let mut alice = User::connect(&mesh.home, ALICE);
    alice.create("users");
    let scope = |user: &mut User, table: &str| {
        let answer = user.call("get_scope", &[table.into()]).expect("a scope");
        field(&answer, "node_scope").expect("it is there").clone()
    };
    assert_eq!(scope(&mut alice, "users"), "local".into());
    alice.may("set_scope", &["users".into(), "all".into()], "scope updated");
    assert_eq!(scope(&mut alice, "users"), "all".into());
    alice.may("set_scope", &["users".into(), "home,office".into()], "scope updated");
    assert_eq!(scope(&mut alice, "users"), list(["home".into(), "office".into()]));
    let unknown = alice.call("set_scope", &["users".into(), "home,ofice".into()]);
    assert_eq!(unknown, refused("unknown node: ofice"));
    let nonsense = alice.call("set_scope", &["users".into(), "".into()]);
    let invalid = "invalid scope: must be local, all or a list of node names";
    assert_eq!(nonsense, refused(invalid));
    let elsewhere = alice.call("create_table", &["t".into(), list(["id".into()]), "office".into()]);
    assert_eq!(elsewhere, refused("invalid scope: must include this node, home"));
    let mut bob = User::connect(&mesh.home, BOB);
    bob.may_not("get_scope", &[format!("{ALICE}:users").into()]);
    bob.may_not("set_scope", &[format!("{ALICE}:users").into(), "all".into()]);
}

/// holds S2, M6: over TLS a user counts as the identity that they are, within the scope alone.
#[test]
fn a_peers_user_is_served_as_the_identity_that_they_are() {
    let mesh = Mesh::with_alice();
    let mut alice = User::connect(&mesh.home, ALICE);
    alice.create("@notes");
    alice.put("@notes", "milk");
    alice.may("create_table", &["@secret".into(), list(["id".into()]), "home".into()], "created");
    alice.create("users");
    let office = mesh.ca.credentials("office", "office");
    let mut peer = Tls::rpc(&office, "home", mesh.ports[0]);
    let uid = |uid: u32| Some(map([("uid", uid.into())]));
    let keys = |peer: &mut Tls, table: &str, who| peer.call("keys", &[table.into()], who);
    assert_eq!(keys(&mut peer, "@notes", uid(ALICE_THERE)), Ok(list(["milk".into()])));
    assert_eq!(keys(&mut peer, "@alice:notes", uid(ALICE_THERE)), Ok(list(["milk".into()])));
    let record = map([("id", "tea".into())]);
    let put = peer.call("put", &["@notes".into(), record], uid(ALICE_THERE));
    assert_eq!(put, Ok("ok".into()));
    for (table, who) in [
        ("@notes", None),
        ("@alice:notes", None),
        ("@alice:notes", uid(BOB_THERE)),
        ("@alice:notes", uid(ALICE)),
        ("@alice:notes", uid(0)),
        ("@alice:secret", uid(ALICE_THERE)),
        ("20001:users", uid(ALICE_THERE)),
        ("users", uid(ALICE_THERE)),
    ] {
        let answer = keys(&mut peer, table, who.clone());
        assert_eq!(answer, refused("access_denied"), "{table} for {who:?}");
    }
    for method in ["drop_table", "table_info", "get_scope", "identity_list", "reload", "no_such"] {
        let answer = peer.call(method, &["@notes".into()], uid(ALICE_THERE));
        assert_eq!(answer, refused("access_denied"), "{method}");
    }
    alice.may("keys", &["@notes".into()], list(["milk".into(), "tea".into()]));
    alice.may("acl_grant", &["*".into(), "@notes".into(), "read".into()], "granted");
    assert_eq!(keys(&mut peer, "@alice:notes", None).map(|_| ()), Ok(()), "everybody may");
    alice.may("set_scope", &["@notes".into(), "home".into()], "scope updated");
    assert_eq!(keys(&mut peer, "@notes", uid(ALICE_THERE)), refused("access_denied"));
}

/// holds E1: what a machine has signed is signed again with its new key, and believed.
#[test]
fn after_a_rotation_the_identity_is_vouched_for_by_the_new_key() {
    let mesh = Mesh::start();
    let stale = mesh.register_alice();
    mesh.ca.issue_as("home-2", "home", mesh::BOTH_USAGES, &[]);
    let nodes = [("home", mesh.ports[0]), ("office", mesh.ports[1])];
    let settings = mesh.ca.settings_with("home", "home-2", mesh.ports[0], &nodes);
    reload(&mesh.home, &settings).expect("the new certificate is good");
    assert_eq!(mesh.claim(ALICE_THERE, &stale), refused("token_forged"), "by the old key");
    let fresh = mesh.token(&[]);
    assert_eq!(mesh.claim(ALICE_THERE, &fresh), Ok("claimed identity 'alice'".into()));
}

/// A database is one node of one mesh for ever: what it has signed is out in the world.
#[test]
fn a_database_does_not_change_its_mesh_or_its_name() {
    let mut mesh = Mesh::start();
    mesh.register_alice();
    let (stranger, port) = (Authority::new(), mesh.ports[0]);
    stranger.issue("home");
    mesh.ca.issue("other");
    mesh.home.stop();
    let mut refuses = |settings: &str, why: &str| {
        mesh.home.write_config(settings);
        mesh.home.restart();
        let said = mesh.home.connect().call("mesh_status", &[]).expect_err("no mesh");
        assert!(said.starts_with("mesh_down") && said.contains(why), "{said}");
        assert_eq!(mesh.home.connect().call("ping", &[]), Ok("pong".into()));
        mesh.home.stop();
    };
    refuses(&stranger.settings("home", port, &[]), "belongs to another mesh");
    refuses(&mesh.ca.settings("other", port, &[]), "belongs to node home");
}
