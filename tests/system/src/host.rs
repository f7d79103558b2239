//! One host: booting it, running commands in it, taking it down.
//! The image it starts from is `image`'s, the network it is on `network`'s.
//!
//! ```text
//!   test process ── nsenter ──────────────> command in the host
//!     │ spawns                                  │
//!     ├─> [private mounts] systemd-nspawn ──> systemd ──> services      all in one control group
//!     └─> guard: when the test process lets go of it, or dies, kills that group
//! ```

#![expect(clippy::disallowed_methods, reason = "waiting for a real machine needs the clock")]

use std::{
    fs,
    io::ErrorKind,
    os::unix::{net::UnixDatagram, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use cortex_client::Client;
use cortexd::sys::paths::SYSTEM_SOCKET;
use tempfile::TempDir;

use crate::{
    command::{Ran, Running, run},
    image,
    network::{BRIDGE, Network},
};

/// The longest that a host may take to boot; it takes one or two seconds.
const BOOT: Duration = Duration::from_secs(60);

/// The longest that a command may take, in seconds; the slowest, an installation, takes a few.
const COMMAND_SECONDS: &str = "120";

/// The longest wait for something to become true. Machines that do not find each other wait for some seconds
/// before they try again.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Between two looks whether something has become true.
const GLANCE: Duration = Duration::from_millis(50);

/// In a mount namespace of its own, and a control group of its own, starts systemd on an overlay in memory.
/// $1 the image, $2 an empty directory, $3 the host's name, $4 its control group below each tree in $5,
/// the rest: how it is connected.
const BOOT_SCRIPT: &str = r#"
image=$1 dir=$2 name=$3 group=$4 trees=$5
shift 5
mount -t tmpfs -o size=2g,mode=0755 host "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay overlay -o "lowerdir=$image,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
echo "$name" >"$dir/root/etc/hostname"
for tree in $trees; do echo $$ >"$tree/$group/cgroup.procs"; done
exec systemd-nspawn --directory="$dir/root" --machine="$name" --boot --notify-ready=yes \
    --register=no --keep-unit --console=pipe --link-journal=no --resolv-conf=off --timezone=off "$@"
"#;

/// Waits for the end of its input, then kills a control group and removes what is left of the host. Its mounts
/// ended with its processes.
/// $1 the directory made for the host, then its control group in each tree, the unified one first.
const GUARD_SCRIPT: &str = r#"
cat >/dev/null || true
dir=$1
shift
echo 1 >"$1/cgroup.kill"
while grep -q 'populated 1' "$1/cgroup.events"; do sleep 0.02; done
for group in "$@"; do find "$group" -depth -type d -exec rmdir {} +; done 2>/dev/null || true
rm -rf --one-file-system "$dir"
"#;

/// Whom a command runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// uid 0.
    Root,
    /// A person.
    Ann,
    /// Another one.
    Ben,
    /// Somebody whom the test has made.
    Named(&'static str),
}

/// A running host. Dropping it takes it down; in a panic, its journal is shown first.
#[derive(Debug)]
pub struct Host {
    name: String,
    leader: u32,
    dir: TempDir,
    /// Dropped first: the guard then kills the host.
    guard_input: Option<ChildStdin>,
    guard: Child,
    nspawn: Child,
}

impl Host {
    /// Boots a host that is connected to nothing.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    #[track_caller]
    pub fn boot(name: &str) -> Self {
        Self::start(name, None)
    }

    /// Boots a host on a network, with the address `10.99.0.number/24`.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    #[track_caller]
    pub fn boot_on(network: &Network, name: &str, number: u8) -> Self {
        let host = Self::start(name, Some(network));
        host.sh(&format!("ip address add 10.99.0.{number}/24 dev host0 && ip link set host0 up"));
        host
    }

    fn start(name: &str, network: Option<&Network>) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let image = image::root();
        let dir = tempfile::tempdir().expect("make a directory for the host");
        let root = dir.path().join("host");
        fs::create_dir(&root).expect("make a directory for the host");
        let notify = dir.path().join("notify");
        let notified = UnixDatagram::bind(&notify).expect("listen for the host's readiness");

        let trees = control_group_trees();
        let group = format!(
            "cortexd-system-tests-{}-{}",
            std::process::id(),
            STARTED.fetch_add(1, Relaxed)
        );
        let groups: Vec<PathBuf> = trees.iter().map(|tree| tree.join(&group)).collect();
        for group in &groups {
            fs::create_dir(group).expect("make a control group for the host");
        }
        // Its own process group, so that an interrupt at the terminal leaves it to its work.
        let mut guard = Command::new("sh")
            .args(["-uc", GUARD_SCRIPT, "guard"])
            .arg(dir.path())
            .args(&groups)
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .expect("start the host's guard");
        let guard_input = guard.stdin.take();

        let console = fs::File::create(dir.path().join("console")).expect("make the console's log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(network) = network {
            command.arg("nsenter").arg(format!("--net={}", network.namespace()));
        }
        command.args(["unshare", "--mount", "--propagation", "private", "sh", "-euc", BOOT_SCRIPT]);
        let trees: Vec<&str> = trees.iter().filter_map(|tree| tree.to_str()).collect();
        command.arg("boot").arg(image).arg(root).arg(name).arg(group).arg(trees.join(" "));
        command.arg(match network {
            Some(_) => format!("--network-bridge={BRIDGE}"),
            None => "--private-network".into(),
        });
        let nspawn = command
            .env("NOTIFY_SOCKET", &notify)
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", unified_hierarchy())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("share the console's log"))
            .stderr(console)
            .spawn()
            .expect("start systemd-nspawn");
        let mut host = Self { name: name.into(), leader: 0, dir, guard_input, guard, nspawn };
        host.await_boot(&notified);
        host
    }

    /// Learns from systemd-nspawn which process is the host's first, and that it has booted.
    fn await_boot(&mut self, notified: &UnixDatagram) {
        let started = Instant::now();
        notified.set_read_timeout(Some(GLANCE)).expect("bound the wait");
        let mut ready = false;
        let mut message = [0; 4096];
        while !ready || self.leader == 0 {
            match notified.recv(&mut message) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&message[..length]);
                    for line in text.lines() {
                        if let Some(pid) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                            self.leader = pid.parse().expect("a process id");
                        }
                        ready |= line == "READY=1";
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("cannot hear from systemd-nspawn: {error}"),
            }
            let ended = self.nspawn.try_wait().expect("look after systemd-nspawn");
            assert!(
                ended.is_none() && started.elapsed() < BOOT,
                "{} did not boot ({ended:?}): {}",
                self.name,
                self.console()
            );
        }
    }

    /// Runs a shell command as root.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.run(User::Root, script).expect_ok()
    }

    /// Runs a shell command as somebody.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn sh_as(&self, user: User, script: &str) -> String {
        self.run(user, script).expect_ok()
    }

    /// Runs a shell command as somebody, who sees nothing of the test's environment.
    #[must_use]
    #[track_caller]
    pub fn run(&self, user: User, script: &str) -> Ran {
        run(&mut self.command(user, script), &self.shown(user, script))
    }

    /// Begins a shell command that goes on while others run, as in another terminal.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    #[track_caller]
    pub fn begin(&self, user: User, script: &str) -> Running {
        Running::begin(&mut self.command(user, script), self.shown(user, script))
    }

    fn shown(&self, user: User, script: &str) -> String {
        format!("{} ({user:?}): {script}", self.name)
    }

    fn command(&self, user: User, script: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", COMMAND_SECONDS]);
        command.args(["nsenter", "--all", "--target"]).arg(self.leader.to_string());
        match user {
            User::Root => {}
            User::Ann => _ = command.args(["runuser", "-u", "ann", "--"]),
            User::Ben => _ = command.args(["runuser", "-u", "ben", "--"]),
            User::Named(name) => _ = command.args(["runuser", "-u", name, "--"]),
        }
        command.args(["bash", "-euc", script]).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("LANG", "C.UTF-8").env("SYSTEMD_PAGER", "cat").env("TERM", "dumb");
        command
    }

    /// A path in the host, as seen from here.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        let root = Path::new("/proc").join(self.leader.to_string()).join("root");
        root.join(path.trim_start_matches('/'))
    }

    /// Puts a file into the host.
    ///
    /// # Panics
    /// If it cannot be copied.
    #[track_caller]
    pub fn copy_in(&self, from: &Path, to: &str) {
        if let Err(error) = fs::copy(from, self.path(to)) {
            panic!("cannot copy {} to {}:{to}: {error}", from.display(), self.name);
        }
    }

    /// Writes a file in the host; its directory is made if it is absent.
    ///
    /// # Panics
    /// If it cannot be written.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let inside = self.path(path);
        let made = inside.parent().map_or(Ok(()), fs::create_dir_all);
        if let Err(error) = made.and_then(|()| fs::write(&inside, text)) {
            panic!("cannot write {}:{path}: {error}", self.name);
        }
    }

    /// Connects to the daemon of the host, as its root.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn client(&self) -> Result<Client, cortex_client::Error> {
        Client::connect(&self.path(SYSTEM_SOCKET), Some(TIME_LIMIT))
    }

    /// A property of a unit, as `systemctl show` has it.
    ///
    /// # Panics
    /// If systemd does not answer.
    #[must_use]
    #[track_caller]
    pub fn property(&self, unit: &str, property: &str) -> String {
        self.sh(&format!("systemctl show --value -p {property} {unit}"))
    }

    /// Waits until a shell command, run by root, succeeds.
    ///
    /// # Panics
    /// If it does not in half a minute.
    #[track_caller]
    pub fn wait_until(&self, script: &str) {
        wait_until(|| {
            let ran = self.run(User::Root, script);
            if ran.ok() { Ok(()) } else { Err(ran.to_string()) }
        });
    }

    fn console(&self) -> String {
        fs::read_to_string(self.dir.path().join("console")).unwrap_or_default()
    }

    fn show(&self) {
        eprintln!("--- console of {}:\n{}", self.name, self.console());
        if self.leader != 0 {
            let journal =
                self.run(User::Root, "journalctl --boot --output=short-monotonic --lines=300");
            eprintln!("--- journal of {}:\n{}\n---", self.name, journal.stdout);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show();
        }
        drop(self.guard_input.take());
        let _killed = self.nspawn.wait();
        let _done = self.guard.wait();
    }
}

/// Waits until what is looked at is as it should be; until then it is said how it is instead.
///
/// # Panics
/// If it does not become so in half a minute.
#[track_caller]
pub fn wait_until<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(instead) => {
                assert!(started.elapsed() < TIME_LIMIT, "waited in vain: {instead}");
            }
        }
        thread::sleep(GLANCE);
    }
}

/// The trees of control groups that systemd works in, the unified one first.
fn control_group_trees() -> Vec<PathBuf> {
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    if hybrid.exists() {
        vec![hybrid.into(), "/sys/fs/cgroup/systemd".into()]
    } else {
        vec!["/sys/fs/cgroup".into()]
    }
}

/// Debian 13's systemd knows the unified tree alone, and so must be given it also where the machine has both.
fn unified_hierarchy() -> &'static str {
    if image::release() == "trixie" || control_group_trees().len() == 1 { "yes" } else { "no" }
}
