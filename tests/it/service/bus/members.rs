//! The daemon of a mesh on a message bus: the other nodes, who is who on them, and what is signalled of both.

use std::collections::HashMap;

use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant};

use crate::service::bus::daemon::Daemon;
use crate::service::bus::mesh::{Authority, free_port, is_connected};
use crate::service::bus::private_bus::{
    MANAGER, NAME, OnBus, PrivateBus, ROOT, TABLE, error_name, object, wait_for_name, wait_until,
};
use crate::service::bus::rpc::map;
use crate::service::bus::{
    Dict, Managed, assert_is_described, create, next_signal, options, signals,
};

const NODE: &str = "org.cortexd.Cortex1.Node";
const IDENTITY: &str = "org.cortexd.Cortex1.Identity";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A daemon on a bus, in a mesh with a node that does not run yet.
struct Home {
    ca: Authority,
    ports: [u16; 2],
    daemon: OnBus,
    connection: Connection,
    _bus: PrivateBus,
}

const OFFICE: &str = "office-1";
const ITS_PATH: &str = "/org/cortexd/Cortex1/node/office_2d1";

impl Home {
    async fn start() -> Self {
        let (ca, ports) = (Authority::new(), [free_port(), free_port()]);
        ca.issue("home");
        ca.issue(OFFICE);
        let bus = PrivateBus::start();
        let nodes = [("home", ports[0]), (OFFICE, ports[1])];
        let daemon = OnBus::in_mesh(&bus, &ca.settings("home", ports[0], &nodes));
        let connection = bus.connect().await;
        wait_for_name(&connection, NAME).await;
        Self { ca, ports, daemon, connection, _bus: bus }
    }

    fn start_office(&self) -> Daemon {
        let nodes = [("home", self.ports[0]), (OFFICE, self.ports[1])];
        Daemon::with_config(&self.ca.settings(OFFICE, self.ports[1], &nodes))
    }

    async fn managed(&self) -> Managed {
        let objects = object(&self.connection, ROOT, "org.freedesktop.DBus.ObjectManager").await;
        objects.call("GetManagedObjects", &()).await.expect("the objects")
    }

    async fn all_of(&self, path: &str, interface: &str) -> Dict {
        let object = object(&self.connection, path, PROPERTIES).await;
        object.call("GetAll", &(interface,)).await.expect("its properties")
    }
}

fn text(value: &OwnedVariant) -> &str {
    value.try_into().expect("a string")
}

/// A name that the user of this test may register, with the options for it: root is nobody, and says whose.
fn own_name() -> (String, u32, HashMap<&'static str, Variant<'static>>) {
    let own = nix::unistd::geteuid();
    let uid = if own.is_root() { 12_345 } else { own.as_raw() };
    let login = nix::unistd::User::from_uid(own).expect("the users can be read");
    let name = match login {
        Some(user) if !own.is_root() => user.name,
        _ => "alice".to_owned(),
    };
    (name, uid, HashMap::from([("uid", Variant::from(uid))]))
}

/// holds D2, M4
#[tokio::test]
async fn another_node_has_an_object_that_shows_and_signals_its_state() {
    let home = Home::start().await;
    let manager = object(&home.connection, ROOT, MANAGER).await;
    let nodes: Vec<(String, OwnedObjectPath)> =
        manager.call("ListNodes", &(options(),)).await.expect("the nodes");
    let path = OwnedObjectPath::try_from(ITS_PATH).expect("a path");
    assert_eq!(nodes, [(OFFICE.to_owned(), path.clone())], "itself is left out");
    assert_is_described(&home.connection, ITS_PATH, NODE).await;

    let node = object(&home.connection, ITS_PATH, NODE).await;
    assert_eq!(node.get_property::<String>("Name").await.expect("a name"), OFFICE);
    assert_eq!(node.get_property::<String>("State").await.expect("a state"), "unseen");
    assert_eq!(node.get_property::<u16>("Port").await.expect("a port"), home.ports[1]);
    assert_eq!(node.get_property::<u64>("RoundTripUs").await.expect("none yet"), 0);

    let mut changes = signals(&home.connection).await;
    let mut states = signals(&home.connection).await;
    let office = home.start_office();
    let told = next_signal(&mut states, "NodeStateChanged").await;
    let told: (String, String) = told.body().deserialize().expect("a node and its state");
    assert_eq!(told, (OFFICE.to_owned(), "alive".to_owned()));
    let mut seen = Dict::new();
    while !(seen.contains_key("State") && seen.contains_key("Connected")) {
        let changed = next_signal(&mut changes, "PropertiesChanged").await;
        assert_eq!(changed.header().path().map(zbus::ObjectPath::as_str), Some(ITS_PATH));
        let (interface, news, _): (String, Dict, Vec<String>) =
            changed.body().deserialize().expect("what has changed");
        assert_eq!(interface, NODE);
        assert!(!news.contains_key("RoundTripUs"), "it changes with every heartbeat: {news:?}");
        seen.extend(news);
    }
    assert_eq!((text(&seen["State"]), bool::try_from(&seen["Connected"])), ("alive", Ok(true)));
    let signalled = |mut dict: Dict| {
        dict.retain(|name, _| !["RoundTripUs", "ClockOffsetMs"].contains(&name.as_str()));
        dict
    };
    let managed = home.managed().await[&path][NODE].clone();
    let all = home.all_of(ITS_PATH, NODE).await;
    assert_eq!(signalled(all), signalled(managed), "one by one and all at once");
    let status: Dict = manager.call("MeshStatus", &(options(),)).await.expect("the mesh");
    assert_eq!(text(&status["node"]), "home");
    assert!(status.contains_key("matrix") && status.contains_key("refused"), "{status:?}");

    drop(office);
    wait_until("the link is down", async || {
        !node.get_property::<bool>("Connected").await.expect("an answer")
    })
    .await;
    home.daemon.write_mesh(&home.ca.settings("home", home.ports[0], &[]));
    let () = manager.call("Reload", &(options(),)).await.expect("read");
    let removed = next_signal(&mut changes, "InterfacesRemoved").await;
    let (gone, interfaces): (OwnedObjectPath, Vec<String>) =
        removed.body().deserialize().expect("what was removed");
    assert_eq!((gone, interfaces), (path, vec![NODE.to_owned()]));
}

/// holds D2, I2, I4
#[tokio::test]
async fn an_identity_has_an_object_from_its_registration_to_its_end() {
    let home = Home::start().await;
    let manager = object(&home.connection, ROOT, MANAGER).await;
    let mut signals = signals(&home.connection).await;
    let (name, uid, wish) = own_name();
    let (token, path, expires): (String, OwnedObjectPath, u64) =
        manager.call("RegisterIdentity", &(&name, wish)).await.expect("registered");
    assert!(token.contains('.') && expires > 0, "{token} until {expires}");
    let added = next_signal(&mut signals, "InterfacesAdded").await;
    let (added, interfaces): (OwnedObjectPath, HashMap<String, Dict>) =
        added.body().deserialize().expect("what was added");
    assert_eq!(added, path);
    assert_eq!(text(&interfaces[IDENTITY]["Name"]), name);
    assert_is_described(&home.connection, path.as_str(), IDENTITY).await;

    let all = home.all_of(path.as_str(), IDENTITY).await;
    assert_eq!(all, home.managed().await[&path][IDENTITY], "one by one and all at once");
    let mappings: HashMap<String, u32> = all["Mappings"].clone().try_into().expect("a map of uids");
    assert_eq!(mappings, HashMap::from([("home".to_owned(), uid)]));
    assert_eq!((text(&all["Home"]), bool::try_from(&all["Contested"])), ("home", Ok(false)));
    assert_eq!(path.as_str(), format!("{ROOT}/identity/{}", text(&all["Id"])));
    let found = (path.clone(), all);
    let looked_up: (OwnedObjectPath, Dict) =
        manager.call("LookupIdentity", &(&name, options())).await.expect("it is known");
    assert_eq!(looked_up, found);
    let looked_up: (OwnedObjectPath, Dict) =
        manager.call("LookupUid", &("home", uid, options())).await.expect("it is known");
    assert_eq!(looked_up, found);
    let listed: Vec<(String, OwnedObjectPath)> =
        manager.call("ListIdentities", &(options(),)).await.expect("all");
    assert_eq!(listed, [(name.clone(), path.clone())]);

    let identity = object(&home.connection, path.as_str(), IDENTITY).await;
    let another: (String, u64) =
        identity.call("CreateToken", &(options(),)).await.expect("another token");
    assert_ne!(another.0, token);
    let taken = manager
        .call::<_, _, (String, OwnedObjectPath, u64)>("RegisterIdentity", &(&name, own_name().2))
        .await;
    assert_eq!(error_name(taken), "org.cortexd.Cortex1.Error.IdentityTaken");
    let garbage = manager.call::<_, _, OwnedObjectPath>("ClaimIdentity", &("x", options())).await;
    assert_eq!(error_name(garbage), "org.freedesktop.DBus.Error.InvalidArgs");

    let () = identity.call("Revoke", &("", options())).await.expect("revoked");
    let removed = next_signal(&mut signals, "InterfacesRemoved").await;
    let (gone, interfaces): (OwnedObjectPath, Vec<String>) =
        removed.body().deserialize().expect("what was removed");
    assert_eq!((gone, interfaces), (path, vec![IDENTITY.to_owned()]));
    let unknown =
        manager.call::<_, _, (OwnedObjectPath, Dict)>("LookupIdentity", &(&name, options())).await;
    assert_eq!(error_name(unknown), "org.cortexd.Cortex1.Error.UnknownIdentity");
}

/// holds D2, S3
#[tokio::test]
async fn the_scope_of_a_table_is_set_on_its_object() {
    let home = Home::start().await;
    let path = create(&home.connection, "notes").await;
    let table = object(&home.connection, path.as_str(), TABLE).await;
    let mut signals = signals(&home.connection).await;
    let () = table.call("SetScope", &("all", options())).await.expect("set");
    assert_eq!(table.get_property::<String>("Scope").await.expect("a scope"), "all");
    let changed = next_signal(&mut signals, "PropertiesChanged").await;
    let (_, news, invalidated): (String, Dict, Vec<String>) =
        changed.body().deserialize().expect("what has changed");
    assert_eq!((news, invalidated), (Dict::new(), vec!["Scope".to_owned()]));
    let unknown = table.call::<_, _, ()>("SetScope", &("nowhere", options())).await;
    assert_eq!(error_name(unknown), "org.freedesktop.DBus.Error.InvalidArgs");
}

/// holds D2, R4
#[tokio::test]
async fn a_conflict_is_signalled_on_its_table_without_saying_which() {
    let home = Home::start().await;
    let manager = object(&home.connection, ROOT, MANAGER).await;
    let path = create(&home.connection, "notes").await;
    let table = object(&home.connection, path.as_str(), TABLE).await;
    let () = table.call("SetScope", &("all", options())).await.expect("set");
    home.daemon.cortex(&["acl", "grant", "*", "notes", "read,write"]);
    home.daemon.cortex(&["put", "notes", r#"{"id": 1, "name": "first"}"#]);
    let office = home.start_office();
    let there = format!("{}@home:notes", nix::unistd::geteuid());
    wait_until("office has the row", async || {
        office.connect().call("get", &[there.as_str().into(), 1.into()]).is_ok()
    })
    .await;

    home.daemon.write_mesh(&home.ca.settings("home", home.ports[0], &[]));
    let () = manager.call("Reload", &(options(),)).await.expect("read");
    wait_until("they are apart", async || !is_connected(&office, "home")).await;
    home.daemon.cortex(&["put", "notes", r#"{"id": 1, "name": "of home"}"#]);
    let of_office = map([("id", 1.into()), ("name", "of office".into())]);
    let stored = office.connect().call("put", &[there.as_str().into(), of_office]);
    assert_eq!(stored, Ok("ok".into()));
    // A replica that is to leave is read, and reads no more: so it is home where the two meet.
    let () = table.call("SetScope", &("home", options())).await.expect("set");
    let mut signals = signals(&home.connection).await;
    let nodes = [("home", home.ports[0]), (OFFICE, home.ports[1])];
    home.daemon.write_mesh(&home.ca.settings("home", home.ports[0], &nodes));
    let () = manager.call("Reload", &(options(),)).await.expect("read");

    let found = next_signal(&mut signals, "ConflictFound").await;
    assert_eq!(found.header().path().map(zbus::ObjectPath::as_str), Some(path.as_str()));
    assert_eq!(found.body().signature().to_string(), "", "everybody receives it");
    assert_eq!(table.get_property::<u64>("Conflicts").await.expect("a count"), 1);
    let info: Dict = table.call("Info", &(options(),)).await.expect("its data");
    let by_node: HashMap<String, u64> =
        info["conflicts_by_node"].clone().try_into().expect("a map of counts");
    assert_eq!(by_node.get("home"), Some(&1), "{by_node:?}");
}

/// holds D2, R5: whatever word there is for a node or a replica, both interfaces use it.
#[tokio::test]
async fn the_words_of_the_bus_are_those_of_the_command_line() {
    let home = Home::start().await;
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&home.daemon.cortex(arguments)).expect("JSON")
    };
    let by_command = || {
        let status = json(&["mesh", "status"]);
        let office = &status["peers"][0];
        let word = |name: &str| office[name].as_str().unwrap_or_default().to_owned();
        (word("state"), office["connected"] == true, word("last_error"))
    };
    let by_bus = async || {
        let node = home.all_of(ITS_PATH, NODE).await;
        let connected: bool = node["Connected"].clone().try_into().expect("a boolean");
        (text(&node["State"]).to_owned(), connected, text(&node["LastError"]).to_owned())
    };
    // Between the two questions it may change: then both are asked again.
    let agree_on = async |state: &str, connected: bool, error: &str| {
        wait_until(state, async || {
            let (one, other) = (by_command(), by_bus().await);
            one == other && one.0 == state && one.1 == connected && one.2.contains(error)
        })
        .await;
    };
    agree_on("unseen", false, "refused").await;
    let office = home.start_office();
    agree_on("alive", true, "").await;

    let path = create(&home.connection, "notes").await;
    let table = object(&home.connection, path.as_str(), TABLE).await;
    let () = table.call("SetScope", &("all", options())).await.expect("set");
    let info: Dict = table.call("Info", &(options(),)).await.expect("its data");
    assert_eq!(text(&info["state"]), "ready");
    assert_eq!(json(&["tables", "--long"])[0]["state"], "ready");

    office.process().signal(nix::sys::signal::Signal::SIGSTOP);
    agree_on("suspect", true, "").await;
    agree_on("dead", false, "").await;
}

/// holds M1
#[tokio::test]
async fn a_node_that_runs_alone_says_so_and_shows_nobody() {
    type Listed = Vec<(String, OwnedObjectPath)>;
    let (_bus, _daemon, connection) = OnBus::with_bus().await;
    let manager = object(&connection, ROOT, MANAGER).await;
    let alone = "org.cortexd.Cortex1.Error.MeshNotConfigured";
    let nodes = manager.call::<_, _, Listed>("ListNodes", &(options(),)).await;
    assert_eq!(error_name(nodes), alone);
    let identities = manager.call::<_, _, Listed>("ListIdentities", &(options(),)).await;
    assert_eq!(identities.expect("one machine knows that there are none"), []);
    let objects = object(&connection, ROOT, "org.freedesktop.DBus.ObjectManager").await;
    let managed: Managed = objects.call("GetManagedObjects", &()).await.expect("the objects");
    assert!(managed.is_empty(), "{managed:?}");
}
