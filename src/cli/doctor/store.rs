//! The data directory: there, closed to others, its owner's, and with room to spare.
//! What lies about in it is `leftovers`'; whether the data is sound, `cortex backup` checks.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::finding::Finding;
use super::place::{Kind, PathState, owner, user};

pub(super) const CHECK: &str = "data-dir";
const FILE: &str = "database";
const SPACE: &str = "disk-space";

/// Bits that a directory of everybody's records gives to nobody but its owner.
const FOR_OTHERS: u32 = 0o077;

/// The log alone may grow to 1 GiB while a long read holds on to it.
const LEAST_FREE: u64 = 1 << 30;

/// What the rest of the installation says of the directory.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    /// Where the unit lets the daemon write; none where nothing keeps it from writing anywhere.
    pub(super) writable: Option<Vec<PathBuf>>,
    /// Who the daemon runs as; none where that user does not exist.
    pub(super) uid: Option<u32>,
    /// Bytes of the database and its log, where the daemon answers.
    pub(super) disk_bytes: Option<u64>,
    /// What starts the daemon.
    pub(super) start: &'static str,
}

#[derive(Debug)]
pub(super) struct StoreFacts {
    dir: PathBuf,
    directory: PathState,
    /// The directory is a symbolic link to one.
    is_link: bool,
    database: PathState,
    /// Bytes that an unprivileged user may still write.
    free: Result<u64, String>,
    expected: Expected,
}

pub(super) fn gather(dir: &Path, expected: Expected) -> StoreFacts {
    let free = statvfs(dir)
        .map(|space| space.blocks_available().saturating_mul(space.fragment_size()))
        .map_err(|errno| errno.to_string());
    StoreFacts {
        dir: dir.to_owned(),
        directory: PathState::look(dir),
        is_link: dir.is_symlink(),
        database: PathState::look(&dir.join("cortex.db")),
        free,
        expected,
    }
}

pub(super) fn check(facts: &StoreFacts) -> Vec<Finding> {
    let found = directory(facts);
    let is_there = matches!(facts.directory, PathState::Exists(_));
    let mut findings = vec![found];
    if is_there {
        findings.extend([database(facts), space(facts)]);
    }
    findings
}

fn directory(facts: &StoreFacts) -> Finding {
    let dir = facts.dir.display();
    let meta = match &facts.directory {
        PathState::Exists(meta) => meta,
        PathState::Absent => {
            let text = format!("{dir} is not there, no daemon has run with it");
            return Finding::problem(CHECK, text, facts.expected.start);
        }
        PathState::Hidden => {
            return Finding::hidden(CHECK, format!("this user may not look at {dir}"));
        }
        PathState::Failed(error) => {
            let text = format!("{dir} cannot be looked at: {error}");
            return Finding::problem(CHECK, text, format!("ls -ld {dir}"));
        }
    };
    if meta.kind != Kind::Directory {
        let text = format!("{dir} is no directory");
        return Finding::problem(CHECK, text, format!("mv {dir} {dir}.aside"));
    }
    if facts.is_link && facts.expected.writable.is_some() {
        let text = format!("{dir} is a symbolic link, which systemd takes for no state directory");
        let mend = format!(
            "rm {dir} && mkdir {dir}, and mount --bind the other directory there, with a line in /etc/fstab"
        );
        return Finding::problem(CHECK, text, mend);
    }
    if let Some(writable) = &facts.expected.writable
        && !writable.iter().any(|path| facts.dir.starts_with(path))
    {
        // Its owner would change nothing: ProtectSystem=strict.
        let text = format!("data_dir is {dir}, where cortexd.service may not write");
        let mend = format!(
            "systemctl edit cortexd, with [Service] and ReadWritePaths={dir}; then: systemctl restart cortexd"
        );
        return Finding::problem(CHECK, text, mend);
    }
    let Some(daemon) = facts.expected.uid else {
        let text = "the user of cortexd.service does not exist";
        return Finding::problem(CHECK, text, "systemd-sysusers cortexd.conf");
    };
    if meta.uid != daemon {
        let text =
            format!("{dir} belongs to {}, the daemon runs as {}", user(meta.uid), user(daemon));
        return Finding::problem(CHECK, text, format!("chown -R {}: {dir}", owner(daemon)));
    }
    if meta.mode & FOR_OTHERS != 0 {
        let text = format!("{dir} has mode {:04o}, it should be 0700", meta.mode);
        return Finding::problem(CHECK, text, format!("chmod 0700 {dir}"));
    }
    Finding::ok(CHECK, format!("{dir} is closed to all but {}", user(daemon)))
}

/// A database put there by root is one that the daemon cannot open.
fn database(facts: &StoreFacts) -> Finding {
    let path = facts.dir.join("cortex.db");
    let path = path.display();
    match (&facts.database, facts.expected.uid) {
        (PathState::Exists(meta), Some(daemon)) if meta.uid != daemon => Finding::problem(
            FILE,
            format!("{path} belongs to {}, the daemon runs as {}", user(meta.uid), user(daemon)),
            format!("chown -R {}: {}", owner(daemon), facts.dir.display()),
        ),
        (PathState::Exists(_), _) => Finding::ok(FILE, format!("{path} is there")),
        (PathState::Absent, _) => Finding::problem(
            FILE,
            format!("{path} is not there"),
            format!(
                "/usr/libexec/cortexd restore FILE, or for an empty one: {}",
                facts.expected.start
            ),
        ),
        (PathState::Hidden, _) => {
            Finding::hidden(FILE, format!("this user may not look at {path}"))
        }
        (PathState::Failed(error), _) => {
            Finding::problem(FILE, format!("{path}: {error}"), format!("ls -l {path}"))
        }
    }
}

fn space(facts: &StoreFacts) -> Finding {
    let dir = facts.dir.display();
    let free = match &facts.free {
        Ok(free) => *free,
        Err(why) => return Finding::unchecked(SPACE, format!("{dir}: {why}")),
    };
    let mend = format!(
        "df -h {dir}, then make room: cortex usage shows who owns how much, and cortex drop works on a full disk too"
    );
    if free < LEAST_FREE {
        let text =
            format!("{dir} has {} free, the log alone may take {}", size(free), size(LEAST_FREE));
        return Finding::problem(SPACE, text, mend);
    }
    match facts.expected.disk_bytes {
        Some(database) if free < database => {
            let text = format!(
                "{dir} has {} free, a backup of the {} there may not fit",
                size(free),
                size(database)
            );
            Finding::problem(SPACE, text, mend)
        }
        Some(database) => {
            Finding::ok(SPACE, format!("{} free, {} in use", size(free), size(database)))
        }
        None => Finding::ok(SPACE, format!("{} free", size(free))),
    }
}

/// A number of bytes as people read it.
fn size(bytes: u64) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = UNITS.iter().find(|(shift, _)| bytes >> shift > 0);
    unit.map_or_else(
        || format!("{bytes} bytes"),
        |(shift, name)| {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::{self, Status};
    use super::super::place::Meta;
    use super::*;

    /// Users that no machine has, so that they are named by their numbers.
    const DAEMON: u32 = 4_000_000_001;
    const SOMEBODY: u32 = 4_000_000_002;

    fn there(kind: Kind, uid: u32, mode: u32) -> PathState {
        PathState::Exists(Meta { kind, uid, mode })
    }

    fn healthy() -> StoreFacts {
        StoreFacts {
            dir: "/var/lib/cortex".into(),
            directory: there(Kind::Directory, DAEMON, 0o700),
            is_link: false,
            database: there(Kind::File, DAEMON, 0o600),
            free: Ok(10 << 30),
            expected: Expected {
                writable: None,
                uid: Some(DAEMON),
                disk_bytes: Some(1 << 30),
                start: "systemctl start cortexd",
            },
        }
    }

    fn the_problem(facts: &StoreFacts) -> (&'static str, String) {
        finding::the_problem(check(facts))
    }

    #[test]
    fn a_directory_that_the_unit_keeps_the_daemon_from_writing_is_told_with_the_drop_in() {
        let mut facts = healthy();
        facts.expected.writable = Some(vec!["/var/lib/cortex".into()]);
        assert_eq!(check(&facts)[0].status, Status::Ok);
        facts.expected.writable = Some(vec!["/srv/data".into()]);
        let (check, mend) = the_problem(&facts);
        assert_eq!(check, CHECK);
        assert!(mend.contains("ReadWritePaths=/var/lib/cortex"), "{mend}");
    }

    #[test]
    fn a_state_directory_that_is_a_link_is_a_problem_of_the_service_alone() {
        let mut facts = StoreFacts { is_link: true, ..healthy() };
        assert_eq!(check(&facts)[0].status, Status::Ok, "a daemon without a unit follows it");
        facts.expected.writable = Some(vec!["/var/lib/cortex".into()]);
        assert!(the_problem(&facts).1.contains("mount --bind"));
    }

    #[test]
    fn a_closed_directory_with_room_is_well() {
        let found = check(&healthy());
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|finding| finding.status == Status::Ok), "{found:?}");
    }

    #[test]
    fn each_fault_of_the_directory_has_its_command() {
        for (directory, mend) in [
            (PathState::Absent, "systemctl start cortexd"),
            (PathState::Failed("a loop".into()), "ls -ld /var/lib/cortex"),
            (there(Kind::File, DAEMON, 0o700), "mv /var/lib/cortex /var/lib/cortex.aside"),
            (there(Kind::Directory, SOMEBODY, 0o700), "chown -R 4000000001: /var/lib/cortex"),
            (there(Kind::Directory, DAEMON, 0o755), "chmod 0700 /var/lib/cortex"),
        ] {
            let facts = StoreFacts { directory, ..healthy() };
            assert_eq!(the_problem(&facts), (CHECK, mend.to_owned()));
        }
        let expected = Expected { uid: None, ..healthy().expected };
        let (check, mend) = the_problem(&StoreFacts { expected, ..healthy() });
        assert_eq!((check, mend.as_str()), (CHECK, "systemd-sysusers cortexd.conf"));
    }

    #[test]
    fn a_database_that_the_daemon_cannot_open_or_that_is_absent_is_a_problem() {
        for database in
            [there(Kind::File, SOMEBODY, 0o600), PathState::Absent, PathState::Failed("x".into())]
        {
            assert_eq!(the_problem(&StoreFacts { database, ..healthy() }).0, FILE);
        }
    }

    #[test]
    fn a_disk_without_room_for_the_log_or_for_a_backup_is_a_problem() {
        assert_eq!(the_problem(&StoreFacts { free: Ok(LEAST_FREE - 1), ..healthy() }).0, SPACE);
        let expected = Expected { disk_bytes: Some(11 << 30), ..healthy().expected };
        assert_eq!(the_problem(&StoreFacts { expected, ..healthy() }).0, SPACE);
    }

    #[test]
    fn what_an_ordinary_user_may_not_see_is_unchecked() {
        let hidden = check(&StoreFacts { directory: PathState::Hidden, ..healthy() });
        assert_eq!(hidden.len(), 1, "of what is in it, nothing is known either");
        assert_eq!(hidden[0].status, Status::Unchecked);
        let found = check(&StoreFacts { database: PathState::Hidden, ..healthy() });
        assert_eq!(found[1].status, Status::Unchecked);
        let found = check(&StoreFacts { free: Err("EACCES".into()), ..healthy() });
        assert_eq!(found[2].status, Status::Unchecked);
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_fits() {
        for (bytes, shown) in [
            (1023, "1023 bytes"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }
}
