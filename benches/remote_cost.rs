//! What a request of another machine costs beside one of this machine, and what a handshake costs.
//!
//! The limit is measured in the same run: the same TLS with the same certificates over the same
//! loopback, with nothing behind it but a thread that answers what a daemon would. The runs alternate,
//! so that what a noisy machine does to one it does to the others; each figure is the median of the
//! rounds. Any error fails the benchmark.
//!
//! ```text
//! cargo bench --bench remote_cost
//! ```

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use cortex_core::model::NodeName;
use cortexd::pki::{Credentials, Files, server_name};
use rustls::{ClientConnection, ServerConnection, StreamOwned};

/// Rounds; each measures everything once.
const ROUNDS: usize = 5;

/// Requests of one round over one connection, and connections of one round.
const REQUESTS: usize = 3000;
const CONNECTIONS: usize = 100;

/// Requests that are not counted, at the beginning of a connection.
const WARM_UP: usize = 200;

const ALPN: &[u8] = b"cortex-rpc/1";

/// `[0, 1, "get", ["1000:t", 1]]` with the uid of whoever runs this, and the daemon's answer.
struct Talk {
    request: Vec<u8>,
    answer: Vec<u8>,
}

fn main() -> ExitCode {
    if cfg!(debug_assertions) {
        println!("remote_cost: nothing measured, this is a debug build; use `cargo bench`");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("remote_cost: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mesh = Mesh::make(dir.path())?;
    let daemon = Daemon::start(dir.path(), &mesh)?;
    let talk = daemon.prepare()?;
    let bare = bare_server(&mesh.home, &talk)?;

    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(Round {
            local: round_trip(daemon.connect()?, &talk)?,
            remote: round_trip(mesh.connect(daemon.port)?, &talk)?,
            bare: round_trip(mesh.connect(bare)?, &talk)?,
            handshake: handshakes(&mesh, daemon.port, &talk)?,
            bare_handshake: handshakes(&mesh, bare, &talk)?,
        });
    }
    report(&rounds);
    Ok(())
}

/// The medians of one round.
struct Round {
    local: Duration,
    remote: Duration,
    bare: Duration,
    handshake: Duration,
    bare_handshake: Duration,
}

fn report(rounds: &[Round]) {
    let median_of = |of: fn(&Round) -> Duration| median(rounds.iter().map(of).collect());
    let ratio = |of: fn(&Round) -> f64| {
        let mut ratios: Vec<f64> = rounds.iter().map(of).collect();
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        format!("{:.2} ({least:.2}-{most:.2})", ratios[ratios.len() / 2])
    };
    let us = |time: Duration| format!("{:.1} us", time.as_secs_f64() * 1e6);
    println!("a get of 100 B, one after another, median of {ROUNDS} rounds of {REQUESTS}");
    println!("  of this machine, Unix socket        {}", us(median_of(|r| r.local)));
    println!("  of another machine, TLS on loopback {}", us(median_of(|r| r.remote)));
    println!("  TLS with nothing behind it          {}", us(median_of(|r| r.bare)));
    println!("  other machine / this machine        {}", ratio(|r| quotient(r.remote, r.local)));
    println!("  other machine / TLS alone           {}", ratio(|r| quotient(r.remote, r.bare)));
    println!("a connection with its handshake and one request, {ROUNDS} rounds of {CONNECTIONS}");
    let each = median_of(|r| r.handshake);
    println!(
        "  to the daemon                       {} ({:.0} per s)",
        us(each),
        1.0 / each.as_secs_f64()
    );
    println!("  to TLS with nothing behind it       {}", us(median_of(|r| r.bare_handshake)));
    println!(
        "  daemon / TLS alone                  {}",
        ratio(|r| quotient(r.handshake, r.bare_handshake))
    );
}

fn quotient(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn round_trip(mut stream: impl Read + Write, talk: &Talk) -> Result<Duration> {
    let mut times = Vec::with_capacity(REQUESTS);
    let mut answer = vec![0; talk.answer.len()];
    for n in 0..WARM_UP + REQUESTS {
        let started = Instant::now();
        stream.write_all(&talk.request)?;
        stream.flush()?;
        stream.read_exact(&mut answer)?;
        if n >= WARM_UP {
            times.push(started.elapsed());
        }
        ensure!(answer == talk.answer, "another answer");
    }
    Ok(median(times))
}

fn handshakes(mesh: &Mesh, port: u16, talk: &Talk) -> Result<Duration> {
    let mut times = Vec::with_capacity(CONNECTIONS);
    let mut answer = vec![0; talk.answer.len()];
    for _ in 0..CONNECTIONS {
        let started = Instant::now();
        let mut stream = mesh.connect(port)?;
        stream.write_all(&talk.request)?;
        stream.flush()?;
        stream.read_exact(&mut answer)?;
        times.push(started.elapsed());
    }
    Ok(median(times))
}

/// Two nodes: the daemon's, and the one that this program is.
struct Mesh {
    home: Arc<Credentials>,
    home_files: Files,
    office: Arc<Credentials>,
}

impl Mesh {
    fn make(dir: &Path) -> Result<Self> {
        let ca = dir.join("ca");
        cortex(&["mesh", "init-ca", "--output", &text(&ca)])?;
        let load = |name: &str| -> Result<(Arc<Credentials>, Files)> {
            let node = dir.join(name);
            let (ca, out) = (text(&ca), text(&node));
            cortex(&["mesh", "add-node", name, "127.0.0.1", "--ca-dir", &ca, "--output", &out])?;
            let files = Files::in_dir(&node);
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            let own = Credentials::load(&files, &NodeName::parse(name)?, now)?;
            Ok((Arc::new(own), files))
        };
        let ((home, home_files), (office, _)) = (load("home")?, load("office")?);
        Ok(Self { home, home_files, office })
    }

    fn connect(&self, port: u16) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let tcp = TcpStream::connect(("127.0.0.1", port))?;
        tcp.set_nodelay(true)?;
        let name = server_name(self.home.node())?;
        let session = ClientConnection::new(self.office.client_config(ALPN), name)?;
        Ok(StreamOwned::new(session, tcp))
    }
}

fn cortex(arguments: &[&str]) -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_cortex")).args(arguments).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The daemon, ended when this is dropped.
struct Daemon {
    child: Child,
    socket: PathBuf,
    port: u16,
}

impl Daemon {
    fn start(dir: &Path, mesh: &Mesh) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let Files { ca_cert, node_cert, node_key, crl } = &mesh.home_files;
        let settings = format!(
            "[mesh]\nnode_name = 'home'\nlisten = '127.0.0.1:{port}'\nca_cert = '{}'\n\
             node_cert = '{}'\nnode_key = '{}'\ncrl = '{}'\n\
             nodes = [{{ name = 'office', host = '127.0.0.1', port = 1 }}]\n",
            text(ca_cert),
            text(node_cert),
            text(node_key),
            text(crl)
        );
        let (config, socket) = (dir.join("c.toml"), dir.join("cortex.sock"));
        fs::write(&config, settings)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_cortexd"));
        command.arg("--config").arg(&config).arg("--socket").arg(&socket);
        command.arg("--data-dir").arg(dir.join("data")).args(["--log", "error"]);
        let child = command.stdout(Stdio::null()).spawn().context("start cortexd")?;
        let daemon = Self { child, socket, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while daemon.connect().is_err() || TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < deadline, "cortexd does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    fn connect(&self) -> Result<UnixStream> {
        Ok(UnixStream::connect(&self.socket)?)
    }

    /// Makes a record that both may read, and learns how the daemon answers for it.
    fn prepare(&self) -> Result<Talk> {
        let socket = text(&self.socket);
        let ask = |arguments: &[&str]| cortex(&[&["--socket", &socket], arguments].concat());
        ask(&["create", "t", "id", "--scope", "all"])?;
        ask(&["put", "t", &format!("{{\"id\":1,\"text\":\"{}\"}}", "x".repeat(90))])?;
        ask(&["acl", "grant", "*", "t", "read"])?;
        let table = format!("{}:t", nix::unistd::geteuid());
        let mut request = vec![0x94, 0, 1, 0xa3, b'g', b'e', b't', 0x92];
        rmp::encode::write_str(&mut request, &table)?;
        request.push(1);
        let mut stream = self.connect()?;
        stream.write_all(&request)?;
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer)?;
        answer.truncate(length);
        ensure!(length > 100 && answer[3] == 0xc0, "no record: {answer:x?}");
        Ok(Talk { request, answer })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _collected = self.child.wait();
    }
}

/// Answers every request with what the daemon has answered, over the same TLS. A thread for each
/// connection, which lives as long as it.
fn bare_server(own: &Credentials, talk: &Talk) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let config = own.server_config(&[ALPN]);
    let (length, answer) = (talk.request.len(), talk.answer.clone());
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let (config, answer) = (Arc::clone(&config), answer.clone());
            thread::spawn(move || -> Result<()> {
                tcp.set_nodelay(true)?;
                let mut stream = StreamOwned::new(ServerConnection::new(config)?, tcp);
                let mut request = vec![0; length];
                loop {
                    stream.read_exact(&mut request)?;
                    stream.write_all(&answer)?;
                    stream.flush()?;
                }
            });
        }
    });
    Ok(port)
}
