//! The interface org.cortexd.Cortex1.Node: another machine of the mesh, at a path made of its name.
//! Which machines have an object, and when it comes and goes, is `nodes`'s.
//!
//! How the others are, everybody may ask for on the socket, so the object answers everybody alike.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::{
    api::{MeshReport, PeerNode},
    model::Refusal,
};
use zbus::{OwnedObjectPath, interface};

use super::{
    dispatcher::Dispatcher,
    error::{Error, Result},
    path,
    values::{self, Dict},
};
use crate::store::CommandError;

/// What changes with every heartbeat, and is not signalled.
pub(super) const UNSIGNALLED: [&str; 2] = ["RoundTripUs", "ClockOffsetMs"];

/// One other machine.
#[derive(Debug)]
pub(super) struct Node {
    dispatcher: Arc<Dispatcher>,
    name: String,
}

impl Node {
    pub(super) fn new(dispatcher: Arc<Dispatcher>, name: String) -> Self {
        Self { dispatcher, name }
    }

    /// As it is seen now.
    fn info(&self) -> Result<PeerNode> {
        let found = self.dispatcher.service().peer(&self.name);
        found.ok_or_else(|| Error::unknown_object(&object_path(&self.name)))
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
    fn host(&self) -> Result<String> {
        Ok(self.info()?.host)
    }

    #[zbus(property)]
    fn port(&self) -> Result<u16> {
        Ok(self.info()?.port)
    }

    #[zbus(property)]
    fn connected(&self) -> Result<bool> {
        Ok(self.info()?.connected)
    }

    #[zbus(property)]
    fn state(&self) -> Result<String> {
        Ok(self.info()?.state)
    }

    #[zbus(property)]
    fn since_ms(&self) -> Result<u64> {
        Ok(self.info()?.since_ms)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn round_trip_us(&self) -> Result<u64> {
        Ok(self.info()?.round_trip_us.unwrap_or_default())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn clock_offset_ms(&self) -> Result<i64> {
        Ok(self.info()?.clock_offset_ms.unwrap_or_default())
    }

    #[zbus(property)]
    fn certificate_expires(&self) -> Result<u64> {
        Ok(self.info()?.certificate_expires.unwrap_or_default())
    }

    #[zbus(property)]
    fn last_error(&self) -> Result<String> {
        Ok(self.info()?.last_error.unwrap_or_default())
    }
}

/// What the properties of its object show. D-Bus has no nil: what is not known is 0, or empty.
pub(super) fn properties(node: &PeerNode) -> Dict {
    let text = |text: &str| values::text(text.to_owned());
    Dict::from([
        ("Name".into(), text(&node.name)),
        ("Host".into(), text(&node.host)),
        ("Port".into(), node.port.into()),
        ("Connected".into(), node.connected.into()),
        ("State".into(), text(&node.state)),
        ("SinceMs".into(), node.since_ms.into()),
        ("RoundTripUs".into(), node.round_trip_us.unwrap_or_default().into()),
        ("ClockOffsetMs".into(), node.clock_offset_ms.unwrap_or_default().into()),
        ("CertificateExpires".into(), node.certificate_expires.unwrap_or_default().into()),
        ("LastError".into(), text(node.last_error.as_deref().unwrap_or_default())),
    ])
}

/// What is known of this node and of all together; each of the others has an object.
pub(super) fn mesh(report: MeshReport) -> Dict {
    Dict::from([
        ("node".into(), values::text(report.node)),
        ("mesh".into(), values::text(report.mesh)),
        ("certificate_expires".into(), report.certificate_expires.into()),
        ("refused".into(), report.refused.into()),
        ("matrix".into(), report.matrix.0.into_iter().collect::<BTreeMap<_, _>>().into()),
    ])
}

/// The other machines; none where this one runs alone.
pub(super) fn all(dispatcher: &Dispatcher) -> Result<Vec<PeerNode>> {
    match dispatcher.service().mesh_report() {
        Ok(report) => Ok(report.peers),
        Err(Refusal::MeshNotConfigured | Refusal::MeshDown(_)) => Ok(Vec::new()),
        Err(refusal) => Err(CommandError::from(refusal).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_that_is_declared_is_in_the_list_of_all() {
        let file = include_str!("../../../dist/dbus-1/interfaces/org.cortexd.Cortex1.Node.xml");
        let properties = properties(&PeerNode::default());
        let mut shown: Vec<_> = properties.keys().map(String::as_str).collect();
        shown.sort_unstable();
        assert_eq!(shown, values::declared_properties(file));
    }
}
