//! The other machines: which there are, and how they are seen from here.
//! What is said between machines is `peers`'s and `crate::wire::link`'s.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{named::Named, param::request};

request! {
    /// The other machines that the settings name.
    MeshListNodes = MeshListNodes -> Vec<NodeAddress> {}
}

/// Where a machine is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// Its name.
    pub name: String,
    /// Its address or host name.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
}

request! {
    /// How the mesh is, as this machine sees it.
    MeshStatus = MeshStatus -> MeshReport {}
}

/// How the mesh is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshReport {
    /// This machine.
    pub node: String,
    /// The mesh: 32 hexadecimal digits.
    pub mesh: String,
    /// When this machine's certificate expires, in seconds since 1970.
    pub certificate_expires: u64,
    /// The other machines.
    pub peers: Vec<PeerNode>,
    /// Connections that were refused since the start, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Whom each machine sees alive, this one first. Where two disagree, some machines do not reach each other.
    pub matrix: Named<Vec<String>>,
}

/// Another machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerNode {
    /// Its name.
    pub name: String,
    /// Its address or host name.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// True while there is a link.
    pub connected: bool,
    /// `unseen`, `alive`, `suspect` or `dead`.
    pub state: String,
    /// Since when.
    pub since_ms: u64,
    /// The time of a round trip, in microseconds; none before the first measurement.
    pub round_trip_us: Option<u64>,
    /// Its clock less this machine's, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// When the certificate of the link expires, in seconds since 1970.
    pub certificate_expires: Option<u64>,
    /// True where two machines use its name.
    pub name_in_use_twice: bool,
    /// Why the last attempt to reach it failed, or the last link ended; none while there is a link.
    pub last_error: Option<String>,
    /// What is wrong with what it passes on of the directory.
    pub directory: Option<String>,
}

request! {
    /// Puts a machine out of the mesh: `removed`. For administrators.
    MeshRemoveNode<'a> = MeshRemoveNode -> String {
        /// Its name.
        node: &'a str,
    }
}
