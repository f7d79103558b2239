//! The Debian that all hosts start from: made once, then only read.
//! What a host changes is its own.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use crate::command::run;

/// Where images are kept between runs.
const CACHE: &str = "/var/cache/cortexd-system-tests";

/// Changes with the recipe below, so that an image made by another one is not used.
const RECIPE: u32 = 4;

/// What a Debian without much has, and what the service works with. libpam-systemd is the logind that polkit
/// asks for; debootstrap does not find it by that name. man-db is for those who look something up,
/// e2fsprogs makes small disks, nftables cuts the network, libfaketime sets one process's clock.
const PACKAGES: &str = "systemd,systemd-sysv,libpam-systemd,dbus,polkitd,iproute2,procps,udev,man-db,e2fsprogs,nftables,libfaketime";

/// The Debian to test on.
///
/// # Panics
/// If the environment names one that the package is not for.
pub(crate) fn release() -> String {
    let release = env::var("SYSTEM_TESTS_RELEASE").unwrap_or_else(|_| "bookworm".into());
    assert!(
        ["bookworm", "trixie"].contains(&release.as_str()),
        "SYSTEM_TESTS_RELEASE={release}: bookworm or trixie"
    );
    release
}

/// The root directory of the image.
///
/// # Panics
/// If it cannot be made: not root, no debootstrap, no network.
pub(crate) fn root() -> PathBuf {
    let release = release();
    let cache = Path::new(CACHE);
    fs::create_dir_all(cache).expect("make the cache directory (as root)");
    let root = cache.join(format!("{release}-{RECIPE}"));
    let lock = File::create(cache.join(format!("{release}.lock"))).expect("make the lock file");
    lock.lock().expect("wait for whoever makes the image");
    if !root.exists() {
        make(&release, &root);
    }
    root
}

/// Under another name first: an image that is there is complete.
fn make(release: &str, root: &Path) {
    let making = root.with_extension("making");
    let sh = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-euc", script, "sh", release]).arg(&making).arg(PACKAGES);
        run(&mut command, script).expect_ok();
    };
    sh(r#"rm -rf --one-file-system "$2""#);
    sh(r#"debootstrap --variant=minbase --include="$3" "$1" "$2""#);
    // Two people; their shell is found by runuser.
    sh(
        r#"for name in ann ben; do chroot "$2" useradd --create-home --shell /bin/bash "$name"; done"#,
    );
    sh(r#"rm -rf "$2"/var/cache/apt/* "$2"/var/lib/apt/lists/*; : >"$2/etc/machine-id""#);
    fs::rename(&making, root).expect("put the image in place");
}
