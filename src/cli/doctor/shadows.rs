//! What an earlier installation has left on the machine and what comes before ours: programs, units, settings, data.
//! Leaves removing it to the administrator, and bringing data over to `cortex migrate`.
//!
//! The original daemon was installed by hand: its tool in /usr/local/bin, which comes first in PATH, and its
//! unit in /etc/systemd/system, which comes before the packaged one. Both stay when the package is installed.

use std::fs;
use std::path::{Path, PathBuf};

use super::finding::Finding;
use crate::sys::paths;

const CHECK: &str = "earlier";

/// Programs of the package. Where the same name stands in a directory before it in PATH, that one runs.
const PROGRAMS: [&str; 2] = ["cortex", "cortex-top"];
const PACKAGED: &str = "/usr/bin";
const BEFORE: [&str; 2] = ["/usr/local/sbin", "/usr/local/bin"];

/// No package puts the daemon into PATH.
const DAEMON: &str = "cortexd";

const UNITS: [&str; 3] = ["cortexd.service", "cortexd.socket", "cortexd-peer.socket"];
const PACKAGED_UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
const UNITS_BEFORE: [&str; 2] = ["/etc/systemd/system", "/usr/local/lib/systemd/system"];

/// How the packaged units name the daemon, wherever it is installed.
const OUR_DAEMON: &str = "libexec/cortexd";

/// Where the original daemon read the settings of its mesh.
const OLD_SETTINGS: [&str; 2] = ["/etc/cortex/mesh.env", "/etc/cortex/mesh"];

/// Where it had its files within the data directory.
const OLD_DATA: [&str; 2] = ["mnesia", "bin"];

/// Something of an earlier installation, by its path on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Remnant {
    Program { path: PathBuf, hides: PathBuf },
    Daemon(PathBuf),
    Unit { path: PathBuf, starts: Starts },
    DropIn { path: PathBuf, starts: Starts },
    Settings(PathBuf),
    Data { dir: PathBuf, has_database: bool },
}

/// What a unit, or a part of one, starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starts {
    Ours,
    Another,
    Nothing,
}

#[derive(Debug)]
pub(super) struct ShadowFacts(Vec<Remnant>);

/// Looks below `root`, which is `/` but in tests.
pub(super) fn gather(root: &Path, data_dir: Option<&Path>) -> ShadowFacts {
    let machine = Machine { root };
    let mut found = machine.programs();
    found.extend(machine.units());
    let settings = OLD_SETTINGS.iter().map(PathBuf::from).filter(|path| machine.at(path).exists());
    found.extend(settings.map(Remnant::Settings));
    found.extend(data_dir.and_then(|dir| machine.data(dir)));
    ShadowFacts(found)
}

struct Machine<'a> {
    root: &'a Path,
}

impl Machine<'_> {
    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn is_file(&self, path: &Path) -> bool {
        self.at(path).is_file()
    }

    fn programs(&self) -> Vec<Remnant> {
        let mut found = Vec::new();
        for dir in BEFORE.map(Path::new) {
            for name in PROGRAMS {
                let (path, hides) = (dir.join(name), Path::new(PACKAGED).join(name));
                let both = self.is_file(&path) && self.is_file(&hides);
                let real = |path: &Path| fs::canonicalize(self.at(path)).ok();
                if both && real(&path) != real(&hides) {
                    found.push(Remnant::Program { path, hides });
                }
            }
            let daemon = dir.join(DAEMON);
            if self.is_file(&daemon) {
                found.push(Remnant::Daemon(daemon));
            }
        }
        found
    }

    fn units(&self) -> Vec<Remnant> {
        let mut found = Vec::new();
        for dir in UNITS_BEFORE.map(Path::new) {
            for name in UNITS {
                let path = dir.join(name);
                let is_packaged =
                    PACKAGED_UNITS.iter().any(|dir| self.is_file(&Path::new(dir).join(name)));
                // A link is an alias or a mask, which systemd itself reports.
                let is_link = self.at(&path).is_symlink();
                if is_packaged && !is_link && self.is_file(&path) {
                    found.push(Remnant::Unit { starts: self.starts(&path), path });
                }
                found.extend(self.drop_ins(&dir.join(format!("{name}.d"))));
            }
        }
        found
    }

    fn drop_ins(&self, dir: &Path) -> Vec<Remnant> {
        let entries = fs::read_dir(self.at(dir)).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| dir.join(entry.file_name())).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
        paths.sort_unstable();
        paths.into_iter().map(|path| Remnant::DropIn { starts: self.starts(&path), path }).collect()
    }

    fn starts(&self, unit: &Path) -> Starts {
        let text = fs::read_to_string(self.at(unit)).unwrap_or_default();
        let mut commands = text.lines().filter_map(|line| line.trim().strip_prefix("ExecStart="));
        match commands.rfind(|command| !command.trim().is_empty()) {
            None => Starts::Nothing,
            Some(command) if command.contains(OUR_DAEMON) => Starts::Ours,
            Some(_) => Starts::Another,
        }
    }

    /// Tables of the original daemon in our data directory.
    fn data(&self, dir: &Path) -> Option<Remnant> {
        let places = [dir.to_owned(), dir.join(OLD_DATA[0])];
        let holds_tables = |place: &PathBuf| {
            let entries = fs::read_dir(self.at(place)).into_iter().flatten().flatten();
            entries
                .into_iter()
                .any(|entry| paths::is_mnesia_file(&entry.file_name().to_string_lossy()))
        };
        let has_database = self.at(&dir.join("cortex.db")).exists();
        places.iter().any(holds_tables).then(|| Remnant::Data { dir: dir.to_owned(), has_database })
    }
}

pub(super) fn check(facts: &ShadowFacts) -> Vec<Finding> {
    if facts.0.is_empty() {
        return vec![Finding::ok(CHECK, "no earlier installation comes before this one")];
    }
    facts.0.iter().map(finding).collect()
}

fn finding(remains: &Remnant) -> Finding {
    match remains {
        Remnant::Program { path, hides } => Finding::problem(
            CHECK,
            format!(
                "{} is of an earlier installation, and runs instead of {}",
                path.display(),
                hides.display()
            ),
            format!("rm {}", path.display()),
        ),
        Remnant::Daemon(path) => Finding::problem(
            CHECK,
            format!(
                "{} is a daemon of an earlier installation; the units start another",
                path.display()
            ),
            format!("rm {}", path.display()),
        ),
        Remnant::Unit { path, starts: Starts::Another } => Finding::problem(
            CHECK,
            format!("{} starts another program instead of the packaged daemon", path.display()),
            without(path),
        ),
        Remnant::DropIn { path, starts: Starts::Another } => Finding::problem(
            CHECK,
            format!("{} has the unit start another program", path.display()),
            without(path),
        ),
        Remnant::Unit { path, starts: Starts::Ours | Starts::Nothing } => Finding::note(
            CHECK,
            format!("{} stands in the place of the packaged unit", path.display()),
            without(path),
        ),
        Remnant::DropIn { path, starts: Starts::Ours | Starts::Nothing } => Finding::note(
            CHECK,
            format!("{} changes the packaged unit", path.display()),
            without(path),
        ),
        Remnant::Settings(path) => Finding::note(
            CHECK,
            format!(
                "{} is of the original daemon (v1); this one reads cortex.toml alone",
                path.display()
            ),
            format!("see cortex-migrate(7), and then: rm -r {}", path.display()),
        ),
        Remnant::Data { dir, has_database: false } => Finding::problem(
            CHECK,
            format!(
                "{} holds tables of the original daemon (v1), and cortexd does not start with it",
                dir.display()
            ),
            "bring them over as cortex-migrate(7) says",
        ),
        Remnant::Data { dir, has_database: true } => Finding::note(
            CHECK,
            format!("{} still holds tables of the original daemon (v1)", dir.display()),
            format!(
                "once `cortex migrate` has found them equal: cd {} && rm -r {}",
                dir.display(),
                OLD_DATA.join(" ")
            ),
        ),
    }
}

/// How to do without a unit or a part of one.
fn without(path: &Path) -> String {
    format!(
        "rm {} && systemctl daemon-reload && systemctl restart cortexd.socket cortexd",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    const V1_UNIT: &str = "[Service]\nExecStart=/var/lib/cortex/bin/bin/cortex start\n";
    const OUR_UNIT: &str = "[Service]\nExecStart=/usr/libexec/cortexd\n";

    fn found(files: &[(&str, &str)]) -> Vec<Finding> {
        let root = tempfile::tempdir().expect("a directory");
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("it is below")).expect("made");
            fs::write(path, text).expect("written");
        }
        check(&gather(root.path(), Some(Path::new("/var/lib/cortex"))))
    }

    /// The one finding: its status and its command.
    fn the_one(files: &[(&str, &str)]) -> (Status, String) {
        let mut found = found(files);
        assert_eq!(found.len(), 1, "{found:?}");
        let Finding { status, mend, .. } = found.remove(0);
        (status, mend.unwrap_or_default())
    }

    const RELOAD: &str = "&& systemctl daemon-reload && systemctl restart cortexd.socket cortexd";

    #[test]
    fn what_comes_before_ours_is_a_problem_with_the_command_that_removes_it() {
        let packaged = ("usr/bin/cortex", "ours");
        let unit = ("usr/lib/systemd/system/cortexd.service", OUR_UNIT);
        for (file, text, beside, mend) in [
            ("usr/local/bin/cortex", "v1", packaged, "rm /usr/local/bin/cortex".to_owned()),
            ("usr/local/bin/cortexd", "v1", packaged, "rm /usr/local/bin/cortexd".to_owned()),
            (
                "etc/systemd/system/cortexd.service",
                V1_UNIT,
                unit,
                format!("rm /etc/systemd/system/cortexd.service {RELOAD}"),
            ),
            (
                "etc/systemd/system/cortexd.service.d/v1.conf",
                "[Service]\nExecStart=\nExecStart=/opt/cortex start\n",
                unit,
                format!("rm /etc/systemd/system/cortexd.service.d/v1.conf {RELOAD}"),
            ),
        ] {
            assert_eq!(the_one(&[(file, text), beside]), (Status::Problem, mend), "{file}");
        }
    }

    #[test]
    fn what_somebody_has_wanted_is_a_note() {
        let unit = ("usr/lib/systemd/system/cortexd.service", OUR_UNIT);
        for file in [
            ("etc/systemd/system/cortexd.service", OUR_UNIT),
            ("etc/systemd/system/cortexd.service.d/limits.conf", "[Service]\nMemoryMax=1G\n"),
            ("etc/systemd/system/cortexd.socket.d/mode.conf", "[Socket]\nSocketMode=0660\n"),
            ("etc/cortex/mesh.env", "CORTEX_MESH_NODE_NAME=home\n"),
        ] {
            assert_eq!(the_one(&[file, unit]).0, Status::Note, "{}", file.0);
        }
    }

    #[test]
    fn an_installation_of_ours_in_usr_local_is_no_earlier_one() {
        for files in [
            &[][..],
            &[("usr/local/bin/cortex", "ours"), ("usr/local/libexec/cortexd", "ours")],
            &[("etc/systemd/system/cortexd.service", V1_UNIT)],
        ] {
            assert_eq!(the_one(files), (Status::Ok, String::new()), "{files:?}");
        }
    }

    #[test]
    fn tables_of_the_original_daemon_are_a_problem_until_there_is_a_database() {
        let table = ("var/lib/cortex/mnesia/1000:users.DCD", "rows");
        let (status, mend) = the_one(&[table]);
        assert_eq!(status, Status::Problem);
        assert!(mend.contains("cortex-migrate(7)"), "{mend}");
        let (status, mend) = the_one(&[table, ("var/lib/cortex/cortex.db", "ours")]);
        assert_eq!(status, Status::Note);
        assert!(mend.ends_with("cd /var/lib/cortex && rm -r mnesia bin"), "{mend}");
    }
}
