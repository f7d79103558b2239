//! The message bus: the policy and the actions are installed, polkit can be started, and the daemon owns its name.
//! The interface behind the name is org.cortexd.Cortex1(5).

use std::path::Path;
use std::process::Command;

use super::DaemonScope;
use super::finding::Finding;
use super::program::{Answer, ask};

const POLICY: &str = "dbus-policy";
const NAME: &str = "dbus-name";
const ACTIONS: &str = "polkit";
const POLKIT: &str = "polkit-service";

const BUS_NAME: &str = "org.cortexd.Cortex1";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// Where packages and administrators put the policy.
const POLICIES: [&str; 2] = [
    "/usr/share/dbus-1/system.d/org.cortexd.Cortex1.conf",
    "/etc/dbus-1/system.d/org.cortexd.Cortex1.conf",
];

/// The ids of polkit's actions are in lower case, and so is their file.
const ACTION_FILE: &str = "/usr/share/polkit-1/actions/org.cortexd.cortex1.policy";

#[derive(Debug)]
pub(super) enum BusFacts {
    /// Another daemon than that of the whole machine is on no bus.
    NotOfTheSystem,
    /// What the settings say of the bus: not the system's.
    Disabled(String),
    NoBus,
    Bus {
        policy: bool,
        actions: bool,
        /// What systemd says of polkit's unit: `loaded`, `masked`, `not-found`. None where it does not say.
        polkit: Option<String>,
        name: Name,
        /// Whether the daemon answers on its socket.
        answers: bool,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Owned,
    Free,
    NoAnswer(String),
}

pub(super) fn gather(whose: DaemonScope, configured: Option<String>, answers: bool) -> BusFacts {
    if whose == DaemonScope::User {
        return BusFacts::NotOfTheSystem;
    }
    if let Some(other) = configured.filter(|bus| bus != "system") {
        return BusFacts::Disabled(other);
    }
    if !Path::new(SYSTEM_BUS).exists() {
        return BusFacts::NoBus;
    }
    BusFacts::Bus {
        policy: POLICIES.iter().any(|path| Path::new(path).exists()),
        actions: Path::new(ACTION_FILE).exists(),
        polkit: load_state("polkit.service"),
        name: ask_for_owner(),
        answers,
    }
}

fn load_state(unit: &str) -> Option<String> {
    match ask(Command::new("systemctl").args(["show", "--property=LoadState", "--value", unit])) {
        Answer::Ended { success: true, stdout, .. } => Some(stdout.trim().to_owned()),
        Answer::Ended { .. } | Answer::Absent | Answer::Failed(_) => None,
    }
}

/// Asks the bus, and not the name itself: a message to the name would start its service.
fn ask_for_owner() -> Name {
    let bus = "org.freedesktop.DBus";
    let call =
        ["--system", "call", bus, "/org/freedesktop/DBus", bus, "NameHasOwner", "s", BUS_NAME];
    read(ask(Command::new("busctl").args(call)))
}

fn read(answer: Answer) -> Name {
    match answer {
        Answer::Absent => Name::NoAnswer("busctl is not installed".to_owned()),
        Answer::Failed(why) => Name::NoAnswer(why),
        Answer::Ended { success: true, stdout, .. } => match stdout.trim() {
            "b true" => Name::Owned,
            "b false" => Name::Free,
            other => Name::NoAnswer(format!("busctl says {other:?}")),
        },
        Answer::Ended { stderr, .. } => Name::NoAnswer(stderr.trim().to_owned()),
    }
}

pub(super) fn check(facts: &BusFacts) -> Vec<Finding> {
    match facts {
        BusFacts::NotOfTheSystem => {
            vec![Finding::unchecked(NAME, "this is not the daemon of the whole machine")]
        }
        BusFacts::Disabled(bus) => vec![Finding::note(
            NAME,
            format!("the settings keep the daemon off the system's message bus: bus = \"{bus}\""),
            "remove the key bus, and then: systemctl restart cortexd",
        )],
        BusFacts::NoBus => vec![Finding::unchecked(NAME, "this machine has no system message bus")],
        BusFacts::Bus {
            policy: policy_there,
            actions: actions_there,
            polkit,
            name: owner,
            answers,
        } => {
            let polkit = polkit_service(polkit.as_deref());
            vec![policy(*policy_there), actions(*actions_there), polkit, name(owner, *answers)]
        }
    }
}

fn policy(there: bool) -> Finding {
    if there {
        return Finding::ok(POLICY, "the policy of the message bus is installed");
    }
    Finding::problem(
        POLICY,
        format!("{} is not installed", POLICIES[0]),
        "apt install --reinstall cortexd, and then: systemctl reload dbus",
    )
}

fn actions(there: bool) -> Finding {
    if there {
        return Finding::ok(ACTIONS, "the actions of polkit are installed");
    }
    Finding::problem(
        ACTIONS,
        format!("{ACTION_FILE} is not installed: only root may use the D-Bus interface"),
        "apt install --reinstall cortexd",
    )
}

/// Without polkit the D-Bus interface is root's alone, which somebody may have wanted.
fn polkit_service(load_state: Option<&str>) -> Finding {
    let for_root = "only root may use the D-Bus interface";
    match load_state {
        Some("loaded") => Finding::ok(POLKIT, "polkit can be asked"),
        Some("masked") => Finding::warning(
            POLKIT,
            format!("polkit.service is masked: {for_root}"),
            "systemctl unmask polkit.service",
        ),
        Some("not-found") => Finding::warning(
            POLKIT,
            format!("polkit is not installed: {for_root}"),
            "apt install polkitd",
        ),
        Some(other) => Finding::warning(
            POLKIT,
            format!("polkit.service is {other}: {for_root}"),
            "systemctl status polkit.service",
        ),
        None => Finding::unchecked(POLKIT, "systemctl does not say whether polkit is there"),
    }
}

fn name(name: &Name, answers: bool) -> Finding {
    match name {
        Name::Owned => Finding::ok(NAME, format!("the daemon owns {BUS_NAME}")),
        Name::Free if !answers => Finding::problem(
            NAME,
            format!("nobody owns {BUS_NAME}: the daemon does not answer"),
            DaemonScope::System.start_command(),
        ),
        Name::Free => Finding::problem(
            NAME,
            format!("nobody owns {BUS_NAME}"),
            "systemctl reload dbus && systemctl restart cortexd",
        ),
        Name::NoAnswer(why) => Finding::unchecked(NAME, format!("no answer: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    fn bus(policy: bool, actions: bool, polkit: &str, name: Name, answers: bool) -> BusFacts {
        BusFacts::Bus { policy, actions, polkit: Some(polkit.into()), name, answers }
    }

    fn statuses(facts: &BusFacts) -> Vec<Status> {
        check(facts).into_iter().map(|finding| finding.status).collect()
    }

    #[test]
    fn each_missing_part_is_its_own_problem() {
        let facts = |policy, actions, name| bus(policy, actions, "loaded", name, true);
        let (ok, problem) = (Status::Ok, Status::Problem);
        assert_eq!(statuses(&facts(true, true, Name::Owned)), [ok, ok, ok, ok]);
        assert_eq!(statuses(&facts(false, true, Name::Owned)), [problem, ok, ok, ok]);
        assert_eq!(statuses(&facts(true, false, Name::Owned)), [ok, problem, ok, ok]);
        assert_eq!(statuses(&facts(true, true, Name::Free)), [ok, ok, ok, problem]);
        for finding in check(&bus(false, false, "masked", Name::Free, true)) {
            assert!(finding.mend.is_some(), "{finding:?}");
        }
    }

    #[test]
    fn polkit_that_cannot_be_asked_is_a_warning_with_its_command() {
        for (state, mend) in [
            ("masked", "systemctl unmask polkit.service"),
            ("not-found", "apt install polkitd"),
            ("bad-setting", "systemctl status polkit.service"),
        ] {
            let found = &check(&bus(true, true, state, Name::Owned, true))[2];
            assert_eq!((found.status, found.mend.as_deref()), (Status::Warning, Some(mend)));
        }
    }

    #[test]
    fn a_name_without_a_running_daemon_asks_for_the_daemon_and_not_for_the_bus() {
        let mend = |answers| {
            let found = check(&bus(true, true, "loaded", Name::Free, answers)).pop();
            found.and_then(|finding| finding.mend).expect("a command")
        };
        assert_eq!(mend(false), "systemctl start cortexd");
        assert!(mend(true).contains("reload dbus"));
    }

    #[test]
    fn a_daemon_that_is_kept_off_the_bus_is_a_note() {
        let facts = gather(DaemonScope::System, Some("off".into()), true);
        let found = check(&facts);
        assert_eq!(found.len(), 1, "what is installed for the bus is of no interest");
        assert_eq!(found[0].status, Status::Note);
        assert!(found[0].text.contains("bus = \"off\""), "{found:?}");
    }

    #[test]
    fn no_bus_and_no_answer_are_not_called_well() {
        assert_eq!(statuses(&BusFacts::NotOfTheSystem), [Status::Unchecked]);
        assert_eq!(statuses(&BusFacts::NoBus), [Status::Unchecked]);
        let silent = bus(true, true, "loaded", Name::NoAnswer("silence".into()), true);
        assert_eq!(statuses(&silent)[3], Status::Unchecked);
    }

    #[test]
    fn what_busctl_says_is_read() {
        let said = |success, stdout: &str, stderr: &str| {
            read(Answer::Ended { success, stdout: stdout.into(), stderr: stderr.into() })
        };
        assert_eq!(said(true, "b true\n", ""), Name::Owned);
        assert_eq!(said(true, "b false\n", ""), Name::Free);
        assert_eq!(said(true, "s x\n", ""), Name::NoAnswer("busctl says \"s x\"".into()));
        assert_eq!(said(false, "", "Host is down\n"), Name::NoAnswer("Host is down".into()));
        assert_eq!(read(Answer::Absent), Name::NoAnswer("busctl is not installed".into()));
    }
}
