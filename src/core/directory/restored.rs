//! What a row of a restored node comes to where it meets the one that the node had written before and has forgotten:
//! others know that one, and have counted its decisions. When the two meet is the store's to notice.
//!
//! Two things keep a forgotten decision in force, in whichever order nodes read each other's rows:
//!
//! - Of two versions of a row the one with the greater [`Progress`] counts, and the later timestamp only decides
//!   between equals. A writer that forgets nothing never goes back in it, so this changes no other order. A version
//!   that a restored node has signed since, with the latest timestamp of all, replaces no revocation that it lacks.
//! - The restored node meets the forgotten version in turn, since nobody has given it up, and writes its own once
//!   more above it ([`Row::written_again`]).
//!
//! The order is total and the same on every node, so it makes no difference on which way versions arrive.

use super::{Row, join, note};

/// How far the writer of a row had come in counting its decisions under that key. It only ever grows, but for a
/// writer whose database was put back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress(u64, u64, u64);

impl Row {
    /// How far its writer had come. Rows that count nothing are all equal in it.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match self {
            Self::Grant(row) => Progress(row.revoked, 0, 0),
            Self::Unbinding(row) => Progress(row.count, 0, 0),
            Self::Revocation(row) => Progress(row.count, 0, 0),
            Self::Scope(row) => Progress(row.count, 0, 0),
            Self::NameResolution(row) => Progress(row.count, 0, 0),
            Self::Transfer(row) => Progress(row.count, 0, 0),
            Self::Replica(row) => Progress(row.up, row.down, row.declines),
            Self::Name(row) => Progress(row.generation, row.dropped.into(), 0),
            // These say one thing for ever, or who the node is now: what it was does not count any more.
            Self::Identity(_) | Self::Removal(_) | Self::Dropped(_) => Progress::default(),
            Self::Node(_) | Self::Binding(_) => Progress::default(),
        }
    }

    /// This row, as it must be written once more so that it counts for those who know `before`, a row of the same key
    /// and writer. Numbers of decisions are not used twice, and of two rights the narrower counts.
    #[must_use]
    pub fn written_again(self, before: &Self) -> Self {
        match (self, before) {
            (Self::Grant(mut row), Self::Grant(before)) => {
                if before.revoked >= row.revoked {
                    // A revocation of now is another one than any that was counted before.
                    let is_revoked_now = row.granted.is_none() && row.revoked > 0;
                    row.revoked = before.revoked + u64::from(is_revoked_now);
                }
                Self::Grant(row)
            }
            (Self::Unbinding(mut row), Self::Unbinding(before)) => {
                row.count = row.count.max(before.count.saturating_add(1));
                Self::Unbinding(row)
            }
            (Self::Revocation(mut row), Self::Revocation(before)) => {
                row.count = row.count.max(before.count.saturating_add(1));
                Self::Revocation(row)
            }
            (Self::Transfer(mut row), Self::Transfer(before)) => {
                row.count = row.count.max(before.count.saturating_add(1));
                join(&mut row.seen, &before.seen);
                note(&mut row.seen, &before.by, before.count);
                Self::Transfer(row)
            }
            (Self::Scope(mut row), Self::Scope(before)) => {
                row.count = row.count.max(before.count.saturating_add(1));
                join(&mut row.seen, &before.seen);
                note(&mut row.seen, &before.by, before.count);
                join(&mut row.epochs, &before.epochs);
                join(&mut row.off, &before.off);
                Self::Scope(row)
            }
            (Self::NameResolution(mut row), Self::NameResolution(before)) => {
                row.count = row.count.max(before.count.saturating_add(1));
                join(&mut row.seen, &before.seen);
                note(&mut row.seen, &before.by, before.count);
                Self::NameResolution(row)
            }
            (Self::Replica(mut row), Self::Replica(before)) => {
                (row.up, row.down) = (row.up.max(before.up), row.down.max(before.down));
                let is_declined = row.is_declined() || before.is_declined();
                row.declines = row.declines.max(before.declines);
                if is_declined != row.is_declined() {
                    row.declines = row.declines.saturating_add(1);
                }
                Self::Replica(row)
            }
            (Self::Name(mut row), Self::Name(before)) => {
                if before.generation > row.generation {
                    (row.generation, row.dropped) = (before.generation, before.dropped);
                } else if before.generation == row.generation {
                    row.dropped |= before.dropped;
                }
                Self::Name(row)
            }
            (row, _before) => row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{GrantRow, ReplicaRow, Seen, UnbindingRow};
    use super::*;
    use crate::model::{IdentityId, NodeName, Permissions, Principal, TableUid, Uid};

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).expect("a name")
    }

    fn grant(granted: Option<Seen>, revoked: u64) -> Row {
        Row::Grant(GrantRow {
            table: TableUid([1; 16]),
            principal: Principal::Everyone,
            right: Permissions::READ,
            by: node("home"),
            granted,
            revoked,
        })
    }

    /// holds K8: what was revoked before the restore stays revoked, and what is revoked now is revoked for those too
    /// who have seen the forgotten revocations.
    #[test]
    fn a_revocation_counts_on_whichever_side_of_the_restore_it_was_made() {
        let seen = Some(Seen::new());
        assert_eq!(grant(seen.clone(), 0).written_again(&grant(None, 2)), grant(seen.clone(), 2));
        assert_eq!(grant(None, 1).written_again(&grant(seen.clone(), 1)), grant(None, 2));
        assert_eq!(grant(None, 3).written_again(&grant(seen, 1)), grant(None, 3));
    }

    #[test]
    fn a_number_that_others_have_counted_is_not_used_again() {
        let unbinding = |count| {
            let (identity, node, by) = (IdentityId([1; 16]), node("home"), node("home"));
            Row::Unbinding(UnbindingRow { identity, node, uid: Uid(1000), by, count })
        };
        assert_eq!(unbinding(1).written_again(&unbinding(4)), unbinding(5));
        assert_eq!(unbinding(5).written_again(&unbinding(4)), unbinding(5), "and only once");
    }

    /// holds K8: where either version keeps the table away it is kept away, by a number that nobody has seen otherwise.
    #[test]
    fn a_table_that_was_kept_away_is_kept_away_on_whichever_side_of_the_restore_it_was_decided() {
        let replica = |declines| {
            let (table, node, database) = (TableUid([1; 16]), node("home"), [2; 16]);
            Row::Replica(ReplicaRow { table, node, database, up: 1, down: 0, declines })
        };
        for (since, before, again) in
            [(0, 1, 1), (0, 2, 2), (1, 1, 1), (1, 2, 3), (2, 1, 3), (2, 3, 3), (3, 2, 3), (3, 4, 5)]
        {
            assert_eq!(replica(since).written_again(&replica(before)), replica(again));
        }
    }
}
