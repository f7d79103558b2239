//! How an arriving version of a row meets the one that is there: which stays, and whether either of
//! their writers had not seen the other. The later stamp stays: last write wins. Storing is the store's.

use std::cmp::Ordering;

use cortex_mutant::mutant;

use super::{Dot, VersionVector};
use crate::model::Stamp;

/// One of the two versions.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Its place in the merge order.
    pub stamp: Stamp,
    /// Its number among the writes of its actor.
    pub seq: u64,
    /// What its writer had seen, besides its own writes.
    pub context: &'a VersionVector,
}

impl Side<'_> {
    /// Its name.
    #[must_use]
    pub fn dot(&self) -> Dot {
        Dot { actor: self.stamp.actor, seq: self.seq }
    }

    /// True where its writer had seen a write.
    fn had_seen(&self, dot: Dot) -> bool {
        self.context.covers(dot) || (dot.actor == self.stamp.actor && dot.seq <= self.seq)
    }

    /// True where its writer had seen the other version, and all that its writer had seen.
    fn had_seen_all(&self, other: Side<'_>) -> bool {
        self.had_seen(other.dot()) && other.context.iter().all(|dot| self.had_seen(dot))
    }

    /// What its writer had seen, with the write itself.
    fn seen(&self) -> VersionVector {
        let mut seen = self.context.clone();
        seen.raise(self.dot());
        seen
    }
}

/// What becomes of the arriving version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Nothing: this replica had it, and has collected its deletion since.
    Known,
    /// It takes the place of what is there, if anything is.
    Wins(Causality),
    /// What is there stays.
    Loses {
        /// How the two stand to each other.
        causality: Causality,
        /// True where the sender claims to have seen the version that is there, and yet offers this
        /// one: it has collected it, and needs it again.
        re_announce: bool,
    },
}

/// How two versions of a row stand to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causality {
    /// True where neither writer had seen the other's write.
    pub concurrent: bool,
    /// What the row's writers had seen together, besides the write of the version that stays; none
    /// where that is what its own writer had seen.
    pub context: Option<VersionVector>,
}

/// Lets an arriving version meet the one that is there.
///
/// `ours` is what this replica has incorporated, `theirs` what the sender has. `bytes` compares the values,
/// the arriving one's to the other's: it decides where one stamp was given to two versions, which no sound
/// actor does.
#[must_use]
pub fn resolve(
    present: Option<Side<'_>>,
    arriving: Side<'_>,
    ours: &VersionVector,
    theirs: &VersionVector,
    bytes: impl FnOnce() -> Ordering,
) -> Resolution {
    let Some(present) = present else {
        return if was_collected(arriving, ours) {
            Resolution::Known
        } else {
            Resolution::Wins(Causality::default())
        };
    };
    let order =
        arriving.stamp.cmp(&present.stamp).then_with(|| match arriving.seq == present.seq {
            true => bytes(),
            false => arriving.seq.cmp(&present.seq),
        });
    if order == Ordering::Greater && arriving.had_seen_all(present) {
        return Resolution::Wins(Causality::default()); // as all but a few do
    }
    let same = arriving.dot() == present.dot();
    let concurrent =
        !same && !arriving.had_seen(present.dot()) && !present.had_seen(arriving.dot());
    if order == Ordering::Greater {
        let context = united_context(arriving, present);
        return Resolution::Wins(Causality { concurrent, context });
    }
    let causality = Causality { concurrent, context: united_context(present, arriving) };
    let re_announce = order == Ordering::Less && lost_to_gc(present, theirs);
    Resolution::Loses { causality, re_announce }
}

/// True of a version that is incorporated and not there: it was deleted, and the deletion collected.
#[mutant(CollectedIgnored => false)]
fn was_collected(arriving: Side<'_>, ours: &VersionVector) -> bool {
    ours.covers(arriving.dot())
}

/// True where a sender that sends an older version has incorporated the newer one: it had it, and has collected it.
#[mutant(ReAnnounce => false)]
fn lost_to_gc(newer: Side<'_>, theirs: &VersionVector) -> bool {
    theirs.covers(newer.dot())
}

/// What the writers of two versions had seen together, besides the write of the version that stays; none where its own
/// writer had seen all of it.
#[mutant(ContextsUnite => None)]
fn united_context(stays: Side<'_>, goes: Side<'_>) -> Option<VersionVector> {
    let mut both = stays.seen();
    both.join(&goes.seen());
    // The version that stays says for itself which of its actor's writes it is.
    let own = stays.dot();
    let context = if both.get(own.actor) <= own.seq { both.without(own.actor) } else { both };
    (context != stays.context.without_own(own)).then_some(context)
}

impl VersionVector {
    /// The vector without what a version of a row says of its actor itself.
    fn without_own(&self, own: Dot) -> Self {
        if self.get(own.actor) <= own.seq {
            return self.without(own.actor);
        }
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{ActorId, Hlc};

    fn dot(actor: u128, seq: u64) -> Dot {
        Dot { actor: ActorId(actor), seq }
    }

    fn side(hlc: i64, actor: u128, seq: u64, context: &VersionVector) -> Side<'_> {
        let stamp = Stamp { hlc: Hlc::from_i64(hlc), actor: ActorId(actor) };
        Side { stamp, seq, context }
    }

    fn met(present: Side<'_>, arriving: Side<'_>) -> Resolution {
        resolve(Some(present), arriving, &VersionVector::new(), &VersionVector::new(), || {
            Ordering::Equal
        })
    }

    fn causality(meeting: Resolution) -> Causality {
        match meeting {
            Resolution::Known => panic!("there is a row"),
            Resolution::Wins(causality) | Resolution::Loses { causality, .. } => causality,
        }
    }

    #[test]
    fn a_write_that_had_seen_the_other_is_no_conflict_whatever_the_clocks_say() {
        let nothing = VersionVector::new();
        let seen: VersionVector = [dot(1, 5)].into_iter().collect();
        let (first, second) = (side(100, 1, 5, &nothing), side(3, 2, 9, &seen));
        assert!(!causality(met(first, second)).concurrent);
        assert!(!causality(met(second, first)).concurrent);
    }

    #[test]
    fn writes_that_had_not_seen_each_other_are_a_conflict() {
        let nothing = VersionVector::new();
        let (first, second) = (side(1, 1, 5, &nothing), side(2, 2, 9, &nothing));
        let Resolution::Wins(won) = met(first, second) else { panic!("it is later") };
        assert_eq!(
            won,
            Causality { concurrent: true, context: Some([dot(1, 5)].into_iter().collect()) }
        );
        let Resolution::Loses { causality: lost, re_announce: false } = met(second, first) else {
            panic!("it is earlier")
        };
        assert_eq!(lost, won, "whichever comes first");
    }

    #[test]
    fn what_was_collected_here_does_not_come_back() {
        let ours: VersionVector = [dot(1, 5)].into_iter().collect();
        let (nothing, compare) = (VersionVector::new(), || Ordering::Equal);
        let known = resolve(None, side(1, 1, 5, &nothing), &ours, &nothing, compare);
        assert_eq!(known, Resolution::Known);
        let new = resolve(None, side(1, 1, 6, &nothing), &ours, &nothing, compare);
        assert_eq!(new, Resolution::Wins(Causality::default()));
    }

    #[test]
    fn a_sender_that_has_collected_the_newer_version_gets_it_back() {
        let nothing = VersionVector::new();
        let theirs: VersionVector = [dot(2, 9)].into_iter().collect();
        let (newer, older) = (side(2, 2, 9, &nothing), side(1, 1, 5, &nothing));
        let meeting = resolve(Some(newer), older, &nothing, &theirs, || Ordering::Equal);
        assert!(matches!(meeting, Resolution::Loses { re_announce: true, .. }), "{meeting:?}");
    }

    #[test]
    fn of_two_versions_with_one_stamp_every_replica_keeps_the_same() {
        let nothing = VersionVector::new();
        let one = side(1, 1, 5, &nothing);
        let of = |order| resolve(Some(one), one, &nothing, &nothing, || order);
        assert!(matches!(of(Ordering::Greater), Resolution::Wins(_)));
        assert!(matches!(of(Ordering::Less), Resolution::Loses { .. }));
    }

    fn version() -> impl Strategy<Value = (i64, u128, u64, VersionVector)> {
        let context = prop::collection::vec((0..3u128, 1..6u64), 0..4);
        (1..9i64, 0..3u128, 1..6u64, context).prop_map(|(hlc, actor, seq, dots)| {
            let dots = dots.into_iter().map(|(actor, seq)| dot(actor, seq));
            // Numbers and timestamps of one actor rise together.
            (hlc + i64::try_from(seq).expect("small") * 10, actor, seq, dots.collect())
        })
    }

    proptest! {
        /// holds K1: whatever the order of arrival, every replica ends with the same row.
        #[test]
        fn any_order_of_arrival_ends_in_the_same_row(
            mut versions in prop::collection::vec(version(), 1..8),
            seed in any::<prop::sample::Index>(),
        ) {
            versions.sort_by_key(|(hlc, actor, ..)| (*hlc, *actor));
            versions.dedup_by_key(|(hlc, actor, ..)| (*hlc, *actor));
            let row_after = |order: &[(i64, u128, u64, VersionVector)]| {
                let mut row = None;
                for (hlc, actor, seq, context) in order {
                    let arriving = side(*hlc, *actor, *seq, context);
                    let nothing = VersionVector::new();
                    let resolution =
                        resolve(row, arriving, &nothing, &nothing, || Ordering::Equal);
                    if matches!(resolution, Resolution::Wins(_)) {
                        row = Some(arriving);
                    }
                }
                row.map(|row: Side<'_>| (row.stamp, row.seq))
            };
            let in_order = row_after(&versions);
            let turn = seed.index(versions.len());
            versions.rotate_left(turn);
            prop_assert_eq!(row_after(&versions), in_order);
            versions.reverse();
            prop_assert_eq!(row_after(&versions), in_order);
        }

        /// Both replicas that meet two versions end with the same row and the same context.
        #[test]
        fn it_does_not_matter_which_came_first(a in version(), b in version()) {
            prop_assume!((a.0, a.1) != (b.0, b.1) && (a.1, a.2) != (b.1, b.2));
            let one = side(a.0, a.1, a.2, &a.3);
            let other = side(b.0, b.1, b.2, &b.3);
            let merged = |meeting: Resolution, present: Side<'_>, arriving: Side<'_>| {
                let wins = matches!(meeting, Resolution::Wins(_));
                let stays = if wins { arriving } else { present };
                let causality = causality(meeting);
                let own = stays.dot();
                let context = causality.context.unwrap_or_else(|| stays.context.clone());
                (own, causality.concurrent, context.without_own(own))
            };
            prop_assert_eq!(
                merged(met(one, other), one, other), merged(met(other, one), other, one)
            );
        }
    }
}
