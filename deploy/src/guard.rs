//! The quorum guard: before anything takes nodes away, count what would be left, from what the
//! nodes say now and not from the inventory. A voter counts when it runs, has caught up, and could
//! accept; one that was not reached does not.
//!
//! It must not refuse too much either: taking away a node that is down already, or one that does
//! not vote, costs nothing.

use std::collections::BTreeSet;
use std::fmt;

use monitoring::status::NodeStatus;

use crate::facts::Facts;

/// A node as the guard sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub id: u32,
    pub name: String,
    pub standing: Standing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    CaughtUp,
    /// By so many slots.
    Behind(u64),
    /// In its own words.
    CannotAccept(String),
    Down,
    Unreachable,
}

/// Why taking nodes away is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub taken: Vec<String>,
    pub voters: usize,
    pub needed: usize,
    pub left: usize,
    /// Voters that do not count, and why, taken ones aside.
    pub weak: Vec<Voter>,
}

/// The voters of the cluster: as the newest configuration that any node reports has them, or, when
/// none reports, as the inventory has them.
pub fn voters(
    hosts: &[hosts::Host],
    facts: &[(u32, Option<&Facts>)],
    max_lag_slots: u64,
) -> Vec<Voter> {
    let found = |id: u32| facts.iter().find(|(of, _)| *of == id).map(|(_, facts)| *facts);
    let newest = facts
        .iter()
        .filter_map(|(_, facts)| facts.and_then(|facts| facts.status.as_ref()))
        .max_by_key(|status| status.configuration.number);
    let chosen = facts
        .iter()
        .filter_map(|(_, facts)| facts.and_then(|facts| facts.status.as_ref()))
        .map(|status| status.chosen_slot)
        .max()
        .unwrap_or(0);
    let members: Vec<(u32, String)> = match newest {
        Some(status) if !status.configuration.members.is_empty() => status
            .configuration
            .voters()
            .map(|member| (member.id, status.configuration.name_of(member.id)))
            .collect(),
        _ => hosts
            .iter()
            .filter(|host| host.role == hosts::Role::Voter)
            .map(|host| (host.id, host.name.clone()))
            .collect(),
    };
    members
        .into_iter()
        .map(|(id, name)| {
            let standing = match found(id) {
                None | Some(None) => Standing::Unreachable,
                Some(Some(facts)) => standing(facts.status.as_ref(), chosen, max_lag_slots),
            };
            Voter { id, name, standing }
        })
        .collect()
}

fn standing(status: Option<&NodeStatus>, chosen: u64, max_lag_slots: u64) -> Standing {
    let Some(status) = status else { return Standing::Down };
    let behind = chosen.saturating_sub(status.applied_slot);
    if behind > max_lag_slots {
        return Standing::Behind(behind);
    }
    if !status.can_accept {
        let reason = status.can_accept_reason.clone();
        return Standing::CannotAccept(reason.unwrap_or_else(|| "cannot accept".to_owned()));
    }
    Standing::CaughtUp
}

/// May these nodes be taken away together? Allowed when a quorum of caught-up voters stays, or when
/// none of them counted in the first place.
pub fn may_take(voters: &[Voter], taken: &BTreeSet<u32>) -> Result<(), Refusal> {
    let counts = |voter: &&Voter| voter.standing == Standing::CaughtUp;
    let needed = voters.len() / 2 + 1;
    let left = voters.iter().filter(|voter| !taken.contains(&voter.id)).filter(counts).count();
    let costs = voters.iter().filter(|voter| taken.contains(&voter.id)).any(|voter| counts(&voter));
    if left >= needed || !costs {
        return Ok(());
    }
    Err(Refusal {
        taken: names(voters, |voter| taken.contains(&voter.id)),
        voters: voters.len(),
        needed,
        left,
        weak: voters
            .iter()
            .filter(|voter| !taken.contains(&voter.id) && !counts(voter))
            .cloned()
            .collect(),
    })
}

fn names(voters: &[Voter], which: impl Fn(&Voter) -> bool) -> Vec<String> {
    voters.iter().filter(|voter| which(voter)).map(|voter| voter.name.clone()).collect()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for voter in &self.weak {
            write!(f, "{} {}; ", voter.name, voter.standing)?;
        }
        write!(
            f,
            "stopping {} leaves {} caught-up voter{} of {}, needs {}",
            self.taken.join(" and "),
            self.left,
            if self.left == 1 { "" } else { "s" },
            self.voters,
            self.needed
        )
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::CaughtUp => f.write_str("has caught up"),
            Standing::Behind(slots) => write!(f, "is {slots} slots behind"),
            Standing::CannotAccept(reason) => write!(f, "cannot accept ({reason})"),
            Standing::Down => f.write_str("is down"),
            Standing::Unreachable => f.write_str("is not reachable"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(standings: &[Standing]) -> Vec<Voter> {
        let voter = |(index, standing): (usize, &Standing)| {
            let id = u32::try_from(index).unwrap() + 1;
            Voter { id, name: format!("n{id}"), standing: standing.clone() }
        };
        standings.iter().enumerate().map(voter).collect()
    }

    fn check(standings: &[Standing], taken: &[u32], expect: Result<(), &str>) {
        let taken = taken.iter().copied().collect();
        let said = may_take(&cluster(standings), &taken).map_err(|refusal| refusal.to_string());
        assert_eq!(said, expect.map_err(str::to_owned));
    }

    use Standing::{Behind, CannotAccept, CaughtUp, Down, Unreachable};

    #[test]
    fn pitfall_97_a_selection_beyond_the_quorum_is_refused() {
        check(&[CaughtUp, CaughtUp, CaughtUp], &[1], Ok(()));
        check(
            &[CaughtUp, CaughtUp, CaughtUp],
            &[1, 2],
            Err("stopping n1 and n2 leaves 1 caught-up voter of 3, needs 2"),
        );
        check(
            &[CaughtUp, CaughtUp, CaughtUp],
            &[1, 2, 3],
            Err("stopping n1 and n2 and n3 leaves 0 caught-up voters of 3, needs 2"),
        );
    }

    #[test]
    fn pitfall_47_a_voter_that_is_behind_does_not_count() {
        check(
            &[CaughtUp, Behind(4812), CaughtUp],
            &[1],
            Err("n2 is 4812 slots behind; stopping n1 leaves 1 caught-up voter of 3, needs 2"),
        );
        check(
            &[CaughtUp, Unreachable, CannotAccept("disk full".into()), CaughtUp, CaughtUp],
            &[1],
            Err("n2 is not reachable; n3 cannot accept (disk full); \
                 stopping n1 leaves 2 caught-up voters of 5, needs 3"),
        );
    }

    #[test]
    fn what_does_not_count_may_always_go() {
        check(&[CaughtUp, Down, CaughtUp], &[2], Ok(()));
        check(&[CaughtUp, Down, Down], &[2], Ok(()));
        check(&[CaughtUp, CaughtUp, CaughtUp], &[9], Ok(()));
    }
}
