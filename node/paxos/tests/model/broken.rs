//! Which model shows the harm of which broken rule. Bounds of their own where the shortest schedule
//! would drown in what else can happen: the order in which ballots begin is given, or one more
//! thing is left out.

#![allow(dead_code, unused_imports, reason = "for `mutants`, not for the models themselves")]

use paxos::Mutant;

use super::bounds::{
    Bounds, CRASH, HINTS, LEASE, LEASE_DRIFT, LEASE_HANDOVER, LEASE_LATE, LEASE_RESTART, NOTHING,
    READS, SHRINK, SMALL_GROUP,
};

/// No hunt takes more states than this.
pub const STATES_MAX: usize = 600_000;

const DUEL: Bounds = Bounds { name: "paxos: two ballots", batches: 2, ..NOTHING };
const LEADER_GOES_ON: Bounds = Bounds {
    name: "membership: {1,2} to {1,3,4}, one ballot",
    order: &[1],
    ballots: 1,
    ..SMALL_GROUP
};
const CANDIDATE_GOES_ON: Bounds = Bounds {
    name: "membership: {1,2,3} to {1,2}, the third begins",
    order: &[1, 3],
    batches: 0,
    ..SHRINK
};
const LEARNER: Bounds =
    Bounds { name: "leases: a learner", learners: &[4], order: &[1, 2], ..LEASE };
const ORDERED: Bounds = Bounds { name: "leases: two ballots", order: &[1, 2], ..LEASE };
const ORDERED_RESTART: Bounds =
    Bounds { name: "leases: a power failure", order: &[1, 2], ..LEASE_RESTART };
const ORDERED_HANDOVER: Bounds =
    Bounds { name: "leases: a handover", order: &[1, 2], ..LEASE_HANDOVER };
const ORDERED_DRIFT: Bounds =
    Bounds { name: "leases: drift at the bound", order: &[1, 2], ..LEASE_DRIFT };
const ORDERED_LATE: Bounds = Bounds { name: "leases: late grants", order: &[1, 2], ..LEASE_LATE };

/// The model that shows the harm of this mutant, if one does.
pub fn model_for(mutant: Mutant) -> Option<&'static Bounds> {
    let bounds = match mutant {
        Mutant::OneVariableForPromisedAndAccepted
        | Mutant::AcceptDoesNotPromise
        | Mutant::AdoptNothing => &DUEL,
        Mutant::HintAcrossBallots | Mutant::LeaderOutlivesItsPromise => &HINTS,
        Mutant::OwnVoteBeforeSync | Mutant::PrepareBeforeSync => &CRASH,
        Mutant::ReadWithoutRound | Mutant::ReadJoinsOlderRound | Mutant::ReadBeforeOwnEntry => {
            &READS
        }
        Mutant::EntriesAboveConfigurationKept
        | Mutant::ConfigurationAboveOpenSlots
        | Mutant::ValuesAboveConfiguration
        | Mutant::PromiseInUnknownConfiguration => &SHRINK,
        Mutant::LeaderOutlivesConfiguration => &LEADER_GOES_ON,
        Mutant::CandidateOutlivesConfiguration => &CANDIDATE_GOES_ON,
        Mutant::CandidacyNotQueued | Mutant::ExemptsAnyNode | Mutant::LeasedReadBeforeOwnEntry => {
            &ORDERED
        }
        Mutant::RestartForgetsGrant => &ORDERED_RESTART,
        Mutant::DriftNotSubtracted | Mutant::DriftOfOnePercent => &ORDERED_DRIFT,
        Mutant::LeaseKeptAfterRelease | Mutant::RenewedAfterRelease => &ORDERED_HANDOVER,
        Mutant::LearnersGrantCounted => &LEARNER,
        Mutant::LeaseCountedFromArrival | Mutant::OldGrantForNewest | Mutant::MixedGrants => {
            &ORDERED_LATE
        }
        _ => return None,
    };
    Some(bounds)
}

/// The same bounds when nothing is broken, each once.
pub fn models() -> Vec<&'static Bounds> {
    let mut models: Vec<&Bounds> = Mutant::ALL.into_iter().filter_map(model_for).collect();
    models.sort_by_key(|bounds| bounds.name);
    models.dedup_by_key(|bounds| bounds.name);
    models
}
