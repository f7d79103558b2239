//! A replica that drains: to whom it can hand over what only it has, and what helps where that is nobody.
//! How the replicas are is `replicas`'s; the long explanation for people, `explain`'s.

use std::collections::BTreeSet;

use cortex_core::{directory::Directory, model::NodeName};

use super::{
    mesh::MeshSnapshot,
    replicas::{Link, State, TableReplicas, link},
};
use crate::store::Entry;

/// Why there is no replica here although the scope contains this machine.
const KEPT_AWAY: &str = "root of this machine keeps the table away: cortex drop --replica --undo";

/// Where the rows of a draining replica can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DrainPath {
    /// Another replica has them all: only bytes are left here, and they are being overwritten.
    Drained,
    /// The scope contains no node.
    NoScope,
    /// To these nodes of the scope.
    Open(Vec<NodeName>),
    /// To these, which this node knows how to reach, and does not reach now.
    Unreached(Vec<NodeName>),
    /// To nobody: this node has a link to no node of the scope, only to these members outside of it.
    Blocked { between: Vec<NodeName> },
}

/// What there is to judge from: the nodes of the scope, and those that this node's settings name.
pub(super) struct Neighbours {
    pub(super) in_scope: BTreeSet<NodeName>,
    pub(super) named: Vec<(NodeName, Link)>,
}

impl Neighbours {
    pub(super) fn new(directory: &Directory, entry: &Entry, seen: Option<&MeshSnapshot>) -> Self {
        let table = entry.table.uid;
        let could_hold = |node: &NodeName| {
            directory.members().any(|row| row.node == *node)
                && !directory.is_declined(table, node)
                && directory.here() != Some(node)
        };
        let named = seen.iter().flat_map(|seen| &seen.peers).map(|peer| &peer.node);
        let named = named.filter(|node| could_hold(node));
        Self {
            in_scope: directory.in_scope(table),
            named: named.map(|node| (node.clone(), link(seen, node))).collect(),
        }
    }

    pub(super) fn path(&self) -> DrainPath {
        if self.in_scope.is_empty() {
            return DrainPath::NoScope;
        }
        let is_up = |link: &Link| *link == Link::Up;
        let nodes = |in_scope: bool, only_linked: bool| -> Vec<NodeName> {
            let chosen = self.named.iter().filter(|(node, link)| {
                self.in_scope.contains(node) == in_scope && (is_up(link) || !only_linked)
            });
            chosen.map(|(node, _)| node.clone()).collect()
        };
        for only_linked in [true, false] {
            let of_scope = nodes(true, only_linked);
            if !of_scope.is_empty() {
                return if only_linked {
                    DrainPath::Open(of_scope)
                } else {
                    DrainPath::Unreached(of_scope)
                };
            }
        }
        let linked = nodes(false, true);
        DrainPath::Blocked { between: if linked.is_empty() { nodes(false, false) } else { linked } }
    }
}

impl TableReplicas {
    /// Why the replica here cannot drain until somebody acts; none where it can.
    pub(super) fn drain_blocked(&self) -> Option<String> {
        let explain = || format!("cortex explain {}", self.name);
        match self.drain_path.as_ref()? {
            DrainPath::Drained | DrainPath::Open(_) | DrainPath::Unreached(_) => None,
            DrainPath::NoScope => Some(format!(
                "no node is in its scope to hand over to what only this one has: {}",
                explain()
            )),
            DrainPath::Blocked { .. } => {
                Some(format!("no node of its scope is linked to this one: {}", explain()))
            }
        }
    }

    /// Why the replica here is not whole, or not gone yet, where that does not pass by itself.
    pub(super) fn why_here(&self) -> Option<String> {
        let away = self.declined.then(|| KEPT_AWAY.to_owned());
        let removed = self.removed_by.as_ref().map(removed);
        let reasons = removed.into_iter().chain(away).chain(self.drain_blocked());
        let reasons: Vec<_> = reasons.collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// What is known of the way that the rows take, one reason after the other.
    pub(super) fn describe_drain_path(&self) -> Vec<String> {
        match &self.drain_path {
            None => Vec::new(),
            Some(DrainPath::Drained) => {
                vec!["another node has everything: the bytes here are being overwritten".into()]
            }
            Some(DrainPath::NoScope) => vec!["nobody may take what only this node has".into()],
            Some(DrainPath::Open(nodes)) => {
                nodes.iter().map(|node| self.describe_taker(node)).collect()
            }
            Some(DrainPath::Unreached(nodes)) => vec![format!(
                "what only this node has goes to {}, which it does not reach",
                either(nodes)
            )],
            Some(DrainPath::Blocked { between }) => {
                let mut words = vec!["no node of the scope is linked to this node".into()];
                words.push(match between.as_slice() {
                    [] => "nor is any other node".into(),
                    [one] => {
                        format!("{one} lies between, and the scope does not let it carry the rows")
                    }
                    more => format!(
                        "{} lie between, and the scope lets none of them carry the rows",
                        listed(more)
                    ),
                });
                words
            }
        }
    }

    fn describe_taker(&self, node: &NodeName) -> String {
        let found = self.others.iter().find(|other| other.node == *node);
        let why =
            found.filter(|found| found.state == State::Behind).and_then(|found| found.why.as_ref());
        match why {
            Some(why) => format!("{node} takes what only this node has: {why}"),
            None => format!("{node} takes what only this node has"),
        }
    }
}

/// Why nothing more is known of a replica that drains on a node that this one is not linked to.
pub(super) fn not_linked(table: &str, node: &NodeName) -> String {
    format!("this node is not linked to it: cortex explain {table} --node {node}")
}

/// Nodes, of which any one will do.
pub(super) fn either(nodes: &[NodeName]) -> String {
    nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" or ")
}

fn listed(nodes: &[NodeName]) -> String {
    nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

/// By whose decision no rows come here any more.
pub(super) fn removed(by: &NodeName) -> String {
    format!("{by} says that this node was removed from the mesh")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).expect("a name")
    }

    fn nodes(names: &[&str]) -> Vec<NodeName> {
        names.iter().map(|name| node(name)).collect()
    }

    fn path(in_scope: &[&str], named: &[(&str, Link)]) -> DrainPath {
        let named = named.iter().map(|(name, link)| (node(name), link.clone())).collect();
        Neighbours { in_scope: nodes(in_scope).into_iter().collect(), named }.path()
    }

    #[test]
    fn rows_go_to_a_node_of_the_scope_that_is_linked() {
        let named = [("birch", Link::Up), ("cedar", Link::Up), ("ash", Link::Down(None))];
        assert_eq!(path(&["ash", "birch"], &named), DrainPath::Open(nodes(&["birch"])));
        assert_eq!(path(&["ash"], &named), DrainPath::Unreached(nodes(&["ash"])));
        let silent = [("birch", Link::Silent(9))];
        assert_eq!(path(&["birch"], &silent), DrainPath::Unreached(nodes(&["birch"])));
        assert_eq!(path(&[], &named), DrainPath::NoScope);
    }

    /// The end of a chain, whose neighbour the scope leaves out too.
    #[test]
    fn where_no_node_of_the_scope_is_linked_the_one_between_is_named() {
        let between = |named: &[(&str, Link)]| path(&["ash", "birch"], named);
        let closed = |names: &[&str]| DrainPath::Blocked { between: nodes(names) };
        assert_eq!(between(&[("cedar", Link::Up)]), closed(&["cedar"]));
        assert_eq!(
            between(&[("cedar", Link::Up), ("fir", Link::Down(None))]),
            closed(&["cedar"]),
            "the one that is reached"
        );
        assert_eq!(between(&[("cedar", Link::Down(None))]), closed(&["cedar"]));
        assert_eq!(between(&[]), closed(&[]));
    }
}
