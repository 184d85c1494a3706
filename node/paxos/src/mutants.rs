//! Rules that a test may break, one or two at a time, to prove that breaking them is noticed.
//!
//! `mutant!(Name)` stands at the line of the rule. Without the feature `mutants`, and so in every
//! build that runs, it is the constant `false`: the compiler removes it, and none of the names
//! below exists.

#[cfg(feature = "mutants")]
pub use broken::{Mutant, break_rules};

#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:ident) => {
        crate::mutants::is_broken(crate::mutants::Mutant::$name)
    };
}

#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

#[cfg(feature = "mutants")]
pub(crate) use broken::is_broken;

#[cfg(feature = "mutants")]
mod broken {
    use std::cell::Cell;

    /// A rule that is broken, named after what happens instead.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Mutant {
        OneVariableForPromisedAndAccepted,
        PromiseGoesBack,
        PromiseOnlySlotsSeen,
        AcceptDoesNotPromise,
        PromiseFromTrimmedLog,
        AdoptNothing,
        AdoptLowest,
        FirstChunkIsAll,
        GapNotFilled,
        VoteCountedTwice,
        LearnerVotes,
        VoteOfAnOlderBallot,
        OwnVoteBeforeSync,
        PrepareBeforeSync,
        LearnedBeforeSync,
        ChosenOutOfOrder,
        HintAcrossBallots,
        HintBeforeTally,
        HintOfAllKnown,
        OutvotedLeaderGoesOn,
        LeaderOutlivesItsPromise,
        BatchInTwoSlots,
        LostBeforeSettled,
        ReadWithoutRound,
        ReadJoinsOlderRound,
        ReadBeforeOwnEntry,
        MarkReachesUnderSnapshot,
        LeaseCountedFromArrival,
        CandidacyNotQueued,
        RestartForgetsGrant,
        DriftNotSubtracted,
        DriftOfOnePercent,
        LeaseKeptAfterRelease,
        RenewedAfterRelease,
        ReleasePassesEveryGrant,
        LearnersGrantCounted,
        LeaseKeptWhenBallotBegun,
        OldGrantForNewest,
        MixedGrants,
        LeasedReadBeforeOwnEntry,
        GrantBelowBallot,
        GrantBeforeDurable,
        ExemptsAnyNode,
        OutbidLeaderGoesOn,
        RoundBeforeConfiguration,
        LeaderOutlivesConfiguration,
        CandidateOutlivesConfiguration,
        EntriesAboveConfigurationKept,
        ConfigurationAboveOpenSlots,
        ValuesAboveConfiguration,
        PhaseOneWithOldQuorum,
        PromiseInUnknownConfiguration,
        RemovedLeaderNamesNobody,
        StalledLeaderStays,
        TakesOverFromTheHappy,
        GreyCounts,
        LagNotSubtracted,
        SilenceNeverDoubles,
        HandsOverUndrained,
        RemovedMayCampaign,
        TombstoneAtOnce,
        LeaseOfTheOwnFile,
        GrantCountedByRulingLease,
        StoreVersionLowered,
        StoreVersionUnheardOf,
        LeaseOfTheOldQuorum,
        ElectionsOfOthersForgotten,
        FullLeaderStepsDown,
        TimersOutliveTheBallot,
    }

    impl Mutant {
        pub const ALL: [Mutant; 69] = [
            Mutant::OneVariableForPromisedAndAccepted,
            Mutant::PromiseGoesBack,
            Mutant::PromiseOnlySlotsSeen,
            Mutant::AcceptDoesNotPromise,
            Mutant::PromiseFromTrimmedLog,
            Mutant::AdoptNothing,
            Mutant::AdoptLowest,
            Mutant::FirstChunkIsAll,
            Mutant::GapNotFilled,
            Mutant::VoteCountedTwice,
            Mutant::LearnerVotes,
            Mutant::VoteOfAnOlderBallot,
            Mutant::OwnVoteBeforeSync,
            Mutant::PrepareBeforeSync,
            Mutant::LearnedBeforeSync,
            Mutant::ChosenOutOfOrder,
            Mutant::HintAcrossBallots,
            Mutant::HintBeforeTally,
            Mutant::HintOfAllKnown,
            Mutant::OutvotedLeaderGoesOn,
            Mutant::LeaderOutlivesItsPromise,
            Mutant::BatchInTwoSlots,
            Mutant::LostBeforeSettled,
            Mutant::ReadWithoutRound,
            Mutant::ReadJoinsOlderRound,
            Mutant::ReadBeforeOwnEntry,
            Mutant::MarkReachesUnderSnapshot,
            Mutant::LeaseCountedFromArrival,
            Mutant::CandidacyNotQueued,
            Mutant::RestartForgetsGrant,
            Mutant::DriftNotSubtracted,
            Mutant::DriftOfOnePercent,
            Mutant::LeaseKeptAfterRelease,
            Mutant::RenewedAfterRelease,
            Mutant::ReleasePassesEveryGrant,
            Mutant::LearnersGrantCounted,
            Mutant::LeaseKeptWhenBallotBegun,
            Mutant::OldGrantForNewest,
            Mutant::MixedGrants,
            Mutant::LeasedReadBeforeOwnEntry,
            Mutant::GrantBelowBallot,
            Mutant::GrantBeforeDurable,
            Mutant::ExemptsAnyNode,
            Mutant::OutbidLeaderGoesOn,
            Mutant::RoundBeforeConfiguration,
            Mutant::LeaderOutlivesConfiguration,
            Mutant::CandidateOutlivesConfiguration,
            Mutant::EntriesAboveConfigurationKept,
            Mutant::ConfigurationAboveOpenSlots,
            Mutant::ValuesAboveConfiguration,
            Mutant::PhaseOneWithOldQuorum,
            Mutant::PromiseInUnknownConfiguration,
            Mutant::RemovedLeaderNamesNobody,
            Mutant::StalledLeaderStays,
            Mutant::TakesOverFromTheHappy,
            Mutant::GreyCounts,
            Mutant::LagNotSubtracted,
            Mutant::SilenceNeverDoubles,
            Mutant::HandsOverUndrained,
            Mutant::RemovedMayCampaign,
            Mutant::TombstoneAtOnce,
            Mutant::LeaseOfTheOwnFile,
            Mutant::GrantCountedByRulingLease,
            Mutant::StoreVersionLowered,
            Mutant::StoreVersionUnheardOf,
            Mutant::LeaseOfTheOldQuorum,
            Mutant::ElectionsOfOthersForgotten,
            Mutant::FullLeaderStepsDown,
            Mutant::TimersOutliveTheBallot,
        ];
    }

    thread_local! {
        static BROKEN: Cell<u128> = const { Cell::new(0) };
    }

    /// Breaks these rules for every replica of the calling thread, and mends all others.
    pub fn break_rules(mutants: &[Mutant]) {
        BROKEN.set(mutants.iter().fold(0, |broken, mutant| broken | 1 << *mutant as u128));
    }

    pub(crate) fn is_broken(mutant: Mutant) -> bool {
        BROKEN.get() & 1 << mutant as u128 != 0
    }

    const _: () = assert!(Mutant::ALL.len() <= 128, "a bit each");
}
