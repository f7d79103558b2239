//! A message bus of its own for a test, and the real `cortexd` on it.
//! Leaves to each test what is said on the bus.

#![allow(dead_code, reason = "each test uses its own part")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{sleep, timeout};
use zbus::fdo::DBusProxy;
use zbus::{Connection, Proxy};

pub(crate) const NAME: &str = "org.cortexd.Cortex1";
pub(crate) const ROOT: &str = "/org/cortexd/Cortex1";
pub(crate) const MANAGER: &str = "org.cortexd.Cortex1.Manager";
pub(crate) const TABLE: &str = "org.cortexd.Cortex1.Table";

/// Far beyond what anything here takes on a busy machine; only a failing test waits for so long.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);

/// As open as the system bus is for a name whose policy lets everybody send.
const POLICY: &str = r#"
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>"#;

/// A process that is killed when dropped.
#[derive(Debug)]
struct Guarded(Child);

impl Guarded {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("signal the process");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself; waiting collects it either way.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bus that nobody else knows.
#[derive(Debug)]
pub(crate) struct PrivateBus {
    process: Option<Guarded>,
    // Last, so that it is removed after the process has ended.
    directory: tempfile::TempDir,
}

impl PrivateBus {
    /// A bus with an address, on which nobody listens yet.
    pub(crate) fn absent() -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        // Other users connect too.
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))
            .expect("open the directory");
        let bus = Self { process: None, directory };
        bus.configure("");
        bus
    }

    /// Writes the configuration, which the bus reads when it starts and when it is told to.
    pub(crate) fn configure(&self, more: &str) {
        let config = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"
              \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">
             <busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>{POLICY}
             {more}</busconfig>",
            self.directory.path().join("bus").display()
        );
        fs::write(self.directory.path().join("bus.conf"), config).expect("write the configuration");
    }

    pub(crate) fn start() -> Self {
        let mut bus = Self::absent();
        bus.come();
        bus
    }

    /// Starts the bus, again if need be, and waits until it listens.
    pub(crate) fn come(&mut self) {
        assert!(self.process.is_none(), "it is there");
        let process = Command::new("dbus-daemon")
            .arg("--config-file")
            .arg(self.directory.path().join("bus.conf"))
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start dbus-daemon, which these tests need: apt-get install dbus");
        let mut process = Guarded(process);
        let mut address = String::new();
        let stdout = process.0.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut address).expect("read the address of the bus");
        assert!(address.starts_with("unix:path="), "dbus-daemon said {address:?}");
        self.process = Some(process);
    }

    /// Ends the bus as a crash does.
    pub(crate) fn go(&mut self) {
        drop(self.process.take().expect("it is there"));
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:path={}", self.directory.path().join("bus").display())
    }

    pub(crate) async fn connect(&self) -> Connection {
        let builder = zbus::connection::Builder::address(self.address().as_str());
        builder.build().await.expect("connect to the bus")
    }
}

/// The daemon, told of a bus.
#[derive(Debug)]
pub(crate) struct OnBus {
    process: Option<Guarded>,
    directory: tempfile::TempDir,
}

impl OnBus {
    /// Starts a daemon with an empty store, and waits until it serves its socket.
    pub(crate) fn start(bus: &PrivateBus) -> Self {
        Self::with_log(bus, "info")
    }

    /// The same, logging at a level.
    pub(crate) fn with_log(bus: &PrivateBus, level: &str) -> Self {
        Self::with_settings(bus, &settings(level))
    }

    /// The same with the `[mesh]` of a node.
    pub(crate) fn in_mesh(bus: &PrivateBus, mesh: &str) -> Self {
        Self::with_settings(bus, &(settings("info") + mesh))
    }

    fn with_settings(bus: &PrivateBus, settings: &str) -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))
            .expect("open the directory");
        let config = directory.path().join("cortex.toml");
        fs::write(&config, settings).expect("write the configuration");
        let mut process = Command::new(env!("CARGO_BIN_EXE_cortexd"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .env("RUNTIME_DIRECTORY", directory.path().join("rollback_marker"))
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
            .arg("--config")
            .arg(&config)
            .arg("--socket")
            .arg(directory.path().join("cortex.sock"))
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(directory.path().join("log")).expect("make the log"))
            .spawn()
            .expect("start the daemon");
        // It says where it listens once it does.
        let mut first_line = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut first_line).expect("read what the daemon says");
        let daemon = Self { process: Some(Guarded(process)), directory };
        assert!(first_line.contains("listens on"), "the daemon said {first_line:?}");
        daemon
    }

    /// Starts a bus and a daemon on it, and waits until the daemon has its name.
    pub(crate) async fn with_bus() -> (PrivateBus, Self, Connection) {
        let bus = PrivateBus::start();
        let daemon = Self::start(&bus);
        let connection = bus.connect().await;
        wait_for_name(&connection, NAME).await;
        (bus, daemon, connection)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("cortex.sock")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn write_config(&self, config: &str) {
        fs::write(self.directory.path().join("cortex.toml"), config).expect("write the settings");
    }

    /// Puts another `[mesh]` in the settings.
    pub(crate) fn write_mesh(&self, mesh: &str) {
        self.write_config(&(settings("info") + mesh));
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("read the log")
    }

    /// Runs the command line tool against it; it must succeed.
    pub(crate) fn cortex(&self, arguments: &[&str]) -> String {
        succeeded(&self.run_cortex(arguments))
    }

    /// Runs the command line tool against it.
    pub(crate) fn run_cortex(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cortex"));
        command.arg("--socket").arg(self.socket()).args(arguments);
        command.stdin(Stdio::null()).output().expect("run cortex")
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal(Signal::SIGTERM);
        assert!(process.0.wait().expect("wait for the daemon").success(), "{}", self.log());
    }
}

impl Drop for OnBus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            eprintln!("the daemon's log:\n{log}");
        }
    }
}

fn settings(log: &str) -> String {
    format!("bus = \"system\"\nthreads = 1\nlog = \"{log}\"\n")
}

/// What a command printed that succeeded.
pub(crate) fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("output is UTF-8")
}

/// Waits for what a future brings, and fails the test where it does not come.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match timeout(TIME_LIMIT, work).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("not within {TIME_LIMIT:?}: {what}"),
    }
}

/// Waits until `holds`.
pub(crate) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !holds().await {
            sleep(POLL).await;
        }
    })
    .await;
}

/// Waits until somebody owns a name.
pub(crate) async fn wait_for_name(connection: &Connection, name: &'static str) {
    let bus = DBusProxy::new(connection).await.expect("the bus itself");
    let name = zbus::names::BusName::from_static_str(name).expect("a name");
    wait_until("the name has an owner", async || {
        bus.name_has_owner(name.clone()).await.expect("an answer")
    })
    .await;
}

/// An object of the daemon.
pub(crate) async fn object(
    connection: &Connection,
    path: &str,
    interface: &'static str,
) -> Proxy<'static> {
    zbus::proxy::Builder::new(connection)
        .destination(NAME)
        .path(path.to_owned())
        .interface(interface)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
        .expect("a proxy")
}

/// The name of the error that a call ended with.
pub(crate) fn error_name<T: std::fmt::Debug>(outcome: zbus::Result<T>) -> String {
    use zbus::DBusError;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's list, and it grows")]
    match outcome.expect_err("an error") {
        zbus::Error::MethodError(name, _, _) => name.to_string(),
        zbus::Error::FDO(error) => error.name().to_string(),
        other => panic!("not an error of the other side: {other}"),
    }
}
