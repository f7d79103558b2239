//! The daemon on a message bus, as any user can run it: its objects, signals, errors, and a bus that comes and goes.
//! Leaves nodes and identities to `bus/members`, callers of other uids, and polkit, to `root_bus`.

mod members;

use std::collections::HashMap;
use std::path::Path;
use std::pin::pin;

use futures_util::StreamExt;
use private_bus::{
    MANAGER, NAME, OnBus, PrivateBus, ROOT, TABLE, error_name, object, soon, wait_for_name,
    wait_until,
};
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, Variant};

use crate::support::{daemon, mesh, private_bus, rpc};

type Dict = HashMap<String, OwnedVariant>;
type Managed = HashMap<OwnedObjectPath, HashMap<String, Dict>>;

fn options() -> HashMap<&'static str, Variant<'static>> {
    HashMap::new()
}

/// Everything that the daemon sends without being asked.
async fn signals(connection: &Connection) -> MessageStream {
    let rule = MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .path_namespace(ROOT)
        .build()
        .expect("a rule");
    MessageStream::for_match_rule(rule, connection, None).await.expect("a stream")
}

/// The next signal of that name.
async fn next_signal(stream: &mut MessageStream, member: &str) -> zbus::Message {
    soon(member, async {
        loop {
            let message = stream.next().await.expect("the bus is there").expect("a message");
            if message.header().member().is_some_and(|found| *found == member) {
                return message;
            }
        }
    })
    .await
}

async fn create(connection: &Connection, name: &str) -> OwnedObjectPath {
    let manager = object(connection, ROOT, MANAGER).await;
    let created = manager.call("CreateTable", &(name, vec!["id", "name"], options())).await;
    created.expect("a table")
}

/// The lines of an interface in a description, without comments.
fn lines_of(interface: &str, xml: &str) -> Vec<String> {
    let begin = format!("<interface name=\"{interface}\">");
    let from = xml.find(&begin).unwrap_or_else(|| panic!("no {interface} in {xml}"));
    let to = from + xml[from..].find("</interface>").expect("its end");
    let mut text = xml[from..to].to_owned();
    while let Some(at) = text.find("<!--") {
        let end = at + text[at..].find("-->").expect("the end of a comment") + "-->".len();
        text.replace_range(at..end, "");
    }
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// holds D2
#[tokio::test]
async fn the_files_of_the_interfaces_are_what_the_daemon_answers() {
    let (_bus, _daemon, connection) = OnBus::with_bus().await;
    let table = create(&connection, "users").await;
    for (path, interface) in [(ROOT, MANAGER), (table.as_str(), TABLE)] {
        assert_is_described(&connection, path, interface).await;
    }
}

/// The file of an interface says what an object answers.
async fn assert_is_described(connection: &Connection, path: &str, interface: &str) {
    let object = object(connection, path, "org.freedesktop.DBus.Introspectable").await;
    let live: String = object.call("Introspect", &()).await.expect("a description");
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("dist/dbus-1/interfaces/{interface}.xml"));
    let file = std::fs::read_to_string(file).expect("the file of the interface");
    let (live, file) = (lines_of(interface, &live), lines_of(interface, &file));
    assert_eq!(live, file, "live on the left");
    let unnamed = |line: &&String| line.starts_with("<arg") && !line.contains("name=");
    assert_eq!(live.iter().find(unnamed), None, "an argument without a name");
}

/// holds D2
#[tokio::test]
async fn a_table_made_on_the_bus_is_the_one_on_the_socket() {
    let (_bus, daemon, connection) = OnBus::with_bus().await;
    let path = create(&connection, "users").await;
    daemon.cortex(&["put", "users", r#"{"id": 1, "name": "ann"}"#]);
    let table = object(&connection, path.as_str(), TABLE).await;
    let own = nix::unistd::geteuid().as_raw();

    let name: String = table.get_property("Name").await.expect("a name");
    assert_eq!(name, format!("{own}:users"));
    assert_eq!(table.get_property::<String>("KeyField").await.expect("a field"), "id");
    assert_eq!(table.get_property::<String>("Scope").await.expect("a scope"), "local");
    assert_eq!(table.get_property::<u64>("Conflicts").await.expect("a count"), 0);
    assert_eq!(table.get_property::<u64>("Records").await.expect("a count"), 1);
    let attributes: Vec<String> = table.get_property("Attributes").await.expect("attributes");
    assert_eq!(attributes, ["id", "name"]);

    let granted: () = table
        .call("Grant", &("uid:12345", vec!["read", "write"], options()))
        .await
        .expect("granted");
    let () = granted;
    let () = table.call("Revoke", &("uid:12345", vec!["write"], options())).await.expect("revoked");
    let info: Dict = table.call("Info", &(options(),)).await.expect("everything");
    let acl: Vec<(String, Vec<String>)> =
        info["acl"].try_clone().expect("a copy").try_into().expect("a list of grants");
    assert_eq!(acl, [("uid:12345".to_owned(), vec!["read".to_owned()])]);
    let shown = daemon.cortex(&["acl", "list"]);
    let granted =
        format!(r#"{{"identity":"uid:12345","table":"{own}:users","permissions":["read"]}}"#);
    assert!(shown.contains(&granted), "{shown}");

    let manager = object(&connection, ROOT, MANAGER).await;
    let found: OwnedObjectPath =
        manager.call("GetTable", &("users", options())).await.expect("the table");
    assert_eq!(found, path);
    let listed: Vec<(String, OwnedObjectPath)> =
        manager.call("ListTables", &(options(),)).await.expect("the tables");
    assert_eq!(listed, [(name, path.clone())]);

    let () = table.call("Drop", &(options(),)).await.expect("dropped");
    assert_eq!(daemon.cortex(&["tables"]).trim(), "[]");
}

#[tokio::test]
async fn what_the_manager_knows_is_what_the_socket_says() {
    let (_bus, daemon, connection) = OnBus::with_bus().await;
    create(&connection, "users").await;
    let manager = object(&connection, ROOT, MANAGER).await;
    let own = nix::unistd::geteuid().as_raw();

    let status: Dict = manager.call("Status", &(options(),)).await.expect("status");
    assert_eq!(<&str>::try_from(&status["status"]), Ok("running"));
    assert_eq!(u64::try_from(&status["tables"]), Ok(1));
    let version: String = manager.get_property("Version").await.expect("a version");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert_eq!(manager.get_property::<u64>("Tables").await.expect("a count"), 1);

    let usage: Vec<(u32, u64, u64, u64)> =
        manager.call("Usage", &(options(),)).await.expect("usage");
    assert_eq!(usage, [(own, 1, 0, 0)]);

    create(&connection, "more").await;
    let newest: Vec<Dict> = manager.call("Events", &(1_u32, 0_u64, options())).await.expect("one");
    let all: Vec<Dict> = manager.call("Events", &(0_u32, 0_u64, options())).await.expect("all");
    assert_eq!((newest.len(), all.len()), (1, 2));
    let text = format!("table {own}:more was created");
    assert_eq!(<&str>::try_from(&newest[0]["text"]), Ok(text.as_str()));
    let last = u64::try_from(&newest[0]["id"]).expect("a number");
    let later: Vec<Dict> = manager.call("Events", &(0_u32, last, options())).await.expect("none");
    assert!(later.is_empty());

    // The user who runs a daemon is its administrator, as on the socket.
    let () = manager.call("Checkpoint", &(options(),)).await.expect("done");
    let () = manager.call("Reload", &(options(),)).await.expect("done");
    daemon.write_config("threads = 2\n");
    let rejected = manager.call::<_, _, ()>("Reload", &(options(),)).await;
    assert_eq!(error_name(rejected), "org.cortexd.Cortex1.Error.ReloadRejected");
}

#[tokio::test]
async fn every_kind_of_refusal_has_its_error() {
    let (_bus, _daemon, connection) = OnBus::with_bus().await;
    let path = create(&connection, "users").await;
    let manager = object(&connection, ROOT, MANAGER).await;
    let invalid = "org.freedesktop.DBus.Error.InvalidArgs";

    let create =
        |name: &'static str, attributes: Vec<&'static str>, scope: Option<&'static str>| {
            let mut options = options();
            options.extend(scope.map(|scope| ("scope", Variant::from(scope))));
            let manager = manager.clone();
            async move {
                let made: zbus::Result<OwnedObjectPath> =
                    manager.call("CreateTable", &(name, attributes, options)).await;
                error_name(made)
            }
        };
    let exists = "org.cortexd.Cortex1.Error.AlreadyExists";
    assert_eq!(create("users", vec!["id"], None).await, exists);
    assert_eq!(create("a b", vec!["id"], None).await, invalid);
    assert_eq!(create("none", vec![], None).await, invalid);
    assert_eq!(create("none", vec!["id", "id"], None).await, invalid);
    let no_mesh = "org.cortexd.Cortex1.Error.MeshNotConfigured";
    assert_eq!(create("none", vec!["id"], Some("all")).await, no_mesh);

    let unknown = HashMap::from([("colour", Variant::from("red"))]);
    let status = manager.call::<_, _, Dict>("Status", &(unknown,)).await;
    assert_eq!(error_name(status), invalid, "an option that nobody knows");

    let table: zbus::Result<OwnedObjectPath> = manager.call("GetTable", &("none", options())).await;
    assert_eq!(error_name(table), "org.cortexd.Cortex1.Error.NoSuchTable", "an own name");

    let job: zbus::Result<OwnedObjectPath> = manager.call("Backup", &("../x", options())).await;
    assert_eq!(error_name(job), invalid);

    let table = object(&connection, path.as_str(), TABLE).await;
    let granted = table.call::<_, _, ()>("Grant", &("bob", vec!["read"], options())).await;
    assert_eq!(error_name(granted), invalid);
    let granted = table.call::<_, _, ()>("Grant", &("*", vec!["reed"], options())).await;
    assert_eq!(error_name(granted), invalid);
    let () = table.call("Drop", &(options(),)).await.expect("dropped");
    let unknown = "org.freedesktop.DBus.Error.UnknownObject";
    assert_eq!(error_name(table.call::<_, _, ()>("Drop", &(options(),)).await), unknown);
}

#[tokio::test]
async fn tables_come_and_go_with_signals_that_say_no_names() {
    let (_bus, daemon, connection) = OnBus::with_bus().await;
    let mut signals = signals(&connection).await;
    daemon.cortex(&["create", "diary", "id"]);
    let added = next_signal(&mut signals, "InterfacesAdded").await;
    let (path, interfaces): (OwnedObjectPath, HashMap<String, Dict>) =
        added.body().deserialize().expect("what was added");
    assert_eq!(interfaces.keys().collect::<Vec<_>>(), [TABLE]);
    assert!(interfaces[TABLE].is_empty(), "a signal goes to everybody: {interfaces:?}");

    let objects = object(&connection, ROOT, "org.freedesktop.DBus.ObjectManager").await;
    let managed: Managed = objects.call("GetManagedObjects", &()).await.expect("the objects");
    let properties = &managed[&path][TABLE];
    let own = format!("{}:diary", nix::unistd::geteuid());
    assert_eq!(<&str>::try_from(&properties["Name"]), Ok(own.as_str()));
    let all = object(&connection, path.as_str(), "org.freedesktop.DBus.Properties").await;
    let all: Dict = all.call("GetAll", &(TABLE,)).await.expect("its properties");
    assert_eq!(&all, properties, "one by one and all at once");

    daemon.cortex(&["drop", "diary", "--yes"]);
    let removed = next_signal(&mut signals, "InterfacesRemoved").await;
    let (gone, interfaces): (OwnedObjectPath, Vec<String>) =
        removed.body().deserialize().expect("what was removed");
    assert_eq!((gone, interfaces), (path, vec![TABLE.to_owned()]));
}

#[tokio::test]
async fn a_name_given_again_is_another_object() {
    let (_bus, daemon, connection) = OnBus::with_bus().await;
    let first = create(&connection, "users").await;
    let old = object(&connection, first.as_str(), TABLE).await;
    daemon.cortex(&["drop", "users", "--yes"]);
    daemon.cortex(&["create", "users", "id"]);
    // Whether or not the old object is still there, it does not stand for the new table.
    let unknown = "org.freedesktop.DBus.Error.UnknownObject";
    assert_eq!(error_name(old.call::<_, _, ()>("Drop", &(options(),)).await), unknown);
    let manager = object(&connection, ROOT, MANAGER).await;
    let second: OwnedObjectPath =
        manager.call("GetTable", &("users", options())).await.expect("the new one");
    assert_ne!(first, second);
}

#[tokio::test]
async fn the_end_of_a_backup_is_announced_after_the_path_of_its_job() {
    let (_bus, daemon, connection) = OnBus::with_bus().await;
    create(&connection, "users").await;
    let manager = object(&connection, ROOT, MANAGER).await;
    let mut signals = signals(&connection).await;
    let mut numbers = Vec::new();
    for expected in ["done", "org.cortexd.Cortex1.Error.AlreadyExists"] {
        let answer = manager.call_method("Backup", &("monday", options())).await.expect("begun");
        let job: OwnedObjectPath = answer.body().deserialize().expect("a job");
        let end = next_signal(&mut signals, "JobRemoved").await;
        assert!(end.recv_position() > answer.recv_position(), "announced before it was known");
        let (id, ended, result): (u32, OwnedObjectPath, String) =
            end.body().deserialize().expect("the end of a job");
        assert_eq!((&ended, result.as_str()), (&job, expected));
        assert_eq!(job.as_str(), format!("{ROOT}/job/{id}"));
        numbers.push(id);
        let gone = object(&connection, job.as_str(), "org.cortexd.Cortex1.Job").await;
        assert_eq!(
            error_name(gone.get_property::<u32>("Id").await),
            "org.freedesktop.DBus.Error.UnknownObject"
        );
    }
    assert_ne!(numbers[0], numbers[1], "numbers are not given twice");
    assert!(daemon.data_dir().join("backups/monday.db").is_file());
}

#[tokio::test]
async fn a_daemon_without_a_bus_serves_and_joins_the_bus_that_comes() {
    let mut bus = PrivateBus::absent();
    let daemon = OnBus::start(&bus);
    assert_eq!(daemon.cortex(&["ping"]), "\"pong\"\n");
    wait_until("it says what is missing", async || daemon.log().contains("not on the message bus"))
        .await;
    bus.come();
    let connection = bus.connect().await;
    wait_for_name(&connection, NAME).await;
    create(&connection, "users").await;
}

#[tokio::test]
async fn a_bus_that_is_restarted_is_joined_again_with_everything() {
    let (mut bus, daemon, connection) = OnBus::with_bus().await;
    let before = create(&connection, "users").await;
    for _ in 0..2 {
        bus.go();
        daemon.cortex(&["put", "users", r#"{"id": 1}"#]);
        bus.come();
        let connection = bus.connect().await;
        wait_for_name(&connection, NAME).await;
        let manager = object(&connection, ROOT, MANAGER).await;
        let after: OwnedObjectPath =
            manager.call("GetTable", &("users", options())).await.expect("the table");
        assert_eq!(before, after);
        let table = object(&connection, after.as_str(), TABLE).await;
        assert_eq!(table.get_property::<u64>("Records").await.expect("a count"), 1);
    }
}

/// On a first installation the bus has not read the policy yet when the daemon starts.
#[tokio::test]
async fn a_name_that_the_policy_forbids_is_owned_once_it_allows_it() {
    let mut bus = PrivateBus::absent();
    let forbidden = format!("<policy context=\"mandatory\"><deny own=\"{NAME}\"/></policy>");
    bus.configure(&forbidden);
    bus.come();
    let daemon = OnBus::with_log(&bus, "debug");
    wait_until("it has tried again, twice", async || {
        daemon.log().matches("still not on the message bus").count() >= 2
    })
    .await;
    assert_eq!(daemon.log().matches("trying again").count(), 1, "told once: {}", daemon.log());
    bus.configure("");
    let connection = bus.connect().await;
    let itself = zbus::fdo::DBusProxy::new(&connection).await.expect("the bus itself");
    itself.reload_config().await.expect("the policy is read");
    wait_for_name(&connection, NAME).await;
    create(&connection, "users").await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_waited_for_and_given_up_at_the_end() {
    let (bus, mut first, connection) = OnBus::with_bus().await;
    create(&connection, "of_the_first").await;
    let second = OnBus::start(&bus);
    wait_until("the second is refused", async || second.log().contains("name already taken")).await;
    let manager = object(&connection, ROOT, MANAGER).await;
    let tables = || async { manager.get_property::<u64>("Tables").await.expect("a count") };
    assert_eq!(tables().await, 1, "the first still answers");
    first.stop();
    wait_for_name(&connection, NAME).await;
    assert_eq!(tables().await, 0, "now the second answers");
}

#[tokio::test]
async fn calls_under_way_are_answered_when_the_daemon_ends() {
    let (_bus, mut daemon, connection) = OnBus::with_bus().await;
    let path = create(&connection, "users").await;
    let table = object(&connection, path.as_str(), TABLE).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        let table = table.clone();
        answers.push(tokio::spawn(async move {
            table.call::<_, _, ()>("Grant", &("*", vec!["read"], options())).await
        }));
    }
    // One answer shows that all have been sent: they go out in order.
    answers.remove(0).await.expect("no panic").expect("an answer");
    tokio::task::spawn_blocking(move || daemon.stop()).await.expect("it ends");
    let mut outcomes = pin!(futures_util::stream::iter(answers).then(|answer| answer));
    while let Some(outcome) = soon("an answer", outcomes.next()).await {
        match outcome.expect("no panic") {
            Ok(()) => {}
            // Those that the daemon had not begun: its name was gone before they arrived.
            Err(zbus::Error::FDO(error)) => assert!(
                matches!(
                    *error,
                    zbus::fdo::Error::NoReply(_) | zbus::fdo::Error::ServiceUnknown(_)
                ),
                "{error}"
            ),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The transcript of org.cortexd.Cortex1(5): commands that begin with `$`, and what each prints.
#[tokio::test]
async fn the_transcript_of_the_manual_is_what_really_happens() {
    /// The uid that the transcript was made with.
    const ITS_UID: &str = "1000:";
    const ITS_USAGE: &str = "a(uttt) 1 1000 ";
    let page = include_str!("../../../../man/org.cortexd.Cortex1.5");
    let (_, examples) = page.split_once("\n.Sh EXAMPLES\n").expect("examples");
    let (_, display) = examples.split_once("\n.Bd -literal -offset indent\n").expect("one");
    let (display, _) = display.split_once("\n.Ed\n").expect("its end");
    let own = nix::unistd::geteuid();
    let display = display
        .replace(ITS_UID, &format!("{own}:"))
        .replace(ITS_USAGE, &format!("a(uttt) 1 {own} "));

    let (bus, _daemon, _connection) = OnBus::with_bus().await;
    let mut variables = String::new();
    let mut steps = display.split("$ b").enumerate();
    variables.push_str(steps.next().expect("the first variable").1.trim_start_matches("$ "));
    for (_, step) in steps {
        let (command, expected) = step.split_once('\n').unwrap_or((step, ""));
        // A variable that is set after this command stands at the end of what it prints.
        let (expected, next) = expected.split_once("$ ").unwrap_or((expected, ""));
        let script = format!("{variables}\nb{command}");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
        let output = tokio::task::spawn_blocking(move || shell.output()).await.expect("no panic");
        let output = output.expect("sh runs");
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
        assert_eq!(printed.trim_end(), expected.trim_end(), "b{command}");
        variables.push_str(next);
    }
}
