//! What `dist/` holds fits together, and fits the programs: the list of files, the package, the configuration,
//! the journal's explanations.
//! Leaves what systemd makes of it to `tests/system/`, on booted hosts.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cortexd::{
    daemon::{Args, Settings},
    sys::journal,
    sys::paths::Environment,
};

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// Source, destination in the package without the leading `/`, mode: by `dist/files.txt`.
fn listed() -> BTreeSet<[String; 3]> {
    let list = read("dist/files.txt");
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [source, destination, mode] = fields[..] else { panic!("three fields: {line}") };
            let destination = destination.replace("PREFIX/", "/usr/");
            [source.into(), destination.trim_start_matches('/').into(), mode.into()]
        })
        .collect()
}

/// holds D4
#[test]
fn the_package_holds_what_the_list_says() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let assets = &manifest["package"]["metadata"]["deb"]["assets"];
    let packaged: BTreeSet<[String; 3]> = assets
        .as_array()
        .expect("a list of assets")
        .iter()
        .map(|asset| {
            let field = |n: usize| asset[n].as_str().expect("a string").to_owned();
            [field(0), field(1), format!("0{}", field(2))]
        })
        .collect();
    assert_eq!(packaged, listed());
}

/// holds D4
#[test]
fn whatever_is_in_dist_or_man_is_installed() {
    let listed: BTreeSet<PathBuf> =
        listed().into_iter().map(|[source, ..]| PathBuf::from(source)).collect();
    let mut found = BTreeSet::new();
    collect(Path::new("dist"), &mut found);
    collect(Path::new("man"), &mut found);
    let not_installed = ["dist/files.txt", "dist/install.mk", "dist/debian", "dist/notices/about"];
    let is_installed = |path: &PathBuf| {
        let path = path.to_string_lossy();
        !not_installed.iter().any(|prefix| path.starts_with(prefix))
    };
    found.retain(is_installed);
    let sources = listed.iter().filter(|path| !path.starts_with("target")).cloned();
    assert_eq!(found, sources.collect());
}

fn collect(dir: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(top().join(dir)).expect("list a directory") {
        let entry = entry.expect("list a directory");
        let path = dir.join(entry.file_name());
        if entry.file_type().expect("look at a file").is_dir() {
            collect(&path, found);
        } else {
            found.insert(path);
        }
    }
}

/// Name and version of each package of others that Cargo compiles into the programs: those that run at build
/// time alone are none of them.
fn compiled_in() -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(top()).args(["tree", "--locked", "--offline", "--prefix=none"]);
    cargo.args(["--edges=normal,no-proc-macro", "--format={p}"]);
    let tree = cargo.args(["-p=cortexd", "-p=cortex-top"]).output().expect("run cargo tree");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    assert!(tree.status.success(), "{}", text(tree.stderr));
    // Of this workspace, the path stands behind the version.
    let tree = text(tree.stdout);
    let others = tree.lines().filter(|line| !line.is_empty() && !line.contains(" (/"));
    others.map(|line| line.trim_end_matches(" (*)").replace(" v", " ")).collect()
}

/// holds D4: whoever is given the programs is given the notices that their parts ask for.
#[test]
fn the_notices_name_all_that_is_compiled_in_and_their_terms() {
    let notices = read("dist/notices/third-party-notices.txt");
    let (head, terms) = notices.split_once("\n----").expect("a list, then the terms");
    let package = |line: &str| line.split_once(": ").map(|(package, _)| package.to_owned());
    let listed = head.lines().filter_map(package);
    // Name and version; what Cargo does not know of is written out as prose.
    let listed: BTreeSet<String> = listed.filter(|it| it.split(' ').count() == 2).collect();
    let with_terms: BTreeSet<String> = terms
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once(' '))
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let missing: Vec<_> = compiled_in().difference(&listed).cloned().collect();
    assert_eq!(missing, [""; 0], "make notices");
    let without: Vec<_> = listed.difference(&with_terms).collect();
    assert!(without.is_empty(), "without terms: {without:?}");
    let lock: toml::Table = read("Cargo.lock").parse().expect("Cargo.lock is TOML");
    let locked = lock["package"].as_array().expect("a list of packages").iter();
    let locked: BTreeSet<String> = locked
        .map(|package| {
            let field = |name: &str| package[name].as_str().expect("a string").to_owned();
            format!("{} {}", field("name"), field("version"))
        })
        .collect();
    let stale: Vec<_> = listed.difference(&locked).collect();
    assert!(stale.is_empty(), "not used any more: {stale:?}: make notices");
}

/// holds D4
#[test]
fn the_units_start_programs_that_are_installed() {
    let unit = read("dist/systemd/system/cortexd.service");
    let programs: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("Exec")?.split_once('='))
        .filter_map(|(_, command)| command.split(' ').next())
        .collect();
    assert_eq!(programs, ["/usr/libexec/cortexd", "/usr/bin/cortex"]);
    for program in programs {
        let installed =
            listed().iter().any(|[_, to, _]| Some(to.as_str()) == program.strip_prefix('/'));
        assert!(installed, "{program}");
    }
}

/// holds D4
#[test]
fn the_changelog_begins_with_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let changelog = read("dist/debian/changelog");
    assert!(changelog.starts_with(&format!("cortexd ({version}) ")), "{changelog}");
}

/// The settings of the system's daemon with this configuration, as `name = value`, whoever runs the test:
/// a user's daemon has other defaults.
fn settings(text: &str) -> BTreeSet<String> {
    let dir = tempfile::tempdir().expect("make a directory");
    let file = dir.path().join("cortex.toml");
    fs::write(&file, text).expect("write the configuration");
    let args = Args { config: Some(file), ..Args::default() };
    let env = Environment { uid: 0, ..Environment::default() };
    let settings = Settings::gather(&args, &env).expect("the configuration is valid");
    settings.summary().lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

/// The shipped file with every key that it shows put in force.
fn uncommented(shipped: &str) -> String {
    let is_key = |rest: &str| rest.starts_with(|first: char| first.is_ascii_lowercase());
    let reveal = |line: &str| match line.strip_prefix('#') {
        Some(rest) if is_key(rest) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    shipped.lines().map(reveal).collect()
}

/// holds D4
#[test]
fn the_shipped_configuration_changes_nothing() {
    assert_eq!(settings(&read("dist/cortex/cortex.toml")), settings(""));
}

/// holds D4
#[test]
fn the_shipped_configuration_shows_every_key_with_its_default() {
    /// Not set in the file, or different from one machine and user to the next.
    const OWN: [&str; 5] = ["node", "version", "socket", "data_dir", "threads"];
    let all = uncommented(&read("dist/cortex/cortex.toml"));
    let shared = |settings: BTreeSet<String>| {
        let is_own = |line: &str| OWN.iter().any(|name| line.starts_with(&format!("{name} =")));
        settings.into_iter().filter(|line| !is_own(line)).collect::<BTreeSet<_>>()
    };
    assert_eq!(shared(settings(&all)), shared(settings("")));
    let shown: toml::Table = all.parse().expect("TOML");
    for line in settings("") {
        let name = line.split(' ').next().expect("a name");
        let there = match name.split_once('.') {
            Some((section, key)) => shown[section].get(key).is_some(),
            None => shown.contains_key(name) || ["node", "version"].contains(&name),
        };
        assert!(there, "{name} is not shown");
    }
}

/// holds D1
#[test]
fn every_message_for_the_administrator_is_explained() {
    let catalog = read("dist/systemd/catalog/cortexd.catalog");
    let explained: Vec<&str> =
        catalog.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
    assert_eq!(explained, journal::ALL, "in the same order");
    for id in explained {
        assert!(id.len() == 32 && u128::from_str_radix(id, 16).is_ok(), "{id}");
    }
    for entry in catalog.split("\n-- ").skip(1) {
        let mut lines = entry.lines().skip(1);
        for field in ["Subject: ", "Defined-By: cortexd", "Support: man:", ""] {
            let line = lines.next().expect("a line");
            assert!(line.starts_with(field) && (line.is_empty() == field.is_empty()), "{entry}");
        }
        assert!(lines.any(|line| !line.is_empty()), "{entry}");
    }
}
