//! Where tables may be, and which replicas of them are to be reckoned with.
//! Moving the rows accordingly is for the store and the replication; here it is only worked out.
//!
//! ```text
//!   decisions ──> standing of a node: in ──> holds rows, writes, asks for rows
//!                                     frozen ──> keeps what it holds, and no more
//!                                     out ──> hands over what it holds alone, then deletes
//!   decisions, replica rows, removals ──> epochs that have begun, epochs that are over
//!                                         ──> who must confirm before a deletion is forgotten
//! ```

use std::collections::{BTreeMap, BTreeSet};

use cortex_mutant::mutant;

use super::{Decision, Directory, ReplicaRow, ScopeRow, Seen, join, latest, note};
use crate::model::{NodeName, Scope, TableUid};

/// Where a table may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// What holds: the one decision, or what all that compete have in common.
    pub scope: Scope,
    /// True where decisions compete that had not seen each other.
    pub contested: bool,
}

/// Whether a node may hold a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Every decision that holds admits it.
    In,
    /// Of decisions that compete some admit it and some do not: it changes nothing until an
    /// operator has decided.
    Frozen,
    /// None admits it, or there is none.
    Out,
}

impl Decision for ScopeRow {
    fn count(&self) -> u64 {
        self.count
    }

    fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl Directory {
    /// Where a table may be; none where nobody has decided.
    #[must_use]
    pub fn whereabouts(&self, table: TableUid) -> Option<Whereabouts> {
        let decisions = latest(self.scopes.get(&table)?);
        let (first, others) = decisions.split_first()?;
        if others.is_empty() {
            return Some(Whereabouts { scope: first.scope.clone(), contested: false });
        }
        let common = |scope: Scope, row: &&ScopeRow| scope.intersection(&at_home(row));
        let scope = others.iter().fold(at_home(first), common);
        Some(Whereabouts { scope, contested: true })
    }

    /// Whether a node may hold a table.
    #[must_use]
    pub fn standing(&self, table: TableUid, node: &NodeName) -> Standing {
        let Some(decisions) = self.scopes.get(&table) else {
            return Standing::Out;
        };
        if self.is_declined(table, node) {
            return Standing::Out;
        }
        self.standing_by(&latest(decisions), node)
    }

    /// The decisions about a table that no other has replaced: whose, and as the machines that each means.
    /// More than one where they compete.
    #[must_use]
    pub fn competing(&self, table: TableUid) -> Vec<(&NodeName, Scope)> {
        let decisions = self.scopes.get(&table).map(|rows| latest(rows)).unwrap_or_default();
        decisions.into_iter().map(|row| (&row.by, at_home(row))).collect()
    }

    /// True where the root of a machine keeps a table away from it, whatever the scope says. The row of a
    /// database that was removed does not count: another one under that name is another machine.
    #[must_use]
    pub fn is_declined(&self, table: TableUid, node: &NodeName) -> bool {
        self.declines(table, node) % 2 == 1
    }

    /// How often the root of a machine has decided that, or has taken it back: odd where it stands.
    #[must_use]
    pub fn declines(&self, table: TableUid, node: &NodeName) -> u64 {
        let Some(row) = self.replica(table, node) else { return 0 };
        let is_void = row.is_declined() && self.is_removed(&row.database);
        row.declines.saturating_add(u64::from(is_void))
    }

    /// The members that may hold a table.
    #[must_use]
    pub fn in_scope(&self, table: TableUid) -> BTreeSet<NodeName> {
        let Some(decisions) = self.scopes.get(&table) else {
            return BTreeSet::new();
        };
        let latest = latest(decisions);
        let names = self.members().map(|row| &row.node);
        let is_in = |node: &&NodeName| {
            self.standing_by(&latest, node) == Standing::In && !self.is_declined(table, node)
        };
        names.filter(is_in).cloned().collect()
    }

    /// The same of this machine.
    #[must_use]
    pub fn is_declined_here(&self, table: TableUid) -> bool {
        self.here().is_some_and(|here| self.is_declined(table, here))
    }

    /// What is known of the decisions about a table: those that are held, and those that they had
    /// seen. Rows must not be taken from a node that knows of more.
    #[must_use]
    pub fn scope_knowledge(&self, table: TableUid) -> Seen {
        let mut known = Seen::new();
        self.decisions(table).for_each(|row| record_decision(&mut known, row));
        known
    }

    /// Of each node, the newest epoch of its replica that has begun, or that a decision lets begin.
    #[must_use]
    pub fn epochs(&self, table: TableUid) -> Seen {
        let mut epochs = Seen::new();
        self.replicas(table).for_each(|row| note(&mut epochs, &row.node, row.up));
        self.decisions(table).for_each(|row| join(&mut epochs, &row.epochs));
        epochs.retain(|_, epoch| *epoch > 0); // the first is 1
        epochs
    }

    /// Of each node, the last epoch of its replica that is over: drained, abandoned, or in a
    /// database that was removed.
    #[must_use]
    pub fn gone(&self, table: TableUid) -> Seen {
        let mut gone = Seen::new();
        for row in self.replicas(table) {
            note(&mut gone, &row.node, row.down);
            if self.is_removed(&row.database) {
                note(&mut gone, &row.node, row.up);
            }
        }
        self.decisions(table).for_each(|row| join(&mut gone, &row.off));
        for (node, epoch) in self.epochs(table) {
            if self.is_put_out(&node) {
                note(&mut gone, &node, epoch);
            }
        }
        gone.retain(|_, epoch| *epoch > 0);
        gone
    }

    /// The nodes that must have confirmed a deletion before it may be forgotten, this one among
    /// them, each with the epoch that must have confirmed it. It is not enough to ask those in scope:
    /// one that was excluded may hold the deleted row still, and be admitted again. Epoch 0 stands
    /// for a replica of which nothing is known yet: nobody can confirm for it, but it may be there.
    #[must_use]
    pub fn must_confirm(&self, table: TableUid) -> BTreeMap<NodeName, u64> {
        let (epochs, gone) = (self.epochs(table), self.gone(table));
        let unheard = self.in_scope(table).into_iter().filter(|node| !epochs.contains_key(node));
        let mut asked: BTreeMap<NodeName, u64> = unheard.map(|node| (node, 0)).collect();
        let is_up =
            |(node, epoch): &(&NodeName, &u64)| gone.get(*node).is_none_or(|over| over < epoch);
        asked.extend(epochs.iter().filter(is_up).map(|(node, epoch)| (node.clone(), *epoch)));
        asked
    }

    /// What a node says of its replica of a table.
    #[must_use]
    pub fn replica(&self, table: TableUid, node: &NodeName) -> Option<&ReplicaRow> {
        self.replicas.get(&table)?.get(node)
    }

    /// True where an epoch of this node's replica has begun and no row says that it is over.
    #[must_use]
    pub fn owes_departure(&self, table: TableUid) -> bool {
        let Some(own) = self.here().and_then(|here| self.replica(table, here)) else {
            return false;
        };
        own.up > self.gone(table).get(&own.node).copied().unwrap_or(0)
    }

    /// The tables about whose scope somebody has decided.
    pub fn tables_decided(&self) -> impl Iterator<Item = TableUid> {
        self.scopes.keys().copied()
    }

    /// True where the table was dropped, which is for good: one of the same name is another table.
    #[must_use]
    pub fn is_dropped(&self, table: TableUid) -> bool {
        self.dropped.contains_key(&table)
    }

    /// The nodes that say that they have dropped a table: more than one where they did so without knowing of
    /// each other.
    pub fn dropped_by(&self, table: TableUid) -> impl Iterator<Item = &NodeName> {
        self.dropped.get(&table).into_iter().flatten()
    }

    /// True where a node has decided about a table's scope.
    #[must_use]
    pub fn decided_by(&self, table: TableUid, node: &NodeName) -> bool {
        self.scopes.get(&table).is_some_and(|decisions| decisions.contains_key(node))
    }

    fn decisions(&self, table: TableUid) -> impl Iterator<Item = &ScopeRow> {
        self.scopes.get(&table).into_iter().flat_map(|of| of.values())
    }

    fn replicas(&self, table: TableUid) -> impl Iterator<Item = &ReplicaRow> {
        self.replicas.get(&table).into_iter().flat_map(|of| of.values())
    }

    fn standing_by(&self, latest: &[&ScopeRow], node: &NodeName) -> Standing {
        if self.is_put_out(node) {
            return Standing::Out;
        }
        let admitting = latest.iter().filter(|row| self.admits(row, node)).count();
        standing_of(admitting, latest.len())
    }

    /// True where a decision admits a node. All are all members, and this node, which is one even
    /// where it has not presented itself yet.
    fn admits(&self, decision: &ScopeRow, node: &NodeName) -> bool {
        let is_member = || self.nodes.contains_key(node) || self.here() == Some(node);
        let everyone = decision.scope == Scope::All;
        at_home(decision).admits(node) && (!everyone || is_member())
    }
}

/// Notes a decision, and what it had seen.
#[mutant(KnowledgeIsTransitive => note(known, &row.by, row.count))]
fn record_decision(known: &mut Seen, row: &ScopeRow) {
    note(known, &row.by, row.count);
    join(known, &row.seen);
}

/// What a node is that so many of all decisions admit.
#[mutant(NarrowerScope, all = admitting)]
fn standing_of(admitting: usize, all: usize) -> Standing {
    match admitting {
        0 => Standing::Out,
        _ if admitting == all => Standing::In,
        _some => Standing::Frozen,
    }
}

/// A decision's scope as the machines that it means.
fn at_home(row: &ScopeRow) -> Scope {
    match &row.scope {
        Scope::Local => Scope::Nodes([row.by.clone()].into()),
        Scope::All | Scope::Nodes(_) => row.scope.clone(),
    }
}
