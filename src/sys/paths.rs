//! Where the socket and the data directory are when nobody says otherwise, for daemon and client alike.
//! Leaves making and opening them to its callers; only [`first_usable`] looks at the file system.
//!
//! ```text
//! socket    flag > CORTEX_SOCKET   > config > root: /run/cortex/cortex.sock
//!                                             else: $XDG_RUNTIME_DIR/cortex/cortex.sock, /tmp/cortex-UID/cortex.sock
//! data      flag > CORTEX_DATA_DIR > config > $STATE_DIRECTORY, where systemd has made one for the service
//!                                             root: /var/lib/cortex
//!                                             else: $XDG_STATE_HOME/cortex, ~/.local/state/cortex
//! marker    $RUNTIME_DIRECTORY, where systemd has made one for the service
//!           root: /run/cortex-anchor
//!           else: $XDG_RUNTIME_DIR/cortex-anchor, none
//! ```

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The socket of the system's daemon.
pub const SYSTEM_SOCKET: &str = "/run/cortex/cortex.sock";

/// The data directory of the system's daemon.
pub const SYSTEM_DATA_DIR: &str = "/var/lib/cortex";

/// The configuration file of the system's daemon: its unit names it.
pub const SYSTEM_CONFIGURATION: &str = "/etc/cortex/cortex.toml";

/// Files that Mnesia makes, in which the original daemon kept its tables.
const MNESIA_FILES: [&str; 6] = [
    "decision_tab.log",
    "decision.log",
    "fallback.bup",
    "latest.log",
    "previous.log",
    "schema.dat",
];

/// How names of the files end in which it keeps one table.
pub const MNESIA_TABLES: [&str; 3] = [".DCD", ".DCL", ".DAT"];

/// True for the name of a file that Mnesia has made.
#[must_use]
pub fn is_mnesia_file(name: &str) -> bool {
    MNESIA_FILES.contains(&name.to_ascii_lowercase().as_str())
        || MNESIA_TABLES.iter().any(|suffix| name.ends_with(suffix))
}

/// Write bits of group and others: with one of them set, a directory's owner does not decide what is in it.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What the process environment says about places; a value, so that the choice can be tested without touching it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// The effective user id, which is also what the daemon sees of a client.
    pub uid: u32,
    /// True where the system's service manager has started this process: it gives each service an id, and
    /// it is process 1. A user's service manager gives ids too, and is another process.
    pub system_service: bool,
    pub cortex_socket: Option<PathBuf>,
    pub cortex_data_dir: Option<PathBuf>,
    /// What systemd has made for the service, by `StateDirectory=` in its unit.
    pub state_directory: Option<PathBuf>,
    /// Where systemd has put the service's credentials, by `LoadCredential=` and its like.
    pub credentials_directory: Option<PathBuf>,
    /// What systemd has made for the service in memory, by `RuntimeDirectory=` in its unit.
    pub runtime_directory: Option<PathBuf>,
    pub xdg_runtime_dir: Option<PathBuf>,
    pub xdg_state_home: Option<PathBuf>,
    pub home: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process. An empty variable counts as unset, and so does a relative
    /// XDG directory, as the XDG base directory specification asks.
    pub fn of_this_process() -> Self {
        let variable =
            |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let absolute = |name| variable(name).filter(|path| path.is_absolute());
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            system_service: variable("INVOCATION_ID").is_some()
                && std::os::unix::process::parent_id() == 1,
            cortex_socket: variable("CORTEX_SOCKET"),
            cortex_data_dir: variable("CORTEX_DATA_DIR"),
            state_directory: absolute("STATE_DIRECTORY"),
            credentials_directory: absolute("CREDENTIALS_DIRECTORY"),
            runtime_directory: absolute("RUNTIME_DIRECTORY"),
            xdg_runtime_dir: absolute("XDG_RUNTIME_DIR"),
            xdg_state_home: absolute("XDG_STATE_HOME"),
            home: absolute("HOME"),
        }
    }
}

/// What somebody said outright, the nearest first: flag, environment variable, configuration file.
pub fn first_named(
    flag: Option<PathBuf>,
    variable: Option<PathBuf>,
    config: Option<PathBuf>,
) -> Option<PathBuf> {
    flag.or(variable).or(config)
}

/// Where a daemon listens by default. The directory may have to be made, for this uid alone.
pub fn default_socket_for_daemon(env: &Environment) -> PathBuf {
    if env.uid == 0 {
        return PathBuf::from(SYSTEM_SOCKET);
    }
    runtime_socket(env).unwrap_or_else(|| fallback_socket(env.uid))
}

/// Where a client looks by default, in this order; the last candidate holds without a condition.
pub fn socket_candidates_for_client(env: &Environment) -> Vec<SocketCandidate> {
    let system =
        SocketCandidate { path: PathBuf::from(SYSTEM_SOCKET), condition: Condition::Always };
    if env.uid == 0 {
        return vec![system];
    }
    let runtime =
        runtime_socket(env).map(|path| SocketCandidate { path, condition: Condition::Exists });
    let fallback =
        SocketCandidate { path: fallback_socket(env.uid), condition: Condition::InOwnDirectory };
    runtime.into_iter().chain([fallback, system]).collect()
}

/// Where a daemon keeps its data by default; `None` if the user has neither a state nor a home directory.
pub fn default_data_dir(env: &Environment) -> Option<PathBuf> {
    if let Some(made) = &env.state_directory {
        return Some(made.clone());
    }
    if env.uid == 0 {
        return Some(PathBuf::from(SYSTEM_DATA_DIR));
    }
    let state = env
        .xdg_state_home
        .clone()
        .or_else(|| env.home.as_ref().map(|home| home.join(".local/state")))?;
    Some(state.join("cortex"))
}

/// Where the daemon notes how far its database has come: a directory that a restart of the machine clears.
/// None where there is none.
pub fn rollback_marker_dir(env: &Environment) -> Option<PathBuf> {
    let own = env.runtime_directory.clone();
    let system = (env.uid == 0).then(|| PathBuf::from("/run/cortex-anchor"));
    own.or(system).or_else(|| Some(env.xdg_runtime_dir.as_ref()?.join("cortex-anchor")))
}

/// A place where the daemon's socket may be, and what must hold for a client to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketCandidate {
    pub path: PathBuf,
    pub condition: Condition,
}

/// What must hold of a [`SocketCandidate`] before a client connects to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing: connecting says why it fails.
    Always,
    /// Something is there. Enough where only this user can have put it.
    Exists,
    /// It is there, in a directory that belongs to the user alone: in `/tmp` anybody may make the directory first.
    InOwnDirectory,
}

/// The first candidate whose condition holds now.
pub fn first_usable(candidates: &[SocketCandidate], uid: u32) -> Option<&Path> {
    candidates
        .iter()
        .find(|candidate| holds(candidate, uid))
        .map(|candidate| candidate.path.as_path())
}

fn holds(candidate: &SocketCandidate, uid: u32) -> bool {
    match candidate.condition {
        Condition::Always => true,
        Condition::Exists => candidate.path.exists(),
        Condition::InOwnDirectory => {
            candidate.path.exists() && candidate.path.parent().is_some_and(|dir| is_own(dir, uid))
        }
    }
}

/// Whether `dir` is a real directory (not a link to one) that `uid` owns and nobody else may write.
fn is_own(dir: &Path, uid: u32) -> bool {
    std::fs::symlink_metadata(dir).is_ok_and(|meta| {
        meta.is_dir() && meta.uid() == uid && meta.mode() & WRITABLE_BY_OTHERS == 0
    })
}

fn runtime_socket(env: &Environment) -> Option<PathBuf> {
    env.xdg_runtime_dir.as_ref().map(|dir| dir.join("cortex/cortex.sock"))
}

fn fallback_socket(uid: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/cortex-{uid}/cortex.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn user() -> Environment {
        Environment { uid: 1000, home: Some("/home/ann".into()), ..Environment::default() }
    }

    fn with_runtime_dir() -> Environment {
        Environment { xdg_runtime_dir: Some("/run/user/1000".into()), ..user() }
    }

    #[test]
    fn root_uses_the_system_places_whatever_xdg_says() {
        let env =
            Environment { uid: 0, xdg_state_home: Some("/state".into()), ..with_runtime_dir() };
        assert_eq!(default_socket_for_daemon(&env), Path::new(SYSTEM_SOCKET));
        assert_eq!(default_data_dir(&env).as_deref(), Some(Path::new(SYSTEM_DATA_DIR)));
        assert_eq!(socket_candidates_for_client(&env).len(), 1);
    }

    #[test]
    fn a_users_daemon_listens_in_the_runtime_directory_else_in_tmp() {
        assert_eq!(
            default_socket_for_daemon(&with_runtime_dir()),
            Path::new("/run/user/1000/cortex/cortex.sock")
        );
        assert_eq!(default_socket_for_daemon(&user()), Path::new("/tmp/cortex-1000/cortex.sock"));
    }

    #[test]
    fn a_client_looks_wherever_a_daemon_may_listen_and_last_at_the_systems() {
        for env in [user(), with_runtime_dir()] {
            let candidates = socket_candidates_for_client(&env);
            assert!(
                candidates
                    .iter()
                    .any(|candidate| candidate.path == default_socket_for_daemon(&env))
            );
            assert_eq!(candidates.last().map(|last| last.condition), Some(Condition::Always));
            assert_eq!(
                candidates.last().map(|last| last.path.as_path()),
                Some(Path::new(SYSTEM_SOCKET))
            );
        }
    }

    #[test]
    fn data_lives_in_the_state_directory_else_under_home_else_nowhere() {
        let state = Environment { xdg_state_home: Some("/state".into()), ..user() };
        assert_eq!(default_data_dir(&state).as_deref(), Some(Path::new("/state/cortex")));
        assert_eq!(
            default_data_dir(&user()).as_deref(),
            Some(Path::new("/home/ann/.local/state/cortex"))
        );
        assert_eq!(default_data_dir(&Environment { home: None, ..user() }), None);
    }

    #[test]
    fn a_service_keeps_its_data_where_systemd_has_made_room_for_it() {
        let service = Environment {
            state_directory: Some("/var/lib/cortex".into()),
            home: Some("/var/lib/cortex".into()),
            ..user()
        };
        assert_eq!(default_data_dir(&service).as_deref(), Some(Path::new(SYSTEM_DATA_DIR)));
    }

    #[test]
    fn a_flag_beats_the_variable_and_the_variable_beats_the_configuration() {
        let path = |name: &str| Some(PathBuf::from(name));
        assert_eq!(first_named(path("/f"), path("/v"), path("/c")), path("/f"));
        assert_eq!(first_named(None, path("/v"), path("/c")), path("/v"));
        assert_eq!(first_named(None, None, path("/c")), path("/c"));
        assert_eq!(first_named(None, None, None), None);
    }

    #[test]
    fn a_socket_in_a_directory_that_others_may_write_is_passed_over() {
        let uid = nix::unistd::geteuid().as_raw();
        let dir = tempfile::tempdir().expect("make a directory");
        let path = dir.path().join("cortex.sock");
        let own = SocketCandidate { path: path.clone(), condition: Condition::InOwnDirectory };
        let system = SocketCandidate { path: SYSTEM_SOCKET.into(), condition: Condition::Always };
        let candidates = [own, system];
        let chosen = || first_usable(&candidates, uid).map(Path::to_path_buf);

        assert_eq!(chosen().as_deref(), Some(Path::new(SYSTEM_SOCKET)), "nothing is there yet");
        std::fs::write(&path, "").expect("put something there");
        assert_eq!(chosen().as_deref(), Some(path.as_path()));
        assert_eq!(
            first_usable(&candidates, uid + 1),
            Some(Path::new(SYSTEM_SOCKET)),
            "somebody else's directory"
        );
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777))
            .expect("open the directory");
        assert_eq!(chosen().as_deref(), Some(Path::new(SYSTEM_SOCKET)));
    }
}
