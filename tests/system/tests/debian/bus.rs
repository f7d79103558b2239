//! The daemon on the system's message bus, beside the real polkit and what systemd makes of its name.
//! What each method answers, and to whom, is tested on private buses: `tests/it/service/bus`, `tests/root/bus.rs`.

use system_tests::{Host, Ran, User, golden, package};

const NAME: &str = "org.cortexd.Cortex1";
const ROOT: &str = "/org/cortexd/Cortex1";
const LOG: &str = "/org/freedesktop/LogControl1";

/// What busctl says of a call that was refused, and of one that needs a password which nobody may be asked for.
const DENIED: &str = "Access denied";
const PASSWORD_NEEDED: &str = "authentication is required";

/// The command that calls a method, given with its arguments.
fn call(object: &str, interface: &str, method: &str) -> String {
    format!("busctl call {NAME} {object} {NAME}.{interface} {method}")
}

fn manager(method: &str) -> String {
    call(ROOT, "Manager", method)
}

fn reload() -> String {
    manager("Reload 'a{sv}' 0")
}

fn backup(name: &str) -> String {
    manager(&format!("Backup 'sa{{sv}}' {name} 0"))
}

/// Makes a table and answers its object.
fn create(host: &Host, user: User, name: &str) -> String {
    let answer = host.sh_as(user, &manager(&format!("CreateTable 'sasa{{sv}}' {name} 1 id 0")));
    answer.trim_start_matches("o ").trim_matches('"').to_owned()
}

#[track_caller]
fn assert_refused(ran: &Ran, why: &str) {
    assert!(!ran.ok() && ran.stderr.contains(why), "{ran}");
}

/// Succeeds where somebody owns the daemon's name.
fn name_is_owned() -> String {
    let bus = "org.freedesktop.DBus";
    format!("busctl call {bus} /org/freedesktop/DBus {bus} NameHasOwner s {NAME} | grep -q true")
}

/// holds D1, D2
#[test]
fn the_first_call_starts_the_service() {
    let host = package::installed("called");
    host.sh("systemctl stop cortexd.service");
    assert_eq!(host.property("cortexd.service", "ActiveState"), "inactive");
    assert_eq!(host.sh_as(User::Ann, &manager("ListTables 'a{sv}' 0")), "a(so) 0");
    assert_eq!(host.property("cortexd.service", "ActiveState"), "active");
}

/// holds D2, V4
#[test]
fn two_users_have_their_own_rights_on_the_bus() {
    let host = package::installed("rights");
    let (ann, ben) = (host.sh("id -u ann"), host.sh("id -u ben"));
    let list = manager("ListTables 'a{sv}' 0");
    let anns = create(&host, User::Ann, "notes");
    let bens = create(&host, User::Ben, "notes");
    let of_ann = format!("a(so) 1 \"{ann}:notes\" \"{anns}\"");
    assert_eq!(host.sh_as(User::Ann, &list), of_ann);
    assert_eq!(host.sh_as(User::Ben, &list), format!("a(so) 1 \"{ben}:notes\" \"{bens}\""));
    assert!(host.sh(&list).starts_with("a(so) 2 "), "root sees all");

    let info = call(&anns, "Table", "Info 'a{sv}' 0");
    assert_refused(&host.run(User::Ben, &info), DENIED);
    host.sh_as(User::Ann, &call(&anns, "Table", &format!("Grant 'sasa{{sv}}' uid:{ben} 1 read 0")));
    assert!(host.sh_as(User::Ben, &info).contains(&format!("\"{ann}:notes\"")));
    let drop = call(&anns, "Table", "Drop 'a{sv}' 0");
    assert_refused(&host.run(User::Ben, &drop), DENIED);
    assert_eq!(host.sh_as(User::Ann, "cortex tables"), r#"["notes"]"#);
    host.sh_as(User::Ann, &drop);
    assert_eq!(host.sh_as(User::Ann, "cortex tables"), "[]");
}

/// holds D2
#[test]
fn whom_a_rule_of_polkit_names_may_do_what_the_rule_says_and_nothing_else() {
    let host = package::installed("polkit");
    host.write(
        "/etc/polkit-1/rules.d/50-cortexd.rules",
        r#"polkit.addRule(function (action, subject) {
            if (action.id == "org.cortexd.cortex1.manage" && subject.user == "ann") {
                return polkit.Result.YES;
            }
        });"#,
    );
    host.sh("systemctl restart polkit");
    host.sh_as(User::Ann, &reload());
    host.sh_as(User::Ann, &manager("Checkpoint 'a{sv}' 0"));
    assert_refused(&host.run(User::Ann, &backup("nightly")), DENIED);
    assert_refused(&host.run(User::Ben, &reload()), DENIED);
    let said = host.sh("journalctl -u cortexd --output=cat -g 'polkit has authorised'");
    assert_eq!(said.lines().count(), 2, "{said}");
}

/// holds D2
#[test]
fn whom_no_rule_names_is_refused_and_told_if_a_password_would_help() {
    let host = package::installed("password");
    host.sh("systemctl stop polkit");
    // Nobody is there to type one: ann has no session.
    assert_refused(&host.run(User::Ann, &reload()), DENIED);
    assert_eq!(host.property("polkit", "ActiveState"), "active", "it was asked");
    let quietly = reload().replace("call", "--allow-interactive-authorization=no call");
    assert_refused(&host.run(User::Ann, &quietly), PASSWORD_NEEDED);
    host.sh(&reload());
}

/// holds D2
#[test]
fn without_polkit_only_root_manages_the_daemon() {
    let host = package::installed("alone");
    for absence in ["systemctl mask --now polkit", "dpkg --purge --force-depends polkitd"] {
        host.sh(absence);
        assert_refused(&host.run(User::Ann, &reload()), DENIED);
        assert_refused(&host.run(User::Ann, &backup("nightly")), DENIED);
        host.sh(&reload());
        create(&host, User::Ann, "own");
        host.sh_as(User::Ann, "cortex drop own --yes");
    }
}

/// holds D1, D2
#[test]
fn a_restarted_bus_has_the_name_again_and_the_service_goes_on() {
    let host = package::installed("again");
    let pid = host.property("cortexd.service", "MainPID");
    host.wait_until(&name_is_owned());
    host.sh("systemctl restart dbus.service");
    host.wait_until(&name_is_owned());
    assert_eq!(host.sh_as(User::Ann, &manager("ListTables 'a{sv}' 0")), "a(so) 0");
    assert_eq!(host.property("cortexd.service", "MainPID"), pid);
    assert_eq!(host.property("cortexd.service", "ActiveState"), "active");
}

/// holds D1
#[test]
fn a_host_without_a_bus_has_the_daemon_all_the_same() {
    let host = package::installed("busless");
    let needed = host.sh("systemctl show -p Requires -p Requisite -p BindsTo cortexd.service");
    assert!(!needed.contains("dbus"), "{needed}");

    host.sh("systemctl mask --now dbus.socket dbus.service");
    assert_eq!(host.sh_as(User::Ann, "cortex ping"), "\"pong\"", "the bus went away");
    host.sh("systemctl restart cortexd.service");
    assert_eq!(host.sh_as(User::Ann, "cortex ping"), "\"pong\"", "there was no bus");
    host.sh("systemctl unmask dbus.socket dbus.service && systemctl start dbus.socket");
    host.wait_until(&name_is_owned());
}

/// holds D1
#[test]
fn systemctl_changes_the_log_level_of_the_running_daemon() {
    let host = package::installed("level");
    host.wait_until(&name_is_owned());
    let level = "systemctl service-log-level cortexd";
    assert_eq!(host.sh(level), "info");
    host.sh(&format!("{level} debug"));
    assert_eq!(host.sh_as(User::Ann, level), "debug");
    assert_refused(&host.run(User::Ann, &format!("{level} info")), DENIED);
    assert_eq!(host.sh(level), "debug");
    assert_refused(&host.run(User::Ann, &reload()), DENIED);
    host.wait_until("journalctl -u cortexd -p debug..debug -g 'polkit has not authorised'");
}

/// What commands say, each after its own line.
fn transcript(host: &Host, user: User, commands: &[String]) -> String {
    let step = |command: &String| {
        let prompt = if user == User::Root { '#' } else { '$' };
        let answer = host.sh_as(user, command);
        format!("{prompt} {command}\n{answer}{}", if answer.is_empty() { "" } else { "\n" })
    };
    commands.iter().map(step).collect()
}

/// holds D2
#[test]
fn introspection_shows_what_it_showed_before() {
    let host = package::installed("introspect");
    let table = create(&host, User::Ann, "notes");
    let introspect = |object: &str| format!("busctl introspect {NAME} {object}");
    let commands =
        [format!("busctl tree {NAME}"), introspect(ROOT), introspect(&table), introspect(LOG)];
    golden::check("introspect.txt", &transcript(&host, User::Ann, &commands));
}

/// holds D2
#[test]
fn calls_are_answered_as_they_were_before() {
    let host = package::installed("call");
    let notes = create(&host, User::Ann, "notes");
    let table = |method: &str| call(&notes, "Table", method);
    let commands = [
        // First: objects come in no order, and there is one.
        format!("busctl call {NAME} {ROOT} org.freedesktop.DBus.ObjectManager GetManagedObjects"),
        manager("CreateTable 'sasa{sv}' letters 2 id text 0"),
        manager("ListTables 'a{sv}' 0"),
        manager("GetTable 'sa{sv}' notes 0"),
        table("Grant 'sasa{sv}' uid:1001 2 read write 0"),
        table("Info 'a{sv}' 0"),
        manager("Usage 'a{sv}' 0"),
        format!("busctl get-property {NAME} {ROOT} {NAME}.Manager Tables Node"),
        table("Drop 'a{sv}' 0"),
    ];
    golden::check("call.txt", &transcript(&host, User::Ann, &commands));
}

/// holds D2
#[test]
fn a_backup_over_the_bus_is_a_job_whose_end_everybody_is_told() {
    let host = package::installed("monitor");
    host.wait_until(&name_is_owned());
    // The calls and the signals of one interface: other messages have no order among themselves.
    host.sh(&format!(
        "systemd-run --unit=monitor -p StandardOutput=file:/run/messages \
         busctl monitor --match=\"interface='{NAME}.Manager'\""
    ));
    host.wait_until("journalctl -u dbus -g 'became a monitor'");
    assert_eq!(host.sh(&backup("nightly")), format!("o \"{ROOT}/job/1\""));
    host.wait_until("grep -A9 JobRemoved /run/messages | grep done");
    host.sh("systemctl stop monitor");
    golden::check("monitor.txt", &host.sh("cat /run/messages"));
    assert_eq!(host.sh("stat -c '%U %a' /var/lib/cortex/backups/nightly.db"), "cortex 600");
}
