//! What systemd makes of the units: installed, enabled, active.
//! Whether the daemon answers is `daemon`'s.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::DaemonScope;
use super::finding::Finding;
use super::program::{Answer, ask};
use crate::sys::paths;

const SYSTEMD: &str = "systemd";

const SERVICE: &str = "cortexd.service";
const SOCKET: &str = "cortexd.socket";

/// There where the machine was booted with systemd (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

const ROOT: u32 = 0;

#[derive(Debug)]
pub(super) enum UnitFacts {
    /// Another daemon than that of the whole machine needs no units.
    NotSystemDaemon,
    NotBooted,
    NoAnswer(String),
    Units {
        service: Box<Unit>,
        socket: Box<Unit>,
    },
}

/// What `systemctl show` says of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unit {
    load: String,
    enabled: String,
    active: String,
    user: String,
    /// `ReadWritePaths=`, as systemd prints it.
    writable: String,
}

impl UnitFacts {
    /// Who the daemon runs as: the user of its service, else root. One that has made its socket itself runs
    /// as the owner of that. None where the service's user is unknown to this machine.
    pub(super) fn daemons_uid(&self, sockets_owner: u32) -> Option<u32> {
        match self {
            Self::NotSystemDaemon => Some(sockets_owner),
            Self::Units { service, .. } if !service.user.is_empty() => {
                let found = nix::unistd::User::from_name(&service.user).ok().flatten();
                found.map(|user| user.uid.as_raw())
            }
            Self::NotBooted | Self::NoAnswer(_) | Self::Units { .. } => Some(ROOT),
        }
    }
}

impl UnitFacts {
    /// Where the unit lets the daemon write. None where nothing keeps it from writing anywhere.
    pub(super) fn writable(&self) -> Option<Vec<PathBuf>> {
        let Self::Units { service, .. } = self else {
            return None;
        };
        // Paths that need not exist, or are below the root of the host, have a sign in front.
        let named =
            service.writable.split_whitespace().map(|path| path.trim_start_matches(['-', '+']));
        Some([paths::SYSTEM_DATA_DIR].into_iter().chain(named).map(PathBuf::from).collect())
    }
}

pub(super) fn gather(whose: DaemonScope) -> UnitFacts {
    if whose == DaemonScope::User {
        return UnitFacts::NotSystemDaemon;
    }
    if !Path::new(BOOTED).is_dir() {
        return UnitFacts::NotBooted;
    }
    match (show(SERVICE), show(SOCKET)) {
        (Ok(service), Ok(socket)) => {
            UnitFacts::Units { service: service.into(), socket: socket.into() }
        }
        (Err(why), _) | (_, Err(why)) => UnitFacts::NoAnswer(why),
    }
}

fn show(unit: &str) -> Result<Unit, String> {
    let properties = "--property=LoadState,UnitFileState,ActiveState,User,ReadWritePaths";
    match ask(Command::new("systemctl").args(["show", properties, unit])) {
        Answer::Absent => Err("systemctl is not installed".to_owned()),
        Answer::Failed(why) => Err(why),
        Answer::Ended { success: true, stdout, .. } => Ok(read(&stdout)),
        Answer::Ended { stderr, .. } => Err(stderr.trim().to_owned()),
    }
}

fn read(shown: &str) -> Unit {
    let mut unit = Unit::default();
    for (name, value) in shown.lines().filter_map(|line| line.split_once('=')) {
        let field = match name {
            "LoadState" => &mut unit.load,
            "UnitFileState" => &mut unit.enabled,
            "ActiveState" => &mut unit.active,
            "User" => &mut unit.user,
            "ReadWritePaths" => &mut unit.writable,
            _ => continue,
        };
        value.clone_into(field);
    }
    unit
}

pub(super) fn check(facts: &UnitFacts) -> Vec<Finding> {
    match facts {
        UnitFacts::NotSystemDaemon => {
            vec![Finding::unchecked(SYSTEMD, "this is not the daemon of the whole machine")]
        }
        UnitFacts::NotBooted => {
            vec![Finding::unchecked(SYSTEMD, "this machine was not booted with systemd")]
        }
        UnitFacts::NoAnswer(why) => vec![Finding::unchecked(SYSTEMD, format!("no answer: {why}"))],
        UnitFacts::Units { service, socket } => vec![
            installed(SOCKET, socket).unwrap_or_else(|| state_of_socket(socket)),
            installed(SERVICE, service).unwrap_or_else(|| state_of_service(service)),
        ],
    }
}

/// What is wrong before a unit can have a state, if anything is.
fn installed(name: &str, unit: &Unit) -> Option<Finding> {
    match unit.load.as_str() {
        "loaded" => None,
        "not-found" => Some(Finding::problem(
            SYSTEMD,
            format!("{name} is not installed"),
            "apt install cortexd (or make install, and then: systemctl daemon-reload)",
        )),
        "masked" => Some(Finding::problem(
            SYSTEMD,
            format!("{name} is masked"),
            format!("systemctl unmask {name} && systemctl enable --now cortexd"),
        )),
        other => Some(Finding::problem(
            SYSTEMD,
            format!("{name} cannot be loaded ({other})"),
            format!("systemd-analyze verify {name}"),
        )),
    }
}

fn state_of_socket(unit: &Unit) -> Finding {
    // Its service is stopped first: a socket unit cannot start while the service runs.
    let restart = "systemctl restart cortexd.socket cortexd.service";
    if unit.active != "active" {
        return Finding::problem(SYSTEMD, format!("{SOCKET} is {}", unit.active), restart);
    }
    if unit.enabled != "enabled" {
        let text = format!("{SOCKET} is {}: it will be gone after a boot", unit.enabled);
        return Finding::problem(SYSTEMD, text, "systemctl enable cortexd.socket");
    }
    Finding::ok(SYSTEMD, format!("{SOCKET} is enabled and active"))
}

fn state_of_service(unit: &Unit) -> Finding {
    match (unit.active.as_str(), unit.enabled.as_str()) {
        ("failed", _) => Finding::problem(
            SYSTEMD,
            format!("{SERVICE} has failed"),
            "journalctl -u cortexd -n 50, and then: systemctl restart cortexd",
        ),
        ("active" | "reloading", "enabled") => {
            Finding::ok(SYSTEMD, format!("{SERVICE} is enabled and active"))
        }
        ("active" | "reloading", other) => Finding::problem(
            SYSTEMD,
            format!("{SERVICE} is {other}: after a boot it starts only when a client connects"),
            "systemctl enable cortexd",
        ),
        (other, _) => {
            Finding::problem(SYSTEMD, format!("{SERVICE} is {other}"), "systemctl start cortexd")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    fn unit(load: &str, enabled: &str, active: &str) -> Unit {
        Unit {
            load: load.into(),
            enabled: enabled.into(),
            active: active.into(),
            user: String::new(),
            writable: String::new(),
        }
    }

    fn healthy() -> Unit {
        unit("loaded", "enabled", "active")
    }

    fn mend_of(service: Unit, socket: Unit) -> String {
        let found = check(&UnitFacts::Units { service: service.into(), socket: socket.into() });
        let mut problems = found.into_iter().filter(|finding| finding.status == Status::Problem);
        let mend = problems.next().and_then(|finding| finding.mend).expect("a problem");
        assert_eq!(problems.next(), None);
        mend
    }

    #[test]
    fn units_that_are_enabled_and_active_are_well() {
        let found =
            check(&UnitFacts::Units { service: healthy().into(), socket: healthy().into() });
        assert!(found.iter().all(|finding| finding.status == Status::Ok), "{found:?}");
    }

    #[test]
    fn each_wrong_state_of_the_service_has_its_command() {
        for (service, mend) in [
            (unit("not-found", "", "inactive"), "apt install cortexd"),
            (unit("masked", "masked", "inactive"), "systemctl unmask cortexd.service"),
            (unit("bad-setting", "", "inactive"), "systemd-analyze verify cortexd.service"),
            (unit("loaded", "enabled", "failed"), "systemctl restart cortexd"),
            (unit("loaded", "enabled", "inactive"), "systemctl start cortexd"),
            (unit("loaded", "enabled", "activating"), "systemctl start cortexd"),
            (unit("loaded", "disabled", "active"), "systemctl enable cortexd"),
        ] {
            let found = mend_of(service, healthy());
            assert!(found.contains(mend), "{found}");
        }
    }

    #[test]
    fn each_wrong_state_of_the_socket_has_its_command() {
        for (socket, mend) in [
            (unit("not-found", "", "inactive"), "apt install cortexd"),
            (unit("masked", "masked", "inactive"), "systemctl unmask cortexd.socket"),
            (
                unit("loaded", "enabled", "inactive"),
                "systemctl restart cortexd.socket cortexd.service",
            ),
            (
                unit("loaded", "enabled", "failed"),
                "systemctl restart cortexd.socket cortexd.service",
            ),
            (unit("loaded", "disabled", "active"), "systemctl enable cortexd.socket"),
        ] {
            let found = mend_of(healthy(), socket);
            assert!(found.contains(mend), "{found}");
        }
    }

    #[test]
    fn without_systemd_nothing_is_called_well() {
        for facts in [
            UnitFacts::NotSystemDaemon,
            UnitFacts::NotBooted,
            UnitFacts::NoAnswer("silence".into()),
        ] {
            assert!(check(&facts).iter().all(|finding| finding.status == Status::Unchecked));
        }
    }

    #[test]
    fn what_systemctl_shows_is_read_by_name() {
        let shown = "User=cortex\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n";
        assert_eq!(read(shown), Unit { user: "cortex".into(), ..healthy() });
    }

    #[test]
    fn the_daemon_may_write_to_its_state_directory_and_where_a_drop_in_says() {
        let service = read("ReadWritePaths=-/srv/cortex /mnt/data\n");
        let facts = UnitFacts::Units { service: service.into(), socket: healthy().into() };
        let paths = ["/var/lib/cortex", "/srv/cortex", "/mnt/data"].map(PathBuf::from);
        assert_eq!(facts.writable(), Some(paths.into()));
        assert_eq!(UnitFacts::NotSystemDaemon.writable(), None);
    }

    #[test]
    fn the_daemon_runs_as_the_services_user_or_as_the_owner_of_its_socket() {
        let of = |user: &str| {
            let service = Unit { user: user.into(), ..healthy() };
            UnitFacts::Units { service: service.into(), socket: healthy().into() }.daemons_uid(1000)
        };
        assert_eq!(of("root"), Some(ROOT));
        assert_eq!(of(""), Some(ROOT), "a service without User= is root's");
        assert_eq!(of("no-such-user-of-cortex"), None);
        assert_eq!(UnitFacts::NotSystemDaemon.daemons_uid(1000), Some(1000));
    }
}
