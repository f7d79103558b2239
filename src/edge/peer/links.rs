//! One link per pair of machines: of two that were dialled at the same time, both sides keep the same one.
//! What is said on a link is `link`'s.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cortex_core::model::NodeName;
use tokio::sync::{oneshot, watch};
use tracing::warn;

use crate::sys::clock;

/// For how long two machines of one name are reported after they were seen to take each other's place.
const DUPLICATES_REMEMBERED: Duration = Duration::from_secs(300);

/// The link to each machine.
#[derive(Debug)]
pub(super) struct Links {
    /// Locked for a look-up.
    table: Mutex<Table>,
    /// Changes whenever a link is gone.
    gone: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    current: HashMap<NodeName, Current>,
    /// The last two runs of each machine's daemon that had a link, the later one first.
    runs: HashMap<NodeName, [[u8; 16]; 2]>,
    /// When two machines of one name were seen last.
    duplicates: HashMap<NodeName, Instant>,
}

#[derive(Debug)]
struct Current {
    id: u64,
    origin: Origin,
    replaced: oneshot::Sender<()>,
}

/// Where a link comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Which of the two has dialled.
    pub(super) dialled_by: Side,
    /// Which run of the other side's daemon it leads to.
    pub(super) boot: [u8; 16],
}

/// One of the two machines of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Us,
    Them,
}

/// The right to be the link to a machine; given back when dropped.
#[derive(Debug)]
pub(super) struct LinkClaim {
    links: Arc<Links>,
    node: NodeName,
    id: u64,
    replaced: oneshot::Receiver<()>,
}

impl Default for Links {
    fn default() -> Self {
        Self { table: Mutex::default(), gone: watch::Sender::new(()) }
    }
}

impl Links {
    /// Becomes the link to `node`, in the place of one that gives way; none where the one that is there is kept.
    pub(super) fn claim(
        self: &Arc<Self>,
        own: &NodeName,
        node: &NodeName,
        origin: Origin,
    ) -> Option<LinkClaim> {
        let preferred = if own < node { Side::Us } else { Side::Them };
        let mut table = self.table();
        if table
            .current
            .get(node)
            .is_some_and(|there| keeps_current(there.origin, origin, preferred))
        {
            return None;
        }
        table.note_run(node, origin.boot);
        table.last += 1;
        let id = table.last;
        let (replaced, was_replaced) = oneshot::channel();
        if let Some(before) = table.current.insert(node.clone(), Current { id, origin, replaced }) {
            let _ends_already = before.replaced.send(());
        }
        Some(LinkClaim { links: Arc::clone(self), node: node.clone(), id, replaced: was_replaced })
    }

    /// True where two machines were seen lately that both say to be that node.
    pub(super) fn has_duplicates(&self, node: &NodeName) -> bool {
        self.table().duplicates.get(node).is_some_and(|seen| seen.elapsed() < DUPLICATES_REMEMBERED)
    }

    /// Ends when there is no link to `node`.
    pub(super) async fn absent(&self, node: &NodeName) {
        let mut gone = self.gone.subscribe();
        while self.table().current.contains_key(node) {
            if gone.changed().await.is_err() {
                return;
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// A run of a daemon that has given way to another never comes back: one that does is that of another machine.
    fn note_run(&mut self, node: &NodeName, boot: [u8; 16]) {
        let runs = self.runs.entry(node.clone()).or_insert([boot; 2]);
        if runs[0] == boot {
            return;
        }
        let is_back = runs[1] == boot;
        *runs = [boot, runs[0]];
        if is_back && self.duplicates.insert(node.clone(), clock::monotonic()).is_none() {
            warn!(%node, "two machines use the name of one node: they take each other's place");
        }
    }
}

/// Whether the link that is there stays where another one arrives. Of two to the same daemon, the one that the
/// smaller name has dialled; otherwise the later one, since a node that dials again has lost the earlier one.
fn keeps_current(there: Origin, arrives: Origin, preferred: Side) -> bool {
    there.boot == arrives.boot && there.dialled_by == preferred && arrives.dialled_by != preferred
}

impl LinkClaim {
    /// Ends when another link has taken the place.
    pub(super) async fn replaced(&mut self) {
        let _told_or_gone = (&mut self.replaced).await;
    }
}

impl Drop for LinkClaim {
    fn drop(&mut self) {
        let mut table = self.links.table();
        if table.current.get(&self.node).is_some_and(|current| current.id == self.id) {
            table.current.remove(&self.node);
            self.links.gone.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: [u8; 16] = [1; 16];

    #[test]
    fn a_run_that_comes_back_is_that_of_another_machine() {
        let links = Arc::<Links>::default();
        let node = |name: &str| NodeName::parse(name).expect("a name");
        let claim = |boot| {
            let origin = Origin { dialled_by: Side::Them, boot };
            links.claim(&node("home"), &node("office"), origin)
        };
        let _first = claim([1; 16]);
        let _restarted = claim([2; 16]);
        let _again = claim([2; 16]);
        assert!(
            !links.has_duplicates(&node("office")),
            "it was started again, and has dialled again"
        );
        let _back = claim([1; 16]);
        assert!(links.has_duplicates(&node("office")));
        assert!(!links.has_duplicates(&node("attic")));
    }

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).expect("a name")
    }

    fn origin(dialled_by: Side) -> Origin {
        Origin { dialled_by, boot: BOOT }
    }

    /// Both machines see both links, in any order; the one that is left is the same for both.
    #[test]
    fn of_two_links_both_sides_keep_the_one_that_the_smaller_name_has_dialled() {
        for a_first in [true, false] {
            for b_first in [true, false] {
                let (on_a, on_b) = (Arc::<Links>::default(), Arc::<Links>::default());
                let (a, b) = (node("a"), node("b"));
                let dialled_by_a = |on: &Arc<Links>, own: &NodeName, other: &NodeName| {
                    on.claim(own, other, origin(if own == &a { Side::Us } else { Side::Them }))
                };
                let dialled_by_b = |on: &Arc<Links>, own: &NodeName, other: &NodeName| {
                    on.claim(own, other, origin(if own == &b { Side::Us } else { Side::Them }))
                };
                for (on, own, other, first) in [(&on_a, &a, &b, a_first), (&on_b, &b, &a, b_first)]
                {
                    let (mut by_a, mut by_b) = (None, None);
                    for turn in [first, !first] {
                        if turn {
                            by_a = dialled_by_a(on, own, other);
                        } else {
                            by_b = dialled_by_b(on, own, other);
                        }
                    }
                    let mut by_a = by_a.expect("a's link is taken whenever it comes");
                    assert!(by_a.replaced.try_recv().is_err(), "and is kept");
                    if let Some(by_b) = &mut by_b {
                        assert_eq!(by_b.replaced.try_recv(), Ok(()), "b's gives way");
                    }
                }
            }
        }
    }

    #[test]
    fn a_daemon_that_has_started_anew_is_not_kept_out_by_its_old_link() {
        let links = Arc::<Links>::default();
        let mut old = links.claim(&node("a"), &node("b"), origin(Side::Us)).expect("the first");
        let anew = Origin { dialled_by: Side::Them, boot: [2; 16] };
        let new = links.claim(&node("a"), &node("b"), anew);
        assert!(new.is_some() && old.replaced.try_recv() == Ok(()));
        drop(old);
        assert!(links.table().current.contains_key(&node("b")), "the old one takes nothing along");
    }

    #[tokio::test]
    async fn a_link_that_ends_is_noticed() {
        let links = Arc::<Links>::default();
        let held = links.claim(&node("a"), &node("b"), origin(Side::Us)).expect("the first");
        let waiting = tokio::spawn({
            let links = Arc::clone(&links);
            async move { links.absent(&node("b")).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        waiting.await.expect("it ends");
    }
}
