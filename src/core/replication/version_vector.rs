//! What has been incorporated: for each actor, the number up to which.
//! What may be concluded from it is `reader`'s and `collect`'s.

use std::collections::{BTreeMap, btree_map};

use crate::model::ActorId;

/// The name of one write for ever: its actor, and its number among the writes of that actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who has made it.
    pub actor: ActorId,
    /// Its number there, over all tables; the first is 1.
    pub seq: u64,
}

/// A version vector over actors (Parker et al., "Detection of Mutual Inconsistency", 1983).
/// An actor that is not listed counts as 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionVector(BTreeMap<ActorId, u64>);

impl VersionVector {
    /// Nothing incorporated.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The number up to which an actor's writes are covered.
    #[must_use]
    pub fn get(&self, actor: ActorId) -> u64 {
        self.0.get(&actor).copied().unwrap_or(0)
    }

    /// True where the write is covered.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        self.get(dot.actor) >= dot.seq
    }

    /// True where every write that `other` covers is covered.
    #[must_use]
    pub fn dominates(&self, other: &Self) -> bool {
        other.iter().all(|dot| self.covers(dot))
    }

    /// Covers a write, and all before it of the same actor.
    pub fn raise(&mut self, dot: Dot) {
        if dot.seq > 0 {
            let known = self.0.entry(dot.actor).or_default();
            *known = dot.seq.max(*known);
        }
    }

    /// Covers what either covers. True where that is more than before.
    pub fn join(&mut self, other: &Self) -> bool {
        let news = !self.dominates(other);
        if news {
            other.iter().for_each(|dot| self.raise(dot));
        }
        news
    }

    /// Covers what both cover.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let least = |dot: Dot| Dot { seq: dot.seq.min(other.get(dot.actor)), ..dot };
        self.iter().map(least).collect()
    }

    /// How many writes `other` covers that are not covered here. Writes to other tables count too,
    /// since numbers are drawn over all of them: a bound, no count.
    #[must_use]
    pub fn lacks(&self, other: &Self) -> u64 {
        let missing = |dot: Dot| dot.seq.saturating_sub(self.get(dot.actor));
        other.iter().map(missing).fold(0, u64::saturating_add)
    }

    /// The greatest covered write of each actor.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Dot> {
        let dots: btree_map::Iter<'_, _, _> = self.0.iter();
        dots.map(|(actor, seq)| Dot { actor: *actor, seq: *seq })
    }

    /// How many actors are listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True where nothing is covered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The vector without one actor.
    #[must_use]
    pub fn without(&self, actor: ActorId) -> Self {
        self.iter().filter(|dot| dot.actor != actor).collect()
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = Self::default();
        dots.into_iter().for_each(|dot| vector.raise(dot));
        vector
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector() -> impl Strategy<Value = VersionVector> {
        prop::collection::vec((0..4u128, 0..6u64), 0..5).prop_map(|dots| {
            let dot = |(actor, seq)| Dot { actor: ActorId(actor), seq };
            dots.into_iter().map(dot).collect()
        })
    }

    proptest! {
        #[test]
        fn a_join_is_the_least_that_dominates_both(a in vector(), b in vector(), other in vector()) {
            let mut join = a.clone();
            let news = join.join(&b);
            prop_assert_eq!(news, join != a);
            prop_assert!(join.dominates(&a) && join.dominates(&b));
            if other.dominates(&a) && other.dominates(&b) {
                prop_assert!(other.dominates(&join));
            }
        }

        #[test]
        fn what_is_common_is_the_most_that_both_dominate(a in vector(), b in vector(), other in vector()) {
            let common = a.intersection(&b);
            prop_assert!(a.dominates(&common) && b.dominates(&common));
            if a.dominates(&other) && b.dominates(&other) {
                prop_assert!(common.dominates(&other));
            }
        }

        #[test]
        fn nothing_is_lacked_where_one_dominates(a in vector(), b in vector()) {
            prop_assert_eq!(a.lacks(&b) == 0, a.dominates(&b));
        }
    }
}
