//! Since when rows of each node are ahead of this one's clock, although the two clocks agree: what outlives a link.
//! What follows from it is the driver's.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use cortex_core::model::NodeName;

/// By node.
#[derive(Debug, Default)]
pub(in crate::edge::peer) struct HeldOff(Mutex<BTreeMap<NodeName, Duration>>);

impl HeldOff {
    pub(super) fn since(&self, node: &NodeName) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(node).copied()
    }

    pub(super) fn set(&self, node: &NodeName, since: Option<Duration>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match since {
            Some(since) => all.insert(node.clone(), since),
            None => all.remove(node),
        };
    }
}
