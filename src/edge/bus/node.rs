//! The interface org.cortexd.Cortex1.Node: another machine of the mesh, at a path made of its name.
//! Which machines have an object, and when it comes and goes, is `nodes`'s.
//!
//! How the others are, everybody may ask for on the socket, so the object answers everybody alike.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::{
    model::Uid,
    wire::{Head, Method, Reader},
};
use zbus::{OwnedObjectPath, interface};

use super::{
    dispatcher::Dispatcher,
    error::{Error, Result},
    path,
    request::Request,
    values::{self, Dict},
};

/// What changes with every heartbeat, and is not signalled.
pub(super) const UNSIGNALLED: [&str; 2] = ["RoundTripUs", "ClockOffsetMs"];

/// One other machine.
#[derive(Debug)]
pub(super) struct Node {
    dispatcher: Arc<Dispatcher>,
    name: String,
}

/// What mesh_status says of one machine. D-Bus has no nil: what is not known is 0, or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeInfo {
    pub(super) name: String,
    host: String,
    port: u16,
    connected: bool,
    pub(super) state: String,
    since_ms: u64,
    round_trip_us: u64,
    clock_offset_ms: i64,
    certificate_expires: u64,
    last_error: String,
}

/// The result of mesh_status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MeshStatus {
    node: String,
    mesh: String,
    certificate_expires: u64,
    refused: BTreeMap<String, u64>,
    matrix: BTreeMap<String, Vec<String>>,
    pub(super) nodes: Vec<NodeInfo>,
}

impl Node {
    pub(super) fn new(dispatcher: Arc<Dispatcher>, name: String) -> Self {
        Self { dispatcher, name }
    }

    async fn info(&self) -> Result<NodeInfo> {
        let nodes = MeshStatus::ask(&self.dispatcher).await?.nodes;
        let own = nodes.into_iter().find(|node| node.name == self.name);
        own.ok_or_else(|| Error::unknown_object(&object_path(&self.name)))
    }
}

/// The path of the object of the machine of that name.
pub(super) fn object_path(name: &str) -> OwnedObjectPath {
    path::of_node(name)
}

#[interface(name = "org.cortexd.Cortex1.Node", introspection_docs = false)]
impl Node {
    #[zbus(property(emits_changed_signal = "const"), name = "Name")]
    fn full_name(&self) -> String {
        self.name.clone()
    }

    #[zbus(property)]
    async fn host(&self) -> Result<String> {
        Ok(self.info().await?.host)
    }

    #[zbus(property)]
    async fn port(&self) -> Result<u16> {
        Ok(self.info().await?.port)
    }

    #[zbus(property)]
    async fn connected(&self) -> Result<bool> {
        Ok(self.info().await?.connected)
    }

    #[zbus(property)]
    async fn state(&self) -> Result<String> {
        Ok(self.info().await?.state)
    }

    #[zbus(property)]
    async fn since_ms(&self) -> Result<u64> {
        Ok(self.info().await?.since_ms)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn round_trip_us(&self) -> Result<u64> {
        Ok(self.info().await?.round_trip_us)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn clock_offset_ms(&self) -> Result<i64> {
        Ok(self.info().await?.clock_offset_ms)
    }

    #[zbus(property)]
    async fn certificate_expires(&self) -> Result<u64> {
        Ok(self.info().await?.certificate_expires)
    }

    #[zbus(property)]
    async fn last_error(&self) -> Result<String> {
        Ok(self.info().await?.last_error)
    }
}

impl NodeInfo {
    /// What the properties of its object show.
    pub(super) fn properties(&self) -> Dict {
        let text = |text: &str| values::text(text.to_owned());
        Dict::from([
            ("Name".into(), text(&self.name)),
            ("Host".into(), text(&self.host)),
            ("Port".into(), self.port.into()),
            ("Connected".into(), self.connected.into()),
            ("State".into(), text(&self.state)),
            ("SinceMs".into(), self.since_ms.into()),
            ("RoundTripUs".into(), self.round_trip_us.into()),
            ("ClockOffsetMs".into(), self.clock_offset_ms.into()),
            ("CertificateExpires".into(), self.certificate_expires.into()),
            ("LastError".into(), text(&self.last_error)),
        ])
    }
}

impl MeshStatus {
    /// Asks for it, whoever wants to know.
    pub(super) async fn ask(dispatcher: &Dispatcher) -> Result<Self> {
        let status = dispatcher.ask_as(Uid::ROOT, &Request::new(Method::MeshStatus)).await?;
        values::whole(&status, read_status)
    }

    /// The same where this node may run alone: then there are no others.
    pub(super) async fn ask_if_any(dispatcher: &Dispatcher) -> Result<Self> {
        Self::ask(dispatcher).await.or_else(Error::unless_alone)
    }

    /// What it says of this node and of all together; each of the others has an object.
    pub(super) fn into_dict(self) -> Dict {
        Dict::from([
            ("node".into(), values::text(self.node)),
            ("mesh".into(), values::text(self.mesh)),
            ("certificate_expires".into(), self.certificate_expires.into()),
            ("refused".into(), self.refused.into()),
            ("matrix".into(), self.matrix.into()),
        ])
    }
}

fn read_status(from: &mut Reader<'_>) -> Option<MeshStatus> {
    let mut status = MeshStatus::default();
    values::each_pair(from, |name, from| {
        match name {
            "node" => status.node = from.text()?.to_owned(),
            "mesh" => status.mesh = from.text()?.to_owned(),
            "certificate_expires" => status.certificate_expires = values::number(from)?,
            "peers" => status.nodes = values::read_list(from, read_node)?,
            "refused" => status.refused = values::read_map(from, values::number)?,
            "matrix" => status.matrix = values::read_map(from, values::read_texts)?,
            _ => drop(from.raw()?),
        }
        Some(())
    })?;
    Some(status)
}

fn read_node(from: &mut Reader<'_>) -> Option<NodeInfo> {
    let mut info = NodeInfo::default();
    values::each_pair(from, |name, from| {
        if let Some(Head::Nil) = from.clone().head() {
            return from.raw().map(drop);
        }
        match name {
            "name" => info.name = from.text()?.to_owned(),
            "host" => info.host = from.text()?.to_owned(),
            "port" => info.port = values::number(from)?.try_into().ok()?,
            "connected" => info.connected = values::flag(from)?,
            "state" => info.state = from.text()?.to_owned(),
            "since_ms" => info.since_ms = values::number(from)?,
            "round_trip_us" => info.round_trip_us = values::number(from)?,
            "clock_offset_ms" => info.clock_offset_ms = values::signed(from)?,
            "certificate_expires" => info.certificate_expires = values::number(from)?,
            "last_error" => info.last_error = from.text()?.to_owned(),
            _ => drop(from.raw()?),
        }
        Some(())
    })?;
    Some(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_that_is_declared_is_in_the_list_of_all() {
        let file = include_str!("../../../dist/dbus-1/interfaces/org.cortexd.Cortex1.Node.xml");
        let properties = NodeInfo::default().properties();
        let mut shown: Vec<_> = properties.keys().map(String::as_str).collect();
        shown.sort_unstable();
        assert_eq!(shown, values::declared_properties(file));
    }
}
