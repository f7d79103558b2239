//! The socket's file: there, open to those it is for, and in a directory where nobody can replace it.
//! Whether anybody answers on it is `daemon`'s.

use std::path::{Path, PathBuf};

use super::Whose;
use super::finding::Finding;
use super::place::{Kind, Meta, Place, WRITABLE_BY_OTHERS, owner, user};

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
pub(super) struct Facts {
    path: PathBuf,
    whose: Whose,
    own_uid: u32,
    socket: Place,
    directory: Place,
}

pub(super) fn gather(path: &Path, whose: Whose, own_uid: u32) -> Facts {
    let directory = path.parent().unwrap_or(Path::new("/"));
    Facts {
        path: path.to_owned(),
        whose,
        own_uid,
        socket: Place::look(path),
        directory: Place::look(directory),
    }
}

impl Facts {
    /// Who has made the socket, where it is there.
    pub(super) fn owner(&self) -> Option<u32> {
        match &self.socket {
            Place::There(meta) => Some(meta.uid),
            Place::Absent | Place::Hidden | Place::Failed(_) => None,
        }
    }
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let path = facts.path.display();
    let meta = match &facts.socket {
        Place::Absent => {
            let mend = match facts.whose {
                Whose::System => "systemctl enable --now cortexd.socket".to_owned(),
                Whose::User => format!("cortexd --socket {path}"),
            };
            return vec![Finding::problem(SOCKET, format!("{path} is not there"), mend)];
        }
        Place::Hidden => {
            let dir = facts.path.parent().unwrap_or(Path::new("/")).display();
            let text = format!("{path} cannot be reached by this user");
            return vec![Finding::problem(SOCKET, text, format!("ls -ld {dir}; chmod 0755 {dir}"))];
        }
        Place::Failed(error) => {
            return vec![Finding::problem(
                SOCKET,
                format!("{path}: {error}"),
                format!("ls -l {path}"),
            )];
        }
        Place::There(meta) if meta.kind != Kind::Socket => {
            let start = match facts.whose {
                Whose::System => "systemctl restart cortexd.socket".to_owned(),
                Whose::User => format!("cortexd --socket {path}"),
            };
            let mend = format!("mv {path} {path}.aside && {start}");
            return vec![Finding::problem(SOCKET, format!("{path} is no socket"), mend)];
        }
        Place::There(meta) => meta,
    };
    vec![Finding::ok(SOCKET, format!("{path} is there")), mode(facts, *meta), directory(facts)]
}

fn mode(facts: &Facts, meta: Meta) -> Finding {
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

fn directory(facts: &Facts) -> Finding {
    let dir = facts.path.parent().unwrap_or(Path::new("/")).display();
    let meta = match &facts.directory {
        Place::There(meta) => meta,
        Place::Absent | Place::Hidden | Place::Failed(_) => {
            return Finding::unchecked(DIRECTORY, format!("{dir} cannot be looked at"));
        }
    };
    let safe = meta.mode & WRITABLE_BY_OTHERS == 0 || meta.mode & STICKY != 0;
    if !safe {
        let text =
            format!("{dir} has mode {:04o}: others may put a socket of their own there", meta.mode);
        return Finding::problem(DIRECTORY, text, format!("chmod go-w {dir}"));
    }
    let trusted = meta.uid == ROOT || (facts.whose == Whose::User && meta.uid == facts.own_uid);
    if !trusted {
        let text = format!("{dir} belongs to {}, who may put another socket there", user(meta.uid));
        let rightful = match facts.whose {
            Whose::System => "root".to_owned(),
            Whose::User => owner(facts.own_uid),
        };
        return Finding::problem(DIRECTORY, text, format!("chown {rightful} {dir}"));
    }
    if facts.whose == Whose::System && meta.mode & ENTERED_BY_ALL == 0 {
        let text = format!("{dir} has mode {:04o}: only some users can enter it", meta.mode);
        return Finding::problem(DIRECTORY, text, format!("chmod 0755 {dir}"));
    }
    Finding::ok(DIRECTORY, format!("only {} may change {dir}", user(meta.uid)))
}

#[cfg(test)]
mod tests {
    use super::super::finding::{self, Status};
    use super::*;

    fn meta(kind: Kind, uid: u32, mode: u32) -> Place {
        Place::There(Meta { kind, uid, mode })
    }

    fn healthy() -> Facts {
        Facts {
            path: "/run/cortex/cortex.sock".into(),
            whose: Whose::System,
            own_uid: 1000,
            socket: meta(Kind::Socket, 0, 0o666),
            directory: meta(Kind::Directory, 0, 0o755),
        }
    }

    /// The one problem that `facts` have: what it is about, and what mends it.
    fn the_problem(facts: &Facts) -> (&'static str, String) {
        finding::the_problem(check(facts))
    }

    #[test]
    fn a_socket_as_the_unit_makes_it_is_well() {
        assert!(check(&healthy()).iter().all(|finding| finding.status == Status::Ok));
    }

    #[test]
    fn a_socket_that_is_absent_unreachable_or_no_socket_is_the_only_problem_told() {
        for (socket, mend) in [
            (Place::Absent, "systemctl enable --now cortexd.socket"),
            (Place::Hidden, "ls -ld /run/cortex; chmod 0755 /run/cortex"),
            (Place::Failed("too many links".into()), "ls -l /run/cortex/cortex.sock"),
            (
                meta(Kind::File, 0, 0o666),
                "mv /run/cortex/cortex.sock /run/cortex/cortex.sock.aside && systemctl restart cortexd.socket",
            ),
        ] {
            let facts = Facts { socket, ..healthy() };
            assert_eq!(the_problem(&facts), (SOCKET, mend.to_owned()));
        }
    }

    #[test]
    fn a_user_whose_daemon_is_not_there_is_told_how_to_start_one() {
        let start = "cortexd --socket /s";
        for (socket, mend) in [
            (Place::Absent, start.to_owned()),
            (meta(Kind::File, 1000, 0o644), format!("mv /s /s.aside && {start}")),
        ] {
            let facts = Facts { path: "/s".into(), whose: Whose::User, socket, ..healthy() };
            assert_eq!(the_problem(&facts), (SOCKET, mend));
        }
    }

    #[test]
    fn a_socket_that_not_everybody_may_use_is_a_problem() {
        let facts = Facts { socket: meta(Kind::Socket, 0, 0o660), ..healthy() };
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
            let facts = Facts { directory, ..healthy() };
            assert_eq!(the_problem(&facts), (DIRECTORY, mend.to_owned()));
        }
    }

    #[test]
    fn a_users_own_directory_may_be_closed_to_others_and_a_shared_one_sticky() {
        for directory in [meta(Kind::Directory, 1000, 0o700), meta(Kind::Directory, 0, 0o1777)] {
            let facts = Facts { whose: Whose::User, directory, ..healthy() };
            assert!(check(&facts).iter().all(|finding| finding.status == Status::Ok));
        }
    }

    #[test]
    fn a_directory_that_cannot_be_looked_at_is_not_called_well() {
        let facts = Facts { directory: Place::Hidden, ..healthy() };
        assert_eq!(check(&facts)[2].status, Status::Unchecked);
    }
}
