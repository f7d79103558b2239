//! A machine that is lost for good: put out, its certificate revoked, and another one in its place.
//! The people whose identities it had, and the tables that it had made, are theirs on the new machine.

use super::*;

const BOB_HERE: u32 = BOB;

/// Home, and a second machine that was lost.
struct Lost {
    ca: Authority,
    home: Daemon,
    new: Option<Daemon>,
    port: u16,
    /// With which bob had claimed his identity on the machine that is lost.
    token_of_bob: String,
}

fn for_all(config: &str) -> Daemon {
    let daemon = Daemon::with_config(config);
    fs::set_permissions(daemon.directory(), PermissionsExt::from_mode(0o755)).expect("open");
    daemon
}

/// Has two machines where alice is registered on office, which is lost, and bob on home; each is both. Alice
/// has a table that office has made, decided on and granted bob the reading of.
fn before_the_loss() -> Lost {
    let mesh = Mesh::start();
    let mut root = mesh.office.connect();
    let wish = options_of(&[("uid", ALICE_THERE.into())]);
    let of_alice = token(root.call("identity_register", &["alice".into(), wish]));
    let claimed = User::connect(&mesh.home, ALICE).call("identity_claim", &[of_alice.into()]);
    assert_eq!(claimed, Ok("claimed identity 'alice'".into()));
    let wish = options_of(&[("uid", BOB_HERE.into()), ("for_node", "office".into())]);
    let of_bob = token(mesh.home.connect().call("identity_register", &["bob".into(), wish]));
    assert_eq!(mesh.claim(BOB_THERE, &of_bob), Ok("claimed identity 'bob'".into()));
    let mut there = User::connect(&mesh.office, ALICE_THERE);
    there.create("@notes");
    there.put("@notes", "milk");
    there.may("set_scope", &["@notes".into(), "home".into()], "scope updated");
    there.may("set_scope", &["@notes".into(), "all".into()], "scope updated");
    there.call("acl_grant", &["@bob".into(), "@notes".into(), "read".into()]).expect("granted");
    let mut bob = User::connect(&mesh.home, BOB_HERE);
    wait_until("home has all of it", || {
        bob.call("keys", &["@alice:notes".into()]) == Ok(list(["milk".into()]))
    });
    let Mesh { ca, home, mut office, .. } = mesh;
    office.kill();
    Lost { ca, home, new: None, port: free_port(), token_of_bob: of_bob }
}

impl Lost {
    fn remove(&self) {
        let removed = self.home.connect().call("mesh_remove_node", &["office".into()]);
        assert_eq!(removed, Ok("removed".into()));
    }

    /// The list is renewed where the CA is, and home reads it.
    fn revoke(&self) {
        self.ca.revoke("office");
        let own = self.ca.settings("home", self.home_port(), &[]);
        reload(&self.home, &own).expect("reloaded");
    }

    /// A machine with an empty disk, of that name.
    fn replace(&mut self, name: &str) {
        self.ca.issue(name);
        // The port of home stays what it was when its daemon was started.
        let port = self.home_port();
        let own = self.ca.settings("home", port, &[("home", port), (name, self.port)]);
        reload(&self.home, &own).expect("reloaded");
        let nodes = [("home", port), (name, self.port)];
        let new = for_all(&self.ca.settings(name, self.port, &nodes));
        wait_until("both see each other", || {
            is_connected(&self.home, name) && is_connected(&new, "home")
        });
        self.new = Some(new);
    }

    fn home_port(&self) -> u16 {
        let config = fs::read_to_string(self.home.config()).expect("its settings");
        let listen = config.lines().find(|line| line.starts_with("listen")).expect("a port");
        let port = listen.rsplit(':').next().expect("a port");
        port.trim_end_matches('\'').parse().expect("a number")
    }

    /// Alice and bob become themselves on the new machine, and have there what is theirs.
    fn assert_all_is_there(&self) {
        let new = self.new.as_ref().expect("it was replaced");
        for (who, uid, there) in [("alice", ALICE, ALICE_THERE), ("bob", BOB_HERE, BOB_THERE)] {
            let made = User::connect(&self.home, uid).call("identity_token", &[options_of(&[])]);
            let claimed = User::connect(new, there).call("identity_claim", &[token(made).into()]);
            assert_eq!(claimed, Ok(format!("claimed identity '{who}'").into()));
        }
        let mut alice = User::connect(new, ALICE_THERE);
        let mut bob = User::connect(new, BOB_THERE);
        wait_until("her notes are there", || {
            alice.call("keys", &["@notes".into()]) == Ok(list(["milk".into()]))
        });
        wait_until("bob may read them by what the lost machine had granted", || {
            bob.call("keys", &["@alice:notes".into()]) == Ok(list(["milk".into()]))
        });
        alice.put("@notes", "tea");
        let mut here = User::connect(&self.home, ALICE);
        wait_until("what is written there comes home", || {
            here.call("keys", &["@notes".into()]) == Ok(list(["milk".into(), "tea".into()]))
        });
        wait_until("nothing is left that is not believed", || {
            field(&mesh::peer(new, "home"), "directory") == Some(&Value::Nil)
        });
        let lost = mappings(&self.home).into_iter().filter(|(node, _)| node == "office");
        let own = mappings(new).into_iter().filter(|(node, _)| node == "office");
        assert_eq!(lost.collect::<Vec<_>>(), own.collect::<Vec<_>>());
    }
}

/// holds M5, I1, N2: word for word as cortex-mesh(7) says, Removed and Replaced.
#[test]
fn people_are_themselves_on_a_machine_that_replaces_a_revoked_one_under_another_name() {
    let mut lost = before_the_loss();
    lost.remove();
    lost.revoke();
    lost.replace("cabin");
    lost.assert_all_is_there();
}

/// holds M5, I1, I3, N2
#[test]
fn people_are_themselves_on_a_machine_that_replaces_a_revoked_one_under_its_name() {
    let mut lost = before_the_loss();
    lost.revoke();
    lost.remove();
    lost.replace("office");
    let new = lost.new.as_ref().expect("it was replaced");
    let again = [lost.token_of_bob.as_str().into()];
    let again = User::connect(new, BOB_THERE).call("identity_claim", &again);
    assert_eq!(again, refused("token_already_used"), "the disk is new, the token is not");
    lost.assert_all_is_there();
}

/// holds M5
#[test]
fn a_machine_that_was_revoked_and_not_removed_leaves_what_it_had_signed() {
    let mut lost = before_the_loss();
    lost.revoke();
    lost.replace("cabin");
    lost.assert_all_is_there();
}

/// holds M5
#[test]
fn a_machine_that_was_removed_and_not_revoked_is_replaced_under_its_name() {
    let mut lost = before_the_loss();
    lost.remove();
    lost.replace("office");
    lost.assert_all_is_there();
}

/// holds M5, R6: a second machine of a name is not let in while the first is a member, and takes nothing
/// away from it.
#[test]
fn an_empty_machine_under_the_name_of_a_member_is_held_off_and_both_sides_say_why() {
    let mut mesh = Mesh::with_alice();
    let mut there = User::connect(&mesh.office, ALICE_THERE);
    there.create("@notes");
    there.put("@notes", "milk");
    assert_eq!(mesh.office.stop().code(), Some(0));
    let nodes = [("home", mesh.ports[0]), ("office", mesh.ports[1])];
    let second = for_all(&mesh.ca.settings("office", mesh.ports[1], &nodes));
    let why = "another database already uses its name";
    wait_until("it is told why", || {
        let error = field(&mesh::peer(&second, "home"), "last_error").cloned();
        error.is_some_and(|error| error.to_string().contains(why))
    });
    assert!(mesh::refused(&mesh.home, "name_taken") > 0);
    let doctor = second.cortex(&["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains(why) && doctor.contains("mesh remove-node office"), "{doctor}");
    let doctor = mesh.home.cortex(&["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains(why) && doctor.contains("office"), "{doctor}");
    drop(second);
    mesh.office.restart();
    mesh.wait_for_link();
    let mut there = User::connect(&mesh.office, ALICE_THERE);
    there.may("keys", &["@notes".into()], list(["milk".into()]));
    there.put("@notes", "tea");
    let mut here = User::connect(&mesh.home, ALICE);
    wait_until("the first one goes on", || {
        here.call("keys", &["@notes".into()]) == Ok(list(["milk".into(), "tea".into()]))
    });
}
