//! The socket's file: there, open to those it is for, and in a directory where nobody can replace it.
//! Whether anybody answers on it is `daemon`'s.

use std::path::{Path, PathBuf};

use super::DaemonScope;
use super::finding::Finding;
use super::place::{Kind, Meta, PathState, WRITABLE_BY_OTHERS, owner, user};

const SOCKET: &str = "socket";
const MODE: &str = "socket-mode";
const DIRECTORY: &str = "socket-dir";

/// Everybody may connect; who they are, the kernel says.
const WANTED_MODE: u32 = 0o666;

/// The execute bit of others: without it they cannot reach what is in a directory.
const ENTERED_BY_ALL: u32 = 0o001;

/// With it, nobody renames or removes what is another's, as in /tmp.
const STICKY: u32 = 0o1000;

const ROOT: u32 = 0;

#[derive(Debug)]
pub(super) struct SocketFacts {
    path: PathBuf,
    whose: DaemonScope,
    own_uid: u32,
    socket: PathState,
    directory: PathState,
}

pub(super) fn gather(path: &Path, whose: DaemonScope, own_uid: u32) -> SocketFacts {
    let directory = path.parent().unwrap_or(Path::new("/"));
    SocketFacts {
        path: path.to_owned(),
        whose,
        own_uid,
        socket: PathState::look(path),
        directory: PathState::look(directory),
    }
}

impl SocketFacts {
    /// Who has made the socket, where it is there.
    pub(super) fn owner(&self) -> Option<u32> {
        match &self.socket {
            PathState::Exists(meta) => Some(meta.uid),
            PathState::Absent | PathState::Hidden | PathState::Failed(_) => None,
        }
    }
}

pub(super) fn check(facts: &SocketFacts) -> Vec<Finding> {
    let path = facts.path.display();
    let meta = match &facts.socket {
        PathState::Absent => {
            let mend = match facts.whose {
                DaemonScope::System => "systemctl enable --now cortexd.socket".to_owned(),
                DaemonScope::User => format!("cortexd --socket {path}"),
            };
            return vec![Finding::problem(SOCKET, format!("{path} is not there"), mend)];
        }
        PathState::Hidden => {
            let dir = facts.path.parent().unwrap_or(Path::new("/")).display();
            let text = format!("{path} cannot be reached by this user");
            return vec![Finding::problem(SOCKET, text, format!("ls -ld {dir}; chmod 0755 {dir}"))];
        }
        PathState::Failed(error) => {
            return vec![Finding::problem(
                SOCKET,
                format!("{path}: {error}"),
                format!("ls -l {path}"),
            )];
        }
        PathState::Exists(meta) if meta.kind != Kind::Socket => {
            let start = match facts.whose {
                DaemonScope::System => "systemctl restart cortexd.socket".to_owned(),
                DaemonScope::User => format!("cortexd --socket {path}"),
            };
            let mend = format!("mv {path} {path}.aside && {start}");
            return vec![Finding::problem(SOCKET, format!("{path} is no socket"), mend)];
        }
        PathState::Exists(meta) => meta,
    };
    vec![Finding::ok(SOCKET, format!("{path} is there")), mode(facts, *meta), directory(facts)]
}

fn mode(facts: &SocketFacts, meta: Meta) -> Finding {
    let path = facts.path.display();
    if meta.mode == WANTED_MODE {
        return Finding::ok(MODE, "everybody may connect (0666)");
    }
    Finding::problem(
        MODE,
        format!("{path} has mode {:04o}, it should be 0666", meta.mode),
        format!("chmod 0666 {path}"),
    )
}

fn directory(facts: &SocketFacts) -> Finding {
    let dir = facts.path.parent().unwrap_or(Path::new("/")).display();
    let meta = match &facts.directory {
        PathState::Exists(meta) => meta,
        PathState::Absent | PathState::Hidden | PathState::Failed(_) => {
            return Finding::unchecked(DIRECTORY, format!("{dir} cannot be looked at"));
        }
    };
    let safe = meta.mode & WRITABLE_BY_OTHERS == 0 || meta.mode & STICKY != 0;
    if !safe {
        let text =
            format!("{dir} has mode {:04o}: others may put a socket of their own there", meta.mode);
        return Finding::problem(DIRECTORY, text, format!("chmod go-w {dir}"));
    }
    let trusted =
        meta.uid == ROOT || (facts.whose == DaemonScope::User && meta.uid == facts.own_uid);
    if !trusted {
        let text = format!("{dir} belongs to {}, who may put another socket there", user(meta.uid));
        let rightful = match facts.whose {
            DaemonScope::System => "root".to_owned(),
            DaemonScope::User => owner(facts.own_uid),
        };
        return Finding::problem(DIRECTORY, text, format!("chown {rightful} {dir}"));
    }
    if facts.whose == DaemonScope::System && meta.mode & ENTERED_BY_ALL == 0 {
        let text = format!("{dir} has mode {:04o}: only some users can enter it", meta.mode);
        return Finding::problem(DIRECTORY, text, format!("chmod 0755 {dir}"));
    }
    Finding::ok(DIRECTORY, format!("only {} may change {dir}", user(meta.uid)))
}

#[cfg(test)]
mod tests {
    use super::super::finding::{self, Status};
    use super::*;

    fn meta(kind: Kind, uid: u32, mode: u32) -> PathState {
        PathState::Exists(Meta { kind, uid, mode })
    }

    fn healthy() -> SocketFacts {
        SocketFacts {
            path: "/run/cortex/cortex.sock".into(),
            whose: DaemonScope::System,
            own_uid: 1000,
            socket: meta(Kind::Socket, 0, 0o666),
            directory: meta(Kind::Directory, 0, 0o755),
        }
    }

    /// The one problem that `facts` have: what it is about, and what mends it.
    fn the_problem(facts: &SocketFacts) -> (&'static str, String) {
        finding::the_problem(check(facts))
    }

    #[test]
    fn a_socket_as_the_unit_makes_it_is_well() {
        assert!(check(&healthy()).iter().all(|finding| finding.status == Status::Ok));
    }

    #[test]
    fn a_socket_that_is_absent_unreachable_or_no_socket_is_the_only_problem_told() {
        for (socket, mend) in [
            (PathState::Absent, "systemctl enable --now cortexd.socket"),
            (PathState::Hidden, "ls -ld /run/cortex; chmod 0755 /run/cortex"),
            (PathState::Failed("too many links".into()), "ls -l /run/cortex/cortex.sock"),
            (
                meta(Kind::File, 0, 0o666),
                "mv /run/cortex/cortex.sock /run/cortex/cortex.sock.aside && systemctl restart cortexd.socket",
            ),
        ] {
            let facts = SocketFacts { socket, ..healthy() };
            assert_eq!(the_problem(&facts), (SOCKET, mend.to_owned()));
        }
    }

    #[test]
    fn a_user_whose_daemon_is_not_there_is_told_how_to_start_one() {
        let start = "cortexd --socket /s";
        for (socket, mend) in [
            (PathState::Absent, start.to_owned()),
            (meta(Kind::File, 1000, 0o644), format!("mv /s /s.aside && {start}")),
        ] {
            let facts =
                SocketFacts { path: "/s".into(), whose: DaemonScope::User, socket, ..healthy() };
            assert_eq!(the_problem(&facts), (SOCKET, mend));
        }
    }

    #[test]
    fn a_socket_that_not_everybody_may_use_is_a_problem() {
        let facts = SocketFacts { socket: meta(Kind::Socket, 0, 0o660), ..healthy() };
        assert_eq!(the_problem(&facts), (MODE, "chmod 0666 /run/cortex/cortex.sock".into()));
    }

    #[test]
    fn a_directory_in_which_others_can_replace_the_socket_is_a_problem() {
        for (directory, mend) in [
            (meta(Kind::Directory, 0, 0o775), "chmod go-w /run/cortex"),
            (meta(Kind::Directory, 0, 0o757), "chmod go-w /run/cortex"),
            (meta(Kind::Directory, 4_000_000_001, 0o755), "chown root /run/cortex"),
            (meta(Kind::Directory, 0, 0o700), "chmod 0755 /run/cortex"),
        ] {
            let facts = SocketFacts { directory, ..healthy() };
            assert_eq!(the_problem(&facts), (DIRECTORY, mend.to_owned()));
        }
    }

    #[test]
    fn a_users_own_directory_may_be_closed_to_others_and_a_shared_one_sticky() {
        for directory in [meta(Kind::Directory, 1000, 0o700), meta(Kind::Directory, 0, 0o1777)] {
            let facts = SocketFacts { whose: DaemonScope::User, directory, ..healthy() };
            assert!(check(&facts).iter().all(|finding| finding.status == Status::Ok));
        }
    }

    #[test]
    fn a_directory_that_cannot_be_looked_at_is_not_called_well() {
        let facts = SocketFacts { directory: PathState::Hidden, ..healthy() };
        assert_eq!(check(&facts)[2].status, Status::Unchecked);
    }
}
