//! The configuration: the daemon can read it and takes it, runs with it, and nobody but root can change it.
//! What the keys mean is the daemon's; it is asked rather than imitated.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cortex_client::api::{self, Setting};

use super::super::context::Context;
use super::finding::Finding;
use super::place::{PathState, WRITABLE_BY_OTHERS, user};
use super::program::{Answer, ask};
use crate::sys::fragments;

const CONFIGURATION: &str = "configuration";
const DIRECTORY: &str = "config-dir";
const IN_FORCE: &str = "config-in-force";

/// Where packages put the daemon.
const INSTALLED: &str = "/usr/libexec/cortexd";

/// Its files decide where the daemon writes and what it lets pass.
const SYSTEM_DIRECTORY: &str = "/etc/cortex";

const ROOT: u32 = 0;

#[derive(Debug)]
pub(super) struct ConfigurationFacts {
    /// None where no file was named and none is usual.
    file: Option<(PathBuf, PathState)>,
    daemon: Option<PathBuf>,
    verdict: Option<Answer>,
    /// Only for files below /etc/cortex.
    directory: Option<PathState>,
    /// By key: the value in force and where it comes from. None where this user may not ask the daemon.
    in_force: Option<Settings>,
    /// The keys that the files set now.
    set_by_files: Vec<String>,
    restart: &'static str,
    /// Whether the daemon was asked as the user that it runs as.
    as_daemon: bool,
}

/// By key: the value, and the source of one that is not a default.
type Settings = BTreeMap<String, (String, Option<String>)>;

/// What is asked of the rest of the installation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) file: Option<&'a Path>,
    /// Who the daemon runs as, where this process may become that user.
    pub(super) daemons_uid: Option<u32>,
    /// What starts the daemon anew.
    pub(super) restart: &'static str,
}

pub(super) fn gather(context: &Context, asked: Asked<'_>) -> ConfigurationFacts {
    let Asked { file, daemons_uid, restart } = asked;
    let daemon = find_daemon();
    let place = file.map(|file| (file.to_owned(), PathState::look(file)));
    let verdict = match (&daemon, &place) {
        (Some(daemon), Some((file, PathState::Exists(_)))) => {
            let mut command = Command::new(daemon);
            // Root can read what the daemon cannot.
            if let Some(uid) = daemons_uid.filter(|uid| *uid != ROOT) {
                command.uid(uid).gid(group_of(uid));
            }
            // The values of this shell are not those of the service.
            command.env_remove("CORTEX_SOCKET").env_remove("CORTEX_DATA_DIR");
            // Where no state directory is known, the check would ask for one.
            command.env("HOME", "/");
            Some(ask(command.arg("--check").arg("--config").arg(file)))
        }
        _ => None,
    };
    let of_system = file.is_some_and(|file| file.starts_with(SYSTEM_DIRECTORY));
    let directory = of_system.then(|| PathState::look(Path::new(SYSTEM_DIRECTORY)));
    let origins = file.and_then(|file| fragments::read(file, |_| Ok(())).ok());
    let set_by_files = origins.into_iter().flat_map(|merged| merged.origins.into_keys()).collect();
    let in_force = settings_in_force(context);
    ConfigurationFacts {
        file: place,
        daemon,
        verdict,
        directory,
        in_force,
        set_by_files,
        restart,
        as_daemon: daemons_uid.is_some(),
    }
}

/// The group of a user of the system; one without an account has the group of its own number.
fn group_of(uid: u32) -> u32 {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    user.map_or(uid, |user| user.gid.as_raw())
}

/// The data directory of the daemon that answers, which may have been started with another than its settings
/// name. None where this user may not ask.
pub(super) fn data_dir_in_force(context: &Context) -> Option<PathBuf> {
    let (data_dir, _) = settings_in_force(context)?.remove("data_dir")?;
    Some(data_dir.into())
}

fn settings_in_force(context: &Context) -> Option<Settings> {
    let settings = context.connect().ok()?.call(&api::Settings {}).ok()?.0.into_iter();
    Some(settings.map(|(name, Setting { value, source })| (name, (value, source))).collect())
}

/// The daemon's binary: the installed one, or the one beside this program.
fn find_daemon() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("cortexd"));
    [Some(PathBuf::from(INSTALLED)), beside].into_iter().flatten().find(|path| path.is_file())
}

pub(super) fn check(facts: &ConfigurationFacts) -> Vec<Finding> {
    let mut findings = vec![file(facts)];
    findings.extend(facts.directory.as_ref().map(directory));
    findings.extend(in_force(facts));
    findings
}

fn file(facts: &ConfigurationFacts) -> Finding {
    let Some((path, place)) = &facts.file else {
        return Finding::ok(CONFIGURATION, "no file is named, the defaults are in force");
    };
    let shown = path.display();
    match (place, &facts.daemon) {
        (PathState::Absent, _) => {
            // The unit names the file, so the daemon would not start without it.
            let text = format!("{shown} is not there, and cortexd.service asks for it");
            let mend = format!("touch {shown}");
            return Finding::problem(CONFIGURATION, text, mend);
        }
        (PathState::Hidden, _) => {
            return Finding::hidden(CONFIGURATION, format!("this user may not read {shown}"));
        }
        (PathState::Failed(error), _) => {
            let text = format!("{shown} cannot be looked at: {error}");
            return Finding::problem(CONFIGURATION, text, format!("ls -l {shown}"));
        }
        (PathState::Exists(_), None) => {
            return Finding::unchecked(CONFIGURATION, "cortexd is not found, it could check it");
        }
        (PathState::Exists(_), Some(_)) => {}
    }
    let daemon = facts.daemon.as_deref().unwrap_or(Path::new(INSTALLED)).display();
    match &facts.verdict {
        Some(Answer::Ended { success: true, .. }) => {
            Finding::ok(CONFIGURATION, format!("{shown} is valid"))
        }
        Some(Answer::Ended { stderr, .. }) if stderr.contains("Permission denied") => {
            cannot_read(facts, stderr)
        }
        Some(Answer::Ended { stderr, .. }) => Finding::problem(
            CONFIGURATION,
            first_line(stderr),
            format!("mend the file, then: {daemon} --check --config {shown}"),
        ),
        Some(Answer::Failed(why)) => Finding::unchecked(CONFIGURATION, why),
        Some(Answer::Absent) | None => {
            Finding::unchecked(CONFIGURATION, format!("{daemon} did not check {shown}"))
        }
    }
}

/// Whether the daemon may read its files is known only to a user that can become the daemon's.
fn cannot_read(facts: &ConfigurationFacts, stderr: &str) -> Finding {
    let first_line = first_line(stderr);
    if !facts.as_daemon {
        return Finding::hidden(CONFIGURATION, format!("this user may not look: {first_line}"));
    }
    let files = facts.file.as_ref().map_or_else(String::new, |(file, _)| {
        format!("chmod a+rX {0} {0}.d {0}.d/*.toml", file.display())
    });
    Finding::problem(CONFIGURATION, format!("the daemon's user cannot: {first_line}"), files)
}

/// Compares what the files say with what the daemon runs with.
fn in_force(facts: &ConfigurationFacts) -> Option<Finding> {
    let Some(Answer::Ended { success: true, stdout, .. }) = &facts.verdict else {
        return None;
    };
    let Some(running) = &facts.in_force else {
        let text = "only root can ask a running daemon whether the settings are in force";
        return Some(Finding::unchecked(IN_FORCE, text));
    };
    let said: BTreeMap<&str, &str> =
        stdout.lines().filter_map(|line| line.trim().split_once(" = ")).collect();
    let of_files = |source: &Option<String>| source.as_deref().is_some_and(|it| it.contains(':'));
    let once_set = running.iter().filter(|(_, (_, source))| of_files(source)).map(|(key, _)| key);
    let mut stale: Vec<&str> = (facts.set_by_files.iter().chain(once_set))
        .map(String::as_str)
        // An option or a variable of the daemon's own counts more than its files.
        .filter(|key| {
            running.get(*key).is_none_or(|(_, source)| source.is_none() || of_files(source))
        })
        .filter(|key| said.get(key).copied() != running.get(*key).map(|(value, _)| value.as_str()))
        .collect();
    stale.sort_unstable();
    stale.dedup();
    if stale.is_empty() {
        return Some(Finding::ok(IN_FORCE, "the daemon runs with what the configuration says"));
    }
    let text =
        format!("the daemon does not run with what the configuration says of {}", stale.join(", "));
    Some(Finding::problem(
        IN_FORCE,
        text,
        format!("cortex reload, or where it refuses: {}", facts.restart),
    ))
}

/// The first and the last line of a message: an error in the file is shown with the line that it is about.
fn first_line(stderr: &str) -> String {
    let mut lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("the daemon refuses it without a message");
    let first = first.strip_prefix("error: ").unwrap_or(first);
    match lines.next_back() {
        Some(last) => format!("{first}: {last}"),
        None => first.to_owned(),
    }
}

fn directory(place: &PathState) -> Finding {
    match place {
        PathState::Exists(meta) if meta.uid != ROOT => Finding::problem(
            DIRECTORY,
            format!("{SYSTEM_DIRECTORY} belongs to {}, it should be root's", user(meta.uid)),
            format!("chown -R root:root {SYSTEM_DIRECTORY}"),
        ),
        PathState::Exists(meta) if meta.mode & WRITABLE_BY_OTHERS != 0 => Finding::problem(
            DIRECTORY,
            format!("{SYSTEM_DIRECTORY} has mode {:04o}, others may write there", meta.mode),
            format!("chmod go-w {SYSTEM_DIRECTORY}"),
        ),
        PathState::Exists(_) => {
            Finding::ok(DIRECTORY, format!("only root may change {SYSTEM_DIRECTORY}"))
        }
        PathState::Absent => Finding::problem(
            DIRECTORY,
            format!("{SYSTEM_DIRECTORY} is not there"),
            format!("install -d -m 0755 {SYSTEM_DIRECTORY}"),
        ),
        PathState::Hidden | PathState::Failed(_) => {
            Finding::hidden(DIRECTORY, format!("{SYSTEM_DIRECTORY} cannot be looked at"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::super::place::{Kind, Meta};
    use super::*;

    fn there(kind: Kind, uid: u32, mode: u32) -> PathState {
        PathState::Exists(Meta { kind, uid, mode })
    }

    fn said(success: bool, stderr: &str) -> Option<Answer> {
        Some(Answer::Ended { success, stdout: String::new(), stderr: stderr.into() })
    }

    fn healthy() -> ConfigurationFacts {
        ConfigurationFacts {
            in_force: Some(Settings::new()),
            set_by_files: Vec::new(),
            restart: "systemctl restart cortexd",
            as_daemon: false,
            file: Some(("/etc/cortex/cortex.toml".into(), there(Kind::File, 0, 0o644))),
            daemon: Some("/usr/libexec/cortexd".into()),
            verdict: said(true, ""),
            directory: Some(there(Kind::Directory, 0, 0o755)),
        }
    }

    #[test]
    fn a_valid_file_in_roots_directory_is_well_and_so_is_none() {
        let none = ConfigurationFacts { file: None, verdict: None, directory: None, ..healthy() };
        for facts in [healthy(), none] {
            assert!(check(&facts).iter().all(|finding| finding.status == Status::Ok));
        }
    }

    #[test]
    fn what_the_daemon_refuses_is_told_in_its_words() {
        let refusal = "error: the configuration c is not valid: TOML parse error at line 1, column 1\n  \
                       |\n1 | x = 0\n  | ^\nunknown field `x`\n";
        let found = check(&ConfigurationFacts { verdict: said(false, refusal), ..healthy() });
        assert_eq!(
            found[0],
            Finding::problem(
                CONFIGURATION,
                "the configuration c is not valid: TOML parse error at line 1, column 1: unknown field `x`",
                "mend the file, then: /usr/libexec/cortexd --check --config /etc/cortex/cortex.toml",
            )
        );
    }

    #[test]
    fn a_file_that_is_absent_is_a_problem() {
        let facts = ConfigurationFacts {
            file: Some(("/etc/cortex/cortex.toml".into(), PathState::Absent)),
            verdict: None,
            ..healthy()
        };
        assert_eq!(check(&facts)[0].mend.as_deref(), Some("touch /etc/cortex/cortex.toml"));
    }

    #[test]
    fn what_cannot_be_checked_says_so() {
        let file = |place| Some((PathBuf::from("/etc/cortex/cortex.toml"), place));
        for facts in [
            ConfigurationFacts { file: file(PathState::Hidden), ..healthy() },
            ConfigurationFacts { daemon: None, verdict: None, ..healthy() },
            ConfigurationFacts {
                verdict: said(false, "error: cannot read c: Permission denied"),
                ..healthy()
            },
            ConfigurationFacts { verdict: Some(Answer::Failed("it hangs".into())), ..healthy() },
            ConfigurationFacts { verdict: Some(Answer::Absent), ..healthy() },
        ] {
            assert_eq!(check(&facts)[0].status, Status::Unchecked, "{facts:?}");
        }
        let facts = ConfigurationFacts { directory: Some(PathState::Hidden), ..healthy() };
        assert_eq!(check(&facts)[1].status, Status::Unchecked);
    }

    #[test]
    fn a_directory_that_is_not_roots_alone_is_a_problem() {
        for (directory, mend) in [
            (there(Kind::Directory, 4_000_000_001, 0o755), "chown -R root:root /etc/cortex"),
            (there(Kind::Directory, 0, 0o775), "chmod go-w /etc/cortex"),
            (PathState::Absent, "install -d -m 0755 /etc/cortex"),
        ] {
            let found = check(&ConfigurationFacts { directory: Some(directory), ..healthy() });
            assert_eq!(found[1].status, Status::Problem);
            assert_eq!(found[1].mend.as_deref(), Some(mend));
        }
    }

    #[test]
    fn a_drop_in_that_the_daemon_cannot_read_is_a_problem_where_it_was_asked_as_its_user() {
        let refusal = "error: cannot read the configuration /etc/cortex/cortex.toml.d/a.toml: \
            Permission denied (os error 13)";
        let facts =
            ConfigurationFacts { verdict: said(false, refusal), as_daemon: true, ..healthy() };
        let found = &check(&facts)[0];
        assert_eq!(found.status, Status::Problem);
        assert!(found.text.contains("cortex.toml.d/a.toml"), "{found:?}");
    }

    fn in_force(key: &str, value: &str, source: Option<&str>) -> Option<Settings> {
        Some([(key.to_owned(), (value.to_owned(), source.map(ToOwned::to_owned)))].into())
    }

    #[test]
    fn a_setting_that_the_daemon_does_not_run_with_is_named() {
        let file = Some("/etc/cortex/cortex.toml:3");
        let status = |said_now: &str, set_now: &[&str], running| {
            let stdout = format!("the settings are valid:\n  {said_now}\n");
            let verdict = Some(Answer::Ended { success: true, stdout, stderr: String::new() });
            let set_by_files = set_now.iter().map(ToString::to_string).collect();
            let facts =
                ConfigurationFacts { verdict, set_by_files, in_force: running, ..healthy() };
            let found = check(&facts).pop().expect("a finding");
            assert_eq!(found.check, IN_FORCE);
            found.status
        };
        let running = |value, source| in_force("threads", value, source);
        assert_eq!(status("threads = 4", &["threads"], running("4", file)), Status::Ok);
        assert_eq!(status("threads = 4", &["threads"], running("2", file)), Status::Problem);
        assert_eq!(status("threads = 4", &["threads"], running("2", None)), Status::Problem);
        assert_eq!(status("threads = 8", &[], running("2", file)), Status::Problem, "taken out");
        assert_eq!(status("threads = 4", &["threads"], running("2", Some("--x"))), Status::Ok);
        assert_eq!(status("threads = 4", &["threads"], None), Status::Unchecked);
    }
}
