//! Which version of a row stays when another arrives: last write wins by stamp.
//! Local writes and peers' rows pass through the same function; storing the outcome is the store's.

use crate::model::Stamp;

/// What a row would become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A record of this many bytes, key and value together.
    Live {
        /// Counted into the owner's usage.
        bytes: u64,
    },
    /// A deletion.
    Deleted,
}

/// One version of a row, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its place in the merge order.
    pub stamp: Stamp,
    /// A record or a deletion.
    pub content: Content,
}

/// What the store has to do with an arriving version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: what is there is newer, or there is nothing to delete.
    Keep,
    /// Store the arriving record, in place of what was there.
    Store,
    /// Leave a tombstone, so that copies elsewhere learn of the deletion.
    Tombstone,
    /// Remove the row without a trace: no copy can exist elsewhere.
    Erase,
}

/// Decides between the row that is there, if any, and an arriving version.
///
/// `replicated` says whether copies of the table's rows may exist on other machines: only then
/// does a deletion need a tombstone.
#[must_use]
pub fn decide(present: Option<Version>, arriving: Version, replicated: bool) -> Change {
    if present.is_some_and(|present| present.stamp >= arriving.stamp) {
        return Change::Keep;
    }
    match (arriving.content, replicated, present) {
        (Content::Live { .. }, _, _) => Change::Store,
        (Content::Deleted, true, _) => Change::Tombstone,
        (Content::Deleted, false, Some(_)) => Change::Erase,
        (Content::Deleted, false, None) => Change::Keep,
    }
}

/// How a change moves a table's totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Live records more or fewer.
    pub records: i64,
    /// Bytes of live records more or fewer.
    pub bytes: i64,
}

impl Delta {
    /// The difference that `change` makes.
    #[must_use]
    pub fn of(present: Option<Version>, arriving: Version, change: Change) -> Self {
        let after = match change {
            Change::Keep => return Self::default(),
            Change::Store => Some(arriving),
            Change::Tombstone | Change::Erase => None,
        };
        let (records_before, bytes_before) = totals(present);
        let (records_after, bytes_after) = totals(after);
        Self { records: records_after - records_before, bytes: bytes_after - bytes_before }
    }

    /// The difference that takes this one back.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { records: -self.records, bytes: -self.bytes }
    }

    /// Both differences together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { records: self.records + other.records, bytes: self.bytes + other.bytes }
    }
}

fn totals(version: Option<Version>) -> (i64, i64) {
    match version.map(|v| v.content) {
        Some(Content::Live { bytes }) => (1, i64::try_from(bytes).unwrap_or(i64::MAX)),
        Some(Content::Deleted) | None => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{ActorId, Hlc};

    fn version(hlc: i64, actor: u128, content: Content) -> Version {
        let stamp = Stamp { hlc: Hlc::from_i64(hlc), actor: ActorId(actor) };
        Version { stamp, content }
    }

    #[test]
    fn the_greater_stamp_wins_and_the_actor_breaks_ties() {
        let live = Content::Live { bytes: 1 };
        let present = Some(version(5, 2, live));
        assert_eq!(decide(present, version(5, 3, live), false), Change::Store);
        assert_eq!(decide(present, version(5, 2, live), false), Change::Keep);
        assert_eq!(decide(present, version(5, 1, live), false), Change::Keep);
        assert_eq!(decide(present, version(6, 1, live), false), Change::Store);
    }

    #[test]
    fn a_deletion_leaves_a_tombstone_only_where_copies_may_exist() {
        let deletion = version(9, 1, Content::Deleted);
        let present = Some(version(5, 1, Content::Live { bytes: 1 }));
        assert_eq!(decide(present, deletion, false), Change::Erase);
        assert_eq!(decide(present, deletion, true), Change::Tombstone);
        assert_eq!(decide(None, deletion, true), Change::Tombstone, "it may arrive before the row");
        assert_eq!(decide(None, deletion, false), Change::Keep);
    }

    fn content() -> impl Strategy<Value = Content> {
        prop_oneof![(0..1000u64).prop_map(|bytes| Content::Live { bytes }), Just(Content::Deleted)]
    }

    proptest! {
        /// holds K1: whatever the order of arrival, every replica ends with the same row.
        #[test]
        fn any_order_of_arrival_ends_in_the_same_row(
            mut versions in prop::collection::vec((0..4i64, 0..3u128, content()), 1..8),
            seed in any::<prop::sample::Index>(),
        ) {
            versions.sort_by_key(|(hlc, inc, _)| (*hlc, *inc));
            versions.dedup_by_key(|(hlc, inc, _)| (*hlc, *inc));
            let settle = |order: &[(i64, u128, Content)]| {
                let mut row = None;
                for (hlc, inc, content) in order {
                    let arriving = version(*hlc, *inc, *content);
                    match decide(row, arriving, true) {
                        Change::Store | Change::Tombstone => row = Some(arriving),
                        Change::Keep | Change::Erase => {}
                    }
                }
                row
            };
            let in_order = settle(&versions);
            let turn = seed.index(versions.len());
            versions.rotate_left(turn);
            prop_assert_eq!(settle(&versions), in_order);
            versions.reverse();
            prop_assert_eq!(settle(&versions), in_order);
        }

        #[test]
        fn deltas_add_up_to_the_totals_of_the_final_row(
            contents in prop::collection::vec(content(), 1..20), replicated in any::<bool>(),
        ) {
            let (mut row, mut sum) = (None, Delta::default());
            for (time, content) in contents.into_iter().enumerate() {
                let arriving = version(i64::try_from(time).expect("small") + 1, 1, content);
                let change = decide(row, arriving, replicated);
                sum = sum.plus(Delta::of(row, arriving, change));
                match change {
                    Change::Store | Change::Tombstone => row = Some(arriving),
                    Change::Erase => row = None,
                    Change::Keep => {}
                }
            }
            let (records, bytes) = totals(row);
            prop_assert_eq!(sum, Delta { records, bytes });
        }
    }
}
