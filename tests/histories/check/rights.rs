//! Rights: what was taken away stays away on every node, and what was given is there, once all have heard of it.
//!
//! Of a grant and a revocation that did not know of each other the revocation counts. So somebody is *denied* where
//! a revocation began after every grant was answered, and *admitted* where a grant was asked for, on the node of all
//! revocations, after the last of them was answered. Between that nothing is said, but that all nodes agree.

use crate::history::{Micros, NodeId, TableId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Right {
    Read,
    Write,
}

impl Right {
    pub(crate) const ALL: [Self; 2] = [Self::Read, Self::Write];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// A grant or a revocation.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    pub(crate) table: TableId,
    pub(crate) right: Right,
    pub(crate) grants: bool,
    pub(crate) node: NodeId,
    pub(crate) invoked: Micros,
    pub(crate) acked: Option<Micros>,
}

/// What somebody was found to be allowed, once everything had come to rest.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) table: TableId,
    pub(crate) right: Right,
    pub(crate) node: NodeId,
    pub(crate) allowed: bool,
}

/// What the decisions come to; none where it depends on what nobody can tell from outside.
pub(crate) fn expected(decisions: &[Decision], table: TableId, right: Right) -> Option<bool> {
    let about = || decisions.iter().filter(|one| one.table == table && one.right == right);
    let grants = || about().filter(|one| one.grants);
    let revocations = || about().filter(|one| !one.grants);
    let is_before = |one: &Decision, at: Micros| one.acked.is_some_and(|acked| acked < at);
    let is_final = |revoked: &Decision| {
        revoked.acked.is_some() && grants().all(|grant| is_before(grant, revoked.invoked))
    };
    if grants().next().is_none() || revocations().any(is_final) {
        return Some(false);
    }
    let counts = |grant: &Decision| {
        let known = |one: &Decision| one.node == grant.node && is_before(one, grant.invoked);
        grant.acked.is_some() && revocations().all(known)
    };
    grants().any(counts).then_some(true)
}

pub(crate) fn check(decisions: &[Decision], found: &[Found]) -> Vec<String> {
    let mut broken = Vec::new();
    for one in found {
        let (table, right, node) = (one.table, one.right.word(), one.node);
        let wrong = expected(decisions, one.table, one.right).filter(|want| *want != one.allowed);
        if let Some(want) = wrong {
            let decided: Vec<_> = decisions.iter().filter(|d| d.table == table).collect();
            broken.push(format!(
                "table {table}: node {node} allows {right}: {}, and it should be {want}: {decided:?}",
                one.allowed
            ));
        }
        let same = |other: &&Found| (other.table, other.right) == (one.table, one.right);
        if let Some(other) = found.iter().filter(same).find(|other| other.allowed && !one.allowed) {
            broken.push(format!(
                "table {table}: node {} allows {right}, and node {node} does not",
                other.node
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(node: NodeId, grants: bool, invoked: Micros, acked: Option<Micros>) -> Decision {
        Decision { table: 0, right: Right::Read, grants, node, invoked, acked }
    }

    fn found(node: NodeId, allowed: bool) -> Found {
        Found { table: 0, right: Right::Read, node, allowed }
    }

    #[test]
    fn who_reads_after_a_revocation_is_found() {
        let decisions = [decision(0, true, 1, Some(2)), decision(0, false, 3, Some(4))];
        assert_eq!(check(&decisions, &[found(1, true)]).len(), 1);
        assert_eq!(check(&decisions, &[found(1, false)]).len(), 0);
        assert_eq!(check(&[], &[found(1, true)]).len(), 1, "nothing was ever granted");
    }

    #[test]
    fn who_is_kept_out_after_a_grant_is_found() {
        let decisions = [decision(0, false, 1, Some(2)), decision(0, true, 3, Some(4))];
        assert_eq!(check(&decisions, &[found(1, false)]).len(), 1);
        assert_eq!(check(&decisions, &[found(1, true)]).len(), 0);
    }

    #[test]
    fn nodes_that_disagree_are_found() {
        let decisions = [decision(0, true, 1, Some(2)), decision(0, false, 3, None)];
        assert_eq!(check(&decisions, &[found(1, true), found(2, false)]).len(), 1);
        assert_eq!(check(&decisions, &[found(1, true), found(2, true)]).len(), 0);
    }

    /// A grant on one node did not know of a revocation on another: the revocation may count.
    #[test]
    fn what_did_not_know_of_each_other_is_not_judged() {
        let decisions = [decision(1, false, 1, Some(2)), decision(0, true, 3, Some(4))];
        assert_eq!(expected(&decisions, 0, Right::Read), None);
        let late = [decision(0, true, 1, Some(2)), decision(1, false, 3, Some(4))];
        assert_eq!(expected(&late, 0, Right::Read), Some(false));
    }
}
