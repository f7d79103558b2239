//! The daemon on a message bus with callers who are not its administrator: whose rights count, and what polkit may add.
//! Leaves the objects themselves to `bus`. Needs root, to be somebody else: sudo -E cargo test --test root bus::

mod tables;

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use private_bus::{MANAGER, NAME, OnBus, PrivateBus, ROOT, TABLE, object, wait_for_name};
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant, interface};

use crate::{
    support::{daemon, mesh, private_bus, rpc},
    user,
};

/// Somebody who owns nothing and administers nothing.
const GUEST: u32 = 65_534;

const DENIED: &str = "Access denied";
const INTERACTIVE: &str = "authentication is required";

/// What the stand-in for polkit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Yes,
    No,
    Challenge,
    Error,
}

/// A question that was put to it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    action: String,
    by_bus_name: bool,
    may_ask: bool,
}

/// A stand-in for polkit on a private bus.
#[derive(Clone, Debug)]
struct Authority {
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<Question>>>,
}

#[interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Authority {
    #[expect(
        clippy::type_complexity,
        clippy::needless_pass_by_value,
        reason = "polkit's own signature, and zbus hands over what it has decoded"
    )]
    fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action: &str,
        details: HashMap<String, String>,
        flags: u32,
        _cancellation: &str,
    ) -> zbus::fdo::Result<((bool, bool, HashMap<String, String>),)> {
        assert!(details.is_empty(), "a dialogue would show {details:?}");
        let named = subject
            .1
            .get("name")
            .is_some_and(|name| <&str>::try_from(name).is_ok_and(|name| name.starts_with(':')));
        self.asked.lock().expect("no panic").push(Question {
            action: action.to_owned(),
            by_bus_name: subject.0 == "system-bus-name" && named,
            may_ask: flags & 1 == 1,
        });
        let (yes, challenge) = match *self.says.lock().expect("no panic") {
            Says::Yes => (true, false),
            Says::No => (false, false),
            Says::Challenge => (false, true),
            Says::Error => return Err(zbus::fdo::Error::Failed("not today".into())),
        };
        Ok(((yes, challenge, HashMap::new()),))
    }
}

impl Authority {
    /// Puts a stand-in on the bus.
    async fn on(bus: &PrivateBus) -> (Self, Connection) {
        let authority = Self { says: Arc::new(Mutex::new(Says::No)), asked: Arc::default() };
        let connection = zbus::connection::Builder::address(bus.address().as_str())
            .serve_at("/org/freedesktop/PolicyKit1/Authority", authority.clone())
            .name("org.freedesktop.PolicyKit1")
            .build()
            .await
            .expect("join the bus");
        (authority, connection)
    }

    fn say(&self, says: Says) {
        *self.says.lock().expect("no panic") = says;
    }

    /// What it was asked since it was last looked at.
    fn asked(&self) -> Vec<Question> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

fn question(action: &str, may_ask: bool) -> Question {
    Question { action: format!("org.cortexd.cortex1.{action}"), by_bus_name: true, may_ask }
}

/// A call as somebody else: the printed answer, or the printed error.
type Outcome = Result<String, String>;

/// Calls the daemon as the guest. It goes on meanwhile, and so does the stand-in for polkit.
async fn guest(bus: &PrivateBus, arguments: &[&str]) -> Outcome {
    let mut command = Command::new("busctl");
    command
        .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
        .args(arguments)
        .stdin(Stdio::null())
        .uid(GUEST)
        .gid(GUEST);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("run busctl, which these tests need: apt-get install systemd");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let error = text(&output.stderr);
    // The name decides what is printed of an error: of the well-known ones their own text.
    Err(error.strip_prefix("Call failed: ").unwrap_or(&error).to_owned())
}

async fn call(bus: &PrivateBus, path: &str, interface: &str, call: &[&str]) -> Outcome {
    let whole = [&["call", NAME, path, interface], call].concat();
    guest(bus, &whole).await
}

async fn manager(bus: &PrivateBus, method: &[&str]) -> Outcome {
    call(bus, ROOT, MANAGER, method).await
}

/// Everything that only an administrator may do, or the owner of `table`, with its action.
async fn everything(bus: &PrivateBus, table: &str, name: &str) -> Vec<(&'static str, Outcome)> {
    let on_table = async |method: &[&str]| call(bus, table, TABLE, method).await;
    vec![
        ("manage", manager(bus, &["Reload", "a{sv}", "0"]).await),
        ("manage", manager(bus, &["Checkpoint", "a{sv}", "0"]).await),
        ("backup", manager(bus, &["Backup", "sa{sv}", name, "0"]).await),
        ("manage-tables", manager(bus, &["GetTable", "sa{sv}", "0:secrets", "0"]).await),
        ("manage-tables", on_table(&["Info", "a{sv}", "0"]).await),
        ("manage-tables", on_table(&["Grant", "sasa{sv}", "uid:7", "1", "read", "0"]).await),
        ("manage-tables", on_table(&["Revoke", "sasa{sv}", "uid:7", "1", "read", "0"]).await),
        ("manage-tables", on_table(&["Drop", "a{sv}", "0"]).await),
    ]
}

/// Makes a table of root's on the bus.
async fn create(connection: &Connection, name: &str) -> OwnedObjectPath {
    let manager = object(connection, ROOT, MANAGER).await;
    let none: HashMap<&str, Variant<'_>> = HashMap::new();
    manager.call("CreateTable", &(name, vec!["id"], none)).await.expect("a table")
}

/// holds D2
#[tokio::test]
async fn without_polkit_only_root_manages_the_daemon() {
    let (bus, daemon, connection) = OnBus::with_bus().await;
    let table = create(&connection, "secrets").await;
    for (action, outcome) in everything(&bus, table.as_str(), "monday").await {
        assert_eq!(outcome, Err(DENIED.to_owned()), "{action}");
    }
    assert_eq!(daemon.log().matches("there is no polkit").count(), 1, "{}", daemon.log());
    assert_eq!(daemon.cortex(&["tables"]).trim(), r#"["secrets"]"#);
    assert!(!daemon.data_dir().join("backups").exists());
    let manager = object(&connection, ROOT, MANAGER).await;
    let none: HashMap<&str, Variant<'_>> = HashMap::new();
    let () = manager.call("Reload", &(none,)).await.expect("root may");
}

/// holds D2
#[tokio::test]
async fn whom_polkit_authorises_does_what_root_does() {
    let (bus, daemon, connection) = OnBus::with_bus().await;
    let (polkit, _polkit) = Authority::on(&bus).await;
    polkit.say(Says::Yes);
    let table = create(&connection, "secrets").await;
    let outcomes = everything(&bus, table.as_str(), "monday").await;
    let expected: Vec<_> = outcomes.iter().map(|(action, _)| question(action, true)).collect();
    for (action, outcome) in &outcomes {
        assert!(outcome.is_ok(), "{action}: {outcome:?}");
    }
    assert_eq!(outcomes[3].1, Ok(format!("o \"{table}\"")), "the table that was asked for");
    assert_eq!(polkit.asked(), expected);
    assert_eq!(daemon.cortex(&["tables"]).trim(), "[]", "dropped");
    assert!(daemon.log().contains("polkit has authorised"), "{}", daemon.log());
    // Only who holds every right learns that there is no such table.
    let absent = manager(&bus, &["GetTable", "sa{sv}", "0:secrets", "0"]).await;
    assert_eq!(absent, Err("no such table".to_owned()));
}

/// holds D2
#[tokio::test]
async fn whatever_is_not_a_yes_is_a_no() {
    let (bus, daemon, connection) = OnBus::with_bus().await;
    let (polkit, _polkit) = Authority::on(&bus).await;
    let table = create(&connection, "secrets").await;
    for says in [Says::No, Says::Error, Says::Challenge] {
        polkit.say(says);
        for (action, outcome) in everything(&bus, table.as_str(), "monday").await {
            assert_eq!(outcome, Err(DENIED.to_owned()), "{action}, {says:?}");
        }
        assert_eq!(polkit.asked().len(), 8, "each was asked for");
    }
    assert_eq!(daemon.cortex(&["tables"]).trim(), r#"["secrets"]"#);
}

#[tokio::test]
async fn a_caller_who_may_not_be_asked_learns_that_asking_is_needed() {
    let (bus, _daemon, _connection) = OnBus::with_bus().await;
    let (polkit, _polkit) = Authority::on(&bus).await;
    let reload = async || {
        let quietly = "--allow-interactive-authorization=no";
        guest(&bus, &[quietly, "call", NAME, ROOT, MANAGER, "Reload", "a{sv}", "0"]).await
    };
    polkit.say(Says::Challenge);
    assert_eq!(reload().await, Err(INTERACTIVE.to_owned()));
    polkit.say(Says::No);
    assert_eq!(reload().await, Err(DENIED.to_owned()));
    polkit.say(Says::Yes);
    assert_eq!(reload().await, Ok(String::new()));
    assert_eq!(polkit.asked(), vec![question("manage", false); 3]);
}

#[tokio::test]
async fn for_what_is_their_own_nobody_asks_polkit() {
    let (bus, _daemon, connection) = OnBus::with_bus().await;
    let (polkit, _polkit) = Authority::on(&bus).await;
    let made = manager(&bus, &["CreateTable", "sasa{sv}", "own", "1", "id", "0"]).await;
    let path = made.expect("a table").trim_start_matches("o ").trim_matches('"').to_owned();
    let on_table = async |method: &[&str]| call(&bus, &path, TABLE, method).await;
    let granted = on_table(&["Grant", "sasa{sv}", "uid:7", "1", "read", "0"]).await;
    assert_eq!(granted, Ok(String::new()));
    assert!(on_table(&["Info", "a{sv}", "0"]).await.expect("everything").contains("uid:7"));
    let listed = manager(&bus, &["ListTables", "a{sv}", "0"]).await;
    assert_eq!(listed, Ok(format!("a(so) 1 \"{GUEST}:own\" \"{path}\"")));
    let usage = manager(&bus, &["Usage", "a{sv}", "0"]).await;
    assert_eq!(usage, Ok(format!("a(uttt) 1 {GUEST} 1 0 0")));
    assert_eq!(on_table(&["Drop", "a{sv}", "0"]).await, Ok(String::new()));
    // A slip of the pen is no reason to be asked for a password.
    let absent = manager(&bus, &["GetTable", "sa{sv}", "own", "0"]).await;
    assert_eq!(absent, Err("no such table".to_owned()));

    let table = create(&connection, "of_root").await;
    let table = object(&connection, table.as_str(), TABLE).await;
    let none: HashMap<&str, Variant<'_>> = HashMap::new();
    let () = table.call("Drop", &(none,)).await.expect("root may");
    assert_eq!(polkit.asked(), [], "it was asked all the same");
}

/// holds D2, I2, I4
#[tokio::test]
async fn who_is_who_is_decided_by_whose_it_is_or_by_whom_polkit_authorises() {
    let ca = mesh::Authority::new();
    ca.issue("home");
    let bus = PrivateBus::start();
    let daemon = OnBus::in_mesh(&bus, &ca.settings("home", mesh::free_port(), &[]));
    wait_for_name(&bus.connect().await, NAME).await;
    let (polkit, _polkit) = Authority::on(&bus).await;
    let register = async || manager(&bus, &["RegisterIdentity", "sa{sv}", "alice", "0"]).await;
    for says in [Says::No, Says::Error, Says::Challenge] {
        polkit.say(says);
        let refused = register().await.expect_err("the name is not theirs");
        assert!(refused.starts_with("identity_not_yours"), "{says:?}: {refused}");
        assert_eq!(polkit.asked(), [question("manage-identities", true)]);
    }
    assert_eq!(daemon.cortex(&["identity", "list"]).trim(), "[]");

    polkit.say(Says::Yes);
    let registered = register().await.expect("polkit has authorised it");
    assert!(registered.starts_with("sot "), "{registered}");
    let whose = daemon.cortex(&["identity", "lookup", "alice"]);
    assert!(whose.contains(&format!("\"home\":{GUEST}")), "the guest's, not root's: {whose}");
    let object = |registered: &str| {
        let object = registered.split('"').find(|part| part.starts_with(ROOT)).map(str::to_owned);
        object.expect("a path")
    };
    let (alice, identity) = (object(&registered), "org.cortexd.Cortex1.Identity");
    daemon.cortex(&["identity", "register", "bob", "--uid", "12345"]);
    let found = manager(&bus, &["LookupIdentity", "sa{sv}", "bob", "0"]).await.expect("bob");
    let bob = object(&found);
    polkit.asked();

    polkit.say(Says::No);
    let revoke =
        async |path: &str| call(&bus, path, identity, &["Revoke", "sa{sv}", "", "0"]).await;
    let token = async |path: &str| call(&bus, path, identity, &["CreateToken", "a{sv}", "0"]).await;
    assert_eq!(revoke(&bob).await, Err(DENIED.to_owned()));
    assert_eq!(token(&bob).await, Err(DENIED.to_owned()));
    let keep = async |path: &str| call(&bus, path, identity, &["KeepName", "a{sv}", "0"]).await;
    assert_eq!(keep(&bob).await, Err(DENIED.to_owned()));
    assert_eq!(polkit.asked(), vec![question("manage-identities", true); 3]);
    assert!(token(&alice).await.is_ok_and(|answer| answer.starts_with("st ")));
    assert_eq!(revoke(&alice).await, Ok(String::new()));
    assert_eq!(polkit.asked(), [], "the own identity");
    polkit.say(Says::Yes);
    assert_eq!(keep(&bob).await, Ok(String::new()));
    assert_eq!(revoke(&bob).await, Ok(String::new()));
    assert_eq!(daemon.cortex(&["identity", "list"]).trim(), "[]");
}

/// holds D2
#[tokio::test]
async fn a_node_is_put_out_by_root_or_by_whom_polkit_authorises() {
    let ca = mesh::Authority::new();
    ca.issue("home");
    let bus = PrivateBus::start();
    let _daemon = OnBus::in_mesh(&bus, &ca.settings("home", mesh::free_port(), &[]));
    wait_for_name(&bus.connect().await, NAME).await;
    let (polkit, _polkit) = Authority::on(&bus).await;
    let remove = async || manager(&bus, &["RemoveNode", "sa{sv}", "office", "0"]).await;
    polkit.say(Says::No);
    assert_eq!(remove().await, Err(DENIED.to_owned()));
    polkit.say(Says::Yes);
    assert_eq!(remove().await, Err("unknown node: office".to_owned()), "it was never there");
    assert_eq!(polkit.asked(), vec![question("manage-mesh", true); 2]);
}

/// holds V4
#[tokio::test]
async fn nobody_learns_of_a_table_that_is_not_granted_to_them() {
    let (bus, daemon, connection) = OnBus::with_bus().await;
    let secret = create(&connection, "secrets").await;
    let present = manager(&bus, &["GetTable", "sa{sv}", "0:secrets", "0"]).await;
    let absent = manager(&bus, &["GetTable", "sa{sv}", "0:nothing", "0"]).await;
    assert_eq!((&present, &absent), (&Err(DENIED.to_owned()), &present));

    let objects = "org.freedesktop.DBus.ObjectManager";
    let properties = "org.freedesktop.DBus.Properties";
    let introspectable = "org.freedesktop.DBus.Introspectable";
    for told in [
        manager(&bus, &["ListTables", "a{sv}", "0"]).await,
        manager(&bus, &["Events", "uta{sv}", "0", "0", "0"]).await,
        manager(&bus, &["Usage", "a{sv}", "0"]).await,
        call(&bus, ROOT, objects, &["GetManagedObjects"]).await,
        call(&bus, ROOT, introspectable, &["Introspect"]).await,
        call(&bus, &secret, introspectable, &["Introspect"]).await,
        call(&bus, &secret, properties, &["GetAll", "s", TABLE]).await,
    ] {
        let told = told.expect("an answer");
        assert!(!told.contains("secrets") && !told.contains("0:"), "{told}");
    }
    for property in
        ["Name", "Owner", "KeyField", "Attributes", "Scope", "Records", "Bytes", "Conflicts"]
    {
        let one = call(&bus, &secret, properties, &["Get", "ss", TABLE, property]).await;
        assert_eq!(one, Err(DENIED.to_owned()), "{property}");
    }

    daemon.cortex(&["acl", "grant", &format!("uid:{GUEST}"), "secrets", "read"]);
    let shown = call(&bus, &secret, properties, &["Get", "ss", TABLE, "Name"]).await;
    assert_eq!(shown, Ok("v s \"0:secrets\"".to_owned()), "granted, and known from the sender");
    let found = manager(&bus, &["GetTable", "sa{sv}", "0:secrets", "0"]).await;
    assert_eq!(found, Ok(format!("o \"{secret}\"")));
    let dropped = call(&bus, &secret, TABLE, &["Drop", "a{sv}", "0"]).await;
    assert_eq!(dropped, Err(DENIED.to_owned()), "reading is not dropping");
}

/// holds D1
#[tokio::test]
async fn only_root_changes_the_log_level_and_systemds_way_of_doing_it_works() {
    let (bus, daemon, connection) = OnBus::with_bus().await;
    let (polkit, _polkit) = Authority::on(&bus).await;
    polkit.say(Says::Yes);
    let (path, interface) = ("/org/freedesktop/LogControl1", "org.freedesktop.LogControl1");
    let set = guest(&bus, &["set-property", NAME, path, interface, "LogLevel", "s", "debug"]).await;
    assert!(set.as_ref().is_err_and(|error| error.contains(DENIED)), "{set:?}");
    assert_eq!(polkit.asked(), [], "no lock is held while somebody types a password");

    let log = object(&connection, path, interface).await;
    let level = async || log.get_property::<String>("LogLevel").await.expect("a level");
    assert_eq!(level().await, "info");
    for (set, shown) in
        [("debug", "debug"), ("notice", "info"), ("crit", "err"), ("warning", "warning")]
    {
        log.set_property("LogLevel", set).await.expect(set);
        assert_eq!(level().await, shown, "{set}");
    }
    log.set_property("LogLevel", "debug").await.expect("a level");
    assert!(log.set_property("LogLevel", "loud").await.is_err());
    assert_eq!(level().await, "debug", "a level that there is not changes nothing");
    assert_eq!(log.get_property::<String>("LogTarget").await.expect("a target"), "console");
    assert!(log.set_property("LogTarget", "syslog").await.is_err());
    let identifier: String = log.get_property("SyslogIdentifier").await.expect("an identifier");
    assert_eq!(identifier, "cortexd");
    assert!(!daemon.log().contains("zbus"), "messages are not logged: {}", daemon.log());
}

#[tokio::test]
async fn a_caller_of_one_connection_is_not_taken_for_another() {
    let (bus, _daemon, connection) = OnBus::with_bus().await;
    wait_for_name(&connection, NAME).await;
    // Root's connection is remembered, then a guest's comes, and root's again.
    for _ in 0..3 {
        create_and_drop(&connection).await;
        let reload = manager(&bus, &["Reload", "a{sv}", "0"]).await;
        assert_eq!(reload, Err(DENIED.to_owned()));
    }
}

async fn create_and_drop(connection: &Connection) {
    let table = create(connection, "mine").await;
    let table = object(connection, table.as_str(), TABLE).await;
    let none: HashMap<&str, Variant<'_>> = HashMap::new();
    let () = table.call("Drop", &(none,)).await.expect("root may");
}
