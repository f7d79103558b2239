//! Settings: what the command line, the environment and the files say, put together and validated.
//! The defaults need none of them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    num::NonZero,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use cortex_core::model::Limits;
use serde::Deserialize;

use super::{
    Args,
    mesh_config::{MeshConfig, MeshSettings},
};
use crate::{
    edge::limits::ConnLimits,
    service::{EffectiveSetting, scrub::ScrubPace},
    sys::fragments::{self, Merged, Origins},
    sys::paths::{self, Environment},
};

/// The file as it is written. Every key may be absent; unknown ones are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen. Below `--socket` and `CORTEX_SOCKET`.
    pub socket: Option<PathBuf>,
    /// Where to keep the data. Below `--data-dir` and `CORTEX_DATA_DIR`.
    pub data_dir: Option<PathBuf>,
    /// The log level or filter. Below `--log`. Default `info`.
    pub log: Option<String>,
    /// Threads that serve connections, 1 to 64. Default: one per core, at most 8; more than
    /// cores only costs memory.
    pub threads: Option<usize>,
    /// Page cache of each thread and of the writer, in MiB, 1 to 4096. Default 8. Raise it where
    /// the records in daily use are more than that.
    pub cache_mib: Option<u32>,
    /// Records kept in memory for all threads together, in MiB, 0 to 65536. Default 32. What is
    /// read again and again should fit.
    pub record_cache_mib: Option<u32>,
    /// The message bus to be on, as `org.cortexd.Cortex1`: `system`, `session` or `off`. Default:
    /// `system` for root and for a service of the system, `off` for a daemon that a user starts,
    /// which no bus would give the name.
    pub bus: Option<BusChoice>,
    /// The other machines. Default: none, the node runs alone.
    pub mesh: Option<MeshConfig>,
    /// Bounds.
    pub limits: LimitsConfig,
}

/// Which message bus to be on, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BusChoice {
    /// The machine's.
    System,
    /// That of the session of the user who starts the daemon.
    Session,
    /// None.
    Off,
}

impl BusChoice {
    /// The choice of nobody in particular.
    fn default_for(env: &Environment) -> Self {
        if env.uid == 0 || env.system_service { Self::System } else { Self::Off }
    }
}

impl std::fmt::Display for BusChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::Session => "session",
            Self::Off => "off",
        })
    }
}

/// The `[limits]` of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Bytes of one message, 4 KiB to 64 MiB. Default 1 MiB. The largest record is a little
    /// smaller.
    pub message_bytes: Option<usize>,
    /// Levels of nesting in one message, 4 to 256. Default 64.
    pub nesting: Option<usize>,
    /// Open connections in all, 1 to 65536. Default 1024.
    pub connections: Option<usize>,
    /// Open connections of one uid; at most `connections`. Default 256.
    pub connections_per_uid: Option<usize>,
    /// Seconds that a message may take to arrive once it has begun, from 1. Default 30.
    pub message_seconds: Option<u64>,
    /// Seconds that a connection may rest between messages, from 1. Default 86400, a day.
    pub idle_seconds: Option<u64>,
    /// Seconds that a client may take to accept any of a reply, from 1. Default 30.
    pub stall_seconds: Option<u64>,
    /// Seconds that reading one whole table may take, from 1. Default 600. While it is read, the
    /// log on disk cannot be recycled.
    pub scan_seconds: Option<u64>,
    /// Whole tables read at the same time, 1 to 256. Default 16. Others wait their turn; each
    /// costs 2 MiB of memory.
    pub scans: Option<usize>,
    /// The same for one uid; at most `scans`. Default 4.
    pub scans_per_uid: Option<usize>,
    /// Hours between two rounds in which every row is compared with its checksum, 0 to 8760. Default 24. With 0 there
    /// is only the round at the start.
    pub scrub_hours: Option<u64>,
    /// Bytes of records that such a round reads in a second, 65536 to 1 GiB. Default 8 MiB.
    pub scrub_bytes_per_second: Option<u64>,
    /// Bytes of a key, 16 to 65536. Default 4096.
    pub key_bytes: Option<usize>,
    /// Tables of one uid, from 1. Default 1000.
    pub tables_per_uid: Option<usize>,
    /// Bytes of records that one uid may own, from 1. Default 16 GiB.
    pub bytes_per_uid: Option<u64>,
}

/// Validated settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen.
    pub socket: PathBuf,
    /// Where to keep the data.
    pub data_dir: PathBuf,
    /// The log level or filter.
    pub log: String,
    /// This machine's name, shown in status: that in the mesh, or the host's.
    pub node: String,
    /// The other machines; none for a node that runs alone.
    pub mesh: Option<MeshSettings>,
    /// Threads that serve connections.
    pub threads: usize,
    /// Page cache of each connection to the database, in KiB.
    pub cache_kib: u32,
    /// Records kept in memory, in MiB.
    pub record_cache_mib: u32,
    /// The message bus to be on.
    pub bus: BusChoice,
    /// Whole tables read at the same time.
    pub scans: usize,
    /// The same for one uid.
    pub scans_per_uid: usize,
    /// How often and how fast every row is compared with its checksum.
    pub scrub: ScrubPace,
    /// Bounds on connections.
    pub conn: ConnLimits,
    /// Bounds on what a uid may own.
    pub limits: Limits,
    /// By setting: the file and line, option or variable that it comes from. What is absent is a default.
    pub sources: BTreeMap<String, String>,
}

impl Settings {
    /// Puts command line, environment and file together.
    ///
    /// # Errors
    /// A text that names the setting, the file and the line, and says what is wrong with it.
    pub fn gather(args: &Args, env: &Environment) -> Result<Self> {
        let (config, origins) = args.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let settings = Self::validated(config, args, env);
        let settings = settings.map_err(|error| locate(error, &origins))?;
        Ok(Self { sources: sources(args, env, origins), ..settings })
    }

    fn validated(config: Config, args: &Args, env: &Environment) -> Result<Self> {
        let socket =
            paths::first_named(args.socket.clone(), env.cortex_socket.clone(), config.socket)
                .unwrap_or_else(|| paths::default_socket_for_daemon(env));
        let data_dir =
            paths::first_named(args.data_dir.clone(), env.cortex_data_dir.clone(), config.data_dir)
                .or_else(|| paths::default_data_dir(env))
                .context("nowhere to keep the data: set --data-dir, CORTEX_DATA_DIR or HOME")?;
        let log = read_log(args.log.as_deref(), config.log.as_deref())?;
        let threads = within("threads", config.threads, default_threads(), 1..=64)?;
        let cache_mib = within("cache_mib", config.cache_mib, 8, 1..=4096)?;
        let record_cache_mib = within("record_cache_mib", config.record_cache_mib, 32, 0..=65_536)?;
        let of = &config.limits;
        let scans = within("limits.scans", of.scans, 16, 1..=256)?;
        let scans_per_uid =
            within("limits.scans_per_uid", of.scans_per_uid, 4.min(scans), 1..=scans)?;
        let scrub = of.scrub()?;
        let mesh = config.mesh.map(|mesh| mesh_settings(&mesh, args, env)).transpose()?;
        Ok(Self {
            socket: absolute(&socket)?,
            data_dir: absolute(&data_dir)?,
            log,
            node: mesh.as_ref().map_or_else(host_name, |mesh| mesh.node.to_string()),
            mesh,
            threads,
            cache_kib: cache_mib * 1024,
            record_cache_mib,
            bus: config.bus.unwrap_or_else(|| BusChoice::default_for(env)),
            scans,
            scans_per_uid,
            scrub,
            conn: of.conn()?,
            limits: of.owned()?,
            sources: BTreeMap::new(),
        })
    }

    /// The settings, a line each, for `--check`.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::from("the settings are valid:\n");
        for EffectiveSetting { name, value, .. } in self.all() {
            let _infallible = writeln!(text, "  {name} = {value}");
        }
        let _infallible = write!(text, "  version = {}", env!("CARGO_PKG_VERSION"));
        text
    }

    /// Every setting, with its source.
    #[must_use]
    pub fn all(&self) -> Vec<EffectiveSetting> {
        let (conn, limits) = (&self.conn, &self.limits);
        let scrub_hours = self.scrub.interval.map_or(0, |interval| interval.as_secs() / 3600);
        let lines: [(&'static str, &dyn std::fmt::Display); 23] = [
            ("socket", &self.socket.display()),
            ("data_dir", &self.data_dir.display()),
            ("log", &self.log),
            ("node", &self.node),
            ("threads", &self.threads),
            ("cache_mib", &(self.cache_kib / 1024)),
            ("record_cache_mib", &self.record_cache_mib),
            ("bus", &self.bus),
            ("limits.message_bytes", &conn.message_bytes),
            ("limits.nesting", &conn.nesting),
            ("limits.connections", &conn.connections),
            ("limits.connections_per_uid", &conn.connections_per_uid),
            ("limits.message_seconds", &conn.message_time.as_secs()),
            ("limits.idle_seconds", &conn.idle_time.as_secs()),
            ("limits.stall_seconds", &conn.stall_time.as_secs()),
            ("limits.scan_seconds", &conn.scan_time.as_secs()),
            ("limits.scans", &self.scans),
            ("limits.scans_per_uid", &self.scans_per_uid),
            ("limits.scrub_hours", &scrub_hours),
            ("limits.scrub_bytes_per_second", &self.scrub.bytes_per_second),
            ("limits.key_bytes", &limits.key_bytes),
            ("limits.tables_per_uid", &limits.tables_per_uid),
            ("limits.bytes_per_uid", &limits.bytes_per_uid),
        ];
        let own = lines.into_iter().map(|(name, value)| (name, value.to_string()));
        let all = own.chain(self.mesh.iter().flat_map(MeshSettings::lines));
        let source = |name: &str| self.sources.get(name).cloned();
        all.map(|(name, value)| EffectiveSetting { name, value, source: source(name) }).collect()
    }

    /// The settings that another set changes and that take effect only at a start.
    #[must_use]
    pub fn fixed_changes(&self, new: &Self) -> Vec<&'static str> {
        let of_mesh =
            |settings: &Self| settings.mesh.as_ref().map(|mesh| (mesh.node.clone(), mesh.listen));
        let (old_mesh, new_mesh) = (of_mesh(self), of_mesh(new));
        let both = old_mesh.as_ref().zip(new_mesh.as_ref());
        let changes = [
            ("socket", self.socket != new.socket),
            ("data_dir", self.data_dir != new.data_dir),
            ("threads", self.threads != new.threads),
            ("cache_mib", self.cache_kib != new.cache_kib),
            ("record_cache_mib", self.record_cache_mib != new.record_cache_mib),
            ("bus", self.bus != new.bus),
            ("mesh", old_mesh.is_some() != new_mesh.is_some()),
            ("mesh.node_name", both.is_some_and(|(old, new)| old.0 != new.0)),
            ("mesh.listen", both.is_some_and(|(old, new)| old.1 != new.1)),
            ("limits.scans", self.scans != new.scans),
            ("limits.scans_per_uid", self.scans_per_uid != new.scans_per_uid),
            ("limits.scrub_hours", self.scrub.interval != new.scrub.interval),
            (
                "limits.scrub_bytes_per_second",
                self.scrub.bytes_per_second != new.scrub.bytes_per_second,
            ),
        ];
        changes.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }
}

impl LimitsConfig {
    fn conn(&self) -> Result<ConnLimits> {
        let default = ConnLimits::default();
        let connections =
            within("limits.connections", self.connections, default.connections, 1..=65_536)?;
        let of_uid = default.connections_per_uid.min(connections);
        Ok(ConnLimits {
            message_bytes: within(
                "limits.message_bytes",
                self.message_bytes,
                default.message_bytes,
                4096..=64 << 20,
            )?,
            nesting: within("limits.nesting", self.nesting, default.nesting, 4..=256)?,
            connections,
            connections_per_uid: within(
                "limits.connections_per_uid",
                self.connections_per_uid,
                of_uid,
                1..=connections,
            )?,
            message_time: seconds(
                "limits.message_seconds",
                self.message_seconds,
                default.message_time,
            )?,
            idle_time: seconds("limits.idle_seconds", self.idle_seconds, default.idle_time)?,
            stall_time: seconds("limits.stall_seconds", self.stall_seconds, default.stall_time)?,
            scan_time: seconds("limits.scan_seconds", self.scan_seconds, default.scan_time)?,
        })
    }

    fn scrub(&self) -> Result<ScrubPace> {
        let hours = within("limits.scrub_hours", self.scrub_hours, 24, 0..=8760)?;
        let (least, most) = (64 << 10, 1 << 30);
        let default = ScrubPace::default().bytes_per_second;
        let given = self.scrub_bytes_per_second;
        Ok(ScrubPace {
            interval: (hours > 0).then(|| Duration::from_secs(hours * 3600)),
            bytes_per_second: within(
                "limits.scrub_bytes_per_second",
                given,
                default,
                least..=most,
            )?,
        })
    }

    fn owned(&self) -> Result<Limits> {
        let default = Limits::default();
        Ok(Limits {
            key_bytes: within("limits.key_bytes", self.key_bytes, default.key_bytes, 16..=65_536)?,
            tables_per_uid: within(
                "limits.tables_per_uid",
                self.tables_per_uid,
                default.tables_per_uid,
                1..=1_000_000,
            )?,
            bytes_per_uid: within(
                "limits.bytes_per_uid",
                self.bytes_per_uid,
                default.bytes_per_uid,
                1..=1 << 60,
            )?,
        })
    }
}

fn mesh_settings(mesh: &MeshConfig, args: &Args, env: &Environment) -> Result<MeshSettings> {
    let file = absolute(args.config.as_deref().unwrap_or(Path::new(".")))?;
    mesh.validated(file.parent().unwrap_or(Path::new("/")), env)
}

/// Reads the file and its fragments. Each is checked by itself, so that an error names the file it is in.
fn read(path: &Path) -> Result<(Config, Origins)> {
    let Merged { table, origins } =
        fragments::read(path, |text| toml::from_str::<Config>(text).map(drop))?;
    Ok((table.try_into().context("the configuration is not valid")?, origins))
}

/// Where the settings come from that are not defaults.
fn sources(args: &Args, env: &Environment, origins: Origins) -> BTreeMap<String, String> {
    let of_files = origins.into_iter().map(|(key, origin)| (key, origin.to_string()));
    let mut sources: BTreeMap<String, String> = of_files.collect();
    // What counts more comes later.
    let others = [
        ("socket", "CORTEX_SOCKET", env.cortex_socket.is_some()),
        ("data_dir", "CORTEX_DATA_DIR", env.cortex_data_dir.is_some()),
        ("socket", "--socket", args.socket.is_some()),
        ("data_dir", "--data-dir", args.data_dir.is_some()),
        ("log", "--log", args.log.is_some()),
    ];
    let given = others.into_iter().filter(|(.., given)| *given);
    sources.extend(given.map(|(key, source, _)| (key.to_owned(), source.to_owned())));
    sources
}

/// A value of a setting that the daemon does not take.
#[derive(Debug, thiserror::Error)]
#[error("{key}{problem}")]
pub(super) struct BadSetting {
    /// As it stands in the file, dotted.
    pub(super) key: &'static str,
    /// What follows the key in the message.
    pub(super) problem: String,
}

impl BadSetting {
    /// The setting, and what is wrong with it.
    pub(super) fn new(key: &'static str, error: &anyhow::Error) -> Self {
        Self { key, problem: format!(": {error:#}") }
    }
}

/// Puts file and line in front of what is said of a setting. A setting that was named elsewhere, or left to
/// its default, has none.
fn locate(error: anyhow::Error, origins: &Origins) -> anyhow::Error {
    let origin = error.downcast_ref::<BadSetting>().and_then(|bad| origins.get(bad.key));
    match origin.map(ToString::to_string) {
        Some(origin) => error.context(origin),
        None => error,
    }
}

fn read_log(flag: Option<&str>, file: Option<&str>) -> Result<String> {
    let filter = flag.or(file).unwrap_or("info");
    match super::log::validate(filter) {
        Ok(()) => Ok(filter.to_owned()),
        Err(error) if flag.is_some() => Err(error.context(format!("--log {filter:?}"))),
        Err(error) => {
            let problem = format!(" = {filter:?}: {error:#}");
            Err(BadSetting { key: "log", problem }.into())
        }
    }
}

fn within<T: PartialOrd + Copy + std::fmt::Display>(
    key: &'static str,
    given: Option<T>,
    default: T,
    range: RangeInclusive<T>,
) -> Result<T> {
    let value = given.unwrap_or(default);
    let (least, most) = (range.start(), range.end());
    if !range.contains(&value) {
        let problem = format!(" = {value} is not between {least} and {most}");
        return Err(BadSetting { key, problem }.into());
    }
    Ok(value)
}

fn seconds(key: &'static str, given: Option<u64>, default: Duration) -> Result<Duration> {
    /// A year: far beyond use, and far from overflowing a clock.
    const MOST: u64 = 365 * 86_400;
    within(key, given, default.as_secs(), 1..=MOST).map(Duration::from_secs)
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(8)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        bail!("a path must not be empty");
    }
    std::path::absolute(path)
        .with_context(|| format!("cannot make sense of the path {}", path.display()))
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(text: &str) -> Result<Settings> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("cortex.toml");
        std::fs::write(&path, text)?;
        let env = Environment { uid: 1000, home: Some("/home/u".into()), ..Environment::default() };
        Settings::gather(&Args { config: Some(path), ..Args::default() }, &env)
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        let settings = gather("").expect("valid");
        assert_eq!(settings.conn, ConnLimits::default());
        assert_eq!(settings.limits, Limits::default());
        assert_eq!(settings.data_dir, Path::new("/home/u/.local/state/cortex"));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for text in ["sockets = 'x'", "[limits]\nconections = 4", "[meshes]"] {
            let error = format!("{:#}", gather(text).expect_err(text));
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_the_range() {
        for (text, wanted) in [
            ("threads = 0", "threads = 0 is not between 1 and 64"),
            (
                "[limits]\nmessage_bytes = 10",
                "limits.message_bytes = 10 is not between 4096 and 67108864",
            ),
            (
                "[limits]\nconnections = 5\nconnections_per_uid = 6",
                "limits.connections_per_uid = 6 is not between 1 and 5",
            ),
            ("[limits]\nidle_seconds = 0", "limits.idle_seconds = 0 is not between 1 and 31536000"),
        ] {
            let error = format!("{:#}", gather(text).expect_err(text));
            assert!(error.ends_with(&format!(": {wanted}")), "{error}");
        }
    }

    #[test]
    fn a_value_that_is_refused_is_named_with_its_file_and_line() {
        let error = gather_with(
            "threads = 2\n[limits]\nconnections = 5\n",
            &[("10-a.toml", "# a comment\n[limits]\nnesting = 20\nconnections = 0\n")],
        )
        .expect_err("no connections");
        let error = format!("{error:#}");
        let wanted = "c.toml.d/10-a.toml:4: limits.connections = 0 is not between 1 and 65536";
        assert!(error.ends_with(wanted), "{error}");

        let error = format!("{:#}", gather("\n\nlog = 'warnning'").expect_err("no level"));
        assert!(error.contains("cortex.toml:3: log = \"warnning\""), "{error}");
    }

    #[test]
    fn a_file_may_begin_with_a_byte_order_mark() {
        assert_eq!(gather("\u{feff}threads = 3").expect("valid").threads, 3);
    }

    #[test]
    fn a_wrong_level_on_the_command_line_is_not_laid_to_a_file() {
        let args = Args { log: Some("verbose".into()), ..Args::default() };
        let env = Environment { home: Some("/home/u".into()), ..Environment::default() };
        let error = format!("{:#}", Settings::gather(&args, &env).expect_err("no level"));
        assert!(error.starts_with("--log \"verbose\": "), "{error}");
    }

    #[test]
    fn the_command_line_beats_the_environment_beats_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "socket = '/file'\ndata_dir = '/data'").expect("written");
        let mut args = Args { config: Some(file), ..Args::default() };
        let mut env = Environment::default();
        let socket =
            |args: &Args, env: &Environment| Settings::gather(args, env).expect("valid").socket;
        assert_eq!(socket(&args, &env), Path::new("/file"));
        env.cortex_socket = Some("/env".into());
        assert_eq!(socket(&args, &env), Path::new("/env"));
        args.socket = Some("/flag".into());
        assert_eq!(socket(&args, &env), Path::new("/flag"));
    }

    /// Settings from `c.toml` with these fragments beside it.
    fn gather_with(text: &str, fragments: &[(&str, &str)]) -> Result<Settings> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text)?;
        std::fs::create_dir(dir.path().join("c.toml.d"))?;
        for (name, text) in fragments {
            std::fs::write(dir.path().join("c.toml.d").join(name), text)?;
        }
        let env = Environment { home: Some("/home/u".into()), ..Environment::default() };
        Settings::gather(&Args { config: Some(file), ..Args::default() }, &env)
    }

    #[test]
    fn a_later_fragment_wins_key_by_key() {
        let settings = gather_with(
            "threads = 2\n[limits]\nnesting = 10\nkey_bytes = 100",
            &[
                ("20-b.toml", "threads = 4\n[limits]\nscans = 7"),
                ("10-a.toml", "threads = 3\n[limits]\nnesting = 20\nscans = 6"),
            ],
        )
        .expect("valid");
        assert_eq!((settings.threads, settings.scans), (4, 7), "the last one's");
        assert_eq!(settings.conn.nesting, 20, "the first fragment's");
        assert_eq!(settings.limits.key_bytes, 100, "the file's own");
    }

    #[test]
    fn only_plain_toml_files_are_fragments() {
        let settings = gather_with(
            "threads = 2",
            &[(".10-a.toml", "threads = 3"), ("10-a.toml~", "threads = 4"), ("README", "?")],
        );
        assert_eq!(settings.expect("valid").threads, 2);
    }

    #[test]
    fn an_error_in_a_fragment_names_it() {
        for text in ["thread = 1", "threads = 'two'", "["] {
            let error = gather_with("", &[("10-a.toml", text)]).expect_err(text);
            assert!(format!("{error:#}").contains("c.toml.d/10-a.toml"), "{error:#}");
        }
    }

    #[test]
    fn a_daemon_of_the_whole_machine_is_on_the_system_bus_and_a_users_on_none() {
        let user =
            Environment { uid: 1000, home: Some("/home/u".into()), ..Environment::default() };
        let bus = |env: &Environment| Settings::gather(&Args::default(), env).expect("valid").bus;
        assert_eq!(bus(&user), BusChoice::Off);
        assert_eq!(bus(&Environment { uid: 0, ..user.clone() }), BusChoice::System);
        assert_eq!(bus(&Environment { system_service: true, ..user }), BusChoice::System);
        assert_eq!(gather("bus = 'session'").expect("valid").bus, BusChoice::Session);
        assert!(gather("bus = 'User'").is_err(), "a choice that there is not");
    }

    #[test]
    fn a_log_filter_that_cannot_be_read_is_refused() {
        let error = format!("{:#}", gather("log = 'info,=['").expect_err("no filter"));
        assert!(error.contains("log"), "{error}");
    }
}
