//! What a history is: operations on records with when they were asked and answered, and what was done to nodes.
//! Nothing is judged here; that is `check`'s.
//!
//! Times are microseconds of one monotonic clock since the history began. An operation took effect at some
//! moment between `invoked` and `acked`; one that was never answered may take effect at any time, or never.

use std::collections::BTreeMap;

pub(crate) type Micros = u64;
pub(crate) type NodeId = usize;
pub(crate) type TableId = usize;

/// A version of a record: the text that only one write has, or none for a deletion.
pub(crate) type Version = Option<String>;

/// A write or, without a value, a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) table: TableId,
    pub(crate) key: String,
    pub(crate) value: Version,
    pub(crate) node: NodeId,
    pub(crate) invoked: Micros,
    /// None where no answer came: it may have taken effect.
    pub(crate) acked: Option<Micros>,
}

/// What a key was found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) table: TableId,
    pub(crate) key: String,
    pub(crate) value: Version,
    pub(crate) node: NodeId,
    pub(crate) invoked: Micros,
    pub(crate) answered: Micros,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Write(Write),
    Read(Read),
    /// The node need not know any more what it knew: its database is another one.
    Forgets {
        node: NodeId,
        at: Micros,
    },
    /// From here on the replica there may end and begin anew: its reads are not ordered among each other.
    MayLeave {
        node: NodeId,
        table: TableId,
        at: Micros,
    },
    /// Writes of the node that were not acknowledged before `since` may be lost, unless another node has them.
    MayLose {
        node: NodeId,
        since: Micros,
        at: Micros,
    },
}

/// What each key held when the history began, equal on all nodes, or holds at its end.
pub(crate) type Contents = BTreeMap<(TableId, String), Version>;

#[cfg(test)]
pub(crate) mod by_hand {
    //! Short words for histories that are written by hand.

    use super::{Event, Micros, NodeId, Read, Write};

    fn version(text: &str) -> Option<String> {
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A write that was acknowledged; an empty text deletes.
    pub(crate) fn put(node: NodeId, text: &str, invoked: Micros, acked: Micros) -> Event {
        let (key, value) = ("k".into(), version(text));
        Event::Write(Write { table: 0, key, value, node, invoked, acked: Some(acked) })
    }

    /// One of which nobody knows whether it took effect.
    pub(crate) fn perhaps(node: NodeId, text: &str, invoked: Micros) -> Event {
        let (key, value) = ("k".into(), version(text));
        Event::Write(Write { table: 0, key, value, node, invoked, acked: None })
    }

    pub(crate) fn get(node: NodeId, text: &str, invoked: Micros, answered: Micros) -> Event {
        let (key, value) = ("k".into(), version(text));
        Event::Read(Read { table: 0, key, value, node, invoked, answered })
    }
}
