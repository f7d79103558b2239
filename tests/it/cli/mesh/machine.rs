//! A machine for a test: a data directory, a configuration, and the commands run with them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use cortex_core::model::NodeName;
use cortexd::pki::{Credentials, Files};
use cortexd::sys::clock;
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::mesh::tool::{check_exit, cortex, run, stderr, stdout};

pub(crate) struct Machine {
    dir: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("make a directory");
        fs::write(dir.path().join("cortex.toml"), "threads = 2\n").expect("write");
        Self { dir }
    }

    /// A node of a mesh of its own.
    pub(crate) fn first() -> Self {
        let machine = Self::new();
        machine.good(&["init", "home", "127.0.0.1"]);
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect(name)
    }

    pub(crate) fn mesh(&self, arguments: &[&str]) -> Command {
        let mut command = cortex();
        command.env("CORTEX_DATA_DIR", self.path("state"));
        command.arg("--config").arg(self.path("cortex.toml")).arg("mesh").args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        run(&mut self.mesh(arguments))
    }

    /// Runs a command that succeeds and prints one value.
    pub(crate) fn good(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        check_exit(&output, 0);
        serde_json::from_str(&stdout(&output)).expect("one JSON value")
    }

    /// Runs a command that fails with this status and a message in which all of these stand.
    pub(crate) fn refused(&self, arguments: &[&str], exit: i32, expected: &[&str]) {
        let output = self.run(arguments);
        check_exit(&output, exit);
        assert_eq!(stdout(&output), "", "nothing is printed that a script could take for a result");
        for part in expected {
            assert!(stderr(&output).contains(part), "{part:?} is not in: {}", stderr(&output));
        }
    }

    /// Loads the credentials that this machine has as a node, as its daemon would.
    pub(crate) fn credentials(&self, node: &str) -> Credentials {
        load(&self.path("state/mesh"), node)
    }

    /// The fragment of the configuration that the tool has written.
    pub(crate) fn settings(&self) -> toml::Table {
        let whole: toml::Table =
            self.read("cortex.toml.d/mesh.toml").parse().expect("the fragment is TOML");
        whole["mesh"].as_table().expect("a table").clone()
    }

    /// Name, host and port of each node that is configured.
    pub(crate) fn nodes(&self) -> Vec<(String, String, i64)> {
        let nodes = self.settings()["nodes"].as_array().expect("a list").clone();
        nodes
            .iter()
            .map(|node| {
                let text = |key: &str| node[key].as_str().expect("text").to_owned();
                (text("name"), text("host"), node["port"].as_integer().expect("a number"))
            })
            .collect()
    }

    /// What the daemon says of the configuration; it accepts it.
    pub(crate) fn accepted(&self) -> String {
        let mut daemon = Command::new(env!("CARGO_BIN_EXE_cortexd"));
        daemon.env("CORTEX_DATA_DIR", self.path("state")).env("CORTEX_SOCKET", self.path("socket"));
        daemon.arg("--check").arg("--config").arg(self.path("cortex.toml"));
        let output = run(&mut daemon);
        check_exit(&output, 0);
        stdout(&output)
    }

    /// Begins an invitation.
    pub(crate) fn invite(&self, node: &str) -> Invitation {
        Invitation::begin(self.mesh(&["invite", node, "--listen", "127.0.0.1:0", "--minutes", "2"]))
    }
}

pub(crate) fn load(dir: &Path, node: &str) -> Credentials {
    let node = NodeName::parse(node).expect("a name");
    Credentials::load(&Files::in_dir(dir), &node, clock::wall_ms() / 1000).expect("good")
}

/// An invitation that is being served. Dropped, it is ended.
pub(crate) struct Invitation {
    child: Child,
    out: BufReader<ChildStdout>,
    pub(crate) code: String,
    pub(crate) address: String,
}

impl Invitation {
    fn begin(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cortex runs");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("it prints a line");
        let printed: Value = serde_json::from_str(&line).expect("one JSON value");
        let text = |key: &str| printed[key].as_str().expect("text").to_owned();
        Self { code: text("code"), address: text("address"), child, out }
    }

    /// Waits for a message in which this stands; returns all until then.
    pub(crate) fn says(&mut self, part: &str) -> String {
        let mut errors = BufReader::new(self.child.stderr.take().expect("it is piped"));
        let mut messages = String::new();
        while !messages.contains(part) {
            let read = errors.read_line(&mut messages).expect("read");
            assert_ne!(read, 0, "it ended without {part:?}: {messages}");
        }
        messages
    }

    /// Waits for the end: the exit status, what else was printed, and the messages.
    pub(crate) fn end(mut self) -> (i32, String, String) {
        let mut printed = String::new();
        self.out.read_to_string(&mut printed).expect("read to the end");
        let mut messages = String::new();
        let mut errors = self.child.stderr.take().expect("it is piped");
        errors.read_to_string(&mut messages).expect("read to the end");
        let status = self.child.wait().expect("it ends").code().expect("it was not killed");
        (status, printed, messages)
    }
}

impl Drop for Invitation {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
