//! The package's life on a host: installed, upgraded, removed, purged.
//! What the installed service does is the other modules'.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use system_tests::{Host, User, package};

/// Files below a directory, with mode and contents.
fn tree(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("list a directory") {
            let path = entry.expect("list a directory").path();
            let meta = fs::symlink_metadata(&path).expect("look at a file");
            if meta.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.strip_prefix(root).expect("below").display().to_string();
            let bytes = fs::read(&path).expect("read a file");
            files.insert(name, (meta.permissions().mode() & 0o7777, bytes));
        }
    }
    files
}

/// A file by the name and with the contents that it has once unpacked.
fn uncompressed((name, (mode, bytes)): (String, (u32, Vec<u8>))) -> (String, (u32, Vec<u8>)) {
    let Some(plain) = name.strip_suffix(".gz") else {
        return (name, (mode, bytes));
    };
    let mut gunzip = Command::new("gunzip")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run gunzip");
    // A page fits into the pipe.
    gunzip.stdin.take().expect("piped").write_all(&bytes).expect("write to gunzip");
    let output = gunzip.wait_with_output().expect("run gunzip");
    assert!(output.status.success(), "{name}");
    (plain.to_owned(), (mode, output.stdout))
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("run a command");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// holds D4
#[test]
fn make_install_and_the_package_install_the_same() {
    let dir = tempfile::tempdir().expect("make a directory");
    let (made, packaged) = (dir.path().join("made"), dir.path().join("packaged"));
    succeed(
        Command::new("make")
            .current_dir(package::source())
            .args(["-f", "dist/install.mk", "-o", "completions", "install", "PREFIX=/usr"])
            .arg(format!("DESTDIR={}", made.display())),
    );
    succeed(Command::new("dpkg-deb").arg("-x").arg(package::built()).arg(&packaged));
    let (mut made, mut packaged) = (tree(&made), tree(&packaged));
    // Those two are Debian's own.
    let of_debian = ["copyright", "changelog.Debian.gz", "changelog.gz"];
    packaged.retain(|name, _| {
        let document = name.strip_prefix("usr/share/doc/cortexd/");
        document.is_none_or(|document| !of_debian.contains(&document))
    });
    // Debian wants them compressed.
    let mut packaged: BTreeMap<_, _> = packaged.into_iter().map(uncompressed).collect();
    // Stripped in the package.
    for files in [&mut made, &mut packaged] {
        for (name, (_, bytes)) in files {
            if name.starts_with("usr/bin/") || name.starts_with("usr/libexec/") {
                bytes.clear();
            }
        }
    }
    assert_eq!(made.keys().collect::<Vec<_>>(), packaged.keys().collect::<Vec<_>>());
    assert!(made == packaged, "modes or contents differ");
    assert_eq!(made.len(), package::list().len());
}

/// holds D4: and so two machines build the same.
#[test]
fn no_program_names_a_directory_of_the_machine_that_built_it() {
    let dir = tempfile::tempdir().expect("make a directory");
    succeed(Command::new("dpkg-deb").arg("-x").arg(package::built()).arg(dir.path()));
    let home = std::env::var("HOME").expect("HOME is set");
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    let source = package::source().display().to_string();
    for program in ["usr/bin/cortex", "usr/bin/cortex-top", "usr/libexec/cortexd"] {
        let bytes = fs::read(dir.path().join(program)).expect("a program");
        for place in [&cargo, &source] {
            let found = bytes.windows(place.len()).filter(|at| *at == place.as_bytes()).count();
            assert_eq!(found, 0, "{program} names {place}");
        }
    }
}

/// holds D4
#[test]
fn another_prefix_is_written_into_the_units() {
    let dir = tempfile::tempdir().expect("make a directory");
    succeed(
        Command::new("make")
            .current_dir(package::source())
            .args(["-f", "dist/install.mk", "-o", "completions", "install", "PREFIX=/opt/cortex"])
            .arg(format!("DESTDIR={}", dir.path().display())),
    );
    let unit = dir.path().join("usr/lib/systemd/system/cortexd.service");
    let unit = fs::read_to_string(unit).expect("the unit is installed");
    for program in ["/opt/cortex/libexec/cortexd", "/opt/cortex/bin/cortex"] {
        assert!(unit.contains(program), "{unit}");
        assert!(dir.path().join(&program[1..]).exists(), "{program}");
    }
    assert!(!unit.contains("/usr/"), "{unit}");
}

/// holds D4
#[test]
fn lintian_finds_no_error() {
    let deb = package::built();
    succeed(Command::new("lintian").args(["--fail-on", "error", "--allow-root"]).arg(deb));
}

/// Ann's data, and whether the service answers with it.
fn store(host: &Host) {
    host.sh_as(User::Ann, r#"cortex create notes id && cortex put notes '{"id": "kept"}'"#);
}

fn stored(host: &Host) -> String {
    host.sh_as(User::Ann, "cortex keys notes")
}

/// holds D4
#[test]
fn an_installed_package_is_whole_and_serves_at_once() {
    let host = package::installed("install");
    assert_eq!(host.sh_as(User::Ann, "cortex ping"), "\"pong\"");
    assert_eq!(host.sh("systemctl is-enabled cortexd.service cortexd.socket"), "enabled\nenabled");
    assert_eq!(host.sh("dpkg --verify cortexd"), "");
    for file in package::list() {
        let compressed = if file.path.contains("/man/") { ".gz" } else { "" };
        let shown = host.sh(&format!("stat -c '%U:%G %a' {}{compressed}", file.path));
        assert_eq!(
            shown,
            format!("root:root {}", file.mode.trim_start_matches('0')),
            "{}",
            file.path
        );
    }
    assert_eq!(
        host.sh("getent passwd cortex | cut -d: -f6,7"),
        "/var/lib/cortex:/usr/sbin/nologin"
    );
    assert_eq!(host.sh("systemctl --failed --no-legend"), "");
}

/// holds D4
#[test]
fn apt_installs_the_package_with_nothing_but_what_a_debian_has() {
    let host = Host::boot("apt");
    host.copy_in(&package::built(), "/var/tmp/cortexd.deb");
    let said = host.sh("apt-get install --yes /var/tmp/cortexd.deb");
    assert!(said.contains("0 upgraded, 1 newly installed"), "{said}");
    assert_eq!(host.sh_as(User::Ann, "cortex ping"), "\"pong\"");
    assert!(host.sh("man -k cortex").contains("cortexd (8)"));
}

/// holds D4
#[test]
fn the_doctor_finds_nothing_wrong_with_a_fresh_installation() {
    let host = package::installed("doctor");
    // In a moment; the daemon does not wait for the bus.
    host.wait_until("busctl status org.cortexd.Cortex1");
    let not_well = |user: User| -> Vec<String> {
        let report = host.sh_as(user, "cortex doctor");
        let others = report.lines().filter(|line| !line.starts_with("ok "));
        others.map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect()
    };
    // It is in no mesh, and a container has no clock of its own.
    assert_eq!(not_well(User::Root), ["unchecked mesh", "unchecked clock-sync"]);
    let hidden = ["config-in-force", "mesh", "database", "leftovers", "clock-sync"];
    assert_eq!(not_well(User::Ann), hidden.map(|check| format!("unchecked {check}")));
}

/// holds D4
#[test]
fn an_upgrade_keeps_data_and_settings_and_restarts_only_the_service() {
    let host = package::installed("upgrade");
    store(&host);
    host.sh("echo 'threads = 2' >/etc/cortex/cortex.toml");
    let of = |host: &Host, unit: &str| host.property(unit, "ActiveEnterTimestampMonotonic");
    let (socket, service) = (of(&host, "cortexd.socket"), of(&host, "cortexd.service"));

    let dir = tempfile::tempdir().expect("make a directory");
    package::install(&host, &package::next_version(dir.path()));

    assert!(host.sh("dpkg-query -W -f '${Version}' cortexd").ends_with("+next"));
    assert_eq!(stored(&host), r#"["kept"]"#);
    assert_eq!(host.sh("cat /etc/cortex/cortex.toml"), "threads = 2");
    assert_eq!(of(&host, "cortexd.socket"), socket, "the socket was open all the time");
    assert_ne!(of(&host, "cortexd.service"), service, "the new program runs");
}

/// holds D4
#[test]
fn a_removed_package_leaves_the_data_and_a_purged_one_leaves_nothing() {
    let host = package::installed("remove");
    store(&host);
    host.sh("cortex mesh init home 10.99.0.1");
    host.sh("systemctl enable cortexd-peer.socket && systemctl restart cortexd.service");

    host.sh("dpkg --remove cortexd");
    assert!(!host.run(User::Root, "pgrep cortexd || systemctl is-active cortexd.service cortexd.socket cortexd-peer.socket").ok());
    assert!(
        host.run(User::Root, "test ! -e /usr/libexec/cortexd -a ! -e /run/cortex/cortex.sock").ok()
    );
    package::install(&host, &package::built());
    assert_eq!(stored(&host), r#"["kept"]"#, "what was there is there again");
    assert_eq!(host.sh("cortex mesh list-nodes"), "[]", "and the mesh of one");

    host.sh("dpkg --purge cortexd");
    let left = host.sh(
        "find /etc /usr /var/lib /run -path /run/host -prune -o -name '*cortex*' -print | sort",
    );
    let known = ["/var/lib/dpkg/", "/var/lib/systemd/"];
    let left: Vec<&str> =
        left.lines().filter(|path| !known.iter().any(|known| path.starts_with(known))).collect();
    assert_eq!(left, ["/run/cortex"]);
    assert_eq!(host.sh("systemctl --failed --no-legend"), "");
    package::install(&host, &package::built());
    assert_eq!(
        host.sh_as(User::Ann, "cortex tables"),
        "[]",
        "a later installation begins anew, alone"
    );
}
