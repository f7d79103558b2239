//! The `[mesh]` of the configuration: read from all its files, written to a fragment that is the tool's own.
//! Leaves validating it to the daemon.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cortex_core::model::NodeName;
use serde::{Deserialize, Serialize};

use super::report::io_failure;
use crate::cli::failure::{Exit, Failure};
use crate::pki::Files;
use crate::pki::files::{self, IfExists, Readers};
use crate::sys::fragments;

/// The port of the mesh.
pub(super) const PORT: u16 = 4712;

/// How the fragment begins.
const HEAD: &str =
    "# The mesh that this machine belongs to. Written by `cortex mesh`, which adds nodes here.\n\n";

/// A machine of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) host: String,
    #[serde(default = "port")]
    pub(super) port: u16,
}

fn port() -> u16 {
    PORT
}

/// What the tool writes. Keys that it does not know are left to files that it does not write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) node_name: String,
    #[serde(default = "everywhere")]
    pub(super) listen: String,
    pub(super) ca_cert: PathBuf,
    pub(super) node_cert: PathBuf,
    pub(super) node_key: PathBuf,
    pub(super) crl: PathBuf,
    /// Every machine of the mesh, this one among them.
    #[serde(default)]
    pub(super) nodes: Vec<Node>,
}

fn everywhere() -> String {
    listen_on(PORT)
}

fn listen_on(port: u16) -> String {
    format!("[::]:{port}")
}

#[derive(Debug, Serialize, Deserialize)]
struct Fragment {
    mesh: Settings,
}

impl Settings {
    /// Those of a node that begins with nothing but its files and the nodes that it knows.
    pub(super) fn new(node: &NodeName, port: u16, files: &Files, nodes: Vec<Node>) -> Self {
        Self {
            node_name: node.to_string(),
            listen: listen_on(port),
            ca_cert: files.ca_cert.clone(),
            node_cert: files.node_cert.clone(),
            node_key: files.node_key.clone(),
            crl: files.crl.clone(),
            nodes,
        }
    }

    /// What the configuration says, all files together; none where it says nothing of a mesh.
    pub(super) fn read(configuration: &Path) -> Result<Option<Self>, Failure> {
        let attempt = "reading the configuration";
        let whole = fragments::read(configuration, |_| Ok(()))
            .map_err(|e| Failure::while_doing(attempt, e))?;
        let Some(mesh) = whole.table.get("mesh") else {
            return Ok(None);
        };
        let mesh = mesh.clone().try_into().map_err(|e| Failure::while_doing(attempt, e))?;
        Ok(Some(mesh))
    }

    /// Where this machine is reached, if it stands in its own list.
    pub(super) fn own(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == self.node_name)
    }

    /// Adds a machine, or says anew where it is.
    pub(super) fn add(&mut self, node: Node) {
        self.nodes.retain(|known| known.name != node.name);
        self.nodes.push(node);
        self.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Writes the fragment. Everybody may read it: it names the key, and does not hold it.
    pub(super) fn write(&self, configuration: &Path) -> Result<PathBuf, Failure> {
        let path = fragment(configuration);
        let text = toml::to_string(&Fragment { mesh: self.clone() })
            .map_err(|e| Failure::while_doing("writing the configuration", e))?;
        let write = || -> io::Result<()> {
            if let Some(dir) = path.parent().filter(|dir| !dir.is_dir()) {
                DirBuilder::new().mode(0o755).create(dir)?;
                fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            }
            let text = format!("{HEAD}{text}");
            files::write(&path, text.as_bytes(), Readers::Everybody, IfExists::Replace, None)
        };
        write().map_err(|e| io_failure("write", &path, &e))?;
        Ok(path)
    }
}

/// Adds a machine to the tool's own fragment; false where there is none, and the list is the
/// administrator's.
pub(super) fn add_node(configuration: &Path, node: Node) -> Result<bool, Failure> {
    let path = fragment(configuration);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        text => text.map_err(|e| io_failure("read", &path, &e))?,
    };
    let Fragment { mut mesh } = toml::from_str(&text).map_err(|e| {
        Failure::new(Exit::Failed, format!("{} is not as it was written: {e}", path.display()))
    })?;
    mesh.add(node);
    mesh.write(configuration)?;
    Ok(true)
}

/// The tool's own file beside a configuration file.
pub(super) fn fragment(configuration: &Path) -> PathBuf {
    let mut dir = configuration.as_os_str().to_owned();
    dir.push(".d");
    PathBuf::from(dir).join("mesh.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, host: &str) -> Node {
        Node { name: name.to_owned(), host: host.to_owned(), port: PORT }
    }

    #[test]
    fn what_is_written_is_read_back_and_a_node_is_listed_once() {
        let dir = tempfile::tempdir().expect("make a directory");
        let configuration = dir.path().join("cortex.toml");
        fs::write(&configuration, "threads = 2\n").expect("write");
        assert_eq!(Settings::read(&configuration).expect("read"), None);
        assert!(!add_node(&configuration, node("office", "10.0.0.2")).expect("nothing is there"));

        let home = NodeName::parse("home").expect("a name");
        let files = Files::in_dir(Path::new("/var/lib/cortex/me\"sh"));
        let own = node("home", "home.lan");
        Settings::new(&home, PORT, &files, vec![own.clone()]).write(&configuration).expect("write");
        for host in ["10.0.0.2", "fd00::2"] {
            assert!(add_node(&configuration, node("office", host)).expect("add"));
        }
        let read = Settings::read(&configuration).expect("read").expect("it is there");
        assert_eq!(read.nodes, [own.clone(), node("office", "fd00::2")]);
        assert_eq!(read.own(), Some(&own));
        assert_eq!(read.node_key, files.node_key);
    }
}
