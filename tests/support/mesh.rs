//! A mesh to test with: a CA and certificates made by openssl(1), settings for its machines, and TLS by hand.
//! Leaves the daemons to `daemon`, and what is said on a connection to the tests.

#![allow(dead_code, reason = "each test uses its own part")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use cortex_core::model::NodeName;
use cortexd::pki::{Credentials, Files, server_name};
use cortexd::sys::clock;
use rmpv::Value;
use rustls::{ClientConnection, StreamOwned};

use super::daemon::{Daemon, TIME_LIMIT};
use super::rpc::{field, packed};

const RPC: &[u8] = b"cortex-rpc/1";
pub(crate) const LINK: &[u8] = b"cortex-sync/1";

/// Both, as a node needs them.
pub(crate) const BOTH_USAGES: &str = "serverAuth,clientAuth";

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::parse(name).expect("a node's name")
}

/// A CA with its files in a directory.
#[derive(Debug)]
pub(crate) struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let ca = Self { dir: tempfile::tempdir().expect("make a directory") };
        let dir = ca.dir.path().display();
        let config = format!(
            "[ca]\ndefault_ca = own\n[own]\ndatabase = {dir}/index.txt\nnew_certs_dir = {dir}\n\
             rand_serial = yes\ncrlnumber = {dir}/crlnumber\ncertificate = {dir}/ca.crt\n\
             private_key = {dir}/ca.key\ndefault_md = sha256\ndefault_days = 30\n\
             default_crl_days = 30\nunique_subject = no\npolicy = any\ncrl_extensions = list\n\
             [any]\ncommonName = supplied\n[list]\nauthorityKeyIdentifier = keyid\n\
             [req]\ndistinguished_name = dn\n[dn]\n[root]\nbasicConstraints = critical,CA:TRUE\n\
             keyUsage = critical,keyCertSign,cRLSign\nsubjectKeyIdentifier = hash\n"
        );
        ca.write("ca.cnf", &config);
        ca.write("index.txt", "");
        ca.write("crlnumber", "01\n");
        ca.openssl(&[
            "req",
            "-x509",
            "-config",
            "ca.cnf",
            "-extensions",
            "root",
            "-days",
            "30",
            "-subj",
            "/CN=test mesh",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-noenc",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ]);
        ca.list();
        ca
    }

    /// A certificate for a node, in NAME.crt and NAME.key.
    pub(crate) fn issue(&self, name: &str) {
        self.issue_as(name, name, BOTH_USAGES, &[]);
    }

    /// A certificate for a node, in files of another name, with these usages and options of openssl-ca(1).
    pub(crate) fn issue_as(&self, file: &str, name: &str, usages: &str, options: &[&str]) {
        self.issue_for(file, name, &[name], usages, options);
    }

    /// The same with these DNS names.
    pub(crate) fn issue_for(
        &self,
        file: &str,
        name: &str,
        dns_names: &[&str],
        usages: &str,
        options: &[&str],
    ) {
        let (key, request, certificate, extensions) = (
            format!("{file}.key"),
            format!("{file}.csr"),
            format!("{file}.crt"),
            format!("{file}.ext"),
        );
        self.openssl(&[
            "req",
            "-new",
            "-config",
            "ca.cnf",
            "-subj",
            &format!("/CN={name}"),
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-noenc",
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        let dns_names: Vec<_> = dns_names.iter().map(|name| format!("DNS:{name}")).collect();
        let dns_names = dns_names.join(",");
        self.write(&extensions, &format!("subjectAltName = {dns_names}\nextendedKeyUsage = {usages}\nkeyUsage = critical,digitalSignature\nauthorityKeyIdentifier = keyid\n"));
        let mut arguments = vec![
            "ca",
            "-batch",
            "-config",
            "ca.cnf",
            "-notext",
            "-in",
            &request,
            "-out",
            &certificate,
            "-extfile",
            &extensions,
        ];
        arguments.extend(options);
        self.openssl(&arguments);
    }

    /// Puts a certificate onto the list.
    pub(crate) fn revoke(&self, file: &str) {
        self.openssl(&["ca", "-config", "ca.cnf", "-revoke", &format!("{file}.crt")]);
        self.list();
    }

    fn list(&self) {
        self.openssl(&["ca", "-config", "ca.cnf", "-gencrl", "-out", "ca.crl"]);
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).expect("write a file of the CA");
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.dir.path()).output();
        let output = output.expect("openssl runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// A daemon `home` at that port, and certificates for it and for `cabin`, which is configured and no daemon.
    pub(crate) fn home_beside_cabin() -> (Self, Daemon, u16) {
        let ca = Self::new();
        ca.issue("home");
        ca.issue("cabin");
        let port = free_port();
        let nodes = [("home", port), ("cabin", free_port())];
        let home = Daemon::with_config(&ca.settings("home", port, &nodes));
        (ca, home, port)
    }

    /// The `[mesh]` of a node.
    pub(crate) fn settings(&self, name: &str, port: u16, nodes: &[(&str, u16)]) -> String {
        self.settings_with(name, name, port, nodes)
    }

    /// The same with the certificate of that file.
    pub(crate) fn settings_with(
        &self,
        name: &str,
        file: &str,
        port: u16,
        nodes: &[(&str, u16)],
    ) -> String {
        let node = |(name, port): &(&str, u16)| {
            format!("{{ name = '{name}', host = '127.0.0.1', port = {port} }}")
        };
        let nodes: Vec<_> = nodes.iter().map(node).collect();
        let path = |file: &str| self.path(file).display().to_string();
        format!(
            "[mesh]\nnode_name = '{name}'\nlisten = '127.0.0.1:{port}'\nca_cert = '{}'\n\
             node_cert = '{}'\nnode_key = '{}'\ncrl = '{}'\nnodes = [{}]\n",
            path("ca.crt"),
            path(&format!("{file}.crt")),
            path(&format!("{file}.key")),
            path("ca.crl"),
            nodes.join(", ")
        )
    }

    /// What a program of the node with these files can do that is no daemon.
    pub(crate) fn credentials(&self, file: &str, name: &str) -> Credentials {
        let files = Files {
            ca_cert: self.path("ca.crt"),
            node_cert: self.path(&format!("{file}.crt")),
            node_key: self.path(&format!("{file}.key")),
            crl: self.path("ca.crl"),
        };
        Credentials::load(&files, &node(name), clock::wall_ms() / 1000).expect("good credentials")
    }
}

/// A port on which nobody listens, and that this process has not answered before. It is none of those that the kernel
/// gives to whoever names none: while a daemon is down, such a one would become the near end of a connection.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 10_240;
    const COUNT: u32 = 20_000;
    static ANSWERED: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id().wrapping_mul(7_919); // so that two processes try other ones
    (0..COUNT)
        .filter_map(|_| {
            let n = own.wrapping_add(ANSWERED.fetch_add(1, Relaxed)) % COUNT;
            u16::try_from(FIRST + n).ok()
        })
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// What a daemon says of its mesh.
pub(crate) fn status(daemon: &Daemon) -> Value {
    daemon.connect().call("mesh_status", &[]).expect("the state of the mesh")
}

/// What it says of one other node.
pub(crate) fn peer(daemon: &Daemon, name: &str) -> Value {
    let status = status(daemon);
    let peers = field(&status, "peers").and_then(Value::as_array).expect("an array");
    let found = peers.iter().find(|peer| field(peer, "name") == Some(&name.into()));
    found.unwrap_or_else(|| panic!("{name} is not in {status}")).clone()
}

/// True while there is a link to it. A node that was just configured is not shown yet.
pub(crate) fn is_connected(daemon: &Daemon, name: &str) -> bool {
    let status = status(daemon);
    let peers = field(&status, "peers").and_then(Value::as_array).expect("an array");
    let is_it = |peer: &&Value| field(peer, "name") == Some(&name.into());
    let found = peers.iter().find(is_it);
    found.is_some_and(|peer| field(peer, "connected") == Some(&true.into()))
}

pub(crate) fn state(daemon: &Daemon, name: &str) -> String {
    field(&peer(daemon, name), "state").and_then(Value::as_str).expect("a state").to_owned()
}

/// How many connections were refused for this reason.
pub(crate) fn refused(daemon: &Daemon, reason: &str) -> u64 {
    let status = status(daemon);
    let refused = field(&status, "refused").expect("a map");
    field(refused, reason).and_then(Value::as_u64).unwrap_or(0)
}

/// A TLS connection of a node that is no daemon and may misbehave.
#[derive(Debug)]
pub(crate) struct Tls(pub(crate) StreamOwned<ClientConnection, TcpStream>);

impl Tls {
    /// Connects as a node to another; the handshake is done.
    pub(crate) fn connect(own: &Credentials, to: &str, port: u16, alpn: &[u8]) -> Self {
        let tcp = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        tcp.set_read_timeout(Some(TIME_LIMIT)).expect("set a timeout");
        tcp.set_write_timeout(Some(TIME_LIMIT)).expect("set a timeout");
        tcp.set_nodelay(true).expect("send at once");
        let name = server_name(&node(to)).expect("a name");
        let session = ClientConnection::new(own.client_config(alpn), name).expect("a session");
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).expect("the handshake");
        }
        Self(stream)
    }

    pub(crate) fn rpc(own: &Credentials, to: &str, port: u16) -> Self {
        Self::connect(own, to, port, RPC)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // Whoever is cut off notices when it reads.
        let _cut_off = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }

    /// Calls a method on behalf of nobody, or with this fifth element.
    pub(crate) fn call(
        &mut self,
        method: &str,
        params: &[Value],
        metadata: Option<Value>,
    ) -> Result<Value, String> {
        let mut request = vec![0.into(), 7.into(), method.into(), Value::Array(params.to_vec())];
        request.extend(metadata);
        self.send(&packed(&Value::Array(request)));
        self.receive().expect("an answer")
    }

    /// Waits for a response; none where the connection is closed.
    pub(crate) fn receive(&mut self) -> Option<Result<Value, String>> {
        let value = rmpv::decode::read_value(&mut self.0).ok()?;
        let parts = value.as_array().expect("a response");
        let error = parts[2].as_str().map(str::to_owned);
        Some(error.map_or_else(|| Ok(parts[3].clone()), Err))
    }

    /// The body of the next frame of a link; none where the connection is closed.
    pub(crate) fn frame(&mut self) -> Option<Vec<u8>> {
        let mut header = [0; 4];
        self.0.read_exact(&mut header).ok()?;
        let mut body = vec![0; u32::from_be_bytes(header) as usize];
        self.0.read_exact(&mut body).ok()?;
        Some(body)
    }

    /// Waits until the other side closes the connection.
    pub(crate) fn assert_closed(&mut self) {
        let mut rest = Vec::new();
        if let Err(error) = self.0.read_to_end(&mut rest) {
            let timed_out = matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            );
            assert!(!timed_out, "it is not closed: {error}");
        }
    }
}

/// Asks a peer port for a `ping` with openssl-s_client(1); whether a `pong` came.
pub(crate) fn ping_with_openssl(port: u16, directory: &Path, arguments: &[&str]) -> bool {
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")])
        .args(arguments)
        .current_dir(directory)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("openssl runs");
    let mut stdin = client.stdin.take().expect("it is piped");
    let _refused_already = stdin.write_all(&super::rpc::request(1, "ping", &[]));
    let _refused_already = stdin.flush();
    let mut stdout = client.stdout.take().expect("it is piped");
    let (mut heard, mut part) = (Vec::new(), [0; 256]);
    let answered = loop {
        match stdout.read(&mut part) {
            Ok(0) | Err(_) => break false,
            Ok(count) => heard.extend_from_slice(&part[..count]),
        }
        if heard.windows(4).any(|four| four == b"pong") {
            break true;
        }
    };
    client.kill().expect("end it");
    client.wait().expect("collect it");
    answered
}

/// The daemon's own config is replaced and read again; what `cortex mesh reload` says.
pub(crate) fn reload(daemon: &Daemon, settings: &str) -> Result<(), String> {
    daemon.write_config(settings);
    let output = daemon.cortex(&["mesh", "reload"]);
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Established connections to these ports of this machine, as the accepting sides count them.
pub(crate) fn connections_to(ports: &[u16]) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let established = |line: &&str| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, state) = (columns.next().unwrap_or(""), columns.nth(1).unwrap_or(""));
        let port = local.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok());
        state == "01" && port.is_some_and(|port| ports.contains(&port))
    };
    table.lines().filter(established).count()
}

/// A moment so many seconds from now, as openssl-ca(1) takes it.
pub(crate) fn moment(seconds: i64) -> String {
    let now = i64::try_from(clock::wall_ms() / 1000).expect("this side of year 9999");
    let output = Command::new("date")
        .args(["-u", "-d", &format!("@{}", now + seconds), "+%Y%m%d%H%M%SZ"])
        .output();
    String::from_utf8(output.expect("date runs").stdout).expect("digits").trim().to_owned()
}
