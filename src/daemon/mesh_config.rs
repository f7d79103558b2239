//! The `[mesh]` of the settings: which machine this is, where the others are, and which files prove it.
//! What is in the files is judged by `pki`, when the settings are put in force.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use cortex_core::{model::NodeName, wire::link};
use serde::Deserialize;

use super::config::BadSetting;
use crate::{
    edge::peer::{Address, Mesh},
    pki::{Credentials, Files},
    sys::clock,
    sys::paths::Environment,
};

/// The port of the mesh where nobody says another.
pub(super) const PORT: u16 = 4712;

/// Bytes of a host's name at most, the bound of the domain name system (RFC 1035, 2.3.4).
const HOST_BYTES: usize = 253;

/// The `[mesh]` of the file. Without it the node runs alone. Every key but `listen` must be there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshConfig {
    /// This machine's name, the one in its certificate.
    pub node_name: String,
    /// Where to listen for the other machines, `ADDRESS:PORT`. Default: port 4712 of every address. Below the
    /// socket named `peer` that systemd may pass.
    pub listen: Option<String>,
    /// The CA's certificate.
    pub ca_cert: PathBuf,
    /// This machine's certificate.
    pub node_cert: PathBuf,
    /// Its key.
    pub node_key: PathBuf,
    /// The CA's list of revoked certificates.
    pub crl: PathBuf,
    /// The machines of the mesh. The own one may be among them, so that all can share one list.
    pub nodes: Vec<NodeConfig>,
}

/// One machine of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Its name, the one in its certificate.
    pub name: String,
    /// Where it is dialled: a name or an address.
    pub host: String,
    /// At which port. Default 4712.
    pub port: Option<u16>,
}

/// Validated settings of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSettings {
    /// This machine's name.
    pub node: NodeName,
    /// Where to listen, unless systemd passes a socket; none for every address.
    pub listen: Option<SocketAddr>,
    /// The files that prove who this is.
    pub files: Files,
    /// The machines of the mesh.
    pub nodes: BTreeMap<NodeName, Address>,
}

impl MeshConfig {
    /// Validates what can be validated without reading the files. They are looked for in the directory of
    /// systemd's credentials, and then beside the configuration.
    ///
    /// # Errors
    /// A text that names the key and says what is wrong with it.
    pub(super) fn validated(&self, beside: &Path, env: &Environment) -> Result<MeshSettings> {
        let of = |key: &'static str| move |error: anyhow::Error| BadSetting::new(key, &error);
        let node = NodeName::parse(&self.node_name).map_err(anyhow::Error::from);
        let node = node.map_err(of("mesh.node_name"))?;
        let listen = self.listen.as_deref().map(read_listen).transpose();
        let listen = listen.map_err(of("mesh.listen"))?;
        let file = |key, path: &Path| find(path, beside, env).map_err(of(key));
        let files = Files {
            ca_cert: file("mesh.ca_cert", &self.ca_cert)?,
            node_cert: file("mesh.node_cert", &self.node_cert)?,
            node_key: file("mesh.node_key", &self.node_key)?,
            crl: file("mesh.crl", &self.crl)?,
        };
        let nodes = read_nodes(&self.nodes).map_err(of("mesh.nodes"))?;
        Ok(MeshSettings { node, listen, files, nodes })
    }
}

impl MeshSettings {
    /// Reads the files, and puts credentials and machines together.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub(super) fn load(&self) -> Result<Mesh> {
        let now = clock::wall_ms() / 1000;
        let credentials = Credentials::load(&self.files, &self.node, now)
            .context("the mesh cannot be joined with these settings")?;
        let mesh = Mesh::new(Arc::new(credentials), self.nodes.clone());
        if let Some(other) = mesh.named_beside() {
            bail!(
                "the node's certificate names the node {other} too, and others refuse it: where the CA is: cortex mesh add-node {} HOST --force, with a host that is no node's name",
                self.node
            );
        }
        Ok(mesh)
    }

    /// Where to listen, for people.
    pub(super) fn listens_on(&self) -> SocketAddr {
        self.listen.unwrap_or_else(|| (Ipv6Addr::UNSPECIFIED, PORT).into())
    }

    /// The settings, a line each, for `--check`.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let Files { ca_cert, node_cert, node_key, crl } = &self.files;
        let node = |(name, Address { host, port }): (&NodeName, &Address)| {
            format!("{name} at {host} port {port}")
        };
        let nodes: Vec<_> = self.nodes.iter().map(node).collect();
        vec![
            ("mesh.node_name", self.node.to_string()),
            ("mesh.listen", self.listens_on().to_string()),
            ("mesh.ca_cert", ca_cert.display().to_string()),
            ("mesh.node_cert", node_cert.display().to_string()),
            ("mesh.node_key", node_key.display().to_string()),
            ("mesh.crl", crl.display().to_string()),
            ("mesh.nodes", nodes.join(", ")),
        ]
    }
}

fn read_listen(text: &str) -> Result<SocketAddr> {
    text.parse()
        .with_context(|| format!("{text:?} is no address with a port, such as \"[::]:{PORT}\""))
}

fn find(path: &Path, beside: &Path, env: &Environment) -> Result<PathBuf> {
    ensure!(!path.as_os_str().is_empty(), "a path must not be empty");
    let credential = env.credentials_directory.as_ref().map(|dir| dir.join(path));
    if let Some(found) = credential.filter(|found| path.is_relative() && found.exists()) {
        return Ok(found);
    }
    Ok(beside.join(path))
}

fn read_nodes(configured: &[NodeConfig]) -> Result<BTreeMap<NodeName, Address>> {
    // One more than others, for the own name.
    ensure!(configured.len() <= link::NAMES, "at most {} nodes", link::NAMES);
    let mut nodes = BTreeMap::new();
    for NodeConfig { name, host, port } in configured {
        let node = NodeName::parse(name)?;
        let well_formed = (1..=HOST_BYTES).contains(&host.len())
            && host.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(well_formed, "{node} has the host {host:?}, which is no name and no address");
        let port = port.unwrap_or(PORT);
        ensure!(port > 0, "{node} has port 0");
        let address = Address { host: host.as_str().into(), port };
        if nodes.insert(node, address).is_some() {
            bail!("{name} stands there twice");
        }
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "node_name = 'home'\nca_cert = 'ca.crt'\nnode_cert = 'home.crt'\n\
        node_key = 'home.key'\ncrl = '/etc/ca.crl'\n";

    fn validated(text: &str) -> Result<MeshSettings> {
        let config: MeshConfig = toml::from_str(text)?;
        config.validated(Path::new("/etc/cortex"), &Environment::default())
    }

    /// holds M1
    #[test]
    fn what_is_left_out_has_a_default_and_files_are_beside_the_configuration() {
        let text = format!("{WHOLE}nodes = [{{ name = 'office', host = 'office.lan' }}]");
        let settings = validated(&text).expect("valid");
        assert_eq!(settings.listens_on().to_string(), "[::]:4712");
        let office = &settings.nodes[&NodeName::parse("office").expect("a name")];
        assert_eq!((&*office.host, office.port), ("office.lan", 4712));
        assert_eq!(settings.files.node_key, Path::new("/etc/cortex/home.key"));
        assert_eq!(settings.files.crl, Path::new("/etc/ca.crl"));
    }

    #[test]
    fn a_credential_of_the_service_manager_goes_before_a_file_of_that_name() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("home.key"), "").expect("written");
        let config: MeshConfig = toml::from_str(&format!("{WHOLE}nodes = []")).expect("valid");
        let env = Environment {
            credentials_directory: Some(dir.path().to_owned()),
            ..Environment::default()
        };
        let files = config.validated(Path::new("/etc/cortex"), &env).expect("valid").files;
        assert_eq!(files.node_key, dir.path().join("home.key"));
        assert_eq!(files.node_cert, Path::new("/etc/cortex/home.crt"), "it is not among them");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            (format!("{WHOLE}nodes = [{{ name = 'A', host = 'a' }}]"), "invalid node name: A"),
            (format!("{WHOLE}nodes = [{{ name = 'a', host = '' }}]"), "a has the host"),
            (format!("{WHOLE}nodes = [{{ name = 'a', host = 'a', port = 0 }}]"), "port 0"),
            (
                format!(
                    "{WHOLE}nodes = [{{ name = 'a', host = 'a' }}, {{ name = 'a', host = 'b' }}]"
                ),
                "a stands there twice",
            ),
            (format!("{WHOLE}nodes = []\nlisten = '4712'"), "mesh.listen: \"4712\" is no address"),
            (format!("{WHOLE}nodes = []\nnode = 'a'"), "unknown field `node`"),
            (WHOLE.to_owned(), "missing field `nodes`"),
            (
                WHOLE.replace("home'\nca", "Home'\nca") + "nodes = []",
                "mesh.node_name: invalid node name",
            ),
            (
                WHOLE.replace("'ca.crt'", "''") + "nodes = []",
                "mesh.ca_cert: a path must not be empty",
            ),
        ] {
            let error = format!("{:#}", validated(&text).expect_err(&text));
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }
}
