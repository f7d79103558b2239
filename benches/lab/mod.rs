//! A mesh on this machine to measure on: certificates by our own commands, daemons on loopback.
//! What is measured is each benchmark's.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use cortex_core::model::NodeName;
use cortexd::pki::{Credentials, Files, server_name};
use rustls::{ClientConnection, ServerConnection, StreamOwned};

/// How long a daemon may take to be there.
const START: Duration = Duration::from_secs(20);

/// Machines of a mesh, each with its certificate and its port.
pub(crate) struct Mesh {
    dir: PathBuf,
    nodes: Vec<Node>,
}

/// One of them.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) credentials: Arc<Credentials>,
    files: Files,
    pub(crate) port: u16,
}

impl Mesh {
    pub(crate) fn make(dir: &Path, names: &[&'static str]) -> Result<Self> {
        let ca = text(&dir.join("ca"));
        cortex(&["mesh", "init-ca", "--output", &ca])?;
        let mut nodes = Vec::new();
        for &name in names {
            let place = dir.join(name);
            let out = text(&place);
            cortex(&["mesh", "add-node", name, "127.0.0.1", "--ca-dir", &ca, "--output", &out])?;
            let files = Files::in_dir(&place);
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            let credentials = Arc::new(Credentials::load(&files, &NodeName::parse(name)?, now)?);
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            nodes.push(Node { name, credentials, files, port });
        }
        Ok(Self { dir: dir.to_owned(), nodes })
    }

    pub(crate) fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).context("a node of that name")
    }

    /// Starts the daemon of a node, which knows all others.
    pub(crate) fn start(&self, name: &str) -> Result<Daemon> {
        let node = self.node(name)?;
        let others = self.nodes.iter().filter(|other| other.name != name);
        let others: Vec<_> = others
            .map(|other| {
                format!("{{ name = '{}', host = '127.0.0.1', port = {} }}", other.name, other.port)
            })
            .collect();
        let Files { ca_cert, node_cert, node_key, crl } = &node.files;
        let settings = format!(
            "[mesh]\nnode_name = '{name}'\nlisten = '127.0.0.1:{}'\nca_cert = '{}'\n\
             node_cert = '{}'\nnode_key = '{}'\ncrl = '{}'\nnodes = [{}]\n",
            node.port,
            text(ca_cert),
            text(node_cert),
            text(node_key),
            text(crl),
            others.join(", ")
        );
        let place = self.dir.join(name);
        let (config, socket) = (place.join("c.toml"), place.join("cortex.sock"));
        fs::write(&config, settings)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_cortexd"));
        command.arg("--config").arg(&config).arg("--socket").arg(&socket);
        command.arg("--data-dir").arg(place.join("data")).args(["--log", "error"]);
        command.env("RUNTIME_DIRECTORY", place.join("rollback_marker"));
        let child = command.stdout(Stdio::null()).spawn().context("start cortexd")?;
        let daemon = Daemon { child, socket };
        let deadline = Instant::now() + START;
        while daemon.connect().is_err() || TcpStream::connect(("127.0.0.1", node.port)).is_err() {
            ensure!(Instant::now() < deadline, "cortexd does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }
}

impl Node {
    /// Connects to a port as another node of the mesh.
    pub(crate) fn reached_by(
        &self,
        other: &Self,
        port: u16,
        alpn: &[u8],
    ) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let tcp = TcpStream::connect(("127.0.0.1", port))?;
        tcp.set_nodelay(true)?;
        let name = server_name(self.credentials.node())?;
        let session = ClientConnection::new(other.credentials.client_config(alpn), name)?;
        Ok(StreamOwned::new(session, tcp))
    }

    /// Listens with this node's certificate, and serves each connection on a thread, which lives as long
    /// as it. Answers the port.
    pub(crate) fn serve(
        &self,
        alpn: &'static [u8],
        each: impl Fn(StreamOwned<ServerConnection, TcpStream>) -> Result<()> + Send + Sync + 'static,
    ) -> Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (config, each) = (self.credentials.server_config(&[alpn]), Arc::new(each));
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (config, each) = (Arc::clone(&config), Arc::clone(&each));
                thread::spawn(move || -> Result<()> {
                    tcp.set_nodelay(true)?;
                    each(StreamOwned::new(ServerConnection::new(config)?, tcp))
                });
            }
        });
        Ok(port)
    }
}

/// Runs our own command.
pub(crate) fn cortex(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(env!("CARGO_BIN_EXE_cortex")).args(arguments).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A daemon, ended when this is dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Daemon {
    pub(crate) fn connect(&self) -> Result<UnixStream> {
        Ok(UnixStream::connect(&self.socket)?)
    }

    /// Asks this daemon by our own command.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let socket = text(&self.socket);
        cortex(&[&["--socket", &socket], arguments].concat())
    }

    /// Its process.
    #[allow(dead_code, reason = "each benchmark uses its own part")]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _collected = self.child.wait();
    }
}

/// How long one request takes whose answer is known, as the median of some, one after another, with a pause
/// before each.
pub(crate) fn round_trip(
    mut stream: impl Read + Write,
    request: &[u8],
    expected: &[u8],
    count: usize,
    pause: Duration,
) -> Result<Duration> {
    /// Not counted, at the beginning of a connection.
    const WARM_UP: usize = 200;
    let mut times = Vec::with_capacity(count);
    let mut answer = vec![0; expected.len()];
    for n in 0..WARM_UP + count {
        thread::sleep(pause);
        let started = now();
        stream.write_all(request)?;
        stream.flush()?;
        stream.read_exact(&mut answer)?;
        if n >= WARM_UP {
            times.push(started.elapsed());
        }
        ensure!(answer == expected, "another answer");
    }
    Ok(quantile(&mut times, 0.5))
}

/// Real time, which benchmarks measure.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The value below which so large a part of the times lies.
pub(crate) fn quantile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((times.len() - 1) as f64 * part).round() as usize;
    times[index]
}
