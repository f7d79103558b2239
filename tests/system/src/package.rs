//! The Debian package under test: finding it, and making a later version of it.
//! `make system` builds it, by the profile that is in `PROFILE`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use crate::{Host, command::run};

/// The top of the source.
#[must_use]
pub fn source() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// Where Cargo puts what it builds.
fn target() -> PathBuf {
    let named = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    source().join(named.unwrap_or_else(|| "target".into()))
}

/// Where Cargo puts what it builds with the profile that the programs were built with.
fn programs() -> PathBuf {
    target().join(env::var("PROFILE").unwrap_or_else(|_| "release".into()))
}

/// The package that was built: `SYSTEM_TESTS_DEB`, or the one of the profile.
///
/// # Panics
/// If there is none, or if it is older than what it is made of.
#[must_use]
pub fn built() -> PathBuf {
    if let Some(path) = env::var_os("SYSTEM_TESTS_DEB") {
        return path.into();
    }
    let programs = programs();
    // What ships lies apart from what was built for these tests.
    let dir = if programs.ends_with("release") { target() } else { programs }.join("debian");
    let mut debs: Vec<PathBuf> = fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    debs.sort_by_key(|path| modified(path));
    let deb = debs.pop().unwrap_or_else(|| panic!("no package in {}: make system", dir.display()));
    // Completions are made anew by every `make install`, from a program that is in the list itself.
    let parts = list().into_iter().filter(|file| !file.source.starts_with("target/dist"));
    let newest = parts.map(|file| modified(&file.built())).max();
    assert!(
        newest <= Some(modified(&deb)),
        "{} is older than its parts: make system",
        deb.display()
    );
    deb
}

/// The same package under the version that follows `+next`, in the directory `dir`.
///
/// # Panics
/// If it cannot be repacked.
#[must_use]
pub fn next_version(dir: &Path) -> PathBuf {
    let script = r#"
        dpkg-deb --raw-extract "$1" "$2/tree"
        sed -i 's/^Version: .*/&+next/' "$2/tree/DEBIAN/control"
        dpkg-deb --root-owner-group -Znone --build "$2/tree" "$2/next.deb"
    "#;
    let mut command = Command::new("sh");
    command.args(["-euc", script, "sh"]).arg(built()).arg(dir);
    run(&mut command, "repack the package").expect_ok();
    dir.join("next.deb")
}

/// A host with the package installed.
///
/// # Panics
/// If it does not boot, or the installation fails.
#[must_use]
#[track_caller]
pub fn installed(name: &str) -> Host {
    let host = Host::boot(name);
    install(&host, &built());
    host
}

/// Installs a package in a host, or upgrades to it.
///
/// # Panics
/// If dpkg fails.
#[track_caller]
pub fn install(host: &Host, deb: &Path) {
    host.copy_in(deb, "/var/tmp/cortexd.deb");
    // man-db would index all pages, which takes a fifth of the time; apt's own test has it done.
    host.sh("rm -f /var/lib/man-db/auto-update");
    // Settings that were edited stay, as in an upgrade that asks nobody.
    host.sh("dpkg --install --force-confold /var/tmp/cortexd.deb");
}

/// A line of `dist/files.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// In the source or in `target/`.
    pub source: String,
    /// In the package.
    pub path: String,
    /// Octal.
    pub mode: String,
}

impl Installed {
    /// Where its source is.
    fn built(&self) -> PathBuf {
        match self.source.strip_prefix("target/release/") {
            Some(program) => programs().join(program),
            None => source().join(&self.source),
        }
    }
}

/// What the package installs, by the list.
///
/// # Panics
/// If the list cannot be read.
#[must_use]
pub fn list() -> Vec<Installed> {
    let text = fs::read_to_string(source().join("dist/files.txt")).expect("the list is there");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse = |line: &str| {
        let mut fields = line.split_whitespace().map(str::to_owned);
        let [source, path, mode] = [fields.next(), fields.next(), fields.next()];
        Some(Installed { source: source?, path: path?.replace("PREFIX/", "/usr/"), mode: mode? })
    };
    lines.map(|line| parse(line).unwrap_or_else(|| panic!("three fields: {line}"))).collect()
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path)
        .and_then(|meta| meta.modified())
        .unwrap_or_else(|error| panic!("{}: {error}: make system", path.display()))
}
