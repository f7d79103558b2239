//! The rules of replication by name, so that a simulation can break each and see that it is missed (DeMillo,
//! Lipton and Sayward, "Hints on Test Data Selection", 1978).
//!
//! The function that keeps a rule carries its name: `#[mutant(TruncationHeeded => false)]`, an attribute of
//! `cortex-mutant` that adds nothing to a build without debug assertions.

use std::cell::Cell;

macro_rules! rules {
    ($($(#[$text:meta])* $name:ident,)*) => {
        /// A rule that replicas rely on. Its text says what holds; what it is for, the line that keeps it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rule {
            $($(#[$text])* $name,)*
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

rules! {
    /// A reader that may lack collected deletions reads the whole replica.
    WatermarkHeeded,
    /// A place in a change log that was cut off is of no use.
    TruncationHeeded,
    /// Who reads the whole replica for lack of deletions gets all of it, and removes the rest.
    FullSnapshotBelowWatermark,
    /// A full snapshot transfer leaves out nothing that the reader claims to have.
    FullSnapshotUnfiltered,
    /// A row that is re-announced passes by those who claim to have it.
    ReAnnouncedPasses,
    /// Rows are given only to a node that may have them.
    ReaderInScope,
    /// Rows are given only to a replica epoch that is known to have begun, and not to have ended.
    ReaderStayKnown,
    /// A part of the change log without fresh rows is not its end.
    EndIsTheEnd,
    /// A part of the change log brings the reader to the last entry that was looked at.
    CursorAtLastScanned,
    /// After a snapshot transfer the change log is read from where it was at the beginning of the snapshot transfer.
    ChangeLogFromSnapshotStart,

    /// A chunk counts only where the reader still is where it asked from.
    AnswersThisPosition,
    /// A chunk counts only for the actor that asked for it.
    AnswersThisActor,
    /// The decisions about the scope that a source knows come before its rows.
    ScopeBeforeRows,
    /// The removals of nodes that a source knows come before its rows.
    RemovalsBeforeRows,
    /// Rows are taken only by a replica that is in scope.
    TakerInScope,
    /// A replica that has ended is not believed.
    EndedSourceRefused,
    /// A source that lacks what was collected here reads this replica before it is read.
    StaleSourceRefused,
    /// Timestamps of the future are refused.
    FutureRefused,
    /// The directory waits for no clock.
    DirectoryPassesClocks,
    /// What the directory brings moves no clock.
    DirectoryMovesNoClock,
    /// A row of the directory comes after the one of its writer that it replaces, whatever the clock says.
    OwnRowExceeded,
    /// A decision that its writer has forgotten counts on, whatever the writer has signed since.
    ForgottenDecisionCounts,
    /// The clock of a source is observed.
    SourceClockObserved,
    /// Only the end of the change log brings what the source knows.
    VectorAtTheEnd,
    /// A snapshot transfer concludes with what its source knew at the beginning.
    SnapshotConcludesWithItsStart,
    /// A full snapshot transfer removes what its source has seen and has no more.
    FullSnapshotSweeps,
    /// Who has read a whole replica has its GC watermark.
    WatermarkInherited,
    /// What an earlier pass has delivered does not count for the next one.
    MarksOfOneSnapshot,
    /// Only a whole replica makes another one whole.
    ReadyFromReady,

    /// A version that is covered and not there was collected: it is ignored.
    CollectedIgnored,
    /// A newer version that its reader has collected is re-announced.
    ReAnnounce,
    /// The version that stays knows what the other one's writer had seen.
    ContextsUnite,
    /// A writer has seen all that its replica has incorporated.
    ContextOfVector,

    /// A clock does not go back while somebody may take a timestamp of the future.
    HandedStays,
    /// Another actor begins other change logs.
    ActorEndsChangeLogs,
    /// A replica that has left writes as another actor.
    LeavingRotatesActor,
    /// A draining replica ends only by the ack of one that is in scope.
    DrainedIntoScope,
    /// A draining replica ends only by the ack of a replica epoch that goes on.
    DrainedIntoLivingEpoch,
    /// A draining replica ends only when all of it was read.
    DrainedWholly,
    /// A replica that only some of competing decisions admit keeps what it has.
    FrozenKeeps,
    /// A replica that only some of competing decisions admit takes no writes.
    FrozenTakesNoWrites,
    /// A replica that is not whole takes no writes.
    FillingTakesNoWrites,
    /// A replica that was abandoned begins anew.
    AbandonedEnds,
    /// An epoch that this node has ended itself, and that an older disk brings back, goes on as the next one.
    EndedEpochResumes,
    /// A replica epoch that its disk has forgotten is over.
    ForgottenEpochEnds,
    /// Who knows a decision knows of those that it had seen.
    KnowledgeIsTransitive,
    /// Of competing decisions the narrower counts.
    NarrowerScope,

    /// What is incorporated by a snapshot transfer that goes on is not acknowledged.
    SnapshotNotAcknowledged,
    /// What stands behind a row that cannot be verified is not acknowledged.
    QuarantineNotAcknowledged,
    /// What is asked for from behind a batch is acknowledged once that is stored.
    AckAfterCommit,
    /// Who is told that there is nothing for it acknowledges what it has.
    NothingAcknowledged,
    /// A replica that has begun anew asks anew.
    NewEpochAsks,
    /// A request that waits is answered when the replica changes.
    ParkedHearsOfChange,
    /// Rows that cannot be verified are asked for again.
    QuarantineRetried,
    /// What stands behind rows that cannot be verified is learnt.
    QuarantinePassed,
    /// No row is held against a source that has none any more which cannot be verified.
    QuarantineReleased,
    /// A table is not read from where it may depend on a row that cannot be verified.
    QuarantineWithholds,
    /// What replicas say of themselves is passed on.
    StatusesPassedOn,
    /// What replicas of a table say is said to those alone who may have one.
    StatusesForHolders,

    /// Nothing is collected during a full snapshot transfer.
    SnapshotBeforeGc,
    /// What is collected raises the GC watermark.
    GcRaisesWatermark,
    /// What a replica has said as one actor does not count for the next.
    StatusOfOneActor,
    /// What a replica has said in one replica epoch does not count for the next.
    StatusOfOneEpoch,
    /// Replicas that only others know of are asked too.
    UnheardReplicasAsked,
    /// Nothing is collected that another replica may have an older version of.
    NobodyAhead,
    /// What this replica alone has incorporated is not collected.
    OthersConfirm,
    /// What is collected each replica has confirmed.
    EachReplicaConfirms,
    /// A deletion is kept for much longer than clocks differ.
    TombstonesAge,
    /// Timestamps are given anew only where nobody else can have observed the old ones.
    RestampedUnobserved,
}

thread_local! {
    static BROKEN: Cell<u128> = const { Cell::new(0) };
}

impl Rule {
    const fn bit(self) -> u128 {
        1 << self as u8
    }

    /// True where a simulation has broken the rule on this thread.
    #[must_use]
    pub fn is_broken(self) -> bool {
        BROKEN.get() & self.bit() != 0
    }

    /// Runs something without some of the rules, which hold again afterwards. In a release build they
    /// hold all the time.
    pub fn without<T>(rules: &[Self], run: impl FnOnce() -> T) -> T {
        struct Restored(u128);
        impl Drop for Restored {
            fn drop(&mut self) {
                BROKEN.set(self.0);
            }
        }
        let _restored = Restored(BROKEN.get());
        BROKEN.set(rules.iter().fold(BROKEN.get(), |broken, rule| broken | rule.bit()));
        run()
    }
}

#[cfg(test)]
mod tests {
    use cortex_mutant::mutant;

    use super::*;

    #[mutant(TruncationHeeded => "broken".to_owned())]
    #[mutant(ReAnnounce, rows = rows + 1)]
    fn shown(rows: u8) -> String {
        rows.to_string()
    }

    #[test]
    fn a_rule_is_broken_for_as_long_as_something_runs_without_it() {
        assert_eq!(shown(1), "1");
        assert_eq!(Rule::without(&[Rule::TruncationHeeded], || shown(1)), "broken");
        assert_eq!(Rule::without(&[Rule::ReAnnounce], || shown(1)), "2");
        assert_eq!(Rule::without(&[Rule::NobodyAhead], || shown(1)), "1");
        assert_eq!(shown(1), "1");
    }
}
