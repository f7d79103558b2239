//! Tables of others on the bus: handed over, and kept away from this machine, by root or by whom polkit authorises.

use std::collections::HashMap;

use zbus::{Connection, OwnedObjectPath, Variant};

use crate::bus::daemon::Daemon;
use crate::bus::mesh::{self, free_port};
use crate::bus::private_bus::{
    MANAGER, NAME, OnBus, PrivateBus, ROOT, TABLE, error_name, object, wait_for_name, wait_until,
};
use crate::bus::rpc::{list, map};
use crate::bus::user::{User, daemon_for_all};
use crate::bus::{Authority, DENIED, GUEST, Outcome, Says, call, create, manager, question};

/// Somebody with an account on office alone.
const ALICE: u32 = 20_001;

const ACTION: &str = "manage-tables";
const INVALID: &str = "org.freedesktop.DBus.Error.InvalidArgs";
const ACCESS_DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";

type Options = HashMap<&'static str, Variant<'static>>;

fn none() -> Options {
    HashMap::new()
}

/// Asks the daemon as root for the object of a table.
async fn get(connection: &Connection, name: &str) -> zbus::Result<OwnedObjectPath> {
    let manager = object(connection, ROOT, MANAGER).await;
    manager.call("GetTable", &(name, none())).await
}

/// holds D2, K5
#[tokio::test]
async fn a_table_is_handed_over_by_root_or_by_whom_polkit_authorises() {
    let (bus, daemon, connection) = OnBus::with_bus().await;
    let (polkit, _polkit) = Authority::on(&bus).await;
    let path = create(&connection, "secrets").await;
    let made = manager(&bus, &["CreateTable", "sasa{sv}", "own", "1", "id", "0"]).await;
    let own = made.expect("a table").trim_start_matches("o ").trim_matches('"').to_owned();
    let chown = async |path: &str, owner: &str, options: &[&str]| -> Outcome {
        call(&bus, path, TABLE, &[&["Chown", "sa{sv}", owner], options].concat()).await
    };
    for says in [Says::No, Says::Error, Says::Challenge] {
        polkit.say(says);
        assert_eq!(chown(&path, "uid:7", &["0"]).await, Err(DENIED.to_owned()), "{says:?}");
        let foisted = chown(&own, "uid:7", &["0"]).await;
        assert_eq!(foisted, Err(DENIED.to_owned()), "nobody is given what they did not ask for");
        assert_eq!(polkit.asked(), vec![question(ACTION, true); 2]);
    }
    assert_eq!(daemon.cortex(&["tables"]).trim(), r#"["secrets"]"#);

    polkit.say(Says::Yes);
    let renamed = chown(&path, "uid:7", &["1", "name", "s", "of_root"]).await;
    assert_eq!(renamed, Ok(String::new()));
    assert_eq!(polkit.asked(), [question(ACTION, true)]);
    assert_eq!(daemon.cortex(&["tables"]).trim(), "[]");
    wait_until("its object stands for it under its new name", async || {
        get(&connection, "7:of_root").await.is_ok_and(|found| found == path)
    })
    .await;
    let table = object(&connection, path.as_str(), TABLE).await;
    wait_until("it shows whose it is", async || {
        table.get_property::<String>("Owner").await.is_ok_and(|owner| owner == "uid:7")
    })
    .await;

    // Root needs nobody's leave.
    let chown = async |owner: &str, options: Options| {
        table.call::<_, _, ()>("Chown", &(owner, options)).await
    };
    let name = |name: &'static str| HashMap::from([("name", Variant::from(name))]);
    let taken = chown(&format!("uid:{GUEST}"), name("own")).await;
    assert_eq!(error_name(taken), "org.cortexd.Cortex1.Error.AlreadyExists");
    assert_eq!(error_name(chown("*", none()).await), INVALID);
    assert_eq!(error_name(chown("uid:0", name("a b")).await), INVALID);
    let unknown = HashMap::from([("colour", Variant::from("red"))]);
    assert_eq!(error_name(chown("uid:0", unknown).await), INVALID);
    assert_eq!(polkit.asked(), []);
    let () = chown("uid:0", name("again")).await.expect("root may");
    assert_eq!(daemon.cortex(&["tables"]).trim(), r#"["again"]"#);
}

/// Home on a bus, and office, where alice has a table that both hold.
struct Scene {
    bus: PrivateBus,
    home: OnBus,
    office: Daemon,
    connection: Connection,
    _ca: mesh::Authority,
}

const ITS_NAME: &str = "@alice:notes";

impl Scene {
    async fn new() -> Self {
        let (ca, ports) = (mesh::Authority::new(), [free_port(), free_port()]);
        let nodes = [("home", ports[0]), ("office", ports[1])];
        ca.issue("home");
        ca.issue("office");
        let bus = PrivateBus::start();
        let home = OnBus::in_mesh(&bus, &ca.settings("home", ports[0], &nodes));
        let office = daemon_for_all(&ca.settings("office", ports[1], &nodes));
        let connection = bus.connect().await;
        wait_for_name(&connection, NAME).await;
        let wish = map([("uid", ALICE.into())]);
        office.connect().call("identity_register", &["alice".into(), wish]).expect("registered");
        let mut alice = User::connect(&office, ALICE);
        alice.may("create_table", &["@notes".into(), list(["id".into()])], "created");
        alice.put("@notes", "milk");
        let scene = Self { bus, home, office, connection, _ca: ca };
        scene.wait_for_table().await;
        scene
    }

    /// The object of the table on home, once home has it.
    async fn wait_for_table(&self) -> OwnedObjectPath {
        let mut path = None;
        wait_until("home has the table", async || {
            path = get(&self.connection, ITS_NAME).await.ok();
            path.is_some()
        })
        .await;
        path.expect("it is there")
    }
}

/// holds D2, S4, V4: root of a machine where the owner has no account decides about its own disk, by the bus too.
#[tokio::test]
async fn a_replica_is_kept_away_and_taken_back_by_root_or_by_whom_polkit_authorises() {
    let scene = Scene::new().await;
    let (bus, connection) = (&scene.bus, &scene.connection);
    let (polkit, _polkit) = Authority::on(bus).await;
    let path = scene.wait_for_table().await;
    let replica = ["Drop", "a{sv}", "1", "replica", "b", "true"];
    let restore = async |name: &str| manager(bus, &["RestoreReplica", "sa{sv}", name, "0"]).await;
    for says in [Says::No, Says::Error, Says::Challenge] {
        polkit.say(says);
        let refused = call(bus, &path, TABLE, &replica).await;
        assert_eq!(refused, Err(DENIED.to_owned()), "{says:?}");
        for name in [ITS_NAME, "@alice:nothing"] {
            assert_eq!(restore(name).await, Err(DENIED.to_owned()), "{says:?}, {name}");
        }
        assert_eq!(polkit.asked(), vec![question(ACTION, true); 3]);
    }

    // What polkit lends are the rights of this machine's root, who decides about no more than this machine.
    polkit.say(Says::Yes);
    for beyond in [
        ["Drop", "a{sv}", "0"].as_slice(),
        &["Drop", "a{sv}", "1", "replica", "b", "false"],
        &["Grant", "sasa{sv}", "uid:7", "1", "read", "0"],
        &["SetScope", "sa{sv}", "all", "0"],
        &["Chown", "sa{sv}", "uid:7", "0"],
    ] {
        let refused = call(bus, &path, TABLE, beyond).await;
        assert_eq!(refused, Err(DENIED.to_owned()), "it is there, and not theirs: {beyond:?}");
    }
    polkit.asked();
    assert_eq!(call(bus, &path, TABLE, &replica).await, Ok(String::new()));
    assert_eq!(polkit.asked(), [question(ACTION, true)]);
    let table = object(connection, &path, TABLE).await;
    let unknown = "org.freedesktop.DBus.Error.UnknownObject";
    wait_until("its object is gone with it", async || {
        let outcome = table.get_property::<String>("Name").await;
        outcome.is_err() && error_name(outcome) == unknown
    })
    .await;
    let mut alice = User::connect(&scene.office, ALICE);
    alice.may("keys", &["@notes".into()], list(["milk".into()]));
    alice.put("@notes", "tea");

    assert_eq!(restore(ITS_NAME).await, Ok(String::new()));
    assert_eq!(polkit.asked(), [question(ACTION, true)]);
    scene.wait_for_table().await;
    wait_until("it comes back whole", async || {
        let keys = scene.home.run_cortex(&["keys", ITS_NAME]);
        keys.stdout.trim_ascii() == br#"["milk","tea"]"#
    })
    .await;
    assert_eq!(restore("@alice:nothing").await, Err("no such table".to_owned()));
}

/// holds D2
#[tokio::test]
async fn root_keeps_a_replica_away_and_an_option_of_another_type_is_refused() {
    let scene = Scene::new().await;
    let path = scene.wait_for_table().await;
    let table = object(&scene.connection, &path, TABLE).await;
    let manager = object(&scene.connection, ROOT, MANAGER).await;
    let drop = async |options: Options| table.call::<_, _, ()>("Drop", &(options,)).await;
    let text = HashMap::from([("replica", Variant::from("yes"))]);
    assert_eq!(error_name(drop(text).await), INVALID);
    let undo = HashMap::from([("undo", Variant::from(true))]);
    assert_eq!(error_name(drop(undo).await), INVALID, "it has a method of its own");
    assert_eq!(error_name(drop(none()).await), ACCESS_DENIED, "alice has no account here");
    let () = drop(HashMap::from([("replica", Variant::from(true))])).await.expect("root may");
    let unknown = HashMap::from([("colour", Variant::from("red"))]);
    let refused = manager.call::<_, _, ()>("RestoreReplica", &(ITS_NAME, unknown)).await;
    assert_eq!(error_name(refused), INVALID);
    let absent = manager.call::<_, _, ()>("RestoreReplica", &("@alice:nothing", none())).await;
    assert_eq!(error_name(absent), "org.cortexd.Cortex1.Error.NoSuchTable");
    let () =
        manager.call("RestoreReplica", &(ITS_NAME, none())).await.expect("root may take it back");
    scene.wait_for_table().await;
}

/// holds D2: a node that runs alone has no replicas to keep away.
#[tokio::test]
async fn without_a_mesh_no_replica_is_kept_away() {
    let (_bus, _daemon, connection) = OnBus::with_bus().await;
    let path = create(&connection, "secrets").await;
    let table = object(&connection, &path, TABLE).await;
    let manager = object(&connection, ROOT, MANAGER).await;
    let replica: Options = HashMap::from([("replica", Variant::from(true))]);
    let no_mesh = "org.cortexd.Cortex1.Error.MeshNotConfigured";
    assert_eq!(error_name(table.call::<_, _, ()>("Drop", &(replica,)).await), no_mesh);
    let restored = manager.call::<_, _, ()>("RestoreReplica", &("secrets", none())).await;
    assert_eq!(error_name(restored), no_mesh);
}
